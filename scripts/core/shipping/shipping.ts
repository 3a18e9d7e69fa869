/**
 * What is where: which snapshots a destination has confirmed, what is to be sent next, and what to say about it.
 *
 * Invariant: a snapshot counts as confirmed at a destination only with the very seal that was compared there.
 *
 * @module
 */

import * as v from "valibot";
import type { Destination } from "../config/config.ts";
import { BackupError, type ErrorKind, ifPossible } from "../errors.ts";
import type { SetName, SnapshotId } from "../names.ts";
import { recordOf, strictObject } from "../schema.ts";
import { count, sha256 } from "../text_schemas.ts";
import type { SetReceipt } from "./receipt.ts";

/** A snapshot, named. */
export interface SnapshotKey {
  readonly set: SetName;
  readonly id: SnapshotId;
}

/** A file that a destination should hold. */
export interface ExpectedFile {
  readonly name: string;
  readonly bytes: number;
}

/** A snapshot that a destination should hold, with every file of it. */
export interface Expected extends SnapshotKey {
  readonly files: readonly ExpectedFile[];
}

/** A snapshot that a destination lacks. */
export interface Missing extends Expected {
  /** Whether a file of it is there: whoever removes snapshots by intent removes the whole folder at once. */
  readonly isPartly: boolean;
}

/** A sealed snapshot of the local store, as far as planning is concerned. */
export interface LocalSnapshot extends SnapshotKey {
  readonly sealSha256: string;
  readonly needs: readonly SnapshotId[];
}

/** That a destination held a snapshot whole, compared by checksum. */
export interface Confirmation {
  readonly sealSha256: string;
  /** When, as an ISO 8601 time in UTC. */
  readonly confirmedAt: string;
  readonly files: readonly ExpectedFile[];
}

/** What is remembered of one destination, keyed by `<set>/<id>`. */
export interface DestinationRecord {
  /** Which place this is about: under another place the confirmations mean nothing. */
  readonly where: string;
  readonly confirmed: ReadonlyMap<string, Confirmation>;
  /** Tries of uploads that are not finished. */
  readonly uploads: ReadonlyMap<string, number>;
}

/** How `where` ends of a place that is not off this machine. */
const ON_SAME_DISK = " on the same disk";

/** A {@linkcode DestinationRecord.where}: under which another disk was mounted, or is no longer, is another place. */
export function whereOf(destination: Destination, offBox: boolean): string {
  return `${placeOf(destination)}${offBox ? "" : ON_SAME_DISK}`;
}

function placeOf(destination: Destination): string {
  switch (destination.kind) {
    case "rsync":
      return `rsync ${destination.target} ${destination.port}`;
    case "folder":
      return `folder ${destination.path}`;
    case "rclone":
      return `rclone ${destination.remote}`;
  }
}

/** Whether a record is about the place that a destination's configuration names now. */
export const isAbout = (where: string, destination: Destination): boolean =>
  [true, false].some((offBox) => where === whereOf(destination, offBox));

/** Whether that place was off this machine. Inverse of {@linkcode whereOf}. */
export const isOffBox = (where: string): boolean => !where.endsWith(ON_SAME_DISK);

/** A snapshot's key in a {@linkcode DestinationRecord}. */
export const keyOf = ({ set, id }: SnapshotKey): string => `${set}/${id}`;

const recordSchema = strictObject({
  version: v.literal(1),
  where: v.string(),
  confirmed: recordOf(
    strictObject({
      sealSha256: sha256,
      confirmedAt: v.string(),
      files: v.array(strictObject({ name: v.string(), bytes: count })),
    }),
  ),
  uploads: recordOf(count),
});

/** The record as text. Inverse of {@linkcode parseDestinationRecord}. */
export function serializeDestinationRecord({ where, confirmed, uploads }: DestinationRecord): string {
  const sorted = <T>(map: ReadonlyMap<string, T>) =>
    Object.fromEntries([...map].sort(([a], [b]) => a < b ? -1 : 1));
  return JSON.stringify(
    { version: 1, where, confirmed: sorted(confirmed), uploads: sorted(uploads) },
    null,
    1,
  ) + "\n";
}

/**
 * Reads a record's text. One that is damaged, or about another place, is the same as none: everything is sent again,
 * and what is there already is only compared.
 */
