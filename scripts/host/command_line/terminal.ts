/**
 * The terminal: progress and words on standard error, data on standard output.
 *
 * Under systemd each line carries its journal priority (`<4>` for a warning; sd-daemon(3)), and progress is left out.
 * With `--json` the words are events, one JSON object a line; an error is words all the same, as it is data on standard
 * output.
 *
 * @module
 */

import { ifPossible } from "../../core/errors.ts";
import { printable } from "../../core/format.ts";
import { progressText } from "../../core/progress.ts";
import { fstat } from "../node_fs.ts";
import type { Terminal } from "../steps/step.ts";

/** How talkative. */
export interface TerminalOptions {
  readonly quiet: boolean;
  readonly verbose: boolean;
  /** Whether words are events for a program. */
  readonly json: boolean;
  /** Whether standard error goes to systemd's journal. */
  readonly journal: boolean;
}

/** A terminal that also knows how to show an error, and what became of what was printed. */
export interface FullTerminal extends Terminal {
  error(text: string): void;
  /** Whether standard output was written to. */
  printed(): boolean;
  /** Why standard output did not take all that was printed; undefined if it did. */
  unprinted(): unknown;
}

/** What is said, by its journal priority. */
const EVENTS = { 4: "warning", 6: "info", 7: "detail" } as const;
/** Progress is shown of what takes longer than this. */
const QUICK_MS = 500;
const DRAW_EVERY_MS = 250;
const EVENT_EVERY_MS = 1000;

/** Makes the terminal of this process. */
export function makeTerminal({ quiet, verbose, json, journal }: TerminalOptions): FullTerminal {
  const line = new ProgressLine();
  const events = new ProgressEvents();
  const showsProgress = !quiet && !journal && (json || Deno.stderr.isTerminal());
  let hasPrinted = false;
  let unprinted: unknown;

  const writeLines = (priority: number, text: string) => {
    line.clear();
    const prefix = journal ? `<${priority}>` : "";
    write(Deno.stderr, printable(text).split("\n").map((line) => `${prefix}${line}\n`).join(""));
  };
  const say = (priority: keyof typeof EVENTS, text: string) =>
    writeLines(priority, json ? JSON.stringify({ event: EVENTS[priority], text }) : text);
  const print = (text: string) => {
    line.clear();
    hasPrinted = true;
    unprinted ??= write(Deno.stdout, printable(text.endsWith("\n") ? text : text + "\n", true));
  };

  return {
    progress(what, done, total) {
      if (showsProgress) (json ? events : line).update(what, done, total);
    },
    detail(text) {
      if (verbose && !quiet) say(7, text);
    },
    info(text) {
      if (!quiet) say(6, text);
    },
    warn(text) {
      if (!quiet) say(4, journal || json ? text : `warning: ${text}`);
    },
    error(text) {
      writeLines(3, text);
    },
    print,
    result(text) {
      if (!quiet || json) print(text);
    },
    printed: () => hasPrinted,
    unprinted: () => unprinted,
  };
}

/** How far things are, on one line that is drawn over. */
class ProgressLine {
  readonly #underWay = new Map<string, { done: number; total: number; beganAt: number }>();
  #ticking: ReturnType<typeof setInterval> | undefined;
  #isDrawn = false;

  update(what: string, done: number, total: number): void {
    const beganAt = this.#underWay.get(what)?.beganAt ?? performance.now();
    if (done < total) this.#underWay.set(what, { done, total, beganAt });
    else this.#underWay.delete(what);
    // A clock of its own, for what cannot tell how far it is.
    if (this.#underWay.size > 0) this.#ticking ??= setInterval(() => this.#draw(), DRAW_EVERY_MS);
    else {
      clearInterval(this.#ticking);
      this.#ticking = undefined;
    }
    this.#draw();
  }

  clear(): void {
    if (this.#isDrawn) write(Deno.stderr, "\r\x1b[K");
    this.#isDrawn = false;
  }

  #draw(): void {
    this.clear();
    const now = performance.now();
    const slow = [...this.#underWay].filter(([, { beganAt }]) => now - beganAt > QUICK_MS);
    // Of several things at once, one of which it can be told how far it is.
    const shown = slow.find(([, { done }]) => done > 0) ?? slow[0];
    if (!shown) return;
    const [what, { done, total, beganAt }] = shown;
    const text = progressText({ what, done, total, seconds: (now - beganAt) / 1000 });
    write(Deno.stderr, text.slice(0, columns() - 1));
    this.#isDrawn = true;
  }
}

/** How far things are, as events for a program. */
class ProgressEvents {
  /** When each thing was told of last, or began. */
  readonly #toldAt = new Map<string, number>();

  update(what: string, done: number, total: number): void {
    const now = performance.now();
    const toldAt = this.#toldAt.get(what) ?? now;
    const isDue = done > 0 && now - toldAt >= EVENT_EVERY_MS;
    if (isDue) write(Deno.stderr, JSON.stringify({ event: "progress", what, done, total }) + "\n");
    if (done < total) this.#toldAt.set(what, isDue ? now : toldAt);
    else this.#toldAt.delete(what);
  }
}

/**
 * Writes all of it, or what its reader takes: `| head` has read enough. Nothing that is said may end a backup.
 *
 * @returns Why it could not be written, if so.
 */
function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): unknown {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let done = 0; done < bytes.length;) done += stream.writeSync(bytes.subarray(done));
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) return error;
  }
  return undefined;
}

/**
 * Whether standard error is systemd's journal: JOURNAL_STREAM names it by device and inode, and stays set in what is
 * started from there with an output of its own (systemd.exec(5)).
 */
export function isJournal(journalStream: string | undefined): boolean {
  if (journalStream === undefined) return false;
  const stat = ifPossible(() => fstat(2));
  return stat !== undefined && journalStream === `${stat.dev}:${stat.ino}`;
}

/** Whether a person can end this by closing a terminal. */
export const isOnTerminal = (): boolean =>
  [Deno.stdin, Deno.stdout, Deno.stderr].some((stream) => stream.isTerminal());

/** Whether standard output takes colours: on a terminal, unless NO_COLOR says no (https://no-color.org). */
export function takesColor(): boolean {
  const { env } = Deno;
  if (env.get("NO_COLOR")) return false;
  if (env.get("FORCE_COLOR") || env.get("CLICOLOR_FORCE")) return true;
  return Deno.stdout.isTerminal() && env.get("TERM") !== "dumb";
}

/** Width of the terminal; 80 where there is none, or it does not know. */
export const columns = (): number => ifPossible(() => Deno.consoleSize().columns) || 80;
