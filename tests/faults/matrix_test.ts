/**
 * The fault matrix: every fault, at moments of every step that the step's own operations count, and what must hold
 * after each: no wrong success; the live files as they were; whatever was sealed whole; an error that says what
 * happened; and a next run that succeeds and leaves nothing lying about.
 *
 * A seed chooses the moments and is printed: `FAULT_SEED=<seed>` repeats them, `FAULT_MOMENTS=all` tries them all.
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { BackupError } from "../../scripts/core/errors.ts";
import type { SnapshotId } from "../../scripts/core/names.ts";
import { HOUR_MS } from "../../scripts/core/time.ts";
import { knownError } from "../../scripts/host/fs.ts";
import type { Fs, OpenFile } from "../../scripts/host/host.ts";
import { makeHost } from "../../scripts/host/steps/step.ts";
import { isSealed, readSetIfThere } from "../../scripts/host/store/store.ts";
import { restore } from "../../scripts/restore.ts";
import { namesIn } from "../real/files.ts";
import { type Home, insertMessages, makeHome, output } from "../real/home.ts";
import {
  KEEP_ONE,
  makeStorageHost,
  type StorageHost,
  timesUntil,
  writeHistory,
} from "../real/signed_store.ts";
import { type Fault, FAULTS, faultyHost, type Kind } from "./faulty_host.ts";
import { choose, MOMENTS, SEED } from "./moments.ts";
import { readTree, type Tree, writeTree } from "./recording_fs.ts";
import type { ChildJob } from "./step_child.ts";
import { type StepName, STEPS, storageConfigIn, wholeIds } from "./steps.ts";

/** What was tried and what was survived, by step and fault. */
const matrix = new Map<string, Map<string, { tried: number; survived: number }>>();

/** A folder in the state in which a step finds it, and what must hold in it. */
interface Scene extends Disposable {
  readonly dir: string;
  /** The clock before the step. */
  readonly now: Date;
  readonly start: Tree;
  /** Makes the folder ready once it holds {@linkcode Scene.start}. */
  readonly ready?: () => Promise<void>;
  /** Checks what must hold whatever happened. */
  readonly check: (ended: Ended) => void | Promise<void>;
  /** Runs the step again, or what follows it, and checks that all is well. */
  readonly next: (ended: Ended) => Promise<void>;
}

/** How a struck step ended. */
interface Ended {
  readonly fault: Fault;
  /** Undefined for a success. */
  readonly error: BackupError | undefined;
  readonly killed: boolean;
}

const hashOf = (content: Uint8Array | string): string => createHash("sha256").update(content).digest("hex");

/** SHA-256 of the live files, by name. */
const liveFiles = ({ home }: Home): Map<string, string> =>
  new Map(
    ["hapi.db", "hub.env", "settings.json"]
      .map((name) => [name, hashOf(Deno.readFileSync(`${home}/.hapi/${name}`))]),
  );

async function makeScene(step: StepName): Promise<Scene> {
  switch (step) {
    case "snapshot":
    case "encrypt":
      return await makeBackupScene(step);
    case "ship":
      return await makeShipScene();
    case "restore in place":
    case "restore to a folder":
    case "verify":
      return await makeRestoreScene(step);
    case "retain":
    case "scrub":
      return await makeStorageScene(step);
  }
}

