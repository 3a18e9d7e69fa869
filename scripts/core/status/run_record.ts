/**
 * How a run of `backup` or `ship` ended, as it is noted and told to others.
 *
 * Invariant: nothing of a source's contents and no secret is in a record. Messages that were written for a person are
 * taken; those of unexpected errors are not, because a parser quotes what it could not parse.
 *
 * @module
 */

import * as v from "valibot";
import { BackupError, type ErrorKind } from "../errors.ts";
import { formatAgo, formatDuration } from "../format.ts";
import { parseJsonLines } from "../json_lines.ts";
import { finiteNumber } from "../schema.ts";
import type { Seal } from "../snapshot/seal.ts";
import { loggedTime } from "../text_schemas.ts";

const record = v.object({
  /** When it ended, as an ISO 8601 time in UTC. */
  at: loggedTime,
  seconds: finiteNumber,
  verb: v.picklist(["backup", "ship"]),
  set: v.optional(v.string()),
  ok: v.boolean(),
  /** The kind of error that ended it. */
  kind: v.optional(v.string()),
  message: v.optional(v.string()),
  hint: v.optional(v.string()),
  /** The snapshot that was made, and why it does not count as good. */
  snapshot: v.optional(v.string()),
  suspicions: v.optional(v.array(v.string())),
  bytes: v.optional(finiteNumber),
  snapshotKind: v.optional(v.picklist(["full", "increment", "unchanged"])),
  /** What its databases held together: numbers only, and of the hub's own two tables. */
  content: v.optional(v.object({
    databaseBytes: finiteNumber,
    rows: finiteNumber,
    sessions: v.optional(finiteNumber),
    messages: v.optional(finiteNumber),
  })),
});
/** One run, as its log keeps it. */
export type RunRecord = v.InferOutput<typeof record>;
/** What a run saved, in numbers. */
export type RunContent = NonNullable<RunRecord["content"]>;

/** What a run that came to its end has to tell. */
export type RunFacts =
  & Pick<RunRecord, "snapshot" | "suspicions" | "bytes" | "snapshotKind" | "content">
  & { readonly error?: unknown };

/** What a run that made a snapshot has to tell of it. @param made Its rows are by table, by database. */
export function factsOf(made: {
  readonly id: string;
  readonly kind: Seal["kind"];
  readonly bytes: number;
  readonly rows: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly databaseBytes: number;
  readonly suspicions: readonly { readonly source: string; readonly detail: string }[];
}): RunFacts {
  const { id, kind, bytes, rows, databaseBytes, suspicions } = made;
  return {
    snapshot: id,
    snapshotKind: kind,
    bytes,
    content: Object.keys(rows).length === 0 ? undefined : contentOf(Object.values(rows), databaseBytes),
    ...(suspicions.length === 0
      ? {}
      : { suspicions: suspicions.map(({ source, detail }) => withoutSecrets(`${source}: ${detail}`)) }),
  };
}

function contentOf(
  databases: readonly Readonly<Record<string, number>>[],
  databaseBytes: number,
): RunContent {
  const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);
  const named = (["sessions", "messages"] as const).flatMap((table) => {
    const counts = databases.flatMap((tables) => tables[table] ?? []);
    return counts.length === 0 ? [] : [[table, sum(counts)] as const];
  });
  return { databaseBytes, rows: sum(databases.flatMap(Object.values<number>)), ...Object.fromEntries(named) };
}

/** Younger than this, a failure is news. */
const YOUNG_SECONDS = 60;

/** How the last run failed, as all who tell of it say it. */
export interface Failure {
  readonly kind: string;
  readonly text: string;
  /** How long ago, and how long it has been so; undefined while it is news. */
  readonly age: string | undefined;
  /** What to do. */
  readonly hint: string | undefined;
}

/**
 * The failure that a log of runs ends with; undefined if the last run did not fail.
 *
 * @param changedAt When the configuration was last changed: what a run said before that may no longer hold. A time to come
 * says nothing: then the clock was set back.
 */
export function failureIn(
  runs: readonly RunRecord[],
  now: Date,
  changedAt: Date | undefined,
): Failure | undefined {
  const last = runs.at(-1);
  if (!last || last.ok) return undefined;
  const { verb, set, kind = "internal", message = "it failed", hint } = last;
  const then = new Date(last.at);
  const first = new Date(runs[runs.findLastIndex(({ ok }) => ok) + 1]!.at);
  const isBefore = changedAt !== undefined && then < changedAt && changedAt <= now;
  const seconds = (from: Date, to: Date) => (to.getTime() - from.getTime()) / 1000;
  const age = [
    ...Math.abs(seconds(first, now)) >= YOUNG_SECONDS ? [formatAgo(then, now)] : [],
    ...seconds(first, then) >= YOUNG_SECONDS ? [`failing for ${formatDuration(seconds(first, now))}`] : [],
    ...isBefore ? ["before the configuration was changed"] : [],
  ];
  return {
    kind,
    text: message,
    age: age.length === 0 ? undefined : age.join(", "),
    hint: isBefore ? `run \`hapi-backup ${verb}${set ? ` --set ${set}` : ""}\`: it may be mended` : hint,
  };
}

/** What is wrong, and how old that is where it is known. */
export const withAge = (
  { text, age }: { readonly text: string; readonly age?: string | undefined },
): string => age === undefined ? text : `${text} (${age})`;

/** Characters of a message that are kept. */
const MESSAGE_LENGTH_MAX = 600;

/** An error as it may be told to anybody. */
export function tellable(
  error: unknown,
): { readonly kind: ErrorKind; readonly message: string; readonly hint?: string | undefined } {
  if (!(error instanceof BackupError) || error.kind === "internal") {
    return {
      kind: "internal",
      message: "Cannot go on: an unexpected error; its text is in the log of that run only",
    };
  }
  const { kind, message, hint } = error;
  return { kind, message: withoutSecrets(message), hint: hint && withoutSecrets(hint) };
}

/** Takes out what looks like a secret, and control characters; cuts what is long. */
export function withoutSecrets(text: string): string {
  return text
    .replace(/AGE-SECRET-KEY-[A-Z0-9-]+/gi, "[secret]")
    .replace(/\b(sk|pk|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{8,}/g, "[secret]")
    .replace(/\beyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]+)*/g, "[secret]")
    .replace(/(\/\/)[^/\s]+@/g, "$1[secret]@")
    // deno-lint-ignore no-control-regex
    .replace(/[\u0000-\u001f\u007f]+/g, " ")
    .slice(0, MESSAGE_LENGTH_MAX);
}

/** Reads a log of runs, oldest first. Lines that a crash cut are passed over. */
export function parseRunLog(text: string): RunRecord[] {
  return parseJsonLines(text, record);
}
