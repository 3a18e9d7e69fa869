/**
 * How a run of `backup` or `ship` ended, as it is noted and told to others.
 *
 * Invariant: nothing of a source's contents and no secret is in a record. Messages that were written for a person are
 * taken; those of unexpected errors are not, because a parser quotes what it could not parse.
 *
 * @module
 */

import { z } from "zod";
import { BackupError, type ErrorKind } from "../errors.ts";
import { formatAgo } from "../format.ts";
import { parseJsonLines } from "../json_lines.ts";
import type { Seal } from "../snapshot/seal.ts";

const record = z.object({
  /** When it ended, as an ISO 8601 time in UTC. */
  at: z.string(),
  seconds: z.number(),
  verb: z.enum(["backup", "ship"]),
  set: z.string().optional(),
  ok: z.boolean(),
  /** The kind of error that ended it. */
  kind: z.string().optional(),
  message: z.string().optional(),
  hint: z.string().optional(),
  /** The snapshot that was made, and why it does not count as good. */
  snapshot: z.string().optional(),
  suspicions: z.array(z.string()).optional(),
  bytes: z.number().optional(),
  snapshotKind: z.enum(["full", "increment", "unchanged"]).optional(),
  /** What its databases held together: numbers only, and of the hub's own two tables. */
  content: z.object({
    databaseBytes: z.number(),
    rows: z.number(),
    sessions: z.number().optional(),
    messages: z.number().optional(),
  }).optional(),
});
/** One run, as its log keeps it. */
export type RunRecord = z.infer<typeof record>;
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

/**
 * What a run said when it failed, how long ago, and what to do.
 *
 * @param changedAt When the configuration was last changed: what a run said before that may no longer hold.
 */
export function describeFailure(
  { at, verb, set, message = "it failed", hint }: RunRecord,
  now: Date,
  changedAt: Date,
): { readonly said: string; readonly remedy: string | undefined } {
  const then = new Date(at);
  const isBefore = then < changedAt;
  return {
    said: `${message} (${formatAgo(then, now)}${isBefore ? ", before the configuration was changed" : ""})`,
    remedy: isBefore ? `run \`hapi-backup ${verb}${set ? ` --set ${set}` : ""}\`: it may be mended` : hint,
  };
}

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
    .replace(/(\/\/)[^/@\s]+@/g, "$1[secret]@")
    // deno-lint-ignore no-control-regex
    .replace(/[\u0000-\u001f\u007f]+/g, " ")
    .slice(0, MESSAGE_LENGTH_MAX);
}

/** Reads a log of runs, oldest first. Lines that a crash cut are passed over. */
export function parseRunLog(text: string): RunRecord[] {
  return parseJsonLines(text, record);
}
