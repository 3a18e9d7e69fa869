/**
 * Whether the user of a unit gets to the program that the unit calls: if not, it ends before it starts.
 *
 * @module
 */

import { isWithin, parentOf } from "../../core/paths.ts";
import type { Manager } from "../../core/sandbox/units.ts";
import { isMissing, readTextIfThere } from "../fs.ts";
import type { Fs } from "../host.ts";

/** Units of the system's manager see these empty, but for what is mounted into them, which everybody may enter. */
const HOMES = ["/home", "/run/user"];
/** That one they see empty and closed, whatever its mode is (systemd 257). */
const ROOT_HOME = "/root";

/** The program as a unit calls it: one file, or Deno and what it runs. */
export type Program = string | { readonly deno: string; readonly entry: string };

/** What of the program a user cannot get to, and why. Only what is sure is told: group bits let everyone in, too. */
export function closedParts(
  fs: Fs,
  { program, user, manager }: { readonly program: Program; readonly user: string; readonly manager: Manager },
): { readonly path: string; readonly closedBy: string }[] {
  // A user's own manager runs it as the user who runs it now.
  if (user === "root" || manager === "user") return [];
  const owners = (readTextIfThere(fs, "/etc/passwd") ?? "").split("\n").map((line) => line.split(":"));
  const isClosed = (path: string, bits: number) => {
    const stat = ifThere(() => fs.stat(path));
    if (!stat || (stat.mode & bits & 0o077) !== 0) return false;
    const names = owners.filter(([, , uid]) => uid === `${stat.uid}`).map(([name]) => name);
    return names.length > 0 && !names.includes(user);
  };
  const closing = (path: string, bits: number): string | undefined => {
    const real = ifThere(() => fs.realPath(path)) ?? path;
    if (isWithin(real, ROOT_HOME)) return ROOT_HOME;
    const isMounted = HOMES.some((home) => isWithin(real, home));
    return (isMounted ? [] : foldersTo(real)).find((folder) => isClosed(folder, 0o111)) ??
      (isClosed(real, bits) ? real : undefined);
  };
  const parts: [string, number][] = typeof program === "string"
    ? [[program, 0o111]]
    : [[program.deno, 0o111], [parentOf(program.entry), 0o111], [program.entry, 0o444]];
  const found = parts.flatMap(([path, bits]) => {
    const closedBy = closing(path, bits);
    return closedBy === undefined ? [] : [{ path, closedBy }];
  });
  return found.filter(({ closedBy }, index) =>
    found.findIndex((other) => other.closedBy === closedBy) === index
  );
}

/** From the top down. */
function foldersTo(path: string): string[] {
  const folder = parentOf(path);
  return path === "/" ? [] : [...foldersTo(folder), folder];
}

function ifThere<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (isMissing(error) || error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
}
