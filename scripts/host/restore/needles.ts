/**
 * Looks for the bytes of secrets in files that must not show them.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { Fs } from "../host.ts";

/** A value shorter than this is found by chance, so it is not looked for (bytes). */
const NEEDLE_BYTES_MIN = 12;
/** Longer values are cut to this: it is enough to be sure (bytes). */
const NEEDLE_BYTES_MAX = 64;
const NEEDLES_MAX = 64;
const READ_BYTES = 1 << 20;

/** The values that a secret file holds: what stands after `=` or between quotes, and each long line. */
export function needlesIn(secret: Uint8Array): Uint8Array[] {
  const text = new TextDecoder().decode(secret.subarray(0, 1 << 16));
  const values = text.split("\n").flatMap((line) => [
    line.trim(),
    line.slice(line.indexOf("=") + 1).trim(),
    ...[...line.matchAll(/"([^"]*)"|'([^']*)'/g)].map((match) => match[1] ?? match[2] ?? ""),
  ]);
  const needles = [...new Set(values)].map((value) => new TextEncoder().encode(value))
    .filter((bytes) => bytes.length >= NEEDLE_BYTES_MIN).map((bytes) => bytes.slice(0, NEEDLE_BYTES_MAX));
  // A secret that is not text: its start will do.
  if (needles.length === 0 && secret.length >= NEEDLE_BYTES_MIN) return [secret.slice(0, NEEDLE_BYTES_MAX)];
  return needles.slice(0, NEEDLES_MAX);
}

/** Whether any of the needles stands in the file. Reads it once, in constant memory. */
export function fileShows(fs: Fs, path: string, needles: readonly Uint8Array[]): boolean {
  const wanted = needles.map((needle) => Buffer.from(needle));
  using file = fs.open(path, { read: true });
  const buffer = Buffer.alloc(NEEDLE_BYTES_MAX + READ_BYTES);
  let kept = 0;
  for (;;) {
    const count = file.read(buffer.subarray(kept, kept + READ_BYTES));
    if (count === 0) return false;
    const filled = buffer.subarray(0, kept + count);
    if (wanted.some((needle) => filled.includes(needle))) return true;
    // The end is looked at again with what follows: a needle may stand across.
    kept = Math.min(NEEDLE_BYTES_MAX, filled.length);
    filled.copy(buffer, 0, filled.length - kept);
  }
}
