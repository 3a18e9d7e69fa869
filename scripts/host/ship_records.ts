/**
 * What `ship` leaves for `encrypt` and `status`: which snapshots each destination has confirmed, and whether the far
 * side lacks something that only a new full can make good.
 *
 * @module
 */

import type { Config } from "../core/config.ts";
import { isSnapshotId, type SetName, type SnapshotId } from "../core/names.ts";
import { readTextIfThere } from "./fs.ts";
import type { Host } from "./host.ts";

/** The folder of `ship`: its lock, its records, its markers. */
export const shipFolder = (stateFolder: string): string => `${stateFolder}/ship`;

/** Snapshots of a set that every destination has confirmed; none where there is no destination. */
export function confirmedIds(host: Pick<Host, "fs">, config: Config, set: SetName): ReadonlySet<SnapshotId> {
  const [first, ...others] = config.destinations.map(({ name }) => {
    const record = readJson(host, `${shipFolder(config.stateFolder)}/${name}.json`) as
      | { sets?: Record<string, Record<string, unknown>> }
      | undefined;
    return new Set(Object.keys(record?.sets?.[set] ?? {}).filter(isSnapshotId));
  });
  return new Set([...first ?? []].filter((id) => others.every((other) => other.has(id))));
}

/** Since when (the newest snapshot at that time) a new full is wanted, and why. */
export function fullWantedSince(
  host: Pick<Host, "fs">,
  config: Config,
  set: SetName,
): { readonly since: SnapshotId; readonly reason: string } | undefined {
  const marker = readJson(host, `${shipFolder(config.stateFolder)}/full-wanted-${set}`) as
    | { since?: unknown; reason?: unknown }
    | undefined;
  return typeof marker?.since === "string" && isSnapshotId(marker.since)
    ? { since: marker.since, reason: String(marker.reason) }
    : undefined;
}

/** Our own file, replaced whole each time: what cannot be read is as good as none. */
function readJson(host: Pick<Host, "fs">, path: string): unknown {
  const text = readTextIfThere(host.fs, path);
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
