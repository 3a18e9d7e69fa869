/**
 * What the steps that restore are told.
 *
 * @module
 */

import type { ChoiceJob } from "./chosen_snapshot.ts";

/** The restore step's job. */
export interface RestoreJob extends ChoiceJob {
  readonly which: string;
  readonly to?: string | undefined;
  readonly inPlace: boolean;
  readonly dryRun: boolean;
  readonly only?: readonly string[] | undefined;
  readonly json: boolean;
}

/** The verify step's job. */
export interface VerifyJob extends ChoiceJob {
  readonly which: string;
  readonly hubProgram?: string | undefined;
}
