/**
 * The systemd timers that start our runs, of the system's manager and of the user's.
 *
 * @module
 */

import { isInterruption } from "../../core/errors.ts";
import type { Host } from "../host.ts";

/** A timer that is loaded. */
export interface Timer {
  /** Such as `hapi-backup-state.timer`. */
  readonly unit: string;
  /** When it elapses next; undefined if it will not. */
  readonly next: Date | undefined;
}

const SECONDS_MAX = 20;

/** Our timers; undefined where there is no systemd to ask. */
export async function readTimers(host: Pick<Host, "run">): Promise<Timer[] | undefined> {
  const timers: Timer[] = [];
  let isAsked = false;
  for (const manager of ["--system", "--user"]) {
    try {
      const args = [manager, "list-timers", "--all", "--output=json", "hapi-backup-*"];
      const { code, stdout } = await host.run("systemctl", args, { secondsMax: SECONDS_MAX });
      if (code !== 0) continue;
      for (const { unit, next } of JSON.parse(stdout || "[]") as { unit: string; next: number | null }[]) {
        // systemd counts microseconds.
        timers.push({ unit, next: next ? new Date(next / 1000) : undefined });
      }
      isAsked = true;
    } catch (error) {
      if (isInterruption(error)) throw error;
      // No systemd here, or one that is too old to answer in JSON.
    }
  }
  return isAsked ? timers : undefined;
}
