/**
 * What Deno's own file system has no word for. Node's is loaded when it is called for, which takes a thread 10 to 40 ms.
 *
 * @module
 */

import type { Stats, StatsFs } from "node:fs";

const nodeFs = () => globalThis.process.getBuiltinModule("node:fs");

/** What a disk holds, and has free. */
export const statfs = (path: string): StatsFs => nodeFs().statfsSync(path);

/** What an open file is. */
export const fstat = (descriptor: number): Stats => nodeFs().fstatSync(descriptor);
