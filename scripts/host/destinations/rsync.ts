/**
 * rsync over ssh to a far side that lets us only add files (`rrsync -wo -no-del -no-overwrite`).
 *
 * Invariants: nothing stands under its final name before all of its bytes do; the seal is sent once everything else
 * was re-read there and compared by checksum; an existing file is never touched, and one that differs is an error.
 *
 * How an upload resumes: a part worth resuming goes to a folder of its own per try, `.incoming-<id>-<try>`, where rsync
 * leaves what had arrived when the connection was cut. The next try goes to the next folder and takes the earlier
 * ones as its basis, so only the rest is sent. Then the far side hard-links the whole part to its final name. The
 * obvious ways do not work here: `rrsync -no-overwrite` refuses `--partial-dir`, and with `--partial`, `--append` or
 * `--inplace` a partial file would stand under its final name, where no-overwrite freezes it. The far side clears
 * `.incoming-` folders when they are old.
 *
 * @module
 */

import type { RsyncDestination } from "../../core/config/config.ts";
import { BackupError } from "../../core/errors.ts";
import { SEAL_FILE, SIGNATURE_FILE } from "../../core/names.ts";
import { parentOf } from "../../core/paths.ts";
import {
  compareArgs,
  incomingFolder,
  namesInput,
  parseLiteralBytes,
  parseProgress,
  parseVerdicts,
  pushArgs,
  type PushPlan,
  RSYNC_ENV,
  type RsyncAccess,
  type Verdict,
} from "../../core/shipping/rsync_args.ts";
import { explainRsyncFailure } from "../../core/shipping/rsync_failure.ts";
import type { Expected, ExpectedFile, Missing } from "../../core/shipping/shipping.ts";
import { diskErrorSaid, removeIfThere } from "../fs.ts";
import type { Host, RunResult } from "../host.ts";
import { failureOf, type Retry, Retryable, withRetries } from "../retry.ts";
import type { SealedSnapshot } from "../store/store.ts";

/** Parts smaller than this are sent again whole: they need no folder of their own on the far side (bytes). */
const RESUME_BYTES_MIN = 4 << 20;

/** What an upload remembers between runs. */
export interface UploadMemory {
  /** Tries of this snapshot's upload so far, in earlier runs too. */
  readonly attempts: number;
  /** Told of the number of a new try before it begins. */
  readonly began: (attempt: number) => void;
}

/** What was sent. */
export interface Pushed {
  /** Bytes that went over the network as such, without those that were there already. */
  readonly bytes: number;
}

/**
 * Sends one snapshot and proves that the far side holds it.
 *
 * @throws {BackupError} (integrity) If the far side holds something else under one of its names.
 * @throws {BackupError} (network, key, disk, config) With the remedy.
 */
export async function pushSnapshot(
  host: Host,
  destination: RsyncDestination,
  snapshot: SealedSnapshot,
  memory: UploadMemory,
  retry: Retry,
): Promise<Pushed> {
  const { set, id } = snapshot;
  const source = parentOf(parentOf(snapshot.folder));
  const named = (name: string) => `${set}/${id}/${name}`;
  const parts = snapshot.sealed.seal.parts;
  const large = parts.filter((part) => part.bytes >= RESUME_BYTES_MIN).map((part) => named(part.name));
  const beforeSeal = [...parts.map((part) => named(part.name)), named(SIGNATURE_FILE)];
  const bytesTotal = parts.reduce((sum, part) => sum + part.bytes, 0);
  const what = `ship ${set} ${id} to ${destination.name}`;
  let attempts = memory.attempts;
  let bytes = 0;

  const push = async (plan: Omit<PushPlan, "source">, names: readonly string[]) => {
    const run = await runRsync(host, destination, what, pushArgs(destination, { source, ...plan }), {
      names,
      onLine: (line) => {
        const progress = parseProgress(line);
        if (progress) host.report.progress(what, progress.bytes, bytesTotal);
      },
    });
    bytes += parseLiteralBytes(run.stdout);
    const verdicts = parseVerdicts(run.stdout);
    if (plan.into === "") refuseDifferent(what, destination, verdicts, names);
    return verdicts;
  };

  await withRetries(host, retry, async () => {
    const basis: string[] = [];
    if (large.length > 0) {
      attempts++;
      memory.began(attempts);
      const earlier = Array.from({ length: attempts - 1 }, (_, n) => incomingFolder(id, attempts - 1 - n));
      const into = incomingFolder(id, attempts);
      await push({ into, basis: earlier, keepPartial: true }, large);
      basis.push(into);
    }
    await push({ into: "", basis, keepPartial: false }, beforeSeal);
    const comparing = `compare ${set} ${id} on ${destination.name}`;
    host.report.progress(comparing, 0, bytesTotal);
    await proveThere(host, destination, what, source, beforeSeal);
    host.report.progress(comparing, bytesTotal, bytesTotal);
    // rsync compares a file's checksum after writing it, and that of one that is there before leaving it alone.
    const seal = named(SEAL_FILE);
    const verdict = (await push({ into: "", basis: [], keepPartial: false }, [seal])).get(seal);
    if (verdict === undefined) throw unproven(what, seal);
  });
  return { bytes };
}

