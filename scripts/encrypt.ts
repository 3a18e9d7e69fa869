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

import type { EncryptReport } from "./core/command_line/reports.ts";
import type { Config, Source } from "./core/config/config.ts";
import { setNamed } from "./core/config/set_named.ts";
import { baseImage, setFolder } from "./core/config/state_paths.ts";
import { BackupError, ifPossible, isInterruption, problemOf, reasonOf } from "./core/errors.ts";
import { cleanText, formatBytes, formatCount } from "./core/format.ts";
import { jsonPieces } from "./core/json_pieces.ts";
import { signSsh } from "./core/keys/sshsig.ts";
import {
  FILES_PART,
  INCOMING_PREFIX,
  MANIFEST_PART,
  SEAL_FILE,
  type SetName,
  SIGNATURE_FILE,
  type SnapshotId,
} from "./core/names.ts";
import { parentOf } from "./core/paths.ts";
import { pathOfPlace, type Place, placeOf } from "./core/place.ts";
import { fullReason } from "./core/snapshot/chain.ts";
import { type FilePlan, type FoundFile, planFiles, type Unreadable } from "./core/snapshot/file_index.ts";
import {
  type DetailedSuspicion,
  type GateSubject,
  suspicionsOf,
  suspicionsOfUnreadable,
} from "./core/snapshot/gate.ts";
import {
  type Manifest,
  MANIFEST_BYTES_MAX,
  MANIFEST_VALUES_MAX,
  ManifestSize,
  neededBy,
  type SavedDatabase,
  whyUnreadable,
} from "./core/snapshot/manifest.ts";
import {
  FORMAT_NAME,
  FORMAT_VERSION,
  parseSeal,
  type Seal,
  SEAL_NAMESPACE,
  sealChecksum,
  sealedBytes,
  type SealedPart,
  sealedSuspicions,
  serializeSeal,
} from "./core/snapshot/seal.ts";
import { DATABASE_FILES } from "./core/snapshot/sqlite_format.ts";
import { PROGRAM } from "./core/version.ts";
import { lstatIfThere, removeIfThere, writeFileDurably } from "./host/fs.ts";
import { collectIfMany } from "./host/garbage.ts";
import type { Host, Stat } from "./host/host.ts";
import { readSigningKey, UNTRUSTED_REMEDY, untrustedKey } from "./host/keys/signing_key.ts";
import { type Memory, readMemory, writeMemory } from "./host/records/memory.ts";
import { confirmedIds, fullWantedSince } from "./host/records/ship_records.ts";
import {
  FullNeeded,
  keepForNext,
  type PartsTarget,
  writeDelta,
  writeFull,
} from "./host/snapshot/database_parts.ts";
import { openImage } from "./host/snapshot/image.ts";
import { type Packed, packFiles, TornMember } from "./host/snapshot/pack.ts";
import { FOR_THE_REST, PartWriter, writePart } from "./host/snapshot/part_writer.ts";
import { findFiles } from "./host/snapshot/sources.ts";
import {
  clearStaging,
  makeSetFolders,
  readStaged,
  readStagedChecks,
  type Staged,
  type StagedChecks,
} from "./host/snapshot/staging.ts";
import { requireFree } from "./host/space.ts";
import { serveStep } from "./host/steps/step.ts";
import { prepareStore, pruneStore, publish } from "./host/store/local_store.ts";
import { isSealed, readSnapshot, setIn, snapshotIds, type StoredSet } from "./host/store/store.ts";

/** What to make of a staged set. */
export interface EncryptOptions {
  readonly set: SetName;
  /** Start a new chain. */
  readonly full?: boolean;
  /** Take lost rows for intended. */
  readonly accept?: boolean;
}

