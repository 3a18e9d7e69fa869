/**
 * Asks SQLite whether the staged images are sound, and puts them on the disk. Runs beside `encrypt`, on the other core.
 *
 * Sees the set's staging folder only.
 *
 * @module
 */

import type { Config } from "./core/config/config.ts";
import { setFolder } from "./core/config/state_paths.ts";
import type { SetName } from "./core/names.ts";
import type { DatabaseChecks } from "./core/snapshot/manifest.ts";
import { attempt, syncBeside } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { readStaged, type StagedChecks, writeStagedChecks } from "./host/snapshot/staging.ts";
import { checkImage } from "./host/sqlite.ts";
import { serveStep } from "./host/steps/step.ts";

/** Checks every staged image, and leaves the result beside them once they are on the disk: it vouches for both. */
export async function check(host: Host, config: Config, set: SetName): Promise<StagedChecks> {
  const folder = setFolder(config.stateFolder, set);
  const checks: Record<string, DatabaseChecks> = {};
  for (const { source, copy } of readStaged(host.fs, folder, set).databases) {
    host.checkpoint();
    if (!copy) continue;
    using file = attempt(`read ${copy.image}`, () => host.fs.open(copy.image, { read: true }));
    const synced = syncBeside(file, copy.image);
    try {
      checks[source] = checkImage(host, copy.image, `check ${source}`);
    } finally {
      await synced;
    }
  }
  writeStagedChecks(host.fs, folder, checks);
  return checks;
}

serveStep<{ config: Config; set: SetName }>(
  import.meta,
  ({ config, set }, { host }) => check(host, config, set),
);
