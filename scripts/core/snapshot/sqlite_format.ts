/**
 * The few bytes of SQLite's files that tell, without opening a database, what it is and whether it moved on.
 *
 * Source: https://sqlite.org/fileformat2.html (sections 1.3 and 4.1) and https://sqlite.org/walformat.html (section 2.2).
 *
 * @module
 */

import type { FileMark } from "./file_mark.ts";

/** Length of the database header in bytes. */
export const HEADER_BYTES = 100;
/** Length of the WAL's header in bytes. */
export const WAL_HEADER_BYTES = 32;
/** Length of one copy of the wal-index header, as far as it is looked at, in bytes. */
export const WAL_INDEX_HEADER_BYTES = 48;

/** What is appended to a database's path to name the files that SQLite may keep for it, itself first. */
export const DATABASE_FILES = ["", "-wal", "-shm", "-journal"] as const;

/** What a database file is, by its first bytes. */
export type HeaderKind =
  | {
    readonly kind: "sqlite";
    readonly pageBytes: number;
    readonly wal: boolean;
    /** The size that the file ought to have, in bytes; 0 where the header does not tell. */
    readonly bytes: number;
  }
  | { readonly kind: "empty" }
  /** High-entropy first bytes: an encrypted database (SQLCipher and others) or something else altogether. */
  | { readonly kind: "foreign" };

/** Reads a database's header. */
export function readHeader(header: Uint8Array): HeaderKind {
  if (header.length === 0) return { kind: "empty" };
  const magic = "SQLite format 3\0";
  for (let index = 0; index < magic.length; index++) {
    if (header[index] !== magic.charCodeAt(index)) return { kind: "foreign" };
  }
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (header.length < HEADER_BYTES) return { kind: "foreign" };
  const stored = view.getUint16(16);
  const pageBytes = stored === 1 ? 65536 : stored;
  if (pageBytes < 512 || (pageBytes & (pageBytes - 1)) !== 0) return { kind: "foreign" };
  // Programs older than SQLite 3.7 do not keep the page count, and leave the version-valid-for number behind.
  const isCounted = view.getUint32(24) === view.getUint32(92);
  return {
    kind: "sqlite",
    pageBytes,
    wal: header[18] === 2 && header[19] === 2,
    bytes: isCounted ? view.getUint32(28) * pageBytes : 0,
  };
}

/**
 * The state of a live database: equal fingerprints mean that no transaction was committed in between.
 *
 * The main file changes with its header's change counter (rollback journal) or its times (checkpoints); a commit to
 * the WAL changes the frame count and the running checksum in the wal-index, and a restarted WAL has new salts.
 */
export interface Fingerprint {
  readonly main: FileMark;
  /** Change counter and version-valid-for of the header. */
  readonly counters: string;
  readonly wal: (FileMark & { readonly header: string; readonly index: string }) | null;
}

/** The change counter (bytes 24-27) and the version-valid-for number (bytes 92-95) of a header, in hex. */
export function countersOf(header: Uint8Array): string {
  return header.subarray(24, 28).toHex() + header.subarray(92, 96).toHex();
}

/**
 * The part of the wal-index header that changes with every commit, in hex; undefined if the two copies differ (a
 * commit is under way) or it was never initialised.
 *
 * @param bytes The first 96 bytes of the `-shm` file: the header twice.
 */
export function walIndexState(bytes: Uint8Array): string | undefined {
  if (bytes.length < 2 * WAL_INDEX_HEADER_BYTES) return undefined;
  const first = bytes.subarray(0, WAL_INDEX_HEADER_BYTES).toHex();
  if (first !== bytes.subarray(WAL_INDEX_HEADER_BYTES, 2 * WAL_INDEX_HEADER_BYTES).toHex()) return undefined;
  if (bytes[12] !== 1) return undefined;
  return first;
}

/** Whether nothing was written between two fingerprints of one database. */
export function sameFingerprint(a: Fingerprint, b: Fingerprint): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
