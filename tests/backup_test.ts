/** `backup` as it is on the first day, in its single steps, and where the environment says that the hub is. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { EncryptReport } from "../scripts/core/command_line/reports.ts";
import { MAIN_SET } from "../scripts/core/names.ts";
import {
  countersOf,
  HEADER_BYTES,
  readHeader,
  walIndexState,
} from "../scripts/core/snapshot/sqlite_format.ts";
import { BACKUP_VERBS, loggedSnapshot } from "../scripts/host/command_line/backup_verbs.ts";
import { makeTerminal } from "../scripts/host/command_line/terminal.ts";
import { cli } from "./real/cli.ts";
import { filesBelow, inTempDir, namesIn } from "./real/files.ts";
import {
  countMessages,
  fillDatabase,
  type Home,
  insertMessages,
  makeHome,
  mountTmpfs,
  ONLY_AS_ROOT,
  output,
} from "./real/home.ts";

Deno.test("the first run makes keys and a configuration, backs up, and says what to move and what is missing", async () => {
  const home = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "first-" }));
  try {
    Deno.mkdirSync(`${home}/.hapi`);
    fillDatabase(`${home}/.hapi/hapi.db`, 50);
    Deno.writeTextFileSync(`${home}/.hapi/hub.env`, "ANTHROPIC_API_KEY=sk-ant-0123456789abcdefghij\n");
    const first = await cli({ home }, "backup");
    assert.equal(first.code, 4, first.stderr);
    assert.match(first.stdout, /^state \d{8}T\d{6}Z .* full \(there is no snapshot to build on\)/m);
    assert.match(first.stdout, /hapi\.db: 2 sessions, 50 messages/);
    assert.match(first.stderr, /MOVE \S+\/identity\.txt OFF THIS MACHINE[^]*Nothing is off this machine yet/);
    assert.match(first.stderr, /^error: Cannot call it off this machine: /m);

    const keys = `${home}/.config/hapi-backup`;
    const modes = [...Deno.readDirSync(keys)].map((
      { name },
    ) => [name, (Deno.statSync(`${keys}/${name}`).mode! & 0o777).toString(8)]);
    const open = modes.filter(([name, mode]) => mode !== "600" && !name!.endsWith(".pub"));
    assert.deepEqual(open, [], "nobody else may read what was made");
    assert.ok(modes.length >= 3, String(modes));
    const secret = /AGE-SECRET-KEY-1[A-Z0-9]+/.exec(Deno.readTextFileSync(`${keys}/identity.txt`))![0];
    assert.ok(!(first.stdout + first.stderr).includes(secret), "the identity is shown to nobody");

    const second = await cli({ home }, "backup", "--json");
    assert.equal(second.code, 4, second.stderr);
    assert.equal(JSON.parse(second.stdout).snapshots[0].kind, "unchanged");
    assert.doesNotMatch(second.stderr, /MOVE/);
    const proven = await cli({ home }, "verify");
    assert.equal(proven.code, 0, proven.stderr + proven.stdout);
    const restored = await cli({ home }, "restore", "--to", `${home}/out`);
    assert.equal(restored.code, 0, restored.stderr);
    assert.equal(countMessages(`${home}/out/home/.hapi/hapi.db`), 50);
    assert.equal((await cli({ home }, "config", "check")).code, 0);
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
});

Deno.test("a first run in a home that no configuration can name leaves no keys there", async () => {
  await inTempDir(async (dir) => {
    const home = `${dir}/two\nlines`;
    Deno.mkdirSync(`${home}/.hapi`, { recursive: true });
    const { code, stderr } = await cli({ home }, "backup");
    assert.equal(code, 2, stderr);
    assert.match(stderr, /holds a line break or a NUL\nhint: check HOME, HAPI_HOME and DB_PATH$/m);
    assert.deepEqual(await filesBelow(home), []);
  });
});

Deno.test("snapshot, encrypt and ship, one after the other, do what backup does, for all sets", async () => {
  using home = await makeHome();
  home.write("voice-test-output/a.wav", new Uint8Array(5_000));
  home.addDisk();
  const nothing = await home.cli(["encrypt"]);
  assert.equal(nothing.code, 2);
  assert.match(nothing.stderr, /nothing is staged\nhint: run `hapi-backup snapshot --set state`/);

  const staged = await home.cli(["snapshot", "--set", "all"]);
  assert.equal(staged.code, 0, staged.stderr);
  const staging = `${home.stateFolder}/state/staging`;
  for (const { name } of Deno.readDirSync(staging)) {
    assert.equal(Deno.statSync(`${staging}/${name}`).mode! & 0o077, 0, `${name} is for its owner only`);
  }
  // Without its checks it may not be on the disk, either: a snapshot that was cut off.
  Deno.renameSync(`${staging}/checks.json`, `${home.dir}/checks.json`);
  const unchecked = await home.cli(["encrypt"]);
  assert.equal(unchecked.code, 2);
  assert.match(unchecked.stderr, /state: the snapshot that is staged was not checked to its end\nhint: run/);
  Deno.renameSync(`${home.dir}/checks.json`, `${staging}/checks.json`);
  // What is staged is of its moment, whatever is written since.
  home.sql(insertMessages(9));
  const encrypted = await home.cli(["encrypt", "--set", "all", "--json"]);
  assert.equal(encrypted.code, 0, encrypted.stderr);
  const { snapshots } = JSON.parse(encrypted.stdout);
  assert.deepEqual(snapshots.map(({ set }: { set: string }) => set), ["state", "voice"]);
  assert.equal(snapshots[0].rows["hapi.db"].messages, 300);
  assert.deepEqual([...Deno.readDirSync(staging)], []);
  const slip = await home.cli(["ship", "--set", "voise", "--json"]);
  assert.deepEqual([slip.code, JSON.parse(slip.stdout).error], [2, {
    message: 'Cannot find set "voise": it is not in the configuration',
    kind: "usage",
    hint: 'sets there: state, voice; or "all"',
  }]);
  const one = await home.cli(["ship", "--set", "voice"]);
  assert.match(one.stdout, /disk \(on this machine\): 1 snapshot shipped/);
  assert.deepEqual([...Deno.readDirSync(`${home.dir}/disk/home`)].map(({ name }) => name), ["voice"]);
  assert.equal(existsSync(`${home.stateFolder}/ship/runs.jsonl`), false, "nothing is said of the other set");
  const shipped = await home.cli(["ship"]);
  assert.equal(shipped.code, 4, "a folder on this disk is not off this machine");
  assert.match(shipped.stdout, /disk \(on this machine\): 1 snapshot shipped/);
  assert.deepEqual(await filesBelow(`${home.dir}/disk/home/state`), await filesBelow(home.stored));

  for (const set of ["state", "voice"]) {
    const args = ["verify", "--store", "disk", "--set", set, "--identity", home.identityFile];
    const proven = await home.cli(args);
    assert.equal(proven.code, 0, proven.stderr + proven.stdout);
  }
  const next = await home.cli(["backup", "--no-ship", "--json"]);
  assert.deepEqual([next.code, JSON.parse(next.stdout).snapshots[0].kind], [0, "increment"], next.stderr);
});

Deno.test("nothing stays staged where a snapshot fails before it begins; what fails in clearing hides no reason", async () => {
  using home = await makeHome();
  const own = `${home.stateFolder}/state`;
  home.write(`${own}/base`, "where a folder belongs");
  const warned: string[] = [];
  const terminal = {
    ...makeTerminal({ quiet: true, verbose: false, json: false, journal: false }),
    warn: (text: string) => void warned.push(text),
  };
  const around = { home: home.home, hostname: "home", env: {} };
  const options = { set: MAIN_SET, wait: "0" };
  const context = { options, json: false, around, terminal, configFile: home.configFile };
  const host = { ...home.host, report: terminal };
  const stuck = {
    ...host.fs,
    remove() {
      throw new Error("Read-only file system");
    },
  };
  const leaves = async (run: () => unknown, left: string[]) => {
    // Left by a run that was killed.
    home.write(`${own}/staging/hapi.db.image`, "plaintext");
    await assert.rejects(async () => await run(), { kind: "disk", message: /^Cannot make .*\/base: / });
    assert.deepEqual(namesIn(`${own}/staging`), left);
  };
  await leaves(() => BACKUP_VERBS.snapshot!({ ...context, host }), []);
  await leaves(() => loggedSnapshot({ ...context, host }, home.config(), MAIN_SET), []);
  assert.deepEqual(warned, []);
  await leaves(() => BACKUP_VERBS.snapshot!({ ...context, host: { ...host, fs: stuck } }), ["hapi.db.image"]);
  assert.match(warned.join("\n"), /^\S.*\/staging is not cleared, .*: Read-only file system$/);
});

Deno.test("HAPI_HOME and DB_PATH say where the hub is, and what is restored in place goes back there", async () => {
  using home = await makeHome();
  Deno.mkdirSync(`${home.dir}/elsewhere`);
  Deno.mkdirSync(`${home.dir}/disk`);
  fillDatabase(`${home.dir}/disk/hub.sqlite`, 77);
  home.write(`${home.dir}/elsewhere/hub.env`, "KEY=of-the-hub-that-is-elsewhere\n");
  const env = { HAPI_HOME: `${home.dir}/elsewhere`, DB_PATH: `${home.dir}/disk/hub.sqlite` };
  const ran = await home.cli(["backup", "--no-ship", "--json"], { env });
  assert.equal(ran.code, 0, ran.stderr);
  assert.equal(JSON.parse(ran.stdout).snapshots[0].rows["hub.sqlite"].messages, 77);
  await output("sqlite3", [`${home.dir}/disk/hub.sqlite`, "DELETE FROM messages"]);
  home.write(`${home.dir}/elsewhere/hub.env`, "KEY=changed\n");
  const before = await filesBelow(`${home.home}/.hapi`);
  const restored = await home.cli(["restore", "--in-place", "--identity", home.identityFile], { env });
  assert.equal(restored.code, 0, restored.stderr);
  assert.equal(countMessages(`${home.dir}/disk/hub.sqlite`), 77);
  assert.match(Deno.readTextFileSync(`${home.dir}/elsewhere/hub.env`), /of-the-hub-that-is-elsewhere/);
  assert.deepEqual(await filesBelow(`${home.home}/.hapi`), before, "the usual place is not touched");
});

Deno.test("links in a folder are proven and come back, by the command line", async () => {
  using home = await makeHome();
  home.write("notes/real", "x");
  for (const [name, target] of [["link", "real"], ["dangling", "/nowhere"], ["loop", "."]] as const) {
    Deno.symlinkSync(target, `${home.home}/notes/${name}`);
  }
  home.configure({ sets: { state: { sources: [{ kind: "folder", path: "~/notes" }] } } });
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
  const identity = ["--identity", home.identityFile];
  const proven = await home.cli(["verify", ...identity]);
  assert.equal(proven.code, 0, proven.stderr);
  const restored = await home.cli(["restore", "--to", `${home.dir}/out`, ...identity]);
  assert.equal(restored.code, 0, restored.stderr);
  assert.equal(Deno.readLinkSync(`${home.dir}/out/home/notes/dangling`), "/nowhere");
  assert.equal(Deno.readTextFileSync(`${home.dir}/out/home/notes/link`), "x");
});

Deno.test("a home that is a link is backed up, proven and restored", async () => {
  using home = await makeHome();
  Deno.renameSync(home.home, `${home.dir}/disk`);
  Deno.symlinkSync("disk", home.home);
  home.configure({ sets: { state: { sources: [{ kind: "sqlite", path: "~/.hapi/hapi.db" }] } } });
  const identity = ["--identity", home.identityFile];
  const verbs = [
    ["backup", "--no-ship"],
    ["verify", ...identity],
    ["session", "restore", "a", ...identity],
    ["restore", "--in-place", ...identity],
  ];
  for (const args of verbs) {
    if (args[0] === "restore") Deno.removeSync(home.database);
    const { code, stderr } = await home.cli(args);
    assert.equal(code, 0, `${args[0]}: ${stderr}`);
  }
  assert.equal(countMessages(home.database), 300);
});

Deno.test("a pattern may be read where its names are quoted with a backslash, or hold a lone bracket", async () => {
  for (
    const [pattern, place] of [["~/my\\ notes/*.md", "my notes/a.md"], ["~/a]b/*.md", "a]b/a.md"]] as const
  ) {
    using home = await makeHome();
    home.write(place, "x");
    home.configure({ sets: { state: { sources: [{ kind: "glob", name: "notes", path: pattern }] } } });
    const ran = await home.cli(["backup", "--no-ship", "--json"]);
    assert.equal(ran.code, 0, ran.stderr);
    assert.equal(JSON.parse(ran.stdout).snapshots[0].files, 1, pattern);
  }
});

Deno.test("a source that holds the store, the state and a disk's store saves none of them, and says so", async () => {
  using home = await makeHome();
  const disk = `${home.home}/disk`;
  Deno.mkdirSync(disk);
  home.configure({
    sets: {
      state: {
        sources: [
          { kind: "sqlite", path: "~/.hapi/hapi.db" },
          { kind: "folder", name: "home", path: "~" },
          { kind: "glob", name: "json", path: "~/**/*.json" },
        ],
      },
    },
    destinations: [{ kind: "folder", name: "disk", path: disk }],
  });
  await home.cli(["backup"]);
  const again = await home.cli(["backup", "--json"]);
  assert.equal(JSON.parse(again.stdout).snapshots[0].kind, "unchanged", again.stderr);
  for (const path of [home.store, home.stateFolder, disk]) {
    assert.ok(again.stderr.includes(`${path} is where backups are kept and was not saved`), again.stderr);
  }
});

