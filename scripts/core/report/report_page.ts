/**
 * The report: one page that holds all it needs, made of what the hub knows without a key.
 *
 * Invariants: every text in it is escaped; it loads nothing, runs nothing, and tells the browser to see to that.
 *
 * @module
 */

import { formatAgo, formatCount, formatCounted, formatDuration } from "../format.ts";
import { type Html, markup, raw } from "../html.ts";
import { timeOfSnapshotId } from "../names.ts";
import type { Problem } from "../status/notices.ts";
import { withAge } from "../status/run_record.ts";
import { DAY_MS, isAhead } from "../time.ts";
import { formatDay } from "../zone.ts";
import { calendar, SNAPSHOT_DAYS } from "./report_calendar.ts";
import type { ReportData, ReportSet } from "./report_data.ts";
import { growth, stored } from "./report_growth.ts";
import { proofSection, shippingSection, storageSection } from "./report_safety.ts";
import { REPORT_STYLE } from "./report_style.ts";

/** Stands at the start of every report, so that a file is known for one before it is replaced. */
export const REPORT_MARK = '<meta name="generator" content="hapi-backup report">';

const POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";
/** A check mark in a square, so that the browser need not ask for an icon. */
const ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E" +
  "%3Crect width='16' height='16' rx='4' fill='%230b6e69'/%3E" +
  "%3Cpath d='m4 8 3 3 5-6' fill='none' stroke='white' stroke-width='2'/%3E%3C/svg%3E";

