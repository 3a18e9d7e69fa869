/**
 * Runs units for real, by a systemd that is PID 1 of its own namespaces: see boot.sh.
 *
 * @module
 */

import { ending } from "../nix.ts";

const HERE = new URL("./", import.meta.url).pathname;

/** The operator in the lab: only there does this user exist. */
export const OPERATOR = { name: "op", uid: 4711 };

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

/** Makes a machine with the operator in it. */
export async function makeLab(): Promise<Lab> {
  const folder = await Deno.makeTempDir({ prefix: "lab-", dir: "/var/tmp" });
  await Deno.chmod(folder, 0o755);
  const { name, uid } = OPERATOR;
  for (const path of ["units/service.d", "home", "lib/log", "etc"]) {
    await Deno.mkdir(`${folder}/${path}`, { recursive: true });
  }
  await Deno.mkdir(`${folder}/home/${name}`, { mode: 0o700 });
  await Deno.chown(`${folder}/home/${name}`, uid, uid);
  for (
    const [file, line] of [
      ["passwd", `${name}:x:${uid}:${uid}::/home/${name}:/bin/bash`],
      ["group", `${name}:x:${uid}:`],
    ]
  ) {
    await Deno.writeTextFile(
      `${folder}/etc/${file}`,
      `${(await Deno.readTextFile(`/etc/${file}`)).trim()}\n${line}\n`,
    );
  }
  const lab: Lab = {
    folder,
    home: `${folder}/home/${name}`,
    lib: `${folder}/lib`,
    writeUnit: (unit, text) => Deno.writeTextFile(`${folder}/units/${unit}`, text),
    log: (unit) => Deno.readTextFile(`${folder}/lib/log/${unit}`).catch(() => ""),
    async run(script) {
      await Deno.writeTextFile(`${folder}/driver.sh`, `set -u\n${script}\n`);
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
    "driver.service",
    `[Unit]
DefaultDependencies=no
After=sysinit.target basic.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash ${folder}/driver.sh
TimeoutStartSec=100
`,
  );
  await Deno.mkdir(`${folder}/units/driver.service.d`);
  await lab.writeUnit(
    "driver.service.d/z.conf",
    `[Service]\nStandardOutput=append:${folder}/out\nStandardError=append:${folder}/out\n`,
  );
  return lab;
}
