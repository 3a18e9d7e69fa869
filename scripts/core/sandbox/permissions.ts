/**
 * What each step may touch: the whole table, but for the storage host's steps, which `storage_permissions.ts` has. What is
 * not granted is denied. What the verb that starts the steps may touch, `nix/verbs.json` says.
 *
 * | step      | reads                                        | writes                         | programs      |
 * | --------- | -------------------------------------------- | ------------------------------ | ------------- |
 * | snapshot  | the set's databases, its state, store names   | its staging                    | none          |
 * | encrypt   | the set's files, its state, signing key       | its state, its folder in store | none          |
 * | prune     | the hub's folder in the store, what is shipped | the set's folder in the store | none          |
 * | ship      | store, SSH keys                               | its own records, folders that are destinations | rsync, rclone |
 * | verify    | store, identity, live databases               | scratch, logs of drills and proofs | rsync, rclone; the hub with --hub |
 * | restore   | store, identity, what is in the way           | where it restores to           | rsync, rclone, find |
 * | session   | store, identity, the hub's database            | that database, or the export; scratch | rsync, rclone, find |
 * | look      | store, identity                              | scratch                        | rsync, rclone |
 * | list      | store, log of drills                          | scratch, for a far store       | rsync, rclone |
 * | status    | store, logs, what is remembered of a set      | nothing                        | systemctl     |
 * | report    | the same as status                            | nothing                        | none          |
 * | notify    | logs, seals, notifiers' tokens                | what was told                  | a notifier's command; the network: the notifiers' hosts |
 * | keys      | store, log of proofs; identity for `prove` only | configuration, log of proofs | rsync, rclone |
 * | doctor    | sources, state, keys, store; where identities may have been left | its own scratch | rsync, ssh, systemctl, rclone |
 * | systemd   | its configuration                             | the folder it is told to       | systemctl, systemd-analyze |
 * | setup     | the configuration's folder; an identity that is given | that folder; where a new identity is to go | none |
 * | connect   | SSH keys, `known_hosts`, what is shipped      | `known_hosts`, its own scratch | ssh-keyscan, ssh, rsync |
 *
 * Of the steps only `notify` has the network, and `verify --hub` this machine's loopback; none has the environment. rsync
 * and rclone have the network, and only `ship`, `verify`, `restore`, `session`, `look`, `list`, `keys`, `doctor` and
 * `connect` may start them.
 *
 * @module
 */

import type { Config, Destination, Notifier } from "../config/config.ts";
import { accessFiles, folderOf, notifierFiles, programOf, readableRoot } from "../config/named_paths.ts";
import { drillLog, memoryFile, proofLog, setFolder, shipFolder } from "../config/state_paths.ts";
import type { SetName } from "../names.ts";
import { parentOf } from "../paths.ts";
import { DATABASE_FILES } from "../snapshot/sqlite_format.ts";

/** The permissions of a worker, as Deno takes them. */
export interface StepPermissions {
  readonly read: readonly string[];
  readonly write?: readonly string[];
  readonly run?: readonly string[];
  readonly net?: readonly string[];
  readonly sys?: readonly string[];
  /** Whether links are made for it below `write`: Deno lets none make them that may not write everywhere. */
  readonly links?: boolean;
}

/** `node:fs` asks for this to tell the free space of a disk. */
export const FREE_SPACE = ["statfs"];

/** @param realPath Resolves the links on the way to a source that is there. */
export function snapshotPermissions(
  config: Config,
  set: SetName,
  realPath: (path: string) => string,
): StepPermissions {
  const state = setFolder(config.stateFolder, set);
  const files = databaseFiles(config, set, realPath, DATABASE_FILES);
  return {
    read: [...files, state, `${config.store}/${config.hub}/${set}`],
    write: [state],
    sys: FREE_SPACE,
  };
}

/** The databases of a set, and what is beside each under these names; also where links lead. */
function databaseFiles(
  { sets }: Config,
  set: string,
  realPath: (path: string) => string,
  ends: readonly string[],
): ReadonlySet<string> {
  const databases = sets.get(set as SetName)?.sources.filter(({ kind }) => kind === "sqlite") ?? [];
  const paths = databases.flatMap(({ path }) => [path, realPath(path)]);
  return new Set(paths.flatMap((path) => ends.map((end) => path + end)));
}

/** @param realPath Resolves the links on the way to a source that is there. */
export function encryptPermissions(
  config: Config,
  set: SetName,
  realPath: (path: string) => string,
): StepPermissions {
  const state = setFolder(config.stateFolder, set);
  const files = (config.sets.get(set)?.sources ?? []).filter((source) => source.kind !== "sqlite")
    .map(readableRoot).flatMap((path) => [path, realPath(path)]);
  return {
    read: [
      ...new Set(files),
      state,
      shipFolder(config.stateFolder),
      `${config.store}/${config.hub}`,
      config.signingKeyFile,
    ],
    write: [state, `${config.store}/${config.hub}/${set}`],
    sys: FREE_SPACE,
  };
}

