/**
 * What of `stat` shows that a file was written or replaced.
 *
 * @module
 */

/** Where a file stood on the disk, its size in bytes, and its times in milliseconds. */
export interface FileMark {
  readonly device: number;
  readonly inode: number;
  readonly bytes: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
}

/** The mark alone, out of all that `stat` tells. */
export function markOf({ device, inode, bytes, mtimeMs, ctimeMs }: FileMark): FileMark {
  return { device, inode, bytes, mtimeMs, ctimeMs };
}

/** Whether nothing that `stat` tells of a file has changed. */
export function isSameMark(a: FileMark, b: FileMark): boolean {
  return a.device === b.device && a.inode === b.inode && a.bytes === b.bytes && a.mtimeMs === b.mtimeMs &&
    a.ctimeMs === b.ctimeMs;
}
