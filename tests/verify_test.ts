/** The drill: each line of the checklist fails when what it is about is wrong, and the log remembers how it went. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import settings from "../deno.json" with { type: "json" };
import { describeSnapshot, describeVerify } from "../scripts/core/command_line/reports.ts";
import { BackupError } from "../scripts/core/errors.ts";
import { MAIN_SET, type SnapshotId, snapshotIdAt } from "../scripts/core/names.ts";
import type { Manifest } from "../scripts/core/snapshot/manifest.ts";
import type { Seal } from "../scripts/core/snapshot/seal.ts";
import { chooseSnapshot } from "../scripts/core/snapshot/select.ts";
import { readDrills } from "../scripts/host/records/drill_log.ts";
import { fileShows, needlesOf } from "../scripts/host/restore/needles.ts";
import { openManifest, openSeal } from "../scripts/host/restore/open_snapshot.ts";
import { isSealed, readSet } from "../scripts/host/store/store.ts";
import { verify } from "../scripts/verify.ts";
import { forge } from "./real/forge.ts";
import { type Home, insertMessages, makeHome } from "./real/home.ts";

/** Verifies a snapshot, and gives the lines of its checklist that fail. */
async function failing(home: Home, id: SnapshotId): Promise<string[]> {
  const opening = await home.opening();
  const scratch = Deno.makeTempDirSync({ dir: home.dir });
  const seals = readSet(home.host.fs, opening.set).filter(isSealed);
  const checks = await verify(opening, seals, id, scratch);
  Deno.removeSync(scratch, { recursive: true });
  return checks.filter(({ ok }) => !ok).map(({ name }) => name);
}

Deno.test("a database that SQLite cannot read is damage to all that look into it, and no name in it makes up a line", async () => {
  using home = await makeHome();
  const { id: honest } = await home.backup();
  const opening = await home.opening();
  const manifest = await openManifest(opening, openSeal(opening, honest));
  const [database] = manifest.databases;
  const id = "20260401T000000Z" as SnapshotId;
  const image = new TextEncoder().encode("no database at all".repeat(500));
  const [bytes, sha256] = [image.length, createHash("sha256").update(image).digest("hex")];
  const { part } = database!.chain[0]!;
  const rows = { sessions: 1, "x: 1\n  ok    seal": 2 };
  const forged = { ...database, bytes, sha256, rows, chain: [{ snapshot: id, part, bytes, sha256 }] };
  await forge(home, id, { [part]: [image] }, { ...manifest, id, files: [], databases: [forged] });

  const chosen = ["--snapshot", id, "--identity", home.identityFile];
  for (const verb of [["session", "list"], ["session", "restore", "a", "--export", "-"]]) {
    const { code, stderr } = await home.cli([...verb, ...chosen]);
    assert.equal(code, 5, stderr);
    assert.match(stderr, /^error: Cannot read the database of 20260401T000000Z: file is not a database$/m);
  }
  const { code, stdout } = await home.cli(["verify", ...chosen]);
  assert.equal(code, 5);
  assert.match(stdout, /^ {2}FAIL {2}hapi\.db: opens in SQLite: file is not a database$/m);
  const check = (name: string) => ({ name, ok: false, detail: "a\n  ok    b" });
  const checks = Object.keys(rows).map((table) => check(`hapi.db: rows of ${table}`));
  const report = { ok: false, store: "s", set: MAIN_SET, snapshot: id, checks, seconds: 1 };
  assert.equal(describeVerify(report).split("\n").length, 2 + checks.length);
});

Deno.test("one of a thing is told without a plural", async () => {
  using home = await makeHome();
  home.sql("DROP TABLE messages; DELETE FROM sessions; CREATE TABLE more (id); INSERT INTO more VALUES (1)");
  Deno.removeSync(`${home.home}/.hapi/settings.json`);
  const report = await home.backup();
  const opening = await home.opening();
  const seals = readSet(home.host.fs, opening.set).filter(isSealed);
  const scratch = Deno.makeTempDirSync();
  const checks = await verify(opening, seals, report.id, scratch);
  Deno.removeSync(scratch, { recursive: true });
  const said = [describeSnapshot(report), ...checks.map(({ detail }) => detail)].join("\n");
  assert.match(said, /1 row in all, 1 more table$/m);
  assert.match(said, /^1 database and 1 file$/m);
  assert.doesNotMatch(said, /(?<![\d,.])1 (databases|files|parts|rows|more tables|tables|secret values)/);
});

