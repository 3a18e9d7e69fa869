/**
 * The hub's signing key: an OpenSSH Ed25519 key file, read where seals are made and nowhere else.
 *
 * @module
 */

import { BackupError, reasonOf } from "../core/errors.ts";
import { parsePrivateKey, type SshPrivateKey } from "../core/openssh_key.ts";
import { shellQuote } from "../core/shell.ts";
import { isMissing } from "./fs.ts";
import type { Host } from "./host.ts";

/** Reads the signing key. @throws {BackupError} (key) If it is missing, unreadable, or not a plain Ed25519 key. */
export function readSigningKey({ fs, report }: Pick<Host, "fs" | "report">, path: string): SshPrivateKey {
  let text: string;
  try {
    if ((fs.stat(path).mode & 0o077) !== 0) {
      report.warn(`${path} can be read by others: chmod 600 ${shellQuote(path)}`);
    }
    text = new TextDecoder().decode(fs.readFile(path));
  } catch (error) {
    throw new BackupError(
      `Cannot read signing key ${path}: ${isMissing(error) ? "there is none" : reasonOf(error)}`,
      {
        kind: "key",
        hint: "make one with `ssh-keygen -t ed25519 -N '' -f FILE`, and name it as signingKeyFile",
      },
    );
  }
  try {
    return parsePrivateKey(text);
  } catch (error) {
    const hint = error instanceof BackupError ? error.hint : undefined;
    throw new BackupError(`Cannot use signing key ${path}: ${reasonOf(error)}`, {
      kind: "key",
      ...(hint ? { hint } : {}),
    });
  }
}
