/** The storage host: scrub, retain, watch, pin and storage, on real files, and what bad input does to them. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { BackupError } from "../scripts/core/errors.ts";
import { fingerprintOf, formatPrivateKey, publicKeyOf } from "../scripts/core/keys/openssh_key.ts";
import {
  FILES_PART,
  type HubName,
  MAIN_SET,
  MANIFEST_PART,
  type PartName,
  type SetName,
  type SnapshotId,
  snapshotIdAt,
} from "../scripts/core/names.ts";
import { shellQuote } from "../scripts/core/shell.ts";
import { signSsh } from "../scripts/core/keys/sshsig.ts";
import { parseReceipt, serializeReceipt, verifyReceipt } from "../scripts/core/shipping/receipt.ts";
import { SEAL_NAMESPACE } from "../scripts/core/snapshot/seal.ts";
import { formatMetrics } from "../scripts/core/storage_host/prometheus.ts";
import { parseStorageConfig, policyOf } from "../scripts/core/storage_host/storage_config.ts";
import { DAY_MS, HOUR_MS } from "../scripts/core/time.ts";
import type { Fs } from "../scripts/host/host.ts";
import { openLedger } from "../scripts/host/storage_host/ledger.ts";
import { pin } from "../scripts/pin.ts";
import { scrub } from "../scripts/scrub.ts";
import { authorize, forget, storageList, storageStatus } from "../scripts/storage.ts";
import { watch } from "../scripts/watch.ts";
import { copySync, namesIn } from "./real/files.ts";
import { mountTmpfs, ONLY_AS_ROOT } from "./real/home.ts";
import {
  arriveOneByOne,
  HUB,
  KEEP_ONE,
  makeReadStorage,
  makeReceiptKey,
  makeSigner,
  makeStorageHost,
  retainAll,
  type StorageHost,
  timesUntil,
  writeHistory,
  writeSnapshot,
} from "./real/signed_store.ts";

const partOf = (folder: string): string => `${folder}/${FILES_PART}`;
const idOf = (text: string) => text as SnapshotId;

/** Adds snapshots day by day as a hub does, twice a day, with the storage host looking after each. */
async function live(storage: StorageHost, days: number): Promise<ReturnType<typeof writeHistory>> {
  const { host, config, store, signer } = storage;
  const written = writeHistory(store, signer, timesUntil(storage.now, days * 2));
  arriveOneByOne(storage, written, () => storageStatus(host, config));
  await scrub(host, config);
  return written;
}

Deno.test("scrub() calls a whole store good, and remembers when it read each part", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 10));
  const report = await scrub(host, config);
  assert.equal(report.ok, true, JSON.stringify(report.damage));
  assert.deepEqual(report.read.snapshots, 10);
  assert.equal(report.finished, true);
  assert.equal(report.sets[0]!.good, 10);
  assert.equal(report.sets[0]!.oldestReadAt, storage.now.toISOString());
  assert.deepEqual(report.foreign.items, []);
});

Deno.test("scrub() finds every fault of many in one run, and what depends on each", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const written = writeHistory(store, signer, timesUntil(storage.now, 8), { chainLength: 4 });
  // A flipped bit, a cut part, a missing one: in the second, third and sixth.
  const flipped = Deno.readFileSync(partOf(written[1]!.folder));
  flipped[3]! ^= 1;
  Deno.writeFileSync(partOf(written[1]!.folder), flipped);
  Deno.truncateSync(partOf(written[2]!.folder), 5);
  Deno.removeSync(partOf(written[5]!.folder));
  const report = await scrub(host, config);
  assert.equal(report.ok, false);
  const faults = report.damage.items.map(({ id, kind }) =>
    `${kind} ${written.findIndex((one) => one.seal.id === id)}`
  );
  assert.deepEqual(faults.sort(), ["needs 2", "needs 3", "needs 6", "needs 7", "part 1", "part 2", "part 5"]);
  const { good, damaged } = report.sets[0]!;
  assert.deepEqual({ good, damaged }, { good: 2, damaged: 6 });
  assert.match(report.damage.items.find(({ kind }) => kind === "part")!.problem, /SHA-256 is/);
});

Deno.test("a manifest that rotted is damage of its own snapshot only, and neither that nor a fork stops retention", async () => {
  using storage = makeStorageHost({ retention: KEEP_ONE });
  const { host, config, store, signer } = storage;
  const [first, second, third] = timesUntil(storage.now, 3).map(snapshotIdAt);
  const bytes = new TextEncoder().encode("part");
  const full = writeSnapshot(store, {
    id: first!,
    signer,
    parts: { [FILES_PART]: bytes, [MANIFEST_PART]: bytes },
  });
  const previous = { id: first!, sha256: full.checksum };
  const seal = { kind: "increment", parent: first!, needs: [first!], previous } as const;
  for (const id of [second!, third!]) writeSnapshot(store, { id, signer, seal });
  Deno.writeTextFileSync(`${full.folder}/${MANIFEST_PART}`, "trap");
  const { damage, notes, sets } = await scrub(host, config);
  assert.deepEqual(damage.items.map(({ kind, id }) => [kind, id]), [["part", first]]);
  assert.deepEqual(notes.items.map(({ kind, id }) => [kind, id]), [["fork", third]]);
  assert.deepEqual([sets[0]!.good, sets[0]!.damaged], [2, 1]);
  assert.deepEqual(watch(host, config).alarms.map(({ kind }) => kind), ["integrity"]);
  assert.deepEqual((await retainAll(host, config)).sets[0]!.refused, []);
});

Deno.test("scrub() goes on where a limit ended it, the never read first, the longest unread next", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const part = new Uint8Array(1000);
  const times = timesUntil(storage.now, 6);
  for (const time of times) {
    writeSnapshot(store, { id: snapshotIdAt(time), signer, parts: { [FILES_PART]: part } });
  }
  const first = await scrub(host, config, { maxBytes: 2500 });
  assert.deepEqual([first.read.parts, first.finished, first.leftSnapshots], [2, false, 4]);
  storage.now = new Date(storage.now.getTime() + 1000);
  const second = await scrub(host, config, { maxBytes: 2000 });
  assert.deepEqual([second.read.parts, second.sets[0]!.unread], [2, 2]);
  assert.equal(second.sets[0]!.oldestReadAt, null, "not all was read yet");
  storage.now = new Date(storage.now.getTime() + 1000);
  const third = await scrub(host, config, { maxBytes: 3000 });
  assert.deepEqual([third.read.parts, third.sets[0]!.unread], [3, 0]);
  // The third run's last part was one of the first run's, so the oldest is still one of that run.
  assert.equal(third.sets[0]!.oldestReadAt, "2026-11-24T12:00:00.000Z");
});

Deno.test("scrub() begins no part after its time, and reads a part larger than its limit all the same", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 3));
  const timed = await scrub(host, config, { maxTimeSeconds: 0 });
  assert.equal(timed.read.parts, 0);
  const bounded = await scrub(host, config, { maxBytes: 1 });
  assert.equal(bounded.read.parts, 1);
  const rest = await scrub(host, config, { maxTimeSeconds: 1000 });
  assert.deepEqual([rest.read.parts, rest.finished], [3, true]);
});

Deno.test("scrub() reads a large part on a disk that does not tell what of it is a hole", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [{ seal, folder } = assert.fail()] = writeHistory(store, signer, [
    new Date(storage.now.getTime() - HOUR_MS),
  ]);
  const bytes = 1 << 26;
  Deno.truncateSync(partOf(folder), 0);
  Deno.truncateSync(partOf(folder), bytes);
  const sha256 = createHash("sha256").update(new Uint8Array(bytes)).digest("hex");
  Deno.removeSync(`${folder}/seal.json`);
  Deno.removeSync(`${folder}/seal.json.sig`);
  const parts = [{ ...seal.parts[0]!, bytes, sha256 }];
  const sealed = writeSnapshot(`${storage.root}/sealed`, { id: seal.id, signer, seal: { ...seal, parts } });
  for (const name of ["seal.json", "seal.json.sig"]) {
    Deno.copyFileSync(`${sealed.folder}/${name}`, `${folder}/${name}`);
  }
  const fs: Fs = { ...host.fs, lstat: (path) => ({ ...host.fs.lstat(path), diskBytes: 0 }) };
  const read = await scrub({ ...host, fs }, config);
  assert.deepEqual(read.damage.items, []);
  assert.equal(read.read.bytes, bytes);
  // Where the disk tells, nothing is read of what is not there.
  storage.now = new Date(Date.now() + HOUR_MS);
  assert.match((await scrub(host, config)).damage.items[0]?.problem ?? "", /it has holes/);
});

Deno.test("scrub() that is interrupted anywhere calls nothing damaged", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 3));
  let left = 0;
  const checkpoint = () => {
    if (left-- <= 0) throw new BackupError("Cannot go on: interrupted", { kind: "cancelled" });
  };
  for (let until = 0;; until++) {
    left = until;
    const ended = await scrub({ ...host, checkpoint }, config).then(() => "done", ({ kind }) => kind);
    assert.equal(storageStatus(host, config).sets[0]!.damaged, 0, `interrupted at the look number ${until}`);
    if (ended === "done") break;
    assert.equal(ended, "cancelled");
  }
});

Deno.test("scrub() reads one of each hub in turn, so that a flood keeps nobody waiting", async () => {
  using storage = makeStorageHost();
  const { host, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 50));
  writeHistory(store, signer, timesUntil(storage.now, 2), { set: "voice" as SetName });
  const report = await scrub(host, storage.config, { maxBytes: 200 });
  const voice = report.sets.find(({ set }) => set === "voice")!;
  assert.equal(voice.unread, 0, `read ${report.read.parts} parts`);
});

Deno.test("scrub() reports what it read as damaged earlier, and takes it back once it is repaired", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [only] = writeHistory(store, signer, [storage.now]);
  const good = Deno.readFileSync(partOf(only!.folder));
  Deno.writeFileSync(partOf(only!.folder), good.slice(1));
  assert.equal((await scrub(host, config)).ok, false);
  storage.now = new Date(storage.now.getTime() + 1000);
  assert.equal((await scrub(host, config, { maxTimeSeconds: 0 })).ok, false, "it is remembered");
  Deno.writeFileSync(partOf(only!.folder), good);
  storage.now = new Date(storage.now.getTime() + 1000);
  assert.equal((await scrub(host, config)).ok, true);
});

