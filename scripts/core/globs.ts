/**
 * Patterns of places, as `--only` takes them.
 *
 * @module
 */

import picomatch from "picomatch";
import type { Place } from "./place.ts";

/** Whether a place is meant by one of the patterns: it matches, or lies inside a folder that does. */
export function placeMatcher(patterns: readonly string[]): (place: Place) => boolean {
  const matchers = patterns.map((pattern) => picomatch(pattern.replace(/\/+$/, ""), { dot: true }));
  return (place) => {
    for (let path: string = place; path !== ""; path = path.slice(0, Math.max(0, path.lastIndexOf("/")))) {
      if (matchers.some((matches) => matches(path))) return true;
    }
    return false;
  };
}

/** The pattern that means just this place, and what lies inside it. */
export const patternOfPlace = (place: string): string => place.replace(/[\\*?[\]{}()!+@|^$]/g, "\\$&");
