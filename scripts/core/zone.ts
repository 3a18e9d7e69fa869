/**
 * Days and times as a clock on the wall of one time zone shows them.
 *
 * @module
 */

import { DAY_MS } from "./time.ts";

/** A day of the calendar, `2026-11-25`. Days sort by time as text. */
export type Day = string;

/** A time zone. */
export interface Zone {
  /** `Europe/Berlin`. */
  readonly name: string;
  /** The zone's offset at a time, `GMT+1`. */
  label(time: Date): string;
  /** The day that a time falls on. */
  dayOf(time: Date): Day;
  /** When a day begins: not always at midnight, and not always 24 hours after the day before. */
  startOf(day: Day): Date;
  /** `25 Nov 2026, 06:00`. */
  minute(time: Date): string;
  /** The same without the year. */
  shortMinute(time: Date): string;
}

/** What no day of four digits shows, such as a clock that ran wild stamps, is shown as the first or the last that one does. */
const FIRST_MS = Date.UTC(1970, 0, 2);
const LAST_MS = Date.UTC(9999, 11, 30);

/** @param name An IANA name, such as `Europe/Berlin`. */
export function makeZone(name: string): Zone {
  const parts = new Intl.DateTimeFormat("en-GB", {
    timeZone: name,
    hourCycle: "h23",
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    timeZoneName: "short",
  });
  const partsOf = (time: Date) =>
    Object.fromEntries(
      parts.formatToParts(Math.max(FIRST_MS, Math.min(time.getTime(), LAST_MS)))
        .map(({ type, value }) => [type, value]),
    );
  const wallMs = (time: Date) => {
    const { year, month, day, hour, minute, second } = partsOf(time);
    return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  };
  const dayOf = (time: Date) => {
    const { year, month, day } = partsOf(time);
    return `${year}-${month}-${day}`;
  };
  const clock = (time: Date) => {
    const { hour, minute } = partsOf(time);
    return `${hour}:${minute}`;
  };
  return {
    name,
    label: (time) => partsOf(time).timeZoneName!,
    dayOf,
    startOf(day) {
      const midnight = Date.parse(`${day}T00:00:00Z`);
      // Looked at twice: the offset at the first guess may be that of the other side of a change.
      const guess = midnight - (wallMs(new Date(midnight)) - midnight);
      const start = new Date(midnight - (wallMs(new Date(guess)) - guess));
      return dayOf(start) === day ? start : new Date(Math.max(guess, start.getTime()));
    },
    minute: (time) => `${formatDay(dayOf(time), { year: true })}, ${clock(time)}`,
    shortMinute: (time) => `${formatDay(dayOf(time))}, ${clock(time)}`,
  };
}

/** The day so many days later. */
export function addDays(day: Day, count: number): Day {
  return new Date(Date.parse(`${day}T00:00:00Z`) + count * DAY_MS).toISOString().slice(0, 10);
}

/** The first of the month so many months before a day's. */
export function firstOfMonth(day: Day, monthsBack: number): Day {
  const [year, month] = day.split("-").map(Number);
  return new Date(Date.UTC(year!, month! - 1 - monthsBack, 1)).toISOString().slice(0, 10);
}

/** All days from one to another, both included. */
export function daysBetween(first: Day, last: Day): Day[] {
  const days: Day[] = [];
  for (let day = first; day <= last; day = addDays(day, 1)) days.push(day);
  return days;
}

/** Days since Monday: 0 to 6. */
export const weekdayOf = (day: Day): number => (new Date(`${day}T00:00:00Z`).getUTCDay() + 6) % 7;

const SHORT = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
const MONTH = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", month: "long", year: "numeric" });
const WEEKDAY = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", weekday: "short" });

/** `25 Nov`, `Wed 25 Nov`, `25 Nov 2026`. */
export function formatDay(day: Day, { year = false, weekday = false } = {}): string {
  const time = new Date(`${day}T00:00:00Z`);
  return `${weekday ? `${WEEKDAY.format(time)} ` : ""}${SHORT.format(time)}${
    year ? ` ${day.slice(0, 4)}` : ""
  }`;
}

/** `November 2026`. */
export const formatMonth = (day: Day): string => MONTH.format(new Date(`${day}T00:00:00Z`));
