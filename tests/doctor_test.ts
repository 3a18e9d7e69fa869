/** The doctor: what it finds on a real hub with a real storage host, and how it ends. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { type Config, parseConfig } from "../scripts/core/config/config.ts";
import { BackupError } from "../scripts/core/errors.ts";
import { signSsh } from "../scripts/core/keys/sshsig.ts";
import { MAIN_SET } from "../scripts/core/names.ts";
import { RECEIPT_NAMESPACE, serializeReceipt } from "../scripts/core/shipping/receipt.ts";
import {
  about,
  describeFindings,
  doctorError,
  type Finding,
  remedyOf,
} from "../scripts/core/status/finding.ts";
import { HOUR_MS } from "../scripts/core/time.ts";
import { doctor, type DoctorOptions } from "../scripts/doctor.ts";
import type { Host, RunResult } from "../scripts/host/host.ts";
import { generateIdentity } from "../scripts/host/keys/identity.ts";
import { identityPlaces } from "../scripts/host/keys/identity_places.ts";
import { makeHost } from "../scripts/host/steps/step.ts";
import { cli } from "./real/cli.ts";
import { filesBelow } from "./real/files.ts";
import { makeSigner } from "./real/signed_store.ts";
import { destinationAt, type Sshd, startSshd } from "./real/sshd.ts";

const host = makeHost({ progress() {}, info() {}, warn() {} });
const OPTIONS: DoctorOptions = { candidates: [], sourceDevices: [], offline: false };

/** A hub that ships to `sshd` and keeps no identity. */
async function makeHub(sshd: Sshd, more: Record<string, unknown> = {}) {
  const home = Deno.makeTempDirSync({ prefix: "doctor-" });
  Deno.mkdirSync(`${home}/.hapi`);
  {
    using db = new DatabaseSync(`${home}/.hapi/hapi.db`);
    db.exec("pragma journal_mode = wal; create table sessions (id); insert into sessions values (1)");
  }
  const file = `${home}/.config/hapi-backup/config.json`;
  assert.equal((await cli({ home }, "backup", "--no-ship")).code, 0);
  const made = parseConfig(Deno.readTextFileSync(file), file, { home, hostname: "h", env: {} });
  const other = await generateIdentity();
  const text = {
    hub: made.hub,
    recipients: [...made.recipients, other.recipient],
    signers: made.signers,
    destinations: [{ ...destinationAt(sshd), readIdentityFile: sshd.readKeyFile, attempts: 1 }],
    notify: [{ kind: "command", command: ["/bin/true"] }],
    ...more,
  };
  const identity = Deno.readTextFileSync(`${home}/.config/hapi-backup/identity.txt`);
  Deno.removeSync(`${home}/.config/hapi-backup/identity.txt`);
  Deno.writeTextFileSync(file, JSON.stringify(text));
  return {
    home,
    file,
    text,
    identity,
    config: (change: Record<string, unknown> = {}): Config =>
      parseConfig(JSON.stringify({ ...text, ...change }), file, { home, hostname: "h", env: {} }),
    [Symbol.dispose]: () => Deno.removeSync(home, { recursive: true }),
  };
}

/** A folder for a storage host. */
function temporary() {
  const dir = Deno.makeTempDirSync({ prefix: "doctor-store-" });
  return { dir, [Symbol.dispose]: () => Deno.removeSync(dir, { recursive: true }) };
}

const named = (findings: readonly Finding[], name: RegExp) => {
  const found = findings.find((finding) => name.test(finding.name));
  assert.ok(found, `no finding ${name} among ${findings.map(({ name }) => name).join(", ")}`);
  return found;
};
const failed = (findings: readonly Finding[]) =>
  findings.filter(({ state }) => state === "fail").map(({ name }) => name);

