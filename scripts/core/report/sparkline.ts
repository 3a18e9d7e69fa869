/**
 * A chart of one line of text.
 *
 * @module
 */

const STEPS = "▁▂▃▄▅▆▇█";

/** A value at a time. */
export interface Sample {
  readonly at: Date;
  readonly value: number;
}

/**
 * Draws values over time, oldest first. Columns are equally long times; the height counts from zero, so that a small
 * change looks small. A column in which nothing was measured shows a space.
 *
 * @param width Columns, at least 1.
 * @param of What a column shows of the values in it.
 */
export function sparkline(samples: readonly Sample[], width: number, of: "last" | "sum"): string {
  if (samples.length === 0) return "";
  const times = samples.map(({ at }) => at.getTime());
  const first = Math.min(...times);
  const span = Math.max(1, Math.max(...times) - first);
  const columns: (number | undefined)[] = Array.from({ length: width }, () => undefined);
  for (const { at, value } of samples) {
    const column = Math.min(width - 1, Math.floor(width * (at.getTime() - first) / span));
    columns[column] = of === "sum" ? (columns[column] ?? 0) + value : value;
  }
  const most = Math.max(...columns.map((value) => value ?? 0), Number.MIN_VALUE);
  return columns.map((value) =>
    value === undefined ? " " : STEPS[Math.min(STEPS.length - 1, Math.floor(STEPS.length * value / most))]
  ).join("").trimEnd();
}