Deno.test("scrub() tells a missing, an altered and a reordered link from a gap that retention made", async () => {
  using storage = makeStorageHost({
    retention: { keepWithinDays: 1, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 4 },
  });
  const { host, config, store, signer } = storage;
  const written = await live(storage, 10);
  const removed = await retainAll(host, config, { apply: true });
  assert(removed.sets[0]!.removed.length > 5);
  assert.equal((await scrub(host, config)).ok, true, "a removed predecessor is no fault");

  const next = new Date(storage.now.getTime() + HOUR_MS);
  const last = written.at(-1)!;
  const forged = { id: last.seal.id, sha256: "0".repeat(64) };
  writeSnapshot(store, { id: snapshotIdAt(next), signer, seal: { previous: forged } });
  const unknown = { id: idOf("20261101T000000Z"), sha256: last.checksum };
  writeSnapshot(store, {
    id: snapshotIdAt(new Date(next.getTime() + 1000)),
    signer,
    seal: { previous: unknown },
  });
  const later = { id: idOf("20270101T000000Z"), sha256: last.checksum };
  writeSnapshot(store, {
    id: snapshotIdAt(new Date(next.getTime() + 2000)),
    signer,
    seal: { previous: later },
  });
  storage.now = new Date(next.getTime() + HOUR_MS);
  const report = await scrub(host, config);
  const problems = report.damage.items.map(({ kind, problem }) => `${kind}: ${problem}`);
  assert.equal(problems.length, 3, problems.join("\n"));
  assert.match(problems[0]!, /link: it follows .* with seal 000/);
  assert.match(problems[1]!, /link: it follows 20261101T000000Z, which never came/);
  assert.match(problems[2]!, /link: it says that it follows 20270101T000000Z, which is not older/);
  forget(host, config, { hub: HUB, set: MAIN_SET, id: unknown.id, why: "never came" });
  assert.equal((await scrub(host, config)).damage.count, 2);
  for (const { id } of report.damage.items) {
    Deno.removeSync(`${store}/home/state/${id}`, { recursive: true });
    forget(host, config, { hub: HUB, set: MAIN_SET, id, why: "forged" });
  }
  assert.equal((await scrub(host, config)).ok, true, "what was taken away and forgotten");
});

Deno.test("scrub() does not miss what came before this host was set up", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [first, ...rest] = writeHistory(store, signer, timesUntil(storage.now, 4), { chainLength: 1 });
  Deno.removeSync(first!.folder, { recursive: true });
  const report = await scrub(host, config);
  assert.equal(report.ok, true, JSON.stringify(report.damage.items));
  assert.equal(report.sets[0]!.good, rest.length);
});

Deno.test("scrub() calls two snapshots that follow the same one worth a look", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [first, second] = writeHistory(store, signer, timesUntil(storage.now, 2));
  const id = snapshotIdAt(new Date(storage.now.getTime() + 1000));
  writeSnapshot(store, { id, signer, seal: { previous: { id: first!.seal.id, sha256: first!.checksum } } });
  const report = await scrub(host, config);
  assert.equal(report.ok, true);
  assert.deepEqual(report.notes.items.map(({ kind, problem }) => [kind, problem.includes(second!.seal.id)]), [
    ["fork", true],
  ]);
});

Deno.test("scrub() notices a signature that was spoilt after it was first seen", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [only] = writeHistory(store, signer, [storage.now]);
  assert.equal((await scrub(host, config)).ok, true);
  const path = `${only!.folder}/seal.json.sig`;
  const good = Deno.readTextFileSync(path);
  Deno.writeTextFileSync(path, "no signature");
  storage.now = new Date(storage.now.getTime() + 1000);
  const report = await scrub(host, config);
  assert.deepEqual(report.damage.items.map(({ kind }) => kind), ["signature"]);
  Deno.writeTextFileSync(path, good);
  assert.equal((await scrub(host, config)).ok, true);
});

Deno.test("scrub() notices a seal whose file was changed with its times put back", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [only] = writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  // As a disk does that rots: nothing about the file says so.
  const path = `${only!.folder}/seal.json`;
  const stat = host.fs.lstat(path);
  const text = Deno.readTextFileSync(path);
  Deno.writeTextFileSync(path, text.replace("age1test", "age1tesT"));
  const fs = { ...host.fs, lstat: (at: string) => at === path ? stat : host.fs.lstat(at) };
  const report = await scrub({ ...host, fs }, config);
  assert.deepEqual(report.damage.items.map(({ kind }) => kind), ["changed"]);
});

Deno.test("a set takes up so many new snapshots a run; the others wait, and retention with them", async () => {
  using storage = makeStorageHost();
  const { host, config, store } = storage;
  for (const time of timesUntil(storage.now, 10_050, 1)) {
    const folder = `${store}/home/state/${snapshotIdAt(time)}`;
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeTextFileSync(`${folder}/seal.json`, "");
  }
  const refusal = async () => (await retainAll(host, config)).sets[0]!.refused.join();
  assert.match(await refusal(), /50 new snapshots were not looked at yet/);
  assert.doesNotMatch(await refusal(), /not looked at yet/, "the second run took up the rest");
});

Deno.test("retain() touches no hub that is not in the configuration", async () => {
  using storage = makeStorageHost({ retention: KEEP_ONE });
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 4), { hub: "stray" as HubName, chainLength: 1 });
  const report = await scrub(host, config);
  assert(report.foreign.items.some(({ reason }) => /not a hub of the configuration/.test(reason)));
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  const [stray] = (await retainAll(host, config, { apply: true })).sets;
  assert.match(stray!.refused[0]!, /hub stray is not in the configuration/);
  assert.deepEqual(stray!.removed, []);
});

Deno.test("scrub() misses a snapshot that was here and is gone, until it is forgotten", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const written = writeHistory(store, signer, timesUntil(storage.now, 5));
  await scrub(host, config);
  Deno.removeSync(written[1]!.folder, { recursive: true });
  const report = await scrub(host, config);
  assert.deepEqual(report.damage.items.map(({ kind }) => kind).sort(), ["gone", "needs", "needs", "needs"]);
  const place = { hub: HUB, set: MAIN_SET, id: written[1]!.seal.id, why: "lost with the old disk" };
  forget(host, config, place);
  const after = await scrub(host, config);
  assert.deepEqual(after.damage.items.map(({ kind }) => kind), ["needs", "needs", "needs"]);
  assert.match(after.damage.items[0]!.problem, /which was removed/);
  assert.throws(() => forget(host, config, { ...place, id: written[0]!.seal.id }), { kind: "usage" });
});

Deno.test("scrub() reads a snapshot again that was away, and keeps when it was first seen", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [only] = writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  Deno.renameSync(only!.folder, `${storage.root}/away`);
  assert.equal((await scrub(host, config)).ok, false);
  Deno.renameSync(`${storage.root}/away`, only!.folder);
  storage.now = new Date(storage.now.getTime() + DAY_MS);
  const report = await scrub(host, config);
  assert.equal(report.ok, true);
  assert.equal(report.sets[0]!.good, 1);
});

Deno.test("a store that was moved to another disk is read anew, and then counts as before", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const written = writeHistory(store, signer, timesUntil(storage.now, 3));
  await scrub(host, config);
  for (const { folder } of written) {
    copySync(folder, `${folder}-copied`);
    Deno.removeSync(folder, { recursive: true });
    Deno.renameSync(`${folder}-copied`, folder);
  }
  const { sets: [before] } = storageStatus(host, config);
  assert.deepEqual([before!.good, before!.unread], [0, 3], "what lies on the new disk was never read");
  const { sets: [after], ok, read } = await scrub(host, config);
  assert.deepEqual([ok, read.snapshots, after!.good], [true, 3, 3]);
});

Deno.test("a ledger that cannot be used is named, and put back only where nothing else helps", async () => {
  using storage = makeStorageHost();
  const ledger = `${storage.config.stateFolder}/ledger.db`;
  Deno.mkdirSync(ledger, { recursive: true });
  await assert.rejects(scrub(storage.host, storage.config), {
    message: `Cannot use the ledger ${ledger}: unable to open database file`,
    hint: /neither full nor read-only/,
  });
});

Deno.test("only one scrub and one retain run at a time", async () => {
  using storage = makeStorageHost();
  Deno.mkdirSync(storage.config.stateFolder);
  for (const [name, run] of [["scrub", scrub], ["retain", retainAll]] as const) {
    using lock = Deno.openSync(`${storage.config.stateFolder}/${name}.lock`, { write: true, create: true });
    lock.lockSync(true);
    await assert.rejects(async () => await run(storage.host, storage.config), { kind: "busy" });
  }
});

Deno.test("a mistyped hub or set is an error that names those that are there, and nothing is noted of it", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const id = writeHistory(store, signer, [storage.now])[0]!.seal.id;
  const all = [
    (scope: { hub?: HubName; set?: SetName }) => scrub(host, config, scope),
    (scope: { hub?: HubName; set?: SetName }) => retainAll(host, config, { ...scope, apply: true }),
    (scope: { hub?: HubName; set?: SetName }) =>
      Promise.resolve().then(() => storageStatus(host, config, scope)),
    (scope: { hub?: HubName; set?: SetName }) =>
      Promise.resolve().then(() => [...storageList(host, config, scope)]),
  ];
  for (const verb of all) {
    await assert.rejects(verb({ hub: "hoem" as HubName }), { kind: "usage", hint: "hubs there: home" });
    await assert.rejects(verb({ set: "staet" as SetName }), { kind: "usage", hint: /^sets there: state/ });
    await assert.rejects(verb({ hub: HUB, set: "staet" as SetName }), { kind: "usage" });
  }
  const change = { hub: HUB, set: "staet", id, why: "why" };
  assert.throws(() => pin(host, config, change), { kind: "usage", hint: /^sets there: state/ });
  assert.throws(() => forget(host, config, change), { kind: "usage", hint: /^sets there: state/ });
  const status = storageStatus(host, config);
  assert.deepEqual([status.sets.map(({ set }) => set), status.lastScrubAt], [[MAIN_SET], null]);
  const read = await scrub(host, config, { hub: HUB, set: MAIN_SET });
  assert.deepEqual([read.read.snapshots, read.sets.map(({ set }) => set)], [1, [MAIN_SET]]);
  const { sets } = await retainAll(host, config, { hub: HUB, set: MAIN_SET });
  assert.deepEqual(sets.map(({ set, keep }) => [set, keep.length]), [[MAIN_SET, 1]]);
  // A set of which nothing came yet is none.
  const awaiting = storage.withConfig({}, { maxAgeHours: { state: 26, voice: 192 } });
  assert.deepEqual(storageStatus(host, awaiting, { hub: HUB, set: "voice" as SetName }).sets, []);
});

