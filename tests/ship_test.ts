import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import type { Config, Destination } from "../scripts/core/config/config.ts";
import { fullWantedFile } from "../scripts/core/config/state_paths.ts";
import { BackupError } from "../scripts/core/errors.ts";
import { signSsh } from "../scripts/core/keys/sshsig.ts";
import type { HubName, SetName } from "../scripts/core/names.ts";
import {
  RECEIPT_FILE,
  RECEIPT_NAMESPACE,
  RECEIPT_SIGNATURE_FILE,
  serializeReceipt,
} from "../scripts/core/shipping/receipt.ts";
import {
  compareArgs,
  parseRsyncTarget,
  parseVerdicts,
  pullArgs,
  pushArgs,
  quoteForRsync,
  sshCommand,
  sshWords,
} from "../scripts/core/shipping/rsync_args.ts";
import { explainRcloneFailure } from "../scripts/core/shipping/rclone_failure.ts";
import { explainRsyncFailure } from "../scripts/core/shipping/rsync_failure.ts";
import {
  type DestinationReport,
  type ShipReport,
  unshippedError,
} from "../scripts/core/shipping/shipping.ts";
import { checkDestinations } from "../scripts/host/doctor/doctor_destinations.ts";
import { realFs } from "../scripts/host/fs.ts";
import type { Fs, Host } from "../scripts/host/host.ts";
import { makeRun } from "../scripts/host/process.ts";
import { pauseSeconds, realRetry } from "../scripts/host/retry.ts";
import { ship, type ShipSettings } from "../scripts/ship.ts";
import { startCuttingProxy } from "./real/cutting_proxy.ts";
import { copySync, filesBelow } from "./real/files.ts";
import { freePort } from "./real/free_port.ts";
import { mountTmpfs, output } from "./real/home.ts";
import { makeSealedFolder, makeSigner } from "./real/signed_store.ts";
import { newKey, type Sshd, startSshd } from "./real/sshd.ts";

const ID = ["20260301T060000Z", "20260301T180000Z", "20260302T060000Z", "20260302T180000Z"] as const;

/** A hub's side: a store, state, and a host that notes what was told and run. */
interface Hub {
  readonly dir: string;
  readonly store: string;
  readonly stateFolder: string;
  readonly host: Host;
  readonly told: string[];
  readonly runs: { program: string; args: readonly string[]; stdout: string }[];
  readonly pauses: number[];
  ship(destinations: readonly Destination[], settings?: ShipSettings, fs?: Fs): Promise<ShipReport>;
  make(id: string, more?: Partial<Parameters<typeof makeSealedFolder>[0]>): string;
  record(name: string): Promise<{ confirmed: Record<string, unknown>; uploads: Record<string, number> }>;
}

async function withHub(test: (hub: Hub) => Promise<void>, name = "ship test"): Promise<void> {
  // Spaces and quotes in every path, as a mounted disk may have.
  const dir = await Deno.makeTempDir({ prefix: `${name} it's-` });
  const store = `${dir}/store`;
  const stateFolder = `${dir}/state`;
  await Deno.mkdir(store);
  const told: string[] = [];
  const runs: Hub["runs"] = [];
  const pauses: number[] = [];
  const run = makeRun(() => {});
  const host: Host = {
    fs: realFs,
    now: () => new Date("2026-03-05T00:00:00Z"),
    checkpoint: () => {},
    blocking: (work) => work(),
    report: { progress: () => {}, info: (text) => told.push(text), warn: (text) => told.push(`! ${text}`) },
    run: async (program, args, options) => {
      const result = await run(program, args, options);
      runs.push({ program, args, stdout: result.stdout });
      return result;
    },
  };
  const retry = (attempts: number) => ({
    attempts,
    random: () => 0,
    sleep: (seconds: number) => Promise.resolve(void pauses.push(seconds)),
  });
  try {
    await test({
      dir,
      store,
      stateFolder,
      host,
      told,
      runs,
      pauses,
      ship: (destinations, settings = {}, fs = realFs) =>
        ship({ ...host, fs }, { hub: "home" as HubName, store, stateFolder, destinations }, {
          retry,
          ...settings,
        }),
      make: (id, more = {}) => makeSealedFolder({ store, id, ...more }),
      record: async (name) => JSON.parse(await Deno.readTextFile(`${stateFolder}/ship/${name}.json`)),
    });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** A storage host that forces the hub's folder, append-only. */
async function withStorage(
  test: (hub: Hub, storage: { far: string; sshd: Sshd; destination: RsyncOptions }) => Promise<void>,
  writeOptions?: string,
): Promise<void> {
  await withHub(async (hub) => {
    const farDir = await Deno.makeTempDir({ prefix: "far-" });
    try {
      await using sshd = await startSshd({ dir: farDir, ...(writeOptions ? { writeOptions } : {}) });
      const keys = `${hub.dir}/my keys`;
      await Deno.mkdir(keys);
      await Deno.copyFile(sshd.writeKeyFile, `${keys}/write`);
      await Deno.chmod(`${keys}/write`, 0o600);
      await Deno.copyFile(sshd.knownHostsFile, `${keys}/known hosts`);
      const destination: RsyncOptions = {
        receiptSigners: [],
        kind: "rsync",
        name: "storage",
        target: `${sshd.user}@${sshd.host}:`,
        identityFile: `${keys}/write`,
        knownHostsFile: `${keys}/known hosts`,
        port: sshd.port,
        timeoutSeconds: 20,
        attempts: 1,
      };
      await test(hub, { far: farDir, sshd, destination });
    } finally {
      await Deno.remove(farDir, { recursive: true });
    }
  });
}

type RsyncOptions = Extract<Destination, { kind: "rsync" }>;

/** The files of a user whose quota is used up where a folder of this name is to be made. */
const withQuotaUsedUp = (name: RegExp): Fs => ({
  ...realFs,
  mkdir(path, options) {
    if (name.test(path)) throw new Error(`Disk quota exceeded (os error 122): mkdir '${path}'`);
    realFs.mkdir(path, options);
  },
});

const keysOf = (list: readonly { set: string; id: string }[]) => list.map(({ set, id }) => `${set}/${id}`);
/** What a storage host would call a snapshot: everything that is not hidden. */
const visible = async (folder: string) =>
  (await filesBelow(folder)).filter(([path]) => !path.split("/").some((name) => name.startsWith(".")));

Deno.test("ship() brings a snapshot to the storage host, confirms it, and sends nothing the second time", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[0]);
    const report = await hub.ship([destination]);
    assert.equal(unshippedError(report), undefined);
    assert.deepEqual(keysOf(report.destinations[0]!.shipped), [`state/${ID[0]}`]);
    assert.ok(report.destinations[0]!.offBox);
    assert.deepEqual(await filesBelow(far), await filesBelow(`${hub.store}/home`));
    const modes = ["", "/files.tar.zst.age"].map(async (name) =>
      (await Deno.stat(`${far}/state/${ID[0]}${name}`)).mode! & 0o7777
    );
    assert.deepEqual(await Promise.all(modes), [0o2750, 0o640]);

    const again = await hub.ship([destination]);
    assert.equal(unshippedError(again), undefined);
    assert.equal(again.destinations[0]!.bytes, 0);
    assert.deepEqual(again.destinations[0]!.shipped, []);
  });
});

Deno.test("ship() whose record is lost compares what is there and sends nothing", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[0], { parts: { "hapi.db.full.zst.age": 5 << 20, "manifest.json.zst.age": 500 } });
    await hub.ship([destination]);
    await Deno.remove(`${hub.stateFolder}/ship`, { recursive: true });
    const report = await hub.ship([destination]);
    assert.equal(unshippedError(report), undefined);
    assert.deepEqual(keysOf(report.destinations[0]!.shipped), [`state/${ID[0]}`]);
    assert.equal(report.destinations[0]!.bytes, 0);
    assert.deepEqual(await visible(far), await filesBelow(`${hub.store}/home`));
  });
});

Deno.test("ship() sends several waiting snapshots oldest first, across sets", async () => {
  await withStorage(async (hub, { destination }) => {
    hub.make(ID[2], { needs: [ID[0]] });
    hub.make(ID[1], { set: "voice" });
    hub.make(ID[0]);
    const report = await hub.ship([destination]);
    assert.deepEqual(keysOf(report.destinations[0]!.shipped), [
      `state/${ID[0]}`,
      `voice/${ID[1]}`,
      `state/${ID[2]}`,
    ]);
  });
});

Deno.test("ship() of one set leaves the others waiting", async () => {
  await withStorage(async (hub, { destination }) => {
    hub.make(ID[0]);
    hub.make(ID[1], { set: "voice" });
    const report = await hub.ship([destination], { sets: ["voice" as never] });
    assert.deepEqual(keysOf(report.destinations[0]!.shipped), [`voice/${ID[1]}`]);
  });
});

