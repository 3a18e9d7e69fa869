/**
 * The file system of this machine, behind the seam of host.ts.
 *
 * @module
 */

import type { Fs, OpenFile, OpenOptions, Stat } from "./host.ts";
import { BackupError, ifPossible, reasonOf } from "../core/errors.ts";
import { parentOf } from "../core/paths.ts";
import { openPositioned, statfs } from "./node_fs.ts";

/**
 * File systems that store every byte they are given, by the numbers of linux/magic.h: ext2 to ext4, XFS, tmpfs, FAT,
 * exFAT.
 */
const STORING_ALL: readonly number[] = [0xef53, 0x58465342, 0x01021994, 0x4d44, 0x2011bab0];

/** The real file system. */
export const realFs: Fs = {
  open: (path, options) => openReal(path, options),
  stat: (path) => statOf(Deno.statSync(path)),
  lstat: (path) => statOf(Deno.lstatSync(path)),
  readDir: (path) => [...Deno.readDirSync(path)].map((entry) => ({ name: entry.name, type: typeOf(entry) })),
  readLink: (path) => Deno.readLinkSync(path),
  realPath: (path) => Deno.realPathSync(path),
  readFile: (path) => {
    requireNoPipe(path);
    return Deno.readFileSync(path);
  },
  mkdir: (path, options) => Deno.mkdirSync(path, options ?? {}),
  rename: (from, to) => Deno.renameSync(from, to),
  remove: (path, options) => Deno.removeSync(path, options ?? {}),
  symlink: (target, path) => Deno.symlinkSync(target, path),
  chmod: (path, mode) => Deno.chmodSync(path, mode),
  utime(path, mtimeMs) {
    // As a date: as numbers of seconds times come out a millisecond off now and then. Deno 2.8 refuses fractions of
    // seconds before 1970.
    const time = new Date(mtimeMs < 0 ? Math.floor(mtimeMs / 1000) * 1000 : mtimeMs);
    Deno.utimeSync(path, time, time);
  },
  syncFolder: (path) => {
    using folder = Deno.openSync(path, { read: true });
    folder.syncSync();
  },
  freeBytes: (path) => {
    const disk = ifPossible(() => statfs(path));
    return disk && disk.blocks > 0 ? disk.bavail * disk.bsize : undefined;
  },
  roomBytes: (path) => {
    const disk = ifPossible(() => statfs(path));
    return disk && disk.blocks > 0 && STORING_ALL.includes(disk.type) ? disk.bfree * disk.bsize : undefined;
  },
  freeFiles: (path) => {
    const disk = ifPossible(() => statfs(path));
    return disk && disk.files > 0 ? { free: disk.ffree, total: disk.files } : undefined;
  },
};

/** A pipe that nobody writes into is waited for without end. */
function requireNoPipe(path: string): void {
  const stat = statOf(Deno.statSync(path));
  if (stat.type !== "other") return;
  throw new BackupError(`Cannot read ${path}: it is ${kindOf(stat)}`, {
    kind: "disk",
    hint: "move it aside, or name the file itself",
  });
}

function openReal(path: string, options: OpenOptions): OpenFile {
  const { scattered = false, ...others } = options;
  const file = Deno.openSync(path, others);
  // What fails there is tried again here, and told as all else is.
  const positioned = scattered ? ifPossible(() => openPositioned(path, options.write === true)) : undefined;
  let closed = false;
  let locked = false;
  const close = () => {
    if (closed) return;
    closed = true;
    // A child that another thread is just starting still shares the file: closing alone would leave it locked.
    if (locked) file.unlockSync();
    file.close();
    positioned?.close();
  };
  const writeAll = (bytes: Uint8Array) => {
    let done = file.writeSync(bytes);
    while (done < bytes.length) done += file.writeSync(bytes.subarray(done));
  };
  const readAt = (buffer: Uint8Array, position: number) => {
    file.seekSync(position, Deno.SeekMode.Start);
    let count = file.readSync(buffer) ?? 0;
    let done = count;
    while (count > 0 && done < buffer.length) {
      count = file.readSync(buffer.subarray(done)) ?? 0;
      done += count;
    }
    return done;
  };
  const writeAt = (bytes: Uint8Array, position: number) => {
    file.seekSync(position, Deno.SeekMode.Start);
    writeAll(bytes);
  };
  return {
    read: (buffer) => file.readSync(buffer) ?? 0,
    reading: async (buffer) => await file.read(buffer) ?? 0,
    readAt(buffer, position) {
      const count = positioned && ifPossible(() => positioned.readAt(buffer, position));
      return count === buffer.length ? count : readAt(buffer, position);
    },
    write: writeAll,
    writeAt(bytes, position) {
      const count = positioned && ifPossible(() => positioned.writeAt(bytes, position));
      if (count !== bytes.length) writeAt(bytes, position);
    },
    truncate: (bytes) => file.truncateSync(bytes),
    sync: () => file.syncSync(),
    syncing: () => file.sync(),
    stat: () => statOf(file.statSync()),
    tryLock: () => locked = file.tryLockSync(true),
    close,
    [Symbol.dispose]: close,
  };
}

