/**
 * Tells those who are to be told how the backups stand.
 *
 * Reads the logs, the seals and the notifiers' own tokens, reaches the notifiers' hosts and nothing else, and keeps
 * what it told in the folder of `ship`. It cannot read a source, an image or a key.
 *
 * @module
 */

import type { Config, Notifier } from "./core/config/config.ts";
import { shipFolder } from "./core/config/state_paths.ts";
import { BackupError, ifPossible, reasonAndRemedy } from "./core/errors.ts";
import {
  dueNotices,
  hostOf,
  type HubView,
  type Notice,
  type NotifyPhase,
  type NotifyReport,
  parseTold,
  pingNotice,
  requestOf,
  serializeTold,
  testNotice,
  type Told,
} from "./core/status/notices.ts";
import { addressOf, tokenOf } from "./host/command_line/notifier_files.ts";
import { readTextIfThere, writeFileDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { readView } from "./host/status/hub_view.ts";
import { serveStep } from "./host/steps/step.ts";

/** What was told, by notifier. */
export const toldFile = (stateFolder: string): string => `${shipFolder(stateFolder)}/told.json`;

/** Sends what is due. A notifier that fails does not stop the others, and is told again the next time. */
export async function notify(
  host: Host,
  config: Config,
  phase: NotifyPhase,
  names: readonly string[] = config.notify.map(({ name }) => name),
): Promise<NotifyReport> {
  const view = phase === "start" || phase === "test"
    ? { hub: config.hub, problems: [], digest: [] }
    : readView(host, config);
  // One that cannot be read is as good as empty: what is due is told at least once.
  const told = parseTold(ifPossible(() => readTextIfThere(host.fs, toldFile(config.stateFolder))));
  const sent: NotifyReport["sent"][number][] = [];
  const failed: NotifyReport["failed"][number][] = [];
  await Promise.all(
    config.notify.filter(({ name }) => names.includes(name)).map(async (notifier) => {
      const { due, after } = dueOf(view, notifier, phase, told.get(notifier.name), host.now());
      try {
        for (const { notice, after } of due) {
          await deliver(host, notifier, notice);
          sent.push({ name: notifier.name, event: notice.event });
          if (after) told.set(notifier.name, after);
        }
        if (after) told.set(notifier.name, after);
      } catch (error) {
        failed.push({ name: notifier.name, reason: reasonAndRemedy(error) });
      }
    }),
  );
  if (phase === "end" || phase === "send") {
    host.fs.mkdir(shipFolder(config.stateFolder), { recursive: true, mode: 0o700 });
    const known = [...told].filter(([name]) => config.notify.some((notifier) => notifier.name === name));
    writeFileDurably(host.fs, toldFile(config.stateFolder), serializeTold(new Map(known)));
  }
  return { sent, failed };
}

function dueOf(
  view: HubView,
  notifier: Notifier,
  phase: NotifyPhase,
  told: Told | undefined,
  now: Date,
): { readonly due: readonly { notice: Notice; after?: Told }[]; readonly after?: Told } {
  if (phase === "test") return { due: [{ notice: testNotice(view, now) }] };
  if (notifier.kind === "ping") {
    const notice = phase === "send" ? undefined : pingNotice(view, notifier, phase, now);
    return { due: notice ? [{ notice }] : [] };
  }
  if (phase === "start") return { due: [] };
  const { due, told: after } = dueNotices(view, notifier, told, now);
  return { due, after };
}

async function deliver(host: Host, notifier: Notifier, notice: Notice): Promise<void> {
  const fail = (state: string, hint: string): never => {
    throw new BackupError(`Cannot notify ${notifier.name}: ${state}`, { kind: "network", hint });
  };
  if (notifier.kind === "command") {
    const [program, ...args] = notifier.command;
    const stdin = JSON.stringify(notice) + "\n";
    const { code, signal } = await host.run(program!, args, { stdin, secondsMax: notifier.timeoutSeconds });
    if (code !== 0) fail(`${program} ended with ${signal ?? code}`, "run it by hand with the same input");
    return;
  }
  const { url, headers, body } = requestOf(
    notifier,
    addressOf(host.fs, notifier),
    tokenOf(host.fs, notifier),
    notice,
  );
  // The path of an address may be a secret, so only its host is named.
  const where = hostOf(url);
  let status: number;
  try {
    const response = await fetch(url, {
      method: "POST",
      headers,
      body,
      // Another host than the one that was named is not reached.
      redirect: "manual",
      signal: AbortSignal.timeout(notifier.timeoutSeconds * 1000),
    });
    await response.body?.cancel();
    status = response.status;
  } catch (error) {
    const late = error instanceof DOMException && error.name === "TimeoutError";
    return fail(
      late ? `${where} does not answer within ${notifier.timeoutSeconds} s` : `${where} cannot be reached`,
      "check the address, the network and the server",
    );
  }
  if (status >= 300 && status < 400) fail(`${where} redirects elsewhere`, "configure the final address");
  if (status === 401 || status === 403) fail(`${where} answers ${status}`, "check its token");
  if (status < 200 || status >= 300) {
    fail(`${where} answers ${status}`, "check the address, and that server's log");
  }
}

serveStep<{ config: Config; phase: NotifyPhase; names: readonly string[] }>(
  import.meta,
  ({ config, phase, names }, { host }) => notify(host, config, phase, names),
);
