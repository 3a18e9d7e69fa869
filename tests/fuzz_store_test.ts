/** Whatever a store, a far side or a rotten disk holds, nothing is written outside, and nothing bad passes for good. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import type { RcloneDestination } from "../scripts/core/config/config.ts";
import { FILES_PART, type HubName, MAIN_SET, type SnapshotId } from "../scripts/core/names.ts";
import type { Place } from "../scripts/core/place.ts";
import type { SavedFile } from "../scripts/core/snapshot/manifest.ts";
import type { Seal } from "../scripts/core/snapshot/seal.ts";
import { describeRemote, missingAtRemote } from "../scripts/host/destinations/rclone.ts";
import { openStore } from "../scripts/host/destinations/remote.ts";
import type { Host, RunResult } from "../scripts/host/host.ts";
import { openManifest, openSeal, readPartSaying } from "../scripts/host/restore/open_snapshot.ts";
import { finishTree, unpackFiles } from "../scripts/host/restore/unpack.ts";
import { realRetry } from "../scripts/host/retry.ts";
import { openLedger } from "../scripts/host/storage_host/ledger.ts";
import { isSealed, readSetIfThere } from "../scripts/host/store/store.ts";
import { restore } from "../scripts/restore.ts";
import { scrub } from "../scripts/scrub.ts";
import { verify } from "../scripts/verify.ts";
import { fuzz } from "./fuzz/fuzz.ts";
import { copySync, filesBelow } from "./real/files.ts";
import { forge } from "./real/forge.ts";
import { type Home, insertMessages, makeHome } from "./real/home.ts";
import { makeStorageHost, retainAll, timesUntil, writeHistory } from "./real/signed_store.ts";

/** A home with two snapshots of a database and of files of every kind. */
async function makeChain(): Promise<{ home: Home; ids: [SnapshotId, SnapshotId] }> {
  const home = await makeHome();
  home.configure({
    sets: {
      state: {
        sources: [{ kind: "sqlite", path: "~/.hapi/hapi.db" }, { kind: "folder", path: "~/notes" }],
      },
    },
  });
  home.write("notes/a folder/é.md", "first");
  home.write("notes/b.md", "b".repeat(5_000));
  Deno.symlinkSync("b.md", `${home.home}/notes/link`);
  Deno.mkdirSync(`${home.home}/notes/empty`);
  const { id: full } = await home.backup();
  home.sql(insertMessages(5));
  home.write("notes/c.md", "c");
  const { id, kind } = await home.backup();
  assert.equal(kind, "increment");
  return { home, ids: [full, id] };
}

Deno.test("whatever a signed manifest says, a restore writes below its folder or refuses", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const opening = await home.opening();
  const snapshot = openSeal(opening, ids[1]);
  const id = ids[1].replace("0302", "0402") as SnapshotId;
  // All its bytes are in the two snapshots before it.
  const manifest = JSON.stringify({ ...await openManifest(opening, snapshot), id, parent: ids[1] });
  const room = `${home.dir}/room`;
  const to = `${room}/to`;
  let restored = 0;
  const elsewhere = async () =>
    JSON.stringify((await filesBelow(home.dir)).filter(([path]) => !path.startsWith("room/to/")));
  await fuzz({
    ...{ name: "a restore", real: [manifest], isText: true, share: 0.4 },
    kinds: ["integrity", "disk", "usage"],
    async read(_, text) {
      let document: unknown;
      try {
        document = JSON.parse(text);
      } catch {
        return;
      }
      const seal: Partial<Seal> = { kind: "increment", parent: ids[1], needs: ids };
      await forge(home, id, {}, document, seal);
      Deno.mkdirSync(room);
      try {
        const before = await elsewhere();
        await restore(opening, id, to).finally(async () => assert.equal(await elsewhere(), before));
        restored++;
      } finally {
        // A folder that the manifest made unreadable, too.
        await new Deno.Command("chmod", { args: ["-R", "u+rwx", room] }).output();
        Deno.removeSync(room, { recursive: true });
        Deno.removeSync(`${home.stored}/${id}`, { recursive: true });
      }
    },
  });
  assert.ok(restored > 3, `${restored} restores went through`);
});

