/**
 * Makes a sealed snapshot in the local store from what is staged and from the files of a set.
 *
 * Sees the sources, the set's state folder and the set's folder in the store. Has no network, starts no program, and
 * knows only public keys to encrypt to: it cannot read what it wrote.
 *
 * Invariants: the snapshot's folder appears under its name in one rename, whole and synced; the memory that the next
 * increment builds on is replaced only after that.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { fullReason, prunable } from "./core/chain.ts";
import { type Config, type SetConfig, setNamed } from "./core/config.ts";
import { BackupError, reasonOf } from "./core/errors.ts";
import { type FilePlan, planFiles } from "./core/file_index.ts";
import { type DetailedSuspicion, type GateSubject, suspicionsOf } from "./core/gate.ts";
import { type Manifest, neededBy, type SavedDatabase, serializeManifest } from "./core/manifest.ts";
import {
  databasePart,
  FILES_PART,
  MANIFEST_PART,
  SEAL_FILE,
  type SetName,
  SIGNATURE_FILE,
  type SnapshotId,
} from "./core/names.ts";
import {
  compareChecksums,
  comparePages,
  type DeltaStats,
  encodeChanges,
  encodeWholePages,
  type ImageReader,
  pageChecksums,
} from "./core/page_diff.ts";
import type { Place } from "./core/place.ts";
import {
  FORMAT_NAME,
  FORMAT_VERSION,
  type Seal,
  SEAL_NAMESPACE,
  sealChecksum,
  sealedBytes,
  type SealedPart,
  serializeSeal,
} from "./core/seal.ts";
import { signSsh } from "./core/sshsig.ts";
import { PROGRAM } from "./core/version.ts";
import {
  diskError,
  lstatIfThere,
  makeFolderDurably,
  parentOf,
  removeIfThere,
  writeFileDurably,
} from "./host/fs.ts";
import type { Fs, Host, OpenFile } from "./host/host.ts";
import {
  baseChecksums,
  baseImage,
  makeSetFolders,
  type Memory,
  readMemory,
  setFolder,
  writeMemory,
} from "./host/memory.ts";
import { type Compression, PartWriter } from "./host/part_writer.ts";
import { confirmedIds, fullWantedSince } from "./host/ship_records.ts";
import { readSigningKey } from "./host/signing_key.ts";
import { findFiles } from "./host/sources.ts";
import { notEnoughSpace } from "./host/sqlite.ts";
import {
  clearStaging,
  readStaged,
  readStagedChecks,
  type Staged,
  type StagedChecks,
} from "./host/staging.ts";
import { serveStep } from "./host/step.ts";
import { INCOMING_PREFIX, isSealed, readSnapshot, setIn, snapshotIds, type StoredSet } from "./host/store.ts";
import { packFiles } from "./host/tar.ts";

/** What to make of a staged set. */
export interface EncryptOptions {
  readonly set: SetName;
  /** Start a new chain. */
  readonly full?: boolean;
  /** Take lost rows for intended. */
  readonly accept?: boolean;
}

/** What was made. */
export interface EncryptReport {
  readonly set: SetName;
  readonly id: SnapshotId;
  readonly kind: Seal["kind"];
  /** Why it is a full, where it is one. */
  readonly reason: string | undefined;
  /** Bytes that it takes in the store, seal and all. */
  readonly bytes: number;
  /** Rows by table, by database. */
  readonly rows: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Size of the databases' images together. */
  readonly databaseBytes: number;
  readonly files: number;
  readonly suspicions: readonly DetailedSuspicion[];
  readonly notes: readonly string[];
}

/** A full is large, and most of it blobs that no level makes smaller: small frames keep memory low. */
const FOR_FULLS: Compression = { level: 3, frameBytes: 1 << 20 };
/** All else is small, and worth the effort. */
const FOR_THE_REST: Compression = { level: 9, frameBytes: 4 << 20 };
/** Bytes of an image that are read at once. */
const READ_BYTES = 1 << 20;

/** Thrown inside to start over with a full. */
class FullNeeded extends Error {}

