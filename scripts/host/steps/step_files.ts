/**
 * Files that the program's own thread opens for a step: those alone that the step itself may, wherever the links on the
 * way to them lead. Who has taken over a step gets nothing by asking that thread, which may do more.
 *
 * @module
 */

import { ifPossible } from "../../core/errors.ts";
import { isWithin } from "../../core/paths.ts";
import type { StepPermissions } from "../../core/sandbox/permissions.ts";
import type { Fs } from "../host.ts";

/** Opens files that a step of these permissions may open. */
export function filesOfStep(fs: Fs, { read, write = [] }: StepPermissions): Pick<Fs, "open"> {
  return {
    open(path, options) {
      if (options.read) requireWithin(fs, fs.realPath(path), read);
      if (options.write) requireWithin(fs, fs.realPath(path), write);
      return fs.open(path, options);
    },
  };
}

/** @param real A path without links. @throws {Error} If it lies in none of `granted`. */
export function requireWithin(fs: Fs, real: string, granted: readonly string[]): void {
  // What is not there, or a pipe that an identity comes out of, has no path that anything lies in.
  const roots = granted.flatMap((path) => ifPossible(() => fs.realPath(path)) ?? []);
  if (!roots.some((root) => isWithin(real, root))) throw new Error("this step may not");
}
