/**
 * The doctor's looks at keys: two recipients, no identity where the backups are made, a signing key that is trusted, and
 * nothing secret that others can read.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { notifierFiles, secretFiles } from "../../core/config/named_paths.ts";
import { reasonOf } from "../../core/errors.ts";
import { formatMode } from "../../core/format.ts";
import { fingerprintOf } from "../../core/keys/openssh_key.ts";
import { shellQuote } from "../../core/shell.ts";
import { about, type Finding, remedyOf } from "../../core/status/finding.ts";
import { exists, lstatIfThere, readTextIfThere } from "../fs.ts";
import type { Host } from "../host.ts";
import { createEncrypter } from "../keys/age.ts";
import { readIdentities, recipientOf } from "../keys/identity.ts";
import { readSigningKey, UNTRUSTED_REMEDY, untrustedKey } from "../keys/signing_key.ts";
import type { SealsBySet } from "../status/hub_status.ts";

/** A file larger than this holds no identity file (bytes). */
const IDENTITY_BYTES_MAX = 64 * 1024;

/** That there are recipients, all in order, and more than one. */
export async function checkRecipients({ recipients }: Config): Promise<Finding[]> {
  const { ok, warn, fail } = about("Keys", "recipients");
  try {
    await createEncrypter(recipients);
  } catch (error) {
    return [fail("config", reasonOf(error), remedyOf(error))];
  }
  return [
    recipients.length >= 2 ? ok(`${recipients.length}`) : warn(
      "there is one only: with its identity every backup would be lost",
      "make a second identity, kept in another place: age-keygen, then `hapi-backup keys add age1...`",
    ),
  ];
}

/** Looks where it should not be for an identity that opens what is made, or what the local store still holds. */
export async function checkIdentities(
  host: Host,
  config: Config,
  seals: SealsBySet,
  candidates: readonly string[],
): Promise<Finding[]> {
  const recipients = new Set([
    ...config.recipients,
    ...[...seals.values()].flat().flatMap((seal) => seal.recipients),
  ]);
  const paths = [...config.identityFile === undefined ? [] : [config.identityFile], ...candidates];
  const found = new Set<string>();
  for (const path of paths) {
    try {
      const stat = lstatIfThere(host.fs, path);
      if (stat?.type !== "file" || stat.bytes > IDENTITY_BYTES_MAX) continue;
      const text = readTextIfThere(host.fs, path) ?? "";
      // An identity may stand between other lines, as in a mail or a note.
      const lines = text.match(/AGE-SECRET-KEY-(PQ-)?1[A-Z0-9]+/g) ?? [];
      for (const line of lines) {
        const recipient: string = await recipientOf(readIdentities(line)[0]!);
        if (recipients.has(recipient)) found.add(path);
      }
    } catch { /* Not one of ours, or not for us to read. */ }
  }
  const { ok, fail } = about("Keys", "no identity on the hub");
  if (found.size === 0) return [ok(`${paths.length} places looked at`)];
  const [opens, it] = found.size === 1 ? ["opens", "it"] : ["open", "each"];
  return [fail(
    "key",
    `${[...found].join(", ")} ${opens} the backups: whoever takes this machine can read them`,
    `move ${it} to two safe places off this machine (shred -u), and remove identityFile from the configuration`,
  )];
}

/** The key that signs seals, and that those who read them know it. */
export function checkSigning(host: Host, config: Config): Finding[] {
  const { ok, warn, fail } = about("Keys", "signing key");
  try {
    const key = readSigningKey(host, config.signingKeyFile);
    const untrusted = untrustedKey(config, key);
    return [
      untrusted === undefined ? ok(fingerprintOf(key.publicKey)) : fail("key", untrusted, UNTRUSTED_REMEDY),
    ];
  } catch (error) {
    if (/Permission denied/.test(reasonOf(error))) {
      return [warn(
        `${config.signingKeyFile} is not for this user: right where root keeps it for the system's units`,
        "if no unit has it by LoadCredential, let the user that makes the backups own it, mode 0600",
      )];
    }
    return [fail("key", reasonOf(error), remedyOf(error))];
  }
}

/** Files that only their owner may read. */
export function checkModes(host: Host, config: Config): Finding[] {
  const files = [
    config.signingKeyFile,
    ...config.destinations.flatMap(secretFiles),
    ...config.notify.flatMap(notifierFiles),
    config.stateFolder,
  ];
  const open = files.filter((path) => exists(host.fs, path) && (host.fs.stat(path).mode & 0o077) !== 0);
  const { ok, fail } = about("Keys", "file modes");
  if (open.length === 0) return [ok(`${files.length} private files and folders`)];
  return open.map((path) => {
    const mode = formatMode(host.fs.stat(path).mode);
    return fail("key", `${path} is open to others (mode ${mode})`, `chmod go= ${shellQuote(path)}`);
  });
}