/**
 * Encrypts, seals and publishes what is staged.
 *
 * @param checks What SQLite says of the staged images; it may still be finding out.
 * @throws {BackupError} (source) If a file cannot be read; (key) for the signing key; (config) for recipients; (disk).
 * The store and the memory are then as they were.
 */
export async function encrypt(
  host: Host,
  config: Config,
  options: EncryptOptions,
  checks: Promise<StagedChecks>,
): Promise<EncryptReport> {
  const { set } = setNamed(config, options.set);
  requireRecipients(config);
  const folder = setFolder(config.stateFolder, options.set);
  makeSetFolders(host.fs, folder);
  const staged = readStaged(host.fs, folder, options.set);
  const stored = setIn(config.store, config.hub, options.set);
  makeFolderDurably(host.fs, stored.folder, 0o750);
  clearIncoming(host.fs, stored);
  const free = host.fs.freeBytes(stored.folder);
  if (free !== undefined && free < config.limits.freeBytesMin) {
    throw notEnoughSpace(stored.folder, free, config.limits.freeBytesMin);
  }

  const memory = readMemory(host, folder);
  const job: Job = { host, config, options, set, folder, staged, stored, memory, checks };
  const reason = reasonForFull(job);
  if (reason !== undefined) return await write(job, reason);
  try {
    return await write(job, undefined);
  } catch (error) {
    if (!(error instanceof FullNeeded)) throw error;
    host.report.info(`a full is needed: ${error.message}`);
    return await write(job, error.message);
  }
}

interface Job {
  readonly host: Host;
  readonly config: Config;
  readonly options: EncryptOptions;
  readonly set: SetConfig;
  /** The set's state folder. */
  readonly folder: string;
  readonly staged: Staged;
  readonly stored: StoredSet;
  readonly memory: Memory | undefined;
  readonly checks: Promise<StagedChecks>;
}

function requireRecipients(config: Config): void {
  if (config.recipients.length > 0) return;
  throw new BackupError("Cannot encrypt: the configuration names no recipient", {
    kind: "config",
    hint:
      'make an identity with `age-keygen -o identity.txt`, put its public key into "recipients", and keep the file off this machine',
  });
}

function reasonForFull({ host, config, options, set, stored, memory, staged }: Job): string | undefined {
  if (options.full) return "it was asked for";
  if (!memory) return fullReason(set, undefined, host.now(), () => true);
  const { manifest } = memory;
  const confirmed = confirmedIds(host, config, options.set);
  const isHeld = (id: SnapshotId) => confirmed.has(id) || isSealed(readSnapshot(host.fs, stored, id));
  const needs = neededBy(manifest);
  const length = Math.max(0, ...manifest.databases.map((database) => database.chain.length), needs.length);
  const reason = fullReason(set, { parent: manifest.id, needs, length }, host.now(), isHeld);
  if (reason) return reason;
  const wanted = fullWantedSince(host, config, options.set);
  const root = needs[0] ?? manifest.id;
  if (wanted && wanted.since > root) return `the far side asks for it: ${wanted.reason}`;
  // A new recipient could open the increments and not what they build on; one that was dropped, the other way round.
  const before = readSnapshot(host.fs, stored, manifest.id).sealed.seal?.recipients;
  if (before && before.toSorted().join() !== config.recipients.toSorted().join()) {
    return "the recipients have changed";
  }
  for (const { source, copy } of staged.databases) {
    const before = manifest.databases.find((database) => database.source === source);
    if (copy && before && before.pageBytes !== copy.pageBytes) {
      return `${source} has pages of ${copy.pageBytes} bytes, and had ${before.pageBytes}`;
    }
  }
  return undefined;
}

