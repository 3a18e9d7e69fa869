/**
 * A store as a folder on this machine: `<store>/<hub>/<set>/<snapshot id>/`.
 *
 * Reading trusts nothing: names are parsed, seals are parsed, and what is neither a set nor a snapshot is passed over.
 * One hub's own folder, `<store>/<hub>`, is accepted wherever a store is.
 *
 * @module
 */

import { BackupError, ifPossible, reasonOf } from "../../core/errors.ts";
import {
  type HubName,
  isHubName,
  isSetName,
  isSnapshotId,
  SEAL_FILE,
  type SetName,
  SIGNATURE_FILE,
  type SnapshotId,
} from "../../core/names.ts";
import { nameOf } from "../../core/paths.ts";
import {
  parseSeal,
  type Seal,
  SEAL_BYTES_MAX,
  sealChecksum,
  type SealedPart,
} from "../../core/snapshot/seal.ts";
import { sha256OfFile } from "../file_hash.ts";
import { attempt, diskError, isMissing, kindOf, lstatIfThere } from "../fs.ts";
import type { Fs } from "../host.ts";

/** One set of one hub in a store. */
export interface StoredSet {
  readonly hub: HubName;
  readonly set: SetName;
  readonly folder: string;
  /** What its folder is called in the store that it was fetched from. */
  readonly called?: string;
}

/** A folder named like a snapshot. Without a readable seal it is not one. */
export type StoredSnapshot = SealedSnapshot | UnsealedSnapshot;

/** Its own folder, and what that is called, in place of the set's. */
interface SnapshotFolder extends StoredSet {
  readonly id: SnapshotId;
}

/** A snapshot whose seal could be read: the seal and its exact bytes. */
export interface SealedSnapshot extends SnapshotFolder {
  readonly sealed: {
    readonly seal: Seal;
    readonly bytes: Uint8Array;
    readonly checksum: string;
  };
}

/** Why there is no seal. */
export interface UnsealedSnapshot extends SnapshotFolder {
  readonly sealed: {
    readonly seal: undefined;
    readonly state: "incomplete" | "unreadable";
    readonly problem: string;
  };
}

/** Whether its seal could be read. */
export function isSealed(snapshot: StoredSnapshot): snapshot is SealedSnapshot {
  return snapshot.sealed.seal !== undefined;
}

/** What becomes of folders that cannot be read. */
export interface ClosedFolders {
  /** Only what may be this hub's matters; all does where left out. */
  readonly hubName?: string | undefined;
  /** Told of each that matters; where left out, the first is thrown. */
  readonly onClosed?: ((error: BackupError) => void) | undefined;
}

/**
 * Finds the sets under `root`, which is a store or one hub's folder in it. Sorted by hub, then set.
 *
 * @throws {BackupError} (usage) If there is no such folder.
 * @throws {BackupError} (disk) If it, or a folder in it that {@linkcode ClosedFolders} says to throw of, cannot be read.
 */
export function findSets(fs: Fs, root: string, { hubName, onClosed }: ClosedFolders = {}): StoredSet[] {
  let names: string[];
  try {
    names = foldersIn(fs, root);
  } catch (error) {
    if (!isMissing(error)) throw diskError(`read ${root}`, error);
    throw new BackupError(`Cannot read store ${root}: there is no such folder`, {
      kind: "usage",
      hint: "name the folder that holds the hubs' folders, or one hub's folder in it",
    });
  }
  const sets: StoredSet[] = [];
  const matters = (hub: string) => hubName === undefined || hub === hubName;
  for (const name of names) {
    // Nothing of ours has such a name: lost+found is for root alone.
    if (!isHubName(name) && !isSetName(name)) continue;
    let inside: string[];
    try {
      inside = attempt(`read ${root}/${name}`, () => foldersIn(fs, `${root}/${name}`));
    } catch (error) {
      if (!matters(name) && !matters(nameOf(root))) continue;
      if (!onClosed || !(error instanceof BackupError)) throw error;
      onClosed(error);
      continue;
    }
    // A set holds snapshots, a hub holds sets: the names of what is inside tell which this is.
    if (inside.some(isSnapshotId)) {
      const hub = hubOf(fs, `${root}/${name}`, inside) ?? nameOf(root);
      if (isHubName(hub) && isSetName(name)) sets.push({ hub, set: name, folder: `${root}/${name}` });
    } else if (isHubName(name)) {
      sets.push(...inside.filter(isSetName).map((set) => setIn(root, name, set)));
    }
  }
  return sets.sort((a, b) => compareText(a.hub, b.hub) || compareText(a.set, b.set));
}

