/**
 * The hub's own view: the newest good snapshot of each set, how old it is, what is not off this machine, the last drill.
 *
 * Needs no key, and cannot read one.
 *
 * @module
 */

import type { Config } from "./core/config.ts";
import { BackupError } from "./core/errors.ts";
import { formatBytes, formatCount, formatDuration, formatTime } from "./core/format.ts";
import { type SetName, type SnapshotId, timeOfSnapshotId } from "./core/names.ts";
import { isGood, type Seal, sealedBytes } from "./core/seal.ts";
import { type Drill, readDrills } from "./host/drill_log.ts";
import type { Host } from "./host/host.ts";
import { readMemory, setFolder } from "./host/memory.ts";
import { readShipRecords } from "./host/ship_records.ts";
import { serveStep } from "./host/step.ts";
import { isSealed, readSetIfThere, setIn } from "./host/store.ts";

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
  /** Snapshots in the local store, and their size in bytes. */
  readonly snapshots: number;
  readonly bytes: number;
  /** Snapshots on which the newest one builds. */
  readonly chain: number;
  /** Rows by table, by database, of the last snapshot. */
  readonly rows: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly destinations: readonly {
    readonly name: string;
    /** The newest snapshot that it has confirmed, and the local ones that it has not. */
    readonly newest: SnapshotId | undefined;
    readonly waiting: readonly SnapshotId[];
  }[];
  readonly drill: Drill | undefined;
}

/** Looks at every set. */
export function status(host: Host, config: Config): SetStatus[] {
  const records = readShipRecords(host, config);
  const drills = readDrills(host.fs, config.stateFolder);
  return [...config.sets].map(([set, { maxAgeHours }]): SetStatus => {
    const seals = readSetIfThere(host.fs, setIn(config.store, config.hub, set)).filter(isSealed)
      .map(({ sealed }): Seal => sealed.seal);
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
      snapshots: seals.length,
      bytes: seals.reduce((sum, seal) => sum + sealedBytes(seal), 0),
      chain: last?.needs.length ?? 0,
      rows: Object.fromEntries(
        memory?.manifest.databases.map((database) => [database.source, database.rows]) ?? [],
      ),
      destinations: records.map(({ destination, confirmed }) => ({
        name: destination,
        newest: seals.findLast(({ id }) => confirmed.has(`${set}/${id}`))?.id,
        waiting: seals.filter(({ id }) => !confirmed.has(`${set}/${id}`)).map(({ id }) => id),
      })),
      drill: drills.findLast((drill) => drill.set === set),
    };
  });
}

/** The status for a person. */
export function describeStatus(sets: readonly SetStatus[], now: Date): string {
  return sets.map((set) => {
    const lines = [
      set.newest === undefined
        ? `${set.set}: NO GOOD SNAPSHOT`
        : `${set.set}: newest good snapshot ${formatTime(timeOfSnapshotId(set.newest))}, ${
          formatDuration(set.ageSeconds!)
        } ago${set.stale ? ` - TOO OLD (limit ${set.maxAgeHours} h)` : ""}`,
      ...set.suspect ? [`  SUSPECT: ${set.suspect} is newer, and does not count as good`] : [],
      ...Object.entries(set.rows).map(([source, { sessions, messages, ...others }]) => {
        const named = [
          ...sessions === undefined ? [] : [`${formatCount(sessions)} sessions`],
          ...messages === undefined ? [] : [`${formatCount(messages)} messages`],
        ];
        const rest = Object.values(others).reduce((sum, count) => sum + count, 0);
        return `  ${source}: ${
          [...named, `${formatCount(rest)} ${named.length > 0 ? "other " : ""}rows`].join(", ")
        }`;
      }),
      `  here: ${set.snapshots} snapshots, ${formatBytes(set.bytes)}; the newest builds on ${set.chain}`,
      ...set.destinations.length === 0 ? ["  NOTHING IS OFF THIS MACHINE: no destination is configured"] : [],
      ...set.destinations.map(({ name, newest, waiting }) =>
        `  ${name}: ${newest ? `holds ${formatTime(timeOfSnapshotId(newest))}` : "HOLDS NOTHING"}${
          waiting.length > 0 ? `, ${waiting.length} WAITING` : ""
        }`
      ),
      set.drill
        ? `  last drill: ${formatTime(new Date(set.drill.at))}, ${
          formatDuration((now.getTime() - Date.parse(set.drill.at)) / 1000)
        } ago, ${set.drill.ok ? "proven" : "FAILED"}`
        : "  last drill: NEVER (hapi-backup verify)",
    ];
    return lines.join("\n");
  }).join("\n");
}

serveStep<{ config: Config; json: boolean }>(import.meta, ({ config, json }, { host, print }) => {
  const sets = status(host, config);
  const stale = sets.filter((set) => set.stale);
  print(json ? JSON.stringify({ ok: stale.length === 0, sets }) : describeStatus(sets, host.now()));
  if (stale.length > 0) {
    throw new BackupError(
      `Cannot call this safe: set ${
        stale.map(({ set }) => set).join(", ")
      } has no good snapshot that is new enough`,
      { kind: "stale", hint: "run `hapi-backup backup`, and look at the log of its timer" },
    );
  }
  return Promise.resolve(undefined);
});
