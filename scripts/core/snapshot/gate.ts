/**
 * The gate: whether a snapshot counts as good.
 *
 * Invariant: nothing is refused here. What looks wrong is stored all the same, marked, and never displaces what is
 * good; a later snapshot is good only by passing on its own, compared with the last *good* one.
 *
 * @module
 */

import type { Gate } from "../config/config.ts";
import { cleanText, formatCount } from "../format.ts";
import type { Place } from "../place.ts";
import type { Unreadable } from "./file_index.ts";
import type { DatabaseChecks } from "./manifest.ts";
import type { SuspicionCode } from "./seal.ts";

/** Of what is said of one file, no more than this is told (characters). */
const REASON_LENGTH_MAX = 1000;

/** What the gate looks at. */
export interface GateSubject {
  readonly rows: Readonly<Record<string, number>>;
  /** Tables whose rows could not be counted. */
  readonly unreadable: readonly string[];
  /** What is wrong with the file itself, where SQLite would not tell. */
  readonly problems?: readonly string[];
  readonly checks: DatabaseChecks;
}

/** What the last good snapshot held. */
export type GateReference = Pick<GateSubject, "rows" | "checks">;

/** A suspicion with what is for the operator only: the seal, which is public, has its code alone. */
export interface DetailedSuspicion {
  readonly code: SuspicionCode;
  readonly source: string;
  readonly detail: string;
}

/** Says why a database's snapshot does not count as good; empty when it does. */
export function suspicionsOf(
  source: string,
  now: GateSubject,
  lastGood: GateReference | undefined,
  gate: Gate,
): DetailedSuspicion[] {
  const found: DetailedSuspicion[] = [];
  const add = (code: SuspicionCode, detail: string) => found.push({ code, source, detail });

  const integrity = now.checks.integrity.filter((line) => line !== "ok");
  const { problems = [] } = now;
  if (problems.length > 0) add("integrity", problems.join("; "));
  else if (integrity.length > 0 || now.checks.integrity.length === 0) {
    add("integrity", `integrity_check: ${integrity.slice(0, 3).join("; ") || "gave no answer"}`);
  } else if (now.unreadable.length > 0) {
    add("integrity", `rows cannot be counted in ${now.unreadable.join(", ")}`);
  }

  const tables = Object.keys(now.rows);
  if (tables.length === 0 && now.unreadable.length === 0) add("empty", "it holds no table");
  if (!lastGood) return found;

  if (now.checks.foreignKeys.length > lastGood.checks.foreignKeys.length) {
    add("foreign-keys", now.checks.foreignKeys.slice(0, 3).join("; "));
  }
  const before = Object.entries(lastGood.rows);
  const total = (rows: Readonly<Record<string, number>>) =>
    Object.values(rows).reduce((sum, n) => sum + n, 0);
  if (tables.length > 0 && total(now.rows) === 0 && total(lastGood.rows) > 0) {
    add("empty", `every table is empty, and there were ${total(lastGood.rows)} rows`);
  }
  const gone = before.filter(([table]) => !Object.hasOwn(now.rows, table) && !now.unreadable.includes(table));
  if (before.length > 1 && gone.length * 2 > before.length) {
    add("swapped", `${gone.length} of ${before.length} tables are gone: it may be another database`);
  }
  for (const [table, count] of before) {
    if (gate.ignoreTables.includes(table) || now.unreadable.includes(table)) continue;
    // Every object has a "constructor"; a table of that name counts like any other.
    const left = Object.hasOwn(now.rows, table) ? now.rows[table]! : 0;
    const lost = count - left;
    const cleanUp = Math.max(0, gate.rowsLostMin - 1, Math.floor(count * gate.rowsLostRatio));
    if (lost > cleanUp) {
      add(
        "rows-lost",
        `${table} has ${left} rows where the last good snapshot had ${count}: up to ${cleanUp} fewer pass for a clean-up`,
      );
    }
  }
  return found;
}

/** A snapshot with holes is stored for what it has; of each source they count as one suspicion. */
export function suspicionsOfUnreadable(unreadable: readonly Unreadable[]): DetailedSuspicion[] {
  return [...Map.groupBy(unreadable, ({ source }) => source)].map(([source, holes]) => {
    // Whoever may write in a source chooses the names in it.
    const told = holes.slice(0, 3).map(({ reason }) => cleanText(reason, REASON_LENGTH_MAX)).join("; ");
    const more = holes.length > 3 ? `; and ${formatCount(holes.length - 3)} more` : "";
    return { code: "unreadable", source, detail: told + more };
  });
}

/**
 * Whether a suspicion of {@linkcode suspicionsOfUnreadable} names what lies at `place`, or a folder above it; undefined
 * where it does not, and does not name all. It has absolute paths, and where the home was is not known any more.
 */
export function isNamedUnreadable(place: Place, detail: string): boolean | undefined {
  for (let at = place.length; at > "home".length; at = place.lastIndexOf("/", at - 1)) {
    const quoted = JSON.stringify(place.slice("home".length, at));
    if (detail.includes(cleanText(place.startsWith("home/") ? quoted.slice(1) : quoted, Infinity))) {
      return true;
    }
  }
  return /; and [\d,]+ more$|…/.test(detail) ? undefined : false;
}

/** What a person can do about the suspicions of a set, or of `all`. */
export function gateHint(suspicions: readonly Pick<DetailedSuspicion, "code">[], set: string): string {
  const codes = new Set(suspicions.map(({ code }) => code));
  const ofUnread = codes.delete("unreadable")
    ? [
      "all that could be read is stored; let the user that this runs as read the rest, mend or rename it, or leave it " +
      'out ("exclude" of a folder, or without that source)',
    ]
    : [];
  if (codes.size === 0) return ofUnread.join();
  const gate = `sets.${set === "all" ? "<name>" : set}.gate`;
  const ofDatabases = codes.has("integrity")
    ? "the database is damaged: stop the hub, look at the disk, then get the last good snapshot back " +
      "(`hapi-backup list`, `hapi-backup restore --in-place`); nothing good is displaced until one is good again"
    : `if you removed these rows yourself, run \`hapi-backup backup --set ${set} --accept\` once; to allow more of ` +
      `it, set ${gate} (rowsLostRatio, rowsLostMin, ignoreTables); if not, restore: the last good snapshot is kept`;
  return [ofDatabases, ...ofUnread].join("; of what could not be read: ");
}
