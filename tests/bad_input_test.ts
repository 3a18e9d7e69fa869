/** Bad input through the real command line: one clear error, the right exit code, nothing lost and nothing left. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { randomBytes } from "node:crypto";
import { COMMANDS } from "../scripts/core/command_line/commands.ts";
import type { BackupError } from "../scripts/core/errors.ts";
import { formatPublicKeyLine, publicKeyOf } from "../scripts/core/keys/openssh_key.ts";
import { attempt, knownError, realFs } from "../scripts/host/fs.ts";
import { generateIdentity } from "../scripts/host/keys/identity.ts";
import { readIdentityFile } from "../scripts/host/keys/identity_bytes.ts";
import { checkImage, copyDatabase, readFacts } from "../scripts/host/sqlite.ts";
import type { Ran } from "./real/cli.ts";
import { filesBelow, namesIn } from "./real/files.ts";
import {
  fillDatabase,
  type Home,
  insertMessages,
  makeHome,
  mountTmpfs,
  ONLY_AS_ROOT,
  output,
  unmount,
} from "./real/home.ts";

/** Of a test that mounts the image of a disk. */
const CAN_MOUNT = { ignore: ONLY_AS_ROOT.ignore || !hasLoopDevice() };

function hasLoopDevice(): boolean {
  try {
    return new Deno.Command("losetup", { args: ["--find"] }).outputSync().success;
  } catch {
    return false;
  }
}

/** The one error that a person is to see: what cannot be done, and the remedy. */
function assertError(ran: Ran, code: number, error: RegExp, hint: RegExp): void {
  assert.equal(ran.code, code, ran.stderr);
  const errors = ran.stderr.split("\n").filter((line) => line.startsWith("error: "));
  assert.equal(errors.length, 1, ran.stderr);
  assert.match(errors[0]!, /^error: Cannot [^:]+/);
  assert.match(errors[0]!, error);
  const hints = ran.stderr.split("\n").filter((line) => line.startsWith("hint: "));
  assert.equal(hints.length, 1, ran.stderr);
  assert.match(hints[0]!, hint);
  assert.doesNotMatch(ran.stderr, /fault of hapi-backup|at file:|NotCapable/);
}

function makePipe(path: string): void {
  new Deno.Command("mkfifo", { args: [path] }).outputSync();
}

/** What must be as it was after a run that failed: snapshots, what is remembered, and no plaintext left over. */
async function stored(home: Home): Promise<[string, string][]> {
  return (await filesBelow(home.home)).filter(([path]) =>
    /^store\/|^state\/state\//.test(path) && !/\/\.runs\/|\/lock$/.test(path)
  );
}

/** A state of the live database that cannot be backed up. */
interface BadDatabase {
  readonly make: (home: Home) => void;
  readonly error: RegExp;
  readonly hint: RegExp;
}

const BAD_DATABASES: readonly BadDatabase[] = [
  {
    make: ({ database }) => Deno.removeSync(database),
    error: /hapi\.db: there is no such file/,
    hint: /HAPI_HOME or DB_PATH/,
  },
  {
    make: (home) => home.write(".hapi/hapi.db", ""),
    error: /hapi\.db: it is empty \(0 bytes\)/,
    hint: /hapi-backup list/,
  },
  {
    make: (home) => home.write(".hapi/hapi.db", "not a database ".repeat(50)),
    error: /does not start like an SQLite database/,
    hint: /kind file/,
  },
  {
    make: (home) => home.write(".hapi/hapi.db", randomBytes(65_536)),
    error: /does not start like an SQLite database/,
    hint: /encrypted/,
  },
  {
    make: ({ database }) => {
      Deno.removeSync(database);
      Deno.mkdirSync(database);
    },
    error: /hapi\.db: it is not a file/,
    hint: /point the source at the database/,
  },
];

Deno.test("a database that is missing, empty, encrypted or none stops the run: exit 3, and what was stored stays", async () => {
  using home = await makeHome();
  await home.backup();
  const before = await stored(home);
  makePipe(`${home.database}-wal`);
  const waiting = await home.cli(["backup", "--no-ship"], { under: ["timeout", "-s", "KILL", "30"] });
  Deno.removeSync(`${home.database}-wal`);
  assertError(waiting, 3, /hapi\.db: its -wal is a socket, pipe or device/, /move that aside/);
  for (const { make, error, hint } of BAD_DATABASES) {
    make(home);
    assertError(await home.cli(["backup", "--no-ship"]), 3, error, hint);
    assert.deepEqual(await stored(home), before);
  }
});

