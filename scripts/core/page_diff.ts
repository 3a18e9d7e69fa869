/**
 * Page-aware differences between two images of one SQLite database, written as a librsync delta.
 *
 * SQLite changes whole pages, scattered over the file. When a B-tree page splits, half of its cells go to another page,
 * so most of what a changed page holds stood in some changed page before. Hence two steps:
 *
 * 1. `comparePages` reads both images once, front to back, and notes which pages differ.
 * 2. `encodeChanges` indexes what those pages held *before*, and describes what they hold now by ranges that are equal
 *    in place, ranges that moved, and literal bytes. Unchanged pages are copied in long ranges and not read again.
 *
 * Where no old image is kept, `pageChecksums` and `compareChecksums` find the changed pages, and `encodeWholePages`
 * stores them whole.
 *
 * Memory: two megabytes to compare; to encode, `EncodeOptions.indexBytesMax`, 28 MiB by default. Independent of the size of the database, but for one bit (with checksums: 16 bytes) per page.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { DeltaEncoder } from "./delta.ts";
import { BackupError } from "./errors.ts";

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
  /** Pages of the next image that the base lacks or holds differently. */
  readonly changedPages: number;
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

/** Options of `encodeChanges` and `encodeWholePages`. */
export interface EncodeOptions {
  /**
   * Memory for the old contents of changed pages and the index over them, in bytes. Default 28 MiB.
   * Past it, what moved is found by fewer anchors (stretches shorter than the distance between two are stored again)
   * and is read again from the base as needed.
   */
  readonly indexBytesMax?: number;
  /** Stop when the delta exceeds this many bytes. Default: never. */
  readonly giveUpOverBytes?: number;
}

/** What a delta is made of. */
export interface DeltaStats {
  /** Pages of the next image. */
  readonly pages: number;
  /** Of these, pages that the base lacks or holds differently. */
  readonly changedPages: number;
  /** Bytes copied from the base. */
  readonly copiedBytes: number;
  /** Bytes stored in the delta. */
  readonly literalBytes: number;
  /** Commands in the delta. */
  readonly commands: number;
  /** Size of the delta in bytes. */
  readonly deltaBytes: number;
}

/** Bytes of each image that are read at once; a multiple of every page size. */
const CHUNK_BYTES = 1024 * 1024;
/** The most changed pages in a row that are searched together, in bytes; a multiple of every page size. */
const REGION_BYTES = 256 * 1024;
/** SHA-256 truncated to 128 bits: finding two pages that agree takes 2^64 tries. */
const PAGE_CHECKSUM_BYTES = 16;
/** Bytes that are hashed together, and the shortest stretch worth a COPY, which takes 6 to 8 bytes. */
const BLOCK_BYTES = 16;
/** The least distance between indexed blocks, in bytes. (8 saves 0.2 % more and takes twice the table.) */
const STRIDE_BYTES_MIN = 16;
/** Entries that are looked at in a row: the bound on what equal blocks (say, of zeros) cost, and on a match's candidates. */
const PROBES_MAX = 16;
/** A stretch equal in place is taken without looking for a longer one that moved, if it has this many bytes. */
const IN_PLACE_BYTES_SURE = 128;

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
  const marks = new PageMarks(basePages, nextPages);
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
        marks.add((position + at) / pageBytes);
      }
    }
  }
  return marks.changes(pageBytes);
}

/**
 * Writes the delta from `base` to `next`, in chunks of 64 KiB that the caller may keep.
 *
 * @param changes What `comparePages` found on the same two images.
 * @returns What the delta is made of, or "too large" when it was given up; what was yielded is then of no use.
 */
export function* encodeChanges(
  base: ImageReader,
  next: ImageReader,
  changes: PageChanges,
  options: EncodeOptions = {},
): Generator<Uint8Array<ArrayBuffer>, DeltaStats | "too large"> {
  const { pageBytes } = changes;
  const index = new MoveIndex(base, changes, options.indexBytesMax ?? 28 * 1024 * 1024);
  const parser = new RegionParser(index);
  const now = new Uint8Array(REGION_BYTES);
  const old = new Uint8Array(REGION_BYTES);
  return yield* encode(changes, options, (encoder, page, pages) => {
    const position = page * pageBytes;
    const region = now.subarray(0, pages * pageBytes);
    const before = old.subarray(0, Math.max(0, Math.min(region.length, base.bytes - position)));
    next.readAt(region, position);
    if (before.length > 0) base.readAt(before, position);
    parser.encode(region, before, position, encoder);
  });
}

