import assert from "node:assert/strict";
import { generateIdentity } from "../../scripts/host/identity.ts";
import { startHub } from "../real/hub.ts";
import { newKey, type Sshd, startSshd } from "../real/sshd.ts";
import { type Lab, makeLab, OPERATOR } from "./lab/lab.ts";
import { output, ROOT } from "./nix.ts";

const { uid } = OPERATOR;

/** A hub's machine with all that `hapi-backup systemd` was given to make its units, and a storage host that answers. */
interface HubLab extends AsyncDisposable {
  readonly lab: Lab;
  readonly sshd: Sshd;
  /** The hub's folder on the storage host. */
  readonly far: string;
  readonly identityFile: string;
}

/** @param scope Whose manager the units are for. */
async function makeHubLab(scope: "system" | "user" = "system"): Promise<HubLab> {
  const lab = await makeLab();
  const far = `${lab.folder}/far/home`;
  const sshd = await startSshd({ dir: far });
  const keys = scope === "system" ? `${lab.lib}/keys` : `${lab.home}/keys`;
  const seen = scope === "system" ? "/var/lib/keys" : "/home/op/keys";
  await Deno.mkdir(keys);
  await newKey(`${keys}/signing`);
  await Deno.copyFile(sshd.writeKeyFile, `${keys}/write`);
  await Deno.copyFile(sshd.knownHostsFile, `${keys}/known_hosts`);
  const { identity, recipient } = await generateIdentity();
  const identityFile = `${lab.folder}/identity`;
  const signer = await Deno.readTextFile(`${keys}/signing.pub`);
  await Deno.writeTextFile(identityFile, `# signer: ${signer}${identity}\n`);
  const config = {
    hub: "home",
    recipients: [recipient],
    signingKeyFile: `${seen}/signing`,
    destinations: [{
      kind: "rsync",
      name: "far",
      target: `${sshd.user}@127.0.0.1:`,
      port: sshd.port,
      identityFile: `${seen}/write`,
      knownHostsFile: `${seen}/known_hosts`,
      attempts: 1,
    }],
    ...(scope === "system"
      ? { store: "/var/lib/hapi-backup/store", stateFolder: "/var/lib/hapi-backup/state" }
      : {}),
  };
  const configFile = scope === "system" ? "/var/lib/config.json" : "/home/op/config.json";
  const outside = scope === "system" ? `${lab.lib}/config.json` : `${lab.home}/config.json`;
  await Deno.writeTextFile(outside, JSON.stringify(config));
  await Deno.mkdir(`${lab.home}/.ssh`);
  await Deno.writeTextFile(`${lab.home}/.ssh/id_private`, "the operator's own key");
  // The command line makes the units inside the lab, where the paths are what they say.
  const made = await lab.run(`
    export HOME=/home/op DENO_DIR=/run/deno
    ${Deno.execPath()} run --node-modules-dir=manual --cached-only --no-lock -A ${ROOT}/mod.ts systemd --${scope} --config ${configFile} \
      --before hapi-hub.service --on-failure alarm@%N.service --to ${lab.folder}/units`);
  assert.match(made, /^wrote \d+ files/);
  await lab.writeUnit(
    "alarm@.service",
    "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo failed: %i >> /var/lib/log/alarms'\n",
  );
  // What is a matter of minutes is a matter of seconds here.
  await Deno.mkdir(`${lab.folder}/units/hapi-backup-ship.service.d`);
  await lab.writeUnit("hapi-backup-ship.service.d/fast.conf", "[Service]\nRestartSec=1s\n");
  await give(lab, lab.home);
  return {
    lab,
    sshd,
    far,
    identityFile,
    async [Symbol.asyncDispose]() {
      await sshd[Symbol.asyncDispose]();
      await lab[Symbol.asyncDispose]();
    },
  };
}

/** Gives a folder and all in it to the operator. */
const give = (_lab: Lab, path: string) => output("chown", ["-R", `${uid}:${uid}`, path]);

/** Waits until a unit has ended; its restarts are part of it. */
const UNTIL_IDLE = `
idle() { for i in $(seq 200); do case $(systemctl show -p ActiveState --value $1) in inactive|failed) return;; esac; sleep 0.1; done; echo "$1 does not end"; }
`;

const prepare = ({ folder }: Lab): string => `systemd-tmpfiles --create ${folder}/units/hapi-backup.conf`;

