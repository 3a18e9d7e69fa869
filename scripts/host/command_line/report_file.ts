/**
 * The file that a report is written to: replaced whole, and only if it holds a report.
 *
 * @module
 */

import { BackupError } from "../../core/errors.ts";
import { REPORT_MARK } from "../../core/report/report_page.ts";
import { kindOf, lstatIfThere, writeFileDurably } from "../fs.ts";
import type { Fs } from "../host.ts";

/** Bytes at the start of a file in which a report's mark stands. */
const START_BYTES = 1024;

/**
 * Writes a report. A new file is for its owner only; one that is replaced keeps its mode.
 *
 * @throws {BackupError} (usage) If there is something else at `path`, even a link to a report; (disk).
 */
export function writeReport(fs: Fs, path: string, page: string): void {
  const before = lstatIfThere(fs, path);
  if (before) {
    const state = before.type !== "file"
      ? `there is ${kindOf(before)}`
      : isReport(fs, path)
      ? undefined
      : "the file there is no report";
    if (state !== undefined) {
      throw new BackupError(`Cannot write the report to ${path}: ${state}`, {
        kind: "usage",
        hint: "name a new file, or one that an earlier report wrote",
      });
    }
  }
  writeFileDurably(fs, path, page, before?.mode ?? 0o600);
}

function isReport(fs: Fs, path: string): boolean {
  using file = fs.open(path, { read: true });
  const start = new Uint8Array(START_BYTES);
  const count = file.readAt(start, 0);
  return new TextDecoder().decode(start.subarray(0, count)).includes(REPORT_MARK);
}