Deno.test("what a manifest or seal says wrong of a database that is whole fails the very line that is about it", async () => {
  using home = await makeHome();
  home.sql("PRAGMA foreign_keys = OFF; INSERT INTO messages (session) VALUES ('nobody')");
  const { id: honest } = await home.backup();
  assert.deepEqual(await failing(home, honest), [], "broken references are saved as they were, and told");
  const opening = await home.opening();
  const manifest = await openManifest(opening, openSeal(opening, honest));
  const [database] = manifest.databases;
  const { rows, checks } = database!;

  const lies: [Partial<Manifest["databases"][number]>, Partial<Seal>, string[]][] = [
    [{ rows: { ...rows, messages: rows.messages! - 1 } }, {}, ["hapi.db: rows of messages"]],
    [{ rows: { ...rows, ghosts: 0 } }, {}, ["hapi.db: rows of ghosts"]],
    [{ rows: { messages: rows.messages! } }, {}, ["hapi.db: rows of sessions"]],
    [{ schemaSha256: database!.sha256 }, {}, ["hapi.db: schema"]],
    [{ userVersion: 25 }, {}, ["hapi.db: schema"]],
    [{ checks: { ...checks, foreignKeys: [] } }, {}, ["hapi.db: foreign_key_check"]],
    // Of the secret in the fixture's hub.env.
    [{}, { writer: "x sk-ant-0123456789abcdefghij" }, ["no secret shows in the store"]],
    [{}, { previous: { id: honest, sha256: database!.sha256 } }, ["links between seals"]],
    [{ sha256: database!.schemaSha256 }, {}, ["decrypted and rebuilt"]],
  ];
  for (const [index, [lie, changes, failed]] of lies.entries()) {
    const id = snapshotIdAt(new Date(home.now.getTime() + (index + 1) * 60_000));
    const databases = [{ ...database, ...lie }];
    await forge(home, id, {}, { ...manifest, id, databases }, {
      kind: "increment",
      parent: honest,
      needs: [honest],
      ...changes,
    });
    assert.deepEqual(await failing(home, id), failed);
    Deno.removeSync(`${home.stored}/${id}`, { recursive: true });
  }

  // Damage that is saved as it was, to the byte, is damage still.
  home.sql(insertMessages(2_000));
  const bytes = Deno.readFileSync(home.database);
  bytes.fill(0xa5, 60 * 4096, 62 * 4096);
  Deno.writeFileSync(home.database, bytes);
  const { id: damaged } = await home.backup();
  assert.deepEqual(await failing(home, damaged), ["hapi.db: integrity_check", "hapi.db: not suspect"]);
});

Deno.test("a --hub that is no program is told before the drill, which has no verdict then: exit 2", async () => {
  using home = await makeHome();
  await home.backup();
  const args = ["verify", "--identity", home.identityFile, "--hub"];
  for (
    const [given, state] of [["hapi", "there is no such file"], [home.identityFile, "it is not a program"]]
  ) {
    const { code, stderr } = await home.cli([...args, given!]);
    assert.equal(code, 2, stderr);
    assert.match(
      stderr,
      new RegExp(`^error: Cannot start a hub from .*: ${state}.*\nhint: .*command -v`, "m"),
    );
  }
  assert.throws(() => Deno.statSync(`${home.stateFolder}/drills.jsonl`), Deno.errors.NotFound);
});

Deno.test("a drill makes no file beside a database that nobody has open", async () => {
  using home = await makeHome();
  await home.backup();
  const live = new DatabaseSync(home.database);
  live.exec(insertMessages(7));
  const wal = Deno.readFileSync(`${home.database}-wal`);
  live.close();
  const folder = `${home.home}/.hapi`;
  const names = () => [...Deno.readDirSync(folder)].map(({ name }) => name).toSorted();
  for (const [end, bytes] of [["no -wal", undefined], ["a -wal without its index", wal]] as const) {
    if (bytes) Deno.writeFileSync(`${home.database}-wal`, bytes);
    const before = names();
    const { code, stderr } = await home.cli(["verify", "--identity", home.identityFile]);
    assert.equal(code, 0, stderr);
    assert.deepEqual(names(), before, end);
  }
});

Deno.test("what this thread cannot load to read parts with is told where a step asks for it, and no scratch stays", async () => {
  using home = await makeHome();
  await home.backup();
  const reader = import.meta.resolve("../scripts/host/restore/part_source.ts");
  home.write(
    "reader.ts",
    `if (!("DedicatedWorkerGlobalScope" in globalThis)) throw new Error("not to be loaded");
    export * from ${JSON.stringify(`${reader}?itself`)};`,
  );
  const imports = { ...settings.imports, [reader]: `file://${encodeURI(home.home)}/reader.ts` };
  home.write("imports.json", JSON.stringify({ imports }));
  const under = ["bash", "-c", 'exec "$1" run --import-map="$0" "${@:3}"', `${home.home}/imports.json`];
  const { code, stderr } = await home.cli(["verify", "--identity", home.identityFile], { under });
  assert.equal(stderr.split("\n")[0], "error: not to be loaded");
  assert.equal(code, 1);
  assert.deepEqual([...Deno.readDirSync(`${home.stateFolder}/scratch`)], []);
});

