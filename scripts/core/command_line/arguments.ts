/**
 * What the words of a command line ask for, by the table of commands.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { closestWord } from "../closest_word.ts";
import { defined } from "../defined.ts";
import { BackupError } from "../errors.ts";
import { COMMANDS, type CommandSpec, GLOBAL_OPTIONS, type OptionSpec } from "./commands.ts";
import { flagOf, keyOf } from "./option_flags.ts";

/** What a command line asks for. */
export type Asked =
  | { readonly type: "version" }
  /** Of everything, where no verb is named. */
  | { readonly type: "help"; readonly spec?: CommandSpec }
  /** Nothing was said at all. */
  | { readonly type: "nothing" }
  /** Options by their long name in camel case; arguments by their name. */
  | {
    readonly type: "verb";
    readonly spec: CommandSpec;
    readonly options: Readonly<Record<string, unknown>>;
  };

/** Reads the words after the program's name. @throws {BackupError} (usage) */
export function readArguments(words: readonly string[]): Asked {
  const [first, second] = words;
  if (first === undefined) return { type: "nothing" };
  if (first === "help") {
    const isOfAll = second === undefined || second === "help" || second.startsWith("-");
    return isOfAll ? { type: "help" } : { type: "help", spec: commandNamed(second) };
  }
  if (first.startsWith("-")) {
    if (words.some(isHelp)) return { type: "help" };
    if (first === "--version") return { type: "version" };
    const isOfVerb = [...GLOBAL_OPTIONS, ...COMMANDS.flatMap(({ options }) => options)]
      .some((option) => flagOf(option).name === flagIn(first));
    if (isOfVerb) throw wrongUsage(undefined, `option '${first}' stands before the verb, not behind it`);
    throw wrongUsage(undefined, `unknown option '${first}'`, closestFlag(first, ["--help", "--version"]));
  }
  const spec = commandNamed(first);
  if (second === "help") return { type: "help", spec };
  return readWords(spec, words.slice(1));
}

const isHelp = (word: string): boolean => word === "--help" || word === "-h";

/** `--to` of `--to=x`. */
const flagIn = (word: string): string => word.split("=", 1)[0]!;

/** The flag that was perhaps meant: dashes, which all of them have, do not make two alike. */
function closestFlag(word: string, flags: readonly string[]): string | undefined {
  const bare = (flag: string) => flag.replace(/^-+/, "");
  const guess = closestWord(bare(flagIn(word)), flags.map(bare));
  return guess === undefined ? undefined : `--${guess}`;
}

function commandNamed(verb: string): CommandSpec {
  const spec = COMMANDS.find((command) => command.verb === verb);
  if (spec) return spec;
  const guess = closestWord(verb, [...COMMANDS.map(({ verb }) => verb), "help"]);
  throw wrongUsage(undefined, `unknown command '${verb}'`, guess);
}

function readWords(spec: CommandSpec, words: readonly string[]): Asked {
  const specs = [...spec.options, ...GLOBAL_OPTIONS];
  const known = new Map(specs.map((option) => [flagOf(option).name, option]));
  const { tokens } = parseArgs({
    args: [...words],
    options: Object.fromEntries(
      known.entries().map(([name, option]) => {
        return [name.slice(2), { type: flagOf(option).value === undefined ? "boolean" : "string" } as const];
      }),
    ),
    allowPositionals: true,
    // What is wrong is told in our words.
    strict: false,
    tokens: true,
  });
  if (tokens.some(({ kind, index }) => kind === "option" && isHelp(words[index]!))) {
    return { type: "help", spec };
  }
  const given = new Map<OptionSpec, string[]>();
  const positional: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positional.push(token.value);
    if (token.kind !== "option") continue;
    const option = optionOf(spec, known, words[token.index]!, token.value);
    given.set(option, [...given.get(option) ?? [], token.value ?? ""]);
  }
  const options = Object.fromEntries(
    specs.map((option) => [keyOf(option), valueOf(option, given.get(option))]),
  );
  return { type: "verb", spec, options: { ...defined(options), ...argumentsOf(spec, positional) } };
}

/**
 * The option that a word is.
 *
 * @param word As it was given, such as `--to` or `--to=x`.
 * @throws {BackupError} (usage) If there is none such, or it takes no value, or has none.
 */
function optionOf(
  spec: CommandSpec,
  known: ReadonlyMap<string, OptionSpec>,
  word: string,
  value: string | undefined,
): OptionSpec {
  const name = flagIn(word);
  const option = known.get(name);
  if (!option) {
    throw wrongUsage(spec, `unknown option '${word}'`, closestFlag(word, [...known.keys(), "--help"]));
  }
  const isInline = word !== name;
  if (flagOf(option).value === undefined) {
    if (isInline) throw wrongUsage(spec, `option '${name}' takes no value`);
    return option;
  }
  // `--to --in-place` names no folder.
  const isOption = (next: string) => known.has(flagIn(next)) || isHelp(next);
  if (value === undefined || !isInline && isOption(value)) {
    throw wrongUsage(spec, `option '${option.flags}' has no value`);
  }
  return option;
}

/** What an option comes to. @throws {BackupError} (usage) If it was given two values and takes one. */
function valueOf(option: OptionSpec, given: readonly string[] | undefined): unknown {
  if (!given) return option.default;
  const { name, value } = flagOf(option);
  if (value === undefined) return true;
  if (option.many) return given;
  const [first] = given;
  const other = given.find((next) => next !== first);
  if (other === undefined) return first;
  // The last would count, and the other set, identity or store be left out without a word.
  throw new BackupError(`Cannot use ${name} ${other}: ${name} ${first} was given before it`, {
    kind: "usage",
    hint: name === "--identity" ? "put all of them into one file, one below the other" : `give ${name} once`,
  });
}

/** The arguments by their name, without its brackets. */
function argumentsOf(spec: CommandSpec, given: readonly string[]): Record<string, string | undefined> {
  const specs = spec.arguments ?? [];
  const extra = given.slice(specs.length);
  if (extra.length > 0) throw wrongUsage(spec, `too many arguments: ${extra.join(" ")}`);
  return Object.fromEntries(specs.map(({ name, choices }, index) => {
    const value = given[index];
    const bare = name.slice(1, -1);
    if (value === undefined && name.startsWith("<")) {
      const which = choices ? ` (${choices.join(", ")})` : "";
      throw wrongUsage(spec, `missing required argument '${bare}'${which}`);
    }
    if (value !== undefined && choices && !choices.includes(value)) {
      const wrong = `argument '${bare}' is one of ${choices.join(", ")}, not '${value}'`;
      throw wrongUsage(spec, wrong, closestWord(value, choices));
    }
    return [bare, value];
  }));
}

function wrongUsage(spec: CommandSpec | undefined, wrong: string, guess?: string): BackupError {
  const help = `\`hapi-backup ${spec ? `${spec.verb} ` : ""}--help\` says what there is`;
  return new BackupError(`Cannot run ${spec?.verb ?? "hapi-backup"}: ${wrong}`, {
    kind: "usage",
    hint: guess === undefined ? help : `did you mean ${guess}? ${help}`,
  });
}
