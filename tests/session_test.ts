/** One session back: into the real hub, and into databases that differ from the snapshot in every way. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import type { SnapshotId } from "../scripts/core/names.ts";
import type { Differing } from "../scripts/core/sessions/session_rows.ts";
import { shellQuote } from "../scripts/core/shell.ts";
import { SESSION_VERBS } from "../scripts/host/command_line/session_verbs.ts";
import { makeTerminal } from "../scripts/host/command_line/terminal.ts";
import { readSchema } from "../scripts/host/sessions/schema.ts";
import { type SessionRows, sessionRows } from "../scripts/host/sessions/session_rows.ts";
import { makeHost } from "../scripts/host/steps/step.ts";
import { look } from "../scripts/look.ts";
import { exportSession, restoreSession } from "../scripts/session.ts";
import { makeHome } from "./real/home.ts";
import { startHub } from "./real/hub.ts";

type Row = Record<string, unknown>;

/** Reads a database that nobody has open, and leaves nothing beside it. */
function query(path: string, sql: string, ...params: string[]): Row[] {
  using db = new DatabaseSync(path);
  return db.prepare(sql).all(...params).map((row) => ({ ...row }));
}

Deno.test("a session deleted in the real hub comes back whole, and taking it back out is one command", async () => {
  using home = await makeHome();
  Deno.removeSync(home.database);
  const hapi = `${home.home}/.hapi`;
  const identity = ["--identity", home.identityFile];
  const long = "a long message, which the hub stores compressed: é 漢字 🙂 ".repeat(40);
  let hub = await startHub({ home: hapi });
  const lost = await hub.createSession("lost");
  const other = await hub.createSession("other");
  await hub.sendMessages(lost, Array.from({ length: 250 }, (_, n) => `${n} ${n % 3 === 0 ? long : "short"}`));
  await hub.sendMessages(other, ["of the other"]);
  const messages = await hub.messages(lost);
  await hub.stop();
  // What the hub writes only after an agent has run.
  const event = (id: string, session: string) =>
    `INSERT INTO events (id, ts, source_kind, source_ref, event_type, related_session_id, namespace, principal_json)
     VALUES ('${id}', 1, 'session', '${session}', 'work_ad', '${session}', 'default', '{}');`;
  home.sql(`${event("e1", lost)} ${event("e2", other)}
    INSERT INTO event_links VALUES ('l1', 'e1', 'e2', 'follows', 1, NULL, 'default');
    INSERT INTO session_scratchlist VALUES ('${lost}', 'n1', 'a note', 1, 1, NULL);
    INSERT INTO message_epochs VALUES ('${lost}', 3);
    INSERT INTO usage_scan_state VALUES ('${lost}', 3, 250);`);
  home.write(`.hapi/scratchlist-attachments/default/${lost}/a.txt`, "attached");
  const rowsOfLost = () =>
    [
      "sessions WHERE id",
      ...["messages", "message_epochs", "session_scratchlist", "usage_scan_state"].map((table) =>
        `${table} WHERE session_id`
      ),
      "events WHERE related_session_id",
    ].flatMap((where) => query(home.database, `SELECT * FROM ${where} = ?`, lost))
      .concat(query(home.database, "SELECT * FROM event_links"));
  const before = rowsOfLost();
  assert.equal(before.length, 256);
  const { id: snapshot } = await home.backup();

  hub = await startHub({ home: hapi });
  await hub.deleteSession(lost);
  assert.deepEqual((await hub.sessions()).map(({ id }) => id), [other]);
  const command = ["session", "restore", lost.slice(0, 8), "--snapshot", snapshot, ...identity];
  const whileOpen = await home.cli(command);
  assert.equal(whileOpen.code, 3, whileOpen.stderr);
  assert.match(whileOpen.stderr, new RegExp(`it is open in hapi \\(${hub.pid}\\)`));
  assert.deepEqual(
    [...Deno.readDirSync(home.stored)].map(({ name }) => name),
    [snapshot],
    "none is taken in vain",
  );
  await hub.stop();
  // The hub deletes neither events nor their links with a session: here they are gone as well.
  home.sql("DELETE FROM event_links; DELETE FROM events WHERE id = 'e1'");

  const listed = JSON.parse(
    (await home.cli(["session", "list", "--snapshot", snapshot, "--json", ...identity])).stdout,
  );
  const titles = listed.sessions.map((each: Row) => [each.id, each.title, each.messages]);
  assert.deepEqual(titles.sort(), [[lost, "lost", 250], [other, "other", 1]].sort());

  const first = await home.cli([...command, "--json"]);
  assert.equal(first.code, 0, first.stderr);
  const { database, folders } = JSON.parse(first.stdout);
  assert.deepEqual(rowsOfLost(), before);
  assert.deepEqual(folders, [`home/.hapi/scratchlist-attachments/default/${lost}`]);
  const undone = await home.cli(
    ["restore", "--in-place", "--snapshot", database.before, "--only", database.place, ...identity],
  );
  assert.equal(undone.code, 0, undone.stderr);
  assert.equal(rowsOfLost().length, 0);

  const second = await home.cli(command);
  assert.equal(second.code, 0, second.stderr);
  assert.match(
    second.stdout,
    /messages: 250 added[^]*to undo it, with the hub stopped: hapi-backup restore --in-place/,
  );
  const pasted = `hapi-backup restore --in-place --identity ${shellQuote(home.identityFile)} --snapshot `;
  assert.equal(second.stdout.split(pasted).length, 3, second.stdout);
  // The hub deleted the session's files too: the command that is printed for them brings them back.
  const attachment = `${hapi}/scratchlist-attachments/default/${lost}/a.txt`;
  assert.throws(() => Deno.statSync(attachment), Deno.errors.NotFound);
  const [, pattern] = /its files, if they are gone too: .* --only '(.*)'/.exec(second.stdout)!;
  const files = await home.cli([
    "restore",
    "--in-place",
    "--snapshot",
    snapshot,
    "--only",
    pattern!,
    ...identity,
  ]);
  assert.equal(files.code, 0, files.stderr);
  assert.equal(Deno.readTextFileSync(attachment), "attached");

  await using again = await startHub({ home: hapi });
  assert.deepEqual((await again.sessions()).map(({ id }) => id).sort(), [lost, other].sort());
  assert.deepEqual(await again.messages(lost), messages);
  assert.deepEqual((await again.messages(other)).map(({ content }) => content), ["of the other"]);
});

