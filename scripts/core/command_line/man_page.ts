/**
 * The man page, made from the table of commands (man(7): https://man7.org/linux/man-pages/man7/groff_man.7.html).
 *
 * @module
 */

import { EXIT_CODES } from "../errors.ts";
import { STORAGE_CONFIG_FILE } from "../storage_host/storage_names.ts";
import { VERSION } from "../version.ts";
import {
  type ArgumentSpec,
  COMMANDS,
  type CommandSpec,
  type Entry,
  GLOBAL_OPTIONS,
  type OptionSpec,
} from "./commands.ts";
import { flagOf, meaningOf } from "./option_flags.ts";

const FILES: readonly Entry[] = [
  ["~/.config/hapi-backup/config.json", "the hub's configuration: JSON, comments allowed"],
  ["~/.config/hapi-backup/signing_ed25519", "the SSH key that signs seals"],
  ["~/.config/hapi-backup/ship_ed25519", "the SSH key that may only add files on the storage host"],
  ["~/.config/hapi-backup/known_hosts", "the pinned host key of the storage host"],
  ["~/.local/share/hapi-backup/store", "the local store: sealed snapshots, and the logs of runs"],
  [
    "~/.local/state/hapi-backup",
    "staging, the last image of each database, what is shipped, the logs of drills and proofs; in restores/ the " +
    "scripts that undo restores in place",
  ],
  [STORAGE_CONFIG_FILE, "the storage host's configuration"],
  [
    "/var/lib/hapi-backup-storage",
    "what the storage host knows: when each snapshot came and was read, and pins",
  ],
];

const ENVIRONMENT: readonly Entry[] = [
  ["HOME", "the operator's home: what ~ stands for"],
  ["HAPI_HOME", "the hub's folder, ~/.hapi where it is not set"],
  ["DB_PATH", "the hub's database, hapi.db in the hub's folder where it is not set"],
  ["HAPI_BACKUP_CONFIG", "the configuration, where --config does not name it"],
  ["XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME", "move the configuration, the store and the state"],
  ["NO_COLOR", "no colours, whatever the terminal can"],
  ["FORCE_COLOR, CLICOLOR_FORCE", "colours, whatever standard output is"],
  ["TERM", "no colours where it is dumb"],
  ["JOURNAL_STREAM", "set by systemd: lines carry their priority, and no progress is drawn"],
];

/** The page, in section 1. */
export function manPage(): string {
  return [
    `.TH HAPI-BACKUP 1 "" "hapi-backup ${VERSION}" "User Commands"`,
    // No hyphens are put into the names of files and options, and no lines are stretched.
    ".nh",
    ".ad l",
    ".SH NAME",
    "hapi-backup \\- encrypted, append-only, proven backups of a HAPI hub",
    ".SH SYNOPSIS",
    ".B hapi-backup",
    ".I verb",
    "[\\fIoptions\\fR]",
    ".SH DESCRIPTION",
    text(
      "Takes one consistent image of a live hub's SQLite database and of the files beside it, stores what changed since " +
        "the last one, encrypted so that the hub itself cannot read it back, and ships it to a host that cannot read it " +
        "and from which the hub cannot delete it.",
    ),
    ".PP",
    text("Standard output is for data, standard error for people."),
    ...["On the hub", "Anywhere", "On the storage host"].flatMap((group) => [
      `.SH ${group.toUpperCase()}`,
      ...COMMANDS.filter((spec) => spec.group === group).flatMap(verb),
    ]),
    ".SH OPTIONS",
    "Every verb takes these.",
    ...GLOBAL_OPTIONS.flatMap(option),
    ".SH EXIT STATUS",
    ...Object.entries(EXIT_CODES).flatMap(tagged),
    ".SH FILES",
    ...FILES.flatMap(tagged),
    ".SH ENVIRONMENT",
    ...ENVIRONMENT.flatMap(tagged),
    ".SH SEE ALSO",
    ...["age (1)", "rdiff (1)", "rsync (1)", "ssh-keygen (1)", "zstd (1)"]
      .map((page, index, pages) => `.BR ${text(page)}${index < pages.length - 1 ? " ," : ""}`),
  ].join("\n") + "\n";
}

function verb(spec: CommandSpec): string[] {
  const words = (spec.arguments ?? []).map(argument);
  return [
    `.SS ${spec.verb}`,
    `.B ${text(`hapi-backup ${spec.verb}`)}`,
    ...words.map((word) =>
      word.startsWith("[") ? `[\\fI${text(word.slice(1, -1))}\\fR]` : `.I ${text(word)}`
    ),
    ...spec.options.length === 0 ? [] : ["[\\fIoptions\\fR]"],
    ".PP",
    text(sentence(spec.summary)),
    ...(spec.actions ?? []).flatMap(tagged),
    ...spec.actions && spec.details !== undefined ? [".PP"] : [],
    ...(spec.details?.split("\n") ?? []).map((line) => line === "" ? ".PP" : text(line)),
    ...spec.options.flatMap(option),
    ".PP",
    "Example:",
    ".PP",
    ".RS 4",
    ".nf",
    text(spec.example),
    ".fi",
    ".RE",
  ];
}

const argument = ({ name, choices }: ArgumentSpec): string =>
  choices ? choices.join("|") : name.replace(/[<>]/g, "");

function option(spec: OptionSpec): string[] {
  const { name, value } = flagOf(spec);
  const shown = meaningOf(spec) + (spec.default === undefined ? "" : `; ${spec.default} where left out`);
  return [
    ".TP",
    value === undefined ? `.B ${text(name)}` : `.BI ${text(name)} " ${text(value)}"`,
    text(shown),
  ];
}

const tagged = ([term, meaning]: Entry): string[] => [".TP", `.B ${text(term)}`, text(meaning)];

const sentence = (summary: string): string => `${summary[0]!.toUpperCase()}${summary.slice(1)}.`;

/** Text that roff prints as it is, to be copied from the page: a dash is a dash, and no line starts a request. */
function text(plain: string): string {
  return plain
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll('"', "\\(dq")
    .replaceAll("'", "\\(aq")
    .replaceAll("~", "\\(ti")
    .replaceAll("^", "\\(ha")
    .replaceAll("`", "\\(ga")
    .replaceAll("…", "...")
    .replace(/^\./gm, "\\&.");
}