Deno.test("an upload that is cut leaves nothing half under a final name, and only the rest is sent afterwards", async () => {
  await withStorage(async (hub, { far, sshd, destination }) => {
    const size = 12 << 20;
    hub.make(ID[0], { parts: { "hapi.db.full.zst.age": size, "manifest.json.zst.age": 500 } });
    await using proxy = startCuttingProxy(sshd.port);
    await Deno.writeTextFile(
      destination.knownHostsFile,
      (await Deno.readTextFile(sshd.knownHostsFile)).replace(`:${sshd.port}`, `:${proxy.port}`),
    );
    const throughProxy = { ...destination, port: proxy.port };

    proxy.budget = 9 << 20;
    const cut = await hub.ship([throughProxy]);
    assert.equal(cut.destinations[0]!.errors[0]!.kind, "network");
    assert.deepEqual(keysOf(cut.destinations[0]!.waiting), [`state/${ID[0]}`]);
    assert.equal(unshippedError(cut)!.kind, "unshipped");
    await sshd.idle();
    assert.deepEqual(await visible(far), []);

    // Cut again before much is done: what the first try brought must survive it.
    proxy.budget = 1 << 20;
    await hub.ship([throughProxy]);
    await sshd.idle();
    assert.deepEqual(await visible(far), []);
    // Nor does it count for nothing where another set alone is shipped.
    proxy.budget = Infinity;
    hub.make(ID[1], { set: "voice" });
    await hub.ship([throughProxy], { sets: ["voice" as never] });
    assert.equal((await hub.record("storage")).uploads[`state/${ID[0]}`], 2);

    const before = proxy.sent;
    const resumed = await hub.ship([throughProxy]);
    assert.equal(unshippedError(resumed), undefined);
    assert.ok(
      resumed.destinations[0]!.bytes < 6 << 20,
      `${resumed.destinations[0]!.bytes} bytes sent again`,
    );
    assert.ok(proxy.sent - before < 7 << 20, `${proxy.sent - before} bytes on the wire`);
    const matched = hub.runs.map((run) => Number(/^Matched data: (\d+)/m.exec(run.stdout)?.[1] ?? 0));
    assert.ok(Math.max(...matched) > 6 << 20, `rsync matched ${Math.max(...matched)} bytes`);
    assert.deepEqual(await visible(far), await filesBelow(`${hub.store}/home`));
  });
});

Deno.test("ship() tries again after a cut within one run, with growing pauses", async () => {
  await withStorage(async (hub, { far, sshd, destination }) => {
    hub.make(ID[0]);
    await using proxy = startCuttingProxy(sshd.port);
    await Deno.writeTextFile(
      destination.knownHostsFile,
      (await Deno.readTextFile(sshd.knownHostsFile)).replace(`:${sshd.port}`, `:${proxy.port}`),
    );
    proxy.budget = 3_000;
    const settings: ShipSettings = {
      retry: (attempts) => ({
        attempts,
        random: () => 0,
        sleep: async (seconds) => {
          hub.pauses.push(seconds);
          await sshd.idle();
          if (hub.pauses.length === 2) proxy.budget = Infinity;
        },
      }),
    };
    const report = await hub.ship([{ ...destination, port: proxy.port, attempts: 4 }], settings);
    assert.equal(unshippedError(report), undefined);
    assert.deepEqual(hub.pauses, [2.5, 7.5]);
    assert.deepEqual(await visible(far), await filesBelow(`${hub.store}/home`));
  });
});

Deno.test("ship() refuses a far side that holds something else under a name, and goes on with the next snapshot", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[0]);
    hub.make(ID[1]);
    await Deno.mkdir(`${far}/state/${ID[0]}`, { recursive: true });
    const foreign = `${far}/state/${ID[0]}/files.tar.zst.age`;
    // The same size: only its content tells.
    await Deno.writeFile(foreign, new Uint8Array(2_000));
    const report = await hub.ship([destination]);
    const [storage] = report.destinations;
    assert.equal(storage!.errors[0]!.kind, "integrity");
    assert.match(storage!.errors[0]!.message, /files\.tar\.zst\.age.* differs from ours/);
    assert.deepEqual(keysOf(storage!.shipped), [`state/${ID[1]}`]);
    assert.deepEqual(keysOf(storage!.waiting), [`state/${ID[0]}`]);
    assert.deepEqual(await Deno.readFile(foreign), new Uint8Array(2_000));
    await assert.rejects(Deno.stat(`${far}/state/${ID[0]}/seal.json`), Deno.errors.NotFound);
  });
});

Deno.test("ship() has read anew what was taken: what is altered or gone by then is not confirmed", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[0]);
    hub.make(ID[1]);
    const part = (id: string) => `${far}/state/${id}/files.tar.zst.age`;
    const ruins = new Map<string, (path: string) => void>([
      [part(ID[0]), (path) => Deno.writeFileSync(path, new Uint8Array(2_000))],
      [part(ID[1]), (path) => Deno.removeSync(path)],
    ]);
    const run: Host["run"] = async (program, args, options) => {
      const result = await hub.host.run(program, args, options);
      // Each as soon as it was sent.
      for (const [path, ruin] of ruins) if (existsSync(path) && ruins.delete(path)) ruin(path);
      return result;
    };
    const { store, stateFolder } = hub;
    const options = { hub: "home" as HubName, store, stateFolder, destinations: [destination] };
    const [storage] = (await ship({ ...hub.host, run }, options)).destinations;
    assert.deepEqual(storage!.errors.map(({ kind }) => kind), ["integrity", "network"]);
    assert.match(storage!.errors[0]!.message, /files\.tar\.zst\.age on .* differs from ours/);
    assert.match(storage!.errors[1]!.message, /files\.tar\.zst\.age was sent, and yet it is not there/);
    assert.deepEqual(keysOf(storage!.waiting), [`state/${ID[0]}`, `state/${ID[1]}`]);
    for (const id of [ID[0], ID[1]]) assert(!existsSync(`${far}/state/${id}/seal.json`), id);
  });
});

for (const writeOptions of ["-wo -no-del -no-overwrite", "-wo -no-del"]) {
  Deno.test(`ship() touches no existing file under rrsync ${writeOptions}`, async () => {
    await withStorage(async (hub, { far, destination }) => {
      hub.make(ID[0]);
      await Deno.mkdir(`${far}/state/${ID[0]}`, { recursive: true });
      await Deno.writeTextFile(`${far}/state/${ID[0]}/seal.json`, "an older one");
      const report = await hub.ship([destination]);
      assert.equal(report.destinations[0]!.errors[0]!.kind, "integrity");
      assert.equal(await Deno.readTextFile(`${far}/state/${ID[0]}/seal.json`), "an older one");
    }, writeOptions);
  });
}

Deno.test("an unknown host key is an error with the line that pins it", async () => {
  await withStorage(async (hub, { sshd, destination }) => {
    hub.make(ID[0]);
    await Deno.writeTextFile(destination.knownHostsFile, "");
    const [storage] = (await hub.ship([{ ...destination, attempts: 3 }])).destinations;
    assert.equal(storage!.errors[0]!.kind, "key");
    assert.match(storage!.errors[0]!.message, /is not pinned in/);
    assert.match(storage!.errors[0]!.hint!, new RegExp(`ssh-keyscan -p ${sshd.port} 127\\.0\\.0\\.1 >> `));
    assert.match(storage!.errors[0]!.hint!, /compare the fingerprint/);
    assert.deepEqual(hub.pauses, [], "no other try can help");
    assert.equal(await Deno.readTextFile(destination.knownHostsFile), "", "nothing was accepted silently");
  });
});

Deno.test("a disk that refuses what shipping notes is told in the words of the error, not in the system's", async () => {
  await withStorage(async (hub, { destination }) => {
    hub.make(ID[0]);
    await hub.ship([destination]);
    const report = await hub.ship([destination], {}, withQuotaUsedUp(/\/probe/));
    const [error] = report.destinations[0]!.errors;
    assert.match(error!.message, /^Cannot go on with mkdir '.*\/ship\/probe.*': the disk quota is used up$/);
    assert.ok(hub.told.includes(`! ${error!.message}`), hub.told.join("\n"));
  });
});

