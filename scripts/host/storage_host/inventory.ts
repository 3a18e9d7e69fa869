/**
 * Brings the ledger up to what is in the store, and tells what else lies there.
 *
 * Reads only seals that are new or whose file has changed, so that a store of 150,000 snapshots takes seconds.
 * Removes nothing. Everything a hub can put into its folder (any name, any type, any number) is bounded here:
 * lists are cut and counted, and of each set only so many new snapshots are read in one run.
 *
 * @module
 */

import { BackupError, ifPossible, reasonOf } from "../../core/errors.ts";
import { formatMode } from "../../core/format.ts";
import { fingerprintOf } from "../../core/keys/openssh_key.ts";
import { verifySsh } from "../../core/keys/sshsig.ts";
import {
  type HubName,
  INCOMING_PREFIX,
  isHubName,
  isSetName,
  isSnapshotId,
  parseSetName,
  parseSnapshotId,
  SEAL_FILE,
  type SetName,
  SIGNATURE_FILE,
  type SnapshotId,
} from "../../core/names.ts";
import { RECEIPT_FILE, RECEIPT_SIGNATURE_FILE } from "../../core/shipping/receipt.ts";
import { SEAL_NAMESPACE } from "../../core/snapshot/seal.ts";
import { clockDoubt, type Fault, type KnownSnapshot } from "../../core/storage_host/standing.ts";
import { hubNamed, type StorageConfig } from "../../core/storage_host/storage_config.ts";
import { isMissing, kindOf, lstatIfThere } from "../fs.ts";
import type { Fs, Host, Stat } from "../host.ts";
import {
  isSealed,
  readSignature,
  readSnapshot,
  type SealedSnapshot,
  type StoredSet,
} from "../store/store.ts";
import type { Ledger, LedgerSet, SealSeen, Stamped } from "./ledger.ts";
import type { Scope } from "./storage_job.ts";

/** New snapshots read per set and run; the rest waits for the next run. */
const NEW_PER_SET_MAX = 10_000;
/** New sets taken up per hub and run, beside those that the configuration names: a hub can make any number. */
const NEW_SETS_MAX = 20;
/** How many of a kind are listed; all are counted. */
const LISTED_MAX = 200;
/** Names in an unfinished upload that are looked at for its age. */
const LOOKED_AT_MAX = 1_000;
/** The stamp of a seal without its signature: no file has it, so that it is looked at again. */
export const UNSIGNED_STAMP = "unsigned";
/**
 * Names a snapshot's folder on its way out: nothing named so is taken for a snapshot. A hub, which can put a folder of any
 * name in the way, cannot know this one.
 */
export const leavingName = (id: SnapshotId): string => `.removing-${id}-${crypto.randomUUID()}`;

/** Inverse of {@linkcode leavingName}, also of the names of before, which had the id alone. */
function leavingId(name: string): SnapshotId | undefined {
  const id = /^\.removing-(\w+)(?:-|$)/.exec(name)?.[1];
  return id !== undefined && isSnapshotId(id) ? id : undefined;
}

/** A list that is cut, with how many there were. */
export class CutList<Item> {
  count = 0;
  readonly items: Item[] = [];

  add(item: Item): void {
    this.count++;
    if (this.items.length < LISTED_MAX) this.items.push(item);
  }
}

/** Something in a store that is not ours. */
export interface Foreign {
  readonly path: string;
  readonly reason: string;
}

/** An upload that is not finished: a folder of rsync's, or a snapshot without a seal. */
export interface Incoming {
  readonly hub: HubName;
  readonly path: string;
  /** When it last grew, by this host's clock (a change time, which no hub can set), in milliseconds. */
  readonly grownMs: number;
}

/** A set in the store and in the ledger. */
export interface InventorySet extends LedgerSet {
  readonly folder: string;
  /** Folders whose removal a crash cut short. */
  readonly leftOver: readonly { readonly key: number; readonly path: string }[];
  /** Snapshots that have to wait for the next run. */
  readonly waitingCount: number;
  /** Why its folder could not be read; then nothing is known of what is in it now. */
  readonly unreadable: string | undefined;
  /** That its folder, or its hub's, is closed to the hub's own user. */
  readonly closed: string | undefined;
  /** The same of its snapshots' folders. */
  readonly closedSnapshots: readonly Fault[];
}

