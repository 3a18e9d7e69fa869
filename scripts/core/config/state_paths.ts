/**
 * Where things lie in a hub's state folder: `<state>/<set>/` is what the snapshots of a set need, `<state>/ship/` what
 * was shipped and told.
 *
 * @module
 */

/** The folder of a set's memory, staging and lock. */
export const setFolder = (stateFolder: string, set: string): string => `${stateFolder}/${set}`;
/** What is remembered of the last snapshot, in the folder of its set. */
export const memoryFile = (setFolder: string): string => `${setFolder}/last.json`;
/** The folder that a snapshot is staged in: plaintext images, mode 0700. */
export const stagingFolder = (setFolder: string): string => `${setFolder}/staging`;
/** The image that the next increment is compared with, named by its SHA-256. */
export const baseImage = (setFolder: string, sha256: string): string => `${setFolder}/base/${sha256}.image`;
/** The page checksums that stand for it where `keepBase` is false. */
export const baseChecksums = (setFolder: string, sha256: string): string =>
  `${setFolder}/base/${sha256}.sums`;
/** The folder of what was shipped, and of what was told of it. */
export const shipFolder = (stateFolder: string): string => `${stateFolder}/ship`;
/** What a destination has confirmed. */
export const shipRecordFile = (stateFolder: string, destination: string): string =>
  `${shipFolder(stateFolder)}/${destination}.json`;
/** A word for `encrypt`: the next snapshot of this set must be a full one. Its text says why. */
export const fullWantedFile = (stateFolder: string, set: string): string =>
  `${shipFolder(stateFolder)}/full-wanted-${set}`;
/** The log of drills. */
export const drillLog = (stateFolder: string): string => `${stateFolder}/drills.jsonl`;
/** The log of proofs. */
export const proofLog = (stateFolder: string): string => `${stateFolder}/proofs.jsonl`;
