/**
 * What the main verbs report, and how that reads.
 *
 * @module
 */

import { BackupError } from "../errors.ts";
import { cleanText, formatBytes, formatCount, formatCounted, localTime } from "../format.ts";
import type { SetName, SnapshotId } from "../names.ts";
import { shellQuote } from "../shell.ts";
import type { ShipReport } from "../shipping/shipping.ts";
import { type DetailedSuspicion, gateHint } from "../snapshot/gate.ts";
import type { Manifest, SavedDatabase, SavedFile } from "../snapshot/manifest.ts";
import type { Seal } from "../snapshot/seal.ts";

/** How much is told of what a snapshot says of itself, in characters: it may say anything. */
export const TOLD_LENGTH_MAX = 2_000;

/** How many suspicions of a snapshot stand in one line. */
const SUSPICIONS_TOLD_MAX = 3;

/** What was made. */
export interface EncryptReport {
  readonly set: SetName;
  readonly id: SnapshotId;
  readonly kind: Seal["kind"];
  /** Why it is a full, where it is one. */
  readonly reason: string | undefined;
  /** Bytes that it takes in the store, seal and all. */
  readonly bytes: number;
  /** Rows by table, by database. */
  readonly rows: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Size of the databases' images together. */
  readonly databaseBytes: number;
  readonly files: number;
  readonly suspicions: readonly DetailedSuspicion[];
  readonly notes: readonly string[];
}

/** One line of the checklist. */
export interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** The checklist. */
export interface VerifyReport {
  readonly ok: boolean;
  readonly store: string;
  readonly set: string;
  readonly snapshot: SnapshotId;
  readonly checks: readonly Check[];
  readonly seconds: number;
}

/** What was restored. */
export interface Restored {
  readonly snapshot: SnapshotId;
  readonly manifest: Manifest;
  readonly databases: readonly SavedDatabase[];
  readonly files: readonly SavedFile[];
}

/** What a restore in place did. */
export interface RestoredInPlace extends Restored {
  /** Paths that were put in place. */
  readonly placed: readonly string[];
  /** Paths that were as they should be. */
  readonly kept: readonly string[];
  /** What was there before, and where it is now. */
  readonly setAside: readonly { readonly from: string; readonly to: string }[];
  /** A shell script that undoes it. */
  readonly undoScript: string;
}

/** What the restore step found or did. Of a dry run in place, what it would do. */
export type RestoreReport = Restored & Partial<RestoredInPlace>;

/** A snapshot that is stored but suspect ends the run with an error, after all else was done. */
export function suspectError(reports: readonly EncryptReport[]): BackupError | undefined {
  const suspect = reports.filter(({ suspicions }) => suspicions.length > 0);
  if (suspect.length === 0) return undefined;
  // All of them are in what was printed before.
  const why = suspect.map(({ id, suspicions }) => {
    const told = suspicions.slice(0, SUSPICIONS_TOLD_MAX).map(({ source, detail }) => `${source}: ${detail}`);
    const more = suspicions.length - told.length;
    return `${id}: ${told.join("; ")}${more > 0 ? `; and ${formatCount(more)} more` : ""}`;
  });
  return new BackupError(`Cannot count this snapshot as good: ${why.join("; ")}`, {
    kind: "source",
    hint: gateHint(
      suspect.flatMap(({ suspicions }) => suspicions),
      suspect.length === 1 ? suspect[0]!.set : "all",
    ),
  });
}

/** A snapshot that was made, as text. */
export function describeSnapshot(report: EncryptReport): string {
  const rows = Object.entries(report.rows).map(([source, tables]) => {
    const { sessions, messages, ...others } = tables;
    const total = Object.values(tables).reduce((sum, count) => sum + count, 0);
    const named = sessions === undefined ? [] : [formatCounted(sessions, "session")];
    if (sessions !== undefined && messages !== undefined) named.push(formatCounted(messages, "message"));
    const left = named.length > 0 ? Object.keys(others).length : Object.keys(tables).length;
    return `${source}: ${
      [
        ...named,
        `${formatCounted(total, "row")} in all`,
        formatCounted(left, named.length > 0 ? "more table" : "table"),
      ]
        .join(", ")
    }`;
  });
  const why = report.reason ? ` (${report.reason})` : "";
  return [
    `${report.set} ${report.id}  ${localTime(report.id)}  ${report.kind}${why}  ${
      formatBytes(report.bytes)
    } stored`,
    ...rows.map((line) => `  ${line}`),
    `  ${formatCounted(report.files, "file")}`,
    ...report.suspicions.map(({ source, detail }) => `  SUSPECT ${source}: ${detail}`),
  ].join("\n");
}

