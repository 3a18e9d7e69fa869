/**
 * Reads parts, here or on another thread: file → SHA-256, if it is wanted → age → zstd, piece by piece.
 *
 * That thread gets a path and the key of that one part. It works ahead of who asks, by a few pieces: a forged part may
 * hold any amount of content. Buffers change hands and are not copied. In a step it is the program's own thread, which
 * only waits meanwhile.
 *
 * @module
 */

import { releaseBytes } from "../../core/bytes.ts";
import { receivedError, type SentError, sentError } from "../../core/errors.ts";
import { CiphertextReader } from "../../core/keys/ciphertext.ts";
import { FrameDecompressor } from "../../core/snapshot/zstd_frames.ts";
import { attempt } from "../fs.ts";
import { noteGarbage } from "../garbage.ts";
import type { Fs, OpenFile } from "../host.ts";

/** What to read. */
export interface SourceStart {
  readonly path: string;
  /** What to call it in errors: its path in the store that it was fetched from. */
  readonly called: string;
  /** Its size in bytes: memory is laid out for it, and it may be any other. */
  readonly bytes: number;
  readonly headerBytes: number;
  /** The key that the header holds. */
  readonly fileKey: Uint8Array;
  /** Whether to decompress what comes. */
  readonly unpacked: boolean;
  /** Whether to tell the SHA-256 of it all. */
  readonly isHashed: boolean;
}

/** What comes next of a part. */
export interface Piece {
  /** Content, or what it is compressed to; undefined at the end. */
  readonly bytes: Uint8Array<ArrayBuffer> | undefined;
  /** At the end, if it was wanted: the SHA-256 of all bytes of the file, in hexadecimal. */
  readonly sha256?: string | undefined;
  /** Bytes of the file that were read so far. */
  readonly readBytes: number;
}

/** A part that is being read. */
export interface PartSource extends Disposable {
  /** Says that `next` will be called soon, and that there is room for what it gives. */
  prepare(): void;
  /** The next piece. @throws {BackupError} (integrity) If it is damaged; (disk). */
  next(): Promise<Piece>;
  /** Takes back a piece's bytes, if they were not decompressed. */
  reuse(bytes: Uint8Array<ArrayBuffer>): void;
}

/** Starts to read a part. Several may be under way at a time. */
export type StartSource = (start: SourceStart) => PartSource;

/** Bytes of ciphertext read at once. */
const READ_BYTES = 512 << 10;
/** Pieces that another thread is asked for before they are wanted. Content it reads ahead, and decompresses when asked. */
const AHEAD = 5;

/** Reads where it is called. */
export const sourceHere = (fs: Fs): StartSource => (start) => {
  const reader = new SourceReader(fs, start);
  return {
    prepare() {},
    next: () => Promise.try(() => reader.next()),
    reuse: (bytes) => reader.reuse(bytes),
    [Symbol.dispose]: () => reader[Symbol.dispose](),
  };
};

type ToThread =
  | { readonly type: "start"; readonly run: number; readonly start: SourceStart }
  | { readonly type: "next"; readonly run: number; readonly reuse: Uint8Array<ArrayBuffer> | undefined }
  | { readonly type: "end"; readonly run: number };
type FromThread = { readonly piece: Piece } | { readonly error: SentError };

/** Another thread that reads parts, until it is disposed of. */
export interface SourceThread extends Disposable {
  readonly start: StartSource;
}

/** The near end of a thread that {@linkcode serveSources} serves. */
export function sourceThread(port: MessagePort): SourceThread {
  const asked: PromiseWithResolvers<Piece>[] = [];
  let runs = 0;
  port.onmessage = ({ data }: MessageEvent<FromThread>) => {
    const next = asked.shift()!;
    if ("piece" in data) next.resolve(data.piece);
    else next.reject(receivedError(data.error));
  };
  const say = (message: ToThread, transfer: Transferable[] = []) => port.postMessage(message, transfer);
  return {
    start(start) {
      const run = runs++;
      say({ type: "start", run, start });
      const underWay: Promise<Piece>[] = [];
      const ask = (reuse?: Uint8Array<ArrayBuffer>) => {
        say({ type: "next", run, reuse }, reuse ? [reuse.buffer] : []);
        const answer = Promise.withResolvers<Piece>();
        // Nobody has to wait for what was asked for ahead.
        answer.promise.catch(() => {});
        asked.push(answer);
        underWay.push(answer.promise);
      };
      for (let i = 0; i < AHEAD && !start.unpacked; i++) ask();
      return {
        prepare() {
          if (underWay.length === 0) ask();
        },
        next() {
          this.prepare();
          return underWay.shift()!;
        },
        reuse: ask,
        [Symbol.dispose]: () => say({ type: "end", run }),
      };
    },
    [Symbol.dispose]: () => port.close(),
  };
}

