/**
 * Writes a database's image into a snapshot: whole, or as what changed since the image that is kept.
 *
 * Memory: what finding the changes takes is let go before they are compressed, so the changes wait in staging, which is
 * plaintext on the same disk and of the same owner as the image itself.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { concatBytes, releaseBytes } from "../../core/bytes.ts";
import type { SetConfig } from "../../core/config/config.ts";
import { baseChecksums, baseImage, stagingFolder } from "../../core/config/state_paths.ts";
import { databasePart, type SourceName } from "../../core/names.ts";
import type { SavedDatabase } from "../../core/snapshot/manifest.ts";
import {
  compareChecksums,
  comparePages,
  PAGE_CHECKSUM_BYTES,
  type PageChanges,
  pageChecksums,
} from "../../core/snapshot/page_changes.ts";
import { encodeChanges, encodeWholePages } from "../../core/snapshot/page_diff.ts";
import type { SealedPart } from "../../core/snapshot/seal.ts";
import { piecesOf } from "../file_bytes.ts";
import { diskError, lstatIfThere, removeIfThere, writeFileDurably } from "../fs.ts";
import { collectGarbage } from "../garbage.ts";
import type { Fs, Host } from "../host.ts";
import { type OpenImage, openImage } from "./image.ts";
import { FOR_FULLS, FOR_THE_REST, writePart } from "./part_writer.ts";

/** Where the parts of one snapshot go. */
export interface PartsTarget {
  readonly host: Host;
  readonly set: SetConfig;
  readonly recipients: readonly string[];
  /** The set's state folder. */
  readonly folder: string;
  /** The folder that the snapshot is made in. */
  readonly incoming: string;
}

/** An image that was written. */
export interface WrittenImage {
  /** Undefined if nothing changed. */
  readonly part: SealedPart | undefined;
  /** SHA-256 of the image. */
  readonly sha256: string;
  /** Its page checksums, where they are kept in place of the image. */
  readonly sums: Uint8Array | undefined;
}

/** Thrown when what changed cannot be told, or is too much: a full is needed. */
export class FullNeeded extends Error {}

/** Bytes of an image that are read at once. */
const READ_BYTES = 1 << 20;

/** Writes an image whole. */
export async function writeFull(
  target: PartsTarget,
  source: SourceName,
  image: OpenImage,
): Promise<WrittenImage & { readonly part: SealedPart }> {
  const { host, set } = target;
  const hash = createHash("sha256");
  const part = await writePart(target, databasePart(source, "full"), FOR_FULLS, (part) => {
    const buffer = new Uint8Array(READ_BYTES);
    for (let done = 0; done < image.bytes; done += buffer.length) {
      const chunk = buffer.subarray(0, Math.min(buffer.length, image.bytes - done));
      image.readAt(chunk, done);
      hash.update(chunk);
      part.write(chunk);
      host.report.progress(`encrypt ${source}`, done + chunk.length, image.bytes);
      host.checkpoint();
    }
  });
  const { pageBytes } = image;
  const sums = set.keepBase ? undefined : pageChecksums(image, { pageBytes });
  return { part, sha256: hash.digest("hex"), sums };
}

/**
 * Writes what changed since `before`.
 *
 * @param fullBytes Bytes of ciphertext of the chain's full.
 * @throws {FullNeeded} If what was kept of the image before is missing or altered, or too much changed.
 */
export async function writeDelta(
  target: PartsTarget,
  source: SourceName,
  before: SavedDatabase,
  next: OpenImage,
  fullBytes: number,
): Promise<WrittenImage> {
  const { host, set, folder } = target;
  const spool = `${stagingFolder(folder)}/${source}.delta`;
  try {
    // What loading left behind would count beside the tables for finding the changes.
    collectGarbage();
    const { sha256, sums } = spoolChanges(target, before, next, spool);
    if (sha256 === before.sha256) return { part: undefined, sha256, sums };
    collectGarbage();
    const part = await writePart(target, databasePart(source, "delta"), FOR_THE_REST, (part) => {
      using delta = host.fs.open(spool, { read: true });
      for (const piece of piecesOf(delta)) {
        part.write(piece);
        host.checkpoint();
      }
    });
    if (part.bytes > fullBytes * set.fullOverRatio) {
      throw new FullNeeded(
        `the increment of ${source} would take ${part.bytes} bytes, its full took ${fullBytes}`,
      );
    }
    return { part, sha256, sums };
  } finally {
    removeIfThere(host.fs, spool);
  }
}

