/**
 * A store that is read from elsewhere: a folder here, a storage host by rsync with a read-only key, or an rclone remote.
 *
 * Fault model: the far side is hostile. Only files that we name are fetched, and only names that could be a store's;
 * no links, no devices, nothing outside the scratch folder, nothing larger than a seal may be or the seal says. What
 * arrives is not believed: seals and parts are checked by whoever reads them.
 *
 * @module
 */

import { BackupError } from "../../core/errors.ts";
import { formatStore } from "../../core/format.ts";
import {
  isHubName,
  isPartName,
  isSetName,
  isSnapshotId,
  type PartName,
  SEAL_FILE,
  type SetName,
  SIGNATURE_FILE,
  type SnapshotId,
} from "../../core/names.ts";
import { nameOf, parentOf } from "../../core/paths.ts";
import {
  listArgs,
  parseProgress,
  parseRsyncTarget,
  pullArgs,
  type RsyncAccess,
} from "../../core/shipping/rsync_args.ts";
import { type Seal, SEAL_BYTES_MAX } from "../../core/snapshot/seal.ts";
import { exists, kindOf, knownError, lstatIfThere, removeIfThere } from "../fs.ts";
import type { Host } from "../host.ts";
import { realRetry, type Retry, withRetries } from "../retry.ts";
import { sealIn } from "../store/store.ts";
import { below, rclone, type RcloneAccess } from "./rclone.ts";
import { runRsync } from "./rsync.ts";

/** How to reach a store that is not here. */
export interface RemoteOptions {
  /** A folder for what is fetched; made if missing, and emptied of it at the end. */
  readonly scratch: string;
  /** The key that may only read; needed for `user@host:path`. */
  readonly identityFile?: string;
  /** The pinned host keys; needed for `user@host:path`. */
  readonly knownHostsFile?: string;
  /** Default 22. */
  readonly port?: number;
  /** Seconds without a byte moved. Default 120, as of a destination. */
  readonly timeoutSeconds?: number;
  /** rclone's configuration. */
  readonly rcloneConfigFile?: string;
  /** Whether to learn how large the parts are, too: {@linkcode OpenStore.bytesOf}. */
  readonly withSizes?: boolean;
  /** Told of what cannot be listed there, such as a folder that is closed; a warning where left out. */
  readonly onClosed?: ((error: BackupError) => void) | undefined;
  readonly retry?: Retry;
}

