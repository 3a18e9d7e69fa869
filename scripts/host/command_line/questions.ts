/**
 * Questions to whoever sits at the terminal. They are drawn on standard error: standard output is for data.
 *
 * @module
 */

import process from "node:process";
import { BackupError } from "../../core/errors.ts";
import { cancelled, cancelSteps } from "../steps/step.ts";

/** Where every question is drawn, and what ends it without an answer. */
const COMMON = { output: process.stderr, signal: cancelled };

/** Whether there is somebody to ask. */
export const canAsk = (): boolean => Deno.stdin.isTerminal() && Deno.stderr.isTerminal();

/** A line of text. @param validate What is wrong with an answer; undefined where nothing is. */
export async function askText(
  message: string,
  { initial, validate }: { initial?: string; validate?: (answer: string) => string | undefined } = {},
): Promise<string> {
  const { text } = await prompts();
  return answered(
    await text({
      message,
      ...COMMON,
      defaultValue: initial ?? "",
      ...(initial === undefined ? {} : { placeholder: initial }),
      validate: (answer) => validate?.(answer?.trim() || (initial ?? "")),
    }),
  ).trim();
}

/** Yes or no. */
export async function askYes(message: string): Promise<boolean> {
  const { confirm } = await prompts();
  return answered(await confirm({ message, ...COMMON }));
}

/** One of several. */
export async function askWhich<T extends string>(message: string, choices: readonly T[]): Promise<T> {
  const { select } = await prompts();
  const options = choices.map((value) => ({ value, label: value }));
  return answered(await select<string>({ message, options, ...COMMON })) as T;
}

/** A text that is not shown while it is typed. */
export async function askSecret(message: string): Promise<string> {
  const { password } = await prompts();
  return answered(await password({ message, ...COMMON }));
}

/** Rows that a question takes, with what is wrong with the answer. */
const QUESTION_ROWS = 6;

/**
 * Shows a secret on a screen of its own until a question about it is answered; then nothing of it is left to scroll to.
 *
 * @throws {BackupError} (usage) If the terminal is too small for it: that screen cannot be scrolled.
 */
export async function showOnce(secret: string, ask: () => Promise<unknown>): Promise<void> {
  const { columns, rows } = Deno.consoleSize();
  const needed = secret.split("\n").reduce(
    (sum, line) => sum + Math.max(1, Math.ceil(line.length / columns)),
    0,
  );
  // A serial line does not tell its size.
  if (columns > 0 && needed + QUESTION_ROWS > rows) {
    throw new BackupError(
      `Cannot show the identity: this terminal has ${columns} columns and ${rows} rows only`,
      {
        kind: "usage",
        hint: `make it larger (at this width, ${
          needed + QUESTION_ROWS
        } rows) and run it again, or name a file for it`,
      },
    );
  }
  const write = (text: string) => Deno.stderr.writeSync(new TextEncoder().encode(text));
  write(`\x1b[?1049h\x1b[2J\x1b[H${secret}\n\n`);
  try {
    await ask();
  } finally {
    write("\x1b[2J\x1b[?1049l");
  }
}

const CTRL_C = "\x03";
let isHeard = false;

/**
 * The library that asks, loaded only where something is asked. It takes Ctrl-C, which is a key meanwhile, for Esc, and just
 * after one for nothing: here it is an interruption as anywhere else.
 */
export async function prompts(): Promise<typeof import("@clack/prompts")> {
  if (!isHeard) {
    process.stdin.on("keypress", (_, { sequence }: { sequence?: string }) => {
      if (sequence?.endsWith(CTRL_C)) cancelSteps();
    });
  }
  isHeard = true;
  return await import("@clack/prompts");
}

function answered<T>(answer: T): Exclude<T, symbol> {
  if (typeof answer !== "symbol") return answer as Exclude<T, symbol>;
  throw new BackupError("Cannot go on: nothing was answered", {
    kind: "cancelled",
    hint: "run it again whenever you like; what was made so far is kept",
  });
}
