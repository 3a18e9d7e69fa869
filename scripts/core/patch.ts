/**
 * Applies deltas to a database image in place, one after the other.
 *
 * A delta copies from the old image while it makes the new one, so neither can be touched before the other is known.
 * Hence two steps: while a delta comes, what will change goes to a journal and the image stays as it is; once the delta
 * is whole, the journal is written onto the image. Both cost what changed, not what the image holds.
 *
 * The journal is held in memory as long as it fits, in a scratch file beyond. It does not outlive the process: a
 * rebuilding that is interrupted starts over, and a half-built image never counts.
 *
 * ```text
 * journal = record*
 * record  = position (8 bytes) · length (4 bytes, not 0) · that many bytes
 * ```
 *
 * @module
 */

import { DeltaDecoder } from "./delta.ts";
import type { ImageReader } from "./page_changes.ts";

/** An image that can be changed in place. */
export interface Image extends ImageReader {
  /** Size in bytes, as it is now. */
  readonly bytes: number;
  /** Writes all of `data` at `position`, growing the image if it must. */
  writeAt(data: Uint8Array, position: number): void;
  /** Sets the size. */
  truncate(bytes: number): void;
}

/** Where a journal goes that memory does not hold. What it held before is nothing to it. */
export interface Scratch {
  readAt(buffer: Uint8Array, position: number): void;
  writeAt(data: Uint8Array, position: number): void;
}

/** Most bytes of a journal in memory: half a day of use changes less. */
const JOURNAL_BYTES = 16 << 20;
/** Size of a record without its data, in bytes. */
const RECORD_BYTES = 12;
/** Unchanged stretches up to this long are journalled with what surrounds them: a write costs more than its bytes. */
const BRIDGE_BYTES = 4096;
/** The old bytes that moved come in short pieces, mostly of a few pages, so they are read through a cache of such lines. */
const LINE_BYTES = 4096;
/** A line belongs to one of so many sets, and can stand in any of the places of its set. */
const SETS = 128;
const PLACES = 4;
/** Up to so many bytes are copied singly. */
const LOOP_BYTES_MAX = 96;

/** Patches an image. Its buffers serve every delta of a chain. */
export class Patcher {
  readonly #image: Image;
  readonly #scratch: Scratch;
  readonly #old: CachedReader;
  /** The journal's bytes that are in memory: whole records, then the open one. */
  readonly #buffer: Uint8Array;
  readonly #view: DataView;
  #used = 0;
  /** Lengths of the pieces of whole records that went to the scratch file. */
  #spilled: number[] = [];
  #spilledBytes = 0;
  /** Where in the buffer the open record starts, or -1. */
  #record = -1;
  /** Where the open record's data goes, and where the next bytes of the new image go. */
  #recordPosition = 0;
  #position = 0;

  /** @param journalBytes Most bytes of a journal in memory. */
  constructor(image: Image, scratch: Scratch, journalBytes: number = JOURNAL_BYTES) {
    this.#image = image;
    this.#scratch = scratch;
    const bytes = Math.min(journalBytes, image.bytes + LINE_BYTES);
    const sets = Math.min(SETS, Math.ceil((image.bytes + 1) / LINE_BYTES));
    const memory = new Uint8Array(bytes + sets * PLACES * LINE_BYTES);
    this.#old = new CachedReader(image, memory, bytes, sets);
    this.#buffer = memory.subarray(0, bytes);
    this.#view = new DataView(memory.buffer);
  }

  /**
   * Applies a delta, which is pushed to what this returns; `finish` changes the image.
   *
   * @param nextBytes Size of the image afterwards.
   * @throws {BackupError} (both calls) Kind "integrity" if the delta is damaged, or not for this image, which is as it
   * was then.
   */
  start(nextBytes: number): { push(delta: Uint8Array): void; finish(): void } {
    this.#old.forget();
    this.#used = this.#spilledBytes = this.#position = 0;
    this.#spilled = [];
    this.#record = -1;
    const decoder = new DeltaDecoder({
      baseBytes: this.#image.bytes,
      nextBytes,
      copy: (position, length) => this.#copy(position, length),
      literal: (data, from, to) => this.#literal(data, from, to),
    });
    return {
      push: (delta) => decoder.push(delta),
      finish: () => {
        decoder.finish();
        this.#closeRecord();
        this.#replay();
        this.#image.truncate(nextBytes);
      },
    };
  }

  #copy(from: number, length: number): void {
    if (from === this.#position && length > BRIDGE_BYTES) {
      this.#position += length;
      return;
    }
    while (length > 0) {
      const part = Math.min(length, this.#room());
      this.#old.copyTo(this.#used, from, part);
      this.#advance(part);
      from += part;
      length -= part;
    }
  }

