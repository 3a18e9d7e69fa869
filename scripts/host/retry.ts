/**
 * Trying again what may only be in the way for a while: exponential backoff with jitter.
 *
 * @module
 */

import type { BackupError } from "../core/errors.ts";
import type { TransferFailure } from "../core/shipping/transfer_failure.ts";
import type { Host } from "./host.ts";

/** How often and how patiently to try. */
export interface Retry {
  /** Tries in all, at least 1. */
  readonly attempts: number;
  /** Waits; replaced in tests. */
  readonly sleep: (seconds: number) => Promise<void>;
  /** A number from 0 up to 1, spreading hubs that failed at the same moment. */
  readonly random: () => number;
}

/** The pause before the second try, in seconds; each further one is three times as long. */
const FIRST_PAUSE_SECONDS = 5;
const PAUSE_SECONDS_MAX = 300;

/** A failure that says whether another try can help. */
export class Retryable extends Error {
  override readonly name = "Retryable";
  override readonly cause: BackupError;
  constructor(cause: BackupError) {
    super(cause.message, { cause });
    this.cause = cause;
  }
}

/** What to throw of a transfer that failed. */
export const failureOf = ({ error, retry }: TransferFailure): Error => retry ? new Retryable(error) : error;

/** Tries with the real clock; Ctrl-C ends a pause within a tenth of a second. */
export function realRetry(host: Host, attempts: number): Retry {
  return {
    attempts,
    random: Math.random,
    sleep: async (seconds) => {
      for (let left = seconds * 1000; left > 0; left -= 100) {
        host.checkpoint();
        await new Promise((resolve) => setTimeout(resolve, Math.min(left, 100)));
      }
      host.checkpoint();
    },
  };
}

/**
 * Runs `step` until it succeeds, fails with anything but {@linkcode Retryable}, or the tries are used up.
 *
 * @throws The last error, without its {@linkcode Retryable} wrapping.
 */
export async function withRetries<T>(
  host: Host,
  retry: Retry,
  step: (attempt: number) => Promise<T>,
): Promise<T> {
  for (let attempt = 1;; attempt++) {
    try {
      host.checkpoint();
      return await step(attempt);
    } catch (error) {
      if (!(error instanceof Retryable)) throw error;
      if (attempt >= retry.attempts) throw error.cause;
      const seconds = pauseSeconds(attempt, retry.random());
      host.report.warn(
        `${error.cause.message}; trying again in ${Math.round(seconds)} s (${attempt} of ${retry.attempts})`,
      );
      await retry.sleep(seconds);
    }
  }
}

/** The pause after the try number `attempt`, in seconds: between half and the whole of 5, 15, 45 ... up to 300. */
export function pauseSeconds(attempt: number, random: number): number {
  const whole = Math.min(FIRST_PAUSE_SECONDS * 3 ** (attempt - 1), PAUSE_SECONDS_MAX);
  return whole * (0.5 + random / 2);
}
