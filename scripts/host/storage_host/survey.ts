/**
 * Everything that status, watch and scrub tell about a store, from the ledger and a glance at the disk.
 *
 * @module
 */

import { ifPossible } from "../../core/errors.ts";
import { formatBytes, formatCount } from "../../core/format.ts";
import { type HubName, isPartName, type SetName, type SnapshotId } from "../../core/names.ts";
import { findFlood } from "../../core/storage_host/retention.ts";
import {
  type Assessment,
  assessSet,
  type Fault,
  type KnownSnapshot,
  newestOf,
  wantsFull,
} from "../../core/storage_host/standing.ts";
import { type HubConfig, policyOf, type StorageConfig } from "../../core/storage_host/storage_config.ts";
import { DAY_MS } from "../../core/time.ts";
import { readLogIfThere, systemReason } from "../fs.ts";
import type { Host } from "../host.ts";
import { isDrillOf } from "../records/drill_log.ts";
import { closedTo, type Inventory, type InventorySet } from "./inventory.ts";
import type { Ledger, LedgerSet } from "./ledger.ts";

/** Growth is measured over so many days. */
const RATE_DAYS = 30;
/** Of a quota, and of the files that a disk can hold, from where on it is told. */
const QUOTA_SHARE_MAX = 0.9;

/** A snapshot as it is told of. */
export interface SnapshotNote {
  readonly id: SnapshotId;
  /** When it was taken, or came, if that is earlier. Milliseconds since the epoch. */
  readonly timeMs: number;
  readonly checksum: string;
  readonly readMs: number | undefined;
  /** Snapshots that a restore of it reads, itself included. */
  readonly chainLength: number;
}

/** One set, judged, weighed and dated. */
export interface SetSurvey {
  readonly hub: HubName;
  readonly set: SetName;
  readonly folder: string;
  readonly faults: readonly Fault[];
  readonly counts: Readonly<Record<"good" | "unread" | "suspect" | "damaged", number>>;
  /** The newest that was read whole here. */
  readonly newestVerified: SnapshotNote | undefined;
  /** The newest that is signed, unsuspicious and all there by size, read or not. */
  readonly newestGood: SnapshotNote | undefined;
  /** When the part that was not read for longest was read; undefined if one never was. */
  readonly oldestReadMs: number | undefined;
  /** Since when something was not read again, or not at all, though it is here. */
  readonly unreadSinceMs: number | undefined;
  /** The chain that the hub would build on is damaged. */
  readonly fullWanted: boolean;
  readonly bytes: number;
  readonly bytesPerDay: number;
  readonly maxAgeHours: number | undefined;
  /** Why its folder could not be read, or cannot by the hub's own user. */
  readonly unreadable: string | undefined;
}

/** A restore that was proved, from the log that `verify` writes. */
export interface DrillNote {
  readonly timeMs: number;
  readonly hub: string | undefined;
  readonly snapshot: string;
  readonly ok: boolean;
}

/** The whole store. */
export interface Survey {
  readonly sets: readonly SetSurvey[];
  /** Why a hub's sending is not usual. */
  readonly floods: ReadonlyMap<HubName, string>;
  /** Of each hub that has nearly used up a quota, or more, how much. */
  readonly overQuota: ReadonlyMap<HubName, string>;
  readonly lastGoodDrills: ReadonlyMap<HubName, DrillNote>;
  readonly bytes: number;
  readonly freeBytes: number | undefined;
  /** That the disk can hold few files more, or none, however small; undefined if it can. */
  readonly fewFiles: string | undefined;
  /** Undefined if it is not filling, or the system does not tell. */
  readonly daysUntilFull: number | undefined;
}

/** Surveys the store. */
export function surveyStore(host: Host, config: StorageConfig, ledger: Ledger, inventory: Inventory): Survey {
  const sinceMs = inventory.nowMs - RATE_DAYS * DAY_MS;
  const days = Math.max(1, (inventory.nowMs - Math.max(sinceMs, ledger.beginningMs() ?? sinceMs)) / DAY_MS);
  const sets = inventory.sets.map((set) => surveySet(host, config, ledger, set, sinceMs, days));
  const bytesPerDay = sets.reduce((sum, set) => sum + set.bytesPerDay, 0);
  const freeBytes = host.fs.freeBytes(config.store);
  return {
    sets,
    floods: byHub(config, (hub) => floodOf(ledger, hub)),
    overQuota: byHub(config, (hub) => overQuota(hub, sets, filesOf(ledger, inventory, hub.name))),
    lastGoodDrills: byHub(config, (hub) => lastGoodDrill(host, hub)),
    bytes: sets.reduce((sum, set) => sum + set.bytes, 0),
    freeBytes,
    fewFiles: fewFiles(host, config),
    daysUntilFull: freeBytes !== undefined && bytesPerDay > 0 ? freeBytes / bytesPerDay : undefined,
  };
}

