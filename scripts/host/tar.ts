/**
 * Files into a tar and out of it again.
 *
 * Invariants: a checksum is always that of the bytes in the tar, however the file moved while it was read; nothing
 * is written outside `root` or through a link below it; no file at its place has bytes that were not checked.
 *
 * Memory: 8 MiB for the largest file that is read whole, and some MiB of chunks under way.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { createTarDecoder, createTarPacker, type ParsedTarEntry, type TarPackController } from "modern-tar";
import { BackupError, reasonOf } from "../core/errors.ts";
import {
  ContentIndex,
  type FilePlan,
  type FoundFile,
  isSameIdentity,
  type PlannedFile,
  type RememberedFile,
  type RememberedFiles,
  removedPlaces,
} from "../core/file_index.ts";
import type { SavedFile } from "../core/manifest.ts";
import { isPlace, type Place } from "../core/place.ts";
import { diskError, isMissing, lstatIfThere, removeIfThere } from "./fs.ts";
import type { Fs, Host, OpenFile, Stat } from "./host.ts";
import { unreadable } from "./sources.ts";

/** Files up to this size are read whole, so that one that changes can be read again (bytes). */
const WHOLE_BYTES_MAX = 8 * 1024 * 1024;
/** How often a file is read that changes meanwhile. */
const ATTEMPTS_MAX = 3;
/** Bytes read or gathered at once. */
const CHUNK_BYTES = 1024 * 1024;
/** Zeros that fill a block of this size are not written: file systems keep holes in such blocks (bytes). */
const HOLE_BYTES = 4096;
/** The largest time that a tar header holds, in seconds. */
const TAR_SECONDS_MAX = 0o77777777777;

/** What became of the files of a plan. */
export interface Packed {
  readonly files: readonly SavedFile[];
  /** For the next plan. */
  readonly remembered: RememberedFiles;
  /** Places that the previous snapshot had and this one has not. */
  readonly removed: readonly Place[];
  /** What a person should know: files that changed or vanished while they were read. */
  readonly notes: readonly string[];
  /** Whether the sink got a tar; without new content there is none. */
  readonly wroteTar: boolean;
}

/**
 * Reads what must be read, and writes the content that is new to a tar. Members are named by their place.
 *
 * @param sink Takes the tar's bytes, and owns each chunk.
 * @param progress Called with the bytes read so far and their total.
 * @throws {BackupError} (source) If a file that exists cannot be read. What the sink throws is passed on.
 */
export async function packFiles(
  host: Host,
  plan: FilePlan,
  sink: (bytes: Uint8Array) => void,
  progress: (bytesDone: number, bytesTotal: number) => void = () => {},
): Promise<Packed> {
  const tar = new TarWriter(sink);
  const packing: Packing = {
    host,
    plan,
    tar,
    known: new ContentIndex(plan.previous),
    notes: [...plan.notes],
    advance: (bytes) => {
      host.checkpoint();
      done += bytes;
      progress(Math.min(done, plan.bytesToRead), plan.bytesToRead);
    },
  };
  let done = 0;
  const files: SavedFile[] = [];
  const remembered: Record<Place, RememberedFile> = {};
  try {
    for (const planned of plan.files) {
      host.checkpoint();
      const packed = await packFile(packing, planned);
      if (!packed) continue;
      files.push(packed.saved);
      if (packed.remembered) remembered[packed.saved.place] = packed.remembered;
    }
    return {
      files,
      remembered: { version: 1, snapshot: plan.id, files: remembered },
      removed: removedPlaces(plan.previous, files),
      notes: packing.notes,
      wroteTar: await tar.finish(),
    };
  } catch (error) {
    await tar.abandon(error);
    throw error;
  }
}

interface Packing {
  readonly host: Host;
  readonly plan: FilePlan;
  readonly tar: TarWriter;
  readonly known: ContentIndex;
  readonly notes: string[];
  /** Says that so many bytes were read. */
  readonly advance: (bytes: number) => void;
}

interface PackedFile {
  readonly saved: SavedFile;
  /** Absent for a file that changed while it was read: the next run reads it again. */
  readonly remembered?: RememberedFile;
}

async function packFile(
  packing: Packing,
  { found, unchanged }: PlannedFile,
): Promise<PackedFile | undefined> {
  const { source, place, type, stat } = found;
  if (type !== "file") {
    const { mode, mtimeMs } = stat;
    const target = found.target === undefined ? {} : { target: found.target };
    return { saved: { source, place, type, mode, mtimeMs, bytes: 0, ...target } };
  }
  if (unchanged) {
    const { sha256, stored, remembered } = unchanged;
    return { saved: savedFile(found, stat, stat.bytes, sha256, stored), remembered };
  }
  const readMs = packing.host.now().getTime();
  using file = openFound(packing, found);
  if (!file) return undefined;
  const read = file.stat().bytes <= WHOLE_BYTES_MAX
    ? await packWhole(packing, found, file)
    : await packStreamed(packing, found, file);
  if (read.changed) {
    packing.notes.push(`${place} changed while it was read; what was read is saved`);
    return { saved: read.saved };
  }
  const { bytes, mtimeMs, ctimeMs, inode, device } = read.stat;
  return { saved: read.saved, remembered: { bytes, mtimeMs, ctimeMs, inode, device, readMs } };
}

