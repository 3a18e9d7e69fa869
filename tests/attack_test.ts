/**
 * A hub in an attacker's hands, against a real sshd and rrsync: what each attack comes to, and what the host says.
 *
 * The attacker has the hub's SSH key (through the very line that `storage authorize` prints) and, where a test says
 * so, its signing key. After each attack every byte of what was good is as it was, and scrub still calls it good.
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import process from "node:process";
import { fingerprintOf, publicKeyOf } from "../scripts/core/keys/openssh_key.ts";
import { signSsh } from "../scripts/core/keys/sshsig.ts";
import {
  FILES_PART,
  type HubName,
  MAIN_SET,
  type PartName,
  SEAL_FILE,
  SIGNATURE_FILE,
  type SnapshotId,
  snapshotIdAt,
} from "../scripts/core/names.ts";
import { verifyReceipt } from "../scripts/core/shipping/receipt.ts";
import { SEAL_NAMESPACE, serializeSeal } from "../scripts/core/snapshot/seal.ts";
import type { StorageConfig } from "../scripts/core/storage_host/storage_config.ts";
import { DAY_MS, HOUR_MS } from "../scripts/core/time.ts";
import { scrub, type ScrubReport } from "../scripts/scrub.ts";
import { authorize, storageStatus } from "../scripts/storage.ts";
import { watch } from "../scripts/watch.ts";
import { namesIn } from "./real/files.ts";
import {
  arriveOneByOne,
  HUB,
  makeReceiptKey,
  makeSigner,
  makeStorageHost,
  retainAll,
  type Signer,
  type StorageHost,
  timesUntil,
  writeHistory,
  writeSnapshot,
  type Written,
} from "./real/signed_store.ts";
import { newKey, type Sshd, startSshd } from "./real/sshd.ts";

const OTHER = "other" as HubName;
const GOOD_COUNT = 6;

interface Attack {
  readonly storage: StorageHost;
  readonly config: StorageConfig;
  /** The hub's own good snapshots. */
  readonly good: readonly Written[];
  readonly otherSigner: Signer;
  readonly other: readonly Written[];
  readonly sshd: Sshd;
  /** Where the attacker prepares what they send. */
  readonly local: string;
  /** Runs rsync with the hub's key. `host:` stands for the storage host. */
  rsync(...args: readonly string[]): Promise<Result>;
  /** Runs a program with the hub's key on the storage host. */
  ssh(...args: readonly string[]): Promise<Result>;
  /** Fails unless all that was good is there, byte for byte, and scrub calls it good. */
  stillGood(): Promise<ScrubReport>;
}

interface Result {
  readonly code: number;
  readonly text: string;
}

async function underAttack(work: (attack: Attack) => Promise<void>): Promise<void> {
  const otherSigner = makeSigner();
  using storage = makeStorageHost();
  const { root, store, signer, host } = storage;
  const rrsync = (await run("sh", ["-c", "command -v rrsync"])).text.trim();
  const retention = { keepWithinDays: 2, keepDaily: 30, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 3 };
  const first = storage.withConfig({ rrsync, retention }, { snapshotsPerDayMax: 24 });
  const others = storage.withConfig({ rrsync, retention }, { signers: [otherSigner.publicKey] }).hubs.get(
    HUB,
  )!;
  const config = { ...first, hubs: new Map([...first.hubs, [OTHER, { ...others, name: OTHER }]]) };
  const times = timesUntil(storage.now, GOOD_COUNT);
  const good = writeHistory(store, signer, times, { chainLength: 3 });
  arriveOneByOne(storage, good, () => storageStatus(host, config));
  const other = writeHistory(store, otherSigner, timesUntil(storage.now, 2), { hub: OTHER });
  assert.equal((await scrub(host, config)).ok, true);
  const before = digestsOf(store);

  const local = `${root}/attacker`;
  Deno.mkdirSync(local);
  await newKey(`${root}/hub_key`);
  const lines = authorize(host, config, { hub: HUB, keyFile: `${root}/hub_key.pub`, from: "127.0.0.0/8" })
    .split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  await using sshd = await startSshd({ dir: `${root}/unused`, authorizedKeys: lines });
  const rsh = sshd.rsh(`${root}/hub_key`);
  const target = `${sshd.user}@${sshd.host}`;
  await work({
    storage,
    config,
    good,
    otherSigner,
    other,
    sshd,
    local,
    rsync: (...args) => run("rsync", ["-e", rsh, ...args.map((arg) => arg.replace(/^host:/, `${target}:`))]),
    ssh: (...args) => run("sh", ["-c", `${rsh} ${target} "$@"`, "sh", ...args]),
    async stillGood() {
      const after = digestsOf(store);
      for (const [path, digest] of before) assert.equal(after.get(path), digest, path);
      const report = await scrub(host, config);
      const damaged = new Set(report.damage.items.map(({ id }) => id));
      for (const { seal } of [...good, ...other]) {
        assert(!damaged.has(seal.id), JSON.stringify(report.damage.items));
      }
      for (const set of report.sets.filter(({ set }) => set === MAIN_SET)) {
        assert(set.good >= (set.hub === HUB ? GOOD_COUNT : 2), JSON.stringify(set));
      }
      return report;
    },
  });
}

