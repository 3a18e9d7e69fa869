/**
 * What `--help` says, made from the table of commands.
 *
 * @module
 */

import { EXIT_CODES } from "../errors.ts";
import { COMMANDS, type CommandSpec, type Entry, GLOBAL_OPTIONS } from "./commands.ts";
import { meaningOf } from "./option_flags.ts";

const HELP: Entry = ["-h, --help", "print this help"];

/** Columns that a meaning has at least. */
const MEANING_COLUMNS_MIN = 20;

/** The help of the program as a whole, in lines of so many columns. */
export function programHelp(width: number): string {
  const groups = Map.groupBy(COMMANDS, ({ group }) => group);
  return joined([
    "Usage: hapi-backup [options] [command]",
    wrapped("Backs up a HAPI hub: consistent, encrypted, off the machine, proven restorable.", width),
    ...lists({
      "Options": [["--version", "print the version"], HELP],
      ...Object.fromEntries(
        groups.entries().map(([group, specs]) => [
          group,
          specs.map((spec): Entry => [`${spec.verb} ${usageOf(spec)}`, spec.summary]),
        ]),
      ),
    }, width),
    exitCodes(),
    "Example:\n  hapi-backup backup",
  ]);
}

/** The help of a verb, in lines of so many columns. */
export function verbHelp(spec: CommandSpec, width: number): string {
  return joined([
    `Usage: hapi-backup ${spec.verb} ${usageOf(spec)}`,
    wrapped(spec.summary, width),
    ...spec.actions === undefined ? [] : [list(spec.actions, columnOf(spec.actions), width)],
    ...spec.details === undefined
      ? []
      : [spec.details.split("\n").map((line) => wrapped(line, width)).join("\n")],
    ...lists({
      "Arguments": (spec.arguments ?? []).map(({ name, text, choices }): Entry => [
        name.slice(1, -1),
        choices ? `${text} (choices: ${choices.map((choice) => `"${choice}"`).join(", ")})` : text,
      ]),
      "Options": [
        ...[...spec.options, ...GLOBAL_OPTIONS].map((option): Entry => [
          option.flags,
          meaningOf(option) + (option.default === undefined ? "" : ` (default: "${option.default}")`),
        ]),
        HELP,
      ],
    }, width),
    `Example:\n  ${spec.example}`,
    exitCodes(),
  ]);
}

const joined = (paragraphs: readonly string[]): string => paragraphs.join("\n\n");

const usageOf = (spec: CommandSpec): string =>
  ["[options]", ...(spec.arguments ?? []).map(({ name }) => name)].join(" ");

const exitCodes = (): string =>
  ["Exit codes:", ...Object.entries(EXIT_CODES).map(([code, text]) => `  ${code}  ${text}`)].join("\n");

/** Lists with a title each, all meanings in one column. One that is empty is left out. */
function lists(titled: Readonly<Record<string, readonly Entry[]>>, width: number): string[] {
  const indented = Object.entries(titled).map(([title, entries]) =>
    [title, entries.map(([term, meaning]): Entry => [`  ${term}`, meaning])] as const
  );
  const column = columnOf(indented.flatMap(([, entries]) => entries));
  return indented.filter(([, entries]) => entries.length > 0)
    .map(([title, entries]) => `${title}:\n${list(entries, column, width)}`);
}

/** Entries with all meanings in one column. */
const list = (entries: readonly Entry[], column: number, width: number): string =>
  entries.map(([term, meaning]) => hanging(term.padEnd(column), meaning, width)).join("\n");

/** The column that their meanings stand in. */
const columnOf = (entries: readonly Entry[]): number =>
  Math.max(...entries.map(([term]) => `${term}  `.length));

/** A text whose lines all begin where the first does, behind its term. */
function hanging(term: string, text: string, width: number): string {
  const columns = Math.max(MEANING_COLUMNS_MIN, width - term.length);
  return term + wrapped(text, columns).replaceAll("\n", `\n${" ".repeat(term.length)}`);
}

/** A text in lines of so many columns, each as full as it gets. */
function wrapped(text: string, columns: number): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines.at(-1)!;
    if (last === "") lines[lines.length - 1] = word;
    else if (last.length + 1 + word.length > columns) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines.join("\n");
}
