/**
 * What can be said of a hub's snapshots from all that the storage host knows of them: which count, and what is wrong.
 *
 * Fault model: the hub may be in an attacker's hands, the disk may rot or be swapped, and this host itself removes
 * snapshots. So every link is followed to what was seen of the other end, removed ones included.
 *
 * @module
 */

import { formatDuration } from "../format.ts";
import type { SnapshotId } from "../names.ts";
import { timeOfSnapshotId } from "../names.ts";
import type { Seal, Suspicion } from "../snapshot/seal.ts";
import { HOUR_MS } from "../time.ts";
import { isTimely, type Standing } from "./retention.ts";

/**
 * - `present`: its seal could be read.
 * - `unreadable`: there is a seal, but none that this program can read, or another's.
 * - `gone`: it was present, and this host did not remove it.
 * - `removing`, `removed`: this host removes it, or has (or was told that it is lost for good).
 */
export type SnapshotState = "present" | "unreadable" | "gone" | "removing" | "removed";

/** What the ledger holds of one snapshot. Times in milliseconds since the epoch. */
export interface KnownSnapshot {
  /** The ledger's own number for it. */
  readonly key: number;
  readonly id: SnapshotId;
  readonly state: SnapshotState;
  /** Undefined if this host's clock was in doubt since it came. */
  readonly firstSeenMs: number | undefined;
  /** SHA-256 of its seal as first seen; undefined if no seal could be read. */
  readonly checksum: string | undefined;
  readonly kind: Seal["kind"] | undefined;
  readonly needs: readonly SnapshotId[];
  readonly previous: Seal["previous"];
  readonly suspicions: readonly Suspicion[];
  /** Bytes of its parts. */
  readonly bytes: number;
  /** Fingerprint of the key that signed the seal; undefined if the signature is not one. */
  readonly signer: string | undefined;
  /** What is wrong with the seal or its signature. */
  readonly sealProblem: string | undefined;
  /** When every part of it was last read whole (the oldest of them). */
  readonly readMs: number | undefined;
  /** What was wrong with a part when it was last read. */
  readonly damage: string | undefined;
  /** Whether that is so of a part that others may need: of any but the manifest. */
  readonly isDamagedForOthers: boolean;
  readonly pin: string | undefined;
}

/**
 * - `seal`, `signature`, `changed`, `gone`, `link`: it contradicts what must hold, so retention keeps its hands off.
 * - `part`, `needs`: it cannot be restored.
 * - `closed`: it cannot be restored by the hub's own keys, as long as its folder has the mode that it has.
 * - `fork`, `future`: worth a look.
 */
export type FaultKind =
  | "seal"
  | "signature"
  | "changed"
  | "gone"
  | "link"
  | "part"
  | "needs"
  | "closed"
  | "fork"
  | "future";

/** Something wrong with one snapshot. */
export interface Fault {
  readonly id: SnapshotId;
  readonly kind: FaultKind;
  readonly problem: string;
}

/** Faults that a person should look at, but that damage nothing. */
const HARMLESS: ReadonlySet<FaultKind> = new Set(["fork", "future"]);
/** Faults that put in doubt what this host believes about a set. */
const DOUBTFUL: ReadonlySet<FaultKind> = new Set(["seal", "signature", "changed", "gone", "link"]);

/** Whether something is lost, altered or forged, and not merely odd. */
export const isDamage = (fault: Pick<Fault, "kind">): boolean => !HARMLESS.has(fault.kind);
/** Whether a fault forbids to remove anything. */
export const isDoubt = (fault: Pick<Fault, "kind">): boolean => DOUBTFUL.has(fault.kind);

/** One set, judged. */
export interface Assessment {
  /** The standing of every snapshot that is there (`present` or `unreadable`). */
  readonly standings: ReadonlyMap<SnapshotId, Standing>;
  readonly faults: readonly Fault[];
}

