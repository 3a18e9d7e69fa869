/**
 * Rebuilds a database's image from its chain: the full, then each delta in place, through a journal.
 *
 * Costs one full plus the bytes that changed. The image counts only once its SHA-256 is what the manifest says.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { releaseBytes } from "../core/bytes.ts";
import { BackupError } from "../core/errors.ts";
import type { SavedDatabase } from "../core/manifest.ts";
import { type Image, Patcher } from "../core/patch.ts";
import { parentOf } from "../core/paths.ts";
import { cipherHere, cipherThread } from "./cipher.ts";
import { attempt, removeIfThere } from "./fs.ts";
import type { Host, OpenFile } from "./host.ts";
import { type Opening, openPartSaying, openSeal } from "./open_snapshot.ts";
import type { OpenPart } from "./part_reader.ts";

/** One step of a chain: the part that makes the image, or changes it, to be so many bytes. */
type Link = SavedDatabase["chain"][number];

/** Bytes of an image that are read at once: few enough that a processor's cache still holds them when they are hashed. */
const READ_BYTES = 256 * 1024;
/**
 * Bytes of an image that are written at once. Linux caches a file in pieces as large as its writes, and a small write
 * into a large piece costs twice as much.
 */
const WRITE_BYTES = 32 * 1024;
const ANOTHER_COPY = "choose another snapshot, or another copy of the store with --store";

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
    using journal = openNew(host, journalPath);
    const bytes = await applyChain(opening, saved, image, journal);
    const synced = image.syncing();
    let sha256: string;
    try {
      sha256 = hashOf(host, image, bytes);
    } finally {
      await synced;
    }
    if (bytes !== saved.bytes || sha256 !== saved.sha256) {
      throw new BackupError(
        `Cannot rebuild ${saved.source}: the image has SHA-256 ${sha256} where the manifest says ${saved.sha256}`,
        { kind: "integrity", hint: ANOTHER_COPY },
      );
    }
  } catch (error) {
    removeIfThere(host.fs, path);
    throw error;
  } finally {
    removeIfThere(host.fs, journalPath);
  }
}

/** Makes the image that a chain tells. Returns its size in bytes. */
async function applyChain(
  opening: Opening,
  saved: SavedDatabase,
  file: OpenFile,
  journal: OpenFile,
): Promise<number> {
  const { host } = opening;
  const [full, ...deltas] = saved.chain;
  using cipher = host.startCipher ? cipherThread(host.startCipher()) : cipherHere;
  const open = async (link: Link) =>
    await openPartSaying(opening, openSeal(opening, link.snapshot), link.part, cipher);

  {
    using part = await open(full!);
    await writeFull(part, full!, file);
  }
  let { bytes } = full!;
  if (deltas.length === 0) return bytes;
  const image: Image = {
    get bytes() {
      return bytes;
    },
    readAt: reader(file),
    writeAt: (data, position) => writeImage(file, data, position),
    truncate(to) {
      attempt("write the image", () => file.truncate(to));
      bytes = to;
    },
  };
  const patcher = new Patcher(image, {
    readAt: reader(journal),
    writeAt: (data, position) => attempt("write the journal", () => journal.writeAt(data, position)),
  });
  let coming = await open(deltas[0]!);
  try {
    for (const [index, link] of deltas.entries()) {
      using part = coming;
      const following = deltas[index + 1];
      const delta = patcher.start(link.bytes);
      for await (const content of part.contents()) {
        // The next one is deciphered on the cipher's thread while this one is applied.
        if (following && coming === part) coming = await open(following);
        delta.push(content);
        releaseBytes(content);
      }
      delta.finish();
    }
  } finally {
    coming[Symbol.dispose]();
  }
  return bytes;
}

async function writeFull(
  part: OpenPart,
  { bytes, part: name, snapshot }: Link,
  image: OpenFile,
): Promise<void> {
  let done = 0;
  for await (const content of part.contents()) {
    if (done + content.length > bytes) break;
    writeImage(image, content, done);
    done += content.length;
    releaseBytes(content);
  }
  if (done === bytes) return;
  throw new BackupError(
    `Cannot use ${name} of ${snapshot}: it does not hold ${bytes} bytes, as the manifest says`,
    { kind: "integrity", hint: ANOTHER_COPY },
  );
}

function writeImage(image: OpenFile, data: Uint8Array, position: number): void {
  attempt("write the image", () => {
    for (let at = 0; at < data.length; at += WRITE_BYTES) {
      image.writeAt(data.subarray(at, at + WRITE_BYTES), position + at);
    }
  });
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
