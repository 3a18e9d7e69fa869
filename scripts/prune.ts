/**
 * Makes room in the hub's own store, for a run that found none: `encrypt` lets go of old snapshots at its end only.
 *
 * Sees the set's folder in the store and the records of what was shipped. Has no network, starts no program.
 *
 * @module
 */

import type { Config } from "./core/config/config.ts";
import { formatCounted } from "./core/format.ts";
import type { SetName } from "./core/names.ts";
import type { Host } from "./host/host.ts";
import { serveStep } from "./host/steps/step.ts";
import { prepareStore, pruneStore } from "./host/store/local_store.ts";
import { setIn } from "./host/store/store.ts";

/**
 * Removes what a run that did not finish left in the store, and snapshots that are older than `localKeepDays` and that
 * every destination holds.
 *
 * @returns Whether anything was removed.
 */
export function prune(host: Host, config: Config, set: SetName): boolean {
  const stored = setIn(config.store, config.hub, set);
  const leftOver = prepareStore(host, stored);
  const removed = pruneStore(host, config, set, stored);
  if (removed.length > 0) {
    host.report.info(
      `for want of room, ${formatCounted(removed.length, "old snapshot")} of set ${set} went first`,
    );
  }
  return leftOver || removed.length > 0;
}

serveStep<{ config: Config; set: SetName }>(
  import.meta,
  ({ config, set }, { host }) => prune(host, config, set),
);