/** Whose set it is: a copy of a hub's folder may be called anything, so its newest readable seal tells. */
function hubOf(fs: Fs, folder: string, names: readonly string[]): string | undefined {
  for (const id of names.filter(isSnapshotId).sort().reverse()) {
    const seal = sealIn(fs, `${folder}/${id}`);
    if (seal) return seal.hub;
  }
  return undefined;
}

/** The seal in a snapshot's folder, whoever made it; undefined where there is none that can be read. */
export function sealIn(fs: Fs, folder: string): Seal | undefined {
  const path = `${folder}/${SEAL_FILE}`;
  return ifPossible(() => {
    const { type, bytes } = fs.lstat(path);
    if (type !== "file" || bytes > SEAL_BYTES_MAX) return undefined;
    return parseSeal(new TextDecoder().decode(fs.readFile(path)), path);
  });
}

/**
 * The sets of one hub in a store that holds hubs, sorted; none if it is not there. Other hubs are not looked at.
 *
 * @throws {BackupError} (disk) If something that is no folder is in its place, or in the store's.
 */
export function setsOfHub(fs: Fs, store: string, hub: HubName): StoredSet[] {
  const folder = `${store}/${hub}`;
  if (!isMade(fs, folder)) return [];
  return foldersIn(fs, folder).filter(isSetName).sort().map((set) => setIn(store, hub, set));
}

/** Names of the folders in `path`, without those being written. */
function foldersIn(fs: Fs, path: string): string[] {
  return fs.readDir(path).filter(({ name, type }) => type === "folder" && !name.startsWith("."))
    .map(({ name }) => name);
}

/** The ids of the snapshot folders of a set, oldest first, whether sealed or not. */
export function snapshotIds(fs: Fs, { folder }: StoredSet): SnapshotId[] {
  return foldersIn(fs, folder).filter(isSnapshotId).sort();
}

/** Reads one snapshot's seal, and sees that it has a signature. Problems are returned, not thrown. */
export function readSnapshot(
  fs: Fs,
  { hub, set, folder, called }: StoredSet,
  id: SnapshotId,
): StoredSnapshot {
  const found: SnapshotFolder = {
    hub,
    set,
    id,
    folder: `${folder}/${id}`,
    ...(called === undefined ? {} : { called: `${called}/${id}` }),
  };
  const path = `${found.folder}/${SEAL_FILE}`;
  const told = `${found.called ?? found.folder}/${SEAL_FILE}`;
  try {
    const stat = fs.lstat(path);
    if (stat.type !== "file") return bad("unreadable", `${told} is ${kindOf(stat)}`);
    if (stat.bytes > SEAL_BYTES_MAX) {
      return bad("unreadable", `${told} has ${stat.bytes} bytes, which no seal has`);
    }
    const bytes = fs.readFile(path);
    const seal = parseSeal(new TextDecoder().decode(bytes), told);
    if (seal.hub !== hub || seal.set !== set || seal.id !== id) {
      return bad("unreadable", `its seal belongs to ${seal.hub}/${seal.set}/${seal.id}`);
    }
    const signaturePath = `${found.folder}/${SIGNATURE_FILE}`;
    const signature = lstatIfThere(fs, signaturePath);
    if (!signature) return bad("incomplete", `its seal has no signature: there is no ${SIGNATURE_FILE}`);
    if (signature.type !== "file" || signature.bytes > 65_536) {
      return bad("unreadable", `${found.called ?? found.folder}/${SIGNATURE_FILE} is no signature`);
    }
    return { ...found, sealed: { seal, bytes, checksum: sealChecksum(bytes) } };
  } catch (error) {
    if (isMissing(error)) {
      const isThere = lstatIfThere(fs, found.folder) !== undefined;
      return bad(
        "incomplete",
        isThere ? "it has no seal: its upload or its run did not finish" : "it is not in this store",
      );
    }
    return bad("unreadable", reasonOf(error));
  }

  function bad(state: "incomplete" | "unreadable", problem: string): UnsealedSnapshot {
    return { ...found, sealed: { seal: undefined, state, problem } };
  }
}