const SCHEMA = `
  CREATE TABLE machines (id TEXT PRIMARY KEY, state);
  CREATE TABLE sessions (id TEXT PRIMARY KEY, metadata TEXT, machine TEXT REFERENCES machines);
  CREATE TABLE messages (id TEXT PRIMARY KEY, session_id TEXT NOT NULL, content, local_id TEXT,
    size GENERATED ALWAYS AS (length(content)), UNIQUE (session_id, local_id),
    FOREIGN KEY (session_id) REFERENCES Sessions (ID) ON DELETE CASCADE);
  CREATE TABLE marks (message TEXT, n INTEGER, note TEXT, PRIMARY KEY (message, n),
    FOREIGN KEY (message) REFERENCES messages (id) ON DELETE CASCADE) WITHOUT ROWID;
  CREATE TABLE mark_notes (id INTEGER PRIMARY KEY, message TEXT, n INTEGER,
    FOREIGN KEY (message, n) REFERENCES marks (message, n));
  CREATE TABLE unrelated (x);
  PRAGMA user_version = 7;`;

const CONTENT = `
  INSERT INTO machines VALUES ('m1', 'then'), ('m2', 'then');
  INSERT INTO sessions VALUES ('s1', 'one', 'm1'), ('s2', 'two', 'm2');
  INSERT INTO messages VALUES ('z', 's1', 'first', NULL), ('b', 's1', '', 'l1'), ('c', 's1', x'00ff', NULL),
    ('d', 's1', CAST(x'ff410042' AS TEXT), NULL), ('e', 's1', 9223372036854775807, NULL), ('f', 's1', 2.0, NULL),
    ('g', 's1', 9e999, NULL), ('h', 's1', NULL, NULL), ('y', 's1', x'', NULL), ('o', 's2', 'other', NULL);
  INSERT INTO marks VALUES ('b', 1, 'x'), ('o', 1, 'other'), ('b', 2, NULL);
  INSERT INTO mark_notes VALUES (5, 'b', 1), (6, 'o', 1);`;

