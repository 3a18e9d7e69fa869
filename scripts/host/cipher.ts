/**
 * Hashes and decrypts parts, here or on another thread: for a large one that is as much work as all the rest.
 *
 * That thread gets ciphertext and the key of that one part, and answers with plaintext, each in the order it was asked.
 * Buffers change hands and are not copied. In a step it is the program's own thread, which only waits meanwhile.
 *
 * @module
 */

import { type CiphertextEnd, CiphertextReader, type CiphertextStart } from "../core/ciphertext.ts";
import { receivedError, type SentError, sentError } from "../core/errors.ts";

/** Reads one part, as {@linkcode CiphertextReader} does. Promises that are not awaited may fail unseen. */
export interface CipherRun {
  push(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
  finish(): Promise<CiphertextEnd>;
}

/** Starts to read parts. Several may be under way at a time. */
export interface Cipher extends Disposable {
  /** How many pieces to push before the first comes back. */
  readonly ahead: number;
  start(start: CiphertextStart): CipherRun;
}

/** Does it all where it is called. */
export const cipherHere: Cipher = {
  ahead: 1,
  start(start) {
    const reader = new CiphertextReader(start);
    return {
      push: (bytes) => settled(Promise.try(() => reader.push(bytes))),
      finish: () => settled(Promise.try(() => reader.finish())),
    };
  },
  [Symbol.dispose]() {},
};

type ToThread =
  | { readonly type: "start"; readonly run: number; readonly start: CiphertextStart }
  | { readonly type: "push"; readonly run: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: "finish"; readonly run: number };
type FromThread =
  | { readonly type: "answer"; readonly value: Uint8Array<ArrayBuffer> | CiphertextEnd }
  | { readonly type: "failed"; readonly error: SentError };

/** Pieces on their way to the thread and back. */
const AHEAD = 5;

/** The near end of a thread that {@linkcode serveCipher} serves. */
export function cipherThread(port: MessagePort): Cipher {
  const asked: PromiseWithResolvers<unknown>[] = [];
  let runs = 0;
  port.onmessage = ({ data }: MessageEvent<FromThread>) => {
    const next = asked.shift()!;
    if (data.type === "answer") next.resolve(data.value);
    else next.reject(receivedError(data.error));
  };
  const say = (message: ToThread, transfer: Transferable[] = []) => port.postMessage(message, transfer);
  const ask = <Answer>(message: ToThread, transfer?: Transferable[]): Promise<Answer> => {
    say(message, transfer);
    const answer = Promise.withResolvers<unknown>();
    asked.push(answer);
    return settled(answer.promise as Promise<Answer>);
  };
  return {
    ahead: AHEAD,
    start(start) {
      const run = runs++;
      say({ type: "start", run, start: { ...start, header: start.header.slice() } });
      return {
        push: (bytes) => ask({ type: "push", run, bytes }, [bytes.buffer]),
        finish: () => ask({ type: "finish", run }),
      };
    },
    [Symbol.dispose]: () => port.close(),
  };
}

/** Answers {@linkcode cipherThread} from the far end of its port. */
export function serveCipher(port: MessagePort): void {
  const readers = new Map<number, CiphertextReader>();
  const answer = (value: Uint8Array<ArrayBuffer> | CiphertextEnd) => {
    const { buffer } = value instanceof Uint8Array ? value : value.plaintext;
    port.postMessage({ type: "answer", value } satisfies FromThread, [buffer]);
  };
  port.onmessage = ({ data }: MessageEvent<ToThread>) => {
    if (data.type === "start") {
      readers.set(data.run, new CiphertextReader(data.start));
      return;
    }
    const reader = readers.get(data.run)!;
    try {
      if (data.type === "push") return answer(reader.push(data.bytes));
      readers.delete(data.run);
      answer(reader.finish());
    } catch (error) {
      port.postMessage({ type: "failed", error: sentError(error) } satisfies FromThread);
    }
  };
}

/** A promise that nobody has to wait for. */
function settled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
