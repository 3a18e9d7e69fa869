/**
 * Which snapshot a person means.
 *
 * @module
 */

import { BackupError } from "../errors.ts";
import { cleanText, formatTime, localTime } from "../format.ts";
import { isSnapshotId, type SnapshotId, snapshotIdAt } from "../names.ts";
import { isGood, type Seal } from "./seal.ts";

/** What is chosen from: seals of one set, oldest first. */
export type Choice = Pick<Seal, "id" | "suspicions">;

const OTHER_COPY = "or another copy with --store, such as the storage host's";

/**
 * Chooses a snapshot.
 *
 * @param which `latest` (the newest good one), `random` (any good one, old as likely as new), an id, or a time, which means
 * the newest good one at or before it.
 * @param random A number from 0 up to, not including, 1.
 * @throws {BackupError} (usage) If there is none, or the text means nothing.
 */
export function chooseSnapshot(which: string, seals: readonly Choice[], random: number): SnapshotId {
  const none = (state: string, hint: string): never => {
    throw new BackupError(`Cannot find snapshot ${JSON.stringify(cleanText(which))}: ${state}`, {
      kind: "usage",
      hint,
    });
  };
  if (seals.length === 0) {
    none("the store holds no snapshot of this set", `name another with --set, ${OTHER_COPY}`);
  }
  const good = seals.filter((seal) => seal.suspicions.length === 0);
  if (which === "random" || which === "latest") {
    const chosen = which === "latest" ? good.at(-1) : good[Math.floor(random * good.length)];
    return chosen?.id ?? none("all are suspect", "name one by its id; `hapi-backup list` shows them");
  }
  if (isSnapshotId(which)) {
    return seals.find((seal) => seal.id === which)?.id ??
      none("it is not in the store", `\`hapi-backup list\` shows those that are; ${OTHER_COPY}`);
  }
  const time = parseTime(which) ?? none(
    "it is no id and no time",
    'use latest, an id such as 20261122T060000Z, or a local time such as "2026-11-20 06:00"',
  );
  const limit = snapshotIdAt(time);
  return good.findLast((seal) => seal.id <= limit)?.id ?? none(
    `none is as old as ${formatTime(time)}`,
    `the oldest is ${localTime(seals[0]!.id)}; ${OTHER_COPY}`,
  );
}

/** The newest of all, if it does not count as good. */
export function newestSuspect(seals: readonly Seal[]): Seal | undefined {
  const newest = seals.at(-1);
  return newest && !isGood(newest) ? newest : undefined;
}

/** Reads a local time such as `2026-11-20 06:00` (or with seconds, or only the day), or an ISO time with its zone. */
function parseTime(text: string): Date | undefined {
  const match = /^(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d))?)?$/.exec(text.trim());
  if (match) {
    const [year, month, day, hour, minute, second] = match.slice(1).map((part) =>
      part === undefined ? undefined : +part
    );
    // A day alone means its end: "the snapshot of the 20th".
    const time = hour === undefined
      ? new Date(year!, month! - 1, day!, 23, 59, 59)
      : new Date(year!, month! - 1, day!, hour, minute!, second ?? 59);
    const isReal = time.getFullYear() === year && time.getMonth() === month! - 1 && time.getDate() === day;
    return isReal && (hour ?? 0) < 24 && (minute ?? 0) < 60 ? time : undefined;
  }
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)$/.test(text.trim())) return undefined;
  const time = new Date(text.trim());
  return Number.isNaN(time.getTime()) ? undefined : time;
}