/** Two databases of one origin: the snapshot's, and the live one. */
interface Pair extends Disposable {
  readonly dir: string;
  readonly live: string;
  readonly rows: SessionRows;
  readonly snapshots: () => number;
  change(sql: string): void;
  /** Everything in the live database, by type and bytes. */
  all(): Row[];
  restore(differing?: Differing): ReturnType<typeof restoreSession>;
}

const HOST = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });

function makePair(session = "s1"): Pair {
  const dir = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "it's a pair-" }));
  const [image, live] = ["image.db", "live.db"].map((name) => `${dir}/${name}`) as [string, string];
  {
    using db = new DatabaseSync(image);
    db.exec(`PRAGMA synchronous = OFF; ${SCHEMA} ${CONTENT}`);
  }
  Deno.copyFileSync(image, live);
  const db = new DatabaseSync(image, { readOnly: true });
  let snapshots = 0;
  const pair: Pair = {
    dir,
    live,
    rows: sessionRows(db, readSchema(db), session),
    snapshots: () => snapshots,
    change(sql) {
      using db = new DatabaseSync(live);
      db.exec(`PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; ${sql}`);
    },
    all: () =>
      ["machines", "sessions", "messages", "marks", "mark_notes"].flatMap((table) => {
        const columns = query(live, `SELECT name FROM pragma_table_info('${table}')`).map(({ name }) =>
          `"${name}"`
        );
        const cells = columns.map((name) =>
          `typeof(${name}) || ' ' || quote(CAST(${name} AS BLOB)) AS ${name}`
        );
        return query(live, `SELECT '${table}' AS "in", ${cells} FROM "${table}" ORDER BY ${columns}`);
      }),
    restore: (differing = "refuse") =>
      restoreSession(HOST, pair.rows, live, differing, () => {
        snapshots++;
        return Promise.resolve("20261122T060000Z" as SnapshotId);
      }),
    [Symbol.dispose]() {
      db.close();
      Deno.removeSync(dir, { recursive: true });
    },
  };
  return pair;
}

const FORGET = `DELETE FROM mark_notes WHERE message = 'b'; DELETE FROM marks WHERE message = 'b';
  DELETE FROM messages WHERE session_id = 's1'; DELETE FROM sessions WHERE id = 's1';`;

Deno.test("rows of every type come back byte for byte, with rows of rows, what they need, and in their order", async () => {
  using pair = makePair();
  const before = pair.all();
  pair.change(`${FORGET} DELETE FROM machines WHERE id = 'm1'; UPDATE machines SET state = 'now'`);
  const { changes, before: undo } = await pair.restore();
  assert.equal(undo, "20261122T060000Z");
  assert.deepEqual(changes.parts.map(({ table, added }) => `${table} ${added}`), [
    "sessions 1",
    "messages 9",
    "marks 2",
    "mark_notes 1",
  ]);
  assert.deepEqual(changes.needed.map(({ table, added }) => `${table} ${added}`), ["machines 1"]);
  pair.change("UPDATE machines SET state = 'then' WHERE id = 'm2'");
  assert.deepEqual(pair.all(), before);
  assert.deepEqual(
    query(pair.live, "SELECT id FROM messages WHERE session_id = 's1' ORDER BY rowid").map(({ id }) => id)
      .join(""),
    "zbcdefghy",
  );
});

