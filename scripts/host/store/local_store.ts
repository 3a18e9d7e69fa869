/**
 * The set's folder in the hub's own store: where snapshots appear whole, and where old ones are let go of.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { reasonAndRemedy } from "../../core/errors.ts";
import { INCOMING_PREFIX, type SetName, type SnapshotId } from "../../core/names.ts";
import { parentOf } from "../../core/paths.ts";
import { prunable } from "../../core/snapshot/chain.ts";
import { attempt, diskError, makeFolderDurably, removeIfThere } from "../fs.ts";
import type { Fs, Host } from "../host.ts";
import { confirmedIds } from "../records/ship_records.ts";
import { isSealed, readSetIfThere, type StoredSet } from "./store.ts";

/**
 * Makes the folder if need be, and removes what a run that did not finish left there. What cannot be removed, such as another
 * user's files, is told and stays: it is in no snapshot's way.
 *
 * @returns Whether anything was removed.
 */
export function prepareStore({ fs, report }: Pick<Host, "fs" | "report">, { folder }: StoredSet): boolean {
  makeFolderDurably(fs, folder, 0o750);
  const left = fs.readDir(folder).filter(({ name }) => name.startsWith(INCOMING_PREFIX));
  return left.filter(({ name }) => {
    const path = `${folder}/${name}`;
    try {
      attempt(`remove ${path}`, () => removeIfThere(fs, path));
      return true;
    } catch (error) {
      report.warn(reasonAndRemedy(error));
      return false;
    }
  }).length > 0;
}

/** Makes the snapshot that is whole in `incoming` appear under its name, in one rename. */
export function publish(fs: Fs, incoming: string, final: string): void {
  try {
    fs.syncFolder(incoming);
    fs.rename(incoming, final);
    fs.syncFolder(parentOf(final));
  } catch (error) {
    throw diskError(`publish ${final}`, error);
  }
}

/**
 * Lets go of old snapshots that every destination holds, with the very seals that are here, dependents before what they
 * need: a crash in between leaves nothing that cannot be restored. Each is renamed first, so that it is gone at once or
 * not at all.
 *
 * @returns Which.
 */
export function pruneStore(host: Host, config: Config, set: SetName, stored: StoredSet): SnapshotId[] {
  const local = readSetIfThere(host.fs, stored).filter(isSealed).map(({ sealed }) => sealed);
  const checksums = new Map(local.map(({ seal, checksum }) => [seal.id, checksum]));
  const confirmed = confirmedIds(host, config, set, (id) => checksums.get(id));
  if (confirmed.size === 0) return [];
  const ids = prunable(
    local.map(({ seal }) => seal),
    (id) => confirmed.has(id),
    host.now(),
    config.localKeepDays,
  ).reverse();
  for (const id of ids) {
    const removing = `${stored.folder}/${INCOMING_PREFIX}${id}`;
    host.fs.rename(`${stored.folder}/${id}`, removing);
    removeIfThere(host.fs, removing);
  }
  return ids;
}
