import assert from "node:assert/strict";
import { build, ending, ensureDeno, nixEnv, output, ROOT } from "./nix.ts";

/** The Deno of the pinned nixpkgs. */
const PINNED_DENO = "2.8.3";

Deno.test("the hash of the npm packages is that of deno.lock, whichever Deno fetches them", async () => {
  const scratch = await Deno.makeTempDir();
  try {
    const env = await nixEnv();
    const lock = JSON.parse(
      await output("nix-instantiate", ["--eval", "--json", "--expr", `(import ${ROOT}/nix/lock.nix).text`], {
        env,
      }),
    );
    await Deno.writeTextFile(`${scratch}/deno.lock`, lock);
    for (const deno of [Deno.execPath(), await ensureDeno(PINNED_DENO)]) {
      const out = `${scratch}/${crypto.randomUUID()}`;
      await output("bash", ["nix/flatten-npm.sh", `${scratch}/deno.lock`, out], {
        cwd: ROOT,
        env: { PATH: `${deno.slice(0, deno.lastIndexOf("/"))}:${Deno.env.get("PATH")}` },
      });
      const hash = (await output("nix", ["hash", "path", out], { env })).trim();
      assert.equal(
        hash,
        (await Deno.readTextFile(`${ROOT}/nix/npm-deps.hash`)).trim(),
        "nix/npm-deps.hash is out of date: write the first of these into it",
      );
    }
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
});

for (const version of ["this", PINNED_DENO]) {
  Deno.test(`the package is built with this machine's programs under ${version} Deno, and runs offline and read-only`, async () => {
    const deno = version === "this" ? Deno.execPath() : await ensureDeno(version);
    const path = await build("(r { }).built", deno);
    // No network at all, and nothing that could be written to but the folder given.
    const sealed = (script: string) =>
      ending("unshare", [
        "--net",
        "--mount",
        "bash",
        "-euc",
        `mount --rbind / / && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /mnt && ! touch ${path}/x 2>/dev/null && export HOME=/mnt/home DENO_DIR=/mnt/deno && ${script}`,
      ]);
    const program = `${path}/bin/hapi-backup`;
    const help = await sealed(`${program} --help`);
    assert.equal(help.code, 0, help.stderr);
    assert.match(help.stdout, /On the storage host:/);
    assert.equal(help.stderr, "");

    const made = await sealed(`
      mkdir -p $HOME/.hapi && sqlite3 $HOME/.hapi/hapi.db 'create table sessions(id); insert into sessions values (1), (2)'
      ${program} backup --no-ship --json >/mnt/backup.json
      ${program} verify --json && ${program} restore --to /mnt/back >&2 && sqlite3 /mnt/back/home/.hapi/hapi.db 'select count(*) from sessions'`);
    assert.equal(made.code, 0, made.stderr);
    const [verified, count] = made.stdout.trim().split("\n");
    assert.equal(JSON.parse(verified!).ok, true);
    assert.equal(count, "2");
  });
}

Deno.test("each wrapper grants its verb what nix/verbs.json says, and a program on its path is the package's", async () => {
  const path = await build("(r { }).built");
  const { verbs } = JSON.parse(await Deno.readTextFile(`${ROOT}/nix/verbs.json`)) as {
    verbs: Record<string, string[]>;
  };
  for (const [verb, flags] of Object.entries(verbs)) {
    const wrapper = await Deno.readTextFile(`${path}/libexec/hapi-backup/${verb}`);
    const granted = wrapper.match(/--allow-[\w-]+(=\S+)?/g)!.filter((flag) =>
      !flag.startsWith("--allow-env")
    );
    assert.deepEqual(granted, flags, verb);
    assert.match(wrapper, /--no-prompt/);
    assert.match(wrapper, /--cached-only/);
  }
  // What is no verb gets the least of them.
  const { stdout, code } = await ending(`${path}/bin/hapi-backup`, ["no-such-verb"], {
    env: { HOME: "/root" },
  });
  assert.equal(code, 2, stdout);
});

Deno.test("a configuration that the program refuses does not become a system", async () => {
  const settings = (recipient: string) =>
    `{ users.users.op = { home = "/home/op"; }; services.hapi-backup = { enable = true; user = "op"; recipients = [ "${recipient}" ]; signingKeyFile = "/etc/keys/signing"; settings.limits.${
      recipient === "bad" ? "snapshotSecond" : "snapshotSeconds"
    } = 60; }; }`;
  const make = (recipient: string) =>
    build(`(r { hub = ${settings(recipient)}; }).hubConfigFile`).catch(String);
  assert.match(await make("age1x"), /-hapi-backup\.json$/);
  assert.match(await make("bad"), /Unrecognized key.*snapshotSecond/);
});

Deno.test("`nix flake check` passes on stand-ins for nixpkgs, NixOS test included", async () => {
  // A copy, because a flake in a git checkout takes all of it, and as committed.
  const copy = await Deno.makeTempDir();
  try {
    const files = ["flake.nix", "flake.lock", "deno.json", "deno.lock", "mod.ts", "scripts", "nix"];
    await output("cp", ["-R", ...files.map((name) => `${ROOT}/${name}`), copy]);
    const { code, stderr } = await ending("nix", [
      "flake",
      "check",
      "--no-build",
      "--offline",
      "--impure",
      "--no-write-lock-file",
      "--override-input",
      "nixpkgs",
      `path:${ROOT}/tests/nix/stub`,
      `path:${copy}`,
    ], { env: await nixEnv() });
    assert.equal(code, 0, stderr);
    assert.doesNotMatch(
      stderr.replace(/warning: (not writing|Git tree|updating|ignoring).*/g, ""),
      /warning|error/,
    );
  } finally {
    await Deno.remove(copy, { recursive: true });
  }
});

Deno.test("flake.lock pins the nixpkgs of nixos-26.05 that has rsync 3.5.0", async () => {
  const { nodes } = JSON.parse(await Deno.readTextFile(`${ROOT}/flake.lock`));
  assert.equal(nodes.nixpkgs.original.ref, "nixos-26.05");
  assert.equal(nodes.nixpkgs.locked.rev, "21a67dc470149f337cecafbe965d8d252a390518");
  assert.equal(nodes.nixpkgs.locked.narHash, "sha256-ugpsyk3NM2s87vXfUiIIiibbJ4Pp0JPS5p/3mfs+q+c=");
});
