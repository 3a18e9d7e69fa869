/**
 * Bounds the memory of streaming: V8 counts a buffer outside its heap as garbage only at its next collection, which
 * small objects alone bring about late, after up to 64 MB of buffers for each worker. (That the allocator keeps what is
 * freed is up to the environment that the program is installed with: `nix/verbs.json`.)
 *
 * @module
 */

/** Bytes that may pass before buffers are collected. */
const COLLECT_EVERY_BYTES = 4 << 20;

/** V8's own, there under `--expose-gc` (`nix/verbs.json`); what `node:vm` gives in its place collects everything. */
const { gc } = globalThis as { gc?: (options: { type: "minor" | "major"; flavor?: "last-resort" }) => void };

let passed = 0;

/** Notes that `bytes` passed through buffers, and collects those that are dead now and then: 0.1 ms each time. */
export function noteGarbage(bytes: number): void {
  passed += bytes;
  if (passed < COLLECT_EVERY_BYTES) return;
  passed = 0;
  gc?.({ type: "minor" });
}

/**
 * Collects everything that is dead, and gives the system what that leaves free, some 6 MB after a script was loaded: 20 to
 * 50 ms, for before and after the use of large tables. V8's regular collection gives nothing back.
 */
export function collectGarbage(): void {
  gc?.({ type: "major", flavor: "last-resort" });
}

/** Bytes of live and dead objects that are few. */
const FEW_BYTES = 64 << 20;

/** Collects what is dead where there are many objects, of 100,000 files: V8 lets them double first. */
export function collectIfMany(): void {
  const { heapUsed, external } = Deno.memoryUsage();
  if (heapUsed + external > FEW_BYTES) gc?.({ type: "major" });
}

/** Bytes of a tar that may pass before they are collected. */
const COLLECT_TAR_EVERY_BYTES = 32 << 20;
/** What a member of a tar takes beside its content: a header, and what fills its last block. */
const MEMBER_BYTES = 1024;

let packed = 0;

/** Notes a member of a tar: of many small ones, buffers are held so long that no minor collection finds them dead. */
export function noteMember(bytes: number): void {
  packed += MEMBER_BYTES + bytes;
  if (packed < COLLECT_TAR_EVERY_BYTES) return;
  packed = 0;
  collectIfMany();
}
