/**
 * Files out of a tar again. Inverse of pack.ts.
 *
 * Invariants: nothing is written outside `root` or through a link below it; no file at its place has bytes that were
 * not checked.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { BackupError } from "../../core/errors.ts";
import { cleanText } from "../../core/format.ts";
import { isPlace, type Place } from "../../core/place.ts";
import type { SavedFile } from "../../core/snapshot/manifest.ts";
import { readTar, type TarMember } from "../../core/snapshot/tar_reader.ts";
import { attempt, kindOf, lstatIfThere, removeIfThere, syncBeside } from "../fs.ts";
import { noteMember } from "../garbage.ts";
import type { Fs, Host, OpenFile, Stat } from "../host.ts";

/** Bytes copied at once. */
const CHUNK_BYTES = 1024 * 1024;
/** Zeros that fill a block of this size are not written: file systems keep holes in such blocks (bytes). */
const HOLE_BYTES = 4096;
/** Files that are put on the disk at once. */
const SYNCS_MAX = 64;

/**
 * Writes the wanted files of one snapshot's tar below `root`, each at its place with mode 0600, checked against its
 * size and SHA-256, and on the disk when this returns. {@linkcode finishTree} gives them their modes and times, once all snapshots are unpacked.
 *
 * @param chunks The tar, in pieces of any size.
 * @param wanted For each member, the files that have its content.
 * @param root Absolute path of a folder.
 * @throws {BackupError} (integrity) If the tar is not what `packFiles` writes, or not what the manifest says. (usage)
 * If something is in the way below `root`.
 */
export async function unpackFiles(
  host: Host,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  wanted: ReadonlyMap<Place, readonly SavedFile[]>,
  root: string,
): Promise<void> {
  const tree = new Tree(host.fs, root);
  const syncs = new Syncs();
  const seen = new Set<Place>();
  try {
    for await (const { content, ...found } of readTar(chunks, damaged)) {
      host.checkpoint();
      const member = checkedMember(found, seen);
      noteMember(found.bytes);
      const files = wanted.get(member) ?? [];
      if (files.length === 0) continue;
      // Of what nobody wants there may be any number.
      seen.add(member);
      const wrong = files.find((file) => file.bytes !== found.bytes);
      if (wrong) {
        throw damaged(`${member} has ${found.bytes} bytes, and the manifest says ${wrong.bytes}`);
      }
      await writeMember(host, tree, syncs, content, files);
    }
    await syncs.settle();
  } catch (error) {
    await syncs.settle().catch(() => {});
    throw error;
  }
  for (const [member, files] of wanted) {
    if (files.length > 0 && !seen.has(member)) throw damaged(`${member} is missing`);
  }
}

/** The member's place. @throws {BackupError} (integrity) If it is not a file that `packFiles` would write. */
function checkedMember({ name, type }: Omit<TarMember, "content">, seen: ReadonlySet<Place>): Place {
  if (!isPlace(name)) throw damaged(`${JSON.stringify(cleanText(name, 200))} is no place for a file`);
  if (type !== "file") throw damaged(`${name} is a ${type}, not a file`);
  if (seen.has(name)) throw damaged(`${name} is there twice`);
  return name;
}

async function writeMember(
  host: Host,
  tree: Tree,
  syncs: Syncs,
  body: AsyncIterable<Uint8Array>,
  [first, ...others]: readonly SavedFile[],
): Promise<void> {
  {
    using target = new CheckedFile(tree, first!);
    for await (const bytes of body) {
      host.checkpoint();
      target.write(bytes);
    }
    await target.finish(syncs);
  }
  for (const other of others) {
    using from = tree.attempt("read back", first!.place, (path) => host.fs.open(path, { read: true }));
    using target = new CheckedFile(tree, other);
    const buffer = new Uint8Array(CHUNK_BYTES);
    for (;;) {
      const count = tree.attempt("read back", first!.place, () => from.read(buffer));
      if (count === 0) break;
      host.checkpoint();
      target.write(buffer.subarray(0, count));
    }
    await target.finish(syncs);
  }
}

/** A file being restored. Unless `finish` found it right, it is gone again when it is disposed of. */
class CheckedFile implements Disposable {
  readonly #tree: Tree;
  readonly #saved: SavedFile;
  readonly #file: OpenFile;
  readonly #hash = createHash("sha256");
  #position = 0;
  #right = false;

  constructor(tree: Tree, saved: SavedFile) {
    tree.makeParents(saved.place);
    this.#tree = tree;
    this.#saved = saved;
    this.#file = tree.openNew(saved.place);
  }

