/** Keys over the years: adding and dropping recipients, what each can open, and proving that an identity does. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { appendInText, removeInText } from "../scripts/core/config/config_edit.ts";
import { MANIFEST_PART, type PartName, type SnapshotId } from "../scripts/core/names.ts";
import { openStore } from "../scripts/host/destinations/remote.ts";
import { generateIdentity } from "../scripts/host/keys/identity.ts";
import { isProofDue, type Proof, readProofs } from "../scripts/host/records/proof_log.ts";
import { makeHost } from "../scripts/host/steps/step.ts";
import { addKey, dropKey, type KeyReach } from "../scripts/keys.ts";
import { cli } from "./real/cli.ts";
import { filesBelow } from "./real/files.ts";
import { ONLY_AS_ROOT } from "./real/home.ts";
import { startSshd } from "./real/sshd.ts";

const AROUND = { home: "/h", hostname: "h", env: {} };
const host = makeHost({ progress() {}, info() {}, warn() {} });

/** A home with a hub's database in it. */
function makeHome() {
  const home = Deno.makeTempDirSync({ prefix: "keys-" });
  Deno.mkdirSync(`${home}/.hapi`);
  using db = new DatabaseSync(`${home}/.hapi/hapi.db`);
  // Large enough that an increment is far less than half of it.
  db.exec(
    "create table sessions (id); create table messages (body); insert into messages " +
      "with recursive n(i) as (select 1 union all select i + 1 from n where i < 500) select randomblob(400) from n",
  );
  const write = () => {
    using db = new DatabaseSync(`${home}/.hapi/hapi.db`);
    db.exec("insert into sessions values (random())");
  };
  return {
    home,
    write,
    config: `${home}/.config/hapi-backup/config.json`,
    state: `${home}/.local/state/hapi-backup`,
    store: `${home}/.local/share/hapi-backup/store`,
    [Symbol.dispose]: () => Deno.removeSync(home, { recursive: true }),
  };
}

