/**
 * Power loss: every state that a disk may be in after a power cut at any moment of a step is either the old store or
 * the new one, the live files are what they were, and the next run works and leaves no residue.
 */

import assert from "node:assert/strict";
import { MAIN_SET, type SnapshotId } from "../../scripts/core/names.ts";
import { HOUR_MS } from "../../scripts/core/time.ts";
import { encrypt } from "../../scripts/encrypt.ts";
import { exists, makingDurably, removeIfThere } from "../../scripts/host/fs.ts";
import type { Fs, Host } from "../../scripts/host/host.ts";
import { readStagedChecks } from "../../scripts/host/snapshot/staging.ts";
import { restore, restoreInPlace } from "../../scripts/restore.ts";
import { scrub } from "../../scripts/scrub.ts";
import { ship } from "../../scripts/ship.ts";
import { check, snapshot } from "../../scripts/snapshot.ts";
import { namesIn } from "../real/files.ts";
import { type Home, insertMessages, makeHome, output } from "../real/home.ts";
import { makeReadStorage, retainAll } from "../real/signed_store.ts";
import { keyOf, Recording, type Tree, writeTree } from "./recording_fs.ts";
import { wholeIds } from "./steps.ts";

const NOTHING = new Uint8Array();

/** A state of the disk, and when it can come about. */
interface Found {
  readonly tree: Tree;
  readonly operations: number;
}

/**
 * Looks at every state that a disk may be in after a power cut while `step` runs, with `look`.
 *
 * @param keyed The part of a tree that makes a difference; trees that agree in it are looked at once.
 * @returns How many states there were.
 */
async function forEveryState(
  recording: Recording,
  root: string,
  look: (found: Found) => Promise<void>,
  keyed: (path: string) => boolean = () => true,
): Promise<number> {
  const seen = new Set<string>();
  for (const { operations, after, states } of recording.moments()) {
    for (const { what, tree } of states) {
      const key = keyOf(
        new Map([...tree].map(([path, node]) => {
          return [path, keyed(path) ? node : { ...node, content: NOTHING }];
        })),
      );
      if (seen.has(key)) continue;
      seen.add(key);
      writeTree(root, tree);
      try {
        await look({ tree, operations });
      } catch (error) {
        throw new Error(`power lost after operation ${operations} (${after}), ${what}: ${error}`, {
          cause: error,
        });
      }
    }
  }
  return seen.size;
}

/** What a run may leave in the set's state folder and in the store. */
function assertNoResidue({ stateFolder, stored }: Home): void {
  assert.deepEqual(namesIn(`${stateFolder}/state`), ["base", "last.json", "staging"]);
  assert.deepEqual(namesIn(`${stateFolder}/state/staging`), []);
  assert.equal(namesIn(`${stateFolder}/state/base`).length, 1);
  assert.deepEqual(namesIn(stored).filter((name) => !/^\d{8}T\d{6}Z$/.test(name)), []);
}

const liveFiles = ({ home, database }: Home): Uint8Array[] =>
  [database, `${home}/.hapi/hub.env`].map((path) => Deno.readFileSync(path));

async function assertRestores(home: Home, id: SnapshotId): Promise<void> {
  const to = `${home.dir}/restored`;
  await restore(await home.opening(), id, to);
  const restored = ["hapi.db", "hub.env"].map((name) => Deno.readFileSync(`${to}/home/.hapi/${name}`));
  assert.deepEqual(restored, liveFiles(home));
  Deno.removeSync(to, { recursive: true });
}

/** A home with one snapshot of an older database in it. */
async function makeUsedHome(): Promise<Home> {
  const home = await makeHome();
  await home.backup();
  home.sql(insertMessages(20));
  home.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-another-0123456789\n");
  return home;
}

/** What is half made is removed unread by the next run: only that it is there makes a difference. */
const isRead = (path: string): boolean => !path.includes("/.incoming-") && !path.includes("/staging/");

for (const kind of ["full", "increment"] as const) {
  Deno.test(`power lost at any moment of a backup (${kind}) leaves the old store or the new one`, async () => {
    using home = await (kind === "full" ? makeHome() : makeUsedHome());
    const live = liveFiles(home);
    const before = wholeIds(home.host.fs, home.store);
    const { now } = home;
    const recording = new Recording(home.host.fs, home.dir);
    const made = await home.backup({ host: { ...home.host, fs: recording.fs } });
    assert.equal(made.kind, kind);
    const states = await forEveryState(recording, home.dir, async () => {
      const ids = wholeIds(home.host.fs, home.store);
      assert.deepEqual(ids.filter((id) => id !== made.id), before);
      home.now = new Date(now.getTime() + 12 * HOUR_MS);
      const next = await home.backup();
      assert.deepEqual(next.suspicions, []);
      if (kind === "increment") assert.notEqual(next.kind, "full", `${next.reason}`);
      assertNoResidue(home);
      await assertRestores(home, next.id);
      assert.deepEqual(liveFiles(home), live);
    }, isRead);
    assert.ok(states > 30, `${states} states`);

    writeTree(home.dir, recording.synced);
    assert.deepEqual(wholeIds(home.host.fs, home.store), [...before, made.id], "a success is on the disk");
  });
}

