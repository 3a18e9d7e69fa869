/**
 * Patterns of places, as `--only` takes them.
 *
 * @module
 */

import picomatch from "picomatch";
import { BackupError, reasonOf } from "./errors.ts";
import { cleanText } from "./format.ts";
import type { Place } from "./place.ts";

/**
 * Whether a place is meant by one of the patterns: it matches, or lies inside a folder that does.
 *
 * @throws {BackupError} (usage) If a pattern cannot be one.
 */
export function placeMatcher(patterns: readonly string[]): (place: Place) => boolean {
  const matchers = patterns.map((pattern) => {
    try {
      return picomatch(pattern.replace(/\/+$/, ""), { dot: true });
    } catch (error) {
      throw new BackupError(`Cannot use pattern ${JSON.stringify(cleanText(pattern))}: ${reasonOf(error)}`, {
        kind: "usage",
        hint: "patterns look like home/.hapi/*.json",
      });
    }
  });
  return (place) => {
    for (let path: string = place; path !== ""; path = path.slice(0, Math.max(0, path.lastIndexOf("/")))) {
      if (matchers.some((matches) => matches(path))) return true;
    }
    return false;
  };
}

/** The pattern that means just this place, and what lies inside it. */
export const patternOfPlace = (place: string): string => place.replace(/[\\*?[\]{}()!+@|^$]/g, "\\$&");
