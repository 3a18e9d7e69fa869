import assert from "node:assert/strict";
import { parseConfig } from "../../scripts/core/config/config.ts";
import { hubUnits, sourcePaths, storageUnits, type UnitFiles } from "../../scripts/core/sandbox/units.ts";
import { parseStorageConfig } from "../../scripts/core/storage_host/storage_config.ts";
import { realFs } from "../../scripts/host/fs.ts";
import { closedParts } from "../../scripts/host/systemd/reach.ts";
import { cli } from "../real/cli.ts";
import { ending, output, ROOT } from "./nix.ts";

const AROUND = { home: "/home/op", hostname: "home", env: {} };
const SIGNER =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh signing@home";

function unitsFor(
  manager: "system" | "user",
  more: Record<string, unknown> = {},
  systemdVersion = 252,
): UnitFiles {
  const config = parseConfig(
    JSON.stringify({
      hub: "home",
      recipients: ["age1one"],
      destinations: [{
        kind: "rsync",
        target: "a@b:",
        identityFile: "~/.ssh/write",
        knownHostsFile: "~/.ssh/known_hosts",
      }],
      ...more,
    }),
    "test",
    AROUND,
  );
  return hubUnits({
    manager,
    systemdVersion,
    user: "root", // systemd-analyze looks the user up
    config,
    configFile: "/home/op/.config/hapi-backup/config.json",
    program: (verb) => ["/bin/true", verb],
    programPaths: [],
    onFailure: [],
    calendars: new Map([["state", "*-*-* 06,18:00:00"]]),
    beforeUnits: ["hapi-hub.service"],
    environment: {},
    realPaths: {},
    drill: { identityFile: "/etc/keys/identity", store: "rsync" },
  });
}

const storage = (): UnitFiles =>
  storageUnits({
    manager: "system",
    systemdVersion: 252,
    user: "root",
    config: parseStorageConfig(
      JSON.stringify({
        store: "/srv/store",
        receiptKeyFile: "/etc/keys/receipt",
        hubs: { home: { signers: [SIGNER] } },
      }),
      "test",
    ),
    configFile: "/etc/hapi-backup/storage.json",
    program: (verb) => ["/bin/true", verb],
    programPaths: [],
    onFailure: [],
    calendars: new Map(),
    prometheusFile: "/var/lib/metrics/hapi.prom",
  });

/** Writes units where systemd-analyze finds them, and hands over the folder. */
async function withUnits<T>(
  units: UnitFiles,
  use: (folder: string, names: string[]) => Promise<T>,
): Promise<T> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, text] of units) await Deno.writeTextFile(`${folder}/${name}`, text);
    return await use(folder, [...units.keys()].filter((name) => !name.endsWith(".conf")));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const analyzed = (folder: string, manager: "system" | "user", names: readonly string[]) =>
  ending(
    "systemd-analyze",
    ["verify", `--${manager}`, "--man=no", ...names.map((name) => `${folder}/${name}`)],
    {
      env: {
        SYSTEMD_UNIT_PATH: `${folder}:/lib/systemd/${manager}`,
        XDG_RUNTIME_DIR: folder,
        SYSTEMD_LOG_LEVEL: "info",
      },
    },
  );

for (
  const [what, manager, units] of [
    ["a hub's", "system", () => unitsFor("system")],
    ["a hub's own manager's", "user", () => unitsFor("user")],
    ["a storage host's", "system", storage],
  ] as const
) {
  Deno.test(`systemd-analyze finds nothing to say about ${what} units`, async () => {
    await withUnits(units(), async (folder, names) => {
      const { code, stdout, stderr } = await analyzed(folder, manager, names);
      // It ends with 0 for values that it does not understand and ignores: silence is what counts.
      const said = (stdout + stderr).split("\n").filter((line) =>
        line !== "" && line.includes("hapi-backup")
      );
      assert.deepEqual(said, []);
      assert.equal(code, 0, stderr);
    });
  });
}

Deno.test("a ship that is tried again raises no alarm each time: from systemd 254 on that has to be said", () => {
  const ship = (version: number) => unitsFor("system", {}, version).get("hapi-backup-ship.service")!;
  assert.doesNotMatch(ship(253), /RestartMode/);
  assert.match(ship(254), /^Restart=on-failure$[^]*^RestartMode=direct$/m);
});

Deno.test("the journal has every service's lines under our name, whatever runs it", () => {
  for (const units of [unitsFor("system"), unitsFor("user"), storage()]) {
    for (const [name, text] of units) {
      if (name.endsWith(".service")) assert.match(text, /^SyslogIdentifier=hapi-backup$/m, name);
    }
  }
});

