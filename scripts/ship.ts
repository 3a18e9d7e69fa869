/**
 * Sends what is sealed in the local store to every destination, oldest first, and proves that it is there.
 *
 * Reads the local store and its own records, the keys for shipping and the pinned host keys, and nothing else. One
 * destination that fails does not stop the others, and one snapshot that a destination will not take does not stop the
 * next ones. Nothing counts as shipped before it was compared by checksum: what the far side reads there anew, or, in an
 * object store, the checksum that it took of the upload; where it has none, the file is fetched back.
 *
 * @module
 */

import type {
  Destination,
  FolderDestination,
  RcloneDestination,
  RsyncDestination,
} from "./core/config/config.ts";
import { fullWantedFile, shipFolder, shipRecordFile } from "./core/config/state_paths.ts";
import { BackupError, ifPossible, isInterruption, problemOf, reasonOf } from "./core/errors.ts";
import { formatBytes } from "./core/format.ts";
import { type HubName, type SetName, timeOfSnapshotId } from "./core/names.ts";
import type { Receipt } from "./core/shipping/receipt.ts";
import {
  type Confirmation,
  confirmedOfNewestChains,
  confirmedOfOlderChains,
  damageRemedy,
  type DestinationRecord,
  type DestinationReport,
  type Expected,
  keyOf,
  lastKnownRecord,
  type LocalSnapshot,
  lostOfNewestChains,
  type Missing,
  parseDestinationRecord,
  pruneRecord,
  serializeDestinationRecord,
  type ShipError,
  type ShipReport,
  type SnapshotKey,
  waitingFor,
  whereOf,
} from "./core/shipping/shipping.ts";
import { fetchReceipt, readKeptReceipt } from "./host/destinations/far_receipt.ts";
import {
  copySnapshot,
  filesOf,
  isOnDevices,
  missingInFolder,
  requireMounted,
  requireOtherThanStore,
} from "./host/destinations/folder_destination.ts";
import {
  copySnapshotByRclone,
  describeRemote,
  isRemoteOnDevices,
  missingAtRemote,
  requireRemoteOtherThanStore,
} from "./host/destinations/rclone.ts";
import { missingThere, type Pushed, pushSnapshot, type UploadMemory } from "./host/destinations/rsync.ts";
import {
  exists,
  knownError,
  makeFolderDurably,
  readTextIfThere,
  removeIfThere,
  writeFileDurably,
} from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { realRetry, type Retry } from "./host/retry.ts";
import { serveStep } from "./host/steps/step.ts";
import {
  isSealed,
  problemWithPart,
  readSet,
  readSignature,
  type SealedSnapshot,
  setsOfHub,
  type StoredSnapshot,
} from "./host/store/store.ts";

/** What to ship, and where to. A {@linkcode Config} is one. */
export interface ShipOptions {
  readonly hub: HubName;
  /** The local store. */
  readonly store: string;
  readonly stateFolder: string;
  readonly destinations: readonly Destination[];
}

/** What else a caller can say. */
export interface ShipSettings {
  /** Only these sets; all if left out. */
  readonly sets?: readonly SetName[] | undefined;
  /** Devices (`st_dev`) of the sources, which this step may not look at; the store's own always counts. */
  readonly sourceDevices?: readonly number[];
  /** How to wait between tries; the real clock if left out. */
  readonly retry?: (attempts: number) => Retry;
}

/**
 * Ships. What failed is in the report, and `unshippedError` says whether that is a success.
 *
 * @throws {BackupError} (cancelled) On Ctrl-C and SIGTERM; what was confirmed until then stays so.
 * @throws {BackupError} (disk) If the local store or the records cannot be read or written.
 */
export async function ship(
  host: Host,
  options: ShipOptions,
  settings: ShipSettings = {},
): Promise<ShipReport> {
  const run = new ShipRun(host, options, settings);
  const destinations: DestinationReport[] = [];
  for (const destination of options.destinations) destinations.push(await run.shipTo(destination));
  return {
    snapshots: run.local.length,
    destinations,
    damaged: run.damaged(),
    unread: run.unread,
    fullWanted: run.markFullWanted(),
  };
}

