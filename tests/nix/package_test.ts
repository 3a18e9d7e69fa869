import assert from "node:assert/strict";
import { build, ending, nixEnv, output, pinnedDeno, ROOT } from "./nix.ts";

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
    for (const deno of [Deno.execPath(), await pinnedDeno()]) {
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

for (const which of ["this", "the pinned"]) {
  Deno.test(`the package is built with this machine's programs under ${which} Deno, and runs offline and read-only`, async () => {
    const deno = which === "this" ? Deno.execPath() : await pinnedDeno();
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

    const printed = await sealed(`cd ${path}/share
      cmp bash-completion/completions/hapi-backup.bash <(${program} completions bash)
      cmp zsh/site-functions/_hapi-backup <(${program} completions zsh)
      cmp fish/vendor_completions.d/hapi-backup.fish <(${program} completions fish)
      cmp man/man1/hapi-backup.1 <(${program} man)
      grep -q hapi_backup bash-completion/completions/hapi-backup.bash && grep -q 'SH NAME' man/man1/hapi-backup.1`);
    assert.equal(printed.code, 0, printed.stdout + printed.stderr);

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
  const { verbs, environment } = JSON.parse(await Deno.readTextFile(`${ROOT}/nix/verbs.json`)) as {
    verbs: Record<string, string[]>;
    environment: Record<string, string>;
  };
  for (const [verb, flags] of Object.entries(verbs)) {
    const wrapper = await Deno.readTextFile(`${path}/libexec/hapi-backup/${verb}`);
    const granted = wrapper.match(/--allow-[\w-]+(=\S+)?/g)!.filter((flag) =>
      !flag.startsWith("--allow-env")
    );
    assert.deepEqual(granted, flags, verb);
    assert.match(wrapper, /--no-prompt/);
    assert.match(wrapper, /--cached-only/);
    for (const [name, value] of Object.entries(environment)) {
      assert.ok(wrapper.includes(`export ${name}=\${${name}-${value}}`), wrapper);
    }
  }
  // What is no verb gets the least of them.
  const { stdout, code } = await ending(`${path}/bin/hapi-backup`, ["no-such-verb"], {
    env: { HOME: "/root" },
  });
  assert.equal(code, 2, stdout);
});

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

Deno.test("a configuration that the program refuses does not become a system", async () => {
  const recipient = "age15nzf7l2ldzyhaq360awuvytscwt40nz5v4w63ppaampm6gn7uajq85t973";
  const make = (limit: string, to = recipient) =>
    build(
      `(r { hub = { users.users.op = { home = "/home/op"; }; services.hapi-backup = { enable = true; user = "op"; recipients = [ "${to}" ]; signingKeyFile = "/etc/keys/signing"; settings.limits.${limit} = 60; }; }; }).hubConfigFile`,
    ).catch(String);
  assert.match(await make("snapshotSeconds"), /-hapi-backup\.json$/);
  assert.match(await make("snapshotSecond"), /Unrecognized key.*snapshotSecond/);
  assert.match(
    await make("snapshotSeconds", recipient.replace("9", "8")),
    /recipient .*: it is mistyped or cut/,
  );
  const storage = (more: string) =>
    build(
      `(r { storage = { services.hapi-backup-storage = { enable = true; hubs.home = { writeKey = "${KEY} write"; signers = [ "${KEY} sign" ]; quotaBytes = 1; }; ${more} }; }; }).storageConfigFile`,
    ).catch(String);
  assert.match(await storage(""), /-hapi-backup-storage\.json$/);
  assert.match(await storage("settings.retention.keepDayly = 3;"), /Unrecognized key.*keepDayly/);
});

Deno.test("`nix flake check` and `nix run` work on stand-ins for nixpkgs, NixOS test included", async () => {
  // A copy, because a flake in a git checkout takes all of it, and as committed.
  const copy = await Deno.makeTempDir();
  try {
    const files = ["flake.nix", "flake.lock", "deno.json", "deno.lock", "mod.ts", "scripts", "nix"];
    await output("cp", ["-R", ...files.map((name) => `${ROOT}/${name}`), copy]);
    const onStub = ["--offline", "--impure", "--no-write-lock-file"];
    onStub.push("--override-input", "nixpkgs", `path:${ROOT}/tests/nix/stub`);
    const env = await nixEnv();
    const { code, stderr } = await ending(
      "nix",
      ["flake", "check", "--no-build", ...onStub, `path:${copy}`],
      { env },
    );
    assert.equal(code, 0, stderr);
    assert.doesNotMatch(
      stderr.replace(/warning: (not writing|Git tree|updating|ignoring).*/g, ""),
      /warning|error/,
    );
    // The options' documents are written, and the VM test's script is Python.
    const checks = ["docs", "vm"].map((name) => `path:${copy}#checks.x86_64-linux.${name}`);
    await output("nix", ["build", "--no-link", ...onStub, ...checks], { env });
    // What `nix run` runs is the verb's own wrapper, and arguments pass through.
    const run = (app: string, ...args: string[]) =>
      ending("nix", ["run", ...onStub, `path:${copy}${app}`, "--", ...args], { env });
    assert.match((await run("#status", "--help")).stdout, /^Usage: hapi-backup status /);
    assert.match((await run("", "list", "--help")).stdout, /^Usage: hapi-backup list /);
    assert.equal((await run("#backup", "--no-such-option")).code, 2);
  } finally {
    await Deno.remove(copy, { recursive: true });
  }
});

Deno.test("the development shell has all that tests/debian.sh installs", async () => {
  const [, shell] = /mkShell \{\s*packages = with pkgs; \[([^\]]*)\]/.exec(
    await Deno.readTextFile(`${ROOT}/flake.nix`),
  )!;
  const [, list] = /^packages=\(([^)]*)\)/m.exec(await Deno.readTextFile(`${ROOT}/tests/debian.sh`))!;
  const names = shell!.trim().split(/\s+/);
  // What nixpkgs calls otherwise.
  const other: Record<string, string> = {
    rdiff: "librsync",
    sqlite3: "sqlite",
    "openssh-client": "openssh",
    "openssh-server": "openssh",
    bsdutils: "util-linux",
    "nix-bin": "nix",
  };
  for (const entry of list!.trim().split(/\s+/)) {
    const name = entry.split(":").at(-1)!;
    assert.ok(names.includes(other[name] ?? name), `flake.nix: the devShell lacks ${other[name] ?? name}`);
  }
});

Deno.test("flake.lock pins the nixpkgs of nixos-26.05 that has rsync 3.5.0", async () => {
  const { nodes } = JSON.parse(await Deno.readTextFile(`${ROOT}/flake.lock`));
  assert.equal(nodes.nixpkgs.original.ref, "nixos-26.05");
  assert.equal(nodes.nixpkgs.locked.rev, "21a67dc470149f337cecafbe965d8d252a390518");
  assert.equal(nodes.nixpkgs.locked.narHash, "sha256-ugpsyk3NM2s87vXfUiIIiibbJ4Pp0JPS5p/3mfs+q+c=");
});