Deno.test("a changed host key is an error that warns of somebody in between", async () => {
  await withStorage(async (hub, { sshd, destination }) => {
    hub.make(ID[0]);
    await sshd.restart({ newHostKey: true });
    const [storage] = (await hub.ship([destination])).destinations;
    assert.equal(storage!.errors[0]!.kind, "key");
    assert.match(storage!.errors[0]!.message, /shows another host key \(SHA256:/);
    assert.match(storage!.errors[0]!.hint!, /somebody may be in between/);
  });
});

Deno.test("a key that the far side does not know is an error that names it", async () => {
  await withStorage(async (hub, { destination }) => {
    hub.make(ID[0]);
    await newKey(`${hub.dir}/other`);
    const [storage] = (await hub.ship([{ ...destination, identityFile: `${hub.dir}/other` }])).destinations;
    assert.equal(storage!.errors[0]!.kind, "key");
    assert.match(storage!.errors[0]!.hint!, /authorized_keys/);
  });
});

Deno.test("a key file that is missing is an error that names it", async () => {
  await withStorage(async (hub, { destination }) => {
    hub.make(ID[0]);
    const [storage] = (await hub.ship([{ ...destination, identityFile: `${hub.dir}/none` }])).destinations;
    assert.equal(storage!.errors[0]!.kind, "key");
    assert.match(storage!.errors[0]!.message, /none/);
  });
});

Deno.test("the reading key used for shipping is an error that says so", async () => {
  await withStorage(async (hub, { sshd, destination }) => {
    hub.make(ID[0]);
    const [storage] = (await hub.ship([{ ...destination, identityFile: sshd.readKeyFile }])).destinations;
    assert.equal(storage!.errors[0]!.kind, "key");
    assert.match(storage!.errors[0]!.hint!, /use the other one/);
  });
});

Deno.test("a refused port is tried again, then reported, and does not stop the other destination", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[0]);
    const down = { ...destination, name: "down", port: freePort(), attempts: 3 };
    const report = await hub.ship([down, destination]);
    const [first, second] = report.destinations;
    assert.equal(first!.errors[0]!.kind, "network");
    assert.match(first!.errors[0]!.message, /refuses the connection/);
    assert.deepEqual(hub.pauses, [2.5, 7.5]);
    const again = (text: string) => `! ${first!.errors[0]!.message}; trying again in ${text}`;
    assert.deepEqual(
      hub.told.filter((text) => text.includes("trying again")),
      [again("3 s (1 of 3)"), again("8 s (2 of 3)")],
    );
    assert.deepEqual(report.fullWanted, [], "it can still be sent");
    assert.deepEqual(keysOf(second!.shipped), [`state/${ID[0]}`]);
    assert.deepEqual(await filesBelow(far), await filesBelow(`${hub.store}/home`));
    const error = unshippedError(report)!;
    assert.equal(error.kind, "unshipped");
    assert.match(error.message, new RegExp(`down: state/${ID[0]} not there`));
  });
});

Deno.test("a far side whose disk is not mounted is told so, gets nothing, and gets it all once it is", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[0]);
    await Deno.rename(far, `${far}.away`);
    const [storage] = (await hub.ship([destination])).destinations;
    await Deno.rename(`${far}.away`, far);
    assert.equal(storage!.errors[0]!.kind, "disk", storage!.errors[0]!.message);
    assert.match(storage!.errors[0]!.message, /folder on 127\.0\.0\.1 is not there, or is closed/);
    assert.match(storage!.errors[0]!.hint!, /mounted/);
    assert.deepEqual(await filesBelow(far), []);
    assert.deepEqual(keysOf((await hub.ship([destination])).destinations[0]!.shipped), [`state/${ID[0]}`]);
  });
});

Deno.test("what the far side has lost of the newest chain is sent again", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[0]);
    hub.make(ID[1], { needs: [ID[0]] });
    await hub.ship([destination]);
    await Deno.remove(`${far}/state/${ID[0]}/files.tar.zst.age`);
    const report = await hub.ship([destination]);
    assert.deepEqual(keysOf(report.destinations[0]!.vanished), [`state/${ID[0]}`]);
    assert.deepEqual(keysOf(report.destinations[0]!.shipped), [`state/${ID[0]}`]);
    assert.deepEqual(await filesBelow(far), await filesBelow(`${hub.store}/home`));
    assert.equal(unshippedError(report), undefined);

    // What cannot be looked at there, as in a folder that is closed, is not taken for lost, and in no other's way.
    await Deno.rename(`${far}/state/${ID[0]}`, `${far}/aside`);
    await Deno.symlink(ID[0], `${far}/state/${ID[0]}`);
    hub.make(ID[2]);
    const next = await hub.ship([destination]);
    assert.deepEqual(keysOf(next.destinations[0]!.shipped), [`state/${ID[2]}`]);
    assert.deepEqual(next.destinations[0]!.vanished, []);
    assert.match(
      unshippedError(next)!.message,
      /storage: cannot be asked whether it holds all \(.*Too many levels/,
    );
  });
});

Deno.test("a destination that was wiped gets all again that is here, also where a full comes next", async () => {
  await withStorage(async (hub, { far, destination }) => {
    const disk = `${hub.dir}/disk`;
    await Deno.mkdir(disk);
    const places: Destination[] = [destination, { kind: "folder", name: "disk", path: disk }];
    const ids = ID.slice(0, 3);
    for (const id of ids.slice(0, 2)) {
      hub.make(id);
      await hub.ship(places);
    }
    for (const folder of [`${far}/state`, `${disk}/home`]) await Deno.remove(folder, { recursive: true });
    hub.make(ids[2]!);
    for (const { name, shipped, waiting } of (await hub.ship(places)).destinations) {
      assert.deepEqual(keysOf(shipped), ids.map((id) => `state/${id}`), name);
      assert.deepEqual(waiting, []);
    }
    assert.deepEqual(await filesBelow(disk), await filesBelow(hub.store));
  });
});

