/**
 * Progress in words.
 *
 * @module
 */

import { formatBytes, formatDuration } from "./format.ts";

/** How far something is. */
export interface Progress {
  readonly what: string;
  /** Bytes; 0 where it cannot be told how far it is. */
  readonly done: number;
  readonly total: number;
  /** Seconds since it began. */
  readonly seconds: number;
}

/** `copy hapi.db: 42 %, 115 MB of 275 MB, 180 MB/s, 1 s left`; or, where that is not known, `check hapi.db: 275 MB, 3 s`. */
export function progressText({ what, done, total, seconds }: Progress): string {
  if (done === 0) return `${what}: ${total > 0 ? `${formatBytes(total)}, ` : ""}${formatDuration(seconds)}`;
  const rate = done / Math.max(seconds, 0.001);
  const left = formatDuration(Math.ceil((total - done) / rate));
  const percent = Math.floor(100 * done / total);
  return `${what}: ${percent} %, ${formatBytes(done)} of ${formatBytes(total)}, ${
    formatBytes(rate)
  }/s, ${left} left`;
}
