/** Chains: what the loss of any one object costs, when a new chain starts, and that every image comes back. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { EncryptReport } from "../scripts/core/command_line/reports.ts";
import {
  FILES_PART,
  MANIFEST_PART,
  SEAL_FILE,
  SIGNATURE_FILE,
  type SnapshotId,
} from "../scripts/core/names.ts";
import { fullReason } from "../scripts/core/snapshot/chain.ts";
import { type Manifest, partsRead } from "../scripts/core/snapshot/manifest.ts";
import { parseStorageConfig } from "../scripts/core/storage_host/storage_config.ts";
import { realFs } from "../scripts/host/fs.ts";
import type { Fs, OpenOptions } from "../scripts/host/host.ts";
import {
  type Opening,
  openManifest,
  openSeal,
  readPartSaying,
} from "../scripts/host/restore/open_snapshot.ts";
import { bytesIn } from "../scripts/host/restore/store_option.ts";
import { openImage } from "../scripts/host/snapshot/image.ts";
import { isSealed, readSetIfThere } from "../scripts/host/store/store.ts";
import { list } from "../scripts/list.ts";
import { restore } from "../scripts/restore.ts";
import { scrub } from "../scripts/scrub.ts";
import { storageList } from "../scripts/storage.ts";
import { verify } from "../scripts/verify.ts";
import { copySync, filesBelow, inTempDir } from "./real/files.ts";
import { countMessages, type Home, insertMessages, makeHome, output } from "./real/home.ts";

/** A home that saves a folder of notes beside the database and a secret. */
async function makeNotedHome(set: Readonly<Record<string, unknown>> = {}): Promise<Home> {
  const home = await makeHome();
  configureSet(home, set);
  for (const name of ["a", "b", "c"]) home.write(`notes/${name}.md`, `first ${name}`);
  return home;
}

function configureSet(home: Home, set: Readonly<Record<string, unknown>>): void {
  const sources = [
    { kind: "sqlite", path: "~/.hapi/hapi.db" },
    { kind: "file", path: "~/.hapi/hub.env", secret: true },
    { kind: "folder", path: "~/notes" },
  ];
  home.configure({ sets: { state: { sources, ...set } } });
}

/** Two chains: renamed, removed, changed and unchanged files, with and without a change of the database, or neither. */
async function makeChains(home: Home): Promise<{ reports: EncryptReport[]; live: Map<SnapshotId, string> }> {
  const rename = (from: string, to: string) => Deno.renameSync(`${home.home}/${from}`, `${home.home}/${to}`);
  const steps: (() => void)[] = [
    () => {},
    () => {
      home.sql(insertMessages(20));
      rename("notes/a.md", "notes/renamed.md");
      Deno.removeSync(`${home.home}/notes/b.md`);
    },
    () => {},
    () => home.write("notes/c.md", "second c"),
    () => home.sql(insertMessages(20)),
    () => home.sql("DELETE FROM messages WHERE id < 30"),
    () => {
      home.sql(insertMessages(30));
      home.write(".hapi/hub.env", "API_KEY=sk-ant-9876543210\n");
      home.write("notes/renamed.md", "second a");
    },
  ];
  const reports: EncryptReport[] = [];
  const live = new Map<SnapshotId, string>();
  for (const [index, change] of steps.entries()) {
    change();
    reports.push(await home.backup({ full: index === 5 }));
    live.set(reports.at(-1)!.id, await contentOf(home));
  }
  return { reports, live };
}

/** The messages and the files of a home, or of a restored one, as text. */
async function contentOf(home: Home, folder = home.home): Promise<string> {
  const files = (await filesBelow(folder)).filter(([path]) => /^(notes\/|\.hapi\/hub\.env$)/.test(path));
  return JSON.stringify([countMessages(`${folder}/.hapi/hapi.db`), files]);
}