Deno.test("a hub that ships to an append-only storage host is found healthy, by trying, and nothing there changes", async () => {
  using folder = temporary();
  const { dir } = folder;
  await using sshd = await startSshd({ dir });
  using hub = await makeHub(sshd);
  const { home } = hub;
  assert.equal((await cli({ home }, "ship")).code, 0);
  assert.equal((await cli({ home, stdin: hub.identity }, "verify", "--identity", "-")).code, 0);
  assert.equal((await cli({ home, stdin: hub.identity }, "keys", "prove", "--identity", "-")).code, 0);
  const before = await filesBelow(dir);
  const { code, stdout, stderr } = await cli({ home }, "doctor", "--json");
  assert.deepEqual(await filesBelow(dir), before);
  const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: Finding[] };
  assert.deepEqual(failed(checks), [], stderr);
  assert.equal(code, 0);
  assert.equal(ok, true);
  for (const what of ["cannot delete", "cannot read back", "no shell", "cannot overwrite", "cannot write"]) {
    const finding = named(checks, new RegExp(`^storage: .*${what}`));
    assert.deepEqual([finding.state, /^(tried|asked)/.test(finding.detail)], ["ok", true], what);
  }
  assert.match(named(checks, /storage: clock/).detail, /agree/);
  assert.match(named(checks, /^state: hapi.db/).detail, /journal mode WAL/);
  for (const name of [/drill/, /^keys$/, /^recipients/, /^rsync$/, /no identity/]) {
    assert.equal(named(checks, name).state, "ok", String(name));
  }
  const text = (await cli({ home }, "doctor", "--offline")).stdout;
  assert.match(text, /^Sources\n[^]*\nKeys\n[^]*\nRuns\n[^]*\nDestinations\n[^]*\nProof\n/);
});

Deno.test("a storage host that would let the hub delete, overwrite, read or run anything is found out", async () => {
  using folder = temporary();
  const { dir } = folder;
  await using sshd = await startSshd({ dir, writeOptions: "" });
  using hub = await makeHub(sshd);
  assert.equal((await cli({ home: hub.home }, "ship")).code, 0);
  const before = await filesBelow(dir);
  const lax = await doctor(host, hub.config(), OPTIONS);
  assert.deepEqual(failed(lax).filter((name) => name.startsWith("storage")), [
    "storage: its key cannot delete",
    "storage: its key cannot read back",
    "storage: its key cannot overwrite",
  ]);
  assert.equal(doctorError(lax)!.kind, "key");

  // What ssh could not ask was not refused.
  const cut = { code: 255, stdout: "", stderr: "Connection reset by 127.0.0.1" };
  const run: Host["run"] = (program, ...rest) =>
    program === "ssh" ? Promise.resolve(cut) : host.run(program, ...rest);
  const unasked = named(await doctor({ ...host, run }, hub.config(), OPTIONS), /gives no shell/);
  assert.deepEqual([unasked.state, unasked.detail], ["warn", "it could not be told (ssh ended with 255)"]);

  const key = `${hub.home}/shell`;
  await new Deno.Command("ssh-keygen", { args: ["-q", "-t", "ed25519", "-N", "", "-f", key] }).output();
  const publicKey = Deno.readTextFileSync(`${key}.pub`).trim();
  await using open = await startSshd({ dir, authorizedKeys: [publicKey] });
  const destination = {
    ...hub.text.destinations[0]!,
    port: open.port,
    identityFile: key,
    knownHostsFile: open.knownHostsFile,
    target: `${open.user}@${open.host}:${dir}`,
    readIdentityFile: undefined,
  };
  const shell = await doctor(host, hub.config({ destinations: [destination] }), OPTIONS);
  assert.equal(named(shell, /gives no shell/).state, "fail");
  assert.deepEqual(await filesBelow(dir), before, "nothing was deleted or overwritten by trying");

  const swapped = { ...hub.text.destinations[0]!, readIdentityFile: sshd.writeKeyFile };
  const both = await doctor(host, hub.config({ destinations: [swapped] }), OPTIONS);
  assert.equal(named(both, /reading key cannot write/).state, "fail");
});

