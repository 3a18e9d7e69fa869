/**
 * Bounds the memory of streaming: V8 counts a buffer outside its heap as garbage only at its next collection, which
 * small objects alone bring about late, after up to 64 MB of buffers for each worker.
 *
 * @module
 */

/** Bytes that may pass before buffers are collected. */
const COLLECT_EVERY_BYTES = 4 << 20;

/** V8's own, there under `--expose-gc` (`nix/verbs.json`); what `node:vm` gives in its place collects everything. */
const { gc } = globalThis as { gc?: (options: { type: "minor" | "major" }) => void };

let passed = 0;

/** Notes that `bytes` passed through buffers, and collects those that are dead now and then: 0.1 ms each time. */
export function noteGarbage(bytes: number): void {
  passed += bytes;
  if (passed < COLLECT_EVERY_BYTES) return;
  passed = 0;
  gc?.({ type: "minor" });
}

/** Collects everything that is dead: some 10 ms, for after the use of large tables. */
export function collectGarbage(): void {
  gc?.({ type: "major" });
}
