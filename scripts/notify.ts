/**
 * Tells those who are to be told how the backups stand.
 *
 * Reads the logs, the seals and the notifiers' own tokens, reaches the notifiers' hosts and nothing else, and keeps
 * what it told in the folder of `ship`. It cannot read a source, an image or a key.
 *
 * @module
 */

import type { Config, Notifier } from "./core/config.ts";
import { BackupError, reasonOf } from "./core/errors.ts";
import { formatBytes, formatCount, formatDuration, formatTime } from "./core/format.ts";
import { snapshotIdAt, timeOfSnapshotId } from "./core/names.ts";
import {
  dueNotices,
  hostOf,
  type HubView,
  type Notice,
  type NotifyPhase,
  type NotifyReport,
  parseAddress,
  parseTold,
  pingNotice,
  type Problem,
  requestOf,
  serializeTold,
  testNotice,
  type Told,
} from "./core/notices.ts";
import { readTextIfThere, writeFileDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { type SetStatus, status } from "./host/hub_status.ts";
import { isProofDue, readProofs } from "./host/proof_log.ts";
import { readRuns } from "./host/run_log.ts";
import { shipFolder } from "./host/ship_records.ts";
import { serveStep } from "./host/step.ts";
import { isSealed, readSetIfThere, setIn } from "./host/store.ts";

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
  const told = parseTold(readTextIfThere(host.fs, toldFile(config.stateFolder)));
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
        failed.push({ name: notifier.name, reason: reasonOf(error) });
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
    throw new BackupError(`Cannot notify ${notifier.name}: ${state}; ${hint}`, { kind: "network", hint });
  };
  if (notifier.kind === "command") {
    const [program, ...args] = notifier.command;
    const stdin = JSON.stringify(notice) + "\n";
    const { code, signal } = await host.run(program!, args, { stdin, secondsMax: notifier.timeoutSeconds });
    if (code !== 0) fail(`${program} ended with ${signal ?? code}`, "run it by hand with the same input");
    return;
  }
  const address = readAddress(host, notifier);
  const tokenFile = "tokenFile" in notifier ? notifier.tokenFile : undefined;
  const token = tokenFile === undefined ? undefined : readSecret(host, notifier.name, tokenFile);
  const { url, headers, body } = requestOf(notifier, address, token, notice);
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

function readAddress(host: Host, notifier: Exclude<Notifier, { readonly kind: "command" }>): string {
  if (notifier.url !== undefined) return notifier.url;
  return parseAddress(readSecret(host, notifier.name, notifier.urlFile!), notifier.name);
}

function readSecret(host: Host, name: string, file: string): string {
  const text = readTextIfThere(host.fs, file)?.trim();
  if (text) return text;
  throw new BackupError(`Cannot notify ${name}: ${file} is ${text === undefined ? "not there" : "empty"}`, {
    kind: "key",
    hint: "write the token or address into that file, mode 0600",
  });
}

