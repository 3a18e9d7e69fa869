/** The soak: that it sees what is wrong, and that a short one finds nothing. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { zstdCompressSync } from "node:zlib";
import { Oracle } from "./soak/oracle.ts";
import { soak } from "./soak/soak.ts";

/** A hub's database with what `rows` says, judged as a snapshot taken between the two moments. */
function judge(
  oracle: Oracle,
  interval: { began: number; ended: number },
  rows: { sessions: string[]; messages: [tag: string, seq: number, content: unknown][] },
): string[] {
  const path = Deno.makeTempFileSync();
  try {
    const database = new DatabaseSync(path);
    database.exec("CREATE TABLE sessions (id, tag); CREATE TABLE messages (session_id, seq, content)");
    for (const tag of rows.sessions) {
      database.prepare("INSERT INTO sessions VALUES (?, ?)").run(`id-${tag}`, tag);
    }
    for (const [tag, seq, content] of rows.messages) {
      const text = JSON.stringify({ role: "agent", content });
      database.prepare("INSERT INTO messages VALUES (?, ?, ?)").run(
        `id-${tag}`,
        seq,
        seq % 2 === 0 ? zstdCompressSync(text) : text,
      );
    }
    database.close();
    return oracle.judgeDatabase(path, interval);
  } finally {
    Deno.removeSync(path);
  }
}

Deno.test("the soak tells what a snapshot lacks, and what it holds that it cannot hold", () => {
  const oracle = new Oracle();
  const [old, gone, late] = ["old", "gone", "late"].map((tag) => {
    const session = oracle.askSession(tag);
    if (tag !== "late") oracle.acknowledge(session);
    return session;
  });
  const [first, second] = oracle.askMessages(old!, ["one", "two"]);
  oracle.acknowledge(first!);
  oracle.acknowledge(second!);
  oracle.acknowledge(oracle.askRemoval(gone!));
  const began = oracle.moment();
  const [third] = oracle.askMessages(old!, ["three"]);
  const interval = { began, ended: oracle.moment() };
  oracle.acknowledge(third!);
  oracle.askMessages(old!, ["four"]);
  oracle.acknowledge(late!);
  oracle.askSession("later");

  const one = ["old", 1, "one"] as [string, number, unknown];
  const two = ["old", 2, "two"] as [string, number, unknown];
  const good = { sessions: ["old"], messages: [one, two] };
  assert.deepEqual(judge(oracle, interval, good), []);
  const more = { sessions: ["old", "late"], messages: [one, two, ["old", 3, "three"]] } as typeof good;
  assert.deepEqual(judge(oracle, interval, more), [], "what was asked for in time may be there");

  const wrong: [Partial<typeof good>, RegExp][] = [
    [{ sessions: [], messages: [] }, /^session old was acknowledged before, and is missing,2 messages were/],
    [{ messages: [one] }, /^1 messages were acknowledged before, and are missing$/],
    [{ sessions: ["old", "gone"] }, /^session gone is there, and was deleted before$/],
    [{ sessions: ["old", "later"] }, /^session later is there, and was asked for later$/],
    [{ sessions: ["old", "ghost"] }, /^session ghost is there, and was never asked for$/],
    [{ messages: [one, two, ["old", 3, "ghost"]] }, /^message 3 of old is there, and was never sent$/],
    [{ messages: [one, two, ["old", 3, "four"]] }, /^message 3 of old was sent later$/],
    [{ messages: [one, two, ["old", 3, "two"]] }, /^message 3 of old is there twice$/],
    [{ messages: [one, two, ["old", 4, "three"]] }, /^message 4 of old is the 3th there$/],
    [
      { sessions: ["old", "late"], messages: [one, two, ["late", 1, "three"]] },
      /^a message of old is in late$/,
    ],
  ];
  for (const [changes, expected] of wrong) {
    assert.match(judge(oracle, interval, { ...good, ...changes }).join(), expected);
  }
});

Deno.test("the soak tells a file that holds what it did not hold then", () => {
  const oracle = new Oracle();
  oracle.acknowledge(oracle.askFile("a", "one"));
  oracle.acknowledge(oracle.askFile("a", "two"));
  const began = oracle.moment();
  oracle.acknowledge(oracle.askFile("a", undefined));
  const interval = { began, ended: oracle.moment() };
  oracle.acknowledge(oracle.askFile("a", "three"));
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
