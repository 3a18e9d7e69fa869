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
import type { z } from "zod";
import { closestWord } from "./closest_word.ts";
import { BackupError } from "./errors.ts";

/**
 * Reads a configuration by its schema.
 *
 * @param where What to call it in errors, such as its path.
 * @param hint What helps with any value that is wrong.
 * @throws {BackupError} (config) Naming the file, the line, the key, and what is expected there.
 */
export function parseBySchema<T>(schema: z.ZodType<T>, text: string, where: string, hint: string): T {
  const parsed = schema.safeParse(parseJsonc(text, where), { error: wordsFor });
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  // Where a key is mistyped, the one that was meant is missing, too.
  const issue = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0]!;
  throw new BackupError(
    `Cannot use configuration ${where}: ${placeInText(text, issue)}${messageOf(issue)}`,
    { kind: "config", hint },
  );
}

/** What is said of keys that are not there or not known; undefined where zod's own words do. */
const wordsFor: z.core.$ZodErrorMap = (issue) => {
  if (issue.code === "invalid_type" && issue.input === undefined) return "is missing";
  if (issue.code !== "unrecognized_keys") return undefined;
  const known = Object.keys((issue.inst as z.ZodObject).shape);
  const keys = issue.keys.map((key) => {
    const meant = closestWord(key, known);
    return `${JSON.stringify(key)}${meant === undefined ? "" : ` (did you mean "${meant}"?)`}`;
  });
  return `Unrecognized key${keys.length === 1 ? "" : "s"}: ${keys.join(", ")}`;
};

/** What is wrong, of a key what is wrong with it. */
function messageOf(issue: z.core.$ZodIssue): string {
  return (issue.code === "invalid_key" ? issue.issues[0] : issue)?.message ?? issue.message;
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

/** JSON lets a key stand twice and takes the last: a configuration must not say two things. */
function refuseTwice(node: Node, text: string, where: string): void {
  if (node.type === "object") {
    const seen = new Set<unknown>();
    for (const property of node.children ?? []) {
      const key = property.children?.[0]?.value;
      if (seen.has(key) || key === "__proto__") {
        throw new BackupError(
          `Cannot use configuration ${where}: line ${lineOf(text, property.offset)}: key ${
            JSON.stringify(key)
          } ${key === "__proto__" ? "is not a key" : "stands there twice"}`,
          { kind: "config", hint: key === "__proto__" ? "remove it" : "remove one of them" },
        );
      }
      seen.add(key);
    }
  }
  for (const child of node.children ?? []) refuseTwice(child, text, where);
}

/** Where in a configuration's text an issue lies: `line 3: hubs.home.signers: `. */
function placeInText(text: string, issue: z.core.$ZodIssue): string {
  const path = issue.path.map((step) => typeof step === "symbol" ? String(step) : step);
  const tree = parseTree(text);
  // An issue about a key that is not known lies in what the key stands in.
  const steps = [...path, ...issue.code === "unrecognized_keys" ? issue.keys.slice(0, 1) : []];
  // Of a key that is missing: where what it belongs into begins.
  while (tree && steps.length > 0 && !findNodeAtLocation(tree, steps)) steps.pop();
  const node = tree && findNodeAtLocation(tree, steps);
  const line = node ? `line ${lineOf(text, node.offset)}: ` : "";
  return path.length === 0 ? line : `${line}${path.join(".")}: `;
}

const lineOf = (text: string, offset: number): number => text.slice(0, offset).split("\n").length;
