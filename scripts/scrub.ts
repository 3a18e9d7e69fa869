/**
 * Scrub: re-reads a store without any key to its contents, and says everything that is wrong with it.
 *
 * Never stops at a fault. What was read, and when, is in the ledger, so that a run that ends early (its limits, Ctrl-C,
 * a crash) is gone on with by the next: what was never read comes first, then what was not read for longest.
 *
 * @module
 */

import { BackupError, ifPossible, outcome } from "./core/errors.ts";
import { cleanText, formatBytes, formatCount, formatCounted, formatTime } from "./core/format.ts";
import { type HubName, isPartName, SEAL_FILE, type SetName, SIGNATURE_FILE } from "./core/names.ts";
import { type Fault, isDamage } from "./core/storage_host/standing.ts";
import type { StorageConfig } from "./core/storage_host/storage_config.ts";
import { kindOf, lstatIfThere } from "./host/fs.ts";
import type { Host, Stat } from "./host/host.ts";
import { readSigningKey } from "./host/keys/signing_key.ts";
import { withLock } from "./host/lock.ts";
import { pause } from "./host/pause.ts";
import { serveStep } from "./host/steps/step.ts";
import {
  closedTo,
  CutList,
  type Foreign,
  type Incoming,
  type Inventory,
  refreshInventory,
  seenOf,
  setsInScope,
  signerOf,
  stampOf,
  UNSIGNED_STAMP,
} from "./host/storage_host/inventory.ts";
import { type Ledger, openLedger } from "./host/storage_host/ledger.ts";
import { type ReceiptOutcome, writeReceipts } from "./host/storage_host/receipts.ts";
import { amountOf, type Scope, scopeOf, type StorageJob } from "./host/storage_host/storage_job.ts";
import { faultsOf, surveysOf, surveyStore } from "./host/storage_host/survey.ts";
import { isSealed, problemWithPart, readSnapshot, setIn } from "./host/store/store.ts";

/** With `idle`, the share of the time in which it reads. */
const IDLE_SHARE = 0.25;
/** A smaller file is soon read, holes and all; and may lie in its inode. */
const HOLED_BYTES_MIN = 1 << 26;
const SETTLED_MS = 60_000;
/** Characters of a path that are shown. */
const PATH_LENGTH_MAX = 300;

/** Which sets, and how much of them. */
export interface ScrubOptions extends Scope {
  /** Begin no part after so many seconds. */
  readonly maxTimeSeconds?: number | undefined;
  /** Begin no part that would go over so many bytes, save the first. */
  readonly maxBytes?: number | undefined;
  /** Read a quarter of the time only. */
  readonly idle?: boolean;
}

/** What was read, and what is wrong. */
export interface ScrubReport {
  /** Nothing that was ever read here is damaged, as far as it still is here. */
  readonly ok: boolean;
  /** Whether all of it was read in this run. */
  readonly finished: boolean;
  readonly read: { readonly snapshots: number; readonly parts: number; readonly bytes: number };
  /** Snapshots left for the next run. */
  readonly leftSnapshots: number;
  readonly sets: readonly {
    readonly hub: HubName;
    readonly set: SetName;
    readonly good: number;
    readonly unread: number;
    readonly suspect: number;
    readonly damaged: number;
    readonly newestVerified: string | null;
    /** When the part that was not read for longest was read; null if one never was. */
    readonly oldestReadAt: string | null;
  }[];
  readonly damage: CutList<Fault & { hub: HubName; set: SetName }>;
  /** What deserves a look, but damages nothing. */
  readonly notes: CutList<Fault & { hub: HubName; set: SetName }>;
  readonly unreadable: readonly Foreign[];
  readonly foreign: CutList<Foreign>;
  readonly incoming: CutList<Incoming>;
  readonly floods: readonly { readonly hub: HubName; readonly problem: string }[];
  readonly clockDoubt: string | null;
  readonly receipts: readonly ReceiptOutcome[];
}

/**
 * Re-reads the store (all of it, or as much as the limits allow), judges it, and writes the hubs' receipts.
 *
 * @throws {BackupError} (disk, key, busy, cancelled) If it cannot be done at all; what is wrong in the store is returned.
 */
export async function scrub(
  host: Host,
  config: StorageConfig,
  options: ScrubOptions = {},
): Promise<ScrubReport> {
  const lock = `${config.stateFolder}/scrub.lock`;
  return await withLock(host, lock, 0, () => scrubLocked(host, config, options));
}

