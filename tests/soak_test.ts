/** The soak: that it sees what is wrong, and that a short one finds nothing. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { zstdCompressSync } from "node:zlib";
import { type Interval, Oracle } from "./soak/oracle.ts";
import { soak } from "./soak/soak.ts";

/** A hub's database with these sessions and messages, for as long as `use` runs. */
function withDatabase<Result>(
  rows: { sessions: string[]; messages: [tag: string, seq: number, content: unknown][] },
  use: (path: string) => Result,
): Result {
  const path = Deno.makeTempFileSync();
  try {
    const database = new DatabaseSync(path);
    database.exec("CREATE TABLE sessions (id, tag); CREATE TABLE messages (session_id, seq, content)");
    for (const tag of rows.sessions) {
      database.prepare("INSERT INTO sessions VALUES (?, ?)").run(`id-${tag}`, tag);
    }
    for (const [tag, seq, content] of rows.messages) {
      const text = JSON.stringify({ role: "agent", content });
      const stored = seq % 2 === 0 ? zstdCompressSync(text) : text;
      database.prepare("INSERT INTO messages VALUES (?, ?, ?)").run(`id-${tag}`, seq, stored);
    }
    database.close();
    return use(path);
  } finally {
    Deno.removeSync(path);
  }
}

type Rows = Parameters<typeof withDatabase>[0];
type Row = Rows["messages"][number];

/** What the oracle says of such a database as a snapshot taken between two moments. */
const judge = (oracle: Oracle, interval: Interval, rows: Rows): string[] =>
  withDatabase(rows, (path) => oracle.judgeDatabase(path, interval));

Deno.test("the soak tells what a snapshot lacks, and what it holds that it cannot hold", () => {
  const oracle = new Oracle();
  const [old, gone, late] = ["old", "gone", "late"].map((tag) => oracle.askSession(tag));
  old!.acknowledge();
  gone!.acknowledge();
  oracle.askMessages(old!.session, ["one", "two"])();
  oracle.askRemoval(gone!.session)();
  const began = oracle.moment();
  const third = oracle.askMessages(old!.session, ["three"]);
  const interval = { began, ended: oracle.moment() };
  third();
  oracle.askMessages(old!.session, ["four"]);
  late!.acknowledge();
  oracle.askSession("later");

  const [one, two]: Row[] = [["old", 1, "one"], ["old", 2, "two"]];
  const good: Rows = { sessions: ["old"], messages: [one!, two!] };
  assert.deepEqual(judge(oracle, interval, good), []);
  const more: Rows = { sessions: ["old", "late"], messages: [one!, two!, ["old", 3, "three"]] };
  assert.deepEqual(judge(oracle, interval, more), [], "what was asked for in time may be there");

  const wrong: [Partial<Rows>, RegExp][] = [
    [{ sessions: [], messages: [] }, /^session old is missing, and was there then$/],
    [{ messages: [one!] }, /^1 messages are missing, and were there then$/],
    [{ sessions: ["old", "gone"] }, /^session gone is there, and was not then$/],
    [{ sessions: ["old", "later"] }, /^session later is there, and was not then$/],
    [{ sessions: ["old", "ghost"] }, /^session ghost is there, and was never asked for$/],
    [{ messages: [one!, two!, ["old", 3, "ghost"]] }, /^message 3 of old is there, and was never sent$/],
    [{ messages: [one!, two!, ["old", 3, "four"]] }, /^message 3 of old is there, and was not then$/],
    [{ messages: [one!, two!, ["old", 3, "two"]] }, /^message 3 of old is there twice$/],
    [{ messages: [one!, two!, ["old", 4, "three"]] }, /^message 4 of old is number 3 there$/],
    [
      { sessions: ["old", "late"], messages: [one!, two!, ["late", 1, "three"]] },
      /^a message of old is in late$/,
    ],
  ];
  for (const [changes, expected] of wrong) {
    assert.match(judge(oracle, interval, { ...good, ...changes }).join(), expected);
  }
});

Deno.test("the soak knows what a restore in place brought back, and what it took away", () => {
  const oracle = new Oracle();
  const [kept, , back] = ["kept", "lost", "back"].map((tag) => {
    const { session, acknowledge } = oracle.askSession(tag);
    acknowledge();
    return session;
  });
  oracle.askMessages(kept!, ["one"])();
  oracle.askMessages(kept!, ["lost"])();
  oracle.askMessages(back!, ["back"])();
  oracle.askRemoval(back!)();
  const restored: Rows = { sessions: ["kept", "back"], messages: [["kept", 1, "one"], ["back", 1, "back"]] };
  withDatabase(restored, (path) => oracle.takeForAsked(path, new Map()));
  const later = { began: oracle.moment(), ended: oracle.moment() };
  assert.deepEqual(oracle.sessions.map(({ tag }) => tag), ["kept", "back"]);
  assert.deepEqual(judge(oracle, later, restored), []);
  const before: Rows = { sessions: ["kept", "lost"], messages: [["kept", 1, "one"], ["kept", 2, "lost"]] };
  assert.deepEqual(judge(oracle, later, before), [
    "session lost is there, and was not then",
    "session back is missing, and was there then",
    "message 2 of kept is there, and was not then",
  ]);
});

Deno.test("the soak tells a file that holds what it did not hold then", () => {
  const oracle = new Oracle();
  oracle.askFile("a", "one")();
  oracle.askFile("a", "two")();
  const began = oracle.moment();
  oracle.askFile("a", undefined)();
  const interval = { began, ended: oracle.moment() };
  oracle.askFile("a", "three")();
  const judged = (found: Record<string, string>) =>
    oracle.judgeFiles(new Map(Object.entries(found)), interval);
  assert.deepEqual(judged({ a: "two" }), []);
  assert.deepEqual(judged({}), []);
  for (const content of ["one", "three"]) {
    assert.match(judged({ a: content }).join(), /holds none of the 2 contents/);
  }
  assert.match(judged({ a: "two", b: "" }).join(), /^file b is there, and was never written$/);
});

Deno.test("a short soak finds nothing wrong", async () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const said: string[] = [];
  const { counts, violations } = await soak({ minutes: 0.15, seed, say: (line) => said.push(line) });
  console.log(`seed ${seed}: ${said.join("\n")}`);
  assert.deepEqual(violations, []);
  for (const what of ["backups", "messages", "scrubs"]) assert.ok(counts.get(what)! > 0, what);
  const restored = [...counts].filter(([what]) => what.startsWith("restored from "));
  assert.equal(restored.length, 3, "from every place that holds snapshots");
});
