/**
 * The steps as the fault matrix runs them: each on a folder that holds all it needs, in this process or in a child's.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Config, parseConfig } from "../../scripts/core/config/config.ts";
import { BackupError } from "../../scripts/core/errors.ts";
import { type HubName, MAIN_SET, type SnapshotId } from "../../scripts/core/names.ts";
import { parseStorageConfig } from "../../scripts/core/storage_host/storage_config.ts";
import { encrypt } from "../../scripts/encrypt.ts";
import type { Fs, Host } from "../../scripts/host/host.ts";
import { readKeys } from "../../scripts/host/keys/keys.ts";
import type { Opening } from "../../scripts/host/restore/open_snapshot.ts";
import { sourceThreadOf } from "../../scripts/host/restore/part_source.ts";
import { makeScratch } from "../../scripts/host/scratch.ts";
import { readStagedChecks } from "../../scripts/host/snapshot/staging.ts";
import {
  isSealed,
  problemWithPart,
  readSet,
  readSetIfThere,
  readSignature,
  setIn,
} from "../../scripts/host/store/store.ts";
import { restore, restoreInPlace } from "../../scripts/restore.ts";
import { scrub } from "../../scripts/scrub.ts";
import { ship } from "../../scripts/ship.ts";
import { check, snapshot } from "../../scripts/snapshot.ts";
import { verify } from "../../scripts/verify.ts";
import { namesIn } from "../real/files.ts";
import { retainAll } from "../real/signed_store.ts";

/** A step: it throws when it fails, also where the program would report a failure and end with its exit code. */
export type Step = (host: Host, dir: string) => Promise<void>;

/** The configuration of the home in `dir` (see real/home.ts). */
export function configIn(dir: string): Config {
  const path = `${dir}/op/.config/hapi-backup/config.json`;
  return parseConfig(Deno.readTextFileSync(path), path, { home: `${dir}/op`, hostname: "home", env: {} });
}

/** The configuration of the storage host in `dir`. */
export const storageConfigIn = (dir: string) =>
  parseStorageConfig(Deno.readTextFileSync(`${dir}/storage.json`), `${dir}/storage.json`);

async function opening(host: Host, dir: string, work: (opening: Opening) => Promise<void>): Promise<void> {
  const config = configIn(dir);
  const keys = await readKeys(host, config, { identity: `${dir}/identity.txt` });
  using thread = sourceThreadOf(host);
  await work({ host, set: setIn(config.store, config.hub, MAIN_SET), ...keys, sources: thread?.start });
}

/** Ids of what is sealed in a store; all of it must be whole and signed, and `complete` with all that it needs. */
export function wholeIds(fs: Fs, store: string, complete = true): SnapshotId[] {
  const sealed = readSetIfThere(fs, setIn(store, "home" as HubName, MAIN_SET)).filter(isSealed);
  const ids = sealed.map(({ id }) => id);
  for (const snapshot of sealed) {
    const { id, folder, sealed: { seal } } = snapshot;
    for (const part of seal.parts) {
      assert.equal(problemWithPart(fs, folder, part), undefined, `${id}: ${part.name}`);
    }
    for (const needed of complete ? seal.needs : []) assert.ok(ids.includes(needed), `${id} needs ${needed}`);
    assert.match(readSignature(fs, snapshot), /END SSH SIGNATURE/);
  }
  return ids;
}

/** The newest snapshot of the store. */
const newestIn = ({ set }: Opening): SnapshotId => namesIn(set.folder).at(-1) as SnapshotId;

export const STEPS = {
  async snapshot(host, dir) {
    const config = configIn(dir);
    const staged = await snapshot(host, config, { set: MAIN_SET });
    await check(host, config, staged);
  },
  async encrypt(host, dir) {
    const config = configIn(dir);
    const checks = readStagedChecks(host.fs, `${config.stateFolder}/${MAIN_SET}`, MAIN_SET);
    const { suspicions } = await encrypt(host, config, { set: MAIN_SET }, Promise.resolve(checks));
    if (suspicions.length > 0) throw new BackupError(suspicions[0]!.detail, { kind: "source" });
  },
  async ship(host, dir) {
    const retry = () => ({ attempts: 1, random: () => 0, sleep: () => Promise.resolve() });
    const shipped = await ship(host, configIn(dir), { retry });
    const [report] = shipped.destinations;
    const [problem] = report!.errors;
    if (problem) throw new BackupError(problem.message, problem as { kind: "disk" });
    const here = shipped.unread[0] ?? shipped.damaged[0];
    if (here) throw new BackupError(`Cannot ship: ${here.problem}`, { kind: "integrity" });
    if (report!.waiting.length > 0) throw new Error("something waits, and nothing is said of it");
  },
  async "restore in place"(host, dir) {
    await opening(host, dir, async (opening) => {
      await restoreInPlace(opening, configIn(dir), newestIn(opening));
    });
  },
  async "restore to a folder"(host, dir) {
    await opening(host, dir, async (opening) => {
      await restore(opening, newestIn(opening), `${dir}/out`);
    });
  },
  async verify(host, dir) {
    await opening(host, dir, async (opening) => {
      const seals = readSet(host.fs, opening.set).filter(isSealed);
      using scratch = makeScratch(host, `${dir}/scratch`);
      const checks = await verify(opening, seals, newestIn(opening), scratch.path);
      const failed = checks.find(({ ok }) => !ok);
      if (failed) throw new BackupError(`Cannot vouch: ${failed.detail}`, { kind: "integrity" });
    });
  },
  async retain(host, dir) {
    const { sets, clockDoubt } = await retainAll(host, storageConfigIn(dir), { apply: true });
    const [set] = sets;
    if (clockDoubt) throw new BackupError(`Cannot remove: ${clockDoubt}`, { kind: "clock" });
    if (set?.problem) throw new BackupError(`Cannot remove: ${set.problem}`, { kind: "disk" });
    if (set?.refused[0]) throw new BackupError(`Cannot remove: ${set.refused[0]}`, { kind: "integrity" });
  },
  async scrub(host, dir) {
    const report = await scrub(host, storageConfigIn(dir));
    if (report.ok) return;
    const [damage] = report.damage.items;
    const problem = damage?.problem ?? report.unreadable[0]?.reason;
    throw new BackupError(`Cannot call it whole: ${problem}`, { kind: "integrity" });
  },
} as const satisfies Record<string, Step>;

export type StepName = keyof typeof STEPS;
