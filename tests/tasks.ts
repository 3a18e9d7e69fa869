/**
 * Writes deno.json's tasks from nix/verbs.json, so that the command line has the same walls everywhere.
 *
 * `deno run --allow-read --allow-write tests/tasks.ts`; `tests/tasks_test.ts` fails when they differ.
 *
 * @module
 */

import verbs from "../nix/verbs.json" with { type: "json" };

/** Permissions of what tests, demo, soak and benchmarks run: they start programs of every kind, on loopback only. */
const FOR_TESTS =
  "--no-prompt --allow-read --allow-write --allow-env --allow-run --allow-sys --allow-net=127.0.0.1,localhost,[::1]";

/** Long ones that would come late, and the rest wait for them. */
const FIRST = ["ship", "soak", "terminal"].map((name) => `tests/${name}_test.ts`).join(" ");

/** The tasks that are not verbs. */
const OTHERS: Readonly<Record<string, string>> = {
  demo: `deno run ${FOR_TESTS} tests/demo.ts`,
  bench: `deno run ${FOR_TESTS} tests/bench/bench.ts`,
  "bench-storage": `deno run ${FOR_TESTS} tests/bench/scale_bench.ts`,
  soak: `deno run ${FOR_TESTS} tests/soak.ts`,
  tasks: "deno run --allow-read --allow-write=deno.json tests/tasks.ts",
  check: "deno fmt --check && deno lint && deno check mod.ts scripts tests",
  // Types are what `check` looks at.
  test: `deno test --parallel --no-check ${FOR_TESTS} ${FIRST} tests`,
  ok: "deno task check && deno task test",
};

/** All tasks, verbs first. */
export function tasks(): Record<string, string> {
  const always = [...verbs.always, `--allow-env=${verbs.env.join(",")}`];
  const environment = Object.entries(verbs.environment).map(([name, value]) => `${name}=${value}`);
  const { man } = verbs.verbs;
  const ofVerbs = Object.entries({ ...verbs.verbs, help: man }).map(([verb, flags]) =>
    [verb, [...environment, "deno run", ...always, ...flags, `mod.ts ${verb}`].join(" ")] as const
  );
  return { ...Object.fromEntries(ofVerbs), ...OTHERS };
}

if (import.meta.main) {
  const config = JSON.parse(await Deno.readTextFile("deno.json"));
  const { imports, tasks: _, ...rest } = config;
  const { name, version, exports, ...others } = rest;
  const text = JSON.stringify({ name, version, exports, tasks: tasks(), imports, ...others }, null, 2);
  await Deno.writeTextFile("deno.json", text + "\n");
}
