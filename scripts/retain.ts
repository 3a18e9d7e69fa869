/**
 * Retain: removes from the store what the policy does not keep, and uploads that were given up.
 *
 * Invariants:
 * - Nothing is removed on any doubt about this host's clock, the hub's signatures and links, or the hub's sending.
 * - Dependents go before what they need, so that a crash leaves no snapshot without its chain.
 * - A snapshot leaves in one step, by a rename, after the ledger knows of it; its bytes go afterwards. A crash in
 *   between is finished by the next run. What carries its name is never half a snapshot.
 *
 * @module
 */

import { BackupError, outcome, reasonOf } from "./core/errors.ts";
import { cleanText, formatBytes, formatCount } from "./core/format.ts";
import {
  type HubName,
  INCOMING_PREFIX,
  isPartName,
  SEAL_FILE,
  type SetName,
  SIGNATURE_FILE,
  type SnapshotId,
} from "./core/names.ts";
import { parentOf } from "./core/paths.ts";
import { type Decision, planRetention, type RetentionPlan } from "./core/storage_host/retention.ts";
import { isDoubt, type KnownSnapshot } from "./core/storage_host/standing.ts";
import { policyOf, type StorageConfig } from "./core/storage_host/storage_config.ts";
import { DAY_MS } from "./core/time.ts";
import { printJsonList } from "./host/command_line/json_list.ts";
import { exists } from "./host/fs.ts";
import type { Fs, Host } from "./host/host.ts";
import { withLock } from "./host/lock.ts";
import { serveStep } from "./host/steps/step.ts";
import {
  type Incoming,
  type Inventory,
  type InventorySet,
  leavingName,
  refreshInventory,
  setsInScope,
} from "./host/storage_host/inventory.ts";
import { type Ledger, openLedger } from "./host/storage_host/ledger.ts";
import { type Scope, scopeOf, type StorageJob } from "./host/storage_host/storage_job.ts";
import { floodOf, judge } from "./host/storage_host/survey.ts";

/** How many doubts of a set are told; all count. */
const DOUBTS_TOLD_MAX = 5;

/** Which sets, and how far to go. */
export interface RetainOptions extends Scope {
  /** Remove; without it, only the plan is made. */
  readonly apply?: boolean;
  /** A person has looked at the hub's sudden sending, and it is right. */
  readonly despiteFlood?: boolean;
  /** A person has looked at this host's clock, and it is right. */
  readonly trustClock?: boolean;
}

/** The plan for one set, and what became of it. */
export interface SetRetention {
  readonly hub: HubName;
  readonly set: SetName;
  readonly keep: readonly Decision[];
  readonly remove: readonly Decision[];
  /** Bytes of what is to be removed. */
  readonly removeBytes: number;
  /** Why nothing of this set is removed, whatever the plan. */
  readonly refused: readonly string[];
  readonly removed: readonly SnapshotId[];
  /** What could not be removed, and so was the end of it for this set. */
  readonly problem: string | null;
}

/** What is to be told beside each set. */
export interface RetainReport {
  readonly applied: boolean;
  /** Uploads that did not grow for long. */
  readonly givenUp: readonly { readonly path: string; readonly problem: string | null }[];
  readonly clockDoubt: string | null;
}

/**
 * Plans what to remove, and removes it with `apply`, a set at a time: the plan of a large store is too long to hold at once.
 *
 * @throws {BackupError} (busy, disk, cancelled) If it cannot be done at all; refusals are told.
 */
export async function retain(
  host: Host,
  config: StorageConfig,
  options: RetainOptions,
  onSet: (set: SetRetention) => void,
): Promise<RetainReport> {
  const lock = `${config.stateFolder}/retain.lock`;
  return await withLock(host, lock, 0, () => retainLocked(host, config, options, onSet));
}

