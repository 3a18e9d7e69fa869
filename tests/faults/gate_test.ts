/**
 * Bad sources: a database that is damaged, cut, swapped, emptied or shrunk is stored, suspect, and never good; the
 * next one clears that only by being good, and until then a restore takes the last good one. So is a file that cannot
 * be read.
 */

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { type EncryptReport, suspectError } from "../../scripts/core/command_line/reports.ts";
import { setFolder } from "../../scripts/core/config/state_paths.ts";
import { MAIN_SET, type SnapshotId, type SourceName } from "../../scripts/core/names.ts";
import type { Place } from "../../scripts/core/place.ts";
import {
  gateHint,
  type GateReference,
  type GateSubject,
  isNamedUnreadable,
  suspicionsOf,
  suspicionsOfUnreadable,
} from "../../scripts/core/snapshot/gate.ts";
import type { SuspicionCode } from "../../scripts/core/snapshot/seal.ts";
import { chooseSnapshot } from "../../scripts/core/snapshot/select.ts";
import { encrypt } from "../../scripts/encrypt.ts";
import { generateIdentity } from "../../scripts/host/keys/identity.ts";
import { readMemory } from "../../scripts/host/records/memory.ts";
import { isSealed, readSet, setIn } from "../../scripts/host/store/store.ts";
import { restore } from "../../scripts/restore.ts";
import { check, snapshot } from "../../scripts/snapshot.ts";
import { generateHubDatabase } from "../bench/generate.ts";
import { fillDatabase, type Home, makeHome, output } from "../real/home.ts";
import { pageBytesOf, treesOf } from "./pages.ts";

/** A home whose database is a hub's, and what it was when it was sound. */
async function makeHubHome(): Promise<Home & { readonly sound: Uint8Array<ArrayBuffer> }> {
  const home = await makeHome();
  Deno.removeSync(home.database);
  await generateHubDatabase({ out: `${home.home}/.hapi`, sessions: 12, messages: 600 });
  const sound = Deno.readFileSync(home.database);
  assert.deepEqual((await home.backup()).suspicions, []);
  return Object.assign(home, { sound });
}

/** The snapshot that `restore` takes when told nothing. */
function latestGood({ host, config }: Home): string {
  const { store, hub } = config();
  const stored = readSet(host.fs, setIn(store, hub, MAIN_SET)).filter(isSealed);
  return chooseSnapshot("latest", stored.map(({ sealed }) => sealed.seal), 0);
}

/** Why the snapshot is suspect by `code`. */
function detailOf({ suspicions }: EncryptReport, code: SuspicionCode, what: string): string {
  const found = suspicions.find((suspicion) => suspicion.code === code);
  assert.ok(found, `${what}: ${code} is not among ${JSON.stringify(suspicions)}`);
  return found.detail;
}

Deno.test("garbage or zeros in any table, index or the schema make a snapshot suspect", async () => {
  using home = await makeHubHome();
  const good = latestGood(home);
  const pageBytes = pageBytesOf(home.sound);
  const trees = treesOf(home.database);
  assert.ok(trees.length > 30, `${trees.length} trees`);
  for (const { name, pages } of trees) {
    for (const page of new Set([pages[0]!, pages.at(-1)!])) {
      const bad = home.sound.slice();
      // The file's own header stays: without it this is no database.
      const damage = bad.subarray((page - 1) * pageBytes + (page === 1 ? 100 : 0), page * pageBytes);
      if (page % 2 === 0) crypto.getRandomValues(damage);
      else damage.fill(0);
      Deno.writeFileSync(home.database, bad);
      const what = `page ${page} of ${name}`;
      assert.match(detailOf(await home.backup(), "integrity", what), /^integrity_check: /);
      assert.equal(latestGood(home), good, what);
    }
  }
});