/**
 * Encrypts, seals and publishes what is staged.
 *
 * @param checks What SQLite says of the staged images; it may still be finding out.
 * @throws {BackupError} (key) for the signing key; (config) for recipients; (source) for more files than a manifest may
 * list; (disk). The store and the memory are then as they were.
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
  prepareStore(host, stored);
  requireFree(host.fs, { folder: stored.folder, bytes: config.limits.freeBytesMin });

  const memory = readMemory(host, folder);
  collectIfMany();
  const incoming = `${stored.folder}/${INCOMING_PREFIX}${staged.id}`;
  const { recipients } = config;
  const job = { host, config, recipients, options, set, folder, incoming, staged, stored, memory, checks };
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

interface Job extends PartsTarget {
  readonly config: Config;
  readonly options: EncryptOptions;
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
  const { host, config, options, staged, stored, folder, incoming } = job;
  const parent = full === undefined ? job.memory : undefined;
  try {
    host.fs.mkdir(incoming, { mode: 0o750 });
    const databases: WrittenDatabase[] = [];
    for (const database of staged.databases) databases.push(await writeDatabase(job, database, parent));
    const files = await writeFiles(job, parent);
    collectIfMany();
    const content = [...databases, files].flatMap(({ part }) => part ?? []);
    const { manifest, suspicions, good } = await describe(job, parent, databases, files);
    const manifestPart = await writeManifest(job, manifest, parent);
    const isUnchanged = parent !== undefined && content.length === 0 &&
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
      parts: [...content, manifestPart],
      recipients: config.recipients,
      previous: previousSeal(job),
      suspicions: sealedSuspicions(suspicions),
      writer: PROGRAM,
    };
    const written = writeSeal(job, seal);
    host.checkpoint();
    publish(host.fs, incoming, `${stored.folder}/${staged.id}`);

    for (const { saved, sums, image } of databases) keepForNext(job, { sha256: saved.sha256, sums }, image);
    host.fs.syncFolder(`${folder}/base`);
    writeMemory(host.fs, folder, {
      version: 1,
      manifest,
      sealChecksum: written.checksum,
      fullBytes: Object.fromEntries(databases.map(({ saved, fullBytes }) => [saved.source, fullBytes])),
      fingerprints: Object.fromEntries(
        staged.databases.flatMap(({ source, fingerprint }) => fingerprint ? [[source, fingerprint]] : []),
      ),
      files: files.remembered,
      good,
    });
    clearStaging(host.fs, folder);
    pruneIfPossible(job);
    // Whoever may write in a source chooses the names in it.
    for (const note of manifest.notes) host.report.warn(cleanText(note, Infinity));
    return {
      set: options.set,
      id: staged.id,
      kind: seal.kind,
      reason: full,
      bytes: sealedBytes(seal) + written.bytes,
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

/** The new snapshot is safe: old ones that stay are no failure of this run. */
function pruneIfPossible({ host, config, options, stored }: Job): void {
  try {
    pruneStore(host, config, options.set, stored);
  } catch (error) {
    if (isInterruption(error)) throw error;
    host.report.warn(`old snapshots stay in the local store: ${reasonOf(error)}`);
  }
}

function writeManifest(job: Job, manifest: Manifest, parent: Memory | undefined): Promise<SealedPart> {
  requireReadable(manifest.id, "manifest", whyUnreadable(manifest, new Set(parent?.manifest.files)));
  return writePart(job, MANIFEST_PART, FOR_THE_REST, (part) => {
    const size = new ManifestSize();
    for (const piece of jsonPieces(manifest)) {
      if (size.add(piece)) throw tooManyFiles(manifest);
      part.write(piece);
    }
  });
}

/** Signs the seal and writes both, the seal last. @returns Its checksum, and what both take in bytes. */
function writeSeal({ host, config, incoming }: Job, seal: Seal): { checksum: string; bytes: number } {
  const text = serializeSeal(seal);
  requireReadable(seal.id, "seal", problemOf(() => parseSeal(text, SEAL_FILE)));
  const bytes = new TextEncoder().encode(text);
  const key = readSigningKey(host, config.signingKeyFile);
  const untrusted = untrustedKey(config, key);
  if (untrusted !== undefined) host.report.warn(`${untrusted}; ${UNTRUSTED_REMEDY}`);
  const signature = signSsh(key.seed, SEAL_NAMESPACE, bytes);
  writeFileDurably(host.fs, `${incoming}/${SIGNATURE_FILE}`, signature, 0o640);
  writeFileDurably(host.fs, `${incoming}/${SEAL_FILE}`, bytes, 0o640);
  return { checksum: sealChecksum(bytes), bytes: bytes.length + signature.length };
}