Deno.test("a file whose name is not UTF-8 makes a snapshot suspect that says how to find it, also beside one that looks the same", async () => {
  using home = await makeHome();
  home.write("notes/in\uFFFD", "the one that may be saved");
  const folder = `${home.home}/notes`;
  await output("bash", ["-c", `echo lost > "$0"/in$'\\xe9'`, folder]);
  const configure = (exclude: string[]) =>
    home.configure({ sets: { state: { sources: [{ kind: "folder", path: "~/notes", exclude }] } } });
  configure([]);
  const suspect = await home.cli(["backup", "--no-ship"]);
  assert.equal(suspect.code, 3, suspect.stderr);
  const command = /SUSPECT notes: Cannot save ".*notes\/in\uFFFD": its name is not UTF-8 \(`(.*)` shows/.exec(
    suspect.stdout,
  );
  assert.ok(command, suspect.stdout);
  assert.match(await output("sh", ["-c", command[1]!]), /in\\351/);
  configure(["in*"]);
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
});

Deno.test("once keepBase is false no image stays, though the database never changes again", async () => {
  using home = await makeHome();
  const run = async (keepBase: boolean) => {
    home.configure({ sets: { state: { keepBase, sources: [{ kind: "sqlite", path: "~/.hapi/hapi.db" }] } } });
    const ran = await home.cli(["backup", "--no-ship", "--json"]);
    assert.equal(ran.code, 0, ran.stderr);
    const kept = [...Deno.readDirSync(`${home.stateFolder}/state/base`)].map(({ name }) =>
      name.split(".")[1]
    );
    return { kind: JSON.parse(ran.stdout).snapshots[0].kind, kept };
  };
  assert.deepEqual(await run(true), { kind: "full", kept: ["image"] });
  assert.deepEqual(await run(false), { kind: "full", kept: ["sums"] });
  assert.deepEqual(await run(false), { kind: "unchanged", kept: ["sums"] });
});

Deno.test("a database that another set saves is not saved as torn files by a set whose folder holds it", async () => {
  using home = await makeHome();
  home.configure({
    sets: {
      state: { sources: [{ kind: "sqlite", path: "~/.hapi/hapi.db" }] },
      rest: { sources: [{ kind: "folder", path: "~/.hapi" }] },
      bytes: { sources: [{ kind: "file", path: "~/.hapi/hapi.db" }] },
    },
  });
  using hub = new DatabaseSync(home.database);
  hub.exec(insertMessages(10));
  const ran = await home.cli(["backup", "--no-ship", "--set", "all", "--json"]);
  assert.equal(ran.code, 0, ran.stderr);
  const files = JSON.parse(ran.stdout).snapshots.map(({ set, files }: EncryptReport) => [set, files]);
  assert.deepEqual(files, [["state", 0], ["rest", 2], ["bytes", 1]], "what is named by itself is saved");
  const args = ["--set", "rest", "--to", `${home.dir}/out`, "--identity", home.identityFile];
  const restored = await home.cli(["restore", ...args]);
  assert.equal(restored.code, 0, restored.stderr);
  assert.deepEqual(namesIn(`${home.dir}/out/home/.hapi`), ["hub.env", "settings.json"]);
});

Deno.test("a database behind a link is saved once, and comes back, where a folder holds the link and what is behind it", async () => {
  using home = await makeHome();
  await output("bash", ["-c", "mv .hapi data && ln -s data .hapi"], { cwd: home.home });
  const [database, folder] = [{ kind: "sqlite", path: "~/.hapi/hapi.db" }, { kind: "folder", path: "~" }];
  home.configure({ sets: { state: { sources: [database, folder] }, rest: { sources: [folder] } } });
  using hub = new DatabaseSync(home.database);
  hub.exec(insertMessages(10));
  const ran = await home.cli(["backup", "--no-ship", "--set", "all"]);
  assert.equal(ran.code, 0, ran.stderr);
  hub.exec("DELETE FROM messages");
  hub.close();
  const restored = async (set: string, ...where: string[]) => {
    const done = await home.cli(["restore", "--set", set, "--identity", home.identityFile, ...where]);
    assert.equal(done.code, 0, done.stderr);
    return done.stdout;
  };
  await restored("rest", "--to", `${home.dir}/rest`);
  assert.deepEqual(namesIn(`${home.dir}/rest/home/data`), ["hub.env", "settings.json"]);
  assert.ok(
    Deno.lstatSync(`${home.dir}/rest/home/.hapi`).isSymlink,
    "where it stands above nothing it is kept",
  );
  await restored("state", "--to", `${home.dir}/state`);
  assert.deepEqual(namesIn(`${home.dir}/state/home/.hapi`), ["hapi.db"]);
  assert.deepEqual(namesIn(`${home.dir}/state/home/data`), ["hub.env", "settings.json"]);
  await restored("state", "--in-place");
  assert.equal(countMessages(`${home.home}/data/hapi.db`), 310);
});

Deno.test("a required file that goes while others are read keeps the snapshot from counting as good", async () => {
  using home = await makeHome();
  const required = `${home.home}/.hapi/settings.json`;
  home.configure({
    sets: {
      state: {
        sources: [
          { kind: "file", path: "~/.hapi/hub.env" },
          { kind: "file", path: required, required: true },
        ],
      },
    },
  });
  const { fs } = home.host;
  const open: typeof fs.open = (path, options) => {
    if (path.endsWith("/hub.env")) Deno.removeSync(required);
    return fs.open(path, options);
  };
  const { suspicions, files } = await home.backup({ host: { ...home.host, fs: { ...fs, open } } });
  assert.equal(files, 1);
  assert.deepEqual(suspicions.map(({ source, code, detail }) => [source, code, detail]), [[
    "settings.json",
    "unreadable",
    `Cannot save source settings.json: what was at "${required}" went before it was read; run it again`,
  ]]);
});

Deno.test("a database that a file source names behind a link is saved there too; another name of one in a folder is told", async () => {
  using home = await makeHome();
  await output("bash", [
    "-c",
    "ln -s .hapi lnk && mkdir notes && ln .hapi/hapi.db notes/keep.db && echo a > notes/a",
  ], {
    cwd: home.home,
  });
  home.configure({
    sets: {
      state: { sources: [{ kind: "sqlite", path: "~/.hapi/hapi.db" }, { kind: "folder", path: "~/notes" }] },
      copy: { sources: [{ kind: "file", path: "~/lnk/hapi.db", required: true }] },
    },
  });
  const ran = await home.cli(["backup", "--no-ship", "--set", "all", "--json"]);
  assert.equal(ran.code, 0, ran.stderr);
  assert.deepEqual(
    JSON.parse(ran.stdout).snapshots.map(({ set, files }: { set: string; files: number }) => [set, files]),
    [["state", 1], ["copy", 1]],
  );
  assert.match(ran.stderr, /notes\/keep\.db: a database that is saved as such, and not a second time/);
});

Deno.test(
  "a file whose time no Date can hold is saved, and what it is saved with can be read",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    const folder = `${home.home}/notes`;
    Deno.mkdirSync(folder);
    await using _disk = await mountTmpfs(folder);
    await output("touch", ["-d", "@99999999999999", `${folder}/far`]);
    home.configure({ sets: { state: { sources: [{ kind: "folder", path: "~/notes" }] } } });
    const ran = await home.cli(["backup", "--no-ship"]);
    assert.equal(ran.code, 0, ran.stderr);
    assert.doesNotMatch(ran.stderr, /changed while it was read/);
    const proven = await home.cli(["verify", "--identity", home.identityFile]);
    assert.equal(proven.code, 0, proven.stdout);
  },
);

