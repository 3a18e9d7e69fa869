/**
 * Chains: when a new one starts, and what depends on what.
 *
 * @module
 */

import type { SetConfig } from "../config/config.ts";
import { formatCounted } from "../format.ts";
import { type SnapshotId, snapshotIdAt, timeOfSnapshotId } from "../names.ts";
import { DAY_MS } from "../time.ts";
import { isGood, type Seal } from "./seal.ts";

/**
 * Says why the next snapshot has to be a full, or undefined if an increment on `chain.parent` will do.
 *
 * @param chain The snapshot that an increment would build on, what that needs, oldest first, and how many links there are;
 * undefined if there is none.
 * @param isHeld Whether a snapshot is still somewhere: in the local store or confirmed on a destination.
 */
export function fullReason(
  set: Pick<SetConfig, "fullEveryDays" | "chainLengthMax">,
  chain:
    | { readonly parent: SnapshotId; readonly needs: readonly SnapshotId[]; readonly length: number }
    | undefined,
  now: Date,
  isHeld: (id: SnapshotId) => boolean,
): string | undefined {
  if (!chain) return "there is no snapshot to build on";
  const root = chain.needs[0] ?? chain.parent;
  if (now.getTime() - timeOfSnapshotId(root).getTime() >= set.fullEveryDays * DAY_MS) {
    return `the last full is ${formatCounted(set.fullEveryDays, "day")} old or more`;
  }
  if (chain.length >= set.chainLengthMax) return `the chain has ${chain.length} snapshots`;
  const lost = [...chain.needs, chain.parent].find((id) => !isHeld(id));
  if (lost) return `${lost}, which it would need, is in no store`;
  return undefined;
}

/**
 * Snapshots that the local store can let go: older than `keepDays`, confirmed elsewhere, and needed by none that stays.
 * The newest chain always stays, whole: it is what the next increment builds on, and what a quick restore reads. So does
 * the newest good snapshot: what comes after it may be suspect for as long as a file cannot be read.
 *
 * @param isConfirmed Whether every destination has confirmed the snapshot.
 */
export function prunable(
  seals: readonly Pick<Seal, "id" | "needs" | "suspicions">[],
  isConfirmed: (id: SnapshotId) => boolean,
  now: Date,
  keepDays: number,
): SnapshotId[] {
  const limit = snapshotIdAt(new Date(now.getTime() - keepDays * DAY_MS));
  const newest = new Set([seals.at(-1), seals.findLast(isGood)]);
  const kept = seals.filter((seal) => newest.has(seal) || seal.id >= limit || !isConfirmed(seal.id));
  const needed = new Set(kept.flatMap(({ id, needs }) => [id, ...needs]));
  return seals.map(({ id }) => id).filter((id) => !needed.has(id));
}