/** A database in the snapshot being made. */
interface WrittenDatabase {
  readonly saved: Omit<SavedDatabase, "checks">;
  /** What else the gate looks at; undefined where nothing was committed since the last snapshot. */
  readonly seen: Pick<GateSubject, "unreadable" | "problems"> | undefined;
  /** Bytes of ciphertext of the chain's full. */
  readonly fullBytes: number;
  readonly part: SealedPart | undefined;
  /** The staged image that becomes the next base, and the page checksums that may stand for it. */
  readonly image: string | undefined;
  readonly sums: Uint8Array | undefined;
}

/** Writes one database. @throws {FullNeeded} */
async function writeDatabase(
  job: Job,
  staged: Staged["databases"][number],
  parent: Memory | undefined,
): Promise<WrittenDatabase> {
  const { source, place, mode, mtimeMs, copy } = staged;
  const before = parent?.manifest.databases.find((database) => database.source === source);
  if (!copy) return await writeUncopied(job, staged, before);
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
  const fullBytes = before && job.memory!.fullBytes[source] || 0;
  const { part, sha256, sums } = before
    ? await writeDelta(job, source, before, next, fullBytes)
    : await writeFull(job, source, next);
  const link = part && { snapshot: job.staged.id, part: part.name, bytes: copy.bytes, sha256 };
  return {
    saved: { ...about, sha256, chain: [...before?.chain ?? [], ...link ? [link] : []] },
    seen: copy,
    fullBytes: before ? fullBytes : part!.bytes,
    part,
    image: copy.image,
    sums,
  };
}

/**
 * Nothing was committed since the last snapshot: it is as it was, or, where a full is due, the image that was kept is
 * the database, if it is still what it was.
 */
async function writeUncopied(
  job: Job,
  { source, place, mode, mtimeMs }: Staged["databases"][number],
  before: SavedDatabase | undefined,
): Promise<WrittenDatabase> {
  const { host, folder, memory } = job;
  const known = before ?? memory?.manifest.databases.find((database) => database.source === source);
  const path = known && baseImage(folder, known.sha256);
  if (!known || !path || (!before && !lstatIfThere(host.fs, path))) {
    throw new BackupError(`Cannot make a full of ${source}: its image was not copied`, {
      kind: "source",
      hint: "run it again with --full",
    });
  }
  const { checks: _, ...saved } = { ...known, place, mode, mtimeMs };
  const asBefore = { seen: undefined, image: undefined, sums: undefined };
  if (before) {
    return { saved, fullBytes: memory!.fullBytes[source] ?? 0, part: undefined, ...asBefore };
  }
  using image = openImage(host.fs, path);
  const { part, sha256, sums } = await writeFull(job, source, image);
  if (sha256 !== known.sha256) {
    // Without its fingerprint the database counts as changed, so the next run copies it.
    writeMemory(host.fs, folder, { ...memory!, fingerprints: {} });
    throw new BackupError(`Cannot make a full of ${source}: the image kept on this hub is damaged`, {
      kind: "source",
      hint: "run it again: the database is then copied anew",
    });
  }
  const chain = [{ snapshot: job.staged.id, part: part.name, bytes: known.bytes, sha256 }];
  return { saved: { ...saved, chain }, fullBytes: part.bytes, part, ...asBefore, sums };
}

type WrittenFiles = Packed & {
  /** Sources that must be there, and are not. */
  readonly missing: readonly Unreadable[];
  /** Undefined if no file has content that is new. */
  readonly part: SealedPart | undefined;
  readonly sources: Manifest["sources"];
  readonly foundNotes: readonly string[];
};

