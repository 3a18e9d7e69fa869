/**
 * Starts the notify step around a run. Whatever becomes of it, the run's own outcome stays what it is: a notifier that
 * fails is a warning.
 *
 * @module
 */

import type { Config, Notifier } from "../../core/config/config.ts";
import { shipFolder } from "../../core/config/state_paths.ts";
import { BackupError, reasonAndRemedy, reasonOf } from "../../core/errors.ts";
import { notifyPermissions } from "../../core/sandbox/permissions.ts";
import { hostOf, type NotifyPhase, type NotifyReport } from "../../core/status/notices.ts";
import type { Host } from "../host.ts";
import { withLock } from "../lock.ts";
import { runStep, script, type Terminal } from "../steps/step.ts";
import { addressOf } from "./notifier_files.ts";

/** Seconds that a run waits for another one that is telling. */
const WAIT_SECONDS = 60;

/** What it takes to tell. */
interface Telling {
  readonly host: Host;
  readonly terminal: Terminal;
}

/** Tells what is due. Never throws: what could not be told is in the report, and warned of. */
export async function tell(
  { host, terminal }: Telling,
  config: Config,
  phase: NotifyPhase,
): Promise<NotifyReport> {
  const failed: NotifyReport["failed"][number][] = [];
  const reachable: { notifier: Notifier; host?: string }[] = [];
  for (const notifier of config.notify) {
    if (phase === "start" && notifier.kind !== "ping") continue;
    try {
      reachable.push(await grantFor(host, notifier));
    } catch (error) {
      failed.push({ name: notifier.name, reason: reasonAndRemedy(error) });
    }
  }
  let sent: NotifyReport["sent"] = [];
  if (reachable.length > 0) {
    const names = reachable.map(({ notifier }) => notifier.name);
    const permissions = notifyPermissions(config, reachable);
    const run = () =>
      runStep<NotifyReport>(script("notify"), { config, phase, names }, permissions, terminal);
    try {
      const lock = `${shipFolder(config.stateFolder)}/notify.lock`;
      const report = phase === "end" || phase === "send"
        ? await withLockIfPossible(host, lock, run)
        : await run();
      sent = report.sent;
      failed.push(...report.failed);
    } catch (error) {
      failed.push(...names.map((name) => ({ name, reason: reasonOf(error) })));
    }
  }
  for (const { name, reason } of failed) {
    terminal.warn(reason.startsWith("Cannot notify") ? reason : `Cannot notify ${name}: ${reason}`);
  }
  return { sent, failed };
}

/** Where no lock can be made, as on a disk that has become read-only, telling twice is better than not at all. */
async function withLockIfPossible<T>(host: Host, lock: string, work: () => Promise<T>): Promise<T> {
  let isHeld = false;
  const held = () => {
    isHeld = true;
    return work();
  };
  try {
    return await withLock(host, lock, WAIT_SECONDS, held);
  } catch (error) {
    if (isHeld || !(error instanceof BackupError) || error.kind !== "disk") throw error;
    return await work();
  }
}

/** Tells the notifiers of a run: that it starts, and at the end of the block how things stand. */
export function telling(context: Telling, config: Config): AsyncDisposable {
  const started = tell(context, config, "start");
  return {
    async [Symbol.asyncDispose]() {
      await started;
      await tell(context, config, "end");
    },
  };
}

/** What a notifier's messages need; throws where this process was not given it. */
async function grantFor(
  { fs }: Pick<Host, "fs">,
  notifier: Notifier,
): Promise<{ notifier: Notifier; host?: string }> {
  if (notifier.kind === "command") {
    await requireGranted({ name: "run", command: notifier.command[0]! }, `start ${notifier.command[0]}`);
    return { notifier };
  }
  const host = hostOf(addressOf(fs, notifier));
  await requireGranted({ name: "net", host }, `reach ${host}`);
  return { notifier, host };
}

async function requireGranted(permission: Deno.PermissionDescriptor, what: string): Promise<void> {
  const { state } = await Deno.permissions.query(permission);
  if (state !== "granted") {
    throw new Error(`this command may not ${what}; \`hapi-backup notify send\` may, for one`);
  }
}
