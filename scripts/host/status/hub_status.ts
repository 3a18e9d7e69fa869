/**
 * How a hub's backups stand, as the hub itself sees it: what `status`, `report`, `doctor` and `notify` tell.
 *
 * Needs no key, and cannot read one.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { setFolder, shipFolder } from "../../core/config/state_paths.ts";
import { reasonOf } from "../../core/errors.ts";
import { type SetName, type SnapshotId, timeOfSnapshotId } from "../../core/names.ts";
import type { SetReceipt } from "../../core/shipping/receipt.ts";
import { isGood, type Seal, sealedBytes, type Suspicion } from "../../core/snapshot/seal.ts";
import { readKeptReceipt } from "../destinations/far_receipt.ts";
import { knownError } from "../fs.ts";
import type { Host } from "../host.ts";
import { type Drill, isDrillOf, readDrills } from "../records/drill_log.ts";
import { readMemory } from "../records/memory.ts";
import { readShipRecords } from "../records/ship_records.ts";
import { readSeals, setIn } from "../store/store.ts";

/** One set, as its hub sees it. */
export interface SetStatus {
  readonly set: SetName;
  /** The newest good snapshot; undefined if there is none. */
  readonly newest: SnapshotId | undefined;
  readonly ageSeconds: number | undefined;
  readonly maxAgeHours: number;
  /** Whether the newest good snapshot is missing or past its limit. */
  readonly stale: boolean;
  /** A newer snapshot that does not count as good. */
  readonly suspect: SnapshotId | undefined;
  /** Why it does not. */
  readonly suspicions: readonly Suspicion[];
  /** Snapshots in the local store, and their size in bytes. */
  readonly snapshots: number;
  readonly bytes: number;
  /** Snapshots on which the newest one builds. */
  readonly chain: number;
  /** Rows by table, by database, of the last snapshot. */
  readonly rows: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly destinations: readonly {
    readonly name: string;
    /** Whether it counts as off this machine, as the last shipping found. */
    readonly offBox: boolean;
    /** The newest snapshot that it has confirmed, and the local ones that it has not. */
    readonly newest: SnapshotId | undefined;
    readonly waiting: readonly SnapshotId[];
    /** What the storage host itself verified, and when it said so. */
    readonly receipt: { readonly time: Date; readonly set: SetReceipt } | undefined;
  }[];
  readonly drill: Drill | undefined;
}

/** What to do about a set, or `all`, without a good snapshot that is new enough. */
export const staleRemedy = (set: string): string =>
  `run \`hapi-backup backup --set ${set}\`, and look at the log of its timer`;

/** The seals in the hub's own store, oldest first: all that is told of a set begins with them. */
export type SealsBySet = ReadonlyMap<SetName, readonly Seal[]>;

/** Reads the seals of every set. One whose folder cannot be read is as good as empty: of the others all is told. */
export function readSealsBySet({ fs, report }: Host, { sets, store, hub }: Config): SealsBySet {
  const sealsOf = (set: SetName): Seal[] => {
    const stored = setIn(store, hub, set);
    try {
      return readSeals(fs, stored);
    } catch (error) {
      if (!knownError(error)) throw error;
      report.warn(`${reasonOf(error)}; what it holds counts as not there`);
      return [];
    }
  };
  return new Map([...sets.keys()].map((set) => [set, sealsOf(set)]));
}

/** Looks at every set. */
export function status(
  host: Host,
  config: Config,
  sealsBySet: SealsBySet = readSealsBySet(host, config),
): SetStatus[] {
  const records = readShipRecords(host, config);
  const drills = readDrills(host.fs, config.stateFolder);
  return [...config.sets].map(([set, { maxAgeHours }]): SetStatus => {
    const seals = sealsBySet.get(set)!;
    const good = seals.findLast(isGood);
    const ageSeconds = good && (host.now().getTime() - timeOfSnapshotId(good.id).getTime()) / 1000;
    const memory = readMemory(host, setFolder(config.stateFolder, set));
    const isNeverTaken = seals.length === 0 && memory === undefined;
    const last = seals.at(-1);
    return {
      set,
      newest: good?.id,
      ageSeconds,
      maxAgeHours,
      // A set of which nothing was ever taken, beside one of which something was, has perhaps nothing to save.
      stale: ageSeconds === undefined
        ? !isNeverTaken || set === config.sets.keys().next().value
        : ageSeconds > maxAgeHours * 3600,
      suspect: last && !isGood(last) ? last.id : undefined,
      suspicions: last?.suspicions ?? [],
      snapshots: seals.length,
      bytes: seals.reduce((sum, seal) => sum + sealedBytes(seal), 0),
      chain: last?.needs.length ?? 0,
      rows: Object.fromEntries(
        memory?.manifest.databases.map((database) => [database.source, database.rows]) ?? [],
      ),
      destinations: records.map(({ destination, offBox, confirmed }) => ({
        name: destination,
        offBox,
        newest: seals.findLast(({ id }) => confirmed.has(`${set}/${id}`))?.id,
        waiting: seals.filter(({ id }) => !confirmed.has(`${set}/${id}`)).map(({ id }) => id),
        receipt: receiptOf(host, config, destination, set),
      })),
      drill: drills.findLast((drill) => drill.set === set && isDrillOf(config.hub, drill)),
    };
  });
}

function receiptOf(
  host: Host,
  config: Config,
  name: string,
  set: SetName,
): SetStatus["destinations"][number]["receipt"] {
  const destination = config.destinations.find((candidate) => candidate.name === name);
  if (destination?.kind !== "rsync") return undefined;
  const receipt = readKeptReceipt(host, destination, config.hub, shipFolder(config.stateFolder));
  const ofSet = receipt?.sets.get(set);
  return receipt && ofSet && { time: receipt.time, set: ofSet };
}
