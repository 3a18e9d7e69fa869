/**
 * Where what opens snapshots gets the identity and the trusted signers from.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { BackupError } from "../../core/errors.ts";
import { parseTrust, type Trust } from "../../core/snapshot/trust.ts";
import { lstatIfThere } from "../fs.ts";
import type { Host } from "../host.ts";
import type { Identity } from "./identity.ts";
import { isEncryptedIdentityFile, readIdentityFile } from "./identity_bytes.ts";
import { openIdentityFile } from "./identity_thread.ts";

/** What a person may give on the command line. */
export interface KeyOptions {
  readonly identity?: string;
  /** The text of an identity file, where it was read from standard input, or from a pipe that `identity` names. */
  readonly identityText?: string;
  /** For an identity file that a passphrase protects. */
  readonly passphrase?: string;
  readonly signer?: readonly string[];
}

/** What opens snapshots, and whose seals count. */
export interface Keys {
  readonly identities: readonly Identity[];
  readonly trust: Trust;
  /** The signers that the identity file names, as public key lines. */
  readonly named: readonly string[];
}

/** Reads the identity and the signers. @throws {BackupError} (key) If there is none, or it cannot be used. */
export async function readKeys(
  host: Pick<Host, "fs" | "startThread">,
  config: Config,
  options: KeyOptions,
): Promise<Keys> {
  const path = options.identity ?? config.identityFile;
  let bytes: Uint8Array;
  if (options.identityText !== undefined) bytes = new TextEncoder().encode(options.identityText);
  else if (path === undefined) {
    throw new BackupError("Cannot open snapshots: no identity was given", {
      kind: "key",
      hint:
        "bring the identity file that you keep off the hub, and give --identity FILE (or - for standard input)",
    });
  } else bytes = readIdentityFile(host, path);
  const where = options.identity ?? (options.identityText === undefined ? path! : "on standard input");
  const isEncrypted = isEncryptedIdentityFile(bytes);
  if (isEncrypted && options.passphrase === undefined) {
    throw new BackupError(`Cannot use identity file ${where}: it needs its passphrase`, {
      kind: "key",
      hint: "run this on a terminal, or decrypt it first: age -d FILE | hapi-backup ... --identity -",
    });
  }
  const passphrase = isEncrypted ? options.passphrase : undefined;
  const { identities, signers } = await namingFile(
    where,
    () => openIdentityFile(host, { bytes, passphrase }),
  );
  const given = (options.signer ?? []).map((text) => signerText(host, text));
  return { identities, trust: parseTrust([...config.signers, ...signers, ...given]), named: signers };
}

/** Says of which file it is that it cannot be read: an operator may have several, and one that is meant for SSH. */
async function namingFile<T>(where: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    const { kind, hint } = error;
    const message = error.message.replace("identity file", `identity file ${where}`);
    throw new BackupError(message, { kind, hint, cause: error });
  }
}

/** A signer given as a file means what the file says. */
function signerText(host: Pick<Host, "fs">, text: string): string {
  if (!text.startsWith("/") || !lstatIfThere(host.fs, text)) return text;
  return new TextDecoder().decode(host.fs.readFile(text));
}
