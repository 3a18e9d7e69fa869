/**
 * Lengths of time, in milliseconds where nothing else is said, as `Date` counts.
 *
 * @module
 */

/** An hour. */
export const HOUR_MS = 3_600_000;
/** 24 hours: a day of the calendar may have one more or less (zone.ts). */
export const DAY_MS = 24 * HOUR_MS;

/** Two runs within a second give the later one an id that is a moment ahead: up to so many seconds are no fault. */
const AHEAD_SECONDS_MAX = 60;

/** Whether what is so old, in seconds, is ahead of this machine's clock. */
export const isAhead = (ageSeconds: number): boolean => ageSeconds < -AHEAD_SECONDS_MAX;