async function writeFiles(job: Job, parent: Memory | undefined): Promise<WrittenFiles> {
  const { host, config, set } = job;
  const sources: Manifest["sources"] = [];
  const found: { readonly source: Source; readonly files: readonly FoundFile[] }[] = [];
  const foundNotes: string[] = [];
  const unreadable: Unreadable[] = [];
  const missing: Unreadable[] = [];
  const own = ownFolders(job);
  for (const source of set.sources) {
    if (source.kind === "sqlite") continue;
    const result = findFiles(host.fs, source, config.home, own);
    found.push({ source, files: result.found });
    foundNotes.push(...result.notes);
    unreadable.push(...result.unreadable);
    if (result.absent && source.required) missing.push(missingSource(source));
    else if (result.absent) host.report.info(`${source.name}: there is nothing at ${source.path}`);
    sources.push({
      name: source.name,
      kind: source.kind,
      path: source.path,
      secret: source.secret,
      outcome: result.absent ? "absent" : "saved",
    });
    host.checkpoint();
  }
  const { packed, part, torn } = await packUntilWhole(job, found.flatMap(({ files }) => files), parent);
  unreadable.push(...packed.unreadable, ...torn);
  for (const { source, files } of found) {
    if (files.length === 0 || !files.every(({ place }) => packed.gone.has(place))) continue;
    sources.find(({ name }) => name === source.name)!.outcome = "absent";
    if (source.required) missing.push(goneSource(source));
  }
  for (const { source } of unreadable) sources.find(({ name }) => name === source)!.outcome = "unreadable";
  return { ...packed, unreadable, missing, part, sources, foundNotes };
}

/** A required source that is not there keeps the rest from counting as good, and not from being saved. */
const missingSource = ({ name, path }: Source): Unreadable => ({
  source: name,
  path,
  reason:
    `Cannot save source ${name}: there is nothing at ${JSON.stringify(path)}; correct its "path", or set ` +
    '"required" to false',
});

/** The same of one that was there when the files were looked for, and not when they were read. */
const goneSource = ({ name, path }: Source): Unreadable => ({
  source: name,
  path,
  reason: `Cannot save source ${name}: what was at ${
    JSON.stringify(path)
  } went before it was read; run it again`,
});

/** Packs the files; again from the start without one that could not be read to its end: no tar holds a torn member. */
async function packUntilWhole(
  job: Job,
  found: readonly FoundFile[],
  parent: Memory | undefined,
): Promise<{ packed: Packed; part: SealedPart | undefined; torn: Unreadable[] }> {
  const { host, staged, incoming, recipients } = job;
  const torn: Unreadable[] = [];
  for (;;) {
    const all = found.filter(({ path }) => !torn.some((file) => file.path === path));
    const plan: FilePlan = {
      isCareful: torn.length > 0,
      ...planFiles({
        id: staged.id,
        found: all,
        except: databasePlaces(job, all),
        databases: staged.databases.map(({ place }) => place),
        ...(parent ? { previous: { manifest: parent.manifest, remembered: parent.files } } : {}),
      }),
    };
    using started = new DisposableStack();
    let writer: PartWriter | undefined;
    try {
      const packed = await packFiles(
        host,
        plan,
        async (bytes) => {
          // Mostly no file has changed, and a part is not begun for nothing: its header alone takes some 15 ms.
          writer ??= started.use(
            await PartWriter.create(host.fs, incoming, FILES_PART, recipients, FOR_THE_REST),
          );
          writer.write(bytes);
        },
        (done, total) => host.report.progress("encrypt files", done, total),
      );
      return { packed, part: writer?.finish(), torn };
    } catch (error) {
      if (!(error instanceof TornMember)) throw error;
      torn.push(error.file);
      removeIfThere(host.fs, `${incoming}/${FILES_PART}`);
    }
  }
}

/** Where backups are kept: saved with the files, every snapshot would hold those before it. */
function ownFolders({ host, config, folder, stored }: Job): Stat[] {
  const disks = config.destinations.flatMap((to) => to.kind === "folder" ? [to.path] : []);
  return [config.store, config.stateFolder, ...disks, folder, parentOf(stored.folder)].flatMap((path) => {
    try {
      return [host.fs.stat(path)];
    } catch {
      // What this step may not look at, or is not there, lies in no source.
      return [];
    }
  });
}

