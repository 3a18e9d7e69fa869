/**
 * A session as JSON: `{ "format", "version", "hub", …, "tables": { "sessions": [row], "messages": [row, …] } }`.
 *
 * Nothing is lost: what JSON cannot hold is an object with one telling key (`base64` of a blob or of a text that is not
 * UTF-8, `integer` beyond 2^53, `real` that is infinite). A blob that is a zstd frame of text, as the hub stores long
 * messages, has that text beside it.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { zstdDecompressSync } from "node:zlib";
import { ifPossible } from "../errors.ts";
import type { Cell, Row } from "./session_rows.ts";
import type { Table } from "./session_schema.ts";

/** What stands before the rows. */
export interface ExportHeader {
  readonly hub: string;
  readonly set: string;
  readonly snapshot: string;
  /** The place of the database. */
  readonly database: string;
  readonly userVersion: number;
  readonly session: string;
}

/** Largest text that is unpacked from a blob, in bytes. */
const TEXT_BYTES_MAX = 64 * 1024 * 1024;
const ZSTD_MAGIC = 0xfd2fb528;

/** Rows of some tables under one name of the export. */
export interface ExportPart {
  readonly name: string;
  readonly tables: Iterable<readonly [table: Table, rows: Iterable<Row>]>;
}

/** The lines of an export, without their ends; each row is one. */
export function* exportLines(header: ExportHeader, parts: readonly ExportPart[]): Generator<string> {
  const start = JSON.stringify({ format: "hapi-backup session", version: 1, ...header });
  yield start.slice(0, -1);
  for (const { name, tables } of parts) {
    yield `,${JSON.stringify(name)}: {`;
    let isFirstTable = true;
    for (const [table, rows] of tables) {
      yield `${isFirstTable ? "" : ","}${JSON.stringify(table.name)}: [`;
      isFirstTable = false;
      let isFirstRow = true;
      for (const row of rows) {
        const entries = table.columns.map(({ name }, index) => [name, jsonOf(row[index]!)]);
        yield `${isFirstRow ? "" : ","}${JSON.stringify(Object.fromEntries(entries))}`;
        isFirstRow = false;
      }
      yield "]";
    }
    yield "}";
  }
  yield "}";
}

function jsonOf({ isText, value }: Cell): unknown {
  if (typeof value === "bigint") {
    return Number.isSafeInteger(Number(value)) ? Number(value) : { integer: String(value) };
  }
  if (typeof value === "number") return Number.isFinite(value) ? value : { real: String(value) };
  if (value === null) return null;
  const base64 = () => Buffer.from(value).toString("base64");
  if (isText) return utf8(value) ?? { base64: base64() };
  const text = unpacked(value);
  return { base64: base64(), ...(text === undefined ? {} : { text }) };
}

const utf8 = (bytes: Uint8Array): string | undefined =>
  ifPossible(() => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));

/** The text in a zstd frame. */
function unpacked(bytes: Uint8Array): string | undefined {
  if (bytes.length < 4 || Buffer.from(bytes.subarray(0, 4)).readUInt32LE() !== ZSTD_MAGIC) return undefined;
  return ifPossible(() => utf8(zstdDecompressSync(bytes, { maxOutputLength: TEXT_BYTES_MAX })));
}
