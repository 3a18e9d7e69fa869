/**
 * The storage host's smaller verbs: `status`, `list`, `authorize`, `forget`, `schema`.
 *
 * @module
 */

import { textOf } from "./core/command_line/option_flags.ts";
import { BackupError } from "./core/errors.ts";
import {
  formatBytes,
  formatCount,
  formatCounted,
  formatDate,
  formatDaysUntil,
  formatDuration,
  formatMinute,
  formatTable,
  formatTime,
} from "./core/format.ts";
import { parsePublicKeyLine } from "./core/keys/openssh_key.ts";
import type { HubName, SetName } from "./core/names.ts";
import { authorizeText } from "./core/storage_host/authorize.ts";
import type { Standing } from "./core/storage_host/retention.ts";
import { isDamage } from "./core/storage_host/standing.ts";
import { jsonSchemaOf } from "./core/json_schema.ts";
import { hubNamed, type StorageConfig, storageConfigSchema } from "./core/storage_host/storage_config.ts";
import { printJsonList } from "./host/command_line/json_list.ts";
import { readTextIfThere } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { serveStep } from "./host/steps/step.ts";
import { refreshInventory, setsInScope, snapshotNamed } from "./host/storage_host/inventory.ts";
import { openLedger } from "./host/storage_host/ledger.ts";
import { requiredText, type Scope, scopeOf, type StorageJob } from "./host/storage_host/storage_job.ts";
import { judge, surveysOf, surveyStore } from "./host/storage_host/survey.ts";

/** How one set stands. Rows are in the manifest, which only an identity opens, so they are not told here. */
export interface StorageSetStatus {
  readonly hub: HubName;
  readonly set: SetName;
  /** The newest that is signed, unsuspicious and all there; null if none is. */
  readonly newestGood: {
    readonly id: string;
    readonly at: string;
    readonly ageSeconds: number;
    readonly chainLength: number;
    /** When it was last read whole here; null if not yet. */
    readonly readAt: string | null;
  } | null;
  readonly newestVerified: string | null;
  readonly maxAgeHours: number | null;
  readonly good: number;
  readonly unread: number;
  readonly suspect: number;
  readonly damaged: number;
  readonly bytes: number;
  readonly bytesPerDay: number;
  readonly oldestReadAt: string | null;
  readonly problems: number;
}

/** How the store stands. */
export interface StorageStatus {
  readonly sets: readonly StorageSetStatus[];
  readonly lastGoodDrills: readonly {
    readonly hub: HubName;
    readonly snapshot: string;
    readonly at: string;
  }[];
  readonly lastScrubAt: string | null;
  readonly bytes: number;
  readonly freeBytes: number | null;
  /** That the disk can hold few files more, however small. */
  readonly fewFiles: string | null;
  readonly daysUntilFull: number | null;
  readonly floods: readonly { readonly hub: HubName; readonly problem: string }[];
  /** Hubs that have nearly used up a quota, or more. */
  readonly overQuota: readonly { readonly hub: HubName; readonly problem: string }[];
  readonly clockDoubt: string | null;
  readonly foreign: number;
  readonly unfinishedUploads: number;
}

const iso = (timeMs: number | undefined): string | null =>
  timeMs === undefined ? null : new Date(timeMs).toISOString();

/** Tells how the store stands, without reading any part of it. */
export function storageStatus(host: Host, config: StorageConfig, scope: Scope = {}): StorageStatus {
  using ledger = openLedger(host.fs, config.stateFolder);
  const inventory = refreshInventory(host, config, ledger);
  const survey = surveyStore(host, config, ledger, inventory);
  return {
    sets: surveysOf(survey, setsInScope(config, inventory, scope)).map((set): StorageSetStatus => ({
      hub: set.hub,
      set: set.set,
      newestGood: set.newestGood
        ? {
          id: set.newestGood.id,
          at: iso(set.newestGood.timeMs)!,
          ageSeconds: Math.max(0, Math.round((inventory.nowMs - set.newestGood.timeMs) / 1000)),
          chainLength: set.newestGood.chainLength,
          readAt: iso(set.newestGood.readMs),
        }
        : null,
      newestVerified: set.newestVerified?.id ?? null,
      maxAgeHours: set.maxAgeHours ?? null,
      ...set.counts,
      bytes: set.bytes,
      bytesPerDay: Math.round(set.bytesPerDay),
      oldestReadAt: iso(set.oldestReadMs),
      problems: set.faults.filter(isDamage).length + (set.unreadable === undefined ? 0 : 1),
    })),
    lastGoodDrills: [...survey.lastGoodDrills].map(([hub, { snapshot, timeMs }]) => ({
      hub,
      snapshot,
      at: iso(timeMs)!,
    })),
    lastScrubAt: iso(ledger.lastScrubMs()),
    bytes: survey.bytes,
    freeBytes: survey.freeBytes ?? null,
    fewFiles: survey.fewFiles ?? null,
    daysUntilFull: survey.daysUntilFull === undefined ? null : Math.floor(survey.daysUntilFull),
    floods: [...survey.floods].map(([hub, problem]) => ({ hub, problem })),
    overQuota: [...survey.overQuota].map(([hub, problem]) => ({ hub, problem })),
    clockDoubt: inventory.clockDoubt ?? null,
    foreign: inventory.foreign.count,
    unfinishedUploads: inventory.incoming.count,
  };
}

