/**
 * Where a set's state lies: `<state>/<set>/`, with its memory, its lock, what is staged and what the next increment
 * builds on.
 *
 * @module
 */

import { makeFolderDurably } from "./fs.ts";
import type { Fs } from "./host.ts";

/** The folder of a set's memory, staging and lock. */
export const setFolder = (stateFolder: string, set: string): string => `${stateFolder}/${set}`;
/** The folder that a snapshot is staged in: plaintext images, mode 0700. */
export const stagingFolder = (folder: string): string => `${folder}/staging`;
/** The image that the next increment is compared with, named by its SHA-256. */
export const baseImage = (folder: string, sha256: string): string => `${folder}/base/${sha256}.image`;
/** The page checksums that stand for it where `keepBase` is false. */
export const baseChecksums = (folder: string, sha256: string): string => `${folder}/base/${sha256}.sums`;

/** Makes the folders of a set, for their owner only. */
export function makeSetFolders(fs: Fs, folder: string): void {
  for (const path of [`${folder}/base`, stagingFolder(folder)]) makeFolderDurably(fs, path, 0o700);
}
