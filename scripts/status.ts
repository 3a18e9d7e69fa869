/**
 * The hub's own view: the newest good snapshot of each set, how old it is, what is not off this machine, the last and
 * the next run, the last drill and proof of the keys.
 *
 * Needs no key, and cannot read one.
 *
 * @module
 */

import type { Config } from "./core/config/config.ts";
import { BackupError, outcome } from "./core/errors.ts";
import type { SetName } from "./core/names.ts";
import { makePaint } from "./core/paint.ts";
import { historyOf } from "./core/report/history.ts";
import type { Seal } from "./core/snapshot/seal.ts";
import { failureIn } from "./core/status/run_record.ts";
import type { Host } from "./host/host.ts";
import { problemsWithLogs } from "./host/records/log_problems.ts";
import { readProofs } from "./host/records/proof_log.ts";
import { readRuns } from "./host/records/run_log.ts";
import { readSealsBySet, staleRemedy, status } from "./host/status/hub_status.ts";
import { type SetPast, type StatusPage, statusText } from "./host/status/status_text.ts";
import { serveStep } from "./host/steps/step.ts";
import { readTimers, type Timer } from "./host/systemd/timers.ts";

/** The status step's job. */
export interface StatusJob {
  readonly config: Config;
  readonly json: boolean;
  readonly isColored: boolean;
}

/** Looks at everything. */
export async function readStatus(host: Host, config: Config): Promise<StatusPage> {
  const timers = await readTimers(host) ?? [];
  const proven = readProofs(host.fs, config.stateFolder)?.findLast(({ ok }) => ok);
  const seals = readSealsBySet(host, config);
  return {
    sets: status(host, config, seals).map((set) => ({
      ...set,
      ...readPast(host, config, set.set, seals.get(set.set)!, timers),
    })),
    shipFailure: failureIn(readRuns(host, config, { verb: "ship" }), host.now(), config.changedAt),
    keysProven: proven && new Date(proven.at),
    logProblems: problemsWithLogs(host, config),
    proofMaxAgeDays: config.proofMaxAgeDays,
    now: host.now(),
  };
}

function readPast(
  host: Host,
  config: Config,
  set: SetName,
  seals: readonly Seal[],
  timers: readonly Timer[],
): SetPast {
  const runs = readRuns(host, config, { verb: "backup", set });
  return {
    lastRun: runs.at(-1),
    failure: failureIn(runs, host.now(), config.changedAt),
    nextRun: timers.find(({ unit }) => unit === `hapi-backup-${set}.timer`)?.next,
    history: historyOf(seals, runs, host.now()),
  };
}

serveStep<StatusJob>(import.meta, async ({ config, json, isColored }, { host, print }) => {
  const page = await readStatus(host, config);
  const stale = page.sets.filter((set) => set.stale);
  const names = stale.map(({ set }) => set).join(", ");
  const error = stale.length === 0 ? undefined : new BackupError(
    `Cannot call this safe: no good snapshot is new enough of set${stale.length === 1 ? "" : "s"} ${names}`,
    { kind: "stale", hint: staleRemedy(stale.length === 1 ? names : "all") },
  );
  print(json ? JSON.stringify({ ...outcome(error), ...page }) : statusText(page, makePaint(isColored)));
  if (error) throw error;
});