Deno.test("retain() plans without touching anything, and removes with apply what it planned", async () => {
  using storage = makeStorageHost({ retention: { keepDaily: 20, keepWeekly: 5, keepMonthly: 2 } });
  const { host, config, store } = storage;
  const written = await live(storage, 50);
  const plan = await retainAll(host, config);
  const [set] = plan.sets;
  assert.deepEqual(set!.removed, []);
  assert(set!.remove.length > 20, `${set!.remove.length}`);
  assert.equal([...Deno.readDirSync(`${store}/home/state`)].length, written.length);

  const done = await retainAll(host, config, { apply: true });
  assert.deepEqual(done.sets[0]!.removed.toSorted(), set!.remove.map(({ id }) => id));
  assert.deepEqual(
    namesIn(`${store}/home/state`),
    set!.keep.map(({ id }) => id),
  );
  assert.equal((await scrub(host, config)).ok, true, "what is left is whole");
  assert.deepEqual((await retainAll(host, config, { apply: true })).sets[0]!.removed, [], "and stays");
});

Deno.test("retain() lets only what scrub has verified take a place", async () => {
  using storage = makeStorageHost({
    retention: { keepWithinDays: 1, keepDaily: 5, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 2 },
  });
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 10));
  storageStatus(host, config);
  storage.now = new Date(storage.now.getTime() + 6 * DAY_MS);
  const unread = await retainAll(host, config);
  assert.deepEqual(unread.sets[0]!.remove, []);
  await scrub(host, config);
  const read = await retainAll(host, config);
  assert.notDeepEqual(read.sets[0]!.remove, []);
});

Deno.test("retain() is harmless wherever a crash ends it, and the next run finishes", async () => {
  // Every operation on the file system in turn is the last one.
  let operations = Infinity;
  for (let crashAt = 0; crashAt < operations; crashAt++) {
    using storage = await makeReadStorage(6, 2);
    const { host, config, store, written } = storage;
    storage.now = new Date(storage.now.getTime() + HOUR_MS);
    let count = 0;
    const crashing = new Proxy(host.fs, {
      get: (fs, name: keyof Fs) => {
        if (!["rename", "remove", "syncFolder"].includes(name)) return fs[name];
        return (...given: never[]) => {
          if (count++ >= crashAt) throw new Error("crash");
          return (fs[name] as (...args: never[]) => unknown)(...given);
        };
      },
    });
    const crashed = await retainAll({ ...host, fs: crashing }, config, { apply: true });
    if (crashed.sets[0]!.problem === null) operations = crashAt;
    // Whatever is still there under its name is whole, and so is all that it needs.
    const scrubbed = await scrub(host, config);
    assert.equal(scrubbed.ok, true, `at operation ${crashAt}: ${JSON.stringify(scrubbed.damage.items)}`);
    assert.deepEqual(scrubbed.foreign.items, [], `at operation ${crashAt}`);
    const finished = await retainAll(host, config, { apply: true });
    assert.equal(finished.sets[0]!.problem, null);
    assert.deepEqual(
      namesIn(`${store}/home/state`),
      written.slice(4).map(({ seal }) => seal.id),
      `at operation ${crashAt}`,
    );
  }
  assert(operations >= 12, `${operations} operations`);
});

Deno.test("retain() refuses on a bad signature, an unknown format, a changed seal and a gap", async (t) => {
  const faults: Record<string, (storage: StorageHost, written: ReturnType<typeof writeHistory>) => void> = {
    "signed by another key": ({ store, now }) =>
      void writeSnapshot(store, { id: snapshotIdAt(now), signer: makeSigner() }),
    "format version 99": ({ store, signer, now }) =>
      void writeSnapshot(store, { id: snapshotIdAt(now), signer, seal: { version: 99 } }),
    "not JSON": ({ store, now }) => {
      Deno.mkdirSync(`${store}/home/state/${snapshotIdAt(now)}`);
      Deno.writeTextFileSync(`${store}/home/state/${snapshotIdAt(now)}/seal.json`, "{");
    },
    "a changed seal": ({ store, signer }, written) =>
      void writeSnapshot(store, { id: written[3]!.seal.id, signer, seal: { writer: "other" } }),
    "a snapshot gone": (_, written) => Deno.removeSync(written[3]!.folder, { recursive: true }),
  };
  for (const [name, spoil] of Object.entries(faults)) {
    await t.step(name, async () => {
      using storage = makeStorageHost({
        retention: { keepWithinDays: 0, keepDaily: 1, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 2 },
      });
      const { host, config, store, signer } = storage;
      const written = writeHistory(store, signer, timesUntil(storage.now, 10), { chainLength: 1 });
      await scrub(host, config);
      storage.now = new Date(storage.now.getTime() + DAY_MS);
      assert.notDeepEqual((await retainAll(host, config)).sets[0]!.remove, []);
      assert.deepEqual((await retainAll(host, config)).sets[0]!.refused, []);
      spoil(storage, written);
      const report = await retainAll(host, config, { apply: true });
      assert.equal(report.sets[0]!.refused.length > 0, true);
      assert.deepEqual(report.sets[0]!.removed, []);
      // What its error advises.
      const id = report.sets[0]!.refused[0]!.slice(0, 16) as SnapshotId;
      rmSync(`${store}/home/state/${id}`, { recursive: true, force: true });
      forget(host, config, { hub: HUB, set: MAIN_SET, id, why: "moved out of the store" });
      assert.deepEqual((await retainAll(host, config)).sets[0]!.refused, []);
    });
  }
});

Deno.test("retain() refuses when the clock jumps back or far ahead, until a person trusts it", async () => {
  using storage = makeStorageHost({
    retention: { keepWithinDays: 1, keepDaily: 1, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 2 },
  });
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 10), { chainLength: 1 });
  await scrub(host, config);
  const start = storage.now.getTime();
  const jumps: [number, string][] = [[-DAY_MS, "24 h behind an earlier run"], [
    30 * DAY_MS,
    "30 days ahead of",
  ]];
  for (const [jump, told] of jumps) {
    storage.now = new Date(start + jump);
    const report = await retainAll(host, config, { apply: true });
    assert.match(report.clockDoubt!, new RegExp(`clock is ${told}`));
    assert.deepEqual(report.sets[0]!.removed, []);
    assert.equal(watch(host, config).alarms.some(({ kind }) => kind === "clock"), true);
  }
  const trusted = await retainAll(host, config, { apply: true, trustClock: true });
  assert.equal(trusted.clockDoubt, null);
  assert.notDeepEqual(trusted.sets[0]!.removed, []);
});

Deno.test("what is read while the clock is far ahead is not taken for read until then", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  const start = storage.now.getTime();
  storage.now = new Date(start + 3650 * DAY_MS);
  const ahead = await scrub(host, config);
  assert.deepEqual([ahead.ok, ahead.read.snapshots], [true, 1]);
  assert.equal(ahead.sets[0]!.oldestReadAt, new Date(start).toISOString());
  storage.now = new Date(start + 6 * DAY_MS);
  assert.equal(storageStatus(host, config).clockDoubt, null);
  for (let days = 12; days <= 42; days += 6) {
    storage.now = new Date(start + days * DAY_MS);
    storageStatus(host, config);
  }
  const { alarms } = watch(host, config);
  assert(alarms.some(({ problem }) => problem.startsWith("scrub has not read all of it for 42 days")));
});

Deno.test("what comes while the clock is in doubt is dated once it is not, and stays until then", async () => {
  using storage = makeStorageHost({
    retention: { keepWithinDays: 1, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 1 },
  });
  const { host, config, store, signer } = storage;
  const start = storage.now.getTime();
  const [first] = writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  storage.now = new Date(start + 300 * DAY_MS);
  writeHistory(store, signer, [new Date(start + HOUR_MS)], { after: first! });
  await scrub(host, config);
  storage.now = new Date(start + 2 * HOUR_MS);
  assert.equal([...storageList(host, config)].flat().at(-1)!.firstSeenAt, storage.now.toISOString());
  const report = await retainAll(host, config, { apply: true });
  assert.deepEqual(report.sets[0]!.keep.at(-1)!.reasons[0], "it came within 1 day");
});

Deno.test("retain() is not obeyed by a flood, and goes on once a person has accepted it", async () => {
  using storage = makeStorageHost({
    retention: { keepWithinDays: 1, keepDaily: 1, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 2 },
  }, { snapshotsPerDayMax: 24 });
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 40, 1), { chainLength: 1 });
  await scrub(host, config);
  storage.now = new Date(storage.now.getTime() + 3 * DAY_MS);
  const refused = await retainAll(host, config, { apply: true });
  assert.match(refused.sets[0]!.refused[0]!, /more than 24 snapshots came/);
  assert.equal(watch(host, config).alarms.some(({ problem }) => /more than 24/.test(problem)), true);
  await retainAll(host, config, { despiteFlood: true });
  assert.equal((await retainAll(host, config)).sets[0]!.refused.length, 1, "a plan accepts nothing");
  const obeyed = await retainAll(host, config, { apply: true, despiteFlood: true });
  assert.notDeepEqual(obeyed.sets[0]!.removed, []);
  assert.deepEqual((await retainAll(host, config)).sets[0]!.refused, [], "it was accepted for good");
});

Deno.test("a snapshot whose removal fails at once stays, and is no fault", async () => {
  using storage = makeStorageHost({ retention: KEEP_ONE });
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 3), { chainLength: 1 });
  await scrub(host, config);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  const fs: Fs = {
    ...host.fs,
    rename: () => {
      throw new Error("Permission denied (os error 13)");
    },
  };
  const { sets } = await retainAll({ ...host, fs }, config, { apply: true });
  assert.match(sets[0]!.problem!, /Permission denied/);
  {
    using ledger = openLedger(host.fs, config.stateFolder);
    assert.deepEqual(ledger.snapshots(1).map(({ state }) => state), ["present", "present", "present"]);
  }
  assert.deepEqual([...storageList(host, config)].flat().map(({ standing }) => standing), [
    "good",
    "good",
    "good",
  ]);
});

