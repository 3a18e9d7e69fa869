/**
 * The verbs that get a snapshot back whole, as the command line runs them: `verify` into scratch, and `restore`.
 *
 * @module
 */

import { describeVerify, TOLD_LENGTH_MAX, type VerifyReport } from "../../core/command_line/reports.ts";
import { setFolder } from "../../core/config/state_paths.ts";
import { BackupError, outcome } from "../../core/errors.ts";
import { cleanText } from "../../core/format.ts";
import { restorePermissions, verifyPermissions } from "../../core/sandbox/permissions.ts";
import { makingDurably } from "../fs.ts";
import { withLock } from "../lock.ts";
import type { RestoreJob, VerifyJob } from "../restore/restore_jobs.ts";
import { script } from "../steps/step.ts";
import { fileOf, numberOption, type Verb, type VerbContext } from "./cli.ts";
import { runReadingStep } from "./reading.ts";
import {
  choiceOf,
  configOrDefaults,
  hubProgram,
  inScratch,
  makeStateFolder,
  realPath,
} from "./verb_options.ts";

/** `verify` and `restore`. */
export const RESTORE_VERBS: Readonly<Record<string, Verb>> = {
  async verify(context) {
    const config = configOrDefaults(context);
    const { options } = context;
    const job: VerifyJob = {
      ...await choiceOf(context, config),
      which: String(options.snapshot),
      hubProgram: typeof options.hub === "string" ? hubProgram(context, options.hub) : undefined,
    };
    await prove(context, job);
  },

  async restore(context) {
    const { options } = context;
    const config = configOrDefaults(context);
    const to = fileOf(options.to);
    if ((to !== undefined) === (options.inPlace === true)) {
      throw new BackupError("Cannot restore: say where to, with either --to FOLDER or --in-place", {
        kind: "usage",
        hint: "hapi-backup restore --to ~/restored",
      });
    }
    const job: RestoreJob = {
      ...await choiceOf(context, config),
      which: String(options.snapshot),
      inPlace: options.inPlace === true,
      dryRun: options.dryRun === true,
      to,
      only: options.only as string[] | undefined,
      json: context.json,
    };
    const run = () => restoreStep(context, job);
    // In place, no snapshot may be taken of a half-restored home.
    const text = job.inPlace && !job.dryRun
      ? await withLock(
        context.host,
        `${setFolder(config.stateFolder, job.set)}/lock`,
        numberOption(options, "wait"),
        run,
      )
      : await run();
    context.terminal.result(text);
  },
};

/** Restores in a step, and tells what was. */
export function restoreStep({ host, terminal }: VerbContext, job: RestoreJob): Promise<string> {
  const permissions = restorePermissions(job.config, job);
  const run = () => runReadingStep<string>(script("restore"), job, permissions, terminal);
  // The step sees no further up than the folder itself.
  return job.to === undefined ? run() : makingDurably(host.fs, job.to, run);
}

/** Restores into scratch and compares. @throws {BackupError} (integrity) If that does not prove it. */
export async function prove(context: VerbContext, job: VerifyJob): Promise<void> {
  const { config } = job;
  makeStateFolder(context, config);
  const report = await inScratch(context, job, (job) => {
    const permissions = verifyPermissions(config, job, realPath(context));
    return runReadingStep<VerifyReport>(script("verify"), job, permissions, context.terminal);
  });
  const failed = report.checks.filter(({ ok }) => !ok).map(({ name }) => name);
  const error = report.ok ? undefined : new BackupError(
    `Cannot vouch for snapshot ${report.snapshot}: ${cleanText(failed.join(", "), TOLD_LENGTH_MAX)}`,
    {
      kind: "integrity",
      hint: "verify another copy with --store, or an older snapshot with --snapshot",
    },
  );
  context.terminal.result(
    context.json ? JSON.stringify({ ...outcome(error), ...report }) : describeVerify(report),
  );
  if (error) throw error;
}