/** What was found in the store. */
export interface Inventory {
  readonly nowMs: number;
  /** Why this host's clock cannot be believed. */
  readonly clockDoubt: string | undefined;
  readonly sets: readonly InventorySet[];
  readonly foreign: CutList<Foreign>;
  readonly incoming: CutList<Incoming>;
  /** How many names are in each hub's folder and in those of its sets. */
  readonly names: ReadonlyMap<HubName, number>;
}

/**
 * Looks through the store.
 *
 * @throws {BackupError} (disk) If the store or the ledger cannot be used at all. What is wrong inside is returned.
 */
export function refreshInventory(host: Host, config: StorageConfig, ledger: Ledger): Inventory {
  const { fs } = host;
  const nowMs = host.now().getTime();
  const doubt = clockDoubt(nowMs, ledger.clockMark(), config.clockGapDaysMax);
  if (doubt === undefined) {
    ledger.transaction(() => {
      ledger.setClockMark(Math.max(nowMs, ledger.clockMark() ?? 0));
      ledger.dateUndated(nowMs);
    });
  }
  const foreign = new CutList<Foreign>();
  const incoming = new CutList<Incoming>();
  const names = new Map<HubName, number>();
  const found = new Map<string, StoredSet>();
  const unreadableHubs = new Map<HubName, string>();
  const knownSets = new Set(ledger.sets().map(({ hub, set }) => `${hub}/${set}`));
  for (const hub of hubsIn(fs, config, foreign)) {
    try {
      const folder = `${config.store}/${hub}`;
      let unknown = 0;
      const entries = fs.readDir(folder);
      names.set(hub, entries.length);
      for (const set of setsOf(fs, folder, entries, hub, foreign, incoming)) {
        const name = `${hub}/${set.set}`;
        const isExpected = knownSets.has(name) || config.hubs.get(hub)?.maxAgeHours.has(set.set) === true;
        const problem = isExpected ? undefined : whyNoSet(fs, set.folder, unknown);
        if (!isExpected && problem === undefined) unknown++;
        if (problem === undefined) found.set(name, set);
        else foreign.add({ path: set.folder, reason: problem });
      }
    } catch (error) {
      if (error instanceof BackupError) throw error;
      unreadableHubs.set(hub, reasonOf(error));
    }
  }

  for (const { hub, set } of found.values()) ledger.setKey(hub, set);

  const sets: InventorySet[] = [];
  for (const known of ledger.sets()) {
    host.checkpoint();
    const stored = found.get(`${known.hub}/${known.set}`);
    const look = new SetLook(host, ledger, known, stored, { foreign, incoming });
    let unreadable = unreadableHubs.get(known.hub);
    if (unreadable === undefined) {
      unreadable = ledger.transaction(() => look.refresh(doubt === undefined ? nowMs : undefined));
    }
    names.set(known.hub, (names.get(known.hub) ?? 0) + look.names);
    sets.push({
      ...known,
      folder: stored?.folder ?? `${config.store}/${known.hub}/${known.set}`,
      leftOver: look.leftOver,
      waitingCount: look.waitingCount,
      unreadable,
      closed: ifPossible(() => closedFolder(fs, config, known)),
      closedSnapshots: look.closed,
    });
  }
  return { nowMs, clockDoubt: doubt, sets, foreign, incoming, names };
}

/** Which of a set's own folder and its hub's is closed. */
function closedFolder(fs: Fs, { store }: StorageConfig, { hub, set }: LedgerSet): string | undefined {
  const closed = (folder: string, mend?: string) => {
    const problem = closedAt(fs, folder, mend);
    return problem && `${folder} ${problem}`;
  };
  // Into the hub's own folder scrub writes, too.
  return closed(`${store}/${hub}`, "chmod 2770") ?? closed(`${store}/${hub}/${set}`);
}

/**
 * What keeps a hub's user, and so whoever restores by a hub's key, from reading a file or folder; undefined if nothing.
 * The user that scrubs has a capability to read it all the same; and rsync sets the modes that a hub asks for.
 */
