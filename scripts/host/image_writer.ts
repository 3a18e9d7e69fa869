/**
 * Writes the changed lines of an image from a ring, on another thread, while the next ones are being made.
 *
 * That thread shares the ring's memory and opens the image by its path. It says how far it is by a counter, so that
 * who fills the ring can wait for it without a message.
 *
 * @module
 */

import { BackupError, receivedError, type SentError, sentError } from "../core/errors.ts";
import { LineRing, type LineWriter } from "../core/line_ring.ts";
import { attempt } from "./fs.ts";
import type { Fs, OpenFile } from "./host.ts";

/** A {@linkcode LineWriter} on another thread. */
export interface ImageWriter extends LineWriter, Disposable {
  /** Waits for all that was committed. @throws {BackupError} (disk) What failed meanwhile, also behind another error. */
  finish(): Promise<void>;
}

type ToThread =
  | {
    readonly type: "start";
    readonly path: string;
    readonly ring: SharedRing;
    readonly counter: SharedArrayBuffer;
  }
  | { readonly type: "commit"; readonly count: number; readonly imageBytes: number }
  | { readonly type: "finish" };
type FromThread = { readonly type: "finished"; readonly error?: SentError };
interface SharedRing {
  readonly slots: number;
  readonly buffer: ArrayBufferLike;
}

/** What the counter says once a write has failed. */
const FAILED = -1n;

/**
 * The near end of a thread that {@linkcode serveImageWriter} serves.
 *
 * @param path The image: a file that is there.
 * @param ring In shared memory.
 */
export function imageWriterThread(port: MessagePort, path: string, ring: LineRing): ImageWriter {
  const counter = new BigInt64Array(new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT));
  const say = (message: ToThread) => port.postMessage(message);
  const finished = Promise.withResolvers<void>();
  finished.promise.catch(() => {});
  port.onmessage = ({ data: { error } }: MessageEvent<FromThread>) => {
    if (error) finished.reject(receivedError(error));
    else finished.resolve();
  };
  const { slots, buffer } = ring;
  say({ type: "start", path, ring: { slots, buffer }, counter: counter.buffer as SharedArrayBuffer });
  return {
    commit: (count, imageBytes) => say({ type: "commit", count, imageBytes }),
    wait(count) {
      for (;;) {
        const written = Atomics.load(counter, 0);
        if (written >= count) return;
        // What failed comes with finish().
        if (written === FAILED) throw new BackupError(`Cannot write ${path}`, { kind: "disk" });
        Atomics.wait(counter, 0, written);
      }
    },
    async finish() {
      say({ type: "finish" });
      await finished.promise;
    },
    [Symbol.dispose]: () => port.close(),
  };
}

/** Answers {@linkcode imageWriterThread} from the far end of its port. */
export function serveImageWriter(port: MessagePort, fs: Fs): void {
  let ring: LineRing;
  let counter: BigInt64Array;
  let file: OpenFile | undefined;
  let action = "write an image";
  let error: SentError | undefined;
  const publish = (written: bigint) => {
    Atomics.store(counter, 0, written);
    Atomics.notify(counter, 0);
  };
  const work = (data: ToThread) => {
    if (data.type === "start") {
      ring = new LineRing(data.ring.slots, data.ring.buffer);
      counter = new BigInt64Array(data.counter);
      action = `write ${data.path}`;
      file = attempt(action, () => fs.open(data.path, { write: true }));
    } else if (data.type === "commit") {
      const written = Number(Atomics.load(counter, 0));
      ring.write(
        written,
        data.count,
        data.imageBytes,
        (lines, position) => attempt(action, () => file!.writeAt(lines, position)),
        (count) => publish(BigInt(count)),
      );
    }
  };
  port.onmessage = ({ data }: MessageEvent<ToThread>) => {
    if (!error) {
      try {
        work(data);
      } catch (caught) {
        error = sentError(caught);
        publish(FAILED);
      }
    }
    if (data.type !== "finish") return;
    file?.close();
    port.postMessage({ type: "finished", ...(error ? { error } : {}) } satisfies FromThread);
  };
}
