/** `init` on a hub of its own, with a real sshd and rrsync as the storage host: without a terminal, and on one. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import jsQR from "npm:jsqr@1.4.0";
import { parseConfig } from "../scripts/core/config/config.ts";
import { formatPublicKeyLine, publicKeyOf } from "../scripts/core/keys/openssh_key.ts";
import { realFs } from "../scripts/host/fs.ts";
import { findHubs } from "../scripts/host/init/find_hub.ts";
import { generateIdentity } from "../scripts/host/keys/identity.ts";
import { cli, cliEnv, cliWords } from "./real/cli.ts";
import { filesBelow } from "./real/files.ts";
import { fillDatabase, output } from "./real/home.ts";
import { startPty } from "./real/pty.ts";
import { type Sshd, startSshd } from "./real/sshd.ts";

/** A home with a hub's database, and a folder for a storage host beside it. */
function makeFolder() {
  const dir = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "init-" }));
  const home = `${dir}/op`;
  Deno.mkdirSync(`${home}/.hapi`, { recursive: true });
  fillDatabase(`${home}/.hapi/hapi.db`, 50);
  return {
    home,
    /** The storage host's folder of the hub `home`, and of all hubs. */
    far: `${dir}/far/home`,
    farStore: `${dir}/far`,
    keys: `${home}/.config/hapi-backup`,
    stick: `${dir}/identity.txt`,
    sheet: `${dir}/sheet.html`,
    [Symbol.dispose]: () => Deno.removeSync(dir, { recursive: true }),
  };
}

const fingerprintOf = async (sshd: Sshd) =>
  (await output("ssh-keygen", ["-lf", sshd.knownHostsFile])).split(" ")[1]!;

/** What the set-up says to put into authorized_keys. */
const lineToPaste = (said: string) => {
  const line = said.split(/\r?\n/).find((line) => line.startsWith("restrict,command="));
  assert.ok(line, said);
  return `${line}\n`;
};

/** The line of a key that nobody has the private half of. */
const newPublicKey = () =>
  formatPublicKeyLine(publicKeyOf(crypto.getRandomValues(new Uint8Array(32))), "earlier");

/** Paths below a folder whose contents match. */
function filesWith(folder: string, pattern: RegExp): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    if (isDirectory) return filesWith(path, pattern);
    return pattern.test(new TextDecoder().decode(Deno.readFileSync(path))) ? [path] : [];
  });
}

