/**
 * Numbers and times as a person reads them.
 *
 * @module
 */

import { type SnapshotId, timeOfSnapshotId } from "./names.ts";

/** `1.5 MB`: powers of 1000, as disks are sold and `rsync -h` prints. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** A whole number: `12,345`. Without `Intl`, which takes 15 ms to load. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** A whole number of things: `1 snapshot`, `12,345 snapshots`. */
export function formatCounted(count: number, thing: string): string {
  return `${formatCount(count)} ${thing}${count === 1 ? "" : "s"}`;
}

/** How long ago or how long: `45 s`, `12 min`, `7 h`, `3 days`. */
export function formatDuration(seconds: number): string {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 120 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** In how many days something comes: `3 days`. What is more than ten years away is a guess, and told as no number. */
export function formatDaysUntil(days: number): string {
  return days > 3650 ? "more than 10 years" : formatCounted(days, "day");
}

/** How long before `now`: `3 days ago`. Seconds ahead of this clock count as now; more is told. */
export function formatAgo(then: Date, now: Date): string {
  const seconds = (now.getTime() - then.getTime()) / 1000;
  return seconds < -60
    ? `${formatDuration(-seconds)} ahead of this clock`
    : `${formatDuration(Math.max(0, seconds))} ago`;
}

/** Permissions of a file as `chmod` takes them: `0600`. */
export function formatMode(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, "0");
}

/**
 * A time in the zone of this machine, with the zone: `2026-11-22 06:00:00 GMT+1`. By `Date` itself: to make the first
 * `Intl.DateTimeFormat` takes 20 to 40 ms, a tenth of a run that finds nothing changed.
 */
export function formatTime(time: Date): string {
  const [month, day, hour, minute, second] = [
    time.getMonth() + 1,
    time.getDate(),
    time.getHours(),
    time.getMinutes(),
    time.getSeconds(),
  ].map((part) => String(part).padStart(2, "0"));
  return `${time.getFullYear()}-${month}-${day} ${hour}:${minute}:${second} ${
    formatOffset(-time.getTimezoneOffset())
  }`;
}

/** A day in the zone of this machine: `2026-11-22`. */
export const formatDate = (time: Date): string => formatTime(time).slice(0, 10);

/** A minute in the zone of this machine, as `--snapshot` takes it: `2026-11-22 06:00`. For tables, to fit 80 columns. */
export const formatMinute = (time: Date): string => formatTime(time).slice(0, 16);

/** When a snapshot was taken, as {@linkcode formatTime} writes it. */
export const localTime = (id: SnapshotId): string => formatTime(timeOfSnapshotId(id));

/** How far a zone is ahead of UTC, from minutes: `UTC`, `GMT+1`, `GMT-3:30`. */
function formatOffset(minutes: number): string {
  if (minutes === 0) return "UTC";
  const ahead = Math.abs(minutes);
  const rest = ahead % 60 === 0 ? "" : `:${String(ahead % 60).padStart(2, "0")}`;
  return `GMT${minutes < 0 ? "-" : "+"}${Math.floor(ahead / 60)}${rest}`;
}

/**
 * Text from outside, such as a session's name, as one line that is safe to show on a terminal: no control characters, and
 * no marks that turn the direction of what follows. Cut after `lengthMax` characters.
 */
export function cleanText(text: string, lengthMax = 80): string {
  const clean = text.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")
    .replace(/[\p{Cc}\p{Zl}\p{Zp}\s]+/gu, " ").trim();
  const characters = [...clean];
  return characters.length <= lengthMax ? clean : `${characters.slice(0, lengthMax - 1).join("")}…`;
}

/** A store as a text names it: `me@storage` for `me@storage:`, because a colon of the text may follow. */
export const formatStore = (store: string): string => store.replace(/:$/, "");

/**
 * What is to be shown, with what would steer the terminal written out (`\\u001b`): no name or word from elsewhere may do
 * so. Line ends and tabs stay. JSON says the same afterwards.
 *
 * @param isPainted Whether colours stay, too.
 */
export function printable(text: string, isPainted = false): string {
  return text.replace(/[^\P{Cc}\n\t]/gu, (control, at: number) => {
    if (isPainted && control === "\x1b" && /^\[[\d;]*m/.test(text.slice(at + 1, at + 20))) return control;
    return `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** Lines of cells as columns; numbers (cells that start with a digit) to the right, but for the last, which is words. */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, index) => widths[index] = Math.max(widths[index] ?? 0, cell.length));
  }
  return rows.map((row) =>
    row.map((cell, index) =>
      /^[\d-]/.test(cell) && index > 0 && index < row.length - 1
        ? cell.padStart(widths[index]!)
        : cell.padEnd(widths[index]!)
    )
      .join("  ").trimEnd()
  ).join("\n");
}
