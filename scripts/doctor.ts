/**
 * One page of checks, each with its remedy: whether the next run will work, and whether the last ones were worth it.
 *
 * Changes nothing but its own scratch. What it asks of a destination is a dry run, but for an empty file that it makes
 * and removes where an rclone remote is a folder of this machine: it tells whether that is the local store.
 *
 * @module
 */

import type { Config } from "./core/config/config.ts";
import { BackupError, isInterruption, outcome, reasonOf } from "./core/errors.ts";
import { about, describeFindings, doctorError, type Finding } from "./core/status/finding.ts";
import {
  checkDestinations,
  checkRsync,
  checkShipped,
  type ReachOptions,
} from "./host/doctor/doctor_destinations.ts";
import { checkIdentities, checkModes, checkRecipients, checkSigning } from "./host/doctor/doctor_keys.ts";
import { checkProof } from "./host/doctor/doctor_proof.ts";
import { checkLogs, checkNotifiers, checkRuns, checkTimers } from "./host/doctor/doctor_runs.ts";
import { checkSources, checkSpace } from "./host/doctor/doctor_sources.ts";
import type { Host } from "./host/host.ts";
import { readSealsBySet, status } from "./host/status/hub_status.ts";
import { serveStep } from "./host/steps/step.ts";

/** What else the step is told. */
export interface DoctorOptions extends ReachOptions {
  /** Files off the configuration's paths that may hold an identity. */
  readonly candidates: readonly string[];
}

/** Checks everything. What cannot be looked at is a finding too. */
export async function doctor(host: Host, config: Config, options: DoctorOptions): Promise<Finding[]> {
  const findings: Finding[] = [];
  const seals = readSealsBySet(host, config);
  const sets = status(host, config, seals);
  const parts: [Finding["group"], () => Finding[] | Promise<Finding[]>][] = [
    ["Sources", () => [...config.sets].flatMap(([name, set]) => checkSources(host, name, set))],
    ["Sources", () => checkSpace(host, config)],
    ["Keys", () => checkRecipients(config)],
    ["Keys", () => checkIdentities(host, config, seals, options.candidates)],
    ["Keys", () => checkSigning(host, config)],
    ["Keys", () => checkModes(host, config)],
    ["Runs", () => sets.flatMap((set) => checkRuns(host, config, set))],
    ["Runs", () => checkLogs(host, config)],
    ["Runs", () => options.offline ? [] : checkTimers(host, config)],
    ["Runs", () => checkNotifiers(config)],
    ["Destinations", () => checkShipped(host, config, sets)],
    ["Destinations", () => options.offline ? [] : checkRsync(host, config)],
    ["Destinations", () => checkDestinations(host, config, options)],
    ["Proof", () => checkProof(host, config, sets)],
  ];
  for (const [group, check] of parts) {
    host.checkpoint();
    try {
      findings.push(...await check());
    } catch (error) {
      if (isInterruption(error)) throw error;
      const { hint: remedy, kind = "internal" } = error instanceof BackupError ? error : {} as BackupError;
      findings.push(about(group, "could not be checked").fail(kind, reasonOf(error), remedy));
    }
  }
  return findings;
}

/** The doctor step's job. */
export interface DoctorJob {
  readonly config: Config;
  readonly options: DoctorOptions;
  readonly json: boolean;
}

serveStep<DoctorJob>(import.meta, async ({ config, options, json }, { host, result }) => {
  const findings = await doctor(host, config, options);
  const error = doctorError(findings);
  result(json ? JSON.stringify({ ...outcome(error), checks: findings }) : describeFindings(findings));
  if (error) throw error;
});
