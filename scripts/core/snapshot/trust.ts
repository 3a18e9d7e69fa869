/**
 * Whose seals count: Ed25519 public keys, known beforehand. A signature alone says only that somebody made it.
 *
 * @module
 */

import { BackupError } from "../errors.ts";
import { fingerprintOf, parseAllowedSigners, parsePublicKeyLine } from "../keys/openssh_key.ts";
import { SEAL_NAMESPACE } from "./seal.ts";

/** The keys whose signatures are accepted, by fingerprint (`SHA256:…`). */
export type Trust = ReadonlySet<string>;

/**
 * Reads signers as a person gives them: public key lines, `SHA256:…` fingerprints, or the text of an allowed_signers
 * file or a `.pub` file.
 *
 * @throws {BackupError} (key) If a text is none of these.
 */
export function parseTrust(texts: Iterable<string>): Trust {
  const trust = new Set<string>();
  for (const text of texts) {
    const trimmed = text.trim();
    if (/^SHA256:[A-Za-z0-9+/]{43}$/.test(trimmed)) trust.add(trimmed);
    else if (/^ssh-\S+ \S[^\n]*$/.test(trimmed)) {
      trust.add(fingerprintOf(parsePublicKeyLine(trimmed).publicKey));
    } else {
      for (const { publicKey, namespaces } of parseAllowedSigners(text)) {
        if (!namespaces || namespaces.includes(SEAL_NAMESPACE)) trust.add(fingerprintOf(publicKey));
      }
    }
  }
  return trust;
}

/** The signers named in the comments of an identity file that `hapi-backup` made: `# signer: ssh-ed25519 …`. */
export function signersIn(identityText: string): string[] {
  return identityText.split(/\r?\n/).flatMap((line) =>
    /^#\s*signer:\s*(ssh-ed25519 \S.*)$/.exec(line)?.[1]?.trim() ?? []
  );
}

/** @throws {BackupError} (key) If nobody's signature is known; (integrity) if this one is not among them. */
export function requireTrusted(trust: Trust, publicKey: Uint8Array, what: string): void {
  const fingerprint = fingerprintOf(publicKey);
  if (trust.has(fingerprint)) return;
  if (trust.size === 0) {
    throw new BackupError(
      `Cannot trust the seal of ${what}: no signer is known, and it is signed by ${fingerprint}`,
      {
        kind: "key",
        hint: `compare that fingerprint with your notes, then give --signer ${fingerprint}`,
      },
    );
  }
  throw new BackupError(
    `Cannot trust the seal of ${what}: it is signed by ${fingerprint}, which is none of the known signers`,
    {
      kind: "integrity",
      hint:
        "somebody else made it, or the hub got a new key: give --signer if you know that key, or choose another with --snapshot",
    },
  );
}