/** Finds what changed and writes it to `spool`, if anything did. @throws {FullNeeded} */
function spoolChanges(
  { host, set, folder }: PartsTarget,
  before: SavedDatabase,
  next: OpenImage,
  spool: string,
): Pick<WrittenImage, "sha256" | "sums"> {
  const { source, pageBytes } = before;
  const nextHash = createHash("sha256");
  let done = 0;
  const onNext = (chunk: Uint8Array) => {
    nextHash.update(chunk);
    done += chunk.length;
    host.report.progress(`compare ${source}`, done, next.bytes);
    host.checkpoint();
  };
  const giveUpOverBytes = Math.ceil(next.bytes * set.fullOverRatio);
  const kept = set.keepBase ? baseImage(folder, before.sha256) : baseChecksums(folder, before.sha256);
  const there = lstatIfThere(host.fs, kept)?.type;
  if (there !== "file" && there !== "link") {
    // A folder in its place would keep the next image from being kept, too.
    removeIfThere(host.fs, kept);
    throw new FullNeeded(`the last image of ${source} is not kept here`);
  }

  using base = set.keepBase ? openImage(host.fs, kept) : undefined;
  let changes: PageChanges;
  let sums: Uint8Array | undefined;
  if (base) {
    if (base.bytes !== before.bytes) throw new FullNeeded(`the last image of ${source} is not what it was`);
    const baseHash = createHash("sha256");
    changes = comparePages(base, next, { pageBytes, onNext, onBase: (chunk) => void baseHash.update(chunk) });
    if (baseHash.digest("hex") !== before.sha256) {
      throw new FullNeeded(`the last image of ${source} is not what it was`);
    }
  } else {
    ({ changes, sums } = compareChecksums(readChecksums(host.fs, kept, before), next, { pageBytes, onNext }));
  }
  const sha256 = nextHash.digest("hex");
  if (sha256 === before.sha256) return { sha256, sums };
  const encoding = base
    ? encodeChanges(base, next, changes, { giveUpOverBytes })
    : encodeWholePages(next, changes, { giveUpOverBytes });
  if (!writeSpool(host, spool, encoding)) throw new FullNeeded(`the changes of ${source} are too large`);
  return { sha256, sums };
}

function writeSpool(
  host: Host,
  spool: string,
  encoding: ReturnType<typeof encodeChanges>,
): boolean {
  try {
    using file = host.fs.open(spool, { write: true, create: true, truncate: true, mode: 0o600 });
    for (let step = encoding.next();; step = encoding.next()) {
      if (step.done) return step.value;
      file.write(step.value);
      releaseBytes(step.value);
      host.checkpoint();
    }
  } catch (error) {
    throw diskError(`write ${spool}`, error);
  }
}

/** Page checksums as they were kept: themselves, then their own SHA-256. */
function readChecksums(fs: Fs, path: string, before: SavedDatabase): Uint8Array {
  const bytes = fs.readFile(path);
  const sums = bytes.subarray(0, Math.max(0, bytes.length - 32));
  const isSame = createHash("sha256").update(sums).digest().equals(bytes.subarray(sums.length));
  if (!isSame || sums.length !== before.bytes / before.pageBytes * PAGE_CHECKSUM_BYTES) {
    throw new FullNeeded(`the page checksums of ${before.source} are not what they were`);
  }
  return sums;
}

/**
 * Puts what was written where the next increment looks for it, under its checksum.
 *
 * @param image Path of the staged image, which is moved.
 */
export function keepForNext(
  { host, folder, set }: PartsTarget,
  { sha256, sums }: Pick<WrittenImage, "sha256" | "sums">,
  image: string | undefined,
): void {
  if (set.keepBase && image) host.fs.rename(image, baseImage(folder, sha256));
  if (!set.keepBase && sums) {
    const checksum = createHash("sha256").update(sums).digest();
    writeFileDurably(host.fs, baseChecksums(folder, sha256), concatBytes(sums, checksum));
    // Kept by an earlier configuration, of the very same content.
    removeIfThere(host.fs, baseImage(folder, sha256));
  }
}