/**
 * Judges a set.
 *
 * @param known All that the ledger has of the set, removed ones included, in any order.
 * @param signers Fingerprints of the keys that may sign for the hub.
 */
export function assessSet(
  known: readonly KnownSnapshot[],
  signers: ReadonlySet<string>,
  lateHoursMax: number,
): Assessment {
  const byId = new Map(known.map((snapshot) => [snapshot.id, snapshot]));
  const faults: Fault[] = [];
  const own = new Map<SnapshotId, Fault>();
  for (const snapshot of known) {
    const fault = ownFault(snapshot, signers);
    if (fault) own.set(snapshot.id, fault), faults.push(fault);
  }

  const standings = new Map<SnapshotId, Standing>();
  for (const snapshot of known) {
    if (snapshot.state === "unreadable") standings.set(snapshot.id, "damaged");
    if (snapshot.state !== "present") continue;
    const missing = snapshot.needs.flatMap((id) => whyLacking(id) ?? []);
    if (missing.length > 0) {
      const more = missing.length > 1 ? `, and ${missing.length - 1} more` : "";
      faults.push({ id: snapshot.id, kind: "needs", problem: `it needs ${missing[0]}${more}` });
    }
    standings.set(snapshot.id, standingOf(snapshot, byId, missing.length > 0 || own.has(snapshot.id)));
  }
  faults.push(...linkFaults(known, byId), ...datingFaults(known, lateHoursMax));
  return { standings, faults };

  /** Why a needed snapshot is of no use, or undefined if it is. */
  function whyLacking(id: SnapshotId): string | undefined {
    const needed = byId.get(id);
    if (!needed) return `${id}, which never came`;
    if (needed.state === "removing" || needed.state === "removed") return `${id}, which was removed`;
    const fault = own.get(id);
    // Nobody reads another's manifest.
    if (!fault || fault.kind === "part" && !needed.isDamagedForOthers) return undefined;
    return `${id}, which is ${needed.state === "gone" ? "gone" : "damaged"}`;
  }
}

function ownFault(snapshot: KnownSnapshot, signers: ReadonlySet<string>): Fault | undefined {
  const { id, state, signer, sealProblem, damage } = snapshot;
  if (state === "removing" || state === "removed") return undefined;
  if (state === "gone") return { id, kind: "gone", problem: "it was here, and this host did not remove it" };
  if (state === "unreadable") return { id, kind: "seal", problem: sealProblem ?? "its seal cannot be read" };
  if (signer === undefined) {
    return { id, kind: "signature", problem: sealProblem ?? "its seal is not signed" };
  }
  if (sealProblem !== undefined) return { id, kind: "changed", problem: sealProblem };
  if (!signers.has(signer)) {
    return { id, kind: "signature", problem: `it is signed by ${signer}, which may not sign for this hub` };
  }
  return damage === undefined ? undefined : { id, kind: "part", problem: damage };
}

function standingOf(
  snapshot: KnownSnapshot,
  byId: ReadonlyMap<SnapshotId, KnownSnapshot>,
  isDamaged: boolean,
): Standing {
  if (isDamaged) return "damaged";
  if (snapshot.suspicions.length > 0) return "suspect";
  const unread = snapshot.readMs === undefined ||
    snapshot.needs.some((id) => byId.get(id)?.readMs === undefined);
  return unread ? "unread" : "good";
}

