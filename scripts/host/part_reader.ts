/**
 * Reads one part of a snapshot: file → its SHA-256 → age → zstd → plaintext, in one pass.
 *
 * The checksum is known only at the end, so what was yielded counts only once the generator has ended: age
 * authenticates each chunk before it is released, and the seal's checksum ties the whole to the hub's signature.
 *
 * @module
 */

import { createHash, type Hash } from "node:crypto";
import { releaseBytes } from "../core/bytes.ts";
import { BackupError } from "../core/errors.ts";
import type { SealedPart } from "../core/seal.ts";
import { FrameDecompressor } from "../core/zstd_frames.ts";
import { HEADER_BYTES_MAX } from "./age.ts";
import { type Cipher, cipherHere, type CipherRun } from "./cipher.ts";
import { lstatIfThere } from "./fs.ts";
import { noteGarbage } from "./garbage.ts";
import type { Host, OpenFile } from "./host.ts";
import { type Identity, openHeader } from "./identity.ts";

/** Bytes of ciphertext read at once. */
const READ_BYTES = 512 << 10;
/**
 * Yields the plaintext of a part, in chunks of at most one zstd frame, which are the caller's.
 *
 * @param folder The snapshot's folder.
 * @throws {BackupError} (integrity) If the part is missing, or not what the seal says; (key) if no identity opens it.
 */
export async function* readPart(
  host: Host,
  folder: string,
  part: SealedPart,
  identities: readonly Identity[],
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  using opened = await openPart(host, folder, part, identities, cipherHere);
  yield* opened.contents();
}

/** A part whose first bytes are being read. */
export interface OpenPart extends Disposable {
  /** What {@linkcode readPart} yields, once. */
  contents(): AsyncGenerator<Uint8Array<ArrayBuffer>>;
}

/**
 * Opens a part, and starts to read it as far ahead as `cipher` likes.
 *
 * @throws {BackupError} As {@linkcode readPart}.
 */
export async function openPart(
  host: Host,
  folder: string,
  part: SealedPart,
  identities: readonly Identity[],
  cipher: Cipher,
): Promise<OpenPart> {
  const path = `${folder}/${part.name}`;
  const damaged = (state: string) =>
    new BackupError(`Cannot read ${path}: ${state}`, {
      kind: "integrity",
      hint: "another copy of the store may hold it whole: verify there with --store",
    });
  const stat = lstatIfThere(host.fs, path);
  if (!stat) throw damaged("it is missing");
  if (stat.type !== "file") throw damaged(`it is a ${stat.type}, not a file`);
  if (stat.bytes !== part.bytes) {
    throw damaged(`it has ${stat.bytes} bytes where the seal says ${part.bytes}`);
  }
  const requireSealed = (sha256: string) => {
    if (sha256 !== part.sha256) throw damaged(`its SHA-256 is ${sha256} where the seal says ${part.sha256}`);
  };

  using stack = new DisposableStack();
  const file = stack.use(host.fs.open(path, { read: true }));
  const buffer = new Uint8Array(Math.min(HEADER_BYTES_MAX, part.bytes));
  const start = buffer.subarray(0, file.readAt(buffer, 0));
  const { headerBytes, fileKey } = await openHeader(start, identities).catch((error) => {
    // A damaged header opens to nobody: then it is the part's fault, and not the identity's.
    requireSealed(hashOfRest(host, file, createHash("sha256").update(start)));
    throw error;
  });
  const frames = stack.use(new FrameDecompressor(path));
  const run = cipher.start({ fileKey, header: start.subarray(0, headerBytes) });
  const reader = new ReadAhead(file, run, cipher.ahead);
  reader.push(start.slice(headerBytes));
  const kept = stack.move();
  return {
    async *contents() {
      for (let plaintext = await reader.next(); plaintext; plaintext = await reader.next()) {
        host.checkpoint();
        for (const content of frames.push(plaintext)) {
          const { length } = content;
          yield content;
          noteGarbage(length);
        }
        reader.reuse(plaintext);
        host.report.progress(`read ${part.name}`, Math.min(reader.readBytes, part.bytes), part.bytes);
      }
      const { plaintext, sha256 } = await run.finish();
      yield* frames.push(plaintext);
      frames.finish();
      requireSealed(sha256);
    },
    [Symbol.dispose]: () => kept.dispose(),
  };
}

/** Keeps pieces of a file on their way through a cipher. */
class ReadAhead {
  readonly #file: OpenFile;
  readonly #run: CipherRun;
  readonly #ahead: number;
  readonly #underWay: Promise<Uint8Array<ArrayBuffer>>[] = [];
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  #isAtEnd = false;
  /** Bytes read so far. */
  readBytes = 0;

  constructor(file: OpenFile, run: CipherRun, ahead: number) {
    this.#file = file;
    this.#run = run;
    this.#ahead = ahead;
  }

  /** Sends a piece that is read already, and what follows it. */
  push(bytes: Uint8Array<ArrayBuffer>): void {
    this.readBytes += bytes.length;
    this.#underWay.push(this.#run.push(bytes));
    this.#fill();
  }

  /** The plaintext of the next piece; undefined after the last. */
  async next(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    this.#fill();
    return await this.#underWay.shift();
  }

  /** Takes back a buffer that `next` gave. */
  reuse(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#isAtEnd || bytes.buffer.byteLength < READ_BYTES) releaseBytes(bytes);
    else this.#free.push(new Uint8Array(bytes.buffer));
  }

  #fill(): void {
    while (!this.#isAtEnd && this.#underWay.length < this.#ahead) {
      const buffer = this.#free.pop() ?? new Uint8Array(READ_BYTES);
      const count = this.#file.read(buffer);
      this.#isAtEnd = count === 0;
      this.readBytes += count;
      if (count > 0) this.#underWay.push(this.#run.push(buffer.subarray(0, count)));
      else for (const free of [buffer, ...this.#free.splice(0)]) releaseBytes(free);
    }
  }
}

function hashOfRest(host: Host, file: OpenFile, hash: Hash): string {
  const buffer = new Uint8Array(READ_BYTES);
  for (let count = file.read(buffer); count > 0; count = file.read(buffer)) {
    host.checkpoint();
    hash.update(buffer.subarray(0, count));
  }
  return hash.digest("hex");
}