function retainLocked(
  host: Host,
  config: StorageConfig,
  options: RetainOptions,
  onSet: (set: SetRetention) => void,
): RetainReport {
  using ledger = openLedger(host.fs, config.stateFolder);
  if (options.trustClock) ledger.trustClock(host.now().getTime());
  const inventory = refreshInventory(host, config, ledger);
  const chosen = setsInScope(config, inventory, options);
  const floods = new Map<HubName, string | undefined>();
  for (const hub of new Set(chosen.map((set) => set.hub))) {
    const known = config.hubs.get(hub);
    if (options.despiteFlood && options.apply) ledger.acceptFlood(hub, inventory.nowMs);
    floods.set(hub, known && !options.despiteFlood ? floodOf(ledger, known) : undefined);
  }

  let removed = 0;
  let refusing = 0;
  for (const set of chosen) {
    host.checkpoint();
    const { plan, refused, known } = planSet(config, ledger, inventory, set, floods.get(set.hub));
    const removal = options.apply && refused.length === 0
      ? removeSnapshots(host, ledger, set, plan, known)
      : { removed: [], problem: null };
    const bytes = new Map(known.map((snapshot) => [snapshot.id, snapshot.bytes]));
    removed += removal.removed.length;
    if (refused.length > 0) refusing++;
    onSet({
      hub: set.hub,
      set: set.set,
      ...plan,
      removeBytes: plan.remove.reduce((sum, { id }) => sum + bytes.get(id)!, 0),
      refused,
      ...removal,
    });
  }
  const givenUp = inventory.clockDoubt === undefined ? giveUp(host, config, inventory, options) : [];
  if (options.apply) {
    ledger.recordRun("retain", host.now().getTime(), JSON.stringify({ removed, refused: refusing }));
  }
  return { applied: options.apply === true, givenUp, clockDoubt: inventory.clockDoubt ?? null };
}

function planSet(
  config: StorageConfig,
  ledger: Ledger,
  inventory: Inventory,
  { key, hub, set, unreadable, waitingCount }: InventorySet,
  flood: string | undefined,
): { plan: RetentionPlan; refused: string[]; known: KnownSnapshot[] } {
  const known = ledger.snapshots(key);
  const { standings, faults } = judge(config, hub, set, known);
  const refused: string[] = [];
  if (inventory.clockDoubt !== undefined) refused.push(inventory.clockDoubt);
  if (!config.hubs.has(hub)) refused.push(`hub ${hub} is not in the configuration`);
  if (unreadable !== undefined) refused.push(`its folder cannot be read: ${unreadable}`);
  if (flood !== undefined) refused.push(flood);
  if (waitingCount > 0) refused.push(`${waitingCount} new snapshots were not looked at yet`);
  const doubts = faults.filter(isDoubt);
  refused.push(...doubts.slice(0, DOUBTS_TOLD_MAX).map(({ id, problem }) => `${id}: ${problem}`));
  if (doubts.length > DOUBTS_TOLD_MAX) refused.push(`and ${doubts.length - DOUBTS_TOLD_MAX} more such`);

  const candidates = known.flatMap((snapshot) => {
    const standing = standings.get(snapshot.id);
    return standing === undefined ? [] : [{ ...snapshot, standing }];
  });
  const now = new Date(inventory.nowMs);
  return {
    plan: planRetention(candidates, policyOf(config, hub, set), now, config.timeZone),
    refused,
    known,
  };
}

/** Removes what the plan says, and finishes what a crash left. */
function removeSnapshots(
  host: Host,
  ledger: Ledger,
  { folder, leftOver }: InventorySet,
  plan: RetentionPlan,
  known: readonly KnownSnapshot[],
): Pick<SetRetention, "removed" | "problem"> {
  const keys = new Map(known.map(({ id, key }) => [id, key]));
  const removed: SnapshotId[] = [];
  try {
    for (const { key, path } of leftOver) {
      host.fs.remove(path, { recursive: true });
      ledger.endRemoval(key);
    }
    // What is needed has the smaller id (parseSeal refuses all else), so this takes dependents first.
    for (const { id, reasons } of plan.remove.toReversed()) {
      host.checkpoint();
      removeSnapshot(
        host.fs,
        ledger,
        { folder, id, key: keys.get(id)! },
        reasons.join("; "),
        host.now().getTime(),
      );
      removed.push(id);
    }
  } catch (error) {
    if (error instanceof BackupError) throw error;
    return { removed, problem: reasonOf(error) };
  }
  return { removed, problem: null };
}

function removeSnapshot(
  fs: Fs,
  ledger: Ledger,
  { folder, id, key }: { folder: string; id: SnapshotId; key: number },
  why: string,
  nowMs: number,
): void {
  const leaving = `${folder}/${leavingName(id)}`;
  ledger.beginRemoval(key, why, nowMs);
  try {
    fs.rename(`${folder}/${id}`, leaving);
  } catch (error) {
    ledger.cancelRemoval(key);
    throw error;
  }
  fs.syncFolder(folder);
  fs.remove(leaving, { recursive: true });
  ledger.endRemoval(key);
}

