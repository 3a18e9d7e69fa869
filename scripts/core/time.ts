/**
 * Lengths of time in milliseconds, as `Date` counts.
 *
 * @module
 */

/** How far ahead of the clock is none: of two runs within a second, the later has an id that is a moment ahead. */
export const AHEAD_MS_MAX = 60_000;
/** An hour. */
export const HOUR_MS = 3_600_000;
/** 24 hours: a day of the calendar may have one more or less (zone.ts). */
export const DAY_MS = 24 * HOUR_MS;
