/**
 * The manifest: the private description of a snapshot, encrypted like everything else in it.
 *
 * It lists every database and every file of the moment, with the snapshot that holds each one's bytes, and with its place:
 * where on the hub it belongs, such as `home/.hapi/hapi.db` (`../place.ts`).
 *
 * @module
 */

import { z } from "zod";
import { BackupError } from "../errors.ts";
import { FILES_PART, type HubName, type PartName, type SetName, type SnapshotId } from "../names.ts";
import { isPlace } from "../place.ts";
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
const target = z.string().min(1).refine(
  (text) =>
    !text.includes("\0") && text.isWellFormed() &&
    new TextEncoder().encode(text).length <= TARGET_BYTES_MAX,
  "is nothing that a link can lead to",
);

/** The remedy for a snapshot that is damaged, or lies. */
export const ANOTHER_COPY = "choose another snapshot, or another copy of the store with --store";

/**
 * A list of any length. Its entries are looked at one by one, up to the first that is wrong, and left as they are: zod
 * makes a copy of each, and would note what is wrong with each, which took 420 MB and 5 s for 1 MiB of a forged list.
 */
function listOf<Entry>(schema: z.ZodType<Entry>) {
  return z.array(z.custom<Entry>()).superRefine((entries, context) => {
    for (const [at, entry] of entries.entries()) {
      const problem = schema.safeParse(entry).error?.issues[0];
      if (!problem) continue;
      context.addIssue({ code: "custom", message: problem.message, path: [at, ...problem.path] });
      return;
    }
  });
}

const place = z.string().refine(isPlace, "is not a place");
const mode = z.number().int().min(0).max(0o7777);
/** Not one of zod's records: those leave out `__proto__`, which may be a table's name too. */
const rowCounts = z.custom<Record<string, number>>(
  (value) =>
    typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((rows) => count.safeParse(rows).success),
  "is not a number of rows for each table",
);

/** What SQLite itself said of a database's image. */
const checks = z.strictObject({
  /** `["ok"]`, or what `PRAGMA integrity_check` reported (at most 100 lines). */
  integrity: z.array(z.string()).max(200),
  /** Rows of `PRAGMA foreign_key_check` as text; empty when all is well. */
  foreignKeys: z.array(z.string()).max(200),
});

const database = z.strictObject({
  /** The source's name; the parts of the database are named after it. */
  source: sourceName,
  place,
  mode,
  mtimeMs: z.number(),
  pageBytes: z.number().int().min(512).max(65536),
  /** Size of the image in bytes. */
  bytes: count,
  /** SHA-256 of the image. */
  sha256,
  /** Where its bytes are: the full first, then each delta in order. The last may be an earlier snapshot. */
  chain: listOf(z.strictObject({
    snapshot: snapshotId,
    part: partName,
    /** Image after this link: size in bytes and SHA-256. */
    bytes: count,
    sha256,
  })).min(1).max(100_000),
  /** Rows by table, counted in the read transaction that the image was copied in. */
  rows: rowCounts,
  /** SHA-256 over `sqlite_schema`, and the two version numbers that applications keep in the header. */
  schemaSha256: sha256,
  userVersion: z.number().int(),
  applicationId: z.number().int(),
  checks,
});

const file = z.strictObject({
  source: sourceName,
  place,
  type: z.enum(["file", "folder", "link"]),
  mode,
  mtimeMs: z.number(),
  bytes: count,
  /** Of a file's content; absent for folders and links. */
  sha256: sha256.optional(),
  /** Which snapshot's tar holds the bytes, under which name. Absent for folders and links. */
  stored: z.strictObject({ snapshot: snapshotId, member: place }).optional(),
  /** What a link points to. */
  target: target.optional(),
});

const manifestSchema = z.strictObject({
  version: z.literal(FORMAT_VERSION),
  hub: hubName,
  set: setName,
  id: snapshotId,
  parent: snapshotId.nullable(),
  /** What became of each configured source. */
  sources: listOf(z.strictObject({
    name: sourceName,
    kind: z.enum(["sqlite", "file", "glob", "folder"]),
    path: z.string(),
    secret: z.boolean(),
    /** `unreadable` if something of it exists and could not be saved. */
    outcome: z.enum(["saved", "absent", "unreadable"]),
  })),
  databases: listOf(database),
  files: listOf(file),
  /** Places that the parent had and that are gone. */
  removed: listOf(place),
  /** What a person should know: files that changed or vanished while they were read. */
  notes: listOf(z.string()),
  suspicions: listOf(
    z.strictObject({ code: z.enum(SUSPICION_CODES), source: sourceName, detail: z.string() }),
  ),
});

/** What SQLite said of an image. */
export type DatabaseChecks = z.infer<typeof checks>;
/** A database of the snapshot: what it was, and where its bytes are. */
export type SavedDatabase = z.infer<typeof database>;
/** A file, folder or link of the snapshot, and where its bytes are. */
export type SavedFile = z.infer<typeof file>;
/** All that a snapshot holds. */
export type Manifest = z.infer<typeof manifestSchema>;
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
  const issue = manifestSchema.safeParse({ ...manifest, files }).error?.issues[0];
  if (issue) {
    const [list, at, ...inIt] = issue.path;
    const path = list === "files" && at !== undefined ? [files[Number(at)]!.place, ...inIt] : issue.path;
    return `${path.join(".")}: ${issue.message}`;
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