async function run(program: string, args: readonly string[]): Promise<Result> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args: [...args], stdin: "null" })
    .output();
  const decoder = new TextDecoder();
  return { code, text: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** What is in a file; whether it can be read at all depends on who runs this. */
function digestOf(path: string): string {
  try {
    return createHash("sha256").update(Deno.readFileSync(path)).digest("hex");
  } catch (error) {
    if (!(error instanceof Deno.errors.PermissionDenied)) throw error;
    return "cannot be read";
  }
}

/** Every file under a folder, with what is in it. */
function digestsOf(folder: string): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (path: string) => {
    for (const { name, isDirectory, isFile, isSymlink } of Deno.readDirSync(path)) {
      const at = `${path}/${name}`;
      if (isDirectory) walk(at);
      else if (isFile) found.set(at, digestOf(at));
      else found.set(at, isSymlink ? `link ${Deno.readLinkSync(at)}` : "other");
    }
  };
  walk(folder);
  return found;
}

const partIn = ({ folder }: Written): string => `${folder}/${FILES_PART}`;
const pathOf = ({ seal }: Written): string => `${seal.set}/${seal.id}`;

Deno.test("what the key is for works: a new snapshot arrives, and scrub calls it good", async () => {
  await underAttack(async ({ storage, local, good, rsync, stillGood }) => {
    const after = good.at(-1)!;
    const time = new Date(storage.now.getTime() + HOUR_MS);
    writeHistory(local, storage.signer, [time], { after });
    const { code, text } = await rsync("-rt", "--fsync", `${local}/home/`, "host:");
    assert.equal(code, 0, text);
    const report = await stillGood();
    assert.equal(report.ok, true, JSON.stringify(report.damage.items));
    assert.equal(report.sets.find(({ hub }) => hub === HUB)!.good, GOOD_COUNT + 1);
  });
});

Deno.test("deleting is refused, by rsync in every way, and by anything else", async () => {
  await underAttack(async ({ local, rsync, ssh, good, stillGood }) => {
    Deno.mkdirSync(`${local}/state`);
    const ways = [
      "--delete",
      "--delete-before",
      "--delete-after",
      "--delete-excluded",
      "--delete-missing-args",
    ];
    for (const way of ways) {
      const { code, text } = await rsync("-r", "--force", way, `${local}/`, "host:");
      assert.notEqual(code, 0, way);
      assert.match(text, /not been enabled|invalid|disabled|error|option/i, way);
    }
    for (const command of [`rm -rf ${good[0]!.folder}`, "sh", "scp -t .", "rsync --server --daemon ."]) {
      assert.notEqual((await ssh(command)).code, 0, command);
    }
    assert.equal((await stillGood()).ok, true);
  });
});