/** Compares what each seal says of the one before with what this host saw of that. */
function linkFaults(
  known: readonly KnownSnapshot[],
  byId: ReadonlyMap<SnapshotId, KnownSnapshot>,
): Fault[] {
  const oldest = known.reduce<SnapshotId | undefined>(
    (first, { id }) => first === undefined || id < first ? id : first,
    undefined,
  );
  const faults: Fault[] = [];
  const followers = new Map<SnapshotId, SnapshotId>();
  for (const { id, state, previous } of known) {
    if (state !== "present" || previous === null) continue;
    const before = byId.get(previous.id);
    const fault = (kind: "link" | "fork", problem: string) => faults.push({ id, kind, problem });
    if (previous.id >= id) fault("link", `it says that it follows ${previous.id}, which is not older`);
    else if (!before) {
      // What came before this host was set up, it cannot have seen.
      if (id !== oldest) fault("link", `it follows ${previous.id}, which never came`);
    } else if (before.checksum !== undefined && before.checksum !== previous.sha256) {
      fault(
        "link",
        `it follows ${previous.id} with seal ${previous.sha256}, and the one seen here is ${before.checksum}`,
      );
    }
    const other = followers.get(previous.id);
    if (other === undefined) followers.set(previous.id, id);
    else {fault(
        "fork",
        `${other} follows ${previous.id} too: the hub was set back, or its key is in two hands`,
      );}
  }
  return faults;
}

function datingFaults(known: readonly KnownSnapshot[], lateHoursMax: number): Fault[] {
  return known.flatMap(({ id, state, firstSeenMs }): Fault[] => {
    if (state !== "present" || firstSeenMs === undefined) return [];
    const aheadMs = timeOfSnapshotId(id).getTime() - firstSeenMs;
    if (aheadMs <= 0 || isTimely(id, firstSeenMs, lateHoursMax)) return [];
    const problem = `it is dated ${Math.round(aheadMs / HOUR_MS)} hours after it came`;
    return [{ id, kind: "future", problem }];
  });
}

/** Why a clock is in doubt, or undefined if it is not. */
export function clockDoubt(
  nowMs: number,
  lastMs: number | undefined,
  gapDaysMax: number,
): string | undefined {
  if (lastMs === undefined) return undefined;
  const minutes = Math.round((nowMs - lastMs) / 60_000);
  if (minutes < -CLOCK_BACK_MINUTES_MAX) {
    return `this host's clock is ${formatDuration(-minutes * 60)} behind an earlier run`;
  }
  if (minutes > gapDaysMax * 24 * 60) {
    return `this host's clock is ${formatDuration(minutes * 60)} ahead of the last run`;
  }
  return undefined;
}

/** How far a clock may be set back without a word. */
const CLOCK_BACK_MINUTES_MAX = 10;

/** The newest good snapshot of a set, with the time that counts for it. */
export interface NewestGood {
  readonly snapshot: KnownSnapshot;
  /** When it was taken, or when it came if it claims to be from later. */
  readonly timeMs: number;
}

/**
 * Finds the newest of the snapshots with one of these standings. Those from the future are passed over: they say
 * nothing about when they were taken.
 */
export function newestOf(
  known: readonly KnownSnapshot[],
  standings: Assessment["standings"],
  wanted: readonly Standing[],
): NewestGood | undefined {
  let newest: NewestGood | undefined;
  for (const snapshot of known) {
    const standing = standings.get(snapshot.id);
    if (standing === undefined || !wanted.includes(standing)) continue;
    const { firstSeenMs } = snapshot;
    const takenMs = timeOfSnapshotId(snapshot.id).getTime();
    if (firstSeenMs !== undefined && !isTimely(snapshot.id, firstSeenMs, Infinity)) continue;
    const timeMs = Math.min(takenMs, firstSeenMs ?? takenMs);
    if (newest === undefined || timeMs > newest.timeMs) newest = { snapshot, timeMs };
  }
  return newest;
}

/**
 * Whether the hub should start a new chain: what it would build on, the newest snapshot that it signed, cannot be
 * restored from here. What others put there does not count, or they could make the hub send fulls for ever.
 */
export function wantsFull(
  known: readonly KnownSnapshot[],
  standings: Assessment["standings"],
  signers: ReadonlySet<string>,
): boolean {
  const its = known.filter(({ signer }) => signer !== undefined && signers.has(signer));
  const newest = newestOf(its, standings, ["good", "unread", "suspect", "damaged"]);
  return newest !== undefined && standings.get(newest.snapshot.id) === "damaged";
}
