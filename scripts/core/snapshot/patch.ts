/**
 * Applies deltas to a database image in place, one after the other.
 *
 * A delta copies from the old image while it makes the new one, so what it changes is made beside, line by line, and
 * written onto the image only once the delta is whole. That costs what changed, not what the image holds.
 *
 * The changed lines stay in a ring in memory. There the next delta finds most of what it copies from, as what changed
 * once changes again; and another thread can write them meanwhile. Where a delta changes more than the ring holds, they
 * go to a scratch file. Neither outlives the process: a rebuilding that is interrupted starts over, and a half-built
 * image never counts.
 *
 * @module
 */

import { DeltaDecoder } from "./delta.ts";
import { LineIndex, NOWHERE } from "./line_index.ts";
import { LINE_BYTES, LineRing, LINES_AT_ONCE, type LineWriter } from "./line_ring.ts";
import type { ImageReader } from "./page_changes.ts";

/** An image that can be changed in place. */
export interface Image extends ImageReader {
  /** Writes all of `data` at `position`, growing the image if it must. */
  writeAt(data: Uint8Array, position: number): void;
  /** Sets the size. */
  truncate(bytes: number): void;
}

/** Where lines go that the ring does not hold. What it held before is nothing to it. */
export interface Scratch {
  readAt(buffer: Uint8Array, position: number): void;
  writeAt(data: Uint8Array, position: number): void;
}

/**
 * Most lines in the ring, 26 MiB: a day of use changes about as much, so that what half a day changed is still there when
 * the next changes it again.
 */
const SLOTS_MAX = 6656;
/** Lines of the old image that are kept while they are used, 3 MiB. */
const READ_LINES = 768;
const EXTRA_BYTES = (LINES_AT_ONCE + READ_LINES) * LINE_BYTES;

/** A ring for the deltas of an image of so many bytes. */
export function makeRing(
  imageBytes: number,
  Memory: new (bytes: number) => ArrayBufferLike = ArrayBuffer,
  slotsMax: number = SLOTS_MAX,
): LineRing {
  const slots = Math.min(slotsMax, Math.ceil(imageBytes / LINE_BYTES) + 1);
  return new LineRing(slots, new Memory(LineRing.bytesFor(slots, EXTRA_BYTES)));
}