Deno.test("overwriting and truncating change nothing, whatever rsync is told", async () => {
  await underAttack(async ({ local, rsync, good, stillGood }) => {
    const [victim] = good;
    const folder = `${local}/${pathOf(victim!)}`;
    Deno.mkdirSync(folder, { recursive: true });
    const ways = [
      "--inplace",
      "--append",
      "--append-verify",
      "--no-ignore-existing",
      "--backup",
      "--whole-file",
    ];
    for (const content of [new Uint8Array(0), new TextEncoder().encode("x".repeat(200))]) {
      Deno.writeFileSync(`${folder}/${FILES_PART}`, content);
      Deno.writeTextFileSync(`${folder}/seal.json`, "{}");
      for (const way of ways) await rsync("-rI", way, `${local}/`, "host:");
    }
    for (const way of ["--backup-dir=b", "--delay-updates", "--partial-dir=p"]) {
      await rsync("-rI", way, `${local}/`, "host:");
    }
    // A folder where a file is, and a file where a folder is.
    Deno.removeSync(`${folder}/seal.json`);
    Deno.mkdirSync(`${folder}/seal.json`);
    await rsync("-r", "--force", `${local}/`, "host:");
    Deno.removeSync(`${local}/state`, { recursive: true });
    Deno.writeTextFileSync(`${local}/state`, "");
    await rsync("-r", "--force", `${local}/`, "host:");
    assert.equal((await stillGood()).ok, true);
  });
});

Deno.test("a folder that the hub's key closes is an alarm of every verb, changes no file, and is mended by chmod", async () => {
  await underAttack(async ({ storage, config, local, rsync, good, stillGood }) => {
    const { host, store } = storage;
    for (const folder of [pathOf(good.at(-1)!), MAIN_SET, ""]) {
      const at = `${store}/${HUB}/${folder}`;
      Deno.mkdirSync(`${local}/closed/${folder}`, { recursive: true });
      await rsync("-dp", "--chmod=D0000", "--exclude=*", `${local}/closed/${folder}/`, `host:${folder}`);
      assert.equal(Deno.statSync(at).mode! & 0o777, 0, `${folder} was closed`);

      const { alarms } = watch(host, config);
      assert.deepEqual(alarms.map(({ kind }) => kind), ["integrity"], JSON.stringify(alarms));
      // Who has no capability to look into it is told so by the system.
      assert.match(alarms[0]!.problem, /has mode 0000, which keeps its own user out|Permission denied/);
      assert.equal(storageStatus(host, config, { hub: HUB }).sets[0]!.problems, 1);
      const report = await scrub(host, config);
      assert.equal(report.ok, false);
      assert.equal(
        report.sets.find(({ hub }) => hub === OTHER)!.good,
        2,
        "another hub's are read all the same",
      );
      const kept = (await retainAll(host, config)).sets.find(({ hub }) => hub === HUB)!;
      assert.deepEqual([kept.remove, kept.keep.length], [[], GOOD_COUNT]);

      Deno.chmodSync(at, 0o2750);
      assert.equal((await stillGood()).ok, true, `${folder} is open again`);
      assert.deepEqual(watch(host, config).alarms, []);
    }
  });
});

Deno.test("a snapshot that comes with a part, seal or signature that only root could read is none that counts", async () => {
  for (const name of [FILES_PART, SEAL_FILE, SIGNATURE_FILE]) {
    await underAttack(async ({ storage, config, local, rsync, good, stillGood }) => {
      const { host, signer } = storage;
      storage.now = new Date(storage.now.getTime() + HOUR_MS);
      const after = good.at(-1)!;
      const [closed] = writeHistory(local, signer, [storage.now], { after });
      const path = `${closed!.folder}/${name}`;
      const [length, mode] = [Deno.statSync(path).size, 0o200];
      // It gets its mode on the way: not everybody could read it to send it.
      await rsync(
        "-rtp",
        `--chmod=F${mode.toString(8)}`,
        `--include=${name}`,
        "--include=*/",
        "--exclude=*",
        `${local}/home/`,
        "host:",
      );
      await rsync("-rtp", "--chmod=F640", `${local}/home/`, "host:");
      const there = Deno.statSync(`${storage.store}/home/${pathOf(closed!)}/${name}`);
      assert.deepEqual([there.size, there.mode! & 0o777], [length, mode]);
      assert.equal(storageStatus(host, config, { hub: HUB }).sets[0]!.newestGood!.id, after.seal.id);
      const report = await stillGood();
      assert.deepEqual(report.damage.items.map(({ id }) => id), [closed!.seal.id]);
      assert.match(
        report.damage.items[0]!.problem,
        /has mode 0200, which keeps its own user out|ermission denied/,
      );
      assert.equal(storageStatus(host, config, { hub: HUB }).sets[0]!.newestVerified, after.seal.id);

      Deno.chmodSync(`${storage.store}/home/${pathOf(closed!)}/${name}`, 0o640);
      // What is wrong with a part scrub alone can tell.
      if (name !== FILES_PART) assert.deepEqual(watch(host, config).alarms, []);
      assert.equal((await stillGood()).ok, true, `${name} is open again`);
      assert.equal(storageStatus(host, config, { hub: HUB }).sets[0]!.newestVerified, closed!.seal.id);
    });
  }
});

