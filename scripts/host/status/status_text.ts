/**
 * The status as a page for a person at a terminal.
 *
 * @module
 */

import {
  formatAgo,
  formatBytes,
  formatCount,
  formatCounted,
  formatDuration,
  formatTime,
  localTime,
} from "../../core/format.ts";
import { timeOfSnapshotId } from "../../core/names.ts";
import type { Paint } from "../../core/paint.ts";
import type { Moment } from "../../core/report/history.ts";
import { type Sample, sparkline } from "../../core/report/sparkline.ts";
import type { SetReceipt } from "../../core/shipping/receipt.ts";
import { describeSuspicions } from "../../core/snapshot/seal.ts";
import { type Failure, type RunRecord, withAge } from "../../core/status/run_record.ts";
import { DAY_MS, isAhead } from "../../core/time.ts";
import { DRILL_DAYS_MAX } from "../records/drill_log.ts";
import { isKnown, type LogProblem, PROOF_TOPIC } from "../records/log_problems.ts";
import type { SetStatus } from "./hub_status.ts";

/** All that the page tells. */
export interface StatusPage {
  readonly sets: readonly (SetStatus & SetPast)[];
  /** How the last shipping failed. */
  readonly shipFailure: Failure | undefined;
  /** When an identity was last proven to open the backups, and how old that may be. */
  readonly keysProven: Date | undefined;
  readonly proofMaxAgeDays: number;
  /** What keeps it from being known how the last run, drill or proof went. */
  readonly logProblems: readonly LogProblem[];
  readonly now: Date;
}

/** How a set came to where it is, and how it goes on. */
export interface SetPast {
  readonly lastRun: RunRecord | undefined;
  /** How that failed. */
  readonly failure: Failure | undefined;
  /** Undefined where no timer is known. */
  readonly nextRun: Date | undefined;
  readonly history: readonly Moment[];
}

/** Most columns and days of a chart. */
const CHART = { columns: 40, daysMax: 90 };

/** The page, a line each. */
export function statusText(page: StatusPage, paint: Paint): string {
  const { sets, now, logProblems } = page;
  const lines = sets.flatMap((set) =>
    isNeverTaken(set) ? [`${set.set}: nothing was taken yet`] : [
      headOf(set, paint),
      ...[
        ...lastAndNext(set, now, paint),
        ...contentsOf(set),
        ...placesOf(set, paint),
        ...drillOf(set, page, paint),
        ...chartsOf(set.history, now, paint),
      ].map((line) => `  ${line}`),
    ]
  );
  return [
    ...lines,
    ...shippingLine(page, paint),
    keysLine(page, paint),
    ...logProblems.map(({ text }) => paint.bad(text)),
  ].join("\n");
}

/** A set beside the main one that has perhaps nothing to save. */
const isNeverTaken = ({ snapshots, stale, lastRun }: SetStatus & SetPast): boolean =>
  snapshots === 0 && !stale && lastRun === undefined;

function headOf({ set, newest, ageSeconds, stale, maxAgeHours }: SetStatus, paint: Paint): string {
  const name = paint.strong(`${set}:`);
  if (newest === undefined) return `${name} ${paint.bad("NO GOOD SNAPSHOT")}`;
  if (isAhead(ageSeconds!)) {
    const ahead = formatDuration(-ageSeconds!);
    return `${name} ${
      paint.doubtful(`newest good snapshot ${localTime(newest)}, ${ahead} AHEAD OF THIS CLOCK`)
    }`;
  }
  const age = `newest good snapshot ${localTime(newest)}, ${formatDuration(Math.max(0, ageSeconds!))} ago`;
  return `${name} ${stale ? paint.bad(`${age} - TOO OLD (limit ${maxAgeHours} h)`) : paint.good(age)}`;
}

function lastAndNext(set: SetStatus & SetPast, now: Date, paint: Paint): string[] {
  const { lastRun, failure, nextRun, suspect } = set;
  const why = describeSuspicions(set.suspicions);
  const last = failure ? `last run ${paint.bad(`FAILED: ${withAge(failure)}`)}` : lastRun &&
    `last run ${formatAgo(new Date(lastRun.at), now)}, took ${formatDuration(lastRun.seconds)}: done`;
  const next = nextRun && `next in ${formatDuration(Math.max(0, nextRun.getTime() - now.getTime()) / 1000)}`;
  return [
    ...suspect ? [paint.bad(`SUSPECT: ${suspect} is newer, and does not count as good: ${why}`)] : [],
    ...last || next
      ? [[last ?? "no run is known", next ?? paint.doubtful("no timer is known")].join("; ")]
      : [],
  ];
}

function contentsOf({ rows, snapshots, bytes, chain }: SetStatus): string[] {
  return [
    ...Object.entries(rows).map(([source, { sessions, messages, ...others }]) => {
      const named = [
        ...sessions === undefined ? [] : [formatCounted(sessions, "session")],
        ...messages === undefined ? [] : [formatCounted(messages, "message")],
      ];
      const rest = Object.values(others).reduce((sum, count) => sum + count, 0);
      const counted = formatCounted(rest, named.length > 0 ? "other row" : "row");
      return `${source}: ${[...named, counted].join(", ")}`;
    }),
    `here: ${
      snapshots === 0
        ? "no snapshot"
        : `${formatCounted(snapshots, "snapshot")}, ${formatBytes(bytes)}; the newest builds on ${chain}`
    }`,
  ];
}