Deno.test("a snapshot that has a database's file a second time, as older ones may, is restored in place", async () => {
  using home = await makeHome();
  await output("bash", ["-c", "mv .hapi data && ln -s data .hapi"], { cwd: home.home });
  const sources = [{ kind: "sqlite", path: "~/.hapi/hapi.db" }, { kind: "folder", path: "~/data" }];
  home.configure({ sets: { state: { sources } } });
  const { fs } = home.host;
  const stat: typeof fs.stat = (path) =>
    path.endsWith("hapi.db") ? { ...fs.stat(path), inode: 0 } : fs.stat(path);
  const { files } = await home.backup({ host: { ...home.host, fs: { ...fs, stat } } });
  assert.equal(files, 3, "the copy is among them");
  home.sql("DELETE FROM messages");
  const done = await home.cli(["restore", "--in-place", "--identity", home.identityFile]);
  assert.equal(done.code, 0, done.stderr);
  assert.equal(done.stdout.match(/set aside: /g)?.length, 1, done.stdout);
  assert.equal(countMessages(home.database), 300);
});

Deno.test("a database of the longest name that a source may have is saved and comes back", async () => {
  using home = await makeHome();
  const path = `${home.home}/${"n".repeat(80)}`;
  fillDatabase(path, 10);
  home.configure({ sets: { state: { sources: [{ kind: "sqlite", path }] } } });
  for (const more of [0, 5]) {
    if (more > 0) {
      using db = new DatabaseSync(path);
      db.exec(insertMessages(more));
    }
    const ran = await home.cli(["backup", "--no-ship"]);
    assert.equal(ran.code, 0, ran.stderr);
  }
  const proven = await home.cli(["verify", "--identity", home.identityFile, "--json"]);
  assert.equal(proven.code, 0, proven.stderr);
});

