/**
 * What the systemd of this machine is and understands.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { isInterruption } from "../../core/errors.ts";
import { MAIN_SET } from "../../core/names.ts";
import type { Host } from "../host.ts";

const SECONDS_MAX = 20;

/** What makes the units on a machine that is no NixOS, as a person may type it. */
export const unitsCommand = ({ sets }: Pick<Config, "sets">): string =>
  `hapi-backup systemd --user ${
    sets.has(MAIN_SET) ? "--before hapi-hub.service " : ""
  }--to ~/.config/systemd/user`;

/** Its version, such as 252; undefined where there is none. */
export async function readSystemdVersion(host: Pick<Host, "run">): Promise<number | undefined> {
  const shown = await tryRun(host, "systemctl", "--version");
  const version = /^systemd (\d+)/.exec(shown?.stdout ?? "")?.[1];
  return version === undefined ? undefined : Number(version);
}

/** Whether it takes `when` for a time that comes again (systemd.time(7)). Where there is none, nobody can tell: it is. */
export async function isCalendar(host: Pick<Host, "run">, when: string): Promise<boolean> {
  const read = await tryRun(host, "systemd-analyze", "calendar", "--", when);
  return read === undefined || read.code === 0;
}

/** Undefined where the program cannot be run. */
async function tryRun(host: Pick<Host, "run">, program: string, ...args: string[]) {
  try {
    return await host.run(program, args, { secondsMax: SECONDS_MAX });
  } catch (error) {
    if (isInterruption(error)) throw error;
    return undefined;
  }
}
