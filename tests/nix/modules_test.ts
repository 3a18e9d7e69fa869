import assert from "node:assert/strict";
import { parseConfig } from "../../scripts/core/config/config.ts";
import type { HubName } from "../../scripts/core/names.ts";
import { hubUnits, storageUnits, type UnitFiles } from "../../scripts/core/sandbox/units.ts";
import { STORAGE_USER } from "../../scripts/core/storage_host/storage_names.ts";
import { authorizeText } from "../../scripts/core/storage_host/authorize.ts";
import { parseStorageConfig } from "../../scripts/core/storage_host/storage_config.ts";
import { debianText, nixosText } from "../../scripts/core/storage_host/storage_text.ts";
import { evaluate, evaluateHosts, ROOT, type Told } from "./nix.ts";

const HUB_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f write@home";
const READ_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g read@home";
const SIGNER =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh signing@home";

const HUB = `{
  services.hapi-backup = {
    enable = true;
    user = "op";
    recipients = [ "age1one" "age1two" ];
    signingKeyFile = "/etc/keys/signing";
    destinations = [
      { kind = "rsync"; target = "hapi-home@storage:"; identityFile = "/etc/keys/write"; readIdentityFile = "/etc/keys/read"; knownHostsFile = "~/.ssh/known hosts"; }
      { kind = "folder"; name = "usb"; path = "/mnt/usb"; }
      { kind = "rclone"; remote = "far:store"; configFile = "/etc/keys/rclone.conf"; }
    ];
    settings.sets.photos.sources = [ { kind = "folder"; path = "~/my photos: 100%"; } { kind = "sqlite"; path = "/srv/photos/index.db"; } { kind = "glob"; path = "/srv/photos/raw/*.dng"; } ];
    settings.notify = [ { kind = "ntfy"; url = "https://ntfy.sh/mine"; tokenFile = "/etc/keys/ntfy"; } { kind = "command"; command = [ "~/bin/tell me" "now" ]; } ];
    onFailure = [ "mail@%n.service" ];
    verify = { enable = true; identityFile = "/etc/keys/identity"; store = "rsync"; };
  };
}`;
const STORAGE = `{
  services.hapi-backup-storage = {
    enable = true;
    openFirewall = true;
    settings.receiptKeyFile = "/etc/keys/receipt";
    hubs.home = { writeKey = "${HUB_KEY}"; readKey = "${READ_KEY}"; signers = [ "${SIGNER}" ]; quotaBytes = 1000000; };
    onFailure = [ "mail@%n.service" ];
    watch.prometheusFile = "/var/lib/metrics/hapi.prom";
  };
}`;

/** The same hub and storage host as plain configuration files, as a system that is not NixOS has them. */
function plainHub(nix: Told): UnitFiles {
  const config = parseConfig(
    JSON.stringify({
      hub: "home",
      store: "/var/lib/hapi-backup/store",
      stateFolder: "/var/lib/hapi-backup/state",
      recipients: ["age1one", "age1two"],
      signingKeyFile: "/etc/keys/signing",
      sets: {
        ...JSON.parse(Deno.readTextFileSync(`${ROOT}/nix/default-sets.json`)),
        photos: {
          sources: [
            { kind: "folder", path: "~/my photos: 100%" },
            { kind: "sqlite", path: "/srv/photos/index.db" },
            { kind: "glob", path: "/srv/photos/raw/*.dng" },
          ],
        },
      },
      destinations: [
        {
          kind: "rsync",
          target: "hapi-home@storage:",
          identityFile: "/etc/keys/write",
          readIdentityFile: "/etc/keys/read",
          knownHostsFile: "~/.ssh/known hosts",
        },
        { kind: "folder", name: "usb", path: "/mnt/usb" },
        { kind: "rclone", remote: "far:store", configFile: "/etc/keys/rclone.conf" },
      ],
      notify: [
        { kind: "ntfy", url: "https://ntfy.sh/mine", tokenFile: "/etc/keys/ntfy" },
        { kind: "command", command: ["~/bin/tell me", "now"] },
      ],
    }),
    "test",
    { home: "/home/op", hostname: "home", env: {} },
  );
  return hubUnits({
    manager: "system",
    systemdVersion: 259,
    user: "op",
    config,
    configFile: configPathIn(nix),
    program: (verb) => ["/pkg/bin/hapi-backup", verb],
    programPaths: [],
    onFailure: ["mail@%n.service"],
    calendars: new Map(),
    beforeUnits: ["hapi-hub.service"],
    environment: {},
    realPaths: {},
    drill: { identityFile: "/etc/keys/identity", store: "rsync" },
  });
}

