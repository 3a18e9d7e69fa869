/**
 * Which files of a snapshot must be read, and which content is stored already.
 *
 * Invariants: a file counts as unchanged only if everything that `stat` tells of it is as it was when it was read,
 * and it had not just been written then; content that the chain holds is never stored twice, whatever its name.
 *
 * @module
 */

import type { SnapshotId, SourceName } from "../names.ts";
import type { Place } from "../place.ts";
import { type FileMark, isSameMark } from "./file_mark.ts";
import type { Manifest, SavedFile } from "./manifest.ts";

/**
 * A file read within this time of its last change may have changed again without a trace: Deno tells ctime in whole
 * seconds, FAT keeps mtime in steps of two. It is read again the next time (git calls such entries racy).
 */
const RACY_MS = 2_000;

/** How a file looked when the snapshot's bytes of it were read. */
export interface RememberedFile extends FileMark {
  /** The clock's time, in milliseconds, when reading the file began. */
  readonly readMs: number;
}

/** How each file of a snapshot looked. Kept on the hub, in no snapshot. */
export interface RememberedFiles {
  readonly version: 1;
  readonly snapshot: SnapshotId;
  readonly files: Readonly<Record<Place, RememberedFile>>;
}

/** Something that a source names, as it stood when it was found. */
export interface FoundFile {
  readonly source: SourceName;
  readonly place: Place;
  /** Absolute path to read it at. */
  readonly path: string;
  readonly type: "file" | "folder" | "link";
  readonly stat: FileMark & { readonly mode: number };
  /** What a link points to. */
  readonly target?: string;
  /** Whether the operator named this very path: then a link there is followed. */
  readonly named: boolean;
}

/** Something that a source names, that exists and cannot be saved, or must exist and does not. */
export interface Unreadable {
  readonly source: SourceName;
  /** Absolute path. */
  readonly path: string;
  /** A sentence that names it. */
  readonly reason: string;
}

/** A file that goes into the snapshot. */
export interface PlannedFile {
  readonly found: FoundFile;
  /** Of a file that need not be read: what was saved of it. */
  readonly unchanged?: { readonly saved: SavedFile; readonly remembered: RememberedFile };
}

/** What packing does, in order of place. */
export interface FilePlan {
  readonly id: SnapshotId;
  readonly files: readonly PlannedFile[];
  /** The files of the snapshot that this one continues; empty for a full. */
  readonly previous: readonly SavedFile[];
  /** Whether big files are read to their end before they go into the tar: for where one could not be. */
  readonly isCareful?: boolean;
  /** Size of all files that must be read, in bytes. */
  readonly bytesToRead: number;
  readonly notes: readonly string[];
}

/**
 * Decides for each found file whether it must be read.
 *
 * Of two sources that name the same place the first wins, except that a link gives way to what another source
 * found behind it.
 *
 * @param previous The parent's manifest and what was remembered with it; leave out for a full.
 * @param except Places that are saved in another way (databases and their `-wal`), or not at all.
 * @param databases Places of the databases that are saved: a link above one gives way, too.
 */
export function planFiles(
  { id, found, previous, except = new Set(), databases = [] }: {
    readonly id: SnapshotId;
    readonly found: Iterable<FoundFile>;
    readonly previous?: {
      readonly manifest: Pick<Manifest, "id" | "files">;
      readonly remembered: RememberedFiles | undefined;
    };
    readonly except?: ReadonlySet<Place>;
    readonly databases?: readonly Place[];
  },
): FilePlan {
  const notes: string[] = [];
  const chosen = chooseByPlace(found, except, databases, notes);
  const before = new Map(previous?.manifest.files.map((file) => [file.place, file]));
  const remembered = previous && previous.remembered?.snapshot === previous.manifest.id
    ? previous.remembered.files
    : {};

  let bytesToRead = 0;
  const files = chosen.map((file): PlannedFile => {
    if (file.type !== "file") return { found: file };
    const old = before.get(file.place);
    const memory = remembered[file.place];
    if (old?.sha256 && old.stored && memory && old.bytes === memory.bytes && isUnchanged(file.stat, memory)) {
      return { found: file, unchanged: { saved: old, remembered: memory } };
    }
    bytesToRead += file.stat.bytes;
    return { found: file };
  });
  return { id, files, previous: previous?.manifest.files ?? [], bytesToRead, notes };
}

/** One file per place, sorted, none of them inside something that is no folder: a manifest allows nothing else. */
function chooseByPlace(
  found: Iterable<FoundFile>,
  except: ReadonlySet<Place>,
  databases: readonly Place[],
  notes: string[],
): FoundFile[] {
  const byPlace = new Map<string, FoundFile>();
  for (const file of found) {
    if (except.has(file.place)) continue;
    const other = byPlace.get(file.place);
    if (!other || (other.type === "link" && file.type !== "link")) byPlace.set(file.place, file);
  }
  for (const place of [...byPlace.keys(), ...databases]) {
    for (let cut = place.lastIndexOf("/"); cut > 0; cut = place.lastIndexOf("/", cut - 1)) {
      const above = byPlace.get(place.slice(0, cut));
      if (!above) continue;
      if (above.type === "folder") break;
      byPlace.delete(above.place);
      notes.push(`${above.place} is a ${above.type} and not saved: another source saves what is behind it`);
    }
  }
  return [...byPlace.values()].sort((a, b) => a.place < b.place ? -1 : 1);
}

function isUnchanged(now: FileMark, then: RememberedFile): boolean {
  const racy = then.ctimeMs >= then.readMs - RACY_MS || Math.abs(then.mtimeMs - then.readMs) <= RACY_MS;
  return !racy && isSameMark(now, then);
}

/** The content that a chain of snapshots holds, by what it is and not by what it was called. */
export class ContentIndex {
  readonly #stored = new Map<string, NonNullable<SavedFile["stored"]>>();
  readonly #sizes = new Set<number>();

  constructor(files: Iterable<SavedFile> = []) {
    for (const { sha256, bytes, stored } of files) if (sha256 && stored) this.add(sha256, bytes, stored);
  }

  /** Notes where content is stored. */
  add(sha256: string, bytes: number, stored: NonNullable<SavedFile["stored"]>): void {
    this.#stored.set(sha256, stored);
    this.#sizes.add(bytes);
  }

  /** Where content of this checksum is stored. */
  find(sha256: string): SavedFile["stored"] {
    return this.#stored.get(sha256);
  }

  /** Whether any content of this size (bytes) is known: without one, hashing ahead cannot save anything. */
  hasSize(bytes: number): boolean {
    return this.#sizes.has(bytes);
  }
}
