/**
 * Configurations as text: JSON with comments, errors with the line that they are about.
 *
 * @module
 */

import {
  createScanner,
  findNodeAtLocation,
  getNodeValue,
  type Node,
  type ParseError,
  parseTree,
  printParseErrorCode,
} from "jsonc-parser";
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
  const checked = check(schema, parseJsonc(text, where), true);
  if (!("problem" in checked)) return checked.value;
  const { problem } = checked;
  throw new BackupError(
    `Cannot use configuration ${where}: ${placeInText(text, problem)}${problem.message}`,
    { kind: "config", hint },
  );
}

/** Reads JSON with comments and trailing commas. @throws {BackupError} (config) With line and column. */
function parseJsonc(text: string, where: string): unknown {
  refuseDeep(text, where);
  const errors: ParseError[] = [];
  const tree = parseTree(text, errors, { allowTrailingComma: true });
  const error = errors[0];
  if (error || !tree) {
    const at = error ? lineOf(text, error.offset) : 1;
    // Such as CommaExpected.
    const state = error
      ? printParseErrorCode(error.error).split(/(?=[A-Z])/).join(" ").toLowerCase()
      : "it is empty";
    throw new BackupError(`Cannot use configuration ${where}: line ${at} is not JSON (${state})`, {
      kind: "config",
      hint: "mend that line, or the one before it; comments and trailing commas are allowed",
    });
  }
  refuseTwice(tree, text, where);
  return getNodeValue(tree);
}

/** What is nested deeper than this is no configuration, and would take more stack than there is. */
const DEPTH_MAX = 100;

function refuseDeep(text: string, where: string): void {
  const scanner = createScanner(text, true);
  let depth = 0;
  for (scanner.scan(); scanner.getTokenOffset() < text.length; scanner.scan()) {
    const first = text[scanner.getTokenOffset()]!;
    if (first === "{" || first === "[") depth++;
    else if (first === "}" || first === "]") depth--;
    if (depth > DEPTH_MAX) {
      const line = lineOf(text, scanner.getTokenOffset());
      throw new BackupError(
        `Cannot use configuration ${where}: line ${line} is nested deeper than ${DEPTH_MAX}`,
        {
          kind: "config",
          hint: "remove what is not part of a configuration",
        },
      );
    }
  }
}

/** What every object of JavaScript has. */
const NO_KEYS: readonly unknown[] = ["__proto__", "constructor", "prototype"];

/** JSON lets a key stand twice and takes the last: a configuration must not say two things. */
function refuseTwice(node: Node, text: string, where: string): void {
  if (node.type === "object") {
    const seen = new Set<unknown>();
    for (const property of node.children ?? []) {
      const key = property.children?.[0]?.value;
      const isNoKey = NO_KEYS.includes(key);
      if (seen.has(key) || isNoKey) {
        throw new BackupError(
          `Cannot use configuration ${where}: line ${lineOf(text, property.offset)}: key ${
            JSON.stringify(key)
          } ${isNoKey ? "is not a key" : "stands there twice"}`,
          { kind: "config", hint: isNoKey ? "remove it, or use another name" : "remove one of them" },
        );
      }
      seen.add(key);
    }
  }
  for (const child of node.children ?? []) refuseTwice(child, text, where);
}

/** Where in a configuration's text a problem lies: `line 3: hubs.home.signers: `. */
function placeInText(text: string, problem: Problem): string {
  const path = problem.path.map(({ key }) => key as string | number);
  const tree = parseTree(text);
  const steps = [...path, ...problem.unknownKey === undefined ? [] : [problem.unknownKey]];
  // Of a key that is missing: where what it belongs into begins.
  while (tree && steps.length > 0 && !findNodeAtLocation(tree, steps)) steps.pop();
  const node = tree && findNodeAtLocation(tree, steps);
  const line = node ? `line ${lineOf(text, node.offset)}: ` : "";
  return path.length === 0 ? line : `${line}${path.join(".")}: `;
}

const lineOf = (text: string, offset: number): number => text.slice(0, offset).split("\n").length;
