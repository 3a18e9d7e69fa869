import assert from "node:assert/strict";
import config from "../deno.json" with { type: "json" };
import units from "../nix/units.json" with { type: "json" };
import verbs from "../nix/verbs.json" with { type: "json" };
import { COMMANDS } from "../scripts/core/command_line/commands.ts";
import { VERSION } from "../scripts/core/version.ts";
import { cli } from "./real/cli.ts";
import { inTempDir } from "./real/files.ts";
import { tasks } from "./tasks.ts";

Deno.test("deno.json's tasks are the ones that nix/verbs.json gives", () => {
  assert.deepEqual(config.tasks, tasks(), "run `deno task tasks`");
});

Deno.test("the units run the program in the environment that it has elsewhere", () => {
  const wanted = Object.entries(verbs.environment).map(([name, value]) => `${name}=${value}`);
  for (const { Environment } of [units.groups.hub, units.groups.storage]) {
    const set = new Set(Environment);
    assert.deepEqual(wanted.filter((assignment) => !set.has(assignment)), []);
  }
});

Deno.test("every verb has its permissions and its task", () => {
  assert.deepEqual(COMMANDS.map(({ verb }) => verb).sort(), Object.keys(verbs.verbs).sort());
});

Deno.test("where rsync and rclone are not installed, Deno says nothing of it before the verb speaks", async () => {
  await inTempDir(async (home) => {
    const { code, stdout, stderr } = await cli({ home, env: { PATH: home } }, "list");
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^no snapshots yet in /);
    assert.equal(stderr, "");
  });
});

Deno.test("seals name the version of deno.json as their writer's", () => {
  assert.equal(VERSION, config.version);
});