function plainStorage(nix: Told): UnitFiles {
  return storageUnits({
    manager: "system",
    systemdVersion: 259,
    user: STORAGE_USER,
    config: storageConfig(),
    configFile: configPathIn(nix),
    program: (verb) => ["/pkg/bin/hapi-backup", verb],
    programPaths: [],
    onFailure: ["mail@%n.service"],
    calendars: new Map(),
    prometheusFile: "/var/lib/metrics/hapi.prom",
  });
}

const storageConfig = () =>
  parseStorageConfig(
    JSON.stringify({
      store: "/var/lib/hapi-backup-store",
      receiptKeyFile: "/etc/keys/receipt",
      hubs: { home: { signers: [SIGNER], quotaBytes: 1_000_000 } },
    }),
    "test",
  );

/** NixOS writes the configuration into the store, under a name that its contents decide. */
function configPathIn(nix: Told): string {
  const path = /--config" "([^"]+)"/.exec(Object.values(nix.units).join("\n"))?.[1];
  assert.ok(path);
  return path;
}

/** A unit's lines, in an order that does not depend on who wrote it; the order within one setting stays. */
function linesOf(unit: string): string[] {
  let section = "";
  const lines = unit.split("\n").filter((line) => line !== "").flatMap((line) => {
    if (line.startsWith("[")) section = line;
    return line.startsWith("[") ? [] : [`${section} ${line}`];
  });
  return lines.toSorted((a, b) =>
    a.split("=")[0]! < b.split("=")[0]! ? -1 : a.split("=")[0] === b.split("=")[0] ? 0 : 1
  );
}

function assertSameUnits(nix: Told, plain: UnitFiles, folders: string): void {
  const names = [...plain.keys()].filter((name) => name !== folders);
  assert.deepEqual(Object.keys(nix.units).toSorted(), names.toSorted());
  for (const name of names) assert.deepEqual(linesOf(nix.units[name]!), linesOf(plain.get(name)!), name);
  assert.deepEqual(nix.tmpfiles.toSorted(), plain.get(folders)!.trimEnd().split("\n").toSorted());
}

Deno.test("the hub's module and `systemd` make the same units of the same configuration", async () => {
  const nix = await evaluate("hub", HUB);
  assert.deepEqual(nix.failed, []);
  assertSameUnits(nix, plainHub(nix), "hapi-backup.conf");
});

Deno.test("the storage host's module and `systemd --storage` make the same units", async () => {
  const nix = await evaluate("storage", STORAGE);
  assert.deepEqual(nix.failed, []);
  // Elsewhere the operator makes the hubs' folders, as `storage authorize` says, once the store is mounted.
  const { "hapi-backup-folders.service": folders, ...units } = nix.units;
  for (const folder of ["", "/home"]) {
    assert.match(folders!, new RegExp(`^RequiresMountsFor=/var/lib/hapi-backup-store${folder}$`, "m"));
  }
  assertSameUnits({ ...nix, units }, plainStorage(nix), "hapi-backup-storage.conf");
});

Deno.test("the modules' units are the golden ones", async () => {
  const golden = `${ROOT}/tests/golden/units`;
  const made = { ...(await evaluate("hub", HUB)).units, ...(await evaluate("storage", STORAGE)).units };
  const neutral = Object.fromEntries(
    Object.entries(made).map((
      [name, text],
    ) => [name, text.replace(/\/nix\/store\/[a-z0-9]{32}-/g, "/nix/store/…-")]),
  );
  if (Deno.env.get("UPDATE_GOLDEN")) {
    await Deno.mkdir(golden, { recursive: true });
    for (const [name, text] of Object.entries(neutral)) await Deno.writeTextFile(`${golden}/${name}`, text);
  }
  const kept = [...Deno.readDirSync(golden)].map(({ name }) => name);
  assert.deepEqual(Object.keys(neutral).toSorted(), kept.toSorted());
  for (const name of kept) assert.equal(neutral[name], await Deno.readTextFile(`${golden}/${name}`), name);
});

Deno.test("a set gets its own timer, changed key by key or not at all, and a rebuild restarts nothing", async () => {
  const { units, restartIfChanged } = await evaluate(
    "hub",
    `{ imports = [ (${HUB}) ]; services.hapi-backup.sets = { state.timerConfig.RandomizedDelaySec = "1h"; voice.timerConfig = null; }; }`,
  );
  assert.match(
    units["hapi-backup-state.timer"]!,
    /OnCalendar=\*-\*-\* 06,18:00:00\nPersistent=true\nRandomizedDelaySec=1h/,
  );
  assert.equal(units["hapi-backup-voice.timer"], undefined);
  assert.ok(units["hapi-backup-voice.service"]);
  assert.deepEqual([...new Set(Object.values(restartIfChanged))], [false]);
});

Deno.test("a hub that the operator's own manager starts gets its snapshot too: polkit lets the operator start that unit", async () => {
  const { userUnits, polkit } = await evaluate("hub", HUB);
  assert.equal(
    userUnits["hapi-backup-state-before-start.service"],
    `[Unit]
Before=hapi-hub.service
ConditionUser=op
Description=hapi-backup: ask the system for a snapshot before a start

[Service]
ExecStart=/usr/bin/systemctl start hapi-backup-state-before-start.service
SyslogIdentifier=hapi-backup
TimeoutStartSec=10min
Type=oneshot

[Install]
WantedBy=hapi-hub.service

`,
  );
  assert.match(polkit, /"hapi-backup-state-before-start\.service"[^]*"start" && subject\.user == "op"/);
  const off = await evaluate(
    "hub",
    `{ imports = [ (${HUB}) ]; services.hapi-backup = { beforeUnits = [ ]; beforeUserUnits = [ ]; }; }`,
  );
  assert.deepEqual(off.userUnits, {});
  assert.equal(off.polkit, "");
  assert.equal(off.units["hapi-backup-state-before-start.service"], undefined);
});

Deno.test("without a destination there is nothing to ship, and a warning", async () => {
  const { units, warnings } = await evaluate(
    "hub",
    `{ services.hapi-backup = { enable = true; user = "op"; recipients = [ "age1one" ]; signingKeyFile = "/etc/keys/signing"; }; }`,
  );
  assert.equal(Object.keys(units).some((name) => name.includes("ship")), false);
  assert.doesNotMatch(Object.values(units).join("\n"), /hapi-backup-ship/);
  assert.match(
    warnings.join("\n"),
    /recipients has one recipient.*\n.*destinations is empty: nothing leaves this machine/,
  );
});

const BAD_HUBS: readonly (readonly [string, string, RegExp])[] = [
  ["no recipient", `recipients = lib.mkForce [ ];`, /recipients is empty: nobody could open.*`age-keygen`/],
  [
    "no signing key",
    `signingKeyFile = lib.mkForce null;`,
    /signingKeyFile is not set: .*ssh-keygen -t ed25519/,
  ],
  [
    "a signing key in the store",
    `signingKeyFile = lib.mkForce "\${builtins.storeDir}/x-signing";`,
    /hapi-backup\.signingKeyFile is \/nix\/store\/x-signing, in the Nix store.*give a path outside the store/,
  ],
  [
    "a destination's key in the store",
    `destinations = [ { kind = "rsync"; name = "s"; target = "a@b:"; identityFile = "/nix/store/x-key"; knownHostsFile = "/k"; } ];`,
    /destinations\.s\.identityFile is \/nix\/store\/x-key, in the Nix store/,
  ],
  [
    "a notifier's token in the store",
    `settings.notify = lib.mkForce [ { kind = "gotify"; url = "https://x"; tokenFile = "/nix/store/x-token"; } ];`,
    /settings\.notify\.gotify\.tokenFile is \/nix\/store\/x-token, in the Nix store/,
  ],
  [
    "an identity on the hub",
    `settings.identityFile = "/home/op/id";`,
    /puts an identity on the hub.*Remove it/,
  ],
  [
    "a drill without an identity",
    `verify.identityFile = lib.mkForce null;`,
    /verify is enabled without an identity: set services\.hapi-backup\.verify\.identityFile/,
  ],
  [
    "a drill's identity in the store",
    `verify.identityFile = lib.mkForce "/nix/store/x-id";`,
    /verify\.identityFile is \/nix\/store\/x-id, in the Nix store/,
  ],
  [
    "a drill from where no key may read",
    `destinations = lib.mkForce [ { kind = "rsync"; target = "a@b:"; identityFile = "/etc/keys/write"; knownHostsFile = "/k"; } ];`,
    /verify\.store is rsync, whose key may only add: give that destination a readIdentityFile/,
  ],
  [
    "a drill from nowhere",
    `verify.store = lib.mkForce "strorage";`,
    /verify\.store is strorage: give a destination's name or the absolute path of a folder/,
  ],
  ["a set that is none", `sets.musik = { };`, /sets names musik, which is no set/],
  [
    "a set named like a verb",
    `settings.sets.ship.sources = [ { kind = "file"; path = "/x"; } ];`,
    /cannot have the name of a verb.*Choose another name/,
  ],
  [
    "a store that would need quoting",
    `settings.store = "/var/lib/my store";`,
    /path \/var\/lib\/my store would need quoting/,
  ],
];
for (const [what, settings, message] of BAD_HUBS) {
  Deno.test(`the hub's module refuses ${what}, with the option and the remedy`, async () => {
    const { failed } = await evaluate(
      "hub",
      `({ lib, ... }: { imports = [ (${HUB}) ]; services.hapi-backup = { ${settings} }; })`,
    );
    assert.equal(failed.length, 1, failed.join("\n"));
    assert.match(failed[0]!, message);
  });
}

const BAD_STORAGE: readonly (readonly [string, string, RegExp])[] = [
  ["no hub", `hubs = lib.mkForce { };`, /hubs is empty: nobody could send anything/],
  [
    "a hub without a key",
    `hubs.home.writeKey = lib.mkForce null;`,
    /hubs\.home\.writeKey is not set.*Give the public half/,
  ],
  [
    "a key that is none",
    `hubs.home.writeKey = lib.mkForce "no-pty ssh-ed25519 AAAA";`,
    /a key is not of the form/,
  ],
  [
    "one key for both",
    `hubs.home.readKey = lib.mkForce "${HUB_KEY}";`,
    /readKey is the writeKey.*Make a second key/,
  ],
  ["a hub without a signer", `hubs.home.signers = lib.mkForce [ ];`, /hubs\.home\.signers is empty/],
  [
    "a hub without a limit of age",
    `hubs.home.maxAgeHours = lib.mkForce { };`,
    /maxAgeHours is empty.*Give a limit/,
  ],
  [
    "a hub without a quota",
    `hubs.home.quotaBytes = lib.mkForce null;`,
    /quotaBytes is not set.*Give a limit in bytes/,
  ],
  [
    "a receipt key in the store",
    `settings.receiptKeyFile = lib.mkForce "/nix/store/x-receipt";`,
    /receiptKeyFile is \/nix\/store\/x-receipt, in the Nix store/,
  ],
  ["hubs in the wrong place", `settings.hubs.other = { };`, /settings\.hubs would be overwritten/],
];
for (const [what, settings, message] of BAD_STORAGE) {
  Deno.test(`the storage host's module refuses ${what}, with the option and the remedy`, async () => {
    const { failed } = await evaluate(
      "storage",
      `({ lib, ... }: { imports = [ (${STORAGE}) ]; services.hapi-backup-storage = { ${settings} }; })`,
    );
    assert.equal(failed.length, 1, failed.join("\n"));
    assert.match(failed[0]!, message);
  });
}

Deno.test("a drill on the hub's own machine is off by default, and warned of when it is on", async () => {
  const { warnings } = await evaluate("hub", HUB);
  assert.match(
    warnings.join("\n"),
    /verify is enabled: an identity is on this machine.*make the drill on another machine/,
  );
  const withDrill = (verify: string) =>
    evaluate(
      "hub",
      `({ lib, ... }: { imports = [ (${HUB}) ]; services.hapi-backup.verify = { ${verify} }; })`,
    );
  for (const [store, folder] of [["usb", "/mnt/usb"], ["/home/op/copy", "/home/op/copy"]]) {
    const { units } = await withDrill(`store = lib.mkForce "${store}";`);
    const drill = units["hapi-backup-verify.service"]!;
    assert.match(drill, /^PrivateNetwork=yes$/m, "what reads a folder needs no network");
    assert.match(drill, new RegExp(`^Bind(ReadOnly)?Paths=-?${folder}$`, "m"));
    assert.ok(drill.includes(`"--store" "${store}"`), drill);
    assert.doesNotMatch(drill, /^LoadCredential=rsync/m);
  }
  const { units } = await withDrill("enable = lib.mkForce false;");
  assert.equal(units["hapi-backup-verify.service"], undefined);
});

Deno.test("what `init` says to paste on a storage host lets the hub in, on NixOS as on Debian", async () => {
  for (const store of ["/var/lib/hapi-backup-store", "/tank/backups"]) {
    const hub = {
      hub: "home" as HubName,
      user: "hapi-home",
      writeKey: HUB_KEY,
      signers: [SIGNER, HUB_KEY],
      store,
    };
    const { failed, users, etc } = await evaluate("storage", `{ ${nixosText(hub)} }`);
    assert.deepEqual(failed, []);
    const [line] = users["hapi-home"]!.keys;
    const debian = debianText(hub).split("\n").find((line) => line.startsWith("restrict,"))!;
    const plain = (text: string) => text.replace(/"\S*\/rrsync/, '"rrsync').replace(/,from="[^"]*"/, "");
    assert.equal(plain(line!), plain(debian));
    assert.ok(line!.includes(` ${store}/home"`), line);
    assert.ok("hapi-backup/storage.json" in etc);
  }
});

Deno.test("a hub's user can add to its own folder and nothing else, with the very line that `storage authorize` prints", async () => {
  const { users, groups, units } = await evaluate("storage", STORAGE);
  const { keys, ...user } = users["hapi-home"]!;
  // sshd runs the forced command by the user's shell: nologin would end every upload.
  assert.deepEqual(user, {
    isSystemUser: true,
    group: "hapi-home",
    useDefaultShell: true,
    home: "/var/empty",
  });
  const config = storageConfig();
  const text = authorizeText(config, [...config.hubs.values()][0]!, {
    writeKey: HUB_KEY,
    readKey: READ_KEY,
    from: "100.64.0.0/10,fd7a:115c:a1e0::/48",
  });
  assert.deepEqual(keys, text.split("\n").filter((line) => line.startsWith("restrict")));
  assert.equal(keys.length, 2);
  assert.deepEqual(groups, ["hapi-backup-storage", "hapi-home"]);
  const made = "install -d -o hapi-home -g hapi-backup-storage -m 2770 /var/lib/hapi-backup-store/home";
  assert.ok(text.includes(`#   ${made}\n`));
  const started = units["hapi-backup-folders.service"]!.replaceAll('"', "");
  assert.ok(started.includes(`/bin/${made}\n`), started);
  assert.equal(users["hapi-backup-storage"]!.useDefaultShell, false);
});

Deno.test("README's two hosts are two systems as they stand there", async () => {
  const readme = await Deno.readTextFile(`${ROOT}/README.md`);
  const [, flake] = /<!-- two hosts:[^\n]*-->\n```nix\n([^]*?)```/.exec(readme)!;
  assert.ok(flake!.split("\n").length < 40);
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/flake.nix`, flake!);
    await Deno.writeTextFile(
      `${folder}/home.nix`,
      `{ networking.hostName = "home"; users.users.alice.home = "/home/alice"; }`,
    );
    await Deno.writeTextFile(`${folder}/storage.nix`, "{ }");
    const hosts = await evaluateHosts(`${folder}/flake.nix`);
    for (const host of Object.values(hosts)) assert.deepEqual([...host.failed, ...host.warnings], []);
    const { home, storage } = hosts;
    assert.match(home!.units["hapi-backup-state.service"]!, /^BindReadOnlyPaths=-\/home\/alice\/\.hapi$/m);
    assert.match(home!.units["hapi-backup-ship.service"]!, /storage-key:\/etc\/hapi-backup\/ship$/m);
    assert.deepEqual(storage!.firewall, { tailscale0: [22] });
    assert.equal(storage!.users["hapi-home"]!.keys.length, 2);
    assert.ok(home!.tailscale && storage!.tailscale);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("SSH is opened on the tailnet's interface only, and only where that was asked for", async () => {
  const asked = await evaluate("storage", STORAGE);
  assert.deepEqual(asked.firewall, { tailscale0: [22] });
  assert.deepEqual(asked.openssh, { enable: true, openFirewall: false });
  assert.equal(asked.tailscale, true);
  const silent = await evaluate(
    "storage",
    `({ lib, ... }: { imports = [ (${STORAGE}) ]; services.hapi-backup-storage.openFirewall = lib.mkForce false; services.tailscale.enable = false; })`,
  );
  assert.deepEqual(silent.firewall, {});
  assert.equal(silent.openssh.openFirewall, true);
  assert.equal(silent.tailscale, false);
});
