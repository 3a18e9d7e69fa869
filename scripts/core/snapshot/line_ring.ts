/**
 * Lines of an image that have changed, in memory until they are written: a ring, filled by one thread and emptied by
 * the same one or by another.
 *
 * Lines are counted from the first that ever came in: line `n` of them stands in slot `n % slots` until another takes
 * its place. One that is not written yet must not be replaced: hence {@linkcode LineWriter.wait}. One that has come in
 * again meanwhile need not be written: what changed once changes again, most of it with the next delta.
 *
 * @module
 */

/** Size of a line in bytes: SQLite's usual page. */
export const LINE_BYTES = 4096;
/**
 * Lines that are written at once. Linux caches a file in pieces as large as its writes, and a small write into a large
 * piece costs twice as much.
 */
export const LINES_AT_ONCE = 8;

/** In the table of a ring: a line that has come in again. */
const SUPERSEDED = 0xffff_ffff;

/** The memory of a ring. Another thread can have it by the same buffer, if that is a shared one. */
export class LineRing {
  /** Which line of the image stands in each slot; none that counts, where it is superseded. */
  readonly lines: Uint32Array;
  /** The slots, one after the other; then what else its owner keeps in the same buffer. */
  readonly data: Uint8Array;

  /** @param buffer Of {@linkcode LineRing.bytesFor} bytes. */
  constructor(readonly slots: number, readonly buffer: ArrayBufferLike) {
    this.lines = new Uint32Array(buffer, 0, slots);
    this.data = new Uint8Array(buffer, tableBytes(slots));
  }

  /** The bytes that a ring takes, with `extraBytes` of its owner's after it. */
  static bytesFor(slots: number, extraBytes: number): number {
    return tableBytes(slots) + slots * LINE_BYTES + extraBytes;
  }

  /**
   * Says that the line in a slot has come in again, so that only the later one is written. Where the earlier one is just
   * being written, that is no harm.
   */
  supersede(slot: number): void {
    this.lines[slot] = SUPERSEDED;
  }

  /**
   * Writes the lines from the `from`th that came in up to the `to`th, but for those that are superseded, and of the image
   * no more than `imageBytes`.
   *
   * @param onWritten Told up to which that is done.
   */
  write(
    from: number,
    to: number,
    imageBytes: number,
    writeAt: (data: Uint8Array, position: number) => void,
    onWritten?: (count: number) => void,
  ): void {
    while (from < to) {
      const slot = from % this.slots;
      const line = this.lines[slot]!;
      if (line === SUPERSEDED) {
        from++;
        continue;
      }
      const most = Math.min(to - from, this.slots - slot, LINES_AT_ONCE);
      let count = 1;
      while (count < most && this.lines[slot + count] === line + count) count++;
      const position = line * LINE_BYTES;
      const start = slot * LINE_BYTES;
      writeAt(
        this.data.subarray(start, start + Math.min(count * LINE_BYTES, imageBytes - position)),
        position,
      );
      from += count;
      onWritten?.(from);
    }
    onWritten?.(to);
  }
}

/** Empties a ring onto an image. */
export interface LineWriter {
  /** Lines up to the `count`th that came in belong to an image of so many bytes now, and can be written, now or later. */
  commit(count: number, imageBytes: number): void;
  /** Returns once those up to the `count`th, which were committed, are written or superseded. */
  wait(count: number): void;
}

function tableBytes(slots: number): number {
  return Math.ceil(slots * Uint32Array.BYTES_PER_ELEMENT / LINE_BYTES) * LINE_BYTES;
}