/** Makes the page. */
export function reportPage(data: ReportData): string {
  const { hub, at, zone, program, sets } = data;
  const title = `Backups of ${hub}`;
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
${raw(REPORT_MARK)}
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>${title}, ${formatDay(zone.dayOf(at), { year: true })}</title>
<link rel="icon" href="${ICON}">
<style>${raw(REPORT_STYLE)}</style>
</head>
<body>
<div class="page">
<header>
<h1>${title}</h1>
<p class="soft">As of ${zone.minute(at)} ${zone.label(at)}. All times are those of ${zone.name}.</p>
</header>
<main>
${verdict(data)}
${tiles(data)}
${sets.map((set) => setSection(data, set))}
${shippingSection(data)}
${proofSection(data)}
${storageSection(data)}
</main>
<footer class="small soft">
<p>Made by ${program} from what this hub knows without a key: the seals in its local store, and its logs. What was
before those began is not shown.</p>
</footer>
</div>
</body>
</html>
`.text;
}

function verdict(data: ReportData): Html {
  const points = [...data.problems, ...stillToDo(data)];
  const isWell = points.length === 0;
  const title = isWell
    ? "All is well"
    : points.length === 1
    ? "One thing needs attention"
    : `${formatCount(points.length)} things need attention`;
  return markup`<div class="card verdict ${!isWell && "bad"}">
<h2><span class="mark" aria-hidden="true">${isWell ? "✓" : "!"}</span>${title}</h2>
${
    !isWell && markup`<ul>${
      points.map((point) =>
        markup`<li>${withAge(point)}${
          point.hint !== undefined && markup`<br><span class="soft small">${point.hint}</span>`
        }</li>\n`
      )
    }</ul>`
  }
</div>`;
}

/** What no run complains of, and yet is not safe: nothing may be called well while it lasts. */
function stillToDo(data: ReportData): Pick<Problem, "text" | "age" | "hint">[] {
  const { sets, destinations, drills, proofs, problems, at } = data;
  if (sets.every(({ newest }) => newest === undefined)) return [];
  const isTold = (topic: string) => problems.some((problem) => problem.topic === topic);
  const waiting = mostWaiting(data);
  return [
    ...sets.filter((set) => isNewestAhead(set, at)).map(({ name, newest }) => ({
      text: `The newest good snapshot of set ${name} is ${formatAgo(timeOfSnapshotId(newest!), at)}`,
      hint: "check this machine's clock (timedatectl)",
    })),
    ...destinations.some(({ offBox }) => offBox) || isTold("ship") ? [] : [{
      text: `Nothing is off this machine: ${whyNoneIsOff(data)}`,
      hint: 'name one elsewhere under "destinations" in the configuration',
    }],
    ...waiting === 0 || isTold("ship") ? [] : [{
      text: waiting === 1
        ? "One snapshot is not off this machine"
        : `${waiting} snapshots are not off this machine`,
      hint: "hapi-backup ship",
    }],
    ...drills.length > 0 ? [] : [{
      text: "No restore was ever proven",
      hint: "hapi-backup verify, weekly, where the identity is",
    }],
    ...proofs.some(({ ok }) => ok) || isTold("proof of the keys") ? [] : [{
      text: "No identity was ever proven to open the backups",
      hint: "hapi-backup keys prove --identity FILE",
    }],
  ];
}

const isNewestAhead = ({ newest }: Pick<ReportSet, "newest">, at: Date): boolean =>
  newest !== undefined && isAhead((at.getTime() - timeOfSnapshotId(newest).getTime()) / 1000);

const whyNoneIsOff = ({ destinations }: ReportData): string =>
  destinations.length === 0
    ? "no destination is configured"
    : `only its own disk holds anything (${destinations.map(({ name }) => name).join(", ")})`;

/** Snapshots that the worst destination off this machine has not confirmed. */
const mostWaiting = ({ destinations }: ReportData): number =>
  Math.max(
    0,
    ...destinations.filter(({ offBox }) => offBox)
      .map(({ sets }) => sets.reduce((sum, { waiting }) => sum + waiting, 0)),
  );

/** The four answers that matter most. */
function tiles(data: ReportData): Html {
  const { sets, destinations, drills, proofs, at, zone, proofMaxAgeDays } = data;
  const [main] = sets;
  const newest = main?.newest && timeOfSnapshotId(main.newest);
  const drill = drills.at(-1);
  const proof = proofs.findLast(({ ok }) => ok);
  const isProofOld = !proof || at.getTime() - proof.time.getTime() > proofMaxAgeDays * DAY_MS;
  const waiting = mostWaiting(data);
  const off = destinations.filter(({ offBox }) => offBox);
  const holdsNothing = off.every(({ sets }) => sets.every(({ newest }) => newest === undefined));
  return markup`<dl class="tiles">
${
    newest
      ? tile(
        "Newest good snapshot",
        formatAgo(newest, at),
        `${main!.name}, ${zone.minute(newest)}`,
        !main!.stale && !isNewestAhead(main!, at),
      )
      : tile("Newest good snapshot", "none", "there is nothing to restore", false)
  }
${
    tile(
      "Off this machine",
      holdsNothing ? "nothing" : waiting > 0 ? `all but ${formatCount(waiting)}` : "all of it",
      off.map(({ name }) => name).join(", ") || whyNoneIsOff(data),
      !holdsNothing && waiting === 0,
    )
  }
${
    drill
      ? tile(
        "Last restore drill",
        formatAgo(drill.time, at),
        `${drill.set}, ${drill.ok ? "proven restorable" : "FAILED"}`,
        drill.ok,
      )
      : tile("Last restore drill", "never", "nothing is proven", false)
  }
${
    proof
      ? tile(
        "Keys last proven",
        formatAgo(proof.time, at),
        `due every ${formatCounted(proofMaxAgeDays, "day")}`,
        !isProofOld,
      )
      : tile("Keys last proven", "never", "hapi-backup keys prove", false)
  }
</dl>`;
}

const tile = (term: string, value: string, more: string, isRight: boolean): Html =>
  markup`<div class="card ${!isRight && "bad"}"><dt>${term}</dt><dd>${value}</dd><dd>${more}</dd></div>`;

function setSection(data: ReportData, set: ReportSet): Html {
  const { at, zone } = data;
  const { name, newest, moments, days, maxAgeHours } = set;
  const newestAt = newest && timeOfSnapshotId(newest);
  const state = newestAt
    ? `Newest good snapshot ${zone.minute(newestAt)}, ${formatAgo(newestAt, at)} (limit ${
      formatDuration(maxAgeHours * 3600)
    }).`
    : moments.length > 0
    ? "No good snapshot is here."
    : "Nothing was taken yet. The calendar and the charts begin with the first snapshot.";
  return markup`<section aria-labelledby="set-${name}">
<h2 id="set-${name}">Set ${name}</h2>
<p class="soft">${state}</p>
${days.length > 0 && calendar("Days", days, zone.dayOf(at), SNAPSHOT_DAYS)}
${growth(data, set)}
${stored(data, set)}
</section>`;
}
