/**
 * A destination that is a folder here, such as a mounted disk: `<path>/<hub>/<set>/<snapshot id>`.
 *
 * Invariants: a snapshot appears there whole or not at all; what is there is never overwritten; the folder of the
 * destination itself is never made, because an absent mount would then fill the disk that it was to protect from.
 *
 * @module
 */

import type { FolderDestination } from "../../core/config/config.ts";
import { BackupError } from "../../core/errors.ts";
import { type HubName, INCOMING_PREFIX, SEAL_FILE, SIGNATURE_FILE } from "../../core/names.ts";
import { nameOf, parentOf } from "../../core/paths.ts";
import type { Expected, ExpectedFile, Missing } from "../../core/shipping/shipping.ts";
import { sealChecksum } from "../../core/snapshot/seal.ts";
import { copyContent } from "../file_bytes.ts";
import { diskError, exists, lstatIfThere, placeWhole, removeIfThere } from "../fs.ts";
import type { Fs, Host } from "../host.ts";
import { problemWithPart, type SealedSnapshot } from "../store/store.ts";
import type { Pushed } from "./rsync.ts";

/** Every file of a snapshot with its size, the seal last. */
export function filesOf(fs: Fs, snapshot: SealedSnapshot): ExpectedFile[] {
  return [
    ...snapshot.sealed.seal.parts.map(({ name, bytes }) => ({ name, bytes })),
    { name: SIGNATURE_FILE, bytes: fs.stat(`${snapshot.folder}/${SIGNATURE_FILE}`).bytes },
    { name: SEAL_FILE, bytes: snapshot.sealed.bytes.length },
  ];
}

/** Makes sure that the destination's folder is there. @throws {BackupError} (disk) If not. */
export function requireMounted(fs: Fs, destination: FolderDestination): void {
  if (isMounted(fs, destination)) return;
  throw new BackupError(`Cannot ship to ${destination.name}: there is no folder ${destination.path}`, {
    kind: "disk",
    hint: `mount it, or make that folder once by hand if it is to be on this disk`,
  });
}

/** Whether the destination's folder is there. */
export const isMounted = (fs: Fs, { path }: FolderDestination): boolean =>
  lstatIfThere(fs, path) !== undefined && fs.stat(path).type === "folder";

/**
 * Makes sure that the destination is not the local store, by whatever path: what it holds would count as shipped, and
 * be removed there as not needed here any more.
 *
 * @throws {BackupError} (config) If it is.
 */
export function requireOtherThanStore(
  fs: Fs,
  destination: FolderDestination,
  { store, hub }: { readonly store: string; readonly hub: HubName },
): void {
  if (!exists(fs, `${store}/${hub}`) || !exists(fs, `${destination.path}/${hub}`)) return;
  const here = fs.stat(`${store}/${hub}`);
  const there = fs.stat(`${destination.path}/${hub}`);
  if (here.device !== there.device || here.inode !== there.inode) return;
  throw localStoreError(destination.name, destination.path);
}

/** A destination is the local store by another name. */
export function localStoreError(name: string, place: string): BackupError {
  return new BackupError(`Cannot ship to ${name}: ${place} is the local store itself`, {
    kind: "config",
    hint: 'name another folder under "destinations", such as one on another disk',
  });
}

/**
 * Whether `path`, or what of it exists, lies on one of these devices. A partition of the same disk has another
 * number, so a "no" proves less than a "yes".
 */
export function isOnDevices(fs: Fs, path: string, devices: readonly number[]): boolean {
  let at = path;
  while (at !== "/" && !exists(fs, at)) at = parentOf(at);
  return devices.includes(fs.stat(at).device);
}

/**
 * Copies one snapshot there: written beside, synced, read again and compared with the seal, renamed.
 * A snapshot that is there already is compared, and completed if a file of it is missing.
 *
 * @throws {BackupError} (integrity) If something else is there under one of its names.
 * @throws {BackupError} (disk) If the disk is full, read-only, missing or failing.
 */