Deno.test("a snapshot that retention takes away while scrub reads it is no fault", async () => {
  using storage = await makeReadStorage(3, 1);
  const { host, config, written } = storage;
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  const fs: Fs = {
    ...host.fs,
    lstat: (path) => {
      // Retention's removal runs to its end before this scrub looks for the part.
      if (path === partOf(written[0]!.folder) && existsSync(path)) {
        Deno.renameSync(written[0]!.folder, `${storage.root}/taken`);
        using ledger = openLedger(host.fs, config.stateFolder);
        const known = ledger.snapshots(1).find(({ id }) => id === written[0]!.seal.id)!;
        ledger.beginRemoval(known.key, "test", storage.now.getTime());
        ledger.endRemoval(known.key);
      }
      return host.fs.lstat(path);
    },
  };
  const report = await scrub({ ...host, fs }, config);
  assert.equal(report.ok, true, JSON.stringify(report.damage.items));
});

Deno.test("a snapshot that comes again after its removal keeps its first date; another in its place is a fault", async () => {
  using storage = await makeReadStorage(3, 1);
  const { host, config, store, signer, written } = storage;
  const came = storage.now.toISOString();
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  assert.equal((await retainAll(host, config, { apply: true })).sets[0]!.removed.length, 2);
  writeSnapshot(store, { id: written[0]!.seal.id, signer, seal: written[0]!.seal });
  writeSnapshot(store, { id: written[1]!.seal.id, signer });
  const report = await scrub(host, config);
  assert.deepEqual(report.damage.items.map(({ id, kind }) => [id, kind]), [[written[1]!.seal.id, "changed"]]);
  const [again] = [...storageList(host, config)].flat();
  assert.deepEqual([again!.id, again!.firstSeenAt, again!.standing], [written[0]!.seal.id, came, "good"]);
});

Deno.test("what a hub names like a removal is foreign, and stays", async () => {
  using storage = await makeReadStorage(3, 1);
  const { host, config, store, written } = storage;
  const posing = `${store}/home/state/.removing-${written[2]!.seal.id}`;
  Deno.mkdirSync(posing);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  await retainAll(host, config, { apply: true });
  assert.equal(existsSync(posing), true);
  assert.equal((await scrub(host, config)).foreign.items[0]!.path, posing);
});

Deno.test("no folder that a hub puts in the way keeps retention from removing, or an upload from being given up", async () => {
  using storage = await makeReadStorage(3, 1);
  const { host, config, store, written } = storage;
  const set = `${store}/home/state`;
  const posing = written.map(({ seal }) => `${set}/.removing-${seal.id}`);
  const upload = "20261103T000000Z";
  for (const path of [...posing, `${set}/.incoming-old-${upload}`]) {
    Deno.mkdirSync(`${path}/in the way`, { recursive: true });
  }
  Deno.mkdirSync(`${set}/${upload}`);
  storage.now = new Date(Math.max(Date.now(), storage.now.getTime()) + 30 * DAY_MS);
  const { sets: [report], givenUp } = await retainAll(host, config, { apply: true, trustClock: true });
  assert.deepEqual([report!.removed.length, report!.problem, report!.refused], [2, null, []]);
  assert.equal(givenUp.find(({ path }) => path.endsWith(`/${upload}`))!.problem, null);
  await retainAll(host, config, { apply: true });
  assert.deepEqual(
    posing.map((path) => existsSync(path)),
    [false, false, true],
    "what is kept is not leaving",
  );
});

Deno.test("a removal that a crash of an older version cut short is finished", async () => {
  using storage = makeStorageHost({ retention: KEEP_ONE });
  const { host, config, store, signer } = storage;
  const [first] = writeHistory(store, signer, timesUntil(storage.now, 2), { chainLength: 1 });
  await scrub(host, config);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  const remove = () => {
    throw new Error("crash");
  };
  await retainAll({ ...host, fs: { ...host.fs, remove } }, config, { apply: true });
  const set = `${store}/home/state`;
  const [leaving] = [...Deno.readDirSync(set)].filter(({ name }) => name.startsWith(".removing-"));
  Deno.renameSync(`${set}/${leaving!.name}`, `${set}/.removing-${first!.seal.id}`);
  assert.equal((await retainAll(host, config, { apply: true })).sets[0]!.problem, null);
  assert.equal([...Deno.readDirSync(set)].length, 1);
});

Deno.test("a snapshot counts as verified only once all that it needs was read too", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const written = writeHistory(store, signer, timesUntil(storage.now, 2));
  arriveOneByOne(storage, written, () => storageStatus(host, config));
  await scrub(host, config, { maxBytes: 1 });
  const standings = [...storageList(host, config)].flat().map((
    { standing, readAt },
  ) => [standing, readAt !== null]);
  assert.deepEqual(standings, [["unread", false], ["unread", true]]);
  assert.equal(storageStatus(host, config).sets[0]!.newestVerified, null);
  await scrub(host, config);
  assert.equal(storageStatus(host, config).sets[0]!.newestVerified, written[1]!.seal.id);
});

Deno.test("scrub() goes on inside a snapshot that a limit left half read", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const parts = { "a.full.zst.age": new Uint8Array(100), "b.full.zst.age": new Uint8Array(100) };
  writeSnapshot(store, { id: snapshotIdAt(storage.now), signer, parts });
  const first = await scrub(host, config, { maxBytes: 100 });
  assert.deepEqual([first.read.parts, first.finished, first.sets[0]!.unread], [1, false, 1]);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  const second = await scrub(host, config);
  assert.deepEqual([second.read.parts, second.sets[0]!.good], [1, 1]);
  assert.equal(second.sets[0]!.oldestReadAt, "2026-11-24T12:00:00.000Z", "when the first part was read");
});

Deno.test("a snapshot whose seal becomes readable only later keeps when it was first seen", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const { folder } = writeSnapshot(store, { id: snapshotIdAt(storage.now), signer });
  const came = storage.now.toISOString();
  const seal = Deno.readTextFileSync(`${folder}/seal.json`);
  Deno.writeTextFileSync(`${folder}/seal.json`, "");
  assert.deepEqual((await scrub(host, config)).damage.items.map(({ kind }) => kind), ["seal"]);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  Deno.writeTextFileSync(`${folder}/seal.json`, seal);
  assert.equal((await scrub(host, config)).ok, true);
  assert.equal([...storageList(host, config)].flat()[0]!.firstSeenAt, came);
});

Deno.test("no receipt goes through a link in place of a hub's folder", async () => {
  using storage = makeStorageHost();
  const { host, store, root } = storage;
  Deno.writeTextFileSync(`${root}/key`, formatPrivateKey(new Uint8Array(32), "storage", 1), { mode: 0o600 });
  Deno.mkdirSync(`${root}/elsewhere`);
  Deno.removeSync(`${store}/home`);
  Deno.symlinkSync(`${root}/elsewhere`, `${store}/home`);
  const report = await scrub(host, storage.withConfig({ receiptKeyFile: `${root}/key` }));
  assert.deepEqual(report.receipts, []);
  assert.deepEqual([...Deno.readDirSync(`${root}/elsewhere`)], []);
  assert.match(report.foreign.items[0]!.reason, /is a link/);
});

Deno.test("a seal lost from a known snapshot is a loss, not an unfinished upload", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [only] = writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  Deno.removeSync(`${only!.folder}/seal.json`);
  assert(watch(host, config).alarms.some(({ problem }) => /it was here/.test(problem)), "before any scrub");
  const report = await scrub(host, config);
  assert.deepEqual(report.damage.items.map(({ kind }) => kind), ["gone"]);
  assert.equal(report.incoming.count, 0);
});

Deno.test("a signature lost from a known snapshot is named by every verb, and all is well once it is back", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const [only] = writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  const path = `${only!.folder}/seal.json.sig`;
  const signature = Deno.readFileSync(path);
  Deno.removeSync(path);
  const problem = "its seal has no signature: there is no seal.json.sig";
  const report = await scrub(host, config);
  assert.deepEqual(report.damage.items.map((fault) => fault.problem), [problem]);
  assert.deepEqual([report.incoming.count, report.sets[0]!.damaged], [0, 1]);
  assert.deepEqual(
    watch(host, config).alarms.map((alarm) => alarm.problem).filter((text) => text.includes("seal")),
    [`${only!.seal.id}: ${problem}`],
  );
  assert.deepEqual((await scrub(host, config)).damage.items.map((fault) => fault.problem), [problem]);
  Deno.writeFileSync(path, signature);
  assert.equal(storageStatus(host, config).sets[0]!.problems, 0);
  assert.equal((await scrub(host, config)).ok, true);
});

Deno.test("pin() keeps a snapshot and all that it needs, until it is taken back", async () => {
  using storage = await makeReadStorage(9, 3);
  const { host, config, written } = storage;
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  const id = written[1]!.seal.id;
  assert.deepEqual(pin(host, config, { hub: HUB, set: MAIN_SET, id, why: "before 2.0" }), [
    { hub: HUB, set: MAIN_SET, id, why: "before 2.0" },
  ]);
  const first = await retainAll(host, config, { apply: true });
  const kept = first.sets[0]!.keep.map((decision) => decision.id);
  assert.deepEqual(kept.slice(0, 2), [written[0]!.seal.id, id]);
  assert.throws(
    () => forget(host, config, { hub: HUB, set: MAIN_SET, id: first.sets[0]!.removed[0]!, why: "x" }),
    { kind: "usage", message: /retention removed it$/, hint: /nothing to forget/ },
  );
  assert.deepEqual(pin(host, config, { hub: HUB, set: MAIN_SET, id, why: undefined }), []);
  const after = await retainAll(host, config, { apply: true });
  assert(after.sets[0]!.removed.includes(id));
  assert.throws(
    () => pin(host, config, { hub: HUB, set: MAIN_SET, id, why: "too late" }),
    { kind: "usage" },
  );
});

