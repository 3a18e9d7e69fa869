/**
 * The hub's own view: the newest good snapshot of each set, how old it is, what is not off this machine, the last drill.
 *
 * Needs no key, and cannot read one.
 *
 * @module
 */

import type { Config } from "./core/config.ts";
import { BackupError } from "./core/errors.ts";
import { formatBytes, formatCount, formatDuration, formatTime } from "./core/format.ts";
import { timeOfSnapshotId } from "./core/names.ts";
import type { SetReceipt } from "./core/receipt.ts";
import { type SetStatus, status } from "./host/hub_status.ts";
import { serveStep } from "./host/step.ts";

export { type SetStatus, status } from "./host/hub_status.ts";

/** The status for a person. */
export function describeStatus(sets: readonly SetStatus[], now: Date): string {
  return sets.map((set) => {
    const lines = [
      set.newest === undefined
        ? `${set.set}: NO GOOD SNAPSHOT`
        : `${set.set}: newest good snapshot ${formatTime(timeOfSnapshotId(set.newest))}, ${
          formatDuration(set.ageSeconds!)
        } ago${set.stale ? ` - TOO OLD (limit ${set.maxAgeHours} h)` : ""}`,
      ...set.suspect ? [`  SUSPECT: ${set.suspect} is newer, and does not count as good`] : [],
      ...Object.entries(set.rows).map(([source, { sessions, messages, ...others }]) => {
        const named = [
          ...sessions === undefined ? [] : [`${formatCount(sessions)} sessions`],
          ...messages === undefined ? [] : [`${formatCount(messages)} messages`],
        ];
        const rest = Object.values(others).reduce((sum, count) => sum + count, 0);
        return `  ${source}: ${
          [...named, `${formatCount(rest)} ${named.length > 0 ? "other " : ""}rows`].join(", ")
        }`;
      }),
      `  here: ${set.snapshots} snapshots, ${formatBytes(set.bytes)}; the newest builds on ${set.chain}`,
      ...set.destinations.length === 0 ? ["  NOTHING IS OFF THIS MACHINE: no destination is configured"] : [],
      ...set.destinations.map(({ name, newest, waiting }) =>
        `  ${name}: ${newest ? `holds ${formatTime(timeOfSnapshotId(newest))}` : "HOLDS NOTHING"}${
          waiting.length > 0 ? `, ${waiting.length} WAITING` : ""
        }`
      ),
      ...set.destinations.flatMap(({ name, receipt }) =>
        receipt ? describeReceipt(name, receipt.time, receipt.set) : []
      ),
      set.drill
        ? `  last drill: ${formatTime(new Date(set.drill.at))}, ${
          formatDuration((now.getTime() - Date.parse(set.drill.at)) / 1000)
        } ago, ${set.drill.ok ? "proven" : "FAILED"}`
        : "  last drill: NEVER (hapi-backup verify)",
    ];
    return lines.join("\n");
  }).join("\n");
}

function describeReceipt(name: string, time: Date, { newestVerified, problems }: SetReceipt): string[] {
  const verified = newestVerified
    ? `verified up to ${formatTime(timeOfSnapshotId(newestVerified.id))}`
    : "NOTHING VERIFIED";
  return [
    `  ${name} itself, on ${formatTime(time)}: ${verified}`,
    ...problems.map((problem) => `    PROBLEM: ${problem}`),
  ];
}

serveStep<{ config: Config; json: boolean }>(import.meta, ({ config, json }, { host, print }) => {
  const sets = status(host, config);
  const stale = sets.filter((set) => set.stale);
  print(json ? JSON.stringify({ ok: stale.length === 0, sets }) : describeStatus(sets, host.now()));
  if (stale.length > 0) {
    throw new BackupError(
      `Cannot call this safe: set ${
        stale.map(({ set }) => set).join(", ")
      } has no good snapshot that is new enough`,
      { kind: "stale", hint: "run `hapi-backup backup`, and look at the log of its timer" },
    );
  }
  return Promise.resolve(undefined);
});
