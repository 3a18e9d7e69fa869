/**
 * What a disk may hold after a power cut: records what a step does to its files, and builds the states that the disk
 * is allowed to be in at any moment of it.
 *
 * The disk's promises, as weak as POSIX lets them be: what `sync` of a file returned for is its bytes, what `syncFolder`
 * returned for is the names in that folder; all else may have been kept, lost or kept in part, in any order. A rename
 * is kept or lost as one. Modes and times are taken as kept.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { Fs, OpenFile, OpenOptions } from "../../scripts/host/host.ts";
import { parentOf } from "../../scripts/core/paths.ts";

/** A file, folder or link, whatever its names are. */
interface Node {
  readonly type: "file" | "folder" | "link";
  mode: number;
  /** A file's bytes, or a link's target. */
  content: Uint8Array;
  /** A folder's names. */
  readonly names: Map<string, number>;
}

/** Nodes by their number; the root is 0. */
type Disk = Map<number, Node>;

/** One thing that was done. `folders` are those whose names it changed. */
type Operation =
  | { readonly kind: "name"; readonly folders: readonly number[]; readonly apply: (disk: Disk) => void }
  | {
    readonly kind: "bytes";
    readonly node: number;
    /** With a `share` below 1 only that much of it reaches the disk. */
    readonly apply: (disk: Disk, share: number) => void;
  }
  | { readonly kind: "sync"; readonly node: number };

/** Everything below a folder: contents of files by path, `/` at the end of a folder's, `-> target` for a link. */
export type Tree = ReadonlyMap<string, { readonly content: Uint8Array; readonly mode: number }>;

/** A moment at which the power may go. */
export interface Moment {
  /** Operations done by then. */
  readonly operations: number;
  /** What the operation before it was, for a person. */
  readonly after: string;
  /** What the disk may hold, each different from the others. */
  readonly states: readonly { readonly what: string; readonly tree: Tree }[];
}

/** Records what goes through {@linkcode fs} below a folder. */
export class Recording {
  readonly fs: Fs;
  readonly #root: string;
  readonly #start: Disk;
  readonly #now: Disk;
  readonly #operations: Operation[] = [];
  readonly #said: string[] = [];
  #nodes: number;

  /** @param root The folder; what is in it now counts as synced. Its path must hold no link. */
  constructor(fs: Fs, root: string) {
    this.#root = root;
    this.#start = readDisk(root);
    this.#now = copyDisk(this.#start);
    this.#nodes = this.#start.size;
    this.fs = this.#record(fs);
  }