Deno.test("unfinished uploads are no snapshots, are reported, and go when they did not grow for long", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  // Change times are the machine's own, so the test's clock has to be the real one.
  storage.now = new Date();
  const [whole] = writeHistory(store, signer, [storage.now]);
  const unfinished = `${store}/home/state/20261101T000000Z`;
  const mixed = `${store}/home/state/20261102T000000Z`;
  for (const folder of [unfinished, mixed]) {
    Deno.mkdirSync(folder);
    Deno.writeTextFileSync(`${folder}/${FILES_PART}`, "half");
    Deno.utimeSync(`${folder}/${FILES_PART}`, 0, 0);
    Deno.utimeSync(folder, 0, 0);
  }
  Deno.writeTextFileSync(`${mixed}/thesis.odt`, "not ours");
  const partial = `${store}/home/.incoming-20261103T000000Z-1`;
  Deno.mkdirSync(partial);
  Deno.writeTextFileSync(`${partial}/${FILES_PART}`, "half");
  const report = await scrub(host, config);
  assert.equal(report.ok, true);
  assert.equal(report.incoming.count, 3);
  assert.deepEqual(
    (await retainAll(host, config, { apply: true })).givenUp,
    [],
    "they are young, whatever their dates say",
  );

  storage.now = new Date(storage.now.getTime() + 6.9 * DAY_MS);
  assert.deepEqual((await retainAll(host, config, { apply: true })).givenUp, []);
  storage.now = new Date(storage.now.getTime() + 0.2 * DAY_MS);
  assert.equal((await retainAll(host, config)).givenUp.length, 3);
  // What grows is a file in it, whose change time no test can set.
  const growing = (path: string) => {
    const stat = host.fs.lstat(path);
    return path === partOf(unfinished) ? { ...stat, ctimeMs: storage.now.getTime() } : stat;
  };
  const grown = await retainAll({ ...host, fs: { ...host.fs, lstat: growing } }, config);
  assert.deepEqual(grown.givenUp.map(({ path }) => path).sort(), [partial, mixed].sort());
  const { givenUp } = await retainAll(host, config, { apply: true });
  assert.equal(givenUp.length, 3, "a plan removes none");
  assert.match(
    givenUp.find(({ path }) => path === mixed)!.problem!,
    /thesis.odt in it is not part of an upload/,
  );
  assert.deepEqual([...Deno.readDirSync(`${store}/home`)].map(({ name }) => name), ["state"]);
  assert.deepEqual(
    namesIn(`${store}/home/state`),
    [mixed.split("/").at(-1)!, whole!.seal.id].sort(),
  );
});

Deno.test("an upload that is finished at the very moment of its removal is put back", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  storage.now = new Date();
  const { folder } = writeSnapshot(store, { id: idOf("20261101T000000Z"), signer });
  Deno.renameSync(`${folder}/seal.json`, `${storage.root}/seal.json`);
  await scrub(host, config);
  storage.now = new Date(storage.now.getTime() + 7.1 * DAY_MS - 60_000);
  const fs: Fs = {
    ...host.fs,
    rename: (from, to) => {
      if (from === folder) Deno.renameSync(`${storage.root}/seal.json`, `${folder}/seal.json`);
      host.fs.rename(from, to);
    },
  };
  // The clock's gap is larger than a day's, so a person has to trust it.
  const { givenUp } = await retainAll({ ...host, fs }, config, { apply: true, trustClock: true });
  assert.match(givenUp[0]!.problem!, /it was finished just now/);
  const report = await scrub(host, config);
  assert.equal(report.sets[0]!.good, 1);
});

Deno.test("watch() is silent within the limits, and says what is too old beyond them", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  assert.match(watch(host, config).alarms[0]!.problem, /no good snapshot has ever come/);
  const [only] = writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  Deno.renameSync(`${store}/home`, `${storage.root}/elsewhere`);
  assert.match(watch(host, config).alarms[0]!.problem, /^all its snapshots are gone, as if .* not mounted$/);
  Deno.renameSync(`${storage.root}/elsewhere`, `${store}/home`);
  storage.now = new Date(storage.now.getTime() + 25 * HOUR_MS);
  assert.deepEqual(watch(host, config).alarms, []);
  storage.now = new Date(storage.now.getTime() + 2 * HOUR_MS);
  const [alarm] = watch(host, config).alarms;
  assert.equal(alarm!.kind, "stale");
  assert.match(alarm!.problem, new RegExp(`${only!.seal.id}, is 27 h old; the limit is 26 h`));
});

Deno.test("what comes from another hub or in another set hides no alarm, and is in no receipt of this one", async () => {
  using storage = makeStorageHost();
  const { host, store, signer, root } = storage;
  const of = { signers: [signer.publicKey], maxAgeHours: { state: 26, voice: 192 } };
  const { receiptKeyFile } = makeReceiptKey(storage);
  const settings = { store, stateFolder: `${root}/ledger`, receiptKeyFile, hubs: { away: of, home: of } };
  const config = parseStorageConfig(JSON.stringify(settings), "test");
  writeHistory(store, signer, [storage.now]);
  const told = () => watch(host, config).alarms.map(({ kind, hub, set }) => [kind, hub, set]);
  const [away, voice] = ["away" as HubName, "voice" as SetName];
  assert.deepEqual(told(), [["stale", away, MAIN_SET], ["stale", away, voice], ["stale", HUB, voice]]);
  for (const set of [MAIN_SET, voice]) {
    writeSnapshot(store, { hub: away, set, id: snapshotIdAt(storage.now), signer });
  }
  assert.deepEqual(told(), [["stale", HUB, voice]]);
  storage.now = new Date(storage.now.getTime() + 30 * HOUR_MS);
  writeSnapshot(store, { hub: away, id: snapshotIdAt(storage.now), signer });
  assert.deepEqual(told(), [["stale", HUB, MAIN_SET], ["stale", HUB, voice]]);

  await scrub(host, config);
  const verified = [away, HUB].map((hub) => {
    const { sets } = parseReceipt(Deno.readTextFileSync(`${store}/${hub}/.receipt.json`));
    return [...sets].map(([set, { newestVerified }]) => [set, newestVerified!.id]);
  });
  assert.deepEqual(verified, [
    [[MAIN_SET, "20261125T180000Z"], [voice, "20261124T120000Z"]],
    [[MAIN_SET, "20261124T120000Z"]],
  ]);
});

Deno.test("watch() does not take a suspect, a cut or a future-dated snapshot for a good one", async (t) => {
  const additions: Record<string, (storage: StorageHost) => void> = {
    suspect: ({ store, signer, now }) =>
      void writeSnapshot(store, {
        id: snapshotIdAt(now),
        signer,
        seal: { suspicions: [{ code: "empty", source: "x" }] },
      }),
    cut: ({ store, signer, now }) =>
      Deno.truncateSync(partOf(writeSnapshot(store, { id: snapshotIdAt(now), signer }).folder), 3),
    "cut in one of two parts": ({ store, signer, now }) => {
      const parts = { [FILES_PART]: new Uint8Array(9), [MANIFEST_PART]: new Uint8Array(9) };
      Deno.truncateSync(partOf(writeSnapshot(store, { id: snapshotIdAt(now), signer, parts }).folder), 3);
    },
    "built on a cut one": ({ store, signer, now }) => {
      const [full] = writeHistory(store, signer, [new Date(now.getTime() - HOUR_MS), now]);
      Deno.truncateSync(partOf(full!.folder), 3);
    },
    "future-dated": ({ store, signer }) =>
      void writeSnapshot(store, { id: idOf("99981231T000000Z"), signer }),
    forged: ({ store, now }) => void writeSnapshot(store, { id: snapshotIdAt(now), signer: makeSigner() }),
  };
  for (const [name, add] of Object.entries(additions)) {
    await t.step(name, async () => {
      using storage = makeStorageHost();
      const { host, config, store, signer } = storage;
      writeHistory(store, signer, [storage.now]);
      await scrub(host, config);
      storage.now = new Date(storage.now.getTime() + 30 * HOUR_MS);
      add(storage);
      assert.equal(watch(host, config).alarms.some(({ kind }) => kind === "stale"), true);
    });
  }
});

Deno.test("watch() says when scrub or the drills have stopped", async () => {
  using storage = makeStorageHost();
  const { host, store, signer, root } = storage;
  const config = storage.withConfig({ clockGapDaysMax: 100, scrubMaxAgeDays: 20 }, {
    maxAgeHours: { state: 10_000 },
    drillLogFile: `${root}/drills.jsonl`,
  });
  writeHistory(store, signer, [storage.now]);
  await scrub(host, config);
  assert.match(watch(host, config).alarms[0]!.problem, /there is no good drill/);
  const line = (ok: boolean, hub?: string) =>
    JSON.stringify({ at: storage.now, hub, snapshot: "20261124T120000Z", set: "state", ok });
  Deno.writeTextFileSync(`${root}/drills.jsonl`, `${line(true, "another")}\n`);
  assert.match(watch(host, config).alarms[0]!.problem, /there is no good drill/, "it was of another hub");
  // What a hub can put in its place stops nothing of the others, and is told.
  Deno.removeSync(`${root}/drills.jsonl`);
  Deno.mkdirSync(`${root}/drills.jsonl`);
  const told: string[] = [];
  const telling = { ...host, report: { ...host.report, warn: (text: string) => told.push(text) } };
  assert.match(watch(telling, config).alarms[0]!.problem, /there is no good drill/);
  assert.deepEqual(told, [`Cannot read ${root}/drills.jsonl: it is a folder; it counts as empty`]);
  Deno.removeSync(`${root}/drills.jsonl`);
  Deno.writeTextFileSync(`${root}/drills.jsonl`, `${line(true, HUB)}\n{"cut`);
  assert.deepEqual(watch(host, config).alarms, []);
  storage.now = new Date(storage.now.getTime() + 21 * DAY_MS);
  Deno.writeTextFileSync(`${root}/drills.jsonl`, `${line(false)}\n`);
  const problems = watch(host, config).alarms.map(({ problem }) => problem);
  assert.match(problems[0]!, /scrub has not read all of it for 21 days/);
  assert.match(problems[1]!, /there is no good drill/);
  const daily = storage.withConfig({ clockGapDaysMax: 100, scrubMaxAgeDays: 1, drillMaxAgeDays: 1 }, {
    drillLogFile: `${root}/drills.jsonl`,
  });
  assert.deepEqual(
    watch(host, daily).alarms.map(({ problem }) => /; the limit is .*$/.exec(problem)?.[0]).slice(-2),
    ["; the limit is 1 day", "; the limit is 1 day"],
  );
  // Of a clock that was ahead.
  const at = new Date(storage.now.getTime() + 400 * DAY_MS);
  const ahead = JSON.stringify({ at, snapshot: "20261124T120000Z", set: "state", ok: true });
  Deno.writeTextFileSync(`${root}/drills.jsonl`, `${ahead}\n`);
  assert.match(
    watch(host, config).alarms[1]!.problem,
    /the last good drill was 400 days ahead of this clock/,
  );
});

