/**
 * Every fault at moments of a restore whose parts are read and whose images are written by the program's own thread, as
 * a step runs it: at the operations of either, and while one waits for the other. What must hold: what is live is as it
 * was, or wholly restored; the error names the thing; nothing hangs, lies about or stays open; the next run succeeds.
 */

import assert from "node:assert/strict";
import { namesIn } from "../real/files.ts";
import { type Home, makeHome, output } from "../real/home.ts";
import { type Fault, FAULTS } from "./faulty_host.ts";
import { choose, MOMENTS, SEED } from "./moments.ts";
import { keyOf, readTree, type Tree, writeTree } from "./recording_fs.ts";
import { type Doer, StepWorker, type WorkerJob, type WorkerRun } from "./step_worker.ts";
import type { StepName } from "./steps.ts";

/** Those that a thread can tell from another. */
const NAMES = [
  "told to stop",
  "no space left",
  "EIO on read",
  "short reads",
  "EIO on write",
  "permission lost",
  "EIO on names",
];
const THREAD_FAULTS = NAMES.map((name) => FAULTS.find((fault) => fault.name === name)!);
/** Plaintext that is to be gone at the end. */
const LEFT = /\/\.hapi-backup-restore|^scratch\/.|\.journal-|\.restoring$/;
/** Messages of the database: of its image each increment changes every page. */
const MESSAGES = 6_000;

/** A home with a chain of four, and live files that have changed since. */
async function makeThreadScene() {
  const home = await makeHome();
  home.write(".hapi/scratchlist-attachments/a/b.txt", "attached\n");
  home.sql(`DELETE FROM messages;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${MESSAGES})
    INSERT INTO messages (session, body) SELECT 'a', randomblob(150) FROM n`);
  const kinds = [(await home.backup()).kind];
  for (let change = 0; change < 3; change++) {
    home.sql(`UPDATE messages SET body = randomblob(150) WHERE id % 8 = ${change}`);
    kinds.push((await home.backup()).kind);
  }
  assert.deepEqual(kinds, ["full", "increment", "increment", "increment"]);
  const saved = readTree(`${home.home}/.hapi`);
  home.sql("DELETE FROM messages WHERE id > 100");
  home.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-another-0123456789\n");
  return { home, saved, start: readTree(home.dir) };
}

/** Files below a folder that this process has open. */
const openBelow = async (folder: string): Promise<string[]> => {
  // It fails where another test of this process closes a file just then.
  const find = 'find "$0" -lname "$1" -printf "%l\\n" 2>/dev/null || true';
  const found = await output("sh", ["-c", find, `/proc/${Deno.pid}/fd`, `${folder}/*`]);
  return found.split("\n").filter((path) => path !== "");
};

/** What the other thread is told last, it may do a moment later. */
async function requireClosed(folder: string): Promise<void> {
  const deadline = performance.now() + 5_000;
  let open = await openBelow(folder);
  while (open.length > 0 && performance.now() < deadline) open = await openBelow(folder);
  assert.deepEqual(open, [], "files are left open");
}

Deno.test(`restores and drills on two threads: every fault on either, at moments of it (seed ${SEED})`, async (t) => {
  const { home, saved, start } = await makeThreadScene();
  using _home = home;
  using worker = new StepWorker();
  {
    using _held = Deno.openSync(home.database);
    assert.deepEqual(await openBelow(home.dir), [home.database], "what is open is not found");
  }
  for (const step of ["restore in place", "restore to a folder", "verify"] as const) {
    await t.step(step, () => strikeAll(worker, step, home, saved, start));
  }
  await t.step("a part that is missing leaves the one before it closed", async () => {
    for (const id of namesIn(home.stored).slice(1)) {
      const path = `${home.stored}/${id}/hapi.db.delta.zst.age`;
      Deno.renameSync(path, `${home.dir}/part`);
      const { error } = await worker.run({
        step: "restore to a folder",
        dir: home.dir,
        now: home.now.toISOString(),
      });
      assert.equal(error?.message, `Cannot read ${path}: it is missing`);
      await requireClosed(home.dir);
      Deno.renameSync(`${home.dir}/part`, path);
    }
  });
});

/** Lets each fault strike on each thread that it can strike on, and checks what must hold after each. */
async function strikeAll(worker: StepWorker, step: StepName, home: Home, saved: Tree, start: Tree) {
  const { dir } = home;
  const before = keyOf(start);
  const job: WorkerJob = { step, dir, now: home.now.toISOString() };
  const checkRestored = () => {
    if (step === "verify") return;
    const there = readTree(step === "restore in place" ? `${dir}/op/.hapi` : `${dir}/out/home/.hapi`);
    for (const [path, { content, mode }] of saved) {
      assert.ok(Buffer.from(there.get(path)!.content).equals(content), `${path} is not what was saved`);
      assert.equal(there.get(path)!.mode, mode, path);
    }
  };
  const leftovers = () => [...readTree(dir).keys()].filter((path) => LEFT.test(path));
  /** What must hold after each run, however it ended. */
  const check = async ({ error }: WorkerRun, fault?: Fault) => {
    await requireClosed(dir);
    if (error) {
      assert.ok(fault, error.message);
      assert.match(error.message, /^Cannot /);
      assert.ok(fault.ends.includes(error.kind), `it ended with ${error.kind}: ${error.message}`);
      if (fault.says) assert.match(error.message, fault.says);
      if (fault.error) assert.match(error.message, / \/|\.(age|json|sig)|hapi\.db/, "it names nothing");
    } else {
      checkRestored();
    }
    const left = leftovers();
    if (left.length > 0) {
      // What could not be removed, the next run removes.
      assert.ok(fault?.kinds.includes("name"), left.join());
      assert.equal((await worker.run(job)).error, undefined);
      assert.deepEqual(leftovers(), []);
      checkRestored();
    }
    if (error && left.length === 0) {
      removeEmpty(`${dir}/op/state/restores`);
      removeEmpty(`${dir}/scratch`);
      assert.equal(keyOf(readTree(dir)), before, "it is not as it was before");
    }
    writeTree(dir, start);
  };

  const whole = await worker.run(job);
  await check(whole);
  const tally = { struck: 0, failed: 0, missed: 0 };
  for (const fault of THREAD_FAULTS) {
    for (const [doer, kinds] of Object.entries(whole.operations)) {
      const moments = kinds.flatMap((kind, index) => fault.kinds.includes(kind) ? [index] : []);
      for (const at of choose(moments, Math.ceil(MOMENTS / 2), step, doer, fault.name)) {
        try {
          const strike = { fault: fault.name, doer: doer as Doer, at };
          const run = await worker.run({ ...job, strike });
          tally[run.struck ? "struck" : "missed"]++;
          if (run.error) tally.failed++;
          await check(run, fault);
        } catch (error) {
          const where = `${fault.name} at operation ${at} of the ${doer}'s ${kinds.length}`;
          throw new Error(`${step}: ${where}: ${error}`, { cause: error });
        }
      }
    }
  }
  await check(await worker.run(job));
  assert.ok(tally.struck > tally.missed && tally.failed > 0, `${step}: ${JSON.stringify(tally)}`);
  console.log(`${step}: ${JSON.stringify(tally)}`);
}

function removeEmpty(folder: string): void {
  try {
    Deno.removeSync(folder);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
