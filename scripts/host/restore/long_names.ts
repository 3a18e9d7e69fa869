/**
 * Names and paths that are too long where a snapshot is restored.
 *
 * @module
 */

import { BackupError, reasonOf } from "../../core/errors.ts";
import { cleanText } from "../../core/format.ts";
import { nameOf } from "../../core/paths.ts";
import type { Place } from "../../core/place.ts";
import type { Fs } from "../host.ts";

/** What every disk takes, in bytes. FAT, NTFS and some ZFS take longer names: a hub may have such. */
const NAME_BYTES_MAX = 255;
/** What Linux takes, in bytes. */
const PATH_BYTES_MAX = 4095;

const encoder = new TextEncoder();
const bytesOf = (text: string): number => encoder.encode(text).length;
/** Of a text's units each has three bytes at most: few texts need to be encoded. */
const isLonger = (text: string, bytes: number): boolean => 3 * text.length > bytes && bytesOf(text) > bytes;

/**
 * Requires that everything fits below `root`.
 *
 * @param folder A folder on the same disk, which is there.
 * @throws {BackupError} (disk) If a name is longer than that disk takes, or a path than Linux does.
 */
export function refuseLong(
  fs: Fs,
  folder: string,
  root: string,
  entries: readonly { readonly place: Place }[],
): void {
  for (const { place } of entries) {
    const path = `${root}/${place}`;
    if (isLonger(path, PATH_BYTES_MAX)) {
      throw tooLong(
        place,
        `its path below ${root} has ${bytesOf(path)} bytes, and Linux takes ${PATH_BYTES_MAX}`,
      );
    }
    if (3 * place.length <= NAME_BYTES_MAX) continue;
    const name = place.split("/").find((name) => isTooLong(fs, folder, name));
    if (name !== undefined) {
      const inIt = name === nameOf(place) ? "its name has" : "a name in it has";
      throw tooLong(place, `${inIt} ${bytesOf(name)} bytes, more than the disk of ${folder} takes`);
    }
  }
}

function isTooLong(fs: Fs, folder: string, name: string): boolean {
  if (!isLonger(name, NAME_BYTES_MAX)) return false;
  try {
    fs.lstat(`${folder}/${name}`);
    return false;
  } catch (error) {
    return /os error 36\b/.test(reasonOf(error));
  }
}

function tooLong(place: Place, state: string): BackupError {
  return new BackupError(`Cannot restore ${cleanText(place)}: ${state}`, {
    kind: "disk",
    hint: "restore --to a folder with a shorter path or on another disk, or leave it out with --only",
  });
}

/** Bytes of a name that are kept where something is to follow them. */
const START_BYTES_MAX = 200;

/** A path with an ending after its name, of which the start must do where the whole would be too long. */
export function withEnding(path: string, ending: string): string {
  const name = nameOf(path);
  const start = encoder.encode(name).subarray(0, START_BYTES_MAX);
  // A character that is cut is left out.
  const kept = new TextDecoder().decode(start, { stream: true });
  return path.slice(0, path.length - name.length) + kept + ending;
}