Deno.test("a hub that has nearly used up its quota is an alarm with a remedy, and status says so", () => {
  using storage = makeStorageHost();
  const { host, store, signer } = storage;
  const parts = { [FILES_PART]: new Uint8Array(1500) };
  writeSnapshot(store, { id: snapshotIdAt(storage.now), signer, parts });
  writeSnapshot(store, { id: snapshotIdAt(storage.now), signer, parts, set: "voice" as SetName });
  Deno.mkdirSync(`${store}/${HUB}/state/.incoming-x`);
  Deno.writeTextFileSync(`${store}/${HUB}/notes.txt`, "");
  const under = (path: string): number =>
    [...Deno.readDirSync(path)].reduce(
      (count, { name, isDirectory }) => count + 1 + (isDirectory ? under(`${path}/${name}`) : 0),
      0,
    );
  const found = under(`${store}/${HUB}`);
  const cases: [string, number, string][] = [
    ["quotaBytes", 3000, "its snapshots take 3.00 kB of its quotaBytes of 3.33 kB"],
    [
      "quotaFiles",
      found,
      `it has ${found} files and folders of its quotaFiles of ${Math.ceil(found / 0.9) - 1}`,
    ],
  ];
  for (const [quota, used, problem] of cases) {
    const within = storage.withConfig({}, { [quota]: Math.ceil(used / 0.9) });
    assert.deepEqual(watch(host, within).alarms, []);
    assert.deepEqual(storageStatus(host, within).overQuota, []);

    const over = storage.withConfig({}, { [quota]: Math.ceil(used / 0.9) - 1 });
    const [alarm, ...others] = watch(host, over).alarms;
    assert.deepEqual([alarm!.kind, alarm!.hub, alarm!.problem, others], ["disk", HUB, problem, []]);
    assert.match(alarm!.hint!, /raise its quota .*storage authorize/);
    assert.deepEqual(storageStatus(host, over).overQuota, [{ hub: HUB, problem }]);
  }
});

Deno.test("watch() warns before the disk is full, from the rate of the last days", () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  for (let day = 10; day >= 0; day--) {
    const id = snapshotIdAt(new Date(storage.now.getTime() - day * DAY_MS));
    writeSnapshot(store, { id, signer, parts: { [FILES_PART]: new Uint8Array(100_000) } });
  }
  storageStatus(host, config);
  storage.now = new Date(storage.now.getTime() + DAY_MS);
  const full = (freeBytes: number) => {
    const fs = { ...host.fs, freeBytes: () => freeBytes };
    return watch({ ...host, fs }, config).alarms.filter(({ kind }) => kind === "disk").map(({ problem }) =>
      problem
    );
  };
  assert.deepEqual(full(1e9), []);
  assert.match(full(5e6)[0]!, /full in 4 days/);
  assert.match(full(0)[0]!, /is full/);
});

Deno.test("watch() and storage status tell that the disk can hold few files more", () => {
  using storage = makeStorageHost();
  const { config, store, signer } = storage;
  writeSnapshot(store, { id: snapshotIdAt(storage.now), signer });
  const on = (disk: ReturnType<Fs["freeFiles"]>) => {
    const host = { ...storage.host, fs: { ...storage.host.fs, freeFiles: () => disk } };
    const told = watch(host, config).alarms.map(({ problem }) => problem);
    assert.equal(storageStatus(host, config).fewFiles, told[0] ?? null);
    return told;
  };
  for (const disk of [undefined, { free: 1, total: 1 }, { free: 101, total: 1000 }]) {
    assert.deepEqual(on(disk), []);
  }
  for (const free of [99, 0]) {
    const few = `the store's disk can hold ${free} more files and folders, of 1,000 (df -i)`;
    assert.deepEqual(on({ free, total: 1000 }), [few]);
  }
});

Deno.test("watch() writes metrics that keep to Prometheus' conventions", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer, root } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 3));
  await scrub(host, config);
  watch(host, config, `${root}/hapi_backup.prom`);
  const lines = Deno.readTextFileSync(`${root}/hapi_backup.prom`).trimEnd().split("\n");
  assert(lines.includes(`hapi_backup_newest_good_timestamp_seconds{hub="home",set="state"} 1795521600`));
  assert(lines.includes(`hapi_backup_snapshots{hub="home",set="state",standing="good"} 3`));
  const helped = new Set<string>();
  for (const line of lines) {
    const comment = /^# (HELP|TYPE) ([a-z_]+) \S/.exec(line);
    if (comment) helped.add(`${comment[1]} ${comment[2]}`);
    else {
      const sample = /^([a-z_]+)(\{([a-z]+="[^"\\]*",?)+\})? -?\d+(\.\d+)?$/.exec(line);
      assert(sample, line);
      assert(helped.has(`HELP ${sample[1]}`) && helped.has(`TYPE ${sample[1]}`), line);
      assert.match(sample[1]!, /^hapi_backup_/);
    }
  }
  assert.deepEqual(namesIn(root), [
    "hapi_backup.prom",
    "ledger",
    "store",
  ]);
  storage.now = new Date(storage.now.getTime() + 30 * HOUR_MS);
  watch(host, config, `${root}/hapi_backup.prom`);
  const alarms = Deno.readTextFileSync(`${root}/hapi_backup.prom`).match(/^hapi_backup_alarms.*$/gm)!;
  assert.deepEqual(alarms.map((line) => line.replace(/.*"(\w+)"\}/, "$1")), [
    "stale 1",
    "integrity 0",
    "clock 0",
    "disk 0",
  ]);
});

Deno.test("formatMetrics() escapes labels and help, and writes what is no number as Prometheus reads it", () => {
  const text = formatMetrics([
    {
      name: "a_seconds",
      help: "x\\y\nz",
      samples: [
        { labels: { l: 'q"\\\n' }, value: Infinity },
        { labels: {}, value: -Infinity },
        { value: NaN },
      ],
    },
    { name: "b", help: "none", samples: [{ value: undefined }] },
  ]);
  assert.equal(
    text,
    '# HELP a_seconds x\\\\y\\nz\n# TYPE a_seconds gauge\na_seconds{l="q\\"\\\\\\n"} +Inf\n' +
      "a_seconds -Inf\na_seconds NaN\n",
  );
});

Deno.test("storageStatus() tells the newest good snapshot, its chain, its age, and the room left", async () => {
  using storage = makeStorageHost();
  const { host, config } = storage;
  const written = await live(storage, 5);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  const status = storageStatus(host, config);
  const [set] = status.sets;
  assert.equal(set!.newestGood!.id, written.at(-1)!.seal.id);
  assert.equal(set!.newestGood!.ageSeconds, 3600);
  assert.equal(set!.newestGood!.chainLength, 3);
  assert.equal(set!.newestVerified, written.at(-1)!.seal.id);
  assert.equal(status.bytes, written.reduce((sum, { seal }) => sum + seal.parts[0]!.bytes, 0));
  assert.equal(typeof status.freeBytes, "number");
  assert.equal(status.lastScrubAt, new Date(storage.now.getTime() - HOUR_MS).toISOString());
});

Deno.test("a receipt tells the hub what was verified, and only the storage host's key can make one", async () => {
  using storage = makeStorageHost();
  const { host, store, signer, root } = storage;
  const { receiptKeyFile, seed } = makeReceiptKey(storage);
  const config = storage.withConfig({ receiptKeyFile });
  const written = writeHistory(store, signer, timesUntil(storage.now, 3));
  await assert.rejects(scrub(host, storage.withConfig({ receiptKeyFile: `${root}/none` })), {
    kind: "key",
    hint: `make one with \`ssh-keygen -t ed25519 -N '' -f ${
      shellQuote(`${root}/none`)
    }\`, or name another as receiptKeyFile`,
  });
  const report = await scrub(host, config);
  assert.deepEqual(report.receipts, [{ hub: HUB }]);
  const read = () => ({
    text: Deno.readTextFileSync(`${store}/home/.receipt.json`),
    signature: Deno.readTextFileSync(`${store}/home/.receipt.json.sig`),
  });
  const allowed = new Set([fingerprintOf(publicKeyOf(seed))]);
  const { text, signature } = read();
  const receipt = verifyReceipt(text, signature, allowed, HUB);
  const newest = written.at(-1)!;
  assert.deepEqual(receipt.sets.get(MAIN_SET), {
    newestVerified: { id: newest.seal.id, sealSha256: newest.checksum },
    problems: [],
    fullWanted: false,
  });
  assert.deepEqual(parseReceipt(serializeReceipt(receipt)), receipt);
  for (const time of ["2026-03-01T00:00:00+05", "2026-02-30T00:00:00.000Z", "yesterday"]) {
    const forged = JSON.stringify({ ...JSON.parse(text), time });
    assert.throws(() => parseReceipt(forged), { message: /: time: is not a time in ISO 8601$/ }, time);
  }
  assert.throws(() => verifyReceipt(text, signature, new Set(), HUB), { kind: "integrity" });
  assert.throws(() => verifyReceipt(text.replace("false", "true"), signature, allowed, HUB), {
    kind: "integrity",
  });
  assert.throws(() => verifyReceipt(text, signature, allowed, "other" as typeof HUB), { kind: "integrity" });
  const asSeal = signSsh(seed, SEAL_NAMESPACE, new TextEncoder().encode(text));
  assert.throws(() => verifyReceipt(text, asSeal, allowed, HUB), {
    message: /its namespace is "hapi-backup-seal"/,
  });
  // A hub would not read one of more, or longer.
  const many = Array.from({ length: 21 }, (_, index) => `${index} ${"x".repeat(index === 0 ? 499 : 497)}`);
  const bad = { newestVerified: null, problems: many, fullWanted: true };
  const told = parseReceipt(serializeReceipt({ ...receipt, sets: new Map([[MAIN_SET, bad]]) })).sets.get(
    MAIN_SET,
  );
  const cut = [`0 ${"x".repeat(497)}…`, ...many.slice(1, 20).map((text) => text.slice(0, 500))];
  assert.deepEqual(told, { ...bad, problems: cut });

  Deno.truncateSync(partOf(written[0]!.folder), 0);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  await scrub(host, config);
  const after = read();
  const damaged = verifyReceipt(after.text, after.signature, allowed, HUB).sets.get(MAIN_SET)!;
  assert.equal(damaged.fullWanted, true);
  assert.equal(damaged.newestVerified, null);
  assert.match(damaged.problems.join("\n"), /0 bytes where the seal says/);
});