  /** Every moment in turn, from before the first operation to after the last. */
  *moments(): Generator<Moment> {
    for (let operations = 0; operations <= this.#operations.length; operations++) {
      const after = operations === 0 ? "the start" : this.#said[operations - 1]!;
      yield { operations, after, states: this.#statesAt(operations) };
    }
  }

  /** How many operations there were so far. */
  get operations(): number {
    return this.#operations.length;
  }

  /** What the disk holds once everything reached it. */
  get all(): Tree {
    return this.#build(this.#operations.length, () => 1);
  }

  /** The least that the disk holds once the step has ended. */
  get synced(): Tree {
    return this.#build(this.#operations.length, (isPending) => isPending ? 0 : 1);
  }

  #statesAt(operations: number): Moment["states"] {
    const pending = this.#pendingAt(operations);
    const names = pending.filter((index) => this.#operations[index]!.kind === "name");
    const bytes = pending.filter((index) => this.#operations[index]!.kind === "bytes");
    const isName = new Set(names);
    const states = new Map<string, { what: string; tree: Tree }>();
    const add = (what: string, share: (index: number) => number) => {
      const tree = this.#build(operations, (isPending, index) => isPending ? share(index) : 1);
      const key = keyOf(tree);
      if (!states.has(key)) states.set(key, { what, tree });
    };
    add("all kept", () => 1);
    add("only what was synced", () => 0);
    add("names kept, bytes lost", (index) => isName.has(index) ? 1 : 0);
    add("names kept, half of each write", (index) => isName.has(index) ? 1 : 0.5);
    add("bytes kept, names lost", (index) => isName.has(index) ? 0 : 1);
    for (const lost of names) {
      add(`lost: ${this.#said[lost]}`, (index) => index === lost ? 0 : 1);
      add(`kept alone: ${this.#said[lost]}`, (index) => index === lost || !isName.has(index) ? 1 : 0);
      const folders = this.#foldersOf(lost);
      const isLater = (index: number) =>
        index >= lost && this.#foldersOf(index).some((folder) => folders.includes(folder));
      add(`lost from there on in its folder: ${this.#said[lost]}`, (index) => isLater(index) ? 0 : 1);
    }
    for (const lost of bytes) add(`lost: ${this.#said[lost]}`, (index) => index === lost ? 0 : 1);
    return [...states.values()];
  }

  #foldersOf(index: number): readonly number[] {
    const operation = this.#operations[index]!;
    return operation.kind === "name" ? operation.folders : [];
  }

  /** What no sync has returned for. */
  #pendingAt(operations: number): number[] {
    const pending: number[] = [];
    const synced = new Set<number>();
    for (let index = operations - 1; index >= 0; index--) {
      const operation = this.#operations[index]!;
      if (operation.kind === "sync") synced.add(operation.node);
      // One journal holds both ends of a rename: syncing either folder keeps it.
      else if (operation.kind === "name" && !operation.folders.some((folder) => synced.has(folder))) {
        pending.push(index);
      } else if (operation.kind === "bytes" && !synced.has(operation.node)) pending.push(index);
    }
    return pending.reverse();
  }

  #build(operations: number, share: (isPending: boolean, index: number) => number): Tree {
    const pending = new Set(this.#pendingAt(operations));
    const disk = copyDisk(this.#start);
    for (let index = 0; index < operations; index++) {
      const operation = this.#operations[index]!;
      const kept = share(pending.has(index), index);
      if (operation.kind === "bytes" && kept > 0) operation.apply(disk, kept);
      if (operation.kind === "name" && kept > 0) operation.apply(disk);
    }
    return treeOf(disk);
  }

  #do(said: string, operation: Operation): void {
    if (operation.kind !== "sync") operation.apply(this.#now, 1);
    this.#operations.push(operation);
    this.#said.push(said);
  }

  #isInside = (path: string): boolean => path.startsWith(`${this.#root}/`);

  /** The folder that `path` is in, the name there, and the node of that name; undefined outside the root. */
  #find(path: string): { folder: number; name: string; node: number | undefined } | undefined {
    if (path === this.#root) return { folder: 0, name: ".", node: 0 };
    if (!this.#isInside(path)) return undefined;
    const names = path.slice(this.#root.length + 1).split("/");
    let folder = 0;
    for (const name of names.slice(0, -1)) {
      const next = this.#now.get(folder)!.names.get(name);
      if (next === undefined) return undefined;
      folder = next;
    }
    const name = names.at(-1)!;
    return { folder, name, node: this.#now.get(folder)!.names.get(name) };
  }

  #make(path: string, type: Node["type"], mode: number, target = ""): number {
    const { folder, name } = this.#find(path)!;
    const node = this.#nodes++;
    const content = new TextEncoder().encode(target);
    const made = (): Node => ({ type, mode, content, names: new Map() });
    // The node is there whether its name is or not.
    this.#start.set(node, made());
    this.#now.set(node, made());
    this.#do(`make ${this.#short(path)}`, {
      kind: "name",
      folders: [folder],
      apply: (disk) => void disk.get(folder)!.names.set(name, node),
    });
    return node;
  }

  #remove(path: string): void {
    const found = this.#find(path);
    if (found?.node === undefined) return;
    const { folder, name, node } = found;
    for (const inside of [...this.#now.get(node)!.names.keys()]) this.#remove(`${path}/${inside}`);
    this.#do(`remove ${this.#short(path)}`, {
      kind: "name",
      folders: [folder],
      apply: (disk) => {
        if (disk.get(folder)!.names.get(name) === node) disk.get(folder)!.names.delete(name);
      },
    });
  }

