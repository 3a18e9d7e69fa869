/**
 * The bytes of an identity file, and nothing of what is in them: the command line may import it, and a step that has
 * another thread read them (see `identity_thread.ts`).
 *
 * @module
 */

import { concatBytes } from "../../core/bytes.ts";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { piecesOf } from "../file_bytes.ts";
import { isMissing } from "../fs.ts";
import type { Host } from "../host.ts";

/** How an age file starts that is armored, as text. */
export const ARMOR_START = "-----BEGIN AGE ENCRYPTED FILE-----";
/** The first line of an age file. */
export const VERSION_LINE = "age-encryption.org/v1\n";

/** Whether `bytes` are an age file, binary or armored, as `age -p` writes one around an identity file. */
export function isEncryptedIdentityFile(bytes: Uint8Array): boolean {
  const start = new TextDecoder().decode(bytes.subarray(0, 4096)).trimStart();
  return start.startsWith(VERSION_LINE) || start.startsWith(ARMOR_START);
}

/** Reads an identity file whole. @throws {BackupError} (key) */
export function readIdentityFile(host: Pick<Host, "fs">, path: string): Uint8Array {
  try {
    // Unlike any other file of ours it may be a pipe, into which a password manager writes.
    using file = host.fs.open(path, { read: true });
    return concatBytes(...Iterator.from(piecesOf(file)).map((piece) => piece.slice()));
  } catch (error) {
    throw new BackupError(
      `Cannot read identity file ${path}: ${
        isMissing(error)
          ? "there is none"
          : error instanceof Deno.errors.IsADirectory
          ? "it is a folder"
          : reasonOf(error)
      }`,
      {
        kind: "key",
        hint: "bring the identity file that you keep off the hub, and give --identity FILE",
      },
    );
  }
}