Deno.test("a receipt asks for no new full because of what others put there", async () => {
  using storage = makeStorageHost();
  const { host, store, signer } = storage;
  const { receiptKeyFile } = makeReceiptKey(storage);
  const config = storage.withConfig({ receiptKeyFile });
  writeHistory(store, signer, timesUntil(storage.now, 3));
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  writeSnapshot(store, { id: snapshotIdAt(storage.now), signer: makeSigner() });
  await scrub(host, config);
  const receipt = parseReceipt(Deno.readTextFileSync(`${store}/home/.receipt.json`)).sets.get(MAIN_SET)!;
  assert.equal(receipt.fullWanted, false);
  assert.match(receipt.problems[0]!, /may not sign/);
});

Deno.test("authorize() prints a line that confines the key, and refuses what would need quoting", () => {
  using storage = makeStorageHost({}, { quotaBytes: (1 << 30) - 1 });
  const { host, config, root } = storage;
  const key = makeSigner().publicKey;
  Deno.writeTextFileSync(`${root}/key.pub`, key + "\n");
  const options = { hub: HUB, keyFile: `${root}/key.pub`, from: "100.64.0.0/10" };
  const text = authorize(host, config, { ...options, readKeyFile: `${root}/key.pub` });
  const lines = text.split("\n").filter((line) => !line.startsWith("#"));
  const folder = `${config.store}/home`;
  assert.deepEqual(lines, [
    `restrict,command="/usr/bin/rrsync -wo -no-del -no-overwrite ${folder}",from="100.64.0.0/10" ${key}`,
    `restrict,command="/usr/bin/rrsync -ro ${folder}",from="100.64.0.0/10" ${key}`,
    "",
  ]);
  assert.deepEqual(text.match(/(?<=^# {3})[a-z].*/gm), [
    "getent passwd hapi-backup-storage || " +
    "useradd --system --user-group --shell /usr/sbin/nologin hapi-backup-storage",
    `install -d -o root -g root -m 0755 ${config.store} ` +
    "/var/lib/hapi-backup-hubs /var/lib/hapi-backup-hubs/home /var/lib/hapi-backup-hubs/home/.ssh",
    "useradd --system --user-group --home-dir /var/lib/hapi-backup-hubs/home --no-create-home " +
    "--shell /bin/sh --password '*' hapi-home",
    `install -d -o hapi-home -g hapi-backup-storage -m 2770 ${folder}`,
    `setquota -u hapi-home 0 1048576 0 200000 "$(stat -c %m ${config.store})"`,
    "hapi-backup systemd --system --storage --to ~/units",
  ]);
  assert.match(
    text,
    /^# Then this file goes to \/var\/lib\/hapi-backup-hubs\/home\/.ssh\/authorized_keys, /m,
  );
  const anywhere = authorize(host, { ...config, store: "/srv/USERS" }, { ...options, from: undefined });
  assert.equal(
    anywhere.split("\n").at(-2),
    `restrict,command="/usr/bin/rrsync -wo -no-del -no-overwrite /srv/USERS/home" ${key}`,
  );
  assert.match(anywhere, /"\$\(stat -c %m \/srv\/USERS\)"$/m);
  assert.match(
    authorize(host, storage.withConfig({}), options),
    /setquota -u hapi-home .*no quotaBytes is configured: a hub can fill the disk/,
  );
  assert.throws(() => authorize(host, config, { ...options, from: '1.2.3.4" x' }), {
    kind: "usage",
    message: String.raw`Cannot authorize with address range "1.2.3.4\" x": it would need quoting`,
    hint: "use addresses such as 100.64.0.0/10, with commas between several",
  });
  assert.throws(() => authorize(host, { ...config, store: '/a b"' }, options), { kind: "usage" });
  assert.throws(() => authorize(host, config, { ...options, hub: "who" }), { kind: "usage" });
  assert.throws(() => authorize(host, config, { ...options, keyFile: `${root}/none` }), { kind: "key" });
  Deno.writeTextFileSync(`${root}/key.pub`, "ssh-rsa AAAA x");
  assert.throws(() => authorize(host, config, options), { kind: "key" });
  Deno.writeTextFileSync(`${root}/read.pub`, "ssh-rsa AAAA x");
  assert.throws(
    () => authorize(host, config, { ...options, readKeyFile: `${root}/read.pub` }),
    (error: BackupError) => error.message.startsWith(`Cannot authorize the key in ${root}/key.pub: `),
  );
  Deno.writeTextFileSync(`${root}/key.pub`, key);
  assert.throws(
    () => authorize(host, config, { ...options, readKeyFile: `${root}/read.pub` }),
    (error: BackupError) => error.message.startsWith(`Cannot authorize the key in ${root}/read.pub: `),
  );
});

Deno.test("parseStorageConfig() names the file, the line, the key and what is wrong with it", () => {
  const key = makeSigner().publicKey;
  const parse = (settings: unknown) => () =>
    parseStorageConfig(JSON.stringify(settings, null, 1), "storage.json");
  const hubs = { home: { signers: [key] } };
  parse({ store: "/srv/b", hubs })();
  const wrong: [unknown, RegExp][] = [
    [{ store: "srv", hubs }, /line 2: store: is not an absolute path/],
    [{ store: "/srv/b", hubs: { Home: { signers: [key] } } }, /line 4: hubs\.Home: is not a hub's name/],
    [{ hubs }, /line 1: store: is missing/],
    [{ store: "/srv/b", hubs: { home: { signers: [] } } }, /line 5: hubs.home.signers/],
    [{ store: "/srv/b", hubs: { home: { signers: ["ssh-rsa AAAA"] } } }, /hubs.home.signers.0: .*ssh-rsa/],
    [{ store: "/srv/b", stateFolder: "/srv/b/x/../state", hubs }, /inside the store/],
    [{ store: "/srv/b", hubs, timeZone: "Berlin" }, /timeZone: is not a time zone/],
    [{ store: "/srv/b", hubs, retention: { keepGoodMin: 0 } }, /retention.keepGoodMin/],
    ...[{ keepWithinDays: -1 }, { keepDaily: -1 }, { keepDaily: 1.5 }, { lateHoursMax: 0 }].map(
      (retention): [unknown, RegExp] => [
        { store: "/srv/b", hubs: { home: { signers: [key], retention } } },
        /hubs\.home\.retention\.(keepWithinDays|keepDaily|lateHoursMax)/,
      ],
    ),
    ...[
      { snapshotsPerDayMax: 0 },
      { bytesPerDayMax: 0 },
      { quotaBytes: 0 },
      { quotaFiles: 0 },
      { user: "-x" },
      { user: "a b" },
      { maxAgeHours: { state: 0 } },
    ].map((limit): [unknown, RegExp] => [
      { store: "/srv/b", hubs: { home: { signers: [key], ...limit } } },
      new RegExp(`hubs\\.home\\.${Object.keys(limit)[0]}`),
    ]),
    ...["incomingKeepDays", "clockGapDaysMax", "scrubMaxAgeDays", "drillMaxAgeDays"].map(
      (name): [unknown, RegExp] => [{ store: "/srv/b", hubs, [name]: 0 }, new RegExp(`: ${name}`)],
    ),
    [
      { store: "/srv/b", hubs: { ["a".repeat(28)]: { signers: [key] } } },
      /user hapi-a+ has more than 32 characters/,
    ],
    [{ store: "/srv/b", hubs, storre: 1 }, /"storre" \(did you mean "store"\?\)/],
  ];
  for (const [settings, message] of wrong) {
    assert.throws(
      parse(settings),
      (error) =>
        error instanceof BackupError && error.kind === "config" && message.test(error.message) &&
        error.message.includes("storage.json"),
      String(message),
    );
  }
});

Deno.test("what is kept is said for a set, else for its hub, else for all, else by the default policy", () => {
  const signers = [makeSigner().publicKey];
  const config = parseStorageConfig(
    JSON.stringify({
      store: "/srv/b",
      retention: { keepDaily: 1, keepWeekly: 1, keepMonthly: 1 },
      hubs: {
        ["a".repeat(27)]: { signers },
        home: {
          signers,
          retention: { keepWeekly: 2, keepMonthly: 2 },
          sets: { voice: { retention: { keepMonthly: 3 } } },
        },
      },
    }),
    "storage.json",
  );
  const ofAll = {
    keepWithinDays: 14,
    keepLast: 0,
    keepDaily: 1,
    keepWeekly: 1,
    keepMonthly: 1,
    keepYearly: 0,
    keepGoodMin: 14,
    lateHoursMax: 72,
  };
  const policy = (hub: string, set: string) => policyOf(config, hub as HubName, set as SetName);
  assert.deepEqual(policy("unknown", "voice"), ofAll);
  assert.deepEqual(policy("home", "state"), { ...ofAll, keepWeekly: 2, keepMonthly: 2 });
  assert.deepEqual(policy("home", "voice"), { ...ofAll, keepWeekly: 2, keepMonthly: 3 });
  const { user, maxAgeHours, snapshotsPerDayMax, quotaFiles } = config.hubs.get("home" as HubName)!;
  assert.deepEqual([user, [...maxAgeHours], snapshotsPerDayMax, quotaFiles], [
    "hapi-home",
    [["state", 26], ["voice", 192]],
    24,
    200_000,
  ]);
  const { keepDaily, keepWeekly, keepMonthly } =
    parseStorageConfig('{ "store": "/s", "hubs": {} }', "x").policy;
  assert.deepEqual([keepDaily, keepWeekly, keepMonthly], [60, 26, 24]);
});

Deno.test("ten thousand junk entries of every kind are counted, named in part, and left alone", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 3));
  const set = `${store}/home/state`;
  for (let index = 0; index < 10_000; index++) Deno.writeTextFileSync(`${set}/junk ${index}\n`, "");
  Deno.mkdirSync(`${set}/20269999T000000Z`);
  Deno.mkdirSync(`${set}/.hidden`);
  Deno.mkdirSync(`${set}/.removing-20261101T000000Z`);
  Deno.symlinkSync("/etc", `${set}/20261101T000000Z`);
  Deno.symlinkSync("nowhere", `${store}/home/voice`);
  Deno.mkdirSync(`${store}/home/Not A Set`);
  Deno.mkdirSync(`${store}/..hub`);
  Deno.writeTextFileSync(`${store}/notes.txt`, "");
  await new Deno.Command("mkfifo", { args: [`${set}/pipe`] }).output();
  const report = await scrub(host, config);
  assert.equal(report.ok, true);
  assert.equal(report.sets[0]!.good, 3);
  assert.equal(report.foreign.count, 10_009);
  assert.equal(report.foreign.items.length, 200);
  storage.now = new Date(storage.now.getTime() + 6 * DAY_MS);
  await retainAll(host, config, { apply: true });
  assert.equal([...Deno.readDirSync(set)].length, 10_008);
});

