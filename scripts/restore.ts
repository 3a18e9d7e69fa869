/**
 * Gets a snapshot back: into a folder, or in place.
 *
 * Invariants: what is there is never written over and never removed. A folder is filled beside and appears whole; in
 * place, everything is built and verified beside first, the old files (and the database's `-wal` and `-shm`, which
 * would undo the restore) are set aside by rename, and any failure puts them back. How to undo it is on the disk
 * before the first rename.
 *
 * @module
 */

import {
  describeRestore,
  type Restored,
  type RestoredInPlace,
  type RestoreReport,
  TOLD_LENGTH_MAX,
} from "./core/command_line/reports.ts";
import type { Config } from "./core/config/config.ts";
import { BackupError, ifPossible, reasonOf } from "./core/errors.ts";
import { cleanText } from "./core/format.ts";
import { FILES_PART, isSnapshotId, type SnapshotId } from "./core/names.ts";
import { parentOf } from "./core/paths.ts";
import { pathOfPlace, type Place } from "./core/place.ts";
import { partsRead, type SavedDatabase, type SavedFile } from "./core/snapshot/manifest.ts";
import { DATABASE_FILES } from "./core/snapshot/sqlite_format.ts";
import { sha256OfFile } from "./host/file_hash.ts";
import { attempt, exists, lstatIfThere, makeFolderDurably, removeRestored, syncTree } from "./host/fs.ts";
import type { Fs, Host, OpenFile } from "./host/host.ts";
import { openDatabases, refuseWhileOpen } from "./host/open_files.ts";
import { bring, type Bringing, requireRoomFor } from "./host/restore/bring.ts";
import { openSetOf } from "./host/restore/chosen_snapshot.ts";
import { refuseLong } from "./host/restore/long_names.ts";
import { asideStamp, Moves } from "./host/restore/moves.ts";
import {
  type Opening,
  openManifest,
  openSeal,
  partOf,
  readPartSaying,
} from "./host/restore/open_snapshot.ts";
import { imageBytesMax, rebuildDatabase } from "./host/restore/rebuild.ts";
import type { RestoreJob } from "./host/restore/restore_jobs.ts";
import { finishTree, unpackFiles } from "./host/restore/unpack.ts";
import { serveStep } from "./host/steps/step.ts";

/** Holds what is being restored until it is whole. */
const PARTIAL = ".hapi-backup-restore";

/**
 * Restores a snapshot into `folder`, which must be new or empty: `home/…` and `root/…` appear there together, verified;
 * of a restore that is killed between the two, `home/…` does not.
 *
 * @param only Patterns of places; everything where left out.
 * @throws {BackupError} (usage) If the folder is not empty; (busy); (integrity), (key), (disk). Nothing is left there then.
 */
export async function restore(
  opening: Opening,
  id: SnapshotId,
  folder: string,
  only?: readonly string[],
): Promise<Restored> {
  const { fs } = opening.host;
  refuseFilled(fs, folder);
  const wasThere = exists(fs, folder);
  const partial = `${folder}/${PARTIAL}`;
  const placed: string[] = [];
  let lock: OpenFile | undefined;
  try {
    makeFolderDurably(fs, folder, 0o700);
    lock = lockFolder(fs, folder);
    attempt(`make ${partial}`, () => {
      removeRestored(fs, partial);
      fs.mkdir(partial, { mode: 0o700 });
    });
    const planned = await planRestore(opening, id, only);
    refuseLong(fs, folder, partial, entriesOf(planned));
    await bring(opening, bringingOf(opening, planned, folder));
    await restoreInto(opening, planned, partial, true);
    attempt(`sync ${partial}`, () => syncTree(fs, partial));
    for (const name of fs.readDir(partial).map(({ name }) => name).sort().reverse()) {
      const path = `${folder}/${name}`;
      attempt(`make ${path}`, () => fs.rename(`${partial}/${name}`, path));
      placed.push(path);
    }
    removeRestored(fs, partial);
    attempt(`sync ${folder}`, () => fs.syncFolder(folder));
    return planned;
  } catch (error) {
    if (lock) { for (const path of [partial, ...placed]) removeRestored(fs, path); }
    if (!wasThere) removeIfEmpty(fs, folder);
    throw error;
  } finally {
    lock?.close();
  }
}