export function closedTo({ type, mode }: Stat, mend = "chmod u+rwX"): string | undefined {
  const needed = type === "folder" ? 0o500 : 0o400;
  if ((mode & needed) === needed) return undefined;
  return `has mode ${formatMode(mode)}, which keeps its own user out: \`${mend}\` mends that`;
}

/** The same of what lies at a path; nothing keeps anybody from what is not there. */
function closedAt(fs: Fs, path: string, mend?: string): string | undefined {
  const stat = lstatIfThere(fs, path);
  return stat && closedTo(stat, mend);
}

/** The same of a snapshot's seal and its signature. */
function closedSeal(fs: Fs, folder: string): string | undefined {
  for (const name of [SEAL_FILE, SIGNATURE_FILE]) {
    const problem = closedAt(fs, `${folder}/${name}`);
    if (problem !== undefined) return `${name} ${problem}`;
  }
  return undefined;
}

/** The hubs that have a folder. */
function hubsIn(fs: Fs, config: StorageConfig, foreign: CutList<Foreign>): HubName[] {
  let entries: ReturnType<Fs["readDir"]>;
  try {
    entries = fs.readDir(config.store);
  } catch (error) {
    throw new BackupError(`Cannot read store ${config.store}: ${reasonOf(error)}`, {
      kind: "disk",
      hint: "check that its disk is mounted, and that this user may read it",
      cause: error,
    });
  }
  const hubs: HubName[] = [];
  for (const { name, type } of entries) {
    const path = `${config.store}/${name}`;
    if (name === "lost+found") continue;
    if (type !== "folder") {
      foreign.add({ path, reason: `is ${kindOf({ type })} where only hubs' folders belong` });
    } else if (!isHubName(name)) foreign.add({ path, reason: "is not named like a hub" });
    else {
      if (!config.hubs.has(name)) foreign.add({ path, reason: "is not a hub of the configuration" });
      hubs.push(name);
    }
  }
  return hubs.sort();
}

/** The sets in a hub's folder; what else is there goes to the lists. */
function setsOf(
  fs: Fs,
  folder: string,
  entries: ReturnType<Fs["readDir"]>,
  hub: HubName,
  foreign: CutList<Foreign>,
  incoming: CutList<Incoming>,
): StoredSet[] {
  const sets: StoredSet[] = [];
  for (const { name, type } of entries) {
    const path = `${folder}/${name}`;
    if (name === RECEIPT_FILE || name === RECEIPT_SIGNATURE_FILE) continue;
    if (type === "folder" && name.startsWith(INCOMING_PREFIX)) incoming.add(incomingAt(fs, hub, path));
    else if (type !== "folder") {
      foreign.add({ path, reason: `is ${kindOf({ type })} where only sets belong` });
    } else if (!isSetName(name)) foreign.add({ path, reason: "is not named like a set" });
    else sets.push({ hub, set: name, folder: path });
  }
  return sets;
}

/** Why a folder that nobody expects is not taken for a set; undefined if it is. */
function whyNoSet(fs: Fs, folder: string, before: number): string | undefined {
  if (before >= NEW_SETS_MAX) return `is one of more than ${NEW_SETS_MAX} new sets`;
  // What cannot be read is for the set itself to tell.
  const names = ifPossible(() => fs.readDir(folder));
  if (names === undefined || names.some(({ name }) => isSnapshotId(name))) return undefined;
  return "holds no snapshot";
}

/** One set being compared with the ledger. */
class SetLook {
  #newCount = 0;
  waitingCount = 0;
  names = 0;
  readonly leftOver: { key: number; path: string }[] = [];
  readonly closed: Fault[] = [];

  constructor(
    private readonly host: Host,
    private readonly ledger: Ledger,
    private readonly known: LedgerSet,
    private readonly stored: StoredSet | undefined,
    private readonly lists: Pick<Inventory, "foreign" | "incoming">,
  ) {}

