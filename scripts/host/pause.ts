/**
 * Waiting without giving the thread to anything else.
 *
 * @module
 */

const never = new Int32Array(new SharedArrayBuffer(4));

/** Blocks this thread. */
export function pause(milliseconds: number): void {
  Atomics.wait(never, 0, 0, milliseconds);
}