/** A store, readable here. */
export interface OpenStore extends AsyncDisposable {
  /** The local folder to read: a store, or one hub's folder. From elsewhere it holds seals only until `fetch`. */
  readonly root: string;
  /** What the folder of a set is called where it was fetched from; left out of one that is here. */
  readonly called?: (set: { readonly hub: string; readonly set: SetName }) => string;
  /** Size of a part where it lies, in bytes, as far as it was asked for; left out of a store that is here. */
  readonly bytesOf?: (snapshot: Omit<WantedSnapshot, "parts">, part: PartName) => number | undefined;
  /** Makes parts of these snapshots readable under `root`. Snapshots without a readable seal are passed over. */
  fetch(snapshots: readonly WantedSnapshot[]): Promise<void>;
  /** How many bytes `fetch` would bring here: those that the seals tell of. */
  bytesLacking(snapshots: readonly WantedSnapshot[]): number;
  /** Removes what was fetched. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A snapshot of which parts are wanted. */
export interface WantedSnapshot {
  readonly hub: string;
  readonly set: SetName;
  readonly id: SnapshotId;
  readonly parts: ReadonlySet<PartName>;
}

/** Snapshots of one store that are looked at; more than that is not a store. */
const SNAPSHOTS_MAX = 200_000;
/** Parts whose sizes are remembered. */
const SIZES_MAX = 5 * SNAPSHOTS_MAX;
/** What the names of parts have in common. */
const PARTS = "*.age";
/** Seconds for fetching seals, after which the far side is held for broken. */
const SEALS_SECONDS_MAX = 3_600;
/** Slowest transfer of parts that is waited for, in bytes per second. */
const SLOWEST_BYTES_PER_SECOND = 16 * 1024;

/**
 * Opens a store: an absolute path, `user@host:path`, or `rclone:remote:path`. From elsewhere, seals and signatures are
 * fetched at once, parts when asked for.
 *
 * @throws {BackupError} (usage) If there is no store, or an option is missing.
 * @throws {BackupError} (network, key, config, integrity) If it cannot be read.
 */
export async function openStore(host: Host, spec: string, options: RemoteOptions): Promise<OpenStore> {
  if (spec.startsWith("rclone:")) {
    return await openRemote(host, rcloneSource(host, spec.slice("rclone:".length), options), options);
  }
  if (/^[^/]+@[^/]+:/.test(spec)) return await openRemote(host, rsyncSource(host, spec, options), options);
  if (lstatIfThere(host.fs, spec)) {
    const none = () => Promise.resolve();
    return { root: spec, fetch: none, bytesLacking: () => 0, [Symbol.asyncDispose]: none };
  }
  throw new BackupError(`Cannot open store ${spec}: there is no such folder`, {
    kind: "usage",
    hint: "name a destination, a folder (of a disk that is mounted), user@host:path, or rclone:remote:path",
  });
}

/** What the two ways of fetching have in common. */
interface Source {
  /** As it was given. */
  readonly spec: string;
  /** What to call it in texts. */
  readonly name: string;
  /**
   * Paths of the seals, and of parts `withSizes`, as they are named there, and their sizes; of other files and, with a slash
   * at their end, folders, too, where it costs nothing. May hold anything.
   *
   * @returns What could not be listed of it.
   */
  readonly list: (
    take: (path: string, bytes: number) => void,
    withSizes: boolean,
  ) => Promise<BackupError | undefined>;
  /**
   * Brings these files into `folder`, each of at most `bytesMax` bytes. One that is missing is passed over.
   *
   * @returns Why others are not here.
   */
  readonly pull: (
    folder: string,
    names: readonly string[],
    bytesMax: number,
    secondsMax: number,
  ) => Promise<BackupError | undefined>;
}

function rsyncSource(host: Host, spec: string, options: RemoteOptions): Source {
  parseRsyncTarget(spec);
  const name = formatStore(spec);
  const { identityFile, knownHostsFile, port = 22, timeoutSeconds = 120 } = options;
  if (identityFile === undefined || knownHostsFile === undefined) {
    throw new BackupError(
      `Cannot open store ${name}: no ${identityFile ? "known hosts file" : "key"} is named`,
      {
        kind: "usage",
        hint:
          "name the key that may only read with --ssh-key (readIdentityFile of a destination), and the file with " +
          "the pinned host key with --known-hosts (knownHostsFile)",
      },
    );
  }
  const access: RsyncAccess = { target: spec, identityFile, knownHostsFile, port, timeoutSeconds };
  const what = `read store ${name}`;
  /** Runs rsync. What cannot be read there, as on a disk that fails, keeps nobody from the rest. */
  const run = async (args: readonly string[], options: Parameters<typeof runRsync>[4]) => {
    let unread: BackupError | undefined;
    const onPartial = ({ message }: BackupError) => {
      const hint = "look at that file or folder there, and at its disk";
      unread = new BackupError(message, { kind: "network", hint });
    };
    await runRsync(host, access, what, args, { ...options, onPartial });
    return unread;
  };
  return {
    spec,
    name,
    list: (take, withSizes) =>
      run(listArgs(access, [SEAL_FILE, ...withSizes ? [PARTS] : []]), {
        secondsMax: SEALS_SECONDS_MAX,
        onLine: (line) => {
          // `-rw-r--r--          1,234 2026/11/22 06:00:00 state/20261122T060000Z/seal.json`
          const [, type, bytes, path] = /^([-d])\S+\s+([\d,]+) \S+ \S+ (.+)$/.exec(line) ?? [];
          if (path !== undefined) take(type === "d" ? `${path}/` : path, Number(bytes!.replaceAll(",", "")));
        },
      }),
    pull: (folder, names, bytesMax, secondsMax) =>
      run(pullArgs(access, folder, bytesMax), {
        names,
        secondsMax,
        into: folder,
        onLine: (line) => {
          const { bytes = 0, percent = 0 } = parseProgress(line) ?? {};
          // What a file is said to be at first, by which rsync limits it, need not be what comes.
          if (bytes > bytesMax * names.length) throw sendsMore(name);
          if (percent > 0) {
            host.report.progress(`fetch from ${name}`, bytes, Math.ceil(100 * bytes / percent));
          }
        },
      }),
  };
}

function sendsMore(name: string): BackupError {
  return new BackupError(`Cannot read store ${name}: it sends more than it said that it would`, {
    kind: "integrity",
    hint: "look at that host: is it yours still? Another copy of the store may be well: name it with --store",
  });
}

function rcloneSource(host: Host, remote: string, options: RemoteOptions): Source {
  const access: RcloneAccess = { remote, configFile: options.rcloneConfigFile };
  const spec = `rclone:${remote}`;
  const name = formatStore(spec);
  const what = `read store ${name}`;
  // rclone takes either a list of names or a limit of size, so sizes are asked for first.
  const sizes = new Map<string, number>();
  const learnSizes = async (
    folder: string,
    filters: readonly string[],
    take: (path: string, bytes: number) => void,
  ) => {
    const target = below(remote, folder === "" ? "" : `${folder}/`);
    await rclone(host, access, what, [
      "lsf",
      "--files-only",
      "--format=sp",
      "--separator= ",
      ...filters,
      target,
    ], {
      secondsMax: SEALS_SECONDS_MAX,
      onLine: (line) => {
        const [, bytes, path] = /^(\d+) (.+)$/.exec(line) ?? [];
        if (path === undefined) return;
        sizes.set(folder === "" ? path : `${folder}/${path}`, Number(bytes));
        take(path, Number(bytes));
      },
    });
  };
  return {
    spec,
    name,
    list: async (take, withSizes) => {
      const names = [SEAL_FILE, SIGNATURE_FILE, ...withSizes ? [PARTS] : []];
      try {
        await learnSizes(
          "",
          ["--recursive", "--max-depth=4", ...names.map((name) => `--include=${name}`)],
          take,
        );
        return undefined;
      } catch (error) {
        // A folder that is closed ends it once the others are listed.
        const refusal = sizes.size > 0 ? refusalOf(error) : undefined;
        if (!refusal) throw error;
        return refusal;
      }
    },
    pull: async (folder, names, bytesMax, secondsMax) => {
      const unknown = new Set(names.filter((name) => !sizes.has(name)).map(parentOf));
      for (const parent of unknown) await learnSizes(parent, [], () => {});
      const wanted = names.filter((name) => (sizes.get(name) ?? Infinity) <= bytesMax);
      const list = `${folder}.names`;
      try {
        using file = host.fs.open(list, { write: true, create: true, truncate: true, mode: 0o600 });
        file.write(new TextEncoder().encode(wanted.map((name) => `${name}\n`).join("")));
        await rclone(host, access, what, [
          "copy",
          "--ignore-times",
          // What is damaged there must arrive, or it blocks what is not: the reader compares it with its seal.
          "--ignore-checksum",
          "--no-traverse",
          `--files-from-raw=${list}`,
          // What is sent need not be what was listed. Something may be sent twice.
          `--max-transfer=${2 * wanted.reduce((sum, name) => sum + sizes.get(name)!, 0)}B`,
          "--cutoff-mode=hard",
          remote,
          folder,
        ], { into: folder, secondsMax });
        return undefined;
      } finally {
        removeIfThere(host.fs, list);
      }
    },
  };
}

/** What the far side refuses of it all, such as an object that was moved to an archive; undefined of any other error. */
function refusalOf(error: unknown): BackupError | undefined {
  const known = knownError(error);
  return known && ["config", "key", "integrity"].includes(known.kind) ? known : undefined;
}

async function openRemote(host: Host, source: Source, options: RemoteOptions): Promise<OpenStore> {
  const { fs } = host;
  const retry = options.retry ?? realRetry(host, 3);
  const folder = `${options.scratch}/remote-${crypto.randomUUID()}`;
  fs.mkdir(folder, { recursive: true, mode: 0o700 });
  const close = () => {
    removeIfThere(fs, folder);
    return Promise.resolve();
  };
  try {
    const sizes = new Map<string, number>();
    const { found, others, unlisted } = await withRetries(
      host,
      retry,
      () => listSnapshots(source, options.withSizes ? sizes : undefined),
    );
    if (found.length === 0) {
      throw unlisted ?? new BackupError(`Cannot open store ${source.name}: no sealed snapshot is there`, {
        kind: "usage",
        hint: "name the folder that holds the hubs' folders, or one hub's folder in it",
      });
    }
    if (unlisted && options.onClosed) options.onClosed(unlisted);
    else if (unlisted) host.report.warn(`${unlisted.message}; with what else is there it goes on`);
    const pulled = `${folder}/pulled`;
    fs.mkdir(pulled, { mode: 0o700 });
    const unsent = await pullSeals(host, source, pulled, found, retry);
    // Without a folder nothing would tell of them: `latest` would be an older one, and a list would lack them.
    for (const path of [...unsent, ...others]) {
      fs.mkdir(`${pulled}/${path}`, { recursive: true, mode: 0o700 });
    }
    const { root, hubFolder } = layOut(host, source, folder, pulled, found);
    const isHubFolder = found[0]!.split("/").length === 2;
    const pathOf = ({ hub, set }: { readonly hub: string; readonly set: SetName }) =>
      isHubFolder ? set : `${hub}/${set}`;
    const fetched = new Set<string>();
    const lacking = (snapshots: readonly WantedSnapshot[]) =>
      snapshots.flatMap((wanted) => {
        const path = `${pathOf(wanted)}/${wanted.id}`;
        const parts = sealIn(host.fs, `${hubFolder}/${path}`)?.parts.filter(({ name }) =>
          wanted.parts.has(name) && !fetched.has(`${path}/${name}`)
        ) ?? [];
        return parts.length === 0 ? [] : [{ path, parts, bytes: bytesOfAll(parts) }];
      });
    return {
      root,
      called: (set) => below(source.spec, pathOf(set)),
      bytesOf: (snapshot, part) => sizes.get(`${pathOf(snapshot)}/${snapshot.id}/${part}`),
      [Symbol.asyncDispose]: close,
      bytesLacking: (snapshots) => bytesOfAll(lacking(snapshots)),
      fetch: async (snapshots) => {
        for (const { path, parts, bytes } of lacking(snapshots)) {
          await withRetries(host, retry, () => pullParts(host, source, hubFolder, path, parts, bytes));
          for (const { name } of parts) fetched.add(`${path}/${name}`);
        }
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Fetches the seals of snapshots, with their signatures. @returns Those that did not come whole. */
async function pullSeals(
  host: Host,
  source: Source,
  folder: string,
  found: readonly string[],
  retry: Retry,
): Promise<readonly string[]> {
  const seals = found.flatMap((path) => [`${path}/${SEAL_FILE}`, `${path}/${SIGNATURE_FILE}`]);
  const pull = () => source.pull(folder, seals, SEAL_BYTES_MAX, SEALS_SECONDS_MAX);
  // One that is refused must not block the others.
  const refusal = await withRetries(host, retry, pull).catch((error) => {
    const refusal = refusalOf(error);
    if (!refusal) throw error;
    return refusal;
  });
  const isHere = (path: string, file: string) => exists(host.fs, `${folder}/${path}/${file}`);
  // That a signature is not there at all is told by who reads the seal.
  const lacking = found.filter((path) =>
    !isHere(path, SEAL_FILE) || (refusal && !isHere(path, SIGNATURE_FILE))
  );
  if (lacking.length === 0) return [];
  const why = refusal ??
    new BackupError(`Cannot read store ${source.name}: it does not send all that it lists`, {
      kind: "integrity",
      hint: "look at that host or remote; another copy of the store may be well: name it with --store",
    });
  if (lacking.length === found.length) throw why;
  host.report.warn(
    `${why.message}; without the seals of ${lacking.length} of ${found.length} snapshots, such as ${
      lacking[0]
    }, it goes on`,
  );
  return lacking;
}

/** What a listing told of. */
interface Listing {
  /** The folders that could be snapshots: those with a seal. */
  readonly found: readonly string[];
  /** Others that have such a name: what is left of one, or an upload that is under way. */
  readonly others: readonly string[];
  /** What could not be listed. */
  readonly unlisted: BackupError | undefined;
}

/**
 * The folders that could be snapshots, by their names: `set/id` in a hub's folder, `hub/set/id` in a store.
 *
 * @param sizes Gets the sizes of parts, by their paths, where they are wanted.
 */
async function listSnapshots(source: Source, sizes: Map<string, number> | undefined): Promise<Listing> {
  const found = new Set<string>();
  const others = new Set<string>();
  const unlisted = await source.list((path, bytes) => {
    const names = path.split("/");
    const file = names.pop();
    if (sizes && sizes.size < SIZES_MAX && isPartName(file!)) sizes.set(path, bytes);
    const [id, set, hub] = names.toReversed();
    const into = file === SEAL_FILE ? found : others;
    if (!id || !set || !isSnapshotId(id) || !isSetName(set) || into.size > SNAPSHOTS_MAX) return;
    if (names.length === 2 || (names.length === 3 && isHubName(hub!))) into.add(names.join("/"));
  }, sizes !== undefined);
  if (found.size > SNAPSHOTS_MAX) {
    throw new BackupError(`Cannot open store ${source.name}: it holds more than ${SNAPSHOTS_MAX} snapshots`, {
      kind: "integrity",
      hint: "name one hub's folder in it",
    });
  }
  // What is rarer is foreign: a store and a hub's folder do not mix.
  const at = (depth: number, paths: Iterable<string>) =>
    [...paths].filter((path) => path.split("/").length === depth);
  const depth = at(3, found).length >= at(2, found).length ? 3 : 2;
  return {
    found: at(depth, found).sort(),
    others: at(depth, others).filter((path) => !found.has(path)),
    unlisted,
  };
}

/**
 * Gives a hub's folder the place that it has in a store. What it is called there is not known here, so the newest
 * readable seal tells the hub's name; a seal of another hub is then found out by whoever reads the store.
 */
function layOut(
  host: Host,
  source: Source,
  folder: string,
  pulled: string,
  found: readonly string[],
): { readonly root: string; readonly hubFolder: string } {
  if (found[0]!.split("/").length === 3) return { root: pulled, hubFolder: pulled };
  const byAge = found.toSorted((a, b) => nameOf(a) < nameOf(b) ? 1 : -1);
  for (const path of byAge) {
    const seal = sealIn(host.fs, `${pulled}/${path}`);
    if (!seal) continue;
    const root = `${folder}/store`;
    host.fs.mkdir(root, { mode: 0o700 });
    host.fs.rename(pulled, `${root}/${seal.hub}`);
    return { root, hubFolder: `${root}/${seal.hub}` };
  }
  throw new BackupError(`Cannot open store ${source.name}: none of its ${found.length} seals can be read`, {
    kind: "integrity",
    hint: "run `hapi-backup scrub` on the storage host",
  });
}

const bytesOfAll = (all: readonly { readonly bytes: number }[]): number =>
  all.reduce((sum, { bytes }) => sum + bytes, 0);

async function pullParts(
  host: Host,
  source: Source,
  folder: string,
  path: string,
  parts: Seal["parts"],
  bytes: number,
): Promise<void> {
  const unread = await source.pull(
    folder,
    parts.map((part) => `${path}/${part.name}`),
    Math.max(...parts.map((part) => part.bytes)),
    60 + bytes / SLOWEST_BYTES_PER_SECOND,
  );
  if (unread) host.report.warn(unread.message);
  for (const part of parts) {
    const file = `${folder}/${path}/${part.name}`;
    const stat = lstatIfThere(host.fs, file);
    if (stat?.type === "file" && stat.bytes === part.bytes) continue;
    // Its reader names the place here, which is gone afterwards: the one there is told now.
    const there = `${path}/${part.name} of ${source.name}`;
    if (!stat) {
      host.report.warn(`${there} was not sent: it is missing, cannot be read, or is larger than sealed`);
      continue;
    }
    // Left out rather than handed on: its reader then says that it is missing.
    host.report.warn(
      `${there} is not what the seal says (${
        kindOf(stat)
      } of ${stat.bytes} bytes where it says ${part.bytes}); ` +
        "it is not used",
    );
    if (exists(host.fs, file)) removeIfThere(host.fs, file);
  }
}
