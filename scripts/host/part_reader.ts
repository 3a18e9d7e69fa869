/**
 * Reads one part of a snapshot: file → its SHA-256 → age → zstd → plaintext, in one pass.
 *
 * The checksum is known only at the end, so what was yielded counts only once the generator has ended: age
 * authenticates each chunk before it is released, and the seal's checksum ties the whole to the hub's signature.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { BackupError } from "../core/errors.ts";
import type { SealedPart } from "../core/seal.ts";
import { FrameDecompressor } from "../core/zstd_frames.ts";
import { HEADER_BYTES_MAX } from "./age.ts";
import { lstatIfThere } from "./fs.ts";
import { noteGarbage } from "./garbage.ts";
import type { Host, OpenFile } from "./host.ts";
import { createDecrypter, type Identity } from "./identity.ts";

/** Bytes of ciphertext read at once. */
const READ_BYTES = 1 << 20;

/**
 * Yields the plaintext of a part, in chunks of at most one zstd frame, which the caller may keep.
 *
 * @param folder The snapshot's folder.
 * @throws {BackupError} (integrity) If the part is missing, or not what the seal says; (key) if no identity opens it.
 */
export async function* readPart(
  host: Host,
  folder: string,
  part: SealedPart,
  identities: readonly Identity[],
): AsyncGenerator<Uint8Array> {
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

  using file: OpenFile = host.fs.open(path, { read: true });
  const hash = createHash("sha256");
  const requireSealed = () => {
    const sha256 = hash.digest("hex");
    if (sha256 !== part.sha256) throw damaged(`its SHA-256 is ${sha256} where the seal says ${part.sha256}`);
  };
  const frames = new FrameDecompressor(path);
  const start = readUpTo(file, new Uint8Array(Math.min(HEADER_BYTES_MAX, part.bytes)));
  hash.update(start);
  const buffer = new Uint8Array(READ_BYTES);
  const decrypter = await createDecrypter(start, identities).catch((error) => {
    // A damaged header opens to nobody: then it is the part's fault, and not the identity's.
    for (let count = file.read(buffer); count > 0; count = file.read(buffer)) {
      host.checkpoint();
      hash.update(buffer.subarray(0, count));
    }
    requireSealed();
    throw error;
  });
  for (const chunk of decrypter.push(start.subarray(decrypter.headerBytes))) yield* frames.push(chunk);
  let done = start.length;
  for (let count = file.read(buffer); count > 0; count = file.read(buffer)) {
    host.checkpoint();
    const bytes = buffer.subarray(0, count);
    hash.update(bytes);
    done += count;
    host.report.progress(`read ${part.name}`, done, part.bytes);
    for (const chunk of decrypter.push(bytes)) {
      for (const content of frames.push(chunk)) {
        yield content;
        noteGarbage(content.length);
      }
      noteGarbage(chunk.length);
    }
  }
  for (const chunk of decrypter.finish()) yield* frames.push(chunk);
  frames.finish();
  requireSealed();
}

function readUpTo(file: OpenFile, buffer: Uint8Array): Uint8Array {
  return buffer.subarray(0, file.readAt(buffer, 0));
}
