/**
 * A hub's machine in the lab: all that `hapi-backup systemd` needs to make its units, and a storage host that answers.
 *
 * @module
 */

import assert from "node:assert/strict";
import defaultSets from "../../../nix/default-sets.json" with { type: "json" };
import { generateIdentity } from "../../../scripts/host/keys/identity.ts";
import { cli } from "../../real/cli.ts";
import { newKey, type Sshd, startSshd } from "../../real/sshd.ts";
import { output } from "../nix.ts";
import { type Lab, makeLab, USERS } from "./lab.ts";

/** A folder of the operator whose name needs all the quoting that a unit can do; the set `notes` has it. */
export const ODD_FOLDER = "/home/op/my notes: 100% d accord, \\o";

/** The hub's machine, and what lies off it. */
export interface HubLab extends AsyncDisposable {
  readonly lab: Lab;
  readonly sshd: Sshd;
  /** The hub's folder on the storage host. */
  readonly far: string;
  readonly identityFile: string;
  /** Folders as the units see them. */
  readonly keys: string;
  readonly state: string;
  readonly store: string;
}

/**
 * Makes the machine, its configuration and its units, in {@linkcode Lab.folder}`/units`.
 *
 * @param manager Whose manager the units are for. The operator's own keys and configuration lie in the home.
 */
export async function makeHubLab(manager: "system" | "user" = "system"): Promise<HubLab> {
  const lab = await makeLab();
  const far = `${lab.folder}/far/home`;
  const sshd = await startSshd({ dir: far });
  const [outside, seen] = manager === "system" ? [lab.lib, "/var/lib"] : [lab.home, "/home/op"];
  await Deno.mkdir(`${outside}/keys`);
  await newKey(`${outside}/keys/signing`);
  await Deno.copyFile(sshd.writeKeyFile, `${outside}/keys/write`);
  await Deno.copyFile(sshd.knownHostsFile, `${outside}/keys/known_hosts`);
  const { identity, recipient } = await generateIdentity();
  const identityFile = `${lab.folder}/identity`;
  const signer = await Deno.readTextFile(`${outside}/keys/signing.pub`);
  await Deno.writeTextFile(identityFile, `# signer: ${signer}${identity}\n`);
  const [state, store] = manager === "system"
    ? ["/var/lib/hapi-backup/state", "/var/lib/hapi-backup/store"]
    : ["/home/op/.local/state/hapi-backup", "/home/op/.local/share/hapi-backup/store"];
  const config = {
    hub: "home",
    recipients: [recipient],
    signingKeyFile: `${seen}/keys/signing`,
    destinations: [{
      kind: "rsync",
      name: "far",
      target: `${sshd.user}@127.0.0.1:`,
      port: sshd.port,
      identityFile: `${seen}/keys/write`,
      knownHostsFile: `${seen}/keys/known_hosts`,
      attempts: 1,
    }],
    // A notifier whose token is not there is no reason not to ship.
    notify: [{
      kind: "ntfy",
      name: "phone",
      url: "http://127.0.0.1:9/x",
      tokenFile: `${seen}/keys/no-token`,
    }],
    store,
    stateFolder: state,
    sets: { ...defaultSets, notes: { sources: [{ kind: "folder", path: ODD_FOLDER }] } },
  };
  await Deno.writeTextFile(`${outside}/config.json`, JSON.stringify(config));
  await Deno.mkdir(`${lab.home}/.ssh`);
  await Deno.writeTextFile(`${lab.home}/.ssh/id_private`, "the operator's own key");
  // The command line makes the units inside the lab, where the paths are what they say.
  const made = await lab.run(`
    HOME=/home/op program systemd --${manager} --config ${seen}/config.json \
      --before hapi-hub.service --on-failure alarm@%N.service --to ${lab.folder}/units`);
  assert.match(made, /^wrote \d+ files/m);
  // What is a matter of minutes is a matter of seconds here.
  await Deno.mkdir(`${lab.folder}/units/hapi-backup-ship.service.d`);
  await lab.writeUnit("hapi-backup-ship.service.d/fast.conf", "[Service]\nRestartSec=1s\n");
  await give(lab.home);
  return {
    lab,
    sshd,
    far,
    identityFile,
    keys: `${seen}/keys`,
    state,
    store,
    async [Symbol.asyncDispose]() {
      await sshd[Symbol.asyncDispose]();
      await lab[Symbol.asyncDispose]();
    },
  };
}

/** Gives a folder and all in it to the operator. */
export const give = (path: string): Promise<string> =>
  output("chown", ["-R", `${USERS.op}:${USERS.op}`, path]);

/** In the lab's scripts: makes the folders that the system's units expect. */
export const prepare = ({ folder }: Lab): string =>
  `systemd-tmpfiles --create ${folder}/units/hapi-backup.conf`;

/** What `verify` says of a store, by the name of the check. */
export async function verified(store: string, identityFile: string): Promise<Record<string, string>> {
  const home = await Deno.makeTempDir();
  try {
    const { stdout, stderr } = await cli(
      { home },
      ...["verify", "--json", "--store", store, "--hub-name", "home", "--identity", identityFile],
    );
    assert.equal(JSON.parse(stdout || "{}").ok, true, stdout + stderr);
    return Object.fromEntries(
      JSON.parse(stdout).checks.map(({ name, detail }: Record<string, string>) => [name, detail]),
    );
  } finally {
    await Deno.remove(home, { recursive: true });
  }
}

/** What `verify` says of the table of sessions. */
export const sessionsIn = (checks: Record<string, string>): string | undefined =>
  Object.entries(checks).find(([name]) => /\bsessions$/.test(name))?.[1];

/** What a unit can do, told by a program in its place. */
export const probe = ({ sshd, keys, state, store }: HubLab): string =>
  `can() { if "\${@:2}" >/dev/null 2>&1; then echo "can $1"; else echo "cannot $1"; fi; }
can "reach the network" bash -c 'exec 3<>/dev/tcp/127.0.0.1/${sshd.port}'
can "make a socket" python3 -c 'import socket; socket.socket(socket.AF_INET)'
can "read the database" head -c 1 /home/op/.hapi/hapi.db
can "read the secrets" cat /home/op/.hapi/hub.env
can "write beside the database" touch /home/op/.hapi/x
can "read the rest of the home" cat /home/op/.ssh/id_private
can "read the signing key" cat ${keys}/signing
can "read the ship's key" cat ${keys}/write
can "read the plaintext image" ls ${state}/state/base
can "write the set's state" touch ${state}/state/x
can "read the ship's records" ls ${state}/ship
can "write the ship's records" touch ${state}/ship/x
can "read the store" ls ${store}/home
can "write the store" touch ${store}/home/x
can "write elsewhere" touch /var/lib/log/x
can "become root" unshare --user true
`;

/** Which of these a unit may do, behind the system's manager and behind the operator's own. */
export const MAY = {
  backup: [
    "read the database",
    "read the secrets",
    "read the signing key",
    "read the plaintext image",
    "write the set's state",
    "read the ship's records",
    "read the store",
    "write the store",
  ],
  ship: [
    "reach the network",
    "make a socket",
    "read the ship's key",
    "read the ship's records",
    "write the ship's records",
    "read the store",
  ],
};

/** What a probe printed that it can do; it must have tried everything. */
export function tried(log: string): string[] {
  const lines = log.trim().split("\n");
  assert.equal(lines.length, 16, log);
  return lines.filter((line) => line.startsWith("can ")).map((line) => line.slice(4));
}
