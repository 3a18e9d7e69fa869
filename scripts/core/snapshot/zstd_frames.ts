/**
 * Zstandard as a row of independent frames of at most {@linkcode FRAME_BYTES_MAX} of content each; `zstd -d` reads it.
 *
 * Frames are whole units for the compressor and the decompressor: with an output buffer of the right size from the
 * start, `node:zlib` is four times faster than through its streams, and no input makes a reader take more memory than
 * one frame. (Its own readers silently stop after the first frame; hence the splitter.)
 *
 * Source of the format: https://www.rfc-editor.org/rfc/rfc8878, section 3.1.
 *
 * @module
 */

import { constants, zstdCompressSync, zstdDecompressSync, type ZstdOptions } from "node:zlib";
import { ownsBuffer, releaseBytes } from "../bytes.ts";
import { BackupError, reasonOf } from "../errors.ts";

/** Most content bytes of one frame. Readers take this much memory. */
export const FRAME_BYTES_MAX = 4 << 20;
const MAGIC = 0xfd2fb528;
const BLOCK_HEADER_BYTES = 3;

/** Most bytes that a frame can take: what does not compress is stored, with a little over. */
const storedBytesMax = (contentBytes: number): number => contentBytes + (contentBytes >> 7) + 1024;

/** Compresses a stream into frames. */
export class FrameCompressor {
  readonly #level: number;
  readonly #frameBytes: number;
  #buffer = new Uint8Array(64 * 1024);
  #used = 0;

  /**
   * @param level zstd's compression level, 1 to 19.
   * @param frameBytes Content of one frame, at most {@linkcode FRAME_BYTES_MAX}: larger ones compress better and take
   * more memory.
   */
  constructor(level: number, frameBytes: number = FRAME_BYTES_MAX) {
    this.#level = level;
    this.#frameBytes = frameBytes;
  }