export function parseDestinationRecord(text: string | undefined, where: string): DestinationRecord {
  const none = { where, confirmed: new Map(), uploads: new Map() };
  if (text === undefined) return none;
  const record = ifPossible(() => v.parse(recordSchema, JSON.parse(text)));
  if (record?.where !== where) return none;
  return {
    where,
    confirmed: new Map(Object.entries(record.confirmed)),
    uploads: new Map(Object.entries(record.uploads)),
  };
}

/** The record of a destination that cannot be asked where it is: what it confirmed, on whichever disk that was. */
export function lastKnownRecord(text: string | undefined, destination: Destination): DestinationRecord {
  const [there, here] = [true, false].map((offBox) =>
    parseDestinationRecord(text, whereOf(destination, offBox))
  );
  return here!.confirmed.size > 0 ? here! : there!;
}

/** Whether the record confirms this very snapshot. */
export function isConfirmed(record: DestinationRecord, snapshot: LocalSnapshot): boolean {
  return record.confirmed.get(keyOf(snapshot))?.sealSha256 === snapshot.sealSha256;
}

/**
 * What is still to be sent, oldest first across sets. What a snapshot needs is older than itself, so it comes before.
 */
export function waitingFor<T extends LocalSnapshot>(record: DestinationRecord, local: readonly T[]): T[] {
  return local.filter((snapshot) => !isConfirmed(record, snapshot)).sort((a, b) =>
    a.id < b.id ? -1 : a.id > b.id ? 1 : a.set < b.set ? -1 : 1
  );
}

/** The newest snapshot of each set with everything that it needs, oldest first. */
function newestChains(local: readonly LocalSnapshot[]): SnapshotKey[] {
  return newestPerSet(local).flatMap(({ set, id, needs }) => [...needs, id].map((id) => ({ set, id })));
}

function newestPerSet(local: readonly LocalSnapshot[]): LocalSnapshot[] {
  const newest = new Map<SetName, LocalSnapshot>();
  for (const snapshot of local) {
    const other = newest.get(snapshot.set);
    if (!other || other.id < snapshot.id) newest.set(snapshot.set, snapshot);
  }
  return [...newest.values()];
}

/** What the destination once confirmed of the newest chains: the files to ask for again. */
export function confirmedOfNewestChains(
  record: DestinationRecord,
  local: readonly LocalSnapshot[],
): Expected[] {
  return newestChains(local).flatMap((key) => {
    const confirmation = record.confirmed.get(keyOf(key));
    return confirmation ? [{ ...key, files: confirmation.files }] : [];
  });
}

/** The same of the other snapshots that are here. The destination may have removed them meanwhile, as it should. */
export function confirmedOfOlderChains(
  record: DestinationRecord,
  local: readonly LocalSnapshot[],
): Expected[] {
  const newest = new Set(newestChains(local).map(keyOf));
  return local.flatMap(({ set, id }) => {
    const confirmation = record.confirmed.get(keyOf({ set, id }));
    return confirmation && !newest.has(keyOf({ set, id })) ? [{ set, id, files: confirmation.files }] : [];
  });
}

/**
 * What the newest chains lack at the destination for good: not confirmed there and not here to be sent.
 * Only a new full helps then.
 *
 * @param stuck Keys that are here, but that the destination or the local disk will not let through.
 */
export function lostOfNewestChains(
  record: DestinationRecord,
  local: readonly LocalSnapshot[],
  stuck: ReadonlySet<string>,
): SnapshotKey[] {
  const here = new Set(local.map(keyOf));
  return newestChains(local).filter((key) => {
    const name = keyOf(key);
    return !record.confirmed.has(name) && (!here.has(name) || stuck.has(name));
  });
}

/**
 * Drops what no snapshot can need any more: what is neither here nor needed by what is here. A set of which nothing is
 * here, or that is not shipped now, keeps all it has: its next increment could build on any of it.
 */
export function pruneRecord(record: DestinationRecord, local: readonly LocalSnapshot[]): DestinationRecord {
  const sets = new Set<string>(local.map((snapshot) => snapshot.set));
  const wanted = new Set(
    local.flatMap(({ set, id, needs }) => [id, ...needs].map((id) => keyOf({ set, id }))),
  );
  const here = new Set(local.map(keyOf));
  const isOfOthers = (key: string) => !sets.has(key.split("/")[0]!);
  return {
    where: record.where,
    confirmed: new Map([...record.confirmed].filter(([key]) => wanted.has(key) || isOfOthers(key))),
    uploads: new Map(
      [...record.uploads].filter(([key]) => (here.has(key) || isOfOthers(key)) && !record.confirmed.has(key)),
    ),
  };
}