Deno.test("the gate finds each thing alone, and what is just allowed not at all", () => {
  const sound = { integrity: ["ok"], foreignKeys: [] as string[] };
  const rows = { sessions: 60, messages: 200, cache: 900 };
  const good: GateReference = { rows, checks: sound };
  const gate = { rowsLostRatio: 0.5, rowsLostMin: 50, ignoreTables: ["cache"] };
  const found = (changes: Partial<GateSubject>, lastGood: GateReference | undefined = good) =>
    suspicionsOf("db", { rows, unreadable: [], checks: sound, ...changes }, lastGood, gate)
      .map(({ code }) => code).join();
  const { sessions, messages, cache } = rows;
  const cases: [Partial<GateSubject>, string][] = [
    [{}, ""],
    [{ problems: ["the file was cut"] }, "integrity"],
    [{ checks: { ...sound, integrity: [] } }, "integrity"],
    [{ checks: { ...sound, integrity: ["ok", "a row is missing"] } }, "integrity"],
    [{ checks: { ...sound, foreignKeys: ["messages 1"] } }, "foreign-keys"],
    // What cannot be counted is neither lost nor gone.
    [{ rows: { sessions, cache }, unreadable: ["messages"] }, "integrity"],
    [{ rows: {}, unreadable: Object.keys(rows) }, "integrity"],
    [{ rows: {} }, "empty,swapped,rows-lost,rows-lost"],
    [{ rows: { sessions: 0, messages: 0, cache: 0 } }, "empty,rows-lost,rows-lost"],
    [{ rows: { sessions, messages } }, ""],
    [{ rows: { messages, another: 1 } }, "swapped,rows-lost"],
    [{ rows: { ...rows, messages: 100 } }, ""],
    [{ rows: { ...rows, messages: 99 } }, "rows-lost"],
    [{ rows: { ...rows, sessions: 11 } }, ""],
    [{ rows: { ...rows, sessions: 10 } }, "rows-lost"],
  ];
  for (const [changes, codes] of cases) assert.equal(found(changes), codes, JSON.stringify(changes));
  const broken = { ...sound, foreignKeys: ["messages 1"] };
  assert.equal(found({ checks: broken }, { rows, checks: broken }), "", "as the last good one");
  assert.equal(
    found({ rows: { another: 1 } }, { rows: { one: 1 }, checks: sound }),
    "",
    "one table, renamed",
  );
  assert.equal(found({ rows: { a: 0 } }, { rows: { a: 0 }, checks: sound }), "", "as empty as it was");
  assert.equal(
    suspicionsOf("db", { rows: { a: 0 }, unreadable: [], checks: sound }, undefined, gate).length,
    0,
  );
});

/** What can become of a database, and what a person is told of it. */
const BAD: readonly {
  readonly what: string;
  readonly code: SuspicionCode;
  readonly detail: RegExp;
  readonly spoil: (home: Home & { sound: Uint8Array<ArrayBuffer> }) => void;
}[] = [
  {
    what: "cut within a page",
    code: "integrity",
    detail: /^the file was cut: it has \d+99 bytes of \d+$/,
    spoil: ({ database, sound }) => Deno.truncateSync(database, Math.floor(sound.length / 2000) * 1000 + 99),
  },
  {
    what: "cut to its first page",
    code: "integrity",
    detail: /^the file was cut: it has 4096 bytes of \d+$/,
    spoil: ({ database }) => Deno.truncateSync(database, 4096),
  },
  {
    what: "swapped for another",
    code: "swapped",
    detail: /^\d+ of \d+ tables are gone: it may be another database$/,
    spoil: ({ database, sql }) => {
      Deno.removeSync(database);
      sql("PRAGMA journal_mode = WAL; CREATE TABLE notes (body); INSERT INTO notes VALUES ('x')");
    },
  },
  {
    what: "emptied by a bad migration",
    code: "empty",
    detail: /^every table is empty, and there were \d+ rows$/,
    spoil: ({ database }) => {
      using db = new DatabaseSync(database);
      const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all();
      db.exec("PRAGMA foreign_keys = OFF");
      for (const { name } of tables) db.exec(`DELETE FROM "${name}"`);
    },
  },
  {
    what: "without its messages after a bad migration",
    code: "rows-lost",
    detail: /^messages has 0 rows where the last good snapshot had 600: up to 300 fewer pass for a clean-up$/,
    spoil: ({ sql }) => sql("DROP TABLE messages"),
  },
  {
    what: "shrunk by most of its rows",
    code: "rows-lost",
    detail:
      /^messages has 59 rows where the last good snapshot had 600: up to 300 fewer pass for a clean-up$/,
    spoil: ({ sql }) => sql("DELETE FROM messages WHERE rowid NOT IN (SELECT rowid FROM messages LIMIT 59)"),
  },
];