Deno.test("a part of an older chain that the far side has lost is sent again, and what its retention removed is not", async () => {
  await withStorage(async (hub, { far, destination }) => {
    const disk = `${hub.dir}/disk`;
    await Deno.mkdir(disk);
    const places: Destination[] = [destination, { kind: "folder", name: "disk", path: disk }];
    for (const id of ID.slice(0, 4)) hub.make(id);
    await hub.ship(places);
    for (const state of [`${far}/state`, `${disk}/home/state`]) {
      await Deno.remove(`${state}/${ID[0]}`, { recursive: true });
      await Deno.remove(`${state}/${ID[1]}/files.tar.zst.age`);
      await Deno.writeTextFile(`${state}/${ID[2]}/files.tar.zst.age`, "cut");
    }

    const report = await hub.ship(places);
    for (const { name, vanished, shipped, waiting } of report.destinations) {
      assert.deepEqual(keysOf(vanished), [`state/${ID[1]}`, `state/${ID[2]}`], name);
      assert.deepEqual(keysOf(shipped), [`state/${ID[1]}`], name);
      assert.deepEqual(keysOf(waiting), [`state/${ID[2]}`], "nothing is written over");
    }
    assert.deepEqual(report.fullWanted, []);
    assert.match(unshippedError(report)!.hint!, /set that snapshot's folder (there )?aside, then ship again/);
    assert.ok(hub.told.includes(`! storage no longer holds all of state/${ID[1]}, which it once confirmed`));

    for (const state of [`${far}/state`, `${disk}/home/state`]) {
      await Deno.rename(`${state}/${ID[2]}`, `${hub.dir}/aside`);
      await Deno.remove(`${hub.dir}/aside`, { recursive: true });
    }
    const mended = await hub.ship(places);
    assert.equal(unshippedError(mended), undefined);
    for (const { shipped } of mended.destinations) assert.deepEqual(keysOf(shipped), [`state/${ID[2]}`]);
    assert.deepEqual(
      await filesBelow(`${far}/state/${ID[1]}`),
      await filesBelow(`${hub.store}/home/state/${ID[1]}`),
    );
  });
});

Deno.test("a chain that can be completed neither there nor from here asks for a new full, until there is one", async () => {
  await withStorage(async (hub, { far, destination }) => {
    const full = hub.make(ID[0]);
    hub.make(ID[1], { needs: [ID[0]] });
    await hub.ship([destination]);
    await Deno.remove(full, { recursive: true });

    // Gone here and kept there is fine.
    const marker = fullWantedFile(hub.stateFolder, "state" as never);
    assert.deepEqual((await hub.ship([destination])).fullWanted, []);

    await Deno.remove(`${far}/state/${ID[0]}`, { recursive: true });
    hub.make(ID[2], { needs: [ID[0], ID[1]] });
    const report = await hub.ship([destination]);
    assert.deepEqual(report.fullWanted, ["state"]);
    assert.match(await Deno.readTextFile(marker), new RegExp(`storage lacks state/${ID[0]}`));
    assert.deepEqual(
      keysOf(report.destinations[0]!.shipped),
      [`state/${ID[2]}`],
      "the increment goes all the same",
    );

    // A destination that cannot be asked clears no marker.
    const down: Destination = { kind: "folder", name: "storage", path: `${hub.dir}/unmounted` };
    await hub.ship([down]);
    assert.ok(await Deno.stat(marker));

    hub.make(ID[3]);
    assert.deepEqual((await hub.ship([destination])).fullWanted, []);
    await assert.rejects(Deno.stat(marker), Deno.errors.NotFound);
  });
});

Deno.test("a snapshot that rotted in the local store is sent nowhere", async () => {
  await withStorage(async (hub, { far, destination }) => {
    const folder = hub.make(ID[0]);
    await Deno.writeFile(`${folder}/files.tar.zst.age`, new Uint8Array(2_000));
    const report = await hub.ship([destination]);
    assert.deepEqual(keysOf(report.damaged), [`state/${ID[0]}`]);
    assert.deepEqual(report.fullWanted, ["state"], "nothing could build on it there");
    const { message, hint } = unshippedError(report)!;
    assert.match(message, /is damaged in the local store/);
    assert.match(hint!, /^take a new full snapshot: `hapi-backup backup --set state --full`[^;]*$/);
    assert.deepEqual(await filesBelow(far), []);
  });
});

Deno.test("folders without a seal are skipped with a warning; one whose seal is damaged, or a set that cannot be read, is no success", async () => {
  await withStorage(async (hub, { far, destination }) => {
    hub.make(ID[1]);
    const unsealed = hub.make(ID[0]);
    await Deno.remove(`${unsealed}/seal.json`);
    const report = await hub.ship([destination]);
    assert.deepEqual(keysOf(report.destinations[0]!.shipped), [`state/${ID[1]}`]);
    assert.ok(hub.told.some((text) => text.includes(`! state/${ID[0]} is not shipped`)));
    assert.equal(unshippedError(report), undefined, "it is none");
    await assert.rejects(Deno.stat(`${far}/state/${ID[0]}`), Deno.errors.NotFound);
    await Deno.writeTextFile(`${unsealed}/seal.json`, "{");
    const damaged = await hub.ship([destination]);
    assert.deepEqual([keysOf(damaged.damaged), damaged.destinations[0]!.waiting], [[`state/${ID[0]}`], []]);
    assert.match(
      unshippedError(damaged)!.message,
      new RegExp(`state/${ID[0]} is damaged in the local store`),
    );
    const unread = [{ set: "voice" as SetName, problem: "it is not a folder" }];
    assert.match(unshippedError({ ...report, unread })!.message, /set voice cannot be read/);
  });
});

Deno.test("a destination that was given another place under the same name gets everything again", async () => {
  await withHub(async (hub) => {
    // Two chains, and the other place holds the newer: what is gone there of the older could be its retention's doing.
    hub.make(ID[0]);
    hub.make(ID[1]);
    const newer = `home/state/${ID[1]}`;
    copySync(`${hub.store}/${newer}`, `${hub.dir}/two/${newer}`);
    for (const disk of ["one", "two"]) {
      await Deno.mkdir(`${hub.dir}/${disk}`, { recursive: true });
      await hub.ship([{ kind: "folder", name: "disk", path: `${hub.dir}/${disk}` }]);
      assert.deepEqual(await filesBelow(`${hub.dir}/${disk}`), await filesBelow(hub.store));
    }
  });
});

Deno.test("a folder on the same disk gets a copy, and does not count as off the box", async () => {
  await withHub(async (hub) => {
    hub.make(ID[0]);
    await Deno.mkdir(`${hub.dir}/a disk`);
    const disk = [{ kind: "folder", name: "disk", path: `${hub.dir}/a disk` }] as const;
    const report = await hub.ship(disk);
    assert.deepEqual(await filesBelow(`${hub.dir}/a disk`), await filesBelow(hub.store));
    assert.equal(report.destinations[0]!.offBox, false);
    assert.equal(unshippedError(report)!.kind, "unshipped");
    assert.match(unshippedError(report)!.message, /disk is on this machine's own disk/);
    await Deno.rename(`${hub.dir}/a disk`, `${hub.dir}/taken away`);
    const unasked = unshippedError(await hub.ship(disk))!;
    assert.match(unasked.message, /: disk: cannot be asked whether it holds all \(.*there is no folder/);
    hub.make(ID[1]);
    const gone = await hub.ship(disk);
    assert.deepEqual(keysOf(gone.destinations[0]!.waiting), [`state/${ID[1]}`], "what it confirmed is there");
    const { message, hint } = unshippedError(gone)!;
    assert.doesNotMatch(message, /own disk/, "nobody knows where it will be mounted");
    assert.match(hint!, /^mount it/);
  });
});

Deno.test("a destination that is the local store, by whatever path, is an error and confirms nothing", async () => {
  await withHub(async (hub) => {
    hub.make(ID[0]);
    await Deno.symlink(hub.store, `${hub.dir}/link`);
    for (const path of [hub.store, `${hub.dir}/link`]) {
      const [disk] = (await hub.ship([{ kind: "folder", name: "disk", path }])).destinations;
      assert.equal(disk!.errors[0]?.kind, "config");
      assert.match(disk!.errors[0]!.message, /is the local store itself$/);
      assert.deepEqual(keysOf(disk!.waiting), [`state/${ID[0]}`]);
      await assert.rejects(hub.record("disk"), Deno.errors.NotFound);
    }
  });
});

Deno.test("an rclone remote that is the local store, by whatever path, is an error and confirms nothing", async () => {
  await withHub(async (hub) => {
    hub.make(ID[0]);
    await Deno.symlink(hub.store, `${hub.dir}/link`);
    const configFile = `${hub.dir}/rclone.conf`;
    await Deno.writeTextFile(
      configFile,
      `[local]\ntype = local\n[alias]\ntype = alias\nremote = ${hub.store}\n` +
        `[chunks]\ntype = chunker\nremote = ${hub.store}\n`,
    );
    const before = await filesBelow(hub.store);
    for (const remote of [`local:${hub.store}`, `local:${hub.dir}/link`, "alias:", "chunks:"]) {
      const destinations: Destination[] = [{ kind: "rclone", name: "disk", remote, configFile, attempts: 1 }];
      const { store, stateFolder } = hub;
      if (remote === "chunks:") {
        const config = { hub: "home", store, stateFolder, destinations } as unknown as Config;
        const [finding] = await checkDestinations(hub.host, config, { sourceDevices: [], offline: false });
        assert.deepEqual([finding!.state, finding!.kind], ["fail", "config"]);
      }
      const [disk] = (await hub.ship(destinations)).destinations;
      assert.equal(disk!.errors[0]?.kind, "config", remote);
      assert.match(disk!.errors[0]!.message, /is the local store itself$/);
      assert.deepEqual(keysOf(disk!.waiting), [`state/${ID[0]}`]);
      await assert.rejects(hub.record("disk"), Deno.errors.NotFound);
    }
    assert.deepEqual(await filesBelow(hub.store), before);
  });
});

Deno.test("a mount that is missing is an error, and its folder is not made", async () => {
  await withHub(async (hub) => {
    hub.make(ID[0]);
    const path = `${hub.dir}/not mounted`;
    const [disk] = (await hub.ship([{ kind: "folder", name: "disk", path }])).destinations;
    assert.equal(disk!.errors[0]!.kind, "disk");
    assert.match(disk!.errors[0]!.hint!, /mount it/);
    await assert.rejects(Deno.stat(path), Deno.errors.NotFound);
  });
});

Deno.test("a folder destination that holds something else is an error, and a missing file is filled in", async () => {
  await withHub(async (hub) => {
    hub.make(ID[0]);
    const path = `${hub.dir}/disk`;
    await Deno.mkdir(path);
    const destination: Destination = { kind: "folder", name: "disk", path };
    // A crash left this behind.
    await Deno.mkdir(`${path}/home/state/.incoming-${ID[0]}/half`, { recursive: true });
    await hub.ship([destination]);
    assert.deepEqual(await filesBelow(path), await filesBelow(hub.store));
    await Deno.remove(`${path}/home/state/${ID[0]}/files.tar.zst.age`);
    await hub.ship([destination]);
    assert.deepEqual(await filesBelow(path), await filesBelow(hub.store));

    for (const name of ["files.tar.zst.age", "seal.json", "seal.json.sig"]) {
      await Deno.remove(`${hub.stateFolder}/ship`, { recursive: true });
      const file = `${path}/home/state/${ID[0]}/${name}`;
      const before = await Deno.readFile(file);
      await Deno.writeFile(file, before.map((byte, index) => index === 5 ? byte ^ 1 : byte));
      const { destinations: [disk] }: ShipReport = await hub.ship([destination]);
      assert.deepEqual(
        [disk!.errors[0]?.kind, keysOf(disk!.waiting)],
        ["integrity", [`state/${ID[0]}`]],
        name,
      );
      await Deno.writeFile(file, before);
    }
  });
});

Deno.test({
  name: "a full disk of a folder destination is an error that leaves nothing half there",
  ignore: Deno.uid() !== 0,
  fn: async () => {
    await withHub(async (hub) => {
      const path = `${hub.dir}/tiny`;
      await Deno.mkdir(path);
      await using _disk = await mountTmpfs(path, "size=1m");
      hub.make(ID[0]);
      hub.make(ID[1], { parts: { "files.tar.zst.age": 2 << 20 } });
      const report = await hub.ship([{ kind: "folder", name: "tiny", path }]);
      const [tiny] = report.destinations;
      assert.ok(tiny!.offBox, "another device");
      assert.deepEqual(keysOf(tiny!.shipped), [`state/${ID[0]}`]);
      assert.equal(tiny!.errors[0]!.kind, "disk");
      assert.match(tiny!.errors[0]!.message, /the disk is full/);
      assert.ok((await filesBelow(path)).every(([file]) => file.startsWith(`home/state/${ID[0]}/`)));
    });
  },
});

Deno.test("without a destination nothing is off the box, however much is stored", async () => {
  await withHub(async (hub) => {
    hub.make(ID[0]);
    const error = unshippedError(await hub.ship([]))!;
    assert.equal(error.kind, "unshipped");
    assert.match(error.message, /1 snapshot is stored here, and no destination is configured/);
  });
});

/** Starts one of rclone's own servers on a folder, and configures a remote for it. */
async function withRclone(
  hub: Hub,
  protocol: "webdav" | "sftp",
  test: (rclone: { served: string; configFile: string; stop(): Promise<void> }) => Promise<void>,
): Promise<void> {
  const served = `${hub.dir}/served`;
  await Deno.mkdir(served, { recursive: true });
  const port = freePort();
  const server = new Deno.Command("rclone", {
    args: [
      "serve",
      protocol,
      `--addr=127.0.0.1:${port}`,
      "--dir-cache-time=0s",
      "--vfs-cache-mode=off",
      ...(protocol === "sftp" ? ["--user=u", "--pass=p"] : []),
      served,
    ],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let stopped = false;
  const stop = async () => {
    if (!stopped) server.kill("SIGTERM");
    stopped = true;
    await server.status;
  };
  try {
    for (let tries = 0;; tries++) {
      try {
        (await Deno.connect({ hostname: "127.0.0.1", port })).close();
        break;
      } catch (error) {
        if (tries > 1200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    const obscured = async (text: string) =>
      new TextDecoder().decode(
        (await new Deno.Command("rclone", { args: ["obscure", text] }).output()).stdout,
      ).trim();
    const configFile = `${hub.dir}/rclone.conf`;
    const remote = protocol === "webdav"
      ? ["type = webdav", `url = http://127.0.0.1:${port}`, "vendor = other"]
      : ["type = sftp", "host = 127.0.0.1", `port = ${port}`, "user = u", `pass = ${await obscured("p")}`];
    await Deno.writeTextFile(
      configFile,
      [
        "[far]",
        ...remote,
        "[crypted]",
        "type = crypt",
        "remote = far:crypted",
        `password = ${await obscured("secret")}`,
        "[near]",
        "type = alias",
        `remote = ${hub.dir}/near`,
        "[nearcrypted]",
        "type = crypt",
        "remote = near:x",
        `password = ${await obscured("secret")}`,
      ].join("\n") + "\n",
    );
    await test({ served, configFile, stop });
  } finally {
    await stop();
  }
}

for (const protocol of ["webdav", "sftp"] as const) {
  Deno.test(`ship() by rclone over ${protocol} confirms, refuses what differs, and tells when it is down`, async () => {
    await withHub(async (hub) => {
      await withRclone(hub, protocol, async ({ served, configFile, stop }) => {
        // A remote that has hashes, though of no file: then rclone calls files of one size the same, and exits with 0.
        const remote = await Deno.readTextFile(configFile);
        await Deno.writeTextFile(configFile, remote.replace("vendor = other", "vendor = owncloud"));
        hub.make(ID[0]);
        const destination: Destination = {
          kind: "rclone",
          name: "cloud",
          remote: "far:a store",
          configFile,
          attempts: 2,
        };
        const report = await hub.ship([destination]);
        assert.equal(unshippedError(report), undefined);
        assert.deepEqual(await filesBelow(`${served}/a store`), await filesBelow(hub.store));
        assert.equal((await hub.ship([destination])).destinations[0]!.bytes, 0);

        // The same size, another content, and no hash to tell by.
        await Deno.writeFile(
          `${served}/a store/home/state/${ID[0]}/files.tar.zst.age`,
          new Uint8Array(2_000),
        );
        await Deno.remove(`${hub.stateFolder}/ship`, { recursive: true });
        const changed = await hub.ship([destination]);
        assert.equal(changed.destinations[0]!.errors[0]!.kind, "integrity");

        await stop();
        hub.make(ID[1]);
        const down = await hub.ship([destination]);
        assert.equal(down.destinations[0]!.errors[0]!.kind, "network");
        assert.equal(hub.pauses.length, 1);
      });
    });
  });
}

Deno.test("a program that takes too long is a fault of the network only where it reaches out", async () => {
  const run = makeRun(() => {});
  const ended = (program: string, ...args: string[]) => run(program, args, { secondsMax: 0.2 });
  await assert.rejects(ended("sleep", "600"), {
    kind: "internal",
    message: /^Cannot finish sleep: it took longer/,
  });
  using server = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = server.addr;
  await assert.rejects(ended("ssh-keyscan", "-T", "600", "-p", `${port}`, "127.0.0.1"), { kind: "network" });
});

Deno.test("rclone gives up on a server that takes connections and never answers, or takes an upload and never says so", async () => {
  await withHub(async (hub) => {
    hub.make(ID[0]);
    const asked: string[] = [];
    const left: (() => void)[] = [];
    let hangs = true;
    /** A folder that is empty for ever: nothing that is sent to it is ever confirmed. */
    const swallow = ({ method }: Request): Response | Promise<Response> => {
      asked.push(method);
      if (method !== "PUT" && !hangs) return new Response(null, { status: method === "MKCOL" ? 201 : 404 });
      const { promise, resolve } = Promise.withResolvers<Response>();
      left.push(() => resolve(new Response()));
      return promise;
    };
    await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, swallow);
    using _answers = { [Symbol.dispose]: () => left.forEach((answer) => answer()) };
    const configFile = `${hub.dir}/rclone.conf`;
    await Deno.writeTextFile(
      configFile,
      `[far]\ntype = webdav\nurl = http://127.0.0.1:${server.addr.port}\n`,
    );
    const destination: Destination = {
      kind: "rclone",
      name: "cloud",
      remote: "far:s",
      configFile,
      attempts: 4,
    };
    // All as it is but the patience.
    const run: Host["run"] = (program, args, options) =>
      hub.host.run(program, [...args, "--timeout=1s"], options);
    const sleep = (): Promise<void> =>
      assert.fail("the whole is not tried again: rclone has waited long enough");
    const settings = { retry: (attempts: number) => ({ attempts, random: () => 0, sleep }) };
    const options = { hub: "home" as HubName, store: hub.store, stateFolder: hub.stateFolder };
    const sent = () => ship({ ...hub.host, run }, { ...options, destinations: [destination] }, settings);
    // The first question, then each of three files.
    for (const [what, tries] of [["PROPFIND", 2], ["PUT", 3 * 2]] as const) {
      const [{ errors, waiting }] = (await sent()).destinations as [DestinationReport];
      assert.match(errors[0]!.message, /the remote does not answer in time/);
      assert.deepEqual([errors.length, errors[0]!.kind, waiting.length], [1, "network", 1]);
      assert.equal(asked.filter((method) => method === what).length, tries, "tried twice, and no more");
      hangs = false;
      asked.length = 0;
    }
  });
});

Deno.test("a cut rclone upload, half under its final name without a seal, is sent again", async () => {
  await withHub(async (hub) => {
    await withRclone(hub, "webdav", async ({ served, configFile }) => {
      hub.make(ID[0]);
      const folder = `${served}/home/state/${ID[0]}`;
      await Deno.mkdir(folder, { recursive: true });
      await Deno.writeFile(`${folder}/files.tar.zst.age`, new Uint8Array(100));
      const destination: Destination = {
        kind: "rclone",
        name: "cloud",
        remote: "far:",
        configFile,
        attempts: 1,
      };
      assert.equal(unshippedError(await hub.ship([destination])), undefined);
      assert.deepEqual(await filesBelow(served), await filesBelow(hub.store));

      await Deno.remove(`${folder}/files.tar.zst.age`);
      const [again] = (await hub.ship([destination])).destinations;
      assert.deepEqual([keysOf(again!.vanished), keysOf(again!.shipped)], [[`state/${ID[0]}`], [
        `state/${ID[0]}`,
      ]]);
      assert.deepEqual(await filesBelow(served), await filesBelow(hub.store));

      // All as it is, but that rclone says nothing of what it compared.
      await Deno.remove(`${hub.stateFolder}/ship`, { recursive: true });
      const run: Host["run"] = (program, args, options) =>
        args.includes("check")
          ? Promise.resolve({ code: 0, stdout: "", stderr: "" })
          : hub.host.run(program, args, options);
      const { store, stateFolder } = hub;
      const options = { hub: "home" as HubName, store, stateFolder, destinations: [destination] };
      const [silent] = (await ship({ ...hub.host, run }, options)).destinations;
      assert.match(silent!.errors[0]!.message, /rclone does not say whether/);
      assert.deepEqual(keysOf(silent!.waiting), [`state/${ID[0]}`]);

      // Under a seal nothing is taken away.
      await Deno.remove(`${hub.stateFolder}/ship`, { recursive: true });
      await Deno.writeFile(`${folder}/files.tar.zst.age`, new Uint8Array(100));
      assert.equal((await hub.ship([destination])).destinations[0]!.errors[0]!.kind, "integrity");
      assert.equal((await Deno.stat(`${folder}/files.tar.zst.age`)).size, 100);
    });
  });
});

Deno.test("rclone through crypt is off the box over a network, and not over a folder of this disk", async () => {
  await withHub(async (hub) => {
    await withRclone(hub, "webdav", async ({ configFile }) => {
      hub.make(ID[0]);
      const rclone = (name: string, remote: string): Destination => ({
        kind: "rclone",
        name,
        remote,
        configFile,
        attempts: 1,
      });
      const { destinations } = await hub.ship([
        rclone("far", "crypted:"),
        rclone("near", "near:"),
        rclone("wrapped", "nearcrypted:"),
        rclone("unknown", "nothing:"),
      ]);
      assert.deepEqual(destinations.map(({ offBox }) => offBox).slice(0, 3), [true, false, false]);
      assert.deepEqual(destinations.map(({ shipped }) => shipped.length), [1, 1, 1, 0]);
      assert.equal(destinations[3]!.errors[0]!.kind, "config");
      // What was lost of the newest chain is noticed here too.
      await Deno.remove(`${hub.dir}/near/home/state/${ID[0]}/seal.json`);
      const again = await hub.ship([rclone("near", "near:")]);
      assert.deepEqual(keysOf(again.destinations[0]!.shipped), [`state/${ID[0]}`]);
    });
  });
});

Deno.test("parseVerdicts() takes silence for nothing", () => {
  const verdicts = parseVerdicts([
    "cd+++++++++ state/",
    "<f+++++++++ state/a",
    ".f          state/b",
    "<f.st...... state/c",
    "<fc........ state/d",
    "hf          state/e",
    "state/f exists (uptodate)",
    "state/g exists (sum change)",
    "state/h exists (attr change)",
    "state/i exists (type change)",
    "created directory x",
    "Literal data: 0 bytes",
  ].join("\n"));
  assert.deepEqual([...verdicts], [
    ["state/a", "sent"],
    ["state/b", "same"],
    ["state/c", "different"],
    ["state/d", "different"],
    ["state/e", "same"],
    ["state/f", "same"],
    ["state/g", "different"],
    ["state/h", "same"],
    ["state/i", "different"],
  ]);
});

Deno.test("parseRsyncTarget() refuses a daemon's module and a bare host", () => {
  assert.deepEqual(parseRsyncTarget("me@[fd7a::1]:/b/"), { user: "me", host: "fd7a::1", path: "/b" });
  assert.deepEqual(parseRsyncTarget("me@host:/"), { user: "me", host: "host", path: "/" });
  for (const text of ["me@host::module", "host:path", "me@-oProxyCommand=x:", "me@host", "-x@host:"]) {
    assert.throws(() => parseRsyncTarget(text), { kind: "config" }, text);
  }
});

Deno.test("sshCommand() takes nothing from the user's own configuration, agent or known hosts", () => {
  const command = sshCommand({ identityFile: "/k", knownHostsFile: "/h", port: 22, timeoutSeconds: 120 });
  for (
    const option of [
      "-F none",
      "IdentitiesOnly=yes",
      "IdentityAgent=none",
      "GlobalKnownHostsFile=/dev/null",
      "StrictHostKeyChecking=yes",
      "BatchMode=yes",
      "PasswordAuthentication=no",
      "UpdateHostKeys=no",
    ]
  ) assert.ok(command.includes(option), option);
  assert.equal(quoteForRsync("it's"), "'it''s'");
});

/** How a storage host would be reached. */
const ACCESS = {
  target: "me@host:",
  identityFile: "/k",
  knownHostsFile: "/h",
  port: 22,
  timeoutSeconds: 1,
};

Deno.test("ssh reads paths as they are, and gives up no later than the transfer over it", () => {
  const words = sshWords({
    ...ACCESS,
    identityFile: '/a "b" \\%h',
    knownHostsFile: "/%%",
    timeoutSeconds: 10,
  });
  const options = new Set(words);
  for (
    const option of [
      'IdentityFile="/a \\"b\\" \\\\%%h"',
      'UserKnownHostsFile="/%%%%"',
      ...["ConnectTimeout=10", "ServerAliveInterval=4"],
    ]
  ) assert.ok(options.has(option), `${option} of ${words}`);
  const patient = new Set(sshWords({ ...ACCESS, timeoutSeconds: 600 }));
  for (const option of ["ConnectTimeout=30", "ServerAliveInterval=15"]) {
    assert.ok(patient.has(option), option);
  }
});

Deno.test("a push reads both sides whole, changes nothing that is there, and keeps no half file in its last place", () => {
  const access = { ...ACCESS, bandwidthLimitKiBps: 7 };
  const common = ["-e", sshCommand(access), "--timeout=1", "--bwlimit=7", "--no-human-readable"];
  const named = ["--files-from=-", "--from0", "--itemize-changes", "--itemize-changes", "--info=skip2"];
  const push = (target: string, into: string, basis: readonly string[], keepPartial = false) => {
    const args = pushArgs({ ...access, target }, { source: "/store/home", into, basis, keepPartial });
    const at = args.indexOf("--no-inplace") + 1;
    assert.deepEqual(args.slice(0, at), [
      ...[...common, ...named, "--info=progress2", "--stats", "--ignore-existing", "--fsync"],
      ...["--perms", "--chmod=D2750,F0640", "--checksum", "--no-whole-file", "--no-inplace"],
    ]);
    assert.deepEqual(args.slice(-3, -1), ["--", "/store/home/"]);
    const [partial, ...links] = args.slice(at, -3);
    assert.equal(partial, keepPartial ? "--partial" : "--no-partial");
    return [args.at(-1), ...links.map((link) => link.replace(/^--link-dest=/, ""))];
  };
  assert.deepEqual(push("me@host:", "", []), ["me@host:"]);
  assert.deepEqual(push("me@host:", "", [".b", ".a"]), ["me@host:", "/.b", ".b", "/.a", ".a"]);
  assert.deepEqual(push("me@host:", ".c", [".b"], true), ["me@host:.c/", "/", "/.b"]);
  assert.deepEqual(push("me@[::1]:/s/", ".c", [".b"], true), ["me@[::1]:/s/.c/", "/s/", "/s/.b"]);
  assert.deepEqual(push("me@host:/", ".c", [], true), ["me@host:/.c/", "/"]);
  assert.deepEqual(push("me@host:s", "", [".b"]), ["me@host:s/", "/s/.b", ".b"]);
  const many = Array.from({ length: 30 }, (_, index) => `.${index}`);
  assert.equal(push("me@host:", ".c", many, true).length, 1 + 20, "rsync takes no more");

  const compare = (by: "checksum" | "size") => compareArgs(access, "/store/home", by);
  for (const [by, flag] of [["checksum", "--checksum"], ["size", "--size-only"]] as const) {
    assert.deepEqual(compare(by), [...common, ...named, "--dry-run", flag, "--", "/store/home/", "me@host:"]);
  }
  const safely = [
    "--no-links",
    "--safe-links",
    "--no-devices",
    "--no-specials",
    "--no-hard-links",
    "--no-inc-recursive",
  ];
  assert.deepEqual(pullArgs(access, "/scratch", 9), [
    ...[
      ...common,
      ...named.slice(0, 2),
      ...safely,
      "--info=progress2",
      "--ignore-missing-args",
      "--no-perms",
    ],
    ...["--chmod=D0700,F0600", "--checksum", "--max-size=9", "--", "me@host:", "/scratch/"],
  ]);
});

Deno.test("every documented exit code of rsync has a meaning", () => {
  for (
    const code of [1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24, 25, 30, 35, 255]
  ) {
    const { error } = explainRsyncFailure("ship", ACCESS, { code, stderr: "" });
    assert.ok(error instanceof BackupError && error.hint);
    assert.doesNotMatch(error.message, /not documented/, `${code}`);
  }
  assert.match(explainRsyncFailure("ship", ACCESS, { code: 77, stderr: "" }).error.message, /not documented/);
  const all = Array.from({ length: 256 }, (_, code) => code);
  const retried = all.filter((code) => explainRsyncFailure("ship", ACCESS, { code, stderr: "" }).retry);
  const hopeless = [1, 2, 3, 4, 6, 11, 13, 22, 24, 25, 127];
  assert.deepEqual(all.filter((code) => !retried.includes(code)), hopeless, "no other try can mend these");
  const ofKind = (kind: string) =>
    all.filter((code) => explainRsyncFailure("ship", ACCESS, { code, stderr: "" }).error.kind === kind);
  assert.deepEqual(["config", "disk", "source", "internal"].map(ofKind), [
    [1, 2, 3, 4, 6, 25, 127],
    [11],
    [24],
    [13, 14, 15, 16, 21, 22],
  ]);
  const stderr = "ssh: Could not resolve hostname host: Name or service not known\n";
  assert.equal(explainRsyncFailure("ship", ACCESS, { code: 255, stderr }).retry, true);
});

Deno.test("where rsync finds no ssh, that is told with its remedy, and not tried again", async () => {
  const rsync = (await output("sh", ["-c", "command -v rsync"])).trim();
  const run = makeRun(() => {});
  const { code, stderr } = await run(rsync, ["-e", "ssh", "me@host:"], { env: { PATH: "/nonexistent" } });
  const { error, retry } = explainRsyncFailure("ship", ACCESS, { code, stderr });
  assert.deepEqual([error.message, error.kind, retry], ["Cannot ship: ssh is not installed", "usage", false]);
  assert.match(error.hint!, /apt-get install openssh-client/);
});

Deno.test("a used up quota of the far side, and an rrsync without its Python, are told with their remedies", () => {
  const explained = (code: number, stderr: string) => {
    const { error, retry } = explainRsyncFailure("ship", ACCESS, { code, stderr });
    return [error.message, error.kind, retry, /^[\w ]+/.exec(error.hint!)![0]];
  };
  const used = ["Cannot ship: the disk quota of me on host is used up", "disk", false, "raise it there "];
  for (const doing of ["mkstemp", "write failed on", "recv_generator: mkdir"]) {
    assert.deepEqual(explained(11, `rsync: [receiver] ${doing} "/s/x": Disk quota exceeded (122)\n`), used);
  }
  const missing = [
    "Cannot ship: rrsync cannot be started on host",
    "config",
    false,
    "install rsync and python3 there",
  ];
  for (
    const said of [
      "sh: 1: /usr/bin/rrsync: not found",
      "bash: line 1: /usr/bin/rrsync: cannot execute: required file not found",
      "bash: line 1: /usr/bin/rrsync: No such file or directory",
      "env: 'python3': No such file or directory",
      "/usr/bin/env: ‘python3’: No such file or directory",
      "/usr/bin/env: python3: No such file or directory",
    ]
  ) assert.deepEqual(explained(12, `${said}\nrsync: connection unexpectedly closed\n`), missing);
});

Deno.test("what ssh, rsync and rrsync say decides what is told, whether it is tried again, and what to do", () => {
  const cases: [said: string, kind: string, retry: boolean, state: string, hint: RegExp][] = [
    [
      "Host key verification failed.",
      "key",
      false,
      "the host key of host port 22 is not pinned in /h",
      /ssh-keyscan/,
    ],
    [
      "No ED25519 host key is known for host and you have requested strict checking.",
      "key",
      false,
      "the host key of host port 22 is not pinned in /h",
      /ssh-keyscan -p 22 host >> '\/h'/,
    ],
    [
      "Host key for host has changed and you have requested strict checking.\nHost key verification failed.",
      "key",
      false,
      "host port 22 shows another host key (an unknown fingerprint) than the one pinned in /h",
      /ssh-keygen -R 'host' -f '\/h'/,
    ],
    [
      "Permissions 0644 for '/k' are too open.\n@ WARNING: UNPROTECTED PRIVATE KEY FILE! @\nme@host: Permission denied (publickey).",
      "key",
      false,
      "key /k cannot be used (@ WARNING: UNPROTECTED PRIVATE KEY FILE! @)",
      /mode 0600/,
    ],
    [
      'Load key "/k": error in libcrypto\nme@host: Permission denied (publickey).',
      "key",
      false,
      'key /k cannot be used (Load key "/k": error in libcrypto)',
      /without a passphrase/,
    ],
    [
      "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
      "key",
      false,
      "me on host port 22 does not accept key /k",
      /authorized_keys/,
    ],
    [
      "ssh: connect to host host port 22: Connection refused",
      "network",
      true,
      "host port 22 refuses the connection",
      /sshd/,
    ],
    [
      "ssh: Could not resolve hostname host: Name or service not known",
      "network",
      true,
      "the name host cannot be resolved",
      /DNS/,
    ],
    [
      "ssh: connect to host host port 22: Connection timed out",
      "network",
      true,
      "host port 22 does not answer",
      /VPN/,
    ],
    [
      "ssh: connect to host host port 22: No route to host",
      "network",
      true,
      "host port 22 does not answer",
      /VPN/,
    ],
    [
      "ssh: connect to host host port 22: Network is unreachable",
      "network",
      true,
      "host port 22 does not answer",
      /VPN/,
    ],
    ["Timeout, server host not responding.", "network", true, "host port 22 does not answer", /VPN/],
    [
      "Another instance of rrsync is already accessing this directory.",
      "network",
      true,
      "another transfer into that folder is still running on host",
      /run it again/,
    ],
    [
      "Traceback (most recent call last):\nPermissionError: [Errno 13] Permission denied: '/s'",
      "disk",
      false,
      "the hub's folder on host is not there, or is closed",
      /mounted/,
    ],
    [
      "rrsync error: option -L has been disabled on this server.",
      "config",
      false,
      'the far side says "option -L has been disabled on this server."',
      /3\.5 or newer/,
    ],
    [
      "rrsync error: sending to read-only server is not allowed",
      "key",
      false,
      'the far side says "sending to read-only server is not allowed"',
      /use the other one/,
    ],
    [
      'rsync: [receiver] write failed on "/s/x": No space left on device (28)',
      "disk",
      false,
      "the disk of host is full",
      /retain --apply/,
    ],
    [
      'rsync: [receiver] mkstemp "/s/x" failed: Read-only file system (30)',
      "disk",
      false,
      "the disk of host is read-only",
      /system log/,
    ],
    [
      "protocol version mismatch -- is your shell clean?",
      "config",
      false,
      "something on host prints before rsync does",
      /\.bashrc/,
    ],
    [
      `rrsync error: ${"x".repeat(100_000)}`,
      "config",
      false,
      `the far side says "${"x".repeat(200)}"`,
      /3\.5 or newer/,
    ],
    [
      `rsync: ${"x".repeat(100_000)}`,
      "network",
      true,
      `rsync ended with 23 (some files were not transferred): rsync: ${"x".repeat(292)}…`,
      /run it again/,
    ],
    // This is not ssh's: the key was let in.
    [
      'rsync: [receiver] mkstemp "/s/x" failed: Permission denied (13)\nrsync error: some files (code 23)',
      "network",
      true,
      'rsync ended with 23 (some files were not transferred): rsync: [receiver] mkstemp "/s/x" failed: Permission denied (13)',
      /run it again/,
    ],
  ];
  for (const [stderr, kind, retry, state, hint] of cases) {
    const told = explainRsyncFailure("ship", ACCESS, { code: 23, stderr: `${stderr}\n` });
    assert.deepEqual([told.error.message, told.error.kind, told.retry], [
      `Cannot ship: ${state}`,
      kind,
      retry,
    ]);
    assert.match(told.error.hint!, hint);
  }
  const changed = "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nSHA256:abc/+1.\n";
  const { error } = explainRsyncFailure("ship", { ...ACCESS, port: 2222 }, { code: 255, stderr: changed });
  assert.match(error.message, /host port 2222 shows another host key \(SHA256:abc\/\+1\)/);
  assert.match(error.hint!, /ssh-keygen -R '\[host\]:2222' -f '\/h'.*ssh-keyscan -p 2222 host/);
});

Deno.test("pauses grow threefold, are spread by half, and end at five minutes", () => {
  assert.deepEqual([1, 2, 3, 4, 5, 9].map((attempt) => pauseSeconds(attempt, 1)), [5, 15, 45, 135, 300, 300]);
  assert.equal(pauseSeconds(1, 0), 2.5);
});

Deno.test("an interruption is heard while a pause lasts, and at its end", async () => {
  const { setTimeout } = globalThis;
  let waits: number[] = [];
  globalThis.setTimeout = ((done: () => void, ms: number) => {
    waits.push(ms);
    queueMicrotask(done);
  }) as typeof setTimeout;
  try {
    const all = [100, 100, 50];
    for (const [looksMax, waited] of [[0, []], [2, all.slice(0, 2)], [3, all], [4, all]] as const) {
      let looks = 0;
      const checkpoint = () => {
        if (looks++ === looksMax) throw new Error("interrupted");
      };
      const { sleep } = realRetry({ checkpoint } as Host, 3);
      waits = [];
      if (looksMax < 4) await assert.rejects(sleep(0.25), /interrupted/);
      else await sleep(0.25);
      assert.deepEqual(waits, waited);
    }
  } finally {
    globalThis.setTimeout = setTimeout;
  }
});

Deno.test("ship() reads the storage host's receipt, and starts over what was found damaged", async () => {
  await withStorage(async (hub, { far, sshd, destination }) => {
    const storageHost = makeSigner();
    const reading: RsyncOptions = {
      ...destination,
      readIdentityFile: sshd.readKeyFile,
      receiptSigners: [storageHost.publicKey],
    };
    const marker = `${hub.stateFolder}/ship/full-wanted-state`;
    const writeReceipt = async (
      time: string,
      { fullWanted = true, hubName = "home", by = storageHost, problem = "files.tar.zst.age is rotten" } = {},
    ) => {
      const set = { newestVerified: null, problems: [problem], fullWanted };
      const sets = new Map([["state" as SetName, set]]);
      const text = serializeReceipt({ hub: hubName as HubName, time: new Date(time), sets });
      await Deno.writeTextFile(`${far}/${RECEIPT_FILE}`, text);
      const signature = signSsh(by.seed, RECEIPT_NAMESPACE, new TextEncoder().encode(text));
      await Deno.writeTextFile(`${far}/${RECEIPT_SIGNATURE_FILE}`, signature);
    };
    const isThere = (path: string) => Deno.lstat(path).then(() => true, () => false);
    hub.make(ID[0]);

    const without = await hub.ship([reading]);
    assert.equal(without.destinations[0]!.receipt, undefined, "no receipt yet is no error");
    assert.equal(unshippedError(without), undefined);

    await writeReceipt("2026-03-04T12:00:00Z");
    const damaged = await hub.ship([reading]);
    assert.deepEqual(damaged.destinations[0]!.receipt?.sets.state?.problems, ["files.tar.zst.age is rotten"]);
    assert.deepEqual(damaged.fullWanted, ["state"]);
    assert.match(await Deno.readTextFile(marker), /found the chain damaged/);
    assert.ok(hub.told.some((line) => line.includes("is rotten")), "the operator is told");

    // A full that is newer than the receipt answers it; what is older does not.
    await writeReceipt("2026-01-01T00:00:00Z");
    assert.deepEqual((await hub.ship([reading])).fullWanted, []);
    assert.equal(await isThere(marker), false);

    for (const forged of [{ by: makeSigner() }, { hubName: "another" }]) {
      await writeReceipt("2026-03-04T13:00:00Z", forged);
      const report = await hub.ship([reading]);
      assert.equal(report.destinations[0]!.receipt, undefined);
      assert.deepEqual(report.fullWanted, []);
      assert.match(hub.told.at(-1)!, /receipt/);
      assert.equal(unshippedError(report), undefined, "what is confirmed stays confirmed");
    }

    const withoutRoom = await hub.ship([reading], {}, withQuotaUsedUp(/\.pulled$/));
    assert.match(hub.told.at(-1)!, /^! Cannot go on with mkdir '.*\.pulled': the disk quota is used up$/);
    assert.equal(unshippedError(withoutRoom), undefined, "it was all there before");

    // An older snapshot is sent again if the storage host misses it, and not if it says nothing of it.
    hub.make(ID[1]);
    hub.make(ID[2]);
    const problem = `${ID[1]}: it was here, and this host did not remove it`;
    await writeReceipt("2026-03-04T14:00:00Z", { fullWanted: false, problem });
    await hub.ship([reading]);
    for (const id of [ID[0], ID[1]]) await Deno.remove(`${far}/state/${id}`, { recursive: true });
    const [again] = (await hub.ship([reading])).destinations;
    assert.deepEqual(keysOf(again!.shipped), [`state/${ID[1]}`]);
    assert.deepEqual(
      (await hub.ship([reading])).destinations[0]!.shipped,
      [],
      "once, whatever the receipt says",
    );
  });
});

Deno.test("what rclone says of an object store is told whole, and a bucket that is not there is no fault of the network", () => {
  const said = (stderr: string) => explainRcloneFailure("ship", "s3:b", { code: 1, stderr }).error;
  const denied = said(
    "2026/11/29 01:50:18 ERROR : seal.json: Failed to copy: x\n" +
      "2026/11/29 01:50:18 Failed to copy: AccessDenied: not yours\n\tstatus code: 403, request id: 1, host id: 2\n",
  );
  assert.equal(denied.kind, "key");
  assert.match(
    denied.message,
    /\(s3:b: Failed to copy: AccessDenied: not yours status code: 403, request id: 1, /,
  );
  const none = said(
    "2026/11/29 01:50:18 Failed to copy: NoSuchBucket: none\n\tstatus code: 404, request id: \n",
  );
  assert.equal(none.kind, "config");
  // A line that is just coming up is tried again; a server that took the connection and says nothing is not.
  const waits = (reason: string) =>
    explainRcloneFailure("ship", "s3:b", {
      code: 1,
      stderr: `2026/11/29 01:50:18 Failed to copy: ${reason}\n`,
    })
      .retry;
  assert.ok(waits("dial tcp 10.0.0.1:443: i/o timeout"));
  assert.ok(
    waits("dial tcp: lookup host on 127.0.0.53:53: read udp 127.0.0.1:1->127.0.0.53:53: i/o timeout"),
  );
  assert.ok(!waits("read tcp 10.0.0.2:5->10.0.0.1:443: i/o timeout"));
  assert.ok(!waits("write tcp 10.0.0.2:5->10.0.0.1:443: use of closed network connection"));
  const causes: [said: string, kind: string, retry: boolean, state: RegExp][] = [
    [`didn't find section in config file ("b2")`, "config", false, /does not know that remote/],
    ['Config file "/r.conf" not found - using defaults', "config", false, /does not know that remote/],
    ["unable to decrypt configuration: most likely wrong password", "config", false, /is encrypted/],
    [
      "Source and destination exist but do not match: immutable file modified",
      "integrity",
      false,
      /not overwritten/,
    ],
    ["max transfer limit reached as set by --max-transfer", "integrity", false, /more than it said/],
    ["error in ListJSON: directory not found", "config", false, /no such bucket or folder/],
    ["InvalidObjectState: not valid for its storage class\n\tstatus code: 403", "config", false, /archive/],
    ["ssh: handshake failed: knownhosts: key mismatch", "key", false, /host key is not the one/],
    ["ssh: handshake failed: ssh: unable to authenticate", "key", false, /refuses our credentials/],
    ["Enter configuration password:", "config", false, /is encrypted/],
    ["Unauthorized", "key", false, /refuses our credentials/],
    ["googleapi: Error 401: x", "key", false, /refuses our credentials/],
    ["AccessDenied: x", "key", false, /refuses our credentials/],
    ["response: forbidden", "key", false, /refuses our credentials/],
    ["InvalidAccessKeyId: none", "key", false, /refuses our credentials/],
    ["SignatureDoesNotMatch: x", "key", false, /refuses our credentials/],
    ["Error 403: x", "key", false, /refuses our credentials/],
    ["The user's storage quota has been exceeded", "disk", false, /is full/],
    ["mkdir /b: permission denied", "key", false, /refuses our credentials/],
    ["write /b/x: no space left on device", "disk", false, /is full/],
    ["507 Insufficient Storage", "disk", false, /is full/],
    ["insufficientStorage: x", "disk", false, /is full/],
    ["Quota Exceeded", "disk", false, /is full/],
    ["dial tcp 10.0.0.1:443: connect: connection refused", "network", true, /cannot be reached/],
    ["unexpected EOF", "network", true, /cannot be reached/],
    ["Dial tcp 10.0.0.1:443: I/O Timeout", "network", true, /cannot be reached/],
    ["lookup x: no such host", "network", true, /cannot be reached/],
    ["connect: network is unreachable", "network", true, /cannot be reached/],
    ["connect: no route to host", "network", true, /cannot be reached/],
    ["read: Connection reset by peer", "network", true, /cannot be reached/],
    ["Gateway Timeout", "network", true, /cannot be reached/],
    ["net/http: TLS Handshake timeout", "network", false, /does not answer in time/],
    ["context deadline exceeded", "network", false, /does not answer in time/],
    ["net/http: timeout awaiting response headers", "network", false, /does not answer in time/],
  ];
  for (const [reason, kind, retry, state] of causes) {
    const stderr = `2026/11/29 01:50:18 Failed to copy: ${reason}\n`;
    // No part of this name is looked for in what is said: too much would be taken for it.
    const told = explainRcloneFailure("ship", "s3:i/o/", { code: 3, stderr });
    assert.deepEqual([told.error.kind, told.retry], [kind, retry], reason);
    assert.match(told.error.message, state);
    assert.doesNotMatch(told.error.message, /rclone ended/);
  }
  const again = (code: number) => explainRcloneFailure("ship", "s3:b", { code, stderr: "" }).retry;
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 8].filter(again), [1, 2, 5, 6]);
  const name = "s3:geoffrey-backups/site-403";
  const failed =
    "2026/11/29 01:50:18 Failed to copy: geoffrey-backups/site-403: 500 since 2026/11/29 01:00:00 UTC\n";
  const { error: unknown } = explainRcloneFailure("ship", name, { code: 1, stderr: `x: y\n${failed}` });
  const said500 = "Failed to copy: geoffrey-backups/site-403: 500 since 2026/11/29 01:00:00 UTC";
  assert.equal(
    unknown.message,
    `Cannot ship: rclone ended with 1 (${name}: ${said500})`,
    "a name is no reason",
  );
  assert.equal(unknown.kind, "network");
  assert.match(unknown.hint!, /rclone lsf 's3:geoffrey-backups\/site-403'/);
  const ended = explainRcloneFailure("ship", name, { code: 143, signal: "SIGTERM", stderr: "" }).error;
  assert.match(ended.message, /rclone ended with SIGTERM/);
});