/** @throws {BackupError} (usage) If the folder is neither new nor empty. */
function refuseFilled(fs: Fs, folder: string): void {
  const stat = lstatIfThere(fs, folder);
  if (!stat) return;
  const names = stat.type === "folder" ? fs.readDir(folder).map(({ name }) => name) : [folder];
  // What a restore that was killed had not finished is nothing of anybody's.
  if (names.every((name) => name === PARTIAL)) return;
  const isCut = names.includes(PARTIAL);
  throw new BackupError(
    `Cannot restore to ${folder}: ${
      isCut ? "a restore that was cut short lies there" : "it is not an empty folder"
    }`,
    {
      kind: "usage",
      hint: isCut
        ? "what it put there may not be whole: remove it, or name a new folder"
        : "name a new folder; nothing there is written over",
    },
  );
}

/** Removes what restores that were killed had not finished: plaintext that nobody needs. One may be under way there. */
function removeAbandoned(fs: Fs, folder: string): void {
  for (const { name } of fs.readDir(folder)) {
    if (!name.startsWith(`${PARTIAL}-`) || !isSnapshotId(name.slice(PARTIAL.length + 1))) continue;
    const path = `${folder}/${name}`;
    using _lock = lockFolder(fs, path);
    attempt(`remove ${path}`, () => removeRestored(fs, path));
  }
}

/** Keeps a second restore from what this one is building. @throws {BackupError} (busy) If there is one. */
function lockFolder(fs: Fs, folder: string): OpenFile {
  const lock = attempt(`open ${folder}`, () => fs.open(folder, { read: true }));
  try {
    if (lock.tryLock()) return lock;
  } catch {
    return lock; // Not every file system can lock a folder.
  }
  lock.close();
  throw new BackupError(`Cannot restore to ${folder}: another restore is filling it`, {
    kind: "busy",
    hint: "wait for it to end, or restore --to another folder",
  });
}

/** As {@linkcode lockFolder}, of a folder that was made for it: without its lock it does not stay. */
function lockMade(fs: Fs, folder: string): OpenFile {
  try {
    return lockFolder(fs, folder);
  } catch (error) {
    removeIfEmpty(fs, folder);
    throw error;
  }
}

/** What came to lie in a folder meanwhile is somebody's, and stays. */
function removeIfEmpty(fs: Fs, folder: string): void {
  try {
    fs.remove(folder);
  } catch { /* It was not made, or is not empty. */ }
}

/** Says what a restore would bring back, without reading more than the manifest. */
async function planRestore(
  opening: Opening,
  id: SnapshotId,
  only?: readonly string[],
): Promise<Restored> {
  const manifest = await openManifest(opening, openSeal(opening, id));
  // Loaded where it is used: a restore of everything has no use for it.
  const isWanted = only ? (await import("./core/globs.ts")).placeMatcher(only) : () => true;
  const databases = manifest.databases.filter(({ place }) => isWanted(place));
  const files = manifest.files.filter(({ place }) => isWanted(place));
  if (only && databases.length + files.length === 0) {
    throw new BackupError(`Cannot restore from ${id}: nothing in it matches ${only.join(", ")}`, {
      kind: "usage",
      hint: "places look like home/.hapi/hub.env; --dry-run without --only lists them all",
    });
  }
  return { snapshot: id, manifest, databases, files };
}

/** What a restore that is made in `folder` reads and writes. */
const bringingOf = (opening: Opening, planned: Restored, folder: string): Bringing => ({
  action: `restore ${planned.snapshot}`,
  parts: partsRead(planned),
  made: { folder, bytes: bytesOf(opening, planned) },
});

