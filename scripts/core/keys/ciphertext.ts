/**
 * Reads a part piece by piece: its plaintext, and its SHA-256 where that is wanted.
 *
 * What that holds compressed is for the caller to take frame by frame: a forged part may hold any amount of it.
 *
 * @module
 */

import { createHash, type Hash } from "node:crypto";
import { releaseBytes } from "../bytes.ts";
import { PayloadDecrypter } from "./age_payload.ts";

/** How to read a part. */
export interface CiphertextStart {
  /** The key that its header holds. */
  readonly fileKey: Uint8Array;
  /** All bytes before its payload. */
  readonly header: Uint8Array;
  /** What to call it in errors. */
  readonly what: string;
  /** Whether its SHA-256 is wanted. */
  readonly isHashed: boolean;
}

/** The end of a part. */
export interface CiphertextEnd {
  /** The last of it. */
  readonly plaintext: Uint8Array<ArrayBuffer>;
  /** Of all its bytes, in hexadecimal, if it was wanted. */
  readonly sha256: string | undefined;
}

/** Decrypts a part, and hashes it in the same pass. */
export class CiphertextReader {
  readonly #hash: Hash | undefined;
  readonly #payload: PayloadDecrypter;

  constructor({ fileKey, header, what, isHashed }: CiphertextStart) {
    this.#hash = isHashed ? createHash("sha256").update(header) : undefined;
    this.#payload = new PayloadDecrypter(fileKey, what);
  }

  /**
   * Takes the next bytes and returns what of the plaintext is ready, in the same buffer where it fits: that is no longer
   * the caller's, and this is.
   *
   * @throws {BackupError} (integrity) If a chunk before these bytes does not authenticate.
   */
  push(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    this.#hash?.update(bytes);
    return joined(this.#payload.push(bytes), bytes);
  }

  /** @throws {BackupError} (integrity) If the part is damaged or cut. */
  finish(): CiphertextEnd {
    return { plaintext: joined(this.#payload.finish(), new Uint8Array()), sha256: this.#hash?.digest("hex") };
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
