/**
 * Writes an image on another thread: first as a row of pieces, then its changed lines from a ring, while the next ones
 * are being made.
 *
 * That thread opens the image by its path. Pieces change hands; the ring's memory is shared. How much is written is said
 * by counters, so that who makes it sees that without a message: while one port has messages, Deno may leave those of
 * another for a long time.
 *
 * @module
 */

import { releaseBytes } from "../../core/bytes.ts";
import { BackupError, receivedError, type SentError, sentError } from "../../core/errors.ts";
import { LINE_BYTES, LineRing, LINES_AT_ONCE, type LineWriter } from "../../core/snapshot/line_ring.ts";
import { diskError } from "../fs.ts";
import type { Fs, OpenFile } from "../host.ts";

/** Bytes of an image that are written at once. */
const WRITE_BYTES = LINES_AT_ONCE * LINE_BYTES;

/** Writes a piece of an image, so that lines of it can be changed at little cost. */
export function writePiece(image: OpenFile, bytes: Uint8Array, position: number): void {
  for (let at = 0; at < bytes.length; at += WRITE_BYTES) {
    image.writeAt(bytes.subarray(at, at + WRITE_BYTES), position + at);
  }
}

/** A {@linkcode LineWriter} on another thread. */
export interface ImageWriter extends LineWriter, Disposable {
  /**
   * Takes a piece to write, which is no longer the caller's then; false, and nothing, while the last one is not written,
   * and of many small ones until it is heard that they are.
   */
  offer(bytes: Uint8Array<ArrayBuffer>, position: number): boolean;
  /** Waits until what was taken is written. @throws {BackupError} (disk) */
  settle(): Promise<void>;
  /** Says which ring is to be emptied: once, and before anything of it is committed. @param ring In shared memory. */
  empty(ring: LineRing): void;
  /** Waits for all that was committed. @throws {BackupError} (disk) What failed meanwhile, also behind another error. */
  finish(): Promise<void>;
}

type ToThread =
  | { readonly type: "start"; readonly path: string; readonly counters: SharedArrayBuffer }
  | { readonly type: "write"; readonly bytes: Uint8Array<ArrayBuffer>; readonly position: number }
  | { readonly type: "empty"; readonly ring: SharedRing }
  | { readonly type: "commit"; readonly count: number; readonly imageBytes: number }
  | { readonly type: "finish" };
/** Answers "write" and "finish", in order. */
type FromThread = { readonly error?: SentError };
interface SharedRing {
  readonly slots: number;
  readonly buffer: ArrayBufferLike;
}

/** The counters: lines of the ring that are written, and pieces that are done with. */
const LINES = 0;
const PIECES = 1;
/** What the first says once a write has failed. */
const FAILED = -1;
/** Answers that may lie unread: a forged part may hold any number of pieces, of a byte or none, and each takes one. */
const ANSWERS_MAX = 1024;

/**
 * The near end of a thread that {@linkcode serveImageWriter} serves.
 *
 * @param path The image: a file that is there.
 */
export function imageWriterThread(port: MessagePort, path: string): ImageWriter {
  const counters = new BigInt64Array(new SharedArrayBuffer(2 * BigInt64Array.BYTES_PER_ELEMENT));
  let offered = 0n;
  const asked: PromiseWithResolvers<void>[] = [];
  port.onmessage = ({ data: { error } }: MessageEvent<FromThread>) => {
    const next = asked.shift()!;
    if (error) next.reject(receivedError(error));
    else next.resolve();
  };
  const say = (message: ToThread, transfer: Transferable[] = []) => port.postMessage(message, transfer);
  const answer = () => {
    const next = Promise.withResolvers<void>();
    // What fails comes with finish(), too.
    next.promise.catch(() => {});
    asked.push(next);
    return next.promise;
  };
  let settled = Promise.resolve();
  // What is committed waits for the next commit, as far as there is room: most of it is superseded by then.
  let held: { readonly count: number; readonly imageBytes: number } | undefined;
  let released = 0;
  const release = () => {
    if (!held) return;
    say({ type: "commit", ...held });
    released = held.count;
    held = undefined;
  };
  say({ type: "start", path, counters: counters.buffer as SharedArrayBuffer });
  return {
    offer(bytes, position) {
      if (asked.length === ANSWERS_MAX || Atomics.load(counters, PIECES) < offered) return false;
      offered++;
      say({ type: "write", bytes, position }, [bytes.buffer]);
      settled = answer();
      return true;
    },
    settle: () => settled,
    empty: ({ slots, buffer }) => say({ type: "empty", ring: { slots, buffer } }),
    commit(count, imageBytes) {
      release();
      held = { count, imageBytes };
    },
    wait(count) {
      if (count > released) release();
      for (;;) {
        const written = Atomics.load(counters, LINES);
        if (written >= count) return;
        // What failed comes with finish().
        if (Number(written) === FAILED) throw new BackupError(`Cannot write ${path}`, { kind: "disk" });
        Atomics.wait(counters, LINES, written);
      }
    },
    async finish() {
      release();
      say({ type: "finish" });
      await answer();
    },
    [Symbol.dispose]: () => port.close(),
  };
}

/** Answers {@linkcode imageWriterThread} from the far end of its port. */
export function serveImageWriter(port: MessagePort, fs: Pick<Fs, "open">): void {
  let ring: LineRing;
  let counters: BigInt64Array;
  let file: OpenFile | undefined;
  let action = "write an image";
  let error: SentError | undefined;
  const publish = (written: number) => {
    Atomics.store(counters, LINES, BigInt(written));
    Atomics.notify(counters, LINES);
  };
  const writeAt = (lines: Uint8Array, position: number) => file!.writeAt(lines, position);
  const work = (data: ToThread) => {
    switch (data.type) {
      case "start":
        counters = new BigInt64Array(data.counters);
        action = `write ${data.path}`;
        file = fs.open(data.path, { write: true, scattered: true });
        break;
      case "write":
        writePiece(file!, data.bytes, data.position);
        break;
      case "empty":
        ring = new LineRing(data.ring.slots, data.ring.buffer);
        break;
      case "commit":
        ring.write(Number(Atomics.load(counters, LINES)), data.count, data.imageBytes, writeAt, publish);
    }
  };
  port.onmessage = ({ data }: MessageEvent<ToThread>) => {
    if (!error) {
      try {
        work(data);
      } catch (caught) {
        error = sentError(diskError(action, caught));
      }
    }
    if (error) publish(FAILED);
    if (data.type === "write") {
      releaseBytes(data.bytes);
      Atomics.add(counters, PIECES, 1n);
    }
    if (data.type === "finish") file?.close();
    if (data.type === "write" || data.type === "finish") {
      port.postMessage((error ? { error } : {}) satisfies FromThread);
    }
  };
}
