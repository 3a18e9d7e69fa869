import assert from "node:assert/strict";
import { generateHubDatabase, halfDay } from "./generate.ts";
import { measure, PEERS } from "./peers.ts";

Deno.test("every peer backs up, backs up what changed, and gives back the newest", async (t) => {
  const dir = await Deno.makeTempDir({ prefix: "peers-" });
  try {
    const source = await generateHubDatabase({ out: dir, sessions: 9, messages: 2000 });
    for (const [name, create] of Object.entries(PEERS)) {
      await t.step(name, async () => {
        const database = `${dir}/${name}.db`;
        await Deno.copyFile(source, database);
        await using peer = await create({ database, scratch: `${dir}/${name}` });
        const first = await peer.first();
        assert.ok(first.bytesStored > 500_000, `${first.bytesStored} bytes`);
        assert.ok(first.wallSeconds > 0 && first.cpuSeconds > 0 && first.peakBytes > 1_000_000);
        // duplicity takes a file of the same size and second for the same.
        const second = Math.floor(Date.now() / 1000);
        while (Math.floor(Date.now() / 1000) === second) await new Promise((done) => setTimeout(done, 20));
        halfDay(database, { messages: 200, sessions: 4 });
        const again = await peer.again();
        assert.ok(again.bytesStored > 50_000, `${again.bytesStored} bytes`);
        assert.equal((await peer.restore()).bytesStored, 0);
        // Rows that no backup holds: the check of the restored database must notice.
        halfDay(database, { messages: 10, sessions: 1, seed: 3 });
        await assert.rejects(peer.restore(), assert.AssertionError);
      });
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("measure() counts the children and tells of a failure inside a pipe", async () => {
  const env = { PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin" };
  const cost = await measure("head -c 60000000 /dev/zero | sha256sum | cat", env);
  assert.ok(cost.cpuSeconds > 0.01, `${cost.cpuSeconds} s`);
  await assert.rejects(measure("echo no disk >&2; false | true", env), /no disk/);
});