/** What lets go of old snapshots: the set's folder in the store, and what was shipped. */
export function prunePermissions(config: Config, set: SetName): StepPermissions {
  const hub = `${config.store}/${config.hub}`;
  return { read: [shipFolder(config.stateFolder), hub], write: [`${hub}/${set}`] };
}

/** Ciphertext, the keys to send it with, and the records of what was sent. */
export function shipPermissions(config: Config): StepPermissions {
  const ship = shipFolder(config.stateFolder);
  const keys = config.destinations.flatMap(accessFiles);
  const folders = config.destinations.flatMap(folderOf);
  const programs = config.destinations.flatMap(({ kind }) => kind === "folder" ? [] : [kind]);
  return {
    read: [config.store, ship, ...keys, ...folders],
    write: [ship, ...folders],
    run: [...new Set(programs)],
    sys: FREE_SPACE,
  };
}

/** What a store is read with: of {@linkcode StoreOptions}, what matters here. */
interface StoreAccess {
  readonly store?: string;
  readonly sshKey?: string;
  readonly knownHosts?: string;
  readonly scratch: string;
}

/** Reading a store: itself, or the program and the keys that fetch it into scratch. */
function storePermissions(
  config: Config,
  access: StoreAccess,
): Required<Pick<StepPermissions, "read" | "write" | "run">> {
  const { store = config.store, sshKey, knownHosts, scratch } = access;
  const destination = config.destinations.find(({ name }) => name === store);
  const ofDestination = destination ? accessFiles(destination) : [];
  const keys = [sshKey, knownHosts, ...ofDestination].filter((path) => path !== undefined);
  const folder = destination?.kind === "folder"
    ? destination.path
    : store.startsWith("/")
    ? store
    : undefined;
  const program = destination?.kind === "rclone" || store.startsWith("rclone:") ? "rclone" : "rsync";
  return {
    read: [...folder === undefined ? [] : [folder], ...keys, scratch],
    write: [scratch],
    run: folder === undefined ? [program] : [],
  };
}

interface KeyAccess {
  readonly identity?: string;
  readonly signer?: readonly string[];
}

/** What opens snapshots: the identity, and signers given as files. */
function keyPermissions(config: Config, keys: KeyAccess): string[] {
  const files = keys.signer?.filter((text) => text.startsWith("/")) ?? [];
  return [keys.identity ?? config.identityFile, ...files].filter((path) => path !== undefined);
}

interface OpeningJob {
  readonly keys: KeyAccess;
  readonly store: StoreAccess;
}

/** @param realPath Resolves the links on the way to a source that is there. */
export function verifyPermissions(
  config: Config,
  job: OpeningJob & { readonly set: string; readonly hubProgram?: string | undefined },
  realPath: (path: string) => string,
): StepPermissions {
  const store = storePermissions(config, job.store);
  const live = databaseFiles(config, job.set, realPath, ["", "-wal", "-shm"]);
  const logs = [drillLog(config.stateFolder), proofLog(config.stateFolder)];
  return {
    read: [...store.read, ...keyPermissions(config, job.keys), ...live, ...logs],
    write: [...store.write, ...logs],
    run: [...store.run, ...job.hubProgram === undefined ? [] : [job.hubProgram]],
    ...(job.hubProgram === undefined ? {} : { net: ["127.0.0.1"] }),
    sys: FREE_SPACE,
  };
}

/** In place, a restore goes wherever the snapshot says that something was: its walls are those of the user. */
export function restorePermissions(
  config: Config,
  job: OpeningJob & { readonly to?: string | undefined; readonly inPlace: boolean },
): StepPermissions {
  const store = storePermissions(config, job.store);
  const places = job.inPlace ? ["/"] : [job.to!];
  return {
    read: [...store.read, ...keyPermissions(config, job.keys), ...places],
    write: [...store.write, ...places],
    run: [...store.run, ...job.inPlace ? ["find"] : []],
    sys: FREE_SPACE,
    links: true,
  };
}

/** @param live The databases that a session may be put into; not looked at where it is exported. */
export function sessionPermissions(
  config: Config,
  job: OpeningJob & { readonly target: { readonly kind: string; readonly path?: string } },
  live: readonly string[],
): StepPermissions {
  const looking = lookPermissions(config, job);
  const { read, write, run } = looking;
  const { kind, path } = job.target;
  if (kind === "file") {
    const files = [path!, `${path}.partial`];
    return { ...looking, read: [...read, ...files], write: [...write, ...files] };
  }
  if (kind !== "database") return looking;
  const files = live.flatMap((path) => DATABASE_FILES.map((end) => path + end));
  return { ...looking, read: [...read, ...files], write: [...write, ...files], run: [...run, "find"] };
}

/** What looks into a snapshot: at its sessions, its rows, one of its files. */
export function lookPermissions(
  config: Config,
  job: OpeningJob,
): Required<Pick<StepPermissions, "read" | "write" | "run" | "sys">> {
  const store = storePermissions(config, job.store);
  return { ...store, read: [...store.read, ...keyPermissions(config, job.keys)], sys: FREE_SPACE };
}

