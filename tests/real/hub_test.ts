import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { inTempDir } from "./files.ts";
import { ensureHub, startHub } from "./hub.ts";

Deno.test("ensureHub() gives one binary to several askers at once", async () => {
  const paths = await Promise.all([ensureHub(), ensureHub(), ensureHub()]);
  assert.equal(new Set(paths).size, 1);
});

Deno.test("the hub gives back what it acknowledged, also after SIGKILL", async () => {
  await inTempDir(async (dir) => {
    const home = `${dir}/.hapi`;
    const contents = Array.from(
      { length: 450 },
      (_, i) => ({ type: "text", text: `m${i} ${"é".repeat(i)}` }),
    );
    let hub = await startHub({ home, token: "fixture-token-of-the-hub-test" });
    const one = await hub.createSession("one");
    const two = await hub.createSession("two");
    assert.equal(await hub.createSession("one"), one, "a tag names one session");
    await hub.sendMessages(one, contents);
    await hub.sendMessages(two, [{ type: "text", text: "only" }]);
    await hub.kill();

    hub = await startHub({ home });
    assert.equal(hub.token, "fixture-token-of-the-hub-test", "the token comes out of settings.json");
    assert.deepEqual((await hub.sessions()).map((session) => session.id).sort(), [one, two].sort());
    const messages = await hub.messages(one);
    assert.deepEqual(messages.map((message) => message.content), contents);
    assert.deepEqual(messages.map((message) => message.seq), contents.map((_, i) => i + 1));
    assert.deepEqual((await hub.messages(two)).map((message) => message.role), ["agent"]);
    await hub.stop();
  });
});

Deno.test("a write load's acknowledged messages are all there after SIGKILL", async () => {
  await inTempDir(async (dir) => {
    const home = `${dir}/.hapi`;
    let hub = await startHub({ home });
    const load = await hub.writeLoad({ perSecond: 400 });
    while (load.acknowledged.length <= 200 && !load.failure) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.equal(load.failure, undefined);
    await hub.kill();
    // It would go on for ever if it did not notice.
    while (!load.failure) await new Promise((resolve) => setTimeout(resolve, 10));
    await load.stop();

    hub = await startHub({ home });
    assert.deepEqual(await hub.missing(load.acknowledged), []);
    const invented = {
      sessionId: load.acknowledged[0]!.sessionId,
      content: { type: "text", text: "never sent" },
    };
    assert.deepEqual(await hub.missing([invented]), [invented]);
    await hub.stop();
  });
});

Deno.test("the hub empties its WAL on SIGTERM and stores long contents as zstd", async () => {
  await inTempDir(async (dir) => {
    const home = `${dir}/.hapi`;
    {
      await using hub = await startHub({ home });
      const sessionId = await hub.createSession("sizes");
      await hub.sendMessages(sessionId, [{ text: "short" }, { text: "long ".repeat(60) }]);
      await assert.rejects(
        hub.sendMessages(crypto.randomUUID(), [{ text: "nowhere" }]),
        /session not found/i,
      );
    }
    assert.equal((await Deno.stat(`${home}/hapi.db-wal`)).size, 0);
    using database = new DatabaseSync(`${home}/hapi.db`, { readOnly: true });
    assert.deepEqual(
      database.prepare("SELECT typeof(content) AS kind FROM messages ORDER BY seq").all().map((row) =>
        row.kind
      ),
      ["text", "blob"],
    );
  });
});
