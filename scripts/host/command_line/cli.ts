/**
 * The command line: arguments in, exit code out.
 *
 * Standard error is for people, standard output for data. With `--json` an error is data too.
 *
 * @module
 */

import { Argument, Command, CommanderError, Option } from "commander";
import {
  COMMANDS,
  type CommandSpec,
  GLOBAL_OPTIONS,
  type OptionSpec,
} from "../../core/command_line/commands.ts";
import { flagNamed, flagOf, meaningOf, textOf } from "../../core/command_line/option_flags.ts";
import { type Config, defaultConfigFile, parseConfig, type Surroundings } from "../../core/config/config.ts";
import { BackupError, EXIT_CODES, exitCodeOf, internalError, outcome, reasonOf } from "../../core/errors.ts";
import { normalizePath } from "../../core/paths.ts";
import { VERSION } from "../../core/version.ts";
import { knownError, lstatIfThere, readTextIfThere } from "../fs.ts";
import type { Host } from "../host.ts";
import { makeHost } from "../steps/step.ts";
import { columns, type FullTerminal, isJournal, makeTerminal } from "./terminal.ts";

/** What a verb is given. */
export interface VerbContext {
  /** Options by their long name in camel case; arguments by their name. */
  readonly options: Readonly<Record<string, unknown>>;
  readonly json: boolean;
  readonly around: Surroundings;
  readonly host: Host;
  readonly terminal: FullTerminal;
  readonly configFile: string;
}

/** A verb of the command line. */
export type Verb = (context: VerbContext) => void | Promise<void>;

/**
 * Runs the program.
 *
 * @returns The exit code.
 */
export async function main(args: readonly string[], verbs: Readonly<Record<string, Verb>>): Promise<number> {
  const wantsJson = args.includes("--json");
  const terminal = makeTerminal({
    quiet: args.includes("--quiet"),
    verbose: args.includes("--verbose"),
    json: wantsJson,
    journal: isJournal(Deno.env.get("JOURNAL_STREAM")),
  });
  try {
    const program = makeProgram(terminal, async (spec, options) => {
      const around = surroundings();
      await verbs[spec.verb]!({
        options,
        json: options.json === true,
        around,
        host: makeHost(terminal),
        terminal,
        configFile: fileOf(options.config) ?? defaultConfigFile(around),
      });
    });
    await program.parseAsync(withHelp(args), { from: "user" });
    return tellUnprinted(terminal);
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return tellUnprinted(terminal);
    // Without any argument the help is what is said.
    if (error instanceof CommanderError && error.code === "commander.help") return exitCodeOf("usage");
    return tell(
      error instanceof CommanderError ? usageError(error, args) : error,
      terminal,
      wantsJson,
      args.includes("--verbose"),
    );
  }
}

/** The arguments as commander takes them: help is asked for by `help`, `help backup` and `backup help`, too. */
function withHelp(args: readonly string[]): string[] {
  const isVerb = (name: string) => COMMANDS.some(({ verb }) => verb === name);
  const [first, second, ...more] = args;
  if (first === undefined || first.startsWith("-")) return [...args];
  if (first === "help") {
    if (second === undefined || second === "help" || second.startsWith("-")) return ["--help"];
    return isVerb(second) ? [second, "--help"] : [second];
  }
  // Of a verb that there is none of, commander would show the help of all, and not say that it is mistyped.
  if (!isVerb(first)) return [first];
  return second === "help" && more.length === 0 ? [first, "--help"] : [...args];
}

/** What was asked for and not delivered is a failure, though all was done. @returns The exit code. */
function tellUnprinted(terminal: FullTerminal): number {
  const unprinted = terminal.unprinted();
  if (unprinted === undefined) return 0;
  const error = new BackupError(`Cannot write to standard output: ${reasonOf(unprinted)}`, {
    kind: "disk",
    hint: "what was to be done is done; run it again with standard output where there is room",
  });
  return tell(error, terminal, false, false);
}