Deno.test("systemd-analyze does speak of a setting or a value that is not one", async () => {
  for (
    const [right, wrong] of [["PrivateNetwork=yes", "PrivateNetwork=yess"], ["UMask=", "UMaks="]] as const
  ) {
    const units = new Map([...unitsFor("system")].map(([name, text]) => [name, text.replace(right, wrong)]));
    await withUnits(units, async (folder, names) => {
      const { stderr } = await analyzed(folder, "system", names);
      assert.match(stderr, /hapi-backup-state\.service:\d+: (Failed to parse|Unknown key)/);
    });
  }
});

Deno.test("every unit's exposure is under 2.0, and what README says", async () => {
  const exposures: Record<string, number> = {};
  await withUnits(new Map([...unitsFor("system"), ...storage()]), async (folder, names) => {
    for (const name of names.filter((name) => name.endsWith(".service"))) {
      exposures[name.replace(/^hapi-backup-|\.service$/g, "")] = await exposure(`${folder}/${name}`);
    }
  });
  for (const [name, value] of Object.entries(exposures)) assert.ok(value < 2, `${name}: ${value}`);
  const readme = await Deno.readTextFile(`${ROOT}/README.md`);
  const stated = /systemd-analyze security`([^]*?)\n\n/.exec(readme)![1]!.matchAll(/([a-z-]+)\s(\d\.\d)\b/g);
  assert.deepEqual(
    exposures,
    Object.fromEntries([...stated].map(([, name, value]) => [name, Number(value)])),
  );
});

async function exposure(path: string): Promise<number> {
  const { stdout, stderr } = await ending("systemd-analyze", [
    "security",
    "--offline=true",
    "--no-pager",
    path,
  ]);
  const value = /Overall exposure level for [^:]+: ([\d.]+)/.exec(stdout + stderr)?.[1];
  assert.ok(value, stdout + stderr);
  return Number(value);
}

Deno.test("the timer of `state` elapses at 06:00 and 18:00 on the wall, also when the clocks change", async () => {
  const { OnCalendar } = JSON.parse(await Deno.readTextFile(`${ROOT}/nix/units.json`)).timers.backup;
  const elapses = async (from: string) => {
    const text = await output("systemd-analyze", [
      "calendar",
      "--iterations=4",
      `--base-time=${from}`,
      OnCalendar.state,
    ], {
      env: { TZ: "Europe/Berlin", LC_ALL: "C" },
    });
    return [...text.matchAll(/(?:Next elapse|Iteration #\d+|Iter\. #\d+): \w+ (.+)/g)].map(([, when]) =>
      when
    );
  };
  // The night of 28 to 29 March 2026 has no 02:30, that of 24 to 25 October has two.
  assert.deepEqual(await elapses("2026-03-28 12:00:00"), [
    "2026-03-28 18:00:00 CET",
    "2026-03-29 06:00:00 CEST",
    "2026-03-29 18:00:00 CEST",
    "2026-03-30 06:00:00 CEST",
  ]);
  assert.deepEqual(await elapses("2026-10-24 12:00:00"), [
    "2026-10-24 18:00:00 CEST",
    "2026-10-25 06:00:00 CET",
    "2026-10-25 18:00:00 CET",
    "2026-10-26 06:00:00 CET",
  ]);
});

Deno.test("every calendar expression is one", async () => {
  const { timers } = JSON.parse(await Deno.readTextFile(`${ROOT}/nix/units.json`));
  for (const timer of Object.values(timers) as { OnCalendar: Record<string, string> }[]) {
    for (const when of Object.values(timer.OnCalendar)) await output("systemd-analyze", ["calendar", when]);
  }
});

Deno.test("the module's default sets are the program's", async () => {
  const sets = JSON.parse(await Deno.readTextFile(`${ROOT}/nix/default-sets.json`));
  assert.deepEqual(
    parseConfig(JSON.stringify({ sets }), "test", AROUND).sets,
    parseConfig("{}", "test", AROUND).sets,
  );
});

Deno.test("`systemd` warns of a program that the units' user cannot reach", async () => {
  const home = await Deno.makeTempDir();
  try {
    const closedBy = (program: string, manager: "system" | "user", user = "op") =>
      closedParts(realFs, { program, user, manager }).map(({ closedBy }) => closedBy);
    const tools = `${home}/tools`;
    const program = `${tools}/hapi-backup`;
    await Deno.chmod(home, 0o755);
    await Deno.mkdir(tools);
    await Deno.writeTextFile(program, "#!/bin/sh", { mode: 0o755 });
    await Deno.symlink(program, `${home}/link`);
    assert.deepEqual(closedBy(program, "system"), []);
    assert.deepEqual(closedBy("/usr/local/bin/not-there-yet", "system"), []);
    assert.deepEqual(closedBy("/root/bin/hapi-backup", "system"), ["/root"]);
    await Deno.chmod(tools, 0o700);
    for (const path of [program, `${home}/link`]) assert.deepEqual(closedBy(path, "system"), [tools]);
    assert.deepEqual(closedBy(program, "user"), []);
    const owner = (await output("id", ["-un"])).trim();
    assert.deepEqual(closedBy(program, "system", owner), []);

    await Deno.writeTextFile(`${home}/config.json`, JSON.stringify({ hub: "home", recipients: ["age1one"] }));
    const { code, stderr } = await cli(
      { home },
      ...["systemd", "--system", "--config", `${home}/config.json`, "--run-as", "op", "--program", program],
    );
    assert.equal(code, 0, stderr);
    assert.match(
      stderr,
      /: op may not enter \S+\/tools, and the units call \S+\/hapi-backup: .*\/usr\/local/,
    );

    // A group may be the user's.
    await Deno.chmod(tools, 0o710);
    assert.deepEqual(closedBy(program, "system"), []);
    await Deno.chmod(program, 0o700);
    assert.deepEqual(closedBy(program, "system"), [program]);
    const entry = `${tools}/mod.ts`;
    await Deno.writeTextFile(entry, "", { mode: 0o600 });
    assert.deepEqual(
      closedParts(realFs, { program: { deno: "/bin/sh", entry }, user: "op", manager: "system" }),
      [{ path: entry, closedBy: entry }],
    );
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});

Deno.test("`systemd --to` says how to install from any folder, and takes no calendar of a timer that is not made, none that is no time, and no unit for a set that is not there", async () => {
  const home = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${home}/config.json`, JSON.stringify({ hub: "home", recipients: ["age1one"] }));
    const make = (...more: string[]) =>
      cli({ home }, "systemd", "--user", "--config", `${home}/config.json`, ...more);
    const { code, stdout, stderr } = await make("--to", `${home}/my $units`);
    assert.equal(code, 0, stderr);
    assert.equal(
      stdout.match(/^install .*/gm)![0]!.split(" -t ")[1],
      `~/.config/systemd/user '${home}/my $units'/*.service '${home}/my $units'/*.timer`,
    );
    assert.doesNotMatch(stderr, /from another time/);
    Deno.writeTextFileSync(`${home}/my $units/hapi-backup-photos.timer`, "");
    const again = await make("--to", `${home}/my $units`);
    assert.match(again.stderr, /my \$units holds hapi-backup-photos\.timer, too, from another time/);
    const { stdout: system } = await cli(
      { home },
      ...["systemd", "--system", "--config", `${home}/config.json`, "--to", `${home}/system`],
    );
    const sudo = Deno.uid() === 0 ? "" : "sudo ";
    assert.match(system, new RegExp(`^${sudo}install .*\n${sudo}install .*\n${sudo}systemd-tmpfiles `, "m"));
    const noTime = await make("--calendar", "state=6 am");
    assert.equal(noTime.code, 2);
    assert.match(noTime.stderr, /^error: Cannot use --calendar state=6 am: systemd knows no such time$/m);
    const inTime = await make("--calendar", "state=*-*-* 05:30:00");
    assert.deepEqual([inTime.code, /^OnCalendar=\*-\*-\* 05:30:00$/m.test(inTime.stdout)], [0, true]);
    const inPlace = await make("--to", `${home}/.config/systemd/user`);
    assert.doesNotMatch(inPlace.stdout, /^install .*\.service/m, "install(1) copies no file onto itself");
    const noDrill = await make("--drill-store", "storage");
    assert.deepEqual([noDrill.code, /no drill without --drill-identity/.test(noDrill.stderr)], [2, true]);
    const nowhere = await make("--drill-identity", "/etc/identity", "--drill-store", "nosuch");
    assert.deepEqual([nowhere.code, /--drill-store nosuch: it is neither/.test(nowhere.stderr)], [2, true]);
    const far = { kind: "rsync", target: "a@b:", identityFile: "/k", knownHostsFile: "/h" };
    await Deno.writeTextFile(
      `${home}/far.json`,
      JSON.stringify({ hub: "home", recipients: ["age1one"], destinations: [far] }),
    );
    const unread = await cli(
      { home },
      ...["systemd", "--user", "--config", `${home}/far.json`],
      ...["--drill-identity", "/etc/identity", "--drill-store", "rsync"],
    );
    assert.equal(unread.code, 2, unread.stderr);
    assert.match(unread.stderr, /--drill-store rsync: its key may only add.*\nhint: .*readIdentityFile/);
    const drill = await make("--drill-identity", "/etc/identity", "--drill-store", "/mnt/copy");
    assert.match(drill.stdout, /^BindReadOnlyPaths=-\/mnt\/copy$/m);
    for (const name of ["hapi-hub", "hapi hub.service", "a.service\nExecStartPre=/bin/sh"]) {
      const { code, stderr } = await make("--before", name);
      assert.deepEqual([code, /is not the name of a unit/.test(stderr)], [2, true], stderr);
    }
    const storage = await make("--storage");
    assert.deepEqual([storage.code, /need another user's rights/.test(storage.stderr)], [2, true]);
    const typo = await make("--calendar", "stat=daily");
    assert.equal(typo.code, 2);
    assert.match(typo.stderr, /--calendar stat=\.\.\.: there is no timer of that name/);
    assert.match(typo.stderr, /^hint: there are state, voice$/m);

    const sets = { main: { sources: [{ kind: "file", path: "~/a" }] } };
    await Deno.writeTextFile(
      `${home}/config.json`,
      JSON.stringify({ hub: "home", recipients: ["age1one"], sets }),
    );
    for (const option of [["--before", "hapi-hub.service"], ["--drill-identity", "/media/identity.txt"]]) {
      const missing = await make(...option);
      assert.equal(missing.code, 2, missing.stderr);
      assert.match(
        missing.stderr,
        /is about set state, which is not in the configuration\nhint: sets there: main;/,
      );
    }
  } finally {
    await Deno.remove(home, { recursive: true });
  }
});

