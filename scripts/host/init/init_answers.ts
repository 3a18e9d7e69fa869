/**
 * What `init` has to be told: by options, or on a terminal by answers.
 *
 * @module
 */

import { textOf } from "../../core/command_line/option_flags.ts";
import type { NewDestination } from "../../core/config/config_text.ts";
import { BackupError, problemOf } from "../../core/errors.ts";
import { parentOf } from "../../core/paths.ts";
import { parseRsyncTarget } from "../../core/shipping/rsync_args.ts";
import { STORAGE_STORE } from "../../core/storage_host/storage_text.ts";
import { absolutePath, numberOption, type VerbContext } from "../command_line/cli.ts";
import { askText, askWhich } from "../command_line/questions.ts";
import { exists, lstatIfThere } from "../fs.ts";
import { parseRecipient } from "../keys/age.ts";
import { findHubs, type FoundHub } from "./find_hub.ts";

/** What the parts of `init` are given. */
export interface InitContext extends VerbContext {
  /** Whether there is somebody to ask. */
  readonly asks: boolean;
  /** Words of the set-up: with `--json`, standard output is for the result alone. */
  readonly say: (text: string) => void;
}

/** The hub to back up: the one that was found or named, or that is chosen. */
export async function whichHub(context: InitContext): Promise<FoundHub> {
  const home = textOf(context.options.hapiHome);
  const found = findHubs(context.host, {
    ...context.around,
    env: home === undefined ? context.around.env : { HAPI_HOME: home },
  });
  const [first] = found;
  if (first && (found.length === 1 || !context.asks || home !== undefined)) {
    context.say(`the hub: ${first.database} (by ${first.by})`);
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
  if (!context.asks || home !== undefined) {
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

/**
 * Where to send snapshots; undefined for nowhere, as --local-only says.
 *
 * @throws {BackupError} (usage) If nobody says.
 */
export async function whichDestination(
  context: InitContext,
  hub: string,
): Promise<NewDestination | undefined> {
  const { options } = context;
  const given = destinationGiven(context, hub);
  if (given || options.localOnly === true) return given;
  if (!context.asks) {
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

/** The destination that the options name. */
export function destinationGiven(context: InitContext, hub: string): NewDestination | undefined {
  const storage = textOf(context.options.storage);
  const folder = textOf(context.options.folder);
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

function rsyncTo({ configFile }: InitContext, target: string, port: number): NewDestination {
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

/** Where the snapshots will lie, in words. */
export function placesOf(
  context: InitContext,
  hub: string,
  destination: NewDestination | undefined,
): string[] {
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

/** The folder of the hubs on the storage host. */
export const storageStore = (context: InitContext): string =>
  textOf(context.options.storageStore) ?? STORAGE_STORE;

/** Recipients beside the new identity's own. */
export async function whichOthers({ options, asks }: InitContext): Promise<string[]> {
  if (Array.isArray(options.recipient)) return options.recipient as string[];
  if (!asks) return [];
  const answer = await askText(
    "Public key of a second identity, kept in a second place (age1…; empty: later, by `keys add`)",
    { validate: (answer) => answer === "" ? undefined : problemOf(() => parseRecipient(answer)) },
  );
  return answer === "" ? [] : [answer];
}

/** Where a new identity is written to; with neither it is shown once. */
export interface IdentityFiles {
  readonly identityFile?: string | undefined;
  readonly sheetFile?: string | undefined;
}

/** Where the new identity goes. @throws {BackupError} (usage) If nobody says. */
export async function whereTo(context: InitContext): Promise<IdentityFiles> {
  const out = textOf(context.options.identityOut);
  const sheet = textOf(context.options.sheet);
  if (out === undefined && sheet === undefined) {
    if (!context.asks) {
      throw usage(
        "Cannot set up: say where the new identity goes, with --identity-out FILE (or -) or --sheet FILE",
      );
    }
    const validate = (answer: string) =>
      answer === "" ? undefined : problemOf(() => requireNewFile(context, absolutePath(answer)));
    const file = await askText(
      "Write the identity to which file, such as on a stick? (empty: show it here once)",
      { validate },
    );
    const paper = await askText("Write a sheet to print (HTML) to which file? (empty: none)", { validate });
    const fileAt = (answer: string) => answer === "" ? undefined : absolutePath(answer);
    return { identityFile: fileAt(file), sheetFile: fileAt(paper) };
  }
  if (out === "-" && context.json) throw usage("Cannot print the identity: standard output is for --json");
  return { identityFile: out === "-" ? undefined : out, sheetFile: sheet };
}

function requireNewFile({ host: { fs } }: InitContext, path: string): void {
  if (lstatIfThere(fs, path)) throw new Error(`Nothing is written over, and ${path} is there.`);
  if (!exists(fs, parentOf(path))) throw new Error(`There is no folder ${parentOf(path)}.`);
}

/** An error about what was not said. */
export const usage = (message: string): BackupError =>
  new BackupError(message, { kind: "usage", hint: "`hapi-backup init --help` lists what can be said" });
