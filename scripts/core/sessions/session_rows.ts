/**
 * Rows as they are carried from one database to another: byte for byte.
 *
 * A text is carried as its bytes, for what reads it as text cuts it at a NUL and mends what is not UTF-8.
 *
 * @module
 */

import { equalBytes } from "../bytes.ts";

/** One value of a row. */
export interface Cell {
  readonly isText: boolean;
  readonly value: null | number | bigint | Uint8Array;
}

/** A row; cells in the order of the table's columns. */
export type Row = readonly Cell[];

/** What is done where a row that exists differs from the snapshot's: stop, take the snapshot's, or leave it. */
export type Differing = "refuse" | "replace" | "keep";

/** What became of the rows of one table. */
export interface TableChanges {
  readonly table: string;
  readonly added: number;
  /** They were there already, the same. */
  readonly unchanged: number;
  readonly replaced: number;
  /** They were there and differ, and were left. */
  readonly kept: number;
  /** Keys of the first rows that differ, as text. */
  readonly differing: readonly string[];
}

/** What became of a session's rows, and of the rows that they need. */
export interface SessionChanges {
  readonly parts: readonly TableChanges[];
  readonly needed: readonly TableChanges[];
}

/** Whether two rows are the same, byte for byte. */
export function sameRow(a: Row, b: Row): boolean {
  return a.length === b.length && a.every((cell, index) => sameCell(cell, b[index]!));
}

function sameCell(a: Cell, b: Cell): boolean {
  if (a.isText !== b.isText) return false;
  const [one, other] = [a.value, b.value];
  if (!(one instanceof Uint8Array) || !(other instanceof Uint8Array)) return one === other;
  return equalBytes(one, other);
}

/** A cell as a person reads it. */
export function cellText({ value }: Cell): string {
  return value instanceof Uint8Array ? new TextDecoder().decode(value) : String(value);
}