/** One snapshot, from the ledger. */
export interface LedgerEntry {
  readonly hub: HubName;
  readonly set: SetName;
  readonly id: string;
  readonly standing: Standing;
  readonly kind: string | null;
  readonly bytes: number;
  /** By this host's clock; null while that was in doubt. */
  readonly firstSeenAt: string | null;
  readonly readAt: string | null;
  readonly needs: number;
  readonly pin: string | null;
}

/** Lists the snapshots that are here, oldest first, a set at a time so that a large store is never listed as a whole. */
export function* storageList(host: Host, config: StorageConfig, scope: Scope = {}): Generator<LedgerEntry[]> {
  using ledger = openLedger(host.fs, config.stateFolder);
  const inventory = refreshInventory(host, config, ledger);
  for (const { key, hub, set } of setsInScope(config, inventory, scope)) {
    host.checkpoint();
    const known = ledger.snapshots(key);
    const { standings } = judge(config, hub, set, known);
    yield known.flatMap((snapshot): LedgerEntry[] => {
      const standing = standings.get(snapshot.id);
      if (standing === undefined) return [];
      return [{
        hub,
        set,
        id: snapshot.id,
        standing,
        kind: snapshot.kind ?? null,
        bytes: snapshot.bytes,
        firstSeenAt: iso(snapshot.firstSeenMs),
        readAt: iso(snapshot.readMs),
        needs: snapshot.needs.length,
        pin: snapshot.pin ?? null,
      }];
    });
  }
}

/** A set's list as a table of at most 80 columns, but for pins. */
function describeEntries(entries: readonly LedgerEntry[]): string {
  const { hub, set } = entries[0]!;
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  const rows = entries.map((entry) => [
    entry.id,
    entry.standing,
    entry.kind ?? "-",
    formatBytes(entry.bytes),
    entry.firstSeenAt === null ? "clock in doubt" : formatMinute(new Date(entry.firstSeenAt)),
    entry.readAt === null ? "not yet" : formatDate(new Date(entry.readAt)),
    entry.pin === null ? "" : `pinned: ${entry.pin}`,
  ]);
  return `${hub}/${set}: ${formatCounted(entries.length, "snapshot")}, ${formatBytes(total)}\n${
    formatTable([["ID", "STANDING", "KIND", "SIZE", "CAME", "READ", ""], ...rows])
  }`;
}

/** What to forget. */
export interface ForgetOptions {
  readonly hub: string;
  readonly set: string;
  readonly id: string;
  readonly why: string;
}

/**
 * Notes that a snapshot is lost for good, or that one which others follow never came, so that it is no fault any more.
 *
 * @throws {BackupError} (usage) If it is there, or there is no such set.
 */
export function forget(host: Host, config: StorageConfig, options: ForgetOptions): void {
  using ledger = openLedger(host.fs, config.stateFolder);
  const { hub, set, setKey, id, known } = snapshotNamed(host, config, ledger, options);
  if (known && known.state !== "gone") {
    const isRemoved = known.state === "removed" || known.state === "removing";
    throw new BackupError(
      `Cannot forget ${hub}/${set}/${id}: ${
        isRemoved ? "retention removed it" : `it is ${known.state}, not gone`
      }`,
      {
        kind: "usage",
        hint: isRemoved
          ? "that it is not there is no fault: there is nothing to forget"
          : "what is there is removed by `hapi-backup retain`; move it out of the store by hand if it is forged",
      },
    );
  }
  ledger.forget(setKey, id, options.why, host.now().getTime());
}

/** Writes the `authorized_keys` file that lets a hub in. */
export function authorize(
  host: Host,
  config: StorageConfig,
  { hub, keyFile, readKeyFile, from }: {
    hub: string;
    keyFile: string;
    readKeyFile?: string | undefined;
    from?: string | undefined;
  },
): string {
  const read = (path: string) => {
    const text = readTextIfThere(host.fs, path);
    if (text === undefined) {
      throw new BackupError(`Cannot read public key ${path}: there is no such file`, {
        kind: "key",
        hint: "make a key on the hub with `ssh-keygen -t ed25519 -N '' -f FILE`, and give FILE.pub here",
      });
    }
    try {
      parsePublicKeyLine(text);
    } catch (error) {
      if (!(error instanceof BackupError)) throw error;
      throw new BackupError(`Cannot authorize the key in ${path}: ${error.message}`, {
        kind: "key",
        hint: error.hint,
      });
    }
    return text;
  };
  return authorizeText(config, hubNamed(config, hub), {
    writeKey: read(keyFile),
    readKey: readKeyFile === undefined ? undefined : read(readKeyFile),
    from,
  });
}