  #rename(from: string, to: string): void {
    const source = this.#find(from)!;
    const target = this.#find(to)!;
    const node = source.node!;
    this.#do(`rename ${this.#short(from)} to ${this.#short(to)}`, {
      kind: "name",
      folders: [source.folder, target.folder],
      apply: (disk) => {
        const names = disk.get(source.folder)!.names;
        if (names.get(source.name) === node) names.delete(source.name);
        disk.get(target.folder)!.names.set(target.name, node);
      },
    });
  }

  #short = (path: string): string => path.slice(this.#root.length + 1);

  #record(fs: Fs): Fs {
    return {
      ...fs,
      open: (path, options) => this.#open(fs.open(path, options), path, options),
      mkdir: (path, options) => {
        const missing: string[] = [];
        for (let at = path; this.#isInside(at) && this.#find(at)?.node === undefined; at = parentOf(at)) {
          missing.unshift(at);
        }
        fs.mkdir(path, options);
        for (const each of missing) this.#make(each, "folder", options?.mode ?? 0o777);
      },
      rename: (from, to) => {
        fs.rename(from, to);
        this.#rename(from, to);
      },
      remove: (path, options) => {
        fs.remove(path, options);
        this.#remove(path);
      },
      symlink: (target, path) => {
        fs.symlink(target, path);
        this.#make(path, "link", 0o777, target);
      },
      chmod: (path, mode) => {
        fs.chmod(path, mode);
        const node = this.#find(path)!.node!;
        for (const disk of [this.#start, this.#now]) disk.get(node)!.mode = mode;
      },
      syncFolder: (path) => {
        fs.syncFolder(path);
        const found = this.#find(path);
        if (found) this.#do(`sync ${this.#short(path)}/`, { kind: "sync", node: found.node! });
      },
    };
  }

  #open(file: OpenFile, path: string, { write, create, createNew, truncate, mode }: OpenOptions): OpenFile {
    const found = this.#find(path);
    if (!found || (!write && found.node === undefined)) return file;
    const node = found.node ?? (create || createNew ? this.#make(path, "file", mode ?? 0o666) : undefined);
    if (node === undefined) throw new Error(`${path} was made behind the recording's back`);
    const said = this.#short(path);
    const change = (what: string, next: (content: Uint8Array, share: number) => Uint8Array) => {
      const remembered = remember(next);
      this.#do(`${what} ${said}`, {
        kind: "bytes",
        node,
        apply: (disk, share) => {
          const at = disk.get(node)!;
          at.content = remembered(at.content, share);
        },
      });
    };
    const resize = (bytes: number) => change("truncate", (content) => resized(content, bytes));
    if (truncate) resize(0);
    let position = 0;
    const writeAt = (bytes: Uint8Array, at: number) => {
      const copy = bytes.slice();
      position = at + copy.length;
      change("write", (content, share) => {
        const kept = copy.subarray(0, Math.floor(copy.length * share));
        const next = resized(content, Math.max(content.length, at + kept.length));
        next.set(kept, at);
        return next;
      });
    };
    return {
      ...file,
      read: (buffer) => {
        const count = file.read(buffer);
        position += count;
        return count;
      },
      reading: async (buffer) => {
        const count = await file.reading(buffer);
        position += count;
        return count;
      },
      readAt: (buffer, at) => {
        const count = file.readAt(buffer, at);
        position = at + count;
        return count;
      },
      write: (bytes) => {
        file.write(bytes);
        writeAt(bytes, position);
      },
      writeAt: (bytes, at) => {
        file.writeAt(bytes, at);
        writeAt(bytes, at);
      },
      truncate: (bytes) => {
        file.truncate(bytes);
        resize(bytes);
      },
      sync: () => {
        file.sync();
        this.#do(`sync ${said}`, { kind: "sync", node });
      },
      syncing: async () => {
        await file.syncing();
        this.#do(`sync ${said}`, { kind: "sync", node });
      },
    };
  }
}

