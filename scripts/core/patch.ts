/**
 * Applies a delta to a database image in place, through a journal.
 *
 * A delta copies from the old image while it writes the new one, so neither can be touched before the other is known.
 * Hence two steps: `DeltaJournal` reads the delta and the untouched image, and writes what will change to a journal;
 * `replayJournal` then writes that onto the image. Both cost what changed, not what the image holds.
 *
 * Fault model: until the journal is whole, the image is untouched; once it is whole and synced, replaying it gives the
 * new image, however often and from wherever it is repeated. So after a crash: if the journal is whole, replay it, else
 * start over. The caller syncs the journal before the replay, and the image after it.
 *
 * ```text
 * journal = magic "hbpatch1" · final size of the image (8 bytes) · record* · end
 * record  = position (8 bytes) · length (4 bytes, not 0) · that many bytes
 * end     = position of all ones (8 bytes) · CRC-32 of everything before the end (4 bytes)
 * ```
 *
 * Numbers are big-endian. Records are in order and apart. The CRC is against torn writes, not against an attacker; the
 * checksum of the whole image, which the caller holds, is for that.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { DeltaDecoder } from "./delta.ts";
import { BackupError } from "./errors.ts";
import type { ImageReader } from "./page_changes.ts";

/** An image that can be changed in place. */
export interface Image extends ImageReader {
  /** Writes all of `data` at `position`, growing the image if it must. */
  writeAt(data: Uint8Array, position: number): void;
  /** Sets the size. */
  truncate(bytes: number): void;
}

/** Takes the journal's bytes from front to back; the buffer is used again afterwards. */
export type JournalSink = (data: Uint8Array) => void;

const MAGIC = new TextEncoder().encode("hbpatch1");
const HEADER_BYTES = 16;
/** Size of a record without its data, and of the end, in bytes. */
const RECORD_BYTES = 12;
/** Size of the buffers that gather reads and writes of the journal, in bytes; no record exceeds it. */
const BUFFER_BYTES = 1024 * 1024;
/** Unchanged stretches up to this long are journalled with what surrounds them: a write costs more than its bytes. */
const BRIDGE_BYTES = 4096;
/** The old bytes that moved come in short pieces, mostly of a few pages, so they are read through a cache of such lines. */
const LINE_BYTES = 4096;
const LINES = 1024;

/** Turns a delta into a journal, leaving the image untouched. */
export class DeltaJournal {
  /** Size of the journal so far, in bytes. */
  journalBytes = 0;

  readonly #old: CachedReader;
  readonly #sink: JournalSink;
  readonly #decoder: DeltaDecoder;
  /** The journal's bytes that were not written yet: whole records, then the open one. */
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #view = new DataView(this.#buffer.buffer);
  #used = 0;
  /** Where in the buffer the open record starts, or -1. */
  #record = -1;
  /** Where the open record's data goes, and where the next bytes of the new image go. */
  #recordPosition = 0;
  #position = 0;
  #crc = 0;

