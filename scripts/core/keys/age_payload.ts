/**
 * The payload of an age file: a 16-byte nonce, then chunks of 64 KiB sealed with ChaCha20-Poly1305
 * (https://c2sp.org/age, section "Payload").
 *
 * Invariants:
 * - Memory is constant: at most one chunk is held back.
 * - Nothing leaves {@linkcode PayloadDecrypter} that has not been authenticated, and its `finish()` returns only
 *   when the last chunk was there. Whoever skips `finish()` does not know whether the file was cut short.
 * - Input buffers are never kept: they may be reused as soon as `push()` returns.
 *
 * The cipher is the native one: the JavaScript one of the `age-encryption` package is more than ten times slower.
 *
 * @module
 */

import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import { BackupError } from "../errors.ts";

/** A synchronous transformation of bytes, fed piece by piece: for hot loops. */
export interface Codec {
  /** Takes the next bytes of the input, of any length; returns what output is ready. */
  push(bytes: Uint8Array): Uint8Array<ArrayBuffer>[];
  /** Ends the input and returns the rest of the output. Call it once, after the last `push`. */
  finish(): Uint8Array<ArrayBuffer>[];
}

/** Length of a file key, in bytes. */
export const FILE_KEY_BYTES = 16;
/** Length of the nonce that starts a payload, in bytes. */
export const PAYLOAD_NONCE_BYTES = 16;
/** Length of every chunk's plaintext but the last, in bytes. */
export const CHUNK_BYTES = 64 * 1024;
/** Length of the tag that authenticates a chunk, in bytes. */
const TAG_BYTES = 16;
const SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES;
const CIPHER = "chacha20-poly1305";

/**
 * Encrypts a payload. The first output is the nonce. Inverse of {@linkcode PayloadDecrypter}.
 *
 * @throws {RangeError} (constructor) If the file key or the nonce is not 16 bytes long.
 */
export class PayloadEncrypter implements Codec {
  readonly #key: Uint8Array;
  readonly #chunks = new Cutter(CHUNK_BYTES, { holdsBackLast: true });
  #nonce: Uint8Array<ArrayBuffer>[];
  #counter = 0;

  /**
   * @param fileKey 16 random bytes that encrypt this file and no other.
   * @param nonce 16 random bytes, fresh for every payload, even one under the same file key.
   */
  constructor(fileKey: Uint8Array, nonce: Uint8Array) {
    this.#key = payloadKey(fileKey, nonce);
    this.#nonce = [Uint8Array.from(nonce)];
  }

  push(bytes: Uint8Array): Uint8Array<ArrayBuffer>[] {
    const output = this.#nonce.splice(0);
    for (const chunk of this.#chunks.take(bytes)) output.push(this.#seal(chunk, false));
    return output;
  }

  finish(): Uint8Array<ArrayBuffer>[] {
    return [...this.#nonce.splice(0), this.#seal(this.#chunks.last(), true)];
  }

  #seal(chunk: Uint8Array, isLast: boolean): Uint8Array<ArrayBuffer> {
    const cipher = createCipheriv(CIPHER, this.#key, chunkNonce(this.#counter++, isLast), {
      authTagLength: TAG_BYTES,
    });
    const sealed = new Uint8Array(chunk.length + TAG_BYTES);
    sealed.set(cipher.update(chunk));
    cipher.final();
    sealed.set(cipher.getAuthTag(), chunk.length);
    return sealed;
  }
}

/**
 * Decrypts a payload. Inverse of {@linkcode PayloadEncrypter}.
 *
 * A `push` that meets damage still returns the chunks before it; the next `push` or `finish` throws.
 *
 * @throws {BackupError} (integrity) If the payload is changed, cut short, or followed by anything else.
 * @throws {RangeError} (constructor) If the file key is not 16 bytes long.
 */
export class PayloadDecrypter implements Codec {
  readonly #fileKey: Uint8Array;
  readonly #what: string;
  readonly #nonce = new Uint8Array(PAYLOAD_NONCE_BYTES);
  readonly #chunks = new Cutter(SEALED_CHUNK_BYTES, { holdsBackLast: false });
  #nonceFilled = 0;
  #key: Uint8Array | undefined;
  #counter = 0;
  #isEnded = false;
  #damage: BackupError | undefined;

  /** @param what What to call it in errors. */
  constructor(fileKey: Uint8Array, what = "age payload") {
    requireLength("a file key", fileKey, FILE_KEY_BYTES);
    this.#fileKey = Uint8Array.from(fileKey);
    this.#what = what;
  }