/**
 * Writes a delta that stores every changed page whole; it needs no old image.
 *
 * @param changes What `compareChecksums` (or `comparePages`) found.
 * @returns As `encodeChanges`.
 */
export function* encodeWholePages(
  next: ImageReader,
  changes: PageChanges,
  options: Pick<EncodeOptions, "giveUpOverBytes"> = {},
): Generator<Uint8Array<ArrayBuffer>, DeltaStats | "too large"> {
  const buffer = new Uint8Array(REGION_BYTES);
  return yield* encode(changes, options, (encoder, page, pages) => {
    const region = buffer.subarray(0, pages * changes.pageBytes);
    next.readAt(region, page * changes.pageBytes);
    encoder.literal(region);
  });
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
  const marks = new PageMarks(basePages, nextPages);
  for (let page = 0; page < Math.max(basePages, nextPages); page++) {
    const at = page * PAGE_CHECKSUM_BYTES;
    const old = baseSums.subarray(at, at + PAGE_CHECKSUM_BYTES);
    const now = sums.subarray(at, at + PAGE_CHECKSUM_BYTES);
    if (old.length !== now.length || Buffer.compare(old, now) !== 0) marks.add(page);
  }
  return { changes: marks.changes(options.pageBytes), sums };
}

/** Copies what is unchanged and has `encodeRegion` describe `pages` changed pages in a row, from `page` on. */
function* encode(
  changes: PageChanges,
  options: EncodeOptions,
  encodeRegion: (encoder: DeltaEncoder, page: number, pages: number) => void,
): Generator<Uint8Array<ArrayBuffer>, DeltaStats | "too large"> {
  const { pageBytes, nextPages } = changes;
  const limit = options.giveUpOverBytes ?? Infinity;
  let chunks: Uint8Array<ArrayBuffer>[] = [];
  const encoder = new DeltaEncoder((chunk) => chunks.push(chunk));
  for (let page = 0; page < nextPages;) {
    const differs = isChanged(changes, page);
    const longest = differs ? REGION_BYTES / pageBytes : nextPages;
    let pages = 1;
    while (pages < longest && page + pages < nextPages && isChanged(changes, page + pages) === differs) {
      pages++;
    }
    if (differs) encodeRegion(encoder, page, pages);
    else encoder.copy(page * pageBytes, pages * pageBytes);
    page += pages;
    if (encoder.bytes > limit) return "too large";
    yield* chunks;
    chunks = [];
  }
  encoder.end();
  if (encoder.bytes > limit) return "too large";
  yield* chunks;
  return {
    pages: nextPages,
    changedPages: changes.changedPages,
    copiedBytes: encoder.copiedBytes,
    literalBytes: encoder.literalBytes,
    commands: encoder.commands,
    deltaBytes: encoder.bytes,
  };
}

/** Collects the pages that differ, counted from 0. */
class PageMarks {
  readonly #basePages: number;
  readonly #nextPages: number;
  readonly #changed: Uint8Array;
  #changedPages = 0;

  constructor(basePages: number, nextPages: number) {
    this.#basePages = basePages;
    this.#nextPages = nextPages;
    this.#changed = new Uint8Array(Math.ceil(Math.max(basePages, nextPages) / 8));
  }

