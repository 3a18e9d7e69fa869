/**
 * Logs of JSON Lines: one JSON value a line.
 *
 * @module
 */

import { check, type Schema } from "./schema.ts";

/** The lines that are what they should be, in order. Others, such as one that a crash cut, are passed over. */
export function parseJsonLines<Line>(text: string, schema: Schema<Line>): Line[] {
  return text.split("\n").flatMap((line) => {
    try {
      const checked = check(schema, JSON.parse(line));
      return "value" in checked ? [checked.value] : [];
    } catch {
      return [];
    }
  });
}