/** A file being read; errors name it. */
interface SourceFile extends Disposable {
  readAt(buffer: Uint8Array, position: number): number;
  stat(): Stat;
}

/** Opens a file that was found a moment ago; undefined, with a note, if it is no longer there, or no longer a file. */
function openFound({ host: { fs }, notes }: Packing, found: FoundFile): SourceFile | undefined {
  const { path, place, named } = found;
  const naming = <Result>(read: () => Result): Result => {
    try {
      return read();
    } catch (error) {
      throw isMissing(error) ? error : unreadable(path, error);
    }
  };
  try {
    const { type } = naming(() => named ? fs.stat(path) : fs.lstat(path));
    if (type !== "file") {
      notes.push(`${place} became ${type === "other" ? "a pipe or device" : `a ${type}`} and was not saved`);
      return undefined;
    }
    const file = naming(() => fs.open(path, { read: true }));
    return {
      readAt: (buffer, position) => naming(() => file.readAt(buffer, position)),
      stat: () => naming(() => file.stat()),
      [Symbol.dispose]: () => file.close(),
    };
  } catch (error) {
    if (!isMissing(error)) throw error;
    notes.push(`${place} vanished before it was read`);
    return undefined;
  }
}

interface ReadFile {
  readonly saved: SavedFile;
  readonly stat: Stat;
  readonly changed: boolean;
}

/** Reads a small file whole, again if it changes meanwhile, and stores its content if that is new. */
async function packWhole(packing: Packing, found: FoundFile, file: SourceFile): Promise<ReadFile> {
  let bytes: Uint8Array = new Uint8Array(0);
  let after = file.stat();
  let changed = true;
  for (let attempt = 1; changed && attempt <= ATTEMPTS_MAX; attempt++) {
    const before = after;
    // One that outgrew memory meanwhile is cut where it was.
    const buffer = new Uint8Array(Math.min(before.bytes, WHOLE_BYTES_MAX));
    bytes = buffer.subarray(0, file.readAt(buffer, 0));
    after = file.stat();
    changed = bytes.length !== before.bytes || !isSameIdentity(before, after);
    if (attempt === 1) packing.advance(bytes.length);
  }
  const { known, plan, tar } = packing;
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  let stored = known.find(sha256, bytes.length);
  if (!stored) {
    stored = { snapshot: plan.id, member: found.place };
    await tar.add(found.place, after, bytes.length, [bytes]);
    known.add(sha256, bytes.length, stored);
  }
  return { saved: savedFile(found, after, bytes.length, sha256, stored), stat: after, changed };
}

/** Streams a big file into the tar, unless hashing it first shows that its content is stored already. */
async function packStreamed(packing: Packing, found: FoundFile, file: SourceFile): Promise<ReadFile> {
  const { known, plan, tar, advance } = packing;
  let before = file.stat();
  if (known.hasSize(before.bytes)) {
    const read = new ExactReader(file, before.bytes, packing.host.checkpoint);
    for (const _ of read.chunks()) { /* Only hashed. */ }
    const sha256 = read.digest();
    const stored = known.find(sha256, before.bytes);
    const after = file.stat();
    if (stored) {
      advance(before.bytes);
      const changed = read.short || !isSameIdentity(before, after);
      return { saved: savedFile(found, after, before.bytes, sha256, stored), stat: after, changed };
    }
    before = after;
  }
  const read = new ExactReader(file, before.bytes, (bytes) => advance(bytes));
  await tar.add(found.place, before, before.bytes, read.chunks());
  const sha256 = read.digest();
  const stored = { snapshot: plan.id, member: found.place };
  known.add(sha256, before.bytes, stored);
  const after = file.stat();
  const changed = read.short || !isSameIdentity(before, after);
  return { saved: savedFile(found, after, before.bytes, sha256, stored), stat: after, changed };
}

function savedFile(
  { source, place }: FoundFile,
  { mode, mtimeMs }: Pick<Stat, "mode" | "mtimeMs">,
  bytes: number,
  sha256: string,
  stored: NonNullable<SavedFile["stored"]>,
): SavedFile {
  return { source, place, type: "file", mode, mtimeMs, bytes, sha256, stored };
}