/**
 * A folder source may hold a database that is saved as such, in this set or another, be it by another path: its files are
 * not saved a second time, torn, for a restore of them to put in the place of the good one. What a file source of this
 * set names is saved whatever another set does with it.
 */
function databasePlaces({ host, config, staged }: Job, found: readonly FoundFile[]): Set<Place> {
  const named = new Set(found.flatMap(({ named, place }) => named ? [place] : []));
  const elsewhere = [...config.sets.values()].flatMap(({ sources }) => sources)
    .filter(({ kind, path }) => kind === "sqlite" && !named.has(placeOf(path, config.home)));
  // Of what this step may not look at, nothing lies in its sources by the same path.
  const others = elsewhere.flatMap(({ path }) => ifPossible(() => host.fs.stat(path)) ?? []);
  const known = [...staged.databases, ...others];
  const again = found.filter(({ stat, named }) =>
    (named ? staged.databases : known).some(({ device, inode }) =>
      device === stat.device && inode === stat.inode
    )
  );
  const places = new Set([
    ...staged.databases.map(({ place }) => place),
    ...elsewhere.map(({ path }) => placeOf(path, config.home)),
  ]);
  for (const { place, path } of again) {
    if (places.has(place)) continue;
    host.report.info(`${cleanText(path, 200)}: a database that is saved as such, and not a second time`);
    places.add(place);
  }
  return new Set([...places].flatMap((place) => DATABASE_FILES.map((end) => place + end as Place)));
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
  const unreadable = [...staged.unreadable, ...files.unreadable];
  suspicions.push(...suspicionsOfUnreadable([...unreadable, ...files.missing]));
  const places = new Set<Place>([...saved, ...files.files].map((entry) => entry.place));
  const holes = new Set(unreadable.map(({ path }) => path));
  const isInHole = (path: string): boolean => holes.has(path) || (path !== "/" && isInHole(parentOf(path)));
  const isGone = (place: Place) => !places.has(place) && !isInHole(pathOfPlace(place, config.home));
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
    removed: before.map((entry) => entry.place).filter(isGone),
    notes: [...staged.notes, ...files.foundNotes, ...files.notes],
    suspicions,
  };
  return { manifest, suspicions, good };
}

/** @throws {BackupError} (internal) Rather than publish what looks good and nobody can restore. */
function requireReadable(id: SnapshotId, what: "manifest" | "seal", why: string | undefined): void {
  if (why === undefined) return;
  throw new BackupError(`Cannot seal snapshot ${id}: its ${what} could not be read again: ${why}`, {
    kind: "internal",
    hint: "this is a fault of hapi-backup; until it is mended, leave out of the sources what it names",
  });
}

function tooManyFiles({ set, files }: Manifest): BackupError {
  const most = `${formatBytes(MANIFEST_BYTES_MAX)} or ${formatCount(MANIFEST_VALUES_MAX)} values`;
  return new BackupError(
    `Cannot save set ${set}: the list of its ${formatCount(files.length)} files takes more than ${most}`,
    {
      kind: "source",
      hint: 'put folders of many files into sets of their own, or leave some out ("exclude")',
    },
  );
}

function knownDamage(memory: Memory | undefined, source: string): string[] {
  const suspicions = memory?.manifest.suspicions ?? [];
  return suspicions.flatMap((known) =>
    known.source === source && known.code === "integrity" ? [known.detail] : []
  );
}

function sameContent(before: Manifest, now: Manifest): boolean {
  const content = ({ databases, files }: Manifest) => [
    ...databases.map(({ mtimeMs: _, ...database }) => database),
    ...files,
  ];
  const [then, these] = [content(before), content(now)];
  return then.length === these.length &&
    then.every((one, at) => one === these[at] || JSON.stringify(one) === JSON.stringify(these[at]));
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

serveStep<{ config: Config; options: EncryptOptions; checksComeLater: boolean }>(
  import.meta,
  ({ config, options, checksComeLater }, { host, later }) => {
    const checks = checksComeLater
      ? later as Promise<StagedChecks>
      : Promise.resolve(readStagedChecks(host.fs, setFolder(config.stateFolder, options.set), options.set));
    return encrypt(host, config, options, checks);
  },
);