Deno.test("a cut, swapped, emptied or shrunk database is suspect until a good one comes", async () => {
  using home = await makeHubHome();
  for (const { what, code, detail, spoil } of BAD) {
    const good = latestGood(home);
    spoil(home);
    const first = await home.backup();
    assert.match(detailOf(first, code, what), detail);
    const spoilt = Deno.readFileSync(home.database);
    // It is kept as it is: what can still be read of it may be wanted.
    const to = `${home.dir}/${code}`;
    await restore(await home.opening(), first.id, to);
    const kept = Deno.readFileSync(`${to}/home/.hapi/hapi.db`);
    assert.deepEqual(kept.subarray(0, spoilt.length), spoilt, what);
    Deno.removeSync(to, { recursive: true });
    // Neither waiting nor asking for a full makes it good.
    for (const full of [false, true]) {
      assert.match(detailOf(await home.backup({ full }), code, `${what}, unchanged`), detail);
    }
    assert.equal(latestGood(home), good, what);

    Deno.writeFileSync(home.database, home.sound);
    const after = await home.backup();
    assert.deepEqual(after.suspicions, [], `${what}, then mended`);
    assert.equal(latestGood(home), after.id);
  }
});

Deno.test("a database that is cut while a hub has it open is stored as it is, suspect", async () => {
  using home = await makeHubHome();
  using hub = new DatabaseSync(home.database);
  hub.prepare("SELECT count(*) FROM messages").get();
  Deno.truncateSync(home.database, 4096);
  const report = await home.backup();
  assert.match(
    detailOf(report, "integrity", "cut while open"),
    /^SQLite cannot read it: its file was copied as it is.*; the file was cut: it has 4096 bytes of \d+$/,
  );
});

Deno.test("what counts as a clean-up of old rows can be set, and one that was meant can be accepted", async () => {
  using home = await makeHubHome();
  const cleanUp = () =>
    home.sql("DELETE FROM messages WHERE rowid IN (SELECT rowid FROM messages LIMIT 400)");
  const mend = () => Deno.writeFileSync(home.database, home.sound);
  const [set] = [...home.config().sets.values()];
  const gated = (gate: Record<string, unknown>) =>
    home.configure({ sets: { state: { ...set, gate: { ...set!.gate, ...gate } } } });
  const good = latestGood(home);
  cleanUp();
  detailOf(await home.backup(), "rows-lost", "two thirds gone");

  const settings = [{ rowsLostRatio: 0.7 }, { rowsLostMin: 401 }, {
    ignoreTables: ["messages", "usage_events"],
  }];
  for (const gate of settings) {
    mend();
    gated({});
    await home.backup();
    cleanUp();
    gated(gate);
    assert.deepEqual((await home.backup()).suspicions, [], JSON.stringify(gate));
  }

  mend();
  gated({});
  await home.backup();
  cleanUp();
  detailOf(await home.backup(), "rows-lost", "two thirds gone again");
  assert.deepEqual((await home.backup({ accept: true })).suspicions, []);
  assert.deepEqual((await home.backup()).suspicions, [], "what was accepted is what is compared with");
  assert.ok(latestGood(home) > good);
  // Damage is not a matter of taste.
  Deno.truncateSync(home.database, 4096);
  detailOf(await home.backup({ accept: true }), "integrity", "accepted damage");
});

