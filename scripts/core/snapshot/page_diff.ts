/**
 * Page-aware differences between two images of one SQLite database, written as a librsync delta.
 *
 * SQLite changes whole pages, scattered over the file. When a B-tree page splits, half of its cells go to another page,
 * so most of what a changed page holds stood in some changed page before. Hence two steps:
 *
 * 1. `comparePages` (page_changes.ts) reads both images once, front to back, and notes which pages differ.
 * 2. `encodeChanges` indexes what those pages held *before* (move_index.ts), and describes what they hold now by ranges
 *    that are equal in place, ranges that moved, and literal bytes. Unchanged pages are copied in long ranges and not
 *    read again.
 *
 * Where no old image is kept, `compareChecksums` finds the changed pages, and `encodeWholePages` stores them whole.
 *
 * Memory: `EncodeOptions.indexBytesMax`, 24 MiB by default, whatever the size of the database.
 *
 * @module
 */

import { DeltaEncoder } from "./delta.ts";
import { BLOCK_BYTES, hashBlock, type Match, MoveIndex, rollHash } from "./move_index.ts";
import { type ImageReader, isChanged, type PageChanges } from "./page_changes.ts";

/** Options of `encodeChanges` and `encodeWholePages`. */
export interface EncodeOptions {
  /**
   * Memory for the old contents of changed pages and the index over them, in bytes. Default 24 MiB.
   * Past it, what moved is found by fewer anchors (stretches shorter than the distance between two are stored again)
   * and is read again from the base as needed.
   */
  readonly indexBytesMax?: number;
  /** Stop when the delta exceeds this many bytes. Default: never. */
  readonly giveUpOverBytes?: number;
}

/** The most changed pages in a row that are searched together, in bytes; a multiple of every page size. */
const REGION_BYTES = 256 * 1024;

/** A stretch equal in place is taken without looking for a longer one that moved, if it has this many bytes. */
const IN_PLACE_BYTES_SURE = 128;

/**
 * The shortest stretch that is copied from another page. It costs a restore a command and, often, a page to read, so
 * that the cells of an index of UUIDs, up to 41 bytes each, are rather stored again where they moved one by one: for
 * 1.6 % more bytes a delta has a quarter fewer commands, and its application reads a fifth fewer pages.
 */
const FROM_ELSEWHERE_BYTES_MIN = 42;

/**
 * Writes the delta from `base` to `next`, in chunks of 64 KiB that the caller may keep.
 *
 * @param changes What `comparePages` found on the same two images.
 * @returns Whether the delta is whole; false when it was given up, and what was yielded is of no use.
 */
export function* encodeChanges(
  base: ImageReader,
  next: ImageReader,
  changes: PageChanges,
  options: EncodeOptions = {},
): Generator<Uint8Array<ArrayBuffer>, boolean> {
  const { pageBytes } = changes;
  const index = new MoveIndex(base, changes, options.indexBytesMax ?? 24 * 1024 * 1024);
  const parser = new RegionParser(index, pageBytes);
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
): Generator<Uint8Array<ArrayBuffer>, boolean> {
  const buffer = new Uint8Array(REGION_BYTES);
  return yield* encode(changes, options, (encoder, page, pages) => {
    const region = buffer.subarray(0, pages * changes.pageBytes);
    next.readAt(region, page * changes.pageBytes);
    encoder.literal(region);
  });
}

/** Copies what is unchanged and has `encodeRegion` describe `pages` changed pages in a row, from `page` on. */
function* encode(
  changes: PageChanges,
  options: EncodeOptions,
  encodeRegion: (encoder: DeltaEncoder, page: number, pages: number) => void,
): Generator<Uint8Array<ArrayBuffer>, boolean> {
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
    if (encoder.bytes > limit) return false;
    yield* chunks;
    chunks = [];
  }
  encoder.end();
  if (encoder.bytes > limit) return false;
  yield* chunks;
  return true;
}

/** Describes changed pages by what stood in the base in place, what stood in it elsewhere, and literals. */
class RegionParser {
  readonly #index: MoveIndex;
  readonly #pageBytes: number;
  /** The copies found in this region so far, in order and apart; the first `#count` are in use. */
  readonly #copies: Match[] = [];
  #count = 0;

  constructor(index: MoveIndex, pageBytes: number) {
    this.#index = index;
    this.#pageBytes = pageBytes;
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
      const length = copy.end - copy.start;
      if (
        length < FROM_ELSEWHERE_BYTES_MIN &&
        this.#pageOf(copy.position) !== this.#pageOf(position + copy.start)
      ) {
        continue;
      }
      encoder.literal(region.subarray(at, copy.start));
      encoder.copy(copy.position, length);
      at = copy.end;
    }
    encoder.literal(region.subarray(at));
  }

  #pageOf(position: number): number {
    return Math.floor(position / this.#pageBytes);
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
