/**
 * Faults on the way to a storage host, real ones wherever this machine can make them: after each, shipping says what
 * happened and never that all went well, nothing half stands under a final name there, and the next run completes it.
 */

import assert from "node:assert/strict";
import { MAIN_SET } from "../../scripts/core/names.ts";
import { unshippedError } from "../../scripts/core/shipping/shipping.ts";
import type { Host, Run } from "../../scripts/host/host.ts";
import { isSealed, problemWithPart, readSetIfThere } from "../../scripts/host/store/store.ts";
import { ship } from "../../scripts/ship.ts";
import { type CuttingProxy, startCuttingProxy } from "../real/cutting_proxy.ts";
import { freePort } from "../real/free_port.ts";
import { type Home, makeHome, output } from "../real/home.ts";
import { type Sshd, startSshd } from "../real/sshd.ts";
import { readTree, type Tree, writeTree } from "./recording_fs.ts";
import { configIn } from "./steps.ts";

/** A home with two snapshots to ship, and a storage host behind a line that can be spoilt. */
interface Line extends AsyncDisposable {
  readonly home: Home;
  readonly far: string;
  readonly sshd: Sshd;
  readonly proxy: CuttingProxy;
  /** The home as it is before anything was shipped. */
  readonly start: Tree;
  /** Ships, and gives the first error's words with their kind, or undefined for a success. */
  ship(run?: Run, port?: number): Promise<string | undefined>;
}

async function makeLine(): Promise<Line> {
  const home = await makeHome();
  const far = await Deno.makeTempDir({ prefix: "far-" });
  const sshd = await startSshd({ dir: far });
  const proxy = startCuttingProxy(sshd.port);
  for (const [from, to] of [[sshd.writeKeyFile, "key"], [sshd.knownHostsFile, "known_hosts"]] as const) {
    await Deno.copyFile(from, `${home.dir}/${to}`);
    await Deno.chmod(`${home.dir}/${to}`, 0o600);
  }
  const knownHosts = await Deno.readTextFile(`${home.dir}/known_hosts`);
  await home.backup();
  home.sql("DELETE FROM messages WHERE id = 1");
  await home.backup();
  return {
    home,
    far,
    sshd,
    proxy,
    start: readTree(home.dir),
    async ship(run = home.host.run, port = proxy.port) {
      // The line has the storage host's name.
      await Deno.writeTextFile(
        `${home.dir}/known_hosts`,
        knownHosts.replace(`:${sshd.port}`, `:${port}`),
      );
      home.configure({
        destinations: [{
          kind: "rsync",
          name: "storage",
          target: `${sshd.user}@127.0.0.1:`,
          port,
          identityFile: `${home.dir}/key`,
          knownHostsFile: `${home.dir}/known_hosts`,
          timeoutSeconds: 4,
        }],
      });
      const retry = () => ({ attempts: 1, random: () => 0, sleep: () => Promise.resolve() });
      const host: Host = { ...home.host, run };
      const report = await ship(host, configIn(home.dir), { retry });
      const [error] = report.destinations[0]!.errors;
      assert.equal(unshippedError(report)?.kind, error && "unshipped");
      assert.equal(report.destinations[0]!.waiting.length > 0, error !== undefined, JSON.stringify(error));
      return error && `${error.kind}: ${error.message}`;
    },
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      await sshd[Symbol.asyncDispose]();
      await Deno.remove(far, { recursive: true });
      home[Symbol.dispose]();
    },
  };
}

/** How many snapshots are sealed on the far side; each must be whole. */
function wholeThere({ home, far }: Line): number {
  const set = { hub: "home" as never, set: MAIN_SET, folder: `${far}/state` };
  const sealed = readSetIfThere(home.host.fs, set).filter(isSealed);
  for (const { folder, sealed: { seal } } of sealed) {
    for (const part of seal.parts) assert.equal(problemWithPart(home.host.fs, folder, part), undefined);
  }
  return sealed.length;
}

/** Empties the far side, and makes the home forget that it shipped. */
function startOver({ home, far, start }: Line): void {
  for (const { name } of Deno.readDirSync(far)) Deno.removeSync(`${far}/${name}`, { recursive: true });
  writeTree(home.dir, start);
}