Deno.test("a recipient is added, opens what comes from then on, is proven, and is dropped again", async () => {
  using place = makeHome();
  const { home } = place;
  const run = (...args: string[]) => cli({ home }, ...args);
  const backup = async () => {
    place.write();
    const { code, stdout, stderr } = await run("backup", "--no-ship", "--json");
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout).snapshots[0] as { id: string; kind: string; reason: string };
  };
  assert.equal((await backup()).kind, "full");
  assert.equal((await backup()).kind, "increment");

  const second = await generateIdentity();
  Deno.writeTextFileSync(`${home}/second.txt`, `${second.identity}\n`, { mode: 0o600 });
  const before = Deno.readTextFileSync(place.config);
  const added = await run("keys", "add", second.recipient);
  assert.equal(added.code, 0, added.stderr);
  assert.match(added.stdout, /will open every snapshot from the next one on/);
  assert.match(added.stdout, /of 2 snapshots here it opens none/);
  const after = Deno.readTextFileSync(place.config);
  assert.equal(
    after,
    before.replace(/("recipients": \[\s*"age1[a-z0-9]+")/, `$1,\n    "${second.recipient}"`),
  );
  assert.equal(Deno.statSync(place.config).mode! & 0o777, 0o600);

  const changed = await backup();
  assert.deepEqual([changed.kind, changed.reason], ["full", "the recipients have changed"]);
  assert.equal((await backup()).kind, "increment", "and then increments again");
  const listed = JSON.parse((await run("keys", "list", "--json")).stdout).keys as KeyReach[];
  const first = listed.find(({ recipient }) => recipient !== second.recipient)!.recipient;
  const opens = (recipient: string, keys: KeyReach[]) =>
    keys.find((key) => key.recipient === recipient)!.reach[0]!;
  assert.equal(opens(first, listed).snapshots, 4);
  assert.deepEqual(opens(second.recipient, listed), {
    ...opens(first, listed),
    snapshots: 2,
    oldest: changed.id,
  });

  const proven = await run("keys", "prove");
  assert.equal(proven.code, 0, proven.stderr);
  assert.match(proven.stdout, /opens every chain \(2\)/);
  // What was made before it was added is for others.
  const partly = await run("keys", "prove", "--identity", `${home}/second.txt`, "--signer", signerIn(after));
  assert.equal(partly.code, 0, partly.stderr);
  assert.match(
    partly.stdout,
    / {2}- {5}state: the chain of .*, 2 snapshots: made for other recipients\n {2}ok {4}state: /,
  );
  assert.match(
    partly.stdout,
    /opens every chain that is made for it \(1 of 2\); the older ones need another/,
  );
  const proofs = readProofs(host.fs, place.state)!;
  assert.deepEqual(proofs.map(({ ok, chains, recipients }) => ({ ok, chains, recipients })), [
    { ok: true, chains: 2, recipients: [first] },
    { ok: true, chains: 1, recipients: [second.recipient] },
  ]);
  const text = (await run("keys", "list")).stdout;
  assert.match(
    text,
    /opens all 4 snapshots[^]*last proven: \d+ s ago[^]*opens 2 of 4[^]*last proven: \d+ s ago/,
  );

  assert.equal((await run("keys", "drop", "age1")).code, 2, "a start that names several");
  const dropped = await run("keys", "drop", first.slice(0, 12));
  assert.equal(dropped.code, 0, dropped.stderr);
  assert.match(dropped.stdout, /it still opens 4 snapshots of state/);
  assert.match(dropped.stdout, /ONE ONLY/);
  assert.equal((await run("keys", "drop", second.recipient)).code, 2, "the last one stays");
  const newest = await backup();
  assert.equal(newest.kind, "full");
  // A drill proves a key that is used; an old snapshot, opened by an old key, proves nothing of those.
  const drill = (id: string, identity: string) =>
    run("verify", "--snapshot", id, "--identity", identity, "--signer", signerIn(after));
  const old = `${home}/.config/hapi-backup/identity.txt`;
  assert.equal((await drill(changed.id, old)).code, 0);
  assert.equal(readProofs(host.fs, place.state)!.length, 2);
  Deno.writeTextFileSync(`${home}/both.txt`, Deno.readTextFileSync(old) + second.identity);
  for (const identity of ["second.txt", "both.txt"]) {
    assert.equal((await drill(newest.id, `${home}/${identity}`)).code, 0);
    const { ok, chains, recipients, snapshot } = readProofs(host.fs, place.state)!.at(-1)!;
    assert.deepEqual({ ok, chains, recipients, snapshot }, {
      ok: true,
      chains: 1,
      recipients: [second.recipient],
      snapshot: newest.id,
    });
  }
  assert.equal(readProofs(host.fs, place.state)!.length, 4);
  const last = JSON.parse((await run("keys", "list", "--json")).stdout).keys as KeyReach[];
  assert.deepEqual(last.map(({ recipient, configured }) => [recipient, configured]), [
    [second.recipient, true],
    [first, false],
  ]);
  assert.deepEqual([opens(first, last).snapshots, opens(second.recipient, last).snapshots], [4, 3]);
  // One that is used no longer is not proven by what it still opens.
  const useless = await run("keys", "prove", "--identity", old, "--signer", signerIn(after));
  assert.equal(useless.code, 7, useless.stderr);
  assert.match(useless.stdout, /FAIL {2}state: the chain of .*, 1 snapshot: .*none of the identities/);
  assert.match(useless.stdout, /OPENS 2 OF 3 CHAINS/);
});

