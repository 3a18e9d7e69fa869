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
import { BackupError } from "./errors.ts";

/** Reads JSON with comments and trailing commas. @throws {BackupError} (config) With line and column. */
export function parseJsonc(text: string, where: string): unknown {
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
export function placeInText(text: string, issue: z.core.$ZodIssue): string {
  const path = issue.path.map((step) => typeof step === "symbol" ? String(step) : step);
  const tree = parseTree(text);
  // An issue about a key that is not known lies in what the key stands in.
  const unknown = issue.code === "unrecognized_keys" ? issue.keys.slice(0, 1) : [];
  const node = tree && findNodeAtLocation(tree, [...path, ...unknown]);
  const line = node ? `line ${lineOf(text, node.offset)}: ` : "";
  return path.length === 0 ? line : `${line}${path.join(".")}: `;
}

const lineOf = (text: string, offset: number): number => text.slice(0, offset).split("\n").length;
