/**
 * The ledger's database: its tables, its version, and statements whose errors a person can act on.
 *
 * @module
 */

import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { makeFolderDurably } from "../fs.ts";
import type { Fs } from "../host.ts";

/** The version of the ledger's tables that this program reads and writes. */
const LEDGER_VERSION = 1;
/** How long to wait for another run's transaction, in milliseconds. */
const BUSY_MS_MAX = 30_000;

const TABLES = `
  CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
  CREATE TABLE sets (
    key INTEGER PRIMARY KEY, hub TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (hub, name)
  ) STRICT;
  CREATE TABLE hubs (name TEXT PRIMARY KEY, flood_accepted_ms INTEGER NOT NULL) STRICT;
  CREATE TABLE snapshots (
    key INTEGER PRIMARY KEY,
    set_key INTEGER NOT NULL REFERENCES sets,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    first_seen_ms INTEGER,
    stamp TEXT,            -- size, times and inode of the seal's file when it was last read
    checksum TEXT,
    kind TEXT,
    needs TEXT NOT NULL,   -- ids, separated by commas
    previous_id TEXT,
    previous_sha256 TEXT,
    suspicions TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    signer TEXT,
    seal_problem TEXT,
    read_ms INTEGER,
    damage TEXT,
    pin TEXT,
    removed_ms INTEGER,
    removed_why TEXT,
    UNIQUE (set_key, id)
  ) STRICT;
  CREATE INDEX snapshots_by_reading ON snapshots (state, read_ms);
  CREATE TABLE parts (
    snapshot_key INTEGER NOT NULL REFERENCES snapshots,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    read_ms INTEGER,
    damage TEXT,
    PRIMARY KEY (snapshot_key, name)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE runs (
    key INTEGER PRIMARY KEY, verb TEXT NOT NULL, ended_ms INTEGER NOT NULL, outcome TEXT NOT NULL
  ) STRICT;
`;

/** The open database. Statements are prepared once. */
export class LedgerDatabase implements Disposable {
  readonly #db: DatabaseSync;
  readonly #path: string;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * Opens it in a folder, making both if they are missing.
   *
   * @throws {BackupError} (disk) If it cannot be opened or is damaged; (usage) If a newer program wrote it.
   */
  static open(fs: Fs, stateFolder: string): LedgerDatabase {
    const path = `${stateFolder}/ledger.db`;
    return orExplain(path, () => {
      makeFolderDurably(fs, stateFolder, 0o700);
      const db = new DatabaseSync(path);
      try {
        return new LedgerDatabase(db, path);
      } catch (error) {
        db.close();
        throw error;
      }
    });
  }

  private constructor(db: DatabaseSync, path: string) {
    this.#db = db;
    this.#path = path;
    db.exec(`PRAGMA busy_timeout=${BUSY_MS_MAX}; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL`);
    const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
    if (version > LEDGER_VERSION) {
      throw new BackupError(
        `Cannot use the ledger ${path}: its version is ${version}, and this program knows ${LEDGER_VERSION}`,
        { kind: "usage", hint: "use the newer hapi-backup that wrote it" },
      );
    }
    this.transaction(() => {
      // Looked at again inside: another run may have made the tables meanwhile.
      const { user_version: now } = db.prepare("PRAGMA user_version").get() as { user_version: number };
      if (now === 0) db.exec(`${TABLES}; PRAGMA user_version=${LEDGER_VERSION}`);
    });
  }

  [Symbol.dispose](): void {
    this.#statements.clear();
    this.#db.close();
  }

  /** Does all of `work` or, if it throws, none of it. */
  transaction<Result>(work: () => Result): Result {
    orExplain(this.#path, () => this.#db.exec("BEGIN IMMEDIATE"));
    try {
      const result = work();
      orExplain(this.#path, () => this.#db.exec("COMMIT"));
      return result;
    } catch (error) {
      try {
        this.#db.exec("ROLLBACK");
      } catch { /* SQLite has rolled back by itself, as on a full disk. */ }
      throw error;
    }
  }

  /** From now on a change does not wait for the disk. */
  relax(): void {
    this.#db.exec("PRAGMA synchronous=NORMAL");
  }

  /** Changes something. */
  run(sql: string, ...values: SQLInputValue[]): void {
    orExplain(this.#path, () => this.#prepare(sql).run(...values));
  }

  /** The first row of an answer. */
  get<Row>(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return orExplain(this.#path, () => this.#prepare(sql).get(...values)) as Row | undefined;
  }

  /** Every row, one after another, so that a long answer is never there as a whole. */
  each<Row>(sql: string, take: (row: Row) => void, ...values: SQLInputValue[]): void {
    orExplain(this.#path, () => {
      for (const row of this.#prepare(sql).iterate(...values)) take(row as Row);
    });
  }

  /** All rows of a short answer. */
  all<Row>(sql: string, ...values: SQLInputValue[]): Row[] {
    return orExplain(this.#path, () => this.#prepare(sql).all(...values)) as Row[];
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, statement = this.#db.prepare(sql));
    return statement;
  }
}

function orExplain<Result>(path: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (error instanceof BackupError) throw error;
    throw new BackupError(`Cannot use the ledger ${path}: ${reasonOf(error).replace(`: ${path}`, "")}`, {
      kind: "disk",
      hint:
        "see that its disk is neither full nor read-only, and the owner and mode of that folder; only if it is damaged " +
        "put back a copy: without it every snapshot counts as seen for the first time now",
      cause: error,
    });
  }
}