/** Patches an image. Its buffers serve every delta of a chain. */
export class Patcher {
  readonly #image: Image;
  readonly #scratch: Scratch;
  readonly #ring: LineRing;
  readonly #writer: LineWriter;
  /** The ring's slots, a row of lines beyond the old image, then lines read from it: bytes move without a view on them. */
  readonly #memory: DataView;
  readonly #old: OldLines;
  /** What a delta's commands are told to: the same for all of them, as V8 compiles for the functions that it has seen. */
  readonly #target = {
    baseBytes: 0,
    nextBytes: 0,
    copy: (position: number, length: number) => this.#copy(position, length),
    literal: (_: Uint8Array, from: number, to: number) => this.#literal(from, to),
  };
  /** What was pushed last of the delta. */
  #delta: DataView = new DataView(new ArrayBuffer());
  /** Size of the image, as the last delta left it. */
  #bytes: number;
  /** Lines that came into the ring before this delta, and with it. */
  #begin = 0;
  #count = 0;
  /** Those up to here are known to be written. */
  #written = 0;
  /** How often this delta has filled the ring, which then went to the scratch file. */
  #spills = 0;
  /** Where the next bytes of the new image go, and how far that is into its line. */
  #position = 0;
  #offset = 0;
  /** The start in memory of the line that they are in; -1 while all of that line before them is as it was. */
  #line = -1;
  /** Lines that the old image reaches into. */
  #oldLines = 0;
  /** Lines in the row beyond it, and where that goes. */
  #beyond = 0;
  #beyondPosition = 0;

  /** @param writer Empties the ring; without one it is emptied here, at once. */
  constructor(
    image: Image,
    scratch: Scratch,
    ring: LineRing = makeRing(image.bytes),
    writer: LineWriter = new WriterHere(ring, image),
  ) {
    this.#image = image;
    this.#bytes = image.bytes;
    this.#scratch = scratch;
    this.#ring = ring;
    this.#writer = writer;
    this.#memory = viewOf(ring.data);
    this.#old = new OldLines(image, ring, ring.slots + LINES_AT_ONCE);
  }

  /**
   * Applies a delta, which is pushed to what this returns; `finish` changes the image.
   *
   * @param nextBytes Size of the image afterwards.
   * @throws {BackupError} (both calls) Kind "integrity" if the delta is damaged, or not for this image. All that it held
   * is as it was then; more may follow it.
   */
  start(nextBytes: number): { push(delta: Uint8Array): void; finish(): void } {
    const baseBytes = this.#bytes;
    this.#old.forgetRead(baseBytes);
    this.#count = this.#begin;
    this.#position = 0;
    this.#offset = 0;
    this.#spills = 0;
    this.#beyond = 0;
    this.#line = -1;
    this.#oldLines = Math.ceil(baseBytes / LINE_BYTES);
    this.#target.baseBytes = baseBytes;
    this.#target.nextBytes = nextBytes;
    const decoder = new DeltaDecoder(this.#target);
    return {
      push: (delta) => {
        this.#delta = viewOf(delta);
        decoder.push(delta);
      },
      finish: () => {
        decoder.finish();
        this.#commit(nextBytes);
      },
    };
  }

  #copy(from: number, length: number): void {
    if (from === this.#position) {
      if (this.#line >= 0) {
        const part = Math.min(length, LINE_BYTES - this.#offset);
        this.#old.copyTo(this.#line + this.#offset, from, part);
        this.#advance(part);
        length -= part;
      }
      this.#position += length;
      this.#offset = this.#position % LINE_BYTES;
      return;
    }
    while (length > 0) {
      const to = this.#open();
      const part = Math.min(length, LINE_BYTES - this.#offset);
      this.#old.copyTo(to, from, part);
      this.#advance(part);
      from += part;
      length -= part;
    }
  }

  #literal(from: number, to: number): void {
    while (from < to) {
      const start = this.#open();
      const part = Math.min(to - from, LINE_BYTES - this.#offset);
      copyBytes(this.#memory, start, this.#delta, from, part);
      this.#advance(part);
      from += part;
    }
  }

  #advance(bytes: number): void {
    this.#position += bytes;
    this.#offset += bytes;
    if (this.#offset === LINE_BYTES) {
      this.#offset = 0;
      this.#line = -1;
    }
  }

  /** Returns where in memory the next bytes of the new image go. */
  #open(): number {
    if (this.#line < 0) {
      const offset = this.#offset;
      const line = (this.#position - offset) / LINE_BYTES;
      this.#line = line < this.#oldLines ? this.#slotFor(line) : this.#rowFor(line);
      if (offset > 0) this.#old.copyTo(this.#line, this.#position - offset, offset);
    }
    return this.#line + this.#offset;
  }

  #slotFor(line: number): number {
    const { slots, lines } = this.#ring;
    if (this.#count - this.#begin === slots) this.#spill();
    const replaced = this.#count - slots;
    if (replaced >= this.#written) this.#writer.wait(this.#written = replaced + 1);
    const slot = this.#count++ % slots;
    const start = slot * LINE_BYTES;
    if (replaced >= 0) this.#old.drop(slot);
    lines[slot] = line;
    return start;
  }

  /** Beyond the old image nothing is read: those lines need not wait for the end of the delta. */
  #rowFor(line: number): number {
    if (this.#beyond === LINES_AT_ONCE) this.#writeBeyond();
    if (this.#beyond === 0) this.#beyondPosition = line * LINE_BYTES;
    return this.#rowStart + this.#beyond++ * LINE_BYTES;
  }

  get #rowStart(): number {
    return this.#ring.slots * LINE_BYTES;
  }

  #writeBeyond(): void {
    const bytes = Math.min(this.#beyond * LINE_BYTES, this.#position - this.#beyondPosition);
    this.#image.writeAt(
      this.#ring.data.subarray(this.#rowStart, this.#rowStart + bytes),
      this.#beyondPosition,
    );
    this.#beyond = 0;
  }

  #commit(nextBytes: number): void {
    if (this.#beyond > 0) this.#writeBeyond();
    if (this.#spills > 0) {
      this.#writeSpilled(nextBytes);
    } else {
      this.#old.take(this.#begin, this.#count);
      this.#begin = this.#count;
      this.#writer.commit(this.#count, nextBytes);
    }
    if (nextBytes < this.#bytes) {
      this.#writer.wait(this.#begin);
      this.#old.dropAll();
    }
    this.#image.truncate(nextBytes);
    this.#bytes = nextBytes;
  }

  /** Puts the ring, all of it this delta's, into the scratch file. Lines of earlier ones are written by now. */
  #spill(): void {
    const { slots, lines, data } = this.#ring;
    const start = this.#spills * LineRing.bytesFor(slots, 0);
    this.#scratch.writeAt(data.subarray(0, slots * LINE_BYTES), start);
    this.#scratch.writeAt(new Uint8Array(lines.slice().buffer), start + slots * LINE_BYTES);
    this.#spills++;
    this.#count = this.#begin;
  }

  #writeSpilled(nextBytes: number): void {
    const { slots, lines, data } = this.#ring;
    this.#ring.write(this.#begin, this.#count, nextBytes, (data, at) => this.#image.writeAt(data, at));
    const table = new Uint32Array(slots);
    for (let spill = 0; spill < this.#spills; spill++) {
      const start = spill * LineRing.bytesFor(slots, 0);
      this.#scratch.readAt(data.subarray(0, slots * LINE_BYTES), start);
      this.#scratch.readAt(new Uint8Array(table.buffer), start + slots * LINE_BYTES);
      lines.set(table);
      this.#ring.write(0, slots, nextBytes, (data, at) => this.#image.writeAt(data, at));
    }
    this.#count = this.#begin;
  }
}

