/**
 * SQLite, through Deno's own `node:sqlite`.
 *
 * Fault model: another process writes to the database all the time. Counts, schema and the copy come from one read
 * transaction, so they are one moment, and the stepped copy never starts over. POSIX drops a process's locks on a
 * file when any descriptor of it is closed, so while a connection is open nothing here opens its files by hand.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { backup, DatabaseSync } from "node:sqlite";
import type { Limits } from "../core/config/config.ts";
import { BackupError, ifPossible, reasonOf } from "../core/errors.ts";
import { parentOf } from "../core/paths.ts";
import { isSameMark, markOf } from "../core/snapshot/file_mark.ts";
import type { DatabaseChecks } from "../core/snapshot/manifest.ts";
import {
  countersOf,
  type Fingerprint,
  HEADER_BYTES,
  type HeaderKind,
  readHeader,
  sameFingerprint,
  WAL_HEADER_BYTES,
  WAL_INDEX_HEADER_BYTES,
  walIndexState,
} from "../core/snapshot/sqlite_format.ts";
import { piecesOf } from "./file_bytes.ts";
import {
  attempt,
  diskError,
  isMissing,
  kindOf,
  knownError,
  lstatIfThere,
  removeIfThere,
  systemReason,
} from "./fs.ts";
import { collectGarbage } from "./garbage.ts";
import type { Fs, Host } from "./host.ts";
import { requireFree } from "./space.ts";

/** What was read of a database in one transaction. */
export interface DatabaseFacts {
  /** Rows by table; a table that cannot be read is missing here and named in `unreadable`. */
  readonly rows: Readonly<Record<string, number>>;
  readonly unreadable: readonly string[];
  /** What is wrong with the file itself, where SQLite would not tell. */
  readonly problems?: readonly string[];
  readonly schemaSha256: string;
  readonly userVersion: number;
  readonly applicationId: number;
}

/** A consistent copy. */
export interface CopiedDatabase extends DatabaseFacts {
  readonly pageBytes: number;
  /** Size of the image in bytes. */
  readonly bytes: number;
  /** The live database's state, if it was the same before and after the copy: then the image is exactly that state. */
  readonly fingerprint: Fingerprint | null;
}

/** Pages copied between two looks at the budgets. */
const PAGES_PER_STEP = 2_000;
/** How long to wait for another process's lock, in milliseconds. */
const BUSY_MS = 10_000;
/** As much as the largest page: what SQLite could not write does not fit, either. */
const PROBE_BYTES = 65_536;
/**
 * SQLite's cache while it checks an image, in KiB. It looks every row up in every index, in the order of the rows: eight
 * times its usual cache takes a fifth of the time off, and more would not leave memory for what goes on beside it.
 */
const CHECK_CACHE_KIB = 16_000;
/** Lines of a check's report that are kept. */
const REPORT_LINES_MAX = 100;
/** SQLite's "disk I/O error" where the index of a WAL does not fit on the disk (https://sqlite.org/rescode.html). */
const SQLITE_IOERR_SHMSIZE = 4874;

/**
 * Copies a live database into `image` as of one moment. It is not put on the disk: `check` does, beside its work.
 *
 * @param path The database; its `-wal` and `-shm` are taken into account by SQLite.
 * @param image Where the copy goes; nothing may be there.
 * @throws {BackupError} (source) If it is missing, locked, not SQLite or over a budget; (disk) if `image` cannot be written.
 */
export async function copyDatabase(
  host: Host,
  path: string,
  image: string,
  limits: Limits,
): Promise<CopiedDatabase> {
  const before = readFingerprint(host.fs, path);
  const copied = copyQuiet(host, path, image) ?? await copyLive(host, path, image, limits) ??
    copyDamaged(host, path, image);
  const after = readFingerprint(host.fs, path);
  const fingerprint = before && after && sameFingerprint(before, after) ? after : null;
  return { ...copied, fingerprint };
}