Deno.test("whatever a tar is, unpacking writes the files that are wanted, below its folder, or refuses", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const opening = await home.opening();
  const snapshot = openSeal(opening, ids[0]);
  const { files } = await openManifest(opening, snapshot);
  const chunks = [];
  for await (
    const chunk of readPartSaying(opening, snapshot, FILES_PART)
  ) {
    chunks.push(chunk.slice());
  }
  const wanted = new Map<Place, SavedFile[]>();
  for (const file of files) if (file.stored) wanted.set(file.stored.member, [file]);
  const room = `${home.dir}/room`;
  await fuzz({
    ...{ name: "a tar", real: [Buffer.concat(chunks)], isText: false, kinds: ["integrity", "usage"] },
    async read(tar) {
      Deno.mkdirSync(`${room}/to`, { recursive: true });
      try {
        await unpackFiles(home.host, [tar], wanted, `${room}/to`);
        finishTree(home.host, files, `${room}/to`);
        const found = (await filesBelow(`${room}/to`)).map(([path]) => path);
        assert.deepEqual(
          found,
          files.filter(({ type }) => type !== "folder").map(({ place }) => place).sort(),
        );
      } finally {
        assert.deepEqual([...Deno.readDirSync(room)].map(({ name }) => name), ["to"]);
        Deno.removeSync(room, { recursive: true });
      }
    },
  });
});

Deno.test("tables named like what every object has are counted, proven and missed like any other", async () => {
  using home = await makeHome();
  const odd = ["__proto__", "constructor", "toString"];
  for (const table of odd) home.sql(`CREATE TABLE "${table}" AS SELECT id FROM messages LIMIT 100`);
  const { id } = await home.backup();
  const opening = await home.opening();
  const { databases: [saved] } = await openManifest(opening, openSeal(opening, id));
  assert.deepEqual(odd.map((table) => Object.getOwnPropertyDescriptor(saved!.rows, table)?.value), [
    100,
    100,
    100,
  ]);
  const scratch = `${home.dir}/scratch`;
  Deno.mkdirSync(scratch);
  const seals = readSetIfThere(home.host.fs, opening.set).filter(isSealed);
  assert.deepEqual((await verify(opening, seals, id, scratch)).filter(({ ok }) => !ok), []);
  for (const table of odd) home.sql(`DROP TABLE "${table}"`);
  const { suspicions } = await home.backup();
  assert.deepEqual(
    suspicions.map(({ detail }) => detail.split(" ")[0]).filter((table) => odd.includes(table!)),
    odd,
  );
});

/** A host whose programs print what they are told to. */
function printing(host: Host, stdout: (program: string, args: readonly string[]) => string): Host {
  return {
    ...host,
    run(program, args, options = {}): Promise<RunResult> {
      const text = stdout(program, args);
      if (options.onLine) text.split(/[\r\n]/).forEach(options.onLine);
      return Promise.resolve({ code: 0, stdout: text, stderr: "" });
    },
  };
}

