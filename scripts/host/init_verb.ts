/**
 * `init` as the command line runs it: keys and configuration, the storage host, a first backup, and its proof.
 *
 * It says that all is set up only after a snapshot was restored with the identity that was handed over. Run again it
 * goes on where it stopped: what is there is kept, and nothing is made anew.
 *
 * @module
 */

import type { NewDestination } from "../core/config_text.ts";
import { type Config, type Destination, hubNameFor, type RsyncDestination } from "../core/config.ts";
import { BackupError } from "../core/errors.ts";
import { chooseHostKey, type HostKey, isPinned, OWN_FINGERPRINT } from "../core/host_keys.ts";
import { isHubName } from "../core/names.ts";
import { connectPermissions, setupPermissions } from "../core/permissions.ts";
import { parseRsyncTarget } from "../core/rsync_args.ts";
import { debianText, nixosText, STORAGE_STORE } from "../core/storage_text.ts";
import { absolutePath, numberOption, readConfig, type Verb, type VerbContext } from "./cli.ts";
import { findHubs, type FoundHub } from "./find_hub.ts";
import { lstatIfThere, parentOf, readTextIfThere } from "./fs.ts";
import type { KeyOptions } from "./keys.ts";
import type { Probed } from "./probe.ts";
import { askSecret, askText, askWhich, askYes, canAsk, showOnce } from "./questions.ts";
import { runStep } from "./step.ts";

/** What `init` needs of the verbs that it is made of. */
export interface InitParts {
  /** Gives the URL of a script. */
  readonly script: (name: string) => string;
  /** Backs the main set up and ships it. @throws {BackupError} If it is not good, or not off this machine. */
  readonly backup: (context: VerbContext, config: Config) => Promise<void>;
  /** Restores the newest snapshot into scratch. @throws {BackupError} (integrity) If that does not prove it. */
  readonly prove: (context: VerbContext, config: Config, keys: KeyOptions) => Promise<void>;
  /** Opens the identity that `--identity` names, with its passphrase. */
  readonly identity: (context: VerbContext) => Promise<KeyOptions>;
}

/** Characters of an identity that are asked for, so that it was not only looked at. */
const CONFIRM_LENGTH = 6;

/** @param parts The verbs and steps that it is made of. */
export function initVerb(parts: InitParts): Verb {
  return async (given) => {
    const context = { ...given, options: withPaths(given.options) };
    const asks = canAsk() && !context.json;
    const known = readConfig({ ...context, options: {} });
    const identity = known ? undefined : await begin(context, parts, asks);
    if (known) await goOn(context, parts, known);
    const config = readConfig(context)!;
    const stores = config.destinations.filter((destination) => destination.kind === "rsync");
    for (const destination of stores) await connect(context, parts, config, destination, asks);
    const quiet = { ...context, json: false, terminal: { ...context.terminal, print: say(context) } };
    const unshipped = await backUp(parts, quiet, config);
    // With something there to overwrite, that is tried too.
    for (const destination of stores) await requireAppendOnly(context, parts, config, destination);
    await parts.prove(quiet, config, identity ?? await bringIdentity(context, parts, config, asks));
    finish(context, config);
    if (unshipped) throw unshipped;
  };
}

/** @returns What is wrong where there is no destination: the rest can be proven all the same. */
async function backUp(
  parts: InitParts,
  context: VerbContext,
  config: Config,
): Promise<BackupError | undefined> {
  try {
    await parts.backup(context, config);
  } catch (error) {
    const isLocal = config.destinations.length === 0;
    if (isLocal && error instanceof BackupError && error.kind === "unshipped") return error;
    throw error;
  }
}

/** Words of the set-up: with `--json`, standard output is for the result alone. */
const say = ({ json, terminal }: VerbContext) => json ? terminal.info : terminal.print;

const text = ({ options }: Pick<VerbContext, "options">, name: string): string | undefined =>
  typeof options[name] === "string" ? options[name] : undefined;

function withPaths(options: VerbContext["options"]): VerbContext["options"] {
  const paths = ["identityOut", "sheet", "folder", "hapiHome"].flatMap((name) => {
    const value = options[name];
    return typeof value === "string" && value !== "-" ? [[name, absolutePath(value)] as const] : [];
  });
  return { ...options, ...Object.fromEntries(paths) };
}