/** What is restored of a store, by the command line with the identity. */
async function verified(store: string, identityFile: string): Promise<Record<string, string>> {
  const home = await Deno.makeTempDir();
  try {
    const text = await output(Deno.execPath(), [
      ...[
        "run",
        "--no-lock",
        "-A",
        `${ROOT}/mod.ts`,
        "verify",
        "--json",
        "--store",
        store,
        "--hub-name",
        "home",
      ],
      ...["--identity", identityFile],
    ], { env: { HOME: home } });
    const report = JSON.parse(text);
    assert.equal(report.ok, true, text);
    return Object.fromEntries(
      report.checks.map(({ name, detail }: Record<string, string>) => [name, detail]),
    );
  } finally {
    await Deno.remove(home, { recursive: true });
  }
}

/** What `verify` says of the table of sessions. */
const sessionsIn = (checks: Record<string, string>) =>
  Object.entries(checks).find(([name]) => /\bsessions$/.test(name))?.[1];

Deno.test("units, for real: a live hub is backed up by the operator's user, then shipped; a failed ship is tried again", async () => {
  await using machine = await makeHubLab();
  const { lab, far } = machine;
  await using hub = await startHub({ home: `${lab.home}/.hapi` });
  await give(lab, lab.home);
  const load = await hub.writeLoad({ perSecond: 50 });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const known = (await hub.sessions()).length;

  const out = await lab.run(`${UNTIL_IDLE}
    ${prepare(lab)}
    echo "--- the first ship cannot know the host"
    mv /var/lib/keys/known_hosts /var/lib/keys/gone
    systemctl start hapi-backup-state.service; echo "backup: $?"
    for i in $(seq 100); do [ $(systemctl show -p NRestarts --value hapi-backup-ship) -ge 2 ] && break; sleep 0.1; done
    [ $(systemctl show -p NRestarts --value hapi-backup-ship) -ge 2 ] && echo "tried again"
    mv /var/lib/keys/gone /var/lib/keys/known_hosts
    idle hapi-backup-ship; echo "ship: $(systemctl show -p Result --value hapi-backup-ship)"
    ls /var/lib/hapi-backup/store/home/state | wc -l
    ls -l /var/lib/hapi-backup/store/home/state/*/seal.json
    cat /var/lib/log/alarms`);
  await load.stop();
  assert.equal(load.failure, undefined);
  assert.match(out, /^backup: 0$/m, await lab.log("hapi-backup-state.service"));
  assert.match(out, /^tried again$/m, await lab.log("hapi-backup-ship.service"));
  assert.match(out, /^ship: success$/m, await lab.log("hapi-backup-ship.service"));
  assert.match(out, /^1$/m, "one snapshot only");
  assert.match(out, / op +op .*seal\.json$/m);
  assert.doesNotMatch(out, /failed:/);
  const checks = await verified(far, machine.identityFile);
  assert.equal(sessionsIn(checks), `${known}, as saved`);
});

Deno.test("units, for real: a stopped and a killed hub are backed up from a home that is read-only", async () => {
  await using machine = await makeHubLab();
  const { lab } = machine;
  for (const end of ["stop", "kill"] as const) {
    const hub = await startHub({ home: `${lab.home}/.hapi` });
    await hub.createSession(end);
    await give(lab, lab.home);
    await hub[end]();
    await give(lab, lab.home);
    const out = await lab.run(`${prepare(lab)}
      systemctl start hapi-backup-state.service; echo "backup: $?"; ls /home/op/.hapi`);
    assert.match(out, /^backup: 0$/m, `${end}: ${out} ${await lab.log("hapi-backup-state.service")}`);
  }
  const checks = await verified(`${lab.lib}/hapi-backup/store`, machine.identityFile);
  assert.equal(sessionsIn(checks), "2, as saved");
});

/** What a unit can do, told by a program in its place. */
const probe = (port: number): string =>
  `#!/bin/bash
can() { if "\${@:2}" >/dev/null 2>&1; then echo "can $1"; else echo "cannot $1"; fi; }
can "reach the network" bash -c 'exec 3<>/dev/tcp/127.0.0.1/${port}'
can "make a socket" python3 -c 'import socket; socket.socket(socket.AF_INET)'
can "read the database" head -c 1 /home/op/.hapi/hapi.db
can "read the secrets" cat /home/op/.hapi/hub.env
can "write beside the database" touch /home/op/.hapi/x
can "read the rest of the home" cat /home/op/.ssh/id_private
can "read the signing key" cat /var/lib/keys/signing
can "read the ship's key" cat /var/lib/keys/write
can "read the plaintext image" ls /var/lib/hapi-backup/state/state/base
can "write the set's state" touch /var/lib/hapi-backup/state/state/x
can "read the ship's records" ls /var/lib/hapi-backup/state/ship
can "write the ship's records" touch /var/lib/hapi-backup/state/ship/x
can "read the store" ls /var/lib/hapi-backup/store/home
can "write the store" touch /var/lib/hapi-backup/store/home/x
can "write elsewhere" touch /var/lib/log/x
can "become root" unshare --user true
`;

