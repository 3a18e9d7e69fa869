/** What is shown to a person, to the journal, and to a program: the real command line, on a real terminal and off it. */

import assert from "node:assert/strict";
import { Encrypter } from "npm:age-encryption@0.3.1";
import { shipFolder } from "../scripts/core/config/state_paths.ts";
import { formatCount, formatCounted, formatDaysUntil, printable } from "../scripts/core/format.ts";
import { progressText } from "../scripts/core/progress.ts";
import { absolutePath } from "../scripts/host/command_line/cli.ts";
import { generateIdentity } from "../scripts/host/keys/identity.ts";
import { cliEnv, cliWords } from "./real/cli.ts";
import { insertMessages, makeHome } from "./real/home.ts";
import { startPty } from "./real/pty.ts";
import { destinationAt, startSshd } from "./real/sshd.ts";

// deno-lint-ignore no-control-regex
const CONTROL = /[\x00-\x09\x0b-\x1f]/;

/** Shipping at this rate takes a few seconds, and can be watched. */
const KIB_PER_SECOND = 120;

/** A hub whose storage host, in the folder `far`, is sent to slowly. */
async function makeSlowHome() {
  await using building = new AsyncDisposableStack();
  const home = building.use(await makeHome());
  home.sql(insertMessages(1500));
  const far = building.adopt(
    Deno.makeTempDirSync({ prefix: "terminal-" }),
    (folder) => Deno.removeSync(folder, { recursive: true }),
  );
  const sshd = building.use(await startSshd({ dir: far }));
  const destination = destinationAt(sshd);
  home.configure({ destinations: [{ ...destination, bandwidthLimitKiBps: KIB_PER_SECOND }] });
  const stack = building.move();
  return { home, far, sshd, destination, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

Deno.test("what takes longer than a second is shown on a terminal with bytes, rate and time left, and nowhere else", async () => {
  await using slow = await makeSlowHome();
  const { home } = slow;
  const env = cliEnv(home.home);
  await using terminal = startPty(cliWords(["backup"]), { cwd: home.dir, env });
  await terminal.until(
    /ship state \d+T\d+Z to storage: \d+ %, [\d.]+ kB of [\d.]+ kB, [\d.]+ kB\/s, \d+ s left/,
  );
  const { code, text } = await terminal.end();
  assert.equal(code, 0, text);
  // deno-lint-ignore no-control-regex
  assert.match(text, /\r\x1b\[Kstorage holds /, JSON.stringify(text));

  // To a program, each line is an event, and standard output is the result alone.
  const run = await home.cli(["backup", "--full", "--json"]);
  assert.equal(run.code, 0, run.stderr);
  assert.equal(JSON.parse(run.stdout).ok, true);
  const events = run.stderr.trim().split("\n").map((line) => JSON.parse(line));
  const shipping = events.filter(({ event, what }) => event === "progress" && /^ship /.test(what));
  assert.ok(
    shipping.length > 0 && shipping.every(({ done, total }) => done > 0 && done <= total),
    run.stderr,
  );
  assert.ok(events.some(({ event, text }) => event === "info" && /there is nothing at/.test(text)));

  home.configure({ destinations: [slow.destination] });
  const piped = await home.cli(["backup", "--full"]);
  assert.equal(piped.code, 0, piped.stderr);
  assert.doesNotMatch(piped.stdout + piped.stderr, CONTROL);
  assert.doesNotMatch(piped.stderr, / % /);
  const verbose = await home.cli(["ship", "--verbose"]);
  assert.match(verbose.stderr, /^step ship: [\d.]+ s$/m);
  const probing = await home.cli(["backup", "--full", "--verbose"]);
  assert.match(probing.stderr, /^runs: rsync .*--checksum/m);
});

Deno.test("a run whose terminal is closed stops as if it was told to; under nohup it goes on", async () => {
  await using slow = await makeSlowHome();
  const { home, far, sshd } = slow;
  const log = `${shipFolder(home.stateFolder)}/runs.jsonl`;
  const logged = () => {
    try {
      // Behind the last line's end there is nothing yet, or a part of the next.
      return Deno.readTextFileSync(log).split("\n").slice(0, -1).map((line) => JSON.parse(line));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  };
  const isSending = () => [...Deno.readDirSync(far)].some(({ name }) => name === "state");
  const until = async (what: string, isSo: () => boolean) => {
    const deadline = Date.now() + 60_000;
    while (!isSo()) {
      assert.ok(Date.now() < deadline, `${what} did not come`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  for (const under of [[], ["nohup"]]) {
    const words = [...under, ...cliWords(["backup", "--full"])];
    await using terminal = startPty(words, { cwd: home.dir, env: cliEnv(home.home) });
    await until("the first of it", isSending);
    const before = logged().length;
    await terminal.hangUp();
    await until("its line in the log", () => logged().length > before);
    const { ok, kind } = logged().at(-1);
    assert.deepEqual([ok, kind], under.length === 0 ? [false, "cancelled"] : [true, undefined]);
    // The far side notices a little later.
    await sshd.idle();
    Deno.removeSync(`${far}/state`, { recursive: true });
  }
});

Deno.test("a question ends with its terminal, and at SIGTERM", async () => {
  using home = await makeHome();
  await home.backup();
  const pidFile = `${home.dir}/pid`;
  const isThere = (pid: number) => {
    try {
      // It does nothing to a program that runs.
      Deno.kill(pid, "SIGCONT");
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  };
  const asking: [string[], RegExp][] = [
    [["browse", "--identity", home.identityFile], /Which snapshot\?/],
    [["init", "--config", `${home.dir}/new.json`], /name; empty: none yet/],
  ];
  for (const [args, question] of asking) {
    for (const closes of [true, false]) {
      const words = ["sh", "-c", 'echo $$ > "$0"; exec "$@"', pidFile, ...cliWords(args)];
      await using terminal = startPty(words, { cwd: home.dir, env: cliEnv(home.home) });
      await terminal.until(question);
      const pid = Number(Deno.readTextFileSync(pidFile));
      if (closes) await terminal.hangUp();
      else Deno.kill(pid, "SIGTERM");
      for (let tries = 0; isThere(pid); tries++) {
        if (tries === 200) {
          Deno.kill(pid, "SIGKILL");
          assert.fail(`${args[0]} is still there`);
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      if (!closes) assert.equal((await terminal.end()).code, 1, args[0]);
    }
  }
});

Deno.test("what it says or prints and nobody can store ends no backup; what was asked for and not delivered is told", async () => {
  using home = await makeHome();
  const into = (redirection: string) => ({ under: ["sh", "-c", `exec "$@" ${redirection}`, "sh"] });
  const unheard = await home.cli(["backup", "--no-ship", "--verbose"], into("2> /dev/full"));
  assert.equal(unheard.code, 0);
  assert.match(unheard.stdout, /^state \S+ .* full /);
  for (
    const args of [["backup", "--no-ship"], ["list", "--json"], ["config", "schema"], ["backup", "--help"]]
  ) {
    const unread = await home.cli(args, into("> /dev/full"));
    const lines = unread.stderr.split("\n");
    assert.equal(unread.code, 1, `${args}: ${unread.stderr}`);
    assert.ok(
      lines.includes("error: Cannot write to standard output: No space left on device (os error 28)"),
      unread.stderr,
    );
  }
  assert.equal([...Deno.readDirSync(home.stored)].filter(({ name }) => /^\d/.test(name)).length, 2);
});

Deno.test("the journal gets each line with its priority; --quiet leaves errors alone", async () => {
  using home = await makeHome();
  const failing = ["encrypt", "--set", "nothing"];
  const stream = 'JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr) exec "$@"';
  const journal = await home.cli(failing, { under: ["sh", "-c", stream, "sh"] });
  assert.match(journal.stderr, /^<3>error: Cannot find set "nothing".*\n<3>hint: /);
  const info = await home.cli(["backup", "--no-ship"], { under: ["sh", "-c", stream, "sh"] });
  assert.ok(info.stderr.trim().split("\n").every((line) => /^<[46]>/.test(line)), info.stderr);
  // A terminal that a service opened has the variable too, and is no journal.
  const inherited = await home.cli(failing, { env: { JOURNAL_STREAM: "8:1234" } });
  assert.match(inherited.stderr, /^error: Cannot find set/);
  const quiet = await home.cli(["backup", "--no-ship", "--quiet"]);
  assert.deepEqual(quiet, { code: 0, stdout: "", stderr: "" });
  const quietJson = await home.cli(["verify", "--identity", home.identityFile, "--quiet", "--json"]);
  assert.equal(JSON.parse(quietJson.stdout).ok, true, "data that is asked for is no talk");
  assert.match((await home.cli([...failing, "--quiet"])).stderr, /^error: Cannot find set/);
});

Deno.test("a slip of the operator is named, with what was meant, and is JSON where that is asked for", async () => {
  using home = await makeHome();
  const option = await home.cli(["backup", "--json", "--no-shipp"]);
  assert.deepEqual([option.code, JSON.parse(option.stdout).error], [2, {
    message: "Cannot run backup: unknown option '--no-shipp'",
    kind: "usage",
    hint: "did you mean --no-ship? `hapi-backup backup --help` says what there is",
  }]);
  await home.backup();
  const set = await home.cli(["list", "--set", "stat"]);
  assert.equal(set.code, 2);
  assert.match(set.stderr, /^error: Cannot find set stat in .*\nhint: sets there: home\/state/);
  const opening = ["restore", "--to", `${home.dir}/to`, "--identity", home.identityFile];
  const tooDeep = await home.cli([...opening, "--store", home.stored]);
  assert.match(tooDeep.stderr, /hint: no set is there; a store is the folder that HUB\/SET\/SNAPSHOT/);
  Deno.mkdirSync(`${home.dir}/disk`);
  Deno.renameSync(home.store, `${home.dir}/disk/store`);
  for (const wrong of [`${home.dir}/disk`, `${home.dir}/disk/store/home/state`, home.identityFile]) {
    const list = await home.cli(["list", "--json", "--store", wrong]);
    assert.equal(list.code, 2, list.stdout);
    assert.match(
      JSON.parse(list.stdout).error.hint,
      /the folder that (HUB\/SET\/SNAPSHOT|holds the hubs' folders)/,
    );
  }
  Deno.renameSync(`${home.dir}/disk/store`, home.store);
  for (const verb of ["status", "watch"]) {
    const folder = await home.cli([verb, "--config", home.dir]);
    assert.equal(folder.code, 2);
    assert.match(folder.stderr, /: it is a folder\nhint: name the file itself, such as .*\/config\.json$/m);
  }
  Deno.writeTextFileSync(home.configFile, '{ "__proto__": {} }');
  const proto = await home.cli(["config", "check"]);
  assert.match(proto.stderr, /key "__proto__" is not a key\nhint: remove it, or use another name$/m);
  Deno.removeSync(home.configFile);
  const none = await home.cli(["config", "check"]);
  assert.match(none.stdout, /config\.json is not there; these are the defaults:/);
});

Deno.test("with --json a failure is told alike by every verb: what it found, the error and its exit code", async () => {
  using home = await makeHome();
  const other = await generateIdentity();
  const wrong = `${home.dir}/wrong.txt`;
  Deno.writeTextFileSync(wrong, `${other.identity}\n`);
  const storage = (hub: string) => {
    const file = `${home.dir}/storage-${hub}.json`;
    const hubs = { [hub]: { signers: [home.signer] } };
    Deno.writeTextFileSync(
      file,
      JSON.stringify({ store: home.store, stateFolder: `${home.dir}/${hub}`, hubs }),
    );
    return ["--config", file];
  };
  const failing = async (code: number, key: string, ...args: string[]) => {
    const ran = await home.cli([...args, "--json"]);
    const told = JSON.parse(ran.stdout);
    assert.deepEqual([ran.code, told.ok, told.exitCode], [code, false, code], `${args}: ${ran.stderr}`);
    assert.match(told.error.message, /^Cannot /);
    assert.ok(told.error.kind && told.error.hint && key in told, ran.stdout);
  };
  await failing(8, "sets", "status");
  await failing(4, "checks", "doctor", "--offline");
  const { id } = await home.backup();
  await failing(7, "chains", "keys", "prove", "--identity", wrong);
  await failing(5, "sets", "retain", ...storage("elsewhere"));
  const part = `${home.store}/home/state/${id}/files.tar.zst.age`;
  const bytes = Deno.readFileSync(part);
  bytes[bytes.length - 1]! ^= 1;
  Deno.writeFileSync(part, bytes);
  await failing(5, "checks", "verify", "--identity", home.identityFile);
  await failing(5, "damage", "scrub", ...storage("home"));
  await failing(8, "alarms", "watch", ...storage("home"));
});

Deno.test("no name that a hub gives to what it sends steers the terminal of who looks at it, or makes a line of its own", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const evil = "x\x1b]0;owned\x07\r\x1b[2K\x1b[31m\nFORGED: all good\u202e\x9b2J";
  const store = `${home.store}/home`;
  for (const folder of [evil, `.incoming-${evil}`, `state/${evil}`]) Deno.mkdirSync(`${store}/${folder}`);
  Deno.writeTextFileSync(`${store}/state/${id}/${evil}`, "");
  Deno.mkdirSync(`${store}/state/20260101T000000Z`);
  const seal = Deno.readTextFileSync(`${store}/state/${id}/seal.json`);
  Deno.writeTextFileSync(
    `${store}/state/20260101T000000Z/seal.json`,
    JSON.stringify({ ...JSON.parse(seal), [evil]: 1 }),
  );
  const hubs = { home: { signers: [home.signer] } };
  const config = { store: home.store, stateFolder: `${home.dir}/ledger`, incomingKeepDays: 1, hubs };
  Deno.writeTextFileSync(`${home.dir}/storage.json`, JSON.stringify(config));
  const verbs = [["scrub"], ["watch"], ["retain"], ["storage", "status"], ["storage", "list"]];
  for (const verb of verbs) {
    const { stdout, stderr } = await home.cli([...verb, "--config", `${home.dir}/storage.json`]);
    for (const text of [stdout, stderr]) {
      assert.doesNotMatch(text, CONTROL, `${verb}: ${JSON.stringify(text)}`);
      assert.doesNotMatch(text, /\x9b|\u202e|^FORGED/m, verb.join());
    }
    if (verb[0] === "scrub") {
      assert.match(stdout, /foreign \(3\):\n( {2}.*\n){3}unfinished uploads \(1\):\n {2}.*\n$/);
    }
    if (verb[0] === "watch") assert.match(stdout, /20260101T000000Z: .*Unrecognized key/);
  }
  const list = await home.cli(["list", "--store", home.store]);
  assert.doesNotMatch(list.stdout + list.stderr, CONTROL);
});

Deno.test("printable() writes out what would steer a terminal, and leaves lines, JSON and our own colours as they are", () => {
  const json = JSON.stringify({ text: "\x1b[2J \x7f\x9b é" });
  assert.deepEqual(JSON.parse(printable(json)), JSON.parse(json));
  const painted = "a\tb\n\x1b[1;31mc\x1b[39m";
  assert.equal(printable(painted, true), painted);
  assert.equal(printable(painted), "a\tb\n\\u001b[1;31mc\\u001b[39m");
  assert.equal(printable("a\r\x1b[2Jb\x1b]0;c\x07"), "a\\u000d\\u001b[2Jb\\u001b]0;c\\u0007");
});

Deno.test("help fits a narrow terminal: its texts break there, and begin below each other", async () => {
  using home = await makeHome();
  await using terminal = startPty(cliWords(["storage", "--help"]), {
    cwd: home.dir,
    env: cliEnv(home.home),
    columns: 60,
  });
  const { code, text } = await terminal.end();
  assert.equal(code, 0, text);
  const [help] = text.replaceAll("\r", "").split("Example:");
  assert.deepEqual(help!.split("\n").filter((line) => line.length > 60), []);
  assert.match(help!, /^list {7}every .*\n {11}it came/m);
});

Deno.test("a reader that has read enough ends nothing", async () => {
  using home = await makeHome();
  const closed = 'set -o pipefail; "$@" | true';
  const run = await home.cli(["backup", "--no-ship"], { under: ["bash", "-c", closed, "bash"] });
  assert.equal(run.code, 0, run.stderr);
  assert.doesNotMatch(run.stderr, /Broken pipe/);
});

Deno.test("the passphrase of an identity is asked for on the terminal, unseen, and nowhere else", async () => {
  using home = await makeHome();
  await home.backup();
  // Whose snapshots to trust, the file alone says.
  home.configure({ signers: [] });
  const encrypter = new Encrypter();
  encrypter.setScryptWorkFactor(10);
  encrypter.setPassphrase("correct horse");
  const file = `${home.dir}/identity.age`;
  Deno.writeFileSync(file, await encrypter.encrypt(Deno.readTextFileSync(home.identityFile)));
  const words = cliWords(["verify", "--identity", file]);
  const env = cliEnv(home.home);
  for (
    const [passphrase, code, said] of [["correct horse", 0, /proven restorable/], [
      "battery",
      7,
      /the passphrase is wrong/,
    ]] as const
  ) {
    await using terminal = startPty(words, { cwd: home.dir, env });
    await terminal.until(/Passphrase of the identity file/);
    await terminal.type(`${passphrase}\r`);
    await terminal.until(said);
    const ended = await terminal.end();
    assert.equal(ended.code, code, ended.text);
    assert.ok(!ended.text.includes(passphrase), JSON.stringify(ended.text));
  }
  const off = await home.cli(["keys", "prove", "--identity", file]);
  assert.deepEqual([off.code, /it needs its passphrase/.test(off.stderr)], [7, true], off.stderr);
});

Deno.test("progress says what is known: how far and how fast, or only for how long", () => {
  const what = "copy hapi.db";
  const half = { what, done: 5e6, total: 10e6, seconds: 2 };
  assert.equal(progressText(half), "copy hapi.db: 50 %, 5.00 MB of 10.0 MB, 2.50 MB/s, 2 s left");
  assert.equal(progressText({ ...half, done: 0 }), "copy hapi.db: 10.0 MB, 2 s");
});

Deno.test("times are those of the machine's zone, which is named by how far it is ahead of UTC", async () => {
  const times = ["2026-01-05T23:04:09Z", "2026-07-05T23:04:09Z", "2026-03-29T01:00:00Z"];
  const module = import.meta.resolve("../scripts/core/format.ts");
  const code = `import { formatTime } from ${JSON.stringify(module)};
    console.log(JSON.stringify(${JSON.stringify(times)}.map((time) => formatTime(new Date(time)))));`;
  const zones = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Auckland"];
  const told = await Promise.all(zones.map(async (TZ) => {
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-lock", code],
      env: { TZ, NO_COLOR: "1" },
    }).output();
    return JSON.parse(new TextDecoder().decode(stdout)) as string[];
  }));
  assert.deepEqual(told.map(([winter]) => winter), [
    "2026-01-05 23:04:09 UTC",
    "2026-01-06 00:04:09 GMT+1",
    "2026-01-06 04:34:09 GMT+5:30",
    "2026-01-05 19:34:09 GMT-3:30",
    "2026-01-06 12:04:09 GMT+13",
  ]);
  const clock = (timeZone: string, time: string) =>
    new Date(time).toLocaleString("sv-SE", { timeZone, timeZoneName: "shortOffset" });
  const expected = zones.map((zone) => times.map((time) => clock(zone, time)));
  // The locale has its own minus, and calls UTC by another name.
  const plain = expected.map((row) =>
    row.map((text) => text.replace("\u2212", "-").replace(/ GMT$/, " UTC"))
  );
  assert.deepEqual(told, plain);
});

Deno.test("counts are grouped by thousands, and one thing is not many", () => {
  const counts = [0, 1, 2, 999, 1000, 12_345, 1_234_567, -1234];
  assert.deepEqual(counts.map(formatCount), counts.map((count) => count.toLocaleString("en-US")));
  assert.deepEqual([0, 1, 2, 1000].map((count) => formatCounted(count, "file")), [
    "0 files",
    "1 file",
    "2 files",
    "1,000 files",
  ]);
});

Deno.test("days to come are counted up to ten years", () => {
  assert.deepEqual([0, 1, 3650, 3651, 1_010_105, Infinity].map(formatDaysUntil), [
    "0 days",
    "1 day",
    "3,650 days",
    ...Array(3).fill("more than 10 years"),
  ]);
});

Deno.test("absolutePath() resolves every .. of a path, as Deno does", () => {
  const cwd = Deno.cwd();
  const parent = cwd.slice(0, cwd.lastIndexOf("/"));
  const cases = {
    "a.pub": `${cwd}/a.pub`,
    "./a/../b": `${cwd}/b`,
    "../a.pub": `${parent}/a.pub`,
    ".././/..": parent.slice(0, parent.lastIndexOf("/")) || "/",
    ".": cwd,
    "...": `${cwd}/...`,
    "..a": `${cwd}/..a`,
    [`${"../".repeat(100)}etc/x`]: "/etc/x",
    "/a/../b": "/b",
  };
  for (const [path, absolute] of Object.entries(cases)) assert.equal(absolutePath(path), absolute);
});