/** How many bytes a restore writes: rather fewer than more. */
function bytesOf(opening: Opening, { databases, files }: Restored): number {
  let bytes = 0;
  for (const database of databases) bytes += imageBytesMax(database);
  for (const [snapshot, wanted] of bySnapshot(files)) {
    const content = wanted.values().flatMap((same) => same).reduce((sum, file) => sum + file.bytes, 0);
    // Zeros are not written: of what a part holds packed, no more is sure to take room than it takes itself.
    bytes += Math.min(content, partOf(openSeal(opening, snapshot).seal, FILES_PART).bytes);
  }
  return bytes;
}

/** @param isWhole Whether folders are to be as they were saved, too: one that is closed to its owner cannot be emptied. */
async function restoreInto(
  opening: Opening,
  planned: Restored,
  root: string,
  isWhole: boolean,
): Promise<void> {
  const { host } = opening;
  for (const database of planned.databases) {
    const path = `${root}/${database.place}`;
    attempt(`make ${parentOf(path)}`, () => host.fs.mkdir(parentOf(path), { recursive: true, mode: 0o700 }));
    await rebuildDatabase(opening, database, path);
    attempt(`write ${path}`, () => {
      host.fs.chmod(path, database.mode);
      host.fs.utime(path, database.mtimeMs);
    });
  }
  for (const [snapshot, wanted] of bySnapshot(planned.files)) {
    await unpackFiles(host, readPartSaying(opening, openSeal(opening, snapshot), FILES_PART), wanted, root);
  }
  finishTree(host, planned.files.filter(({ type }) => isWhole || type !== "folder"), root);
}

/** Which members of which snapshot's tar hold the content of which files. */
export function bySnapshot(files: readonly SavedFile[]): Map<SnapshotId, Map<Place, SavedFile[]>> {
  const wanted = new Map<SnapshotId, Map<Place, SavedFile[]>>();
  for (const file of files) {
    if (!file.stored) continue;
    const members = wanted.get(file.stored.snapshot) ?? new Map<Place, SavedFile[]>();
    wanted.set(file.stored.snapshot, members);
    const same = members.get(file.stored.member);
    // Not copied: a thousand files may be empty, all of them one member.
    if (same) same.push(file);
    else members.set(file.stored.member, [file]);
  }
  return wanted;
}

/**
 * Puts a snapshot back where it came from.
 *
 * @throws {BackupError} (source) If a process has a database open, named; otherwise as {@linkcode restore}. Everything
 * is as it was then.
 */
export async function restoreInPlace(
  opening: Opening,
  config: Config,
  id: SnapshotId,
  only?: readonly string[],
): Promise<RestoredInPlace> {
  const { host } = opening;
  const { fs } = host;
  const planned = await planRestore(opening, id, only);
  const { near, beside } = siteOf(fs, config, planned);
  const targetOf = (place: Place) => realTarget(fs, pathOfPlace(place, config.home));
  await refuseWhileOpen(host, planned.databases.map(({ place }) => targetOf(place)));

  removeAbandoned(fs, near);
  const moves = movesFor(host, config);
  await bring(opening, bringingOf(opening, planned, near));
  attempt(`make ${beside}`, () => fs.mkdir(beside, { mode: 0o700 }));
  using _lock = lockMade(fs, beside);
  try {
    await restoreInto(opening, planned, beside, false);
    const kept = planMoves(host, config, planned, moves, beside);
    await refuseWhileOpen(host, planned.databases.map(({ place }) => targetOf(place)));
    const isRoots = fs.stat(beside).uid === 0;
    moves.carryOut();
    if (isRoots) sayRoots(host, near, moves.planned());
    return { ...planned, kept, ...moves.planned(), undoScript: moves.script };
  } finally {
    try {
      removeRestored(fs, beside);
    } catch (error) {
      // Whether it is restored was settled before.
      host.report.warn(`${beside} holds plaintext and cannot be removed (${reasonOf(error)}): remove it`);
    }
  }
}

