/**
 * The store that `--store` means: a folder, a far store, a destination by its name, or the hub's own.
 *
 * @module
 */

import type { Config, Destination } from "../../core/config/config.ts";
import { BackupError, ifPossible } from "../../core/errors.ts";
import { formatStore } from "../../core/format.ts";
import { isHubName, parseSetName, type PartName, type SetName, type SnapshotId } from "../../core/names.ts";
import type { PartsBySnapshot } from "../../core/snapshot/manifest.ts";
import { isMounted } from "../destinations/folder_destination.ts";
import { openStore, type RemoteOptions } from "../destinations/remote.ts";
import { exists, lstatIfThere } from "../fs.ts";
import type { Fs, Host } from "../host.ts";
import { makeScratch } from "../scratch.ts";
import { type Need, requireRoom } from "../space.ts";
import { type ClosedFolders, findSets, setIn, type StoredSet } from "../store/store.ts";

/** Where to look. */
export interface StoreOptions {
  readonly store?: string;
  readonly hubName?: string;
  readonly sshKey?: string;
  readonly knownHosts?: string;
  readonly port?: number;
  /** Folder for scratch folders. */
  readonly scratch: string;
}

/** A store, open for reading. */
export interface OpenedStore extends AsyncDisposable {
  /** What to call it. */
  readonly name: string;
  readonly sets: readonly StoredSet[];
  /** Size of a part where it lies, in bytes; undefined if it is not there. Of a far store only where asked for. */
  bytesOf(set: StoredSet, id: SnapshotId, part: PartName): number | undefined;
  /** Brings parts here. @throws {BackupError} (disk) If they do not fit; (network), (key), (integrity). */
  fetch(set: StoredSet, parts: PartsBySnapshot): Promise<void>;
  /** What fetching them would write, and where. */
  needFor(set: StoredSet, parts: PartsBySnapshot): Need;
}

/** Tells the sizes of parts that are here. */
export const bytesIn = (fs: Fs): OpenedStore["bytesOf"] => ({ folder }, id, part) =>
  lstatIfThere(fs, `${folder}/${id}/${part}`)?.bytes;

/**
 * Opens the store that the options mean.
 *
 * @param more.withSizes Whether to learn how large the parts of a far one are.
 * @param more.onClosed Told of each folder that cannot be read; where left out, the first is thrown.
 */
export async function openStoreOf(
  host: Host,
  config: Config,
  options: StoreOptions,
  { withSizes = false, onClosed }: {
    readonly withSizes?: boolean;
    readonly onClosed?: ClosedFolders["onClosed"];
  } = {},
): Promise<OpenedStore> {
  const closed: ClosedFolders = { hubName: options.hubName, onClosed };
  const destination = config.destinations.find(({ name }) => name === options.store);
  if (destination?.kind === "folder" && !isMounted(host.fs, destination)) {
    throw new BackupError(`Cannot open store ${destination.name}: there is no folder ${destination.path}`, {
      kind: "disk",
      hint: "mount it, or look into another copy with --store",
    });
  }
  const { spec, access } = resolveStore(config, destination, options);
  if (spec === config.store) {
    const sets = ownSets(host, config, closed);
    const none = () => Promise.resolve();
    return {
      name: spec,
      sets,
      bytesOf: bytesIn(host.fs),
      fetch: none,
      needFor: () => ({ folder: options.scratch, bytes: 0 }),
      [Symbol.asyncDispose]: none,
    };
  }
  const scratch = makeScratch(host, options.scratch);
  try {
    const store = await openStore(host, spec, {
      ...access,
      withSizes,
      onClosed,
      scratch: `${scratch.path}/store`,
    });
    const { bytesOf } = store;
    const sets = findSets(host.fs, store.root, closed);
    if (destination?.kind === "folder" && sets.length === 0) {
      host.report.warn(`${destination.name} holds no snapshot: is its disk mounted at ${spec}?`);
    }
    const wanted = ({ hub, set }: StoredSet, all: PartsBySnapshot) =>
      [...all].map(([id, parts]) => ({ hub, set, id, parts }));
    const needFor = (set: StoredSet, parts: PartsBySnapshot) => ({
      folder: options.scratch,
      bytes: store.bytesLacking(wanted(set, parts)),
    });
    return {
      name: spec,
      sets: sets.map((set) => store.called ? { ...set, called: store.called(set) } : set),
      bytesOf: bytesOf ? ({ hub, set }, id, part) => bytesOf({ hub, set, id }, part) : bytesIn(host.fs),
      fetch: async (set, parts) => {
        requireRoom(host.fs, `fetch snapshots of ${set.set}`, [needFor(set, parts)]);
        await store.fetch(wanted(set, parts));
      },
      needFor,
      async [Symbol.asyncDispose]() {
        await store[Symbol.asyncDispose]();
        scratch[Symbol.dispose]();
      },
    };
  } catch (error) {
    scratch[Symbol.dispose]();
    throw error;
  }
}

