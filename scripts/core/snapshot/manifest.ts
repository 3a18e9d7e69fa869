/**
 * The manifest: the private description of a snapshot, encrypted like everything else in it.
 *
 * It lists every database and every file of the moment, with the snapshot that holds each one's bytes, and with its place:
 * where on the hub it belongs, such as `home/.hapi/hapi.db` (`../place.ts`).
 *
 * @module
 */

import * as v from "valibot";
import { BackupError } from "../errors.ts";
import { FILES_PART, type HubName, type PartName, type SetName, type SnapshotId } from "../names.ts";
import { isPlace } from "../place.ts";
import { check, finiteNumber, listOf, recordOf, strictObject, wholeNumber } from "../schema.ts";
import {
  count,
  hubName,
  partName,
  readAs,
  readJson,
  setName,
  sha256,
  snapshotId,
  sourceName,
} from "../text_schemas.ts";
import { FORMAT_VERSION, SUSPICION_CODES } from "./seal.ts";
import { DATABASE_FILES } from "./sqlite_format.ts";

/** A manifest larger than this is not read (bytes of JSON): about a million files. */
export const MANIFEST_BYTES_MAX = 256 * 1024 * 1024;
/** Nor one of more values: a million files have twelve each. Forged of nothing else, 256 MiB of them took 10 GB. */
export const MANIFEST_VALUES_MAX = 16_000_000;
/** 1 for each byte that a value of JSON begins with, or follows: `,`, `[` and `{`. */
const BEGINS_VALUE = Uint8Array.from(
  { length: 256 },
  (_, byte) => Number(",[{".includes(String.fromCharCode(byte))),
);

/** The size of a manifest's JSON, which is read and written piece by piece. */
export class ManifestSize {
  #bytes = 0;
  #values = 0;

  /** Adds a piece. @returns Whether it is too large now. What is like JSON in a name counts as values, too. */
  add(json: Uint8Array): boolean {
    this.#bytes += json.length;
    // Eight times as fast as by `for of`.
    for (let at = 0; at < json.length; at++) this.#values += BEGINS_VALUE[json[at]!]!;
    return this.#bytes > MANIFEST_BYTES_MAX || this.#values > MANIFEST_VALUES_MAX;
  }
}

/** What a link leads to: Linux has none that is empty, or longer (bytes in UTF-8). */
const TARGET_BYTES_MAX = 4095;
const target = v.pipe(
  v.string(),
  v.check(
    (text) =>
      text !== "" && !text.includes("\0") && text.isWellFormed() &&
      new TextEncoder().encode(text).length <= TARGET_BYTES_MAX,
    "is nothing that a link can lead to",
  ),
);

/** The remedy for a snapshot that is damaged, or lies. */
export const ANOTHER_COPY = "choose another snapshot, or another copy of the store with --store";

const place = v.pipe(v.string(), v.guard(isPlace, "is not a place"));
const mode = wholeNumber(0, 0o7777);
const rowCounts = recordOf(count, "is not a number of rows for each table");
const headerNumber = wholeNumber(Number.MIN_SAFE_INTEGER);

/** What SQLite itself said of a database's image. */
const checks = strictObject({
  /** `["ok"]`, or what `PRAGMA integrity_check` reported (at most 100 lines). */
  integrity: v.pipe(v.array(v.string()), v.maxLength(200)),
  /** Rows of `PRAGMA foreign_key_check` as text; empty when all is well. */
  foreignKeys: v.pipe(v.array(v.string()), v.maxLength(200)),
});

const database = strictObject({
  /** The source's name; the parts of the database are named after it. */
  source: sourceName,
  place,
  mode,
  mtimeMs: finiteNumber,
  pageBytes: wholeNumber(512, 65536),
  /** Size of the image in bytes. */
  bytes: count,
  /** SHA-256 of the image. */
  sha256,
  /** Where its bytes are: the full first, then each delta in order. The last may be an earlier snapshot. */
  chain: v.pipe(
    listOf(strictObject({
      snapshot: snapshotId,
      part: partName,
      /** Image after this link: size in bytes and SHA-256. */
      bytes: count,
      sha256,
    })),
    v.minLength(1),
    v.maxLength(100_000),
  ),
  /** Rows by table, counted in the read transaction that the image was copied in. */
  rows: rowCounts,
  /** SHA-256 over `sqlite_schema`, and the two version numbers that applications keep in the header. */
  schemaSha256: sha256,
  userVersion: headerNumber,
  applicationId: headerNumber,
  checks,
});

const file = strictObject({
  source: sourceName,
  place,
  type: v.picklist(["file", "folder", "link"]),
  mode,
  mtimeMs: finiteNumber,
  bytes: count,
  /** Of a file's content; absent for folders and links. */
  sha256: v.optional(sha256),
  /** Which snapshot's tar holds the bytes, under which name. Absent for folders and links. */
  stored: v.optional(strictObject({ snapshot: snapshotId, member: place })),
  /** What a link points to. */
  target: v.optional(target),
});

const manifestSchema = strictObject({
  version: v.literal(FORMAT_VERSION),
  hub: hubName,
  set: setName,
  id: snapshotId,
  parent: v.nullable(snapshotId),
  /** What became of each configured source. */
  sources: listOf(strictObject({
    name: sourceName,
    kind: v.picklist(["sqlite", "file", "glob", "folder"]),
    path: v.string(),
    secret: v.boolean(),
    /** `unreadable` if something of it exists and could not be saved. */
    outcome: v.picklist(["saved", "absent", "unreadable"]),
  })),
  databases: listOf(database),
  files: listOf(file),
  /** Places that the parent had and that are gone. */
  removed: listOf(place),
  /** What a person should know: files that changed or vanished while they were read. */
  notes: listOf(v.string()),
  suspicions: listOf(
    strictObject({ code: v.picklist(SUSPICION_CODES), source: sourceName, detail: v.string() }),
  ),
});