Deno.test("what is there already is kept; a machine that went on is no reason to refuse, nor to change it", async () => {
  using pair = makePair();
  pair.change("DELETE FROM messages WHERE id IN ('c', 'd'); UPDATE machines SET state = 'now'");
  const { changes } = await pair.restore();
  assert.deepEqual(changes.parts.map(({ table, added, unchanged }) => [table, added, unchanged]), [
    ["sessions", 0, 1],
    ["messages", 2, 7],
    ["marks", 0, 2],
    ["mark_notes", 0, 1],
  ]);
  assert.deepEqual(query(pair.live, "SELECT DISTINCT state FROM machines"), [{ state: "now" }]);
  const nothing = await pair.restore();
  assert.equal(nothing.before, undefined);
  assert.equal(pair.snapshots(), 1, "nothing to do needs no snapshot");
});

Deno.test("rows that differ stop it; --keep adds what is missing, --replace takes the snapshot's, neither removes", async () => {
  using pair = makePair();
  pair.change(`UPDATE sessions SET metadata = 'went on' WHERE id = 's1';
    UPDATE messages SET content = 'edited' WHERE id = 'b'; DELETE FROM messages WHERE id = 'c';
    INSERT INTO messages VALUES ('new', 's1', 'since then', NULL)`);
  const before = pair.all();
  await assert.rejects(
    pair.restore(),
    ({ kind, message, hint }: Error & { kind: string; hint: string }) =>
      kind === "usage" && /1 of sessions \(s1\); 1 of messages \(b\)/.test(message) &&
      /--keep .*--replace/.test(hint),
  );
  assert.deepEqual([pair.all(), pair.snapshots()], [before, 0]);

  const content = () =>
    Object.fromEntries(
      query(pair.live, "SELECT id, content FROM messages WHERE id IN ('b', 'c', 'new')").map((row) => [
        row.id,
        row.content instanceof Uint8Array ? row.content.length : row.content,
      ]),
    );
  await pair.restore("keep");
  assert.deepEqual(content(), { b: "edited", c: 2, new: "since then" });
  assert.equal(query(pair.live, "SELECT metadata FROM sessions WHERE id = 's1'")[0]!.metadata, "went on");
  await pair.restore("replace");
  assert.deepEqual(content(), { b: "", c: 2, new: "since then" });
  assert.equal(query(pair.live, "SELECT metadata FROM sessions WHERE id = 's1'")[0]!.metadata, "one");
  assert.equal(
    query(pair.live, "SELECT count(*) AS n FROM marks")[0]!.n,
    3,
    "what refers to a replaced row stays",
  );
});

Deno.test("a schema that differs is refused and told by table and column; what does not matter may differ", async () => {
  const cases: [string, RegExp][] = [
    ["PRAGMA user_version = 8", /user_version is 7 in the snapshot and 8 here/],
    ["ALTER TABLE messages ADD COLUMN extra TEXT", /messages\.extra is only here/],
    ["ALTER TABLE sessions DROP COLUMN metadata", /sessions\.metadata is only in the snapshot/],
    [
      "DROP TABLE machines; CREATE TABLE machines (id TEXT PRIMARY KEY, state INTEGER NOT NULL)",
      /machines\.state is of no type in the snapshot and INTEGER NOT NULL here/,
    ],
    [
      "DROP TABLE marks; CREATE TABLE marks (message TEXT, n INTEGER, note TEXT, PRIMARY KEY (n, message)) WITHOUT ROWID",
      /the primary key of marks is \(message,n\) in the snapshot and \(n,message\) here; marks \(message\) refers to messages \(id\) only in the snapshot; mark_notes/,
    ],
    ["DROP TABLE mark_notes", /table mark_notes is only in the snapshot/],
    [
      "CREATE TABLE later (id TEXT PRIMARY KEY, s TEXT REFERENCES sessions)",
      /table later is only here; later \(s\) refers to sessions \(id\) only here/,
    ],
  ];
  for (const [sql, expected] of cases) {
    using pair = makePair();
    pair.change(FORGET + sql);
    await assert.rejects(pair.restore(), { kind: "source", message: expected });
    assert.equal(pair.snapshots(), 0);
  }
  using pair = makePair();
  pair.change(`${FORGET} DROP TABLE unrelated; CREATE TABLE mine (y); CREATE INDEX i ON messages (content)`);
  await pair.restore();
});