/** The lines of the old image: those that are in the ring, and those that were read. */
class OldLines {
  readonly #image: ImageReader;
  readonly #ring: LineRing;
  readonly #memory: DataView;
  /** The first place for lines that were read. A place is a line of the memory: the ring's slots are the first ones. */
  readonly #firstRead: number;
  /** Where each line is that is somewhere, as the last delta left it. */
  readonly #index: LineIndex;
  /** Which of those that were read were used since the hand passed them: it takes the first that was not (CLOCK replacement). */
  readonly #used = new Uint8Array(READ_LINES);
  #hand = 0;
  /** The line that was copied from last, and its start in memory; -1 where that is not known. */
  #line = -1;
  #start = 0;
  #bytes = 0;

  constructor(image: ImageReader, ring: LineRing, firstRead: number) {
    this.#image = image;
    this.#ring = ring;
    this.#memory = viewOf(ring.data);
    this.#firstRead = firstRead;
    this.#index = new LineIndex(firstRead + READ_LINES);
  }

  /** Says that the image has changed, and has this size now. */
  forgetRead(bytes: number): void {
    for (let index = 0; index < READ_LINES; index++) this.#index.clear(this.#firstRead + index);
    this.#line = -1;
    this.#bytes = bytes;
  }

  /** Takes lines of the ring for what the image holds. */
  take(from: number, to: number): void {
    const { slots, lines } = this.#ring;
    for (let count = from; count < to; count++) {
      const slot = count % slots;
      const line = lines[slot]!;
      const place = this.#index.find(line);
      if (place !== NOWHERE) {
        this.#index.clear(place);
        if (place < slots) this.#ring.supersede(place);
      }
      this.#index.put(line, slot);
    }
  }

  /** Says that a slot gets another line. */
  drop(slot: number): void {
    this.#line = -1;
    this.#index.clear(slot);
  }

  dropAll(): void {
    this.#index.clearAll();
  }

  /** Copies `length` bytes at `position` of the image into the memory from `to` on. */
  copyTo(to: number, position: number, length: number): void {
    while (length > 0) {
      const line = Math.floor(position / LINE_BYTES);
      const offset = position - line * LINE_BYTES;
      const part = Math.min(length, LINE_BYTES - offset);
      if (line !== this.#line) {
        this.#start = this.#find(line) * LINE_BYTES;
        this.#line = line;
      }
      copyBytes(this.#memory, to, this.#memory, this.#start + offset, part);
      to += part;
      position += part;
      length -= part;
    }
  }

  /** The place of a line, which is read where it is in none. */
  #find(line: number): number {
    const place = this.#index.find(line);
    if (place === NOWHERE) return this.#read(line);
    if (place >= this.#firstRead) this.#used[place - this.#firstRead] = 1;
    return place;
  }

  #read(line: number): number {
    while (this.#used[this.#hand] === 1) {
      this.#used[this.#hand] = 0;
      this.#hand = (this.#hand + 1) % READ_LINES;
    }
    const place = this.#firstRead + this.#hand;
    this.#index.clear(place);
    const start = place * LINE_BYTES;
    const position = line * LINE_BYTES;
    const bytes = Math.min(LINE_BYTES, this.#bytes - position);
    this.#image.readAt(this.#ring.data.subarray(start, start + bytes), position);
    this.#index.put(line, place);
    this.#hand = (this.#hand + 1) % READ_LINES;
    return place;
  }
}

/** Writes at once what is committed. */
class WriterHere implements LineWriter {
  #written = 0;

  constructor(readonly ring: LineRing, readonly image: Image) {}

  commit(count: number, imageBytes: number): void {
    this.ring.write(this.#written, count, imageBytes, (data, position) => this.image.writeAt(data, position));
    this.#written = count;
  }

  wait(): void {}
}

/**
 * Copies `length` bytes between places that do not overlap, eight at a time. A call into the engine for each run costs
 * more than most of them, and in shared memory it copies slowly.
 */
function copyBytes(target: DataView, to: number, source: DataView, from: number, length: number): void {
  const last = length - 8;
  if (last >= 0) {
    for (let at = 0; at < last; at += 8) {
      target.setBigUint64(to + at, source.getBigUint64(from + at, true), true);
    }
    target.setBigUint64(to + last, source.getBigUint64(from + last, true), true);
  } else {
    for (let at = 0; at < length; at++) target.setUint8(to + at, source.getUint8(from + at));
  }
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
