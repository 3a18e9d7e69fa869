/**
 * Configurations as text: JSON with comments, errors with the line that they are about.
 *
 * @module
 */

import { evaluate, type MemberNode, parse, type ValueNode } from "@humanwhocodes/momoa";
import { BackupError } from "./errors.ts";
import { check, type Problem, type Schema } from "./schema.ts";

/**
 * Reads a configuration by its schema.
 *
 * @param where What to call it in errors, such as its path.
 * @param hint What helps with any value that is wrong.
 * @throws {BackupError} (config) Naming the file, the line, the key, and what is expected there.
 */
export function parseBySchema<T>(schema: Schema<T>, text: string, where: string, hint: string): T {
  const tree = treeOf(text, where);
  refuseTwice(tree, where);
  const checked = check(schema, evaluate(tree), true);
  if (!("problem" in checked)) return checked.value;
  const { problem } = checked;
  throw new BackupError(
    `Cannot use configuration ${where}: ${placeInText(tree, problem)}${problem.message}`,
    { kind: "config", hint },
  );
}

const SYNTAX = { mode: "json", allowTrailingCommas: true } as const;
/** What is nested deeper than this is no configuration, and would take more stack than there is. */
const DEPTH_MAX = 100;
/** Brackets; and strings and comments, in which brackets are none. What is not closed goes as far as it may. */
// deno-lint-ignore no-control-regex -- JSON's own rule: these stand in no string.
const PIECE = /"[^"\\\0-\x1f]*(?:\\[^\0-\x1f][^"\\\0-\x1f]*)*("?)|\/\/[^\r\n]*|\/\*[^]*?(?:\*\/|$)|[[\]{}]/g;
/** Belongs nowhere in JSON. */
const WRONG = "\0";

/**
 * What a configuration's text says, and where.
 *
 * @param where What to call it in errors.
 * @throws {BackupError} (config) With the line.
 */
export function treeOf(text: string, where: string): ValueNode {
  const bare = withoutComments(text, where);
  try {
    return parse(bare, SYNTAX).body;
  } catch {
    throw notJson(text, faultIn(bare), where);
  }
}

/**
 * The text with spaces for comments, so that all else is where it was: the parser would call itself for each comment
 * in a row. It lets strings hold line ends and tabs, which JSON does not: there is something wrong where they are.
 */
function withoutComments(text: string, where: string): string {
  let depth = 0;
  return text.replace(PIECE, (piece, quote: string | undefined, offset: number) => {
    const [first, second] = piece;
    if (first === '"') return quote === '"' ? piece : " ".repeat(piece.length) + WRONG;
    if (first === "/") {
      const isClosed = second === "/" || (piece.length >= "/**/".length && piece.endsWith("*/"));
      return isClosed ? piece.replace(/[^\r\n]/g, " ") : piece;
    }
    depth += first === "{" || first === "[" ? 1 : -1;
    if (depth <= DEPTH_MAX) return piece;
    throw new BackupError(
      `Cannot use configuration ${where}: line ${lineOf(text, offset)} is nested deeper than ${DEPTH_MAX}`,
      { kind: "config", hint: "remove what is not part of a configuration" },
    );
  });
}

/** Where a text that is no JSON stops being it: its length, if that is its end. */
function faultIn(bare: string): number {
  try {
    // Of a text that ends too early the parser says where its last token begins.
    parse(bare + WRONG, SYNTAX);
  } catch (error) {
    return (error as { offset: number }).offset;
  }
  return bare.length;
}

/** Tells no more than one character: it may be of a secret that belongs elsewhere. */
function notJson(text: string, offset: number, where: string): BackupError {
  const line = lineOf(text, offset);
  return new BackupError(
    `Cannot use configuration ${where}: line ${line} is not JSON (${faultAt(text, offset)})`,
    {
      kind: "config",
      hint: "mend that line, or the one before it; comments and trailing commas are allowed",
    },
  );
}

function faultAt(text: string, offset: number): string {
  const found = text[offset];
  if (found === undefined) return "it ends too early";
  if (found === "\n" || found === "\r") return "unexpected end of the line";
  // Such as the space of a web page that the text came from, which looks like one.
  const isVisible = /[!-~]/.test(found);
  const code = text.codePointAt(offset)!.toString(16).toUpperCase().padStart(4, "0");
  return `unexpected ${isVisible ? JSON.stringify(found) : `U+${code}`}`;
}

const lineOf = (text: string, offset: number): number => text.slice(0, offset).split(/\r\n?|\n/).length;

/** The value at a path of keys and indexes; undefined if there is none. */
export function valueAt(tree: ValueNode, path: readonly (string | number)[]): ValueNode | undefined {
  let node: ValueNode | undefined = tree;
  for (const step of path) {
    if (node?.type === "Object") node = node.members.find(({ name }) => keyOf(name) === step)?.value;
    else node = node?.type === "Array" ? node.elements[Number(step)]?.value : undefined;
  }
  return node;
}

const keyOf = (name: MemberNode["name"]): string => name.type === "String" ? name.value : name.name;

/** What every object of JavaScript has. */
const NO_KEYS: readonly string[] = ["__proto__", "constructor", "prototype"];

/** JSON lets a key stand twice and takes the last: a configuration must not say two things. */
function refuseTwice(node: ValueNode, where: string): void {
  if (node.type === "Array") { for (const { value } of node.elements) refuseTwice(value, where); }
  if (node.type !== "Object") return;
  const seen = new Set<string>();
  for (const { name, value, loc } of node.members) {
    const key = keyOf(name);
    const isNoKey = NO_KEYS.includes(key);
    if (seen.has(key) || isNoKey) {
      throw new BackupError(
        `Cannot use configuration ${where}: line ${loc.start.line}: key ${JSON.stringify(key)} ${
          isNoKey ? "is not a key" : "stands there twice"
        }`,
        { kind: "config", hint: isNoKey ? "remove it, or use another name" : "remove one of them" },
      );
    }
    seen.add(key);
    refuseTwice(value, where);
  }
}

/** Where in a configuration's text a problem lies: `line 3: hubs.home.signers: `. */
function placeInText(tree: ValueNode, problem: Problem): string {
  const path = problem.path.map(({ key }) => key as string | number);
  const steps = [...path, ...problem.unknownKey === undefined ? [] : [problem.unknownKey]];
  // Of a key that is missing: where what it belongs into begins.
  while (!valueAt(tree, steps)) steps.pop();
  const line = `line ${valueAt(tree, steps)!.loc.start.line}: `;
  return path.length === 0 ? line : `${line}${path.join(".")}: `;
}