Deno.test("whatever fails leaves the database as it was", async (t) => {
  const failing = async (name: string, sql: string, expected: { kind: string; message: RegExp }) => {
    await t.step(name, async () => {
      using pair = makePair();
      pair.change(FORGET + sql);
      const before = pair.all();
      await assert.rejects(pair.restore("replace"), expected);
      assert.deepEqual(pair.all(), before);
      assert.equal(pair.snapshots(), 0, "it is found out before a snapshot is taken");
    });
  };
  await failing(
    "another row holds what must be unique",
    "INSERT INTO messages VALUES ('thief', 's1', 'x', 'l1')",
    { kind: "source", message: /UNIQUE constraint failed: messages\.session_id, messages\.local_id/ },
  );
  await failing(
    "a trigger has its own ideas",
    "CREATE TRIGGER t AFTER INSERT ON messages BEGIN UPDATE messages SET content = 'mine' WHERE id = 'z'; END",
    { kind: "integrity", message: /does not read back the same/ },
  );
  await t.step("the snapshot cannot be taken", async () => {
    using pair = makePair();
    pair.change(FORGET);
    const before = pair.all();
    const fail = () => Promise.reject(new Error("the store is full"));
    await assert.rejects(
      restoreSession(HOST, pair.rows, pair.live, "refuse", fail),
      /the store is full/,
    );
    assert.deepEqual(pair.all(), before);
  });
  await t.step("a process opens the database while the snapshot is taken", async () => {
    using pair = makePair();
    pair.change(FORGET);
    const before = pair.all();
    let child: Deno.ChildProcess | undefined;
    const takeSnapshot = async () => {
      child = new Deno.Command("sqlite3", { args: [pair.live], stdin: "piped", stdout: "piped" }).spawn();
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode("SELECT count(*) FROM sessions;\n"));
      writer.releaseLock();
      const reader = child.stdout.getReader();
      await reader.read();
      reader.releaseLock();
      return "20261122T060000Z" as SnapshotId;
    };
    await assert.rejects(restoreSession(HOST, pair.rows, pair.live, "refuse", takeSnapshot), {
      kind: "source",
      message: /it is open in sqlite3/,
    });
    await child!.stdin.close();
    await child!.output();
    assert.deepEqual(pair.all(), before);
  });
  await t.step("there is no database", async () => {
    using pair = makePair();
    Deno.removeSync(pair.live);
    await assert.rejects(pair.restore(), { kind: "source", message: /there is no such file/ });
    assert.throws(() => Deno.statSync(pair.live), Deno.errors.NotFound);
  });
});