Deno.test("proving against a storage host fetches one small part of each chain, with the key that may only read", async () => {
  using place = makeHome();
  const { home } = place;
  assert.equal((await cli({ home }, "backup", "--no-ship", "--json")).code, 0);
  await using sshd = await startSshd({ dir: place.store });
  const spec = `${sshd.user}@${sshd.host}:`;
  const { code, stdout, stderr } = await cli(
    { home },
    "keys",
    "prove",
    ...["--store", spec, "--ssh-key", sshd.readKeyFile, "--known-hosts", sshd.knownHostsFile],
    ...["--port", String(sshd.port)],
  );
  assert.equal(code, 0, stderr);
  assert.match(stdout, / in [^:]+:\n {2}ok {4}state: .*\nopens every chain \(1\)$/m);
  const scratch = `${home}/scratch`;
  await using store = await openStore(host, spec, {
    scratch,
    identityFile: sshd.readKeyFile,
    knownHostsFile: sshd.knownHostsFile,
    port: sshd.port,
  });
  const [hub] = [...Deno.readDirSync(place.store)].map(({ name }) => name);
  const id = [...Deno.readDirSync(`${place.store}/${hub}/state`)][0]!.name as SnapshotId;
  const wanted = { hub: hub!, set: "state" as never, id };
  const names = async () => (await filesBelow(`${store.root}/${hub}/state/${id}`)).map(([name]) => name);
  await store.fetch([{ ...wanted, parts: new Set([MANIFEST_PART]) }]);
  assert.deepEqual(await names(), [MANIFEST_PART, "seal.json", "seal.json.sig"]);
  const there = [...Deno.readDirSync(`${place.store}/${hub}/state/${id}`)].map(({ name }) =>
    name as PartName
  );
  await store.fetch([{ ...wanted, parts: new Set(there) }]);
  assert.deepEqual(await names(), there.sort(), "all of it when all of it is wanted later");
});

Deno.test("a forged chain and a damaged header do not count as proven", async () => {
  using place = makeHome();
  const { home } = place;
  assert.equal((await cli({ home }, "backup", "--no-ship", "--json")).code, 0);
  const [hub] = [...Deno.readDirSync(place.store)].map(({ name }) => name);
  const folder = `${place.store}/${hub}/state`;
  const part = `${folder}/${[...Deno.readDirSync(folder)][0]!.name}/${MANIFEST_PART}`;
  const good = Deno.readFileSync(part);
  const damaged = good.slice();
  damaged[60]! ^= 1;
  Deno.writeFileSync(part, damaged);
  const result = await cli({ home }, "keys", "prove");
  assert.deepEqual([result.code, /its SHA-256 is/.test(result.stdout)], [5, true], result.stdout);
  Deno.removeSync(part);
  const missing = await cli({ home }, "keys", "prove");
  assert.equal(missing.code, 5);
  assert.match(missing.stderr, /Cannot read \S+: it is missing\nhint: another copy/);
  Deno.writeFileSync(part, good);
  // Beside the one that opens everything, one that opens nothing is not proven.
  const useless = await generateIdentity();
  const both = `${useless.identity}\n${Deno.readTextFileSync(`${home}/.config/hapi-backup/identity.txt`)}`;
  assert.equal((await cli({ home, stdin: both }, "keys", "prove", "--identity", "-")).code, 0);
  const proof = readProofs(host.fs, place.state)!.at(-1)!;
  assert.deepEqual([proof.ok, proof.recipients.includes(useless.recipient)], [true, false]);
  assert.equal(proof.recipients.length, 1);
  const text = Deno.readTextFileSync(place.config);
  const other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
  Deno.writeTextFileSync(place.config, text.replace(/"signers": \[[^\]]*\]/, `"signers": ["${other}"]`));
  const identity = Deno.readTextFileSync(`${home}/.config/hapi-backup/identity.txt`).replace(
    /# signer.*/,
    "",
  );
  const forged = await cli({ home, stdin: identity }, "keys", "prove", "--identity", "-");
  assert.equal(forged.code, 5);
  assert.match(forged.stdout, /none of the known signers/);
});