Deno.test("an unreachable storage host, a changed host key, a clock that is off, and what waits are failures", async () => {
  using folder = temporary();
  const { dir } = folder;
  await using sshd = await startSshd({ dir });
  using hub = await makeHub(sshd);
  const waiting = await doctor(host, hub.config(), OPTIONS);
  assert.match(named(waiting, /holds what is here/).detail, /1 snapshot waiting/);
  assert.equal(doctorError(waiting)!.kind, "unshipped");
  assert.equal((await cli({ home: hub.home }, "ship")).code, 0);

  const seal = (await filesBelow(dir)).find(([name]) => name.endsWith("seal.json"))![0];
  const now = Date.now();
  Deno.utimeSync(`${dir}/${seal}`, new Date(now - 3_600_000), new Date(now - 3_600_000));
  const clock = named(await doctor(host, hub.config(), OPTIONS), /storage: clock/);
  assert.deepEqual([clock.state, clock.kind], ["fail", "clock"], clock.detail);
  const blind = { ...hub.text.destinations[0]!, readIdentityFile: undefined };
  const unread = named(await doctor(host, hub.config({ destinations: [blind] }), OPTIONS), /storage: clock/);
  assert.deepEqual([unread.state, unread.kind], ["fail", "clock"], "no key that may read is needed");

  const pins = `${hub.home}/known_hosts`;
  Deno.writeTextFileSync(pins, "elsewhere ssh-ed25519 AAAA\n");
  const unpinned = { ...hub.text.destinations[0]!, knownHostsFile: pins };
  const strange = await doctor(host, hub.config({ destinations: [unpinned] }), OPTIONS);
  assert.deepEqual([named(strange, /storage: host key/).state, doctorError(strange)!.kind], ["fail", "key"]);

  await sshd.restart({ newHostKey: true });
  const changed = named(await doctor(host, hub.config(), OPTIONS), /storage: reachable/);
  assert.deepEqual([changed.state, changed.kind], ["fail", "key"]);
  assert.match(changed.detail, /another host key/);
  await sshd.stop();
  const gone = named(await doctor(host, hub.config(), OPTIONS), /storage: reachable/);
  assert.deepEqual([gone.state, gone.kind], ["fail", "network"]);
});

Deno.test("what the last run said is told with its age, and is of before once the configuration is changed", async () => {
  using folder = temporary();
  await using sshd = await startSshd(folder);
  using hub = await makeHub(sshd);
  const { home, file, text } = hub;
  const gone = { kind: "folder", name: "disk", path: `${home}/gone` };
  const source = { kind: "sqlite", path: `${home}/gone.db`, required: true };
  const write = (changes: Record<string, unknown>) =>
    Deno.writeTextFileSync(file, JSON.stringify({ ...text, ...changes }));
  write({ destinations: [gone], sets: { state: { sources: [source] } } });
  Deno.utimeSync(file, new Date(0), new Date(0));
  assert.equal((await cli({ home }, "ship")).code, 4);
  assert.equal((await cli({ home }, "backup", "--no-ship")).code, 3);
  // As if both had failed ten hours ago.
  const { stateFolder, store, hub: name } = hub.config();
  for (const log of [`${stateFolder}/ship/runs.jsonl`, `${store}/${name}/.runs/state.jsonl`]) {
    const runs = Deno.readTextFileSync(log).trimEnd().split("\n");
    const last = { ...JSON.parse(runs.at(-1)!), at: new Date(Date.now() - 10 * HOUR_MS).toISOString() };
    Deno.writeTextFileSync(log, runs.with(-1, JSON.stringify(last)).join("\n") + "\n");
  }
  const look = async () => {
    const { checks } = JSON.parse((await cli({ home }, "doctor", "--offline", "--json")).stdout);
    return [/holds what is here/, /state: last run/].map((name) => named(checks, name));
  };
  const still = await look();
  assert.match(
    still[0]!.detail,
    /1 snapshot waiting, the oldest of .*: there is no folder .*gone\)? \(10 h ago\)$/,
  );
  assert.match(still[1]!.detail, /gone\.db: there is no such file \(10 h ago\)$/);
  assert.match(still[0]!.remedy!, /mount it/);
  // So do the status and the report.
  const status = (await cli({ home }, "status")).stdout;
  assert.match(status, /^ {2}last run FAILED: .*gone\.db: there is no such file \(10 h ago\)/m);
  assert.match(status, /^last shipping FAILED: .*there is no folder .*gone\)? \(10 h ago\)$/m);
  const page = async () => (await cli({ home }, "report", "--html", "-")).stdout;
  assert.match(await page(), /there is no such file \(10 h ago\)/);

  write({});
  assert.match(await page(), /\(10 h ago, before the configuration was changed\)/);
  const before = await look();
  for (const { detail } of before) {
    assert.match(detail, /\(10 h ago, before the configuration was changed\)$/);
  }
  assert.deepEqual(before.map(({ remedy }) => remedy), [
    "run `hapi-backup ship`: it may be mended",
    "run `hapi-backup backup --set state`: it may be mended",
  ]);
});

