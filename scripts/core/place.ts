/**
 * Places: where something belongs on the hub, written so that it can be put back on another machine.
 *
 * `home/.hapi/hapi.db` lies in the operator's home, wherever that is; `root/etc/hosts` anywhere else. A place is
 * a relative path of plain names: it cannot leave the folder it is put into. Tar members are named by their place.
 *
 * @module
 */

import { BackupError } from "./errors.ts";

declare const brand: unique symbol;
/** A place, as {@linkcode isPlace} checks it. */
export type Place = string & { readonly [brand]: "Place" };

/** A place longer than this is refused (bytes in UTF-8): Linux' own limit for a path. */
const PLACE_BYTES_MAX = 4096;

/** Whether `text` is a place: `home/` or `root/` and plain names, none of them empty, `.` or `..`, no NUL, all Unicode. */
export function isPlace(text: string): text is Place {
  if (!/^(home|root)\//.test(text) || text.includes("\0") || !text.isWellFormed()) return false;
  // Three bytes at most for each of a text's units: few need to be encoded.
  if (3 * text.length > PLACE_BYTES_MAX && new TextEncoder().encode(text).length > PLACE_BYTES_MAX) {
    return false;
  }
  return !/\/\.{0,2}(\/|$)/.test(text);
}

/** The place of an absolute path. Inverse of {@linkcode pathOfPlace}. @throws {BackupError} (source) If it has none. */
export function placeOf(path: string, home: string): Place {
  const inHome = path.startsWith(home === "/" ? "/" : home + "/");
  const place = inHome ? `home/${path.slice(home === "/" ? 1 : home.length + 1)}` : `root${path}`;
  if (isPlace(place)) return place;
  throw new BackupError(`Cannot save ${JSON.stringify(path)}: its path cannot be written down safely`, {
    kind: "source",
    hint: "rename it, or leave it out of the sources",
  });
}

/** The absolute path of a place for the home folder `home`. Inverse of {@linkcode placeOf}. */
export function pathOfPlace(place: Place, home: string): string {
  if (place.startsWith("home/")) return (home === "/" ? "" : home) + place.slice("home".length);
  return place.slice("root".length);
}