Deno.test("a database of more tables than a seal names suspicions is stored though all of them lost their rows", async () => {
  using home = await makeHome();
  const tables = Array.from({ length: 1_100 }, (_, index) => `t${index}`);
  home.sql(`BEGIN; ${tables.map((table) => `CREATE TABLE ${table} (x);`).join("")} COMMIT`);
  const rows = Array(60).fill("(1)").join();
  home.sql(`BEGIN; ${tables.map((table) => `INSERT INTO ${table} VALUES ${rows};`).join("")} COMMIT`);
  assert.deepEqual((await home.backup()).suspicions, []);
  home.sql(`BEGIN; ${tables.map((table) => `DELETE FROM ${table};`).join("")} COMMIT`);
  const report = await home.backup();
  assert.equal(report.suspicions.length, tables.length);
  const { store, hub } = home.config();
  const last = readSet(home.host.fs, setIn(store, hub, MAIN_SET)).filter(isSealed).at(-1)!;
  assert.deepEqual([last.id, last.sealed.seal.suspicions], [report.id, [{
    code: "rows-lost",
    source: "hapi.db",
  }]]);
  assert.match(
    suspectError([report])!.message,
    /: hapi\.db: t0 has 0 rows [^;]*(; [^;]*){2}; and 1,097 more$/,
  );
});

Deno.test("the command line stores what is suspect, exits 3, and says what to do about it", async () => {
  using home = await makeHubHome();
  home.sql("DELETE FROM messages WHERE rowid > 20");
  const shrunk = await home.cli(["backup"]);
  assert.equal(shrunk.code, 3, shrunk.stderr);
  assert.match(shrunk.stdout, /SUSPECT hapi\.db: messages has \d+ rows where the last good snapshot had 600/);
  assert.ok(shrunk.stderr.includes(gateHint([{ code: "rows-lost" }], "state")), shrunk.stderr);

  Deno.truncateSync(home.database, 4096 * 5);
  const cut = await home.cli(["backup", "--accept"]);
  assert.equal(cut.code, 3, cut.stderr);
  assert.match(cut.stderr, /Cannot count this snapshot as good: .*the file was cut: it has 20480 bytes/);
  assert.ok(cut.stderr.includes(gateHint([{ code: "integrity" }], "state")), cut.stderr);
});

Deno.test("a file whose name would drive a terminal is told without that", () => {
  const source = "notes" as SourceName;
  const reason = `Cannot read "/n/a": Permission denied (os error 13): open '/n/\x1b[31mred\nok\u202e'`;
  const [told] = suspicionsOfUnreadable([{ source, path: "/n/a", reason }]);
  assert.equal(told!.detail, `Cannot read "/n/a": Permission denied (os error 13): open '/n/ [31mred ok'`);
});

Deno.test("a place is known for one that could not be read by what the suspicion names: it, or a folder above", () => {
  const source = "notes" as SourceName;
  const named = (place: string, ...paths: string[]) => {
    const holes = paths.map((path) => ({ source, path, reason: `Cannot read ${JSON.stringify(path)}: x` }));
    return isNamedUnreadable(place as Place, suspicionsOfUnreadable(holes)[0]!.detail);
  };
  for (const place of ["home/n/a", "home/n/a/b/c", "root/op/n/a"]) {
    assert.equal(named(place, "/op/n/a"), true, place);
  }
  for (const place of ["home/n", "home/n/ab", "home/b", "root/n/a"]) {
    assert.equal(named(place, "/op/n/a"), false, place);
  }
  assert.equal(named("home/n/x\x1b", "/op/n/x\x1b"), true);
  const paths = ["a", "b", "c"].map((name) => `/op/${name}`);
  assert.deepEqual(["a", "c", "x"].map((name) => named(`home/${name}`, ...paths)), [true, true, false]);
  // Of more than it names, any may be meant.
  const more = [...paths, "/op/d"];
  assert.deepEqual(["a", "c", "d", "x"].map((name) => named(`home/${name}`, ...more)), [
    true,
    true,
    undefined,
    undefined,
  ]);
  assert.equal(named("home/x", `/op/${"y".repeat(2000)}`), undefined, "it was cut");
  const thousands = Array.from({ length: 1503 }, (_, index) => `/op/${index}`);
  assert.equal(named("home/x", ...thousands), undefined);
});