/** Where there is no configuration: asks, makes keys, hands the identity over, and writes the configuration. */
async function begin(context: VerbContext, parts: InitParts, asks: boolean): Promise<KeyOptions> {
  const { around, terminal, configFile } = context;
  const name = text(context, "hubName") ?? hubNameFor(around.hostname);
  if (!isHubName(name)) {
    throw usage(`Cannot use --hub-name ${name}: it has other than lower-case letters, digits and dashes`);
  }
  const found = await whichHub(context, asks);
  const folder = parentOf(configFile);
  const destination = await whichDestination(context, name, asks);
  const others = await whichOthers(context, asks);
  const given = text(context, "identity") === undefined ? undefined : await parts.identity(context);
  const files = given ? {} : await whereTo(context, asks);
  const wanted = {
    action: "keys",
    folder,
    hub: name,
    around,
    others,
    places: placesOf(context, name, destination),
    ...(given ? { given } : files),
  };
  const permissions = setupPermissions(folder, [files.identityFile, files.sheetFile], given?.identity);
  const setup = <T>(job: unknown) => runStep<T>(parts.script("setup"), job, permissions, terminal);
  const keys = await setup<KeysMade>(wanted);
  if (keys.identityText !== undefined) await handOver(context, keys.identityText, files, asks);
  const { recipients, signer, signingKeyFile } = keys;
  const config = {
    hub: name,
    recipients,
    signer,
    signingKeyFile,
    ...unusualPlaces(context, found),
    destinations: destination ? [destination] : [],
  };
  await setup({ action: "configuration", configFile, config, around });
  say(context)(`made ${configFile}, a signing key and a key that ships, in ${folder}`);
  return given ?? { identityText: keys.identityText!, signer: [] };
}

/** What the setup step answers. */
interface KeysMade {
  readonly signingKeyFile: string;
  readonly signer: string;
  readonly recipients: readonly string[];
  readonly identityText: string | undefined;
}

async function whichHub(context: VerbContext, asks: boolean): Promise<FoundHub> {
  const home = text(context, "hapiHome");
  const found = findHubs(context.host, {
    ...context.around,
    env: home === undefined ? context.around.env : { HAPI_HOME: home },
  });
  const [first] = found;
  if (first && (found.length === 1 || !asks || home !== undefined)) {
    say(context)(`the hub: ${first.database} (by ${first.by})`);
    if (found.length > 1 && home === undefined) {
      const more = found.slice(1).map(({ database }) => database).join(", ");
      context.terminal.warn(`there is also ${more}; --hapi-home says which is meant`);
    }
    return first;
  }
  if (first) {
    const database = await askWhich("Which hub is to be backed up?", found.map(({ database }) => database));
    return found.find((each) => each.database === database)!;
  }
  if (!asks || home !== undefined) {
    throw new BackupError(
      `Cannot find the hub: there is no ${home ?? `${context.around.home}/.hapi`}/hapi.db`,
      {
        kind: "source",
        hint: "say where it lives with --hapi-home FOLDER, and run this as the user that runs it",
      },
    );
  }
  const isThere = (folder: string) => lstatIfThere(context.host.fs, `${folder}/hapi.db`) !== undefined;
  const answer = await askText("No hub was found. Which folder holds its hapi.db?", {
    validate: (folder) =>
      folder.startsWith("/") && isThere(folder) ? undefined : "There is no hapi.db in it.",
  });
  return { hapiHome: answer, database: `${answer}/hapi.db`, by: "your answer" };
}

/** What the configuration must say of the hub, so that a timer, whose environment is another, finds it too. */
function unusualPlaces({ around }: VerbContext, { hapiHome, database }: FoundHub) {
  return {
    ...(hapiHome === `${around.home}/.hapi` ? {} : { hapiHome }),
    ...(database === `${hapiHome}/hapi.db` ? {} : { database }),
  };
}

