/**
 * Reads one part of a snapshot: file → its SHA-256 → age → zstd → plaintext, in one pass.
 *
 * The checksum is known only at the end, so what was yielded counts only once the generator has ended: age
 * authenticates each chunk before it is released, and the seal's checksum ties the whole to the hub's signature.
 *
 * @module
 */

import { createHash, type Hash } from "node:crypto";
import { BackupError } from "../../core/errors.ts";
import type { SealedPart } from "../../core/snapshot/seal.ts";
import { FRAME_BYTES_MAX, FrameDecompressor } from "../../core/snapshot/zstd_frames.ts";
import { piecesOf } from "../file_bytes.ts";
import { attempt } from "../fs.ts";
import { noteGarbage } from "../garbage.ts";
import type { Host, OpenFile } from "../host.ts";
import { HEADER_BYTES_MAX } from "../keys/age.ts";
import { type Identity, openHeader } from "../keys/identity.ts";
import { problemWithSize } from "../store/store.ts";
import { sourceHere, type StartSource } from "./part_source.ts";

/** A part whose first bytes are being read. */
export interface OpenPart extends Disposable {
  /** Says that `contents` will be read soon, and that there is room for the first of them. */
  prepare(): void;
  /**
   * Yields the plaintext, once, in chunks of at most one zstd frame, which are the caller's.
   *
   * @throws {BackupError} (integrity) If the part is not what the seal says.
   */
  contents(): AsyncGenerator<Uint8Array<ArrayBuffer>>;
}

/** Where a part is read. */
export interface Reading {
  readonly start: StartSource;
  /** Whether it is decompressed there, too. */
  readonly unpacked: boolean;
}

/**
 * Opens a part, and starts to read it.
 *
 * @param snapshot Its folder, and what errors call that.
 * @throws {BackupError} (integrity) If the part is missing, or not what the seal says; (key) if no identity opens it.
 */
export async function openPart(
  host: Host,
  snapshot: { readonly folder: string; readonly called?: string | undefined },
  part: SealedPart,
  identities: readonly Identity[],
  reading: Reading = { start: sourceHere(host.fs), unpacked: true },
): Promise<OpenPart> {
  const path = `${snapshot.folder}/${part.name}`;
  const called = `${snapshot.called ?? snapshot.folder}/${part.name}`;
  const damaged = (state: string) =>
    new BackupError(`Cannot read ${called}: ${state}`, {
      kind: "integrity",
      hint: "another copy of the store may hold it whole: verify there with --store",
    });
  const problem = problemWithSize(host.fs, path, part);
  if (problem !== undefined) throw damaged(problem);
  const requireSealed = (sha256: string | undefined) => {
    if (sha256 !== part.sha256) throw damaged(`its SHA-256 is ${sha256} where the seal says ${part.sha256}`);
  };
  const { headerBytes, fileKey } = await openHeaderOf(host, path, part, identities, requireSealed);
  const { unpacked } = reading;
  using stack = new DisposableStack();
  const source = stack.use(
    reading.start({ path, called, bytes: part.bytes, headerBytes, fileKey, unpacked }),
  );
  const frames = unpacked ? undefined : stack.use(new FrameDecompressor(called, part.bytes));
  const kept = stack.move();
  return {
    prepare: () => source.prepare(),
    async *contents() {
      for (;;) {
        const { bytes, sha256, readBytes } = await source.next();
        host.checkpoint();
        host.report.progress(`read ${part.name}`, Math.min(readBytes, part.bytes), part.bytes);
        if (!bytes) {
          frames?.finish();
          requireSealed(sha256);
          return;
        }
        if (!frames) {
          // Only the end follows.
          if (bytes.length < FRAME_BYTES_MAX) source.prepare();
          yield bytes;
          continue;
        }
        for (const content of frames.push(bytes)) {
          const { length } = content;
          yield content;
          noteGarbage(length);
        }
        source.reuse(bytes);
      }
    },
    [Symbol.dispose]: () => kept.dispose(),
  };
}

async function openHeaderOf(
  host: Host,
  path: string,
  part: SealedPart,
  identities: readonly Identity[],
  requireSealed: (sha256: string) => void,
): Promise<{ headerBytes: number; fileKey: Uint8Array }> {
  const action = `read ${path}`;
  using file = attempt(action, () => host.fs.open(path, { read: true }));
  const buffer = new Uint8Array(Math.min(HEADER_BYTES_MAX, part.bytes));
  const start = buffer.subarray(0, attempt(action, () => file.readAt(buffer, 0)));
  return await openHeader(start, identities).catch((error) => {
    // A damaged header opens to nobody: then it is the part's fault, and not the identity's.
    requireSealed(attempt(action, () => hashOfRest(host, file, createHash("sha256").update(start))));
    throw error;
  });
}

function hashOfRest(host: Host, file: OpenFile, hash: Hash): string {
  for (const piece of piecesOf(file)) {
    host.checkpoint();
    hash.update(piece);
  }
  return hash.digest("hex");
}