Deno.test("a -wal that may not be read is a source that cannot be read", async () => {
  using home = await makeHome();
  using hub = new DatabaseSync(home.database);
  hub.exec(insertMessages(10));
  const wal = `${home.database}-wal`;
  Deno.chmodSync(wal, 0);
  // Root may read it all the same: a folder cannot be read by anybody.
  if (Deno.uid() === 0) {
    Deno.renameSync(wal, `${wal}.away`);
    Deno.mkdirSync(wal);
  }
  const ran = await home.cli(["backup", "--no-ship"]);
  assert.equal(ran.code, 3, ran.stderr);
  assert.match(ran.stderr, /^error: Cannot back up database .*hapi\.db: .*\nhint: .*-wal/m);
});

/** A home of two sets, which ships to a disk. */
async function makeTwoSets(): Promise<Home> {
  const home = await makeHome();
  home.write("voice/a.wav", "a");
  home.addDisk({
    sets: {
      state: { sources: [{ kind: "sqlite", path: "~/.hapi/hapi.db" }] },
      voice: { sources: [{ kind: "folder", path: "~/voice" }] },
    },
  });
  return home;
}

Deno.test("a set that fails costs neither the others nor the shipping, and every failure is told", async () => {
  using home = await makeTwoSets();
  const waiting = await home.cli(["backup", "--no-ship"]);
  assert.equal(waiting.code, 0, waiting.stderr);
  Deno.renameSync(home.database, `${home.database}.away`);

  const ran = await home.cli(["backup", "--set", "all", "--json"]);
  assert.equal(ran.code, 3, ran.stderr);
  const told = JSON.parse(ran.stdout);
  assert.match(told.error.message, /^Cannot back up database .*hapi\.db: there is no such file$/);
  assert.deepEqual(told.snapshots.map(({ set }: { set: string }) => set), ["voice"]);
  assert.equal(told.ship.destinations[0].shipped.length, 2);
  for (const set of ["state", "voice"]) {
    assert.equal([...Deno.readDirSync(`${home.dir}/disk/home/${set}`)].length, 1);
  }
  assert.match(ran.stderr, /"Cannot call it off this machine: disk is on this machine's own disk/);

  // In single steps, too.
  const staged = await home.cli(["snapshot", "--set", "all", "--json"]);
  assert.equal(staged.code, 3, staged.stderr);
  assert.deepEqual(JSON.parse(staged.stdout).staged.map(({ set }: { set: string }) => set), ["voice"]);
  const sealed = await home.cli(["encrypt", "--set", "all", "--json"]);
  assert.equal(sealed.code, 2, sealed.stderr);
  const { error, snapshots } = JSON.parse(sealed.stdout);
  assert.match(error.message, /^Cannot encrypt set state: nothing is staged$/);
  assert.deepEqual(snapshots.map(({ set }: { set: string }) => set), ["voice"]);
});

Deno.test("a source that cannot be looked at keeps nothing from being shipped, nor the doctor from its page", async () => {
  using home = await makeHome();
  home.addDisk();
  // Of what is below /proc Deno tells nobody anything.
  Deno.removeSync(`${home.home}/.hapi/hub.env`);
  Deno.symlinkSync("/proc/self/environ", `${home.home}/.hapi/hub.env`);
  const ran = await home.cli(["backup", "--json"]);
  assert.equal(ran.code, 3, ran.stderr);
  const { snapshots, ship } = JSON.parse(ran.stdout);
  assert.deepEqual(snapshots[0].suspicions.map(({ code }: { code: string }) => code), ["unreadable"]);
  assert.deepEqual(ship.destinations[0].shipped.map(({ id }: { id: string }) => id), [snapshots[0].id]);
  const page = await home.cli(["doctor", "--offline", "--json"]);
  const checks: { name: string; state: string }[] = JSON.parse(page.stdout).checks;
  assert.equal(checks.find(({ name }) => name === "state: hub.env")?.state, "fail", page.stderr);
});

Deno.test(
  "a destination on the disk that a source's link leads to, or that a pattern's files are on, is on this machine",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    const disk = `${home.dir}/other disk`;
    Deno.mkdirSync(disk);
    await using _disk = await mountTmpfs(disk);
    Deno.mkdirSync(`${disk}/store`);
    const destinations = [{ kind: "folder", name: "disk", path: `${disk}/store` }];
    const ships = async (source: Record<string, unknown>) => {
      home.configure({ destinations, sets: { state: { sources: [source] } } });
      const { stdout } = await home.cli(["backup", "--json"]);
      return JSON.parse(stdout.slice(0, stdout.indexOf("\n"))).ship.destinations[0].offBox;
    };
    assert.equal(await ships({ kind: "file", path: "~/.hapi/hub.env" }), true);
    Deno.copyFileSync(`${home.home}/.hapi/hub.env`, `${disk}/hub.env`);
    Deno.symlinkSync(`${disk}/hub.env`, `${home.home}/linked.env`);
    assert.equal(await ships({ kind: "file", path: "~/linked.env" }), false);
    assert.equal(await ships({ kind: "glob", path: `${disk}/*.env` }), false);
  },
);

