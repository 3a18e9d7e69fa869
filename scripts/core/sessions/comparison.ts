/**
 * What two snapshots of a set have apart.
 *
 * @module
 */

import type { SnapshotId } from "../names.ts";
import { isNamedUnreadable } from "../snapshot/gate.ts";
import type { Manifest, SavedFile } from "../snapshot/manifest.ts";
import type { SessionSummary } from "./session_summary.ts";

/** What is in a snapshot. */
export interface Look {
  readonly manifest: Manifest;
  /** Newest first. */
  readonly sessions: readonly SessionSummary[];
}

/** A session that both have, with another count of messages or another time of its last change. */
export interface ChangedSession {
  readonly id: string;
  readonly title: string;
  /** Messages in the first and in the second. */
  readonly messages: readonly [number, number];
}

/** Rows of one table: in the first and in the second; null where the table is not there. */
export interface TableRows {
  readonly database: string;
  readonly table: string;
  readonly rows: readonly [number | null, number | null];
}

/** A place that one of the two does not have, and perhaps only because it was not read for it. */
export interface UnreadPlace {
  readonly place: string;
  /** The one that does not have it. */
  readonly snapshot: SnapshotId;
  /** False where more could not be read than that one names: then it may as well have been gone. */
  readonly isSure: boolean;
}

/** What one of the two does not have, though it was there. */
export interface Unread {
  readonly snapshot: SnapshotId;
  readonly source: string;
  /** Names the first few, and counts the others. */
  readonly detail: string;
}

/** The way from one snapshot to another. */
export interface Comparison {
  readonly from: SnapshotId;
  readonly to: SnapshotId;
  readonly sessions: {
    readonly added: readonly SessionSummary[];
    readonly removed: readonly SessionSummary[];
    readonly changed: readonly ChangedSession[];
  };
  /** Tables whose number of rows is not the same. */
  readonly rows: readonly TableRows[];
  /** Places. */
  readonly files: {
    readonly added: readonly string[];
    readonly removed: readonly string[];
    /** Another content, kind, mode or target; a time alone is no change. */
    readonly changed: readonly string[];
    /** Neither added nor removed, as far as is known. */
    readonly unread: readonly UnreadPlace[];
  };
  readonly unread: readonly Unread[];
}

/** Compares two snapshots. */
export function compare(from: Look, to: Look): Comparison {
  const sessions = matched(from.sessions, to.sessions, ({ id }) => id);
  const files = matched(from.manifest.files, to.manifest.files, ({ place }) => place);
  const added = sortOut(files.added, from.manifest, to.manifest);
  const removed = sortOut(files.removed, to.manifest, from.manifest);
  return {
    from: from.manifest.id,
    to: to.manifest.id,
    sessions: {
      added: sessions.added,
      removed: sessions.removed,
      changed: sessions.both.filter(([a, b]) => a.messages !== b.messages || a.updatedAt !== b.updatedAt)
        .map(([a, { id, title, messages }]) => ({ id, title, messages: [a.messages, messages] })),
    },
    rows: compareRows(from.manifest, to.manifest),
    files: {
      added: added.gone,
      removed: removed.gone,
      changed: files.both.filter(([a, b]) => contentOf(a) !== contentOf(b)).map(([, file]) => file.place),
      unread: [...removed.unread, ...added.unread],
    },
    unread: [from, to].flatMap(({ manifest: { id, suspicions } }) =>
      suspicions.filter(({ code }) => code === "unreadable")
        .map(({ source, detail }) => ({ snapshot: id, source, detail }))
    ),
  };
}

/** Of the files that only `other` has: which were gone when `lacking` was taken, and which it may have failed to read. */
function sortOut(
  files: readonly SavedFile[],
  lacking: Manifest,
  other: Manifest,
): { readonly gone: string[]; readonly unread: UnreadPlace[] } {
  const removed = new Set(lacking.removed);
  const isUnread = ({ place, source }: SavedFile): boolean | undefined => {
    if (lacking.parent === other.id) return !removed.has(place);
    if (lacking.sources.find(({ name }) => name === source)?.outcome === "absent") return false;
    const told = lacking.suspicions.find((found) => found.code === "unreadable" && found.source === source);
    return told ? isNamedUnreadable(place, told.detail) : false;
  };
  const gone: string[] = [];
  const unread: UnreadPlace[] = [];
  for (const file of files) {
    const is = isUnread(file);
    if (is === false) gone.push(file.place);
    else unread.push({ place: file.place, snapshot: lacking.id, isSure: is === true });
  }
  return { gone, unread };
}

function matched<T>(from: readonly T[], to: readonly T[], key: (item: T) => string) {
  const before = new Map(from.map((item) => [key(item), item]));
  const after = new Set(to.map(key));
  return {
    added: to.filter((item) => !before.has(key(item))),
    removed: from.filter((item) => !after.has(key(item))),
    both: to.flatMap((item): [T, T][] => before.has(key(item)) ? [[before.get(key(item))!, item]] : []),
  };
}

function compareRows(from: Manifest, to: Manifest): TableRows[] {
  const databases = new Set([...from.databases, ...to.databases].map(({ source }) => source));
  return [...databases].flatMap((database) => {
    const [before, after] = [from, to].map(({ databases }) =>
      databases.find(({ source }) => source === database)?.rows ?? {}
    );
    return Object.keys({ ...before, ...after }).map((table): TableRows => ({
      database,
      table,
      rows: [before![table] ?? null, after![table] ?? null],
    })).filter(({ rows }) => rows[0] !== rows[1]);
  });
}

const contentOf = ({ type, mode, sha256, target }: SavedFile): string =>
  [type, mode, sha256, target].join("\n");