/** The modes of what is restored are for its owner, and that is who restored it. */
function sayRoots({ fs, report }: Host, near: string, { placed }: Pick<RestoredInPlace, "placed">): void {
  const { uid } = fs.stat(near);
  if (uid === 0 || placed.length === 0) return;
  report.warn(
    `what was put in place belongs to root, and ${near} to user ${uid}, who may not be able to use it: ` +
      `give it to that user (chown ${uid}:), or undo it and run this as that user`,
  );
}

/**
 * Where a restore in place builds what it puts in place: on the disk that the database lives on, so that the swap is a
 * rename.
 *
 * @throws {BackupError} (disk) If there, or in place, a name or path is too long.
 */
function siteOf(fs: Fs, { home }: Config, planned: Restored): { near: string; beside: string } {
  const entries = entriesOf(planned);
  refuseLong(fs, nearestFolder(fs, home), home, entries);
  const anchor = entries[0]?.place;
  const near = nearestFolder(fs, anchor ? parentOf(realTarget(fs, pathOfPlace(anchor, home))) : home);
  const beside = `${near}/${PARTIAL}-${planned.snapshot}`;
  refuseLong(fs, near, beside, entries);
  return { near, beside };
}

const entriesOf = ({ databases, files }: Restored) => [...databases, ...files];

/** Says of each path what a restore in place would do to it, as things stand. */
function planInPlace(opening: Opening, config: Config, planned: Restored): RestoreReport {
  const { host } = opening;
  const { near, beside } = siteOf(host.fs, config, planned);
  warnOfRoom(opening, planned, near);
  const moves = movesFor(host, config);
  const kept = planMoves(host, config, planned, moves, beside);
  return { ...planned, kept, ...moves.planned() };
}

const movesFor = (host: Host, { stateFolder }: Config): Moves =>
  new Moves(host, `${stateFolder}/restores`, asideStamp(host.now()));

/**
 * On the machine of the hub it is a slip to be somebody else, such as root, and have another home; on a new one it may be
 * meant.
 */
function sayOtherHome({ report }: Host, { home }: Config, { manifest, databases }: Restored): void {
  for (const { source, place } of databases) {
    const was = manifest.sources.find(({ name }) => name === source)?.path;
    const path = pathOfPlace(place, home);
    if (was === undefined || was === path || !was.endsWith(place.replace(/^home(?=\/)/, ""))) continue;
    report.warn(
      `${cleanText(was)} is put in place as ${
        cleanText(path)
      }: if that is not meant, run this as the user whose hub it is`,
    );
  }
}

/** Plans to put what is in the folder `from` where it came from. @returns The paths that are as they should be. */
function planMoves(host: Host, config: Config, planned: Restored, moves: Moves, from: string): string[] {
  sayOtherHome(host, config, planned);
  const named = new Set(planned.manifest.sources.map(({ path }) => path));
  const taken = new Map<string, SavedDatabase | SavedFile>();
  for (const database of planned.databases) {
    const { place } = database;
    const target = realTarget(host.fs, pathOfPlace(place, config.home));
    const other = taken.get(moves.whereabouts(target));
    if (other?.sha256 === database.sha256) continue;
    if (other) throw oneFile(place, other.place, target);
    moves.place(`${from}/${place}`, target, DATABASE_FILES.slice(1));
    for (const end of DATABASE_FILES) taken.set(moves.whereabouts(target + end), database);
  }
  const kept: string[] = [];
  for (const file of planned.files) {
    const path = pathOfPlace(file.place, config.home);
    // Only a link that the operator named was followed when it was saved.
    const target = named.has(path) && file.type !== "link" ? realTarget(host.fs, path) : path;
    const where = moves.whereabouts(target);
    const other = taken.get(where);
    // A folder that held the database under another path may have been saved with a torn copy of it.
    if (other && ("chain" in other || isSame(other, file))) continue;
    if (other) throw oneFile(file.place, other.place, target);
    taken.set(where, file);
    if (moves.isThere(target) && isAsSaved(host, target, file)) kept.push(target);
    else if (file.type === "folder") moves.makeFolder(target, file.mode);
    else moves.place(`${from}/${file.place}`, target);
  }
  return kept;
}