Deno.test(
  "what cannot be read of the local store keeps nothing else from being shipped, or told of",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeTwoSets();
    await output("chown", ["-R", "65534:65534", home.dir]);
    Deno.chmodSync(home.dir, 0o755);
    const under = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const run = async (args: string[], code: number) => {
      const ran = await home.cli([...args, "--json"], { under });
      assert.equal(ran.code, code, ran.stderr);
      return { ...JSON.parse(ran.stdout), stderr: ran.stderr };
    };
    const { snapshots: [old] } = await run(["backup", "--set", "all", "--no-ship"], 0);
    Deno.mkdirSync(`${home.store}/another`);
    for (const path of ["another", "home/voice", `home/state/${old.id}/seal.json.sig`]) {
      Deno.chownSync(`${home.store}/${path}`, 0, 0);
      Deno.chmodSync(`${home.store}/${path}`, 0o700);
    }
    const { snapshots: [next], ship, error } = await run(["backup"], 4);
    assert.deepEqual(ship.destinations[0].shipped.map(({ id }: { id: string }) => id), [next.id]);
    assert.match(
      error.message,
      new RegExp(`; set voice cannot be read .*; state/${old.id} is damaged .*seal.json.sig`),
    );
    assert.match(error.hint, /give the local store back to the user that ships \(chown -R\)/);
    const told = await run(["status"], 8);
    assert.equal(told.sets[0].newest, next.id);
    assert.match(
      told.stderr,
      /read .*home\/voice: Permission denied .*; what it holds counts as not there/,
    );
    const page = await home.cli(["doctor", "--offline"], { under });
    assert.match(
      page.stdout,
      /state: newest good snapshot: \d+ s old[^]* voice: newest good snapshot: there is none/,
    );
  },
);

