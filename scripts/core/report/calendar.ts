/**
 * What days were like: good, suspect, failed, missing.
 *
 * @module
 */

import { timeOfSnapshotId } from "../names.ts";
import type { RunRecord } from "../status/run_record.ts";
import { HOUR_MS } from "../time.ts";
import { addDays, type Day, daysBetween, type Zone } from "../zone.ts";
import type { Moment } from "./history.ts";

/** How a run ended. */
export interface CalendarEvent {
  readonly time: Date;
  readonly outcome: "good" | "suspect" | "failed";
  /** What went wrong. */
  readonly troubles: readonly string[];
}

/**
 * What a day was like:
 * `good` - something good, and nothing suspect; `suspect` - a snapshot that does not count as good;
 * `failed` - runs, all of which failed; `missing` - no run, though one was due; `quiet` - no run, and none was due.
 */
export type DayState = "good" | "suspect" | "failed" | "missing" | "quiet";

/** One day: how its runs ended, and what that makes of it. */
export interface CalendarDay {
  readonly day: Day;
  readonly state: DayState;
  /** How many ended in each way. */
  readonly counts: Readonly<Record<CalendarEvent["outcome"], number>>;
  /** What went wrong, each thing once. */
  readonly troubles: readonly string[];
}

/** The snapshots of a set, and the runs that made none. */
export function eventsOfSnapshots(
  moments: readonly Moment[],
  runs: readonly RunRecord[],
): CalendarEvent[] {
  return [
    ...moments.map(({ id, suspicions }): CalendarEvent => ({
      time: timeOfSnapshotId(id),
      outcome: suspicions.length === 0 ? "good" : "suspect",
      troubles: suspicions,
    })),
    ...eventsOfRuns(runs.filter(({ ok }) => !ok)),
  ];
}

/** Runs, good and failed. */
export function eventsOfRuns(runs: readonly RunRecord[]): CalendarEvent[] {
  return runs.map(({ at, ok, message = "it failed" }) => ({
    time: new Date(at),
    outcome: ok ? "good" : "failed",
    troubles: ok ? [] : [message],
  }));
}

/**
 * The days from the first that anything is known of to today; none if nothing is known.
 *
 * @param maxAgeHours Something is due when the last good event is older.
 * @param earliest What was before this day is not told, but counts.
 */
export function calendarOf(
  events: readonly CalendarEvent[],
  maxAgeHours: number,
  now: Date,
  zone: Zone,
  earliest: Day,
): CalendarDay[] {
  const today = zone.dayOf(now);
  const byDay = Map.groupBy(events, ({ time }) => zone.dayOf(time));
  const first = [...byDay.keys()].filter((day) => day <= today).sort()[0];
  if (first === undefined) return [];
  let lastGoodMs = -Infinity;
  return daysBetween(first, today).map((day): CalendarDay => {
    const ofDay = byDay.get(day) ?? [];
    const counts = { good: 0, suspect: 0, failed: 0 };
    for (const { outcome, time } of ofDay) {
      counts[outcome]++;
      if (outcome === "good") lastGoodMs = Math.max(lastGoodMs, time.getTime());
    }
    const endMs = Math.min(now.getTime(), zone.startOf(addDays(day, 1)).getTime());
    const isDue = endMs - lastGoodMs > maxAgeHours * HOUR_MS;
    return {
      day,
      state: stateOf(counts, isDue),
      counts,
      troubles: [...new Set(ofDay.flatMap(({ troubles }) => troubles))],
    };
  }).filter(({ day }) => day >= earliest);
}

function stateOf(counts: CalendarDay["counts"], isDue: boolean): DayState {
  if (counts.suspect > 0) return "suspect";
  if (counts.good > 0) return "good";
  if (counts.failed > 0) return "failed";
  return isDue ? "missing" : "quiet";
}

/** Days in a row that were bad in the same way. */
export interface BadDays {
  readonly first: Day;
  readonly last: Day;
  readonly state: DayState;
  readonly troubles: readonly string[];
}

/** The days that someone should know of, newest first. A good day on which a run failed is one of them. */
export function badDays(days: readonly CalendarDay[]): BadDays[] {
  const bad: BadDays[] = [];
  for (const { day, state, counts, troubles } of days) {
    if (state === "quiet" || (state === "good" && counts.failed === 0)) continue;
    const before = bad.at(-1);
    const isMore = before?.last === addDays(day, -1) && before.state === state &&
      before.troubles.join("\n") === troubles.join("\n");
    if (isMore) bad[bad.length - 1] = { ...before, last: day };
    else bad.push({ first: day, last: day, state, troubles });
  }
  return bad.reverse();
}