Deno.test("a pipe in place of a file of ours is named and not waited for; an identity may come out of one", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const path = `${folder}/pipe`;
    makePipe(path);
    const host = { fs: realFs };
    // It ends what would wait.
    const writer = new Deno.Command("sh", { args: ["-c", `echo "{}" > "${path}"`] }).spawn();
    assert.throws(() => realFs.readFile(path), {
      kind: "disk",
      message: `Cannot read ${path}: it is a socket, pipe or device`,
    });
    assert.equal(new TextDecoder().decode(readIdentityFile(host, path)), "{}\n");
    await writer.status;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("what is in place of the store's folder and is none is told, and does not pass for a new store", async () => {
  using home = await makeHome();
  makePipe(home.store);
  const error = /Cannot read .*store\/home(\/state)?: something on the way to it is no folder/;
  for (const verb of ["list", "ship", "verify"]) {
    const args = verb === "verify" ? ["--identity", home.identityFile] : [];
    assertError(await home.cli([verb, ...args]), 1, error, /look at what that is/);
  }
});

Deno.test("a database that another process holds exclusively is waited for, then given up: exit 3", async () => {
  using home = await makeHome();
  home.sql("PRAGMA journal_mode = DELETE");
  const before = await stored(home);
  const holder = new Deno.Command("sqlite3", { args: [home.database], stdin: "piped", stdout: "piped" })
    .spawn();
  const writer = holder.stdin.getWriter();
  await writer.write(new TextEncoder().encode("BEGIN EXCLUSIVE; SELECT 'held';\n"));
  const reader = holder.stdout.getReader();
  await reader.read();
  const started = performance.now();
  const refused = await home.cli(["backup", "--no-ship"]);
  assert.ok(performance.now() - started > 10_000, "it was patient");
  assertError(refused, 3, /another process held its lock for 10 s/, /fuser.*lsof/);
  assert.deepEqual(await stored(home), before);
  await writer.close();
  await reader.cancel();
  await holder.status;
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
});

Deno.test(
  "a database on a disk that fails is not taken for a disk that cannot be written to: exit 3",
  CAN_MOUNT,
  async () => {
    using home = await makeHome();
    const [disk, image] = [`${home.home}/disk`, `${home.dir}/disk.image`];
    Deno.mkdirSync(disk);
    Deno.writeFileSync(image, new Uint8Array(0));
    Deno.truncateSync(image, 64 << 20);
    await output("mkfs.ext2", ["-q", "-b", "4096", image]);
    const path = `${disk}/other.db`;
    await output("mount", ["-o", "loop", image, disk]);
    try {
      fillDatabase(path, 100_000);
      // One in WAL mode that nobody has open is copied without SQLite, which says of neither disk that it was the one.
      using db = new DatabaseSync(path);
      db.exec("PRAGMA journal_mode = DELETE");
      db.close();
      // What is cut off can be read no more than a bad sector, once it is not in memory.
      await output("sync", ["-f", path]);
      Deno.truncateSync(image, 12 << 20);
      await output("dd", [`if=${path}`, "iflag=nocache", "count=0"]);
      await assert.rejects(output("cat", [path]), /Input\/output error/);
      const run = async (required: boolean) => {
        const sources = [{ kind: "sqlite", path, required }, { kind: "sqlite", path: "~/.hapi/hapi.db" }];
        home.configure({ sets: { state: { sources } } });
        return await home.cli(["backup", "--no-ship"]);
      };
      const error = /back up database .*\/disk\/other\.db: Input\/output error/;
      assertError(await run(true), 3, error, /system's log for errors of that disk/);
      const suspect = await run(false);
      assertError(suspect, 3, /other\.db: Input\/output error/, /all that could be read is stored/);
      assert.match(suspect.stdout, /hapi\.db: 2 sessions, 300 messages/);
    } finally {
      await unmount(disk);
    }
  },
);

Deno.test("a database with damaged pages is stored, called suspect, and does not displace the good one", async () => {
  using home = await makeHome();
  const good = await home.backup();
  home.sql(insertMessages(2_000));
  const bytes = Deno.readFileSync(home.database);
  bytes.fill(0xa5, 60 * 4096, 62 * 4096);
  Deno.writeFileSync(home.database, bytes);
  const ran = await home.cli(["backup", "--no-ship", "--json"]);
  assertError(ran, 3, /as good: \d{8}T\d{6}Z: hapi\.db: integrity_check/, /the database is damaged/);
  const { snapshots: [report], error, exitCode } = JSON.parse(ran.stdout);
  assert.deepEqual([error.kind, exitCode], ["source", 3]);
  assert.equal(report.suspicions[0].code, "integrity");
  assert.match((await home.cli(["list"])).stdout, /SUSPECT: hapi\.db integrity/);
  const restored = await home.cli([
    "restore",
    "--to",
    `${home.dir}/out`,
    "--identity",
    home.identityFile,
    "--json",
  ]);
  assert.equal(JSON.parse(restored.stdout).snapshot, good.id);
  const verified = await home.cli(["verify", "--identity", home.identityFile, "--json"]);
  assert.equal(JSON.parse(verified.stdout).snapshot, good.id);
  for (const { stderr } of [restored, verified]) {
    assert.match(
      stderr,
      new RegExp(
        `newest snapshot, ${report.id}, is suspect \\(hapi.db integrity\\); \\S+ is the newest good one"`,
      ),
    );
  }
  const asked = await home.cli(
    ["restore", "--to", `${home.dir}/asked`, "--snapshot", report.id, "--identity", home.identityFile],
  );
  assert.equal(asked.code, 0, "a suspect one is given to who asks for it");
  assert.match(asked.stderr, new RegExp(`${report.id} is suspect: hapi\\.db: integrity_check: `));
});

Deno.test("rows that are gone make a snapshot suspect until --accept; then it is what the next is compared with", async () => {
  using home = await makeHome();
  const good = await home.backup();
  home.sql("DELETE FROM messages");
  const suspect = await home.cli(["backup", "--no-ship"]);
  assertError(
    suspect,
    3,
    /messages has 0 rows where the last good snapshot had 300/,
    /backup --set state --accept`/,
  );
  assert.match(suspect.stdout, /SUSPECT hapi\.db/);
  const status = await home.cli(["status", "--json"]);
  assert.equal(JSON.parse(status.stdout).sets[0].newest, good.id);
  assert.equal(
    (await home.cli(["backup", "--no-ship"])).code,
    3,
    "it stays suspect, though nothing changed since",
  );
  assert.equal((await home.cli(["backup", "--no-ship", "--accept"])).code, 0);
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
  home.sql("DROP TABLE messages; DELETE FROM sessions");
  const emptied = await home.cli(["backup", "--no-ship", "--json"]);
  assert.deepEqual(
    JSON.parse(emptied.stdout).snapshots[0].suspicions.map(({ code }: { code: string }) => code),
    ["empty"],
  );
});

Deno.test(
  "a database that this user may not read stops the run, and a file makes it suspect: exit 3",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    for (const path of [home.dir, ...(await foldersBelow(home.dir))]) Deno.chmodSync(path, 0o777);
    await output("chown", ["-R", "65534:65534", home.dir]);
    const under = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const first = await home.cli(["backup", "--no-ship"], { under });
    assert.equal(first.code, 0, first.stderr);
    const withoutReading = async (name: string, error: RegExp, hint: RegExp) => {
      const path = `${home.home}/.hapi/${name}`;
      Deno.chownSync(path, 0, 0);
      Deno.chmodSync(path, 0o600);
      assertError(await home.cli(["backup", "--no-ship"], { under }), 3, error, hint);
      Deno.chownSync(path, 65534, 65534);
    };
    const before = await stored(home);
    await withoutReading(
      "hapi.db",
      /back up database .*hapi\.db: Permission denied \(os error 13\)$/,
      /user that this runs as/,
    );
    assert.deepEqual(await stored(home), before);
    const suspect =
      /count this snapshot as good: .*: hub\.env: Cannot read ".*hub\.env": Permission denied \(os error 13\)$/;
    await withoutReading("hub.env", suspect, /user that this runs as/);
    assert.ok((await stored(home)).length > before.length);
  },
);

Deno.test(
  "folders of the own store that this user may not read keep nothing of its own from being read",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    await home.backup();
    const store = home.config().store;
    await output("chown", ["-R", "65534:65534", home.dir]);
    Deno.chmodSync(home.dir, 0o755);
    for (const name of ["lost+found", "another"]) Deno.mkdirSync(`${store}/${name}`, { mode: 0o700 });
    const under = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const identity = ["--identity", home.identityFile];
    for (
      const args of [["list"], ["verify", ...identity], ["restore", "--to", `${home.home}/out`, ...identity]]
    ) {
      const { code, stderr } = await home.cli(args, { under });
      assert.equal(code, 0, `${args[0]}: ${stderr}`);
    }
    const { code, stderr } = await home.cli(["list", "--hub-name", "home"], { under });
    assert.equal(code, 0, stderr);
    assertError(
      await home.cli(["list", "--hub-name", "another"], { under }),
      1,
      /read .*another: Permission denied \(os error 13\)$/,
      /./,
    );
    // What is closed is not to be told as nothing.
    Deno.chownSync(`${store}/home`, 0, 0);
    Deno.chmodSync(`${store}/home`, 0o700);
    Deno.mkdirSync(`${store}/third/state`, { recursive: true });
    const closed = await home.cli(["list"], { under });
    assertError(closed, 1, /^error: Cannot .*home\/state: Permission denied/m, /./);
    assert.doesNotMatch(closed.stderr, /warning/);
  },
);

Deno.test(
  "list shows what it can read of a store, names what it cannot, and exits with 1",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    const { id } = await home.backup();
    Deno.mkdirSync(`${home.store}/home/voice`);
    await output("chown", ["-R", "65534:65534", home.dir]);
    Deno.chmodSync(home.dir, 0o755);
    const copy = `${home.dir}/copy`;
    await output("cp", ["-a", home.store, copy]);
    for (const path of [`${copy}/another`, `${copy}/third`]) Deno.mkdirSync(path, { mode: 0o700 });
    const closed = `${home.store}/home/closed`;
    Deno.mkdirSync(closed, { mode: 0o700 });
    const set = { sources: [{ kind: "file", path: "~/notes" }] };
    home.configure({ sets: { closed: set, state: set, voice: set } });
    const under = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

    const own = await home.cli(["list"], { under });
    assertError(
      own,
      1,
      /^error: Cannot read .*home\/closed: Permission denied \(os error 13\)$/m,
      /owner and mode/,
    );
    assert.match(own.stdout, new RegExp(`^${id} .* good$`, "m"));

    const far = await home.cli(["list", "--store", copy, "--json"], { under });
    const { snapshots, ...rest } = JSON.parse(far.stdout);
    assert.deepEqual(snapshots.map((listed: { id: string }) => listed.id), [id]);
    assert.deepEqual([far.code, rest.ok, rest.exitCode, rest.error.kind], [1, false, 1, "disk"]);
    assert.match(
      rest.error.message,
      /^Cannot list all of .*copy: .*copy\/another: .*; .*copy\/third: [^']*$/,
    );
  },
);

Deno.test("a destination whose disk is not mounted is told as that by what reads it", async () => {
  using home = await makeHome();
  await home.backup();
  const disk = `${home.dir}/disk`;
  home.configure({ destinations: [{ kind: "folder", name: "usb", path: disk }] });
  const slip = /^error: Cannot open store ubs: no destination and no folder has that name$/;
  assertError(await home.cli(["list", "--store", "ubs"]), 2, slip, /destinations: usb; or name a folder/);
  const opening = ["--store", "usb", "--identity", home.identityFile];
  for (const args of [["list", "--store", "usb"], ["verify", ...opening], ["session", "list", ...opening]]) {
    assertError(await home.cli(args), 1, /open store usb: there is no folder .*\/disk$/m, /^hint: mount it/m);
  }
  Deno.mkdirSync(disk);
  const { stderr } = await home.cli(["list", "--store", "usb"]);
  assert.match(stderr, /^warning: usb holds no snapshot: is its disk mounted at .*\/disk\?$/m);
});

/** Adds messages of 1,500 incompressible bytes. */
function addNoise(home: Home, messages: number): void {
  home.sql(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${messages})
    INSERT INTO messages (session, body) SELECT 'a', randomblob(1500) FROM n`);
}

async function foldersBelow(folder: string): Promise<string[]> {
  return (await output("find", [folder, "-type", "d"])).trim().split("\n");
}

Deno.test(
  "a full disk under whatever is written stops the run: exit 1, and nothing half-made",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    // More than the disk holds.
    addNoise(home, 3000);
    const disk = `${home.home}/small disk`;
    Deno.mkdirSync(disk);
    {
      await using _disk = await mountTmpfs(disk, "size=3m");
      for (const key of ["store", "stateFolder"]) {
        home.configure({ [key]: `${disk}/${key}` });
        assertError(
          await home.cli(["backup", "--no-ship"]),
          1,
          /: (the disk is full|\S+ MB are free)/,
          /free some space/,
        );
        const left = (await filesBelow(disk)).map(([path]) => path)
          .filter((path) => !/\/lock$|\/\.runs\//.test(path));
        assert.deepEqual(left, [], key);
      }
      // A disk with room for it all but what must stay free.
      home.configure({ limits: { freeBytesMin: 2 ** 50 } });
      assertError(
        await home.cli(["backup", "--no-ship"]),
        1,
        / are free and 1\.13 PB must be/,
        /limits\.freeBytesMin/,
      );
    }
    home.configure({});
    assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
    await using _disk = await mountTmpfs(disk, "size=3m");
    const identity = ["--identity", home.identityFile];
    for (
      const args of [
        ["restore", "--to", `${disk}/out`],
        ["verify", "--scratch", disk],
        ["session", "list", "--scratch", disk],
        ["compare", "latest", "latest", "--scratch", disk],
      ]
    ) {
      assertError(
        await home.cli([...args, ...identity]),
        1,
        /on the disk of .*\/small disk.*: 3\.15 MB are free and 6\.\d+ MB must be/,
        /free some space there, or name a folder on another disk with --to or --scratch/,
      );
      assert.deepEqual([...Deno.readDirSync(disk)], []);
    }
    assert.throws(
      () => Deno.statSync(`${home.stateFolder}/drills.jsonl`),
      Deno.errors.NotFound,
      "a full disk is no verdict on a snapshot",
    );
  },
);

Deno.test(
  "a restore whose disk is full at its end, as by many small files, says so, and leaves nothing",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    await home.backup();
    const disk = `${home.home}/small disk`;
    Deno.mkdirSync(disk);
    // Of the two small files each takes a page.
    const size = Math.ceil(Deno.statSync(home.database).size / 4096) * 4096 + 4096;
    await using _disk = await mountTmpfs(disk, `size=${size}`);
    const identity = ["--identity", home.identityFile];
    for (const args of [["restore", "--to", `${disk}/out`], ["verify", "--scratch", disk]]) {
      assertError(await home.cli([...args, ...identity]), 1, /the disk is full/, /free some space/);
      assert.deepEqual([...Deno.readDirSync(disk)], []);
    }
  },
);

Deno.test(
  "a disk on which the image of a live database cannot even be begun is told as full, and not as a bad database",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    const disk = `${home.home}/no more files`;
    Deno.mkdirSync(disk);
    // For its own folder alone.
    await using _disk = await mountTmpfs(disk, "nr_inodes=1");
    using live = new DatabaseSync(home.database);
    live.exec(insertMessages(1));
    const copied = copyDatabase(home.host, home.database, `${disk}/image`, home.config().limits);
    await assert.rejects(copied, { kind: "disk", message: /^Cannot write .*\/image: the disk is full$/ });
  },
);

Deno.test(
  "a disk that does not tell its size, as ramfs, a tmpfs without a limit and some of FUSE, is backed up to and restored to",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    const disk = `${home.home}/untold disk`;
    Deno.mkdirSync(disk);
    for (const kind of [["ramfs"], ["tmpfs", "-o", "size=0"]]) {
      await output("mount", ["-t", ...kind, "disk", disk]);
      try {
        home.configure({ store: `${disk}/store`, stateFolder: `${disk}/state`, limits: { freeBytesMin: 1 } });
        const ran = await home.cli(["backup", "--no-ship"]);
        assert.equal(ran.code, 0, ran.stderr);
        const restored = await home.cli(["restore", "--to", `${disk}/out`, "--identity", home.identityFile]);
        assert.equal(restored.code, 0, restored.stderr);
      } finally {
        await unmount(disk);
      }
    }
  },
);

