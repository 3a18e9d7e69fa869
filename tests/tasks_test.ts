import assert from "node:assert/strict";
import { COMMANDS } from "../scripts/core/commands.ts";
import { VERSION } from "../scripts/core/version.ts";
import config from "../deno.json" with { type: "json" };
import verbs from "../nix/verbs.json" with { type: "json" };
import { tasks } from "./tasks.ts";

Deno.test("deno.json's tasks are the ones that nix/verbs.json gives", () => {
  assert.deepEqual(config.tasks, tasks(), "run `deno task tasks`");
});

Deno.test("every verb has its permissions and its task", () => {
  assert.deepEqual(COMMANDS.map(({ verb }) => verb).sort(), Object.keys(verbs.verbs).sort());
});

Deno.test("seals name the version of deno.json as their writer's", () => {
  assert.equal(VERSION, config.version);
});