Deno.test("that another run holds a lock does not hide that a snapshot is suspect, from backup and from encrypt", async () => {
  using home = await makeHome();
  home.write("voice/a.wav", "a");
  const made = await new Deno.Command("bash", { args: ["-c", "touch voice/$'bad\\xff'"], cwd: home.home })
    .output();
  assert.ok(made.success);
  const set = { sources: [{ kind: "folder", path: "~/voice" }] };
  home.configure({ sets: { busy: set, voice: set } });
  assert.equal((await home.cli(["snapshot", "--set", "all"])).code, 0);
  for (const [held, verb] of [["busy", "encrypt"], ["ship", "backup"]] as const) {
    Deno.mkdirSync(`${home.stateFolder}/${held}`, { recursive: true });
    using lock = await Deno.open(`${home.stateFolder}/${held}/lock`, { write: true, create: true });
    await lock.lock(true);
    const ran = await home.cli([verb, "--set", "all"]);
    assert.equal(ran.code, 3, ran.stderr);
    assert.match(ran.stderr, /^error: Cannot count this snapshot as good/m);
    assert.match(ran.stderr, /^warning: Cannot start: another run holds the lock/m);
  }
});

Deno.test("a run that finds another one at work on its set leaves shipping to that one", async () => {
  using home = await makeHome();
  Deno.mkdirSync(`${home.stateFolder}/state`, { recursive: true });
  using lock = await Deno.open(`${home.stateFolder}/state/lock`, { write: true, create: true });
  await lock.lock(true);
  const ran = await home.cli(["backup", "--json"]);
  assert.equal(ran.code, 6, ran.stderr);
  const { error, furtherErrors, ship } = JSON.parse(ran.stdout);
  assert.deepEqual([error.kind, furtherErrors, ship], ["busy", [], undefined]);
});

