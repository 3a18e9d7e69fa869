/**
 * Files into a tar. Inverse of unpack.ts.
 *
 * Invariant: a checksum is always that of the bytes in the tar, however the file moved while it was read.
 *
 * Memory: 8 MiB for the largest file that is read whole, and some MiB of chunks under way.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { createTarPacker, type TarPackController } from "modern-tar";
import type { Place } from "../../core/place.ts";
import {
  ContentIndex,
  type FilePlan,
  type FoundFile,
  type PlannedFile,
  type RememberedFile,
  type RememberedFiles,
  type Unreadable,
} from "../../core/snapshot/file_index.ts";
import { isSameMark, markOf } from "../../core/snapshot/file_mark.ts";
import type { SavedFile } from "../../core/snapshot/manifest.ts";
import { isMissing, kindOf, systemReason } from "../fs.ts";
import { noteMember } from "../garbage.ts";
import type { Host, Stat } from "../host.ts";

/** Files up to this size are read whole, so that one that changes can be read again (bytes). */
const WHOLE_BYTES_MAX = 8 * 1024 * 1024;
/** How often a file is read that changes meanwhile. */
const ATTEMPTS_MAX = 3;
/** Bytes read or gathered at once. */
const CHUNK_BYTES = 1024 * 1024;
/** The largest time that a tar header holds, in seconds. */
const TAR_SECONDS_MAX = 0o77777777777;

/** Takes the bytes of a tar, one chunk after another. */
export type Sink = (bytes: Uint8Array) => void | Promise<void>;

/** What became of the files of a plan. */
export interface Packed {
  readonly files: readonly SavedFile[];
  /** For the next plan. */
  readonly remembered: RememberedFiles;
  /** What a person should know: files that changed or vanished while they were read. */
  readonly notes: readonly string[];
  /** Files that exist and could not be read; they are not among `files`. */
  readonly unreadable: readonly Unreadable[];
  /** Files that were gone, or something else, when it was their turn. */
  readonly gone: ReadonlySet<Place>;
}

/**
 * Reads what must be read, and writes the content that is new to a tar. Members are named by their place.
 *
 * @param sink Takes the tar's bytes, and owns each chunk. Without new content there is no tar, and it is not called.
 * @param progress Called with the bytes read so far and their total.
 * @throws {TornMember} If a big file cannot be read to its end. What the sink throws is passed on.
 */
