/**
 * Staging: what `snapshot` hands to `encrypt`, in `<state>/<set>/staging/`.
 *
 * Images are plaintext, readable by their owner only, on the same disk and under the same user as the live database.
 * `staged.json` is written last; without it there is nothing staged.
 *
 * @module
 */

import { stagingFolder } from "../../core/config/state_paths.ts";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { isSnapshotId, type SetName, type SnapshotId, type SourceName } from "../../core/names.ts";
import type { Place } from "../../core/place.ts";
import type { Unreadable } from "../../core/snapshot/file_index.ts";
import type { DatabaseChecks, SourceOutcome } from "../../core/snapshot/manifest.ts";
import type { Fingerprint } from "../../core/snapshot/sqlite_format.ts";
import {
  attempt,
  exists,
  makeFolderDurably,
  readTextIfThere,
  removeIfThere,
  writeFileDurably,
} from "../fs.ts";
import type { Fs, Host } from "../host.ts";
import type { DatabaseFacts } from "../sqlite.ts";

/** A database as it was found. */
export interface StagedDatabase {
  readonly source: SourceName;
  readonly place: Place;
  readonly mode: number;
  readonly mtimeMs: number;
  /** Of its file: a folder source may come to it by another path. */
  readonly device: number;
  readonly inode: number;
  /** Its consistent copy; undefined when nothing was committed since the last snapshot. */
  readonly copy:
    | (DatabaseFacts & { readonly image: string; readonly pageBytes: number; readonly bytes: number })
    | undefined;
  readonly fingerprint: Fingerprint | null;
}

/** What is staged. */
export interface Staged {
  readonly version: 2;
  readonly set: SetName;
  readonly id: SnapshotId;
  readonly databases: readonly StagedDatabase[];
  /** What became of the set's databases. */
  readonly sources: readonly SourceOutcome[];
  /** Databases that exist and could not be copied, and need not be there. */
  readonly unreadable: readonly Unreadable[];
  readonly notes: readonly string[];
}

/** What SQLite said of each staged image, by source. */
export type StagedChecks = Readonly<Record<string, DatabaseChecks>>;

/** Makes the folders of a set, for their owner only. */
export function makeSetFolders(fs: Fs, folder: string): void {
  for (const path of [`${folder}/base`, stagingFolder(folder)]) makeFolderDurably(fs, path, 0o700);
}

/** Removes everything from a set's staging folder. */
export function clearStaging(fs: Fs, folder: string): void {
  const staging = stagingFolder(folder);
  if (!exists(fs, staging)) return;
  // What makes it a staging goes first, so that a crash leaves none rather than half of one.
  removeIfThere(fs, stagedFile(folder));
  for (const { name } of fs.readDir(staging)) removeIfThere(fs, `${staging}/${name}`);
}

/**
 * Does work that stages a set, or needs what is staged. Where it fails nothing stays staged: the next run copies the
 * databases anew, and no second plaintext copy is to wait for it. Why the work failed is what is thrown, whatever else
 * fails.
 */
export async function clearingIfFailed<Result>(
  { fs, report }: Pick<Host, "fs" | "report">,
  folder: string,
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    try {
      clearStaging(fs, folder);
    } catch (problem) {
      report.warn(
        `${stagingFolder(folder)} is not cleared, which the next snapshot does: ${reasonOf(problem)}`,
      );
    }
    throw error;
  }
}

/** Says what is staged: the last thing that `snapshot` does. It is not on the disk before it is checked. */
export function writeStaged(fs: Fs, folder: string, staged: Staged): void {
  const path = stagedFile(folder);
  attempt(`write ${path}`, () => {
    using file = fs.open(path, { write: true, createNew: true, mode: 0o600 });
    file.write(new TextEncoder().encode(JSON.stringify(staged)));
  });
}

/** Says what the checks of the staged images found, once what is staged is on the disk. */
export function writeStagedChecks(fs: Fs, folder: string, checks: StagedChecks): void {
  const path = stagedFile(folder);
  attempt(`sync ${path}`, () => {
    using file = fs.open(path, { read: true });
    file.sync();
  });
  fs.syncFolder(stagingFolder(folder));
  writeFileDurably(fs, `${stagingFolder(folder)}/checks.json`, JSON.stringify(checks));
}

/** @throws {BackupError} (usage) If nothing is staged. */
export function readStaged(fs: Fs, folder: string, set: SetName): Staged {
  const staged = readOwn(fs, stagedFile(folder)) as Staged | undefined;
  if (staged?.version === 2 && staged.set === set && isSnapshotId(staged.id)) return staged;
  throw notStaged(set);
}

/** What a `snapshot` left once all was checked and on the disk. @throws {BackupError} (usage) If it did not come so far. */
export function readStagedChecks(fs: Fs, folder: string, set: SetName): StagedChecks {
  readStaged(fs, folder, set);
  const checks = readOwn(fs, `${stagingFolder(folder)}/checks.json`) as StagedChecks | undefined;
  if (checks) return checks;
  throw notStaged(set, "the snapshot that is staged was not checked to its end");
}

function notStaged(set: SetName, state = "nothing is staged"): BackupError {
  return new BackupError(`Cannot encrypt set ${set}: ${state}`, {
    kind: "usage",
    hint: `run \`hapi-backup snapshot --set ${set}\` first, or \`hapi-backup backup\``,
  });
}

const stagedFile = (folder: string): string => `${stagingFolder(folder)}/staged.json`;

/** Our own file: what cannot be read is as good as none. */
function readOwn(fs: Fs, path: string): unknown {
  const text = readTextIfThere(fs, path);
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