Deno.test("power lost between snapshot and encrypt leaves nothing staged, or all of it", async () => {
  using home = await makeUsedHome();
  home.now = new Date(home.now.getTime() + 12 * HOUR_MS);
  const config = home.config();
  const recording = new Recording(home.host.fs, home.dir);
  const host = { ...home.host, fs: recording.fs };
  const staged = await snapshot(host, config, { set: MAIN_SET });
  await check(host, config, staged);
  let encrypted = 0;
  await forEveryState(recording, home.dir, async () => {
    const made = await Promise.try(() => {
      const checks = readStagedChecks(home.host.fs, `${home.stateFolder}/state`, MAIN_SET);
      return encrypt(home.host, config, { set: MAIN_SET }, Promise.resolve(checks));
    }).catch((error) => {
      assert.match(error.message, /nothing is staged|was not checked to its end/);
    });
    if (!made) return;
    encrypted++;
    assert.deepEqual(made.suspicions, []);
    await assertRestores(home, made.id);
  });
  assert.ok(encrypted > 0);
});

Deno.test("power lost at any moment of a shipping leaves only whole snapshots there, and no false confirmation", async () => {
  using home = await makeUsedHome();
  await home.backup();
  const disk = home.addDisk();
  const config = home.config();
  const all = wholeIds(home.host.fs, home.store);
  const recording = new Recording(home.host.fs, home.dir);
  await ship({ ...home.host, fs: recording.fs }, config);
  const states = await forEveryState(recording, home.dir, async ({ tree }) => {
    const there = wholeIds(home.host.fs, disk);
    const record = [...tree].find(([path]) => path.endsWith("/ship/disk.json"))?.[1].content;
    const { confirmed } = record ? JSON.parse(new TextDecoder().decode(record)) : { confirmed: {} };
    for (const key of Object.keys(confirmed)) assert.ok(there.includes(key.split("/")[1] as never), key);
    const report = await ship(home.host, config);
    assert.deepEqual(report.destinations[0]!.errors, []);
    assert.deepEqual(report.destinations[0]!.waiting, []);
    assert.deepEqual(report.destinations[0]!.vanished, []);
    assert.deepEqual(wholeIds(home.host.fs, disk), all);
    assert.deepEqual(namesIn(`${disk}/home/state`), all, "no residue");
    assert.deepEqual(namesIn(`${home.stateFolder}/ship`), ["disk.json"]);
    assert.deepEqual(wholeIds(home.host.fs, home.store), all);
  }, isRead);
  assert.ok(states > 30, `${states} states`);

  writeTree(home.dir, recording.synced);
  assert.deepEqual(wholeIds(home.host.fs, disk), all, "a success is on the disk");
});

Deno.test("power lost at any moment of a restore in place loses neither the old files nor the way back", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const saved = liveFiles(home);
  home.sql(insertMessages(20));
  home.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-another-0123456789\n");
  const live = liveFiles(home);
  const wal = "a WAL of the live database, which would be replayed into another one";
  home.write(".hapi/hapi.db-wal", wal);
  // Who has a file open is no matter of what the disk kept.
  const host: Host = { ...home.host, run: () => Promise.resolve({ code: 0, stdout: "", stderr: "" }) };
  const opening = await home.opening({ host });
  const recording = new Recording(host.fs, home.dir);
  const recorded = { ...opening, host: { ...host, fs: recording.fs } };
  await restoreInPlace(recorded, home.config(), id);
  const hapi = `${home.home}/.hapi`;
  const same = (path: string, bytes: Uint8Array) => {
    const there = home.host.fs.readFile(path);
    return there.length === bytes.length && there.every((byte, index) => byte === bytes[index]);
  };
  const states = await forEveryState(recording, home.dir, async ({ tree }) => {
    for (const [index, name] of ["hapi.db", "hub.env"].entries()) {
      const path = `${hapi}/${name}`;
      const isThere = namesIn(hapi).includes(name);
      assert.ok(
        !isThere || same(path, live[index]!) || same(path, saved[index]!),
        `${name} is half restored`,
      );
      if (isThere && name === "hapi.db" && same(path, saved[index]!)) {
        assert.ok(!namesIn(hapi).includes("hapi.db-wal"), "the old -wal would undo the restore");
      }
    }
    // The way back.
    const undo = [...tree.keys()].find((path) => /\/undo-[-\d]+\.sh$/.test(path));
    if (undo) await output("sh", [`${home.dir}/${undo}`]);
    assert.deepEqual(liveFiles(home), live);
    assert.equal(Deno.readTextFileSync(`${hapi}/hapi.db-wal`), wal);

    writeTree(home.dir, tree);
    await restoreInPlace(opening, home.config(), id);
    assert.deepEqual(liveFiles(home), saved);
    assert.deepEqual(namesIn(hapi).filter((name) => /restore-\d{8}T|restoring|journal|wal$/.test(name)), []);
  }, (path) => !path.includes("/.hapi-backup-restore-"));
  assert.ok(states > 30, `${states} states`);

  writeTree(home.dir, recording.synced);
  assert.deepEqual(liveFiles(home), saved, "a success is on the disk");
});

