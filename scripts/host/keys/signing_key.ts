/**
 * A signing key: an OpenSSH Ed25519 key file, read where seals (on the hub) or receipts (on the storage host) are
 * made and nowhere else.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { fingerprintOf, parsePrivateKey, type SshPrivateKey } from "../../core/keys/openssh_key.ts";
import { shellQuote } from "../../core/shell.ts";
import { parseTrust } from "../../core/snapshot/trust.ts";
import { isMissing } from "../fs.ts";
import type { Host } from "../host.ts";

/** The mode that systemd gives a credential where it lets the unit's user in by an ACL: it shows the ACL's mask. */
const CREDENTIAL_MODE = 0o440;

/**
 * Reads a signing key.
 *
 * @param named The configuration's key that names it.
 * @throws {BackupError} (key) If it is missing, unreadable, or not a plain Ed25519 key.
 */
export function readSigningKey(
  { fs, report }: Pick<Host, "fs" | "report">,
  path: string,
  named: "signingKeyFile" | "receiptKeyFile" = "signingKeyFile",
): SshPrivateKey {
  let text: string;
  try {
    const { mode, uid } = fs.stat(path);
    const isCredential = mode === CREDENTIAL_MODE && uid === 0;
    if ((mode & 0o077) !== 0 && !isCredential) {
      report.warn(`${path} can be read by others: chmod 600 ${shellQuote(path)}`);
    }
    text = new TextDecoder().decode(fs.readFile(path));
  } catch (error) {
    throw new BackupError(
      `Cannot read signing key ${path}: ${isMissing(error) ? "there is none" : reasonOf(error)}`,
      {
        kind: "key",
        hint: isMissing(error)
          ? `make one with \`ssh-keygen -t ed25519 -N '' -f ${
            shellQuote(path)
          }\`, or name another as ${named}`
          : `this user must be able to read it; ${named} names it`,
      },
    );
  }
  try {
    return parsePrivateKey(text);
  } catch (error) {
    const hint = error instanceof BackupError ? error.hint : undefined;
    throw new BackupError(`Cannot use signing key ${path}: ${reasonOf(error)}`, {
      kind: "key",
      hint,
    });
  }
}

/** What to do where the key that signs is not one of those that are trusted. */
export const UNTRUSTED_REMEDY = `have its public key in "signers", here and on the storage host`;

/** That the key that signs is not one of those that the configuration trusts; undefined if it is, or names none. */
export function untrustedKey(
  { signers, signingKeyFile }: Pick<Config, "signers" | "signingKeyFile">,
  { publicKey }: SshPrivateKey,
): string | undefined {
  try {
    if (signers.length === 0 || parseTrust(signers).has(fingerprintOf(publicKey))) return undefined;
  } catch (error) {
    return `"signers" cannot be read: ${reasonOf(error)}`;
  }
  return `${signingKeyFile} is not among "signers": verify and restore would not trust new snapshots`;
}
