/** A hostile store through the real command line: told apart, refused with its exit code, and nothing written anywhere. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { type BackupError, exitCodeOf } from "../scripts/core/errors.ts";
import { FILES_PART, MANIFEST_PART, type SnapshotId } from "../scripts/core/names.ts";
import { generateIdentity } from "../scripts/host/keys/identity.ts";
import { openManifest, openSeal } from "../scripts/host/restore/open_snapshot.ts";
import { restore } from "../scripts/restore.ts";
import { copySync, filesBelow } from "./real/files.ts";
import { forge } from "./real/forge.ts";
import { type Home, insertMessages, makeHome, output } from "./real/home.ts";

/** A snapshot that no restore may follow. */
interface Attack {
  readonly make: (id: SnapshotId) => void | Promise<void>;
  readonly error: RegExp;
  readonly code?: number;
  /** What `list` says of it: it looks at seals and sizes only. */
  readonly listed?: RegExp;
}

const encode = (text: string) => new TextEncoder().encode(text);
const EVIL = encode("evil");
const SHA256 = createHash("sha256").update(EVIL).digest("hex");

/** A tar as the tar program makes it of a folder's `names`. */
async function tarOf(folder: string, ...names: string[]): Promise<Uint8Array> {
  await output("tar", ["-c", "-P", "-f", `${folder}/x.tar`, "-C", folder, ...names]);
  return Deno.readFileSync(`${folder}/x.tar`);
}

/** What the attacks are, by what they do; each makes its snapshot in the home's store. */
async function attacksOn(
  home: Home,
  honest: readonly [SnapshotId, SnapshotId],
): Promise<Record<string, Attack>> {
  const opening = await home.opening();
  const manifest = await openManifest(opening, openSeal(opening, honest[1]));
  const database = manifest.databases[0]!;
  const folder = (id: SnapshotId) => `${home.stored}/${id}`;
  const lie = (id: SnapshotId, changes: object) => ({
    ...manifest,
    id,
    databases: [],
    files: [],
    ...changes,
  });
  const file = (id: SnapshotId, place = "home/.hapi/a", member = place) => ({
    source: "x",
    place,
    type: "file",
    mode: 0o644,
    mtimeMs: 0,
    bytes: EVIL.length,
    sha256: SHA256,
    stored: { snapshot: id, member },
  });
  const link = {
    source: "x",
    place: "home/out",
    type: "link",
    mode: 0o777,
    mtimeMs: 0,
    bytes: 0,
    target: home.home,
  };
  const tarred = `${home.dir}/tarred`;
  Deno.mkdirSync(`${tarred}/home/.hapi`, { recursive: true });
  Deno.writeFileSync(`${tarred}/home/.hapi/a`, EVIL);
  Deno.symlinkSync("/etc", `${tarred}/home/.hapi/link`);
  await output("mknod", [`${tarred}/home/.hapi/device`, "c", "1", "3"]);
  const forgeFiles = async (id: SnapshotId, args: string[], files: object[] = [file(id)]) =>
    await forge(
      home,
      id,
      { [FILES_PART]: [await tarOf(tarred, "home/.hapi/a", ...args)] },
      lie(id, { files }),
    );
  const zeros = new Uint8Array(1 << 20);
  const bomb = Array.from({ length: 64 }, () => zeros);
  const stranger = crypto.getRandomValues(new Uint8Array(32));
  const other = (await generateIdentity()).recipient;

  return {
    "a tar that climbs out": {
      make: (id) => forgeFiles(id, ["--transform=s,home,../../../..,", "home/.hapi/a"]),
      error: /is no place/,
    },
    "a tar with an absolute path": {
      make: (id) => forgeFiles(id, [`--transform=s,home,${home.dir}/evil,`, "home/.hapi/a"]),
      error: /is no place/,
    },
    "a tar with a link": { make: (id) => forgeFiles(id, ["home/.hapi/link"]), error: /link/ },
    "a tar with a device": { make: (id) => forgeFiles(id, ["home/.hapi/device"]), error: /device/ },
    "a manifest that climbs out": {
      make: (id) => forgeFiles(id, [], [file(id, "home/../../a", "home/.hapi/a")]),
      error: /is not a place/,
    },
    "a manifest with an absolute path": {
      make: (id) => forgeFiles(id, [], [file(id, "/etc/a", "home/.hapi/a")]),
      error: /is not a place/,
    },
    "a file behind a link out of the target": {
      make: (id) => forgeFiles(id, [], [link, file(id, "home/out/a", "home/.hapi/a")]),
      error: /home\/out\/a lies inside home\/out, which is no folder/,
    },
    "a database of other sizes than the manifest says": {
      make: async (id) => {
        const chain = [{ ...database.chain[0]!, snapshot: id }];
        await forge(home, id, { [chain[0]!.part]: bomb }, lie(id, { databases: [{ ...database, chain }] }));
      },
      error: /it does not hold \d+ bytes, as the manifest says/,
    },
    "files of other sizes than the manifest says": {
      make: (id) => forge(home, id, { [FILES_PART]: bomb }, lie(id, { files: [file(id)] })),
      error: /Cannot unpack the files of a snapshot/,
    },
    "a manifest of nothing but empty files": {
      make: (id) => {
        const [start, end] = JSON.stringify(lie(id, { files: [{}] })).split("{}").map(encode);
        const million = encode("{},".repeat(1_000_000));
        return forge(home, id, {}, [start!, ...Array.from({ length: 9 }, () => million), encode("{}"), end!]);
      },
      error: /Cannot read the manifest of \w+: it is larger than any that is written/,
    },
    "a manifest of another snapshot": {
      make: (id) => forge(home, id, {}, manifest),
      error: /it belongs to home\/state\//,
    },
    "a part of another snapshot in place of its own": {
      make: async (id) => {
        await forge(home, id, {}, lie(id, {}));
        Deno.copyFileSync(`${folder(honest[0])}/${MANIFEST_PART}`, `${folder(id)}/${MANIFEST_PART}`);
      },
      error: /bytes where the seal says/,
      listed: /bytes where the seal says/,
    },
    "an old seal replayed": {
      make: (id) => copySync(folder(honest[0]), folder(id)),
      error: /its seal belongs to home\/state\//,
      listed: /its seal belongs to home\/state\//,
    },
    "one that somebody else signed": {
      make: (id) => forge(home, id, {}, lie(id, {}), {}, stranger),
      error: /none of the known signers/,
      listed: /none of the known signers/,
    },
    "one that is encrypted to somebody else": {
      make: (id) => forge(home, id, {}, lie(id, {}), { recipients: [other] }),
      error:
        /none of the identities given \(1\) opens it[^]*needs the identity of one of these recipients: age1/,
      code: 7,
    },
  };
}

