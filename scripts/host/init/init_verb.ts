/**
 * `init` as the command line runs it: keys and configuration, the storage host, a first backup, and its proof.
 *
 * It says that all is set up only after a snapshot was restored with the identity that was handed over. Run again it
 * goes on where it stopped: what is there is kept, and nothing is made anew.
 *
 * @module
 */

import { textOf } from "../../core/command_line/option_flags.ts";
import { type Config, type Destination, hubNameFor } from "../../core/config/config.ts";
import type { NewDestination } from "../../core/config/config_text.ts";
import { BackupError, outcome } from "../../core/errors.ts";
import { isHubName, type SetName } from "../../core/names.ts";
import { parentOf } from "../../core/paths.ts";
import { setupPermissions } from "../../core/sandbox/permissions.ts";
import { backUp } from "../command_line/backup_verbs.ts";
import { absolutePath, readConfig, type Verb, type VerbContext } from "../command_line/cli.ts";
import { askSecret, askText, canAsk, showOnce } from "../command_line/questions.ts";
import { prove } from "../command_line/restore_verbs.ts";
import { configOrDefaults, keyOptions, realPath } from "../command_line/verb_options.ts";
import type { KeyOptions } from "../keys/keys.ts";
import { runStep, script } from "../steps/step.ts";
import { unitsCommand } from "../systemd/systemd.ts";
import type { FoundHub } from "./find_hub.ts";
import {
  destinationGiven,
  type IdentityFiles,
  type InitContext,
  placesOf,
  usage,
  whereTo,
  whichDestination,
  whichHub,
  whichOthers,
} from "./init_answers.ts";
import { connect, requireAppendOnly } from "./init_connection.ts";
import type { KeysMade, SetupJob } from "./init_jobs.ts";

/** Characters of an identity that are asked for, so that it was not only looked at. */
const CONFIRM_LENGTH = 6;

/** `init`: begins, or goes on where it stopped. @throws {BackupError} (unshipped) If nothing is off this machine. */
export const init: Verb = async (given) => {
  const context: InitContext = {
    ...given,
    options: withPaths(given.options),
    asks: canAsk() && !given.json,
    say: given.json ? given.terminal.info : given.terminal.result,
  };
  const known = readConfig({ ...context, options: {} });
  const identity = known ? undefined : await begin(context);
  if (known) await goOn(context, known);
  const config = readConfig(context)!;
  const stores = config.destinations.filter((destination) => destination.kind === "rsync");
  for (const destination of stores) await connect(context, config, destination);
  // What the verbs print are words of the set-up here.
  const within = { ...context, json: false, terminal: { ...context.terminal, result: context.say } };
  const unshipped = await backUpFirst(within, config);
  // With something there to overwrite, that is tried too.
  for (const destination of stores) await requireAppendOnly(context, config, destination);
  const keys = identity ?? await bringIdentity(context, config);
  const store = { scratch: `${config.stateFolder}/scratch` };
  await prove(within, { config, keys, store, set: firstSetOf(config), which: "latest" });
  finish(context, config, unshipped);
  if (unshipped) throw unshipped;
};

/** @returns What is wrong where nothing is off this machine by choice: the rest can be proven all the same. */
async function backUpFirst(context: VerbContext, config: Config): Promise<BackupError | undefined> {
  try {
    await backUp({ ...context, options: { ...context.options, wait: "0" } }, config, [firstSetOf(config)]);
  } catch (error) {
    // A folder may be on the machine's own disk, or on one that is not mounted just now.
    const isLocal = config.destinations.every(({ kind }) => kind === "folder");
    if (isLocal && error instanceof BackupError && error.kind === "unshipped") return error;
    throw error;
  }
}

/** The set that the set-up backs up, and restores as proof. */
const firstSetOf = ({ sets }: Config): SetName => [...sets.keys()][0]!;

