/**
 * Looks for the bytes of secrets in files that must not show them.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { attempt } from "../fs.ts";
import type { Fs, Host } from "../host.ts";

/** A value shorter than this is found by chance, so it is not looked for (bytes). */
const NEEDLE_BYTES_MIN = 12;
/** Longer values are cut to this: it is enough to be sure (bytes). */
const NEEDLE_BYTES_MAX = 64;
/** Of one file, and of all: each is looked for in every byte. */
const NEEDLES_MAX = 64;
const ALL_NEEDLES_MAX = 256;
/** Bytes of a file that are searched for values. */
const SECRET_BYTES = 1 << 16;
const READ_BYTES = 1 << 20;

/** The values that secret files hold, of any size and number: some of each, until there are enough. */
export function needlesOf(fs: Fs, paths: Iterable<string>): Uint8Array[] {
  const needles: Uint8Array[] = [];
  for (const path of paths) {
    if (needles.length >= ALL_NEEDLES_MAX) break;
    attempt(`read ${path}`, () => {
      using file = fs.open(path, { read: true });
      const secret = new Uint8Array(SECRET_BYTES);
      needles.push(...needlesIn(secret.subarray(0, file.readAt(secret, 0))));
    });
  }
  return needles.slice(0, ALL_NEEDLES_MAX);
}

/** The values at the start of a secret file: what stands after `=` or between quotes, and each long line. */
function needlesIn(secret: Uint8Array): Uint8Array[] {
  // A character for each byte, so that what is no text comes out as it is.
  const text = Buffer.from(secret).toString("latin1");
  const values = text.split("\n").flatMap((line) => [
    line.trim(),
    line.slice(line.indexOf("=") + 1).trim(),
    ...[...line.matchAll(/"([^"]*)"|'([^']*)'/g)].map((match) => match[1] ?? match[2] ?? ""),
  ]);
  const needles = [...new Set(values)].map((value) => Buffer.from(value, "latin1"))
    .filter((bytes) => bytes.length >= NEEDLE_BYTES_MIN).map((bytes) => bytes.slice(0, NEEDLE_BYTES_MAX));
  // All of its lines are short: its start will do.
  if (needles.length === 0 && secret.length >= NEEDLE_BYTES_MIN) return [secret.slice(0, NEEDLE_BYTES_MAX)];
  return needles.slice(0, NEEDLES_MAX);
}

/** Whether any of the needles stands in the file. Reads it once, in constant memory. @throws {BackupError} (disk), (cancelled). */
export function fileShows(
  { fs, checkpoint }: Pick<Host, "fs" | "checkpoint">,
  path: string,
  needles: readonly Uint8Array[],
): boolean {
  const wanted = needles.map((needle) => Buffer.from(needle));
  using file = attempt(`read ${path}`, () => fs.open(path, { read: true }));
  const buffer = Buffer.alloc(NEEDLE_BYTES_MAX + READ_BYTES);
  let kept = 0;
  for (;;) {
    checkpoint();
    const count = attempt(`read ${path}`, () => file.read(buffer.subarray(kept, kept + READ_BYTES)));
    if (count === 0) return false;
    const filled = buffer.subarray(0, kept + count);
    if (wanted.some((needle) => filled.includes(needle))) return true;
    // The end is looked at again with what follows: a needle may stand across.
    kept = Math.min(NEEDLE_BYTES_MAX, filled.length);
    filled.copy(buffer, 0, filled.length - kept);
  }
}