Deno.test("init without a terminal stops at each thing that only a person can do, goes on from there, and ends proven", async () => {
  using folder = makeFolder();
  const { home, far, farStore, keys, stick, sheet } = folder;
  await using sshd = await startSshd({ dir: far });
  const said = await cli({ home }, "init");
  assert.deepEqual([said.code, /say where backups go/.test(said.stderr)], [2, true], said.stderr);
  const second = await generateIdentity();
  const where = ["--storage", `${sshd.user}@127.0.0.1`, "--port", String(sshd.port), "--hub-name", "home"];
  const wish = [...where, "--identity-out", stick, "--sheet", sheet, "--recipient", second.recipient];

  const one = await cli({ home }, "init", ...where, "--identity-out", stick, "--sheet", stick);
  assert.match(one.stderr, /^error: Cannot write the identity and its sheet to one file/m);
  assert.deepEqual([one.code, existsSync(stick)], [2, false]);
  // The host key is nobody's to trust unseen.
  const unseen = await cli({ home }, "init", ...wish);
  const fingerprint = await fingerprintOf(sshd);
  assert.equal(unseen.code, 7, unseen.stderr);
  assert.ok(unseen.stderr.includes(`--host-key ${fingerprint}`), unseen.stderr);
  // As of a hub that is set up anew, whose earlier snapshots are there.
  const configFile = `${keys}/config.json`;
  const earlier = newPublicKey();
  const ownAnd = (line: string) => `$&, ${JSON.stringify(line)}`;
  Deno.writeTextFileSync(
    configFile,
    Deno.readTextFileSync(configFile).replace(/"ssh-ed25519 [^"]*"/, ownAnd(earlier)),
  );
  const made = await filesBelow(keys);
  const other = await cli({ home }, "init", "--host-key", `SHA256:${"A".repeat(43)}`);
  assert.deepEqual([other.code, /not the one given/.test(other.stderr)], [7, true], other.stderr);

  // The storage host does not know the key yet.
  const refused = await cli({ home }, "init", "--host-key", fingerprint, "--storage-store", farStore);
  assert.deepEqual([refused.code, /does not accept key/.test(refused.stderr)], [7, true], refused.stderr);
  // It is pinned now, and another one is refused all the same.
  const late = await cli({ home }, "init", "--host-key", `SHA256:${"A".repeat(43)}`);
  assert.deepEqual([late.code, /not the host key given/.test(late.stderr)], [7, true], late.stderr);
  assert.match(
    refused.stdout,
    /services\.hapi-backup-storage = \{[^]*hubs\.home = \{[^]*writeKey = "ssh-ed25519 /,
  );
  assert.match(
    refused.stdout,
    /# \/etc\/hapi-backup\/storage\.json \(where there is one, add this hub to it\):\n\{[^]*"signers"/,
  );
  assert.equal(refused.stdout.split(JSON.stringify(earlier)).length, 3, "for NixOS, and for Debian");
  assert.match(refused.stdout, /^# Nobody can restore from here yet: .* --read-key\.$/m);
  assert.deepEqual([...Deno.readDirSync(far)], [], "nothing was sent");

  sshd.authorize(lineToPaste(refused.stdout));
  const unproven = await cli({ home }, "init");
  assert.deepEqual(
    [unproven.code, /set up:/.test(unproven.stdout)],
    [7, false],
    "the identity was not brought",
  );
  const done = await cli({ home }, "init", "--identity", stick);
  assert.equal(done.code, 0, done.stderr);
  for (const what of ["delete", "read back", "overwrite"]) {
    assert.match(done.stdout, new RegExp(`ok    storage: its key cannot ${what}`));
  }
  assert.match(done.stdout, /proven restorable[^]*\nset up: home is backed up, is on storage/);
  assert.match(done.stdout, /^to restore from storage once this machine is lost: .*--read-key/m);
  assert.match((await cli({ home }, "status")).stdout, /^keys: proven to open the backups \d+ s ago$/m);

  // Nothing was made anew, nothing was written over, and what is on the storage host is whole.
  const now = new Map(await filesBelow(keys));
  for (const [name, content] of made) assert.deepEqual(now.get(name), content, name);
  assert.deepEqual(filesWith(home, /AGE-SECRET-KEY/), [], "the identity is nowhere on the hub");
  const there = [...Deno.readDirSync(`${far}/state`)].map(({ name }) => name);
  assert.equal(there.length, 2);
  const config = parseConfig(Deno.readTextFileSync(`${keys}/config.json`), "config", {
    home,
    hostname: "h",
    env: {},
  });
  assert.deepEqual(config.recipients[1], second.recipient);
  assert.equal(config.identityFile, undefined);
  // The storage host reads its own folder with the second identity.
  const proof = ["--store", farStore, "--identity", "-", "--signer", config.signers[0]!];
  const stdin = `${second.identity}\n`;
  assert.equal((await cli({ home: farStore, stdin }, "verify", ...proof)).code, 0);

  // The sheet: its code is the whole file, and it loads nothing.
  const page = Deno.readTextFileSync(sheet);
  assert.equal(readCode(page), Deno.readTextFileSync(stick));
  assert.doesNotMatch(page, /src=|href=|@import|url\(/);
  assert.ok(page.includes(Deno.readTextFileSync(stick).match(/^AGE-SECRET-KEY\S+$/m)![0]));
  assert.ok(
    page.includes(`${sshd.user}@127.0.0.1: port ${sshd.port}, there in ${"/var/lib/hapi-backup-store/home"}`),
  );
  assert.deepEqual([stick, sheet].map((path) => Deno.statSync(path).mode! & 0o777), [0o600, 0o600]);
});

/** What the QR code in a page says. Its SVG is one path of squares: `M<x>,<y>h<w>v<h>...`. */
function readCode(page: string): string {
  const svg = page.match(/<svg[^]*?<\/svg>/)![0];
  const [, size] = svg.match(/viewBox="0 0 (\d+)/)!;
  const width = Number(size);
  const pixels = new Uint8ClampedArray(width * width * 4).fill(255);
  for (const [, x, y, w, h] of svg.matchAll(/M(\d+),(\d+)h(\d+)v(\d+)/g)) {
    for (let row = Number(y); row < Number(y) + Number(h); row++) {
      const start = 4 * (row * width + Number(x));
      for (let at = start; at < start + 4 * Number(w); at++) if (at % 4 < 3) pixels[at] = 0;
    }
  }
  const code =
    (jsQR as unknown as (data: Uint8ClampedArray, w: number, h: number) => { data: string } | null)(
      pixels,
      width,
      width,
    );
  return code!.data;
}

Deno.test("init refuses a storage host that would let the hub delete or read, and sends it nothing", async () => {
  using folder = makeFolder();
  const { home, far, stick } = folder;
  await using sshd = await startSshd({ dir: far, writeOptions: "" });
  const key = `${folder.keys}/ship_ed25519`;
  Deno.mkdirSync(folder.keys, { recursive: true });
  Deno.copyFileSync(sshd.writeKeyFile, key);
  const { code, stdout, stderr } = await cli(
    { home },
    "init",
    ...["--storage", `${sshd.user}@127.0.0.1:`, "--port", String(sshd.port), "--identity-out", stick],
    ...["--host-key", await fingerprintOf(sshd)],
  );
  assert.equal(code, 7, stderr);
  assert.match(stdout, /FAIL {2}storage: its key cannot delete/);
  assert.match(stderr, /Cannot rely on storage to be append-only/);
  assert.deepEqual([...Deno.readDirSync(far)], []);
  assert.equal(
    Deno.readTextFileSync(key),
    Deno.readTextFileSync(sshd.writeKeyFile),
    "a key that is there is taken",
  );
});

Deno.test("init adds a storage host to a configuration that is there, and leaves all else in it as it is", async () => {
  using folder = makeFolder();
  const { home, far, keys, stick } = folder;
  await using sshd = await startSshd({ dir: far });
  assert.equal((await cli({ home }, "backup", "--no-ship")).code, 0);
  const before = Deno.readTextFileSync(`${keys}/config.json`).replace('"hub"', '// mine\n  "hub"');
  // As who keeps configurations elsewhere has it.
  const linked = `${home}/config-kept-elsewhere.json`;
  Deno.writeTextFileSync(linked, before, { mode: 0o600 });
  Deno.removeSync(`${keys}/config.json`);
  Deno.symlinkSync(linked, `${keys}/config.json`);
  sshd.authorize(
    `restrict,command="/usr/bin/rrsync -wo -no-del -no-overwrite ${far}" ${
      Deno.readTextFileSync(`${keys}/ship_ed25519.pub`)
    }`,
  );
  const wish = ["--storage", `${sshd.user}@127.0.0.1:`, "--port", String(sshd.port)];
  const { code, stdout, stderr } = await cli(
    { home },
    "init",
    ...wish,
    "--json",
    "--host-key",
    await fingerprintOf(sshd),
  );
  assert.equal(code, 0, stderr);
  assert.deepEqual(JSON.parse(stdout).destinations, ["storage"]);
  assert.match(stderr, /MOVE \S+identity\.txt OFF THIS MACHINE/);
  assert.equal(Deno.readLinkSync(`${keys}/config.json`), linked);
  assert.equal(Deno.statSync(linked).mode! & 0o777, 0o600);
  const after = Deno.readTextFileSync(linked);
  const start = before.slice(0, before.indexOf('"destinations"'));
  assert.ok(after.startsWith(start), after);
  const taken = await cli({ home }, "init", "--storage", "someone@elsewhere:");
  assert.deepEqual([taken.code, /another one named storage/.test(taken.stderr)], [2, true], taken.stderr);
  assert.equal(Deno.readTextFileSync(`${keys}/config.json`), after);
  // An identity is never written over anything.
  Deno.writeTextFileSync(stick, "precious");
  Deno.removeSync(`${keys}/config.json`);
  const over = await cli({ home }, "init", "--local-only", "--identity-out", stick);
  assert.deepEqual([over.code, Deno.readTextFileSync(stick)], [2, "precious"], over.stderr);

  // With an identity of one's own, no other is made; and nothing off this machine is no success.
  const own = await generateIdentity();
  const args = ["--local-only", "--identity", "-", "--json"];
  // A hub that only the environment knows of is still known to who has another.
  const hub = `${home}/hub`;
  Deno.renameSync(`${home}/.hapi`, hub);
  Deno.renameSync(`${hub}/hapi.db`, `${hub}/other.db`);
  const env = { HAPI_HOME: hub, DB_PATH: `${hub}/other.db` };
  const named = `# signer: ${newPublicKey()}`;
  const local = await cli({ home, env, stdin: `${named}\n${own.identity}\n` }, "init", ...args);
  assert.equal(local.code, 4, local.stderr);
  const { ok, error, exitCode, recipients, proven } = JSON.parse(local.stdout);
  assert.deepEqual([ok, recipients, proven], [false, [own.recipient], true]);
  assert.deepEqual([error.kind, exitCode], ["unshipped", 4]);
  const written = parseConfig(Deno.readTextFileSync(`${keys}/config.json`), "x", {
    home,
    hostname: "h",
    env: {},
  });
  // Who restores trusts what the identity file names, and this hub what that names already.
  const signer = Deno.readTextFileSync(`${keys}/signing_ed25519.pub`).trim();
  assert.deepEqual(written.signers.map((line) => `# signer: ${line}`), [`# signer: ${signer}`, named]);
  assert.ok(local.stderr.includes(`# signer: ${signer}`), local.stderr);
  const paths = [...written.sets.values()].flatMap(({ sources }) => sources.map(({ path }) => path));
  assert.deepEqual(paths.slice(0, 2), [`${hub}/other.db`, `${hub}/hub.env`]);

  // On a terminal it asks for what the configuration lacks, and for the identity that it does not know.
  await using terminal = startPty(cliWords(["init"]), { cwd: home, env: cliEnv(home) });
  await terminal.until(/Which host stores the backups/);
  await terminal.type("\r");
  await terminal.until(/Prove it: paste the identity/);
  await terminal.type(`${own.identity}\r`);
  await terminal.until(/proven restorable[^]*NOTHING IS OFF THIS MACHINE/);
  const { code: unsafe, text } = await terminal.end();
  assert.deepEqual([unsafe, text.includes(own.identity)], [4, false]);
});

Deno.test("init on a terminal asks, shows the identity once on a screen of its own, and waits for the storage host", async () => {
  using folder = makeFolder();
  const { home, far, farStore } = folder;
  await using sshd = await startSshd({ dir: far });
  const words = cliWords(["init", "--hub-name", "home", "--storage-store", farStore]);
  await using terminal = startPty(words, { cwd: home, env: cliEnv(home) });
  await terminal.until(/the hub: \S+\/\.hapi\/hapi\.db/);
  await terminal.until(/Which host stores the backups/);
  await terminal.type(`${sshd.user}@127.0.0.1\r`);
  await terminal.until(/Its SSH port/);
  await terminal.type(`${sshd.port}\r`);
  await terminal.until(/second identity/);
  await terminal.type("\r");
  await terminal.until(/Write the identity to which file/);
  await terminal.type("\r");
  await terminal.until(/Write a sheet/);
  await terminal.type("\r");
  // deno-lint-ignore no-control-regex
  await terminal.until(/\x1b\[\?1049h/);
  const identity = await terminal.until(/AGE-SECRET-KEY-1[A-Z0-9]+/);
  await terminal.until(/last 6 characters/);
  await terminal.type("WRONG!\r");
  await terminal.until(/not its last characters/);
  await terminal.type(`${"\x7f".repeat(6)}${identity.slice(-6)}\r`);
  // deno-lint-ignore no-control-regex
  await terminal.until(/\x1b\[\?1049l/);
  const shown = (await terminal.until(/SHA256:\S+ \(ed25519\)/)).split(" ")[0];
  assert.equal(shown, await fingerprintOf(sshd));
  await terminal.until(/Is it the same/);
  await terminal.type("y");
  const before = terminal.text().length;
  await terminal.until(/Done there\? Try again/);
  sshd.authorize(lineToPaste(terminal.text().slice(before)));
  await terminal.type("y");
  await terminal.until(/set up: home is backed up, is on storage, and was restored with the identity/);
  const { code, text } = await terminal.end();
  assert.equal(code, 0, text);
  // deno-lint-ignore no-control-regex
  const elsewhere = text.replace(/\x1b\[\?1049h[^]*?\x1b\[\?1049l/, "");
  assert.doesNotMatch(elsewhere, /AGE-SECRET-KEY-1/);
  assert.deepEqual(filesWith(home, /AGE-SECRET-KEY-1/), []);
});

Deno.test("init tells what is wrong with an answer at once, and shows no identity where a terminal cuts it off", async () => {
  using folder = makeFolder();
  const { home, keys } = folder;
  const small = ["sh", "-c", 'stty rows 12 cols 40; exec "$@"', "sh"];
  const words = [...small, ...cliWords(["init", "--local-only"])];
  await using terminal = startPty(words, { cwd: home, env: cliEnv(home) });
  const erase = (answer: string) => terminal.type("\x7f".repeat(answer.length));
  await terminal.until(/second\s+identity/);
  for (
    const [answer, problem] of [["age1xyz", /mistyped/], [
      "AGE-SECRET-KEY-1X",
      /which is secret/,
    ]] as const
  ) {
    await terminal.type(`${answer}\r`);
    await terminal.until(problem);
    await erase(answer);
  }
  await terminal.type("\r");
  await terminal.until(/Write the identity/);
  for (
    const [answer, problem] of [["no/id", /There is no/], [".hapi", /Nothing is written/]] as const
  ) {
    await terminal.type(`${answer}\r`);
    await terminal.until(problem);
    await erase(answer);
  }
  await terminal.type("\r");
  await terminal.until(/Write a sheet/);
  await terminal.type("\r");
  const { code, text } = await terminal.end();
  assert.equal(code, 2, text);
  assert.match(text, /Cannot show the identity: this terminal has 40 columns and 12 rows only/);
  assert.doesNotMatch(text, /AGE-SECRET-KEY-1[A-Z0-9]{5}/);
  assert.equal([...Deno.readDirSync(keys)].some(({ name }) => name === "config.json"), false);
});

Deno.test("a hub is found by the environment, in its usual place, and by its unit", () => {
  using folder = makeFolder();
  const { home } = folder;
  const usual = `${home}/.hapi/hapi.db`;
  Deno.mkdirSync(`${home}/a b`);
  Deno.mkdirSync(`${home}/.config/systemd/user`, { recursive: true });
  Deno.copyFileSync(usual, `${home}/a b/hapi.db`);
  Deno.copyFileSync(usual, `${home}/moved.db`);
  const found = (env: Record<string, string>) =>
    findHubs({ fs: realFs }, { home, hostname: "h", env }).map(({ database }) => database);
  assert.deepEqual(found({}), [usual]);
  assert.deepEqual(found({ HAPI_HOME: `${home}/a b` }), [`${home}/a b/hapi.db`, usual]);
  assert.deepEqual(found({ HAPI_HOME: "/nowhere", DB_PATH: `${home}/moved.db` }), [
    `${home}/moved.db`,
    usual,
  ]);
  const unit = `[Service]\nEnvironment=A=1 "HAPI_HOME=%h/a b"\nExecStart=hapi hub\n`;
  Deno.writeTextFileSync(`${home}/.config/systemd/user/hapi-hub.service`, unit);
  assert.deepEqual(found({}), [usual, `${home}/a b/hapi.db`]);
});