/** Refuses what is not a database that can be copied, with the reason. */
export function requireDatabase(
  fs: Fs,
  path: string,
): Omit<Extract<HeaderKind, { kind: "sqlite" }>, "kind"> {
  const fail = (state: string, hint: string): never => {
    throw new BackupError(`Cannot back up database ${path}: ${state}`, { kind: "source", hint });
  };
  let header: Uint8Array;
  try {
    if (fs.stat(path).type !== "file") {
      return fail("it is not a file", "point the source at the database itself");
    }
    header = readStart(fs, path, HEADER_BYTES);
  } catch (error) {
    if (error instanceof BackupError) throw error;
    if (isMissing(error)) return fail("there is no such file", "check the path, and HAPI_HOME or DB_PATH");
    return fail(systemReason(error), "check its owner and mode, and the user that this runs as");
  }
  const kind = readHeader(header);
  if (kind.kind === "empty") {
    return fail("it is empty (0 bytes)", "an earlier snapshot may be what you want back: hapi-backup list");
  }
  if (kind.kind === "foreign") {
    return fail(
      "it does not start like an SQLite database",
      "it may be encrypted, overwritten, or another kind of file; back it up with a source of kind file to keep its bytes",
    );
  }
  return kind;
}

/**
 * Copies a WAL database that no process has open: without a `-wal` the main file is all there is. SQLite itself would
 * create `-wal` and `-shm` beside it just to read it, and fail where it may not.
 *
 * @returns undefined If it is not such a database, or came to life meanwhile.
 */
function copyQuiet(
  host: Host,
  path: string,
  image: string,
): Omit<CopiedDatabase, "fingerprint"> | undefined {
  const { fs } = host;
  if (!requireDatabase(fs, path).wal) return undefined;
  const isQuiet = () => !lstatIfThere(fs, `${path}-wal`) && !lstatIfThere(fs, `${path}-journal`);
  const before = fs.stat(path);
  if (!isQuiet()) return undefined;
  const copied = copyBytes(host, path, image);
  if (!isQuiet() || !isSameMark(fs.stat(path), before)) {
    removeIfThere(fs, image);
    return undefined;
  }
  return { ...readFacts(host, image), ...copied };
}

/** Copies what SQLite finds too damaged to be read at all: its pages are worth keeping until somebody has looked. */
function copyDamaged(host: Host, path: string, image: string): Omit<CopiedDatabase, "fingerprint"> {
  const { problems, ...copied } = copyBytes(host, path, image);
  const problem = "SQLite cannot read it: its file was copied as it is, without what its -wal holds";
  return { ...readFacts(host, image), ...copied, problems: [problem, ...problems] };
}

/** Copies a database's file as it is, filling up its last page, and says what is wrong with its length. */
function copyBytes(
  host: Host,
  path: string,
  image: string,
): Pick<CopiedDatabase, "pageBytes" | "bytes"> & { readonly problems: readonly string[] } {
  const { fs } = host;
  const header = requireDatabase(fs, path);
  let bytes = 0;
  using from = fs.open(path, { read: true });
  const total = from.stat().bytes;
  const read = (buffer: Uint8Array) => {
    try {
      return from.read(buffer);
    } catch (error) {
      throw sourceError(path, error);
    }
  };
  try {
    using to = fs.open(image, { write: true, createNew: true, mode: 0o600 });
    for (const piece of piecesOf({ read })) {
      to.write(piece);
      bytes += piece.length;
      host.report.progress(`copy ${path}`, bytes, total);
      host.checkpoint();
    }
    to.write(new Uint8Array((header.pageBytes - bytes % header.pageBytes) % header.pageBytes));
  } catch (error) {
    removeIfThere(fs, image);
    throw diskError(`write ${image}`, error);
  }
  const problems = bytes < header.bytes || bytes % header.pageBytes !== 0
    ? [`the file was cut: it has ${bytes} bytes of ${Math.max(header.bytes, bytes)}`]
    : [];
  return {
    pageBytes: header.pageBytes,
    bytes: Math.ceil(bytes / header.pageBytes) * header.pageBytes,
    problems,
  };
}

