/**
 * Bounds the memory of streaming: V8 counts a buffer outside its heap as garbage only at its next collection, which
 * small objects alone bring about late, after up to 64 MB of buffers for each worker.
 *
 * @module
 */

import v8 from "node:v8";
import vm from "node:vm";

/** Bytes that may pass before buffers are collected. */
const COLLECT_EVERY_BYTES = 16 << 20;

let collect: ((options: { type: "minor" }) => void) | undefined;
let passed = 0;

/** Notes that `bytes` passed through buffers, and collects those that are dead now and then: about 1 ms each time. */
export function noteGarbage(bytes: number): void {
  passed += bytes;
  if (passed < COLLECT_EVERY_BYTES) return;
  passed = 0;
  if (!collect) {
    v8.setFlagsFromString("--expose-gc");
    collect = vm.runInNewContext("gc");
  }
  collect?.({ type: "minor" });
}
