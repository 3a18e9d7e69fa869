/**
 * Rebuilds a database's image from its chain: the full, then each delta in place, through a journal.
 *
 * Costs one full plus the bytes that changed. The image counts only once its SHA-256 is what the manifest says: that
 * proves the full, too, whose own SHA-256 is looked at only to find whether it is to blame where the image is not what
 * it should be. A delta, which can be made to take far longer to apply than to read, is applied only once its own is
 * right.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { releaseBytes } from "../../core/bytes.ts";
import { BackupError } from "../../core/errors.ts";
import { parentOf } from "../../core/paths.ts";
import { ANOTHER_COPY, type SavedDatabase } from "../../core/snapshot/manifest.ts";
import { type Image, makeRing, Patcher, type Scratch } from "../../core/snapshot/patch.ts";
import { attempt, diskError, removeIfThere, syncBeside } from "../fs.ts";
import type { Host, OpenFile } from "../host.ts";
import { imageWriterThread, writePiece } from "./image_writer.ts";
import { type Opening, openPartSaying, openSeal, partOf } from "./open_snapshot.ts";
import { type OpenPart, requireAsSealed } from "./part_reader.ts";

/** One step of a chain: the part that makes the image, or changes it, to be so many bytes. */
type Link = SavedDatabase["chain"][number];

/** Bytes of an image that are read at once to be hashed. */
const READ_BYTES = 512 * 1024;

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
    await using parts = new PartsAhead(opening, saved.chain);
    using image = openNew(host, path);
    using journal = openNew(host, journalPath);
    const bytes = await applyChain(host, saved, parts, path, image, journal);
    const synced = syncBeside(image, path);
    let sha256: string;
    try {
      sha256 = await hashOf(host, path);
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
    requireFull(opening, saved, error);
    throw error;
  } finally {
    removeIfThere(host.fs, journalPath);
  }
}

/** @throws {BackupError} (integrity) If what kept an image from being rebuilt is that its full is not as it was sealed. */
function requireFull(opening: Opening, { chain }: SavedDatabase, reason: unknown): void {
  if (!(reason instanceof BackupError) || reason.kind !== "integrity") return;
  const { snapshot, part } = chain[0]!;
  const sealed = openSeal(opening, snapshot);
  requireAsSealed(opening.host, sealed, partOf(sealed.seal, part));
}

/** The most bytes that the image has while it is rebuilt. What changes is noted beside it meanwhile, and not counted. */
export const imageBytesMax = ({ chain }: SavedDatabase): number =>
  chain.reduce((most, { bytes }) => Math.max(most, bytes), 0);

/** Makes the image that a chain tells. Returns its size in bytes. */
async function applyChain(
  host: Host,
  saved: SavedDatabase,
  parts: PartsAhead,
  path: string,
  file: OpenFile,
  journal: OpenFile,
): Promise<number> {
  const { startThread } = host;
  const [full, ...deltas] = saved.chain;
  using writer = startThread && imageWriterThread(startThread("image writer"), path);
  const image = imageIn(host, file, path, full!.bytes);
  try {
    {
      using part = await parts.next();
      parts.prepareNext();
      // Who has time for it writes.
      await writeFull(part, full!, (bytes, position) => {
        if (writer?.offer(bytes, position)) return;
        image.writeAt(bytes, position);
        releaseBytes(bytes);
      });
      await writer?.settle();
    }
    if (deltas.length === 0) return full!.bytes;
    const ring = makeRing(full!.bytes, startThread ? SharedArrayBuffer : ArrayBuffer);
    writer?.empty(ring);
    // The disk is at work meanwhile: what the deltas change is written again, and all else is done with.
    using second = attempt(`write ${path}`, () => host.fs.open(path, { write: true }));
    const synced = syncBeside(second, path);
    try {
      const patcher = new Patcher(image, scratchIn(host, journal, path), ring, writer);
      for (const { bytes } of deltas) await applyDelta(parts, patcher, bytes);
    } finally {
      await synced;
    }
    return deltas.at(-1)!.bytes;
  } finally {
    await writer?.finish();
  }
}

/** Opens the parts of a chain, each before the one that it follows is read: the other thread starts on it meanwhile. */
class PartsAhead implements AsyncDisposable {
  readonly #opening: Opening;
  readonly #chain: readonly Link[];
  #opened = 0;
  #coming: Promise<OpenPart> | undefined;

