/**
 * The bytes of a file, piece by piece, so that no file is ever there as a whole.
 *
 * @module
 */

import type { Fs, OpenFile } from "./host.ts";

/** Bytes of a file that are read at once. */
export const READ_BYTES = 1 << 20;

/**
 * Reads the rest of a file. Each piece lies in the memory of the one before.
 *
 * @param bytesMax Most bytes that are read at once: less than what is usual for a file that is known to be small.
 */
export function* piecesOf(file: Pick<OpenFile, "read">, bytesMax = READ_BYTES): Generator<Uint8Array> {
  const buffer = new Uint8Array(Math.min(READ_BYTES, bytesMax));
  for (let count = file.read(buffer); count > 0; count = file.read(buffer)) yield buffer.subarray(0, count);
}

/**
 * Copies the content of a file into a new one, and puts that on the disk.
 *
 * @param onBytes Told of each piece's length, for progress and interruptions.
 */
export function copyContent(
  fs: Fs,
  from: string,
  to: string,
  mode: number,
  onBytes: (count: number) => void = () => {},
): void {
  using source = fs.open(from, { read: true });
  using target = fs.open(to, { write: true, createNew: true, mode });
  for (const piece of piecesOf(source)) {
    target.write(piece);
    onBytes(piece.length);
  }
  target.sync();
}