Deno.test(
  "a disk that is to hold what is fetched and what is restored must have room for both, or nothing is fetched",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    addNoise(home, 1000);
    await home.backup();
    const configFile = `${home.dir}/rclone.conf`;
    Deno.writeTextFileSync(configFile, `[far]\ntype = alias\nremote = ${home.store}\n`);
    home.configure({ destinations: [{ kind: "rclone", name: "far", remote: "far:", configFile }] });
    const disk = `${home.home}/small disk`;
    Deno.mkdirSync(disk);
    await using _disk = await mountTmpfs(disk, "size=3m");
    const args = [
      "restore",
      "--to",
      `${disk}/out`,
      "--store",
      "far",
      "--identity",
      home.identityFile,
      "--verbose",
    ];
    const fetches = (stderr: string) => stderr.match(/runs: rclone .* copy /g)?.length;
    const both = await home.cli([...args, "--scratch", `${disk}/scratch`]);
    assertError(
      both,
      1,
      /on the disk of .*\/out and .*\/scratch: \S+ MB are free and \S+ MB must be/,
      /free some space/,
    );
    assert.equal(fetches(both.stderr), 2, "seals and the manifest");
    assert.deepEqual(await filesBelow(disk), []);
    // Either has room for itself.
    const one = await home.cli(args);
    assert.equal(one.code, 0, one.stderr);
    assert.equal(fetches(one.stderr), 3);
    Deno.removeSync(`${disk}/out`, { recursive: true });
    const other = await home.cli([...args.with(2, `${home.dir}/out`), "--scratch", `${disk}/scratch`]);
    assert.equal(other.code, 0, other.stderr);
    Deno.mkdirSync(`${disk}/out`);
    const dry = await home.cli([...args, "--dry-run", "--scratch", `${disk}/scratch`]);
    assert.equal(dry.code, 0, dry.stderr);
    assert.match(
      dry.stderr,
      /^warning: Cannot restore .* on the disk of .*\/out and .*\/scratch: \S+ MB are/m,
    );
    assert.equal(fetches(dry.stderr), 2);
  },
);

