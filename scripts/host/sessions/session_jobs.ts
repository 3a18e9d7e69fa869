/**
 * What the steps that look into snapshots are told, and what they answer.
 *
 * @module
 */

import type { SnapshotId } from "../../core/names.ts";
import type { Look } from "../../core/sessions/comparison.ts";
import type { Differing, SessionChanges } from "../../core/sessions/session_rows.ts";
import type { ChoiceJob } from "../restore/chosen_snapshot.ts";

/** The look step's job. */
export interface LookJob extends ChoiceJob {
  /** Which snapshots to look into; none, to see which there are. */
  readonly which: readonly string[];
}

/** What there is, and what is in it. */
export interface LookReport {
  /** All that are sealed, oldest first. */
  readonly snapshots: readonly { readonly id: SnapshotId; readonly isSuspect: boolean }[];
  readonly looks: readonly Look[];
}

/** What became of the session's rows. */
export interface SessionRestored {
  readonly changes: SessionChanges;
  /** The snapshot of the database as it was before; undefined if there was nothing to change. */
  readonly before: SnapshotId | undefined;
}

/** The session step's job. */
export interface SessionJob extends ChoiceJob {
  readonly which: string;
  /** The session's id, or the start of it. */
  readonly session: string;
  readonly target:
    | { readonly kind: "database"; readonly allowed: readonly string[]; readonly differing: Differing }
    | { readonly kind: "file"; readonly path: string }
    | { readonly kind: "stdout" };
}

/** What the session step did. */
export interface SessionReport {
  readonly session: string;
  readonly snapshot: SnapshotId;
  /** Rows by table that the session has in the snapshot. */
  readonly rows: Readonly<Record<string, number>>;
  /** The path of the database, or of the file. */
  readonly target: string;
  readonly database?: SessionRestored & { readonly place: string };
  /** Folders in the snapshot that are named after the session: attachments, which a database does not hold. */
  readonly folders: readonly string[];
}
