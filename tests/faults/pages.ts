/**
 * The pages of a database file, by the B-tree that they belong to, read without SQLite.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";

/** A table, an index, or the schema itself, with its pages (from 1), the root first. */
export interface Tree {
  readonly name: string;
  readonly pages: readonly number[];
}

/** Lists every B-tree of a closed database (https://sqlite.org/fileformat2.html, section 1.6). */
export function treesOf(database: string): Tree[] {
  const bytes = Deno.readFileSync(database);
  const pageBytes = pageBytesOf(bytes);
  using db = new DatabaseSync(database, { readOnly: true });
  const roots = db.prepare("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0 ORDER BY rootpage")
    .all() as unknown as { name: string; rootpage: number }[];
  return [{ name: "sqlite_schema", rootpage: 1 }, ...roots].map(({ name, rootpage }) => {
    const pages = [rootpage];
    for (const page of pages) pages.push(...childrenOf(bytes, page, pageBytes));
    return { name, pages };
  });
}

export function pageBytesOf(database: Uint8Array): number {
  const stored = database[16]! << 8 | database[17]!;
  return stored === 1 ? 65536 : stored;
}

function childrenOf(bytes: Uint8Array, page: number, pageBytes: number): number[] {
  const start = (page - 1) * pageBytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, pageBytes);
  const header = page === 1 ? 100 : 0;
  const kind = view.getUint8(header);
  if (kind !== 2 && kind !== 5) return [];
  const cells = Array.from(
    { length: view.getUint16(header + 3) },
    (_, index) => view.getUint32(view.getUint16(header + 12 + 2 * index)),
  );
  return [...cells, view.getUint32(header + 8)];
}
