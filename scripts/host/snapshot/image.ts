/**
 * An image of a database: a file at rest, read by position.
 *
 * @module
 */

import { BackupError } from "../../core/errors.ts";
import type { ImageReader } from "../../core/snapshot/page_changes.ts";
import type { Fs, OpenFile } from "../host.ts";

/** An image that is open. */
export interface OpenImage extends ImageReader, Disposable {
  /** Page size in bytes, as its header says. */
  readonly pageBytes: number;
}

/** Opens an image for reading. */
export function openImage(fs: Fs, path: string): OpenImage {
  const file: OpenFile = fs.open(path, { read: true });
  const header = new Uint8Array(18);
  file.readAt(header, 0);
  const stored = header[16]! << 8 | header[17]!;
  return {
    bytes: file.stat().bytes,
    pageBytes: stored === 1 ? 65536 : stored,
    readAt(buffer, position) {
      if (file.readAt(buffer, position) !== buffer.length) {
        throw new BackupError(`Cannot read ${path}: it is shorter than it was`, {
          kind: "disk",
          hint: "run it again; if it stays so, look at the system's log for errors of that disk",
        });
      }
    },
    [Symbol.dispose]: () => file.close(),
  };
}