  constructor(opening: Opening, chain: readonly Link[]) {
    this.#opening = opening;
    this.#chain = chain;
    this.#openNext();
  }

  /** The next part, which is the caller's then. */
  async next(): Promise<OpenPart> {
    const part = await this.#coming!;
    this.#openNext();
    return part;
  }

  /** Says that the part after that will be read soon, and that there is room for the first of it. */
  prepareNext(): void {
    this.#coming?.then((part) => part.prepare(), () => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#coming?.then((part) => part[Symbol.dispose](), () => {});
  }

  /** What fails comes with `next`. */
  #openNext(): void {
    const link = this.#chain[this.#opened++];
    this.#coming = link && this.#open(link, this.#opened > 1);
    this.#coming?.catch(() => {});
  }

  /** Of a full the other thread deciphers, and this one decompresses; of a delta it does both. */
  async #open({ snapshot, part }: Link, isDelta: boolean): Promise<OpenPart> {
    const opening = this.#opening;
    const reading = { unpacked: isDelta || !opening.sources, isHashed: isDelta };
    return await openPartSaying(opening, openSeal(opening, snapshot), part, reading);
  }
}

async function applyDelta(parts: PartsAhead, patcher: Patcher, nextBytes: number): Promise<void> {
  using part = await parts.next();
  const delta = patcher.start(nextBytes);
  for await (const content of part.contents()) {
    delta.push(content);
    releaseBytes(content);
    // Behind what comes next of this part, which is asked for first.
    parts.prepareNext();
  }
  delta.finish();
}

/** A few bytes of a delta can make any number of those of an image: an interruption is heard while they are written. */
function imageIn({ checkpoint }: Host, file: OpenFile, path: string, bytes: number): Image {
  return {
    bytes,
    readAt: reader(file, path),
    writeAt(data, position) {
      checkpoint();
      attempt(`write ${path}`, () => writePiece(file, data, position));
    },
    truncate: (to) => attempt(`write ${path}`, () => file.truncate(to)),
  };
}

/** @param path The image's: its scratch file lies beside it. */
function scratchIn({ checkpoint }: Host, journal: OpenFile, path: string): Scratch {
  return {
    readAt: reader(journal, path),
    writeAt(data, position) {
      checkpoint();
      attempt(`write what changes beside ${path}`, () => journal.writeAt(data, position));
    },
  };
}

/** @param write Writes what is its own from then on. */
async function writeFull(
  part: OpenPart,
  { bytes, part: name, snapshot }: Link,
  write: (bytes: Uint8Array<ArrayBuffer>, position: number) => void,
): Promise<void> {
  let done = 0;
  for await (const content of part.contents()) {
    const { length } = content;
    if (done + length > bytes) break;
    write(content, done);
    done += length;
  }
  if (done === bytes) return;
  throw new BackupError(
    `Cannot use ${name} of ${snapshot}: it does not hold ${bytes} bytes, as the manifest says`,
    { kind: "integrity", hint: ANOTHER_COPY },
  );
}

function reader(file: OpenFile, path: string): (buffer: Uint8Array, position: number) => void {
  return (buffer, position) => {
    if (attempt(`read ${path}`, () => file.readAt(buffer, position)) !== buffer.length) {
      throw new BackupError(
        `Cannot rebuild ${path}: what was just written is shorter than it was`,
        {
          kind: "disk",
          hint: "look at the system's log for errors of that disk",
        },
      );
    }
  };
}

/** The SHA-256 of an image, whose next bytes are read while those before are hashed. */
async function hashOf(host: Host, path: string): Promise<string> {
  const action = `read ${path}`;
  using image = attempt(action, () => host.fs.open(path, { read: true }));
  const read = async (buffer: Uint8Array) => {
    try {
      return await image.reading(buffer);
    } catch (error) {
      throw diskError(action, error);
    }
  };
  const hash = createHash("sha256");
  let [buffer, other] = [new Uint8Array(READ_BYTES), new Uint8Array(READ_BYTES)];
  let coming = read(buffer);
  for (let count = await coming; count > 0; count = await coming) {
    host.checkpoint();
    coming = read(other);
    hash.update(buffer.subarray(0, count));
    [buffer, other] = [other, buffer];
  }
  return hash.digest("hex");
}

function openNew(host: Host, path: string): OpenFile {
  return attempt(
    `make ${path}`,
    () => host.fs.open(path, { read: true, write: true, createNew: true, mode: 0o600, scattered: true }),
  );
}
