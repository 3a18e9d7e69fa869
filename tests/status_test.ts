/** The status of a hub: what it says, how it says it to a terminal, and what its charts show. */

import assert from "node:assert/strict";
import { drillLog } from "../scripts/core/config/state_paths.ts";
import { type HubName, MAIN_SET, snapshotIdAt } from "../scripts/core/names.ts";
import { sparkline } from "../scripts/core/report/sparkline.ts";
import { checkProof } from "../scripts/host/doctor/doctor_proof.ts";
import { checkRuns } from "../scripts/host/doctor/doctor_runs.ts";
import type { Host } from "../scripts/host/host.ts";
import { appendDrill, readDrills } from "../scripts/host/records/drill_log.ts";
import { problemsWithLogs } from "../scripts/host/records/log_problems.ts";
import { appendProof } from "../scripts/host/records/proof_log.ts";
import { logged, readRuns, runLogFile } from "../scripts/host/records/run_log.ts";
import { status as readStatus } from "../scripts/host/status/hub_status.ts";
import { readView } from "../scripts/host/status/hub_view.ts";
import { readTimers } from "../scripts/host/systemd/timers.ts";
import { cliEnv, cliWords } from "./real/cli.ts";
import { insertMessages, makeHome } from "./real/home.ts";
import { startPty } from "./real/pty.ts";