Deno.test(
  "a run that finds the disk full lets go of old snapshots that are shipped",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    addNoise(home, 750);
    const store = `${home.home}/small disk`;
    const disk = `${home.dir}/disk`;
    await using mounts = new AsyncDisposableStack();
    for (const [folder, size] of [[store, "3m"], [disk, "30m"]] as const) {
      Deno.mkdirSync(folder);
      mounts.use(await mountTmpfs(folder, `size=${size}`));
    }
    const configure = (localKeepDays: number) =>
      home.configure({ store, localKeepDays, destinations: [{ name: "disk", kind: "folder", path: disk }] });
    const full = () => home.cli(["backup", "--full"]);
    const local = async () => (await filesBelow(store)).filter(([path]) => path.startsWith("home/state/"));

    configure(1);
    for (let shipped = 0; shipped < 2; shipped++) assert.equal((await full()).code, 0);
    const before = await local();
    assertError(await full(), 1, /the disk is full/, /free some space/);
    assert.deepEqual(await local(), before);

    configure(0);
    const ran = await full();
    assert.equal(ran.code, 0, ran.stderr);
    assert.match(ran.stderr, /for want of room, 1 old snapshot of set state went first/);
    assert.equal([...Deno.readDirSync(`${disk}/home/state`)].length, 3);
  },
);