/** Reads the signature of a seal. @throws {BackupError} (integrity) If it cannot be read. */
export function readSignature(fs: Fs, { folder, called = folder }: SealedSnapshot): string {
  try {
    return new TextDecoder().decode(fs.readFile(`${folder}/${SIGNATURE_FILE}`));
  } catch (error) {
    throw new BackupError(`Cannot read ${called}/${SIGNATURE_FILE}: ${reasonOf(error)}`, {
      kind: "integrity",
      cause: error,
    });
  }
}

/** Reads all snapshots of a set, oldest first. */
export function readSet(fs: Fs, set: StoredSet): StoredSnapshot[] {
  return snapshotIds(fs, set).map((id) => readSnapshot(fs, set, id));
}

/** The set's folder in a store, whether it exists or not. */
export function setIn(store: string, hub: HubName, set: SetName): StoredSet {
  return { hub, set, folder: `${store}/${hub}/${set}` };
}

/** Reads all snapshots of a set that may have no folder yet. @throws {BackupError} (disk) If it cannot be read. */
export function readSetIfThere(fs: Fs, set: StoredSet): StoredSnapshot[] {
  return attempt(`read ${set.folder}`, () => isMade(fs, set.folder) ? readSet(fs, set) : []);
}

/** Whether a folder is there, which its first snapshot makes: a file or pipe in place of one on the way to it is an error. */
function isMade(fs: Fs, folder: string): boolean {
  return attempt(`read ${folder}`, () => {
    try {
      fs.lstat(folder);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      if (!isMissing(error)) throw error;
      throw new BackupError(`Cannot read ${folder}: something on the way to it is no folder`, {
        kind: "disk",
        hint: "look at what that is, and move it aside",
      });
    }
  });
}

/** Reads the seals of a set that may have no folder yet, oldest first. */
export function readSeals(fs: Fs, set: StoredSet): Seal[] {
  return readSetIfThere(fs, set).filter(isSealed).map(({ sealed }) => sealed.seal);
}

/** What is wrong with a part before it is read: undefined if a file of the right size is there. */
export function problemWithSize(fs: Fs, path: string, part: SealedPart): string | undefined {
  const stat = lstatIfThere(fs, path);
  if (!stat) return "it is missing";
  if (stat.type !== "file") return `it is ${kindOf(stat)}, not a file`;
  if (stat.bytes !== part.bytes) return `it has ${stat.bytes} bytes where the seal says ${part.bytes}`;
  return undefined;
}

/** What is wrong with a part that was read, by its SHA-256. */
export const problemWithChecksum = (sha256: string | undefined, part: SealedPart): string | undefined =>
  sha256 === part.sha256 ? undefined : `its SHA-256 is ${sha256} where the seal says ${part.sha256}`;

/**
 * Reads a part whole from the disk and compares size and SHA-256 with the seal.
 *
 * @param onBytes Called with each chunk's length, for progress and limits.
 * @returns What is wrong with it, or undefined if nothing.
 * @throws {BackupError} What `onBytes` throws: an interruption says nothing of the part.
 */
export function problemWithPart(
  fs: Fs,
  folder: string,
  part: SealedPart,
  onBytes: (count: number) => void = () => {},
): string | undefined {
  const path = `${folder}/${part.name}`;
  try {
    const problem = problemWithSize(fs, path, part);
    if (problem !== undefined) return problem;
    // Most parts are small, and there may be 100,000 of them.
    const sha256 = sha256OfFile(fs, path, onBytes, part.bytes + 1);
    return problemWithChecksum(sha256, part);
  } catch (error) {
    if (error instanceof BackupError) throw error;
    return `it cannot be read: ${reasonOf(error)}`;
  }
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
