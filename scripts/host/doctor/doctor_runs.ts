/**
 * The doctor's looks at runs: how the last ones went, what starts the next, and who is told when one fails.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import type { ErrorKind } from "../../core/errors.ts";
import { formatDuration } from "../../core/format.ts";
import { gateHint } from "../../core/snapshot/gate.ts";
import { about, type Finding } from "../../core/status/finding.ts";
import { failureIn, withAge } from "../../core/status/run_record.ts";
import { isAhead } from "../../core/time.ts";
import type { Host } from "../host.ts";
import { LOG_REMEDY, problemsWithLogs } from "../records/log_problems.ts";
import { readRuns } from "../records/run_log.ts";
import { type SetStatus, staleRemedy } from "../status/hub_status.ts";
import { unitsCommand } from "../systemd/systemd.ts";
import { readTimers } from "../systemd/timers.ts";

/** The newest good snapshot of a set, and its last run. */
export function checkRuns(host: Host, config: Config, set: SetStatus): Finding[] {
  const runs = readRuns(host, config, { verb: "backup", set: set.set });
  const last = runs.at(-1);
  if (set.newest === undefined && last === undefined && !set.stale) return [];
  const findings = [checkNewest(set)];
  if (set.suspect) {
    const why = last?.suspicions ? `: ${last.suspicions.join("; ")}` : "";
    const { fail } = about("Runs", `${set.set}: newest snapshot`);
    findings.push(fail("source", `${set.suspect} is suspect${why}`, gateHint(set.suspicions, set.set)));
  }
  const failure = failureIn(runs, host.now(), config.changedAt);
  if (failure) {
    const { fail } = about("Runs", `${set.set}: last run`);
    findings.push(fail(failure.kind as ErrorKind, withAge(failure), failure.hint));
  }
  return findings;
}

function checkNewest(set: SetStatus): Finding {
  const { ok, warn, fail } = about("Runs", `${set.set}: newest good snapshot`);
  const { ageSeconds, maxAgeHours } = set;
  if (set.stale) {
    return fail(
      "stale",
      ageSeconds === undefined
        ? "there is none"
        : `${formatDuration(ageSeconds)} old, limit ${maxAgeHours} h`,
      staleRemedy(set.set),
    );
  }
  if (isAhead(ageSeconds ?? 0)) {
    const ahead = `it is ${formatDuration(-ageSeconds!)} ahead of this clock`;
    return warn(ahead, "check this machine's clock (timedatectl)");
  }
  return ok(`${formatDuration(Math.max(0, ageSeconds ?? 0))} old`);
}

/** Whether it is known how the last runs went. */
export function checkLogs(host: Host, config: Config): Finding[] {
  return problemsWithLogs(host, config).map(({ log, text }) =>
    about("Runs", log).fail("disk", text, LOG_REMEDY)
  );
}

/** Asks both managers for timers of ours. */
export async function checkTimers(host: Host, config: Config): Promise<Finding[]> {
  const { ok, warn, fail } = about("Runs", "timers");
  const timers = await readTimers(host);
  if (!timers) {
    return [warn(
      "systemd cannot be asked here",
      "make sure that something runs `hapi-backup backup` twice a day, such as cron",
    )];
  }
  const remedy = `${unitsCommand(config)}, then as it says`;
  if (timers.length === 0) return [fail("stale", "none is there: nothing runs by itself", remedy)];
  const dead = timers.filter(({ next }) => next === undefined).map(({ unit }) => unit);
  if (dead.length > 0) return [fail("stale", `${dead.join(", ")} will not run again`, remedy)];
  const soonest = timers.toSorted((a, b) => a.next!.getTime() - b.next!.getTime())[0]!;
  const seconds = Math.max(0, soonest.next!.getTime() - host.now().getTime()) / 1000;
  return [ok(`${timers.length} active; next ${soonest.unit} in ${formatDuration(seconds)}`)];
}

/** Whether anybody is told. */
export function checkNotifiers({ notify }: Config): Finding[] {
  const { ok, warn } = about("Runs", "notifiers");
  return [
    notify.length > 0 ? ok(notify.map(({ name }) => name).join(", ")) : warn(
      "nobody is told when a run fails",
      `add one under "notify", such as { "kind": "ntfy", "url": "https://ntfy.sh/TOPIC" }`,
    ),
  ];
}