/** A home with a full, and a database that has changed since. */
async function makeBackupScene(step: "snapshot" | "encrypt"): Promise<Scene> {
  const home = await makeHome();
  await home.backup();
  home.sql(insertMessages(20));
  home.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-another-0123456789\n");
  const now = new Date(home.now.getTime() + 12 * HOUR_MS);
  home.now = now;
  if (step === "encrypt") await STEPS.snapshot(home.host, home.dir);
  const live = liveFiles(home);
  const before = wholeIds(home.host.fs, home.store);
  const expected = ({ fault }: Ended) =>
    fault.name === "file replaced" ? new Map(live).set("hub.env", hashOf("REPLACED=yes\n")) : live;
  /** All of it comes back: but for files that could not be read, of which the seal says so. */
  const assertRestores = async (id: SnapshotId, wanted: readonly ReadonlyMap<string, string>[]) => {
    const to = `${home.dir}/restored`;
    const opening = await home.opening();
    await restore(opening, id, to);
    const made = readSetIfThere(home.host.fs, opening.set).filter(isSealed).find((sealed) =>
      sealed.id === id
    );
    const { suspicions } = made!.sealed.seal;
    const there = namesIn(`${to}/home/.hapi`);
    for (const name of live.keys()) {
      // Each file is a source of its own.
      const isUnread = suspicions.some(({ code, source }) => code === "unreadable" && source === name);
      if (isUnread && !there.includes(name)) continue;
      const hash = hashOf(Deno.readFileSync(`${to}/home/.hapi/${name}`));
      assert.ok(
        wanted.some((files) => files.get(name) === hash),
        `${name} of ${id} is not what was saved`,
      );
    }
    Deno.removeSync(to, { recursive: true });
  };
  return {
    dir: home.dir,
    now,
    start: readTree(home.dir),
    async check(ended) {
      assert.deepEqual(liveFiles(home), expected(ended), "live files");
      const ids = wholeIds(home.host.fs, home.store);
      const made = ids.filter((id) => !before.includes(id));
      assert.equal(ids.length - made.length, before.length, "what was stored is there");
      if (step === "encrypt" && !ended.error && !ended.killed) assert.equal(made.length, 1);
      for (const id of made) await assertRestores(id, [live, expected(ended)]);
    },
    async next(ended) {
      home.now = now;
      const next = await home.backup();
      assert.deepEqual(next.suspicions, []);
      await assertRestores(next.id, [expected(ended)]);
      assert.deepEqual(namesIn(`${home.stateFolder}/state`), ["base", "last.json", "staging"]);
      assert.deepEqual(namesIn(`${home.stateFolder}/state/staging`), []);
      assert.equal(namesIn(`${home.stateFolder}/state/base`).length, 1);
      assert.deepEqual(namesIn(home.stored), wholeIds(home.host.fs, home.store));
    },
    [Symbol.dispose]: () => home[Symbol.dispose](),
  };
}

/** A home with a full and an increment, and an empty folder to ship them to. */
async function makeShipScene(): Promise<Scene> {
  const home = await makeHome();
  const disk = home.addDisk();
  await home.backup();
  home.sql(insertMessages(20));
  await home.backup();
  const live = liveFiles(home);
  const all = wholeIds(home.host.fs, home.store);
  return {
    dir: home.dir,
    now: home.now,
    start: readTree(home.dir),
    check(ended) {
      if (ended.fault.name !== "file replaced") assert.deepEqual(liveFiles(home), live);
      assert.deepEqual(wholeIds(home.host.fs, home.store), all);
      if (!namesIn(home.dir).includes("disk")) Deno.renameSync(`${home.dir}/gone`, disk);
      const there = wholeIds(home.host.fs, disk, false);
      if (!ended.error && !ended.killed) assert.deepEqual(there, all, "a success is there");
    },
    async next() {
      await STEPS.ship(home.host, home.dir);
      assert.deepEqual(wholeIds(home.host.fs, disk), all);
      assert.deepEqual(namesIn(`${disk}/home/state`), all);
      assert.deepEqual(namesIn(`${home.stateFolder}/ship`), ["disk.json"]);
    },
    [Symbol.dispose]: () => home[Symbol.dispose](),
  };
}

