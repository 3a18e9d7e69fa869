import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { inTempDir } from "../real/files.ts";
import { startHub } from "../real/hub.ts";
import { type CaseName, CASES, countRows, generateHubDatabase } from "./generate.ts";

const SMALL = { sessions: 9, messages: 2500 };

async function sha256(path: string): Promise<string> {
  return createHash("sha256").update(await Deno.readFile(path)).digest("hex");
}

function assertSound(path: string): void {
  using db = new DatabaseSync(path);
  assert.deepEqual(db.prepare("PRAGMA integrity_check").all().map((row) => row.integrity_check), ["ok"]);
  assert.deepEqual(db.prepare("PRAGMA foreign_key_check").all(), []);
}

Deno.test("the same seed makes the same file, also after half a day; another seed another", async () => {
  await inTempDir(async (dir) => {
    const one = await generateHubDatabase({ out: `${dir}/1`, ...SMALL });
    const two = await generateHubDatabase({ out: `${dir}/2`, ...SMALL });
    const other = await generateHubDatabase({ out: `${dir}/3`, ...SMALL, seed: 7 });
    assert.equal(await sha256(one), await sha256(two));
    assert.notEqual(await sha256(one), await sha256(other));
    CASES.halfDay(one, { messages: 200 });
    CASES.halfDay(two, { messages: 200 });
    assert.equal(await sha256(one), await sha256(two));
  });
});

Deno.test("the real hub serves what was generated", async () => {
  await inTempDir(async (dir) => {
    const path = await generateHubDatabase({ out: dir, ...SMALL });
    const expected = countRows(path);
    assert.equal(expected.messages, SMALL.messages);
    assert.equal(expected.sessions, SMALL.sessions);
    assert.ok(expected.usage_events! > SMALL.messages / 4);
    await using hub = await startHub({ home: dir });
    const sessions = await hub.sessions();
    assert.equal(sessions.length, SMALL.sessions);
    let messages = 0;
    for (const session of sessions) {
      for (const message of await hub.messages(session.id)) {
        assert.match(message.role, /^(agent|user)$/, "the hub could decode the content");
        messages++;
      }
    }
    assert.equal(messages, SMALL.messages);
  });
});

Deno.test("each case leaves a sound, checkpointed database with the rows it should have", async (t) => {
  const expected: Record<CaseName, (before: Record<string, number>, after: Record<string, number>) => void> =
    {
      halfDay: (before, after) => {
        assert.equal(after.messages, before.messages! + 300);
        assert.ok(after.usage_events! > before.usage_events! + 50);
      },
      fiveMinutes: (before, after) => assert.equal(after.messages, before.messages! + 28),
      nothing: (before, after) => assert.deepEqual(after, before),
      oneRow: (before, after) => assert.deepEqual(after, before),
      vacuum: (before, after) => assert.deepEqual(after, before),
      massDelete: (before, after) => {
        assert.equal(after.sessions, 6);
        assert.ok(after.messages! < before.messages!);
      },
      migration: (before, after) => assert.deepEqual(after, before),
    };
  await inTempDir(async (dir) => {
    const source = await generateHubDatabase({ out: dir, ...SMALL });
    for (const [name, check] of Object.entries(expected) as [CaseName, typeof expected[CaseName]][]) {
      await t.step(name, async () => {
        const path = `${dir}/${name}.db`;
        await Deno.copyFile(source, path);
        CASES[name](path, { messages: 300, sessions: 4 });
        await assert.rejects(Deno.stat(`${path}-wal`), Deno.errors.NotFound);
        assertSound(path);
        check(countRows(source), countRows(path));
        assert.equal(await sha256(path) === await sha256(source), name === "nothing");
      });
    }
  });
});
