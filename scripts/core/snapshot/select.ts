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

const OTHER_COPY = "another copy with --store, such as the storage host's";

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
    none("the store holds no snapshot of this set", `name another with --set, or ${OTHER_COPY}`);
  }
  const good = seals.filter((seal) => seal.suspicions.length === 0);
  if (which === "random" || which === "latest") {
    const chosen = which === "latest" ? good.at(-1) : good[Math.floor(random * good.length)];
    return chosen?.id ?? none("all are suspect", "name one by its id; `hapi-backup list` shows them");
  }
  if (isSnapshotId(which)) {
    return seals.find((seal) => seal.id === which)?.id ??
      none("it is not in the store", `\`hapi-backup list\` shows those that are; or look into ${OTHER_COPY}`);
  }
  const time = parseTime(which) ?? none(
    "it is no id and no time",
    'use latest, an id such as 20261122T060000Z, or a time such as "2026-11-20 06:00" or "2026-11-20 06:00 UTC"',
  );
  const limit = snapshotIdAt(time);
  return good.findLast((seal) => seal.id <= limit)?.id ?? none(
    `none is as old as ${formatTime(time)}`,
    `the oldest is of ${localTime(seals[0]!.id)}; or look into ${OTHER_COPY}`,
  );
}

/** The newest of all, if it does not count as good. */
export function newestSuspect(seals: readonly Seal[]): Seal | undefined {
  const newest = seals.at(-1);
  return newest && !isGood(newest) ? newest : undefined;
}

const TIME = new RegExp(
  "^(\\d{4})-(\\d\\d)-(\\d\\d)(?:[ T](\\d\\d):(\\d\\d)(?::(\\d\\d)(?:\\.\\d+)?)?" +
    " ?(Z|UTC|(?:GMT)?[+-]\\d\\d?(?::?\\d\\d)?)?)?$",
);

/**
 * Reads a time: of this machine's zone, such as `2026-11-20 06:00` (or with seconds, or only the day), or with its zone,
 * as it is shown (`2026-11-20 06:00:00 GMT+1`) or as ISO 8601 has it.
 */
function parseTime(text: string): Date | undefined {
  const given = text.trim();
  const match = TIME.exec(given);
  if (!match) return undefined;
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map((part) =>
    part === undefined ? undefined : +part
  );
  // A day or a minute alone means its end: "the snapshot of the 20th".
  const time = [year!, month! - 1, day!, hour ?? 23, minute ?? 59, second ?? 59] as const;
  const inUtc = new Date(Date.UTC(...time));
  // What there is none of, such as the 31st of November, comes to another time.
  const minuteOrDay = given.slice(0, hour === undefined ? 10 : 16).replace(" ", "T");
  if (!inUtc.toISOString().startsWith(minuteOrDay)) return undefined;
  return match[7] === undefined ? new Date(...time) : new Date(inUtc.getTime() - offsetMs(match[7]));
}

/** How far a zone is ahead of UTC: `Z`, `UTC`, `GMT-3:30`, `+0530`. */
function offsetMs(zone: string): number {
  const [, sign, hours = 0, minutes = 0] = /([+-])(\d\d?):?(\d\d)?$/.exec(zone) ?? [];
  return (sign === "-" ? -1 : 1) * (+hours * 60 + +minutes) * 60_000;
}