/** A home with a full and an increment, whose live files have changed since. */
async function makeRestoreScene(step: "restore in place" | "restore to a folder" | "verify"): Promise<Scene> {
  const home = await makeHome();
  await home.backup();
  home.sql(insertMessages(20));
  await home.backup();
  const saved = liveFiles(home);
  home.sql(insertMessages(20));
  home.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-another-0123456789\n");
  const live = liveFiles(home);
  const all = wholeIds(home.host.fs, home.store);
  const hapi = `${home.home}/.hapi`;
  /** Whether some file in the folder of live files has this content. */
  const isKept = (hash: string) =>
    namesIn(hapi).some((name) =>
      !name.startsWith(".") && hashOf(Deno.readFileSync(`${hapi}/${name}`)) === hash
    );
  return {
    dir: home.dir,
    now: home.now,
    start: readTree(home.dir),
    async check({ fault, error, killed }) {
      assert.deepEqual(wholeIds(home.host.fs, home.store), all);
      const here = new Map(live);
      // Replaced before the old one was set aside, after, or, at last, where the restored one was put.
      const isReplaced = fault.name === "file replaced";
      if (isReplaced && !isKept(here.get("hub.env")!)) here.set("hub.env", hashOf("REPLACED=yes\n"));
      for (const [name, hash] of here) assert.ok(isKept(hash), `the old ${name} is lost`);
      if (step === "restore in place" && !error && !killed) {
        const last = liveFiles(home).get("hub.env") === hashOf("REPLACED=yes\n");
        const put = isReplaced && last ? [["hub.env", hashOf("REPLACED=yes\n")] as const] : [];
        assert.deepEqual(liveFiles(home), new Map([...saved, ...put]));
      } else if (!killed || step !== "restore in place") assert.deepEqual(liveFiles(home), here);
      else {
        const folder = `${home.stateFolder}/restores`;
        const scripts = namesIn(home.stateFolder).includes("restores") ? namesIn(folder) : [];
        for (const name of scripts.filter((name) => name.endsWith(".sh"))) {
          await output("sh", [`${folder}/${name}`]);
        }
        assert.deepEqual(liveFiles(home), here, "the script puts everything back");
      }
      if (step === "restore to a folder") {
        const out = namesIn(home.dir).includes("out") ? namesIn(`${home.dir}/out`) : [];
        if (!error && !killed) assert.deepEqual(out, ["home"]);
        else if (!killed) assert.deepEqual(out, [], "nothing is left where it failed");
      }
    },
    async next({ killed }) {
      if (step === "restore to a folder" && killed) {
        for (const name of namesIn(home.dir)) {
          if (name === "out") Deno.removeSync(`${home.dir}/out`, { recursive: true });
        }
      }
      if (step !== "restore to a folder" || !namesIn(home.dir).includes("out")) {
        await STEPS[step](home.host, home.dir);
      }
      if (step === "restore in place") assert.deepEqual(liveFiles(home), saved);
      if (step === "verify") assert.deepEqual(namesIn(`${home.dir}/scratch`), []);
      assert.deepEqual(namesIn(hapi).filter((name) => /^\.hapi-backup|restoring$|journal/.test(name)), []);
    },
    [Symbol.dispose]: () => home[Symbol.dispose](),
  };
}

/** A storage host with two chains, of which the older is to go. */
async function makeStorageScene(step: "retain" | "scrub"): Promise<Scene> {
  const settings = { retention: KEEP_ONE };
  const storage: StorageHost = makeStorageHost(settings);
  const { host, root, store, signer } = storage;
  const ids = writeHistory(store, signer, timesUntil(storage.now, 4), { chainLength: 2 })
    .map(({ seal }) => seal.id);
  const [hub] = storage.config.hubs.values();
  Deno.writeTextFileSync(
    `${root}/storage.json`,
    JSON.stringify({
      store,
      stateFolder: `${root}/ledger`,
      timeZone: "UTC",
      ...settings,
      hubs: { home: { signers: [signer.publicKey], snapshotsPerDayMax: hub!.snapshotsPerDayMax } },
    }),
  );
  assert.deepEqual([...storageConfigIn(root).hubs.keys()], ["home"]);
  await STEPS.scrub(host, root);
  const now = new Date(storage.now.getTime() + HOUR_MS);
  return {
    dir: root,
    now,
    start: readTree(root),
    // What was written anew is to be read anew before anything is removed.
    async ready() {
      storage.now = new Date(now.getTime() - HOUR_MS / 2);
      await STEPS.scrub(host, root);
    },
    check({ error, killed }) {
      const there = wholeIds(host.fs, store);
      assert.deepEqual(there.slice(-2), ids.slice(-2), "what is to be kept is there");
      if (step === "scrub") assert.deepEqual(there, ids);
      else if (!error && !killed) assert.deepEqual(there, ids.slice(2));
    },
    async next() {
      storage.now = new Date(now.getTime() + 2 * HOUR_MS);
      await STEPS.scrub(host, root);
      storage.now = new Date(now.getTime() + 3 * HOUR_MS);
      await STEPS.retain(host, root);
      assert.deepEqual(namesIn(`${store}/home/state`), ids.slice(2));
    },
    [Symbol.dispose]: () => storage[Symbol.dispose](),
  };
}

