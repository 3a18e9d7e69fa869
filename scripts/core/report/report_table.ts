/**
 * What several parts of the report are made of.
 *
 * @module
 */

import { type Html, markup } from "../html.ts";
import type { Zone } from "../zone.ts";

/** A table that scrolls by itself where it is too wide. @param numbers The columns that are set to the right. */
export function table(
  caption: string,
  heads: readonly string[],
  rows: readonly (readonly (string | Html)[])[],
  numbers: readonly number[] = [],
): Html {
  const nameOf = (index: number) => numbers.includes(index) ? "number" : "";
  return markup`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table class="rows">
<caption>${caption}</caption>
<thead><tr>${
    heads.map((head, index) => markup`<th scope="col" class="${nameOf(index)}">${head}</th>`)
  }</tr></thead>
<tbody>${
    rows.map((cells) =>
      markup`<tr>${cells.map((cell, index) => markup`<td class="${nameOf(index)}">${cell}</td>`)}</tr>\n`
    )
  }</tbody>
</table></div>`;
}

/** A cell's text, and what is less important under it. */
export const cell = (text: string | Html, under: string): Html =>
  markup`${text}<br><span class="soft small">${under}</span>`;

/** A time that is not broken over lines. */
export const moment = (zone: Zone, time: Date): Html =>
  markup`<time datetime="${time.toISOString()}">${zone.minute(time)}</time>`;

/** Words that say that something is right, or wrong: with a sign, since colour alone does not tell. */
export const verdict = (isRight: boolean, words: string): Html =>
  markup`<span class="${isRight ? "fine" : "wrong"}">${words}</span>`;
