/**
 * The rows of one session, found in a database by the references in its schema, and put into another.
 *
 * @module
 */

import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import { BackupError } from "../../core/errors.ts";
import {
  type Cell,
  cellText,
  type Differing,
  type Row,
  sameRow,
  type SessionChanges,
  type TableChanges,
} from "../../core/sessions/session_rows.ts";
import {
  neededReferences,
  partReferences,
  partTables,
  type Reference,
  type Schema,
  SESSIONS,
  type Table,
  tablesConcerned,
} from "../../core/sessions/session_schema.ts";
import { quoted } from "../sqlite.ts";

/** How many differing rows are named. */
const NAMED_MAX = 3;

type SqlRow = Record<string, string | number | bigint | null | Uint8Array>;

/** The rows of one session in a database, and those that they need. */
export interface SessionRows {
  readonly schema: Schema;
  /** Tables that have such rows. */
  readonly parts: readonly Table[];
  readonly needed: readonly Table[];
  count(kind: "part" | "needed", table: Table): number;
  /** In the order in which they were written, as far as the database knows it. */
  rows(kind: "part" | "needed", table: Table): Iterable<Row>;
}

/**
 * Finds the rows of a session. Notes their keys in temporary tables of the connection, in memory.
 *
 * @throws {BackupError} (source) If a table that has some has no primary key.
 */
export function sessionRows(db: DatabaseSync, schema: Schema, sessionId: string): SessionRows {
  db.exec("PRAGMA temp_store = MEMORY");
  const tables = tablesConcerned(schema).map((name) => schema.tables.get(name)!);
  for (const table of tables) {
    if (table.key.length === 0) {
      throw new BackupError(`Cannot tell the rows of ${table.name} apart: it has no primary key`, {
        kind: "source",
        hint: "restore the whole snapshot: hapi-backup restore",
      });
    }
    const key = table.key.map((_, index) => `k${index}`).join();
    for (const kind of ["part", "needed"] as const) {
      db.exec(`CREATE TEMP TABLE ${noted(kind, table.name)} (${key}, PRIMARY KEY (${key})) WITHOUT ROWID`);
    }
  }
  db.prepare(`INSERT INTO ${noted("part", SESSIONS)} SELECT id FROM sessions WHERE id = ?`).run(sessionId);
  const keyOf = (alias: string, name: string) =>
    schema.tables.get(name)!.key.map((k) => `${alias}.${quoted(k)}`).join();
  const join = ({ table, columns, parent, parentColumns }: Reference) =>
    `${quoted(parent)} AS p JOIN ${quoted(table)} AS c ON ` +
    columns.map((column, index) => `c.${quoted(column)} = p.${quoted(parentColumns[index]!)}`).join(" AND ");

  const down = partReferences(schema).map((reference) =>
    `INSERT INTO ${noted("part", reference.table)} SELECT ${keyOf("c", reference.table)} FROM ${
      join(reference)
    }
       WHERE (${keyOf("p", reference.parent)}) IN ${noted("part", reference.parent)}
       EXCEPT SELECT * FROM ${noted("part", reference.table)}`
  );
  repeat(db, down);
  const up = neededReferences(schema, partTables(schema)).flatMap((reference) =>
    (["part", "needed"] as const).map((kind) =>
      `INSERT INTO ${noted("needed", reference.parent)} SELECT ${keyOf("p", reference.parent)} FROM ${
        join(reference)
      }
         WHERE (${keyOf("c", reference.table)}) IN ${noted(kind, reference.table)}
         EXCEPT SELECT * FROM ${noted("needed", reference.parent)}
         EXCEPT SELECT * FROM ${noted("part", reference.parent)}`
    )
  );
  repeat(db, up);

  const count = (kind: "part" | "needed", table: Table) =>
    Number(db.prepare(`SELECT count(*) AS n FROM ${noted(kind, table.name)}`).get()!.n);
  return {
    schema,
    parts: tables.filter((table) => count("part", table) > 0),
    needed: tables.filter((table) => count("needed", table) > 0),
    count,
    *rows(kind, table) {
      const select = db.prepare(
        `SELECT ${cellColumns(table)} FROM ${quoted(table.name)} AS t
         WHERE (${keyOf("t", table.name)}) IN ${noted(kind, table.name)}${
          table.hasRowid ? " ORDER BY rowid" : ""
        }`,
      );
      select.setReadBigInts(true);
      for (const row of select.iterate()) yield toRow(table, row as SqlRow);
    },
  };
}