  #literal(data: Uint8Array, from: number, to: number): void {
    while (from < to) {
      const part = Math.min(to - from, this.#room());
      copyBytes(this.#buffer, this.#used, data, from, part);
      this.#advance(part);
      from += part;
    }
  }

  /** Sees to it that the next bytes of the new image go on the open record. Returns how many of them it takes. */
  #room(): number {
    const open = this.#record >= 0;
    const length = open ? this.#used - this.#record - RECORD_BYTES : 0;
    if (!open || this.#recordPosition + length !== this.#position || this.#used === this.#buffer.length) {
      this.#closeRecord();
      if (this.#used + RECORD_BYTES >= this.#buffer.length) this.#spill();
      this.#record = this.#used;
      this.#recordPosition = this.#position;
      this.#used += RECORD_BYTES;
    }
    return this.#buffer.length - this.#used;
  }

  #advance(bytes: number): void {
    this.#used += bytes;
    this.#position += bytes;
  }

  #closeRecord(): void {
    if (this.#record < 0) return;
    this.#view.setBigUint64(this.#record, BigInt(this.#recordPosition));
    this.#view.setUint32(this.#record + 8, this.#used - this.#record - RECORD_BYTES);
    this.#record = -1;
  }

  #spill(): void {
    this.#scratch.writeAt(this.#buffer.subarray(0, this.#used), this.#spilledBytes);
    this.#spilled.push(this.#used);
    this.#spilledBytes += this.#used;
    this.#used = 0;
  }

  /** Writes the journal onto the image. */
  #replay(): void {
    if (this.#spilled.length === 0) return this.#replayBuffer(this.#used);
    this.#spill();
    let at = 0;
    for (const bytes of this.#spilled) {
      this.#scratch.readAt(this.#buffer.subarray(0, bytes), at);
      this.#replayBuffer(bytes);
      at += bytes;
    }
  }

  #replayBuffer(bytes: number): void {
    for (let at = 0; at < bytes;) {
      const position = Number(this.#view.getBigUint64(at));
      const data = at + RECORD_BYTES;
      at = data + this.#view.getUint32(at + 8);
      this.#image.writeAt(this.#buffer.subarray(data, at), position);
    }
  }
}

/** Reads short pieces through lines that are kept, long ones directly. */
class CachedReader {
  readonly #image: ImageReader;
  /** The journal, then the lines: within one buffer bytes are copied without views on it. */
  readonly #memory: Uint8Array;
  readonly #start: number;
  /** The line of the image that stands in each place, or -1. */
  readonly #held: Int32Array;
  /** Which of the places that a line can stand in was filled last. */
  readonly #filled: Uint8Array;

  /** @param start Where in `memory` the lines start. */
  constructor(image: ImageReader, memory: Uint8Array, start: number, sets: number) {
    this.#image = image;
    this.#memory = memory;
    this.#start = start;
    this.#held = new Int32Array(sets * PLACES).fill(-1);
    this.#filled = new Uint8Array(sets);
  }

  /** Says that the image has changed. */
  forget(): void {
    this.#held.fill(-1);
  }

  /** Copies `length` bytes at `position` of the image into the memory from `to` on. */
  copyTo(to: number, position: number, length: number): void {
    if (length >= LINE_BYTES) return this.#image.readAt(this.#memory.subarray(to, to + length), position);
    while (length > 0) {
      const line = Math.floor(position / LINE_BYTES);
      const offset = position - line * LINE_BYTES;
      const part = Math.min(length, LINE_BYTES - offset);
      const from = this.#load(line) + offset;
      if (part > LOOP_BYTES_MAX) this.#memory.copyWithin(to, from, from + part);
      else copyBytes(this.#memory, to, this.#memory, from, part);
      to += part;
      position += part;
      length -= part;
    }
  }

  /** Makes sure that a line is kept. Returns where. */
  #load(line: number): number {
    const set = line % this.#filled.length;
    const first = set * PLACES;
    for (let place = first; place < first + PLACES; place++) {
      if (this.#held[place] === line) return this.#start + place * LINE_BYTES;
    }
    this.#filled[set] = (this.#filled[set]! + 1) % PLACES;
    const place = first + this.#filled[set]!;
    const start = this.#start + place * LINE_BYTES;
    const position = line * LINE_BYTES;
    const bytes = Math.min(LINE_BYTES, this.#image.bytes - position);
    this.#image.readAt(this.#memory.subarray(start, start + bytes), position);
    this.#held[place] = line;
    return start;
  }
}

/** Copies `length` bytes. A view on a buffer costs more than to copy a few bytes singly. */
function copyBytes(target: Uint8Array, to: number, source: Uint8Array, from: number, length: number): void {
  if (length > LOOP_BYTES_MAX) {
    target.set(source.subarray(from, from + length), to);
  } else {
    for (let i = 0; i < length; i++) target[to + i] = source[from + i]!;
  }
}
