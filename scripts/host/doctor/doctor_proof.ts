/**
 * The doctor's looks at proof: a restore, a scrub on the storage host, an identity that opens what is made.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { formatAgo } from "../../core/format.ts";
import type { Finding } from "../../core/status/finding.ts";
import { DAY_MS } from "../../core/time.ts";
import type { Host } from "../host.ts";
import { DRILL_DAYS_MAX } from "../records/drill_log.ts";
import { isKnown, problemsWithLogs, PROOF_TOPIC } from "../records/log_problems.ts";
import { isProofDue, readProofs } from "../records/proof_log.ts";
import type { SetStatus } from "../status/hub_status.ts";

const group = "Proof";
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
  const name = `${set}: drill`;
  const remedy = "bring the identity: hapi-backup verify --identity FILE --snapshot random";
  if (!drill) return { group, name, state: "warn", detail: "no restore was ever proven", remedy };
  if (!drill.ok) {
    const detail = `the last one failed, on ${drill.snapshot}`;
    return { group, name, state: "fail", detail, remedy, kind: "integrity" };
  }
  const detail = formatAgo(new Date(drill.at), now);
  // One of a clock that was ahead would count as fresh for years.
  return Math.abs(daysSince(drill.at, now)) > DRILL_DAYS_MAX
    ? { group, name, state: "warn", detail, remedy }
    : { group, name, state: "ok", detail };
}

/** What each storage host said of the set when it last read it. */
function scrubsOf({ set, destinations }: SetStatus, now: Date): Finding[] {
  return destinations.flatMap(({ name: destination, receipt }): Finding[] => {
    if (!receipt) return [];
    const name = `${set}: scrub on ${destination}`;
    const { problems } = receipt.set;
    if (problems.length > 0) {
      const detail = problems.join("; ");
      const remedy = "run `hapi-backup scrub` on the storage host; the next backup starts over by itself";
      return [{ group, name, state: "fail", detail, remedy, kind: "integrity" }];
    }
    const age = now.getTime() - receipt.time.getTime();
    if (age > RECEIPT_DAYS_MAX * DAY_MS) {
      const detail = `it was last heard of ${formatAgo(receipt.time, now)}`;
      return [{
        group,
        name,
        state: "warn",
        detail,
        remedy: "look at hapi-backup-scrub.timer on the storage host",
      }];
    }
    return [{ group, name, state: "ok", detail: `no damage, as of ${formatAgo(receipt.time, now)}` }];
  });
}

/** @param isDue Whether it is worth telling that none was ever made. */
function keysOf(host: Host, config: Config, isDue: boolean): Finding[] {
  const about = { group, name: "keys" } as const;
  const remedy = "bring the identity: hapi-backup keys prove --identity FILE";
  const proofs = readProofs(host.fs, config.stateFolder) ?? [];
  const last = proofs.findLast(({ ok }) => ok);
  if (!last) {
    return isDue ? [{ ...about, state: "warn", detail: "never proven to open the backups", remedy }] : [];
  }
  if (!isProofDue(proofs, config.proofMaxAgeDays, undefined, host.now())) {
    return [{ ...about, state: "ok", detail: `proven ${formatAgo(new Date(last.at), host.now())}` }];
  }
  const ago = formatAgo(new Date(last.at), host.now());
  const detail = `last proven ${ago}, limit ${config.proofMaxAgeDays} days`;
  return [{ ...about, state: "fail", detail, remedy, kind: "stale" }];
}

const daysSince = (at: string, now: Date): number => (now.getTime() - Date.parse(at)) / DAY_MS;