  /** @returns Why the folder cannot be read; then the ledger is as it was. */
  refresh(nowMs: number | undefined): string | undefined {
    const { fs } = this.host;
    const { stored, ledger } = this;
    let entries: ReturnType<Fs["readDir"]> = [];
    try {
      if (stored) entries = fs.readDir(stored.folder);
    } catch (error) {
      return reasonOf(error);
    }
    this.names = entries.length;
    const stamps = ledger.stamps(this.known.key);
    const here = new Set<SnapshotId>();
    const removing = new Set<SnapshotId>();
    for (const { name, type } of entries) {
      const path = `${stored!.folder}/${name}`;
      const leaving = leavingId(name);
      if (type === "folder" && isSnapshotId(name)) here.add(name);
      else if (type === "folder" && name.startsWith(INCOMING_PREFIX)) {
        this.lists.incoming.add(incomingAt(fs, this.known.hub, path));
      } else if (type === "folder" && leaving && isLeaving(stamps.get(leaving)?.state)) {
        removing.add(leaving);
        this.leftOver.push({ key: stamps.get(leaving)!.key, path });
      } else {
        const reason = type === "folder"
          ? "is not named like a snapshot"
          : `is ${kindOf({ type })} where only snapshots belong`;
        this.lists.foreign.add({ path, reason });
      }
    }

    for (const id of [...here].sort()) {
      this.host.checkpoint();
      this.#look(id, stamps.get(id), nowMs);
    }
    for (const [id, { key, state }] of stamps) {
      if (here.has(id)) continue;
      if (state === "removing" && !removing.has(id)) ledger.endRemoval(key);
      else if (!isLeaving(state)) ledger.recordMissing(key);
    }
    return undefined;
  }

  /** Looks at one snapshot's folder, and no further than at its seal's file where that is as it was. */
  #look(
    id: SnapshotId,
    known: Stamped | undefined,
    nowMs: number | undefined,
  ): void {
    const { ledger, stored } = this;
    const { fs } = this.host;
    const folder = `${stored!.folder}/${id}`;
    let stat: Stat | undefined;
    try {
      stat = lstatIfThere(fs, `${folder}/${SEAL_FILE}`);
      const problem = closedAt(fs, folder);
      if (problem !== undefined) this.closed.push({ id, kind: "closed", problem: `its folder ${problem}` });
    } catch (error) {
      return this.#unreadable(id, `its seal cannot be read: ${reasonOf(error)}`, "unreadable", nowMs);
    }
    if (!stat) {
      // Of a snapshot that was whole before, a missing seal is a loss; else its upload is not finished.
      if (known && !isLeaving(known.state)) ledger.recordMissing(known.key);
      else this.lists.incoming.add(incomingAt(fs, this.known.hub, folder));
      return;
    }
    const stamp = stampOf(stat);
    if (known?.state === "removing") ledger.cancelRemoval(known.key);
    // What could not be read is looked at again: this may be a newer program than the one that could not.
    else if (known?.stamp === stamp && known.state === "present") return;
    if (!known && this.#newCount === NEW_PER_SET_MAX) {
      this.waitingCount++;
      return;
    }
    if (!known) this.#newCount++;
    const snapshot = readSnapshot(fs, stored!, id);
    if (isSealed(snapshot)) {
      ledger.recordSealed(this.known.key, seenOf(fs, snapshot, stamp), nowMs);
      return;
    }
    const { state, problem } = snapshot.sealed;
    // Without its signature it is not there yet; and it is looked at again, whenever that comes.
    if (state === "incomplete" && !known) this.lists.incoming.add(incomingAt(fs, this.known.hub, folder));
    else this.#unreadable(id, problem, state === "incomplete" ? UNSIGNED_STAMP : stamp, nowMs);
  }

  #unreadable(id: SnapshotId, problem: string, stamp: string, nowMs: number | undefined): void {
    this.ledger.recordUnreadable(this.known.key, id, problem, stamp, nowMs);
  }
}

const isLeaving = (state: string | undefined): boolean => state === "removing" || state === "removed";

/** What tells whether a file is still the one that was read. A hub can set the times of a file but not this one's last. */
export function stampOf({ bytes, mtimeMs, ctimeMs, inode }: Stat): string {
  return `${bytes} ${mtimeMs} ${inode} ${ctimeMs}`;
}

/** A readable seal as the ledger wants it. */
export function seenOf(fs: Fs, snapshot: SealedSnapshot, stamp: string): SealSeen {
  const { seal, checksum } = snapshot.sealed;
  let bytes = 0;
  for (const { name } of seal.parts) {
    // Scrub tells what is wrong with it.
    const stat = ifPossible(() => fs.lstat(`${snapshot.folder}/${name}`));
    if (stat?.type === "file") bytes += stat.bytes;
  }
  // That it is opened changes nothing of the seal: it is looked at until then.
  const looked = closedSeal(fs, snapshot.folder) === undefined ? stamp : UNSIGNED_STAMP;
  return { seal, checksum, stamp: looked, bytes, ...signerOf(fs, snapshot) };
}

