/**
 * Watch: the alarm of the storage host, for a timer. It notices by itself that backups stop or rot.
 *
 * @module
 */

import { textOf } from "./core/command_line/option_flags.ts";
import { BackupError, outcome } from "./core/errors.ts";
import { formatAgo, formatCounted, formatDuration } from "./core/format.ts";
import type { HubName, SetName } from "./core/names.ts";
import { parentOf } from "./core/paths.ts";
import { formatMetrics, type Metric } from "./core/storage_host/prometheus.ts";
import { type Fault, isDamage } from "./core/storage_host/standing.ts";
import type { StorageConfig } from "./core/storage_host/storage_config.ts";
import { DAY_MS, HOUR_MS } from "./core/time.ts";
import { writeFileDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { serveStep } from "./host/steps/step.ts";
import { type Inventory, refreshInventory } from "./host/storage_host/inventory.ts";
import { type Ledger, openLedger } from "./host/storage_host/ledger.ts";
import type { StorageJob } from "./host/storage_host/storage_job.ts";
import { faultsOf, type SetSurvey, type Survey, surveyStore } from "./host/storage_host/survey.ts";

/** How many faults of a set are told one by one. */
const FAULTS_TOLD_MAX = 5;

/** Something to be told of. The first kind in {@linkcode URGENCY} decides the exit code. */
export interface Alarm {
  readonly kind: "stale" | "integrity" | "clock" | "disk";
  readonly hub?: HubName;
  readonly set?: SetName;
  readonly problem: string;
  /** What to do about it, where that is not what the kind says. */
  readonly hint?: string;
}

const URGENCY: readonly Alarm["kind"][] = ["stale", "integrity", "clock", "disk"];

/** What is out of its limits. */
export interface WatchReport {
  readonly ok: boolean;
  readonly alarms: readonly Alarm[];
}

/**
 * Compares the store with its limits.
 *
 * @param metricsFile Where metrics are written, too, for node_exporter's textfile collector.
 * @throws {BackupError} (disk) If it cannot be read at all; alarms are returned.
 */
export function watch(host: Host, config: StorageConfig, metricsFile?: string): WatchReport {
  using ledger = openLedger(host.fs, config.stateFolder);
  const inventory = refreshInventory(host, config, ledger);
  const survey = surveyStore(host, config, ledger, inventory);
  const alarms = [
    ...staleSets(config, survey, inventory.nowMs),
    ...staleProofs(config, survey, inventory.nowMs),
    ...contradictions(survey, inventory),
    ...fullDisk(config, survey),
    ...[...survey.overQuota].map(([hub, problem]): Alarm => ({
      kind: "disk",
      hub,
      problem,
      hint: QUOTA_HINT,
    })),
  ];
  if (metricsFile !== undefined) {
    alarms.push(...writeMetrics(host, metricsFile, metricsOf(survey, inventory, ledger, alarms)));
  }
  return { ok: alarms.length === 0, alarms };
}

/** Writes the metrics. That they cannot be is one more alarm: it must not keep the others from being told. */
function writeMetrics({ fs }: Host, path: string, metrics: readonly Metric[]): Alarm[] {
  try {
    writeFileDurably(fs, path, formatMetrics(metrics), 0o644);
    return [];
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    const hint = `see that ${parentOf(path)} is there and that this user may write to it, ` +
      "or name another file with --prometheus";
    return [{ kind: "disk", problem: `the metrics are not written: ${error.message}`, hint }];
  }
}

/** Sets of which nothing good came for too long, or nothing ever. */
function staleSets(config: StorageConfig, survey: Survey, nowMs: number): Alarm[] {
  return [...config.hubs.values()].flatMap((hub) =>
    [...hub.maxAgeHours].flatMap(([set, hours]) => {
      const found = survey.sets.find((other) => other.hub === hub.name && other.set === set);
      // What cannot be looked at is an alarm of its own.
      if (found?.unreadable !== undefined && !found.newestGood) return [];
      const problem = stalenessOf(found, hours, nowMs);
      return problem === undefined ? [] : [{ kind: "stale" as const, hub: hub.name, set, problem }];
    })
  );
}

function stalenessOf(
  set: SetSurvey | undefined,
  hours: number,
  nowMs: number,
): string | undefined {
  if (!set?.newestGood) {
    if (!set || set.faults.length === 0) return "no good snapshot has ever come";
    const isAnyHere = Object.values(set.counts).some((count) => count > 0);
    return isAnyHere
      ? "no good snapshot is here"
      : "all its snapshots are gone, as if the store's disk were not mounted";
  }
  const ageMs = nowMs - set.newestGood.timeMs;
  if (ageMs <= hours * HOUR_MS) return undefined;
  return `the newest good snapshot, ${set.newestGood.id}, is ${
    formatDuration(ageMs / 1000)
  } old; the limit is ${hours} h`;
}

/** Sets that scrub, and hubs that a drill, has not proved for too long. */
function staleProofs(config: StorageConfig, survey: Survey, nowMs: number): Alarm[] {
  const alarms: Alarm[] = [];
  for (const { hub, set, unreadSinceMs } of survey.sets) {
    const sinceMs = unreadSinceMs ?? nowMs;
    if (nowMs - sinceMs > config.scrubMaxAgeDays * DAY_MS) {
      const problem = `scrub has not read all of it for ${formatDuration((nowMs - sinceMs) / 1000)}`;
      alarms.push({
        kind: "stale",
        hub,
        set,
        problem: `${problem}; the limit is ${formatCounted(config.scrubMaxAgeDays, "day")}`,
      });
    }
  }
  for (const hub of config.hubs.values()) {
    if (hub.drillLogFile === undefined) continue;
    const drill = survey.lastGoodDrills.get(hub.name);
    if (drill && Math.abs(nowMs - drill.timeMs) <= config.drillMaxAgeDays * DAY_MS) continue;
    const problem = drill
      ? `the last good drill was ${formatAgo(new Date(drill.timeMs), new Date(nowMs))}`
      : `there is no good drill in ${hub.drillLogFile}`;
    alarms.push({
      kind: "stale",
      hub: hub.name,
      problem: `${problem}; the limit is ${formatCounted(config.drillMaxAgeDays, "day")}`,
    });
  }
  return alarms;
}

/** What contradicts what must hold: damage, floods, a clock in doubt. */
function contradictions(survey: Survey, inventory: Inventory): Alarm[] {
  const alarms: Alarm[] = [];
  const bySet = Map.groupBy(faultsOf(survey).filter(isDamage), ({ hub, set }) => `${hub}/${set}`);
  for (const faults of bySet.values()) {
    const tell = ({ hub, set, id, problem }: Fault & Pick<SetSurvey, "hub" | "set">): Alarm => ({
      kind: "integrity",
      hub,
      set,
      problem: `${id}: ${problem}`,
    });
    alarms.push(...faults.slice(0, FAULTS_TOLD_MAX).map(tell));
    if (faults.length > FAULTS_TOLD_MAX) {
      const { hub, set } = faults[0]!;
      alarms.push({
        kind: "integrity",
        hub,
        set,
        problem: `and ${formatCounted(faults.length - FAULTS_TOLD_MAX, "more fault")}`,
      });
    }
  }
  for (const { hub, set, unreadable } of survey.sets) {
    if (unreadable !== undefined) {
      alarms.push({ kind: "integrity", hub, set, problem: `its folder cannot be read: ${unreadable}` });
    }
  }
  for (const [hub, problem] of survey.floods) alarms.push({ kind: "integrity", hub, problem });
  if (inventory.clockDoubt !== undefined) alarms.push({ kind: "clock", problem: inventory.clockDoubt });
  return alarms;
}

function fullDisk(config: StorageConfig, { daysUntilFull, freeBytes, fewFiles }: Survey): Alarm[] {
  const alarms: Alarm[] = fewFiles === undefined
    ? []
    : [{ kind: "disk", problem: fewFiles, hint: FILES_HINT }];
  if (freeBytes === 0) alarms.push({ kind: "disk", problem: "the store's disk is full" });
  else if (daysUntilFull !== undefined && daysUntilFull < config.diskDaysMin) {
    const problem = `the store's disk is full in ${
      formatCounted(Math.floor(daysUntilFull), "day")
    } at the present rate; the limit is ${formatCounted(config.diskDaysMin, "day")}`;
    alarms.push({ kind: "disk", problem });
  }
  return alarms;
}

function metricsOf(
  survey: Survey,
  inventory: Inventory,
  ledger: Ledger,
  alarms: readonly Alarm[],
): Metric[] {
  const seconds = (timeMs: number | undefined) => timeMs === undefined ? undefined : timeMs / 1000;
  const metric = (name: string, help: string, samples: Metric["samples"]): Metric => ({
    name: `hapi_backup_${name}`,
    help,
    samples,
  });
  const one = (name: string, help: string, value: number | undefined) => metric(name, help, [{ value }]);
  const perSet = (name: string, help: string, value: (set: SetSurvey) => number | undefined) =>
    metric(
      name,
      help,
      survey.sets.map((set) => ({ labels: { hub: set.hub, set: set.set }, value: value(set) })),
    );
  return [
    perSet(
      "newest_good_timestamp_seconds",
      "When the newest good snapshot was taken.",
      (set) => seconds(set.newestGood?.timeMs),
    ),
    perSet(
      "newest_verified_timestamp_seconds",
      "When the newest snapshot that was read whole here was taken.",
      (set) => seconds(set.newestVerified?.timeMs),
    ),
    perSet(
      "max_age_seconds",
      "Age at which the newest good snapshot is too old.",
      (set) => set.maxAgeHours && set.maxAgeHours * 3600,
    ),
    perSet(
      "oldest_read_timestamp_seconds",
      "When the part not read for longest was read.",
      (set) => seconds(set.oldestReadMs),
    ),
    perSet("stored_bytes", "Bytes of all parts.", (set) => set.bytes),
    perSet(
      "chain_length",
      "Snapshots that a restore of the newest good one reads.",
      (set) => set.newestGood?.chainLength,
    ),
    metric(
      "snapshots",
      "Snapshots by standing.",
      survey.sets.flatMap(({ hub, set, counts }) =>
        Object.entries(counts).map(([standing, value]) => ({ labels: { hub, set, standing }, value }))
      ),
    ),
    metric(
      "last_good_drill_timestamp_seconds",
      "When a restore was last proved.",
      [...survey.lastGoodDrills].map(([hub, { timeMs }]) => ({ labels: { hub }, value: timeMs / 1000 })),
    ),
    metric(
      "alarms",
      "Alarms by kind.",
      URGENCY.map((kind) => ({
        labels: { kind },
        value: alarms.filter((alarm) => alarm.kind === kind).length,
      })),
    ),
    one("foreign_entries", "Entries of the store that are not part of it.", inventory.foreign.count),
    one("incoming_uploads", "Uploads that are not finished.", inventory.incoming.count),
    one("free_bytes", "Bytes free on the store's disk.", survey.freeBytes),
    one(
      "full_in_seconds",
      "Seconds until the store's disk is full at the rate of the last 30 days.",
      survey.daysUntilFull === undefined ? undefined : survey.daysUntilFull * 86_400,
    ),
    one("last_scrub_timestamp_seconds", "When scrub last ended.", seconds(ledger.lastScrubMs())),
    one("watch_timestamp_seconds", "When these were measured.", inventory.nowMs / 1000),
  ];
}

/** The error that the most urgent alarm makes. */
function alarmError(alarms: readonly Alarm[]): BackupError {
  const kind = URGENCY.find((urgent) => alarms.some((alarm) => alarm.kind === urgent))!;
  const { hub, set, problem, hint = HINTS[kind] } = alarms.find((alarm) => alarm.kind === kind)!;
  const place = [hub, set].filter((name) => name !== undefined).join("/") || "the store";
  const more = alarms.length > 1 ? `, and ${formatCounted(alarms.length - 1, "more alarm")}` : "";
  return new BackupError(`Cannot call ${place} safe: ${problem}${more}`, { kind, hint });
}

const HINTS: Readonly<Record<Alarm["kind"], string>> = {
  stale: "see on the hub why nothing comes: `hapi-backup status` there; for a proof, run scrub or verify",
  integrity: "`hapi-backup scrub` and `hapi-backup storage status` tell all of it",
  clock: "check this host's clock (timedatectl); if it is right, run `hapi-backup retain --trust-clock` once",
  disk: "add space, or keep less (retention in the storage configuration)",
};

const FILES_HINT =
  "keep fewer snapshots (retention in the storage configuration), or move the store to a file system with more inodes";

const QUOTA_HINT =
  "keep less of it (retention in the storage configuration) or raise its quota (quotaBytes, quotaFiles); " +
  "the file system refuses more only if the same limit is set there (`hapi-backup storage authorize` prints how)";

serveStep<StorageJob>(import.meta, ({ config, options }, { host, result }) => {
  const report = watch(host, config, textOf(options.prometheus));
  const tell = ({ kind, hub, set, problem }: Alarm) => {
    const place = [hub, set].filter((name) => name !== undefined).join("/");
    return `${kind.toUpperCase()}${place && ` ${place}`}: ${problem}`;
  };
  const error = report.ok ? undefined : alarmError(report.alarms);
  if (options.json === true) result(JSON.stringify({ ...outcome(error), ...report }));
  else result(report.ok ? "all within their limits" : report.alarms.map(tell).join("\n"));
  if (error) throw error;
});