/** A snapshot of the local store. */
interface Local extends LocalSnapshot {
  readonly snapshot: SealedSnapshot;
}

/** What the kinds of destination have in common. */
interface Driver {
  /** The place, as its record names it. */
  readonly where: string;
  readonly offBox: boolean;
  /** @param onUnknown Told why some cannot be looked at there; they count as held. */
  readonly missing: (
    expected: readonly Expected[],
    onUnknown: (error: BackupError) => void,
  ) => Promise<readonly Missing[]>;
  readonly push: (snapshot: SealedSnapshot, memory: UploadMemory) => Promise<Pushed>;
}

class ShipRun {
  readonly local: readonly Local[];
  readonly unread: ShipReport["unread"];
  readonly #unusable: ShipReport["damaged"];
  readonly #folder: string;
  readonly #problems = new Map<string, string | undefined>();
  readonly #fullWanted = new Map<SetName, string>();
  /** Sets of which a destination that could not be asked may lack something. */
  readonly #unknown = new Set<SetName>();

  constructor(
    private readonly host: Host,
    private readonly options: ShipOptions,
    private readonly settings: ShipSettings,
  ) {
    this.#folder = shipFolder(options.stateFolder);
    const { local, damaged, unread } = readLocal(host, options, settings.sets);
    this.local = local;
    this.unread = unread;
    this.#unusable = damaged;
    makeFolderDurably(host.fs, this.#folder, 0o700);
  }

  async shipTo(destination: Destination): Promise<DestinationReport> {
    const report = await this.#send(destination);
    const receipt = destination.kind === "rsync" ? await this.#readReceipt(destination) : undefined;
    return receipt ? { ...report, receipt: describeReceipt(receipt) } : report;
  }

  /** What the storage host says of what it holds. That it cannot be read is told, and no failure to ship. */
  async #readReceipt(destination: RsyncDestination): Promise<Receipt | undefined> {
    const { host, options } = this;
    try {
      const retry = this.#retry(destination.attempts);
      const receipt = await fetchReceipt(host, destination, options.hub, this.#folder, retry);
      if (receipt) this.#heedReceipt(destination, receipt);
      return receipt;
    } catch (error) {
      if (isInterruption(error)) throw error;
      host.report.warn(shipErrorOf(error).message);
      return undefined;
    }
  }

  /** A chain that the storage host found damaged is given up, unless a full was made since it looked. */
  #heedReceipt(destination: RsyncDestination, receipt: Receipt): void {
    for (const [set, { problems, fullWanted }] of receipt.sets) {
      for (const problem of problems) this.host.report.warn(`${destination.name} says of ${set}: ${problem}`);
      const newest = this.local.findLast((snapshot) => snapshot.set === set);
      const root = newest && (newest.needs[0] ?? newest.id);
      if (!fullWanted || !root || timeOfSnapshotId(root) > receipt.time) continue;
      this.#fullWanted.set(set, `${destination.name} found the chain damaged that begins with ${root}`);
    }
  }

