/**
 * The sessions in a database.
 *
 * @module
 */

import type { DatabaseSync } from "node:sqlite";
import { BackupError } from "../../core/errors.ts";
import { cleanText, localTime } from "../../core/format.ts";
import type { SnapshotId } from "../../core/names.ts";
import { type Schema, SESSIONS, type Table } from "../../core/sessions/session_schema.ts";
import { type SessionSummary, titleOf } from "../../core/sessions/session_summary.ts";
import { quoted } from "../sqlite.ts";

/** Lists the sessions of a database, newest first. */
export function listSessions(db: DatabaseSync, schema: Schema): SessionSummary[] {
  const columns = requireSessions(schema).columns.map(({ name }) => name);
  const pick = (name: string) => columns.includes(name) ? quoted(name) : "NULL";
  const toSession = schema.foreignKeys.find(({ table, parent }) =>
    table === "messages" && parent === SESSIONS
  );
  const messages = toSession
    ? `(SELECT count(*) FROM messages WHERE messages.${quoted(toSession.columns[0]!)} = sessions.id)`
    : "0";
  const rows = db.prepare(
    `SELECT CAST(id AS TEXT) AS id, ${pick("metadata")} AS metadata, ${pick("tag")} AS tag,
       ${pick("created_at")} AS created, ${pick("updated_at")} AS updated, ${messages} AS messages
     FROM sessions ORDER BY updated DESC, id`,
  ).all();
  const time = (value: unknown) => typeof value === "number" ? value : null;
  return rows.map(({ id, metadata, tag, created, updated, messages }) => ({
    id: String(id),
    title: titleOf({ id: String(id), metadata, tag }),
    createdAt: time(created!),
    updatedAt: time(updated!),
    messages: Number(messages),
  }));
}

/**
 * The session that an id, or the start of one, means in a snapshot.
 *
 * @throws {BackupError} (usage) If there is none, or several.
 */
export function findSession(db: DatabaseSync, schema: Schema, start: string, snapshot: SnapshotId): string {
  requireSessions(schema);
  const found = (db.prepare(
    "SELECT CAST(id AS TEXT) AS id FROM sessions WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1 ORDER BY id = ?1 DESC, id LIMIT 3",
  ).all(start) as { id: string }[]).map(({ id }) => id);
  if (start !== "" && (found.length === 1 || found[0] === start)) return found[0]!;
  throw new BackupError(
    found.length === 0
      ? `Cannot find session ${cleanText(start)}: snapshot ${snapshot}, ${
        localTime(snapshot)
      }, has none whose id starts so`
      : `Cannot tell which session ${cleanText(start)} is: ${
        found.slice(0, 2).map((id) => cleanText(id)).join(" and ")
      } start so`,
    { kind: "usage", hint: "`hapi-backup session list` shows them; for an older snapshot give --snapshot" },
  );
}

function requireSessions(schema: Schema): Table {
  const sessions = schema.tables.get(SESSIONS);
  if (sessions?.key.join() === "id") return sessions;
  throw new BackupError("Cannot find sessions: the database has no table sessions with the primary key id", {
    kind: "source",
    hint:
      "this hub keeps its sessions in another way: restore the whole snapshot with `hapi-backup restore --to`",
  });
}