Deno.test("units, for real: what takes snapshots reaches no network, what ships sees no home, and neither writes elsewhere", async () => {
  await using machine = await makeHubLab();
  const { lab, sshd } = machine;
  await Deno.mkdir(`${lab.home}/.hapi`);
  await Deno.writeTextFile(`${lab.home}/.hapi/hapi.db`, "x");
  await Deno.writeTextFile(`${lab.home}/.hapi/hub.env`, "KEY=secret");
  await give(lab, lab.home);
  await Deno.writeTextFile(`${lab.lib}/probe.sh`, probe(sshd.port));
  const unit = (name: string) => Deno.readTextFile(`${lab.folder}/units/hapi-backup-${name}.service`);
  const instead = (text: string, without: RegExp[] = []) =>
    text.split("\n").filter((line) => !/^(On|Restart)/.test(line) && !without.some((form) => form.test(line)))
      .join("\n").replace(/^ExecStart=.*$/m, "ExecStart=/bin/bash /var/lib/probe.sh");
  const backup = await unit("state");
  const ship = await unit("ship");
  await lab.writeUnit("probe-backup.service", instead(backup));
  await lab.writeUnit("probe-ship.service", instead(ship));
  // The same without each wall: what it keeps out then comes through, so it is this wall that does it.
  await lab.writeUnit(
    "open-network.service",
    instead(backup, [/^PrivateNetwork=/, /^IPAddressDeny=/, /^RestrictAddress/]),
  );
  await lab.writeUnit(
    "open-sources.service",
    instead(backup, [
      /^BindReadOnlyPaths=-\/home/,
      /^ProtectHome=/,
      /^TemporaryFileSystem=\/home/,
      /^ProtectSystem=/,
    ]),
  );
  await lab.writeUnit("open-home.service", instead(ship, [/^ProtectHome=/, /^TemporaryFileSystem=\/home/]));
  await lab.writeUnit("open-state.service", instead(ship, [/^TemporaryFileSystem=\/var/]));
  await lab.writeUnit("open-credentials.service", instead(ship, [/^BindReadOnlyPaths=%d/]));
  await lab.writeUnit("open-namespaces.service", instead(ship, [/^RestrictNamespaces=/, /^PrivateUsers=/]));
  const names = [
    "probe-backup",
    "probe-ship",
    ...["network", "sources", "home", "state", "credentials", "namespaces"].map((name) => `open-${name}`),
  ];
  const out = await lab.run(`${prepare(lab)}
    chmod 600 /var/lib/keys/*; install -d -o op /var/lib/hapi-backup/state/state/base
    ${names.map((name) => `systemctl start ${name}.service || echo "failed: ${name}"`).join("\n")}
    echo probed`);
  assert.doesNotMatch(out, /failed/);
  const found: Record<string, string[]> = {};
  for (const name of names) {
    const lines = (await lab.log(`${name}.service`)).trim().split("\n");
    found[name] = lines.filter((line) => line.startsWith("can ")).map((line) => line.slice(4));
    assert.equal(lines.length, 16, `${name}: ${lines.join("\n")}`);
  }
  assert.deepEqual(found["probe-backup"], [
    "read the database",
    "read the secrets",
    "read the signing key",
    "read the plaintext image",
    "write the set's state",
    "read the ship's records",
    "read the store",
    "write the store",
  ]);
  assert.deepEqual(found["probe-ship"], [
    "reach the network",
    "make a socket",
    "read the ship's key",
    "read the ship's records",
    "write the ship's records",
    "read the store",
  ]);
  const through = (name: string, like: string) => found[name]!.filter((what) => !found[like]!.includes(what));
  assert.deepEqual(through("open-network", "probe-backup"), ["reach the network", "make a socket"]);
  assert.deepEqual(through("open-sources", "probe-backup"), [
    "write beside the database",
    "read the rest of the home",
  ]);
  // systemd leaves homes out of ProtectSystem=strict: ProtectHome is all that guards them.
  assert.deepEqual(through("open-home", "probe-ship"), [
    "read the database",
    "read the secrets",
    "write beside the database",
    "read the rest of the home",
  ]);
  assert.deepEqual(through("open-state", "probe-ship"), ["read the plaintext image"]);
  assert.deepEqual(through("open-credentials", "probe-ship"), []);
  assert.equal(
    found["open-credentials"]!.includes("read the ship's key"),
    false,
    "the file itself is root's alone",
  );
  assert.deepEqual(through("open-namespaces", "probe-ship"), ["become root"]);
});