  async #send(destination: Destination): Promise<DestinationReport> {
    const { host, local } = this;
    const shipped: (SnapshotKey & { bytes: number })[] = [];
    const errors: ShipError[] = [];
    const stuck = new Set<string>();
    let vanished: readonly SnapshotKey[] = [];
    let driver: Driver | undefined;
    let book: Book | undefined;
    try {
      driver = await this.#open(destination);
      book = new Book(host, shipRecordFile(this.options.stateFolder, destination.name), driver.where, local);
      // One that is closed there, or on a bad sector, keeps no new one from being shipped.
      vanished = await this.#forgetVanished(destination, driver, book, (error) => {
        errors.push(shipErrorOf(error));
        host.report.warn(error.message);
      });
      for (const { snapshot, ...candidate } of waitingFor(book.record, local)) {
        try {
          this.#requireWhole(snapshot);
          const { bytes } = await driver.push(snapshot, book.uploadOf(candidate));
          book.confirm(candidate, {
            sealSha256: candidate.sealSha256,
            confirmedAt: host.now().toISOString(),
            files: filesOf(host.fs, snapshot),
          });
          shipped.push({ set: candidate.set, id: candidate.id, bytes });
          host.report.info(`${destination.name} holds ${keyOf(candidate)} (${formatBytes(bytes)} sent)`);
        } catch (error) {
          // What is wrong with one snapshot says nothing about the next; what is wrong with the way there does.
          if (!(error instanceof BackupError) || error.kind !== "integrity") throw error;
          stuck.add(keyOf(candidate));
          errors.push(shipErrorOf(error));
          host.report.warn(error.message);
        }
      }
    } catch (error) {
      if (isInterruption(error)) throw error;
      const told = shipErrorOf(error);
      errors.push(told);
      host.report.warn(told.message);
    }
    const record = book?.record;
    const known = record ?? this.#lastKnown(destination);
    const lost = lostOfNewestChains(record ?? parseDestinationRecord(undefined, ""), local, stuck);
    if (record) this.#noteLost(destination, lost);
    else for (const { set } of lost) this.#unknown.add(set);
    return {
      name: destination.name,
      kind: destination.kind,
      // Where it could not be asked, that is what is wrong, and not where it is.
      offBox: driver?.offBox ?? true,
      shipped,
      bytes: shipped.reduce((sum, { bytes }) => sum + bytes, 0),
      waiting: waitingFor(known, local).map(({ set, id }) => ({ set, id })),
      vanished,
      errors,
    };
  }

  #lastKnown(destination: Destination): DestinationRecord {
    const file = shipRecordFile(this.options.stateFolder, destination.name);
    return lastKnownRecord(ifPossible(() => readTextIfThere(this.host.fs, file)), destination);
  }

  /** Snapshots that were found damaged here. */
  damaged(): ShipReport["damaged"] {
    const damaged = this.local.flatMap(({ set, id }) => {
      const problem = this.#problems.get(keyOf({ set, id }));
      return problem === undefined ? [] : [{ set, id, problem }];
    });
    return [...this.#unusable, ...damaged];
  }

  /** Leaves a marker for each set whose newest chain cannot be completed somewhere, and clears the others. */
  markFullWanted(): SetName[] {
    for (const set of new Set(this.local.map((snapshot) => snapshot.set))) {
      const marker = fullWantedFile(this.options.stateFolder, set);
      const reason = this.#fullWanted.get(set);
      if (reason !== undefined) writeFileDurably(this.host.fs, marker, `${reason}\n`);
      else if (!this.#unknown.has(set) && exists(this.host.fs, marker)) removeIfThere(this.host.fs, marker);
    }
    return [...this.#fullWanted.keys()].sort();
  }

  #noteLost(destination: Destination, lost: readonly SnapshotKey[]): void {
    for (const key of lost) {
      const reason =
        `${destination.name} lacks ${keyOf(key)}, which the newest snapshot of ${key.set} needs, ` +
        "and it cannot be sent any more: the next snapshot must be a full one";
      if (!this.#fullWanted.has(key.set)) this.host.report.warn(reason);
      this.#fullWanted.set(key.set, reason);
    }
  }

  /**
   * Asks the destination whether it still holds what it confirmed, and forgets what it does not. An older snapshot that is
   * gone as a whole was removed by its retention, unless its receipt misses it, or the newest, which retention never
   * removes, is gone as well, as from a disk that was wiped; one of which a part is gone was damaged.
   */
  async #forgetVanished(
    destination: Destination,
    driver: Driver,
    book: Book,
    onUnknown: (error: BackupError) => void,
  ): Promise<readonly SnapshotKey[]> {
    const newest = confirmedOfNewestChains(book.record, this.local);
    const older = confirmedOfOlderChains(book.record, this.local);
    if (newest.length + older.length === 0) return [];
    const needed = new Set([...newest.map(keyOf), ...this.#missedThere(destination, older)]);
    const asked = [...newest, ...older];
    const missing = await driver.missing(asked, onUnknown);
    const last = new Map(asked.toSorted((a, b) => a.id < b.id ? -1 : 1).map((key) => [key.set, key.id]));
    const wiped = new Set(missing.filter(({ set, id }) => last.get(set) === id).map(({ set }) => set));
    const vanished = missing.filter((key) => key.isPartly || needed.has(keyOf(key)) || wiped.has(key.set));
    for (const key of vanished) {
      const what = key.isPartly ? `all of ${keyOf(key)}` : keyOf(key);
      this.host.report.warn(`${destination.name} no longer holds ${what}, which it once confirmed`);
      book.forget(key);
    }
    return vanished.map(({ set, id }) => ({ set, id }));
  }

  /** Which of these the storage host had something to say of, in the receipt that the last run read. */
  #missedThere(destination: Destination, keys: readonly SnapshotKey[]): string[] {
    if (destination.kind !== "rsync" || destination.receiptSigners.length === 0) return [];
    const receipt = readKeptReceipt(this.host, destination, this.options.hub, this.#folder);
    return keys.filter(({ set, id }) =>
      receipt?.sets.get(set)?.problems.some((problem) => problem.startsWith(`${id}: `))
    ).map(keyOf);
  }

  /** A part that rotted here must not become the truth elsewhere. Each snapshot is read once a run. */
  #requireWhole(snapshot: SealedSnapshot): void {
    const key = keyOf(snapshot);
    if (!this.#problems.has(key)) {
      const problems = snapshot.sealed.seal.parts.flatMap((part) => {
        const problem = problemWithPart(this.host.fs, snapshot.folder, part, () => this.host.checkpoint());
        return problem === undefined ? [] : [`${part.name}: ${problem}`];
      });
      this.#problems.set(key, problems[0] ?? problemOf(() => readSignature(this.host.fs, snapshot)));
    }
    const problem = this.#problems.get(key);
    if (problem === undefined) return;
    throw new BackupError(`Cannot ship ${key}: it is damaged in the local store: ${problem}`, {
      kind: "integrity",
      hint: damageRemedy(snapshot.set),
    });
  }

  #open(destination: Destination): Promise<Driver> | Driver {
    switch (destination.kind) {
      case "rsync":
        return this.#openRsync(destination);
      case "folder":
        return this.#openFolder(destination);
      case "rclone":
        return this.#openRclone(destination);
    }
  }

  #openRsync(destination: RsyncDestination): Driver {
    const retry = this.#retry(destination.attempts);
    return {
      where: whereOf(destination, true),
      offBox: true,
      missing: (expected, onUnknown) =>
        missingThere(this.host, destination, expected, `${this.#folder}/probe`, retry, onUnknown),
      push: (snapshot, memory) => pushSnapshot(this.host, destination, snapshot, memory, retry),
    };
  }

  #openFolder(destination: FolderDestination): Driver {
    const { fs } = this.host;
    requireMounted(fs, destination);
    requireOtherThanStore(fs, destination, this.options);
    const offBox = !isOnDevices(fs, destination.path, this.#devices());
    return {
      where: whereOf(destination, offBox),
      offBox,
      missing: (expected) => Promise.resolve(missingInFolder(fs, destination, this.options.hub, expected)),
      push: (snapshot) => Promise.resolve(copySnapshot(this.host, destination, snapshot)),
    };
  }

  async #openRclone(destination: RcloneDestination): Promise<Driver> {
    const retry = this.#retry(destination.attempts);
    const remote = await describeRemote(this.host, destination, `ship to ${destination.name}`, retry);
    await requireRemoteOtherThanStore(this.host, destination, remote, this.options);
    const offBox = !isRemoteOnDevices(this.host, remote, this.#devices());
    return {
      where: whereOf(destination, offBox),
      offBox,
      missing: (expected) => missingAtRemote(this.host, destination, this.options.hub, expected, retry),
      push: (snapshot) => copySnapshotByRclone(this.host, destination, snapshot, remote, retry),
    };
  }

  #retry(attempts: number): Retry {
    return this.settings.retry?.(attempts) ?? realRetry(this.host, attempts);
  }

  #devices(): number[] {
    const { fs } = this.host;
    const own = exists(fs, this.options.store) ? [fs.stat(this.options.store).device] : [];
    return [...own, ...this.settings.sourceDevices ?? []];
  }
}

