/**
 * Reads parts, here or on another thread: file → SHA-256, if it is wanted → age → zstd, piece by piece.
 *
 * That thread gets a path and what opens it. It works ahead of who asks, by a few pieces: a forged part may hold any
 * amount of content. Buffers change hands and are not copied. In a step it is the program's own thread, which only waits
 * meanwhile: it loads age's package, which opens the headers, while the step itself is loaded. A restore needs it there
 * alone; a drill of the own hub loads it in its step, too, at its end.
 *
 * @module
 */

import { releaseBytes } from "../../core/bytes.ts";
import { receivedError, type SentError, sentError } from "../../core/errors.ts";
import { CiphertextReader } from "../../core/keys/ciphertext.ts";
import { FrameDecompressor } from "../../core/snapshot/zstd_frames.ts";
import { attempt } from "../fs.ts";
import { noteGarbage } from "../garbage.ts";
import type { Fs, Host, OpenFile } from "../host.ts";
import type { Identity } from "../keys/identity.ts";

/** What to read. */
export interface SourceStart {
  readonly path: string;
  /** What to call it in errors: its path in the store that it was fetched from. */
  readonly called: string;
  /** Its size in bytes: memory is laid out for it, and it may be any other. */
  readonly bytes: number;
  /** Those of which one opens its header. */
  readonly identities: readonly Identity[];
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
  /** Resolved once its header is open. @throws {BackupError} (key) If none opens it; (integrity); (disk). */
  readonly opened: Promise<void>;
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
  const opened = reader.open();
  return {
    opened,
    prepare() {},
    next: () => opened.then(() => reader.next()),
    reuse: (bytes) => reader.reuse(bytes),
    [Symbol.dispose]: () => reader[Symbol.dispose](),
  };
};

type ToThread =
  | { readonly type: "start"; readonly run: number; readonly start: SourceStart }
  | { readonly type: "next"; readonly run: number; readonly reuse: Uint8Array<ArrayBuffer> | undefined }
  | { readonly type: "end"; readonly run: number };
/** Answers "start" and "next": those of one run in order. */
type FromThread =
  & { readonly run: number }
  & ({ readonly piece?: Piece | undefined } | { readonly error: SentError });

/** Another thread that reads parts, until it is disposed of. */
export interface SourceThread extends Disposable {
  readonly start: StartSource;
}

/** The thread that reads parts for who may start one. */
export const sourceThreadOf = ({ startThread }: Host): SourceThread | undefined =>
  startThread && sourceThread(startThread("part reader"));

/** The near end of a thread that {@linkcode serveSources} serves. */
export function sourceThread(port: MessagePort): SourceThread {
  const asked = new Map<number, PromiseWithResolvers<Piece | undefined>[]>();
  let runs = 0;
  port.onmessage = ({ data }: MessageEvent<FromThread>) => {
    const next = asked.get(data.run)!.shift()!;
    if ("error" in data) next.reject(receivedError(data.error));
    else next.resolve(data.piece);
  };
  return {
    start(start) {
      const run = runs++;
      const waiting: PromiseWithResolvers<Piece | undefined>[] = [];
      asked.set(run, waiting);
      const say = (message: ToThread, transfer: Transferable[] = []) => {
        port.postMessage(message, transfer);
        const answer = Promise.withResolvers<Piece | undefined>();
        // Nobody has to wait for what was asked for ahead.
        answer.promise.catch(() => {});
        waiting.push(answer);
        return answer.promise;
      };
      const opened = say({ type: "start", run, start }) as Promise<undefined>;
      const underWay: Promise<Piece>[] = [];
      const ask = (reuse?: Uint8Array<ArrayBuffer>) => {
        underWay.push(say({ type: "next", run, reuse }, reuse ? [reuse.buffer] : []) as Promise<Piece>);
      };
      for (let i = 0; i < AHEAD && !start.unpacked; i++) ask();
      return {
        opened,
        prepare() {
          if (underWay.length === 0) ask();
        },
        next() {
          this.prepare();
          return underWay.shift()!;
        },
        reuse: ask,
        [Symbol.dispose]: () => port.postMessage({ type: "end", run } satisfies ToThread),
      };
    },
    [Symbol.dispose]: () => port.close(),
  };
}