export function copySnapshot(host: Host, destination: FolderDestination, snapshot: SealedSnapshot): Pushed {
  const { fs } = host;
  requireMounted(fs, destination);
  const { hub, set, id } = snapshot;
  const what = `ship ${set} ${id} to ${destination.name}`;
  const setFolder = `${destination.path}/${hub}/${set}`;
  const final = `${setFolder}/${id}`;
  const incoming = `${setFolder}/${INCOMING_PREFIX}${id}`;
  try {
    makeFolders(fs, destination.path, [hub, set]);
    removeIfThere(fs, incoming);
    const fresh = !exists(fs, final);
    const folder = fresh ? incoming : final;
    if (fresh) fs.mkdir(incoming, { mode: 0o750 });
    const bytes = fillFolder(host, what, snapshot, folder, fresh ? lostAgain : differs);
    fs.syncFolder(folder);
    if (fresh) fs.rename(incoming, final);
    fs.syncFolder(setFolder);
    return { bytes };
  } catch (error) {
    try {
      removeIfThere(fs, incoming);
    } catch { /* The first error is the one to tell; the next run removes it. */ }
    throw diskError(what, error);
  }
}

/** Makes the folders below `root`, each durably. */
function makeFolders(fs: Fs, root: string, names: readonly string[]): void {
  let folder = root;
  for (const name of names) {
    const parent = folder;
    folder = `${parent}/${name}`;
    if (exists(fs, folder)) continue;
    fs.mkdir(folder, { mode: 0o750 });
    fs.syncFolder(parent);
  }
}

/**
 * Brings every file of the snapshot into `folder`, the seal last. Returns the bytes copied.
 *
 * @param wrong Makes the error for a file that is not what the seal says.
 */
function fillFolder(
  host: Host,
  what: string,
  snapshot: SealedSnapshot,
  folder: string,
  wrong: typeof differs,
): number {
  const { fs, report } = host;
  const { seal, bytes: sealBytes } = snapshot.sealed;
  const total = seal.parts.reduce((sum, part) => sum + part.bytes, 0);
  let copied = 0;
  for (const part of seal.parts) {
    const path = `${folder}/${part.name}`;
    if (!exists(fs, path)) {
      copyFile(host, `${snapshot.folder}/${part.name}`, path, (count) => {
        copied += count;
        report.progress(what, copied, total);
      });
    }
    const problem = problemWithPart(fs, folder, part, () => host.checkpoint());
    if (problem) throw wrong(what, path, problem);
  }
  for (const name of [SIGNATURE_FILE, SEAL_FILE]) {
    const path = `${folder}/${name}`;
    if (!exists(fs, path)) copyFile(host, `${snapshot.folder}/${name}`, path, () => {});
    const wanted = name === SEAL_FILE ? sealBytes : fs.readFile(`${snapshot.folder}/${name}`);
    if (sealChecksum(fs.readFile(path)) !== sealChecksum(wanted)) {
      throw wrong(what, path, "it differs from ours");
    }
  }
  return copied;
}

/** What was written a moment ago is wrong: the disk is failing, or no longer there. */
function lostAgain(what: string, path: string, problem: string): BackupError {
  return new BackupError(`Cannot ${what}: ${path} was just written, and yet ${problem}`, {
    kind: "disk",
    hint: "is that disk still mounted? look at the system's log for errors of it",
  });
}

function differs(what: string, path: string, problem: string): BackupError {
  return new BackupError(`Cannot ${what}: ${path} is not what it should be: ${problem}`, {
    kind: "integrity",
    hint: "look at that disk (`hapi-backup scrub`), set that snapshot's folder there aside, then ship again",
  });
}

/** Copies a file, so that no name ever holds half of it. */
function copyFile(
  { fs, checkpoint }: Host,
  from: string,
  to: string,
  onBytes: (count: number) => void,
): void {
  const beside = `${parentOf(to)}/${INCOMING_PREFIX}${nameOf(to)}`;
  placeWhole(fs, beside, to, () =>
    copyContent(fs, from, beside, 0o640, (count) => {
      checkpoint();
      onBytes(count);
    }));
}

/** Tells which of these snapshots are not there, wholly or in part, by names and sizes only. */
export function missingInFolder(
  fs: Fs,
  destination: FolderDestination,
  hub: HubName,
  expected: readonly Expected[],
): Missing[] {
  requireMounted(fs, destination);
  return expected.flatMap((snapshot) => {
    const { set, id, files } = snapshot;
    const stats = files.map(({ name }) =>
      lstatIfThere(fs, `${destination.path}/${hub}/${set}/${id}/${name}`)
    );
    if (files.every(({ bytes }, n) => stats[n]?.type === "file" && stats[n].bytes === bytes)) return [];
    return [{ ...snapshot, isPartly: stats.some((stat) => stat !== undefined) }];
  });
}