Deno.test("sources, keys and what is left lying about are looked at", async () => {
  using folder = temporary();
  await using sshd = await startSshd(folder);
  using hub = await makeHub(sshd);
  const { home } = hub;
  const offline = { ...OPTIONS, offline: true };
  const look = async (change: Record<string, unknown> = {}, options = offline) =>
    await doctor(host, hub.config(change), options);

  const foreign = await generateIdentity();

  // The identity, in a note.
  Deno.writeTextFileSync(
    `${home}/note.txt`,
    `keep this:\n> ${hub.identity.match(/AGE-SECRET-KEY-\S+/)![0]}\n`,
  );
  const candidates = identityPlaces(host, { home, hostname: "h", env: {} });
  const left = named(await look({}, { ...offline, candidates }), /no identity/);
  assert.deepEqual([left.state, left.kind], ["fail", "key"]);
  assert.match(left.detail, /note\.txt opens the backups/);
  assert.doesNotMatch(JSON.stringify(left), /SECRET/);
  const dropped = await look({ recipients: [foreign.recipient] }, { ...offline, candidates });
  assert.equal(named(dropped, /no identity/).state, "fail", "it opens what is there already");
  Deno.writeTextFileSync(`${home}/note.txt`, foreign.identity);
  assert.equal(
    named(await look({}, { ...offline, candidates }), /no identity/).state,
    "ok",
    "another's is not ours",
  );

  // Keys.
  const [one] = hub.config().recipients;
  assert.equal(named(await look({ recipients: [one] }), /^recipients/).state, "warn");
  assert.equal(doctorError(await look({ recipients: [] }))!.kind, "config");
  const signer = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
  assert.equal(named(await look({ signers: [signer] }), /signing key/).state, "fail");
  Deno.chmodSync(hub.config().signingKeyFile, 0o640);
  const modes = named(await look(), /file modes/);
  assert.match(modes.remedy!, /^chmod go= '.*signing_ed25519'$/);
  Deno.chmodSync(hub.config().signingKeyFile, 0o600);

  // What the storage host said of itself, and when.
  const storage = makeSigner();
  const heard = async (daysAgo: number, problems: string[]) => {
    const set = { newestVerified: null, problems, fullWanted: false };
    const time = new Date(Date.now() - daysAgo * 86_400_000);
    const text = serializeReceipt({
      hub: hub.config().hub,
      time,
      sets: new Map([[MAIN_SET, set]]),
    });
    const signature = signSsh(storage.seed, RECEIPT_NAMESPACE, new TextEncoder().encode(text));
    const { stateFolder } = hub.config();
    Deno.mkdirSync(`${stateFolder}/ship`, { recursive: true });
    Deno.writeTextFileSync(`${stateFolder}/ship/storage.receipt`, JSON.stringify({ text, signature }));
    const destination = { ...hub.text.destinations[0]!, receiptSigners: [storage.publicKey] };
    return named(await look({ destinations: [destination] }), /state: scrub on storage/);
  };
  assert.equal((await heard(1, [])).state, "ok");
  assert.deepEqual([(await heard(20, [])).state, (await heard(1, ["rotten"])).kind], ["warn", "integrity"]);

  // A folder on the local store's disk does not count as off it, as `ship` has it; the store itself is refused.
  Deno.mkdirSync(`${home}/disk`);
  const onto = (path: string) => look({ destinations: [{ kind: "folder", name: "disk", path }] });
  assert.equal(named(await onto(`${home}/disk`), /off this disk/).kind, "unshipped");
  assert.match(named(await onto(hub.config().store), /^disk: reachable/).detail, /is the local store itself/);

  // Sources.
  const db = `${home}/.hapi/hapi.db`;
  {
    using handle = new DatabaseSync(db);
    handle.exec("pragma journal_mode = delete");
  }
  assert.match(named(await look(), /^state: hapi.db/).detail, /journal mode is not WAL/);
  Deno.writeTextFileSync(`${home}/.hapi/hub.env`, "KEY=x", { mode: 0o644 });
  assert.match(named(await look(), /hub\.env/).remedy!, /chmod 600 '.*hub\.env'$/);
  Deno.renameSync(db, `${db}.away`);
  const missing = await look();
  assert.deepEqual([named(missing, /^state: hapi.db/).state, doctorError(missing)!.kind], ["fail", "source"]);
  Deno.writeTextFileSync(db, "not a database, but long enough to look like a file of one".repeat(99));
  assert.equal(named(await look(), /^state: hapi.db/).state, "fail");
  const space = named(await look({ limits: { freeBytesMin: Number.MAX_SAFE_INTEGER } }), /space/);
  assert.deepEqual([space.state, space.kind], ["fail", "disk"]);
  const later: Host = { ...host, now: () => new Date(Date.now() + 40 * 3_600_000) };
  const stale = await doctor(later, hub.config(), offline);
  assert.equal(named(stale, /newest good snapshot/).kind, "stale");
});