/** Whether two places were saved with the same. */
const isSame = (one: SavedFile, other: SavedFile): boolean =>
  one.type === other.type && one.sha256 === other.sha256 && one.target === other.target;

function oneFile(place: Place, other: Place, path: string): BackupError {
  return new BackupError(
    `Cannot restore ${cleanText(place)} in place: here it is the same file as ${
      cleanText(other)
    }, with other content: ${cleanText(path)}`,
    { kind: "usage", hint: "choose one of them with --only, or restore --to a new folder" },
  );
}

/** A source that is a link is restored to where the link points, as it was saved from there. */
const realTarget = (fs: Fs, path: string): string => ifPossible(() => fs.realPath(path)) ?? path;

function nearestFolder(fs: Fs, path: string): string {
  let folder = path;
  while (folder !== "/" && !exists(fs, folder)) folder = parentOf(folder);
  return folder;
}

function isAsSaved({ fs, checkpoint }: Host, path: string, file: SavedFile): boolean {
  const stat = lstatIfThere(fs, path);
  if (stat?.type !== file.type) return false;
  if (file.type === "folder") return true;
  if (file.type === "link") return fs.readLink(path) === file.target;
  if (stat.bytes !== file.bytes || stat.mode !== file.mode) return false;
  try {
    return sha256OfFile(fs, path, checkpoint, file.bytes + 1) === file.sha256;
  } catch (error) {
    if (error instanceof BackupError) throw error; // Cancelled.
    return false; // What cannot be read, such as a file that root made meanwhile, is set aside.
  }
}

/** What would be refused in earnest is said of a dry run. */
function warnOfRoom(opening: Opening, planned: Restored, folder: string): void {
  try {
    requireRoomFor(opening, bringingOf(opening, planned, folder));
  } catch (error) {
    opening.host.report.warn(reasonOf(error));
  }
}

/** As {@linkcode warnOfRoom}. */
async function warnOfUsers(host: Host, config: Config, { databases }: Restored): Promise<void> {
  const paths = databases.map(({ place }) => realTarget(host.fs, pathOfPlace(place, config.home)));
  for (const { path, users } of await openDatabases(host, paths)) {
    host.report.warn(`${path} is open in ${users.join(", ")}: as long as it is, it would not be restored`);
  }
}

/** Who asks for what does not count as good is to know what is wrong with it. */
function saySuspicions({ report }: Host, { snapshot, manifest }: Restored): void {
  for (const { code, source, detail } of manifest.suspicions) {
    const lacks = code === "unreadable"
      ? `without what could not be read of ${source}`
      : `suspect: ${source}`;
    report.warn(`${snapshot} is ${lacks}: ${cleanText(detail, TOLD_LENGTH_MAX)}`);
  }
}

async function doJob(host: Host, job: RestoreJob): Promise<RestoreReport> {
  const { config, only } = job;
  await using set = await openSetOf(host, job);
  const { opening } = set;
  const id = await set.choose(job.which);
  if (job.dryRun) {
    if (job.to !== undefined) refuseFilled(host.fs, job.to);
    const planned = await planRestore(opening, id, only);
    if (!job.inPlace) {
      // Of the disk of a folder that is to be made, this step may not ask.
      if (exists(host.fs, job.to!)) warnOfRoom(opening, planned, job.to!);
      return planned;
    }
    await warnOfUsers(host, config, planned);
    return planInPlace(opening, config, planned);
  }
  if (job.inPlace) return await restoreInPlace(opening, config, id, only);
  return await restore(opening, id, job.to!, only);
}

// Told here: what a snapshot of many files holds is not to be sent from thread to thread.
serveStep<RestoreJob>(import.meta, async (job, { host }): Promise<string> => {
  const report = await doJob(host, job);
  saySuspicions(host, report);
  return job.json ? JSON.stringify({ ok: true, ...report }) : describeRestore(report, job);
});