/** Answers {@linkcode sourceThread} from the far end of its port. */
export function serveSources(port: MessagePort, fs: Pick<Fs, "open">): void {
  const runs = new Map<number, { readonly reader: SourceReader; last: Promise<void> }>();
  const answer = async (run: number, work: () => Piece | Promise<undefined>) => {
    try {
      const piece = await work();
      port.postMessage({ run, piece } satisfies FromThread, piece?.bytes ? [piece.bytes.buffer] : []);
    } catch (error) {
      port.postMessage({ run, error: sentError(error) } satisfies FromThread);
    }
  };
  port.onmessage = ({ data }: MessageEvent<ToThread>) => {
    const { run } = data;
    if (data.type === "start") {
      const reader = new SourceReader(fs, data.start);
      const last = answer(run, () => reader.open()).then(() => reader.load());
      runs.set(run, { reader, last });
      return;
    }
    // What is asked of a part comes while its header is being opened.
    const part = runs.get(run)!;
    part.last = part.last.then(async () => {
      if (data.type === "end") {
        part.reader[Symbol.dispose]();
        runs.delete(run);
        return;
      }
      if (data.reuse) part.reader.reuse(data.reuse);
      await answer(run, () => part.reader.next());
      part.reader.load();
    });
  };
}

/** Reads one part. After its end it says that again. */
class SourceReader implements Disposable {
  readonly #fs: Pick<Fs, "open">;
  readonly #start: SourceStart;
  readonly #frames: FrameDecompressor | undefined;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  #file: OpenFile | undefined;
  #cipher: CiphertextReader | undefined;
  #readBytes = 0;
  #isAtEnd = false;
  #sha256: string | undefined;
  #error: unknown;

  constructor(fs: Pick<Fs, "open">, start: SourceStart) {
    this.#fs = fs;
    this.#start = start;
    this.#frames = start.unpacked ? new FrameDecompressor(start.called, start.bytes) : undefined;
  }

  /** Opens the file and its header. What fails comes with `next`, too. */
  async open(): Promise<undefined> {
    const { path, called, identities, isHashed } = this.#start;
    const action = `read ${path}`;
    try {
      const file = this.#file = attempt(action, () => this.#fs.open(path, { read: true }));
      const { HEADER_BYTES_MAX, openHeader } = await import("../keys/identity.ts");
      const start = new Uint8Array(HEADER_BYTES_MAX);
      const count = attempt(action, () => file.readAt(start, 0));
      const { headerBytes, fileKey } = await openHeader(start.subarray(0, count), identities);
      const header = start.subarray(0, headerBytes);
      // Read once more: what follows is read from where that ends.
      this.#readBytes = attempt(action, () => file.readAt(header, 0));
      this.#cipher = new CiphertextReader({ fileKey, header, what: called, isHashed });
    } catch (error) {
      this.#error = error;
      throw error;
    }
  }

  /** Reads ahead as far as the next piece needs: what it holds comes with `next`, and so does what fails. */
  load(): void {
    try {
      if (this.#frames && !this.#error) this.#loadFrame(this.#frames);
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
    const [file, cipher] = [this.#file!, this.#cipher!];
    const buffer = this.#free.pop() ?? new Uint8Array(READ_BYTES);
    const count = attempt(`read ${this.#start.path}`, () => file.read(buffer));
    this.#readBytes += count;
    if (count > 0) return cipher.push(buffer.subarray(0, count));
    releaseBytes(buffer);
    const { plaintext, sha256 } = cipher.finish();
    this.#isAtEnd = true;
    this.#sha256 = sha256;
    return plaintext;
  }
}