/** Writes the snapshot beside its place, publishes it, and only then moves the memory on. */
async function write(job: Job, full: string | undefined): Promise<EncryptReport> {
  const { host, config, options, staged, stored, folder } = job;
  const incoming = `${stored.folder}/${INCOMING_PREFIX}${staged.id}`;
  const parent = full === undefined ? job.memory : undefined;
  try {
    host.fs.mkdir(incoming, { mode: 0o750 });
    const parts: SealedPart[] = [];
    const databases: WrittenDatabase[] = [];
    for (const database of staged.databases) {
      databases.push(await writeDatabase(job, database, parent, incoming, parts));
    }
    const files = await writeFiles(job, parent, incoming, parts);
    const { manifest, suspicions, good } = await describe(job, parent, databases, files);
    const partsOfContent = parts.length;
    parts.push(
      await writePart(host, config, incoming, MANIFEST_PART, (part) => {
        part.write(new TextEncoder().encode(serializeManifest(manifest)));
      }),
    );

    const isUnchanged = parent !== undefined && partsOfContent === 0 &&
      sameContent(parent.manifest, manifest);
    const seal: Seal = {
      format: FORMAT_NAME,
      version: FORMAT_VERSION,
      hub: config.hub,
      set: options.set,
      id: staged.id,
      kind: parent === undefined ? "full" : isUnchanged ? "unchanged" : "increment",
      parent: parent?.manifest.id ?? null,
      needs: neededBy(manifest),
      parts,
      recipients: config.recipients,
      previous: previousSeal(job),
      suspicions: suspicions.map(({ code, source }) => ({ code, source })),
      writer: PROGRAM,
    };
    const sealBytes = new TextEncoder().encode(serializeSeal(seal));
    const key = readSigningKey(host, config.signingKeyFile);
    const signature = signSsh(key.seed, SEAL_NAMESPACE, sealBytes);
    writeFileDurably(host.fs, `${incoming}/${SIGNATURE_FILE}`, signature, 0o640);
    writeFileDurably(host.fs, `${incoming}/${SEAL_FILE}`, sealBytes, 0o640);
    host.checkpoint();
    publish(host.fs, incoming, `${stored.folder}/${staged.id}`);

    promoteImages(job, databases);
    writeMemory(host.fs, folder, {
      version: 1,
      manifest,
      sealChecksum: sealChecksum(sealBytes),
      fullBytes: Object.fromEntries(databases.map(({ saved, fullBytes }) => [saved.source, fullBytes])),
      fingerprints: Object.fromEntries(
        staged.databases.flatMap(({ source, fingerprint }) => fingerprint ? [[source, fingerprint]] : []),
      ),
      files: files.remembered,
      good,
    });
    clearStaging(host.fs, folder);
    try {
      pruneStore(job);
    } catch (error) {
      if (error instanceof BackupError && error.kind === "cancelled") throw error;
      // The new snapshot is safe: old ones that stay are no failure of this run.
      host.report.warn(`old snapshots stay in the local store: ${reasonOf(error)}`);
    }
    for (const note of manifest.notes) host.report.warn(note);
    return {
      set: options.set,
      id: staged.id,
      kind: seal.kind,
      reason: full,
      bytes: sealedBytes(seal) + sealBytes.length + signature.length,
      rows: Object.fromEntries(manifest.databases.map((database) => [database.source, database.rows])),
      databaseBytes: manifest.databases.reduce((sum, database) => sum + database.bytes, 0),
      files: manifest.files.filter((file) => file.type === "file").length,
      suspicions,
      notes: manifest.notes,
    };
  } catch (error) {
    removeIfThere(host.fs, incoming);
    throw error;
  }
}

interface WrittenDatabase {
  readonly saved: Omit<SavedDatabase, "checks">;
  /** What else the gate looks at; undefined where nothing was committed since the last snapshot. */
  readonly seen: Pick<GateSubject, "unreadable" | "problems"> | undefined;
  /** Bytes of ciphertext of the chain's full. */
  readonly fullBytes: number;
  /** The image that becomes the next base, and the page checksums that may stand for it. */
  readonly image: string | undefined;
  readonly sums: Uint8Array | undefined;
}

