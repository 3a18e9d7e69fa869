/**
 * A folder for work that leaves nothing behind: removed at the end, and by the next run if that one was killed.
 *
 * @module
 */

import { diskError, removeIfThere, removeRestored } from "./fs.ts";
import type { Host, OpenFile } from "./host.ts";

/** A scratch folder; disposing of it removes it. */
export interface Scratch extends Disposable {
  readonly path: string;
}

/** Makes a scratch folder inside `parent`, for its owner only, and removes those that dead runs left there. */
export function makeScratch({ fs }: Pick<Host, "fs">, parent: string): Scratch {
  try {
    fs.mkdir(parent, { recursive: true, mode: 0o700 });
    for (const { name, type } of fs.readDir(parent)) {
      if (type === "folder" && name.startsWith("scratch-") && isAbandoned(`${parent}/${name}`)) {
        removeRestored(fs, `${parent}/${name}`);
      }
    }
    const path = `${parent}/scratch-${crypto.randomUUID()}`;
    fs.mkdir(path, { mode: 0o700 });
    const lock = openOwnLock(path);
    return {
      path,
      [Symbol.dispose]() {
        try {
          removeRestored(fs, path);
        } finally {
          lock.close();
        }
      },
    };
  } catch (error) {
    throw diskError(`make a scratch folder in ${parent}`, error);
  }

  function openOwnLock(folder: string): OpenFile {
    try {
      const lock = openLock(folder);
      lock.tryLock();
      return lock;
    } catch (error) {
      removeIfThere(fs, folder);
      throw error;
    }
  }

  function openLock(folder: string): OpenFile {
    return fs.open(`${folder}/.lock`, { read: true, write: true, create: true, mode: 0o600 });
  }

  /** Whether its run is gone: the system has then released the lock. */
  function isAbandoned(folder: string): boolean {
    try {
      using lock = openLock(folder);
      return lock.tryLock();
    } catch {
      return false;
    }
  }
}
