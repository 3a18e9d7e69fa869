/**
 * The command line: arguments in, exit code out.
 *
 * Standard error is for people, standard output for data. With `--json` an error is data too.
 *
 * @module
 */

import { readArguments } from "../../core/command_line/arguments.ts";
import { programHelp, verbHelp } from "../../core/command_line/help.ts";
import { flagNamed, textOf } from "../../core/command_line/option_flags.ts";
import { type Config, defaultConfigFile, parseConfig, type Surroundings } from "../../core/config/config.ts";
import { BackupError, exitCodeOf, ifPossible, internalError, outcome, reasonOf } from "../../core/errors.ts";
import { normalizePath } from "../../core/paths.ts";
import { VERSION } from "../../core/version.ts";
import { kindOf, knownError, readTextIfThere } from "../fs.ts";
import type { Fs, Host } from "../host.ts";
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
    const asked = readArguments(args);
    switch (asked.type) {
      case "nothing":
        terminal.error(programHelp(helpWidth()));
        return exitCodeOf("usage");
      case "help":
        terminal.print(asked.spec ? verbHelp(asked.spec, helpWidth()) : programHelp(helpWidth()));
        break;
      case "version":
        terminal.print(VERSION);
        break;
      case "verb": {
        const { spec, options } = asked;
        const around = surroundings();
        await verbs[spec.verb]!({
          options,
          json: options.json === true,
          around,
          host: makeHost(terminal),
          terminal,
          configFile: fileOf(options.config) ?? defaultConfigFile(around),
        });
      }
    }
    return tellUnprinted(terminal);
  } catch (error) {
    return tell(error, terminal, wantsJson, args.includes("--verbose"));
  }
}

const helpWidth = (): number => Deno.stdout.isTerminal() ? Math.min(80, columns()) : 80;

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

/** The text of a configuration; undefined if there is none. @throws {BackupError} (config) */
export function readConfigText(fs: Fs, path: string): string | undefined {
  try {
    return readTextIfThere(fs, path);
  } catch (error) {
    const there = ifPossible(() => fs.stat(path));
    const state = there && there.type !== "file" ? `it is ${kindOf(there)}` : reasonOf(error);
    const hint = there?.type === "folder"
      ? `name the file itself, such as ${path.replace(/\/+$/, "")}/config.json`
      : "check what it is, its owner and mode, and the user that this runs as";
    throw new BackupError(`Cannot read configuration ${path}: ${state}`, { kind: "config", hint });
  }
}

/** The hub's configuration; undefined if there is none. @throws {BackupError} (config) */
export function readConfig({ host, configFile, around, options }: VerbContext): Config | undefined {
  const text = readConfigText(host.fs, configFile);
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