function scrubLocked(host: Host, config: StorageConfig, options: ScrubOptions): ScrubReport {
  const key = config.receiptKeyFile === undefined
    ? undefined
    : readSigningKey(host, config.receiptKeyFile, "receiptKeyFile");
  using ledger = openLedger(host.fs, config.stateFolder);
  const inventory = refreshInventory(host, config, ledger);
  const wanted = setsInScope(config, inventory, options);
  const totalBytes = wanted.reduce((sum, set) => sum + ledger.weight(set.key, 0).bytes, 0);
  const bytesMax = Math.min(totalBytes, options.maxBytes ?? Infinity);
  const reading = new Reading(host, config, ledger, inventory, options, bytesMax);
  ledger.relax();
  const order = ledger.scrubOrder(options.hub, options.set);
  let done = 0;
  for (const snapshot of order) {
    if (!reading.readSnapshot(snapshot)) break;
    done++;
  }

  const survey = surveyStore(host, config, ledger, inventory);
  const receipts = key ? writeReceipts(host, config, key, survey) : [];
  const sets = surveysOf(survey, wanted);
  const damage = new CutList<Fault & { hub: HubName; set: SetName }>();
  const notes = new CutList<Fault & { hub: HubName; set: SetName }>();
  for (const fault of faultsOf({ ...survey, sets })) (isDamage(fault) ? damage : notes).add(fault);
  const unreadable = sets.flatMap(({ folder, unreadable }) =>
    unreadable === undefined ? [] : [{ path: folder, reason: unreadable }]
  );
  const report: ScrubReport = {
    ok: damage.count === 0 && unreadable.length === 0,
    finished: done === order.length && waitingOf(inventory) === 0,
    read: reading.tally,
    leftSnapshots: order.length - done + waitingOf(inventory),
    sets: sets.map(({ hub, set, counts, newestVerified, oldestReadMs }) => ({
      hub,
      set,
      ...counts,
      newestVerified: newestVerified?.id ?? null,
      oldestReadAt: oldestReadMs === undefined ? null : new Date(oldestReadMs).toISOString(),
    })),
    damage,
    notes,
    unreadable,
    foreign: inventory.foreign,
    incoming: inventory.incoming,
    floods: [...survey.floods].map(([hub, problem]) => ({ hub, problem })),
    clockDoubt: inventory.clockDoubt ?? null,
    receipts,
  };
  ledger.recordRun(
    "scrub",
    host.now().getTime(),
    JSON.stringify({ ok: report.ok, finished: report.finished, read: report.read, damage: damage.count }),
  );
  return report;
}

const waitingOf = (inventory: Inventory): number =>
  inventory.sets.reduce((sum, { waitingCount }) => sum + waitingCount, 0);

/** The reading itself, with its limits. */
class Reading {
  readonly #counts = { snapshots: 0, parts: 0, bytes: 0 };
  readonly #startMs: number;
  /** Sets whose folder cannot be read: that says nothing of what is in it. */
  readonly #unreadable: ReadonlySet<string>;

