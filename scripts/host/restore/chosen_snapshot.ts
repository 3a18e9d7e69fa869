/**
 * The snapshot that the command line means, opened and brought here.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { MANIFEST_PART, type SnapshotId } from "../../core/names.ts";
import { type Manifest, partsRead, type SavedDatabase } from "../../core/snapshot/manifest.ts";
import { describeSuspicions } from "../../core/snapshot/seal.ts";
import { newestSuspect } from "../../core/snapshot/select.ts";
import type { Host } from "../host.ts";
import { type KeyOptions, readKeys } from "../keys/keys.ts";
import { isSealed, readSetIfThere, type SealedSnapshot, type StoredSnapshot } from "../store/store.ts";
import { bring } from "./bring.ts";
import { chooseStored, type Opening } from "./open_snapshot.ts";
import { sourceThreadOf } from "./part_source.ts";
import { imageBytesMax, rebuildDatabase } from "./rebuild.ts";
import { openStoreOf, storedSetNamed, type StoreOptions } from "./store_option.ts";

/** What a person gives to name snapshots and to open them. */
export interface ChoiceJob {
  readonly config: Config;
  readonly keys: KeyOptions;
  readonly store: StoreOptions;
  readonly set: string;
}

/** A set whose snapshots can be opened. */
export interface OpenedSet extends AsyncDisposable {
  readonly opening: Opening;
  /** What the store is called. */
  readonly store: string;
  /** All that are sealed, oldest first. */
  readonly snapshots: readonly SealedSnapshot[];
  /** The snapshot that `which` means (see {@linkcode chooseStored}). Its manifest is here then. */
  choose(which: string): Promise<SnapshotId>;
}

/** Opens the set that the job names. @throws {BackupError} (key), (usage), (network). */
export async function openSetOf(host: Host, job: ChoiceJob): Promise<OpenedSet> {
  const keys = await readKeys(host, job.config, job.keys);
  const store = await openStoreOf(host, job.config, job.store);
  try {
    const set = storedSetNamed(store, job.set, job.store.hubName);
    const stored = readSetIfThere(host.fs, set);
    const snapshots = stored.filter(isSealed);
    const thread = sourceThreadOf(host);
    return {
      opening: {
        host,
        set,
        ...keys,
        sources: thread?.start,
        far: { needFor: (parts) => store.needFor(set, parts), fetch: (parts) => store.fetch(set, parts) },
      },
      store: store.name,
      snapshots,
      async choose(which) {
        const { id } = chooseStored(which, stored, Math.random());
        if (which === "latest") warnOfNewer(host, id, stored, snapshots);
        await store.fetch(set, new Map([[id, new Set([MANIFEST_PART])]]));
        return id;
      },
      async [Symbol.asyncDispose]() {
        thread?.[Symbol.dispose]();
        await store[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await store[Symbol.asyncDispose]();
    throw error;
  }
}

/** Who asks for the latest is to know of one that came later and cannot be had, or is no good. */
function warnOfNewer(
  { report }: Host,
  chosen: SnapshotId,
  stored: readonly StoredSnapshot[],
  snapshots: readonly SealedSnapshot[],
): void {
  for (const { id, sealed } of stored) {
    if (id > chosen && sealed.seal === undefined) {
      report.warn(`${id} is newer than ${chosen}, and cannot be opened: ${sealed.problem}`);
    }
  }
  const suspect = newestSuspect(snapshots.map(({ sealed }) => sealed.seal));
  if (!suspect) return;
  const { id, suspicions } = suspect;
  // A database may be weeks newer in it.
  const use = suspicions.every(({ code }) => code === "unreadable")
    ? `; but for what could not be read ${id} is good, too: --snapshot ${id} takes it`
    : "";
  const why = describeSuspicions(suspicions);
  report.warn(`the newest snapshot, ${id}, is suspect (${why}); ${chosen} is the newest good one${use}`);
}

/** Whether a database is the one that the hub keeps its sessions in. */
export const hasSessions = ({ rows }: SavedDatabase): boolean => "sessions" in rows;

/** A snapshot's database that holds the hub's sessions, rebuilt. */
export interface SessionDatabase {
  readonly manifest: Manifest;
  readonly saved: SavedDatabase;
  /** Where the image is. */
  readonly image: string;
}

/** Reads a rebuilt database. @throws {BackupError} (integrity) If SQLite cannot read what was saved. */
export function readSessions<Result>(
  { blocking }: Host,
  { manifest }: SessionDatabase,
  read: () => Result,
): Result {
  try {
    return blocking(read);
  } catch (error) {
    if (error instanceof BackupError) throw error;
    throw new BackupError(`Cannot read the database of ${manifest.id}: ${reasonOf(error)}`, {
      kind: "integrity",
      hint: "choose another snapshot with --snapshot; `hapi-backup verify` says which are whole",
      cause: error,
    });
  }
}

/**
 * Rebuilds the database with the sessions inside `scratch`, after its parts were brought here.
 *
 * @throws {BackupError} (usage) If there is not exactly one; (disk) if it does not fit; what fetching and reading throw.
 */
export async function rebuildSessions(
  opening: Opening,
  manifest: Manifest,
  scratch: string,
): Promise<SessionDatabase> {
  const [saved, ...others] = manifest.databases.filter(hasSessions);
  if (saved === undefined || others.length > 0) {
    throw new BackupError(
      `Cannot find sessions in ${manifest.id}: ${
        saved ? "several of its databases have" : "none of its databases has"
      } a table sessions`,
      { kind: "usage", hint: "choose another snapshot with --snapshot, or another set with --set" },
    );
  }
  await bring(opening, {
    action: `rebuild the database of ${manifest.id}`,
    parts: partsRead({ databases: [saved], files: [] }),
    made: { folder: scratch, bytes: imageBytesMax(saved) },
  });
  const image = `${scratch}/${manifest.id}.db`;
  await rebuildDatabase(opening, saved, image);
  return { manifest, saved, image };
}
