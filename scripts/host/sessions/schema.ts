/**
 * The schema of a database, read from the database.
 *
 * @module
 */

import type { DatabaseSync } from "node:sqlite";
import type { Reference, Schema, Table } from "../../core/sessions/session_schema.ts";

/** Reads a database's tables and foreign keys. */
export function readSchema(db: DatabaseSync): Schema {
  const pragma = (name: string) => db.prepare(`PRAGMA ${name}`).get()![name];
  // In the order in which they were made: parents come before their children then, as a rule.
  const named = db.prepare(
    `SELECT s.name, l.wr FROM sqlite_schema AS s JOIN pragma_table_list AS l ON l.name = s.name
     WHERE l.schema = 'main' AND l.type = 'table' AND s.type = 'table' AND s.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
     ORDER BY s.rowid`,
  ).all() as { name: string; wr: number }[];
  const tables = new Map(named.map(({ name, wr }) => [name, readTable(db, name, wr === 0)]));
  const foreignKeys = named.flatMap(({ name }) => foreignKeysOf(db, tables, name));
  return {
    userVersion: Number(pragma("user_version")),
    encoding: String(pragma("encoding")),
    tables,
    foreignKeys,
  };
}

function readTable(db: DatabaseSync, name: string, hasRowid: boolean): Table {
  // Leaves out generated columns, which no one can write.
  const columns = db.prepare('SELECT name, type, "notnull" AS required, pk FROM pragma_table_info(?)')
    .all(name) as { name: string; type: string; required: number; pk: number }[];
  return {
    name,
    columns: columns.map(({ name, type, required }) => ({
      name,
      type: type.toUpperCase(),
      notNull: required === 1,
    })),
    key: columns.filter(({ pk }) => pk > 0).sort((a, b) => a.pk - b.pk).map(({ name }) => name),
    hasRowid,
  };
}

function foreignKeysOf(db: DatabaseSync, tables: ReadonlyMap<string, Table>, table: string): Reference[] {
  const lines = db.prepare(
    'SELECT id, "table" AS parent, "from" AS child, "to" AS target FROM pragma_foreign_key_list(?) ORDER BY id, seq',
  ).all(table) as { id: number; parent: string; child: string; target: string | null }[];
  return [...Map.groupBy(lines, ({ id }) => id).values()].flatMap((columns): Reference[] => {
    // SQL does not mind how names are capitalized.
    const named = columns[0]!.parent.toLowerCase();
    const parent = [...tables.values()].find(({ name }) => name.toLowerCase() === named);
    if (!parent) return [];
    return [{
      table,
      columns: columns.map(({ child }) => child),
      parent: parent.name,
      // Without columns it refers to the primary key.
      parentColumns: columns.map(({ target }, index) => target ?? parent.key[index]!),
    }];
  });
}