/** Makes what is below `root` what `tree` says, and leaves alone what is so already. */
export function writeTree(root: string, tree: Tree): void {
  const there = readTree(root);
  for (const path of [...there.keys()].reverse()) {
    if (!tree.has(path)) Deno.removeSync(`${root}/${path.split(" -> ")[0]}`);
  }
  for (const [path, { content, mode }] of tree) {
    const [name, target] = path.split(" -> ");
    const full = `${root}/${name}`;
    if (there.has(path)) {
      const old = there.get(path)!;
      if (target === undefined && old.mode !== mode) Deno.chmodSync(full, mode);
      if (sameBytes(old.content, content)) continue;
    }
    if (target !== undefined) Deno.symlinkSync(target, full);
    else if (path.endsWith("/")) Deno.mkdirSync(full, { mode });
    else Deno.writeFileSync(full, content, { mode });
  }
}

/** What is below a folder now. */
export const readTree = (root: string): Tree => treeOf(readDisk(root));

function readDisk(root: string): Disk {
  const disk: Disk = new Map();
  let count = 0;
  const read = (path: string): number => {
    const number = count++;
    const stat = Deno.lstatSync(path);
    const type = stat.isSymlink ? "link" : stat.isFile ? "file" : "folder";
    const content = type === "file"
      ? Deno.readFileSync(path)
      : new TextEncoder().encode(type === "link" ? Deno.readLinkSync(path) : "");
    const names = new Map<string, number>();
    disk.set(number, { type, mode: stat.mode! & 0o7777, content, names });
    if (type === "folder") {
      for (const { name } of [...Deno.readDirSync(path)].sort((a, b) => a.name < b.name ? -1 : 1)) {
        names.set(name, read(`${path}/${name}`));
      }
    }
    return number;
  };
  read(root);
  return disk;
}

function copyDisk(disk: Disk): Disk {
  return new Map([...disk].map(([number, node]) => [number, { ...node, names: new Map(node.names) }]));
}

/** What can be reached from the root, folders before what is in them. */
function treeOf(disk: Disk): Tree {
  const tree = new Map<string, { content: Uint8Array; mode: number }>();
  const walk = (folder: number, path: string) => {
    for (const [name, number] of [...disk.get(folder)!.names].sort(([a], [b]) => a < b ? -1 : 1)) {
      const { type, content, mode } = disk.get(number)!;
      const end = type === "folder" ? "/" : type === "link" ? ` -> ${new TextDecoder().decode(content)}` : "";
      tree.set(`${path}${name}${end}`, { content, mode });
      if (type === "folder") walk(number, `${path}${name}/`);
    }
  };
  walk(0, "");
  return tree;
}

/** Tells trees apart. */
export function keyOf(tree: Tree): string {
  return [...tree].map(([path, { content }]) => `${path}\0${sha256Of(content)}`).join("\n");
}

const checksums = new WeakMap<Uint8Array, string>();

function sha256Of(content: Uint8Array): string {
  const known = checksums.get(content);
  if (known !== undefined) return known;
  const sha256 = createHash("sha256").update(content).digest("hex");
  checksums.set(content, sha256);
  return sha256;
}

/** The same answer, and the very same bytes, for the same question: thousands of states have most of theirs in common. */
function remember(
  next: (content: Uint8Array, share: number) => Uint8Array,
): (content: Uint8Array, share: number) => Uint8Array {
  const known = new WeakMap<Uint8Array, Map<number, Uint8Array>>();
  return (content, share) => {
    const answers = known.get(content) ?? new Map<number, Uint8Array>();
    known.set(content, answers);
    const answer = answers.get(share) ?? next(content, share);
    answers.set(share, answer);
    return answer;
  };
}

function resized(content: Uint8Array, bytes: number): Uint8Array {
  const next = new Uint8Array(bytes);
  next.set(content.subarray(0, bytes));
  return next;
}

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, index) => byte === b[index]);