Deno.test(
  "an image whose WAL index does not fit beside it is no damaged image: the disk is full",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    const disk = `${home.home}/small disk`;
    const image = `${disk}/image`;
    Deno.mkdirSync(disk);
    // SQLite's index takes 32 KiB.
    const size = Deno.statSync(home.database).size + 16_384;
    await using _disk = await mountTmpfs(disk, `size=${size}`);
    Deno.copyFileSync(home.database, image);
    const full = { kind: "disk", message: `Cannot write ${image}-shm: the disk is full` };
    assert.throws(() => checkImage(home.host, image, "check"), full);
    assert.throws(() => readFacts(home.host, image), full);
    assert.deepEqual([...Deno.readDirSync(disk)].map(({ name }) => name), ["image"]);
  },
);

Deno.test("a copy over its time, or under which the WAL grows too much, is given up, and leaves nothing", async () => {
  using home = await makeHome();
  await home.backup();
  using live = new DatabaseSync(home.database);
  live.exec(`PRAGMA wal_autocheckpoint = 0; ${insertMessages(60_000)}`);
  const before = await stored(home);
  // The hub writes while each part of the database is copied.
  const report = { ...home.host.report, progress: () => live.exec(insertMessages(1_000)) };
  const cases: [Record<string, number>, RegExp, RegExp][] = [
    [{ snapshotSeconds: 1e-6 }, /the copy took longer than 0\.000001 s/, /limits\.snapshotSeconds/],
    [{ walGrowthBytes: 100_000 }, /its WAL grew by \d+ bytes/, /limits\.walGrowthBytes/],
  ];
  for (const [limits, error, hint] of cases) {
    home.configure({ limits: { freeBytesMin: 0, ...limits } });
    await assert.rejects(home.backup({ host: { ...home.host, report } }), (thrown: BackupError) => {
      assert.match(thrown.message, error);
      assert.match(thrown.hint!, hint);
      return thrown.kind === "source";
    });
    assert.deepEqual(await stored(home), before);
  }
  // Within its budgets, it is one moment's copy, whatever is written meanwhile.
  home.configure({});
  const { n } = live.prepare("SELECT count(*) AS n FROM messages").get() as { n: number };
  const { rows } = await home.backup({ host: { ...home.host, report } });
  assert.equal(rows["hapi.db"]!.messages, n);
});

Deno.test("no recipient, a bad one, no signing key: each is told before anything is stored", async () => {
  using home = await makeHome();
  const cases: [Record<string, unknown>, number, RegExp, RegExp][] = [
    [{ recipients: [] }, 2, /names no recipient/, /age-keygen/],
    [{ recipients: ["age1nonsense"] }, 2, /age1nonsense|recipient/, /./],
    [{ signingKeyFile: "~/none" }, 7, /\/none/, /./],
  ];
  for (const [changes, code, error, hint] of cases) {
    home.configure(changes);
    assertError(await home.cli(["backup", "--no-ship"]), code, error, hint);
    assert.deepEqual(await stored(home), [], JSON.stringify(changes));
  }
});

Deno.test("a signing key that is none of the signers, and signers that are no keys, are told at once, and what is saved is stored", async () => {
  using home = await makeHome();
  const another = formatPublicKeyLine(publicKeyOf(crypto.getRandomValues(new Uint8Array(32))), "other");
  const cases = [
    [[], undefined],
    [[another, home.signer], undefined],
    [[another], /signing_ed25519 is not among "signers": verify and restore would not trust.*; have its/],
    [["nonsense"], /"signers" cannot be read: .*; have its public key in "signers"/],
  ] as const;
  for (const [signers, warning] of cases) {
    home.configure({ signers });
    home.told.length = 0;
    await home.backup();
    const told = home.told.filter((text) => text.startsWith("! "));
    assert.equal(told.length, warning ? 1 : 0, told.join());
    if (warning) assert.match(told[0]!, warning);
  }
  assertError(
    await home.cli(["config", "check"]),
    2,
    /^error: Cannot use "signers" in .*config\.json: /m,
    /ssh-ed25519 AAAA/,
  );
});

Deno.test("an option given twice, with two values, is refused and not half heard: exit 2", async () => {
  using home = await makeHome();
  const twice = ["--set", "state", "--set", "voice"];
  assertError(await home.cli(["backup", ...twice]), 2, /--set voice: --set state was given before/, /once/);
  const identities = ["--identity", home.identityFile, "--identity", `${home.dir}/other.txt`];
  assertError(
    await home.cli(["restore", "--to", `${home.dir}/out`, ...identities]),
    2,
    /--identity .*other\.txt: --identity .* was given before/,
    /into one file/,
  );
  assert.equal((await home.cli(["list", "--set", "state", "--set", "state"])).code, 0);
});

