/**
 * What the hub still knows of the snapshots that it took, from seals and from the log of runs.
 *
 * A seal tells until its snapshot leaves the local store; the log tells for years, and alone knows what was in it.
 *
 * @module
 */

import { isSnapshotId, type SnapshotId, timeOfSnapshotId } from "../names.ts";
import { isGood, type Seal, sealedBytes } from "../snapshot/seal.ts";
import type { RunContent, RunRecord } from "../status/run_record.ts";
import { isAhead } from "../time.ts";

/** A snapshot that was taken, whether it is still here or not. */
export interface Moment {
  readonly id: SnapshotId;
  readonly kind: Seal["kind"] | undefined;
  /** What it stored. */
  readonly bytes: number;
  /** Why it does not count as good; empty if it does. */
  readonly suspicions: readonly string[];
  readonly content: RunContent | undefined;
  /**
   * What a full would have stored: as much as the last full, and more or less by as much as the databases have grown
   * or shrunk since. Undefined where no full before it is known.
   */
  readonly fullBytes: number | undefined;
}

/** The snapshots of one set, oldest first, but for those of a clock that was ahead: the log tells of them for years. */
export function historyOf(seals: readonly Seal[], runs: readonly RunRecord[], now: Date): Moment[] {
  const known = new Map<SnapshotId, Omit<Moment, "fullBytes">>();
  for (const seal of seals) {
    known.set(seal.id, {
      id: seal.id,
      kind: seal.kind,
      bytes: sealedBytes(seal),
      suspicions: isGood(seal) ? [] : seal.suspicions.map(({ code, source }) => `${source}: ${code}`),
      content: undefined,
    });
  }
  for (const { snapshot, snapshotKind, bytes = 0, suspicions = [], content } of runs) {
    if (snapshot === undefined || !isSnapshotId(snapshot)) continue;
    const kind = snapshotKind ?? known.get(snapshot)?.kind;
    known.set(snapshot, { id: snapshot, kind, bytes, suspicions, content });
  }
  let full: Omit<Moment, "fullBytes"> | undefined;
  const ageSeconds = ({ id }: Pick<Moment, "id">) => (now.getTime() - timeOfSnapshotId(id).getTime()) / 1000;
  const moments = [...known.values()].filter((moment) => !isAhead(ageSeconds(moment)));
  return moments.sort((a, b) => a.id < b.id ? -1 : 1).map((moment) => {
    if (moment.kind === "full") full = moment;
    const grown = full?.content && moment.content
      ? moment.content.databaseBytes / Math.max(1, full.content.databaseBytes)
      : 1;
    return { ...moment, fullBytes: full && Math.round(full.bytes * grown) };
  });
}