async function whichDestination(
  context: VerbContext,
  hub: string,
  asks: boolean,
): Promise<NewDestination | undefined> {
  const { options } = context;
  const given = destinationGiven(context, hub);
  if (given || options.localOnly === true) return given;
  if (!asks) {
    throw usage("Cannot set up: say where backups go, with --storage, --folder or --local-only");
  }
  const isTarget = (answer: string) => {
    try {
      if (answer !== "") parseRsyncTarget(targetOf(answer, hub));
      return undefined;
    } catch {
      return "Write a name such as storage, or user@storage, or user@storage:folder.";
    }
  };
  const storage = await askText("Which host stores the backups, by SSH? (its name; empty: none yet)", {
    validate: isTarget,
  });
  if (storage === "") return undefined;
  const port = await askText("Its SSH port", {
    initial: "22",
    validate: (answer) => /^\d{1,5}$/.test(answer) ? undefined : "A number, please.",
  });
  return rsyncTo(context, targetOf(storage, hub), Number(port));
}

function destinationGiven(context: VerbContext, hub: string): NewDestination | undefined {
  const storage = text(context, "storage");
  const folder = text(context, "folder");
  if (storage !== undefined) {
    return rsyncTo(context, targetOf(storage, hub), numberOption(context.options, "port"));
  }
  return folder === undefined ? undefined : { kind: "folder", name: "folder", path: folder };
}

/** `storage` is `hapi-<hub>@storage:`, the user that `storage authorize` and the NixOS module make there. */
function targetOf(storage: string, hub: string): string {
  const named = storage.includes("@") ? storage : `hapi-${hub}@${storage}`;
  const target = /@(\[[^\]]*\]|[^:[\]]*)$/.test(named) ? `${named}:` : named;
  parseRsyncTarget(target);
  return target;
}

function rsyncTo({ configFile }: VerbContext, target: string, port: number): NewDestination {
  const folder = parentOf(configFile);
  return {
    kind: "rsync",
    name: "storage",
    target,
    port,
    identityFile: `${folder}/ship_ed25519`,
    knownHostsFile: `${folder}/known_hosts`,
  };
}

function placesOf(context: VerbContext, hub: string, destination: NewDestination | undefined): string[] {
  switch (destination?.kind) {
    case undefined:
      return [];
    case "folder":
      return [`${destination.path}/${hub}`];
    case "rsync": {
      const { target, port } = destination;
      return [`${target} port ${port}, there in ${storageStore(context)}/${hub}`];
    }
  }
}

const storageStore = (context: VerbContext): string => text(context, "storageStore") ?? STORAGE_STORE;

async function whichOthers({ options }: VerbContext, asks: boolean): Promise<string[]> {
  if (Array.isArray(options.recipient)) return options.recipient as string[];
  if (!asks) return [];
  const answer = await askText(
    "Public key of a second identity, kept in a second place (age1…; empty: later, by `keys add`)",
    { validate: (answer) => /^(age1[a-z0-9]+)?$/.test(answer) ? undefined : "It starts with age1." },
  );
  return answer === "" ? [] : [answer];
}

interface IdentityFiles {
  readonly identityFile?: string;
  readonly sheetFile?: string;
}

async function whereTo(context: VerbContext, asks: boolean): Promise<IdentityFiles> {
  const out = text(context, "identityOut");
  const sheet = text(context, "sheet");
  if (out === undefined && sheet === undefined) {
    if (!asks) {
      throw usage(
        "Cannot set up: say where the new identity goes, with --identity-out FILE (or -) or --sheet FILE",
      );
    }
    const file = await askText(
      "Write the identity to which file, such as on a stick? (empty: show it here once)",
    );
    const paper = await askText("Write a sheet to print (HTML) to which file? (empty: none)");
    return {
      ...(file === "" ? {} : { identityFile: absolutePath(file) }),
      ...(paper === "" ? {} : { sheetFile: absolutePath(paper) }),
    };
  }
  if (out === "-" && context.json) throw usage("Cannot print the identity: standard output is for --json");
  return {
    ...(out === undefined || out === "-" ? {} : { identityFile: out }),
    ...(sheet === undefined ? {} : { sheetFile: sheet }),
  };
}

/** Gives the identity to the person. Nothing of it stays here but what was asked for. */
async function handOver(context: VerbContext, identityText: string, files: IdentityFiles, asks: boolean) {
  const { identityFile, sheetFile } = files;
  if (text(context, "identityOut") === "-") context.terminal.print(identityText);
  else if (identityFile === undefined && sheetFile === undefined && asks) {
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
    say(context)(`the new identity is in ${written.join(" and ")}: keep it off this machine`);
  }
}