Deno.test("a wrong identity names the recipients that are needed: exit 7; so do none, and one that is missing", async () => {
  using home = await makeHome();
  await home.backup();
  const other = `${home.dir}/other.txt`;
  Deno.writeTextFileSync(other, `${(await generateIdentity()).identity}\n`);
  const to = ["--to", `${home.dir}/out`];
  assertError(
    await home.cli(["restore", ...to, "--identity", other]),
    7,
    /open snapshot \d{8}T\d{6}Z/,
    new RegExp(`one of these recipients: ${home.recipient}`),
  );
  assertError(await home.cli(["restore", ...to]), 7, /no identity was given/, /--identity FILE/);
  assertError(
    await home.cli(["restore", ...to, "--identity", `${home.dir}/none`]),
    7,
    /none: there is none/,
    /keep off the hub/,
  );
  const wrongFile = `${home.home}/.config/hapi-backup/signing_ed25519`;
  assertError(
    await home.cli(["restore", ...to, "--identity", wrongFile]),
    7,
    /identity file .*signing_ed25519: line 1 is an SSH key/,
    /AGE-SECRET-KEY/,
  );
  assert.throws(() => Deno.statSync(`${home.dir}/out`), Deno.errors.NotFound);
  assertError(
    await home.cli(["verify", "--identity", other]),
    7,
    /none of the identities given \(1\) opens it/,
    new RegExp(`one of these recipients: ${home.recipient}`),
  );
  assert.throws(() => Deno.statSync(`${home.stateFolder}/drills.jsonl`), Deno.errors.NotFound, "no verdict");
  const input = await home.cli(["restore", ...to, "--identity", "-"], {
    stdin: Deno.readTextFileSync(home.identityFile),
  });
  assert.equal(input.code, 0, input.stderr);

  const again = ["restore", "--to", `${home.dir}/again`];
  assertError(await home.cli([...again, "--identity", home.home]), 7, /it is a folder/, /--identity FILE/);
  const encrypted = { stdin: "age-encryption.org/v1\n-> scrypt" };
  assertError(
    await home.cli([...again, "--identity", "-"], encrypted),
    7,
    /identity file on standard input: it needs its passphrase/,
    /age -d FILE/,
  );
  // As a password manager gives it.
  const piped = await home.cli(again, {
    under: ["bash", "-c", 'exec "$@" --identity <(cat "$0")', home.identityFile],
  });
  assert.equal(piped.code, 0, piped.stderr);
});

Deno.test("a part that is damaged inside is named, and so is a snapshot that is not there: exit 5", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  home.sql(insertMessages(10));
  await home.backup();
  const part = `${home.stored}/${id}/hapi.db.full.zst.age`;
  const bytes = Deno.readFileSync(part);
  bytes[bytes.length - 9]! ^= 4;
  Deno.writeFileSync(part, bytes);
  const args = ["restore", "--to", `${home.dir}/out`, "--identity", home.identityFile];
  assertError(
    await home.cli(args),
    5,
    new RegExp(`read .*${id}/hapi\\.db\\.full\\.zst\\.age: its SHA-256 is `),
    /--store/,
  );

  Deno.removeSync(`${home.stored}/${id}`, { recursive: true });
  assertError(await home.cli(args), 5, new RegExp(`state/${id}: it is not in this store`), /--store/);
});

Deno.test("snapshots without a seal, of a newer format, and by a stranger are told apart, and ignored otherwise", async () => {
  using home = await makeHome();
  const good = await home.backup();
  const folders = ["20260401T000000Z", "20260402T000000Z", ".incoming-20260403T000000Z"];
  for (const name of folders) Deno.mkdirSync(`${home.stored}/${name}`);
  const seal = JSON.parse(Deno.readTextFileSync(`${home.stored}/${good.id}/seal.json`));
  const newer = JSON.stringify({ ...seal, version: 2, id: folders[1], novelty: true });
  Deno.writeTextFileSync(`${home.stored}/${folders[1]}/seal.json`, newer);
  const listed = await home.cli(["list"]);
  assert.equal(listed.code, 0);
  assert.match(listed.stdout, /20260401T000000Z .*INCOMPLETE: it has no seal/);
  assert.match(
    listed.stdout,
    /20260402T000000Z .*UNREADABLE: .*format version 2, and this program reads up to 1/,
  );
  const args = ["restore", "--to", `${home.dir}/out`, "--identity", home.identityFile];
  const restored = await home.cli([...args, "--json"]);
  assert.equal(JSON.parse(restored.stdout).snapshot, good.id);
  const verified = await home.cli(["verify", "--identity", home.identityFile, "--json"]);
  assert.equal(JSON.parse(verified.stdout).snapshot, good.id);
  for (const newer of folders.slice(0, 2)) {
    for (const { stderr } of [restored, verified]) {
      assert.match(stderr, new RegExp(`${newer} is newer than ${good.id}, and cannot be opened: `));
    }
  }
  assertError(
    await home.cli([...args, "--snapshot", folders[1]!]),
    5,
    /format version 2, and this program reads up to 1: it takes hapi-backup 2\.0\.0 or newer/,
    /--store/,
  );
  assertError(await home.cli([...args, "--snapshot", folders[0]!]), 5, /it has no seal/, /--store/);
  assertError(
    await home.cli([...args, "--snapshot", "20200101T000000Z"]),
    2,
    /it is not in the store/,
    /hapi-backup list/,
  );
  Deno.removeSync(`${home.dir}/out`, { recursive: true });
  home.configure({ signers: ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] });
  Deno.writeTextFileSync(home.identityFile, Deno.readTextFileSync(home.identityFile).replace(/^#.*$/m, ""));
  assertError(await home.cli(args), 5, /none of the known signers/, /--signer/);
  home.configure({ signers: [] });
  assertError(await home.cli(args), 7, /no signer is known, and it is signed by SHA256:/, /--signer SHA256:/);
});

Deno.test("a clock that was set back stops the run, and seconds of it are waited for", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const before = await stored(home);
  const now = home.now;
  const at = (time: Date) => ({ ...home.host, now: () => time });
  await assert.rejects(
    home.backup({ host: at(new Date(now.getTime() - 3_600_000)) }),
    (error: Error & { kind: string; hint: string }) =>
      error.kind === "clock" && error.message.includes(`the newest snapshot is ${id}`) &&
      /set the clock right/.test(error.hint),
  );
  assert.deepEqual(await stored(home), before);
  // In the same second as the last snapshot: the next one comes a second later.
  let looks = 0;
  const ticking = { ...home.host, now: () => new Date(now.getTime() + (++looks > 4 ? 1_000 : 0)) };
  const next = await home.backup({ host: ticking });
  assert.ok(next.id > id);
});

