/**
 * The text format of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/), as node_exporter's
 * textfile collector reads it.
 *
 * @module
 */

/** One metric with its samples: a gauge. */
export interface Metric {
  /** By Prometheus' conventions: base units, named last. */
  readonly name: string;
  readonly help: string;
  /** A sample whose value is undefined is left out. */
  readonly samples: readonly {
    readonly labels?: Readonly<Record<string, string>>;
    readonly value: number | undefined;
  }[];
}

/** Writes metrics as text. Those without a sample are left out. */
export function formatMetrics(metrics: readonly Metric[]): string {
  const lines: string[] = [];
  for (const { name, help, samples } of metrics) {
    const there = samples.filter((sample) => sample.value !== undefined);
    if (there.length === 0) continue;
    lines.push(
      `# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`,
      `# TYPE ${name} gauge`,
    );
    for (const { labels = {}, value } of there) {
      const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`);
      lines.push(`${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${formatValue(value!)}`);
    }
  }
  return lines.map((line) => line + "\n").join("");
}

function escapeLabel(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function formatValue(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}