/** Where the keys of the rows that were found are noted. */
const noted = (kind: "part" | "needed", table: string): string => `temp.${quoted(`${kind} ${table}`)}`;

/** Runs statements until none of them changes anything more. */
function repeat(db: DatabaseSync, statements: readonly string[]): void {
  const prepared = statements.map((sql) => db.prepare(sql));
  while (prepared.map((statement) => Number(statement.run().changes)).some((changes) => changes > 0));
}

/** Each column as two: whether it is text, and its value, a text as its bytes. */
function cellColumns({ columns }: Table): string {
  return columns.map(({ name }, index) => {
    const column = quoted(name);
    return `typeof(${column}) = 'text' AS t${index}, ` +
      `iif(typeof(${column}) = 'text', CAST(${column} AS BLOB), ${column}) AS v${index}`;
  }).join(", ");
}

function toRow({ columns }: Table, row: SqlRow): Row {
  return columns.map((_, index) => ({
    isText: row[`t${index}`] === 1n,
    value: row[`v${index}`] as Cell["value"],
  }));
}

/** A cell as two parameters, numbered from `first`. Inverse of {@linkcode cellColumns}. */
const parameter = (first: number): string => `iif(?${first}, CAST(?${first + 1} AS TEXT), ?${first + 1})`;

const parametersOf = (cells: Row): SQLInputValue[] =>
  cells.flatMap(({ isText, value }) => [isText ? 1 : 0, value]);

/**
 * Puts a session's rows into `live`, inside a transaction that the caller has begun. Rows that are there and that the
 * snapshot has not stay. Of rows that are needed only what is missing is added.
 */
export function putSession(live: DatabaseSync, rows: SessionRows, differing: Differing): SessionChanges {
  const parts = rows.parts.map((table) => putRows(live, table, rows.rows("part", table), differing));
  const needed = rows.needed.map((table) => putRows(live, table, rows.rows("needed", table), "keep"));
  return { parts, needed };
}

function putRows(live: DatabaseSync, table: Table, rows: Iterable<Row>, differing: Differing): TableChanges {
  const { columns, key } = table;
  const name = quoted(table.name);
  const keyAt = key.map((column) => columns.findIndex(({ name }) => name === column));
  const whereKey = (first: number) =>
    key.map((column, index) => `${quoted(column)} IS ${parameter(first + 2 * index)}`).join(" AND ");
  const select = live.prepare(`SELECT ${cellColumns(table)} FROM ${name} WHERE ${whereKey(1)}`);
  select.setReadBigInts(true);
  const insert = live.prepare(
    `INSERT INTO ${name} (${columns.map((column) => quoted(column.name)).join()})
     VALUES (${columns.map((_, index) => parameter(1 + 2 * index)).join()})`,
  );
  // Not INSERT OR REPLACE: that deletes the row first, and with it all rows that refer to it.
  const update = live.prepare(
    `UPDATE ${name} SET ${
      columns.map((column, index) => `${quoted(column.name)} = ${parameter(1 + 2 * index)}`).join()
    }
     WHERE ${whereKey(1 + 2 * columns.length)}`,
  );
  const counts = { added: 0, unchanged: 0, replaced: 0, kept: 0 };
  const named: string[] = [];
  for (const row of rows) {
    const keyCells = keyAt.map((index) => row[index]!);
    const there = select.get(...parametersOf(keyCells)) as SqlRow | undefined;
    if (!there) {
      insert.run(...parametersOf(row));
      counts.added++;
    } else if (sameRow(toRow(table, there), row)) counts.unchanged++;
    else if (differing === "replace") {
      update.run(...parametersOf([...row, ...keyCells]));
      counts.replaced++;
    } else {
      counts.kept++;
      if (named.length < NAMED_MAX) named.push(keyCells.map(cellText).join(" "));
    }
  }
  return { table: table.name, ...counts, differing: named };
}

/** How many rows break a foreign key. */
export function brokenReferences(db: DatabaseSync): number {
  return Number(db.prepare("SELECT count(*) AS n FROM pragma_foreign_key_check").get()!.n);
}