/** What was shipped, as text. */
export function describeShip(report: ShipReport): string {
  return report.destinations.map(({ name, offBox, shipped, bytes, waiting }) => {
    const where = offBox ? "" : " (on this machine)";
    const left = waiting.length > 0 ? `, ${waiting.length} waiting` : "";
    return `${name}${where}: ${formatCounted(shipped.length, "snapshot")} shipped, ${
      formatBytes(bytes)
    }${left}`;
  }).join("\n") || "nothing is off this machine: no destination is configured";
}

/** The checklist, as text. */
export function describeVerify({ checks, set, snapshot, store, ok, seconds }: VerifyReport): string {
  return [
    `${set} ${snapshot}, ${localTime(snapshot)}, from ${store}`,
    ...checks.map(({ ok, name, detail }) =>
      `  ${ok ? "ok  " : "FAIL"}  ${cleanText(name, TOLD_LENGTH_MAX)}: ${cleanText(detail, TOLD_LENGTH_MAX)}`
    ),
    ok ? `proven restorable in ${seconds} s` : "NOT PROVEN",
  ].join("\n");
}

/** What was restored, or would be, as text. */
export function describeRestore(
  report: RestoreReport,
  job: { readonly dryRun: boolean; readonly inPlace: boolean; readonly to?: string | undefined },
): string {
  const what = [
    ...report.databases.map(({ place, bytes, rows }) => {
      const sessions = rows.sessions === undefined ? "" : `${formatCounted(rows.sessions, "session")}, `;
      const total = Object.values(rows).reduce((sum, count) => sum + count, 0);
      return `  ${shown(place)}: ${sessions}${formatCounted(total, "row")}, ${formatBytes(bytes)}`;
    }),
    ...(job.dryRun ? report.files.map(({ place, bytes }) => `  ${shown(place)}: ${formatBytes(bytes)}`) : []),
    `  ${countedOf(report.files)}`,
  ];
  const from = `${report.manifest.set} ${report.snapshot}, ${localTime(report.snapshot)}`;
  if (job.dryRun && job.inPlace) {
    const inTheWay = new Set(report.setAside!.map(({ from }) => from));
    const put = (how: string, paths: readonly string[]) =>
      paths.map((path) => `  put in place${how}: ${shown(path)}`);
    return [
      `would restore ${from} in place:`,
      ...what,
      ...put(", new", report.placed!.filter((path) => !inTheWay.has(path))),
      ...put(" of what is there now", report.placed!.filter((path) => inTheWay.has(path))),
      ...report.setAside!.map(({ from, to }) =>
        `  set aside: ${shown(from)} as ${shown(to)}, with the time then`
      ),
      ...report.kept!.map((path) => `  as it should be already: ${shown(path)}`),
    ].join("\n");
  }
  if (job.dryRun) return [`would restore ${from}:`, ...what].join("\n");
  if (!job.inPlace) return [`restored ${from} to ${job.to}:`, ...what].join("\n");
  return [
    `restored ${from} in place:`,
    ...what,
    ...report.placed!.map((path) => `  put in place: ${shown(path)}`),
    ...report.setAside!.map(({ from, to }) => `  set aside: ${shown(from)} is now ${shown(to)}`),
    `  as they should be already: ${report.kept!.length}`,
    report.placed!.length === 0 ? "nothing was changed" : `to undo it: sh ${shellQuote(report.undoScript!)}`,
  ].join("\n");
}

/** A name out of a snapshot must not drive the terminal. */
const shown = (path: string): string => cleanText(path, Infinity);

/** Files, links and folders, of which there are any. */
function countedOf(files: readonly SavedFile[]): string {
  const counted = (["file", "link", "folder"] as const).flatMap((kind) => {
    const count = files.filter(({ type }) => type === kind).length;
    return count > 0 ? [formatCounted(count, kind)] : [];
  });
  return counted.join(", ") || formatCounted(0, "file");
}