Deno.test("an export holds every row, loses nothing, and is whole or not there", async () => {
  using home = await makeHome();
  const zstd = "28b52ffd0401710000" + "68656c6c6f2c20776f726c6421";
  home.sql(`UPDATE sessions SET data = 'é' WHERE id = 'a'; DELETE FROM messages WHERE id > 3;
    UPDATE messages SET body = x'${zstd}' WHERE id = 1; UPDATE messages SET body = CAST(x'ff00' AS TEXT) WHERE id = 2;
    UPDATE messages SET body = 9223372036854775807 WHERE id = 3`);
  await home.backup();
  const file = `${home.dir}/a.json`;
  const args = ["session", "restore", "a", "--identity", home.identityFile, "--export"];
  const done = await home.cli([...args, file, "--json"]);
  assert.equal(done.code, 0, done.stderr);
  assert.deepEqual(JSON.parse(done.stdout).rows, { sessions: 1, messages: 3 });
  const exported = Deno.readTextFileSync(file);
  assert.equal(Deno.statSync(file).mode! & 0o777, 0o600);
  const base64 = (hex: string) =>
    btoa(String.fromCharCode(...hex.match(/../g)!.map((byte) => parseInt(byte, 16))));
  const { tables, ...header } = JSON.parse(exported);
  assert.deepEqual([header.format, header.version, header.session], ["hapi-backup session", 1, "a"]);
  assert.deepEqual(tables, {
    sessions: [{ id: "a", data: "é" }],
    messages: [
      { id: 1, session: "a", body: { base64: base64(zstd), text: "hello, world!" } },
      { id: 2, session: "a", body: { base64: base64("ff00") } },
      { id: 3, session: "a", body: { integer: "9223372036854775807" } },
    ],
  });
  const toStdout = await home.cli([...args, "-"]);
  assert.equal(toStdout.stdout, exported);

  const again = await home.cli([...args, file]);
  assert.equal(again.code, 2, again.stderr);
  assert.equal(Deno.readTextFileSync(file), exported);
  using pair = makePair();
  const fs = {
    ...home.host.fs,
    rename: () => {
      throw new Error("injected");
    },
  };
  const of = { manifest: { hub: "h", set: "s", id: "i" }, saved: { place: "p", userVersion: 7 } };
  assert.throws(
    () => exportSession(fs, pair.rows, of as never, "s1", { file: `${pair.dir}/out.json` }),
    /Cannot export to .*injected/,
  );
  assert.deepEqual([...Deno.readDirSync(pair.dir)].filter(({ name }) => name.startsWith("out.json")), []);
});

Deno.test("the name of an export is made durable in its folder once the step has written it", async () => {
  using home = await makeHome();
  await home.backup();
  const file = `${home.dir}/a.json`;
  const synced: string[] = [];
  const fs = {
    ...home.host.fs,
    syncFolder(path: string) {
      assert.equal(home.host.fs.lstat(file).type, "file");
      synced.push(path);
      home.host.fs.syncFolder(path);
    },
  };
  await SESSION_VERBS.session!({
    options: {
      action: "restore",
      id: "a",
      snapshot: "latest",
      set: "state",
      identity: home.identityFile,
      export: file,
    },
    host: { ...home.host, fs },
    terminal: makeTerminal({ quiet: true, verbose: false, json: false, journal: false }),
    around: { home: home.home, hostname: "h", env: {} },
    configFile: home.configFile,
  } as never);
  assert.deepEqual(synced, [home.dir]);
});

Deno.test("a database rebuilt for looking is its owner's only, and gone after an interruption", async () => {
  using home = await makeHome();
  await home.backup();
  home.sql("UPDATE sessions SET data = 'changed'");
  const { id } = await home.backup();
  const scratch = `${home.stateFolder}/scratch`;
  const files = () => [...Deno.readDirSync(scratch)].map(({ name }) => name);
  const modes: string[] = [];
  const checkpoint = () => {
    if (files().length === 0) return;
    const folder = `${scratch}/${files()[0]}`;
    const images = [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".db"));
    if (images.length === 0) return;
    for (const path of [folder, `${folder}/${images[0]!.name}`]) {
      modes.push((Deno.statSync(path).mode! & 0o777).toString(8));
    }
    throw Object.assign(new Error("interrupted"), { kind: "cancelled" });
  };
  Deno.mkdirSync(scratch);
  const opening = await home.opening({ host: { ...home.host, checkpoint } });
  await assert.rejects(look(opening, id, scratch), /interrupted/);
  assert.deepEqual([modes, files()], [["700", "600"], []]);
  const unknown = await home.cli(["session", "restore", "nobody", "--identity", home.identityFile]);
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, new RegExp(`snapshot ${id}, \\d[^,]* UTC, has none whose id starts so`));
  const none = await home.cli(["session", "restore", "--identity", home.identityFile]);
  assert.equal(none.code, 2);
  assert.match(
    none.stderr,
    /Cannot restore a session: say which, by its id or the start of it\nhint: .*session list/,
  );
  assert.deepEqual(files(), []);
});
