/**
 * Reads the bytes of an identity file, and knows nothing of what is in them: the command line may import it.
 *
 * @module
 */

import { concatBytes } from "../../core/bytes.ts";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { piecesOf } from "../file_bytes.ts";
import { isMissing } from "../fs.ts";
import type { Host } from "../host.ts";

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
