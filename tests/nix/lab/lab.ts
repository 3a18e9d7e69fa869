/**
 * Runs units for real, by a systemd that is PID 1 of its own namespaces: see boot.sh.
 *
 * @module
 */

import { ending, ROOT } from "../nix.ts";

const HERE = new URL("./", import.meta.url).pathname;

/** Users that exist in the lab only, each with its uid and gid: the operator, a storage host's own, a hub's there. */
export const USERS = { op: 4711, "hapi-backup-storage": 4712, "hapi-home": 4713 };

/**
 * In the lab's scripts: `program VERB…` is the command line. Deno and this checkout may lie where only root may go, so
 * they are shown in the operator's home, where the units, too, find them.
 */
const PROGRAM = `
mkdir -p /home/op/program; touch /home/op/deno
mount --bind ${ROOT} /home/op/program; mount --bind ${Deno.execPath()} /home/op/deno
program() { DENO_DIR=/run/deno /home/op/deno run --node-modules-dir=manual --cached-only --no-lock -A /home/op/program/mod.ts "$@"; }`;

/**
 * In the lab's scripts: `said LOG TEXT [TIMES]` waits until a log holds a text that often, `ended UNIT` until a unit that
 * has begun has ended; its restarts are part of it.
 */
export const WAITING = `
said() { for i in $(seq 600); do n=$(grep -c -- "$2" /var/lib/log/$1); [ "\${n:-0}" -ge "\${3-1}" ] && return; sleep 0.1; done; echo "$1 does not say: $2"; } 2>/dev/null
ended() { for i in $(seq 600); do case $(systemctl show -p ActiveState --value $1) in inactive|failed) return;; esac; sleep 0.1; done; echo "$1 does not end"; }
`;

/** A machine in a folder: `/home`, `/var/lib`, single files of `/etc`, and its units. */
export interface Lab extends AsyncDisposable {
  readonly folder: string;
  /** `/home/op` as seen from outside. */
  readonly home: string;
  /** `/var/lib` as seen from outside. */
  readonly lib: string;
  writeUnit(name: string, text: string): Promise<void>;
  /**
   * Boots, runs `script` as root under `set -u`, and ends. Units' output goes to `/var/lib/log/<unit>`.
   *
   * @returns What the script printed.
   */
  run(script: string): Promise<string>;
  /** What a unit printed. */
  log(unit: string): Promise<string>;
}

/** Makes a machine; `OnFailure=alarm@%N.service` notes `failed: UNIT` in `/var/lib/log/alarms`. */
export async function makeLab(): Promise<Lab> {
  const folder = await Deno.makeTempDir({ prefix: "lab-", dir: "/var/tmp" });
  await Deno.chmod(folder, 0o755);
  for (const path of ["units/service.d", "home", "lib/log", "etc"]) {
    await Deno.mkdir(`${folder}/${path}`, { recursive: true });
  }
  await Deno.mkdir(`${folder}/home/op`, { mode: 0o700 });
  await Deno.chown(`${folder}/home/op`, USERS.op, USERS.op);
  const users = Object.entries(USERS);
  const lines = {
    passwd: users.map(([name, id]) => `${name}:x:${id}:${id}::/home/${name}:/bin/sh`),
    group: users.map(([name, id]) => `${name}:x:${id}:`),
  };
  for (const [file, more] of Object.entries(lines)) {
    const own = (await Deno.readTextFile(`/etc/${file}`)).trim();
    await Deno.writeTextFile(`${folder}/etc/${file}`, [own, ...more, ""].join("\n"));
  }
  const lab: Lab = {
    folder,
    home: `${folder}/home/op`,
    lib: `${folder}/lib`,
    writeUnit: (unit, text) => Deno.writeTextFile(`${folder}/units/${unit}`, text),
    log: (unit) => Deno.readTextFile(`${folder}/lib/log/${unit}`).catch(() => ""),
    async run(script) {
      // What still runs is stopped, which takes its folders in /tmp away.
      const end = "command systemctl stop 'hapi-backup-*'";
      await Deno.writeTextFile(`${folder}/driver.sh`, `set -u\n${PROGRAM}\n${script}\n${end}\n`);
      await Deno.remove(`${folder}/out`).catch(() => {});
      const { stderr } = await ending("bash", [`${HERE}boot.sh`, folder]);
      const out = await Deno.readTextFile(`${folder}/out`).catch(() => "");
      if (out === "") throw new Error(`Cannot boot the lab: ${stderr}`);
      return out;
    },
    async [Symbol.asyncDispose]() {
      await Deno.remove(folder, { recursive: true });
    },
  };
  await lab.writeUnit(
    "service.d/log.conf",
    "[Service]\nStandardOutput=append:/var/lib/log/%n\nStandardError=append:/var/lib/log/%n\n",
  );
  await lab.writeUnit(
    "alarm@.service",
    "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo failed: %i >> /var/lib/log/alarms'\n",
  );
  await lab.writeUnit(
    "driver.service",
    `[Unit]
DefaultDependencies=no
After=sysinit.target basic.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash ${folder}/driver.sh
TimeoutStartSec=280
`,
  );
  await Deno.mkdir(`${folder}/units/driver.service.d`);
  await lab.writeUnit(
    "driver.service.d/z.conf",
    `[Service]\nStandardOutput=append:${folder}/out\nStandardError=append:${folder}/out\n`,
  );
  return lab;
}