function fewFiles({ fs }: Host, { store }: StorageConfig): string | undefined {
  const { free, total } = fs.freeFiles(store) ?? { free: 1, total: 1 };
  if (free >= total * (1 - QUOTA_SHARE_MAX)) return undefined;
  return `the store's disk can hold ${formatCount(free)} more files and folders, of ${
    formatCount(total)
  } (df -i)`;
}

/** Of each configured hub what there is to say of it, if anything. */
function byHub<T>({ hubs }: StorageConfig, of: (hub: HubConfig) => T | undefined): Map<HubName, T> {
  return new Map(
    [...hubs.values()].flatMap((hub) => {
      const said = of(hub);
      return said === undefined ? [] : [[hub.name, said]];
    }),
  );
}

/**
 * That a hub has nearly used up a quota, or more; undefined if it has not. It is the file system that enforces one, and
 * refuses what would go over it: so it is told while there is still room.
 */
function overQuota(
  { name, quotaBytes = Infinity, quotaFiles }: HubConfig,
  sets: readonly SetSurvey[],
  files: number,
): string | undefined {
  const bytes = sets.filter(({ hub }) => hub === name).reduce((sum, set) => sum + set.bytes, 0);
  const problems = [
    ...bytes <= quotaBytes * QUOTA_SHARE_MAX
      ? []
      : [`its snapshots take ${formatBytes(bytes)} of its quotaBytes of ${formatBytes(quotaBytes)}`],
    ...files <= quotaFiles * QUOTA_SHARE_MAX
      ? []
      : [`it has ${formatCount(files)} files and folders of its quotaFiles of ${formatCount(quotaFiles)}`],
  ];
  return problems.length === 0 ? undefined : problems.join(", and ");
}

/** How many files and folders a hub has, but for what lies deeper than a snapshot and is none of its files. */
const filesOf = (ledger: Ledger, inventory: Inventory, hub: HubName): number =>
  (inventory.names.get(hub) ?? 0) + ledger.fileCount(hub);

/** Why a hub's sending is not usual, or undefined if it is. */
export function floodOf(ledger: Ledger, hub: HubConfig): string | undefined {
  const acceptedMs = ledger.floodAcceptedMs(hub.name);
  return findFlood(ledger.arrivals(hub.name, acceptedMs - (RATE_DAYS + 1) * DAY_MS), hub, acceptedMs);
}

function surveySet(
  host: Host,
  config: StorageConfig,
  ledger: Ledger,
  { key, hub, set, folder, unreadable, closed, closedSnapshots }: InventorySet,
  sinceMs: number,
  days: number,
): SetSurvey {
  host.checkpoint();
  const known = ledger.snapshots(key);
  const assessment = judge(config, hub, set, known);
  const counts = { good: 0, unread: 0, suspect: 0, damaged: 0 };
  for (const standing of assessment.standings.values()) counts[standing]++;
  const verified = newestOf(known, assessment.standings, ["good"]);
  const weight = ledger.weight(key, sinceMs);
  return {
    hub,
    set,
    folder,
    faults: [...assessment.faults, ...closedSnapshots],
    counts,
    newestVerified: verified && noteOf(verified.snapshot, verified.timeMs),
    newestGood: newestWhole(host, ledger, folder, known, assessment),
    ...readingOf(known),
    fullWanted: wantsFull(known, assessment.standings, config.hubs.get(hub)?.signers ?? new Set()),
    bytes: weight.bytes,
    bytesPerDay: weight.grownBytes / days,
    maxAgeHours: config.hubs.get(hub)?.maxAgeHours.get(set),
    unreadable: unreadable ?? closed,
  };
}

