/**
 * Copies the databases of a set into staging, as of one moment, then asks SQLite whether the copies are sound: that takes
 * longer than all else, and `encrypt` works beside it, on the other core.
 *
 * Sees the databases and the set's own state folder. Has no network and starts no program.
 *
 * @module
 */

import type { Config, Source } from "./core/config/config.ts";
import { setNamed } from "./core/config/set_named.ts";
import { baseImage, memoryFile, setFolder, stagingFolder } from "./core/config/state_paths.ts";
import { BackupError, reasonAndRemedy } from "./core/errors.ts";
import { type SetName, type SnapshotId, snapshotIdAt, timeOfSnapshotId } from "./core/names.ts";
import { placeOf } from "./core/place.ts";
import type { Unreadable } from "./core/snapshot/file_index.ts";
import type { DatabaseChecks, SourceOutcome } from "./core/snapshot/manifest.ts";
import { sameFingerprint } from "./core/snapshot/sqlite_format.ts";
import { attempt, isMissing, lstatIfThere, syncBeside, systemReason } from "./host/fs.ts";
import type { Host, Stat } from "./host/host.ts";
import { type Memory, readMemory } from "./host/records/memory.ts";
import {
  clearingIfFailed,
  clearStaging,
  makeSetFolders,
  type Staged,
  type StagedChecks,
  type StagedDatabase,
  writeStaged,
  writeStagedChecks,
} from "./host/snapshot/staging.ts";
import { checkImage, copyDatabase, readFingerprint, requireDatabase } from "./host/sqlite.ts";
import { requireFree } from "./host/space.ts";
import { serveStep } from "./host/steps/step.ts";
import { setIn, snapshotIds } from "./host/store/store.ts";

/** What to take a snapshot of. */
export interface SnapshotOptions {
  readonly set: SetName;
  /** Copy databases even if nothing was committed since the last snapshot. */
  readonly full?: boolean;
}

/**
 * Stages the databases of a set.
 *
 * @throws {BackupError} (source) If a required database is missing, locked, not a database or over a budget;
 * (disk) if staging cannot be written; (clock) if the clock stands before the newest snapshot. Nothing stays staged.
 */
export async function snapshot(host: Host, config: Config, options: SnapshotOptions): Promise<Staged> {
  const { set } = setNamed(config, options.set);
  const folder = setFolder(config.stateFolder, options.set);
  makeSetFolders(host.fs, folder);
  clearStaging(host.fs, folder);
  const memory = readMemory(host, folder);
  const id = await nextSnapshotId(host, config, options.set, memory);
  return await clearingIfFailed(host, folder, async () => {
    const databases: StagedDatabase[] = [];
    const sources: SourceOutcome[] = [];
    const unreadable: Unreadable[] = [];
    for (const source of set.sources) {
      if (source.kind !== "sqlite") continue;
      const known = options.full ? undefined : memory;
      const { name, kind, path } = source;
      const about = { name, kind, path, secret: false };
      try {
        const staged = await stageDatabase(host, config, source, folder, set.keepBase, known);
        if (staged) databases.push(staged);
        else host.report.warn(`${name}: there is nothing at ${path}`);
        sources.push({ ...about, outcome: staged ? "saved" : "absent" });
      } catch (error) {
        if (source.required || !(error instanceof BackupError) || error.kind !== "source") throw error;
        unreadable.push({ source: name, path, reason: reasonAndRemedy(error) });
        sources.push({ ...about, outcome: "unreadable" });
      }
    }
    const staged: Staged = { version: 2, set: options.set, id, databases, sources, unreadable, notes: [] };
    writeStaged(host.fs, folder, staged);
    return staged;
  });
}