/** Who signed a snapshot's seal. Whether that key may is for the caller to say. */
export function signerOf(
  fs: Fs,
  snapshot: SealedSnapshot,
): { signer: string | undefined; signatureProblem: string | undefined } {
  try {
    const { publicKey } = verifySsh(readSignature(fs, snapshot), SEAL_NAMESPACE, snapshot.sealed.bytes);
    const problem = closedSeal(fs, snapshot.folder);
    if (problem !== undefined) return { signer: undefined, signatureProblem: problem };
    return { signer: fingerprintOf(publicKey), signatureProblem: undefined };
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    return { signer: undefined, signatureProblem: error.message };
  }
}

/** When an unfinished upload last grew. */
function incomingAt(fs: Fs, hub: HubName, path: string): Incoming {
  let grownMs = 0;
  const take = (at: string) => {
    try {
      grownMs = Math.max(grownMs, fs.lstat(at).ctimeMs);
    } catch (error) {
      // What cannot be looked at has no age, and is not taken for old.
      if (!isMissing(error)) grownMs = Infinity;
    }
  };
  take(path);
  try {
    const entries = fs.readDir(path);
    for (const { name } of entries.slice(0, LOOKED_AT_MAX)) take(`${path}/${name}`);
  } catch {
    grownMs = Infinity;
  }
  return { hub, path, grownMs };
}

/**
 * The sets that a person asked for.
 *
 * @throws {BackupError} (usage) If the store and the configuration know no such hub or set: then a name is mistyped,
 * and nothing would be done as if all were well.
 */
export function setsInScope(
  config: StorageConfig,
  inventory: Inventory,
  { hub, set }: Scope,
): InventorySet[] {
  const hubs = new Set([...config.hubs.keys(), ...inventory.sets.map((known) => known.hub)]);
  if (hub !== undefined && !hubs.has(hub)) {
    throw new BackupError(
      `Cannot find hub ${JSON.stringify(hub)}: it is not in the configuration or the store`,
      {
        kind: "usage",
        hint: `hubs there: ${[...hubs].join(", ") || "none"}`,
      },
    );
  }
  const ofHub = <Of extends { hub: HubName }>(known: Of) => hub === undefined || known.hub === hub;
  const sets = new Set([
    ...[...config.hubs.values()].filter(({ name }) => ofHub({ hub: name }))
      .flatMap(({ maxAgeHours, setPolicies }) => [...maxAgeHours.keys(), ...setPolicies.keys()]),
    ...inventory.sets.filter(ofHub).map((known) => known.set),
  ]);
  if (set !== undefined && !sets.has(set)) {
    const where = hub === undefined ? "" : ` of hub ${hub}`;
    throw new BackupError(
      `Cannot find set ${JSON.stringify(set)}${where}: it is not in the configuration or the store`,
      { kind: "usage", hint: `sets there: ${[...sets].join(", ") || "none"}` },
    );
  }
  return inventory.sets.filter((known) => ofHub(known) && (set === undefined || known.set === set));
}

/**
 * The snapshot that a person named, as far as the ledger knows it.
 *
 * @throws {BackupError} (usage) If there is no such hub or set, or the id is none.
 */
export function snapshotNamed(
  host: Host,
  config: StorageConfig,
  ledger: Ledger,
  named: { readonly hub: string; readonly set: string; readonly id: string },
): { hub: HubName; set: SetName; setKey: number; id: SnapshotId; known: KnownSnapshot | undefined } {
  const inventory = refreshInventory(host, config, ledger);
  const { name: hub } = hubNamed(config, named.hub);
  const set = parseSetName(named.set);
  setsInScope(config, inventory, { hub, set });
  const id = parseSnapshotId(named.id);
  const setKey = ledger.setKey(hub, set);
  return { hub, set, setKey, id, known: ledger.snapshots(setKey).find((snapshot) => snapshot.id === id) };
}