async function writeDatabase(
  job: Job,
  staged: Staged["databases"][number],
  parent: Memory | undefined,
  incoming: string,
  parts: SealedPart[],
): Promise<WrittenDatabase> {
  const { source, place, mode, mtimeMs, copy } = staged;
  const before = parent?.manifest.databases.find((database) => database.source === source);
  if (!copy) {
    const known = job.memory?.manifest.databases.find((database) => database.source === source);
    if (before) {
      const { checks: _, ...saved } = before;
      return {
        saved: { ...saved, place, mode, mtimeMs },
        seen: undefined,
        fullBytes: parent!.fullBytes[source] ?? 0,
        image: undefined,
        sums: undefined,
      };
    }
    // Nothing was committed, but a full is due: the image that was kept is the database, if it is still what it was.
    if (known && lstatIfThere(job.host.fs, baseImage(job.folder, known.sha256))) {
      return await writeKeptFull(job, { ...known, place, mode, mtimeMs }, incoming, parts);
    }
    throw new BackupError(`Cannot make a full of ${source}: its image was not copied`, {
      kind: "source",
      hint: "run it again with --full",
    });
  }
  const about = {
    source,
    place,
    mode,
    mtimeMs,
    pageBytes: copy.pageBytes,
    bytes: copy.bytes,
    rows: { ...copy.rows },
    schemaSha256: copy.schemaSha256,
    userVersion: copy.userVersion,
    applicationId: copy.applicationId,
  };
  using next = openImage(job.host.fs, copy.image);
  if (before) {
    const delta = await writeDelta(job, source, before, next, incoming, parent!.fullBytes[source] ?? 0);
    if (delta.part) parts.push(delta.part);
    const chain = delta.part
      ? [...before.chain, {
        snapshot: job.staged.id,
        part: delta.part.name,
        bytes: copy.bytes,
        sha256: delta.sha256,
      }]
      : before.chain;
    return {
      saved: { ...about, sha256: delta.sha256, chain },
      seen: copy,
      fullBytes: parent!.fullBytes[source] ?? 0,
      image: copy.image,
      sums: delta.sums,
    };
  }
  const full = await writeFull(job, source, next, incoming);
  parts.push(full.part);
  return {
    saved: { ...about, sha256: full.sha256, chain: [fullLink(job, full, copy.bytes)] },
    seen: copy,
    fullBytes: full.part.bytes,
    image: copy.image,
    sums: full.sums,
  };
}

async function writeKeptFull(
  job: Job,
  known: SavedDatabase,
  incoming: string,
  parts: SealedPart[],
): Promise<WrittenDatabase> {
  using image = openImage(job.host.fs, baseImage(job.folder, known.sha256));
  const full = await writeFull(job, known.source, image, incoming);
  if (full.sha256 !== known.sha256) {
    // Without its fingerprint the database counts as changed, so the next run copies it.
    writeMemory(job.host.fs, job.folder, { ...job.memory!, fingerprints: {} });
    throw new BackupError(`Cannot make a full of ${known.source}: the image kept on this hub is damaged`, {
      kind: "source",
      hint: "run it again: the database is then copied anew",
    });
  }
  parts.push(full.part);
  const { checks: _, ...saved } = known;
  return {
    saved: { ...saved, chain: [fullLink(job, full, known.bytes)] },
    seen: undefined,
    fullBytes: full.part.bytes,
    image: undefined,
    sums: full.sums,
  };
}

const fullLink = (job: Job, full: { part: SealedPart; sha256: string }, bytes: number) => ({
  snapshot: job.staged.id,
  part: full.part.name,
  bytes,
  sha256: full.sha256,
});

async function writeFull(
  job: Job,
  source: string,
  image: OpenImage,
  incoming: string,
): Promise<{ part: SealedPart; sha256: string; sums: Uint8Array | undefined }> {
  const { host, config, set } = job;
  const hash = createHash("sha256");
  const part = await writePart(host, config, incoming, databasePart(source as never, "full"), (part) => {
    const buffer = new Uint8Array(READ_BYTES);
    for (let done = 0; done < image.bytes; done += buffer.length) {
      const chunk = buffer.subarray(0, Math.min(buffer.length, image.bytes - done));
      image.readAt(chunk, done);
      hash.update(chunk);
      part.write(chunk);
      host.report.progress(`encrypt ${source}`, done + chunk.length, image.bytes);
      host.checkpoint();
    }
  }, FOR_FULLS);
  const pageBytes = image.pageBytes;
  return {
    part,
    sha256: hash.digest("hex"),
    sums: set.keepBase ? undefined : pageChecksums(image, { pageBytes }),
  };
}

