/**
 * Room on disks, looked at before it is used up. A disk that does not tell lets everything through.
 *
 * @module
 */

import { BackupError, ifPossible } from "../core/errors.ts";
import { formatBytes } from "../core/format.ts";
import type { Fs } from "./host.ts";

/** How many bytes must be free for a folder, which is there. */
export interface Need {
  readonly folder: string;
  readonly bytes: number;
}

/** @throws {BackupError} (disk) If a run of the hub has fewer bytes free there. */
export function requireFree(fs: Fs, { folder, bytes }: Need): void {
  const free = fs.freeBytes(folder);
  if (free !== undefined && free < bytes) {
    throw notEnough(
      `go on in ${folder}`,
      free,
      bytes,
      `free some space there, or move "store" and "stateFolder"; a lower localKeepDays lets go of what is ` +
        "shipped, and limits.freeBytesMin says what must stay free",
    );
  }
}

/**
 * Requires room for what comes out of a snapshot, or is fetched of it: for all at once, where that is one disk.
 *
 * @throws {BackupError} (disk) If it is sure that it does not fit.
 */
export function requireRoom(fs: Fs, action: string, needs: readonly Need[]): void {
  const diskOf = ({ folder }: Need) => ifPossible(() => fs.stat(folder).device) ?? folder;
  for (const together of Map.groupBy(needs.filter(({ bytes }) => bytes > 0), diskOf).values()) {
    const folders = together.map(({ folder }) => folder);
    const bytes = together.reduce((sum, { bytes }) => sum + bytes, 0);
    const room = fs.roomBytes(folders[0]!);
    if (room !== undefined && room < bytes) {
      throw notEnough(
        `${action} on the disk of ${folders.join(" and ")}`,
        room,
        bytes,
        "free some space there, or name a folder on another disk with --to or --scratch",
      );
    }
  }
}

function notEnough(action: string, free: number, needed: number, hint: string): BackupError {
  return new BackupError(
    `Cannot ${action}: ${formatBytes(free)} are free and ${formatBytes(needed)} must be`,
    { kind: "disk", hint },
  );
}
