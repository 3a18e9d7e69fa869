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
  const end = last.loc.end.offset;
  const { before, after } = lineAround(text, last);
  if (!isAlone(before, after)) return `${text.slice(0, end)}, ${added}${text.slice(end)}`;
  const rest = after.replace(/^(\s*),/, "$1");
  return `${text.slice(0, end)},${rest}\n${before}${added}${text.slice(end + after.length)}`;
}

/** Removes an element of the list under a key; where it has a line to itself, that line with the comment on it. */
export function removeInText(text: string, key: string, index: number): string {
  const list = valueAt(treeOf(text, "that is changed"), [key]);
  const elements = list?.type === "Array" ? list.elements : [];
  const { loc } = elements[index]!;
  const [start, end] = [loc.start.offset, loc.end.offset];
  const { before, after } = lineAround(text, elements[index]!);
  if (isAlone(before, after)) {
    return text.slice(0, start - before.length) + text.slice(end + after.length + 1);
  }
  const next = elements[index + 1];
  const previous = elements[index - 1];
  if (next) return text.slice(0, start) + text.slice(next.loc.start.offset);
  if (previous) return text.slice(0, previous.loc.end.offset) + text.slice(end);
  return text.slice(0, start) + text.slice(end);
}

/** Something in a list or an object. */
type Item = Pick<ElementNode | MemberNode, "loc">;

/** What stands on an item's line before and after it. */
function lineAround(text: string, { loc }: Item): { readonly before: string; readonly after: string } {
  const start = text.lastIndexOf("\n", loc.start.offset - 1) + 1;
  const newline = text.indexOf("\n", loc.end.offset);
  return {
    before: text.slice(start, loc.start.offset),
    after: text.slice(loc.end.offset, newline < 0 ? text.length : newline),
  };
}

const isAlone = (before: string, after: string): boolean =>
  /^\s*$/.test(before) && /^\s*,?\s*(\/\/.*)?$/.test(after);