Deno.test("whatever a far side lists, it is a store, none, or refused, and brings nothing outside scratch", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const scratch = `${home.dir}/scratch`;
  Deno.mkdirSync(scratch);
  const list = ids.map((id) => `-rw-r--r--          1,234 2026/11/22 06:00:00 home/state/${id}/seal.json`)
    .join("\n");
  await fuzz({
    ...{
      name: "rsync's list",
      real: [list],
      isText: true,
      kinds: ["usage", "integrity", "network"],
      share: 0.7,
    },
    async read(_, text) {
      const host = printing(home.host, (_, args) => args.includes("--list-only") ? text : "");
      const options = { scratch, identityFile: "/key", knownHostsFile: "/known", retry: once(home.host) };
      await using store = await openStore(host, "hub@storage:", options);
      assert.ok(store.root.startsWith(scratch));
    },
  });
  const sizes = ids.map((id) => `512 home/state/${id}/seal.json\n71 home/state/${id}/seal.json.sig`).join(
    "\n",
  );
  await fuzz({
    ...{
      name: "rclone's list",
      real: [sizes],
      isText: true,
      kinds: ["usage", "integrity", "network"],
      share: 0.7,
    },
    async read(_, text) {
      const host = printing(home.host, (_, args) => args.includes("lsf") ? text : "");
      await using store = await openStore(host, "rclone:b2:x", { scratch, retry: once(home.host) });
      assert.ok(store.root.startsWith(scratch));
    },
  });
  assert.deepEqual([...Deno.readDirSync(scratch)], []);

  const destination: RcloneDestination & { name: string } = {
    kind: "rclone",
    name: "b2",
    remote: "b2:x",
    attempts: 1,
  };
  const expected = [{
    set: MAIN_SET,
    id: ids[0],
    files: [{ name: "seal.json", bytes: 5 }],
  }];
  const entries = JSON.stringify([{ Path: `${ids[0]}/seal.json`, Name: "seal.json", Size: 5, IsDir: false }]);
  await fuzz({
    ...{ name: "rclone's JSON list", real: [entries], isText: true, kinds: ["network"] },
    read: (_, text) =>
      missingAtRemote(
        printing(home.host, () => text),
        destination,
        "home" as HubName,
        expected,
        once(home.host),
      ),
  });
  const features = JSON.stringify({ Name: "b2", Root: "/x", Hashes: ["md5"], Features: { IsLocal: true } });
  await fuzz({
    ...{ name: "rclone's features", real: [features], isText: true, kinds: ["network"] },
    async read(_, text) {
      const told = await describeRemote(
        printing(home.host, () => text),
        destination,
        "ship",
        once(home.host),
      );
      assert.equal(typeof told.hashes, "boolean");
      assert.ok(told.localPath === undefined || typeof told.localPath === "string");
    },
  });
});

const once = (host: Host) => ({ ...realRetry(host, 1), sleep: () => Promise.resolve() });

Deno.test("a ledger that rotted is an error, or the storage host goes on with it and loses nothing it may not", async () => {
  using storage = makeStorageHost();
  const { host, config, store, signer } = storage;
  writeHistory(store, signer, timesUntil(storage.now, 4));
  await scrub(host, config);
  await retainAll(host, config, { apply: true });
  const file = `${config.stateFolder}/ledger.db`;
  {
    using database = new DatabaseSync(file);
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  const kept = await filesBelow(store);
  await fuzz({
    ...{
      name: "the ledger",
      real: [Deno.readFileSync(file)],
      isText: false,
      kinds: ["disk", "usage"],
      share: 0.5,
    },
    async read(bytes) {
      for (const end of ["-wal", "-shm", "-journal"]) await Deno.remove(file + end).catch(() => {});
      Deno.writeFileSync(file, bytes);
      try {
        openLedger(host.fs, config.stateFolder)[Symbol.dispose]();
        await retainAll(host, config, { apply: true });
      } finally {
        assert.deepEqual(await filesBelow(store), kept);
      }
    },
  });
});

Deno.test("a hub's memory that rotted never makes a snapshot that counts as good and cannot be restored", async () => {
  const { home: at } = await makeChain();
  using home = at;
  const memory = `${home.stateFolder}/state/last.json`;
  const good = `${home.dir}/good`;
  for (const name of ["store", "state"]) copySync(`${home.home}/${name}`, `${good}/${name}`);
  const { now } = home;
  const kinds = new Set<string>();
  await fuzz({
    ...{ name: "a backup", real: [Deno.readTextFileSync(memory)], isText: true, share: 0.05 },
    kinds: ["source", "integrity", "disk", "clock"],
    async read(bytes) {
      for (const name of ["store", "state"]) {
        Deno.removeSync(`${home.home}/${name}`, { recursive: true });
        copySync(`${good}/${name}`, `${home.home}/${name}`);
      }
      home.now = now;
      home.sql(insertMessages(1));
      Deno.writeFileSync(memory, bytes);
      const { id, kind } = await home.backup();
      kinds.add(kind);
      const scratch = `${home.dir}/scratch`;
      Deno.mkdirSync(scratch);
      const opening = await home.opening();
      const seals = readSetIfThere(home.host.fs, opening.set).filter(isSealed);
      const checks = await verify(opening, seals, id, scratch);
      Deno.removeSync(scratch, { recursive: true });
      assert.deepEqual(checks.filter(({ ok }) => !ok), []);
    },
  });
  assert.deepEqual([...kinds].sort(), ["full", "increment"]);
});
