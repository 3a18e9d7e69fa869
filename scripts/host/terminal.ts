/**
 * The terminal: progress and words on standard error, data on standard output.
 *
 * Under systemd each line carries its journal priority (`<4>` for a warning), and progress is left out.
 *
 * @module
 */

import { formatBytes } from "../core/format.ts";
import type { Terminal } from "./step.ts";

/** How talkative. */
export interface TerminalOptions {
  readonly quiet: boolean;
  /** Whether standard error goes to systemd's journal. */
  readonly journal: boolean;
}

/** A terminal that also knows how to show an error, and whether anything was printed. */
export interface FullTerminal extends Terminal {
  error(text: string): void;
  /** Whether standard output was written to. */
  printed(): boolean;
}

/** Makes the terminal of this process. */
export function makeTerminal({ quiet, journal }: TerminalOptions): FullTerminal {
  const encoder = new TextEncoder();
  const drawsProgress = !quiet && !journal && Deno.stderr.isTerminal();
  let progressShown = false;
  let hasPrinted = false;
  let started: { what: string; at: number } | undefined;

  const write = (stream: { writeSync(bytes: Uint8Array): number }, text: string) => {
    const bytes = encoder.encode(text);
    for (let done = 0; done < bytes.length;) done += stream.writeSync(bytes.subarray(done));
  };
  const clearProgress = () => {
    if (progressShown) write(Deno.stderr, "\r\x1b[K");
    progressShown = false;
  };
  const say = (priority: number, text: string) => {
    clearProgress();
    const prefix = journal ? `<${priority}>` : "";
    write(Deno.stderr, text.split("\n").map((line) => `${prefix}${line}\n`).join(""));
  };

  return {
    progress(what, done, total) {
      if (!drawsProgress) return;
      if (started?.what !== what) started = { what, at: performance.now() };
      const seconds = (performance.now() - started.at) / 1000;
      if (done >= total) return clearProgress();
      if (seconds < 0.3) return;
      const rate = done / seconds;
      const left = rate > 0 ? `, ${Math.ceil((total - done) / rate)} s left` : "";
      const percent = total > 0 ? Math.floor(100 * done / total) : 0;
      clearProgress();
      write(
        Deno.stderr,
        `${what}: ${percent} % of ${formatBytes(total)}, ${formatBytes(rate)}/s${left}`.slice(
          0,
          columns() - 1,
        ),
      );
      progressShown = true;
    },
    info(text) {
      if (!quiet) say(6, text);
    },
    warn(text) {
      if (!quiet) say(4, journal ? text : `warning: ${text}`);
    },
    error(text) {
      say(3, text);
    },
    print(text) {
      clearProgress();
      hasPrinted = true;
      write(Deno.stdout, text.endsWith("\n") ? text : text + "\n");
    },
    printed: () => hasPrinted,
  };
}

/** Whether standard output takes colours: on a terminal, unless NO_COLOR says no (https://no-color.org). */
export function takesColor(): boolean {
  const { env } = Deno;
  if (env.get("NO_COLOR")) return false;
  if (env.get("FORCE_COLOR") || env.get("CLICOLOR_FORCE")) return true;
  return Deno.stdout.isTerminal() && env.get("TERM") !== "dumb";
}

function columns(): number {
  try {
    return Deno.consoleSize().columns;
  } catch {
    return 80;
  }
}