Deno.test("hostile entries inside a snapshot are reported and never followed", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer, root } = storage;
  const ids = timesUntil(storage.now, 4).map(snapshotIdAt);
  const written = ids.map((id) => writeSnapshot(store, { id, signer }));
  // A part that is a link to a right copy of itself, one that is a pipe, a seal that is a link, and one that is a folder.
  Deno.renameSync(partOf(written[0]!.folder), `${root}/part`);
  Deno.symlinkSync(`${root}/part`, partOf(written[0]!.folder));
  Deno.removeSync(partOf(written[1]!.folder));
  const pipes = [partOf(written[1]!.folder), `${store}/pipe`, `${written[0]!.folder}/pipe`];
  await new Deno.Command("mkfifo", { args: pipes }).output();
  Deno.renameSync(`${written[2]!.folder}/seal.json`, `${root}/seal.json`);
  Deno.symlinkSync(`${root}/seal.json`, `${written[2]!.folder}/seal.json`);
  Deno.removeSync(`${written[3]!.folder}/seal.json`);
  Deno.mkdirSync(`${written[3]!.folder}/seal.json`);
  Deno.writeTextFileSync(`${written[0]!.folder}/extra`, "");
  const report = await scrub(host, config);
  const problems = report.damage.items.map(({ problem }) => problem).join("\n");
  assert.match(problems, /it is a link, not a file/);
  assert.match(problems, /it is a socket, pipe or device, not a file/);
  assert.match(problems, /seal.json is a link/);
  assert.match(problems, /seal.json is a folder/);
  assert(report.foreign.items.some(({ path }) => path.endsWith("/extra")));
  const odd = report.foreign.items.filter(({ path }) => path.endsWith("/pipe"));
  assert.equal(odd.length, 2);
  for (const { reason } of odd) assert.match(reason, /^is a socket, pipe or device\b/);
});

Deno.test("seals with absurd contents are faults of their snapshot, not of the program", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const ids = timesUntil(storage.now, 9).map(snapshotIdAt);
  const spoil = [
    (folder: string) => Deno.writeTextFileSync(`${folder}/seal.json`, "{"),
    (folder: string) => Deno.writeTextFileSync(`${folder}/seal.json`, ""),
    (folder: string) => Deno.writeFileSync(`${folder}/seal.json`, new Uint8Array(2 << 20)),
    (folder: string) => Deno.writeTextFileSync(`${folder}/seal.json`, "[".repeat(100_000)),
    (folder: string) => Deno.writeTextFileSync(`${folder}/seal.json.sig`, "x".repeat(100_000)),
    (folder: string) => Deno.removeSync(`${folder}/seal.json.sig`),
    (folder: string) => {
      const text = Deno.readTextFileSync(`${folder}/seal.json`);
      Deno.writeTextFileSync(
        `${folder}/seal.json`,
        text.replace(/"bytes": \d+/, '"bytes": 9007199254740991'),
      );
    },
    (folder: string) => {
      const sha256 = "0".repeat(64);
      const parts = Array.from({ length: 1000 }, (_, index) => ({
        name: `part${index}.zst.age` as PartName,
        bytes: Number.MAX_SAFE_INTEGER,
        sha256,
      }));
      writeSnapshot(store, { id: folder.split("/").at(-1) as SnapshotId, signer, seal: { parts } });
    },
  ];
  for (const [index, id] of ids.entries()) {
    const { folder } = writeSnapshot(store, { id, signer });
    spoil[index]?.(folder);
  }
  const report = await scrub(host, config);
  assert.equal(report.sets[0]!.good, 1, JSON.stringify(report.sets));
  assert.equal(report.damage.count, 7, JSON.stringify(report.damage.items));
  assert.equal(report.incoming.count, 1, "without a signature it is not there yet");
  watch(host, config);
  assert.equal((await retainAll(host, config, { apply: true })).sets[0]!.refused.length > 0, true);
});

Deno.test("missing folders: no store is an error, no hub and no set are not", async () => {
  using storage = makeStorageHost();
  const { host, config, store } = storage;
  const empty = await scrub(host, config);
  assert.deepEqual([empty.ok, empty.sets], [true, []]);
  Deno.removeSync(`${store}/home`);
  assert.equal((await scrub(host, config)).ok, true);
  Deno.removeSync(store);
  await assert.rejects(() => scrub(host, config), { kind: "disk" });
  assert.throws(() => watch(host, config), { kind: "disk" });
});

Deno.test("a folder that cannot be read is damage, and nothing in it is taken for gone", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 3));
  await scrub(host, config);
  for (const hidden of [`${store}/home/state`, `${store}/home`]) {
    const fs = {
      ...host.fs,
      readDir: (path: string) => {
        if (path === hidden) throw new Deno.errors.PermissionDenied("Permission denied (os error 13)");
        return host.fs.readDir(path);
      },
    };
    const report = await scrub({ ...host, fs }, config, { maxTimeSeconds: 0 });
    assert.equal(report.ok, false);
    assert.match(report.unreadable[0]!.reason, /Permission denied/);
    assert.equal(report.damage.count, 0);
    const plan = await retainAll({ ...host, fs }, config, { apply: true });
    assert.match(plan.sets[0]!.refused[0]!, /cannot be read/);
  }
  assert.equal((await scrub(host, config)).ok, true);
});

Deno.test("a read error of a part is damage of that part; the rest is still read", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  const written = writeHistory(store, signer, timesUntil(storage.now, 3), { chainLength: 1 });
  const bad = partOf(written[1]!.folder);
  const fs: Fs = {
    ...host.fs,
    open: (path, options) => {
      if (path === bad) throw new Error("Input/output error (os error 5)");
      return host.fs.open(path, options);
    },
  };
  const report = await scrub({ ...host, fs }, config);
  assert.deepEqual(report.damage.items.map(({ kind }) => kind), ["part"]);
  assert.match(report.damage.items[0]!.problem, /cannot be read: Input\/output error/);
  assert.equal(report.sets[0]!.good, 2);
});

Deno.test("a read-only store can be scrubbed and watched; retention says that it cannot remove", async () => {
  using storage = makeStorageHost();
  const { host, store, signer } = storage;
  const { receiptKeyFile } = makeReceiptKey(storage);
  const config = storage.withConfig({ receiptKeyFile, retention: KEEP_ONE });
  writeHistory(store, signer, timesUntil(storage.now, 4), { chainLength: 1 });
  const refuse = (): never => {
    throw new Error("Read-only file system (os error 30)");
  };
  const within = (path: string) => path.startsWith(store);
  const fs: Fs = {
    ...host.fs,
    rename: (from, to) => within(from) ? refuse() : host.fs.rename(from, to),
    remove: (path, options) => within(path) ? refuse() : host.fs.remove(path, options),
    open: (path, options) => within(path) && options.write ? refuse() : host.fs.open(path, options),
  };
  const readOnly = { ...host, fs };
  const report = await scrub(readOnly, config);
  assert.equal(report.ok, true);
  assert.match(report.receipts[0]!.problem!, /read-only/);
  storage.now = new Date(storage.now.getTime() + HOUR_MS);
  assert.deepEqual(watch(readOnly, config).alarms, []);
  const plan = await retainAll(readOnly, config, { apply: true });
  assert.match(plan.sets[0]!.problem!, /Read-only/);
  assert.deepEqual(plan.sets[0]!.removed, []);
  assert.equal((await scrub(host, config)).ok, true);
});

Deno.test(
  "a full disk under the ledger is one clear error, and what the ledger held stays",
  ONLY_AS_ROOT,
  async () => {
    using storage = makeStorageHost();
    const { host, store, signer } = storage;
    const disk = `${storage.root}/disk`;
    Deno.mkdirSync(disk);
    await using _mounted = await mountTmpfs(disk, "size=1m");
    const config = storage.withConfig({ stateFolder: `${disk}/state` });
    writeHistory(store, signer, timesUntil(storage.now, 3));
    assert.equal((await scrub(host, config)).ok, true);
    try {
      Deno.writeFileSync(`${disk}/filler`, new Uint8Array(2 << 20));
    } catch { /* It is full now. */ }
    writeHistory(store, signer, timesUntil(new Date(storage.now.getTime() + DAY_MS), 500, 0.01));
    await assert.rejects(() => scrub(host, config), { kind: "disk" });
    Deno.removeSync(`${disk}/filler`);
  },
);

Deno.test("a damaged or newer ledger is an error with the remedy, never a fresh start", async () => {
  using storage = makeStorageHost();
  const { host, config } = storage;
  await scrub(host, config);
  const path = `${config.stateFolder}/ledger.db`;
  for (const end of ["-wal", "-shm"]) await Deno.remove(path + end).catch(() => {});
  Deno.writeFileSync(path, crypto.getRandomValues(new Uint8Array(8192)));
  await assert.rejects(() => scrub(host, config), { kind: "disk" });
  Deno.removeSync(path);
  const { DatabaseSync } = await import("node:sqlite");
  const db = new DatabaseSync(path);
  db.exec("PRAGMA user_version=99");
  db.close();
  await assert.rejects(() => scrub(host, config), { kind: "usage" });
});