Deno.test("a pipe whose name would be lines of its own in a log is told on one", async () => {
  using home = await makeHubHome();
  home.write(".hapi/scratchlist-attachments/a", "a");
  await output("mkfifo", [`${home.home}/.hapi/scratchlist-attachments/p\nerror: all is lost\x1b[31m`]);
  await home.backup();
  const told = home.told.filter((text) => text.includes("all is lost"));
  assert.equal(told.length, 1);
  assert.match(
    told[0]!,
    /^! \S.*\/p error: all is lost \[31m is a socket, pipe or device and was not saved$/,
  );
});

Deno.test("a database that need not be there and cannot be copied costs no other one", async () => {
  using home = await makeHubHome();
  const other = `${home.home}/other.db`;
  const database = { kind: "sqlite", path: "~/.hapi/hapi.db" };
  const files = { kind: "folder", path: "~/.hapi" };
  home.configure({
    sets: { state: { sources: [{ ...database, path: other, required: false }, database, files] } },
  });
  fillDatabase(other, 10);
  await home.backup();
  const bad: readonly [RegExp, () => void][] = [
    [
      /it does not start like an SQLite database; it may be encrypted/,
      () => home.write(other, "hello".repeat(99)),
    ],
    [/it is not a file; point the source at the database itself/, () => Deno.mkdirSync(other)],
    [/Too many levels of symbolic links/, () => Deno.symlinkSync(other, other)],
  ];
  for (const [reason, make] of bad) {
    Deno.removeSync(other, { recursive: true });
    make();
    home.sql("DELETE FROM messages WHERE rowid = (SELECT min(rowid) FROM messages)");
    const { id, rows, suspicions } = await home.backup();
    assert.deepEqual(Object.keys(rows), ["hapi.db"]);
    assert.deepEqual(suspicions.map(({ code, source }) => [code, source]), [["unreadable", "other.db"]]);
    assert.match(suspicions[0]!.detail, reason);
    const { manifest } = readMemory(home.host, setFolder(home.stateFolder, MAIN_SET))!;
    assert.deepEqual([manifest.id, manifest.removed], [id, []], "what cannot be read is not gone");
    assert.equal(manifest.sources.find(({ name }) => name === "other.db")?.outcome, "unreadable");
    assert.notEqual(latestGood(home), id);
  }
  // In its single steps, too.
  const staged = await home.cli(["snapshot"]);
  assert.equal(staged.code, 3, staged.stderr);
  assert.match(staged.stderr, /^error: Cannot back up database .*other\.db: Too many levels/m);
  const sealed = await home.cli(["encrypt"]);
  assert.equal(sealed.code, 3, sealed.stderr);
  Deno.removeSync(other);
  fillDatabase(other, 10);
  const ran = await home.cli(["backup", "--no-ship", "--json"]);
  assert.equal(ran.code, 0, ran.stderr);
  const [mended] = JSON.parse(ran.stdout).snapshots;
  assert.equal(mended.rows["other.db"]?.messages, 10);
  assert.equal(latestGood(home), mended.id);
});

Deno.test("a required file that is not there costs no database, and what is restored of that snapshot says so", async () => {
  using home = await makeHubHome();
  home.write(".hapi/hub.env", "KEY=1");
  const database = { kind: "sqlite", path: "~/.hapi/hapi.db" };
  home.configure({
    sets: { state: { sources: [database, { kind: "file", path: "~/.hapi/hub.env", required: true }] } },
  });
  // Young enough for what the command line takes to build on.
  home.now = new Date(Date.now() - 36 * 3_600_000);
  const { id: good } = await home.backup();
  await home.backup();
  Deno.removeSync(`${home.home}/.hapi/hub.env`);
  const suspect = await home.cli(["backup", "--no-ship"]);
  assert.equal(suspect.code, 3, suspect.stderr);
  const why =
    /Cannot save source hub\.env: there is nothing at ".*hub\.env"; correct its "path", or set "required" to f/;
  assert.match(suspect.stdout, why);
  assert.ok(suspect.stderr.includes(gateHint([{ code: "unreadable" }], "state")), suspect.stderr);
  const { manifest } = readMemory(home.host, setFolder(home.stateFolder, MAIN_SET))!;
  assert.deepEqual(manifest.removed, ["home/.hapi/hub.env"]);
  const status = await home.cli(["status"]);
  assert.match(status.stdout, /SUSPECT: \S+ is newer, and does not count as good: hub\.env unreadable$/m);
  const args = ["--identity", home.identityFile];
  const compared = await home.cli(["compare", good, manifest.id, "--json", ...args]);
  assert.deepEqual(JSON.parse(compared.stdout).files.removed, ["home/.hapi/hub.env"]);
  const latest = await home.cli(["restore", "--to", `${home.dir}/latest`, ...args]);
  assert.match(
    latest.stderr,
    new RegExp(
      `${manifest.id}, is suspect \\(hub\\.env unreadable\\); \\S+ is the newest good one; but for what could not be ` +
        `read \\S+ is good, too: --snapshot ${manifest.id} takes it\n`,
    ),
  );
  const restored = await home.cli(["restore", "--to", `${home.dir}/out`, "--snapshot", manifest.id, ...args]);
  assert.equal(restored.code, 0, restored.stderr);
  assert.match(
    restored.stderr,
    /^warning: \d{8}T\d{6}Z is without what could not be read of hub\.env: Cannot save s/m,
  );
  assert.ok(Deno.statSync(`${home.dir}/out/home/.hapi/hapi.db`).isFile);
  home.write(".hapi/hub.env", "KEY=2");
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
});

Deno.test("a file that cannot be saved costs neither the database nor the other files", async () => {
  using home = await makeHubHome();
  home.write(".hapi/hub.env", "KEY=1");
  home.write(".hapi/scratchlist-attachments/old", "old");
  await home.backup();
  const good = latestGood(home);
  home.sql("DELETE FROM messages WHERE rowid = 1");
  home.write(".hapi/scratchlist-attachments/new", "new");
  const made = await new Deno.Command("bash", {
    args: ["-c", `cd .hapi && touch scratchlist-attachments/$'bad\\xff' && rm hub.env && mkfifo hub.env`],
    cwd: home.home,
  }).output();
  assert.ok(made.success);
  const suspect = await home.cli(["backup"]);
  assert.equal(suspect.code, 3, suspect.stderr);
  assert.match(
    suspect.stdout,
    /SUSPECT scratchlist-attachments: Cannot save .*bad\uFFFD": its name is not UTF-8/,
  );
  assert.match(
    suspect.stdout,
    /SUSPECT hub\.env: Cannot save ".*hub\.env" as a file: it is a socket, pipe or device/,
  );
  assert.ok(suspect.stderr.includes(gateHint([{ code: "unreadable" }], "state")), suspect.stderr);
  assert.equal(latestGood(home), good);

  const { manifest } = readMemory(home.host, setFolder(home.stateFolder, MAIN_SET))!;
  assert.deepEqual(manifest.removed, [], "what cannot be read is not gone");
  const outcomes = Object.fromEntries(manifest.sources.map(({ name, outcome }) => [name, outcome]));
  const { "hub.env": secret, "hapi.db": database, "scratchlist-attachments": attachments } = outcomes;
  assert.deepEqual([secret, database, attachments], ["unreadable", "saved", "unreadable"]);
  const root = `${home.dir}/restored`;
  await restore(await home.opening(), manifest.id, root);
  using db = new DatabaseSync(`${root}/home/.hapi/hapi.db`, { readOnly: true });
  assert.equal(db.prepare("SELECT count(*) AS rows FROM messages").get()!.rows, 599);
  for (const name of ["old", "new"]) {
    assert.equal(Deno.readTextFileSync(`${root}/home/.hapi/scratchlist-attachments/${name}`), name);
  }

  await new Deno.Command("bash", { args: ["-c", "rm .hapi/*/bad* .hapi/hub.env"], cwd: home.home }).output();
  const next = await home.cli(["backup"]);
  assert.equal(next.code, 4, `not off this machine, but good: ${next.stderr}`);
  assert.notEqual(latestGood(home), good);
});

Deno.test("a big file that cannot be read to its end stands in no tar, and costs nothing else", async () => {
  using home = await makeHubHome();
  const folder = ".hapi/scratchlist-attachments";
  for (const name of ["big", "big2", "big3"]) {
    home.write(`${folder}/${name}`, randomBytes((9 << 20) + name.length));
  }
  home.write(`${folder}/before`, "before");
  home.write(`${folder}/small`, "small");
  const { fs } = home.host;
  let tries = 0;
  const open: typeof fs.open = (path, options) => {
    const file = fs.open(path, options);
    if (path.endsWith("/before")) tries++;
    if (!/\/big\d?$/.test(path)) return file;
    let reads = 0;
    const readAt: typeof file.readAt = (buffer, position) => {
      if (++reads > 3) throw new Error("Input/output error (os error 5)");
      return file.readAt(buffer, position);
    };
    return { ...file, readAt };
  };
  const report = await home.backup({ host: { ...home.host, fs: { ...fs, open } } });
  assert.match(
    detailOf(report, "unreadable", "torn"),
    /^(Cannot read ".*\/big\d?": Input\/output error \(os error 5\)(; |$)){3}$/,
  );
  assert.equal(tries, 2, "once one was torn, the others are found without beginning anew for each");
  const tar = await new Deno.Command("bash", {
    args: [
      "-c",
      'age -d -i "$0" "$1" | zstd -dq | tar t',
      home.identityFile,
      `${home.stored}/${report.id}/files.tar.zst.age`,
    ],
  }).output();
  assert.equal(new TextDecoder().decode(tar.stdout), `home/${folder}/before\nhome/${folder}/small\n`);
  await restore(await home.opening(), report.id as SnapshotId, `${home.dir}/restored`);
  assert.equal(Deno.readTextFileSync(`${home.dir}/restored/home/${folder}/small`), "small");
});

Deno.test("what could not be restored is not sealed: a manifest that contradicts itself, or is too large", async () => {
  using home = await makeHubHome();
  home.write(".hapi/scratchlist-attachments/a", "a");
  const before = [...Deno.readDirSync(home.stored)];
  const { fs } = home.host;
  const stat: typeof fs.stat = (path) =>
    path.endsWith("-attachments") ? { ...fs.stat(path), mtimeMs: NaN } : fs.stat(path);
  await assert.rejects(
    home.backup({ host: { ...home.host, fs: { ...fs, stat } } }),
    { kind: "internal", message: /could not be read again: home\/\.hapi\/.*-attachments\.mtimeMs: / },
  );
  // Links of the longest kind: each takes some 4 kB.
  const names = Array.from({ length: 66_000 }, (_, at) => ({ name: `l${at}`, type: "link" as const }));
  const many = /-attachments\/l\d+$/;
  const links: typeof fs = {
    ...fs,
    readDir: (path) => path.endsWith("-attachments") ? names : fs.readDir(path),
    lstat: (path) => many.test(path) ? { ...fs.lstat("/"), type: "link" } : fs.lstat(path),
    readLink: (path) => many.test(path) ? "x".repeat(4095) : fs.readLink(path),
  };
  await assert.rejects(
    home.backup({ host: { ...home.host, fs: links } }),
    {
      kind: "source",
      message:
        /^Cannot save set state: the list of its 66,\d+ files takes more than 268 MB or 16,000,000 values$/,
    },
  );
  // More than a seal may name.
  const recipients = await Promise.all(
    Array.from({ length: 101 }, async () => (await generateIdentity()).recipient),
  );
  const config = { ...home.config(), recipients };
  const options = { set: MAIN_SET, full: false, accept: false };
  home.now = new Date(home.now.getTime() + 3_600_000);
  const staged = await snapshot(home.host, config, options);
  const checks = check(home.host, config, staged);
  await assert.rejects(
    encrypt(home.host, config, options, Promise.resolve(checks)),
    { kind: "internal", message: /its seal could not be read again: .*recipients/ },
  );
  assert.deepEqual([...Deno.readDirSync(home.stored)], before);
  const anew = { ...options, full: true };
  await snapshot(home.host, home.config(), anew);
  const unchecked = await encrypt(home.host, home.config(), anew, Promise.resolve({}));
  assert.equal(detailOf(unchecked, "integrity", "unchecked"), "integrity_check: was not checked");
});

Deno.test("compare: what could not be read is neither removed nor added, as far as is known", async () => {
  using home = await makeHubHome();
  const folder = ".hapi/scratchlist-attachments";
  for (const name of ["a", "b", 'c "quoted"', "d", "gone"]) home.write(`${folder}/${name}`, name);
  const first = await home.backup();
  Deno.removeSync(`${home.home}/${folder}/gone`);
  const { fs } = home.host;
  const open: typeof fs.open = (path, options) => {
    if (/-attachments\/[a-d]/.test(path)) throw new Error("Input/output error (os error 5)");
    return fs.open(path, options);
  };
  const host = { ...home.host, fs: { ...fs, open } };
  const without = async (name: string) => {
    // Of a file that is known nothing is read.
    for (const each of ["a", "b", 'c "quoted"', "d"]) home.write(`${folder}/${each}`, `${name} ${each}`);
    return await home.backup({ host });
  };
  const second = await without("second");
  const third = await without("third");
  const last = await home.backup();

  const places = (...names: string[]) => names.map((name) => `home/${folder}/${name}`);
  const compared = async (from: { id: string }, to: { id: string }, ...more: string[]) =>
    (await home.cli(["compare", from.id, to.id, "--identity", home.identityFile, ...more])).stdout;
  const filesOf = async (from: { id: string }, to: { id: string }) => {
    const { files } = JSON.parse(await compared(from, to, "--json"));
    const [sure, unsure] = [true, false].map((wanted) =>
      files.unread.filter(({ isSure }: { isSure: boolean }) => isSure === wanted)
        .map(({ place }: { place: string }) => place)
    );
    return { added: files.added, removed: files.removed, sure, unsure };
  };
  // The snapshot after another one says itself what was gone since.
  const all = places("a", "b", 'c "quoted"', "d");
  const neighbours = { added: [], removed: places("gone"), sure: all, unsure: [] };
  assert.deepEqual(await filesOf(first, second), neighbours);
  const far = { added: [], removed: [], sure: all.slice(0, 3), unsure: places("d", "gone") };
  assert.deepEqual(await filesOf(first, third), far);
  assert.deepEqual(await filesOf(third, first), far);
  assert.deepEqual(await filesOf(third, last), { ...far, unsure: places("d") });

  const text = await compared(first, third);
  assert.match(
    text,
    new RegExp(`  \\? file .*/a: not read for ${third.id}, and perhaps there all the same\n`),
  );
  assert.match(
    text,
    new RegExp(`  \\? file .*/gone: not read for ${third.id}, or not there: more could not be`),
  );
  assert.match(
    text,
    new RegExp(
      `\n${third.id} is without what could not be read of scratchlist-.*/a": Input.*; and 1 more$`,
      "m",
    ),
  );
  assert.doesNotMatch(text, /[+-] file/);
});
