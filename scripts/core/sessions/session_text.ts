/**
 * Sessions, and what two snapshots have apart, as a person reads them. Safe to show on a terminal.
 *
 * @module
 */

import {
  cleanText,
  formatCount,
  formatCounted,
  formatMinute,
  formatTable,
  formatTime,
  localTime,
} from "../format.ts";
import type { Comparison } from "./comparison.ts";
import type { SessionSummary } from "./session_summary.ts";

/** How many sessions or files are named of each kind. */
const NAMED_MAX = 50;
/** Of what could not be read, no more than this is told of one source (characters). */
const DETAIL_LENGTH_MAX = 1000;

const timeText = (ms: number | null): string => ms === null ? "-" : formatTime(new Date(ms));

/** As much of an id as the table shows: all that is needed to name the session, but where others begin alike. */
const SHORT_ID_LENGTH = 8;

/** Sessions as a table of at most 80 columns, but for ids that begin alike. */
export function describeSessions(sessions: readonly SessionSummary[]): string {
  if (sessions.length === 0) return "no sessions";
  const startOf = (id: string) => id.slice(0, SHORT_ID_LENGTH);
  const alike = Map.groupBy(sessions, ({ id }) => startOf(id));
  const rows = sessions.map(({ id, title, updatedAt, messages }) => [
    cleanText(alike.get(startOf(id))!.length === 1 ? startOf(id) : id),
    updatedAt === null ? "-" : formatMinute(new Date(updatedAt)),
    formatCount(messages),
    cleanText(title, 42),
  ]);
  return formatTable([["id", "last change", "messages", "session"], ...rows]);
}

/** One session. */
export function describeSession({ id, title, createdAt, updatedAt, messages }: SessionSummary): string {
  return `${cleanText(title)}\n  id ${cleanText(id)}\n  begun ${timeText(createdAt)}, last change ${
    timeText(updatedAt)
  }\n  ${formatCounted(messages, "message")}`;
}

/** What two snapshots have apart. */
export function describeComparison({ from, to, sessions, rows, files, unread }: Comparison): string {
  const named = ({ id, title }: { readonly id: string; readonly title: string }) =>
    `${cleanText(title, 48)}  ${cleanText(id)}`;
  const counted = (each: SessionSummary) => `${named(each)}  ${formatCounted(each.messages, "message")}`;
  const lines = [
    ...section("+ session", sessions.added.map(counted)),
    ...section("- session", sessions.removed.map(counted)),
    ...section(
      "~ session",
      sessions.changed.map((each) => `${named(each)}  ${changeText(...each.messages)} messages`),
    ),
    ...rows.map(({ database, table, rows }) =>
      `rows of ${cleanText(table)} (${cleanText(database)}): ${changeText(...rows)}`
    ),
    ...section("+ file", files.added.map((place) => cleanText(place, 200))),
    ...section("- file", files.removed.map((place) => cleanText(place, 200))),
    ...section("~ file", files.changed.map((place) => cleanText(place, 200))),
    ...section(
      "? file",
      files.unread.map(({ place, snapshot, isSure }) =>
        `${cleanText(place, 200)}: not read for ${snapshot}, ${
          isSure ? "and perhaps there all the same" : "or not there: more could not be read than it names"
        }`
      ),
    ),
  ];
  const when = (id: Comparison["from"]) => `${id} (${localTime(id)})`;
  return [
    `from ${when(from)} to ${when(to)}:`,
    ...(lines.length === 0 ? ["nothing differs"] : lines).map((line) => `  ${line}`),
    ...unread.map(({ snapshot, source, detail }) =>
      `${snapshot} is without what could not be read of ${cleanText(source)}: ${
        cleanText(detail, DETAIL_LENGTH_MAX)
      }`
    ),
  ].join("\n");
}

function section(name: string, lines: readonly string[]): string[] {
  const more = lines.length - NAMED_MAX;
  return [
    ...lines.slice(0, NAMED_MAX).map((line) => `${name} ${line}`),
    ...(more > 0 ? [`${name} … and ${formatCount(more)} more; --json names all`] : []),
  ];
}

function changeText(from: number | null, to: number | null): string {
  if (from === null) return `new, ${formatCount(to!)}`;
  if (to === null) return `gone, ${formatCount(from)} before`;
  if (from === to) return formatCount(to);
  return `${formatCount(from)} → ${formatCount(to)} (${to > from ? "+" : "−"}${
    formatCount(Math.abs(to - from))
  })`;
}