  constructor(
    private readonly host: Host,
    private readonly config: StorageConfig,
    private readonly ledger: Ledger,
    private readonly inventory: Inventory,
    private readonly options: ScrubOptions,
    private readonly totalBytes: number,
  ) {
    this.#startMs = host.now().getTime();
    this.#unreadable = new Set(
      inventory.sets.filter((set) => set.unreadable !== undefined).map(({ hub, set }) => `${hub}/${set}`),
    );
  }

  get tally(): ScrubReport["read"] {
    return { ...this.#counts };
  }

  /** Reads one snapshot whole: its seal, its signature, its parts. @returns False if a limit ended it. */
  readSnapshot(key: number): boolean {
    this.host.checkpoint();
    if (this.#isOver(0)) return false;
    const known = this.ledger.snapshot(key);
    if (known?.state !== "present" || this.#unreadable.has(`${known.hub}/${known.set}`)) return true;
    const { fs } = this.host;
    const set = setIn(this.config.store, known.hub, known.set);
    const snapshot = readSnapshot(fs, set, known.id);
    if (!isSealed(snapshot)) {
      // Retention may have taken it away since; then there is nothing to say.
      if (this.ledger.snapshot(key)?.state !== "present") return true;
      const { state, problem } = snapshot.sealed;
      const hasSeal = () => lstatIfThere(fs, `${snapshot.folder}/${SEAL_FILE}`) !== undefined;
      if (state === "incomplete" && !hasSeal()) this.ledger.recordMissing(key);
      else if (state === "incomplete") {
        const setKey = this.ledger.setKey(known.hub, known.set);
        this.#recordSeal(
          key,
          () => this.ledger.recordUnreadable(setKey, known.id, problem, UNSIGNED_STAMP, undefined),
        );
      } else this.#recordSeal(key, () => this.ledger.recordSignature(key, known.signer, problem));
      return true;
    }
    const { seal, checksum } = snapshot.sealed;
    if (checksum !== known.checksum) {
      const stamp = stampOf(fs.lstat(`${snapshot.folder}/${SEAL_FILE}`));
      const setKey = this.ledger.setKey(known.hub, known.set);
      this.ledger.recordSealed(setKey, seenOf(fs, snapshot, stamp), undefined);
      return true;
    }
    const { signer, signatureProblem } = signerOf(fs, snapshot);
    this.#recordSeal(key, () => this.ledger.recordSignature(key, signer, signatureProblem));

    // Where not even what was just read lies on the disk, the file system does not tell what does.
    const tellsHoles = (ifPossible(() => fs.lstat(`${snapshot.folder}/${SEAL_FILE}`))?.diskBytes ?? 0) > 0;
    const parts = new Map(seal.parts.map((part) => [part.name as string, part]));
    for (const { name, readMs, damage } of this.ledger.parts(key)) {
      const part = parts.get(name);
      // Of a snapshot that a limit left half read, what was read does not come again before the rest.
      const wasRead = known.readMs === undefined && readMs !== undefined && damage === undefined;
      if (!part || wasRead) continue;
      if (this.#isOver(part.bytes)) return false;
      const stat = ifPossible(() => fs.lstat(`${snapshot.folder}/${name}`));
      const holed = stat && tellsHoles && isHoled(stat);
      // Some file systems count what is written only seconds later: then it is for the next run.
      if (holed && Math.abs(this.host.now().getTime() - stat.ctimeMs) < SETTLED_MS) return true;
      const closed = stat && closedTo(stat);
      const problem = holed
        ? `it has holes: of its ${formatBytes(stat.bytes)}, ${formatBytes(stat.diskBytes)} are on the disk`
        : problemWithPart(fs, snapshot.folder, part, (count) => this.#took(count)) ??
          (closed && `it ${closed}`);
      if (problem !== undefined && this.ledger.snapshot(key)?.state !== "present") return true;
      this.ledger.recordPart(key, name, this.#believedMs(), problem);
      this.#counts.parts++;
    }
    this.#counts.snapshots++;
    this.#lookForForeign(snapshot.folder, parts);
    return true;
  }

  /** Now, or what is surely past: a date ahead would count as read for as long as the clock was wrong. */
  #believedMs(): number {
    const nowMs = this.host.now().getTime();
    if (this.inventory.clockDoubt === undefined) return nowMs;
    return Math.min(nowMs, this.ledger.clockMark() ?? nowMs);
  }

  /** Notes something about a seal, unless retention has taken the snapshot away meanwhile. */
  #recordSeal(key: number, record: () => void): void {
    this.ledger.transaction(() => {
      if (this.ledger.snapshot(key)?.state === "present") record();
    });
  }

  #lookForForeign(folder: string, parts: ReadonlyMap<string, unknown>): void {
    let entries;
    try {
      entries = this.host.fs.readDir(folder);
    } catch {
      return; // Its parts could not be read either, which was noted.
    }
    for (const { name, type } of entries) {
      if (parts.has(name) || name === SEAL_FILE || name === SIGNATURE_FILE) continue;
      const what = isPartName(name)
        ? "is a part that the seal does not name"
        : "does not belong to a snapshot";
      this.inventory.foreign.add({
        path: `${folder}/${name}`,
        reason: type === "file" ? what : `is ${kindOf({ type })}`,
      });
    }
  }

  #isOver(nextBytes: number): boolean {
    const { maxTimeSeconds, maxBytes } = this.options;
    const seconds = (this.host.now().getTime() - this.#startMs) / 1000;
    if (maxTimeSeconds !== undefined && seconds >= maxTimeSeconds) return true;
    // One part is always read, or one that is larger than the limit never would be.
    return maxBytes !== undefined && this.#counts.bytes > 0 && this.#counts.bytes + nextBytes > maxBytes;
  }

  #lastMs = performance.now();

  #took(bytes: number): void {
    this.host.checkpoint();
    this.#counts.bytes += bytes;
    this.host.report.progress("reading", this.#counts.bytes, this.totalBytes);
    if (!this.options.idle) return;
    pause(Math.min(1000, (performance.now() - this.#lastMs) * (1 / IDLE_SHARE - 1)));
    this.#lastMs = performance.now();
  }
}

/**
 * Whether most of a file is not on the disk. No ciphertext can be stored in less than it is; and what a hub makes of holes
 * costs no quota, but years to read.
 */
const isHoled = ({ type, bytes, diskBytes }: Stat): boolean =>
  type === "file" && bytes >= HOLED_BYTES_MIN && diskBytes < bytes / 2;

function describe(report: ScrubReport): string {
  const lines = [
    `read ${formatCounted(report.read.parts, "part")} of ${
      formatCounted(report.read.snapshots, "snapshot")
    }, ${formatBytes(report.read.bytes)}${
      report.finished ? "" : `; ${formatCounted(report.leftSnapshots, "snapshot")} left for the next run`
    }`,
  ];
  for (const set of report.sets) {
    const oldest = set.oldestReadAt === null
      ? "not all read yet"
      : `all read since ${formatTime(new Date(set.oldestReadAt))}`;
    const others = (["unread", "suspect", "damaged"] as const).filter((standing) => set[standing] > 0)
      .map((standing) => `, ${formatCount(set[standing])} ${standing}`).join("");
    lines.push(`${set.hub}/${set.set}: ${formatCount(set.good)} good${others}; ${oldest}`);
  }
  const list = <Item>(
    title: string,
    { count, items }: { readonly count: number; readonly items: readonly Item[] },
    tell: (item: Item) => string,
  ) => {
    if (count === 0) return;
    lines.push(`${title} (${formatCount(count)}):`, ...items.map((item) => `  ${tell(item)}`));
    if (count > items.length) lines.push(`  and ${formatCount(count - items.length)} more`);
  };
  const tellFault = ({ hub, set, id, problem }: Fault & { hub: HubName; set: SetName }) =>
    `${hub}/${set}/${id}: ${problem}`;
  list("DAMAGE", report.damage, tellFault);
  list("cannot be read", { count: report.unreadable.length, items: report.unreadable }, tellForeign);
  list("worth a look", report.notes, tellFault);
  list("foreign", report.foreign, tellForeign);
  list("unfinished uploads", report.incoming, tellPath);
  for (const { hub, problem } of report.floods) lines.push(`FLOOD from ${hub}: ${problem}`);
  if (report.clockDoubt) lines.push(`CLOCK: ${report.clockDoubt}`);
  for (const { hub, problem } of report.receipts) {
    if (problem) lines.push(`the receipt for ${hub} was not written: ${problem}`);
  }
  return lines.join("\n");
}

/** Names are as a hub likes. */
const tellPath = ({ path }: { readonly path: string }): string => cleanText(path, PATH_LENGTH_MAX);
const tellForeign = ({ path, reason }: Foreign): string => `${tellPath({ path })}: ${reason}`;

serveStep<StorageJob>(import.meta, async (job, { host, result }) => {
  const { config, options } = job;
  const report = await scrub(host, config, {
    ...scopeOf(options),
    maxTimeSeconds: amountOf(options, "maxTime", ["s", "m", "h"]),
    maxBytes: amountOf(options, "maxBytes", ["k", "M", "G", "T"]),
    idle: options.idle === true,
  });
  const error = report.ok ? untoldError(report) : damageError(report);
  result(
    options.json === true ? JSON.stringify({ ...outcome(error), ...report }) : describe(report),
  );
  if (error) throw error;
});

/** A hub that is not told goes by what it was told before. */
function untoldError({ receipts }: ScrubReport): BackupError | undefined {
  const untold = receipts.flatMap(({ hub, problem }) => problem === undefined ? [] : [`${hub}: ${problem}`]);
  if (untold.length === 0) return undefined;
  return new BackupError(`Cannot write every receipt: ${untold.join("; ")}`, {
    kind: "disk",
    hint: "the store must be writable for the user that scrubs; what was read counts all the same",
  });
}

function damageError({ damage, unreadable }: ScrubReport): BackupError {
  const first = damage.items[0];
  const what = first
    ? `${first.hub}/${first.set}/${first.id}: ${first.problem}`
    : tellForeign(unreadable[0]!);
  const more = damage.count + unreadable.length - 1;
  return new BackupError(`Cannot vouch for the store: ${what}${more > 0 ? `, and ${more} more` : ""}`, {
    kind: "integrity",
    hint: first?.kind === "signature"
      ? "if that key is or was the hub's, keep it in the hub's signers beside any newer one; else somebody else wrote this"
      : "what is not damaged stays restorable; the hub starts a new chain when its receipt says so",
  });
}
