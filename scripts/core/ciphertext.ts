/**
 * Reads a part piece by piece: its SHA-256, its plaintext and, if asked to, what that holds compressed.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { PayloadDecrypter } from "./age_payload.ts";
import { releaseBytes } from "./bytes.ts";
import { FrameDecompressor } from "./zstd_frames.ts";

/** How to read a part. */
export interface CiphertextStart {
  /** The key that its header holds. */
  readonly fileKey: Uint8Array;
  /** All bytes before its payload. */
  readonly header: Uint8Array;
  /** What to call it in errors of its frames, which are decompressed then. */
  readonly frames?: string;
}

/** Pieces of plaintext, or the contents of frames. Each has a buffer of its own, which is the caller's. */
export type Contents = Uint8Array<ArrayBuffer>[];

/** The end of a part. */
export interface CiphertextEnd {
  readonly contents: Contents;
  /** Of all its bytes, in hexadecimal. */
  readonly sha256: string;
}

/** Hashes, decrypts and decompresses a part in one pass. */
export class CiphertextReader {
  readonly #hash = createHash("sha256");
  readonly #payload: PayloadDecrypter;
  readonly #frames: FrameDecompressor | undefined;

  constructor({ fileKey, header, frames }: CiphertextStart) {
    this.#hash.update(header);
    this.#payload = new PayloadDecrypter(fileKey);
    this.#frames = frames === undefined ? undefined : new FrameDecompressor(frames);
  }

  /**
   * Takes the next bytes, whose buffer is no longer the caller's: plaintext comes in it.
   *
   * @throws {BackupError} (integrity) If a chunk before these bytes does not authenticate, or a frame is none of ours.
   */
  push(bytes: Uint8Array<ArrayBuffer>): Contents {
    this.#hash.update(bytes);
    return this.#contents(joined(this.#payload.push(bytes), bytes));
  }

  /** @throws {BackupError} (integrity) If the part is damaged or cut. */
  finish(): CiphertextEnd {
    const contents = this.#contents(joined(this.#payload.finish(), new Uint8Array()));
    this.#frames?.finish();
    this.#frames?.[Symbol.dispose]();
    return { contents, sha256: this.#hash.digest("hex") };
  }

  #contents(plaintext: Uint8Array<ArrayBuffer>): Contents {
    if (!this.#frames) return [plaintext];
    const contents = [...this.#frames.push(plaintext)];
    releaseBytes(plaintext);
    return contents;
  }
}

/** Joins chunks, which are given back, into `room` or, where that is too small, into a buffer of their own. */
function joined(
  chunks: readonly Uint8Array<ArrayBuffer>[],
  room: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const bytes = chunks.reduce((total, chunk) => total + chunk.length, 0);
  const whole = bytes <= room.length ? room.subarray(0, bytes) : new Uint8Array(bytes);
  let used = 0;
  for (const chunk of chunks) {
    whole.set(chunk, used);
    used += chunk.length;
    releaseBytes(chunk);
  }
  return whole;
}