  /**
   * @param image The image as the delta's maker had it. Must stay untouched until `finish` has returned.
   * @param nextBytes Size of the image afterwards.
   */
  constructor(image: ImageReader, nextBytes: number, sink: JournalSink) {
    this.#old = new CachedReader(image);
    this.#sink = sink;
    this.#decoder = new DeltaDecoder({
      baseBytes: image.bytes,
      nextBytes,
      copy: (position, length) => this.#copy(position, length),
      literal: (data) => this.#literal(data),
    });
    const header = new Uint8Array(HEADER_BYTES);
    header.set(MAGIC);
    new DataView(header.buffer).setBigUint64(MAGIC.length, BigInt(nextBytes));
    this.#write(header);
  }

  /**
   * Takes the next bytes of the delta.
   *
   * @throws {BackupError} Kind "integrity" if the delta is damaged, or not for this image.
   */
  push(delta: Uint8Array): void {
    this.#decoder.push(delta);
  }

  /** Ends the journal. Throws as `push` if the delta is not whole; then the journal is not whole either. */
  finish(): void {
    this.#decoder.finish();
    this.#flush();
    const end = new Uint8Array(RECORD_BYTES).fill(0xff);
    new DataView(end.buffer).setUint32(8, this.#crc);
    this.#write(end);
  }

  #copy(from: number, length: number): void {
    if (from === this.#position && length > BRIDGE_BYTES) {
      this.#position += length;
      return;
    }
    while (length > 0) {
      const part = Math.min(length, this.#room());
      this.#old.copyTo(this.#buffer, this.#used, from, part);
      this.#advance(part);
      from += part;
      length -= part;
    }
  }

  #literal(data: Uint8Array): void {
    for (let from = 0; from < data.length;) {
      const part = Math.min(data.length - from, this.#room());
      copyBytes(this.#buffer, this.#used, data, from, part);
      this.#advance(part);
      from += part;
    }
  }

  /** Sees to it that the next bytes of the new image go on the open record. Returns how many of them it takes. */
  #room(): number {
    const open = this.#record >= 0;
    const length = open ? this.#used - this.#record - RECORD_BYTES : 0;
    if (!open || this.#recordPosition + length !== this.#position || this.#used === BUFFER_BYTES) {
      this.#closeRecord();
      if (this.#used + RECORD_BYTES >= BUFFER_BYTES) this.#flush();
      this.#record = this.#used;
      this.#recordPosition = this.#position;
      this.#used += RECORD_BYTES;
    }
    return BUFFER_BYTES - this.#used;
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

  #flush(): void {
    this.#closeRecord();
    this.#write(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }

  #write(data: Uint8Array): void {
    this.#crc = crc32(data, this.#crc);
    this.journalBytes += data.length;
    this.#sink(data);
  }
}

/**
 * Whether the journal was written to its end. If not, the image is still as it was.
 *
 * @param journal The journal, read back.
 */
export function isJournalWhole(journal: ImageReader): boolean {
  const endPosition = journal.bytes - RECORD_BYTES;
  if (endPosition < HEADER_BYTES) return false;
  const buffer = new Uint8Array(Math.min(BUFFER_BYTES, endPosition));
  let crc = 0;
  for (let position = 0; position < endPosition; position += BUFFER_BYTES) {
    const part = buffer.subarray(0, Math.min(BUFFER_BYTES, endPosition - position));
    journal.readAt(part, position);
    if (position === 0 && !MAGIC.every((byte, i) => part[i] === byte)) return false;
    crc = crc32(part, crc);
  }
  const end = new Uint8Array(RECORD_BYTES);
  journal.readAt(end, endPosition);
  return end.subarray(0, 8).every((byte) => byte === 0xff) && new DataView(end.buffer).getUint32(8) === crc;
}

/**
 * Writes what a journal holds onto the image, and sets the image's size. Repeating it changes nothing.
 *
 * @param journal The journal, read back.
 * @throws {BackupError} Kind "integrity", with the image untouched, if the journal is not whole.
 */
export function replayJournal(journal: ImageReader, image: Image): void {
  if (!isJournalWhole(journal)) {
    throw new BackupError(
      `Cannot replay a journal of ${journal.bytes} bytes: it is damaged or was not finished`,
      {
        kind: "integrity",
        hint: "the image is as it was: apply the increment again",
      },
    );
  }
  const endPosition = journal.bytes - RECORD_BYTES;
  const buffer = new Uint8Array(Math.min(BUFFER_BYTES, endPosition));
  const view = new DataView(buffer.buffer);
  let at = HEADER_BYTES;
  while (at < endPosition) {
    // One read brings the record at `at` whole, and all that follow it in the buffer.
    const filled = Math.min(buffer.length, endPosition - at);
    journal.readAt(buffer.subarray(0, filled), at);
    let used = 0;
    while (used + RECORD_BYTES <= filled) {
      const position = Number(view.getBigUint64(used));
      const data = used + RECORD_BYTES;
      const end = data + view.getUint32(used + 8);
      if (end > filled) break;
      image.writeAt(buffer.subarray(data, end), position);
      used = end;
    }
    at += used;
  }
  const header = new Uint8Array(HEADER_BYTES);
  journal.readAt(header, 0);
  image.truncate(Number(new DataView(header.buffer).getBigUint64(MAGIC.length)));
}

/** Reads short pieces through lines that are kept, long ones directly. */
class CachedReader {
  readonly #image: ImageReader;
  readonly #lines: Uint8Array;
  /** The line of the image that stands in each place, or -1. */
  readonly #held: Float64Array;

  constructor(image: ImageReader) {
    const lines = Math.min(LINES, Math.ceil(image.bytes / LINE_BYTES));
    this.#image = image;
    this.#lines = new Uint8Array(lines * LINE_BYTES);
    this.#held = new Float64Array(lines).fill(-1);
  }

  /** Copies `length` bytes at `position` of the image to `target` from `to` on. */
  copyTo(target: Uint8Array, to: number, position: number, length: number): void {
    if (length >= LINE_BYTES) return this.#image.readAt(target.subarray(to, to + length), position);
    while (length > 0) {
      const line = Math.floor(position / LINE_BYTES);
      const offset = position - line * LINE_BYTES;
      const part = Math.min(length, LINE_BYTES - offset);
      copyBytes(target, to, this.#lines, this.#load(line) + offset, part);
      to += part;
      position += part;
      length -= part;
    }
  }

  /** Makes sure that a line is kept. Returns where. */
  #load(line: number): number {
    const place = line % this.#held.length;
    const start = place * LINE_BYTES;
    if (this.#held[place] !== line) {
      const position = line * LINE_BYTES;
      const bytes = Math.min(LINE_BYTES, this.#image.bytes - position);
      this.#image.readAt(this.#lines.subarray(start, start + bytes), position);
      this.#held[place] = line;
    }
    return start;
  }
}

/** Copies `length` bytes. A view on a buffer costs more than to copy a few bytes singly. */
function copyBytes(target: Uint8Array, to: number, source: Uint8Array, from: number, length: number): void {
  if (length > 96) {
    target.set(source.subarray(from, from + length), to);
  } else {
    for (let i = 0; i < length; i++) target[to + i] = source[from + i]!;
  }
}