/** Writes what changed since `before`; no part if nothing did. @throws {FullNeeded} */
async function writeDelta(
  job: Job,
  source: string,
  before: SavedDatabase,
  next: OpenImage,
  incoming: string,
  fullBytes: number,
): Promise<{ part: SealedPart | undefined; sha256: string; sums: Uint8Array | undefined }> {
  const { host, config, set, folder } = job;
  const { pageBytes } = before;
  const nextHash = createHash("sha256");
  let done = 0;
  const onNext = (chunk: Uint8Array) => {
    nextHash.update(chunk);
    done += chunk.length;
    host.report.progress(`compare ${source}`, done, next.bytes);
    host.checkpoint();
  };
  const giveUpOverBytes = Math.ceil(next.bytes * set.fullOverRatio);
  const pathOfBase = set.keepBase ? baseImage(folder, before.sha256) : baseChecksums(folder, before.sha256);
  if (!lstatIfThere(host.fs, pathOfBase)) {
    throw new FullNeeded(`the last image of ${source} is not kept here`);
  }

  let changes: ReturnType<typeof comparePages>;
  let encode: () => Generator<Uint8Array, DeltaStats | "too large">;
  let sums: Uint8Array | undefined;
  using base = set.keepBase ? openImage(host.fs, pathOfBase) : undefined;
  if (base) {
    if (base.bytes !== before.bytes) throw new FullNeeded(`the last image of ${source} is not what it was`);
    const baseHash = createHash("sha256");
    changes = comparePages(base, next, { pageBytes, onNext, onBase: (chunk) => void baseHash.update(chunk) });
    if (baseHash.digest("hex") !== before.sha256) {
      throw new FullNeeded(`the last image of ${source} is not what it was`);
    }
    encode = () => encodeChanges(base, next, changes, { giveUpOverBytes });
  } else {
    const compared = compareChecksums(readChecksums(host.fs, pathOfBase, before), next, {
      pageBytes,
      onNext,
    });
    changes = compared.changes;
    sums = compared.sums;
    encode = () => encodeWholePages(next, changes, { giveUpOverBytes });
  }
  const sha256 = nextHash.digest("hex");
  if (sha256 === before.sha256) return { part: undefined, sha256, sums };
  const name = databasePart(source as never, "delta");
  const part = await writePart(host, config, incoming, name, (part) => {
    const encoding = encode();
    for (let step = encoding.next();; step = encoding.next()) {
      if (step.done) {
        if (step.value === "too large") throw new FullNeeded(`the changes of ${source} are too large`);
        return;
      }
      part.write(step.value);
      host.checkpoint();
    }
  });
  if (part.bytes > fullBytes * set.fullOverRatio) {
    throw new FullNeeded(
      `the increment of ${source} would take ${part.bytes} bytes, its full took ${fullBytes}`,
    );
  }
  return { part, sha256, sums };
}

/** Page checksums as they were kept: themselves, then their own SHA-256. */
function readChecksums(fs: Fs, path: string, before: SavedDatabase): Uint8Array {
  const bytes = fs.readFile(path);
  const sums = bytes.subarray(0, Math.max(0, bytes.length - 32));
  const isSame = createHash("sha256").update(sums).digest().equals(bytes.subarray(sums.length));
  if (!isSame || sums.length !== before.bytes / before.pageBytes * 16) {
    throw new FullNeeded(`the page checksums of ${before.source} are not what they were`);
  }
  return sums;
}

async function writePart(
  host: Host,
  config: Config,
  incoming: string,
  name: Parameters<typeof PartWriter.create>[2],
  fill: (part: PartWriter) => void | Promise<void>,
  compression = FOR_THE_REST,
): Promise<SealedPart> {
  using part = await PartWriter.create(host.fs, incoming, name, config.recipients, compression);
  await fill(part);
  return part.finish();
}

type WrittenFiles = Awaited<ReturnType<typeof packFiles>> & {
  readonly sources: Manifest["sources"];
  readonly foundNotes: readonly string[];
};