function tell(error: unknown, terminal: FullTerminal, json: boolean, verbose: boolean): number {
  const known = knownError(error) ?? internalError(error);
  const code = exitCodeOf(known.kind);
  terminal.error(errorText(known));
  if (verbose) {
    const { cause } = known;
    terminal.error(
      String(cause instanceof Error ? cause.stack : typeof cause === "string" ? cause : known.stack),
    );
  }
  if (json && !terminal.printed()) terminal.print(JSON.stringify(outcome(known)));
  return code;
}

/** An error, and what to do about it. */
export const errorText = ({ message, hint }: BackupError): string =>
  `error: ${message}${hint ? `\nhint: ${hint}` : ""}`;

/** What is wrong with the arguments, in our words: commander's end in `(Did you mean ...?)` where it has a guess. */
function usageError({ message }: CommanderError, args: readonly string[]): BackupError {
  const verb = args.find((arg) => COMMANDS.some((command) => command.verb === arg));
  const [wrong, guess] = message.replace(/^error: /, "").split("\n");
  const choices = COMMANDS.find((command) => command.verb === verb)?.arguments?.[0]?.choices;
  const missing = /^missing required argument/.test(wrong!) && choices ? ` (${choices.join(", ")})` : "";
  const help = `\`hapi-backup ${verb === undefined ? "" : `${verb} `}--help\` says what there is`;
  return new BackupError(`Cannot run ${verb ?? "hapi-backup"}: ${wrong}${missing}`, {
    kind: "usage",
    hint: guess === undefined ? help : `${guess.replace(/^\(D(.*)\)$/, "d$1")} ${help}`,
  });
}

