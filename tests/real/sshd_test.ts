import assert from "node:assert/strict";
import { type Sshd, type SshdOptions, startSshd } from "./sshd.ts";

interface Fixture {
  /** A folder to push from. */
  readonly local: string;
  /** The folder that the server serves. */
  readonly store: string;
  readonly sshd: Sshd;
  /** Runs rsync with the write-only key, from `local` to the store's root unless `paths` says otherwise. */
  push(args: readonly string[], paths?: readonly string[]): Promise<Result>;
  pull(keyFile: string, paths: readonly string[]): Promise<Result>;
}

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function withSshd(
  run: (fixture: Fixture) => Promise<void>,
  options: Partial<SshdOptions> = {},
): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "sshd test-" });
  const local = `${dir}/local`;
  const store = `${dir}/store`;
  await Deno.mkdir(local);
  try {
    await using sshd = await startSshd({ dir: store, ...options });
    const remote = `${sshd.user}@${sshd.host}:`;
    await run({
      local,
      store,
      sshd,
      push: (args, paths = [`${local}/`, remote]) =>
        rsync(["-e", sshd.rsh(sshd.writeKeyFile), ...args, ...paths]),
      pull: (keyFile, paths) => rsync(["-r", "-e", sshd.rsh(keyFile), `${remote}${paths[0]}`, paths[1]!]),
    });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

async function rsync(args: readonly string[]): Promise<Result> {
  const { code, stdout, stderr } = await new Deno.Command("rsync", { args: [...args], stdin: "null" })
    .output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

Deno.test("the write-only key adds files", async () => {
  await withSshd(async ({ local, store, push }) => {
    await Deno.writeTextFile(`${local}/a`, "one");
    const pushed = await push(["-rt", "--fsync"]);
    assert.equal(pushed.code, 0, pushed.stderr);
    assert.equal(await Deno.readTextFile(`${store}/a`), "one");
  });
});

Deno.test("the write-only key cannot read, list or run anything", async () => {
  await withSshd(async ({ local, store, sshd, pull, push }) => {
    await Deno.writeTextFile(`${store}/a`, "one");
    const read = await pull(sshd.writeKeyFile, ["a", `${local}/a`]);
    assert.notEqual(read.code, 0);
    assert.match(read.stderr, /reading from write-only server is not allowed/);
    const listed = await push(["--list-only"], [`${sshd.user}@${sshd.host}:`]);
    assert.notEqual(listed.code, 0);
    const shell = await new Deno.Command("sh", {
      args: ["-c", `${sshd.rsh(sshd.writeKeyFile)} ${sshd.user}@${sshd.host} id`],
      stdin: "null",
    })
      .output();
    assert.notEqual(shell.code, 0);
    assert.match(new TextDecoder().decode(shell.stderr), /rrsync/);
    assert.deepEqual([...Deno.readDirSync(local)], []);
  });
});

Deno.test("the write-only key cannot delete", async () => {
  await withSshd(async ({ store, push }) => {
    await Deno.writeTextFile(`${store}/a`, "one");
    const deleted = await push(["-r", "--delete"]);
    assert.notEqual(deleted.code, 0);
    assert.match(deleted.stderr, /--delete[a-z-]* has been disabled/);
    assert.equal(await Deno.readTextFile(`${store}/a`), "one");
  });
});

Deno.test("an existing file is skipped in silence, and only --info=skip2 tells that it differs", async () => {
  await withSshd(async ({ local, store, push }) => {
    for (const [name, there, here] of [["same", "one", "one"], ["other", "one", "two"]] as const) {
      await Deno.writeTextFile(`${store}/${name}`, there);
      await Deno.writeTextFile(`${local}/${name}`, here);
    }
    await Deno.writeTextFile(`${local}/absent`, "three");
    const pushed = await push(["-rt", "--exclude=absent"]);
    assert.equal(pushed.code, 0, "rsync reports success");
    assert.equal(await Deno.readTextFile(`${store}/other`), "one");

    // The server's --ignore-existing comes before the comparison: the usual check is blind to what exists.
    const usual = await push(["-r", "--checksum", "--dry-run", "--itemize-changes"]);
    assert.equal(usual.stdout, "<f+++++++++ absent\n");
    const compared = await push(["-r", "--checksum", "--dry-run", "--itemize-changes", "--info=skip2"]);
    assert.equal(compared.code, 0, compared.stderr);
    assert.deepEqual(compared.stdout.trim().split("\n").sort(), [
      "<f+++++++++ absent",
      "other exists (sum change)",
      "same exists (uptodate)",
    ]);
  });
});

Deno.test("what ship may ask of a write-only, no-overwrite rrsync", async (t) => {
  const refused: [string, RegExp][] = [
    ["--partial-dir=.partial", /--partial-dir has been disabled/],
    ["--delay-updates", /--delay-updates has been disabled/],
    ["--backup", /-b has been disabled/],
    ["--remove-source-files", /--remove-source-files has been disabled/],
    ["--secluded-args", /-s has been disabled/],
    ["--temp-dir=absent", /--temp-dir|does not exist/],
  ];
  await withSshd(async ({ local, store, push }) => {
    await Deno.writeTextFile(`${local}/a`, "one");
    for (const [option, message] of refused) {
      await t.step(`${option} is refused`, async () => {
        const { code, stderr } = await push(["-rt", option]);
        assert.notEqual(code, 0);
        assert.match(stderr, message);
      });
    }
    await t.step("all that ship uses passes together", async () => {
      await Deno.writeTextFile(`${local}/names`, "a\0");
      const { code, stderr } = await push([
        ...[
          "-rt",
          "--fsync",
          "--mkpath",
          "--bwlimit=50000",
          "--timeout=60",
          "--chmod=D755,F644",
          "--partial",
        ],
        ...["--no-whole-file", "--copy-dest=/absent", "--from0", `--files-from=${local}/names`],
      ]);
      assert.equal(code, 0, stderr);
      assert.equal(await Deno.readTextFile(`${store}/a`), "one");
    });
  });
});

Deno.test("an upload that dies leaves nothing under its name, unless --partial leaves a stump for ever", async () => {
  await withSshd(async ({ local, store, sshd, push }) => {
    await Deno.writeFile(`${local}/big`, randomBytes(4_000_000));
    const pushAndDie = async (options: readonly string[]) => {
      const client = new Deno.Command("rsync", {
        args: [
          ...["-e", sshd.rsh(sshd.writeKeyFile), "-rt", "--bwlimit=1000", ...options],
          ...[`${local}/`, `${sshd.user}@${sshd.host}:`],
        ],
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn();
      await until(() => sizesUnder(store).some((bytes) => bytes > 1_000_000));
      client.kill("SIGKILL");
      await client.status;
      // The server notices by itself, tidies up, and gives rrsync's lock back.
      while ((await push(["-rt", "--dry-run"])).code !== 0);
    };

    await pushAndDie([]);
    assert.deepEqual(sizesUnder(store), []);
    await pushAndDie(["--partial"]);
    const [stump] = sizesUnder(store);
    assert.ok(stump! < 4_000_000);
    assert.equal((await push(["-rt", "--partial"])).code, 0, "rsync reports success");
    assert.equal((await Deno.stat(`${store}/big`)).size, stump);
  });
});

Deno.test("an upload resumes from a partial file under another name by --copy-dest", async () => {
  await withSshd(async ({ local, store, sshd, push }) => {
    const bytes = randomBytes(4_000_000);
    await Deno.writeFile(`${local}/big`, bytes);
    await Deno.mkdir(`${store}/incoming`);
    await Deno.writeFile(`${store}/incoming/big`, bytes.subarray(0, 3_000_000));
    const pushed = await push(
      ["-t", "--no-whole-file", "--copy-dest=/incoming", "--stats"],
      [`${local}/big`, `${sshd.user}@${sshd.host}:final/`],
    );
    assert.equal(pushed.code, 0, pushed.stderr);
    const literal = Number(/Literal data: ([\d,]+)/.exec(pushed.stdout)![1]!.replaceAll(",", ""));
    assert.ok(literal < 1_100_000, `${literal} bytes were sent again`);
    assert.deepEqual(await Deno.readFile(`${store}/final/big`), bytes);
  });
});

Deno.test("one writer at a time: a second is told so, a reader is not disturbed", async () => {
  await withSshd(async ({ local, store, sshd, push, pull }) => {
    await Deno.writeFile(`${local}/big`, randomBytes(4_000_000));
    const pushing = push(["-rt", "--bwlimit=1000"]);
    await until(() => sizesUnder(store).some((bytes) => bytes > 0));
    const second = await push(["-rt", "--dry-run"]);
    assert.notEqual(second.code, 0);
    assert.match(second.stderr, /Another instance of rrsync is already accessing this directory/);
    assert.equal((await pull(sshd.readKeyFile, [".", `${local}/pulled`])).code, 0);
    await sshd.cut();
    await pushing;
    assert.equal((await push(["-rt", "--dry-run"])).code, 0, "a cut connection gives the lock back");
  });
});

Deno.test("a stopped server refuses connections, a restarted one answers, one with a new key is not trusted", async () => {
  await withSshd(async ({ local, sshd, push }) => {
    await Deno.writeTextFile(`${local}/a`, "one");
    await sshd.stop();
    const down = await push(["-rt"]);
    // ssh's own code, or rsync's, whichever of the two notices first.
    const refused = [12, 255];
    assert.ok(refused.includes(down.code), `${down.code}`);
    assert.match(down.stderr, /Connection refused/);
    await sshd.restart();
    assert.equal((await push(["-rt"])).code, 0);
    await sshd.restart({ newHostKey: true });
    const changed = await push(["-rt"]);
    assert.ok(refused.includes(changed.code), `${changed.code}`);
    assert.match(changed.stderr, /Host key verification failed/);
    assert.match(sshd.log(), /Accepted publickey/);
  });
});

Deno.test("the read-only key reads and does not write", async () => {
  await withSshd(async ({ local, store, sshd, pull }) => {
    await Deno.writeTextFile(`${store}/a`, "one");
    const read = await pull(sshd.readKeyFile, ["a", `${local}/b`]);
    assert.equal(read.code, 0, read.stderr);
    assert.equal(await Deno.readTextFile(`${local}/b`), "one");
    const written = await rsync([
      "-e",
      sshd.rsh(sshd.readKeyFile),
      `${local}/b`,
      `${sshd.user}@${sshd.host}:`,
    ]);
    assert.notEqual(written.code, 0);
    assert.match(written.stderr, /sending to read-only server is not allowed/);
  });
});

/** The sizes of the files below `dir`, temporary ones included. */
function sizesUnder(dir: string): number[] {
  return [...Deno.readDirSync(dir)].flatMap((entry) =>
    entry.isDirectory ? sizesUnder(`${dir}/${entry.name}`) : [Deno.statSync(`${dir}/${entry.name}`).size]
  );
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, "waited 30 s in vain");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function randomBytes(count: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
  return bytes;
}