Deno.test("a part that is nearly all holes costs scrub no time", async () => {
  await underAttack(async ({ storage, local, rsync, good, stillGood }) => {
    const { signer } = storage;
    storage.now = new Date(Date.now() + HOUR_MS);
    const [huge] = writeHistory(local, signer, [storage.now], { after: good.at(-1)! });
    const bytes = 1 << 26;
    Deno.truncateSync(partIn(huge!), bytes);
    const parts = [{ ...huge!.seal.parts[0]!, bytes }];
    writeSnapshot(`${local}/sealed`, { id: huge!.seal.id, signer, seal: { ...huge!.seal, parts } });
    for (const name of [SEAL_FILE, SIGNATURE_FILE]) {
      Deno.copyFileSync(`${local}/sealed/home/${pathOf(huge!)}/${name}`, `${huge!.folder}/${name}`);
    }
    assert.equal((await rsync("-rtS", `${local}/home/`, "host:")).code, 0);
    const report = await stillGood();
    assert.deepEqual(report.damage.items.map(({ kind }) => kind), ["part"]);
    assert.match(report.damage.items[0]!.problem, /it has holes: of its 67\.1 MB, .* are on the disk/);
    assert.ok(report.read.bytes < bytes, "it was not read");
  });
});

Deno.test("reading back is refused", async () => {
  await underAttack(async ({ local, rsync, ssh, good, stillGood }) => {
    for (const way of [[], ["--list-only"], ["--copy-links"], ["--dry-run", "--itemize-changes"]]) {
      const { code, text } = await rsync("-r", ...way, `host:${pathOf(good[0]!)}/`, `${local}/`);
      assert.notEqual(code, 0, way.join());
      assert(!text.includes(FILES_PART), text);
    }
    assert.notEqual((await ssh("cat", `${good[0]!.folder}/seal.json`)).code, 0);
    assert.deepEqual([...Deno.readDirSync(local)], []);
    await stillGood();
  });
});

Deno.test("writing outside the hub's folder is refused or lands inside it", async () => {
  await underAttack(async ({ storage, local, rsync, stillGood }) => {
    Deno.writeTextFileSync(`${local}/evil`, "evil");
    const outside = `${storage.store}/${OTHER}/state`;
    const escapes = [
      ["host:../other/state/"],
      [`host:${outside}/`],
      ["host:state/../../other/state/"],
      [`--backup-dir=${outside}`, "host:"],
      [`--temp-dir=${outside}`, "host:"],
      [`--partial-dir=${outside}`, "--partial", "host:"],
      [`--remote-option=--log-file=${outside}/log`, "host:"],
      [`--link-dest=${outside}`, "host:"],
      [`--copy-dest=${outside}`, "host:"],
    ];
    for (const escape of escapes) {
      await rsync("-r", ...escape.slice(0, -1), `${local}/evil`, escape.at(-1)!);
    }
    // Through a link that was put there before: to a folder, and with names that lead through it.
    Deno.symlinkSync(outside, `${local}/way-out`);
    Deno.symlinkSync("../../other/state", `${local}/way-up`);
    await rsync("-rl", `${local}/`, "host:");
    for (const link of ["way-out", "way-up"]) {
      await rsync("-r", `${local}/evil`, `host:${link}/`);
      await rsync("-rK", "--no-munge-links", `${local}/evil`, `host:${link}/evil`);
    }
    Deno.mkdirSync(`${local}/tree/way-out`, { recursive: true });
    Deno.writeTextFileSync(`${local}/tree/way-out/evil`, "evil");
    for (const way of ["-r", "-rK", "-rR"]) await rsync(way, `${local}/tree/`, "host:");
    const names = namesIn(outside);
    assert(names.every((name) => /^\d{8}T\d{6}Z$/.test(name)), names.join());
    assert.deepEqual(namesIn(storage.store), ["home", "other"]);
    const report = await stillGood();
    const foreign = report.foreign.items.map(({ path }) => path.split("/").at(-1));
    assert(foreign.includes("evil"), `what landed inside is told of: ${foreign}`);
  });
});

