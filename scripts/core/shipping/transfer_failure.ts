/**
 * How a program that transfers failed, and why.
 *
 * @module
 */

import type { BackupError, ErrorKind } from "../errors.ts";

/** How a program ended, as far as its error is concerned. */
export interface FailedRun {
  readonly code: number;
  readonly signal?: string;
  readonly stderr: string;
}

/** An error of a transfer, and whether to try it again. */
export interface TransferFailure {
  readonly error: BackupError;
  readonly retry: boolean;
  /** Whether all went well but for some files. */
  readonly isPartial?: boolean;
}

/** The state and the remedy of an error, its kind, and whether to try again. */
export interface Cause {
  readonly state: string;
  readonly kind: ErrorKind;
  readonly retry: boolean;
  readonly hint: string;
}