Deno.test("a snapshot of a clock that was ahead is got rid of by what the error says", async () => {
  using home = await makeHome();
  const { now } = home;
  const { id } = await home.backup({ host: { ...home.host, now: () => new Date("2040-01-01T00:00:00Z") } });
  const host = { ...home.host, now: () => now };
  const { hint } = await home.backup({ host }).then(() => assert.fail(), (error: BackupError) => error);
  const away = / move away (.*) and (.*), and the folder \d+T\d+Z at every destination$/.exec(hint!)!.slice(
    1,
  );
  assert.deepEqual(away, [`${home.stored}/${id}`, `${home.stateFolder}/state/last.json`]);
  for (const path of away) Deno.renameSync(path, `${home.dir}/${path.split("/").at(-1)}`);
  assert.equal((await home.backup({ host })).kind, "full");
});

Deno.test("an unknown set, unknown keys and bad values are told with their line: exit 2", async () => {
  using home = await makeHome();
  assertError(await home.cli(["backup", "--set", "none"]), 2, /find set "none"/, /state, voice/);
  for (const verb of ["backup", "snapshot", "encrypt"]) {
    const { stderr } = await home.cli([verb, "--set", "all", "--wait", "x"]);
    assert.equal(
      stderr,
      'error: Cannot use --wait "x": it is not a whole number\nhint: give a number such as 30\n',
    );
  }
  const text = (key: string) => `{\n  "hub": "home",\n  ${key}\n}\n`;
  const cases: [string, RegExp][] = [
    [`"recipient": []`, /line 3: .*"recipient" \(did you mean "recipients"\?\)$/],
    [
      `"limits": {\n    "freebytes": 1, "x": 2 }`,
      /line 4: limits: .*"freebytes" \(did you mean "freeBytesMin"\?\), "x"$/,
    ],
    [
      `"destinations": [\n    { "kind": "folder", "pth": "/x" }]`,
      /line 4: destinations\.0: .*"pth" .*"path"/,
    ],
    [`"destinations": [\n    { "kind": "folder" }]`, /line 4: destinations\.0\.path: is missing$/],
    [
      `"limits": { "snapshotSeconds": "many" }`,
      /line 3: limits\.snapshotSeconds: expected a number, found text$/,
    ],
    [`"limits": { "snapshotSeconds": 1e999 }`, /line 3: limits\.snapshotSeconds: is too large a number$/],
    [`"limits": { "walGrowthBytes": 1.5 }`, /line 3: limits\.walGrowthBytes: is not a whole number$/],
    [`"localKeepDays": -1`, /line 3: localKeepDays: is less than 0$/],
    [`"proofMaxAgeDays": 0`, /line 3: proofMaxAgeDays: is not more than 0$/],
    [`"store": ""`, /line 3: store: is empty$/],
    [`"store": null`, /line 3: store: expected text, found null$/],
    // No key of it has to be there: valibot would take the list for it.
    [`"limits": []`, /line 3: limits: expected an object, found a list$/],
    [`"limits": [900]`, /line 3: limits: expected an object, found a list$/],
    [`"notify": [[]]`, /line 3: notify\.0: expected an object, found a list$/],
    [`"sets": [{ "name": "state", "sources": [] }]`, /line 3: sets: expected an object, found a list$/],
    [
      `"sets": [{ "sources": [{ "kind": "file", "path": "/x" }] }]`,
      /line 3: sets: expected an object, found a list$/,
    ],
    [`"notify": {}`, /line 3: notify: expected a list, found an object$/],
    [`"notify": [{ "kind": "mail" }]`, /line 3: notify\.0\.kind: expected \("ntfy" \| .*\), found text$/],
    // valibot would leave it out without a word.
    [
      `"sets": { "constructor": {} }`,
      /line 3: key "constructor" is not a key$/,
    ],
    [`"sets": { "state": { "sources": [{ "kind": "sqlite", "path": "db" }] } }`, /path "db" is not absolute/],
    [
      `"store": "/dev/shm/store"`,
      /path "\/dev\/shm\/store" lies in \/dev, where this program may not look/,
    ],
    [`"sets": { "state": { "sources": [] } }`, /line 3: sets\.state\.sources/],
    [`"hub": "other"`, /line 3: key "hub" stands there twice/],
    [`"store": }`, /line 3 is not JSON \(unexpected "}"\)/],
  ];
  for (const [key, error] of cases) {
    Deno.writeTextFileSync(home.configFile, text(key));
    assert.throws(() => home.config(), ({ kind, message, hint }: BackupError) => {
      assert.match(message, error);
      assert.ok(message.includes(home.configFile), message);
      return kind === "config" && hint !== undefined;
    });
  }
  assertError(await home.cli(["config", "check"]), 2, cases.at(-1)![1], /./);
  Deno.writeTextFileSync(home.configFile, text(`"recipients": ["age1qqqq"]`));
  assertError(
    await home.cli(["config", "check"]),
    2,
    /recipient "age1qqqq": it is mistyped or cut/,
    /age-keygen -y/,
  );
  Deno.writeTextFileSync(home.configFile, "{}");
  for (const name of ["DB_PATH", "HAPI_HOME"]) {
    const ran = await home.cli(["config", "check"], { env: { [name]: "/two\nlines" } });
    assertError(ran, 2, /path "\/two\\nlines" holds a line break/, new RegExp(name));
  }
  assertError(
    await home.cli(["status", "--config", `${home.dir}/none.json`]),
    2,
    /none\.json: there is no such file/,
    /--config/,
  );
});