Deno.test("a hostile store is refused by restore and verify, and nothing of it is written anywhere", async () => {
  using home = await makeHome();
  const honest = [(await home.backup()).id, await home.backup().then(({ id }) => id)] as const;
  home.sql(insertMessages(10));
  home.write(".hapi/hub.env", "CHANGED=since\n");
  const attacks = Object.entries(await attacksOn(home, honest));
  const ids = attacks.map((_, index) => `202604${String(index + 1).padStart(2, "0")}T000000Z` as SnapshotId);
  for (const [index, [, { make }]] of attacks.entries()) await make(ids[index]!);
  const everything = async () =>
    (await filesBelow(home.dir)).filter(([path]) => !/^op\/state\/(drills\.jsonl|state\/lock)$/.test(path));
  const before = await everything();
  const identity = ["--identity", home.identityFile];
  const opening = await home.opening();
  const out = `${home.dir}/out`;

  const list = await home.cli(["list", "--json"]);
  assert.equal(list.code, 0, list.stderr);
  const problems = new Map<string, string | undefined>(
    JSON.parse(list.stdout).snapshots.map(({ id, problem }: Record<string, string>) => [id, problem]),
  );
  assert.deepEqual(honest.map((id) => problems.get(id)), [undefined, undefined]);

  for (const [index, [name, { error, code = 5, listed }]] of attacks.entries()) {
    const id = ids[index]!;
    if (listed) assert.match(problems.get(id) ?? "nothing", listed, name);
    await assert.rejects(restore(opening, id, out), (thrown: BackupError) => {
      assert.match(`${thrown.message}\n${thrown.hint}`, error, name);
      assert.match(thrown.message, /^Cannot /, name);
      assert.ok(thrown.hint, `${name}: no remedy`);
      return exitCodeOf(thrown.kind) === code;
    }, name);
    assert.deepEqual(await everything(), before, name);
  }

  // Each kind once more by the command line, and through the other two: what is proven, and what is put in place.
  const named = (part: string) => ids[attacks.findIndex(([name]) => name.includes(part))]!;
  for (
    const id of [
      named("climbs out"),
      named("database of other sizes"),
      named("old seal"),
      named("somebody else signed"),
    ]
  ) {
    const ran = await home.cli(["restore", "--to", out, "--snapshot", id, ...identity]);
    assert.equal(ran.code, 5, ran.stderr);
    assert.match(ran.stderr, /^error: Cannot /m);
    assert.match(ran.stderr, attacks[ids.indexOf(id)]![1].error);
    assert.doesNotMatch(ran.stderr, /fault of hapi-backup/);
    assert.deepEqual(await everything(), before, id);
    const verified = await home.cli(["verify", "--snapshot", id, ...identity, "--json"]);
    assert.equal(verified.code, 5, verified.stderr);
    assert.equal(JSON.parse(verified.stdout).ok, false);
    const placed = await home.cli(["restore", "--in-place", "--snapshot", id, ...identity]);
    assert.equal(placed.code, 5, placed.stderr);
    assert.deepEqual(await everything(), before, id);
  }

  // A store of this hub under another's name is neither's.
  copySync(home.stored, `${home.dir}/moved/other/state`);
  const to = ["--to", out, "--snapshot", honest[1], ...identity];
  const moved = await home.cli(["restore", "--store", `${home.dir}/moved`, ...to]);
  assert.equal(moved.code, 5, moved.stderr);
  assert.match(moved.stderr, /its seal belongs to home\/state\//);

  const good = await home.cli(["restore", ...to]);
  assert.equal(good.code, 0, good.stderr);
});
