/**
 * Makes what a hub needs to begin: an age identity, a signing key, an SSH key that ships, and a configuration.
 *
 * Keys that are there are taken, not made anew; no file is ever written over. Sees the folder of the configuration, and
 * the files that an identity is to be written to.
 *
 * @module
 */

import { defaultConfigFile, hubNameFor, parseConfig, type Surroundings } from "./core/config/config.ts";
import { appendInText } from "./core/config/config_edit.ts";
import { configText, type NewConfig } from "./core/config/config_text.ts";
import { BackupError, reasonOf } from "./core/errors.ts";
import { identityFileText, identitySheet, type KeptIdentity } from "./core/keys/identity_file.ts";
import {
  ED25519_KEY_BYTES,
  fingerprintOf,
  formatPrivateKey,
  formatPublicKeyLine,
  parsePublicKeyLine,
  publicKeyOf,
} from "./core/keys/openssh_key.ts";
import { parentOf } from "./core/paths.ts";
import { exists, writeFileDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { lockConfiguration } from "./host/init/config_file.ts";
import type { Extension, KeysMade, KeysWanted, SetupJob, SetupReport } from "./host/init/init_jobs.ts";
import { createEncrypter } from "./host/keys/age.ts";
import { generateIdentity, recipientOf } from "./host/keys/identity.ts";
import { readKeys } from "./host/keys/keys.ts";
import { readSigningKey } from "./host/keys/signing_key.ts";
import { serveStep } from "./host/steps/step.ts";

/** Makes a configuration and keys where there are none. @throws {BackupError} (config) If any of the files exists. */
async function firstRun(host: Host, around: Surroundings): Promise<SetupReport> {
  const configFile = defaultConfigFile(around);
  const folder = parentOf(configFile);
  const identityFile = `${folder}/identity.txt`;
  requireNothingAt(host, configFile, identityFile);
  // What no configuration could be used with, such as a HOME of two lines, is told before there are keys.
  parseConfig("{}", "(defaults)", around);
  const hub = hubNameFor(around.hostname);
  const keys = await makeKeys(host, { folder, hub, around, identityFile, places: [] });
  const { recipients, signers, signingKeyFile } = keys;
  writeFileDurably(
    host.fs,
    configFile,
    configText({ hub, recipients, signers, signingKeyFile, identityFile, destinations: [] }),
  );
  return { configFile, identityFile };
}

/** Makes the keys that are not there. @throws {BackupError} (config) If a file for the identity exists. */
async function makeKeys(host: Host, wanted: KeysWanted): Promise<KeysMade> {
  const { folder, hub, around, given, identityFile, sheetFile, others = [], places } = wanted;
  if (identityFile !== undefined && identityFile === sheetFile) {
    throw new BackupError(`Cannot write the identity and its sheet to one file, ${sheetFile}`, {
      kind: "usage",
      hint: "name two files: --identity-out and --sheet",
    });
  }
  requireNothingAt(host, ...[identityFile, sheetFile].filter((path) => path !== undefined));
  if (others.length > 0) await createEncrypter(others);
  host.fs.mkdir(folder, { recursive: true, mode: 0o700 });
  const signingKeyFile = `${folder}/signing_ed25519`;
  const signer = keyAt(host, signingKeyFile, `hapi-backup-signing@${hub}`);
  keyAt(host, `${folder}/ship_ed25519`, `hapi-backup@${hub}`);
  if (given) {
    const { identities, trust, named } = await readKeys(host, parseConfig("{}", "(defaults)", around), given);
    const own: string[] = await Promise.all(identities.map(recipientOf));
    const isNamed = trust.has(fingerprintOf(parsePublicKeyLine(signer).publicKey));
    return {
      signingKeyFile,
      signers: isNamed ? named : [signer, ...named],
      unnamed: isNamed ? undefined : signer,
      recipients: [...new Set([...own, ...others])],
      identityText: undefined,
    };
  }
  const { identity, recipient } = await generateIdentity();
  const kept: KeptIdentity = { hub, made: host.now().toISOString(), identity, recipient, signer, places };
  const identityText = identityFileText(kept);
  if (identityFile !== undefined) writeFileDurably(host.fs, identityFile, identityText);
  if (sheetFile !== undefined) writeFileDurably(host.fs, sheetFile, identitySheet(kept));
  return { signingKeyFile, signers: [signer], recipients: [recipient, ...others], identityText };
}

/** The public key of the Ed25519 key at `path`, which is made if there is none. */
function keyAt(host: Host, path: string, comment: string): string {
  if (exists(host.fs, path)) {
    const { publicKey, comment } = readSigningKey(host, path);
    return formatPublicKeyLine(publicKey, comment);
  }
  const seed = crypto.getRandomValues(new Uint8Array(ED25519_KEY_BYTES));
  const checkInt = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const line = formatPublicKeyLine(publicKeyOf(seed), comment);
  writeFileDurably(host.fs, path, formatPrivateKey(seed, comment, checkInt));
  writeFileDurably(host.fs, `${path}.pub`, line + "\n", 0o644);
  return line;
}

/** Writes a new configuration, after reading it back from its text. @throws {BackupError} (config) If there is one. */
function writeConfiguration(
  host: Host,
  configFile: string,
  config: NewConfig,
  around: Surroundings,
): void {
  requireNothingAt(host, configFile);
  const text = configText(config);
  parseConfig(text, configFile, around);
  writeFileDurably(host.fs, configFile, text);
}

/** Adds a destination to a configuration's text, and leaves all else in it, comments too, as it is. */
async function extendConfiguration(
  host: Host,
  { configFile, around, destination }: Extension,
): Promise<void> {
  using locked = await lockConfiguration(host, configFile);
  const text = appendInText(locked.text, "destinations", destination);
  const { hub } = parseConfig(text, configFile, around);
  if (destination.kind === "rsync") keyAt(host, destination.identityFile, `hapi-backup@${hub}`);
  locked.replace(text);
}

function requireNothingAt({ fs }: Host, ...paths: readonly string[]): void {
  for (const path of paths) {
    let isTaken: boolean;
    try {
      isTaken = exists(fs, path);
    } catch (error) {
      throw new BackupError(`Cannot write ${path}: ${reasonOf(error)}`, {
        kind: "config",
        hint: "name a file in a folder that you may write to",
      });
    }
    if (!isTaken) continue;
    throw new BackupError(`Cannot write ${path}: it exists already`, {
      kind: "config",
      hint: "nothing is written over: move it away, or name another file",
    });
  }
}

serveStep<SetupJob>(import.meta, async (job, { host }) => {
  switch (job.action) {
    case "first-run":
      return await firstRun(host, job.around);
    case "keys":
      return await makeKeys(host, job);
    case "configuration":
      return writeConfiguration(host, job.configFile, job.config, job.around);
    case "extend":
      return extendConfiguration(host, job);
  }
});
