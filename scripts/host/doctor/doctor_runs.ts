/**
 * The doctor's looks at runs: how the last ones went, what starts the next, and who is told when one fails.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import type { ErrorKind } from "../../core/errors.ts";
import { formatAgo, formatDuration } from "../../core/format.ts";
import { gateHint } from "../../core/snapshot/gate.ts";
import type { Finding } from "../../core/status/finding.ts";
import type { Host } from "../host.ts";
import { LOG_REMEDY, problemsWithLogs } from "../records/log_problems.ts";
import { readRuns } from "../records/run_log.ts";
import { isAhead, type SetStatus } from "../status/hub_status.ts";
import { unitsCommand } from "../systemd/systemd.ts";
import { readTimers } from "../systemd/timers.ts";

/** The newest good snapshot of a set, and its last run. */
export function checkRuns(host: Host, config: Config, set: SetStatus): Finding[] {
  const last = readRuns(host, config, { verb: "backup", set: set.set }).at(-1);
  const group = "Runs" as const;
  if (set.newest === undefined && last === undefined && !set.stale) return [];
  return [
    set.stale
      ? {
        group,
        name: `${set.set}: newest good snapshot`,
        state: "fail",
        detail: set.ageSeconds === undefined
          ? "there is none"
          : `${formatDuration(set.ageSeconds)} old, limit ${set.maxAgeHours} h`,
        remedy: "run `hapi-backup backup`, and look at the log of its timer",
        kind: "stale",
      }
      : isAhead(set)
      ? {
        group,
        name: `${set.set}: newest good snapshot`,
        state: "warn",
        detail: `it is ${formatDuration(-set.ageSeconds!)} ahead of this clock`,
        remedy: "check this machine's clock (timedatectl)",
      }
      : {
        group,
        name: `${set.set}: newest good snapshot`,
        state: "ok",
        detail: `${formatDuration(Math.max(0, set.ageSeconds ?? 0))} old`,
      },
    ...set.suspect
      ? [{
        group,
        name: `${set.set}: newest snapshot`,
        state: "fail" as const,
        detail: `${set.suspect} is suspect${last?.suspicions ? `: ${last.suspicions.join("; ")}` : ""}`,
        remedy: gateHint(set.suspicions),
        kind: "source" as const,
      }]
      : [],
    ...last && !last.ok
      ? [{
        group,
        name: `${set.set}: last run`,
        state: "fail" as const,
        detail: `${last.message ?? "it failed"} (${formatAgo(new Date(last.at), host.now())})`,
        remedy: last.hint,
        kind: (last.kind ?? "internal") as ErrorKind,
      }]
      : [],
  ];
}

/** Whether it is known how the last runs went. */
export function checkLogs(host: Host, config: Config): Finding[] {
  return problemsWithLogs(host, config).map(({ log, text }) => ({
    group: "Runs",
    name: log,
    state: "fail",
    detail: text,
    remedy: LOG_REMEDY,
    kind: "disk",
  }));
}

/** Asks both managers for timers of ours. */
export async function checkTimers(host: Host, config: Config): Promise<Finding[]> {
  const about = { group: "Runs" as const, name: "timers" };
  const timers = await readTimers(host);
  if (!timers) {
    return [{
      ...about,
      state: "warn",
      detail: "systemd cannot be asked here",
      remedy: "make sure that something runs `hapi-backup backup` twice a day, such as cron",
    }];
  }
  const remedy = `${unitsCommand(config)}, then as it says`;
  if (timers.length === 0) {
    return [{
      ...about,
      state: "fail",
      detail: "none is there: nothing runs by itself",
      remedy,
      kind: "stale",
    }];
  }
  const dead = timers.filter(({ next }) => next === undefined).map(({ unit }) => unit);
  if (dead.length > 0) {
    return [{
      ...about,
      state: "fail",
      detail: `${dead.join(", ")} will not run again`,
      remedy,
      kind: "stale",
    }];
  }
  const now = host.now().getTime();
  const soonest = timers.toSorted((a, b) => a.next!.getTime() - b.next!.getTime())[0]!;
  return [{
    ...about,
    state: "ok",
    detail: `${timers.length} active; next ${soonest.unit} in ${
      formatDuration(Math.max(0, soonest.next!.getTime() - now) / 1000)
    }`,
  }];
}

/** Whether anybody is told. */
export function checkNotifiers({ notify }: Config): Finding[] {
  return [
    notify.length > 0
      ? { group: "Runs", name: "notifiers", state: "ok", detail: notify.map(({ name }) => name).join(", ") }
      : {
        group: "Runs",
        name: "notifiers",
        state: "warn",
        detail: "nobody is told when a run fails",
        remedy: `add one under "notify", such as { "kind": "ntfy", "url": "https://ntfy.sh/TOPIC" }`,
      },
  ];
}