Deno.test("units, for real: a ship that fails for good raises the alarm once; the next snapshot ships what waited", async () => {
  await using machine = await makeHubLab();
  const { lab, far } = machine;
  await Deno.mkdir(`${lab.home}/.hapi`);
  await output("sqlite3", [
    `${lab.home}/.hapi/hapi.db`,
    "create table sessions(id); insert into sessions values (1)",
  ]);
  await give(lab, lab.home);
  await lab.writeUnit(
    "hapi-backup-ship.service.d/fast.conf",
    "[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=300ms\n",
  );
  const out = await lab.run(`${UNTIL_IDLE}
    ${prepare(lab)}
    mv /var/lib/keys/known_hosts /var/lib/keys/gone
    systemctl start hapi-backup-state.service
    idle hapi-backup-ship; systemctl show -p Result -p NRestarts hapi-backup-ship
    idle alarm@hapi-backup-ship.service; cat /var/lib/log/alarms
    mv /var/lib/keys/gone /var/lib/keys/known_hosts
    echo "--- a database that is gone: no snapshot, but what waits is shipped"
    mv /home/op/.hapi/hapi.db /home/op/.hapi/gone
    systemctl reset-failed hapi-backup-ship.service
    systemctl start hapi-backup-state.service; echo "backup: $?"
    idle hapi-backup-ship; sleep 0.3; idle hapi-backup-ship; echo "ship: $(systemctl show -p Result --value hapi-backup-ship)"
    idle alarm@hapi-backup-state.service; cat /var/lib/log/alarms`);
  const [first, second] = out.split("---");
  assert.match(first!, /^Result=exit-code$/m, await lab.log("hapi-backup-ship.service"));
  assert.match(first!, /^NRestarts=3$/m);
  assert.equal(first!.match(/failed: hapi-backup-ship/g)?.length, 1);
  assert.match(second!, /^backup: 1$/m);
  assert.match(second!, /^ship: success$/m);
  assert.match(second!, /failed: hapi-backup-state/);
  await verified(far, machine.identityFile);
});

Deno.test("units, for real: a snapshot is taken before each start of the hub, which starts also when that fails or hangs", async () => {
  await using machine = await makeHubLab();
  const { lab } = machine;
  await Deno.mkdir(`${lab.home}/.hapi`);
  await output("sqlite3", [
    `${lab.home}/.hapi/hapi.db`,
    "pragma journal_mode=wal; create table sessions(id); insert into sessions values (1)",
  ]);
  await give(lab, lab.home);
  // A hub that migrates its database when it starts, and notes what was there before.
  await lab.writeUnit(
    "hapi-hub.service",
    `[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo "start: $(ls /var/lib/hapi-backup/store/home/state | wc -l) snapshots"; sqlite3 /home/op/.hapi/hapi.db "update sessions set id = id + 1"'
`,
  );
  // What `systemctl enable` makes of [Install].
  const before = "hapi-backup-state-before-start.service";
  const text = await Deno.readTextFile(`${lab.folder}/units/${before}`);
  assert.match(text, /^WantedBy=hapi-hub\.service$/m);
  await Deno.mkdir(`${lab.folder}/units/hapi-hub.service.wants`);
  await Deno.symlink(`../${before}`, `${lab.folder}/units/hapi-hub.service.wants/${before}`);
  await Deno.mkdir(`${lab.folder}/units/${before}.d`);
  const out = await lab.run(`${UNTIL_IDLE}
    ${prepare(lab)}
    systemctl start hapi-hub.service; echo "hub: $?"
    sleep 1; systemctl restart hapi-hub.service; echo "hub: $?"
    mv /var/lib/keys/signing /var/lib/keys/gone
    systemctl restart hapi-hub.service; echo "hub: $?"
    mv /var/lib/keys/gone /var/lib/keys/signing
    printf '[Service]\\nExecStart=\\nExecStart=/bin/sleep 60\\nTimeoutStartSec=1s\\n' > ${lab.folder}/units/${before}.d/hang.conf
    systemctl daemon-reload
    for i in 1 2 3 4 5; do systemctl restart hapi-hub.service; echo "hub: $?"; done
    idle alarm@hapi-backup-state-before-start.service; cat /var/lib/log/alarms`);
  assert.deepEqual(out.match(/^hub: \d+$/gm), Array(8).fill("hub: 0"), out);
  const starts = (await lab.log("hapi-hub.service")).match(/start: \d+ snapshots/g);
  assert.deepEqual(
    starts,
    [1, 2, 2, 2, 2, 2, 2, 2].map((count) => `start: ${count} snapshots`),
    await lab.log(before),
  );
  // A hub that starts again and again does not make snapshots without end: of the last six starts, two were refused.
  assert.equal(out.match(/failed: hapi-backup-state-before-start/g)?.length, 1 + 4, out);
});
