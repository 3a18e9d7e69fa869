/**
 * What `ship` leaves for `encrypt` and `status`: which snapshots each destination has confirmed, and whether the far
 * side lacks something that only a new full can make good.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { fullWantedFile, shipRecordFile } from "../../core/config/state_paths.ts";
import { isSnapshotId, type SetName, type SnapshotId, snapshotIdAt } from "../../core/names.ts";
import { type Confirmation, isAbout, isOffBox, type SnapshotKey } from "../../core/shipping/shipping.ts";
import { lstatIfThere, readTextIfThere } from "../fs.ts";
import type { Host } from "../host.ts";

/** What a destination has confirmed. */
export interface ShipRecord {
  readonly destination: string;
  /** Whether it was off this machine when it was last shipped to; true where nothing ever was. */
  readonly offBox: boolean;
  /** By `<set>/<id>`. */
  readonly confirmed: ReadonlyMap<string, Pick<Confirmation, "sealSha256" | "confirmedAt">>;
}

/** The records of all destinations. One that cannot be read, or is about another place, is as good as none. */
export function readShipRecords(host: Pick<Host, "fs">, config: Config): ShipRecord[] {
  return config.destinations.map((configured) => {
    const { name } = configured;
    const confirmed = new Map<string, Pick<Confirmation, "sealSha256" | "confirmedAt">>();
    let offBox = true;
    try {
      const text = readTextIfThere(host.fs, shipRecordFile(config.stateFolder, name));
      const { where = "", confirmed: told = {} } = JSON.parse(text ?? "{}") as {
        where?: string;
        confirmed?: Record<string, { sealSha256: string; confirmedAt: string }>;
      };
      if (isAbout(where, configured)) {
        offBox = isOffBox(where);
        for (const [key, { sealSha256, confirmedAt }] of Object.entries(told)) {
          confirmed.set(key, { sealSha256, confirmedAt });
        }
      }
    } catch { /* The next ship makes it anew. */ }
    return { destination: name, offBox, confirmed };
  });
}

/** A snapshot that a destination has confirmed. */
export interface Confirmed {
  readonly key: SnapshotKey;
  /** By the hub's clock. */
  readonly confirmedAt: Date;
}

/** The snapshot that a destination confirmed last. */
export function lastConfirmed(
  host: Pick<Host, "fs">,
  config: Config,
  destination: string,
): Confirmed | undefined {
  const record = readShipRecords(host, config).find((each) => each.destination === destination);
  const last = [...record?.confirmed ?? []].sort(([, a], [, b]) => a.confirmedAt < b.confirmedAt ? -1 : 1).at(
    -1,
  );
  if (!last) return undefined;
  const [set, id] = last[0].split("/") as [SnapshotKey["set"], SnapshotKey["id"]];
  return { key: { set, id }, confirmedAt: new Date(last[1].confirmedAt) };
}

/**
 * Snapshots of a set that every destination has confirmed; none where none of them is off this machine: a disk that is
 * not mounted hides what was copied into its mount point as soon as it is mounted again.
 *
 * @param sealOf The SHA-256 of the seal that has to have been confirmed; any where left out.
 */
export function confirmedIds(
  host: Pick<Host, "fs">,
  config: Config,
  set: SetName,
  sealOf?: (id: SnapshotId) => string | undefined,
): ReadonlySet<SnapshotId> {
  const records = readShipRecords(host, config);
  if (!records.some(({ offBox }) => offBox)) return new Set();
  const [first, ...others] = records;
  const ids = [...first?.confirmed.keys() ?? []].filter((key) => key.startsWith(`${set}/`))
    .filter((key) => others.every(({ confirmed }) => confirmed.has(key)))
    .map((key) => key.slice(set.length + 1));
  const isSame = (id: SnapshotId) =>
    !sealOf || records.every(({ confirmed }) => confirmed.get(`${set}/${id}`)!.sealSha256 === sealOf(id));
  return new Set(ids.filter(isSnapshotId).filter(isSame));
}

/** Since when (as a snapshot id) a new full is wanted, and why. */
export function fullWantedSince(
  host: Pick<Host, "fs">,
  config: Config,
  set: SetName,
): { readonly since: SnapshotId; readonly reason: string } | undefined {
  const marker = fullWantedFile(config.stateFolder, set);
  const stat = lstatIfThere(host.fs, marker);
  const reason = readTextIfThere(host.fs, marker)?.trim();
  return stat && reason ? { since: snapshotIdAt(new Date(stat.mtimeMs)), reason } : undefined;
}
