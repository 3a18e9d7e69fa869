/**
 * Configurations as text: JSON with comments, errors with the line that they are about.
 *
 * @module
 */

import { evaluate, type MemberNode, parse, tokenize, type ValueNode } from "@humanwhocodes/momoa";
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

const SYNTAX = { mode: "jsonc", allowTrailingCommas: true } as const;
/** What is nested deeper than this is no configuration, and would take more stack than there is. */
const DEPTH_MAX = 100;

/**
 * What a configuration's text says, and where.
 *
 * @param where What to call it in errors.
 * @throws {BackupError} (config) With the line.
 */
export function treeOf(text: string, where: string): ValueNode {
  try {
    let depth = 0;
    for (const { type, loc } of tokenize(text, SYNTAX)) {
      if (type === "LBrace" || type === "LBracket") depth++;
      else if (type === "RBrace" || type === "RBracket") depth--;
      if (depth > DEPTH_MAX) {
        throw new BackupError(
          `Cannot use configuration ${where}: line ${loc.start.line} is nested deeper than ${DEPTH_MAX}`,
          { kind: "config", hint: "remove what is not part of a configuration" },
        );
      }
    }
    return parse(text, SYNTAX).body;
  } catch (error) {
    if (error instanceof BackupError) throw error;
    // Which the parser's errors have. No more than one character: it may be of a secret that belongs elsewhere.
    const { line, offset } = error as { line?: number; offset?: number };
    const found = text[offset ?? text.length];
    const state = found === undefined ? "it ends too early" : `unexpected ${JSON.stringify(found)}`;
    throw new BackupError(`Cannot use configuration ${where}: line ${line ?? 1} is not JSON (${state})`, {
      kind: "config",
      hint: "mend that line, or the one before it; comments and trailing commas are allowed",
    });
  }
}

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