// deno-lint-ignore no-control-regex
const COLOR = /\x1b\[\d+m/;

Deno.test("status tells the last run, growth, what is off the machine and how old the proofs are; in colour on a terminal only", async () => {
  using home = await makeHome();
  home.addDisk();
  assert.equal(
    (await home.cli(["backup", "--full"])).code,
    4,
    "a folder on the same disk is not off the machine",
  );
  home.sql(`INSERT INTO sessions VALUES ('c', 'three'); ${insertMessages(300)}`);
  await home.cli(["backup"]);
  assert.match((await home.cli(["status"])).stdout, /^keys: NEVER PROVEN/m);
  await home.cli(["verify", "--identity", home.identityFile]);
  const fresh = await home.cli(["status"]);
  assert.equal(fresh.code, 0, fresh.stderr);
  assert.match(fresh.stdout, /^state: newest good snapshot .* s ago$/m);
  assert.match(fresh.stdout, /^ {2}last run \d+ s ago, took .*: done/m);
  assert.match(fresh.stdout, /^ {2}hapi\.db: 3 sessions, 600 messages, 0 other rows$/m);
  assert.match(
    fresh.stdout,
    /^ {2}disk: holds .*, ON THIS MACHINE'S OWN DISK: does not count as off this machine$/m,
  );
  const json = JSON.parse((await home.cli(["status", "--json"])).stdout);
  assert.equal(json.sets[0].destinations[0].offBox, false);
  assert.match(fresh.stdout, /^ {2}sessions +▆█ 2 to 3$/m);
  assert.match(fresh.stdout, /^ {2}stored +[▁-█]{2} \d\S* kB in /m);
  assert.match(fresh.stdout, /^ {2}last drill: .*, proven$/m);
  assert.match(
    fresh.stdout,
    /^keys: proven to open the backups \d+ s ago$/m,
    "a drill is a proof of the keys",
  );
  assert.match(fresh.stdout, /^voice: nothing was taken yet$/m);
  assert.doesNotMatch(fresh.stdout, COLOR);

  // A run that fails is what the page says last.
  home.configure({});
  Deno.renameSync(home.database, `${home.database}.away`);
  assert.equal((await home.cli(["backup"])).code, 3);
  await home.cli(["keys", "prove", "--identity", home.identityFile]);
  const words = cliWords(["status"]);
  const env = { ...cliEnv(home.home), TZ: "UTC" };
  await using terminal = startPty(words, { cwd: home.dir, env });
  const { code, text } = await terminal.end();
  assert.equal(code, 0, text);
  // deno-lint-ignore no-control-regex
  assert.match(text, /last run \x1b\[31mFAILED: Cannot /);
  // deno-lint-ignore no-control-regex
  assert.match(text, /\x1b\[31mNOTHING IS OFF THIS MACHINE/);
  // deno-lint-ignore no-control-regex
  assert.match(text, /keys: \x1b\[32mproven to open the backups \d+ s ago/);
  await using plain = startPty(words, { cwd: home.dir, env: { ...env, NO_COLOR: "1" } });
  assert.doesNotMatch((await plain.end()).text, COLOR);

  const { sets } = JSON.parse((await home.cli(["status", "--json"])).stdout);
  assert.equal(sets[0].lastRun.ok, false);
  assert.deepEqual(
    sets[0].history.map(({ content }: { content: { sessions: number } }) => content.sessions),
    [2, 3],
  );
});

Deno.test("status says that the newest snapshot is ahead of the clock, and gives no age below zero", async () => {
  using home = await makeHome();
  home.now = new Date(Date.now() + 400 * 86_400_000);
  await home.backup();
  const { code, stdout } = await home.cli(["status"]);
  assert.equal(code, 0);
  assert.match(stdout, /^state: newest good snapshot .*, 40[01] days AHEAD OF THIS CLOCK$/m);
  assert.doesNotMatch(stdout, /-\d+ s/);
  // So do the report, what is told to people, and the doctor.
  const page = (await home.cli(["report", "--html", "-"])).stdout;
  assert.match(page, /<li>The newest good snapshot of set state is 40[01] days ahead of this clock<br>/);
  const host = { ...home.host, now: () => new Date() };
  const { digest } = readView(host, home.config());
  assert.match(digest[0]!, /^state: newest good snapshot .*, 40[01] days AHEAD OF THIS CLOCK$/);
  const [finding] = checkRuns(host, home.config(), readStatus(host, home.config())[0]!);
  assert.deepEqual([finding!.state, /^it is 40[01] days ahead/.test(finding!.detail)], ["warn", true]);
});

Deno.test("both managers are asked for timers at once: with a systemd that hangs, it is waited for once", async () => {
  const answer = { code: 0, stdout: '[{"unit":"hapi-backup-state.timer","next":null}]', stderr: "" };
  const asked: string[] = [];
  const both = Promise.withResolvers<typeof answer>();
  const run: Host["run"] = (_, [manager]) => {
    if (asked.push(manager!) === 2) both.resolve(answer);
    return both.promise;
  };
  const timer = { unit: "hapi-backup-state.timer", next: undefined };
  assert.deepEqual(await readTimers({ run }), [timer, timer]);
  assert.deepEqual(asked, ["--system", "--user"]);
});

Deno.test("a drill and a proof that are ahead of the clock are told so, and asked for again", async () => {
  using home = await makeHome();
  await home.backup();
  const host = { ...home.host, now: () => new Date() };
  const at = new Date(Date.now() + 400 * 86_400_000).toISOString();
  const drill = {
    at,
    set: MAIN_SET,
    snapshot: snapshotIdAt(home.now),
    store: home.store,
    ok: true,
    seconds: 1,
  };
  appendDrill(host.fs, home.stateFolder, { ...drill, hub: "another" as HubName });
  assert.match((await home.cli(["status"])).stdout, /^ {2}last drill: NEVER/m);
  appendDrill(host.fs, home.stateFolder, drill);
  const proof = { at, store: home.store, recipients: [home.recipient], ok: true, chains: 1, failed: [] };
  appendProof(host.fs, home.stateFolder, proof);
  assert.match(
    (await home.cli(["status"])).stdout,
    /^ {2}last drill: .*, 400 days ahead of this clock, proven$/m,
  );
  assert.match((await home.cli(["keys", "list"])).stdout, /^ {2}last proven: 400 days ahead of this clock$/m);
  const findings = checkProof(host, home.config(), readStatus(host, home.config()));
  assert.deepEqual(
    findings.map(({ name, state, detail }) => [name, state, /400 days ahead/.test(detail)]),
    [["state: drill", "warn", true], ["keys", "fail", true]],
  );
});

Deno.test("a chart's columns are equal times, its heights count from zero, and gaps stay gaps", () => {
  const at = (hour: number) => new Date(Date.UTC(2026, 0, 1, hour));
  const line = [0, 1, 2, 9].map((hour) => ({ at: at(hour), value: hour === 9 ? 100 : 50 }));
  assert.equal(sparkline(line, 10, "last"), "▅▅▅      █");
  assert.equal(sparkline(line, 5, "sum"), "█▅  █");
  assert.equal(sparkline([{ at: at(0), value: 0 }, { at: at(1), value: 0 }], 2, "last"), "▁▁");
  assert.equal(sparkline([], 10, "last"), "");
});

Deno.test("status and doctor tell that a log cannot be read, and the next run mends one that was cut", async () => {
  using home = await makeHome();
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
  const log = `${home.store}/home/.runs/state.jsonl`;
  Deno.writeTextFileSync(log, Deno.readTextFileSync(log).slice(0, -20));
  Deno.mkdirSync(`${home.stateFolder}/drills.jsonl`);
  const cut = await home.cli(["status"]);
  assert.equal(cut.code, 0, cut.stderr);
  assert.match(
    cut.stdout,
    /^Cannot tell from the log of runs of set state .*state\.jsonl ends in a line that is/m,
  );
  assert.match(
    cut.stdout,
    /^Cannot tell from the log of drills .*drills\.jsonl cannot be read \(it is a folder\)$/m,
  );
  assert.match(cut.stdout, /^ {2}last drill: NOT KNOWN$/m);
  const told = JSON.parse((await home.cli(["status", "--json"])).stdout).logProblems;
  assert.equal(told.length, 2);
  const found = (await home.cli(["doctor", "--offline"])).stdout;
  assert.match(found, /FAIL +log of runs of set state: Cannot tell/);
  assert.match(found, /FAIL +log of drills: Cannot tell/);
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
  assert.doesNotMatch((await home.cli(["status"])).stdout, /log of runs/);
});

Deno.test("of a log of any length only the end is read, and of one of runs the end is kept", async () => {
  using home = await makeHome();
  const config = home.config();
  const topic = { verb: "ship" } as const;
  const runs = runLogFile(config, topic);
  const drills = drillLog(home.stateFolder);
  for (const log of [runs, drills]) {
    home.write(log, "");
    Deno.truncateSync(log, 600 << 20);
  }
  const ends = { at: home.now.toISOString(), store: "s", set: MAIN_SET, ok: true, seconds: 1 };
  appendDrill(home.host.fs, home.stateFolder, { ...ends, snapshot: snapshotIdAt(home.now) });
  assert.equal(readDrills(home.host.fs, home.stateFolder).length, 1);
  await logged(home.host, config, topic, () => Promise.resolve(), () => ({}));
  assert.deepEqual(readRuns(home.host, config, topic).map(({ ok }) => ok), [true]);
  assert.ok(Deno.statSync(runs).size < 9 << 20);
  assert.deepEqual(problemsWithLogs(home.host, config), []);
});

Deno.test("status names every set that is too old", async () => {
  using home = await makeHome();
  home.write("notes", "x");
  const set = { sources: [{ kind: "file", path: "~/notes" }], maxAgeHours: 1e-6 };
  const stale = async (...names: string[]) => {
    home.configure({ sets: Object.fromEntries(names.map((name) => [name, set])) });
    await home.cli(["backup", "--no-ship", "--set", "all"]);
    const { code, stderr } = await home.cli(["status"]);
    assert.equal(code, 8);
    return stderr;
  };
  assert.match(
    await stale("one"),
    /: no good snapshot is new enough of set one\nhint: .* backup --set one`/m,
  );
  assert.match(
    await stale("one", "two"),
    /: no good snapshot is new enough of sets one, two\nhint: .* backup --set all`/m,
  );
});
