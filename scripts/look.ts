/**
 * Looks into snapshots: the sessions in each, and its manifest, which lists its files and counts its rows.
 *
 * Each database is rebuilt in scratch, readable by its owner only, and removed before the next.
 *
 * @module
 */

import type { SnapshotId } from "./core/names.ts";
import type { Look } from "./core/sessions/comparison.ts";
import { isGood } from "./core/snapshot/seal.ts";
import { hasSessions, openSetOf, readSessions, rebuildSessions } from "./host/restore/chosen_snapshot.ts";
import { type Opening, openManifest, openSeal } from "./host/restore/open_snapshot.ts";
import { makeScratch } from "./host/scratch.ts";
import { readSchema } from "./host/sessions/schema.ts";
import type { LookJob, LookReport } from "./host/sessions/session_jobs.ts";
import { listSessions } from "./host/sessions/session_list.ts";
import { openDatabase } from "./host/sqlite.ts";
import { serveStep } from "./host/steps/step.ts";

/** Looks into one snapshot. @param scratch Folder for scratch folders. */
export async function look(opening: Opening, id: SnapshotId, scratch: string): Promise<Look> {
  const { host } = opening;
  const manifest = await openManifest(opening, openSeal(opening, id));
  // A set without a hub's database, such as one of recordings, has files only.
  if (!manifest.databases.some(hasSessions)) return { manifest, sessions: [] };
  using folder = makeScratch(host, scratch);
  const database = await rebuildSessions(opening, manifest, folder.path);
  using opened = openDatabase(host.fs, database.image);
  const sessions = readSessions(host, database, () => listSessions(opened.db, readSchema(opened.db)));
  return { manifest, sessions };
}

serveStep<LookJob>(import.meta, async (job, { host }): Promise<LookReport> => {
  await using set = await openSetOf(host, job);
  const ids: SnapshotId[] = [];
  // All are named rightly before the first is rebuilt.
  for (const which of job.which) ids.push(await set.choose(which));
  const looks: Look[] = [];
  for (const id of ids) looks.push(await look(set.opening, id, job.store.scratch));
  const snapshots = set.snapshots.map(({ id, sealed }) => ({ id, isSuspect: !isGood(sealed.seal) }));
  return { snapshots, looks };
});