  /** Writes the next bytes, leaving out blocks of zeros. */
  write(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    const start = this.#position;
    this.#position += bytes.length;
    this.#tree.attempt("write", this.#saved.place, () => {
      for (const [from, to] of nonZeroRuns(bytes, start)) {
        this.#file.writeAt(bytes.subarray(from, to), start + from);
      }
    });
  }

  /** Checks what was written, and hands the file over to be put on the disk. */
  async finish(syncs: Syncs): Promise<void> {
    const { place, bytes, sha256 } = this.#saved;
    if (this.#hash.digest("hex") !== sha256) throw damaged(`${place} has not the checksum of the manifest`);
    this.#tree.attempt("write", place, () => this.#file.truncate(bytes));
    this.#right = true;
    await syncs.add(this.#file, this.#tree.pathOf(place));
  }

  [Symbol.dispose](): void {
    if (this.#right) return;
    this.#file.close();
    removeIfThere(this.#tree.fs, this.#tree.pathOf(this.#saved.place));
  }
}

/** Files on their way to the disk, beside other work: it takes many small ones in about the time of one. */
class Syncs {
  readonly #underWay = new Set<Promise<void>>();

  /** Syncs and closes a file. Waits while too many are under way. @throws {BackupError} (disk) Of any file. */
  async add(file: OpenFile, path: string): Promise<void> {
    const synced = syncBeside(file, path).finally(() => file.close());
    synced.then(() => this.#underWay.delete(synced), () => {});
    this.#underWay.add(synced);
    if (this.#underWay.size >= SYNCS_MAX) await this.#underWay.values().next().value;
  }

  /** Waits until all are on the disk and closed. @throws {BackupError} (disk) Of the first that failed. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#underWay);
    await Promise.all(this.#underWay);
  }
}

const ZEROS = Buffer.alloc(HOLE_BYTES);

/** The parts of `bytes` that are not zeros, in blocks of the file that it starts in at `position` (bytes). */
function* nonZeroRuns(bytes: Uint8Array, position: number): Generator<[from: number, to: number]> {
  let start = -1;
  for (let from = 0; from < bytes.length;) {
    const to = Math.min(bytes.length, from + HOLE_BYTES - (position + from) % HOLE_BYTES);
    const isZero = bytes[from] === 0 && ZEROS.subarray(0, to - from).equals(bytes.subarray(from, to));
    if (isZero && start >= 0) yield [start, from];
    if (isZero) start = -1;
    else if (start < 0) start = from;
    from = to;
  }
  if (start >= 0) yield [start, bytes.length];
}

/**
 * Completes a restored tree: folders, then links, then modes and times, the deepest first, so that nothing is put
 * into a folder after its time is set or its mode forbids it. Links keep the time at which they were made.
 *
 * @param files What the manifest lists, or a part of it; its files are below `root` already.
 * @throws {BackupError} (integrity) If a file is missing. (usage) If something is in the way below `root`.
 */
export function finishTree(host: Host, files: readonly SavedFile[], root: string): void {
  const tree = new Tree(host.fs, root);
  const folders = files.filter((file) => file.type === "folder");
  for (const { place } of folders) {
    host.checkpoint();
    tree.makeParents(place);
    tree.makeFolder(place);
  }
  const regular = files.filter((file) => file.type === "file");
  for (const { place } of regular) {
    tree.makeParents(place);
    if (tree.typeAt(place) !== "file") throw damaged(`${place} is missing below ${root}`);
  }
  for (const { place, target } of files.filter((file) => file.type === "link")) {
    tree.makeParents(place);
    tree.refuseExisting(place);
    tree.attempt("make link", place, (path) => host.fs.symlink(target!, path));
  }
  const depth = (file: SavedFile) => file.place.split("/").length;
  for (const { place, mode, mtimeMs } of [...regular, ...folders.sort((a, b) => depth(b) - depth(a))]) {
    host.checkpoint();
    tree.attempt("set mode and time of", place, (path) => {
      host.fs.chmod(path, mode);
      host.fs.utime(path, mtimeMs);
    });
  }
}

/** Places below a folder, none of which is reached through a link. */
class Tree {
  /** Folders that were seen to be folders. */
  readonly #safe = new Set<string>();

  constructor(readonly fs: Fs, readonly root: string) {}

  pathOf(place: Place): string {
    return `${this.root === "/" ? "" : this.root}/${place}`;
  }

  /** Makes the folders that lead to a place (0700). @throws {BackupError} (usage) If one of them is no folder. */
  makeParents(place: Place): void {
    for (let cut = place.indexOf("/"); cut > 0; cut = place.indexOf("/", cut + 1)) {
      this.makeFolder(place.slice(0, cut) as Place);
    }
  }

  makeFolder(place: Place): void {
    if (this.#safe.has(place)) return;
    const type = this.typeAt(place);
    if (type === undefined) {
      this.attempt("make folder", place, (path) => this.fs.mkdir(path, { mode: 0o700 }));
    } else if (type !== "folder") this.#refuse(place, type);
    this.#safe.add(place);
  }

  /** Opens a new file. Whether something is there is asked only if that fails: of nothing, Deno makes a slow error. */
  openNew(place: Place): OpenFile {
    return this.attempt("write", place, (path) => {
      try {
        return this.fs.open(path, { write: true, createNew: true, mode: 0o600 });
      } catch (error) {
        this.refuseExisting(place);
        throw error;
      }
    });
  }

  refuseExisting(place: Place): void {
    const type = this.typeAt(place);
    if (type !== undefined) this.#refuse(place, type);
  }

  typeAt(place: Place): Stat["type"] | undefined {
    return this.attempt("look at", place, (path) => lstatIfThere(this.fs, path))?.type;
  }

  /** Does something to a place, with an error that says what and where. */
  attempt<Result>(action: string, place: Place, act: (path: string) => Result): Result {
    const path = this.pathOf(place);
    return attempt(`${action} ${path}`, () => act(path));
  }

  #refuse(place: Place, type: Stat["type"]): never {
    throw new BackupError(
      `Cannot restore to ${this.pathOf(place)}: there is ${kindOf({ type })} in the way`,
      {
        kind: "usage",
        hint: "restore into an empty folder",
      },
    );
  }
}

function damaged(state: string): BackupError {
  return new BackupError(`Cannot unpack the files of a snapshot: ${state}`, {
    kind: "integrity",
    hint: "restore another snapshot, or this one from another destination",
  });
}