Deno.test("sourcePaths() gives a database's folder, a pattern's folder, and nothing twice", () => {
  const { sets } = parseConfig(
    JSON.stringify({
      sets: {
        a: {
          sources: [
            { kind: "sqlite", path: "/srv/app/data.db" },
            { kind: "file", path: "/srv/app/key" },
            { kind: "glob", path: "/srv/docs/*/x?.md" },
            { kind: "folder", path: "/srv/app2" },
          ],
        },
      },
    }),
    "test",
    AROUND,
  );
  const { sources } = sets.get("a" as never)!;
  assert.deepEqual(sourcePaths(sources), ["/srv/app", "/srv/docs", "/srv/app2"]);
  const links = {
    "/srv/app/data.db": "/data/real.db",
    "/srv/app/key": "/keys/key",
    "/srv/docs": "/srv/docs",
  };
  assert.deepEqual(sourcePaths(sources, links), ["/srv/app", "/data", "/keys/key", "/srv/docs", "/srv/app2"]);
});

Deno.test("a source with any name can stand in a unit; a key, a store or a set's name that cannot is refused", () => {
  const odd = unitsFor("system", {
    sets: { odd: { sources: [{ kind: "folder", path: `/srv/a b:c%d'e\\f é` }] } },
  });
  assert.ok(
    odd.get("hapi-backup-odd.service")!.includes(String.raw`BindReadOnlyPaths=-"/srv/a b\:c%%d'e\\f é"`),
  );
  const refused = (more: Record<string, unknown>, message: RegExp, systemdVersion?: number) =>
    assert.throws(() => unitsFor("system", more, systemdVersion), { kind: "config", message });
  refused({ store: "/srv/my store" }, /store, "\/srv\/my store", would need quoting/);
  refused({ signingKeyFile: "/srv/%h" }, /signingKeyFile, "\/srv\/%h"/);
  refused(
    { sets: { a: { sources: [{ kind: "file", path: "/srv/a\nExecStartPre=/bin/sh" }] } } },
    /line break/,
  );
  // systemd 255 and later lose such a path without a word: of what it names nothing would be saved.
  for (const [path, version] of [['/srv/a"b', 252], ["/srv/mum's", 255]] as const) {
    const sets = { a: { sources: [{ kind: "file", path }] } };
    refused({ sets }, /a path, "\/srv\/.*, would need quoting/, version);
  }
  refused({ sets: { verify: { sources: [{ kind: "file", path: "/a" }] } } }, /name of a verb, verify/);
});
