/** The main job, from a running hub to the same hub restored: real hub, real sshd, real command line. */

import assert from "node:assert/strict";
import { snapshotIdAt } from "../scripts/core/names.ts";
import { openManifest, openSeal } from "../scripts/host/restore/open_snapshot.ts";
import { copySync } from "./real/files.ts";
import { forge } from "./real/forge.ts";
import { countMessages, insertMessages, makeHome, output } from "./real/home.ts";
import { ensureHub, startHub } from "./real/hub.ts";
import { startSshd } from "./real/sshd.ts";

Deno.test("a hub backed up while it writes comes back from the storage host with all it had acknowledged", async () => {
  using home = await makeHome();
  const far = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "far-" }));
  try {
    await using sshd = await startSshd({ dir: `${far}/home` });
    const target = `${sshd.user}@${sshd.host}:`;
    home.configure({
      recipients: [home.recipient],
      destinations: [{
        kind: "rsync",
        name: "storage",
        target,
        port: sshd.port,
        identityFile: sshd.writeKeyFile,
        readIdentityFile: sshd.readKeyFile,
        knownHostsFile: sshd.knownHostsFile,
      }],
    });
    const token = "token-of-the-restored-hub";
    Deno.removeSync(`${home.home}/.hapi`, { recursive: true });
    home.write(".hapi/settings.json", JSON.stringify({ cliApiToken: token }));
    home.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-0123456789abcdefghij\n");
    home.write(".hapi/scratchlist-attachments/é.txt", "an attachment");

    const hub = await startHub({ home: `${home.home}/.hapi` });
    assert.equal(hub.token, token);
    const bulk = await hub.writeLoad({ perSecond: 2_000 });
    while (bulk.acknowledged.length < 4_000 && !bulk.failure) await new Promise((go) => setTimeout(go, 50));
    await bulk.stop();
    const load = await hub.writeLoad({ perSecond: 100 });
    const acknowledgedFor = async (count: number) => {
      while (load.acknowledged.length < count && !load.failure) await new Promise((go) => setTimeout(go, 50));
      return [...load.acknowledged];
    };

    await acknowledgedFor(100);
    const first = await home.cli(["backup", "--json"]);
    assert.equal(first.code, 0, first.stderr);
    const before = await acknowledgedFor(load.acknowledged.length + 50);
    const second = await home.cli(["backup", "--json"]);
    assert.equal(second.code, 0, second.stderr);
    const grew = load.acknowledged.length - before.length;
    assert.equal(load.failure, undefined);
    await load.stop();
    await hub.kill();
    assert.ok(grew > 0, "the hub wrote on while it was backed up");

    const { snapshots, ship } = JSON.parse(second.stdout);
    assert.equal(snapshots[0].kind, "increment");
    assert.deepEqual(ship.destinations[0].waiting, []);
    assert.ok(snapshots[0].rows["hapi.db"].messages >= bulk.acknowledged.length + before.length);
    assert.match((await home.cli(["status"])).stdout, /storage: holds /);

    const drill = await home.cli([
      ...["verify", "--store", "storage", "--snapshot", "random", "--json"],
      ...["--hub", await ensureHub(), "--identity", home.identityFile],
    ]);
    assert.equal(drill.code, 0, drill.stderr + drill.stdout);
    const report = JSON.parse(drill.stdout);
    assert.equal(report.ok, true);
    assert.match(report.snapshot, /^\d{8}T\d{6}Z$/);
    for (const check of report.checks) {
      assert.deepEqual(Object.keys(check), ["name", "ok", "detail"]);
      assert.equal(check.ok, true, check.name);
    }
    const names = report.checks.map(({ name }: { name: string }) => name);
    assert.ok(names.includes("hapi.db: served by the hub"));
    assert.ok(names.indexOf("hapi.db: rows of sessions") < names.indexOf("hapi.db: rows of messages"));
    assert.match(Deno.readTextFileSync(`${home.stateFolder}/drills.jsonl`), /"ok":true/);

    // A hub that serves fewer sessions than were saved is found out, and so is one that does not start.
    const opening = await home.opening();
    const manifest = await openManifest(opening, openSeal(opening, report.snapshot));
    const [database] = manifest.databases;
    const rows = { ...database!.rows, sessions: database!.rows.sessions! + 1 };
    const lie = snapshotIdAt(new Date(Date.now() + 3_600_000));
    await forge(home, lie, {}, { ...manifest, id: lie, databases: [{ ...database, rows }], files: [] }, {
      kind: "increment",
      parent: report.snapshot,
      needs: [...openSeal(opening, report.snapshot).seal.needs, report.snapshot],
    });
    for (
      const [program, detail] of [
        [await ensureHub(), `the hub serves ${rows.sessions - 1} sessions, and ${rows.sessions} were saved`],
        ["/bin/false", "it ended before it answered"],
      ] as const
    ) {
      const args = ["--hub", program, "--identity", home.identityFile, "--json"];
      const failed = await home.cli(["verify", "--snapshot", lie, ...args]);
      assert.equal(failed.code, 5, failed.stderr);
      const served = JSON.parse(failed.stdout).checks.find(({ name }: { name: string }) =>
        name.includes("served")
      );
      assert.ok(!served.ok && served.detail.includes(detail), served.detail);
    }
    Deno.removeSync(`${home.stored}/${lie}`, { recursive: true });

    // The machine is lost: what is left is the identity, the reading key, and the storage host.
    for (const name of [".hapi", ".config", "store", "state"]) {
      Deno.removeSync(`${home.home}/${name}`, { recursive: true });
    }
    const restored = await home.cli([
      ...["restore", "--in-place", "--store", target, "--port", String(sshd.port)],
      ...["--ssh-key", sshd.readKeyFile, "--known-hosts", sshd.knownHostsFile],
      ...["--identity", home.identityFile],
    ]);
    assert.equal(restored.code, 0, restored.stderr);
    assert.match(restored.stdout, /sessions[^]*put in place: .*hapi\.db[^]*to undo it: sh /);
    assert.equal(Deno.readTextFileSync(`${home.home}/.hapi/scratchlist-attachments/é.txt`), "an attachment");
    assert.equal(Deno.statSync(`${home.home}/.hapi/hub.env`).mode! & 0o777, 0o600);

    await using again = await startHub({ home: `${home.home}/.hapi` });
    assert.equal(again.token, token, "its own settings came back");
    assert.deepEqual(await again.missing([...bulk.acknowledged, ...before]), []);
  } finally {
    Deno.removeSync(far, { recursive: true });
  }
});