Deno.test("links and devices in place of parts and seals are damage of that snapshot, and lead nowhere", async () => {
  await underAttack(async ({ storage, local, rsync, other, stillGood }) => {
    const { signer, now } = storage;
    const ids = [1, 2, 3].map((hours) => snapshotIdAt(new Date(now.getTime() + hours * HOUR_MS)));
    const bytes = Deno.readFileSync(partIn(other[0]!));
    const [linked, piped, hard] = ids.map((id) =>
      writeSnapshot(local, { id, signer, parts: { [FILES_PART]: bytes } })
    );
    // The right bytes, by a link to another hub's part.
    Deno.removeSync(partIn(linked!));
    Deno.symlinkSync(partIn(other[0]!), partIn(linked!));
    Deno.removeSync(partIn(piped!));
    await run("mkfifo", [partIn(piped!)]);
    Deno.linkSync(partIn(hard!), `${hard!.folder}/second-name`);
    Deno.symlinkSync(other[0]!.folder, `${local}/home/state/20261201T000000Z`);
    Deno.symlinkSync(`${storage.store}/other/state`, `${local}/home/voice`);
    const { text } = await rsync("-rlHD", "--specials", "--links", `${local}/home/`, "host:");
    const report = await stillGood();
    const faults = new Map(report.damage.items.map(({ id, problem }) => [id, problem]));
    assert.match(faults.get(ids[0]!)!, /it is a link, not a file/, text);
    assert.match(
      faults.get(ids[1]!) ?? "it is missing",
      /it is a socket, pipe or device, not a file|it is missing/,
    );
    assert.equal(faults.has(ids[2]!), false, "hard links within its own folder are its own");
    const foreign = report.foreign.items.map(({ path, reason }) => `${path.split("/").at(-1)} ${reason}`)
      .join("\n");
    assert.match(foreign, /20261201T000000Z is a link/);
    assert.match(foreign, /voice is a link/);
    assert.match(foreign, /second-name/);
  });
});

Deno.test("folders by the thousand that look like sets do not become sets", async () => {
  await underAttack(async ({ local, rsync, stillGood }) => {
    for (let index = 0; index < 3_000; index++) Deno.mkdirSync(`${local}/set${index}`);
    for (let index = 0; index < 30; index++) {
      Deno.mkdirSync(`${local}/${index}/20261124T000000Z`, { recursive: true });
    }
    assert.equal((await rsync("-r", `${local}/`, "host:")).code, 0);
    const report = await stillGood();
    assert.equal(report.sets.length, 2 + 20);
    assert.equal(report.foreign.count, 3_010);
  });
});

// `quotaFiles` bounds them, 200,000 unless told otherwise. By hand, 350,000 in each of four folders: every verb takes a few
// seconds, and about 1 kB of memory for each name of the largest folder.
Deno.test("tens of thousands of tiny files are counted and do not keep scrub from its work", async () => {
  await underAttack(async ({ local, rsync, stillGood }) => {
    Deno.mkdirSync(`${local}/state`);
    for (let index = 0; index < 20_000; index++) Deno.writeTextFileSync(`${local}/state/${index}`, "");
    assert.equal((await rsync("-r", `${local}/`, "host:")).code, 0);
    const started = process.threadCpuUsage();
    const report = await stillGood();
    assert.equal(report.foreign.count, 20_000);
    assert.equal(report.foreign.items.length, 200);
    const { user, system } = process.threadCpuUsage(started);
    assert(user + system < 20e6);
  });
});

