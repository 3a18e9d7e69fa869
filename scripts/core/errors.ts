/**
 * The one error type that reaches a person, and the one place that maps errors to exit codes.
 *
 * A message reads "Cannot <action> <thing>: <its state>"; the hint is the remedy.
 *
 * @module
 */

/** What went wrong, as far as the exit code is concerned. */
export type ErrorKind =
  /** The command line is wrong. */
  | "usage"
  /** The configuration is wrong. */
  | "config"
  /** A required source is missing, locked, unreadable or not what it should be. */
  | "source"
  /** The snapshot is stored, but not on every destination off this machine. */
  | "unshipped"
  /** What is stored is damaged, forged or incomplete. */
  | "integrity"
  /** Another run holds the lock. */
  | "busy"
  /** A key is missing, unreadable or the wrong one. */
  | "key"
  /** The newest good snapshot (or proof) is older than its limit. */
  | "stale"
  /** The disk is full, read-only, or failing. */
  | "disk"
  /** The far side cannot be reached. */
  | "network"
  /** The clock contradicts what is stored. */
  | "clock"
  /** Stopped by Ctrl-C, by SIGTERM, or with its terminal. */
  | "cancelled"
  /** Anything else. */
  | "internal";

/** An error that tells a person the action, the thing, its state, and (as `hint`) the remedy. */
export class BackupError extends Error {
  override readonly name = "BackupError";
  readonly kind: ErrorKind;
  readonly hint: string | undefined;

  constructor(message: string, options: { kind: ErrorKind; hint?: string | undefined; cause?: unknown }) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.kind = options.kind;
    this.hint = options.hint;
  }
}

/** Whether an error only says that the run was interrupted, which is no finding about what it worked on. */
export function isInterruption(error: unknown): boolean {
  return error instanceof BackupError && error.kind === "cancelled";
}

/** How a verb ended, as `--json` tells it beside what was done. */
export function outcome(error: BackupError | undefined) {
  if (!error) return { ok: true };
  const { message, kind, hint } = error;
  return { ok: false, error: { message, kind, hint }, exitCode: exitCodeOf(kind) };
}

/** The exit codes, as `--help` prints them. */
export const EXIT_CODES: Readonly<Record<number, string>> = {
  0: "done",
  1: "anything else (disk, network, clock, interrupted, a fault of ours)",
  2: "usage or configuration",
  3: "a source is missing, locked, unreadable or suspect",
  4: "stored, but not off this machine",
  5: "integrity: something stored is damaged, forged or missing",
  6: "another run holds the lock",
  7: "a key is missing or the wrong one",
  8: "too old: the newest good snapshot or proof is past its limit",
};

/** Maps a kind of error to the exit code of the process. */
export function exitCodeOf(kind: ErrorKind): number {
  switch (kind) {
    case "usage":
    case "config":
      return 2;
    case "source":
      return 3;
    case "unshipped":
      return 4;
    case "integrity":
      return 5;
    case "busy":
      return 6;
    case "key":
      return 7;
    case "stale":
      return 8;
    case "disk":
    case "network":
    case "clock":
    case "cancelled":
    case "internal":
      return 1;
    default: {
      const never: never = kind;
      return never;
    }
  }
}

/** Why something failed, and the remedy: for where that is all that is told of it. */
export function reasonAndRemedy(error: unknown): string {
  const hint = error instanceof BackupError ? error.hint : undefined;
  return `${reasonOf(error)}${hint === undefined ? "" : `; ${hint}`}`;
}

/** The text of anything thrown, for use inside another message. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** What `work` gives; undefined where it fails, and why is for something else to tell. */
export function ifPossible<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}

/** Why `work` fails; undefined where it does not. */
export function problemOf(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

/** An error as it goes from one thread to another. */
export interface SentError {
  readonly message: string;
  readonly kind: ErrorKind | undefined;
  readonly hint: string | undefined;
  readonly stack: string | undefined;
}

/** What to send of something that was thrown. Inverse of {@linkcode receivedError}. */
export function sentError(error: unknown): SentError {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const { kind, hint } = error instanceof BackupError ? error : {};
  return { message, kind, hint, stack };
}

/** What nobody expected, as an error of its own. */
export const internalError = (error: unknown): BackupError => receivedError(sentError(error));

/** The error that another thread sent. */
export function receivedError({ message, kind, hint, stack }: SentError): BackupError {
  if (kind) return new BackupError(message, { kind, hint });
  return new BackupError(message, {
    kind: "internal",
    hint: "this is a fault of hapi-backup; run it again with --verbose for where it happened",
    cause: stack,
  });
}
