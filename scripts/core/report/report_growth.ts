/**
 * The charts of a report: how a set's databases grow, and what each run stored.
 *
 * @module
 */

import { formatBytes, formatCount } from "../format.ts";
import { type Html, markup } from "../html.ts";
import { timeOfSnapshotId } from "../names.ts";
import type { RunContent } from "../status/run_record.ts";
import { DAY_MS } from "../time.ts";
import { formatDay, type Zone } from "../zone.ts";
import { barChart, barPitch, lineChart, marksFor } from "./charts.ts";
import type { Moment } from "./history.ts";
import type { ReportData, ReportSet } from "./report_data.ts";
import { table, verdict } from "./report_table.ts";

/** Growth is told over so long. */
export const MONTH_MS = 30 * DAY_MS;
/** Bars of a chart, and rows of its table. */
const RUNS_MAX = 60;
const ROWS_MAX = 12;
/** Marks below a chart that fit on a phone. */
const MARKS_MAX = 4;

/** A curve that is drawn where its value is known. */
interface Curve {
  readonly title: string;
  readonly valueOf: (content: RunContent) => number | undefined;
  readonly format: (value: number) => string;
}
const CURVES: readonly Curve[] = [
  { title: "Sessions", valueOf: ({ sessions }) => sessions, format: formatCount },
  { title: "Messages", valueOf: ({ messages }) => messages, format: formatCount },
  // All rows, where there are no messages to tell the better story.
  {
    title: "Rows",
    valueOf: ({ rows, messages }) => messages === undefined ? rows : undefined,
    format: formatCount,
  },
  { title: "Database", valueOf: ({ databaseBytes }) => databaseBytes, format: formatBytes },
];

/** Rows and bytes of the databases: the last of each day. */
export function growth({ at, zone }: ReportData, { name, moments }: ReportSet): Html | undefined {
  const lasts = new Map(
    moments.flatMap(({ id, content, suspicions }) => {
      const time = timeOfSnapshotId(id);
      const note = suspicions.length > 0 ? ", suspect" : "";
      return content ? [[zone.dayOf(time), { time, content, note }] as const] : [];
    }),
  );
  const days = [...lasts.values()];
  if (days.length === 0) return undefined;
  const fromMs = days[0]!.time.getTime();
  const spanMs = Math.max(1, days.at(-1)!.time.getTime() - fromMs);
  const place = ({ time }: { readonly time: Date }) =>
    days.length === 1 ? 0.5 : (time.getTime() - fromMs) / spanMs;
  const hasYears = spanMs > 300 * DAY_MS;
  const count = Math.min(hasYears ? MARKS_MAX - 1 : MARKS_MAX, days.length);
  const marks = Array.from({ length: count }, (_, n) => {
    const part = count === 1 ? 0 : n / (count - 1);
    const text = formatDay(zone.dayOf(new Date(fromMs + part * spanMs)), { year: hasYears });
    return { at: count === 1 ? 0.5 : part, text };
  });
  const before = days.find(({ time }) => at.getTime() - time.getTime() <= MONTH_MS) ?? days.at(-1)!;
  const since = formatDay(zone.dayOf(before.time));

  const figures = CURVES.flatMap(({ title, valueOf, format }) => {
    const points = days.flatMap((day) => {
      const value = valueOf(day.content);
      return value === undefined
        ? []
        : [{ at: place(day), value, tooltip: `${zone.minute(day.time)}: ${format(value)}${day.note}` }];
    });
    if (points.length === 0) return [];
    const last = points.at(-1)!.value;
    const grown = last - (valueOf(before.content) ?? last);
    const change = before === days.at(-1)
      ? ""
      : `${grown < 0 ? "−" : "+"}${format(Math.abs(grown))} since ${since}`;
    return [
      markup`<figure class="card"><figcaption><span>${title} <b>${
        format(last)
      }</b></span><span>${change}</span></figcaption>${
        lineChart({
          label: `${title} of ${name}: ${format(last)}${change && `, ${change}`}`,
          points,
          marks,
          format,
        })
      }</figure>`,
    ];
  });
  return markup`<div class="charts">${figures}</div>`;
}

/** What each run stored, against what a full would have. */
export function stored({ zone }: ReportData, { name, moments }: ReportSet): Html | undefined {
  if (moments.length === 0) return undefined;
  const shown = moments.slice(-RUNS_MAX);
  const summary = summaryOf(shown);
  const pitch = barPitch(shown.length);
  const chart = barChart({
    label: `What each run of ${name} stored, against a full: ${summary}`,
    bars: shown.map(({ id, kind, bytes, fullBytes }) => ({
      part: bytes,
      whole: fullBytes,
      tooltip: `${zone.minute(timeOfSnapshotId(id))}: ${kind ?? "snapshot"}, ${formatBytes(bytes)}${
        fullBytes === undefined ? "" : `; a full: ${formatBytes(fullBytes)}`
      }`,
    })),
    marks: marksFor(
      shown.map(({ id }) => formatDay(zone.dayOf(timeOfSnapshotId(id)))),
      (index) => (index + 0.5) * pitch,
      shown.length * pitch < 0.5 ? 2 : MARKS_MAX,
    ),
    format: formatBytes,
  });
  return markup`<figure class="card wide">
<figcaption><span><b>What each run stored</b></span><span>${summary}</span></figcaption>
${chart}
<p class="keys small soft"><span><i class="key"></i>stored</span> <span><i class="key whole"></i>what a full would have stored, by the last full and the size of the database</span></p>
<details><summary>${
    shown.length > 1 ? `The last ${Math.min(ROWS_MAX, shown.length)} runs` : "The run"
  } in numbers</summary>
${runTable(zone, name, shown.slice(-ROWS_MAX).reverse())}
</details>
</figure>`;
}

function summaryOf(moments: readonly Moment[]): string {
  const compared = moments.filter(({ fullBytes }) => fullBytes !== undefined);
  const sum = compared.reduce((total, { bytes }) => total + bytes, 0);
  const fulls = compared.reduce((total, { fullBytes }) => total + fullBytes!, 0);
  const runs = compared.length === 1 ? "One run" : `${compared.length} runs`;
  if (compared.every(({ kind }) => kind === "full")) {
    return `${runs} stored ${formatBytes(sum)}, in fulls only`;
  }
  const times = fulls / Math.max(1, sum);
  return `${runs} stored ${formatBytes(sum)}; fulls would have been ${formatBytes(fulls)}, ${
    times.toFixed(times < 10 ? 1 : 0)
  } times as much`;
}

function runTable(zone: Zone, set: string, moments: readonly Moment[]): Html {
  return table(
    `Runs of ${set}`,
    ["Taken", "Kind", "Stored", "A full", "Rows"],
    moments.map(({ id, kind = "unknown", bytes, fullBytes, content, suspicions }) => [
      zone.shortMinute(timeOfSnapshotId(id)),
      suspicions.length === 0 ? kind : verdict(false, `${kind}, suspect`),
      formatBytes(bytes),
      fullBytes === undefined ? "" : formatBytes(fullBytes),
      content ? formatCount(content.rows) : "",
    ]),
    [2, 3, 4],
  );
}