async function stageDatabase(
  host: Host,
  config: Config,
  source: Extract<Source, { kind: "sqlite" }>,
  folder: string,
  keepBase: boolean,
  memory: Memory | undefined,
): Promise<StagedDatabase | undefined> {
  const { fs } = host;
  let stat: Stat;
  let path: string;
  try {
    // SQLite names -wal and -shm after the file itself, not after a link to it.
    path = fs.realPath(source.path);
    stat = fs.stat(path);
  } catch (error) {
    if (isMissing(error) && !source.required) return undefined;
    const missing = isMissing(error);
    throw new BackupError(
      `Cannot back up database ${source.path}: ${missing ? "there is no such file" : systemReason(error)}`,
      {
        kind: "source",
        hint: missing
          ? "check the path, and HAPI_HOME or DB_PATH; `hapi-backup config check` shows what is looked for"
          : "check its owner and mode, and the user that this runs as",
      },
    );
  }
  requireDatabase(fs, path);
  const found = {
    source: source.name,
    place: placeOf(source.path, config.home),
    mode: stat.mode,
    mtimeMs: Math.floor(stat.mtimeMs),
    device: stat.device,
    inode: stat.inode,
  };

  const saved = memory?.manifest.databases.find((database) => database.source === source.name);
  // Where only checksums are kept, a full that falls due could not be made without a copy.
  const keepsImage = keepBase && saved !== undefined &&
    lstatIfThere(fs, baseImage(folder, saved.sha256)) !== undefined;
  const known = memory?.fingerprints[source.name];
  const now = known && readFingerprint(fs, path);
  if (keepsImage && known && now && saved?.place === found.place && sameFingerprint(known, now)) {
    host.report.info(`${source.name}: unchanged since ${memory!.manifest.id}`);
    return { ...found, copy: undefined, fingerprint: now };
  }

  const walBytes = lstatIfThere(fs, `${path}-wal`)?.bytes ?? 0;
  const needed = stat.bytes + walBytes + config.limits.freeBytesMin;
  requireFree(fs, { folder, bytes: needed });

  const image = `${stagingFolder(folder)}/${source.name}.image`;
  const { fingerprint, ...copy } = await copyDatabase(host, path, image, config.limits);
  return { ...found, copy: { ...copy, image }, fingerprint };
}

/** Ids only ever grow: a clock that stands before the newest snapshot is an error, unless it is a matter of seconds. */
async function nextSnapshotId(
  host: Host,
  config: Config,
  set: SetName,
  memory: Memory | undefined,
): Promise<SnapshotId> {
  const stored = setIn(config.store, config.hub, set);
  const ids = lstatIfThere(host.fs, stored.folder) ? snapshotIds(host.fs, stored) : [];
  const newest = [...ids, ...(memory ? [memory.manifest.id] : [])].sort().at(-1);
  for (let tries = 0;; tries++) {
    const id = snapshotIdAt(host.now());
    if (newest === undefined || id > newest) return id;
    const aheadMs = timeOfSnapshotId(newest).getTime() - timeOfSnapshotId(id).getTime();
    if (tries >= CLOCK_WAITS_MAX || aheadMs > CLOCK_WAITS_MAX * CLOCK_WAIT_MS) {
      // From what is remembered the next would be built; without that file it is a full. Restores take the newest.
      const away = [
        ...(ids.includes(newest) ? [`${stored.folder}/${newest}`] : []),
        ...(memory?.manifest.id === newest ? [memoryFile(setFolder(config.stateFolder, set))] : []),
      ];
      throw new BackupError(
        `Cannot take a snapshot of set ${set}: the clock says ${id}, and the newest snapshot is ${newest}`,
        {
          kind: "clock",
          hint: "set the clock right; if the newest snapshot is the one with the wrong time, move away " +
            `${away.join(" and ")}, and the folder ${newest} at every destination`,
        },
      );
    }
    host.checkpoint();
    await new Promise((resolve) => setTimeout(resolve, CLOCK_WAIT_MS));
  }
}

/** How often the clock is looked at again after a run in the same second, and how long apart in milliseconds. */
const CLOCK_WAITS_MAX = 30;
const CLOCK_WAIT_MS = 100;

/** Checks every staged image, and leaves the result beside them once they are on the disk: it vouches for both. */
export async function check(host: Host, config: Config, staged: Staged): Promise<StagedChecks> {
  const folder = setFolder(config.stateFolder, staged.set);
  const checks: Record<string, DatabaseChecks> = {};
  for (const { source, copy } of staged.databases) {
    host.checkpoint();
    if (!copy) continue;
    using file = attempt(`read ${copy.image}`, () => host.fs.open(copy.image, { read: true }));
    const synced = syncBeside(file, copy.image);
    try {
      checks[source] = checkImage(host, copy.image, `check ${source}`);
    } finally {
      await synced;
    }
  }
  writeStagedChecks(host.fs, folder, checks);
  return checks;
}

serveStep<{ config: Config; options: SnapshotOptions }>(
  import.meta,
  async ({ config, options }, { host, tell }): Promise<StagedChecks> => {
    const staged = await snapshot(host, config, options);
    tell(staged);
    return await check(host, config, staged);
  },
);