Deno.test("a restore to a folder that has ended is on the disk", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  Deno.mkdirSync(`${home.dir}/restored`);
  for (const folder of ["restored", "restored-new/folder"]) {
    const recording = new Recording(home.host.fs, home.dir);
    const to = `${home.dir}/${folder}`;
    // As the step, which may look at that folder only.
    const requireBelow = (path: string) => {
      if (`${to}/`.startsWith(`${path}/`) && path !== to) throw new Deno.errors.NotCapable(path);
    };
    const fs: Fs = {
      ...recording.fs,
      lstat(path) {
        requireBelow(path);
        return recording.fs.lstat(path);
      },
      syncFolder(path) {
        requireBelow(path);
        recording.fs.syncFolder(path);
      },
    };
    const opening = await home.opening({ host: { ...home.host, fs } });
    await makingDurably(recording.fs, to, () => restore(opening, id, to));
    assert.ok(recording.all.has(`${folder}/home/.hapi/hub.env`));
    const restored = (tree: Tree) =>
      keyOf(new Map([...tree].filter(([path]) => path.startsWith("restored"))));
    assert.equal(restored(recording.synced), restored(recording.all), folder);
  }
});

Deno.test("power lost at any moment of a retention leaves whole chains, and the next one ends it", async () => {
  using storage = await makeReadStorage(4, 2);
  const { host, config, store, written } = storage;
  storage.now = new Date(storage.now.getTime() + HOUR_MS);

  // The ledger is SQLite's own matter, which syncs each change: what it was around each operation is what the disk holds.
  const files = ["ledger.db", "ledger.db-wal"].map((name) => `${storage.root}/ledger/${name}`);
  const ledgers = new Map<number, (Uint8Array | undefined)[][]>();
  const recording = new Recording(host.fs, store);
  const note = () => {
    const content = files.map((file) => exists(host.fs, file) ? host.fs.readFile(file) : undefined);
    ledgers.set(recording.operations, [...ledgers.get(recording.operations) ?? [], content]);
  };
  const noting: Fs = { ...recording.fs };
  for (const name of ["rename", "remove", "syncFolder"] as const) {
    noting[name] = (...given: never[]) => {
      note();
      (recording.fs[name] as (...args: never[]) => void)(...given);
      note();
    };
  }
  const removed = (await retainAll({ ...host, fs: noting }, config, { apply: true })).sets[0]!.removed.length;
  assert.equal(removed, 2);
  note();
  const states = await forEveryState(recording, store, async ({ tree, operations }) => {
    for (const ledger of ledgers.get(operations) ?? []) {
      writeTree(store, tree);
      removeIfThere(host.fs, `${storage.root}/ledger/ledger.db-shm`);
      for (const [index, file] of files.entries()) {
        if (ledger[index]) Deno.writeFileSync(file, ledger[index]);
        else removeIfThere(host.fs, file);
      }
      assert.equal(wholeIds(host.fs, store).at(-1), written.at(-1)!.seal.id);
      const scrubbed = await scrub(host, config);
      assert.ok(scrubbed.ok, JSON.stringify(scrubbed.damage.items));
      assert.deepEqual(scrubbed.foreign.items, []);
      const finished = await retainAll(host, config, { apply: true });
      assert.equal(finished.sets[0]!.problem, null);
      assert.deepEqual(namesIn(`${store}/home/state`), written.slice(2).map(({ seal }) => seal.id));
    }
  });
  assert.ok(states > 10, `${states} states`);
});