/** How this hub stands now. */
export function readView(host: Host, config: Config): HubView {
  const now = host.now();
  const sets = status(host, config);
  const proofs = readProofs(host.fs, config.stateFolder);
  const problems: Problem[] = [];
  for (const set of sets) {
    const last = readRuns(host, config, { verb: "backup", set: set.set }).at(-1);
    if (last && !last.ok) {
      const { kind = "internal", message = "it failed", hint } = last;
      problems.push({ topic: `backup ${set.set}`, kind, text: message, hint });
    }
    if (set.suspect) {
      const why = last?.snapshot === set.suspect && last.suspicions ? `: ${last.suspicions.join("; ")}` : "";
      problems.push({
        topic: `suspect ${set.set}`,
        kind: "suspect",
        text: `Snapshot ${set.suspect} of set ${set.set} does not count as good${why}`,
        hint: "look at the source; if the loss is intended: hapi-backup backup --accept",
      });
    }
    if (set.stale) {
      problems.push({
        topic: `age ${set.set}`,
        kind: "stale",
        text: set.ageSeconds === undefined
          ? `Set ${set.set} has no good snapshot`
          : `The newest good snapshot of set ${set.set} is ${
            formatDuration(set.ageSeconds)
          } old (limit ${set.maxAgeHours} h)`,
        hint: "look at the log of its timer",
      });
    }
    if (set.drill && !set.drill.ok) {
      problems.push({
        topic: `drill ${set.set}`,
        kind: "integrity",
        text:
          `The last drill failed: snapshot ${set.drill.snapshot} of set ${set.set} was not proven restorable`,
        hint: "run `hapi-backup verify` for what failed",
      });
    }
    for (const { name, receipt } of set.destinations) {
      for (const text of receipt?.set.problems ?? []) {
        problems.push({
          topic: `storage ${name} ${set.set}`,
          kind: "integrity",
          text: `${name} says: ${text}`,
        });
      }
    }
  }
  const ship = readRuns(host, config, { verb: "ship" }).at(-1);
  if (ship && !ship.ok) {
    const { kind = "internal", message = "it failed", hint } = ship;
    problems.push({ topic: "ship", kind, text: message, hint });
  }
  if (proofs && isProofDue(proofs, config.proofMaxAgeDays, firstSnapshot(host, config), now)) {
    problems.push({
      topic: "proof of the keys",
      kind: "reminder",
      text: `No identity was proven to open the backups for more than ${config.proofMaxAgeDays} days`,
      hint: "bring your identity file and run: hapi-backup keys prove --identity FILE",
    });
  }
  const proof = proofs?.findLast(({ ok }) => ok)?.at;
  return {
    hub: config.hub,
    problems,
    digest: [
      ...sets.flatMap((set) => digestOf(host, config, set, now)),
      `keys last proven: ${
        proof ? `${since(Date.parse(proof), now)} ago` : "never (hapi-backup keys prove)"
      }`,
    ],
  };
}

function digestOf(host: Host, config: Config, set: SetStatus, now: Date): string[] {
  const runs = readRuns(host, config, { verb: "backup", set: set.set })
    .filter(({ at }) => now.getTime() - Date.parse(at) < 7 * 86_400_000);
  if (set.newest === undefined && runs.length === 0 && !set.stale) return [];
  const failed = runs.filter(({ ok }) => !ok).length;
  const rows = Object.values(set.rows).flatMap((tables) => Object.entries(tables));
  const sessions = rows.find(([table]) => table === "sessions")?.[1];
  const total = rows.reduce((sum, [, count]) => sum + count, 0);
  const newest = set.newest
    ? `newest good snapshot ${formatTime(timeOfSnapshotId(set.newest))}, ${
      formatDuration(set.ageSeconds!)
    } ago`
    : "NO GOOD SNAPSHOT";
  return [
    `${set.set}: ${newest}`,
    `  the last 7 days: ${runs.length} runs${failed > 0 ? `, ${failed} FAILED` : ", none failed"}`,
    ...total > 0
      ? [
        `  ${sessions === undefined ? "" : `${formatCount(sessions)} sessions, `}${formatCount(total)} rows`,
      ]
      : [],
    `  here: ${set.snapshots} snapshots, ${formatBytes(set.bytes)}`,
    ...set.destinations.map(({ name, waiting }) =>
      `  ${name}: ${waiting.length === 0 ? "holds them all" : `${waiting.length} WAITING`}`
    ),
    ...set.drill
      ? [`  last drill: ${since(Date.parse(set.drill.at), now)} ago, ${set.drill.ok ? "proven" : "FAILED"}`]
      : [],
  ];
}

const since = (time: number, now: Date): string => formatDuration((now.getTime() - time) / 1000);

/** When backups began, as far as the local store knows. */
function firstSnapshot(host: Host, config: Config): Date | undefined {
  const ids = [...config.sets.keys()].flatMap((set) =>
    readSetIfThere(host.fs, setIn(config.store, config.hub, set)).filter(isSealed).map(({ id }) => id)
  );
  const first = ids.sort()[0];
  return first && first <= snapshotIdAt(host.now()) ? timeOfSnapshotId(first) : undefined;
}

serveStep<{ config: Config; phase: NotifyPhase; names: readonly string[] }>(
  import.meta,
  ({ config, phase, names }, { host }) => notify(host, config, phase, names),
);