  add(page: number): void {
    this.#changed[page >>> 3]! |= 1 << (page & 7);
    if (page < this.#nextPages) this.#changedPages++;
  }

  changes(pageBytes: number): PageChanges {
    return {
      pageBytes,
      basePages: this.#basePages,
      nextPages: this.#nextPages,
      changedPages: this.#changedPages,
      changed: this.#changed,
    };
  }
}

/** Whether the page, counted from 0, differs between the two images. */
function isChanged(changes: PageChanges, page: number): boolean {
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

/** Multiplier of the rolling hash, a polynomial modulo 2^32; odd, so that no byte is lost. */
const HASH_FACTOR = 0x08088405;
/** Spreads the hash over its high bits (2^32 divided by the golden ratio). */
const HASH_SPREAD = 0x9e3779b1;
/** HASH_FACTOR to the power of BLOCK_BYTES: the weight of the byte that leaves a rolling block. */
const HASH_LEAD = powerOf(HASH_FACTOR, BLOCK_BYTES);

function powerOf(factor: number, exponent: number): number {
  return exponent === 0 ? 1 : Math.imul(factor, powerOf(factor, exponent - 1));
}

/** Where a stretch of bytes stood before. */
interface Match {
  /** Position in the base. */
  position: number;
  /** First byte of it in the region, and the first byte after it. */
  start: number;
  end: number;
}

/**
 * Finds where a stretch of bytes stood in the changed pages of the base.
 *
 * The changed pages are numbered 0, 1, … as *slots*. Every `stride` bytes of a slot, a block of BLOCK_BYTES is hashed into
 * a table with open addressing; an entry holds the block's number and, above it, bits of the hash that spare most
 * comparisons of different blocks. The contents of slots are kept in `#lines`, slot by slot: all of them if they fit,
 * else slot modulo lines, read again when another took the place.
 */
class MoveIndex {
  readonly #base: ImageReader;
  readonly #pageBytes: number;
  /** Page number of each slot. */
  readonly #slotPages: Uint32Array;
  readonly #lines: Uint8Array;
  /** The slot that each line holds, plus 1; 0 for none. */
  readonly #lineSlots: Uint32Array;
  readonly #stride: number;
  readonly #blocksPerPage: number;
  readonly #table: Uint32Array;
  /** One bit for some bits of each hash in the table: it stays in the CPU's cache and spares most look-ups. */
  readonly #filter: Uint32Array;
  /** Shift of a spread hash that leaves a bit of the filter. */
  readonly #filterShift: number;
  /** Shift of a spread hash that leaves a place in the table. */
  readonly #tableShift: number;
  /** Low bits of an entry, which hold the number of a block plus 1. */
  readonly #blockMask: number;

  constructor(base: ImageReader, changes: PageChanges, bytesMax: number) {
    const { pageBytes } = changes;
    this.#base = base;
    this.#pageBytes = pageBytes;
    // Four parts of seven for the table, which is two thirds full; pages that are not held are cheap to read again.
    const blocksMax = Math.max(1, Math.floor(2 ** Math.floor(Math.log2(bytesMax / 7)) / 1.5));
    this.#slotPages = changedBasePages(changes, blocksMax);
    const slots = this.#slotPages.length;
    const lines = Math.max(1, Math.min(slots, Math.floor(bytesMax * 3 / 7 / pageBytes)));
    this.#lines = new Uint8Array(lines * pageBytes);
    this.#lineSlots = new Uint32Array(lines);

    let stride = STRIDE_BYTES_MIN;
    const blocksAt = (stride: number) => Math.floor((pageBytes - BLOCK_BYTES) / stride) + 1;
    while (slots * blocksAt(stride) > blocksMax && blocksAt(stride) > 1) stride *= 2;
    this.#stride = stride;
    this.#blocksPerPage = blocksAt(stride);
    const blocks = slots * this.#blocksPerPage;
    const tableBits = bitsFor(blocks * 1.5);
    const filterBits = bitsFor(blocks * 6);
    this.#table = new Uint32Array(2 ** tableBits);
    this.#tableShift = 32 - tableBits;
    this.#filter = new Uint32Array(2 ** (filterBits - 5));
    this.#filterShift = 32 - filterBits;
    this.#blockMask = 2 ** bitsFor(blocks + 1) - 1;
    for (let slot = 0; slot < slots; slot++) this.#addPage(slot);
  }

  #addPage(slot: number): void {
    const line = this.#load(slot);
    for (let block = 0; block < this.#blocksPerPage; block++) {
      const hash = hashBlock(this.#lines, line + block * this.#stride);
      this.#add(hash, slot * this.#blocksPerPage + block + 1);
    }
  }

  /** Adds a block, unless its place in the table is crowded. */
  #add(hash: number, block: number): void {
    const spread = Math.imul(hash, HASH_SPREAD);
    const place = spread >>> this.#tableShift;
    const mask = this.#table.length - 1;
    let probe = 0;
    while (probe < PROBES_MAX && this.#table[(place + probe) & mask] !== 0) probe++;
    if (probe === PROBES_MAX) return;
    this.#table[(place + probe) & mask] = (hash & ~this.#blockMask) | block;
    const bit = spread >>> this.#filterShift;
    this.#filter[bit >>> 5]! |= 1 << (bit & 31);
  }

  /**
   * Finds the longest stretch around `at` that stood in a changed page of the base, extended both ways.
   *
   * @param hash What `hashBlock` gives at `at`.
   * @param match Takes the result.
   * @returns Whether there is one.
   */
  find(region: Uint8Array, at: number, hash: number, match: Match): boolean {
    const spread = Math.imul(hash, HASH_SPREAD);
    const bit = spread >>> this.#filterShift;
    if ((this.#filter[bit >>> 5]! >>> (bit & 31) & 1) === 0) return false;
    const high = (hash & ~this.#blockMask) >>> 0;
    const mask = this.#table.length - 1;
    let longest = 0;
    for (let probe = 0, place = spread >>> this.#tableShift; probe < PROBES_MAX; probe++) {
      const entry = this.#table[(place + probe) & mask]!;
      if (entry === 0) break;
      if (((entry & ~this.#blockMask) >>> 0) !== high) continue;
      const block = (entry & this.#blockMask) - 1;
      const slot = Math.floor(block / this.#blocksPerPage);
      const offset = (block % this.#blocksPerPage) * this.#stride;
      const after = this.#equalAfter(region, at, slot, offset);
      if (after < BLOCK_BYTES) continue;
      const before = this.#equalBefore(region, at, slot, offset);
      if (before + after <= longest) continue;
      longest = before + after;
      match.position = this.#slotPages[slot]! * this.#pageBytes + offset - before;
      match.start = at - before;
      match.end = at + after;
    }
    return longest > 0;
  }

  /** Counts the bytes from `at` on that equal those from `offset` of `slot` on, into the slots of the pages behind. */
  #equalAfter(region: Uint8Array, at: number, slot: number, offset: number): number {
    const lines = this.#lines;
    let to = at;
    while (true) {
      const shift = this.#load(slot) + offset - to;
      const limit = Math.min(region.length, to + this.#pageBytes - offset);
      while (to < limit && region[to] === lines[to + shift]) to++;
      if (to < limit || to === region.length || !this.#followed(slot)) return to - at;
      slot++;
      offset = 0;
    }
  }

  /** Counts the bytes before `at` that equal those before `offset` of `slot`. */
  #equalBefore(region: Uint8Array, at: number, slot: number, offset: number): number {
    const lines = this.#lines;
    let from = at;
    while (true) {
      const shift = this.#load(slot) + offset - from;
      const limit = Math.max(0, from - offset);
      while (from > limit && region[from - 1] === lines[from - 1 + shift]) from--;
      if (from > limit || from === 0 || slot === 0 || !this.#followed(slot - 1)) return at - from;
      slot--;
      offset = this.#pageBytes;
    }
  }

  /** Whether the next slot is the next page. */
  #followed(slot: number): boolean {
    return this.#slotPages[slot + 1] === this.#slotPages[slot]! + 1;
  }

  /** Makes sure that a slot's contents are in memory. Returns where in `#lines`. */
  #load(slot: number): number {
    const line = slot % this.#lineSlots.length;
    const start = line * this.#pageBytes;
    if (this.#lineSlots[line] !== slot + 1) {
      this.#base.readAt(
        this.#lines.subarray(start, start + this.#pageBytes),
        this.#slotPages[slot]! * this.#pageBytes,
      );
      this.#lineSlots[line] = slot + 1;
    }
    return start;
  }
}

/** The least number of bits, of 5 to 30, that count to `count`. */
function bitsFor(count: number): number {
  return Math.min(30, Math.max(5, Math.ceil(Math.log2(count + 1))));
}

/** The numbers, from 0, of the pages of the base that differ; at most `most`. */
function changedBasePages(changes: PageChanges, most: number): Uint32Array {
  let count = 0;
  for (let page = 0; page < changes.basePages && count < most; page++) {
    count += isChanged(changes, page) ? 1 : 0;
  }
  const pages = new Uint32Array(count);
  for (let page = 0, at = 0; at < count; page++) if (isChanged(changes, page)) pages[at++] = page;
  return pages;
}

/** Describes changed pages by what stood in the base in place, what stood in it elsewhere, and literals. */
class RegionParser {
  readonly #index: MoveIndex;
  /** The copies found in this region so far, in order and apart; the first `#count` are in use. */
  readonly #copies: Match[] = [];
  #count = 0;

  constructor(index: MoveIndex) {
    this.#index = index;
  }

  /**
   * @param region Changed pages of the next image, in a row.
   * @param before What the base holds at the same position; shorter where the base ends.
   * @param position Position of both, in bytes.
   */
  encode(region: Uint8Array, before: Uint8Array, position: number, encoder: DeltaEncoder): void {
    this.#search(region, before, position);
    let at = 0;
    for (let i = 0; i < this.#count; i++) {
      const copy = this.#copies[i]!;
      encoder.literal(region.subarray(at, copy.start));
      encoder.copy(copy.position, copy.end - copy.start);
      at = copy.end;
    }
    encoder.literal(region.subarray(at));
  }

  /** Takes, from front to back, at each byte the longer of what is equal in place and what moved. */
  #search(region: Uint8Array, before: Uint8Array, position: number): void {
    const match: Match = { position: 0, start: 0, end: 0 };
    const hashable = region.length - BLOCK_BYTES;
    /** End of the stretch equal in place that `at` is in, if past it. */
    let inPlaceEnd = 0;
    let hash = 0;
    /** Where `hash` was taken. */
    let hashed = -2;
    this.#count = 0;
    for (let at = 0; at < region.length;) {
      if (inPlaceEnd <= at) inPlaceEnd = endOfEqual(region, before, at);
      if (inPlaceEnd - at < IN_PLACE_BYTES_SURE && at <= hashable) {
        hash = hashed === at - 1 ? rollHash(hash, region, at) : hashBlock(region, at);
        hashed = at;
        const found = this.#index.find(region, at, hash, match);
        if (found && (match.end > inPlaceEnd || inPlaceEnd - at < BLOCK_BYTES)) {
          this.#replace(match);
          at = match.end;
          continue;
        }
      }
      // At either end of the region it continues the copy of the unchanged pages there, and costs nothing.
      const joins = inPlaceEnd > at && (at === 0 || inPlaceEnd === region.length);
      if (joins || inPlaceEnd - at >= BLOCK_BYTES) {
        this.#push(position + at, at, inPlaceEnd);
        at = inPlaceEnd;
      } else {
        at++;
      }
    }
  }

  /** Takes `match` in place of the copies that it covers, less what it shares with the one before. */
  #replace(match: Match): void {
    while (this.#count > 0 && this.#copies[this.#count - 1]!.start >= match.start) this.#count--;
    const end = this.#count === 0 ? 0 : this.#copies[this.#count - 1]!.end;
    const shared = Math.max(0, end - match.start);
    this.#push(match.position + shared, match.start + shared, match.end);
  }

  #push(position: number, start: number, end: number): void {
    const copy = this.#copies[this.#count];
    if (copy === undefined) {
      this.#copies.push({ position, start, end });
    } else {
      copy.position = position;
      copy.start = start;
      copy.end = end;
    }
    this.#count++;
  }
}

/** The end of the stretch from `at` on in which both hold the same. */
function endOfEqual(region: Uint8Array, before: Uint8Array, at: number): number {
  const limit = Math.min(region.length, before.length);
  while (at < limit && region[at] === before[at]) at++;
  return at;
}

/** The hash of the BLOCK_BYTES at `at`. */
function hashBlock(bytes: Uint8Array, at: number): number {
  let hash = 0;
  for (let i = at; i < at + BLOCK_BYTES; i++) hash = (Math.imul(hash, HASH_FACTOR) + bytes[i]! + 1) | 0;
  return hash;
}

/** `hashBlock(bytes, at)`, given that of the block one byte before. */
function rollHash(hash: number, bytes: Uint8Array, at: number): number {
  const leaving = Math.imul(HASH_LEAD, bytes[at - 1]! + 1);
  return (Math.imul(hash, HASH_FACTOR) + bytes[at + BLOCK_BYTES - 1]! + 1 - leaving) | 0;
}