/**
 * The hub's own sets in its own store, which may not exist yet: that is an empty store, and not an error. With the name of a
 * hub, that one's, such as those of this hub before it was renamed.
 */
function ownSets(
  { fs, report }: Host,
  { store, hub, sets }: Config,
  closed: ClosedFolders,
): StoredSet[] {
  const find = (closed: ClosedFolders) => exists(fs, store) ? findSets(fs, store, closed) : [];
  if (closed.hubName !== undefined) return find(closed);
  // Only to be told: another hub's folder may be closed to us.
  const hubs = [...new Set(ifPossible(() => find({ hubName: hub }))?.map((set) => set.hub))];
  if (hubs.length > 0 && !hubs.includes(hub)) {
    report.warn(`${store} holds nothing of hub ${hub}, but of ${hubs.join(", ")}: name it with --hub-name`);
  }
  return [...sets.keys()].map((set) => setIn(store, hub, set));
}

/** A destination's name stands for its store and the key that may read it. */
function resolveStore(
  config: Config,
  destination: Destination | undefined,
  options: StoreOptions,
): { spec: string; access: Omit<RemoteOptions, "scratch"> } {
  const { store = config.store, sshKey, knownHosts, port } = options;
  const given = {
    ...(sshKey ? { identityFile: sshKey } : {}),
    ...(knownHosts ? { knownHostsFile: knownHosts } : {}),
    ...(port ? { port } : {}),
  };
  switch (destination?.kind) {
    case undefined:
      return { spec: store, access: given };
    case "folder":
      return { spec: destination.path, access: {} };
    case "rclone":
      return {
        spec: `rclone:${destination.remote}`,
        access: destination.configFile ? { rcloneConfigFile: destination.configFile } : {},
      };
    case "rsync":
      return {
        spec: destination.readTarget ?? destination.target,
        access: {
          ...(destination.readIdentityFile ? { identityFile: destination.readIdentityFile } : {}),
          knownHostsFile: destination.knownHostsFile,
          port: destination.port,
          timeoutSeconds: destination.timeoutSeconds,
          ...given,
        },
      };
  }
}

/** A store's sets, or those of one hub only. */
export const setsOf = ({ sets }: OpenedStore, hubName: string | undefined): StoredSet[] =>
  sets.filter(({ hub }) => hubName === undefined || hub === hubName);

/** The one set of a store with this name. @throws {BackupError} (usage) If there is none, or several hubs have one. */
export function storedSetNamed(store: OpenedStore, name: string, hubName: string | undefined): StoredSet {
  const set: SetName = parseSetName(name);
  const found = setsOf(store, hubName).filter((stored) => stored.set === set);
  if (found.length === 1) return found[0]!;
  const hubs = [...new Set(store.sets.map(({ hub }) => hub))].filter(isHubName);
  if (found.length === 0) throw noSuchSet(store, `set ${set}`);
  throw new BackupError(
    `Cannot tell which set ${set} of ${store.name} is meant: ${found.length} hubs have one`,
    { kind: "usage", hint: `give --hub-name with one of: ${hubs.join(", ")}` },
  );
}

/** That a store has no such set, hub or snapshot, with the sets that it has. */
export function noSuchSet(store: OpenedStore, what: string): BackupError {
  const sets = store.sets.map(({ hub, set }) => `${hub}/${set}`).join(", ");
  const known = sets ? `sets there: ${sets}` : "no set is there";
  return new BackupError(`Cannot find ${what} in ${formatStore(store.name)}: it holds none`, {
    kind: "usage",
    hint: `${known}; a store is the folder that HUB/SET/SNAPSHOT, or SET/SNAPSHOT, lie in`,
  });
}
