/**
 * One run at a time: a lock on an open file, which the system releases with the process however it ends.
 *
 * @module
 */

import { BackupError } from "../core/errors.ts";
import { parentOf } from "../core/paths.ts";
import { diskError, makeFolderDurably } from "./fs.ts";
import type { Host, OpenFile } from "./host.ts";

/** How often a held lock is tried again, in milliseconds. */
const RETRY_MS = 200;

/**
 * Runs `work` while holding the lock `path`.
 *
 * @param waitSeconds How long to wait for another run to end.
 * @throws {BackupError} (busy) If another run still holds it.
 */
export async function withLock<T>(
  host: Host,
  path: string,
  waitSeconds: number,
  work: () => T | Promise<T>,
): Promise<T> {
  makeFolderDurably(host.fs, parentOf(path), 0o700);
  let file;
  try {
    file = host.fs.open(path, { read: true, write: true, create: true, mode: 0o600 });
  } catch (error) {
    throw diskError(`open ${path}`, error);
  }
  using lock = file;
  await waitForLock(host, lock, path, waitSeconds);
  return await work();
}

/** Locks an open file, which is at `path`. @throws {BackupError} (busy) If another run still holds it. */
export async function waitForLock(
  host: Pick<Host, "checkpoint">,
  lock: OpenFile,
  path: string,
  waitSeconds: number,
): Promise<void> {
  const deadline = performance.now() + waitSeconds * 1000;
  while (!lock.tryLock()) {
    host.checkpoint();
    if (performance.now() >= deadline) {
      throw new BackupError(`Cannot start: another run holds the lock ${path}`, {
        kind: "busy",
        hint:
          "wait for it to end (backup, snapshot, encrypt, ship, restore and session do with --wait SECONDS); the lock " +
          "goes with its process, nothing has to be removed",
      });
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
