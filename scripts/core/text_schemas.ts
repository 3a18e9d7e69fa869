/**
 * What stands in our own files, as zod checks it: names, ids, checksums, sizes.
 *
 * @module
 */

import { z } from "zod";
import { cleanText } from "./format.ts";
import { isHubName, isPartName, isSetName, isSnapshotId, isSourceName } from "./names.ts";

/** A hub's name. */
export const hubName = z.string().refine(isHubName, "is not a hub's name");
/** A set's name. */
export const setName = z.string().refine(isSetName, "is not a set's name");
/** A source's name, which is told to people. */
export const sourceName = z.string().refine((text): boolean => isSourceName(text), "is not a source's name");
/** A part's name. */
export const partName = z.string().refine(isPartName, "is not a part's name");
/** A snapshot's id. */
export const snapshotId = z.string().refine(isSnapshotId, "is not a snapshot id");
/** A SHA-256 in lower-case hex. */
export const sha256 = z.string().regex(/^[0-9a-f]{64}$/, "is not a SHA-256 in hex");
/** A number of bytes, rows or files. */
export const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

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
export function readAs<T>(schema: z.ZodType<T>, json: unknown, fail: Fail): T {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  // It names keys as they stand there.
  return fail(cleanText(path.length === 0 ? message : `${path.join(".")}: ${message}`, PROBLEM_LENGTH_MAX));
}
