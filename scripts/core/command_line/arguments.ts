/**
 * What the words of a command line ask for, by the table of commands.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { closestWord } from "../closest_word.ts";
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
  const known = new Map([...spec.options, ...GLOBAL_OPTIONS].map((option) => [flagOf(option).name, option]));
  const { tokens } = parseArgs({
    args: [...words],
    options: Object.fromEntries(
      known.values().map((option) => {
        const { name, value } = flagOf(option);
        return [name.slice(2), { type: value === undefined ? "boolean" : "string" } as const];
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
  const options = new OptionValues(spec, known);
  const given: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") given.push(token.value);
    else if (token.kind === "option") options.set(words[token.index]!, token.value);
  }
  return { type: "verb", spec, options: { ...options.all(), ...argumentsOf(spec, given) } };
}

/** The options of a verb, as they are found on a command line. */
class OptionValues {
  readonly #spec: CommandSpec;
  readonly #known: ReadonlyMap<string, OptionSpec>;
  readonly #given = new Map<OptionSpec, string[]>();

  constructor(spec: CommandSpec, known: ReadonlyMap<string, OptionSpec>) {
    this.#spec = spec;
    this.#known = known;
  }

  /**
   * @param word As it was given, such as `--to` or `--to=x`.
   * @throws {BackupError} (usage) If there is no such option, or it takes no such value, or another was given before.
   */
  set(word: string, value: string | undefined): void {
    const name = flagIn(word);
    const option = this.#known.get(name);
    if (!option) {
      const guess = closestFlag(word, [...this.#known.keys(), "--help"]);
      throw wrongUsage(this.#spec, `unknown option '${word}'`, guess);
    }
    const isInline = word !== name;
    const takesValue = flagOf(option).value !== undefined;
    if (!takesValue && isInline) throw wrongUsage(this.#spec, `option '${name}' takes no value`);
    // `--to --in-place` names no folder.
    const isOption = (next: string) => this.#known.has(flagIn(next)) || isHelp(next);
    if (takesValue && (value === undefined || !isInline && isOption(value))) {
      throw wrongUsage(this.#spec, `option '${option.flags}' has no value`);
    }
    const values = this.#given.get(option) ?? [];
    // The last of two would count, and the other set, identity or store be left out without a word.
    if (takesValue && !option.many && values.some((before) => before !== value)) {
      throw new BackupError(`Cannot use ${name} ${value}: ${name} ${values[0]} was given before it`, {
        kind: "usage",
        hint: name === "--identity"
          ? "put all of them into one file, one below the other"
          : `give ${name} once`,
      });
    }
    this.#given.set(option, [...values, value ?? ""]);
  }

  /** All that have a value, as given or by default. */
  all(): Record<string, unknown> {
    const values: Record<string, unknown> = {};
    for (const option of this.#known.values()) {
      const given = this.#given.get(option);
      const isFlag = flagOf(option).value === undefined;
      const value = given ? (isFlag ? true : option.many ? given : given[0]) : option.default;
      if (value !== undefined) values[keyOf(option)] = value;
    }
    return values;
  }
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
