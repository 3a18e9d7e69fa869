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

/** For an answer that takes no tenth of a second. */
const SECONDS_MAX = 5;

/** Our timers; undefined where there is no systemd to ask. */
export async function readTimers(host: Pick<Host, "run">): Promise<Timer[] | undefined> {
  // At once: with a systemd that hangs, that is waited for once.
  const lists = await Promise.all([timersOf(host, "--system"), timersOf(host, "--user")]);
  const answers = lists.filter((list) => list !== undefined);
  return answers.length > 0 ? answers.flat() : undefined;
}

async function timersOf(host: Pick<Host, "run">, manager: string): Promise<Timer[] | undefined> {
  try {
    const args = [manager, "list-timers", "--all", "--output=json", "hapi-backup-*"];
    const { code, stdout } = await host.run("systemctl", args, { secondsMax: SECONDS_MAX });
    if (code !== 0) return undefined;
    const listed = JSON.parse(stdout || "[]") as { unit: string; next: number | null }[];
    // systemd counts microseconds.
    return listed.map(({ unit, next }) => ({ unit, next: next ? new Date(next / 1000) : undefined }));
  } catch (error) {
    if (isInterruption(error)) throw error;
    // No systemd here, or one that hangs, or is too old to answer in JSON.
    return undefined;
  }
}