Deno.test("backdated and future-dated snapshots by the hundred, signed with the hub's own key, push nothing out", async () => {
  await underAttack(async ({ storage, config, local, rsync, good, stillGood }) => {
    const { host, signer } = storage;
    for (let index = 0; index < 150; index++) {
      const past = new Date(storage.now.getTime() - (10 + index) * DAY_MS - HOUR_MS);
      const future = new Date(Date.UTC(2031, 0) + index * DAY_MS);
      for (const time of [past, future]) writeSnapshot(local, { id: snapshotIdAt(time), signer });
    }
    const start = storage.now.getTime();
    storage.now = new Date(start + HOUR_MS);
    assert.equal((await rsync("-rt", `${local}/home/`, "host:")).code, 0);
    const report = await stillGood();
    assert.match(report.floods[0]!.problem, /more than 24 snapshots came/);
    assert.equal(report.notes.items.filter(({ kind }) => kind === "future").length, 150);

    // Days later, when what has just come is protected no more.
    storage.now = new Date(start + 6 * DAY_MS);
    const refused = (await retainAll(host, config, { apply: true })).sets.find(({ hub }) => hub === HUB)!;
    assert.match(refused.refused[0]!, /more than 24 snapshots came/);
    assert.deepEqual(refused.removed, []);
    // Even obeyed, the flood pushes out none of the days' last ones, and not the newest chain.
    const { sets } = await retainAll(host, config, { despiteFlood: true });
    const { keep, remove } = sets.find(({ hub }) => hub === HUB)!;
    const kept = new Set(keep.map(({ id }) => id));
    const lastOfDays = good.filter(({ seal }) => seal.id.includes("T120000Z"));
    for (const { seal } of [...lastOfDays, ...good.slice(-3)]) assert(kept.has(seal.id), seal.id);
    assert(remove.length > 200, `${remove.length} of the flood would go`);
    // And nobody takes those of the future for new backups.
    assert(watch(host, config).alarms.some(({ kind, hub }) => kind === "stale" && hub === HUB));
  });
});

Deno.test("a seal signed by another key is damage, is never good, and keeps retention from removing", async () => {
  await underAttack(async ({ storage, config, local, rsync, stillGood }) => {
    const { host } = storage;
    const id = snapshotIdAt(new Date(storage.now.getTime() + HOUR_MS));
    writeSnapshot(local, { id, signer: makeSigner() });
    assert.equal((await rsync("-rt", `${local}/home/`, "host:")).code, 0);
    storage.now = new Date(storage.now.getTime() + 2 * HOUR_MS);
    const report = await stillGood();
    assert.equal(report.ok, false);
    assert.deepEqual(report.damage.items.map(({ kind, id }) => [kind, id]), [["signature", id]]);
    assert.match(report.damage.items[0]!.problem, /which may not sign for this hub/);
    const refused = (await retainAll(host, config, { apply: true })).sets.find(({ hub }) => hub === HUB)!;
    assert.match(refused.refused[0]!, /may not sign/);
    assert(watch(host, config).alarms.some(({ kind }) => kind === "integrity"));
  });
});

Deno.test("an old seal replayed under a new id, or over its own folder, is told apart", async () => {
  await underAttack(async ({ storage, local, rsync, good, stillGood }) => {
    const id = snapshotIdAt(new Date(storage.now.getTime() + HOUR_MS));
    // The attacker is the hub: it has its own old snapshots.
    const replayed = `${local}/home/state/${id}`;
    Deno.mkdirSync(replayed, { recursive: true });
    for (const { name } of Deno.readDirSync(good[0]!.folder)) {
      Deno.copyFileSync(`${good[0]!.folder}/${name}`, `${replayed}/${name}`);
    }
    const over = `${local}/home/${pathOf(good[1]!)}`;
    Deno.mkdirSync(over, { recursive: true });
    for (const { name } of Deno.readDirSync(good[0]!.folder)) {
      Deno.copyFileSync(`${good[0]!.folder}/${name}`, `${over}/${name}`);
    }
    await rsync("-rtI", `${local}/home/`, "host:");
    const report = await stillGood();
    assert.deepEqual(report.damage.items.map(({ kind, id }) => [kind, id]), [["seal", id]]);
    assert.match(
      report.damage.items[0]!.problem,
      new RegExp(`its seal belongs to home/state/${good[0]!.seal.id}`),
    );
  });
});