async function writeFiles(
  job: Job,
  parent: Memory | undefined,
  incoming: string,
  parts: SealedPart[],
): Promise<WrittenFiles> {
  const { host, config, set, staged } = job;
  const sources: Manifest["sources"] = [];
  const found: Parameters<typeof planFiles>[0]["found"][] = [];
  const foundNotes: string[] = [];
  for (const source of set.sources) {
    if (source.kind === "sqlite") continue;
    const result = findFiles(host.fs, source, config.home);
    found.push(result.found);
    foundNotes.push(...result.notes);
    if (result.absent) host.report.info(`${source.name}: there is nothing at ${source.path}`);
    const outcome = result.absent ? "absent" : "saved";
    sources.push({ name: source.name, kind: source.kind, path: source.path, secret: source.secret, outcome });
    host.checkpoint();
  }
  const plan: FilePlan = planFiles({
    id: staged.id,
    found: found.flatMap((files) => [...files]),
    except: databasePlaces(staged),
    ...(parent ? { previous: { manifest: parent.manifest, remembered: parent.files } } : {}),
  });
  const part = await PartWriter.create(host.fs, incoming, FILES_PART, config.recipients, FOR_THE_REST);
  try {
    const packed = await packFiles(
      host,
      plan,
      (bytes) => part.write(bytes),
      (done, total) => host.report.progress("encrypt files", done, total),
    );
    if (packed.wroteTar) parts.push(part.finish());
    else removeIfThere(host.fs, `${incoming}/${FILES_PART}`);
    return { ...packed, sources, foundNotes };
  } finally {
    part[Symbol.dispose]();
  }
}

/** A folder source may hold a database that is saved as such: its files are not saved a second time, torn. */
function databasePlaces(staged: Staged): Set<Place> {
  return new Set(
    staged.databases.flatMap(({ place }) =>
      ["", "-wal", "-shm", "-journal"].map((end) => place + end as Place)
    ),
  );
}

async function describe(
  { config, options, set, staged, memory, checks }: Job,
  parent: Memory | undefined,
  databases: readonly WrittenDatabase[],
  files: WrittenFiles,
): Promise<{ manifest: Manifest; suspicions: DetailedSuspicion[]; good: Memory["good"] }> {
  const checked = await checks;
  const suspicions: DetailedSuspicion[] = [];
  const good: Record<string, Memory["good"][string]> = { ...memory?.good };
  const saved = databases.map((database): SavedDatabase => {
    const { source } = database.saved;
    const known = memory?.manifest.databases.find((candidate) => candidate.source === source);
    const result = checked[source] ?? (database.image === undefined ? known?.checks : undefined) ??
      { integrity: ["was not checked"], foreignKeys: [] };
    // Damage that was found in this very image is in it still, though nobody looked again.
    const { unreadable, problems = [] } = database.seen ??
      { unreadable: [], problems: knownDamage(memory, source) };
    const subject = { unreadable, problems, rows: database.saved.rows, checks: result };
    const found = suspicionsOf(source, subject, options.accept ? undefined : memory?.good[source], set.gate);
    suspicions.push(...found);
    if (found.length === 0) good[source] = { snapshot: staged.id, rows: database.saved.rows, checks: result };
    return { ...database.saved, checks: result };
  });
  const places = new Set<Place>([...saved, ...files.files].map((entry) => entry.place));
  const before = parent ? [...parent.manifest.databases, ...parent.manifest.files] : [];
  const manifest: Manifest = {
    version: FORMAT_VERSION,
    hub: config.hub,
    set: options.set,
    id: staged.id,
    parent: parent?.manifest.id ?? null,
    sources: [...staged.sources, ...files.sources],
    databases: saved,
    files: [...files.files],
    removed: before.map((entry) => entry.place).filter((place) => !places.has(place)),
    notes: [...staged.notes, ...files.foundNotes, ...files.notes],
    suspicions,
  };
  return { manifest, suspicions, good };
}

function knownDamage(memory: Memory | undefined, source: string): string[] {
  const suspicions = memory?.manifest.suspicions ?? [];
  return suspicions.flatMap((known) =>
    known.source === source && known.code === "integrity" ? [known.detail] : []
  );
}

