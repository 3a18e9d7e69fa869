/**
 * What is said to rsync and ssh, and what they answer: argument lists, itemized changes, progress.
 *
 * Fault model: the network is cut at any byte, the far side answers anything, and what stands in the user's own ssh
 * configuration, agent or environment must not matter.
 *
 * @module
 */

import type { RsyncDestination } from "../config/config.ts";
import { BackupError } from "../errors.ts";
import { cleanText } from "../format.ts";
import { INCOMING_PREFIX } from "../names.ts";

/** Where a hub's folder lies on the far side. */
export interface RsyncTarget {
  readonly user: string;
  readonly host: string;
  /** As the far side sees it; empty where a forced command decides (rrsync). */
  readonly path: string;
}

/** How to reach the far side. */
export interface RsyncAccess {
  /** `user@host:path`, or `user@[address]:path` for IPv6. */
  readonly target: string;
  readonly identityFile: string;
  readonly knownHostsFile: string;
  readonly port: number;
  /** Seconds without a byte moved after which a transfer is given up. */
  readonly timeoutSeconds: number;
  /** KiB per second. */
  readonly bandwidthLimitKiBps?: number | undefined;
}

/** How to read a destination with the key that may only read; undefined where it has none. */
export function readingAccess(destination: RsyncDestination): RsyncAccess | undefined {
  const { readIdentityFile, readTarget = destination.target } = destination;
  if (readIdentityFile === undefined) return undefined;
  return { ...destination, target: readTarget, identityFile: readIdentityFile };
}

/** Seconds for a connection to come about, if a transfer waits no shorter. */
const CONNECT_SECONDS_MAX = 30;
/** Seconds between ssh's own signs of life; three unanswered ones end it. */
const ALIVE_SECONDS_MAX = 15;
/** Folders are readable by the storage host's group and inherit it; files too. Nothing is for others. */
const FAR_MODES = "D2750,F0640";
/** rsync takes at most this many folders to compare with. */
const BASIS_FOLDERS_MAX = 20;

/** What every rsync gets as its environment, so that the caller's own changes nothing. */
export const RSYNC_ENV: Readonly<Record<string, string>> = {
  LC_ALL: "C",
  RSYNC_OLD_ARGS: "0",
  RSYNC_PARTIAL_DIR: "",
  RSYNC_PROTECT_ARGS: "0",
  RSYNC_RSH: "",
};

function withoutTrailingSlashes(path: string): string {
  let end = path.length;
  while (end > 1 && path[end - 1] === "/") end--;
  return path.slice(0, end);
}

/** Reads `user@host:path`. @throws {BackupError} (config) If it is something else, such as `host::module`. */
export function parseRsyncTarget(text: string): RsyncTarget {
  const match =
    /^([A-Za-z0-9_][A-Za-z0-9._-]*)@(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][A-Za-z0-9._-]*)):([^\0\n]*)$/
      .exec(text);
  if (!match || match[4]!.startsWith(":")) {
    throw new BackupError(
      `Cannot use target ${JSON.stringify(cleanText(text))}: it is not of the form user@host:path`,
      {
        kind: "config",
        hint: "write backup@storage:path, or backup@storage: where the far side forces the folder; " +
          "an IPv6 address stands in brackets",
      },
    );
  }
  return {
    user: match[1]!,
    host: match[2] ?? match[3]!,
    // Without trailing slashes, but "/" stays what it is.
    path: withoutTrailingSlashes(match[4]!),
  };
}

/** The target as rsync wants it, at `below` the folder. */
function targetArgument({ user, host, path }: RsyncTarget, below = ""): string {
  const name = host.includes(":") ? `[${host}]` : host;
  const folder = path === "" || path.endsWith("/") ? path : `${path}/`;
  return `${user}@${name}:${folder}${below}`;
}

/**
 * The command for rsync's `-e`. Takes nothing from the user's ssh configuration, agent or known hosts.
 * ssh reads the values itself, so they are quoted for ssh first and for rsync then.
 */
export function sshCommand(access: SshAccess): string {
  return sshWords(access).map(quoteForRsync).join(" ");
}

/** What ssh needs of an access. */
export type SshAccess = Pick<RsyncAccess, "identityFile" | "knownHostsFile" | "port" | "timeoutSeconds">;

/** The same command as its words, `ssh` first. */
export function sshWords(access: SshAccess): string[] {
  const options = {
    BatchMode: "yes",
    ConnectTimeout: `${Math.min(CONNECT_SECONDS_MAX, access.timeoutSeconds)}`,
    ControlMaster: "no",
    ControlPath: "none",
    GlobalKnownHostsFile: "/dev/null",
    IdentitiesOnly: "yes",
    IdentityAgent: "none",
    IdentityFile: quoteForSsh(access.identityFile),
    KbdInteractiveAuthentication: "no",
    PasswordAuthentication: "no",
    PreferredAuthentications: "publickey",
    ServerAliveCountMax: "3",
    // On a dead line ssh would else outlive the rsync that gave up.
    ServerAliveInterval: `${Math.min(ALIVE_SECONDS_MAX, Math.ceil(access.timeoutSeconds / 3))}`,
    StrictHostKeyChecking: "yes",
    UpdateHostKeys: "no",
    UserKnownHostsFile: quoteForSsh(access.knownHostsFile),
  };
  const words = ["ssh", "-F", "none", "-T", "-a", "-x", "-p", `${access.port}`];
  for (const [name, value] of Object.entries(options)) words.push("-o", `${name}=${value}`);
  return words;
}