  /** Takes bytes (which the caller may reuse) and returns the frames that are full. */
  push(bytes: Uint8Array): Uint8Array<ArrayBuffer>[] {
    const frames: Uint8Array<ArrayBuffer>[] = [];
    for (let done = 0; done < bytes.length;) {
      const count = Math.min(bytes.length - done, this.#frameBytes - this.#used);
      this.#room(this.#used + count);
      this.#buffer.set(bytes.subarray(done, done + count), this.#used);
      this.#used += count;
      done += count;
      if (this.#used === this.#frameBytes) frames.push(this.#flush());
    }
    return frames;
  }

  /** Returns the last frame: none for an empty stream would not be zstd, so that gives an empty one. */
  finish(): Uint8Array<ArrayBuffer>[] {
    const frames = [this.#flush()];
    releaseBytes(this.#buffer);
    return frames;
  }

  /** Small streams, such as a manifest, need no buffer of a frame's size. */
  #room(bytes: number): void {
    if (bytes <= this.#buffer.length) return;
    const room = Math.min(this.#frameBytes, Math.max(bytes, 4 * this.#buffer.length));
    this.#buffer = new Uint8Array(this.#buffer.buffer.transfer(room));
  }

  #flush(): Uint8Array<ArrayBuffer> {
    const content = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    return zstdCompressSync(content, this.#options(content.length)) as Uint8Array as Uint8Array<ArrayBuffer>;
  }

  /**
   * A frame that says how long its content is is read four times faster, straight into a buffer of that size; and a
   * short one is written without the tables for a long one: 0.2 ms instead of 30 for a manifest.
   */
  #options(contentBytes: number): ZstdOptions & { readonly pledgedSrcSize: number } {
    return {
      chunkSize: storedBytesMax(contentBytes),
      pledgedSrcSize: contentBytes,
      params: { [constants.ZSTD_c_compressionLevel]: this.#level },
    };
  }
}

/** Decompresses a row of frames. Memory: one frame and its content; {@linkcode Symbol.dispose} gives it back. */
export class FrameDecompressor implements Disposable {
  readonly #fail: (state: string) => BackupError;
  /** Bytes of the stream that are still to come, as far as it is known how long it is. */
  #restBytes: number;
  #pending = new Uint8Array();
  /** What is pending lies between these two. */
  #start = 0;
  #end = 0;

  /**
   * @param what What to call the stream in errors.
   * @param streamBytes How long it is, about: memory is laid out for it.
   */
  constructor(what: string, streamBytes = 0) {
    this.#restBytes = streamBytes;
    this.#fail = (state) =>
      new BackupError(`Cannot decompress ${what}: ${state}`, {
        kind: "integrity",
        hint: "another copy of the store may hold it whole (--store)",
      });
  }

  /**
   * Takes bytes and returns the content of the frames that are whole, each in a buffer of its own.
   *
   * @throws {BackupError} (integrity) If they are not frames as {@linkcode FrameCompressor} writes them.
   */
  *push(bytes: Uint8Array): Generator<Uint8Array<ArrayBuffer>> {
    this.append(bytes);
    for (let content = this.take(); content; content = this.take()) yield content;
  }

  /** Takes bytes, which are kept until `take` has taken what they hold: no more of them than a frame can have. */
  append(bytes: Uint8Array): void {
    this.#restBytes = Math.max(0, this.#restBytes - bytes.length);
    const kept = this.#end - this.#start;
    if (this.#end + bytes.length > this.#pending.length) {
      this.#pending.copyWithin(0, this.#start, this.#end);
      const needed = kept + bytes.length;
      const room = Math.min(
        Math.max(2 * this.#pending.length, needed + this.#restBytes),
        storedBytesMax(FRAME_BYTES_MAX) + bytes.length,
      );
      if (needed > this.#pending.length) this.#resize(Math.max(needed, room));
      this.#start = 0;
      this.#end = kept;
    }
    this.#pending.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Whether the next frame is there as a whole. @throws {BackupError} (integrity) As `push`. */
  get isReady(): boolean {
    return this.#nextFrame() !== undefined;
  }

  /** The content of the next frame, if it is there as a whole. @throws {BackupError} (integrity) As `push`. */
  take(): Uint8Array<ArrayBuffer> | undefined {
    const frame = this.#nextFrame();
    if (!frame) return undefined;
    const content = this.#content(frame);
    this.#start += frame.length;
    // A part ends with a small frame: what the large ones before it took is given back.
    const room = this.#end - this.#start + this.#restBytes;
    if (4 * room < this.#pending.length) {
      this.#pending.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
      this.#resize(room);
    }
    return content;
  }

  /** @throws {BackupError} (integrity) If a frame is cut. */
  finish(): void {
    if (this.#end > this.#start) throw this.#fail("it ends inside a frame");
  }

  [Symbol.dispose](): void {
    releaseBytes(this.#pending);
  }

  #nextFrame(): Uint8Array | undefined {
    const pending = this.#pending.subarray(this.#start, this.#end);
    const length = frameLength(pending, this.#fail);
    if (length !== undefined && length <= pending.length) return pending.subarray(0, length);
    if (pending.length > storedBytesMax(FRAME_BYTES_MAX)) {
      throw this.#fail("a frame is larger than any of ours");
    }
    return undefined;
  }

  #resize(bytes: number): void {
    this.#pending = new Uint8Array(this.#pending.buffer.transfer(bytes));
  }

  #content(frame: Uint8Array): Uint8Array<ArrayBuffer> {
    try {
      // A little more, so that the end is found without a second buffer.
      const chunkSize = Math.min(FRAME_BYTES_MAX, contentLength(frame) ?? 2 * frame.length) + 1024;
      const content = zstdDecompressSync(frame, { chunkSize, maxOutputLength: FRAME_BYTES_MAX });
      // Not a Buffer, whose slices are no copies; and small ones share theirs with others.
      const bytes = new Uint8Array(content.buffer as ArrayBuffer, content.byteOffset, content.length);
      return ownsBuffer(bytes) ? bytes : bytes.slice();
    } catch (error) {
      throw this.#fail(reasonOf(error));
    }
  }
}

/** What the header of a frame says of it. */
interface FrameHeader {
  /** Bytes before the first block. */
  readonly length: number;
  /** Bytes that the length of the content takes: none, if the frame does not tell. */
  readonly contentSizeBytes: number;
  readonly hasChecksum: boolean;
}

/** Reads a frame's descriptor, the byte after its magic number. */
function frameHeader(descriptor: number): FrameHeader {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  return {
    length: 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes,
    contentSizeBytes,
    hasChecksum: (descriptor & 4) !== 0,
  };
}

/** How long the content of a frame is, as it says, but for 256 bytes; older snapshots have frames that do not. */
function contentLength(frame: Uint8Array): number | undefined {
  const { length, contentSizeBytes } = frameHeader(frame[4]!);
  const bytes = frame.subarray(length - contentSizeBytes, length).toReversed();
  return bytes.length === 0 ? undefined : bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

/**
 * Length of the frame at the start of `bytes`, found by hopping over its block headers; undefined while its end is
 * not in sight. (A known length may exceed what is there.)
 */
function frameLength(bytes: Uint8Array, fail: (state: string) => BackupError): number | undefined {
  if (bytes.length < 5) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw fail("it is not zstd");
  const { length, hasChecksum } = frameHeader(bytes[4]!);
  let at = length;
  for (;;) {
    if (bytes.length < at + BLOCK_HEADER_BYTES) return undefined;
    const header = bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16;
    const isRepeated = (header >> 1 & 3) === 1;
    at += BLOCK_HEADER_BYTES + (isRepeated ? 1 : header >> 3);
    if (header & 1) return at + (hasChecksum ? 4 : 0);
  }
}