function describe(status: StorageStatus): string {
  const rows = status.sets.map((set) => [
    `${set.hub}/${set.set}`,
    set.newestGood ? `${formatDuration(set.newestGood.ageSeconds)} ago` : "NONE",
    formatCount(set.good),
    formatCount(set.unread),
    formatCount(set.suspect),
    formatCount(set.damaged),
    formatBytes(set.bytes),
    set.oldestReadAt === null ? "not all" : formatDate(new Date(set.oldestReadAt)),
  ]);
  const head = ["SET", "NEWEST GOOD", "GOOD", "UNREAD", "SUSPECT", "DAMAGED", "SIZE", "READ SINCE"];
  const free = status.freeBytes === null ? "" : `, ${formatBytes(status.freeBytes)} free`;
  const full = status.daysUntilFull === null
    ? ""
    : `, full in ${formatDaysUntil(status.daysUntilFull)} at this rate`;
  return [
    formatTable([head, ...rows]),
    `${formatBytes(status.bytes)} stored${free}${full}`,
    `last scrub: ${status.lastScrubAt === null ? "never" : formatTime(new Date(status.lastScrubAt))}`,
    ...status.lastGoodDrills.map(({ hub, snapshot, at }) =>
      `last good drill of ${hub}: ${snapshot}, on ${formatTime(new Date(at))}`
    ),
    ...status.foreign > 0
      ? [
        `${formatCount(status.foreign)} foreign ${
          status.foreign === 1 ? "entry" : "entries"
        }: scrub lists them`,
      ]
      : [],
    ...status.unfinishedUploads > 0 ? [formatCounted(status.unfinishedUploads, "unfinished upload")] : [],
    ...status.floods.map(({ hub, problem }) => `FLOOD from ${hub}: ${problem}`),
    ...status.fewFiles === null ? [] : [`DISK: ${status.fewFiles}`],
    ...status.overQuota.map(({ hub, problem }) => `QUOTA of ${hub}: ${problem}`),
    ...status.sets.filter(({ problems }) => problems > 0)
      .map(({ hub, set, problems }) =>
        `PROBLEMS in ${hub}/${set}: ${formatCount(problems)}; scrub lists them`
      ),
    ...status.clockDoubt ? [`CLOCK: ${status.clockDoubt}`] : [],
  ].join("\n");
}

serveStep<StorageJob>(import.meta, async ({ config, options }, { host, print }) => {
  const say = (text: string, data: unknown) => print(options.json === true ? JSON.stringify(data) : text);
  switch (options.action) {
    case "status": {
      const status = storageStatus(host, config, scopeOf(options));
      return say(describe(status), { ok: true, ...status });
    }
    case "list": {
      const sets = storageList(host, config, scopeOf(options));
      if (options.json === true) {
        return await printJsonList(print, "snapshots", (add) => {
          for (const entries of sets) add(entries);
          return { ok: true };
        });
      }
      let isEmpty = true;
      for (const entries of sets) {
        if (entries.length === 0) continue;
        print(`${isEmpty ? "" : "\n"}${describeEntries(entries)}`);
        isEmpty = false;
      }
      if (isEmpty) print(`no snapshots yet in ${config.store}`);
      return;
    }
    case "authorize": {
      const text = authorize(host, config, {
        hub: requiredText("storage", options, "hub"),
        keyFile: requiredText("storage", options, "key"),
        readKeyFile: textOf(options.readKey),
        from: textOf(options.from),
      });
      return say(text, { ok: true, authorizedKeys: text });
    }
    case "forget": {
      const wanted = {
        hub: requiredText("storage", options, "hub"),
        set: requiredText("storage", options, "set"),
        id: requiredText("storage", options, "snapshot"),
        why: requiredText("storage", options, "why"),
      };
      forget(host, config, wanted);
      return say(`forgot ${wanted.hub}/${wanted.set}/${wanted.id}`, { ok: true, forgot: wanted });
    }
    case "schema":
      return print(JSON.stringify(jsonSchemaOf(storageConfigSchema), null, 2));
    default:
      throw new BackupError(`Cannot run storage ${JSON.stringify(options.action)}: there is no such action`, {
        kind: "usage",
      });
  }
});