/** Seals, and the log of drills. */
export function listPermissions(config: Config, access: StoreAccess): StepPermissions {
  const store = storePermissions(config, access);
  return { ...store, read: [...store.read, drillLog(config.stateFolder)] };
}

/** How the backups stand, and when systemd starts the next. */
export function statusPermissions(config: Config): StepPermissions {
  return {
    read: standingFiles(config),
    run: ["systemctl"],
  };
}

/** What tells how the backups stand: the local store, and the logs and records of this hub. */
function standingFiles({ store, hub, stateFolder, sets }: Config): string[] {
  return [
    `${store}/${hub}`,
    shipFolder(stateFolder),
    drillLog(stateFolder),
    proofLog(stateFolder),
    // Of a set's folder only what is remembered of it: the images beside it are plaintext.
    ...[...sets.keys()].map((set) => memoryFile(setFolder(stateFolder, set))),
  ];
}

/** The page that it makes is written by the program itself, so that the step needs no folder. */
export function reportPermissions(config: Config): StepPermissions {
  return { ...statusPermissions(config), run: [], sys: FREE_SPACE };
}

/** @param granted The notifiers that are to be told, with the host and port of their address. */
export function notifyPermissions(
  config: Config,
  granted: readonly { readonly notifier: Notifier; readonly host?: string }[],
): StepPermissions {
  return {
    read: [
      ...standingFiles(config),
      ...granted.flatMap(({ notifier }) => notifierFiles(notifier)),
    ],
    write: [shipFolder(config.stateFolder)],
    run: granted.flatMap(({ notifier }) => programOf(notifier)),
    net: granted.flatMap(({ host }) => host === undefined ? [] : [host]),
  };
}

/** @param realPath Resolves the links on the way to a source that is there. */
export function doctorPermissions(
  config: Config,
  candidates: readonly string[],
  realPath: (path: string) => string,
): StepPermissions {
  const sources = [...config.sets.values()].flatMap(({ sources }) => sources).flatMap((source) => {
    const ends = source.kind === "sqlite" ? DATABASE_FILES : [""];
    const root = readableRoot(source);
    return [root, realPath(root)].flatMap((path) => ends.map((end) => path + end));
  });
  const files = [
    config.signingKeyFile,
    config.identityFile,
    ...config.destinations.flatMap(accessFiles),
    ...config.destinations.flatMap(folderOf),
    ...config.notify.flatMap(notifierFiles),
  ].filter((path) => path !== undefined);
  return {
    read: [...new Set([...sources, ...files, ...candidates]), config.stateFolder, config.store],
    write: [shipFolder(config.stateFolder)],
    run: ["rsync", "ssh", "systemctl", "rclone"],
    sys: FREE_SPACE,
  };
}

/** @param configFolder The folder of the configuration, which `add` and `drop` edit. */
export function keysPermissions(
  config: Config,
  job:
    | { readonly action: "list" | "add" | "drop"; readonly store: StoreAccess }
    | { readonly action: "prove"; readonly store: StoreAccess; readonly keys: KeyAccess },
  configFolder: string,
): StepPermissions {
  const store = storePermissions(config, job.store);
  const proofs = proofLog(config.stateFolder);
  switch (job.action) {
    case "list":
      return { ...store, read: [...store.read, proofs] };
    case "add":
    case "drop":
      return {
        ...store,
        read: [...store.read, proofs, configFolder],
        write: [...store.write, configFolder],
      };
    case "prove":
      return {
        ...store,
        read: [...store.read, ...keyPermissions(config, job.keys), proofs],
        write: [...store.write, proofs],
        sys: FREE_SPACE,
      };
  }
}

/** @param job.to The folder that the units are written to; where left out, they are printed. */
export function systemdPermissions(
  job: { readonly configFile: string; readonly to?: string | undefined },
): StepPermissions {
  return {
    read: [job.configFile, ...job.to === undefined ? [] : [job.to]],
    write: job.to === undefined ? [] : [job.to],
    run: ["systemctl", "systemd-analyze"],
  };
}

/**
 * @param folder The folder of the configuration.
 * @param others More files that are written: a new identity, or the configuration where a link leads to it.
 * @param given A file with an identity that is there already.
 */
export function setupPermissions(
  folder: string,
  others: readonly (string | undefined)[],
  given: string | undefined,
): StepPermissions {
  // A file is written beside its final name and then renamed, so its folder is what is needed.
  const folders = others.flatMap((path) => path === undefined ? [] : [parentOf(path)]);
  return {
    read: [folder, ...folders, ...given === undefined ? [] : [given]],
    write: [folder, ...folders],
  };
}

/** What makes the first connection to a storage host, and pins its key. */
export function connectPermissions(
  { stateFolder }: Config,
  destination: Extract<Destination, { kind: "rsync" }>,
): StepPermissions {
  const ship = shipFolder(stateFolder);
  return {
    read: [ship, ...accessFiles(destination)],
    write: [ship, destination.knownHostsFile],
    run: ["ssh-keyscan", "ssh", "rsync"],
  };
}