/** As {@linkcode copyDatabase}, through SQLite; undefined if it finds the database too damaged to be read. */
async function copyLive(
  host: Host,
  path: string,
  image: string,
  limits: Limits,
): Promise<Omit<CopiedDatabase, "fingerprint"> | undefined> {
  const { fs } = host;
  const { pageBytes } = requireDatabase(fs, path);
  const requireBudget = budgetOf(fs, path, parentOf(image), limits);
  const db = openForReading(path);
  try {
    let facts: DatabaseFacts;
    try {
      db.exec("BEGIN");
      facts = factsOf(db);
    } catch (error) {
      throw sourceError(path, error);
    }
    // SQLite would make it with the mode that the umask leaves.
    const fresh = { write: true, create: true, truncate: true, mode: 0o600 };
    attempt(`write ${image}`, () => fs.open(image, fresh).close());
    let stopped: unknown;
    try {
      await backup(db, image, {
        rate: PAGES_PER_STEP,
        progress: ({ totalPages, remainingPages }: { totalPages: number; remainingPages: number }) => {
          try {
            host.checkpoint();
            host.report.progress(
              `copy ${path}`,
              (totalPages - remainingPages) * pageBytes,
              totalPages * pageBytes,
            );
            requireBudget();
          } catch (error) {
            stopped = error;
            throw error;
          }
        },
      });
    } catch (error) {
      if (stopped !== undefined) throw stopped;
      if (!isDamage(error)) throw copyError(fs, path, image, error);
      removeIfThere(fs, image);
      return undefined;
    }
    return { ...facts, pageBytes, bytes: fs.stat(image).bytes };
  } catch (error) {
    removeIfThere(fs, image);
    throw error;
  } finally {
    db.close();
  }
}

/** Begins to count what a copy takes. @returns What throws once it is over one of the limits. */
function budgetOf(fs: Fs, path: string, imageFolder: string, limits: Limits): () => void {
  const started = performance.now();
  const walBytes = () => lstatIfThere(fs, `${path}-wal`)?.bytes ?? 0;
  const walBytesAtStart = walBytes();
  const overBudget = (state: string, hint: string) =>
    new BackupError(`Cannot back up database ${path}: ${state}`, { kind: "source", hint });
  return () => {
    const seconds = (performance.now() - started) / 1000;
    if (seconds > limits.snapshotSeconds) {
      throw overBudget(
        `the copy took longer than ${limits.snapshotSeconds} s`,
        "raise limits.snapshotSeconds, or find out what slows the disk",
      );
    }
    const growth = walBytes() - walBytesAtStart;
    if (growth > limits.walGrowthBytes) {
      throw overBudget(
        `its WAL grew by ${growth} bytes meanwhile, more than ${limits.walGrowthBytes}`,
        "raise limits.walGrowthBytes, or take the snapshot when the hub is less busy",
      );
    }
    requireFree(fs, { folder: imageFolder, bytes: limits.freeBytesMin });
  };
}

function openForReading(path: string, busyMs = BUSY_MS): DatabaseSync {
  try {
    const db = new DatabaseSync(path, { readOnly: true, allowExtension: false });
    // Deno 2.9.6 passes over the option `timeout`: it waits for 5 s whatever that says.
    db.exec(`PRAGMA busy_timeout = ${busyMs}`);
    return db;
  } catch (error) {
    throw sourceError(path, error);
  }
}

function sourceError(path: string, error: unknown): BackupError {
  const reason = reasonOf(error);
  const [state, hint] = /locked|busy/i.test(reason)
    ? [
      `another process held its lock for ${BUSY_MS / 1000} s`,
      "find it with `fuser` or `lsof` on that file, end it, and run this again",
    ]
    : /not a database|encrypted/i.test(reason)
    ? [
      "it is not an SQLite database, or it is encrypted",
      "back it up with a source of kind file to keep its bytes",
    ]
    : /readonly|hot journal|unable to open/i.test(reason)
    ? [reason, "start the program it belongs to once, so that it recovers its journal, then run this again"]
    : /os error 5\b/.test(reason)
    ? [reason, "look at the system's log for errors of that disk"]
    : [reason, "open it with sqlite3 to see more"];
  return new BackupError(`Cannot back up database ${path}: ${state}`, { kind: "source", hint, cause: error });
}

/** Whether SQLite says that the database itself is damaged. */
function isDamage(error: unknown): boolean {
  return /malformed|corrupt/i.test(reasonOf(error));
}

