/**
 * Links that a step wants made. Deno lets no worker make one that may not read and write everywhere, so the program's
 * own thread makes them, and the worker waits for it.
 *
 * Invariants: a link is made only where the step may write, wherever the links on the way there lead; only for steps
 * whose permissions say so; nothing that is there is replaced. A link leads where it says, which is why Deno refuses:
 * code that had taken over such a step could write through it. So only `restore` has this.
 *
 * @module
 */

import { reasonOf } from "../../core/errors.ts";
import { nameOf, parentOf } from "../../core/paths.ts";
import type { StepPermissions } from "../../core/sandbox/permissions.ts";
import { realFs } from "../fs.ts";
import type { Fs } from "../host.ts";
import { requireWithin } from "./step_files.ts";

/** What is asked for, and where the answer goes. */
export interface LinkRequest {
  readonly target: string;
  readonly path: string;
  /** State and length, as {@linkcode Int32Array}, then the reason of a failure in UTF-8. */
  readonly answer: SharedArrayBuffer;
}

const WAITING = 0;
const MADE = 1;
const FAILED = 2;
const HEAD_BYTES = 8;
/** A reason names the path, which has at most 4096 bytes, up to twice. */
const REASON_BYTES_MAX = 16 * 1024;

/** The file system of a worker that asks for the links that it may not make. */
export function askingForLinks(fs: Fs, ask: (request: LinkRequest) => void): Fs {
  return {
    ...fs,
    symlink(target, path) {
      try {
        return fs.symlink(target, path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotCapable)) throw error;
      }
      const answer = new SharedArrayBuffer(HEAD_BYTES + REASON_BYTES_MAX);
      const head = new Int32Array(answer, 0, 2);
      ask({ target, path, answer });
      Atomics.wait(head, 0, WAITING);
      if (Atomics.load(head, 0) === MADE) return;
      throw new Error(new TextDecoder().decode(new Uint8Array(answer, HEAD_BYTES, head[1]!).slice()));
    },
  };
}

/** Makes a link for a step, or says in its answer why not. */
export function makeLink({ target, path, answer }: LinkRequest, permissions: StepPermissions): void {
  const head = new Int32Array(answer, 0, 2);
  let state = MADE;
  try {
    realFs.symlink(target, `${allowedFolder(parentOf(path), permissions)}/${nameOf(path)}`);
  } catch (error) {
    const { written } = new TextEncoder().encodeInto(reasonOf(error), new Uint8Array(answer, HEAD_BYTES));
    head[1] = written;
    state = FAILED;
  }
  Atomics.store(head, 0, state);
  Atomics.notify(head, 0);
}

/** Where the folder really lies. @throws {Error} If the step may not write there. */
function allowedFolder(folder: string, { links, write = [] }: StepPermissions): string {
  const real = realFs.realPath(folder);
  requireWithin(realFs, real, links ? write : []);
  return real;
}