/** Runs a step that `fault` strikes at its operation `at`, and says how it ended. */
async function strike(step: StepName, scene: Scene, fault: Fault, at: number): Promise<Ended> {
  let now = scene.now;
  let struck = false;
  let cancelled = false;
  const real = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
  const opened: OpenFile[] = [];
  const open: Fs["open"] = (...given) => {
    opened.push(real.fs.open(...given));
    return opened.at(-1)!;
  };
  const host = faultyHost({
    ...real,
    fs: { ...real.fs, open },
    now: () => now,
    run: () => Promise.resolve({ code: 0, stdout: "", stderr: "" }),
    checkpoint: () => {
      if (struck && fault.name === "killed") throw fault.error!();
      if (cancelled) {
        throw new BackupError("Cannot go on: interrupted", { kind: "cancelled" });
      }
    },
  }, (index, kind) => {
    if (index === at) {
      struck = true;
      fault.act?.({
        dir: scene.dir,
        moveClock: (hours) => now = new Date(now.getTime() + hours * HOUR_MS),
        cancel: () => cancelled = true,
      });
    }
    if (struck && fault.error && fault.kinds.includes(kind) && (fault.lasting || index === at)) {
      throw fault.error();
    }
    return struck && fault.short && (fault.lasting || index === at) ? "short" : undefined;
  });
  const ended = { fault, error: undefined, killed: fault.name === "killed" };
  try {
    await STEPS[step](host, scene.dir);
    assert.ok(struck, "the moment never came");
    return ended;
  } catch (error) {
    if (ended.killed) return ended;
    const known = knownError(error);
    if (!known) {
      throw new Error(`it ended with an error that says nothing to a person: ${error}`, { cause: error });
    }
    assert.match(known.message, /^Cannot /);
    assert.ok(fault.ends.includes(known.kind), `it ended with ${known.kind}: ${known.message}`);
    if (fault.says) assert.match(known.message, fault.says);
    return { ...ended, error: known };
  } finally {
    // A killed process lets go of its files, and of the locks on them.
    for (const file of opened) file.close();
  }
}

/** The kinds of a step's operations, in order. */
async function operationsOf(step: StepName, scene: Scene): Promise<Kind[]> {
  const kinds: Kind[] = [];
  const real = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
  const run = () => Promise.resolve({ code: 0, stdout: "", stderr: "" });
  await STEPS[step](
    faultyHost({ ...real, run, now: () => scene.now }, (_, kind) => void kinds.push(kind)),
    scene.dir,
  );
  return kinds;
}

const applies = (fault: Fault, step: StepName): boolean =>
  fault.name === "destination gone"
    ? step === "ship"
    : fault.name === "file replaced"
    ? step !== "retain" && step !== "scrub"
    // What the ledger does is not among the operations that are counted: see the processes that are really killed.
    : fault.name !== "killed" || (step !== "retain" && step !== "scrub");

