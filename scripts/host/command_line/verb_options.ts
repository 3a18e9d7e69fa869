/**
 * What the options of a verb come to: which configuration, sets, store and keys.
 *
 * @module
 */

import { textOf } from "../../core/command_line/option_flags.ts";
import { type Config, parseConfig } from "../../core/config/config.ts";
import { readableRoot } from "../../core/config/named_paths.ts";
import { setNamed } from "../../core/config/set_named.ts";
import { defined } from "../../core/defined.ts";
import { BackupError, ifPossible } from "../../core/errors.ts";
import type { SetName } from "../../core/names.ts";
import { exists } from "../fs.ts";
import type { Fs, Host } from "../host.ts";
import { readIdentityFile } from "../keys/identity_bytes.ts";
import type { KeyOptions } from "../keys/keys.ts";
import type { ChoiceJob } from "../restore/chosen_snapshot.ts";
import type { StoreOptions } from "../restore/store_option.ts";
import { makeScratch } from "../scratch.ts";
import { absolutePath, fileOf, numberOption, readConfig, type VerbContext } from "./cli.ts";

/** The sets that `--set` names. */
export function chosenSets(config: Config, { options }: VerbContext): SetName[] {
  const name = String(options.set);
  return name === "all" ? [...config.sets.keys()] : [setNamed(config, name).name];
}

/** Resolves links where there is something; a source that is missing is for its step to report. */
export const realPath = ({ host }: VerbContext) => (path: string): string =>
  ifPossible(() => host.fs.realPath(path)) ?? path;

/** What the sources name, and where that leads behind all links. */
export function realSources(context: VerbContext, config: Config): Record<string, string> {
  const roots = [...config.sets.values()].flatMap(({ sources }) => sources.map(readableRoot));
  return Object.fromEntries(roots.map((root) => [root, realPath(context)(root)]));
}

/**
 * The disks that the sources are on: a destination there is not off this machine. A source that cannot be looked at keeps
 * nothing from being shipped: the snapshot says so.
 */
export function sourceDevices(context: VerbContext, config: Config): number[] {
  const devices = Object.values(realSources(context, config))
    .flatMap((path) => ifPossible(() => context.host.fs.lstat(path))?.device ?? []);
  return [...new Set(devices)];
}

/** For steps that log to a file in it, and may write to that file only. */
export function makeStateFolder({ host }: VerbContext, { stateFolder }: Config): void {
  host.fs.mkdir(stateFolder, { recursive: true, mode: 0o700 });
}

/** The configuration. @throws {BackupError} (config) If there is none. */
export function requireConfig(context: VerbContext): Config {
  const config = readConfig(context);
  if (config) return config;
  throw new BackupError(`Cannot read configuration ${context.configFile}: there is no such file`, {
    kind: "config",
    hint: "`hapi-backup init` makes one; --config names another",
  });
}

/** A restore on a new machine has no configuration, only a store and an identity. */
export function configOrDefaults(context: VerbContext): Config {
  return readConfig(context) ?? parseConfig("{}", "(defaults)", context.around);
}

/** Which store is looked into, and how it is reached. */
export function storeOptions({ options, host }: VerbContext, config: Config): StoreOptions {
  const store = textOf(options.store);
  const destinations = config.destinations.map(({ name }) => name);
  const isPath = store !== undefined && !destinations.includes(store) && !/^[^/]+:/.test(store);
  const isName = isPath && destinations.length > 0 && !store.includes("/");
  if (isName && !exists(host.fs, absolutePath(store))) {
    const known = destinations.join(", ");
    throw new BackupError(`Cannot open store ${store}: no destination and no folder has that name`, {
      kind: "usage",
      hint: `destinations: ${known}; or name a folder, user@host:path, or rclone:remote:path`,
    });
  }
  const given = {
    store: isPath ? absolutePath(store).replace(/(?<=.)\/+$/, "") : store,
    hubName: textOf(options.hubName),
    sshKey: fileOf(options.sshKey),
    knownHosts: fileOf(options.knownHosts),
    port: options.port === undefined ? undefined : numberOption(options, "port"),
  };
  const scratch = fileOf(options.scratch) ?? `${config.stateFolder}/scratch`;
  return { ...defined(given), scratch };
}

/** What names and opens snapshots. */
export async function choiceOf(context: VerbContext, config: Config): Promise<ChoiceJob> {
  return {
    config,
    keys: await keyOptions(context, config),
    store: storeOptions(context, config),
    set: String(context.options.set),
  };
}

/** Runs a step with a scratch folder of its own, which is removed however it ends: it may be ended amid its work. */
export async function inScratch<Job extends ChoiceJob, Result>(
  { host }: VerbContext,
  job: Job,
  run: (job: Job) => Promise<Result>,
): Promise<Result> {
  using scratch = makeScratch(host, job.store.scratch);
  return await run({ ...job, store: { ...job.store, scratch: scratch.path } });
}

/** Where the identity comes from: a file, or standard input; a passphrase is asked for on the terminal. */
export async function keyOptions(
  { options, host, around }: VerbContext,
  config: Config,
): Promise<KeyOptions> {
  const given = textOf(options.identity);
  const signer = ((options.signer ?? []) as string[]).map((text) =>
    /^(ssh-|SHA256:)/.test(text) ? text : absolutePath(text.replace(/^~(?=\/)/, around.home))
  );
  const identityText = given === "-" ? await new Response(Deno.stdin.readable).text() : undefined;
  const identity = given === undefined || given === "-" ? undefined : absolutePath(given);
  const path = identity ?? config.identityFile;
  const read = identityText ?? (path === undefined ? "" : readIdentityText(host, path));
  const isEncrypted = /^(age-encryption\.org\/|-----BEGIN AGE)/.test(read);
  const passphrase = isEncrypted && Deno.stdin.isTerminal()
    ? await (await import("./questions.ts")).askSecret("Passphrase of the identity file")
    : undefined;
  // A pipe, such as the shell's <(pass show identity), can be read only once.
  const text = identityText ??
    (path !== undefined && read !== "" && !isFile(host.fs, path) ? read : undefined);
  return { ...defined({ identity, identityText: text, passphrase }), signer };
}

/** The path of `--hub`. @throws {BackupError} (usage) If that is no program: it says nothing of the snapshot. */
export function hubProgram({ host: { fs } }: VerbContext, given: string): string {
  const path = absolutePath(given);
  const stat = exists(fs, path) ? fs.lstat(fs.realPath(path)) : undefined;
  if (stat?.type === "file" && (stat.mode & 0o111) !== 0) return path;
  throw new BackupError(
    `Cannot start a hub from ${path}: ${
      stat === undefined ? "there is no such file" : "it is not a program that can be run"
    }`,
    { kind: "usage", hint: 'name it with its whole path, such as --hub "$(command -v hapi)"' },
  );
}

/** The text of an identity file, empty where there is none. @throws {BackupError} (key) */
function readIdentityText(host: Host, path: string): string {
  return exists(host.fs, path) ? new TextDecoder().decode(readIdentityFile(host, path)) : "";
}

const isFile = (fs: Fs, path: string): boolean =>
  ifPossible(() => fs.lstat(fs.realPath(path)).type) === "file";