Deno.test("old rsyncs and timers that will not run are found from what the programs say", async () => {
  using folder = temporary();
  await using sshd = await startSshd(folder);
  using hub = await makeHub(sshd);
  const answers = async (rsync: string, timers: RunResult) => {
    const run: Host["run"] = (program, args) => {
      if (program === "systemctl") return Promise.resolve(timers);
      if (args[0] === "--version") return Promise.resolve({ code: 0, stdout: rsync, stderr: "" });
      return Promise.resolve({ code: 255, stdout: "", stderr: "ssh: connect to host x: Connection refused" });
    };
    return await doctor({ ...host, run }, hub.config(), OPTIONS);
  };
  const none = { code: 1, stdout: "", stderr: "" };
  const timers = (list: unknown) => ({ code: 0, stdout: JSON.stringify(list), stderr: "" });
  const holes = named(await answers("rsync  version 3.2.7  protocol version 31", none), /^rsync$/);
  assert.deepEqual([holes.state, /CVE/.test(holes.detail)], ["fail", true]);
  const mute = named(await answers("rsync  version v3.4.1  protocol version 32", none), /^rsync$/);
  assert.match(mute.detail, /does not tell why/);
  const next = (Date.now() + 3_600_000) * 1000;
  const good = await answers("rsync  version 3.10.0", timers([{ unit: "hapi-backup-state.timer", next }]));
  assert.equal(named(good, /^rsync$/).state, "ok");
  assert.match(named(good, /timers/).detail, /2 active; next hapi-backup-state.timer in 60 min/);
  const dead = await answers(
    "rsync  version 3.5.0",
    timers([{ unit: "hapi-backup-state.timer", next: null }]),
  );
  assert.deepEqual([named(dead, /timers/).state, named(dead, /timers/).kind], ["fail", "stale"]);
  assert.equal(named(await answers("rsync  version 3.5.0", timers([])), /timers/).state, "fail");
  assert.equal(named(await answers("rsync  version 3.5.0", none), /timers/).state, "warn", "no systemd");
  const table = {
    code: 0,
    stdout: "NEXT  LEFT  LAST  PASSED  UNIT  ACTIVATES\n\n0 timers listed.\n",
    stderr: "",
  };
  assert.equal(
    named(await answers("rsync  version 3.5.0", table), /timers/).state,
    "warn",
    "one without JSON",
  );
});

Deno.test("the exit code is that of the most telling failure, and warnings have none", () => {
  const finding = (kind: Finding["kind"], state: Finding["state"] = "fail"): Finding => ({
    group: "Runs",
    name: `${kind}`,
    state,
    detail: "x",
    kind,
  });
  const kindOf = (...findings: Finding[]) => doctorError(findings)?.kind;
  assert.equal(kindOf(finding("stale"), finding("network"), finding("key")), "key");
  assert.equal(kindOf(finding("key"), finding("unshipped"), finding("source"), finding("config")), "config");
  assert.equal(kindOf(finding("network")), "network");
  assert.equal(kindOf(finding("config", "warn")), undefined);
  assert.ok(doctorError([finding("disk")]) instanceof BackupError);
  const { message } = doctorError([finding("network"), finding("key")])!;
  assert.equal(message, 'Cannot call it healthy: 2 of 2 checks failed, above all "key": x');
  const well = about("Keys", "recipients").ok("2");
  const warned = { ...about("Runs", "drill").warn("old", "run it"), group: "Keys" as const };
  const line = "\n  ok    recipients: 2";
  assert.equal(describeFindings([well, well]), `Keys${line}${line}\nall 2 checks are fine`);
  assert.equal(
    describeFindings([well, about("Runs", "state").fail("stale", "late", "wait"), warned]),
    "Keys\n  ok    recipients: 2\n  WARN  drill: old\n        -> run it\n" +
      "Runs\n  FAIL  state: late\n        -> wait\n3 checks: 1 failed, 1 warning",
  );
  assert.match(describeFindings([well, warned]), /^2 checks: 0 failed, 1 warning$/m);
  assert.equal(
    describeFindings([about("Keys", "proof").warn("old")]),
    "Keys\n  WARN  proof: old\n1 check: 0 failed, 1 warning",
  );
  const remedies = [new BackupError("x", { kind: "disk", hint: "free some" }), new Error("EACCES")].map(
    remedyOf,
  );
  assert.deepEqual(remedies, ["free some", "check its owner and mode, and whom the timer runs as"]);
});
