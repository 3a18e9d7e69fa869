/**
 * Charts as inline SVG, with their axes as text beside it: the drawing stretches with the page, the words do not.
 *
 * What a chart shows is told in its label too, and each point has a tooltip.
 *
 * @module
 */

import { type Html, markup } from "../html.ts";

/** A mark on the horizontal axis: where (0 to 1) and what. */
export interface AxisMark {
  readonly at: number;
  readonly text: string;
}

/** What a line chart is drawn from. */
export interface LineChart {
  /** What it shows, for who does not see it. */
  readonly label: string;
  /** At least one, from left to right; `at` from 0 to 1. */
  readonly points: readonly { readonly at: number; readonly value: number; readonly tooltip: string }[];
  readonly marks: readonly AxisMark[];
  readonly format: (value: number) => string;
}

/** A value over time. */
export function lineChart({ label, points, marks, format }: LineChart): Html {
  const values = points.map(({ value }) => value);
  const scale = scaleOf(Math.min(...values), Math.max(...values));
  const places = points.map(({ at, value }) => `${place(at)} ${place(1 - scale.at(value))}`);
  const drawing = markup`<path class="line" d="M${places.join("L")}"/>
<path class="dot" d="M${places.at(-1)!}h0"/>
${hits(points)}`;
  return plot(label, scale, marks, format, drawing);
}

/** What a bar chart is drawn from. */
export interface BarChart {
  readonly label: string;
  /** From left to right. `whole` is what `part` is compared with, where it is known. */
  readonly bars: readonly {
    readonly part: number;
    readonly whole: number | undefined;
    readonly tooltip: string;
  }[];
  readonly marks: readonly AxisMark[];
  readonly format: (value: number) => string;
}

/** Bars are never wider than where there are so many. */
const BARS_MIN = 24;

/** Parts of a whole, side by side. */
export function barChart({ label, bars, marks, format }: BarChart): Html {
  const scale = scaleOf(0, Math.max(1, ...bars.flatMap(({ part, whole = 0 }) => [part, whole])));
  const pitch = barPitch(bars.length);
  const bar = (name: string, index: number, value: number) => {
    // What is there at all can be seen.
    const height = value > 0 ? Math.max(0.012, scale.at(value)) : 0;
    return markup`<rect class="${name}" x="${place((index + 0.14) * pitch)}" width="${
      place(0.72 * pitch)
    }" y="${place(1 - height)}" height="${place(height)}"/>`;
  };
  const drawing = markup`${
    bars.map(({ part, whole }, index) => [
      whole !== undefined && bar("whole", index, whole),
      bar("part", index, part),
    ])
  }${hits(bars.map(({ tooltip }, index) => ({ at: (index + 0.5) * pitch, tooltip })))}`;
  return plot(label, scale, marks, format, drawing);
}

/** The room that each of so many bars has, as a share of the width. */
export const barPitch = (count: number): number => 1 / Math.max(BARS_MIN, count);

/** Marks for so many of the texts, first and last among them. @param at Where each text stands, 0 to 1. */
export function marksFor(
  texts: readonly string[],
  at: (index: number) => number,
  countMax: number,
): AxisMark[] {
  const count = Math.min(countMax, texts.length);
  const last = texts.length - 1;
  const indexes = Array.from(
    { length: count },
    (_, n) => count === 1 ? last : Math.round(n * last / (count - 1)),
  );
  return indexes.map((index) => ({ at: at(index), text: texts[index]! }));
}

interface Scale {
  readonly ticks: readonly number[];
  /** 0 at the bottom, 1 at the top. */
  at(value: number): number;
}

/** Round numbers around the values, from zero where that is not far away or nothing changes. */
function scaleOf(least: number, most: number): Scale {
  const from = least < most * 0.6 || least === most ? 0 : least;
  const span = most > from ? most - from : Math.max(1, most);
  const rough = span / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, power * [1, 2, 5, 10].find((factor) => factor * power >= rough)!);
  const bottom = Math.floor(from / step) * step;
  const top = Math.max(bottom + step, Math.ceil(most / step) * step);
  const ticks = Array.from({ length: Math.round((top - bottom) / step) + 1 }, (_, n) => bottom + n * step);
  return { ticks, at: (value) => (value - bottom) / (top - bottom) };
}

/** Width and height of the drawing in its own units; it is stretched to the room that there is. */
const SIZE = 1000;
const place = (part: number): number => Math.round(part * SIZE * 10) / 10;
const percent = (part: number): string => `${Math.round(part * 10_000) / 100}%`;

function plot(
  label: string,
  scale: Scale,
  marks: readonly AxisMark[],
  format: (value: number) => string,
  drawing: Html,
): Html {
  const edge = ({ at }: AxisMark) => at < 0.08 ? "first" : at > 0.92 ? "last" : "middle";
  const grid = scale.ticks.map((tick) => `M0 ${place(1 - scale.at(tick))}H${SIZE}`).join("");
  return markup`<div class="plot">
<div class="y" aria-hidden="true">${
    scale.ticks.map((tick) => markup`<span style="bottom:${percent(scale.at(tick))}">${format(tick)}</span>`)
  }</div>
<svg viewBox="0 0 ${SIZE} ${SIZE}" preserveAspectRatio="none" role="img" aria-label="${label}">
<path class="grid" d="${grid}"/>
${drawing}
</svg>
<div class="x" aria-hidden="true">${
    marks.map((mark) =>
      markup`<span class="${edge(mark)}" style="left:${percent(mark.at)}">${mark.text}</span>`
    )
  }</div>
</div>`;
}

/** Each point's tooltip, over all that is nearest to it. */
function hits(points: readonly { readonly at: number; readonly tooltip: string }[]): Html[] {
  return points.map(({ at, tooltip }, index) => {
    const from = index === 0 ? 0 : (points[index - 1]!.at + at) / 2;
    const to = index === points.length - 1 ? 1 : (at + points[index + 1]!.at) / 2;
    return markup`<rect class="hit" x="${place(from)}" width="${
      place(to - from)
    }" y="0" height="${SIZE}"><title>${tooltip}</title></rect>`;
  });
}