/** Reads exactly so many bytes of a file, whatever happens to it: cut, or filled with zeros. */
class ExactReader {
  /** Whether the file ended too early. */
  short = false;
  readonly #hash = createHash("sha256");

  constructor(
    private readonly file: SourceFile,
    private readonly bytes: number,
    private readonly onRead: (bytes: number) => void,
  ) {}

  *chunks(): Generator<Uint8Array> {
    for (let position = 0; position < this.bytes;) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, this.bytes - position));
      if (this.file.readAt(chunk, position) < chunk.length) this.short = true;
      this.#hash.update(chunk);
      position += chunk.length;
      this.onRead(chunk.length);
      yield chunk;
    }
  }

  /** SHA-256 of the chunks, in hex. */
  digest(): string {
    return this.#hash.digest("hex");
  }
}

/** A tar that begins with its first member. */
class TarWriter {
  readonly #sink: (bytes: Uint8Array) => void;
  #open: { readonly controller: TarPackController; readonly drained: Promise<void> } | undefined;

  constructor(sink: (bytes: Uint8Array) => void) {
    this.#sink = sink;
  }

  /** Adds a file. `chunks` must be `bytes` long together; they are given away. */
  async add(
    place: Place,
    { mode, mtimeMs }: Pick<Stat, "mode" | "mtimeMs">,
    bytes: number,
    chunks: Iterable<Uint8Array>,
  ): Promise<void> {
    const { controller } = this.#open ??= this.#start();
    const seconds = Math.floor(mtimeMs / 1000);
    const pax: Record<string, string> = {};
    // The old header has a name of 100 bytes in no certain encoding, and no time before 1970.
    // deno-lint-ignore no-control-regex
    if (/[^\x00-\x7f]/.test(place)) pax.path = place;
    if (seconds < 0 || seconds > TAR_SECONDS_MAX) pax.mtime = String(seconds);
    const member = controller.add({
      name: place,
      size: bytes,
      type: "file",
      mode,
      mtime: new Date(Math.min(Math.max(seconds, 0), TAR_SECONDS_MAX) * 1000),
      uid: 0,
      gid: 0,
      pax,
    }).getWriter();
    for (const chunk of chunks) await member.write(chunk);
    await member.close();
  }

  /** Ends the tar and returns whether there is one. */
  async finish(): Promise<boolean> {
    if (!this.#open) return false;
    this.#open.controller.finalize();
    await this.#open.drained;
    return true;
  }

  /** Stops. @throws What the sink threw, if that is why. */
  async abandon(error: unknown): Promise<void> {
    this.#open?.controller.error(error);
    await this.#open?.drained;
  }

  #start(): { controller: TarPackController; drained: Promise<void> } {
    const { readable, controller } = createTarPacker();
    const drained = gather(readable, this.#sink);
    // Told by finish() or abandon(); until then it must not count as unhandled.
    drained.catch(() => {});
    return { controller, drained };
  }
}

/**
 * Passes a stream on in chunks worth passing: a tar of small files is mostly headers of 512 bytes.
 * Small chunks are copied, for they may be the package's own constants and the sink owns what it gets.
 */
async function gather(
  readable: ReadableStream<Uint8Array>,
  sink: (bytes: Uint8Array) => void,
): Promise<void> {
  let gathered = new Uint8Array(CHUNK_BYTES);
  let length = 0;
  const flush = () => {
    if (length > 0) {
      sink(gathered.subarray(0, length));
      gathered = new Uint8Array(CHUNK_BYTES);
    }
    length = 0;
  };
  for await (const chunk of readable) {
    if (chunk.length >= CHUNK_BYTES / 2) {
      flush();
      sink(chunk);
      continue;
    }
    if (length + chunk.length > gathered.length) flush();
    gathered.set(chunk, length);
    length += chunk.length;
  }
  flush();
}

/**
 * Writes the wanted files of one snapshot's tar below `root`, each at its place with mode 0600, checked against its
 * size and SHA-256. {@linkcode finishTree} gives them their modes and times, once all snapshots are unpacked.
 *
 * @param chunks The tar, in pieces of any size.
 * @param wanted For each member, the files that have its content.
 * @param root Absolute path of a folder.
 * @param options.durable Whether each file is on the disk before this returns.
 * @throws {BackupError} (integrity) If the tar is not what `packFiles` writes, or not what the manifest says. (usage)
 * If something is in the way below `root`.
 */
export async function unpackFiles(
  host: Host,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  wanted: ReadonlyMap<Place, readonly SavedFile[]>,
  root: string,
  options: { readonly durable?: boolean } = {},
): Promise<void> {
  const tree = new Tree(host.fs, root);
  const seen = new Set<Place>();
  const entries = ReadableStream.from(chunks).pipeThrough(createTarDecoder({ strict: true })).getReader();
  try {
    for (;;) {
      host.checkpoint();
      const { done, value: entry } = await orIntegrity(() => entries.read());
      if (done) break;
      const member = checkedMember(entry.header, seen);
      seen.add(member);
      const files = wanted.get(member) ?? [];
      const wrong = files.find((file) => file.bytes !== entry.header.size);
      if (wrong) {
        throw damaged(`${member} has ${entry.header.size} bytes, and the manifest says ${wrong.bytes}`);
      }
      const body = readBody(host, entry.body);
      if (files.length > 0) await writeMember(host, tree, body, files, options.durable ?? false);
      // Not cancelled: in modern-tar 0.8.6 that can take the next member's body away, and then it hangs.
      else for await (const _ of body) { /* Skipped. */ }
    }
  } catch (error) {
    await entries.cancel(error).catch(() => {});
    throw error;
  }
  for (const [member, files] of wanted) {
    if (files.length > 0 && !seen.has(member)) throw damaged(`${member} is missing`);
  }
}

/** The member's place. @throws {BackupError} (integrity) If it is not a file that `packFiles` would write. */
function checkedMember({ name, type }: ParsedTarEntry["header"], seen: ReadonlySet<Place>): Place {
  if (!isPlace(name)) throw damaged(`${JSON.stringify(name)} is no place for a file`);
  if (type !== "file") throw damaged(`${name} is a ${type}, not a file`);
  if (seen.has(name)) throw damaged(`${name} is there twice`);
  return name;
}

async function* readBody(host: Host, body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await orIntegrity(() => reader.read());
    if (done) return;
    host.checkpoint();
    yield value;
  }
}