/** The fenced block of the README after the marker: the lines as a person would copy them. */
function linesOfReadme(): string {
  const readme = Deno.readTextFileSync(new URL("../README.md", import.meta.url));
  const [, block] = /<!-- stock tools:[^\n]*-->\n```sh\n([^]*?)\n```/.exec(readme) ?? [];
  assert.ok(block, "the README has lines for stock tools");
  return block;
}

Deno.test("stock tools restore a chain by the README's own lines, and tell damage and forgery", async () => {
  using home = await makeHome();
  home.configure({
    sets: {
      state: {
        sources: [
          { kind: "sqlite", path: "~/.hapi/hapi.db" },
          { kind: "file", path: "~/.hapi/hub.env", secret: true },
          { kind: "folder", path: "~/notes" },
        ],
      },
    },
  });
  home.write("notes/old.md", "old");
  home.write("notes/a folder/é.md", "first");
  await home.backup();
  home.sql(insertMessages(40));
  home.write("notes/a folder/é.md", "second");
  home.write("notes/new.md", "new");
  await home.backup();
  home.sql(insertMessages(40) + "UPDATE sessions SET data = 'three' WHERE id = 'b'");
  const { id, kind } = await home.backup();
  assert.equal(kind, "increment");

  const plain = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "stock-" }));
  try {
    const store = `${plain}/state`;
    copySync(home.stored, store);
    const run = async (folder: string, flags = "-euc") => {
      Deno.mkdirSync(`${plain}/${folder}`);
      const { code, stdout, stderr } = await new Deno.Command("sh", {
        args: [flags, linesOfReadme()],
        cwd: `${plain}/${folder}`,
        clearEnv: true,
        env: { PATH: "/usr/bin:/bin", STORE: store, ID: id, IDENTITY: home.identityFile },
      }).output();
      return { code, text: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
    };
    const good = await run("good");
    assert.equal(good.code, 0, good.text);
    assert.equal(new Set(good.text.match(/Good "hapi-backup-seal" signature/g)).size, 1);
    const checked = new Set(good.text.match(/^[a-z.]+: OK$/gm));
    assert.deepEqual(
      [...checked].sort(),
      [
        "files.tar.zst.age: OK",
        "hapi.db.delta.zst.age: OK",
        "hapi.db.full.zst.age: OK",
        "hapi.db: OK",
        "manifest.json.zst.age: OK",
      ],
    );
    assert.deepEqual(
      good.text.trim().split("\n").filter((line) => !/^Good |: OK$/.test(line)),
      ["ok"],
      "all that is said is what the README tells to look for, and what SQLite says",
    );
    assert.match(good.text, /^ok$/m);
    assert.equal(
      (await output("sqlite3", [`${plain}/good/hapi.db`, "SELECT data FROM sessions ORDER BY id"])).trim(),
      "one\nthree",
    );
    assert.equal(countMessages(`${plain}/good/hapi.db`), 380);
    const read = (path: string) => Deno.readTextFileSync(`${plain}/good/home/${path}`);
    assert.equal(read("notes/a folder/é.md"), "second");
    assert.equal(read("notes/new.md") + read("notes/old.md"), "newold");
    assert.match(read(".hapi/hub.env"), /sk-ant/);

    const part = `${store}/${id}/hapi.db.delta.zst.age`;
    const bytes = Deno.readFileSync(part);
    bytes[bytes.length - 20]! ^= 1;
    Deno.writeFileSync(part, bytes);
    const damaged = await run("damaged");
    assert.notEqual(damaged.code, 0);
    assert.match(damaged.text, /hapi\.db\.delta\.zst\.age: FAILED/);
    // Pasted line by line, nothing stops at the first that fails, and SQLite has no fault to find.
    const pasted = await run("pasted", "-c");
    assert.match(pasted.text, /^hapi\.db: FAILED$/m);

    const seal = `${store}/${id}/seal.json`;
    Deno.writeTextFileSync(
      seal,
      Deno.readTextFileSync(seal).replace('"suspicions": []', '"suspicions":  []'),
    );
    const forged = await run("forged");
    assert.notEqual(forged.code, 0);
    assert.match(forged.text, /Could not verify signature|incorrect signature/i);
  } finally {
    Deno.removeSync(plain, { recursive: true });
  }
});