function placesOf({ destinations }: SetStatus, paint: Paint): string[] {
  if (destinations.length === 0) {
    return [paint.bad("NOTHING IS OFF THIS MACHINE: no destination is configured")];
  }
  return destinations.flatMap(({ name, offBox, newest, waiting, receipt }) => [
    `${name}: ${
      newest
        ? (offBox ? paint.good : paint.doubtful)(`holds ${localTime(newest)}`)
        : paint.bad("HOLDS NOTHING")
    }${waiting.length > 0 ? `, ${paint.doubtful(`${waiting.length} WAITING`)}` : ""}${
      offBox ? "" : `, ${paint.bad("ON THIS MACHINE'S OWN DISK: does not count as off this machine")}`
    }`,
    ...receipt ? receiptOf(name, receipt.time, receipt.set, paint) : [],
  ]);
}

function receiptOf(
  name: string,
  time: Date,
  { newestVerified, problems }: SetReceipt,
  paint: Paint,
): string[] {
  const verified = newestVerified
    ? paint.good(`verified up to ${localTime(newestVerified.id)}`)
    : paint.doubtful("NOTHING VERIFIED");
  return [
    `${name} itself, on ${formatTime(time)}: ${verified}`,
    ...problems.map((problem) => `  ${paint.bad(`PROBLEM: ${problem}`)}`),
  ];
}

function drillOf({ set, drill }: SetStatus, { now, logProblems }: StatusPage, paint: Paint): string[] {
  if (!drill && !isKnown(logProblems, `drill ${set}`)) return [`last drill: ${paint.bad("NOT KNOWN")}`];
  if (!drill) return [`last drill: ${paint.doubtful("NEVER (hapi-backup verify)")}`];
  const isOld = Math.abs(now.getTime() - Date.parse(drill.at)) > DRILL_DAYS_MAX * DAY_MS;
  const said = drill.ok ? (isOld ? paint.doubtful : paint.good)("proven") : paint.bad("FAILED");
  return [`last drill: ${formatTime(new Date(drill.at))}, ${formatAgo(new Date(drill.at), now)}, ${said}`];
}

function chartsOf(history: readonly Moment[], now: Date, paint: Paint): string[] {
  const recent = history.filter(({ id }) =>
    now.getTime() - timeOfSnapshotId(id).getTime() <= CHART.daysMax * DAY_MS
  );
  if (recent.length < 2) return [];
  const samples = (value: (moment: Moment) => number | undefined): Sample[] =>
    recent.flatMap((moment) => {
      const each = value(moment);
      return each === undefined ? [] : [{ at: timeOfSnapshotId(moment.id), value: each }];
    });
  const chart = (what: string, of: "last" | "sum", values: Sample[], said: string) =>
    values.length < 2 ? [] : [
      `${what.padEnd(9)} ${
        paint.faint(sparkline(values, Math.min(CHART.columns, values.length), of))
      } ${said}`,
    ];
  const grown = (values: readonly Sample[], format: (value: number) => string) =>
    `${format(values[0]?.value ?? 0)} to ${format(values.at(-1)?.value ?? 0)}`;
  const database = samples(({ content }) => content?.databaseBytes);
  const sessions = samples(({ content }) => content?.sessions);
  const stored = samples(({ bytes }) => bytes);
  const sum = stored.reduce((total, { value }) => total + value, 0);
  const days = formatDuration((stored.at(-1)!.at.getTime() - stored[0]!.at.getTime()) / 1000);
  return [
    ...chart("database", "last", database, grown(database, formatBytes)),
    ...chart("sessions", "last", sessions, grown(sessions, formatCount)),
    ...chart("stored", "sum", stored, `${formatBytes(sum)} in ${days}`),
  ];
}

/** Of a hub without a destination it is told already. */
function shippingLine({ sets, shipFailure }: StatusPage, paint: Paint): string[] {
  if (!shipFailure || sets.every(({ destinations }) => destinations.length === 0)) return [];
  return [`last shipping ${paint.bad(`FAILED: ${withAge(shipFailure)}`)}`];
}

function keysLine({ keysProven, proofMaxAgeDays, logProblems, now }: StatusPage, paint: Paint): string {
  if (!keysProven && !isKnown(logProblems, PROOF_TOPIC)) return `keys: ${paint.bad("NOT KNOWN")}`;
  if (!keysProven) return `keys: ${paint.doubtful("NEVER PROVEN (hapi-backup keys prove)")}`;
  const isOld = now.getTime() - keysProven.getTime() > proofMaxAgeDays * DAY_MS;
  const said = `proven to open the backups ${formatAgo(keysProven, now)}`;
  return `keys: ${
    isOld
      ? paint.bad(`${said} - TOO LONG AGO (limit ${formatCounted(proofMaxAgeDays, "day")})`)
      : paint.good(said)
  }`;
}
