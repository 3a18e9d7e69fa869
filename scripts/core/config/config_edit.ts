/**
 * Changes to the lists in a configuration's text that leave its comments and its layout as they are: a comment behind
 * an element stays behind that element.
 *
 * @module
 */

import type { ElementNode, MemberNode } from "@humanwhocodes/momoa";
import { treeOf, valueAt } from "../jsonc.ts";

/** Adds a value at the end of the list under a key, which is made if it is not there. */
export function appendInText(text: string, key: string, value: unknown): string {
  // On one line: a string has no line ends in JSON.
  const added = JSON.stringify(value, undefined, 1).replace(/\n */g, " ");
  const tree = treeOf(text, "that is changed");
  const list = valueAt(tree, [key]);
  if (list?.type === "Array") return insertLast(text, list.loc.start.offset, list.elements, added);
  const members = tree.type === "Object" ? tree.members : [];
  return insertLast(text, tree.loc.start.offset, members, `${JSON.stringify(key)}: [${added}]`);
}

/** @param start Where what holds the `items` begins: its bracket. */
function insertLast(text: string, start: number, items: readonly Item[], added: string): string {
  const last = items.at(-1);
  if (!last) return text.slice(0, start + 1) + added + text.slice(start + 1);
  const { end, hasComma, isFull } = behind(text, last);
  const before = lineBefore(text, last);
  if (!isBlank(before) && !isFull) {
    return text.slice(0, end) + (hasComma ? ` ${added},` : `, ${added}`) + text.slice(end);
  }
  const itself = last.loc.end.offset;
  const newline = text.includes("\r\n") ? "\r\n" : "\n";
  const line = newline + /^\s*/.exec(before)![0] + added + (hasComma ? "," : "");
  return text.slice(0, itself) + (hasComma ? "" : ",") + text.slice(itself, end) + line + text.slice(end);
}

/** Removes an element of the list under a key; where it has a line to itself, that line with the comment on it. */
export function removeInText(text: string, key: string, index: number): string {
  const list = valueAt(treeOf(text, "that is changed"), [key]);
  const elements = list?.type === "Array" ? list.elements : [];
  const element = elements[index]!;
  const start = element.loc.start.offset;
  const { end, hasComma } = behind(text, element);
  const below = hasComma ? undefined : COMMA_BELOW.exec(text.slice(end));
  const after = below ? below[1]! + text.slice(end + below[0].length) : text.slice(end);
  const before = lineBefore(text, element);
  const lineEnd = /^[ \t]*(?:\r\n|[\r\n]|$)/.exec(after);
  if (isBlank(before) && lineEnd) {
    return text.slice(0, start - before.length) + after.slice(lineEnd[0].length);
  }
  if (hasComma || below) return text.slice(0, start) + after.replace(/^[ \t]+/, "");
  const endBefore = elements[index - 1]?.loc.end.offset ?? start;
  const isNext = /^\s*,\s*$/.test(text.slice(endBefore, start));
  return text.slice(0, isNext ? endBefore : start) + after;
}

/** Something in a list or an object. */
type Item = Pick<ElementNode | MemberNode, "loc">;

/** What stands behind an item on its line and belongs to it. */
interface Behind {
  readonly end: number;
  readonly hasComma: boolean;
  /** Whether what comes to stand behind it on that line would take its comment. */
  readonly isFull: boolean;
}

/** A comment to its end, and no further or less far if only that lets the rest match. */
const BLOCK = String.raw`/\*(?:(?!\*/)[^])*\*/`;
const LINE = String.raw`//[^\r\n]*(?![^\r\n])`;
/** Comments; a comma; and behind that comments if no other item follows on the line, which they would be about. */
const BEHIND = new RegExp(
  String.raw`^(?:[ \t]*${BLOCK})*([ \t]*,)?((?:[ \t]*${BLOCK})*(?:[ \t]*${LINE})?(?=[ \t]*(?:[\r\n\]}]|$)))?`,
);
const COMMA_BELOW = new RegExp(String.raw`^((?:\s|${BLOCK}|${LINE})*),`);

function behind(text: string, { loc }: Item): Behind {
  const [all, comma, comments] = BEHIND.exec(text.slice(loc.end.offset))!;
  return {
    end: loc.end.offset + all.length,
    hasComma: comma !== undefined,
    isFull: comments !== undefined && comments !== "",
  };
}

/** What stands before an item on its line. */
function lineBefore(text: string, { loc }: Item): string {
  const before = text.slice(0, loc.start.offset);
  return before.slice(Math.max(before.lastIndexOf("\n"), before.lastIndexOf("\r")) + 1);
}

const isBlank = (text: string): boolean => text.trim() === "";
