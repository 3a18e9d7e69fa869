/**
 * Gets one session back out of a snapshot: into the hub's database, or into a JSON file.
 *
 * Invariants: the hub is stopped; its database changes in one transaction or not at all, after a snapshot was taken of
 * it; no row is ever removed; a row that differs is left unless the operator says otherwise. What would fail is found out
 * by a rehearsal, which is rolled back, before that snapshot is taken.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { BackupError, reasonOf } from "./core/errors.ts";
import { cleanText } from "./core/format.ts";
import type { SnapshotId } from "./core/names.ts";
import { pathOfPlace } from "./core/place.ts";
import { exportLines } from "./core/sessions/session_export.ts";
import type { Differing, SessionChanges } from "./core/sessions/session_rows.ts";
import { differences } from "./core/sessions/session_schema.ts";
import { attempt, diskError, exists, placeWhole } from "./host/fs.ts";
import type { Fs, Host } from "./host/host.ts";
import { refuseWhileOpen } from "./host/open_files.ts";
import {
  openSetOf,
  readSessions,
  rebuildSessions,
  type SessionDatabase,
} from "./host/restore/chosen_snapshot.ts";
import { openManifest, openSeal } from "./host/restore/open_snapshot.ts";
import { readSchema } from "./host/sessions/schema.ts";
import type { SessionJob, SessionReport, SessionRestored } from "./host/sessions/session_jobs.ts";
import { findSession } from "./host/sessions/session_list.ts";
import { brokenReferences, putSession, type SessionRows, sessionRows } from "./host/sessions/session_rows.ts";
import { openDatabase } from "./host/sqlite.ts";
import { serveStep } from "./host/steps/step.ts";

/** How much of what differs in the schemas is told, in characters. */
const WHY_LENGTH_MAX = 1_000;
/** How long to wait for another process's lock, in milliseconds. */
const BUSY_MS = 2_000;

/**
 * Puts a session's rows into the hub's database.
 *
 * @param live The database's path. No process may have it open.
 * @param takeSnapshot Takes a snapshot of it.
 * @throws {BackupError} (source) If a process has it open, or its schema differs; (usage) if rows differ and `differing`
 * says to refuse; (disk). It is as it was then.
 */
export async function restoreSession(
  host: Host,
  rows: SessionRows,
  live: string,
  differing: Differing,
  takeSnapshot: () => Promise<SnapshotId>,
): Promise<SessionRestored> {
  if (!exists(host.fs, live)) {
    throw new BackupError(`Cannot restore a session into ${live}: there is no such file`, {
      kind: "source",
      hint: "get the whole database back with `hapi-backup restore --in-place`",
    });
  }
  await refuseWhileOpen(host, [live]);
  const rehearsed = await inTransaction(live, "ROLLBACK", (db) => put(db, rows, live, differing));
  const isNothingNew = [...rehearsed.parts, ...rehearsed.needed].every(({ added, replaced }) =>
    added + replaced === 0
  );
  if (isNothingNew) return { changes: rehearsed, before: undefined };

  const before = await takeSnapshot();
  host.checkpoint();
  const changes = await inTransaction(live, "COMMIT", async (db) => {
    const changes = put(db, rows, live, differing);
    // It may have been started meanwhile.
    await refuseWhileOpen(host, [live]);
    return changes;
  });
  return { changes, before };
}

function put(db: DatabaseSync, rows: SessionRows, live: string, differing: Differing): SessionChanges {
  const why = differences(rows.schema, readSchema(db));
  if (why.length > 0) {
    throw new BackupError(
      `Cannot restore the session into ${live}: its schema is not the snapshot's: ${
        cleanText(why.join("; "), WHY_LENGTH_MAX)
      }`,
      {
        kind: "source",
        hint:
          "choose a snapshot of this version of the hub with --snapshot, or take the session as JSON with " +
          "--export FILE; `hapi-backup restore --to` gives the whole database, which an older hub can serve",
      },
    );
  }
  const brokenBefore = brokenReferences(db);
  const changes = putSession(db, rows, differing);
  const conflicts = changes.parts.filter(({ kept }) => kept > 0);
  if (differing === "refuse" && conflicts.length > 0) throw refused(live, conflicts);
  // Read back: a trigger, for one, could have had its own ideas.
  const again = putSession(db, rows, "keep");
  const isAsMeant = JSON.stringify(conflicts.map(({ kept }) => kept)) ===
      JSON.stringify(again.parts.map(({ kept }) => kept).filter((kept) => kept > 0)) &&
    [...again.parts, ...again.needed].every(({ added }) => added === 0);
  if (!isAsMeant || brokenReferences(db) > brokenBefore) {
    throw new BackupError(
      `Cannot restore the session into ${live}: ${
        isAsMeant ? "rows would refer to what is missing" : "what was written does not read back the same"
      }`,
      { kind: "integrity", hint: "nothing was changed; take the session as JSON with --export FILE" },
    );
  }
  return changes;
}