function statOf(info: Deno.FileInfo): Stat {
  return {
    type: typeOf(info),
    bytes: info.size,
    diskBytes: info.blocks === null ? info.size : info.blocks * 512,
    mode: (info.mode ?? 0) & 0o7777,
    uid: info.uid ?? 0,
    // NaN is a time that no Date holds, such as a damaged disk may tell: as good as none.
    mtimeMs: info.mtime?.getTime() || 0,
    ctimeMs: info.ctime?.getTime() || 0,
    inode: info.ino ?? 0,
    device: info.dev,
  };
}

function typeOf(entry: { isFile: boolean; isDirectory: boolean; isSymlink: boolean }): Stat["type"] {
  if (entry.isSymlink) return "link";
  if (entry.isFile) return "file";
  return entry.isDirectory ? "folder" : "other";
}

/** Whether anything is at `path` (a dangling link counts). Errors other than "not found" are thrown. */
export function exists(fs: Fs, path: string): boolean {
  return lstatIfThere(fs, path) !== undefined;
}

/** What is there, in words: `a folder`. */
export const kindOf = ({ type }: Pick<Stat, "type">): string =>
  type === "other" ? "a socket, pipe or device" : `a ${type}`;

/** What is at `path`, or undefined if nothing. Errors other than "not found" are thrown. */
export function lstatIfThere(fs: Fs, path: string): Stat | undefined {
  try {
    return fs.lstat(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Whether an error says that nothing is there: the file, or a folder on the way to it. */
export function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}

/** What the system says, without the path that Deno tells with it: for messages that name it themselves. */
export const systemReason = (error: unknown): string =>
  reasonOf(error).replace(/(\(os error \d+\)): \w+ '[^]*'$/, "$1");

/** The text of a file, or undefined if there is none. */
export function readTextIfThere(fs: Fs, path: string): string | undefined {
  try {
    return new TextDecoder().decode(fs.readFile(path));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/** Of a longer log only the end is read (bytes): years of it. */
const LOG_END_BYTES_MAX = 8 << 20;

/**
 * The end of a log, or all of it, as text; undefined if there is none. Its first line may be cut.
 *
 * @throws What does not name the log: whoever reads one goes on without, and says so.
 */
export function readLogIfThere(fs: Fs, path: string): string | undefined {
  try {
    const stat = fs.stat(path);
    if (stat.type !== "file") throw new Error(`it is ${kindOf(stat)}`);
    using file = fs.open(path, { read: true });
    const end = new Uint8Array(Math.min(stat.bytes, LOG_END_BYTES_MAX));
    return new TextDecoder().decode(end.subarray(0, file.readAt(end, stat.bytes - end.length)));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

/**
 * Writes a file so that a crash leaves the old one or the new one, whole: written beside, synced, renamed,
 * the folder synced. Mode 0600 unless told otherwise.
 *
 * @param owner The user whom the file belongs to that is replaced: it is not taken away from another.
 */
export function writeFileDurably(
  fs: Fs,
  path: string,
  content: string | Uint8Array | Iterable<Uint8Array>,
  mode = 0o600,
  owner?: number,
): void {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const pieces = bytes instanceof Uint8Array ? [bytes] : bytes;
  const beside = `${path}.tmp`;
  attempt(`write ${path}`, () =>
    placeWhole(fs, beside, path, () => {
      using file = fs.open(beside, { write: true, createNew: true, mode });
      if (owner !== undefined && file.stat().uid !== owner) throw ownedByAnother(path, owner);
      for (const piece of pieces) file.write(piece);
      // What others are to read, such as a receipt, they are to read under the units' UMask=0077, too. A disk that knows
      // no modes shows them all, and may refuse to change any.
      if ((mode & ~file.stat().mode) !== 0) fs.chmod(beside, mode);
      file.sync();
    }));
  fs.syncFolder(parentOf(path));
}

const ownedByAnother = (path: string, owner: number): BackupError =>
  new BackupError(`Cannot write ${path}: it belongs to user ${owner}, who could not read it any more`, {
    kind: "config",
    hint: `run this as that user (\`getent passwd ${owner}\` says who that is)`,
  });

/** Has a file made under the name `beside`, and then renames it: `path` never holds half a file, and nothing stays beside. */
export function placeWhole(fs: Fs, beside: string, path: string, make: () => void): void {
  removeIfThere(fs, beside);
  try {
    make();
    fs.rename(beside, path);
  } catch (error) {
    try {
      removeIfThere(fs, beside);
    } catch { /* The first error is the one to tell. */ }
    throw error;
  }
}

/** Appends one line to a log and syncs it. A line cut by a crash is ended first, so that it spoils no other. */
export function appendLineDurably(fs: Fs, path: string, line: string): void {
  try {
    using file = fs.open(path, { read: true, write: true, create: true, mode: 0o600 });
    const { bytes } = file.stat();
    const last = new Uint8Array(1);
    const cut = bytes > 0 && file.readAt(last, bytes - 1) === 1 && last[0] !== 0x0a;
    file.writeAt(new TextEncoder().encode(`${cut ? "\n" : ""}${line}\n`), bytes);
    file.sync();
  } catch (error) {
    throw diskError(`write ${path}`, error);
  }
}

/**
 * Puts an open file on the disk beside other work. The file must stay open until it settles; what fails is told to who
 * awaits it, and to nobody before.
 *
 * @throws {BackupError} (disk)
 */
export function syncBeside(file: OpenFile, path: string): Promise<void> {
  const synced = Promise.try(() => file.syncing()).catch((error) => {
    throw diskError(`write ${path}`, error);
  });
  synced.catch(() => {});
  return synced;
}

/**
 * Makes a folder and all that is missing on the way to it, durably as far up as this step may look.
 *
 * @throws {BackupError} (disk)
 */
export function makeFolderDurably(fs: Fs, path: string, mode: number): void {
  const missing: string[] = [];
  try {
    withinReach(() => {
      for (let at = path; !exists(fs, at); at = parentOf(at)) missing.push(at);
    });
    fs.mkdir(path, { recursive: true, mode });
    for (const folder of missing) withinReach(() => fs.syncFolder(parentOf(folder)));
  } catch (error) {
    throw diskError(`make ${path}`, error);
  }
}

/**
 * Does what makes a file or folder at `path`, and then makes the names of all that was missing on the way to it durable:
 * for who may look there, where a step may not.
 *
 * @throws {BackupError} (disk)
 */
export async function makingDurably<T>(fs: Fs, path: string, work: () => Promise<T>): Promise<T> {
  const missing: string[] = [];
  for (let at = path; !exists(fs, at); at = parentOf(at)) missing.push(at);
  const done = await work();
  for (const folder of missing.filter((folder) => exists(fs, folder))) {
    attempt(`sync ${parentOf(folder)}`, () => fs.syncFolder(parentOf(folder)));
  }
  return done;
}

/** Does what it can of something that a step may not be permitted to do. */
function withinReach(work: () => void): void {
  try {
    work();
  } catch (error) {
    const isBeyond = error instanceof Deno.errors.NotCapable ||
      error instanceof Deno.errors.PermissionDenied;
    if (!isBeyond) throw error;
  }
}

/** Makes every name below a folder durable. */
export function syncTree(fs: Fs, folder: string): void {
  for (const { name, type } of fs.readDir(folder)) {
    if (type === "folder") syncTree(fs, `${folder}/${name}`);
  }
  fs.syncFolder(folder);
}

/** Removes a file or a whole folder; that nothing is there is fine. */
export function removeIfThere(fs: Fs, path: string): void {
  try {
    fs.remove(path, { recursive: true });
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

/** As {@linkcode removeIfThere}, of what was restored: its folders may be closed to their owner, as they were saved. */
export function removeRestored(fs: Fs, path: string): void {
  try {
    removeIfThere(fs, path);
  } catch (error) {
    if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
    openFolders(fs, path);
    removeIfThere(fs, path);
  }
}

function openFolders(fs: Fs, path: string): void {
  if (lstatIfThere(fs, path)?.type !== "folder") return;
  fs.chmod(path, 0o700);
  for (const { name, type } of fs.readDir(path)) if (type === "folder") openFolders(fs, `${path}/${name}`);
}

/** What Deno says of a path below /dev, /proc or /sys, whatever else a step may read and write. */
const WITHHELD = /^Requires all access to ("[^]+"),/;

/**
 * What a person can be told of an error: itself, or what the system said where nobody closer by had more to say.
 * Undefined for anything else, which is a fault of ours.
 */
export function knownError(error: unknown): BackupError | undefined {
  if (error instanceof BackupError) return error;
  const reason = reasonOf(error);
  if (!/\(os error \d+\)/.test(reason) && !WITHHELD.test(reason)) return undefined;
  // What stands for these reasons does not say where.
  const doing = /\(os error (?:27|28|30|122)\): (\w+ '[^]*')/.exec(reason)?.[1];
  return diskError(doing === undefined ? "go on" : `go on with ${doing}`, error);
}

/**
 * Does something with the file system. A fault of ours stays what it is: no disk is to be looked at for it.
 *
 * @throws {BackupError} (disk) "Cannot <action>", if that fails.
 */
export function attempt<T>(action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw isFaultOfOurs(error) ? error : diskError(action, error);
  }
}

/** Whether the program was wrong, and not what it met. Deno makes a TypeError of what the system calls invalid, too. */
const isFaultOfOurs = (error: unknown): boolean =>
  (error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError) &&
  !/\(os error \d+\)/.test(error.message);

/** Turns an error of the file system into one that names what was being done, and the remedy where one is known. */
export function diskError(action: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  // A path that the action names is told once.
  const path = /: \w+ '([^]*)'$/.exec(reasonOf(error))?.[1];
  const reason = path !== undefined && action.endsWith(` ${path}`) ? systemReason(error) : reasonOf(error);
  const { state = reason, hint } = diskTrouble(error);
  return new BackupError(`Cannot ${action}: ${state}`, { kind: "disk", hint, cause: error });
}

/** What programs say of a disk that takes nothing; the last of them is rclone. */
const DISK_REFUSES =
  /no space left on device|disk quota exceeded|read-only file system|too big for remaining disk space/i;

/** That a disk of this machine took nothing more, if a program that wrote to it says so. */
export const diskErrorSaid = (action: string, said: string): BackupError | undefined => {
  const reason = DISK_REFUSES.exec(said)?.[0];
  return reason === undefined ? undefined : diskError(action, new Error(reason));
};

/** What an error of the file system means, where it does not say so itself, and what to do about it. */
function diskTrouble(error: unknown): { readonly state?: string; readonly hint: string } {
  const reason = reasonOf(error);
  const withheld = WITHHELD.exec(reason)?.[1];
  if (withheld !== undefined) {
    return {
      state: `Deno keeps ${withheld} from us`,
      hint: "name a path that is not below /dev, /proc or /sys",
    };
  }
  if (/os error 122\b|quota exceeded/i.test(reason)) {
    const hint = "raise it (setquota), or free some of it, then run it again; nothing half-written was kept";
    return { state: "the disk quota is used up", hint };
  }
  if (/os error 28\b|No space left|remaining disk space/i.test(reason)) {
    const hint = "free some space (or inodes) there, then run it again; nothing half-written was kept";
    return { state: "the disk is full", hint };
  }
  if (/os error 27\b/.test(reason)) {
    const hint =
      "raise the limit of this user or unit (ulimit -f, LimitFSIZE=), or use a disk that holds larger files";
    return { state: "a file may not become so large here", hint };
  }
  if (/os error 30\b|Read-only file system/i.test(reason)) {
    const hint = "mount it so that it can be written to; the system's log says whether that disk has errors";
    return { state: "the file system is read-only", hint };
  }
  if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
    return { hint: "check the owner and mode of that path, and the user that this runs as" };
  }
  if (error instanceof Deno.errors.NotFound || /os error 20\b/.test(reason)) {
    return { hint: "check that path: a folder of it is not there" };
  }
  // What a socket, anything at all, a folder, a pipe, a filled folder and a circle of links make of it, in this order.
  if (/os error (?:6|17|21|29|39|40)\b/.test(reason)) {
    return { hint: "something else is in its place: look at what that is, and move it aside" };
  }
  return { hint: "look at the system's log for errors of that disk" };
}