/** Restores a snapshot into a new folder, gives that to `look`, and removes it. */
async function restored<T>(
  opening: Opening,
  id: SnapshotId,
  look: (home: string) => T,
): Promise<Awaited<T>> {
  const folder = Deno.makeTempDirSync({ prefix: "restored-" });
  try {
    await restore(opening, id, folder);
    return await look(`${folder}/home`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** The same files, never waiting for the disk: hundreds of restores that nobody keeps. */
const withoutSync = (fs: Fs): Fs => ({
  ...fs,
  syncFolder: () => {},
  open: (path, options) => ({ ...fs.open(path, options), sync: () => {} }),
});

Deno.test("the loss or damage of any object of a chain costs the snapshots that read it, and no others", async () => {
  using home = await makeNotedHome();
  const { reports } = await makeChains(home);
  assert.deepEqual(
    reports.map(({ kind }) => kind).join(" "),
    "full increment unchanged increment increment full increment",
  );
  const host = { ...home.host, fs: withoutSync(home.host.fs) };
  const opening = await home.opening({ host });
  const ids = reports.map(({ id }) => id);
  const manifests = new Map<SnapshotId, Manifest>();
  for (const id of ids) manifests.set(id, await openManifest(opening, openSeal(opening, id)));

  const storage = parseStorageConfig(
    JSON.stringify({
      store: home.store,
      stateFolder: `${home.dir}/ledger`,
      hubs: { home: { signers: [home.signer], snapshotsPerDayMax: 1000 } },
    }),
    "test",
  );
  assert.equal((await scrub(host, storage)).ok, true);
  copySync(`${home.dir}/ledger`, `${home.dir}/ledger-of-good`);

  /** What `verify` can prove, and what it can only restore. */
  const byVerify = async () => {
    const sealed = readSetIfThere(host.fs, opening.set).filter(isSealed);
    const lost = { proof: [] as SnapshotId[], bytes: [] as SnapshotId[] };
    for (const id of ids) {
      const scratch = Deno.makeTempDirSync({ prefix: "scratch-" });
      const checks = await verify(opening, sealed, id, scratch);
      Deno.removeSync(scratch, { recursive: true });
      if (!checks.every(({ ok }) => ok)) lost.proof.push(id);
      if (!checks.some(({ name, ok }) => name === "decrypted and rebuilt" && ok)) lost.bytes.push(id);
    }
    return lost;
  };
  const byList = () =>
    list(host, opening.set, [], bytesIn(host.fs), home.config())
      .filter(({ problem }) => problem !== undefined).map(({ id }) => id);
  const byScrub = async () => {
    Deno.removeSync(`${home.dir}/ledger`, { recursive: true });
    copySync(`${home.dir}/ledger-of-good`, `${home.dir}/ledger`);
    const report = await scrub(host, storage);
    const standing = new Map(
      [...storageList(host, storage)].flat().map((entry) => [entry.id, entry.standing]),
    );
    const bad = ids.filter((id) => standing.get(id) !== "good");
    assert.deepEqual([...new Set(report.damage.items.map(({ id }) => id))].sort(), bad);
    return bad;
  };

  let objects = 0;
  for (const id of ids) {
    for (const { name } of Deno.readDirSync(`${home.stored}/${id}`)) {
      objects++;
      const path = `${home.stored}/${id}/${name}`;
      const isOfSeal = name === SEAL_FILE || name === SIGNATURE_FILE;
      const needing = ids.filter((other) => openSeal(opening, other).seal.needs.includes(id));
      const reading = ids.filter((other) => partsRead(manifests.get(other)!).get(id)?.has(name as never));
      const others = isOfSeal ? needing : reading.filter((other) => other !== id);
      const exactly = [id, ...others].sort();
      // Without a key only the snapshots are known that one needs, not which of their parts; but no manifest is ever read for another.
      const withoutKey = name === MANIFEST_PART ? [id] : [id, ...needing].sort();
      if (name !== FILES_PART) assert.deepEqual(exactly, withoutKey, `${id}/${name}`);

      const bytes = Deno.readFileSync(path);
      const { mtime } = Deno.statSync(path);
      const damaged = bytes.slice();
      damaged[damaged.length >> 1]! ^= 1;
      for (
        const [what, harm] of [
          ["lost", () => Deno.removeSync(path)],
          ["damaged", () => Deno.writeFileSync(path, damaged)],
        ] as const
      ) {
        harm();
        const where = `${id}/${name} is ${what}`;
        const { proof, bytes: lost } = await byVerify();
        assert.deepEqual(proof, exactly, `verify: ${where}`);
        assert.deepEqual(lost, exactly, `restore: ${where}`);
        assert.deepEqual(await byScrub(), withoutKey, `scrub: ${where}`);
        if (what === "lost" || isOfSeal) assert.deepEqual(byList(), withoutKey, `list: ${where}`);
        Deno.writeFileSync(path, bytes);
        Deno.utimeSync(path, mtime!, mtime!);
      }
    }
  }
  assert.ok(objects >= 30, `${objects} objects`);
  assert.deepEqual(await byVerify(), { proof: [], bytes: [] }, "all is put back");

  // The same by the command line.
  Deno.removeSync(`${home.stored}/${ids[1]}/hapi.db.delta.zst.age`);
  const listed = await home.cli(["list"]);
  assert.match(
    listed.stdout,
    new RegExp(`^${ids[4]}.* CANNOT BE RESTORED: needs ${ids[1]}, which is missing or incomplete$`, "m"),
  );
  assert.match(listed.stdout, new RegExp(`^${ids[6]}.* good$`, "m"));
  const lost = await home.cli(["verify", "--snapshot", ids[4]!, "--identity", home.identityFile]);
  assert.equal(lost.code, 5, lost.stderr);
  const other = await home.cli(["verify", "--snapshot", ids[6]!, "--identity", home.identityFile]);
  assert.equal(other.code, 0, other.stderr);
});

Deno.test("every snapshot of a chain comes back whole, by rdiff too, from increments of either kind", async () => {
  for (const keepBase of [true, false]) {
    using home = await makeNotedHome({ keepBase });
    const { reports, live } = await makeChains(home);
    const opening = await home.opening();
    const kept = [...Deno.readDirSync(`${home.stateFolder}/state/base`)].map(({ name }) =>
      name.split(".")[1]
    );
    assert.deepEqual(kept, [keepBase ? "image" : "sums"], "no image stays where none is to be kept");
    const seen = new Set<string>();
    for (const { id } of reports) {
      assert.equal(await restored(opening, id, (folder) => contentOf(home, folder)), live.get(id), id);
      const [database] = (await openManifest(opening, openSeal(opening, id))).databases;
      for (const { snapshot, part, bytes, sha256 } of database!.chain) {
        const image = `${home.dir}/image`;
        const chunks = await Array.fromAsync(readPartSaying(opening, openSeal(opening, snapshot), part));
        Deno.writeFileSync(`${home.dir}/part`, Buffer.concat(chunks));
        if (part.includes(".full.")) Deno.renameSync(`${home.dir}/part`, image);
        else {
          await output("rdiff", ["patch", image, `${home.dir}/part`, `${home.dir}/next`]);
          Deno.renameSync(`${home.dir}/next`, image);
        }
        const made = Deno.readFileSync(image);
        assert.equal(made.length, bytes, `${snapshot}/${part}`);
        assert.equal(createHash("sha256").update(made).digest("hex"), sha256, `${snapshot}/${part}`);
        seen.add(`${snapshot}/${part}`);
      }
    }
    assert.equal(seen.size, 5, "two fulls and the three increments that changed the database");
  }
});

Deno.test("a new chain starts when it is time, when an increment would not pay, and when its base cannot be used", async () => {
  using home = await makeNotedHome();
  const base = () =>
    `${home.stateFolder}/state/base/${[...Deno.readDirSync(`${home.stateFolder}/state/base`)][0]!.name}`;
  const flip = (path: string) => {
    const bytes = Deno.readFileSync(path);
    bytes[bytes.length >> 1]! ^= 1;
    Deno.writeFileSync(path, bytes);
  };
  const cases: readonly {
    readonly set?: Readonly<Record<string, unknown>>;
    readonly before?: () => unknown;
    readonly full?: boolean;
    /** Why it is a full; undefined if it must be an increment. */
    readonly reason: RegExp | undefined;
  }[] = [
    { reason: /there is no snapshot to build on/ },
    { reason: undefined },
    { full: true, reason: /it was asked for/ },
    // Weekly, unless told otherwise: one half day is added by each backup.
    { before: () => home.now = new Date(home.now.getTime() + 6 * 24 * 3_600_000), reason: undefined },
    {
      before: () => home.now = new Date(home.now.getTime() + 12 * 3_600_000),
      reason: /the last full is 7 days old/,
    },
    { set: { fullEveryDays: 1 }, reason: undefined },
    { set: { fullEveryDays: 1 }, reason: /the last full is 1 day old/ },
    { set: { chainLengthMax: 2 }, reason: undefined },
    { set: { chainLengthMax: 2 }, reason: /the chain has 2 snapshots/ },
    { before: () => home.sql(insertMessages(5000)), reason: /the changes of hapi\.db are too large/ },
    { set: { fullOverRatio: 1 }, before: () => home.sql(insertMessages(5000)), reason: undefined },
    { set: { fullOverRatio: 0.0001 }, reason: /the changes of hapi\.db are too large|would take/ },
    { before: () => setPageBytes(home, 8192), reason: /hapi\.db has pages of 8192 bytes, and had 4096/ },
    { before: () => Deno.removeSync(base()), reason: /the last image of hapi\.db is not kept here/ },
    {
      before: () => {
        const path = base();
        Deno.removeSync(path);
        Deno.mkdirSync(path);
      },
      reason: /the last image of hapi\.db is not kept here/,
    },
    { before: () => flip(base()), reason: /the last image of hapi\.db is not what it was/ },
    {
      before: () => Deno.truncateSync(base(), 8192),
      reason: /the last image of hapi\.db is not what it was/,
    },
    { before: () => flip(`${home.stateFolder}/state/last.json`), reason: /there is no snapshot to build on/ },
    { set: { keepBase: false }, reason: /the last image of hapi\.db is not kept here/ },
    { set: { keepBase: false }, reason: undefined },
    {
      set: { keepBase: false },
      before: () => flip(base()),
      reason: /the page checksums of hapi\.db are not/,
    },
    { set: { keepBase: false }, reason: undefined },
    { reason: /the last image of hapi\.db is not kept here/ },
    { reason: undefined },
    {
      before: () => Deno.removeSync(`${home.stored}/${ids.at(-1)}`, { recursive: true }),
      reason: /is in no store/,
    },
    { reason: undefined },
  ];
  const ids: SnapshotId[] = [];
  const counts = new Map<SnapshotId, number>();
  for (const [index, { set = {}, before, full = false, reason }] of cases.entries()) {
    configureSet(home, set);
    home.sql(insertMessages(3));
    await before?.();
    const made = await home.backup({ full });
    if (reason) assert.match(made.reason ?? "an increment", reason, `case ${index}`);
    else assert.equal(made.kind, "increment", `case ${index}: ${made.reason}`);
    ids.push(made.id);
    counts.set(made.id, countMessages(home.database));
  }
  assert.ok(
    home.told.some((text) => text.includes("last.json cannot be used (it is not as it was written)")),
  );
  const opening = await home.opening();
  const afterLost = openSeal(opening, ids.at(-2)!).seal;
  assert.equal(afterLost.previous?.id, ids.at(-3), "that one is gone, and shows as missing");
  for (const { id } of readSetIfThere(home.host.fs, opening.set)) {
    const count = await restored(opening, id, (folder) => countMessages(`${folder}/.hapi/hapi.db`));
    assert.equal(count, counts.get(id), id);
  }

  // The database did not change, so its kept image is what a full would be made of.
  await home.backup();
  flip(base());
  home.now = new Date(home.now.getTime() + 7 * 24 * 3_600_000);
  await assert.rejects(home.backup(), {
    kind: "source",
    message: /Cannot make a full of hapi\.db: the image kept on this hub is damaged/,
  });
  assert.equal((await home.backup()).kind, "full", "of the database, which is copied now");
});

Deno.test("fullReason() asks for a full when anything that an increment would need is lost, the oldest too", () => {
  const [root, middle, parent] = ["01", "02", "03"].map((day) => `202603${day}T000000Z` as SnapshotId);
  const chain = { parent: parent!, needs: [root!, middle!], length: 3 };
  const set = { fullEveryDays: 7, chainLengthMax: 4 };
  const reason = (at: string, lost?: SnapshotId) => fullReason(set, chain, new Date(at), (id) => id !== lost);
  assert.equal(reason("2026-03-07T23:59:59Z"), undefined);
  for (const id of [root, middle, parent]) {
    assert.ok(reason("2026-03-04T00:00:00Z", id)?.startsWith(`${id}, `));
  }
  assert.equal(reason("2026-03-08T00:00:00Z"), "the last full is 7 days old or more");
});

Deno.test("an image that is cut while it is read is an error, and no bytes are made up for its end", async () => {
  await inTempDir((dir) => {
    const path = `${dir}/image`;
    Deno.writeFileSync(path, new Uint8Array(8192).fill(1));
    using image = openImage(realFs, path);
    Deno.truncateSync(path, 5000);
    assert.throws(() => image.readAt(new Uint8Array(4096), 4096), {
      kind: "disk",
      message: /it is shorter than it was/,
    });
  });
});

/** By the program: node:sqlite refuses VACUUM unless Deno may do everything. */
function setPageBytes(home: Home, bytes: number): Promise<string> {
  const sql = `PRAGMA journal_mode = DELETE; PRAGMA page_size = ${bytes}; VACUUM; PRAGMA journal_mode = WAL;`;
  return output("sqlite3", ["-bail", home.database, sql]);
}

Deno.test("a chain whose rebuilding ends at any step leaves no database behind, and is rebuilt by the next try", async () => {
  using home = await makeNotedHome();
  const { reports, live } = await makeChains(home);
  const { id } = reports[4]!;
  let steps = 0;
  for (let end = 1; steps === 0; end++) {
    let count = 0;
    const opening = await home.opening({
      host: { ...home.host, fs: dying(home.host.fs, () => ++count > end) },
    });
    const folder = `${home.dir}/restored`;
    const outcome = await restore(opening, id, folder).catch((error: Error) => error);
    if (!(outcome instanceof Error)) steps = count;
    // Nothing has its name yet, or all of it; and what the dead left does not hinder the same command given again.
    else if (found(folder).length === 0) await restore(await home.opening(), id, folder);
    assert.equal(await contentOf(home, `${folder}/home`), live.get(id), `step ${end}`);
    Deno.removeSync(folder, { recursive: true });
  }
  assert.ok(steps > 40, `${steps} steps`);
});

/** What a restore has left in its folder under names that are not its own. */
function found(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) =>
      name !== ".hapi-backup-restore"
    );
  } catch {
    return [];
  }
}

/** Files of a process that dies at the first change for which `isDead` says so: from then on nothing changes any more. */
function dying(fs: Fs, isDead: () => boolean): Fs {
  let dead = false;
  const alive =
    <Args extends unknown[], Result>(work: (...args: Args) => Result) => (...args: Args): Result => {
      dead ||= isDead();
      if (dead) throw new Error("killed");
      return work(...args);
    };
  const { mkdir, rename, remove, chmod, utime, syncFolder } = fs;
  return {
    ...fs,
    mkdir: alive(mkdir),
    rename: alive(rename),
    remove: alive(remove),
    chmod: alive(chmod),
    utime: alive(utime),
    syncFolder: alive(syncFolder),
    open(path, options) {
      const open = (path: string, options: OpenOptions) => fs.open(path, options);
      const file = options.write ? alive(open)(path, options) : fs.open(path, options);
      return {
        ...file,
        write: alive(file.write),
        writeAt: alive(file.writeAt),
        truncate: alive(file.truncate),
        sync: alive(file.sync),
      };
    },
  };
}