/** What `--identity` names, with its passphrase. */
const identityGiven = (context: VerbContext): Promise<KeyOptions> =>
  keyOptions(context, configOrDefaults(context));

function withPaths(options: VerbContext["options"]): VerbContext["options"] {
  const paths = ["identityOut", "sheet", "folder", "hapiHome"].flatMap((name) => {
    const value = options[name];
    return typeof value === "string" && value !== "-" ? [[name, absolutePath(value)] as const] : [];
  });
  return { ...options, ...Object.fromEntries(paths) };
}

/** Where there is no configuration: asks, makes keys, hands the identity over, and writes the configuration. */
async function begin(context: InitContext): Promise<KeyOptions> {
  const { around, terminal, configFile } = context;
  const name = textOf(context.options.hubName) ?? hubNameFor(around.hostname);
  if (!isHubName(name)) {
    throw usage(`Cannot use --hub-name ${name}: it has other than lower-case letters, digits and dashes`);
  }
  const found = await whichHub(context);
  const folder = parentOf(configFile);
  const destination = await whichDestination(context, name);
  const others = await whichOthers(context);
  const given = textOf(context.options.identity) === undefined ? undefined : await identityGiven(context);
  const files: IdentityFiles = given ? {} : await whereTo(context);
  const wanted: SetupJob = {
    action: "keys",
    folder,
    hub: name,
    around,
    others,
    places: placesOf(context, name, destination),
    given,
    ...files,
  };
  const permissions = setupPermissions(folder, [files.identityFile, files.sheetFile], given?.identity);
  const setup = <T>(job: SetupJob) => runStep<T>(script("setup"), job, permissions, terminal);
  const keys = await setup<KeysMade>(wanted);
  if (keys.identityText !== undefined) await handOver(context, keys.identityText, files);
  const { recipients, signers, signingKeyFile, unnamed } = keys;
  const config = {
    hub: name,
    recipients,
    signers,
    signingKeyFile,
    ...unusualPlaces(context, found),
    destinations: destination ? [destination] : [],
  };
  await setup({ action: "configuration", configFile, config, around });
  context.say(`made ${configFile}, a signing key and a key that ships, in ${folder}`);
  if (unnamed !== undefined) {
    context.say(
      `add this line to the identity file, wherever it is kept: restores trust what the key in it signed\n# signer: ${unnamed}`,
    );
  }
  return given ?? { identityText: keys.identityText!, signer: [] };
}

/** What the configuration must say of the hub, so that a timer, whose environment is another, finds it too. */
function unusualPlaces({ around }: VerbContext, { hapiHome, database }: FoundHub) {
  return {
    hapiHome: hapiHome === `${around.home}/.hapi` ? undefined : hapiHome,
    database: database === `${hapiHome}/hapi.db` ? undefined : database,
  };
}

/** Gives the identity to the person. Nothing of it stays here but what was asked for. */
async function handOver(context: InitContext, identityText: string, files: IdentityFiles) {
  const { identityFile, sheetFile } = files;
  if (textOf(context.options.identityOut) === "-") context.terminal.print(identityText);
  else if (identityFile === undefined && sheetFile === undefined && context.asks) {
    const end = identityText.trim().slice(-CONFIRM_LENGTH);
    const words =
      "This is the new identity, shown this once. It opens every backup; without it nobody can.\n" +
      "Save all of it off this machine, in two places, such as a password manager and paper:";
    await showOnce(
      `${words}\n\n${identityText}`,
      () =>
        askText(`Saved? Type its last ${CONFIRM_LENGTH} characters, from where you saved it`, {
          validate: (answer) =>
            answer.toUpperCase() === end ? undefined : "Those are not its last characters.",
        }),
    );
  }
  const written = [identityFile, sheetFile].filter((path) => path !== undefined);
  if (written.length > 0) {
    context.say(`the new identity is in ${written.join(" and ")}: keep it off this machine`);
  }
}