/** Lets each fault strike at up to `most` moments of a step, and checks what must hold after each. */
async function strikeAll(
  step: StepName,
  scene: Scene,
  operations: readonly Kind[],
  faults: readonly Fault[],
  run: (step: StepName, scene: Scene, fault: Fault, at: number) => Promise<Ended>,
  most: number,
): Promise<void> {
  let failures = 0;
  const row = matrix.get(step) ?? new Map<string, { tried: number; survived: number }>();
  matrix.set(step, row);
  for (const fault of faults) {
    const isStruck = (kind: Kind) => fault.kinds.length === 0 || fault.kinds.includes(kind);
    const moments = operations.flatMap((kind, index) => isStruck(kind) ? [index] : []);
    const tally = { tried: 0, survived: 0 };
    row.set(fault.name, tally);
    for (const at of choose(moments, most, step, fault.name)) {
      tally.tried++;
      writeTree(scene.dir, scene.start);
      await scene.ready?.();
      try {
        const ended = await run(step, scene, fault, at);
        await scene.check(ended);
        await scene.next(ended);
        tally.survived++;
      } catch (error) {
        failures++;
        const where = `operation ${at} of ${operations.length}, ${operations[at]}`;
        console.log(`${step}: ${fault.name} at ${where}: ${(error as Error).stack}`);
      }
    }
  }
  assert.equal(failures, 0, `${failures} failures, see above`);
}

for (const step of Object.keys(STEPS) as StepName[]) {
  Deno.test(`${step}: every fault, at moments of it (seed ${SEED})`, async () => {
    using scene = await makeScene(step);
    const operations = await operationsOf(step, scene);
    assert.ok(operations.length > 15, `${operations.length} operations`);
    await strikeAll(step, scene, operations, FAULTS.filter((fault) => applies(fault, step)), strike, MOMENTS);
  });
}

/** The signals that really end a process, at moments of a step in it. */
const SIGNALS: readonly Fault[] = [
  { name: "SIGKILL", kinds: [], ends: [] },
  { name: "SIGTERM", kinds: [], ends: ["cancelled"], says: /interrupted/ },
];

/** Runs a step in a process of its own, to which `signal` comes before its operation `at`. */
async function signalled(step: StepName, scene: Scene, fault: Fault, at: number): Promise<Ended> {
  const signal = fault.name as ChildJob["signal"];
  const job: ChildJob = { step, dir: scene.dir, now: scene.now.toISOString(), at, signal };
  const child = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-run",
      "--allow-env",
      "--allow-sys",
      new URL("./step_child.ts", import.meta.url).pathname,
      JSON.stringify(job),
    ],
  }).output();
  const said = new TextDecoder().decode(child.stderr);
  if (signal === "SIGKILL") {
    assert.equal(child.signal, "SIGKILL", said);
    return { fault, error: undefined, killed: true };
  }
  // After the last checkpoint a step may as well come to its end.
  if (child.code === 0) return { fault, error: undefined, killed: false };
  assert.equal(child.code, 1, said);
  assert.match(said, /Cannot go on: interrupted/);
  return { fault, error: new BackupError(said, { kind: "cancelled" }), killed: false };
}

for (const step of Object.keys(STEPS) as StepName[]) {
  Deno.test(`${step}: a process of its own is killed or told to stop, at moments of it (seed ${SEED})`, async () => {
    using scene = await makeScene(step);
    const operations = await operationsOf(step, scene);
    await strikeAll(step, scene, operations, SIGNALS, signalled, Math.ceil(MOMENTS / 2));
  });
}

Deno.test("the fault matrix: where every step was tried, every fault was", () => {
  const lines = [...FAULTS, ...SIGNALS].map(({ name }) =>
    [
      name.padEnd(18),
      ...[...matrix.values()].map((row) => {
        const { survived, tried } = row.get(name) ?? { survived: 0, tried: 0 };
        return (tried === 0 ? "-" : `${survived}/${tried}`).padEnd(20);
      }),
    ].join("")
  );
  console.log([
    `survived / tried, seed ${SEED}`,
    ["".padEnd(18), ...[...matrix.keys()].map((step) => step.padEnd(20))].join(""),
    ...lines,
  ].join("\n"));
  // A run of some of the tests has some of the steps.
  if (matrix.size < Object.keys(STEPS).length) return;
  for (const { name } of [...FAULTS, ...SIGNALS]) {
    const tried = [...matrix.values()].reduce((sum, row) => sum + (row.get(name)?.tried ?? 0), 0);
    assert.ok(tried > 0, `${name} struck nowhere`);
  }
});
