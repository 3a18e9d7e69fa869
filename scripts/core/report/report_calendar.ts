/**
 * The calendar of a report: months of days, what the signs mean, and the bad days in words.
 *
 * @module
 */

import { formatCount } from "../format.ts";
import { type Html, markup, raw } from "../html.ts";
import { type Day, formatDay, formatMonth, weekdayOf } from "../zone.ts";
import { type BadDays, badDays, type CalendarDay, type DayState } from "./calendar.ts";

/** What a kind of day is called. */
export type Meanings = Readonly<Record<DayState | "marred", string>>;

/** What the days of a set's runs are called. */
export const SNAPSHOT_DAYS: Meanings = {
  good: "good",
  marred: "good, though a run failed",
  suspect: "suspect: stored, but does not count as good",
  failed: "failed: every run ended with an error",
  missing: "missing: nothing ran, though it was due",
  quiet: "nothing was due",
};
/** What the days of shipping are called. */
export const SHIPPING_DAYS: Meanings = {
  ...SNAPSHOT_DAYS,
  good: "everything was sent",
  marred: "sent, though a run failed",
  failed: "failed: something was not sent all day",
  quiet: "nothing was sent",
};

/** What stands in a day's cell instead of its number. */
const SIGNS: Readonly<Partial<Record<DayState, string>>> = { suspect: "?", failed: "×", missing: "–" };
const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/** Lines of bad days, and of each what is told, in characters. */
const BAD_DAYS_MAX = 8;
const TROUBLE_LENGTH_MAX = 180;

/** Months of days, each with its state, and a legend of the states that occur. */
export function calendar(title: string, days: readonly CalendarDay[], today: Day, meanings: Meanings): Html {
  const months = [...Map.groupBy(days, ({ day }) => day.slice(0, 7)).values()];
  const kinds = new Set(days.map(kindOf));
  const legend = (["good", "marred", "suspect", "failed", "missing", "quiet"] as const)
    .filter((kind) => kinds.has(kind));
  return markup`<div class="card">
<h3>${title}</h3>
<div class="beside">
<div class="months">${months.map((month) => monthTable(month, today, meanings))}</div>
${lookAt(badDays(days))}
</div>
<ul class="legend small" aria-label="What the signs mean">${
    legend.map((kind) =>
      markup`<li><span class="day ${classOf(kind)}" aria-hidden="true">${signOf(kind) ?? "8"}</span>${
        meanings[kind]
      }</li>`
    )
  }</ul>
</div>`;
}

type DayKind = keyof Meanings;
const kindOf = ({ state, counts }: CalendarDay): DayKind =>
  state === "good" && counts.failed > 0 ? "marred" : state;
const classOf = (kind: DayKind) => kind === "marred" ? "good marred" : kind;
const signOf = (kind: DayKind): string | undefined => kind === "marred" ? undefined : SIGNS[kind];

function monthTable(days: readonly CalendarDay[], today: Day, meanings: Meanings): Html {
  const first = `${days[0]!.day.slice(0, 7)}-01`;
  const length = new Date(Date.UTC(Number(first.slice(0, 4)), Number(first.slice(5, 7)), 0)).getUTCDate();
  const known = new Map(days.map((day) => [day.day, day]));
  const cells = Array.from({ length }, (_, index) => {
    const day = known.get(`${first.slice(0, 8)}${String(index + 1).padStart(2, "0")}`);
    return day
      ? dayCell(day, index + 1, day.day === today, meanings)
      : markup`<td><span class="day unknown"></span></td>`;
  });
  const all = [...Array.from({ length: weekdayOf(first) }, () => markup`<td></td>`), ...cells];
  const weeks = Array.from(
    { length: Math.ceil(all.length / 7) },
    (_, week) => all.slice(week * 7, week * 7 + 7),
  );
  return markup`<table class="month">
<caption>${formatMonth(first)}</caption>
<thead><tr>${
    WEEKDAYS.map((name) =>
      markup`<th scope="col"><span aria-hidden="true">${
        name[0]
      }</span><span class="hidden">${name}</span></th>`
    )
  }</tr></thead>
<tbody>${weeks.map((week) => markup`<tr>${week}</tr>\n`)}</tbody>
</table>`;
}

function dayCell(known: CalendarDay, number: number, isToday: boolean, meanings: Meanings): Html {
  const { day, counts, troubles } = known;
  const kind = kindOf(known);
  const sign = signOf(kind);
  const told = [
    ...(["good", "suspect", "failed"] as const).flatMap((outcome) =>
      counts[outcome] > 0 ? [`${counts[outcome]} ${outcome}`] : []
    ),
    ...troubles,
  ].join("; ");
  const name = `day ${classOf(kind)}${isToday ? " today" : ""}`;
  return markup`<td><span class="${name}" title="${formatDay(day, { weekday: true })}: ${
    told || meanings[kind]
  }"><span${sign !== undefined && raw(' aria-hidden="true"')}>${sign ?? number}</span><span class="hidden">${
    sign !== undefined && number
  } ${meanings[kind]}${isToday && ", today"}</span></span></td>`;
}

function lookAt(bad: readonly BadDays[]): Html | undefined {
  if (bad.length === 0) return undefined;
  const shown = bad.slice(0, BAD_DAYS_MAX);
  const when = ({ first, last }: BadDays) =>
    first === last ? formatDay(last, { weekday: true }) : `${formatDay(first)} to ${formatDay(last)}`;
  return markup`<div class="look small">
<h4>Days to look at</h4>
<ul>${
    shown.map((days) =>
      markup`<li><b>${when(days)}</b> ${
        days.state === "good" ? "a run failed" : days.state
      }<br><span class="soft">${wordsFor(days.troubles)}</span></li>\n`
    )
  }</ul>
${
    bad.length > shown.length &&
    markup`<p class="soft">and ${formatCount(bad.length - shown.length)} more before</p>`
  }
</div>`;
}

function wordsFor([first, ...others]: readonly string[]): string {
  if (first === undefined) return "no run";
  const cut = first.length > TROUBLE_LENGTH_MAX ? `${first.slice(0, TROUBLE_LENGTH_MAX - 1)}…` : first;
  return others.length === 0 ? cut : `${cut} (and ${formatCount(others.length)} more)`;
}