Deno.test("parts swapped between snapshots are damage of both", async () => {
  await underAttack(async ({ storage, local, rsync, stillGood }) => {
    const { signer, now } = storage;
    const pair = [1, 2].map((hours) =>
      writeSnapshot(local, { id: snapshotIdAt(new Date(now.getTime() + hours * HOUR_MS)), signer })
    );
    const [first, second] = pair.map(partIn);
    Deno.renameSync(first!, `${local}/part`);
    Deno.renameSync(second!, first!);
    Deno.renameSync(`${local}/part`, second!);
    assert.equal((await rsync("-rt", `${local}/home/`, "host:")).code, 0);
    const report = await stillGood();
    assert.deepEqual(
      report.damage.items.map(({ kind, id }) => [kind, id]),
      pair.map(({ seal }) => ["part", seal.id]),
    );
    assert.match(report.damage.items[0]!.problem, /its SHA-256 is/);
  });
});

Deno.test("a seal that names another hub, its parts or its snapshots gets nowhere", async () => {
  await underAttack(async ({ storage, local, rsync, other, stillGood }) => {
    const { signer, now } = storage;
    const ids = [1, 2, 3].map((hours) => snapshotIdAt(new Date(now.getTime() + hours * HOUR_MS)));
    writeSnapshot(local, { id: ids[0]!, signer, seal: { hub: OTHER } });
    const outside = `../../../other/state/${other[0]!.seal.id}/${FILES_PART}` as PartName;
    const named = writeSnapshot(local, { id: ids[1]!, signer });
    const seal = { ...named.seal, parts: [{ ...other[0]!.seal.parts[0]!, name: outside }] };
    const text = serializeSeal(seal);
    Deno.writeTextFileSync(`${named.folder}/seal.json`, text);
    Deno.writeTextFileSync(
      `${named.folder}/seal.json.sig`,
      signSsh(signer.seed, SEAL_NAMESPACE, new TextEncoder().encode(text)),
    );
    const foreignNeed = "20261101T010203Z" as SnapshotId;
    writeSnapshot(local, {
      id: ids[2]!,
      signer,
      seal: { kind: "increment", parent: foreignNeed, needs: [foreignNeed] },
    });
    assert.equal((await rsync("-rt", `${local}/home/`, "host:")).code, 0);
    const report = await stillGood();
    const faults = new Map(report.damage.items.map(({ id, kind, problem }) => [id, `${kind}: ${problem}`]));
    assert.match(faults.get(ids[0]!)!, /seal: its seal belongs to other\/state/);
    assert.match(faults.get(ids[1]!)!, /seal: .*is not a part's name/);
    assert.match(faults.get(ids[2]!)!, /needs: it needs 20261101T010203Z, which never came/);
  });
});

Deno.test("a receipt that the hub puts there itself is replaced, and its links are not followed", async () => {
  await underAttack(async ({ storage, config, local, rsync, stillGood }) => {
    const { host, root, store } = storage;
    const { receiptKeyFile, seed } = makeReceiptKey(storage);
    Deno.writeTextFileSync(`${root}/victim`, "victim");
    Deno.writeTextFileSync(`${local}/.receipt.json`, "{}");
    Deno.symlinkSync(`${root}/victim`, `${local}/.receipt.json.sig`);
    Deno.symlinkSync(`${root}/victim`, `${local}/.receipt.json.tmp`);
    assert.equal((await rsync("-rl", `${local}/`, "host:")).code, 0);
    assert.equal(Deno.readTextFileSync(`${store}/home/.receipt.json`), "{}");
    const report = await stillGood();
    assert(report.foreign.items.some(({ path }) => path.endsWith(".receipt.json.tmp")));

    const { receipts } = await scrub(host, { ...config, receiptKeyFile });
    assert.deepEqual(receipts, [{ hub: HUB }, { hub: OTHER }]);
    const [text, signature] = ["", ".sig"].map((end) =>
      Deno.readTextFileSync(`${store}/home/.receipt.json${end}`)
    );
    verifyReceipt(text!, signature!, new Set([fingerprintOf(publicKeyOf(seed))]), HUB);
    assert.equal(Deno.readTextFileSync(`${root}/victim`), "victim");
  });
});