/** A record on the disk: every change is durable before the next step. */
class Book {
  #record: DestinationRecord;

  constructor(
    private readonly host: Host,
    private readonly file: string,
    where: string,
    local: readonly Local[],
  ) {
    this.#record = pruneRecord(parseDestinationRecord(readTextIfThere(host.fs, file), where), local);
  }

  get record(): DestinationRecord {
    return this.#record;
  }

  uploadOf(key: SnapshotKey): UploadMemory {
    const name = keyOf(key);
    return {
      attempts: this.#record.uploads.get(name) ?? 0,
      began: (attempt) =>
        this.#save({ ...this.#record, uploads: new Map(this.#record.uploads).set(name, attempt) }),
    };
  }

  confirm(key: SnapshotKey, confirmation: Confirmation): void {
    const uploads = new Map(this.#record.uploads);
    uploads.delete(keyOf(key));
    this.#save({
      ...this.#record,
      confirmed: new Map(this.#record.confirmed).set(keyOf(key), confirmation),
      uploads,
    });
  }

  forget(key: SnapshotKey): void {
    const confirmed = new Map(this.#record.confirmed);
    confirmed.delete(keyOf(key));
    this.#save({ ...this.#record, confirmed });
  }

  #save(record: DestinationRecord): void {
    writeFileDurably(this.host.fs, this.file, serializeDestinationRecord(record));
    this.#record = record;
  }
}