/** Has the far side re-read `names` and compare them with ours by checksum. */
async function proveThere(
  host: Host,
  destination: RsyncDestination,
  what: string,
  source: string,
  names: readonly string[],
): Promise<void> {
  const run = await runRsync(host, destination, what, compareArgs(destination, source, "checksum"), {
    names,
  });
  const verdicts = parseVerdicts(run.stdout);
  refuseDifferent(what, destination, verdicts, names);
  const missing = names.find((name) => verdicts.get(name) === "sent");
  if (missing !== undefined) {
    throw new Retryable(
      new BackupError(`Cannot ${what}: ${missing} was sent, and yet it is not there`, {
        kind: "network",
        hint: "look at the storage host: does anything remove or move files in that folder?",
      }),
    );
  }
  const silent = names.find((name) => verdicts.get(name) !== "same");
  if (silent !== undefined) throw unproven(what, silent);
}

function unproven(what: string, name: string): BackupError {
  return new BackupError(`Cannot ${what}: the far side does not say what it holds as ${name}`, {
    kind: "config",
    hint: "it needs rsync 3.5 or newer, which tells why it leaves a file alone",
  });
}

function refuseDifferent(
  what: string,
  destination: RsyncDestination,
  verdicts: ReadonlyMap<string, Verdict>,
  names: readonly string[],
): void {
  const different = names.filter((name) => verdicts.get(name) === "different");
  if (different.length === 0) return;
  throw new BackupError(
    `Cannot ${what}: ${different[0]}${
      different.length > 1 ? ` (and ${different.length - 1} more)` : ""
    } on ${destination.target} differs from ours, and append-only keeps it as it is`,
    {
      kind: "integrity",
      hint:
        "on the storage host, find out who wrote it (`hapi-backup scrub`), set that snapshot's folder aside, " +
        "then ship again",
    },
  );
}

/**
 * Tells which of these snapshots the far side lacks, wholly or in part, by names and sizes only.
 *
 * @param probe A folder that this may fill and remove: it gets empty files of the right sizes, since rsync can only
 *   ask about files that are here, and the local store may have let go of some.
 * @param onUnknown Told why some cannot be looked at there, which are not among those that are lacking then.
 */
export async function missingThere(
  host: Host,
  destination: RsyncDestination,
  expected: readonly Expected[],
  probe: string,
  retry: Retry,
  onUnknown: (error: BackupError) => void,
): Promise<Missing[]> {
  if (expected.length === 0) return [];
  const what = `ask ${destination.name} what it holds`;
  const nameIn = ({ set, id }: Expected, file: ExpectedFile) => `${set}/${id}/${file.name}`;
  removeIfThere(host.fs, probe);
  try {
    for (const snapshot of expected) {
      host.fs.mkdir(`${probe}/${snapshot.set}/${snapshot.id}`, { recursive: true, mode: 0o700 });
      for (const file of snapshot.files) {
        using hole = host.fs.open(`${probe}/${nameIn(snapshot, file)}`, {
          write: true,
          createNew: true,
          mode: 0o600,
        });
        hole.truncate(file.bytes);
      }
    }
    const names = expected.flatMap((snapshot) => snapshot.files.map((file) => nameIn(snapshot, file)));
    let isPartial = false;
    const onPartial = ({ message, kind }: BackupError) => {
      isPartial = true;
      const hint = "see there that the hub's folder and all in it is its user's, and look at that disk";
      onUnknown(new BackupError(message, { kind, hint }));
    };
    const run = await withRetries(
      host,
      retry,
      () => runRsync(host, destination, what, compareArgs(destination, probe, "size"), { names, onPartial }),
    );
    const verdicts = parseVerdicts(run.stdout);
    return expected.flatMap((snapshot) => {
      const found = snapshot.files.map((file) => verdicts.get(nameIn(snapshot, file)));
      if (found.every((verdict) => verdict === "same")) return [];
      if (isPartial && found.includes(undefined)) return [];
      return [{
        ...snapshot,
        isPartly: found.some((verdict) => verdict === "same" || verdict === "different"),
      }];
    });
  } finally {
    removeIfThere(host.fs, probe);
  }
}

/**
 * Runs rsync once.
 *
 * @param more.into The folder of this machine that it writes to: a disk that is full is this one then.
 * @param more.onPartial Told where all was done but for some files, which is an error else.
 * @throws {Retryable} If another try can help.
 * @throws {BackupError} Otherwise.
 */
export async function runRsync(
  host: Host,
  access: RsyncAccess,
  what: string,
  args: readonly string[],
  { names, onLine, secondsMax, into, onPartial }: {
    readonly names?: readonly string[];
    readonly onLine?: (line: string) => void;
    readonly secondsMax?: number;
    readonly into?: string;
    readonly onPartial?: (error: BackupError) => void;
  },
): Promise<RunResult> {
  const stdin = names && namesInput(names);
  const run = await host.run("rsync", args, { env: RSYNC_ENV, stdin, onLine, secondsMax });
  if (run.code === 0) return run;
  const here = into && diskErrorSaid(`${what} into ${into}`, run.stderr);
  if (here) throw here;
  const failure = explainRsyncFailure(what, access, run);
  if (!failure.isPartial || !onPartial) throw failureOf(failure);
  onPartial(failure.error);
  return run;
}
