/**
 * Finds where bytes of changed pages stood before, among the changed pages of the base.
 *
 * @module
 */

import { type ImageReader, isChanged, type PageChanges } from "./page_changes.ts";

/** Bytes that are hashed together, and the shortest stretch worth a COPY, which takes 6 to 8 bytes. */
export const BLOCK_BYTES = 16;

/** The least distance between indexed blocks, in bytes. (8 saves 0.2 % more and takes twice the table.) */
const STRIDE_BYTES_MIN = 16;
/** Entries that are looked at in a row: the bound on what equal blocks (say, of zeros) cost, and on a match's candidates. */
const PROBES_MAX = 16;

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
export interface Match {
  /** Position in the base. */
  position: number;
  /** First byte of it in the region, and the first byte after it. */
  start: number;
  end: number;
}

/**
 * Finds where a stretch of bytes stood in the changed pages of the base.
 *
 * The changed pages are numbered 0, 1, … as *slots*. Every `stride` bytes of a slot, a block of BLOCK_BYTES is hashed
 * into a table with open addressing; an entry holds the block's number and, above it, bits of the hash that spare most
 * comparisons of different blocks. The contents of slots are kept in `#lines`, slot by slot: all of them if they fit,
 * else slot modulo lines, read again when another took the place.
 */
export class MoveIndex {
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
    // Two parts of three for the table, which is two thirds full; pages that are not held are cheap to read again.
    const blocksMax = Math.max(1, Math.floor(2 ** Math.floor(Math.log2(bytesMax / 6)) / 1.5));
    this.#slotPages = changedBasePages(changes, blocksMax);
    const slots = this.#slotPages.length;
    const lines = Math.max(1, Math.min(slots, Math.floor(bytesMax / 3 / pageBytes)));
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

/** The hash of the BLOCK_BYTES at `at`. */
export function hashBlock(bytes: Uint8Array, at: number): number {
  let hash = 0;
  for (let i = at; i < at + BLOCK_BYTES; i++) hash = (Math.imul(hash, HASH_FACTOR) + bytes[i]! + 1) | 0;
  return hash;
}

/** `hashBlock(bytes, at)`, given that of the block one byte before. */
export function rollHash(hash: number, bytes: Uint8Array, at: number): number {
  const leaving = Math.imul(HASH_LEAD, bytes[at - 1]! + 1);
  return (Math.imul(hash, HASH_FACTOR) + bytes[at + BLOCK_BYTES - 1]! + 1 - leaving) | 0;
}
