/**
 * The file of a configuration, as it is changed: by one at a time, so that no change is lost to another, and whole.
 *
 * @module
 */

import { BackupError } from "../../core/errors.ts";
import { writeFileDurably } from "../fs.ts";
import type { Host } from "../host.ts";
import { waitForLock } from "../lock.ts";

/** How long another change is waited for, in seconds. */
const WAIT_SECONDS = 10;

/** A configuration that nobody else changes until it is disposed of. */
export interface LockedConfiguration extends Disposable {
  readonly text: string;
  /** Puts a text in its place, with the same mode. @throws {BackupError} (disk), (config) If it is another user's. */
  replace(text: string): void;
}

/**
 * Locks a configuration and reads it.
 *
 * @param path The file itself, and not a link to it, in whose place a file would come to lie.
 * @throws {BackupError} (busy) If another change does not end.
 */
export async function lockConfiguration(host: Host, path: string): Promise<LockedConfiguration> {
  const { fs } = host;
  for (;;) {
    using stack = new DisposableStack();
    const file = stack.use(fs.open(path, { read: true }));
    try {
      await waitForLock(host, file, path, WAIT_SECONDS);
    } catch (error) {
      if (error instanceof BackupError) throw error; // Else this file system cannot lock what is only read.
    }
    // A change that was waited for has put another file there.
    if (fs.stat(path).inode !== file.stat().inode) continue;
    const { mode, uid } = file.stat();
    const kept = stack.move();
    return {
      text: new TextDecoder().decode(fs.readFile(path)),
      replace: (text) => writeFileDurably(fs, path, text, mode & 0o777, uid),
      [Symbol.dispose]: () => kept.dispose(),
    };
  }
}
