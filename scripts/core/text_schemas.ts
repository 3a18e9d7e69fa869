/**
 * What stands in our own files, as schemas: names, ids, checksums, sizes.
 *
 * @module
 */

import * as v from "valibot";
import { cleanText } from "./format.ts";
import { isHubName, isPartName, isSetName, isSnapshotId, isSourceName } from "./names.ts";
import { check, type Schema, wholeNumber } from "./schema.ts";

/** A hub's name. */
export const hubName = v.pipe(v.string(), v.guard(isHubName, "is not a hub's name"));
/** A set's name. */
export const setName = v.pipe(v.string(), v.guard(isSetName, "is not a set's name"));
/** A source's name, which is told to people. */
export const sourceName = v.pipe(v.string(), v.check(isSourceName, "is not a source's name"));
/** A part's name. */
export const partName = v.pipe(v.string(), v.guard(isPartName, "is not a part's name"));
/** A snapshot's id. */
export const snapshotId = v.pipe(v.string(), v.guard(isSnapshotId, "is not a snapshot id"));
/** A SHA-256 in lower-case hex. */
export const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "is not a SHA-256 in hex"));
/** When something was noted in a log, as an ISO 8601 time in UTC: one that a calendar can be made of. */
export const loggedTime = v.pipe(
  v.string(),
  v.check((text) => /^(?:19[7-9]|2\d\d)\d-/.test(text) && !Number.isNaN(Date.parse(text)), "is not a time"),
);
/** A number of bytes, rows or files. */
export const count = wholeNumber(0);

/** Most recipients that a seal names. */
export const RECIPIENTS_MAX = 100;
/** Most parts that a seal names, and most suspicions. */
export const SEALED_ENTRIES_MAX = 1_000;
/** Most sources of a set, each of which may be a part, and five suspicions where it can be read or one where it cannot. */
export const SOURCES_MAX = 200;

const PROBLEM_LENGTH_MAX = 300;

/** What a reader throws by, told what is wrong. */
type Fail = (state: string) => never;

/** Text as JSON. */
export function readJson(text: string, fail: Fail): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return fail("it is not JSON");
  }
}

/** JSON as what a schema says; else the first thing wrong with its place: `parts.0.sha256: is not a SHA-256 in hex`. */
export function readAs<T>(schema: Schema<T>, json: unknown, fail: Fail): T {
  const checked = check(schema, json);
  if (!("problem" in checked)) return checked.value;
  const { path, message } = checked.problem;
  const at = path.map(({ key }) => key);
  // It names keys as they stand there.
  return fail(cleanText(at.length === 0 ? message : `${at.join(".")}: ${message}`, PROBLEM_LENGTH_MAX));
}