export async function packFiles(
  host: Host,
  plan: FilePlan,
  sink: Sink,
  progress: (bytesDone: number, bytesTotal: number) => void = () => {},
): Promise<Packed> {
  const tar = new TarWriter(sink);
  const packing: Packing = {
    host,
    plan,
    tar,
    // Mostly no file has changed, and there may be many.
    get known() {
      return known ??= new ContentIndex(plan.previous);
    },
    notes: [...plan.notes],
    advance: (bytes) => {
      host.checkpoint();
      done += bytes;
      progress(Math.min(done, plan.bytesToRead), plan.bytesToRead);
    },
  };
  let known: ContentIndex | undefined;
  let done = 0;
  const files: SavedFile[] = [];
  const remembered: Record<Place, RememberedFile> = {};
  const unreadable: Unreadable[] = [];
  const gone = new Set<Place>();
  try {
    for (const planned of plan.files) {
      host.checkpoint();
      const packed = await packFile(packing, planned);
      if (!packed) {
        gone.add(planned.found.place);
        continue;
      }
      if ("reason" in packed) {
        unreadable.push(packed);
        continue;
      }
      files.push(packed.saved);
      if (packed.remembered) remembered[packed.saved.place] = packed.remembered;
    }
    await tar.finish();
    return {
      files,
      remembered: { version: 1, snapshot: plan.id, files: remembered },
      notes: packing.notes,
      unreadable,
      gone,
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
): Promise<PackedFile | Unreadable | undefined> {
  const { source, place, type, stat } = found;
  if (type !== "file") {
    const { mode, mtimeMs } = stat;
    const target = found.target === undefined ? {} : { target: found.target };
    return { saved: { source, place, type, mode, mtimeMs, bytes: 0, ...target } };
  }
  if (unchanged) {
    const { saved, remembered } = unchanged;
    const { mode } = stat;
    const isSame = saved.source === source && saved.mode === mode;
    return { saved: isSame ? saved : { ...saved, source, mode }, remembered };
  }
  const readMs = packing.host.now().getTime();
  let read: ReadFile;
  try {
    using file = openFound(packing, found);
    if (!file) return undefined;
    const before = file.stat();
    if (!Number.isSafeInteger(before.bytes)) {
      throw new ReadError(
        `Cannot save ${JSON.stringify(found.path)}: it says that it has ${before.bytes} bytes`,
      );
    }
    read = before.bytes <= WHOLE_BYTES_MAX
      ? await packWhole(packing, found, file, before)
      : await packStreamed(packing, found, file, before);
  } catch (error) {
    if (!(error instanceof ReadError)) throw error;
    return { source, path: found.path, reason: error.message };
  }
  if (read.changed) {
    const saved = read.isShort ? "zeros stand for what was cut off" : "what was read is saved";
    packing.notes.push(`${place} changed while it was read; ${saved}`);
    return { saved: read.saved };
  }
  return { saved: read.saved, remembered: { ...markOf(read.stat), readMs } };
}

/** A file that exists cannot be read. */
class ReadError extends Error {
  override readonly name = "ReadError";
}

/** A file could not be read to its end, and its member in the tar has been begun: the tar is to be made without it. */
export class TornMember extends Error {
  override readonly name = "TornMember";

  constructor(readonly file: Unreadable) {
    super(file.reason);
  }
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
      if (isMissing(error)) throw error;
      throw new ReadError(`Cannot read ${JSON.stringify(path)}: ${systemReason(error)}`);
    }
  };
  try {
    const { type } = naming(() => named ? fs.stat(path) : fs.lstat(path));
    if (type !== "file") {
      notes.push(`${place} became ${kindOf({ type })} and was not saved`);
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
  /** Whether it ended too early, and zeros stand for the rest. */
  readonly isShort?: boolean;
}

/** Reads a small file whole, again if it changes meanwhile, and stores its content if that is new. */
async function packWhole(
  packing: Packing,
  found: FoundFile,
  file: SourceFile,
  after: Stat,
): Promise<ReadFile> {
  let bytes: Uint8Array = new Uint8Array(0);
  let changed = true;
  for (let attempt = 1; changed && attempt <= ATTEMPTS_MAX; attempt++) {
    const before = after;
    // One that outgrew memory meanwhile is cut where it was.
    const buffer = new Uint8Array(Math.min(before.bytes, WHOLE_BYTES_MAX));
    bytes = buffer.subarray(0, file.readAt(buffer, 0));
    after = file.stat();
    changed = bytes.length !== before.bytes || !isSameMark(before, after);
    if (attempt === 1) packing.advance(bytes.length);
  }
  const { known, plan, tar } = packing;
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  let stored = known.find(sha256);
  if (!stored) {
    stored = { snapshot: plan.id, member: found.place };
    await tar.add(found.place, after, bytes.length, [bytes]);
    known.add(sha256, bytes.length, stored);
  }
  return { saved: savedFile(found, after, bytes.length, sha256, stored), stat: after, changed };
}

/** Streams a big file into the tar, unless hashing it first shows that it cannot be read, or is stored already. */
async function packStreamed(
  packing: Packing,
  found: FoundFile,
  file: SourceFile,
  before: Stat,
): Promise<ReadFile> {
  const { known, plan, tar, advance } = packing;
  if (plan.isCareful || known.hasSize(before.bytes)) {
    const read = new ExactReader(file, before.bytes, packing.host.checkpoint);
    for (const _ of read.chunks()) { /* Only hashed. */ }
    const sha256 = read.digest();
    const stored = known.find(sha256);
    const after = file.stat();
    if (stored) {
      advance(before.bytes);
      const changed = read.short || !isSameMark(before, after);
      const saved = savedFile(found, after, before.bytes, sha256, stored);
      return { saved, stat: after, changed, isShort: read.short };
    }
    before = after;
  }
  const read = new ExactReader(file, before.bytes, (bytes) => advance(bytes));
  try {
    await tar.add(found.place, before, before.bytes, read.chunks());
  } catch (error) {
    if (!(error instanceof ReadError)) throw error;
    throw new TornMember({ source: found.source, path: found.path, reason: error.message });
  }
  const sha256 = read.digest();
  const stored = { snapshot: plan.id, member: found.place };
  known.add(sha256, before.bytes, stored);
  const after = file.stat();
  const changed = read.short || !isSameMark(before, after);
  const saved = savedFile(found, after, before.bytes, sha256, stored);
  return { saved, stat: after, changed, isShort: read.short };
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

/** Gives exactly so many bytes of a file, whatever happens to it: cut, or filled with zeros. */
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
  readonly #sink: Sink;
  #open: { readonly controller: TarPackController; readonly drained: Promise<void> } | undefined;

  constructor(sink: Sink) {
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
    noteMember(bytes);
  }

  /** Ends the tar, if there is one. */
  async finish(): Promise<void> {
    this.#open?.controller.finalize();
    await this.#open?.drained;
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
  sink: Sink,
): Promise<void> {
  let gathered = new Uint8Array(CHUNK_BYTES);
  let length = 0;
  const flush = async () => {
    if (length > 0) {
      await sink(gathered.subarray(0, length));
      gathered = new Uint8Array(CHUNK_BYTES);
    }
    length = 0;
  };
  for await (const chunk of readable) {
    if (chunk.length >= CHUNK_BYTES / 2) {
      await flush();
      await sink(chunk);
      continue;
    }
    if (length + chunk.length > gathered.length) await flush();
    gathered.set(chunk, length);
    length += chunk.length;
  }
  await flush();
}
