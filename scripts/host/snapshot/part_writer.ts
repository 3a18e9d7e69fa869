/**
 * Writes one part of a snapshot: plaintext → zstd → age → file, its ciphertext's SHA-256 along the way.
 *
 * Plaintext goes in and ciphertext is what reaches the disk; memory is one zstd frame.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { releaseBytes } from "../../core/bytes.ts";
import type { PartName } from "../../core/names.ts";
import type { SealedPart } from "../../core/snapshot/seal.ts";
import { FrameCompressor } from "../../core/snapshot/zstd_frames.ts";
import { diskError } from "../fs.ts";
import { noteGarbage } from "../garbage.ts";
import type { Fs, Host, OpenFile } from "../host.ts";
import { type AgeEncrypter, createEncrypter } from "../keys/age.ts";

/** How a part is compressed. */
export interface Compression {
  /** zstd's compression level, 1 to 19. */
  readonly level: number;
  /** Content of one frame, in bytes. */
  readonly frameBytes: number;
}

/** A full is large, and most of it blobs that no level makes smaller: small frames keep memory low. */
export const FOR_FULLS: Compression = { level: 3, frameBytes: 1 << 20 };
/** All else is small, and worth the effort. */
export const FOR_THE_REST: Compression = { level: 9, frameBytes: 4 << 20 };

/**
 * Writes the part `name` of the snapshot in `target.incoming`.
 *
 * @param fill Writes its plaintext.
 * @throws {BackupError} (config) If a recipient is unusable; (disk) if the file cannot be written.
 */
export async function writePart(
  target: {
    readonly host: Pick<Host, "fs">;
    readonly incoming: string;
    readonly recipients: readonly string[];
  },
  name: PartName,
  compression: Compression,
  fill: (part: PartWriter) => void | Promise<void>,
): Promise<SealedPart> {
  using part = await PartWriter.create(target.host.fs, target.incoming, name, target.recipients, compression);
  await fill(part);
  return part.finish();
}

/** A part being written. Dispose of it when it is not finished: that closes its file. */
export class PartWriter implements Disposable {
  readonly #name: PartName;
  readonly #path: string;
  readonly #file: OpenFile;
  readonly #compressor: FrameCompressor;
  readonly #encrypter: AgeEncrypter;
  readonly #hash = createHash("sha256");
  #bytes = 0;

  private constructor(
    name: PartName,
    path: string,
    file: OpenFile,
    compression: Compression,
    encrypter: AgeEncrypter,
  ) {
    this.#name = name;
    this.#path = path;
    this.#file = file;
    this.#compressor = new FrameCompressor(compression.level, compression.frameBytes);
    this.#encrypter = encrypter;
    this.#store([encrypter.header]);
  }

  /**
   * Starts the part `name` in `folder`.
   *
   * @throws {BackupError} (config) If a recipient is unusable; (disk) if the file cannot be made.
   */
  static async create(
    fs: Fs,
    folder: string,
    name: PartName,
    recipients: readonly string[],
    compression: Compression,
  ): Promise<PartWriter> {
    const encrypter = await createEncrypter(recipients);
    const path = `${folder}/${name}`;
    try {
      return new PartWriter(
        name,
        path,
        fs.open(path, { write: true, createNew: true, mode: 0o640 }),
        compression,
        encrypter,
      );
    } catch (error) {
      throw diskError(`write ${path}`, error);
    }
  }

  /** Takes plaintext, which the caller may reuse. */
  write(plaintext: Uint8Array): void {
    for (const frame of this.#compressor.push(plaintext)) this.#encrypt(frame);
    noteGarbage(plaintext.length);
  }

  /** Ends the part and syncs it. */
  finish(): SealedPart {
    for (const frame of this.#compressor.finish()) this.#encrypt(frame);
    this.#store(this.#encrypter.finish());
    try {
      this.#file.sync();
      this.#file.close();
    } catch (error) {
      throw diskError(`write ${this.#path}`, error);
    }
    return { name: this.#name, bytes: this.#bytes, sha256: this.#hash.digest("hex") };
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }

  #encrypt(frame: Uint8Array<ArrayBuffer>): void {
    this.#store(this.#encrypter.push(frame));
    releaseBytes(frame);
  }

  #store(chunks: Iterable<Uint8Array<ArrayBuffer>>): void {
    for (const chunk of chunks) {
      this.#hash.update(chunk);
      this.#bytes += chunk.length;
      try {
        this.#file.write(chunk);
      } catch (error) {
        throw diskError(`write ${this.#path}`, error);
      }
      releaseBytes(chunk);
    }
  }
}
