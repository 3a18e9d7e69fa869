/**
 * Which rows of a hub's database make up one session: told by the foreign keys in its schema.
 *
 * A session is its row, the rows that refer to it, the rows that refer to those, and so on. Rows that these refer to in
 * turn, such as the other event of a link, are needed but are no part of it.
 *
 * @module
 */

/** The table that sessions are rows of, by its column `id`. */
export const SESSIONS = "sessions";

/** A column of a table. */
export interface Column {
  readonly name: string;
  readonly type: string;
  readonly notNull: boolean;
}

/** A table, as far as rows are told apart by it. */
export interface Table {
  readonly name: string;
  readonly columns: readonly Column[];
  /** Columns of the primary key, in its order; empty where there is none. */
  readonly key: readonly string[];
  readonly hasRowid: boolean;
}

/** Rows of `table` refer to rows of `parent`: `columns` there hold what `parentColumns` hold here. */
export interface Reference {
  readonly table: string;
  readonly columns: readonly string[];
  readonly parent: string;
  readonly parentColumns: readonly string[];
}

/** What of a database's schema tells which rows belong together. */
export interface Schema {
  readonly userVersion: number;
  readonly encoding: string;
  readonly tables: ReadonlyMap<string, Table>;
  /** The declared foreign keys whose parent exists. */
  readonly foreignKeys: readonly Reference[];
}

/**
 * References that the hub's schema (`user_version` 26) means and does not declare. Left out on purpose:
 * `sessions.machine_id` (machines register themselves anew), `events.related_event_id` and `events.source_ref` (they may
 * name what belongs to other sessions; the hub's own events of a session name it in `related_session_id` too).
 */
const UNDECLARED: readonly Reference[] = [
  { table: "events", columns: ["related_session_id"], parent: SESSIONS, parentColumns: ["id"] },
];

/** The references that lead from a session down to what is part of it. */
export function partReferences(schema: Schema): Reference[] {
  const undeclared = UNDECLARED.filter(({ table, columns, parent }) => {
    const here = schema.tables.get(table)?.columns.map(({ name }) => name) ?? [];
    return schema.tables.has(parent) && columns.every((name) => here.includes(name));
  });
  const found = new Set([SESSIONS]);
  const all = [...schema.foreignKeys, ...undeclared];
  // A set grows while it is walked.
  for (const table of found) for (const { table: child } of all.filter(isTo(table))) found.add(child);
  return all.filter(({ parent }) => found.has(parent));
}

/** The declared references that lead from tables up to rows that must be there too. */
export function neededReferences(schema: Schema, parts: Iterable<string>): Reference[] {
  const found = new Set(parts);
  for (const table of found) {
    for (const { parent } of schema.foreignKeys.filter((reference) => reference.table === table)) {
      found.add(parent);
    }
  }
  return schema.foreignKeys.filter(({ table }) => found.has(table));
}

const isTo = (table: string) => ({ parent }: Reference): boolean => parent === table;

/** Tables that a session's rows lie in, the session's own first. */
export function partTables(schema: Schema): string[] {
  return [...new Set([SESSIONS, ...partReferences(schema).map(({ table }) => table)])];
}

/** Tables that a session's rows, or rows that they need, lie in. */
export function tablesConcerned(schema: Schema): string[] {
  const parts = partTables(schema);
  return [...new Set([...parts, ...neededReferences(schema, parts).map(({ parent }) => parent)])];
}

/**
 * Says, one line each, why rows of `saved` do not fit into `live`. Order of columns, defaults and indexes may differ, and
 * so may tables that sessions have nothing to do with.
 */
export function differences(saved: Schema, live: Schema): string[] {
  const lines: string[] = [];
  for (const pragma of ["userVersion", "encoding"] as const) {
    if (saved[pragma] !== live[pragma]) {
      const name = pragma === "userVersion" ? "user_version" : pragma;
      lines.push(`${name} is ${saved[pragma]} in the snapshot and ${live[pragma]} here`);
    }
  }
  for (const name of new Set([...tablesConcerned(saved), ...tablesConcerned(live)])) {
    const [then, now] = [saved.tables.get(name), live.tables.get(name)];
    if (then && now) lines.push(...tableDifferences(then, now));
    else lines.push(`table ${name} is only ${then ? "in the snapshot" : "here"}`);
  }
  const [then, now] = [referenceLines(saved), referenceLines(live)];
  lines.push(...then.filter((line) => !now.includes(line)).map((line) => `${line} only in the snapshot`));
  lines.push(...now.filter((line) => !then.includes(line)).map((line) => `${line} only here`));
  return lines;
}

function tableDifferences(then: Table, now: Table): string[] {
  const lines: string[] = [];
  const columnsNow = new Map(now.columns.map((column) => [column.name, column]));
  for (const column of then.columns) {
    const other = columnsNow.get(column.name);
    columnsNow.delete(column.name);
    if (!other) lines.push(`${then.name}.${column.name} is only in the snapshot`);
    else if (describe(column) !== describe(other)) {
      lines.push(
        `${then.name}.${column.name} is ${describe(column)} in the snapshot and ${describe(other)} here`,
      );
    }
  }
  for (const name of columnsNow.keys()) lines.push(`${then.name}.${name} is only here`);
  if (then.key.join() !== now.key.join()) {
    lines.push(`the primary key of ${then.name} is (${then.key}) in the snapshot and (${now.key}) here`);
  }
  return lines;
}

const describe = ({ type, notNull }: Column): string =>
  `${type || "of no type"}${notNull ? " NOT NULL" : ""}`;

function referenceLines(schema: Schema): string[] {
  const concerned = new Set(tablesConcerned(schema));
  return schema.foreignKeys.filter(({ table }) => concerned.has(table)).map((
    { table, columns, parent, parentColumns },
  ) => `${table} (${columns}) refers to ${parent} (${parentColumns})`);
}