/** Removes uploads that did not grow for long. What a hub may have put among them is not touched. */
function giveUp(
  host: Host,
  config: StorageConfig,
  { incoming, nowMs }: Inventory,
  { apply, hub }: RetainOptions,
): RetainReport["givenUp"] {
  const old = incoming.items.filter((upload) =>
    (hub === undefined || upload.hub === hub) && nowMs - upload.grownMs > config.incomingKeepDays * DAY_MS
  );
  return old.map((upload) => {
    if (!apply) return { path: upload.path, problem: null };
    host.checkpoint();
    try {
      return { path: upload.path, problem: removeUpload(host.fs, upload) ?? null };
    } catch (error) {
      return { path: upload.path, problem: reasonOf(error) };
    }
  });
}

function removeUpload(fs: Fs, { path }: Incoming): string | undefined {
  const entries = fs.readDir(path);
  const odd = entries.find(({ name, type }) =>
    type !== "file" || !(name.startsWith(".") || isPartName(name) || name === SIGNATURE_FILE)
  );
  if (odd) return `${cleanText(odd.name)} in it is not part of an upload`;
  // Out of the way first: should the hub finish it at this very moment, it is put back.
  const aside = `${parentOf(path)}/${INCOMING_PREFIX}old-${crypto.randomUUID()}`;
  fs.rename(path, aside);
  if (exists(fs, `${aside}/${SEAL_FILE}`)) {
    fs.rename(aside, path);
    return "it was finished just now";
  }
  fs.remove(aside, { recursive: true });
  return undefined;
}

function describeSet(
  { hub, set, keep, remove, removeBytes, refused, removed, problem }: SetRetention,
  applied: boolean,
): string {
  const done = applied && refused.length === 0;
  return [
    `${hub}/${set}: keeps ${formatCount(keep.length)}, ${done ? "removed" : "would remove"} ${
      formatCount(done ? removed.length : remove.length)
    } of ${formatBytes(removeBytes)}`,
    ...refused.map((reason) => `  REFUSED: ${reason}`),
    ...problem ? [`  STOPPED: ${problem}`] : [],
    ...remove.map(({ id, reasons }) => `  - ${id}  ${reasons.join("; ")}`),
    ...keep.map(({ id, reasons }) => `    ${id}  ${reasons.join("; ")}`),
  ].join("\n");
}

function describeRest({ applied, givenUp }: RetainReport): string[] {
  const end = applied ? [] : ["nothing was removed: this is the plan; --apply removes"];
  return [
    ...givenUp.map(({ path, problem }) =>
      `unfinished upload ${cleanText(path, 300)}: ${problem ?? (applied ? "removed" : "would be removed")}`
    ),
    ...end,
  ];
}

serveStep<StorageJob>(import.meta, async (job, { host, result }) => {
  const { config, options } = job;
  const asked = {
    ...scopeOf(options),
    apply: options.apply === true,
    despiteFlood: options.despiteFlood === true,
    trustClock: options.trustClock === true,
  };
  let failed: SetRetention | undefined;
  let refused: SetRetention | undefined;
  let error: BackupError | undefined;
  const run = async (tell: (set: SetRetention) => void) => {
    const report = await retain(host, config, asked, (set) => {
      if (set.problem !== null) failed ??= set;
      if (set.refused.length > 0) refused ??= set;
      tell(set);
    });
    error = retainError(report, failed, refused);
    return report;
  };
  if (options.json === true) {
    await printJsonList(result, "sets", async (add) => {
      const report = await run((set) => add([set]));
      return { ...outcome(error), ...report };
    });
  } else {
    const report = await run((set) => result(describeSet(set, asked.apply)));
    for (const line of describeRest(report)) result(line);
  }
  if (error) throw error;
});

/** @param failed The first set that could not be removed from. @param refused The first that may not. */
function retainError(
  { clockDoubt }: RetainReport,
  failed: SetRetention | undefined,
  refused: SetRetention | undefined,
): BackupError | undefined {
  if (failed) {
    return new BackupError(`Cannot remove from ${failed.hub}/${failed.set}: ${failed.problem}`, {
      kind: "disk",
      hint: "check the owner and mode of that folder, and the user that this runs as; the next run goes on",
    });
  }
  if (clockDoubt) {
    return new BackupError(`Cannot remove anything: ${clockDoubt}`, {
      kind: "clock",
      hint: "check this host's clock (timedatectl); if it is right, run it once with --trust-clock",
    });
  }
  if (refused) {
    return new BackupError(`Cannot remove from ${refused.hub}/${refused.set}: ${refused.refused[0]}`, {
      kind: "integrity",
      hint:
        "look into it: then --despite-flood if a sudden amount is right, `hapi-backup storage forget` for what is " +
        "lost for good, or move what is forged out of the store",
    });
  }
  return undefined;
}