/** What SQLite said of an image. */
export type DatabaseChecks = v.InferOutput<typeof checks>;
/** A database of the snapshot: what it was, and where its bytes are. */
export type SavedDatabase = v.InferOutput<typeof database>;
/** A file, folder or link of the snapshot, and where its bytes are. */
export type SavedFile = v.InferOutput<typeof file>;
/** All that a snapshot holds. */
export type Manifest = v.InferOutput<typeof manifestSchema>;
/** What became of one source. */
export type SourceOutcome = Manifest["sources"][number];

/**
 * Reads a manifest's JSON.
 *
 * @param expected What the seal says it belongs to.
 * @throws {BackupError} (integrity) If it is not a manifest, contradicts itself, or belongs to another snapshot.
 */
export function parseManifest(
  text: string,
  expected: { readonly hub: HubName; readonly set: SetName; readonly id: SnapshotId },
): Manifest {
  const fail = (state: string): never => {
    throw new BackupError(
      `Cannot read the manifest of ${expected.hub}/${expected.set}/${expected.id}: ${state}`,
      { kind: "integrity", hint: ANOTHER_COPY },
    );
  };
  const manifest = readAs(manifestSchema, readJson(text, fail), fail);
  if (manifest.hub !== expected.hub || manifest.set !== expected.set || manifest.id !== expected.id) {
    fail(`it belongs to ${manifest.hub}/${manifest.set}/${manifest.id}`);
  }
  const wrong = wrongEntry(manifest.files) ?? wrongPlace(manifest);
  if (wrong !== undefined) fail(wrong);
  return manifest;
}

/**
 * Why {@linkcode parseManifest} would not take a manifest, if so: nobody could restore what was sealed with it.
 *
 * @param known Files out of one that was taken.
 */
export function whyUnreadable(manifest: Manifest, known: ReadonlySet<SavedFile>): string | undefined {
  const files = manifest.files.filter((entry) => !known.has(entry));
  const checked = check(manifestSchema, { ...manifest, files });
  if ("problem" in checked) {
    const steps = checked.problem.path.map(({ key }) => key);
    const [list, at, ...inIt] = steps;
    const path = list === "files" && at !== undefined ? [files[Number(at)]!.place, ...inIt] : steps;
    return `${path.join(".")}: ${checked.problem.message}`;
  }
  return wrongEntry(files) ?? wrongPlace(manifest);
}

/** Which file, folder or link has what another of them should have, if any. */
function wrongEntry(files: readonly SavedFile[]): string | undefined {
  for (const entry of files) {
    const isFile = entry.type === "file";
    if (isFile !== (entry.sha256 !== undefined) || isFile !== (entry.stored !== undefined)) {
      return `${entry.place} has content where it should have none, or the reverse`;
    }
    if ((entry.type === "link") !== (entry.target !== undefined)) return `${entry.place} is half a link`;
  }
  return undefined;
}

/** What is wrong with the places of what is listed, if anything. */
function wrongPlace({ databases, files }: Pick<Manifest, "databases" | "files">): string | undefined {
  const places = new Set<string>();
  for (const { place } of [...databases, ...files]) {
    if (places.has(place)) return `it lists ${place} twice`;
    places.add(place);
  }
  // SQLite would take these for the database's own, and play them into it.
  const besides = new Set<string>(
    databases.flatMap(({ place }) => DATABASE_FILES.slice(1).map((end) => place + end)),
  );
  const beside = files.find(({ place }) => besides.has(place));
  if (beside) return `it lists ${beside.place} beside the database that it would change`;
  const folders = new Set<string>(files.filter(({ type }) => type === "folder").map(({ place }) => place));
  // Sorted so, whatever lies in a place follows right after it.
  const sorted = [...places].map((place) => `${place}/`).sort();
  for (const [index, path] of sorted.entries()) {
    const place = path.slice(0, -1);
    const next = sorted[index + 1];
    if (next?.startsWith(path) && !folders.has(place)) {
      return `${next.slice(0, -1)} lies inside ${place}, which is no folder`;
    }
  }
  return undefined;
}

/** Parts of snapshots. */
export type PartsBySnapshot = ReadonlyMap<SnapshotId, ReadonlySet<PartName>>;

/** The parts that hold the bytes of these databases and files, by snapshot. */
export function partsRead(
  { databases, files }: {
    readonly databases: readonly SavedDatabase[];
    readonly files: readonly SavedFile[];
  },
): Map<SnapshotId, Set<PartName>> {
  const read = new Map<SnapshotId, Set<PartName>>();
  const add = (snapshot: SnapshotId, part: PartName) =>
    read.set(snapshot, (read.get(snapshot) ?? new Set()).add(part));
  for (const { chain } of databases) for (const { snapshot, part } of chain) add(snapshot, part);
  for (const { stored } of files) if (stored) add(stored.snapshot, FILES_PART);
  return read;
}

/** All other snapshots whose parts a restore of this one reads, oldest first. */
export function neededBy(manifest: Pick<Manifest, "id" | "databases" | "files">): SnapshotId[] {
  return [...partsRead(manifest).keys()].filter((id) => id !== manifest.id).sort();
}
