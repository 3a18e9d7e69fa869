/**
 * Completions for bash, zsh and fish, made from the table of commands.
 *
 * They complete verbs, actions, options and the values that are known beforehand; of a value that is a file or folder,
 * its path. Nothing is run and nothing is read when they complete.
 *
 * @module
 */

import { shellQuote as quote } from "../shell.ts";
import { COMMANDS, type CommandSpec, GLOBAL_OPTIONS, type OptionSpec, type Shell } from "./commands.ts";
import { flagOf } from "./option_flags.ts";

/** The script that a shell reads. */
export function completions(shell: Shell): string {
  switch (shell) {
    case "bash":
      return bash();
    case "zsh":
      return zsh();
    case "fish":
      return fish();
  }
}

const HELP: OptionSpec = { flags: "--help", text: "print this help" };
const optionsOf = ({ options }: CommandSpec): OptionSpec[] => [...options, ...GLOBAL_OPTIONS, HELP];

const actionsOf = (spec: CommandSpec): string[] =>
  (spec.arguments ?? []).flatMap(({ choices }) => choices ?? []);

/** What may stand for a value that cannot be listed. */
type Kind = "file" | "folder" | "unknown";
const kindOf = (value: string): Kind =>
  value === "file" || value === "program" ? "file" : value === "folder" ? "folder" : "unknown";

const list = (words: readonly string[]): string => quote(words.join(" "));

function bash(): string {
  const cases = COMMANDS.map((spec) => {
    const options = optionsOf(spec).map((option) => ({ option, ...flagOf(option) }));
    const valued = options.flatMap(({ option, name, value }) =>
      value === undefined ? [] : [{ name, kind: kindOf(value), words: option.suggestions ?? [] }]
    );
    const ofKind = (kind: Kind) => list(valued.filter((each) => each.kind === kind).map(({ name }) => name));
    const values = valued.filter(({ words }) => words.length > 0)
      .map(({ name, words }) => `      ${name}) words=${list(words)} ;;\n`).join("");
    const actions = actionsOf(spec);
    return `    ${spec.verb})
      options=${list(options.map(({ name }) => name))} actions=${list(actions)}
      files=${ofKind("file")} folders=${ofKind("folder")} others=${ofKind("unknown")}
${values === "" ? "" : `      case $previous in\n${values}      esac\n`}      ;;`;
  });
  return `# bash completion for hapi-backup

_hapi_backup() {
  local current=$2 previous=$3 options='' actions='' files='' folders='' others='' words=''
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W ${
    list([...COMMANDS.map(({ verb }) => verb), "--help", "--version"])
  } -- "$current")
    return
  fi
  case \${COMP_WORDS[1]} in
${cases.join("\n")}
  esac
  if [[ " $files " == *" $previous "* ]]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ " $folders " == *" $previous "* ]]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -d -- "$current")
  elif [[ " $others " == *" $previous "* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  elif [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
  elif ((COMP_CWORD == 2)); then
    mapfile -t COMPREPLY < <(compgen -W "$actions" -- "$current")
  fi
}

complete -F _hapi_backup hapi-backup
`;
}

function zsh(): string {
  const verbs = COMMANDS.map(({ verb, summary }) => `    ${quote(`${verb}:${summary}`)}\n`).join("");
  const cases = COMMANDS.map((spec) => {
    const options = optionsOf(spec).map((option) => {
      const { name, value } = flagOf(option);
      const repeated = option.many ? "*" : "";
      const what = `[${option.text.replace(/[[\]\\]/g, "\\$&")}]`;
      return repeated + name + what + (value === undefined ? "" : `:${value}:${zshValue(option, value)}`);
    });
    const positions = (spec.arguments ?? []).map(({ name, choices }, index) =>
      `${index + 1}${name.startsWith("[") ? "::" : ":"}${name.replace(/[<>[\]]/g, "")}:${
        choices ? `(${choices.join(" ")})` : ""
      }`
    );
    const given = [...options, ...positions].map((text) => ` \\\n        ${quote(text)}`).join("");
    return `    ${spec.verb})\n      _arguments${given} ;;\n`;
  });
  return `#compdef hapi-backup
# zsh completion for hapi-backup

_hapi-backup() {
  local -a verbs=(
${verbs}  )
  if ((CURRENT == 2)); then
    _describe -t verbs verb verbs
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
${cases.join("")}  esac
}

# Read by compinit out of a folder in fpath, this file is the function; read by \`source\`, it only defines it.
if [[ $funcstack[1] == _hapi-backup ]]; then
  _hapi-backup "$@"
else
  compdef _hapi-backup hapi-backup
fi
`;
}

function zshValue({ suggestions: words = [] }: OptionSpec, value: string): string {
  if (words.length > 0) return `(${words.join(" ")})`;
  const kind = kindOf(value);
  return kind === "file" ? "_files" : kind === "folder" ? "_files -/" : "";
}

function fish(): string {
  const complete = (...words: string[]) => ["complete -c hapi-backup", ...words].join(" ");
  const lines = COMMANDS.flatMap((spec) => {
    const here = `-n ${fishQuote(`__hapi_backup_verb ${spec.verb}`)}`;
    const actions = actionsOf(spec);
    return [
      complete("-n __hapi_backup_first -a", spec.verb, "-d", fishQuote(spec.summary)),
      ...actions.length === 0
        ? []
        : [complete(`-n ${fishQuote(`__hapi_backup_verb ${spec.verb} 2`)} -a`, fishQuote(actions.join(" ")))],
      ...optionsOf(spec).map((option) => {
        const { name, value } = flagOf(option);
        return complete(
          here,
          `-l ${name.slice(2)}`,
          ...value === undefined ? [] : [fishValue(option, value)],
          "-d",
          fishQuote(option.text),
        );
      }),
    ];
  });
  return `# fish completion for hapi-backup

function __hapi_backup_first
    test (count (commandline -opc)) -eq 1
end

# Whether the verb is the one given; with a second argument, whether so many words stand before the cursor.
function __hapi_backup_verb
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = $argv[1]
    and begin
        test (count $argv) -eq 1; or test (count $words) -eq $argv[2]
    end
end

${complete("-f")}
${lines.join("\n")}
`;
}

function fishValue({ suggestions: words = [] }: OptionSpec, value: string): string {
  if (words.length > 0) return `-x -a ${fishQuote(words.join(" "))}`;
  const kind = kindOf(value);
  return kind === "file" ? "-r -F" : kind === "folder" ? "-x -a '(__fish_complete_directories)'" : "-x";
}

/** In single quotes fish takes a backslash before a quote or a backslash. */
const fishQuote = (text: string): string => `'${text.replace(/[\\']/g, "\\$&")}'`;
