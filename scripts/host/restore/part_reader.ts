/**
 * Reads one part of a snapshot: file → its SHA-256, if it is compared → age → zstd → plaintext, in one pass.
 *
 * The checksum is known only at the end, so what was yielded counts only once the generator has ended: age
 * authenticates each chunk before it is released, and the seal's checksum ties the whole to the hub's signature. Who has
 * another checksum from under that signature, of what comes of it all, can do without that of each part.
 *
 * @module
 */

import { BackupError } from "../../core/errors.ts";
import type { SealedPart } from "../../core/snapshot/seal.ts";
import { FRAME_BYTES_MAX, FrameDecompressor } from "../../core/snapshot/zstd_frames.ts";
import { noteGarbage } from "../garbage.ts";
import type { Host } from "../host.ts";
import type { Identity } from "../keys/identity.ts";
import { problemWithChecksum, problemWithPart, problemWithSize } from "../store/store.ts";
import { sourceHere, type StartSource } from "./part_source.ts";

/** A part whose first bytes are being read. */
export interface OpenPart extends Disposable {
  /** Says that `contents` will be read soon, and that there is room for the first of them. */
  prepare(): void;
  /**
   * Yields the plaintext, once, in chunks of at most one zstd frame, which are the caller's.
   *
   * @throws {BackupError} (integrity) If the part cannot be read or, where it is hashed, is not what the seal says.
   */
  contents(): AsyncGenerator<Uint8Array<ArrayBuffer>>;
}

/** Where a part is read. */
export interface Reading {
  readonly start: StartSource;
  /** Whether it is decompressed there, too. */
  readonly unpacked: boolean;
  /** Whether its SHA-256 is compared. Without that nothing ties what is read to the seal. */
  readonly isHashed: boolean;
}

/** The folder of a snapshot, and what errors call that. */
export interface SnapshotFolder {
  readonly folder: string;
  readonly called?: string | undefined;
}

/**
 * Opens a part, and starts to read it.
 *
 * @throws {BackupError} (integrity) If the part is missing, or not what the seal says; (key) if no identity opens it.
 */
export async function openPart(
  host: Host,
  snapshot: SnapshotFolder,
  part: SealedPart,
  identities: readonly Identity[],
  { start, unpacked, isHashed }: Reading = { start: sourceHere(host.fs), unpacked: true, isHashed: true },
): Promise<OpenPart> {
  const path = `${snapshot.folder}/${part.name}`;
  const called = calledOf(snapshot, part);
  const problem = problemWithSize(host.fs, path, part);
  if (problem !== undefined) throw damaged(called, problem);
  using stack = new DisposableStack();
  const source = stack.use(start({ path, called, bytes: part.bytes, identities, unpacked, isHashed }));
  await source.opened.catch((error) => {
    // A damaged header opens to nobody: then it is the part's fault, and not the identity's.
    const isUnread = error instanceof BackupError && error.kind === "disk";
    if (!isUnread) requireAsSealed(host, snapshot, part);
    throw error;
  });
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
          const problem = isHashed ? problemWithChecksum(sha256, part) : undefined;
          if (problem !== undefined) throw damaged(called, problem);
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

/**
 * Reads a part for its SHA-256 alone.
 *
 * @throws {BackupError} (integrity) If it is missing, or not what the seal says.
 */
export function requireAsSealed(host: Host, snapshot: SnapshotFolder, part: SealedPart): void {
  const problem = problemWithPart(host.fs, snapshot.folder, part, () => host.checkpoint());
  if (problem !== undefined) throw damaged(calledOf(snapshot, part), problem);
}

const calledOf = ({ called, folder }: SnapshotFolder, { name }: SealedPart) => `${called ?? folder}/${name}`;

const damaged = (called: string, problem: string) =>
  new BackupError(`Cannot read ${called}: ${problem}`, {
    kind: "integrity",
    hint: "another copy of the store may hold it whole: verify there with --store",
  });
