/**
 * The doctor's looks at proof: a restore, a scrub on the storage host, an identity that opens what is made.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { formatAgo, formatCounted } from "../../core/format.ts";
import { about, type Finding } from "../../core/status/finding.ts";
import { DAY_MS } from "../../core/time.ts";
import type { Host } from "../host.ts";
import { DRILL_DAYS_MAX } from "../records/drill_log.ts";
import { isKnown, problemsWithLogs, PROOF_TOPIC } from "../records/log_problems.ts";
import { isProofDue, readProofs } from "../records/proof_log.ts";
import type { SetStatus } from "../status/hub_status.ts";

/** A storage host reads a part of its store every night, and says so each time. */
const RECEIPT_DAYS_MAX = 15;

/** What was proven, and how long ago. */
export function checkProof(host: Host, config: Config, sets: readonly SetStatus[]): Finding[] {
  const main = sets.find(({ newest }) => newest !== undefined);
  // What is wrong with a log is a finding of its own, and nothing is known of what it tells.
  const logs = problemsWithLogs(host, config);
  const drill = main && (main.drill || isKnown(logs, `drill ${main.set}`)) ? [drillOf(main, host.now())] : [];
  return [
    ...drill,
    ...sets.flatMap((set) => scrubsOf(set, host.now())),
    ...keysOf(host, config, main !== undefined && isKnown(logs, PROOF_TOPIC)),
  ];
}

function drillOf({ set, drill }: SetStatus, now: Date): Finding {
  const { ok, warn, fail } = about("Proof", `${set}: drill`);
  const remedy = "bring the identity: hapi-backup verify --identity FILE --snapshot random";
  if (!drill) return warn("no restore was ever proven", remedy);
  if (!drill.ok) return fail("integrity", `the last one failed, on ${drill.snapshot}`, remedy);
  const ago = formatAgo(new Date(drill.at), now);
  // One of a clock that was ahead would count as fresh for years.
  return Math.abs(daysSince(drill.at, now)) > DRILL_DAYS_MAX ? warn(ago, remedy) : ok(ago);
}

/** What each storage host said of the set when it last read it. */
function scrubsOf({ set, destinations }: SetStatus, now: Date): Finding[] {
  return destinations.flatMap(({ name: destination, receipt }): Finding[] => {
    if (!receipt) return [];
    const { ok, warn, fail } = about("Proof", `${set}: scrub on ${destination}`);
    const { problems } = receipt.set;
    if (problems.length > 0) {
      const remedy = "run `hapi-backup scrub` on the storage host; the next backup starts over by itself";
      return [fail("integrity", problems.join("; "), remedy)];
    }
    const ago = formatAgo(receipt.time, now);
    return [
      now.getTime() - receipt.time.getTime() > RECEIPT_DAYS_MAX * DAY_MS
        ? warn(`it was last heard of ${ago}`, "look at hapi-backup-scrub.timer on the storage host")
        : ok(`no damage, as of ${ago}`),
    ];
  });
}

/** @param isDue Whether it is worth telling that none was ever made. */
function keysOf(host: Host, config: Config, isDue: boolean): Finding[] {
  const { ok, warn, fail } = about("Proof", "keys");
  const remedy = "bring the identity: hapi-backup keys prove --identity FILE";
  const proofs = readProofs(host.fs, config.stateFolder) ?? [];
  const last = proofs.findLast(({ ok }) => ok);
  if (!last) return isDue ? [warn("never proven to open the backups", remedy)] : [];
  const ago = formatAgo(new Date(last.at), host.now());
  return [
    isProofDue(proofs, config.proofMaxAgeDays, undefined, host.now())
      ? fail("stale", `last proven ${ago}, limit ${formatCounted(config.proofMaxAgeDays, "day")}`, remedy)
      : ok(`proven ${ago}`),
  ];
}

const daysSince = (at: string, now: Date): number => (now.getTime() - Date.parse(at)) / DAY_MS;
