/**
 * Which pages of two images of one SQLite database differ: from the images, or from an image and the page checksums of
 * the other.
 *
 * Memory: two megabytes, and one bit per page; with checksums, 16 bytes per page.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { BackupError } from "../errors.ts";

/** A file's bytes at rest, read by position. */
export interface ImageReader {
  /** Size in bytes. */
  readonly bytes: number;
  /** Fills `buffer` with the bytes at `position`, or throws. */
  readAt(buffer: Uint8Array, position: number): void;
}

/** Which pages of two images of one database differ. */
export interface PageChanges {
  /** Page size in bytes. */
  readonly pageBytes: number;
  /** Size of the base in pages. */
  readonly basePages: number;
  /** Size of the next image in pages. */
  readonly nextPages: number;
  /** One bit per page of the longer image, counted from 0: set if the other lacks it or holds it differently. */
  readonly changed: Uint8Array;
}

/** Options of `comparePages`. */
export interface CompareOptions {
  /** Page size in bytes: a power of two from 512 to 65536. */
  readonly pageBytes: number;
  /** Sees every byte of the base, in order, for a running hash. The buffer is used again afterwards. */
  readonly onBase?: (chunk: Uint8Array) => void;
  /** Sees every byte of the next image, in order. */
  readonly onNext?: (chunk: Uint8Array) => void;
}

/** Bytes of each image that are read at once; a multiple of every page size. */
const CHUNK_BYTES = 1024 * 1024;

/** SHA-256 truncated to 128 bits: finding two pages that agree takes 2^64 tries. */
export const PAGE_CHECKSUM_BYTES = 16;

/**
 * Finds the pages that differ, in one pass over both images.
 *
 * @throws {BackupError} Kind "source" if an image is not a whole number of pages.
 * @throws {RangeError} If `pageBytes` is not a page size of SQLite.
 */
export function comparePages(base: ImageReader, next: ImageReader, options: CompareOptions): PageChanges {
  const { pageBytes } = options;
  const basePages = pageCount(base, pageBytes);
  const nextPages = pageCount(next, pageBytes);
  const changes = noChanges(pageBytes, basePages, nextPages);
  const baseChunk = new Uint8Array(CHUNK_BYTES);
  const nextChunk = new Uint8Array(CHUNK_BYTES);
  for (let position = 0; position < Math.max(base.bytes, next.bytes); position += CHUNK_BYTES) {
    const old = readChunk(base, baseChunk, position);
    const now = readChunk(next, nextChunk, position);
    if (old.length > 0) options.onBase?.(old);
    if (now.length > 0) options.onNext?.(now);
    // Buffer.compare is memcmp. (Its variant with ranges misreports them on Deno 2.9.6 when the lengths differ.)
    if (old.length === now.length && Buffer.compare(old, now) === 0) continue;
    for (let at = 0; at < Math.max(old.length, now.length); at += pageBytes) {
      const oldPage = old.subarray(at, at + pageBytes);
      const nowPage = now.subarray(at, at + pageBytes);
      if (oldPage.length !== nowPage.length || Buffer.compare(oldPage, nowPage) !== 0) {
        markChanged(changes, (position + at) / pageBytes);
      }
    }
  }
  return changes;
}

/** Options of `pageChecksums` and `compareChecksums`. */
export type ChecksumOptions = Pick<CompareOptions, "pageBytes" | "onNext">;

/**
 * Computes every page's checksum: SHA-256, truncated to 16 bytes, one after the other.
 *
 * @throws As `comparePages`.
 */
export function pageChecksums(next: ImageReader, options: ChecksumOptions): Uint8Array<ArrayBuffer> {
  const { pageBytes } = options;
  const sums = new Uint8Array(pageCount(next, pageBytes) * PAGE_CHECKSUM_BYTES);
  const buffer = new Uint8Array(CHUNK_BYTES);
  for (let position = 0, sum = 0; position < next.bytes; position += CHUNK_BYTES) {
    const chunk = readChunk(next, buffer, position);
    options.onNext?.(chunk);
    for (let at = 0; at < chunk.length; at += pageBytes, sum += PAGE_CHECKSUM_BYTES) {
      const digest = createHash("sha256").update(chunk.subarray(at, at + pageBytes)).digest();
      sums.set(digest.subarray(0, PAGE_CHECKSUM_BYTES), sum);
    }
  }
  return sums;
}

/**
 * Finds the pages that differ from those of which `baseSums` are the checksums, in one pass.
 *
 * @param baseSums What `pageChecksums` gave for the base.
 * @returns The changes, and the checksums of `next`.
 * @throws As `comparePages`; {RangeError} if `baseSums` is not a whole number of checksums.
 */
export function compareChecksums(
  baseSums: Uint8Array,
  next: ImageReader,
  options: ChecksumOptions,
): { changes: PageChanges; sums: Uint8Array<ArrayBuffer> } {
  const basePages = baseSums.length / PAGE_CHECKSUM_BYTES;
  if (!Number.isInteger(basePages)) {
    throw new RangeError(
      `Cannot compare page checksums: ${baseSums.length} bytes are not a whole number of them`,
    );
  }
  const sums = pageChecksums(next, options);
  const nextPages = sums.length / PAGE_CHECKSUM_BYTES;
  const changes = noChanges(options.pageBytes, basePages, nextPages);
  for (let page = 0; page < Math.max(basePages, nextPages); page++) {
    const at = page * PAGE_CHECKSUM_BYTES;
    const old = baseSums.subarray(at, at + PAGE_CHECKSUM_BYTES);
    const now = sums.subarray(at, at + PAGE_CHECKSUM_BYTES);
    if (old.length !== now.length || Buffer.compare(old, now) !== 0) markChanged(changes, page);
  }
  return { changes, sums };
}

/** Two images of so many pages, none of which is marked yet. */
function noChanges(pageBytes: number, basePages: number, nextPages: number): PageChanges {
  const changed = new Uint8Array(Math.ceil(Math.max(basePages, nextPages) / 8));
  return { pageBytes, basePages, nextPages, changed };
}

function markChanged({ changed }: PageChanges, page: number): void {
  changed[page >>> 3]! |= 1 << (page & 7);
}

/** Whether the page, counted from 0, differs between the two images. */
export function isChanged(changes: PageChanges, page: number): boolean {
  return (changes.changed[page >>> 3]! >> (page & 7) & 1) === 1;
}

/** The part of `image` at `position`, as much of it as `buffer` takes; empty past its end. */
function readChunk(image: ImageReader, buffer: Uint8Array, position: number): Uint8Array {
  const chunk = buffer.subarray(0, Math.max(0, Math.min(buffer.length, image.bytes - position)));
  if (chunk.length > 0) image.readAt(chunk, position);
  return chunk;
}

function pageCount(image: ImageReader, pageBytes: number): number {
  // https://sqlite.org/fileformat2.html#pages
  if (pageBytes < 512 || pageBytes > 65536 || (pageBytes & (pageBytes - 1)) !== 0) {
    throw new RangeError(`Cannot compare pages of ${pageBytes} bytes: not a power of two from 512 to 65536`);
  }
  const pages = image.bytes / pageBytes;
  if (!Number.isInteger(pages)) {
    throw new BackupError(
      `Cannot compare a database image of ${image.bytes} bytes: not a whole number of ${pageBytes}-byte pages`,
      { kind: "source", hint: "run it again; if it stays so, the copy of the database was cut short" },
    );
  }
  return pages;
}