/** An error as a report holds it. */
export interface ShipError {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly hint?: string | undefined;
}

/** What became of one destination. */
export interface DestinationReport {
  readonly name: string;
  readonly kind: "rsync" | "folder" | "rclone";
  /** Whether what is there survives this machine's disk. */
  readonly offBox: boolean;
  /** Sent and confirmed in this run, oldest first, with the bytes that went there. */
  readonly shipped: readonly (SnapshotKey & { readonly bytes: number })[];
  readonly bytes: number;
  /** Not confirmed there at the end of this run, oldest first. */
  readonly waiting: readonly SnapshotKey[];
  /** Once confirmed there, and found missing in this run. */
  readonly vanished: readonly SnapshotKey[];
  readonly errors: readonly ShipError[];
  /** What the far side itself verified, if it says so. */
  readonly receipt?: { readonly time: string; readonly sets: Readonly<Record<string, SetReceipt>> };
}

/** What a run of `ship` did. */
export interface ShipReport {
  /** Sealed snapshots in the local store, of the sets that were asked for. */
  readonly snapshots: number;
  readonly destinations: readonly DestinationReport[];
  /** Snapshots of the local store that are damaged here, and therefore sent nowhere. */
  readonly damaged: readonly (SnapshotKey & { readonly problem: string })[];
  /** Sets whose folder in the local store cannot be read. */
  readonly unread: readonly { readonly set: SetName; readonly problem: string }[];
  /** Sets whose newest chain cannot be completed at a destination: the next snapshot must be a full one. */
  readonly fullWanted: readonly SetName[];
}

/** What to do about a snapshot of a set that is damaged in the local store. */
export const damageRemedy = (set: SetName): string =>
  `take a new full snapshot: \`hapi-backup backup --set ${set} --full\`, and check this machine's disk`;

/**
 * Why a run of `ship` is no success, naming exactly what is not off this machine; undefined if it is one: every
 * snapshot is confirmed on every destination, and at least one of them is off this machine.
 */
export function unshippedError(report: ShipReport): BackupError | undefined {
  const { destinations } = report;
  const fail = (state: string, hint: string) =>
    new BackupError(`Cannot call it off this machine: ${state}`, { kind: "unshipped", hint });
  if (destinations.length === 0) {
    return fail(
      `${counted(report.snapshots)} stored here, and no destination is configured`,
      '`hapi-backup init --storage user@host:` adds a storage host; a folder on another disk or an rclone remote goes under "destinations"',
    );
  }
  const states: string[] = [];
  const hints: string[] = [];
  if (!destinations.some((destination) => destination.offBox)) {
    states.push(
      `${destinations.map((destination) => destination.name).join(", ")} ${
        destinations.length === 1 ? "is" : "are"
      } on this machine's own disk`,
    );
    hints.push("add a destination on another machine or another disk");
  }
  const noteHere = (state: string, problem: string, remedy: string) => {
    states.push(`${state} (${problem})`);
    hints.push(
      /Permission denied/.test(problem)
        ? "give the local store back to the user that ships (chown -R): a run as another one, such as root, made that"
        : remedy,
    );
  };
  for (const { set, problem } of report.unread) {
    noteHere(`set ${set} cannot be read in the local store`, problem, "check this machine's disk");
  }
  for (const { problem, ...key } of report.damaged) {
    noteHere(`${keyOf(key)} is damaged in the local store`, problem, damageRemedy(key.set));
  }
  for (const destination of destinations) {
    const { waiting, errors, name } = destination;
    if (waiting.length === 0 && errors.length === 0) continue;
    const what = waiting.length === 0
      ? "cannot be asked whether it holds all"
      : `${listKeys(waiting)} not there`;
    states.push(`${name}: ${what}${errors[0] ? ` (${errors[0].message})` : ""}`);
    if (errors[0]?.hint) hints.push(errors[0].hint);
  }
  if (states.length === 0) return undefined;
  return fail(states.join("; "), [...new Set(hints)].join("; ") || "run it again");
}

/** Names the first few and counts the rest. */
function listKeys(keys: readonly SnapshotKey[]): string {
  const shown = keys.slice(0, 3).map(keyOf).join(", ");
  return keys.length > 3 ? `${shown} and ${keys.length - 3} more` : shown;
}

const counted = (snapshots: number): string =>
  snapshots === 0 ? "nothing is" : `${snapshots} snapshot${snapshots === 1 ? " is" : "s are"}`;