function sameContent(before: Manifest, now: Manifest): boolean {
  const content = ({ databases, files }: Manifest) =>
    JSON.stringify([databases.map(({ mtimeMs: _, ...database }) => database), files]);
  return content(before) === content(now);
}

/** The newest seal of the set, in the local store or as remembered. */
function previousSeal({ host, stored, memory }: Job): Seal["previous"] {
  for (const id of snapshotIds(host.fs, stored).reverse()) {
    const snapshot = readSnapshot(host.fs, stored, id);
    if (snapshot.sealed.seal) {
      if (memory && memory.manifest.id > id) break;
      return { id, sha256: snapshot.sealed.checksum };
    }
  }
  return memory ? { id: memory.manifest.id, sha256: memory.sealChecksum } : null;
}

function publish(fs: Fs, incoming: string, final: string): void {
  try {
    fs.syncFolder(incoming);
    fs.rename(incoming, final);
    fs.syncFolder(parentOf(final));
  } catch (error) {
    throw diskError(`publish ${final}`, error);
  }
}

/** Moves the new images to where the next increment looks for them. The old ones stay until the memory moves on. */
function promoteImages({ host, folder, set }: Job, databases: readonly WrittenDatabase[]): void {
  for (const { saved, image, sums } of databases) {
    if (set.keepBase && image) host.fs.rename(image, baseImage(folder, saved.sha256));
    if (!set.keepBase && sums) {
      const checksum = createHash("sha256").update(sums).digest();
      const bytes = new Uint8Array(sums.length + checksum.length);
      bytes.set(sums);
      bytes.set(checksum, sums.length);
      writeFileDurably(host.fs, baseChecksums(folder, saved.sha256), bytes);
    }
  }
  host.fs.syncFolder(`${folder}/base`);
}

/**
 * Lets go of old snapshots that every destination holds, dependents before what they need: a crash in between leaves
 * nothing that cannot be restored. Each is renamed first, so that it is gone at once or not at all.
 */
function pruneStore({ host, config, options, stored }: Job): void {
  const confirmed = confirmedIds(host, config, options.set);
  if (confirmed.size === 0) return;
  const seals = snapshotIds(host.fs, stored).map((id) => readSnapshot(host.fs, stored, id)).filter(isSealed)
    .map(({ sealed }) => sealed.seal);
  for (const id of prunable(seals, (id) => confirmed.has(id), host.now(), config.localKeepDays).reverse()) {
    const removing = `${stored.folder}/${INCOMING_PREFIX}${id}`;
    host.fs.rename(`${stored.folder}/${id}`, removing);
    removeIfThere(host.fs, removing);
  }
}

interface OpenImage extends ImageReader, Disposable {
  readonly pageBytes: number;
}

function openImage(fs: Fs, path: string): OpenImage {
  const file: OpenFile = fs.open(path, { read: true });
  const header = new Uint8Array(18);
  file.readAt(header, 0);
  const stored = header[16]! << 8 | header[17]!;
  return {
    bytes: file.stat().bytes,
    pageBytes: stored === 1 ? 65536 : stored,
    readAt(buffer, position) {
      if (file.readAt(buffer, position) !== buffer.length) {
        throw new BackupError(`Cannot read ${path}: it is shorter than it was`, {
          kind: "disk",
          hint: "run it again; if it stays so, look at the system's log for errors of that disk",
        });
      }
    },
    [Symbol.dispose]: () => file.close(),
  };
}

/** Removes what a run that did not finish left in the store. */
function clearIncoming(fs: Fs, stored: StoredSet): void {
  for (const { name } of fs.readDir(stored.folder)) {
    if (name.startsWith(INCOMING_PREFIX)) removeIfThere(fs, `${stored.folder}/${name}`);
  }
}

serveStep<{ config: Config; options: EncryptOptions; checksComeLater: boolean }>(
  import.meta,
  ({ config, options, checksComeLater }, { host, later }) => {
    const folder = setFolder(config.stateFolder, options.set);
    const checks = checksComeLater
      ? later as Promise<StagedChecks>
      : Promise.resolve(readStagedChecks(host.fs, folder) ?? {});
    return encrypt(host, config, options, checks);
  },
);