/** Answers {@linkcode sourceThread} from the far end of its port. */
export function serveSources(port: MessagePort, fs: Fs): void {
  const readers = new Map<number, SourceReader>();
  const answer = (work: () => Piece) => {
    try {
      const piece = work();
      const { bytes } = piece;
      port.postMessage({ piece } satisfies FromThread, bytes ? [bytes.buffer] : []);
    } catch (error) {
      port.postMessage({ error: sentError(error) } satisfies FromThread);
    }
  };
  port.onmessage = ({ data }: MessageEvent<ToThread>) => {
    if (data.type === "start") {
      const reader = new SourceReader(fs, data.start);
      readers.set(data.run, reader);
      reader.load();
    } else if (data.type === "next") {
      const reader = readers.get(data.run)!;
      if (data.reuse) reader.reuse(data.reuse);
      answer(() => reader.next());
      reader.load();
    } else {
      readers.get(data.run)![Symbol.dispose]();
      readers.delete(data.run);
    }
  };
}

/** Reads one part. After its end it says that again. */
class SourceReader implements Disposable {
  readonly #fs: Fs;
  readonly #start: SourceStart;
  readonly #frames: FrameDecompressor | undefined;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  #file: OpenFile | undefined;
  #cipher: CiphertextReader | undefined;
  #readBytes = 0;
  #isAtEnd = false;
  #sha256: string | undefined;
  #error: unknown;

  constructor(fs: Fs, start: SourceStart) {
    this.#fs = fs;
    this.#start = start;
    this.#frames = start.unpacked ? new FrameDecompressor(start.called, start.bytes) : undefined;
  }

  /** Reads ahead as far as the next piece needs: what it holds comes with `next`, and so does what fails. */
  load(): void {
    try {
      if (this.#frames) this.#loadFrame(this.#frames);
    } catch (error) {
      this.#error = error;
    }
  }

  next(): Piece {
    if (this.#error) throw this.#error;
    const bytes = this.#frames ? this.#content(this.#frames) : this.#plaintext();
    const readBytes = this.#readBytes;
    if (!bytes) return { bytes, sha256: this.#sha256, readBytes };
    noteGarbage(bytes.length);
    return { bytes, readBytes };
  }

  reuse(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#isAtEnd || bytes.buffer.byteLength < READ_BYTES) releaseBytes(bytes);
    else this.#free.push(new Uint8Array(bytes.buffer));
  }

  [Symbol.dispose](): void {
    this.#file?.close();
    this.#frames?.[Symbol.dispose]();
    for (const free of this.#free.splice(0)) releaseBytes(free);
  }

  #content(frames: FrameDecompressor): Uint8Array<ArrayBuffer> | undefined {
    this.#loadFrame(frames);
    const content = frames.take();
    if (!content) frames.finish();
    return content;
  }

  #loadFrame(frames: FrameDecompressor): void {
    while (!frames.isReady) {
      const plaintext = this.#plaintext();
      if (!plaintext) return;
      frames.append(plaintext);
      this.reuse(plaintext);
    }
  }

  /** The next piece of what is encrypted, which may be empty; undefined after the last. */
  #plaintext(): Uint8Array<ArrayBuffer> | undefined {
    if (this.#isAtEnd) return undefined;
    const action = `read ${this.#start.path}`;
    this.#file ??= attempt(action, () => this.#fs.open(this.#start.path, { read: true }));
    const file = this.#file;
    this.#cipher ??= this.#afterHeader(file);
    const buffer = this.#free.pop() ?? new Uint8Array(READ_BYTES);
    const count = attempt(action, () => file.read(buffer));
    this.#readBytes += count;
    if (count > 0) return this.#cipher.push(buffer.subarray(0, count));
    releaseBytes(buffer);
    const { plaintext, sha256 } = this.#cipher.finish();
    this.#isAtEnd = true;
    this.#sha256 = sha256;
    return plaintext;
  }

  #afterHeader(file: OpenFile): CiphertextReader {
    const { path, called, headerBytes, fileKey, isHashed } = this.#start;
    const header = new Uint8Array(headerBytes);
    this.#readBytes = attempt(`read ${path}`, () => file.readAt(header, 0));
    return new CiphertextReader({ fileKey, header, what: called, isHashed });
  }
}
