/**
 * Runs of bytes, joined and compared.
 *
 * @module
 */

/** Joins pieces of bytes into one. */
export function concatBytes(...pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let offset = 0;
  for (const piece of pieces) {
    whole.set(piece, offset);
    offset += piece.length;
  }
  return whole;
}

/** Whether two runs of bytes are the same. Not for secrets: it stops at the first difference. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** Node.js cuts several small buffers from one of 8 KiB: what is in one as large as this is alone in it. */
const OWN_BYTES_MIN = 64 * 1024;

/** Whether nothing else can be in the buffer of `bytes`, so that it may be sent away or given back. */
export function ownsBuffer({ buffer }: Uint8Array): boolean {
  return buffer.byteLength >= OWN_BYTES_MIN;
}

/**
 * Gives the memory of a large buffer back at once, where a collection would come for it late. Every view of it is empty
 * afterwards.
 */
export function releaseBytes(bytes: Uint8Array<ArrayBuffer>): void {
  if (ownsBuffer(bytes)) bytes.buffer.transfer(0);
}
