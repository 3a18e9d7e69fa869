/**
 * What a report tells.
 *
 * @module
 */

import type { SnapshotId } from "../names.ts";
import type { Problem } from "../status/notices.ts";
import type { Zone } from "../zone.ts";
import type { CalendarDay } from "./calendar.ts";
import type { Moment } from "./history.ts";

/** Everything that the page tells. */
export interface ReportData {
  readonly hub: string;
  readonly at: Date;
  /** Whose days and times are shown. */
  readonly zone: Zone;
  /** The program that made it. */
  readonly program: string;
  readonly problems: readonly Problem[];
  readonly sets: readonly ReportSet[];
  readonly destinations: readonly ReportDestination[];
  /** Days of shipping; none if nothing was ever shipped. */
  readonly shipping: readonly CalendarDay[];
  /** Oldest first. */
  readonly drills: readonly ReportDrill[];
  readonly proofs: readonly ReportProof[];
  readonly proofMaxAgeDays: number;
  /** Room on the disk of the local store, if the system tells. */
  readonly freeBytes: number | undefined;
}

/** One set, as its hub knows it. */
export interface ReportSet {
  readonly name: string;
  readonly newest: SnapshotId | undefined;
  readonly stale: boolean;
  readonly maxAgeHours: number;
  /** What the local store holds of it. */
  readonly local: { readonly snapshots: number; readonly fullBytes: number; readonly otherBytes: number };
  /** Oldest first. */
  readonly moments: readonly Moment[];
  readonly days: readonly CalendarDay[];
}

/** One destination, and what it has confirmed of each set. */
export interface ReportDestination {
  readonly name: string;
  readonly kind: string;
  /** Whether it counts as off this machine, as the last shipping found. */
  readonly offBox: boolean;
  readonly sets: readonly {
    readonly set: string;
    readonly newest: SnapshotId | undefined;
    /** Snapshots here that it has not confirmed. */
    readonly waiting: number;
    readonly receipt: ReportReceipt | undefined;
  }[];
}

/** What a storage host itself said of a set. */
export interface ReportReceipt {
  readonly time: Date;
  readonly verified: SnapshotId | undefined;
  readonly problems: readonly string[];
}

/** A restore that was proven or failed. */
export interface ReportDrill {
  readonly time: Date;
  readonly set: string;
  readonly snapshot: SnapshotId;
  /** What it was restored from. */
  readonly from: string;
  readonly ok: boolean;
  readonly seconds: number;
}

/** A try of `keys prove`. */
export interface ReportProof {
  readonly time: Date;
  readonly of: string;
  readonly ok: boolean;
  readonly chains: number;
  /** Chains that were not opened. */
  readonly failed: number;
  /** Whether a drill opened one chain, of perhaps more. */
  readonly isDrill: boolean;
}