Deno.test("recipients that are added at the same time are all there afterwards", async () => {
  using place = makeHome();
  const { home } = place;
  assert.equal((await cli({ home }, "backup", "--no-ship", "--json")).code, 0);
  const added = await Promise.all([1, 2, 3, 4].map(() => generateIdentity()));
  const runs = await Promise.all(added.map(({ recipient }) => cli({ home }, "keys", "add", recipient)));
  assert.deepEqual(runs.map(({ code }) => code), [0, 0, 0, 0], runs.map(({ stderr }) => stderr).join(""));
  const text = Deno.readTextFileSync(place.config);
  for (const { recipient } of added) assert.ok(text.includes(recipient), text);
});

Deno.test(
  "root does not take a configuration away from the user who is to read it",
  ONLY_AS_ROOT,
  async () => {
    using place = makeHome();
    const [one, other] = [await generateIdentity(), await generateIdentity()];
    const folder = place.config.slice(0, place.config.lastIndexOf("/"));
    Deno.mkdirSync(folder, { recursive: true });
    const text = `{ "recipients": ["${one.recipient}"] }`;
    Deno.writeTextFileSync(place.config, text);
    Deno.chownSync(place.config, 4242, 4242);
    const { code, stderr } = await cli({ home: place.home }, "keys", "add", other.recipient);
    assert.equal(code, 2, stderr);
    assert.match(
      stderr,
      /^error: Cannot write .*config\.json: it belongs to user 4242, .*\nhint: run this as that user/m,
    );
    assert.equal(Deno.readTextFileSync(place.config), text);
    assert.equal(Deno.statSync(place.config).uid, 4242);
    assert.deepEqual(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["config.json"]);
  },
);

Deno.test("keys that cannot be used are refused, and nothing is written", async () => {
  const { recipient } = await generateIdentity();
  const hybrid = await generateIdentity("hybrid");
  const file = { text: `{ "recipients": ["${recipient}"] }`, where: "c", around: AROUND };
  await assert.rejects(addKey(file, recipient, []), /is there already/);
  await assert.rejects(addKey(file, hybrid.recipient, []), /post-quantum .* are mixed/);
  await assert.rejects(addKey(file, hybrid.identity, []), (error) => !/SECRET/.test(String(error)));
  await assert.rejects(addKey(file, recipient.slice(0, -1) + "q", []), /mistyped or cut|it is there/);
  assert.throws(() => dropKey(file, recipient, []), /nobody could open/);
  assert.throws(() => dropKey(file, "age1zzzzzzzz", []), /not in the configuration/);
  const none = await addKey({ ...file, text: "{}" }, recipient, []);
  assert.deepEqual(none.recipients, [recipient]);
});