Deno.test("the first bytes of a database tell what it is, and those beside it every commit, and no half of one", async () => {
  await inTempDir((dir) => {
    using db = new DatabaseSync(`${dir}/x.db`);
    db.exec("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; CREATE TABLE t (a)");
    const shm = () => Deno.readFileSync(`${dir}/x.db-shm`).slice(0, 96);
    const states = new Set<string | undefined>([walIndexState(shm())]);
    for (let count = 2; count < 5; count++) {
      db.exec("INSERT INTO t VALUES (1)");
      states.add(walIndexState(shm()));
      assert.ok(states.size === count && !states.has(undefined), `${[...states]}`);
    }
    const changed = (bytes: Uint8Array, changes: Record<number, number>) => {
      const copy = bytes.slice();
      for (const [at, byte] of Object.entries(changes)) copy[Number(at)] = byte;
      return copy;
    };
    for (let at = 0; at < 96; at++) {
      assert.equal(walIndexState(changed(shm(), { [at]: shm()[at]! ^ 1 })), undefined);
    }
    assert.equal(walIndexState(changed(shm(), { 12: 0, 60: 0 })), undefined, "not initialised");
    assert.equal(walIndexState(shm().slice(0, 95)), undefined);

    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    const header = () => Deno.readFileSync(`${dir}/x.db`).slice(0, HEADER_BYTES);
    const bytes = Deno.statSync(`${dir}/x.db`).size;
    const sound = { kind: "sqlite", pageBytes: 8192, wal: true, bytes };
    assert.deepEqual(readHeader(header()), sound);
    const of = (changes: Record<number, number>) => readHeader(changed(header(), changes));
    for (const at of [18, 19]) assert.deepEqual(of({ [at]: 1 }), { ...sound, wal: false });
    for (const at of [24, 27, 92, 95]) {
      assert.deepEqual(of({ [at]: header()[at]! ^ 1 }), { ...sound, bytes: 0 });
    }
    assert.deepEqual(of({ 16: 0, 17: 1 }), { ...sound, pageBytes: 65_536, bytes: 8 * bytes });
    assert.deepEqual(of({ 16: 2, 17: 0 }), { ...sound, pageBytes: 512, bytes: bytes / 16 });
    for (const [high, low] of [[0, 0], [1, 0], [2, 1], [3, 0], [0, 2]]) {
      assert.deepEqual(
        of({ 16: high!, 17: low! }),
        { kind: "foreign" },
        `pages of ${high! << 8 | low!} bytes`,
      );
    }
    for (let at = 0; at < 16; at++) assert.deepEqual(of({ [at]: header()[at]! ^ 32 }), { kind: "foreign" });
    assert.deepEqual(readHeader(header().slice(0, 99)), { kind: "foreign" });
    assert.deepEqual(readHeader(new Uint8Array()), { kind: "empty" });

    db.exec("PRAGMA journal_mode = DELETE");
    const counters = new Set([countersOf(header())]);
    for (let count = 2; count < 4; count++) {
      db.exec("INSERT INTO t VALUES (1)");
      assert.equal(counters.add(countersOf(header())).size, count);
    }
    for (const at of [23, 24, 27, 28, 91, 92, 95, 96]) {
      const isTold = countersOf(changed(header(), { [at]: 99 })) !== countersOf(header());
      assert.equal(isTold, [24, 27, 92, 95].includes(at), `byte ${at}`);
    }
  });
});
