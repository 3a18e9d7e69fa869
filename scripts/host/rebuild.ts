/**
 * Rebuilds a database's image from its chain: the full, then each delta in place, through a journal.
 *
 * Costs one full plus the bytes that changed. The image counts only once its SHA-256 is what the manifest says.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { BackupError } from "../core/errors.ts";
import type { SavedDatabase } from "../core/manifest.ts";
import type { PartName } from "../core/names.ts";
import { DeltaJournal, replayJournal } from "../core/patch.ts";
import { parentOf } from "../core/paths.ts";
import { attempt, removeIfThere } from "./fs.ts";
import { collectGarbage } from "./garbage.ts";
import type { Host, OpenFile } from "./host.ts";
import { type Opening, openSeal, readPartSaying, type TrustedSnapshot } from "./open_snapshot.ts";

/** Bytes of an image that are read at once. */
const READ_BYTES = 1 << 20;

/**
 * Writes the image of `saved` to `path`, where nothing may be. Mode 0600.
 *
 * @throws {BackupError} (integrity) If any link of the chain is missing or damaged, or the result is not the image that
 * was saved; (key); (disk). Nothing is left at `path` then.
 */
export async function rebuildDatabase(opening: Opening, saved: SavedDatabase, path: string): Promise<void> {
  const { host } = opening;
  // A name that no snapshot can hold: its own files lie in this folder too.
  const journalPath = `${parentOf(path)}/.journal-${crypto.randomUUID()}`;
  try {
    using image = openNew(host, path);
    const [full, ...deltas] = saved.chain;
    const fullHash = createHash("sha256");
    const onlyFull = deltas.length === 0;
    await writeFull(opening, openSeal(opening, full!.snapshot), full!.part, full!.bytes, image, (chunk) => {
      if (onlyFull) fullHash.update(chunk);
    });
    let bytes = full!.bytes;
    for (const link of deltas) {
      await applyDelta(
        opening,
        openSeal(opening, link.snapshot),
        link.part,
        image,
        bytes,
        link.bytes,
        journalPath,
      );
      bytes = link.bytes;
      // Each takes some 20 MB of buffers, which no collection would come for by itself.
      collectGarbage();
    }
    const sha256 = onlyFull ? fullHash.digest("hex") : hashOf(host, image, bytes);
    if (bytes !== saved.bytes || sha256 !== saved.sha256) {
      throw new BackupError(
        `Cannot rebuild ${saved.source}: the image has SHA-256 ${sha256} where the manifest says ${saved.sha256}`,
        { kind: "integrity", hint: "choose another snapshot, or another copy of the store with --store" },
      );
    }
    image.sync();
  } catch (error) {
    removeIfThere(host.fs, path);
    throw error;
  } finally {
    removeIfThere(host.fs, journalPath);
  }
}

async function writeFull(
  opening: Opening,
  snapshot: TrustedSnapshot,
  part: PartName,
  bytes: number,
  image: OpenFile,
  onChunk: (chunk: Uint8Array) => void,
): Promise<void> {
  let done = 0;
  for await (const chunk of readPartSaying(opening, snapshot, part)) {
    done += chunk.length;
    if (done > bytes) throw wrongSize(part, snapshot, bytes);
    onChunk(chunk);
    attempt("write the image", () => image.write(chunk));
  }
  if (done !== bytes) throw wrongSize(part, snapshot, bytes);
}

async function applyDelta(
  opening: Opening,
  snapshot: TrustedSnapshot,
  part: PartName,
  image: OpenFile,
  bytesBefore: number,
  bytesAfter: number,
  journalPath: string,
): Promise<void> {
  const { host } = opening;
  const readImage = { bytes: bytesBefore, readAt: reader(image) };
  removeIfThere(host.fs, journalPath);
  using journal = openNew(host, journalPath);
  const sink = (data: Uint8Array) => attempt("write the journal", () => journal.write(data));
  const delta = new DeltaJournal(readImage, bytesAfter, sink);
  for await (const chunk of readPartSaying(opening, snapshot, part)) delta.push(chunk);
  delta.finish();
  // No sync: after a crash a restore starts over, and its half-built image is never used.
  const readJournal = { bytes: delta.journalBytes, readAt: reader(journal) };
  attempt("write the image", () =>
    replayJournal(readJournal, {
      ...readImage,
      writeAt: (data, position) => image.writeAt(data, position),
      truncate: (bytes) => image.truncate(bytes),
    }));
}

function reader(file: OpenFile): (buffer: Uint8Array, position: number) => void {
  return (buffer, position) => {
    if (file.readAt(buffer, position) !== buffer.length) {
      throw new BackupError(
        "Cannot rebuild a database: a file that was just written is shorter than it was",
        {
          kind: "disk",
          hint: "look at the system's log for errors of that disk",
        },
      );
    }
  };
}

function hashOf(host: Host, image: OpenFile, bytes: number): string {
  const hash = createHash("sha256");
  const buffer = new Uint8Array(READ_BYTES);
  for (let done = 0; done < bytes;) {
    host.checkpoint();
    const count = image.readAt(buffer.subarray(0, Math.min(buffer.length, bytes - done)), done);
    if (count === 0) break;
    hash.update(buffer.subarray(0, count));
    done += count;
  }
  return hash.digest("hex");
}

function openNew(host: Host, path: string): OpenFile {
  return attempt(
    `make ${path}`,
    () => host.fs.open(path, { read: true, write: true, createNew: true, mode: 0o600 }),
  );
}

function wrongSize(part: PartName, { seal }: TrustedSnapshot, bytes: number): BackupError {
  return new BackupError(
    `Cannot use ${part} of ${seal.id}: it does not hold ${bytes} bytes, as the manifest says`,
    {
      kind: "integrity",
    },
  );
}