Deno.test("editing a list keeps every comment with the element that it is about", () => {
  const lines = `{
  // who
  "recipients": [
    "a", // mine
    // hers
    "b", /* x */ // bank
    "c" // vault
  ], // end
}`;
  const key = "recipients";
  assert.equal(appendInText(lines, key, "d"), lines.replace('"c" // vault', '"c", // vault\n    "d"'));
  assert.equal(removeInText(lines, key, 0), lines.replace('    "a", // mine\n', ""));
  assert.equal(removeInText(lines, key, 2), lines.replace('    "c" // vault\n', ""));
  const inline = `{ "recipients": ["a", "b", "c"] /* k */ }`;
  assert.equal(appendInText(inline, key, "d"), inline.replace('"c"', '"c", "d"'));
  assert.equal(removeInText(inline, key, 0), inline.replace('"a", ', ""));
  assert.equal(removeInText(inline, key, 1), inline.replace('"b", ', ""));
  assert.equal(removeInText(inline, key, 2), inline.replace(', "c"', ""));
  assert.equal(removeInText(`{ "recipients": ["a"] }`, key, 0), `{ "recipients": [] }`);
  assert.equal(
    appendInText(`{\n  "recipients": [ /* none */ ]\n}`, key, "a"),
    `{\n  "recipients": ["a" /* none */ ]\n}`,
  );
  assert.equal(
    appendInText('{\n  // h\n  "hub": "h" // me\n}', "destinations", { name: "n", kind: "x" }),
    '{\n  // h\n  "hub": "h", // me\n  "destinations": [{ "name": "n", "kind": "x" }]\n}',
  );
  assert.equal(appendInText('{ "hub": "h", }', key, "a"), '{ "hub": "h", "recipients": ["a"], }');
  const edits: [list: string, added: string, removed: string, index: number][] = [
    // What is behind the comma is about what follows on that line, if something does.
    ['["a" /* A */, "b"]', '["a" /* A */, "b", "d"]', '["b"]', 0],
    ['["a", /* B */ "b" /* b */]', '["a", /* B */ "b" /* b */, "d"]', '[/* B */ "b" /* b */]', 0],
    ['["a" /* A */, "b" /* B */ ]', '["a" /* A */, "b" /* B */, "d" ]', '["a" /* A */,  ]', 1],
    ['["a", /* B */ "b"]', '["a", /* B */ "b", "d"]', '["a", /* B */ ]', 1],
    ['["a", // A\n "b" // B\n]', '["a", // A\n "b", // B\n "d"\n]', '[\n "b" // B\n]', 0],
    ['["a", "b", // B ]\n]', '["a", "b", // B ]\n"d",\n]', '["a", \n]', 1],
    ['["a", /* A, */ ]', '["a", /* A, */\n"d", ]', "[]", 0],
    ['["a", /* b */ "b", /* B */ ]', '["a", /* b */ "b", /* B */\n"d", ]', '[/* b */ "b", /* B */ ]', 0],
    ['[\r\n  "a", // A\r\n]', '[\r\n  "a", // A\r\n  "d",\r\n]', "[\r\n]", 0],
    ['[\n  "a",\n  // B\n  "b"\n]', '[\n  "a",\n  // B\n  "b",\n  "d"\n]', '[\n  // B\n  "b"\n]', 0],
    ['[\n  "a" // A\n  , "b"\n]', '[\n  "a" // A\n  , "b", "d"\n]', '[\n   "b"\n]', 0],
    ['[\n  "a"\n  // none, yet\n]', '[\n  "a",\n  "d"\n  // none, yet\n]', "[\n  // none, yet\n]", 0],
  ];
  for (const [list, added, removed, index] of edits) {
    assert.equal(appendInText(`{"recipients": ${list}}`, key, "d"), `{"recipients": ${added}}`);
    assert.equal(removeInText(`{"recipients": ${list}}`, key, index), `{"recipients": ${removed}}`);
  }
});

Deno.test("a proof is due when the last good one, or the first backup, is past the limit", () => {
  const proof = (at: string, ok: boolean): Proof => ({
    at,
    ok,
    store: "",
    recipients: [],
    chains: 1,
    failed: [],
  });
  const now = new Date("2026-11-22T00:00:00Z");
  const old = new Date("2026-01-01T00:00:00Z");
  const due = (proofs: Proof[], since: Date | undefined) => isProofDue(proofs, 90, since, now);
  assert.equal(due([], undefined), false, "nothing to prove yet");
  assert.equal(due([], old), true);
  assert.equal(due([proof("2026-10-01T00:00:00Z", true)], old), false);
  assert.equal(due([proof("2026-08-01T00:00:00Z", true), proof("2026-11-01T00:00:00Z", false)], old), true);
});

const signerIn = (config: string): string => /"(ssh-ed25519 [^"]+)"/.exec(config)![1]!;

Deno.test("keys list: a recipient of the only snapshot opens one, not all 1", async () => {
  using home = makeHome();
  await cli(home, "backup");
  assert.match((await cli(home, "keys", "list")).stdout, /state: opens 1 snapshot, /);
});
