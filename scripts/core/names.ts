/**
 * Names that come from outside, parsed once: after that their type is the proof.
 *
 * All of them are used as file names in a store, so none can hold a slash, start with a dot, or be empty.
 *
 * @module
 */

import { BackupError } from "./errors.ts";

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** A snapshot's id: the UTC second at which it was taken, `20261122T060000Z`. Ids sort by time as text. */
export type SnapshotId = Branded<"SnapshotId">;
/** A hub's name: the folder that holds its snapshots in a store. */
export type HubName = Branded<"HubName">;
/** A set's name: sources with one cadence and one retention, such as `state`. */
export type SetName = Branded<"SetName">;
/** The set that is saved before a start of the hub, and that drills restore. */
export const MAIN_SET = "state" as SetName;
/** A source's name within its set, such as `hapi.db`. Parts of a database are named after it. */
export type SourceName = Branded<"SourceName">;
/** The file name of a part inside a snapshot's folder. */
export type PartName = Branded<"PartName">;

const SNAPSHOT_ID = /^(\d{4})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])([0-5]\d)([0-5]\d)Z$/;

/** Reads a snapshot id. @throws {BackupError} (usage) If `text` is not a UTC time of the form `20261122T060000Z`. */
export function parseSnapshotId(text: string): SnapshotId {
  if (isSnapshotId(text)) return text;
  throw new BackupError(`Cannot read snapshot id ${JSON.stringify(text)}: it is not a UTC time`, {
    kind: "usage",
    hint: "an id looks like 20261122T060000Z; `hapi-backup list` shows those that exist",
  });
}

/** Whether `text` is a snapshot id: right in form, and a second that exists. */
export function isSnapshotId(text: string): text is SnapshotId {
  const match = SNAPSHOT_ID.exec(text);
  if (!match) return false;
  const [year, month, day] = match.slice(1, 4).map(Number) as [number, number, number];
  // Day 0 of the next month is this one's last.
  return day <= 28 || day <= new Date(Date.UTC(year, month, 0)).getUTCDate();
}

/** The id of a snapshot taken at `time` (cut to the second). Inverse of {@linkcode timeOfSnapshotId}. */
export function snapshotIdAt(time: Date): SnapshotId {
  return time.toISOString().slice(0, 19).replace(/[-:]/g, "") + "Z" as SnapshotId;
}

/** The second at which the snapshot was taken. Inverse of {@linkcode snapshotIdAt}. */
export function timeOfSnapshotId(id: SnapshotId): Date {
  const [, year, month, day, hour, minute, second] = SNAPSHOT_ID.exec(id)!;
  return new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

/** Lower case, digits and dashes, at most 63 characters: usable as a host name, a user name and a unit name. */
const SLUG = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const FILE_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}$/;
/** That of a database is as long as its source's name, and `.delta` more. */
const PART_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,85}\.zst\.age$/;

/** Whether `text` is a {@linkcode HubName}. */
export const isHubName = (text: string): text is HubName => SLUG.test(text);
/** Whether `text` is a {@linkcode SetName}. */
export const isSetName = (text: string): text is SetName => SLUG.test(text);
/** Whether `text` is a {@linkcode SourceName}. */
export const isSourceName = (text: string): text is SourceName => FILE_NAME.test(text);
/** Whether `text` is a {@linkcode PartName}. */
export const isPartName = (text: string): text is PartName => PART_NAME.test(text);

/** Reads a hub's name. @throws {BackupError} (usage) If it is not lower case letters, digits and dashes. */
export function parseHubName(text: string): HubName {
  if (isHubName(text)) return text;
  throw new BackupError(`Cannot use hub name ${JSON.stringify(text)}: it cannot name a folder and a user`, {
    kind: "usage",
    hint: "use 1 to 63 lower-case letters, digits and dashes, such as home-hub",
  });
}

/** Reads a set's name. @throws {BackupError} (usage) If it is not lower case letters, digits and dashes. */
export function parseSetName(text: string): SetName {
  if (isSetName(text)) return text;
  throw new BackupError(`Cannot use set name ${JSON.stringify(text)}: it cannot name a folder and a unit`, {
    kind: "usage",
    hint: "use 1 to 63 lower-case letters, digits and dashes, such as state",
  });
}

/** The name of the part that holds a database, whole or as a difference. */
export function databasePart(source: SourceName, form: "full" | "delta"): PartName {
  return `${source}.${form}.zst.age` as PartName;
}

/** The part that holds the bytes of files that are new or changed. */
export const FILES_PART = "files.tar.zst.age" as PartName;
/** The part that holds the manifest. */
export const MANIFEST_PART = "manifest.json.zst.age" as PartName;
/** The public description, written last. */
export const SEAL_FILE = "seal.json";
/** The SSH signature of the seal. */
export const SIGNATURE_FILE = "seal.json.sig";
/** Names that start so are being written, by us or by rsync; they are not snapshots yet. */
export const INCOMING_PREFIX = ".incoming-";