function readingOf(known: readonly KnownSnapshot[]): Pick<SetSurvey, "oldestReadMs" | "unreadSinceMs"> {
  let oldestReadMs = Infinity;
  let unreadSinceMs = Infinity;
  let isAllRead = true;
  for (const { state, readMs, firstSeenMs } of known) {
    if (state !== "present") continue;
    if (readMs === undefined) isAllRead = false;
    oldestReadMs = Math.min(oldestReadMs, readMs ?? Infinity);
    unreadSinceMs = Math.min(unreadSinceMs, readMs ?? firstSeenMs ?? Infinity);
  }
  const orNone = (timeMs: number) => timeMs === Infinity ? undefined : timeMs;
  return {
    oldestReadMs: isAllRead ? orNone(oldestReadMs) : undefined,
    unreadSinceMs: orNone(unreadSinceMs),
  };
}

/** Judges a set by the configuration's signers and policy. */
export function judge(
  config: StorageConfig,
  hub: HubName,
  set: SetName,
  known: readonly KnownSnapshot[],
): Assessment {
  return assessSet(
    known,
    config.hubs.get(hub)?.signers ?? new Set(),
    policyOf(config, hub, set).lateHoursMax,
  );
}

/** The newest snapshot that counts, with every part there in its full size; and so is all that it needs. */
function newestWhole(
  { fs }: Host,
  ledger: Ledger,
  folder: string,
  known: readonly KnownSnapshot[],
  { standings }: Assessment,
): SnapshotNote | undefined {
  const byId = new Map(known.map((snapshot) => [snapshot.id, snapshot]));
  const isThere = ({ id, key }: KnownSnapshot) =>
    ledger.parts(key).every(({ name, bytes }) => {
      if (!isPartName(name)) return false;
      const stat = ifPossible(() => fs.lstat(`${folder}/${id}/${name}`));
      return stat?.type === "file" && stat.bytes === bytes && closedTo(stat) === undefined;
    });
  let candidates = known;
  while (true) {
    const newest = newestOf(candidates, standings, ["good", "unread"]);
    if (!newest) return undefined;
    const chain = [newest.snapshot, ...newest.snapshot.needs.flatMap((id) => byId.get(id) ?? [])];
    if (chain.every(isThere)) return noteOf(newest.snapshot, newest.timeMs);
    candidates = candidates.filter((other) => other !== newest.snapshot);
  }
}

function noteOf(snapshot: KnownSnapshot, timeMs: number): SnapshotNote {
  return {
    id: snapshot.id,
    timeMs,
    checksum: snapshot.checksum!,
    readMs: snapshot.readMs,
    chainLength: snapshot.needs.length + 1,
  };
}

/** What a survey says of these sets. */
export function surveysOf({ sets }: Survey, wanted: readonly LedgerSet[]): SetSurvey[] {
  const names = new Set(wanted.map(({ hub, set }) => `${hub}/${set}`));
  return sets.filter(({ hub, set }) => names.has(`${hub}/${set}`));
}

/** All faults of a survey, with where they are. */
export function faultsOf(survey: Survey): (Fault & { hub: HubName; set: SetName })[] {
  return survey.sets.flatMap(({ hub, set, faults }) => faults.map((fault) => ({ hub, set, ...fault })));
}

/** One that cannot be read is told, and is as good as empty: what one hub puts there stops nothing of the others. */
function lastGoodDrill({ fs, report }: Host, { name, drillLogFile }: HubConfig): DrillNote | undefined {
  if (drillLogFile === undefined) return undefined;
  let text = "";
  try {
    text = readLogIfThere(fs, drillLogFile) ?? "";
  } catch (error) {
    report.warn(`Cannot read ${drillLogFile}: ${systemReason(error)}; it counts as empty`);
  }
  for (const line of text.split("\n").reverse()) {
    const drill = parseDrill(line);
    // One log may tell of the drills of many hubs; those of old do not say whose they were.
    if (drill?.ok && isDrillOf(name, drill)) return drill;
  }
  return undefined;
}

/** Reads a line of the drill log, `{ "at": …, "hub": …, "snapshot": …, "ok": … }` and more. A line that is none is passed over. */
function parseDrill(line: string): DrillNote | undefined {
  try {
    const { at, hub, snapshot, ok } = JSON.parse(line) as Record<string, unknown>;
    const timeMs = Date.parse(String(at));
    if (Number.isNaN(timeMs) || typeof snapshot !== "string" || typeof ok !== "boolean") return undefined;
    return { timeMs, hub: hub === undefined ? undefined : String(hub), snapshot, ok };
  } catch {
    return undefined;
  }
}
