/**
 * `deno task soak --minutes N [--seed S]`: the whole of it under load, for as long as one likes.
 *
 * Exits with 1 when anything was wrong.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { soak } from "./soak/soak.ts";

const { values } = parseArgs({
  args: Deno.args,
  options: { minutes: { type: "string", default: "5" }, seed: { type: "string" } },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]);
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error("usage: deno task soak --minutes 60 [--seed 1]");
  Deno.exit(2);
}
console.log(`seed ${seed}, ${minutes} minutes`);
const { violations } = await soak({ minutes, seed, say: (line) => console.log(line) });
Deno.exit(violations.length === 0 ? 0 : 1);
