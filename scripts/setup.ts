/**
 * Makes what a first run needs: a configuration, an age identity and a signing key, under the user's config folder.
 *
 * Sees that folder only.
 *
 * @module
 */

import { defaultConfigFile, hubNameFor, type Surroundings } from "./core/config.ts";
import { BackupError } from "./core/errors.ts";
import { ED25519_KEY_BYTES, formatPrivateKey, formatPublicKeyLine, publicKeyOf } from "./core/openssh_key.ts";
import { exists, parentOf, writeFileDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { generateIdentity } from "./host/identity.ts";
import { serveStep } from "./host/step.ts";

/** What was made. */
export interface SetupReport {
  readonly configFile: string;
  readonly identityFile: string;
  readonly recipient: string;
  /** The public key that seals are signed with, as in `authorized_keys`. */
  readonly signer: string;
}

/** Makes a configuration and keys where there are none. @throws {BackupError} (config) If any of the files exists. */
export async function setup(host: Host, around: Surroundings): Promise<SetupReport> {
  const { fs } = host;
  const configFile = defaultConfigFile(around);
  const folder = parentOf(configFile);
  const identityFile = `${folder}/identity.txt`;
  const signingKeyFile = `${folder}/signing_ed25519`;
  for (const path of [configFile, identityFile, signingKeyFile]) {
    if (!exists(fs, path)) continue;
    throw new BackupError(`Cannot set up in ${folder}: ${path} exists already`, {
      kind: "config",
      hint: "name your configuration with --config, or move that file away",
    });
  }
  fs.mkdir(folder, { recursive: true, mode: 0o700 });

  const hub = hubNameFor(around.hostname);
  const seed = crypto.getRandomValues(new Uint8Array(ED25519_KEY_BYTES));
  const checkInt = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const comment = `hapi-backup@${hub}`;
  const signer = formatPublicKeyLine(publicKeyOf(seed), comment);
  writeFileDurably(fs, signingKeyFile, formatPrivateKey(seed, comment, checkInt));
  writeFileDurably(fs, `${signingKeyFile}.pub`, signer + "\n", 0o644);

  const { identity, recipient } = await generateIdentity();
  writeFileDurably(fs, identityFile, identityText(hub, host.now(), recipient, signer, identity));
  writeFileDurably(fs, configFile, configText(hub, recipient, signer, identityFile, signingKeyFile));
  return { configFile, identityFile, recipient, signer };
}

/** An age identity file whose comments hold all else that a restore on a new machine needs to know. */
function identityText(hub: string, now: Date, recipient: string, signer: string, identity: string): string {
  return `# hapi-backup: opens every snapshot of the hub ${hub}. Made ${now.toISOString()}.
# Keep this file off the hub, in two places. Whoever has it can read the backups; without it nobody can.
# public key: ${recipient}
# signer: ${signer}
${identity}
`;
}

function configText(
  hub: string,
  recipient: string,
  signer: string,
  identityFile: string,
  signingKeyFile: string,
): string {
  return `// hapi-backup's configuration: \`hapi-backup config schema\` lists every key, \`config check\` reads it again.
{
  "hub": ${JSON.stringify(hub)},
  // Who can open the snapshots. Add a second recipient, whose identity is kept in another place.
  "recipients": [${JSON.stringify(recipient)}],
  // Move this file off the hub, then remove this line: the hub must not be able to read its own backups.
  "identityFile": ${JSON.stringify(identityFile)},
  "signingKeyFile": ${JSON.stringify(signingKeyFile)},
  "signers": [${JSON.stringify(signer)}],
  // Where snapshots are shipped to. Until there is one, nothing is off this machine. For example:
  // { "kind": "rsync", "target": "hub@storage:", "identityFile": "~/.ssh/hapi-backup", "knownHostsFile": "~/.ssh/known_hosts" }
  "destinations": []
}
`;
}

serveStep<Surroundings>(import.meta, (around, { host }) => setup(host, around));