function makeProgram(
  terminal: FullTerminal,
  run: (spec: CommandSpec, options: Record<string, unknown>) => Promise<void>,
): Command {
  const width = Deno.stdout.isTerminal() ? Math.min(80, columns()) : 80;
  const codes = Object.entries(EXIT_CODES).map(([code, text]) => `  ${code}  ${text}`).join("\n");
  const program = new Command("hapi-backup")
    .description("Backs up a HAPI hub: consistent, encrypted, off the machine, proven restorable.")
    .version(VERSION, "--version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand(false)
    // `tell` says what is wrong, as data too where that is asked for.
    .configureOutput({
      outputError: () => {},
      writeOut: (text) => terminal.print(text),
      getOutHelpWidth: () => width,
    })
    .configureHelp({ minWidthToWrap: 20 })
    .addHelpText("after", `\nExit codes:\n${codes}\n\nExample:\n  hapi-backup backup`)
    .exitOverride();
  for (const spec of COMMANDS) {
    const command = program.command(spec.verb)
      .summary(spec.summary)
      .description(
        [
          spec.summary,
          ...spec.details ? ["", ...spec.details.split("\n").map((line) => indented(line, width))] : [],
        ].join("\n"),
      )
      .helpGroup(`${spec.group}:`)
      .helpOption("-h, --help", "print this help")
      .addHelpText("after", `\nExample:\n  ${spec.example}\n\nExit codes:\n${codes}`)
      .exitOverride();
    for (const { name, text, choices } of spec.arguments ?? []) {
      const argument = new Argument(name, text);
      command.addArgument(choices ? argument.choices(choices) : argument);
    }
    for (const option of [...spec.options, ...GLOBAL_OPTIONS]) {
      command.addOption(makeOption(option));
      refuseRepeated(command, option);
    }
    command.action(async (...given: unknown[]) => {
      const names = (spec.arguments ?? []).map(({ name }) => name.replace(/[<>[\].]/g, ""));
      const options: Record<string, unknown> = { ...command.opts() };
      names.forEach((name, index) => options[name] = given[index]);
      await run(spec, options);
    });
  }
  return program;
}

/** An entry such as `add    what it does`, in lines that begin below what it does; any other line as it is. */
function indented(line: string, width: number): string {
  const term = /^\S+ {2,}/.exec(line)?.[0];
  if (term === undefined) return line;
  const lines = [""];
  for (const word of line.slice(term.length).split(" ")) {
    const last = lines.at(-1)!;
    if (last !== "" && term.length + last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`;
  }
  return term + lines.join(`\n${" ".repeat(term.length)}`);
}

function makeOption(spec: OptionSpec): Option {
  const { flags, default: value, many } = spec;
  const option = new Option(flags, meaningOf(spec));
  if (value !== undefined) option.default(value);
  if (many) option.argParser((next: string, before: string[] | undefined) => [...before ?? [], next]);
  return option;
}

/** The last of two would count, and the other set, identity or store be left out without a word. */
function refuseRepeated(command: Command, option: OptionSpec): void {
  const { name, value } = flagOf(option);
  if (option.many || value === undefined) return;
  let before: string | undefined;
  command.on(`option:${name.slice(2)}`, (value: string) => {
    if (before !== undefined && before !== value) {
      throw new BackupError(`Cannot use ${name} ${value}: ${name} ${before} was given before it`, {
        kind: "usage",
        hint: name === "--identity"
          ? "put all of them into one file, one below the other"
          : `give ${name} once`,
      });
    }
    before = value;
  });
}

/** What of the environment the configuration's defaults depend on. */
function surroundings(): Surroundings {
  const home = Deno.env.get("HOME");
  if (!home?.startsWith("/")) {
    throw new BackupError(`Cannot start: HOME is not ${home ? "an absolute path" : "set"}`, {
      kind: "usage",
      hint: "set HOME to the operator's home",
    });
  }
  const names = [
    "HAPI_HOME",
    "DB_PATH",
    "HAPI_BACKUP_CONFIG",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
  ];
  return {
    home: home.length > 1 ? home.replace(/\/+$/, "") : home,
    hostname: Deno.hostname(),
    env: Object.fromEntries(names.map((name) => [name, Deno.env.get(name)])),
  };
}

/** Makes a path given on the command line absolute, without the `..` that Deno leaves out of what it opens, too. */
export function absolutePath(path: string): string {
  return normalizePath(path.startsWith("/") ? path : `${Deno.cwd()}/${path}`);
}

/** The absolute path that an option was given; undefined if it was not given. */
export function fileOf(value: unknown): string | undefined {
  const path = textOf(value);
  return path === undefined ? undefined : absolutePath(path);
}

/** The hub's configuration; undefined if there is none. @throws {BackupError} (config) */
export function readConfig({ host, configFile, around, options }: VerbContext): Config | undefined {
  let text: string | undefined;
  try {
    text = readTextIfThere(host.fs, configFile);
  } catch (error) {
    if (lstatIfThere(host.fs, configFile)?.type === "folder") {
      throw new BackupError(`Cannot read configuration ${configFile}: it is a folder`, {
        kind: "config",
        hint: `name the file itself, such as ${configFile.replace(/\/+$/, "")}/config.json`,
      });
    }
    throw new BackupError(`Cannot read configuration ${configFile}: ${reasonOf(error)}`, {
      kind: "config",
      hint: "check its owner and mode, and the user that this runs as",
    });
  }
  if (text === undefined && options.config !== undefined) {
    throw new BackupError(`Cannot read configuration ${configFile}: there is no such file`, {
      kind: "config",
      hint: "check --config; `hapi-backup init` makes a configuration",
    });
  }
  if (text === undefined) return undefined;
  return { ...parseConfig(text, configFile, around), changedAt: new Date(host.fs.stat(configFile).mtimeMs) };
}

/** A whole number of at least 0 out of an option's text. @throws {BackupError} (usage) */
export function numberOption(options: Readonly<Record<string, unknown>>, name: string): number {
  const value = Number(options[name]);
  if (Number.isSafeInteger(value) && value >= 0 && String(options[name]).trim() !== "") return value;
  throw new BackupError(
    `Cannot use ${flagNamed(name)} ${JSON.stringify(options[name])}: it is not a whole number`,
    {
      kind: "usage",
      hint: "give a number such as 30",
    },
  );
}
