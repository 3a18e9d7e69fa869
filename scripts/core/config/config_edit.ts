/**
 * Changes to the lists in a configuration's text that leave its comments and its layout as they are: a comment behind
 * an element stays behind that element.
 *
 * @module
 */

import { applyEdits, findNodeAtLocation, type JSONPath, modify, type Node, parseTree } from "jsonc-parser";

const FORMAT = { formattingOptions: { insertSpaces: true, tabSize: 2 } };

/** Sets a value; undefined removes the key. */
export function setInText(text: string, path: JSONPath, value: unknown): string {
  return applyEdits(text, modify(text, path, value, FORMAT));
}

/** Adds a value at the end of a list, which is made if it is not there. */
export function appendInText(text: string, path: JSONPath, value: unknown): string {
  const last = elementsAt(text, path).at(-1);
  if (!last) return setInText(text, path, [value]);
  const end = last.offset + last.length;
  const { before, after } = lineAround(text, last);
  const added = JSON.stringify(value);
  if (!isAlone(before, after)) return `${text.slice(0, end)}, ${added}${text.slice(end)}`;
  const rest = after.replace(/^(\s*),/, "$1");
  return `${text.slice(0, end)},${rest}\n${before}${added}${text.slice(end + after.length)}`;
}

/** Removes an element of a list; where it has a line to itself, that line with the comment on it. */
export function removeInText(text: string, path: JSONPath, index: number): string {
  const elements = elementsAt(text, path);
  const element = elements[index]!;
  const end = element.offset + element.length;
  const { before, after } = lineAround(text, element);
  if (isAlone(before, after)) {
    return text.slice(0, element.offset - before.length) + text.slice(end + after.length + 1);
  }
  const next = elements[index + 1];
  const previous = elements[index - 1];
  if (next) return text.slice(0, element.offset) + text.slice(next.offset);
  if (previous) return text.slice(0, previous.offset + previous.length) + text.slice(end);
  return text.slice(0, element.offset) + text.slice(end);
}

function elementsAt(text: string, path: JSONPath): readonly Node[] {
  const tree = parseTree(text, [], { allowTrailingComma: true });
  return (tree && findNodeAtLocation(tree, path))?.children ?? [];
}

/** What stands on an element's line before and after it. */
function lineAround(
  text: string,
  { offset, length }: Node,
): { readonly before: string; readonly after: string } {
  const start = text.lastIndexOf("\n", offset - 1) + 1;
  const newline = text.indexOf("\n", offset + length);
  return {
    before: text.slice(start, offset),
    after: text.slice(offset + length, newline < 0 ? text.length : newline),
  };
}

const isAlone = (before: string, after: string): boolean =>
  /^\s*$/.test(before) && /^\s*,?\s*(\/\/.*)?$/.test(after);
