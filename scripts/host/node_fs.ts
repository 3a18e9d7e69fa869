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

/** A file that is read and written at positions in one call of the system each, where Deno's own needs two. */
export interface PositionedFile {
  /** Reads up to so many bytes, 0 at the end. */
  readAt(buffer: Uint8Array, position: number): number;
  /** Writes some of the bytes, at least one. */
  writeAt(bytes: Uint8Array, position: number): number;
  close(): void;
}

/** Opens a file that is there. */
export function openPositioned(path: string, isWritten: boolean): PositionedFile {
  const { openSync, readSync, writeSync, closeSync } = nodeFs();
  const descriptor = openSync(path, isWritten ? "r+" : "r");
  return {
    readAt: (buffer, position) => readSync(descriptor, buffer, 0, buffer.length, position),
    writeAt: (bytes, position) => writeSync(descriptor, bytes, 0, bytes.length, position),
    close: () => closeSync(descriptor),
  };
}