Deno.test("a drill is logged, good or bad, and list and status read the log; random ones take what is good", async () => {
  using home = await makeHome();
  const good = await home.backup();
  const live = new DatabaseSync(home.database);
  live.exec(insertMessages(7));
  const args = ["--identity", home.identityFile];
  const proven = await home.cli(["verify", "--snapshot", "random", ...args, "--json"]);
  const detail = (name: string) =>
    JSON.parse(proven.stdout).checks.find((check: { name: string }) => check.name === name).detail;
  assert.equal(detail("manifest"), "1 database and 2 files");
  assert.match(detail("decrypted and rebuilt"), /^1 database and 2 files: /);
  live.close();
  assert.equal(proven.code, 0, proven.stderr);
  const report = JSON.parse(proven.stdout);
  assert.equal(report.snapshot, good.id);
  assert.equal(
    report.checks.find(({ name }: { name: string }) => name.endsWith("since then")).detail,
    "messages +7",
  );
  // As the log has it: a new day may begin at any moment.
  const dayOf = (id: SnapshotId) =>
    readDrills(home.host.fs, home.stateFolder).findLast(({ snapshot }) => snapshot === id)!.at.slice(0, 10);
  assert.match((await home.cli(["list"])).stdout, new RegExp(`${good.id} .* ${dayOf(good.id)}  good`));

  const second = await home.backup();
  const part = `${home.stored}/${second.id}/hapi.db.delta.zst.age`;
  const bytes = Deno.readFileSync(part);
  bytes[bytes.length - 9]! ^= 4;
  Deno.writeFileSync(part, bytes);
  const failed = await home.cli(["verify", ...args]);
  assert.equal(failed.code, 5);
  assert.match(failed.stdout, / FAIL {2}parts: .*hapi\.db\.delta\.zst\.age: its SHA-256 is [^]*NOT PROVEN/);
  assert.match(failed.stderr, /^error: Cannot vouch for snapshot .*: parts, decrypted and rebuilt\nhint: /m);
  const listed = (await home.cli(["list"])).stdout;
  assert.match(listed, new RegExp(`${second.id} .* DRILL FAILED ${dayOf(second.id)}`));
  assert.match(listed, new RegExp(`${good.id} .* ${dayOf(good.id)}  good`));
  for (const line of listed.split("\n")) assert.ok(line.length <= 80 || / FAILED /.test(line), line);
  assert.match((await home.cli(["status"])).stdout, /last drill: .*FAILED/);
  assert.deepEqual([...Deno.readDirSync(`${home.stateFolder}/scratch`)], []);

  const suspicion = { code: "empty", source: "hapi.db" } as const;
  const seals = [
    { id: good.id, suspicions: [] },
    { id: second.id, suspicions: [suspicion] },
    { id: snapshotIdAt(home.now), suspicions: [] },
  ];
  assert.deepEqual([0, 0.49, 0.5, 0.99].map((random) => chooseSnapshot("random", seals, random)), [
    good.id,
    good.id,
    seals[2]!.id,
    seals[2]!.id,
  ]);
});

Deno.test("of secret files, be they large or many, so much is looked for as can be, and an interruption is heard", async () => {
  using home = await makeHome();
  const { fs } = home.host;
  const large = `${home.dir}/large`;
  Deno.writeTextFileSync(large, "KEY=the-value-of-a-large-file\n");
  // No machine could read it whole.
  Deno.truncateSync(large, 2 ** 42);
  const many = Array.from({ length: 300 }, (_, index) => {
    home.write(`${home.dir}/many/${index}`, `KEY=the-value-of-file-${index}\n`);
    return `${home.dir}/many/${index}`;
  });
  const needles = needlesOf(fs, [large, ...many]);
  assert.equal(needles.length, 256);
  assert.ok(needles.some((needle) => new TextDecoder().decode(needle) === "the-value-of-a-large-file"));
  assert.ok(fileShows(home.host, many[3]!, needles));
  // A key that is no text, also where it stands across what is read at once.
  const key = new Uint8Array(32).map((_, at) => 0x80 + 3 * at);
  Deno.writeFileSync(many[0]!, key);
  const [needle] = needlesOf(fs, many);
  const showing = new Uint8Array(3 << 20);
  for (const at of [undefined, 0, (1 << 20) - 16, (2 << 20) + 7]) {
    if (at !== undefined) showing.fill(0).set(key, at);
    Deno.writeFileSync(many[1]!, showing);
    assert.equal(fileShows(home.host, many[1]!, [needle!]), at !== undefined, `at ${at}`);
  }
  Deno.writeTextFileSync(many[2]!, "one\nshort\nline\nafter\nanother\n");
  assert.ok(fileShows(home.host, many[2]!, needlesOf(fs, [many[2]!])));
  const checkpoint = () => {
    throw new BackupError("Cannot go on: interrupted", { kind: "cancelled" });
  };
  assert.throws(() => fileShows({ fs, checkpoint }, large, needles), { kind: "cancelled" });
});