function refused(live: string, conflicts: SessionChanges["parts"]): BackupError {
  const rows = conflicts.map(({ table, kept, differing }) =>
    `${kept} of ${table} (${cleanText(differing.join(", "), 200)}${kept > differing.length ? ", …" : ""})`
  );
  return new BackupError(
    `Cannot restore the session into ${live}: rows that are there differ from the snapshot's: ${
      rows.join("; ")
    }`,
    {
      kind: "usage",
      hint:
        "--keep leaves them and adds only what is missing; --replace makes them what they were in the snapshot",
    },
  );
}

async function inTransaction<T>(
  path: string,
  end: "COMMIT" | "ROLLBACK",
  work: (db: DatabaseSync) => T | Promise<T>,
): Promise<T> {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path, { allowExtension: false });
    // Rows may come before those that they refer to.
    db.exec(`PRAGMA busy_timeout = ${BUSY_MS}`);
    db.exec("BEGIN IMMEDIATE; PRAGMA defer_foreign_keys = ON");
    const result = await work(db);
    db.exec(end);
    return result;
  } catch (error) {
    throw sqliteError(path, error);
  } finally {
    // What is not committed is rolled back by this.
    db?.close();
  }
}

function sqliteError(path: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const reason = reasonOf(error);
  const action = `restore the session into ${path}`;
  if (/disk I\/O|is full|readonly|unable to open/i.test(reason)) return diskError(action, error);
  const hint = /UNIQUE constraint/i.test(reason)
    ? "another row there holds what must be unique; take the session as JSON with --export FILE"
    : /locked|busy/i.test(reason)
    ? "another process uses the database: stop it, then run this again"
    : "nothing was changed; take the session as JSON with --export FILE";
  return new BackupError(`Cannot ${action}: ${reason}`, { kind: "source", hint, cause: error });
}

/** Writes a session as JSON into `file`, which must not be there, or line by line to `print`. */
export function exportSession(
  fs: Fs,
  rows: SessionRows,
  { manifest, saved }: Pick<SessionDatabase, "manifest" | "saved">,
  session: string,
  to: { readonly file: string } | { readonly print: (line: string) => void },
): void {
  const header = {
    hub: manifest.hub,
    set: manifest.set,
    snapshot: manifest.id,
    database: saved.place,
    userVersion: saved.userVersion,
    session,
  };
  const lines = exportLines(header, [
    { name: "tables", tables: rows.parts.map((table) => [table, rows.rows("part", table)] as const) },
    { name: "needed", tables: rows.needed.map((table) => [table, rows.rows("needed", table)] as const) },
  ]);
  if ("print" in to) {
    for (const line of lines) to.print(line);
  } else writeLines(fs, to.file, lines);
}

function writeLines(fs: Fs, path: string, lines: Iterable<string>): void {
  if (exists(fs, path)) {
    throw new BackupError(`Cannot export to ${path}: it is there already`, {
      kind: "usage",
      hint: "name a new file; nothing is written over",
    });
  }
  const partial = `${path}.partial`;
  const encoder = new TextEncoder();
  attempt(`export to ${path}`, () =>
    placeWhole(fs, partial, path, () => {
      using file = fs.open(partial, { write: true, createNew: true, mode: 0o600 });
      for (const line of lines) file.write(encoder.encode(`${line}\n`));
      file.sync();
    }));
}

serveStep<SessionJob>(import.meta, async (job, { host, print, ask }): Promise<SessionReport> => {
  const { config, target } = job;
  await using set = await openSetOf(host, job);
  const snapshot = await set.choose(job.which);
  const manifest = await openManifest(set.opening, openSeal(set.opening, snapshot));
  const database = await rebuildSessions(set.opening, manifest, job.store.scratch);
  using image = openDatabase(host.fs, database.image);
  const { session, rows } = readSessions(host, database, () => {
    const schema = readSchema(image.db);
    const session = findSession(image.db, schema, job.session, snapshot);
    return { session, rows: sessionRows(image.db, schema, session) };
  });
  const found = {
    session,
    snapshot,
    rows: Object.fromEntries(rows.parts.map((table) => [table.name, rows.count("part", table)])),
    folders: foldersOf(database, session),
  };
  if (target.kind !== "database") {
    const to = target.kind === "file" ? { file: target.path } : { print };
    exportSession(host.fs, rows, database, session, to);
    return { ...found, target: target.kind === "file" ? target.path : "standard output" };
  }
  const { place } = database.saved;
  const path = pathOfPlace(place, config.home);
  if (!target.allowed.includes(path)) {
    throw new BackupError(`Cannot restore the session into ${path}: the configuration does not name it`, {
      kind: "config",
      hint: `the snapshot's database came from there; set ${job.set} saves ${
        target.allowed.join(", ") || "none"
      }`,
    });
  }
  const live = exists(host.fs, path) ? host.fs.realPath(path) : path;
  const restored = await restoreSession(
    host,
    rows,
    live,
    target.differing,
    () => ask() as Promise<SnapshotId>,
  );
  return { ...found, target: path, database: { ...restored, place } };
});

/** The folders that a session's own files lie in. */
function foldersOf({ manifest }: SessionDatabase, session: string): string[] {
  const mark = `/${session}/`;
  const within = manifest.files.filter(({ place }) => place.includes(mark));
  return [...new Set(within.map(({ place }) => place.slice(0, place.indexOf(mark) + mark.length - 1)))];
}