async function writeMember(
  host: Host,
  tree: Tree,
  body: AsyncIterable<Uint8Array>,
  [first, ...others]: readonly SavedFile[],
  durable: boolean,
): Promise<void> {
  {
    using target = new CheckedFile(tree, first!, durable);
    for await (const bytes of body) target.write(bytes);
    target.finish();
  }
  for (const other of others) {
    using from = tree.attempt("read back", first!.place, (path) => host.fs.open(path, { read: true }));
    using target = new CheckedFile(tree, other, durable);
    const buffer = new Uint8Array(CHUNK_BYTES);
    for (;;) {
      const count = tree.attempt("read back", first!.place, () => from.read(buffer));
      if (count === 0) break;
      host.checkpoint();
      target.write(buffer.subarray(0, count));
    }
    target.finish();
  }
}

/** A file being restored. Unless `finish` found it right, it is gone again when it is disposed of. */
class CheckedFile implements Disposable {
  readonly #tree: Tree;
  readonly #saved: SavedFile;
  readonly #durable: boolean;
  readonly #file: OpenFile;
  readonly #hash = createHash("sha256");
  #position = 0;
  #right = false;

  constructor(tree: Tree, saved: SavedFile, durable: boolean) {
    tree.makeParents(saved.place);
    tree.refuseExisting(saved.place);
    this.#tree = tree;
    this.#saved = saved;
    this.#durable = durable;
    this.#file = tree.attempt(
      "write",
      saved.place,
      (path) => tree.fs.open(path, { write: true, createNew: true, mode: 0o600 }),
    );
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

  finish(): void {
    const { place, bytes, sha256 } = this.#saved;
    if (this.#hash.digest("hex") !== sha256) throw damaged(`${place} has not the checksum of the manifest`);
    this.#tree.attempt("write", place, () => {
      this.#file.truncate(bytes);
      if (this.#durable) this.#file.sync();
    });
    this.#right = true;
  }

  [Symbol.dispose](): void {
    this.#file.close();
    if (!this.#right) removeIfThere(this.#tree.fs, this.#tree.pathOf(this.#saved.place));
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
      // Deno 2.8 refuses fractions of seconds before 1970.
      host.fs.utime(path, mtimeMs < 0 ? Math.floor(mtimeMs / 1000) * 1000 : mtimeMs);
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
    try {
      return act(path);
    } catch (error) {
      throw diskError(`${action} ${path}`, error);
    }
  }

  #refuse(place: Place, type: Stat["type"]): never {
    throw new BackupError(`Cannot restore to ${this.pathOf(place)}: there is a ${type} in the way`, {
      kind: "usage",
      hint: "restore into an empty folder",
    });
  }
}

/** Reads the tar; what its reader throws means that the tar is damaged. */
async function orIntegrity<Result>(read: () => Promise<Result>): Promise<Result> {
  try {
    return await read();
  } catch (error) {
    throw error instanceof BackupError ? error : damaged(reasonOf(error), error);
  }
}

function damaged(state: string, cause?: unknown): BackupError {
  return new BackupError(`Cannot unpack the files of a snapshot: ${state}`, {
    kind: "integrity",
    hint: "restore another snapshot, or this one from another destination",
    ...(cause === undefined ? {} : { cause }),
  });
}
