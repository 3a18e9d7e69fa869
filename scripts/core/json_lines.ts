/**
 * Logs of JSON Lines: one JSON value a line.
 *
 * @module
 */

import type { z } from "zod";

/** The lines that are what they should be, in order. Others, such as one that a crash cut, are passed over. */
export function parseJsonLines<Line>(text: string, schema: z.ZodType<Line>): Line[] {
  return text.split("\n").flatMap((line) => {
    try {
      return [schema.parse(JSON.parse(line))];
    } catch {
      return [];
    }
  });
}
