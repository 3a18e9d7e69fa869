/** A backup that is killed at a random moment: what is there afterwards is whole, and the next run goes on. */

import assert from "node:assert/strict";
import { BackupError } from "../scripts/core/errors.ts";
import { MAIN_SET } from "../scripts/core/names.ts";
import { encrypt } from "../scripts/encrypt.ts";
import { openSeal } from "../scripts/host/restore/open_snapshot.ts";
import { isSealed, problemWithPart, readSetIfThere } from "../scripts/host/store/store.ts";
import { restore, restoreInPlace } from "../scripts/restore.ts";
import { ship } from "../scripts/ship.ts";
import { snapshot } from "../scripts/snapshot.ts";
import { verify } from "../scripts/verify.ts";
import { filesBelow } from "./real/files.ts";
import { countMessages, type Home, insertMessages, makeHome } from "./real/home.ts";
import { makeRandom } from "./real/random.ts";
import { destinationAt, startSshd } from "./real/sshd.ts";

const SIGNALS = ["SIGKILL", "SIGTERM", "SIGINT"] as const;
const KILLS = 4;
/** Makes a run take long enough to be hit in the middle. */
const MANY_MESSAGES = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
  INSERT INTO messages (session, body) SELECT 'a', randomblob(1200) FROM n`;

/**
 * What only a run that is under way may have: snapshots that are not whole, staged plaintext, journals. Half uploads
 * stay on the far side, where the hub may not remove anything; retention there does.
 */
const UNFINISHED = /\.incoming-|\/staging\/|\.tmp$|-journal$/;

function unfinished(home: string): Promise<string[]> {
  return filesBelow(home).then((files) =>
    files.map(([path]) => path).filter((path) => UNFINISHED.test(path))
  );
}

/** Runs a command and ends it after `afterMs`, unless it is done before. */
async function killed(home: Home, args: string[], signal: Deno.Signal, afterMs: number): Promise<string> {
  const child = home.spawn(args, { under: ["setsid"] });
  // As a terminal does on Ctrl-C, to the programs that it has started too.
  const timer = setTimeout(() => {
    try {
      Deno.kill(signal === "SIGINT" ? -child.pid : child.pid, signal);
    } catch (error) {
      // It is done just now: what it gave is still to be read.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }, afterMs);
  await child.stdin.close();
  const { code, signal: endedBy, stderr } = await child.output();
  clearTimeout(timer);
  if (code === 0) return "done";
  if (endedBy) return `${endedBy} at once`;
  // Told to stop, it says so and nothing else.
  const said = new TextDecoder().decode(stderr).split("\n").filter((line) => line.startsWith("error: "));
  assert.deepEqual([code, said], [1, ["error: Cannot go on: interrupted"]], `${signal}: ${said.join("\n")}`);
  return `${signal} heeded`;
}

const seed = Number(Deno.env.get("KILL_SEED") ?? Math.floor(Math.random() * 2 ** 31));

Deno.test("killed at random moments, a backup leaves whole snapshots only, and the next run goes on and ships them", async () => {
  const random = makeRandom(seed);
  using home = await makeHome();
  const far = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "far-" }));
  try {
    await using sshd = await startSshd({ dir: `${far}/home` });
    home.configure({ destinations: [destinationAt(sshd)] });
    home.sql(MANY_MESSAGES);
    const backUp = async () => {
      const started = performance.now();
      const { code, stderr } = await home.cli(["backup"]);
      assert.equal(code, 0, `seed ${seed}: ${stderr}`);
      return performance.now() - started;
    };
    const wholeMs = await backUp();
    const opening = await home.opening();
    const farSet = { ...opening.set, folder: `${far}/home/state` };

    const ended: string[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      home.sql(`UPDATE messages SET body = randomblob(1200) WHERE id % 40 = ${kill}`);
      const live = Deno.readFileSync(home.database);
      const signal = SIGNALS[kill % SIGNALS.length]!;
      // What a run before it left that was killed at once stays until something is written there again.
      const left = await unfinished(home.home);
      ended.push(await killed(home, ["backup"], signal, wholeMs * (0.1 + 0.9 * random.next())));
      assert.deepEqual(Deno.readFileSync(home.database), live, `seed ${seed}: the live database was touched`);
      const added = (await unfinished(home.home)).filter((path) => !left.includes(path));
      if (signal !== "SIGKILL") assert.deepEqual(added, [], `seed ${seed}`);
      for (const set of [opening.set, farSet]) {
        for (const { id } of readSetIfThere(home.host.fs, set).filter(isSealed)) {
          const { seal, folder } = openSeal({ ...opening, set }, id);
          const problems = seal.parts.map((part) => problemWithPart(home.host.fs, folder, part));
          assert.deepEqual(problems.filter(Boolean), [], `seed ${seed}: ${folder}`);
        }
      }
      // Two are killed in a row; the next goes on. The last one of all is whole: what it ships is looked at below.
      if (kill % 2 === 1 || kill === KILLS - 1) {
        await backUp();
        assert.deepEqual(await unfinished(home.home), [], `seed ${seed}`);
      }
    }

    const [here, there] = [opening.set, farSet].map((set) => readSetIfThere(home.host.fs, set));
    assert.deepEqual(
      there!.map(({ id }) => id),
      here!.map(({ id }) => id),
      `seed ${seed}: all of it is off the box`,
    );
    const scratch = `${home.dir}/scratch`;
    for (const { id } of there!) {
      Deno.mkdirSync(scratch);
      const checks = await verify({ ...opening, set: farSet }, there!.filter(isSealed), id, scratch);
      assert.deepEqual(checks.filter(({ ok }) => !ok), [], `seed ${seed}: ${id}`);
      if (id === there!.at(-1)!.id) {
        assert.equal(countMessages(`${scratch}/restored/home/.hapi/hapi.db`), 4_300);
      }
      Deno.removeSync(scratch, { recursive: true });
    }
    console.log(`seed ${seed}: ${there!.length} snapshots, all proven; killed runs: ${ended.join(", ")}`);
  } finally {
    Deno.removeSync(far, { recursive: true });
  }
});

Deno.test("killed at random moments, verify and restore leave all or nothing, and the next run ends what they began", async () => {
  const random = makeRandom(seed, "restore");
  using home = await makeHome();
  home.sql(MANY_MESSAGES);
  await home.backup();
  const out = `${home.dir}/out`;
  const hapi = `${home.home}/.hapi`;
  const saved = await filesBelow(hapi);
  const identity = ["--identity", home.identityFile];
  const live = async () => (await filesBelow(hapi)).filter(([path]) => !path.includes(".before-restore-"));

  const commands = {
    verify: ["verify", ...identity],
    restore: ["restore", "--to", out, ...identity],
    inPlace: ["restore", "--in-place", ...identity],
  };
  const ended: string[] = [];
  for (const [name, args] of Object.entries(commands)) {
    const run = async () => {
      const started = performance.now();
      const { code, stderr } = await home.cli(args);
      assert.equal(code, 0, `seed ${seed}: ${stderr}`);
      if (args === commands.verify) {
        assert.deepEqual([...Deno.readDirSync(`${home.stateFolder}/scratch`)], []);
      } else {assert.deepEqual(
          args === commands.restore ? await filesBelow(`${out}/home/.hapi`) : await live(),
          saved,
        );}
      await Deno.remove(out, { recursive: true }).catch(() => {});
      return performance.now() - started;
    };
    const wholeMs = await run();
    for (const signal of SIGNALS) {
      if (args === commands.inPlace) {
        home.sql("DELETE FROM messages WHERE id > 10");
        home.write(".hapi/hub.env", "KEY=changed-since\n");
      }
      const before = await live();
      ended.push(`${name}: ${await killed(home, args, signal, wholeMs * (0.3 + 0.7 * random.next()))}`);
      // What is there under its name is whole. (That no rename of many is half done: power_loss_test.ts.)
      const restored = await filesBelow(`${out}/home`).catch(() => undefined);
      if (restored) assert.equal(restored.length, saved.length, `seed ${seed}`);
      if (signal !== "SIGKILL") {
        const now = await live();
        const how = ended.at(-1)!;
        const after = args === commands.inPlace ? saved : before;
        // One that died of it, before it listened or when all was done, did nothing or everything.
        const isDone = how.endsWith("done") ||
          how.endsWith("at once") && JSON.stringify(now) === JSON.stringify(after);
        assert.deepEqual(now, isDone ? after : before, `seed ${seed}: ${how}`);
        if (!restored) assert.throws(() => Deno.lstatSync(out), Deno.errors.NotFound, `seed ${seed}`);
        const scratch = `${home.stateFolder}/scratch`;
        assert.deepEqual([...Deno.readDirSync(scratch)], [], `seed ${seed}`);
      }
      if (restored) Deno.removeSync(out, { recursive: true });
      // What was told to stop has ended what it began, as was seen: the next of them has nothing before it.
      if (signal !== "SIGTERM") await run();
    }
  }
  console.log(`seed ${seed}: ${ended.join(", ")}`);
});

/** Gives the home's database a table whose rows SQLite checks for some ten minutes, in one go. */
function makeSlowToCheck(home: Home): void {
  const [quick, slow] = ["0000000", "2000000"];
  home.sql(`CREATE TABLE slow (x, y AS (hex(zeroblob(${quick} * x))) NOT NULL);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO slow SELECT 1 FROM n`);
  const bytes = Buffer.from(Deno.readFileSync(home.database));
  bytes.write(slow, bytes.indexOf(quick));
  Deno.writeFileSync(home.database, bytes);
}

/** Until SQLite has had an image below a folder open for a second on end: only its checks take so long. */
async function checkedBelow(folder: string): Promise<void> {
  for (let looks = 0; looks < 20; looks++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const files = await filesBelow(folder).catch(() => []);
    if (!files.some(([path]) => path.endsWith("-shm"))) looks = 0;
  }
}

Deno.test("an interruption is heard while SQLite checks a database, however long, and leaves nothing", async () => {
  using home = await makeHome();
  await home.backup();
  makeSlowToCheck(home);
  const config = home.config();
  const set = MAIN_SET;
  const [staging, scratch] = [`${home.stateFolder}/state/staging`, `${home.stateFolder}/scratch`];
  const everything = async () => (await filesBelow(home.dir)).filter(([path]) => !path.endsWith("/lock"));
  const interrupt = async (args: string[], folder: string, signal: Deno.Signal) => {
    const before = await everything();
    const child = home.spawn(args);
    await child.stdin.close();
    await checkedBelow(folder);
    child.kill(signal);
    const deaf = setTimeout(() => child.kill("SIGKILL"), 60_000);
    const { code, stderr } = await child.output();
    clearTimeout(deaf);
    const said = new TextDecoder().decode(stderr);
    assert.deepEqual([code, /^error: .*/m.exec(said)?.[0]], [1, "error: Cannot go on: interrupted"], said);
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    return { before, after: await everything(), said };
  };

  const backup = await interrupt(["backup", "--no-ship"], staging, "SIGINT");
  const isNoLog = ([path]: [string, ...unknown[]]) => !/\/runs\.jsonl$|\/\.runs\//.test(path);
  assert.deepEqual(backup.after.filter(isNoLog), backup.before.filter(isNoLog));
  await interrupt(["snapshot"], staging, "SIGINT");

  const gone = { kind: "sqlite", path: `${home.home}/gone`, required: true };
  const database = { kind: "sqlite", path: home.database };
  home.configure({ sets: { first: { sources: [gone] }, state: { sources: [database] } } });
  for (const verb of ["backup", "snapshot"]) {
    const { said } = await interrupt([verb, "--set", "all"], staging, "SIGTERM");
    assert.match(said, /^warning: .*\/gone/m, `${verb} says nothing of the set that had failed`);
  }
  home.configure({});

  home.now = new Date(home.now.getTime() + 3_600_000);
  await snapshot(home.host, config, { set });
  const sound = { "hapi.db": { integrity: ["ok"], foreignKeys: [] } };
  await encrypt(home.host, config, { set }, Promise.resolve(sound));
  const verified = await interrupt(["verify", "--identity", home.identityFile], scratch, "SIGTERM");
  assert.deepEqual(verified.after, verified.before);
});

Deno.test("a shipping that is interrupted hides no set that failed before it", async () => {
  using home = await makeHome();
  await using sshd = await startSshd({ dir: `${home.dir}/far` });
  using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const gone = { kind: "sqlite", path: `${home.home}/gone`, required: true };
  const database = { kind: "sqlite", path: home.database };
  home.configure({
    sets: { first: { sources: [gone] }, state: { sources: [database] } },
    destinations: [{ ...destinationAt(sshd), port: silent.addr.port }],
  });
  const child = home.spawn(["backup", "--set", "all"]);
  await child.stdin.close();
  using _asked = await silent.accept();
  child.kill("SIGTERM");
  const { code, stderr } = await child.output();
  const said = new TextDecoder().decode(stderr);
  assert.equal(code, 1, said);
  assert.match(said, /^error: Cannot go on: interrupted$/m);
  assert.match(said, /^warning: .*\/gone/m);
});

Deno.test("interrupted wherever they look whether they are, all steps say so, call nothing damaged, and leave nothing", async () => {
  using home = await makeHome();
  home.addDisk();
  await home.backup();
  home.sql(insertMessages(50));
  const { id } = await home.backup();
  // All but what is staged, which a run of `backup` clears, and what was shipped whole.
  const everything = async () =>
    (await filesBelow(home.dir)).filter(([path]) =>
      !/^op\/state\/(ship\/|state\/staging\/)|^disk\/home\/state\/\d/.test(path)
    );

  let left = 0;
  const checkpoint = () => {
    if (left-- <= 0) throw new BackupError("Cannot go on: interrupted", { kind: "cancelled" });
  };
  const host = { ...home.host, checkpoint };
  const opening = { ...await home.opening(), host };
  const config = home.config();
  const scratch = `${home.dir}/scratch`;
  const seals = readSetIfThere(home.host.fs, opening.set).filter(isSealed);
  const steps: Record<string, [work: () => Promise<unknown>, undo: () => void]> = {
    backup: [() => home.backup({ host }), () => {}],
    restore: [() => restore(opening, id, scratch), () => Deno.removeSync(scratch, { recursive: true })],
    "restore in place": [() => restoreInPlace(opening, config, id), () => {}],
    verify: [() => {
      Deno.mkdirSync(scratch);
      return verify(opening, seals, id, scratch)
        .then((checks) => assert.ok(checks.every(({ ok }) => ok), JSON.stringify(checks)))
        .finally(() => Deno.removeSync(scratch, { recursive: true }));
    }, () => {}],
    ship: [
      () => ship(host, config).then(({ destinations }) => assert.deepEqual(destinations[0]!.errors, [])),
      () => {},
    ],
  };
  for (const [name, [work, undo]] of Object.entries(steps)) {
    const before = await everything();
    let looks = 0;
    for (;; looks++) {
      left = looks;
      const ended = await work().then(() => "done", (error) => error.kind ?? String(error));
      if (ended === "done") break;
      assert.equal(ended, "cancelled", `${name}, interrupted at its look number ${looks}`);
      assert.deepEqual(await everything(), before, `${name}, interrupted at its look number ${looks}`);
    }
    assert.ok(looks > 2, `${name} looked ${looks} times`);
    undo();
  }
});
