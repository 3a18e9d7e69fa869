/** Stores written by every version so far are restored by this one, to the last bit, mode and time. */

import assert from "node:assert/strict";
import { restoreVector } from "./vectors/restored.ts";

const VECTORS = new URL("./vectors/", import.meta.url).pathname;

for (const { name, isDirectory } of Deno.readDirSync(VECTORS)) {
  if (!isDirectory) continue;
  Deno.test(`the frozen store ${name} restores for ever`, async () => {
    const expected = JSON.parse(Deno.readTextFileSync(`${VECTORS}${name}/expected.json`));
    assert.deepEqual(await restoreVector(`${VECTORS}${name}`), expected);
  });
}