/** SQLite does not say on which of the two disks an I/O error was. */
function copyError(fs: Fs, path: string, image: string, error: unknown): BackupError {
  const reason = reasonOf(error);
  const unread = /disk I\/O/i.test(reason) ? whyUnreadable(fs, path) : undefined;
  if (unread !== undefined) return sourceError(path, unread);
  if (/full|disk I\/O|readonly|unable to open/i.test(reason)) {
    const full = /full/i.test(reason) ? new Error("No space left on device") : undefined;
    return diskError(`write ${image}`, full ?? whyUnwritable(fs, image) ?? error);
  }
  return sourceError(path, error);
}

/** What the system says to writing more of an image, such as that a quota or a limit is reached. It is given up. */
function whyUnwritable(fs: Fs, image: string): unknown {
  try {
    using opened = fs.open(image, { write: true });
    opened.writeAt(new Uint8Array(PROBE_BYTES), opened.stat().bytes);
    return undefined;
  } catch (error) {
    return error;
  }
}

/** What the system says to reading all of a database. Drops our locks on it: only for one that is given up. */
function whyUnreadable(fs: Fs, path: string): unknown {
  try {
    for (const file of [path, `${path}-wal`]) {
      if (!lstatIfThere(fs, file)) continue;
      using opened = fs.open(file, { read: true });
      for (const _ of piecesOf(opened)) { /* Whether it can be read is all. */ }
    }
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Reads counts, schema and versions of an image that only we use. Leaves nothing beside it. */
export function readFacts(host: Pick<Host, "fs">, image: string): DatabaseFacts {
  return withImage(host.fs, image, (db) => {
    db.exec("BEGIN");
    return factsOf(db);
  });
}

/** Counts the rows of a live database, or undefined if it cannot be read now. Never fails and never waits long. */
export function readLiveRows(fs: Fs, path: string): Readonly<Record<string, number>> | undefined {
  try {
    // Just to read a WAL database that nobody has open, SQLite would make those beside it.
    const isThere = (end: string) => lstatIfThere(fs, path + end) !== undefined;
    if (requireDatabase(fs, path).wal && !["-wal", "-shm"].every(isThere)) return undefined;
    const db = openForReading(path, 1_000);
    try {
      db.exec("BEGIN");
      return factsOf(db).rows;
    } finally {
      db.close();
    }
  } catch {
    return undefined;
  }
}

/**
 * Asks SQLite whether an image is sound. Slow: reads all of it, and blocks (see {@linkcode Host.blocking}).
 *
 * @param what What a person watching is told.
 */
export function checkImage(
  { fs, report, blocking }: Pick<Host, "fs" | "report" | "blocking">,
  image: string,
  what: string,
): DatabaseChecks {
  const { bytes } = fs.stat(image);
  report.progress(what, 0, bytes);
  // What was done before would count beside that cache.
  collectGarbage();
  const checks = blocking(() =>
    withImage(fs, image, (db) => {
      // Of a schema that cannot be read the checks are to tell.
      ifPossible(() => db.exec(`PRAGMA cache_size = -${CHECK_CACHE_KIB}`));
      const lines = (sql: string, text: (row: Record<string, unknown>) => string) => {
        try {
          const found: string[] = [];
          for (const row of db.prepare(sql).iterate()) {
            if (found.push(text(row as Record<string, unknown>).slice(0, 500)) >= REPORT_LINES_MAX) break;
          }
          return found;
        } catch (error) {
          return [reasonOf(error)];
        }
      };
      return {
        integrity: lines(`PRAGMA integrity_check(${REPORT_LINES_MAX})`, (row) => String(row.integrity_check)),
        foreignKeys: lines(
          "PRAGMA foreign_key_check",
          (row) => `${row.table} row ${row.rowid} refers to a missing row of ${row.parent}`,
        ),
      };
    })
  );
  report.progress(what, bytes, bytes);
  return checks;
}

function withImage<T>(fs: Fs, image: string, use: (db: DatabaseSync) => T): T {
  using opened = openDatabase(fs, image);
  return use(opened.db);
}

/**
 * Opens an image that no other process uses, for reading. Disposing of it leaves nothing beside the image.
 *
 * @throws {BackupError} (disk) If there is no room for what SQLite needs beside it.
 */
export function openDatabase(fs: Fs, image: string): { readonly db: DatabaseSync } & Disposable {
  const db = openForReading(image);
  const opened = {
    db,
    [Symbol.dispose]() {
      db.close();
      // A reader of a WAL database makes these two beside it; the image alone is complete.
      removeIfThere(fs, `${image}-wal`);
      removeIfThere(fs, `${image}-shm`);
    },
  };
  try {
    // Makes them now: later, that they do not fit would be taken for an image that cannot be read.
    db.prepare("PRAGMA schema_version").get();
  } catch (error) {
    if (!(error instanceof Error && "errcode" in error && error.errcode === SQLITE_IOERR_SHMSIZE)) {
      return opened;
    }
    opened[Symbol.dispose]();
    throw diskError(`write ${image}-shm`, new Error("No space left on device", { cause: error }));
  }
  return opened;
}

function factsOf(db: DatabaseSync): DatabaseFacts {
  const pragma = (name: string) =>
    orIfDamaged(0, () => Number((db.prepare(`PRAGMA ${name}`).get() as Record<string, number>)[name]));
  const rows: Record<string, number> = Object.create(null);
  const unreadable: string[] = [];
  // The pages of a schema that cannot be read are copied all the same: other tables may be recovered from them.
  const schema = orIfDamaged(
    undefined,
    () =>
      db.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name, tbl_name").all(),
  );
  if (!schema) unreadable.push("sqlite_schema");
  for (const { type, name, sql } of (schema ?? []) as { type: string; name: string; sql: string | null }[]) {
    if (type !== "table" || name.startsWith("sqlite_") || /^\s*CREATE\s+VIRTUAL/i.test(sql ?? "")) continue;
    try {
      rows[name] = (db.prepare(`SELECT count(*) AS n FROM ${quoted(name)}`).get() as { n: number }).n;
    } catch {
      unreadable.push(name);
    }
  }
  return {
    rows: { ...rows },
    unreadable,
    schemaSha256: createHash("sha256").update(schema?.length ? JSON.stringify(schema) : "").digest("hex"),
    userVersion: pragma("user_version"),
    applicationId: pragma("application_id"),
  };
}

/** What `read` finds, or `otherwise` if the database is too damaged for it. */
function orIfDamaged<T, U>(otherwise: U, read: () => T): T | U {
  try {
    return read();
  } catch (error) {
    if (isDamage(error)) return otherwise;
    throw error;
  }
}

/** A name as SQL takes it. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/**
 * The live database's state without opening it in SQLite, or undefined while it cannot be told.
 *
 * @throws {BackupError} (source) If a file of it may not be read.
 */
export function readFingerprint(fs: Fs, path: string): Fingerprint | undefined {
  requireNoPipes(fs, path);
  try {
    const main = markOf(fs.stat(path));
    const counters = countersOf(readStart(fs, path, HEADER_BYTES));
    const walStat = lstatIfThere(fs, `${path}-wal`);
    if (!walStat) return lstatIfThere(fs, `${path}-journal`) ? undefined : { main, counters, wal: null };
    const header = readStart(fs, `${path}-wal`, WAL_HEADER_BYTES).toHex();
    // An empty WAL holds nothing, whatever the index says.
    const index = walStat.bytes === 0
      ? ""
      : walIndexState(readStart(fs, `${path}-shm`, 2 * WAL_INDEX_HEADER_BYTES));
    return index === undefined ? undefined : { main, counters, wal: { ...markOf(walStat), header, index } };
  } catch (error) {
    if (isMissing(error)) return undefined;
    if (!knownError(error)) throw error;
    throw new BackupError(`Cannot back up database ${path}: ${reasonOf(error)}`, {
      kind: "source",
      hint: "check the owner and mode of its -wal and -shm, and the user that this runs as",
      cause: error,
    });
  }
}

/** SQLite would wait without end for what comes out of a pipe. */
function requireNoPipes(fs: Fs, path: string): void {
  for (const end of ["-wal", "-shm", "-journal"]) {
    const stat = ifPossible(() => fs.stat(path + end));
    if (stat?.type !== "other") continue;
    throw new BackupError(`Cannot back up database ${path}: its ${end} is ${kindOf(stat)}`, {
      kind: "source",
      hint: "move that aside while nothing has the database open",
    });
  }
}

function readStart(fs: Fs, path: string, bytes: number): Uint8Array {
  using file = fs.open(path, { read: true });
  const buffer = new Uint8Array(bytes);
  return buffer.subarray(0, file.readAt(buffer, 0));
}