/** Where there is a configuration: keeps it, and adds the destination that is asked for. */
async function goOn(context: VerbContext, parts: InitParts, config: Config): Promise<void> {
  const { around, configFile, terminal } = context;
  say(context)(`${configFile} is there, and stays as it is`);
  const wanted = destinationGiven(context, config.hub);
  if (!wanted || config.destinations.some((destination) => isSame(destination, wanted))) return;
  if (config.destinations.some(({ name }) => name === wanted.name)) {
    throw new BackupError(`Cannot add a destination: there is another one named ${wanted.name}`, {
      kind: "config",
      hint: `add it to "destinations" in ${configFile}, with a name of its own`,
    });
  }
  const folder = parentOf(configFile);
  const job = { action: "extend", configFile, around, destination: wanted };
  await runStep(parts.script("setup"), job, setupPermissions(folder, [], undefined), terminal);
  say(context)(`added the destination ${wanted.name}`);
}

function isSame(destination: Destination, wanted: NewDestination): boolean {
  if (destination.kind === "rsync" && wanted.kind === "rsync") {
    return destination.target === wanted.target && destination.port === wanted.port;
  }
  return destination.kind === "folder" && wanted.kind === "folder" && destination.path === wanted.path;
}

/** Pins the storage host's key and tries ours, until it is let in or the person gives up. */
async function connect(
  context: VerbContext,
  parts: InitParts,
  config: Config,
  destination: RsyncDestination,
  asks: boolean,
): Promise<void> {
  for (let isSaid = false;; isSaid = true) {
    try {
      await pin(context, parts, config, destination, asks);
      return await requireAppendOnly(context, parts, config, destination);
    } catch (error) {
      if (!(error instanceof NotLetIn)) throw error;
      if (!isSaid) say(context)(whatToPaste(context, config, destination));
      context.terminal.warn(error.message);
      if (asks && await askYes("Done there? Try again")) continue;
      throw new BackupError(error.message, {
        kind: error.kind,
        hint:
          "prepare the storage host as said above, then run `hapi-backup init` again: it goes on from here",
      });
    }
  }
}

/** The storage host cannot be reached, or knows nothing of this hub's key yet. */
class NotLetIn extends BackupError {}

function connectStep<T>(
  { terminal }: VerbContext,
  parts: InitParts,
  config: Config,
  job: ConnectWish,
): Promise<T> {
  const permissions = connectPermissions(config, job.destination);
  return runStep<T>(parts.script("connect"), { ...job, config }, permissions, terminal);
}

interface ConnectWish {
  readonly action: "scan" | "pin" | "probe";
  readonly destination: RsyncDestination;
  readonly key?: HostKey;
}

async function pin(
  context: VerbContext,
  parts: InitParts,
  config: Config,
  destination: RsyncDestination,
  asks: boolean,
): Promise<void> {
  const { host } = parseRsyncTarget(destination.target);
  const where = `${host} port ${destination.port}`;
  const pinned = readTextIfThere(context.host.fs, destination.knownHostsFile) ?? "";
  if (isPinned(pinned, host, destination.port)) return;
  let keys: HostKey[];
  try {
    keys = await connectStep(context, parts, config, { action: "scan", destination });
  } catch (error) {
    if (error instanceof BackupError && error.kind === "network") {
      throw new NotLetIn(error.message, { kind: error.kind });
    }
    throw error;
  }
  const wanted = text(context, "hostKey");
  const key = wanted === undefined ? keys[0]! : chooseHostKey(keys, wanted, where);
  const shown = `${key.fingerprint} (${key.type.replace(/^ssh-/, "")})`;
  if (wanted === undefined) {
    if (!asks) {
      throw new BackupError(`Cannot trust ${where} unseen: it shows the host key ${shown}`, {
        kind: "key",
        hint: `compare it ${OWN_FINGERPRINT}; then run this again with --host-key ${key.fingerprint}`,
      });
    }
    say(context)(`${where} shows the host key\n  ${shown}\ncompare it ${OWN_FINGERPRINT}`);
    if (!await askYes("Is it the same?")) {
      throw new BackupError(`Cannot go on: the host key of ${where} is in doubt`, {
        kind: "key",
        hint: "somebody may be in between; nothing was sent",
      });
    }
  }
  await connectStep(context, parts, config, { action: "pin", destination, key });
  say(context)(`pinned the host key of ${where}: ${shown}`);
}

