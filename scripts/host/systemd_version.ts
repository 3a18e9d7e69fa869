/**
 * Which systemd this machine has.
 *
 * @module
 */

import { BackupError } from "../core/errors.ts";
import type { Host } from "./host.ts";

const SECONDS_MAX = 20;

/** Its version, such as 252; undefined where there is none. */
export async function readSystemdVersion(host: Pick<Host, "run">): Promise<number | undefined> {
  try {
    const { stdout } = await host.run("systemctl", ["--version"], { secondsMax: SECONDS_MAX });
    const version = /^systemd (\d+)/.exec(stdout)?.[1];
    return version === undefined ? undefined : Number(version);
  } catch (error) {
    if (error instanceof BackupError && error.kind === "cancelled") throw error;
    return undefined;
  }
}
