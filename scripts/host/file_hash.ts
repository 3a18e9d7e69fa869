/**
 * The SHA-256 of a file. Apart from what reads its bytes: `node:crypto` takes a thread 25 ms to load.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { piecesOf, READ_BYTES } from "./file_bytes.ts";
import type { Fs } from "./host.ts";

/** The SHA-256 of a file in hexadecimal. @param onBytes Told of each piece's length, for progress and interruptions. */
export function sha256OfFile(
  fs: Fs,
  path: string,
  onBytes: (count: number) => void,
  bytesMax = READ_BYTES,
): string {
  using file = fs.open(path, { read: true });
  const hash = createHash("sha256");
  for (const piece of piecesOf(file, bytesMax)) {
    hash.update(piece);
    onBytes(piece.length);
  }
  return hash.digest("hex");
}