/** Tries what the key may do there. @throws {NotLetIn} @throws {BackupError} (key) If it may do more than add. */
async function requireAppendOnly(
  context: VerbContext,
  parts: InitParts,
  config: Config,
  destination: RsyncDestination,
): Promise<void> {
  const probed = await connectStep<Probed[]>(context, parts, config, { action: "probe", destination });
  const [reached] = probed;
  if (reached?.ok === false) {
    const { detail, kind = "network", remedy } = reached;
    const options = { kind, ...(remedy ? { hint: remedy } : {}) };
    // Another host key than the pinned one is nothing that pasting would mend.
    throw /host key/.test(detail) ? new BackupError(detail, options) : new NotLetIn(detail, options);
  }
  say(context)(
    probed.map(({ ok, name, detail }) => `  ${ok ? "ok  " : "FAIL"}  ${name}: ${detail}`).join("\n"),
  );
  const bad = probed.find(({ ok }) => ok !== true);
  if (!bad) return;
  throw new BackupError(`Cannot rely on ${destination.name} to be append-only: ${bad.name}: ${bad.detail}`, {
    kind: "key",
    ...(bad.remedy ? { hint: bad.remedy } : {}),
  });
}

function whatToPaste(context: VerbContext, config: Config, destination: RsyncDestination): string {
  const publicKey = (path: string) => readTextIfThere(context.host.fs, `${path}.pub`)?.trim();
  const hub = {
    hub: config.hub,
    user: parseRsyncTarget(destination.target).user,
    writeKey: publicKey(destination.identityFile) ?? "",
    signer: config.signers[0] ?? publicKey(config.signingKeyFile) ?? "",
    store: storageStore(context),
  };
  return [
    "--- On the storage host, if it runs NixOS (module services.hapi-backup-storage):",
    nixosText(hub),
    "--- On the storage host, if it runs Debian or the like (hapi-backup scrubs and retains there):",
    debianText(hub),
    "---",
  ].join("\n");
}

/** The identity that was handed over in an earlier run: that it can be brought is part of the proof. */
async function bringIdentity(
  context: VerbContext,
  parts: InitParts,
  config: Config,
  asks: boolean,
): Promise<KeyOptions> {
  if (text(context, "identity") !== undefined || config.identityFile !== undefined || !asks) {
    return await parts.identity(context);
  }
  const answer = (await askSecret("Prove it: paste the identity (AGE-SECRET-KEY-…), or the path of its file"))
    .trim();
  if (answer.startsWith("AGE-SECRET-KEY-")) return { identityText: answer, signer: [] };
  return await parts.identity({ ...context, options: { ...context.options, identity: answer } });
}

function finish(context: VerbContext, config: Config): void {
  const { terminal, json, configFile } = context;
  const where = config.destinations.map(({ name }) => name).join(", ");
  if (config.identityFile !== undefined) {
    terminal.warn(
      `MOVE ${config.identityFile} OFF THIS MACHINE, and remove "identityFile" from ${configFile}`,
    );
  }
  const files = [text(context, "identityOut"), text(context, "sheet")].filter((path) =>
    path?.startsWith("/")
  );
  if (files.length > 0) {
    terminal.warn(`if it is on this machine still: move ${files.join(" and ")} off it now`);
  }
  if (json) {
    const { hub, recipients, destinations } = config;
    return terminal.print(JSON.stringify({
      ok: config.destinations.length > 0,
      configFile,
      hub,
      recipients,
      destinations: destinations.map(({ name }) => name),
      proven: true,
    }));
  }
  terminal.print([
    `set up: ${config.hub} is backed up${
      where === "" ? "" : `, is on ${where}`
    }, and was restored with the identity`,
    ...where === ""
      ? ["NOTHING IS OFF THIS MACHINE: hapi-backup init --storage user@host: adds a storage host"]
      : [],
    ...config.recipients.length > 1 ? [] : ["for a second place: hapi-backup keys add age1..."],
    "twice a day by itself: hapi-backup systemd --user --to ~/.config/systemd/user (or the NixOS module)",
    'to be told when it fails: "notify" in the configuration; all checks: hapi-backup doctor',
  ].join("\n"));
}

const usage = (message: string): BackupError =>
  new BackupError(message, { kind: "usage", hint: "`hapi-backup init --help` lists what can be said" });