/** Every exit code that rsync(1) documents, and those of ssh and the shell. */
const EXIT_CODES = [1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25, 30, 35, 127, 255];

Deno.test("every way in which a line or its far side fails is told, harms nothing, and is made good by the next run", async (t) => {
  await using line = await makeLine();
  const { home, proxy, far } = line;
  const survived: string[] = [];

  /** Lets `fail` spoil a shipping, and checks what it came to. */
  const fault = (name: string, says: RegExp, fail: () => Promise<string | undefined>) =>
    t.step(name, async () => {
      startOver(line);
      const error = await fail();
      assert.match(error ?? "a success", says);
      // In time the far side notices, and ends what it began: until then it takes no other transfer.
      await line.sshd.cut();
      assert.ok(wholeThere(line) < 2, "not all of it is there");
      proxy.budget = Infinity;
      proxy.hangs = false;
      assert.equal(await line.ship(), undefined);
      assert.equal(wholeThere(line), 2);
      survived.push(name);
    });

  let runs = 0;
  await line.ship((...given) => {
    runs++;
    return home.host.run(...given);
  });
  const bytes = proxy.sent;
  assert.ok(runs >= 6 && bytes > 20_000, `${runs} runs, ${bytes} bytes`);

  await t.step("rsync ends with any code it documents, at any of its runs", async () => {
    for (const [index, code] of EXIT_CODES.entries()) {
      startOver(line);
      // At once, where no far side is needed; once late, after real ones.
      let left = index === 9 ? runs - 2 : 0;
      const error = await line.ship((program, ...given) =>
        left-- === 0 ? Promise.resolve({ code, stdout: "", stderr: "" }) : home.host.run(program, ...given)
      );
      assert.match(error ?? "a success", new RegExp(`^\\w+: Cannot ship .*: rsync ended with ${code} \\(`));
      assert.doesNotMatch(error!, /not documented/);
      wholeThere(line);
    }
    assert.equal(await line.ship(), undefined);
    assert.equal(wholeThere(line), 2);
    survived.push(`${EXIT_CODES.length} exit codes of rsync`);
  });

  for (const share of [0.2, 0.8]) {
    await fault(`cut after ${share * 100} % of its bytes`, /^network: Cannot ship /, () => {
      proxy.budget = Math.floor(bytes * share);
      return line.ship();
    });
  }
  await fault(
    "falls silent in the middle",
    /^network: Cannot ship /,
    () => {
      proxy.budget = Math.floor(bytes * 0.4);
      proxy.hangs = true;
      return line.ship();
    },
  );
  await fault("takes connections and never says a word", /^network: Cannot ship /, () => {
    proxy.budget = 0;
    proxy.hangs = true;
    return line.ship();
  });
  await fault(
    "refuses connections",
    /^network: Cannot ship .*refuses the connection$/,
    () => line.ship(undefined, freePort()),
  );
  await fault("the storage host goes away in the middle", /^network: Cannot ship /, () => {
    let count = 0;
    return line.ship(async (...given) => {
      if (++count === 2) await line.sshd.stop();
      return await home.host.run(...given);
    }).finally(() => line.sshd.restart());
  });
  await t.step("a slow line is no fault", async () => {
    startOver(line);
    proxy.delayMs = 20;
    assert.equal(await line.ship(), undefined);
    assert.equal(wholeThere(line), 2);
    proxy.delayMs = 0;
    survived.push("slow line");
  });

  if (Deno.uid() === 0) {
    // The far side's own word of it does not always come across.
    for (const limit of ["size=24k", "nr_inodes=5"]) {
      await fault(
        `a far disk with ${limit}`,
        /^disk: Cannot ship .*(disk of 127.0.0.1 is full|rsync ended with 11 \()/,
        async () => {
          await output("mount", ["-t", "tmpfs", "-o", limit, "tmpfs", far]);
          try {
            const error = await line.ship();
            assert.ok(wholeThere(line) < 2);
            return error;
          } finally {
            await line.sshd.cut();
            // A far rsync may still be on its way out.
            await output("umount", ["--lazy", far]);
          }
        },
      );
    }
  }
  console.log(`survived: ${survived.join(", ")}`);
});