/** A path as ssh reads it in an option: quoted, and `%` doubled, which would else be expanded. */
function quoteForSsh(path: string): string {
  return `"${path.replaceAll("%", "%%").replace(/["\\]/g, "\\$&")}"`;
}

/** A word as rsync splits `-e`: in quotes, a quote is doubled, and a backslash means nothing. */
export function quoteForRsync(word: string): string {
  return /^[^\s'"]+$/.test(word) ? word : `'${word.replaceAll("'", "''")}'`;
}

/** What every connection of ours has in common. */
function commonArgs(access: RsyncAccess): string[] {
  return [
    "-e",
    sshCommand(access),
    `--timeout=${access.timeoutSeconds}`,
    ...(access.bandwidthLimitKiBps === undefined ? [] : [`--bwlimit=${access.bandwidthLimitKiBps}`]),
    "--no-human-readable",
  ];
}

/** Names to transfer come on standard input, NUL after each. */
const NAMED_ARGS = ["--files-from=-", "--from0"];

/** Items with the reason why an existing file was left alone: without `skip2`, no-overwrite hides every difference. */
const VERDICT_ARGS = ["--itemize-changes", "--itemize-changes", "--info=skip2"];

/** Where the parts of one try of an upload are kept when it is cut, in the hub's folder. */
export function incomingFolder(id: string, attempt: number): string {
  return `${INCOMING_PREFIX}${id}-${attempt}`;
}

/** One push of files below `source` (the hub's folder in the local store) to the same names on the far side. */
export interface PushPlan {
  readonly source: string;
  /** The folder below the hub's folder that gets them; empty for their final place. */
  readonly into: string;
  /** Folders of earlier tries, newest first: what is there is not sent again. */
  readonly basis: readonly string[];
  /**
   * Keep what arrived when the connection is cut. Only outside the final place: `rrsync -no-overwrite` refuses
   * `--partial-dir`, and a partial file under its final name could never be completed.
   */
  readonly keepPartial: boolean;
}

/** Arguments of a push. Existing files are never touched, whatever the far side would allow. */
export function pushArgs(access: RsyncAccess, plan: PushPlan): string[] {
  const target = parseRsyncTarget(access.target);
  return [
    ...commonArgs(access),
    ...NAMED_ARGS,
    ...VERDICT_ARGS,
    "--info=progress2",
    "--stats",
    "--ignore-existing",
    "--fsync",
    "--perms",
    `--chmod=${FAR_MODES}`,
    "--checksum",
    "--no-whole-file",
    "--no-inplace",
    plan.keepPartial ? "--partial" : "--no-partial",
    // With --checksum only equal content is linked; anything else serves as the basis of a difference.
    ...basisFolders(target, plan).slice(0, BASIS_FOLDERS_MAX).map((folder) => `--link-dest=${folder}`),
    "--",
    `${plan.source}/`,
    targetArgument(target, plan.into === "" ? "" : `${plan.into}/`),
  ];
}

/**
 * The folders to compare with, as the far side's rsync takes them: rrsync counts an absolute one from its own root
 * and refuses `..`; a plain rsync counts a relative one from the folder that it writes to.
 */
function basisFolders(target: RsyncTarget, plan: PushPlan): string[] {
  const root = target.path.startsWith("/")
    ? target.path.replace(/\/$/, "")
    : target.path === ""
    ? ""
    : `/${target.path}`;
  const absolute = plan.basis.map((folder) => `${root}/${folder}`);
  return plan.into === ""
    ? plan.basis.flatMap((folder, index) => [absolute[index]!, folder])
    : [`${root}/`, ...absolute];
}

/**
 * Arguments that compare without changing anything.
 *
 * @param by `checksum` reads every byte on both sides, `size` none.
 */
export function compareArgs(access: RsyncAccess, source: string, by: "checksum" | "size"): string[] {
  return [
    ...commonArgs(access),
    ...NAMED_ARGS,
    ...VERDICT_ARGS,
    "--dry-run",
    by === "checksum" ? "--checksum" : "--size-only",
    "--",
    `${source}/`,
    targetArgument(parseRsyncTarget(access.target)),
  ];
}

/**
 * Arguments that compare the times of files, without changing anything: a file that is there is told apart where its
 * time differs from ours by more than `seconds`. It needs no key that may read.
 */
export function compareTimesArgs(access: RsyncAccess, source: string, seconds: number): string[] {
  return ["--times", `--modify-window=${seconds}`, ...compareArgs(access, source, "size")];
}

/** Whether a file's time there is ours, by the answer to {@linkcode compareTimesArgs}; undefined if it does not tell. */
export function isTimeSame(stdout: string, name: string): boolean | undefined {
  const match = stdout.split("\n").map((line) => /^(.+) exists \((uptodate|attr change)\)$/.exec(line))
    .find((match) => match?.[1] === name);
  return match ? match[2] === "uptodate" : undefined;
}

/** Arguments that list hubs, their sets and snapshots at the target with the files whose names are `fileNames`. */
export function listArgs(access: RsyncAccess, fileNames: readonly string[]): string[] {
  return [
    ...commonArgs(access),
    "--list-only",
    "--recursive",
    ...PULL_SAFELY,
    "--exclude=.*",
    ...fileNames.map((name) => `--include=${name}`),
    ...["/*/", "/*/*/", "/*/*/*/"].map((folders) => `--include=${folders}`),
    "--exclude=*",
    "--",
    targetArgument(parseRsyncTarget(access.target)),
  ];
}

/**
 * Arguments that ask what a key may do, and change nothing: a dry run about a folder that is not there.
 *
 * @param empty An empty folder of this machine.
 * @param below A folder on the far side that does not exist.
 */
export function probeArgs(
  access: RsyncAccess,
  what: "write" | "delete" | "read",
  empty: string,
  below: string,
): string[] {
  const target = parseRsyncTarget(access.target);
  const common = ["-e", sshCommand(access), `--timeout=${access.timeoutSeconds}`, "--dry-run", "--recursive"];
  switch (what) {
    case "write":
      return [...common, "--", `${empty}/`, targetArgument(target, `${below}/`)];
    case "delete":
      return [
        ...common,
        "--delete",
        "--max-delete=0",
        "--",
        `${empty}/`,
        targetArgument(target, `${below}/`),
      ];
    case "read":
      return [...common, "--list-only", ...PULL_SAFELY, "--exclude=/*/*", "--", targetArgument(target)];
  }
}

/**
 * The far side of a pull is hostile: no links, devices or other things than the files that we name. And for each folder that
 * it lists, rsync would lay out memory for a list of its own: 60,000 empty ones took 14 GB.
 */
const PULL_SAFELY = [
  "--no-links",
  "--safe-links",
  "--no-devices",
  "--no-specials",
  "--no-hard-links",
  "--no-inc-recursive",
];

/** Arguments of a pull of the files named on standard input into `folder`, each of at most `bytesMax` bytes. */
export function pullArgs(access: RsyncAccess, folder: string, bytesMax: number): string[] {
  return [
    ...commonArgs(access),
    ...NAMED_ARGS,
    ...PULL_SAFELY,
    "--info=progress2",
    "--ignore-missing-args",
    "--no-perms",
    "--chmod=D0700,F0600",
    "--checksum",
    `--max-size=${bytesMax}`,
    "--",
    targetArgument(parseRsyncTarget(access.target)),
    `${folder}/`,
  ];
}

/** Names as `--from0 --files-from=-` reads them. */
export function namesInput(names: readonly string[]): string {
  return names.map((name) => `${name}\0`).join("");
}

/** What became of a name: `sent` (or, in a dry run, would be), there and `same`, or there and `different`. */
export type Verdict = "sent" | "same" | "different";

/**
 * Reads rsync's itemized changes and its reasons for skipping, for files. What is not mentioned is not in the map:
 * a caller takes silence for "not proven".
 */
export function parseVerdicts(stdout: string): Map<string, Verdict> {
  const verdicts = new Map<string, Verdict>();
  for (const line of stdout.split(/[\r\n]/)) {
    const skipped = /^(.+) exists \((uptodate|attr change|sum change|file change|type change)\)$/.exec(line);
    if (skipped) {
      verdicts.set(
        skipped[1]!,
        skipped[2] === "uptodate" || skipped[2] === "attr change" ? "same" : "different",
      );
      continue;
    }
    const item = /^([<>ch.])([fdLDS])(.{9}|\s{9}) (.+)$/.exec(line);
    if (!item || item[2] !== "f") continue;
    const [, update, , changes, name] = item;
    if (update === "." || update === "h") verdicts.set(name!.replace(/ => .*$/, ""), "same");
    else verdicts.set(name!, changes!.startsWith("+") ? "sent" : "different");
  }
  return verdicts;
}

/** Reads how far a transfer is from a line of `--info=progress2`: `  6684672  11%  9.77MB/s  0:00:05`. */
export function parseProgress(
  line: string,
): { readonly bytes: number; readonly percent: number } | undefined {
  const match = /^\s*(\d[\d,]*)\s+(\d{1,3})%\s/.exec(line);
  return match ? { bytes: Number(match[1]!.replaceAll(",", "")), percent: Number(match[2]) } : undefined;
}

/** Reads from `--stats` how many bytes went over the network as such, without those that were there already. */
export function parseLiteralBytes(stdout: string): number {
  const match = /^Literal data: ([\d,]+)/m.exec(stdout);
  return match ? Number(match[1]!.replaceAll(",", "")) : 0;
}