Deno.test("a second run is told that another holds the lock, exit 6; with --wait it waits", async () => {
  using home = await makeHome();
  const lock = `${home.stateFolder}/state/lock`;
  await home.backup();
  const holder = new Deno.Command("flock", {
    args: [lock, "sh", "-c", "echo held; read -r done || true"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const reader = holder.stdout.getReader();
  await reader.read();
  const refused = await home.cli(["backup", "--no-ship"]);
  const verbs = COMMANDS.filter(({ options }) => options.some(({ flags }) => flags.startsWith("--wait ")))
    .map(({ verb }) => verb);
  const wait = new RegExp(
    `\\(${verbs.slice(0, -1).join(", ")} and ${verbs.at(-1)} do with --wait SECONDS\\)`,
  );
  assertError(refused, 6, /another run holds the lock/, wait);
  const identity = ["--identity", home.identityFile];
  const inPlace = await home.cli(["restore", "--in-place", ...identity]);
  assertError(inPlace, 6, /another run holds the lock/, /--wait SECONDS/);
  assert.equal((await home.cli(["verify", ...identity])).code, 0, "who only reads the store need not wait");
  const waiting = home.spawn(["backup", "--no-ship", "--wait", "60"]);
  while (!await hasOpen(waiting.pid, lock));
  await holder.stdin.close();
  await Promise.all([waiting.stdin.close(), reader.cancel(), holder.status]);
  const waited = await waiting.output();
  assert.equal(waited.code, 0, new TextDecoder().decode(waited.stderr));
});

async function hasOpen(pid: number, path: string): Promise<boolean> {
  const open = await output("sh", ["-c", 'readlink /proc/"$0"/fd/* || true', String(pid)]);
  return open.split("\n").includes(path);
}

Deno.test("a hub that just started has everything in its -wal, and one that stopped has none: both are saved, untouched", async () => {
  using home = await makeHome();
  Deno.removeSync(home.database);
  const live = new DatabaseSync(home.database);
  live.exec(`PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
    CREATE TABLE sessions (id TEXT); CREATE TABLE messages (id INTEGER PRIMARY KEY, session TEXT, body BLOB);
    ${insertMessages(200)}`);
  assert.ok(Deno.statSync(home.database).size <= 4096);
  const ran = await home.cli(["backup", "--no-ship", "--json"]);
  assert.equal(ran.code, 0, ran.stderr);
  assert.equal(JSON.parse(ran.stdout).snapshots[0].rows["hapi.db"].messages, 200);
  live.exec(insertMessages(1));
  live.close();
  const beside = () => namesIn(`${home.home}/.hapi`);
  assert.deepEqual(beside(), ["hapi.db", "hub.env", "settings.json"]);
  const before = Deno.statSync(home.database);
  const quiet = await home.cli(["backup", "--no-ship", "--json"]);
  assert.equal(JSON.parse(quiet.stdout).snapshots[0].rows["hapi.db"].messages, 201, quiet.stderr);
  assert.equal((await home.cli(["verify", "--identity", home.identityFile])).code, 0);
  assert.deepEqual(beside(), ["hapi.db", "hub.env", "settings.json"], "nothing was created beside it");
  assert.deepEqual([before.ino, before.mtime], [
    Deno.statSync(home.database).ino,
    Deno.statSync(home.database).mtime,
  ]);
});

Deno.test("a disk that is full or read-only is named, whatever was being done there", () => {
  const known = (reason: string) => knownError(new Error(reason))!;
  const readOnly = known("Read-only file system (os error 30): mkdir '/mnt/it's a store'");
  assert.equal(
    readOnly.message,
    "Cannot go on with mkdir '/mnt/it's a store': the file system is read-only",
  );
  assert.match(readOnly.hint!, /^mount it so that it can be written to/);
  const full = known("No space left on device (os error 28): open '/mnt/x'");
  assert.equal(full.message, "Cannot go on with open '/mnt/x': the disk is full");
  const quota = known("Disk quota exceeded (os error 122): mkdir '/mnt/x'");
  assert.equal(quota.message, "Cannot go on with mkdir '/mnt/x': the disk quota is used up");
  assert.match(quota.hint!, /^raise it \(setquota\)/);
  const inTheWay = known("Directory not empty (os error 39): rename '/mnt/x' -> '/mnt/y'");
  assert.match(inTheWay.hint!, /^something else is in its place/);
  const doing = (error: Error) => () =>
    attempt("read /y", () => {
      throw error;
    });
  assert.throws(doing(new Error("x (os error 5)")), {
    kind: "disk",
    message: "Cannot read /y: x (os error 5)",
  });
  assert.throws(doing(new TypeError("Invalid argument (os error 22)")), { kind: "disk" });
  const fault = new TypeError("y is not a function");
  assert.throws(doing(fault), fault, "a fault of ours is none of the disk");
  assert.equal(known("x (os error 5): stat '/y'").message, "Cannot go on: x (os error 5): stat '/y'");
  assert.equal(knownError(new Error("x")), undefined);
});

Deno.test("a file larger than ulimit -f allows is an error that is told, and not the end without a word", async () => {
  using home = await makeHome();
  home.sql("INSERT INTO messages (session, body) VALUES ('a', zeroblob(50000000))");
  const under = ["bash", "-c", 'ulimit -f 40000; exec "$@"', "bash"];
  const refused = async () =>
    assertError(
      await home.cli(["backup", "--no-ship"], { under }),
      1,
      /^error: Cannot write .*\.image: a file may not become so large here$/m,
      /raise the limit/,
    );
  await refused();
  // While the hub has it open SQLite makes the copy, and says only "disk I/O error".
  using live = new DatabaseSync(home.database);
  live.exec("INSERT INTO messages (session, body) VALUES ('a', 'b')");
  await refused();
});

Deno.test("a folder in /dev, which Deno keeps from every step, is no fault of ours", async () => {
  using home = await makeHome();
  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
  const to = `/dev/shm/hapi-backup-${crypto.randomUUID()}`;
  const ran = await home.cli(["restore", "--to", to, "--identity", home.identityFile]);
  assertError(ran, 1, /Deno keeps "\/dev\/shm\/[^"]+" from us/, /not below \/dev/);
});