  push(bytes: Uint8Array): Uint8Array<ArrayBuffer>[] {
    if (this.#damage) throw this.#damage;
    const output: Uint8Array<ArrayBuffer>[] = [];
    bytes = this.#takeNonce(bytes);
    for (const sealed of this.#chunks.take(bytes)) {
      // A full chunk may be the last one, too: only the failure to open it as one of the others tells.
      const chunk = this.#isEnded ? undefined : this.#open(sealed, false) ?? this.#open(sealed, true);
      if (chunk) {
        output.push(chunk);
      } else {
        this.#damage = this.#isEnded ? this.#trailing() : this.#unauthentic();
        break;
      }
    }
    return output;
  }

  finish(): Uint8Array<ArrayBuffer>[] {
    if (this.#damage) throw this.#damage;
    const sealed = this.#chunks.last();
    if (this.#isEnded) {
      if (sealed.length > 0) throw this.#trailing();
      return [];
    }
    if (sealed.length < TAG_BYTES) throw this.#damaged("it ends before its last chunk");
    if (sealed.length === TAG_BYTES && this.#counter > 0) throw this.#damaged("its last chunk is empty");
    const chunk = this.#open(sealed, true);
    if (!chunk) throw this.#unauthentic();
    return chunk.length === 0 ? [] : [chunk];
  }

  /** Keeps the first 16 bytes of the payload for itself; returns what comes after them. */
  #takeNonce(bytes: Uint8Array): Uint8Array {
    if (this.#key) return bytes;
    const nonceBytes = bytes.subarray(0, PAYLOAD_NONCE_BYTES - this.#nonceFilled);
    this.#nonce.set(nonceBytes, this.#nonceFilled);
    this.#nonceFilled += nonceBytes.length;
    if (this.#nonceFilled === PAYLOAD_NONCE_BYTES) this.#key = payloadKey(this.#fileKey, this.#nonce);
    return bytes.subarray(nonceBytes.length);
  }

  #unauthentic(): BackupError {
    return this.#damaged(`chunk ${this.#counter} does not authenticate`);
  }

  #trailing(): BackupError {
    return this.#damaged("something follows its last chunk");
  }

  #damaged(state: string): BackupError {
    return new BackupError(`Cannot decrypt ${this.#what}: ${state}`, {
      kind: "integrity",
      hint: "it was damaged, changed or cut short: another copy of the store may hold it whole (--store)",
    });
  }

  /** The plaintext of a chunk, or undefined if it does not authenticate. Counts the chunks that do. */
  #open(sealed: Uint8Array, isLast: boolean): Uint8Array<ArrayBuffer> | undefined {
    const decipher = createDecipheriv(CIPHER, this.#key!, chunkNonce(this.#counter, isLast), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
    const chunk = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES));
    try {
      decipher.final();
    } catch {
      return undefined;
    }
    this.#counter++;
    this.#isEnded = isLast;
    return new Uint8Array(chunk.buffer as ArrayBuffer, chunk.byteOffset, chunk.length);
  }
}

/**
 * The length of the payload (nonce included) that holds `plaintextBytes` bytes.
 * Useful to foresee how much room a file takes: age hides contents, not lengths.
 */
export function payloadBytesOf(plaintextBytes: number): number {
  const chunks = Math.max(1, Math.ceil(plaintextBytes / CHUNK_BYTES));
  return PAYLOAD_NONCE_BYTES + plaintextBytes + chunks * TAG_BYTES;
}

/** Cuts a run of bytes into pieces of one size; what is left makes a shorter last one. */
class Cutter {
  readonly #held: Uint8Array<ArrayBuffer>;
  /** How many bytes must be there before a full piece is let go. */
  readonly #neededBytes: number;
  #filled = 0;

  /** @param options `holdsBackLast`: whether a full piece waits until something follows it. */
  constructor(pieceBytes: number, options: { holdsBackLast: boolean }) {
    this.#held = new Uint8Array(pieceBytes);
    this.#neededBytes = options.holdsBackLast ? pieceBytes + 1 : pieceBytes;
  }

  /** The full pieces that are ready. Each is valid only until the next one is asked for. */
  *take(bytes: Uint8Array): Generator<Uint8Array> {
    const size = this.#held.length;
    if (this.#filled > 0) {
      const missing = bytes.subarray(0, size - this.#filled);
      this.#hold(missing);
      bytes = bytes.subarray(missing.length);
      if (this.#filled + bytes.length < this.#neededBytes) return;
      yield this.#held;
      this.#filled = 0;
    }
    while (bytes.length >= this.#neededBytes) {
      yield bytes.subarray(0, size);
      bytes = bytes.subarray(size);
    }
    this.#hold(bytes);
  }

  /** What is left, up to one full piece. */
  last(): Uint8Array {
    return this.#held.subarray(0, this.#filled);
  }

  #hold(bytes: Uint8Array): void {
    this.#held.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }
}

function payloadKey(fileKey: Uint8Array, nonce: Uint8Array): Uint8Array {
  requireLength("a file key", fileKey, FILE_KEY_BYTES);
  requireLength("a payload's nonce", nonce, PAYLOAD_NONCE_BYTES);
  return new Uint8Array(hkdfSync("sha256", fileKey, nonce, "payload", 32));
}

/** The nonce of a chunk: an 11-byte big-endian counter from 0, then 1 for the last chunk and 0 for the others. */
function chunkNonce(counter: number, isLast: boolean): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(3, BigInt(counter));
  nonce[11] = isLast ? 1 : 0;
  return nonce;
}

function requireLength(what: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) throw new RangeError(`${what} has ${length} bytes, not ${bytes.length}`);
}
