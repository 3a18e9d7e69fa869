/**
 * What is wrong with a hub's backups, and how they stand in a few lines: what `notify` and `report` tell.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { formatAgo, formatBytes, formatCounted, formatDuration, localTime } from "../../core/format.ts";
import { snapshotIdAt, timeOfSnapshotId } from "../../core/names.ts";
import { gateHint } from "../../core/snapshot/gate.ts";
import type { HubView, Problem } from "../../core/status/notices.ts";
import { failureIn } from "../../core/status/run_record.ts";
import { DAY_MS, isAhead } from "../../core/time.ts";
import type { Host } from "../host.ts";
import { isKnown, LOG_REMEDY, problemsWithLogs, PROOF_TOPIC } from "../records/log_problems.ts";
import { isProofDue, readProofs } from "../records/proof_log.ts";
import { readRuns } from "../records/run_log.ts";
import { readSealsBySet, type SealsBySet, type SetStatus, staleRemedy, status } from "./hub_status.ts";

/** How this hub stands now. */
export function readView(
  host: Host,
  config: Config,
  seals = readSealsBySet(host, config),
  sets = status(host, config, seals),
): HubView {
  const now = host.now();
  const proofs = readProofs(host.fs, config.stateFolder);
  const logProblems = problemsWithLogs(host, config);
  const problems = sets.flatMap((set) => problemsOf(host, config, set));
  const ship = failureIn(readRuns(host, config, { verb: "ship" }), now, config.changedAt);
  if (ship) problems.push({ topic: "ship", ...ship });
  problems.push(
    ...logProblems.flatMap(({ topics, text }) =>
      topics.map((topic): Problem => ({ topic, kind: "log", text, hint: LOG_REMEDY }))
    ),
  );
  if (proofs && isProofDue(proofs, config.proofMaxAgeDays, firstSnapshot(seals, now), now)) {
    problems.push({
      topic: PROOF_TOPIC,
      kind: "reminder",
      text: `No identity was proven to open the backups in the last ${
        formatCounted(config.proofMaxAgeDays, "day")
      }`,
      hint: "bring your identity file and run: hapi-backup keys prove --identity FILE",
    });
  }
  const proof = proofs?.findLast(({ ok }) => ok)?.at;
  return {
    hub: config.hub,
    problems,
    digest: [
      ...sets.flatMap((set) => digestOf(host, config, set, now, isKnown(logProblems, `backup ${set.set}`))),
      `keys last proven: ${
        proof
          ? formatAgo(new Date(proof), now)
          : isKnown(logProblems, PROOF_TOPIC)
          ? "never (hapi-backup keys prove)"
          : "NOT KNOWN"
      }`,
    ],
  };
}

/** What is wrong with a set: its last run, its newest snapshot, its last drill, what a storage host found. */
function problemsOf(host: Host, config: Config, set: SetStatus): Problem[] {
  const problems: Problem[] = [];
  const runs = readRuns(host, config, { verb: "backup", set: set.set });
  const last = runs.at(-1);
  const failure = failureIn(runs, host.now(), config.changedAt);
  if (failure) problems.push({ topic: `backup ${set.set}`, ...failure });
  if (set.suspect) {
    const why = last?.snapshot === set.suspect && last.suspicions ? `: ${last.suspicions.join("; ")}` : "";
    problems.push({
      topic: `suspect ${set.set}`,
      kind: "suspect",
      text: `Snapshot ${set.suspect} of set ${set.set} does not count as good${why}`,
      hint: gateHint(set.suspicions, set.set),
    });
  }
  if (set.stale) {
    problems.push({
      topic: `age ${set.set}`,
      kind: "stale",
      text: set.ageSeconds === undefined
        ? `Set ${set.set} has no good snapshot`
        : `The newest good snapshot of set ${set.set} is ${
          formatDuration(set.ageSeconds)
        } old (limit ${set.maxAgeHours} h)`,
      hint: staleRemedy(set.set),
    });
  }
  if (set.drill && !set.drill.ok) {
    problems.push({
      topic: `drill ${set.set}`,
      kind: "integrity",
      text:
        `The last drill failed: snapshot ${set.drill.snapshot} of set ${set.set} was not proven restorable`,
      hint: "run `hapi-backup verify` for what failed",
    });
  }
  for (const { name, receipt } of set.destinations) {
    for (const text of receipt?.set.problems ?? []) {
      problems.push({
        topic: `storage ${name} ${set.set}`,
        kind: "integrity",
        text: `${name} says: ${text}`,
      });
    }
  }
  return problems;
}

/** @param isLogKnown Whether the log of its runs can be read to its end. */
function digestOf(
  host: Host,
  config: Config,
  set: SetStatus,
  now: Date,
  isLogKnown: boolean,
): string[] {
  const runs = readRuns(host, config, { verb: "backup", set: set.set })
    .filter(({ at }) => now.getTime() - Date.parse(at) < 7 * DAY_MS);
  if (set.newest === undefined && runs.length === 0 && !set.stale) return [];
  const failed = runs.filter(({ ok }) => !ok).length;
  const rows = Object.values(set.rows).flatMap((tables) => Object.entries(tables));
  const sessions = rows.find(([table]) => table === "sessions")?.[1];
  const total = rows.reduce((sum, [, count]) => sum + count, 0);
  const newest = set.newest
    ? `newest good snapshot ${localTime(set.newest)}, ${
      isAhead(set.ageSeconds ?? 0)
        ? `${formatDuration(-set.ageSeconds!)} AHEAD OF THIS CLOCK`
        : formatAgo(timeOfSnapshotId(set.newest), now)
    }`
    : "NO GOOD SNAPSHOT";
  return [
    `${set.set}: ${newest}`,
    `  the last 7 days: ${
      isLogKnown
        ? `${formatCounted(runs.length, "run")}, ${failed > 0 ? `${failed} FAILED` : "none failed"}`
        : "NOT KNOWN, the log of its runs is damaged"
    }`,
    ...total > 0
      ? [
        `  ${sessions === undefined ? "" : `${formatCounted(sessions, "session")}, `}${
          formatCounted(total, "row")
        }`,
      ]
      : [],
    `  here: ${formatCounted(set.snapshots, "snapshot")}, ${formatBytes(set.bytes)}`,
    ...set.destinations.map(({ name, offBox, waiting }) =>
      `  ${name}: ${waiting.length === 0 ? "holds them all" : `${waiting.length} WAITING`}${
        offBox ? "" : ", ON THIS MACHINE'S OWN DISK"
      }`
    ),
    ...set.drill
      ? [`  last drill: ${formatAgo(new Date(set.drill.at), now)}, ${set.drill.ok ? "proven" : "FAILED"}`]
      : [],
  ];
}

/** When backups began, as far as the local store knows. */
function firstSnapshot(seals: SealsBySet, now: Date): Date | undefined {
  const [first] = [...seals.values()].flatMap(([oldest]) => oldest?.id ?? []).sort();
  return first && first <= snapshotIdAt(now) ? timeOfSnapshotId(first) : undefined;
}