/** What the local store holds of this hub. */
interface LocalStore extends Pick<ShipReport, "damaged" | "unread"> {
  readonly local: readonly Local[];
}

/** The sealed snapshots of this hub, and those whose seal cannot be used. A folder without a seal is left alone. */
function readLocal(
  host: Host,
  { store, hub }: ShipOptions,
  sets: readonly SetName[] | undefined,
): LocalStore {
  const local: Local[] = [];
  const damaged: ShipReport["damaged"][number][] = [];
  const unread: ShipReport["unread"][number][] = [];
  for (const set of setsOfHub(host.fs, store, hub)) {
    if (sets && !sets.includes(set.set)) continue;
    let snapshots: StoredSnapshot[];
    try {
      snapshots = readSet(host.fs, set);
    } catch (error) {
      // That one set cannot be read keeps no other from being shipped.
      if (!knownError(error)) throw error;
      unread.push({ set: set.set, problem: reasonOf(error) });
      continue;
    }
    for (const snapshot of snapshots) {
      host.checkpoint();
      if (isSealed(snapshot)) {
        const { seal, checksum } = snapshot.sealed;
        local.push({ set: set.set, id: snapshot.id, sealSha256: checksum, needs: seal.needs, snapshot });
      } else {
        const { state, problem } = snapshot.sealed;
        host.report.warn(`${keyOf(snapshot)} is not shipped: ${problem}`);
        if (state === "unreadable") damaged.push({ set: set.set, id: snapshot.id, problem });
      }
    }
  }
  return { local, damaged, unread };
}

function describeReceipt({ time, sets }: Receipt): NonNullable<DestinationReport["receipt"]> {
  return { time: time.toISOString(), sets: Object.fromEntries(sets) };
}

function shipErrorOf(error: unknown): ShipError {
  const known = knownError(error);
  if (!known) return { kind: "internal", message: reasonOf(error) };
  const { kind, message, hint } = known;
  return { kind, message, hint };
}

serveStep<{ config: ShipOptions; settings: ShipSettings }>(
  import.meta,
  ({ config, settings }, { host }) => ship(host, config, settings),
);