/** Where there is a configuration: keeps it, and adds the destination that is asked for. */
async function goOn(context: InitContext, config: Config): Promise<void> {
  const { around, configFile, terminal } = context;
  context.say(`${configFile} is there, and stays as it is`);
  const wanted = config.destinations.length === 0 && context.asks
    ? await whichDestination(context, config.hub)
    : destinationGiven(context, config.hub);
  if (!wanted || config.destinations.some((destination) => isSame(destination, wanted))) return;
  if (config.destinations.some(({ name }) => name === wanted.name)) {
    throw new BackupError(`Cannot add a destination: there is another one named ${wanted.name}`, {
      kind: "config",
      hint: `correct that one in ${configFile}, or add yours to "destinations" there, with a name of its own`,
    });
  }
  const folder = parentOf(configFile);
  const file = realPath(context)(configFile);
  const job: SetupJob = { action: "extend", configFile: file, around, destination: wanted };
  await runStep(script("setup"), job, setupPermissions(folder, [file], undefined), terminal);
  context.say(`added the destination ${wanted.name}`);
}

function isSame(destination: Destination, wanted: NewDestination): boolean {
  if (destination.kind === "rsync" && wanted.kind === "rsync") {
    return destination.target === wanted.target && destination.port === wanted.port;
  }
  return destination.kind === "folder" && wanted.kind === "folder" && destination.path === wanted.path;
}

/** The identity that was handed over in an earlier run: that it can be brought is part of the proof. */
async function bringIdentity(context: InitContext, config: Config): Promise<KeyOptions> {
  if (textOf(context.options.identity) !== undefined || config.identityFile !== undefined || !context.asks) {
    return await identityGiven(context);
  }
  const answer = (await askSecret("Prove it: paste the identity (AGE-SECRET-KEY-…), or the path of its file"))
    .trim();
  if (answer.startsWith("AGE-SECRET-KEY-")) return { identityText: answer, signer: [] };
  return await identityGiven({ ...context, options: { ...context.options, identity: answer } });
}

/** @param error What is wrong all the same. */
function finish(context: InitContext, config: Config, error: BackupError | undefined): void {
  const { terminal, json, configFile } = context;
  const where = config.destinations.map(({ name }) => name).join(", ");
  if (config.identityFile !== undefined) {
    terminal.warn(
      `MOVE ${config.identityFile} OFF THIS MACHINE, and remove "identityFile" from ${configFile}`,
    );
  }
  const files = [textOf(context.options.identityOut), textOf(context.options.sheet)].filter((path) =>
    path?.startsWith("/")
  );
  if (files.length > 0) {
    terminal.warn(`if it is on this machine still: move ${files.join(" and ")} off it now`);
  }
  if (json) {
    const { hub, recipients, destinations } = config;
    return terminal.result(JSON.stringify({
      ...outcome(error),
      configFile,
      hub,
      recipients,
      destinations: destinations.map(({ name }) => name),
      proven: true,
    }));
  }
  terminal.result([
    `set up: ${config.hub} is backed up${
      where === "" || error ? "" : `, is on ${where}`
    }, and was restored with the identity`,
    ...where === "" || error
      ? ["NOTHING IS OFF THIS MACHINE: hapi-backup init --storage user@host: adds a storage host"]
      : [],
    ...config.destinations.filter(({ kind }) => kind === "rsync").map(({ name }) =>
      `to restore from ${name} once this machine is lost: a key that may only read, made and kept where the ` +
      "identity is, and let in there (storage authorize --read-key, or readKey of the NixOS module)"
    ),
    ...config.recipients.length > 1 ? [] : ["for a second place: hapi-backup keys add age1..."],
    ...config.sets.size > 1
      ? ["the other sets, without waiting for their timers: hapi-backup backup --set all"]
      : [],
    `by itself, twice a day and before the hub starts: ${unitsCommand(config)} (or the NixOS module)`,
    'to be told when it fails: "notify" in the configuration; all checks: hapi-backup doctor',
  ].join("\n"));
}
