/**
 * Prints the systemd units and timers of this machine, or writes them into a folder. Starts and installs nothing.
 *
 * @module
 */

import type { Config } from "./core/config/config.ts";
import { BackupError } from "./core/errors.ts";
import { MAIN_SET } from "./core/names.ts";
import { parentOf } from "./core/paths.ts";
import { denoArguments } from "./core/sandbox/deno_flags.ts";
import { hubUnits, type Manager, storageUnits, type UnitFiles } from "./core/sandbox/units.ts";
import { shellQuote } from "./core/shell.ts";
import { parseStorageConfig, STORAGE_CONFIG_HINT } from "./core/storage_host/storage_config.ts";
import { readTextIfThere, writeFileDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { serveStep } from "./host/steps/step.ts";
import type { closedParts, Program } from "./host/systemd/reach.ts";
import { isCalendar, readSystemdVersion } from "./host/systemd/systemd.ts";

/** What units are made for. */
export interface SystemdJob {
  /** The hub's configuration; the storage host's units are made where there is none. */
  readonly config: Config | undefined;
  readonly configFile: string;
  readonly manager: Manager;
  readonly user: string;
  /** Whether root asks, who needs no sudo to install them: Debian may have none. */
  readonly isRoot: boolean;
  /** The program to call with a verb; Deno and the path of `mod.ts` where there is none. */
  readonly program: Program;
  /** What of it the units' user cannot get to. */
  readonly closed: ReturnType<typeof closedParts>;
  readonly onFailure: readonly string[];
  readonly before: readonly string[];
  /** `<set or verb>=<calendar expression>` */
  readonly calendars: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** What the sources name, and where that leads behind all links. */
  readonly realPaths: Readonly<Record<string, string>>;
  readonly drillIdentity?: string | undefined;
  readonly drillStore?: string | undefined;
  readonly prometheus?: string | undefined;
  /** Write the files here instead of printing them. */
  readonly to?: string | undefined;
  readonly json: boolean;
}

/** systemd leaves out, or refuses to enable, what has no type, and takes a space for the beginning of another. */
const UNIT_NAME = /^[\w:.@%\\-]+\.(service|target|socket|timer|path|mount|automount|scope|slice)$/;

/** Makes the units. @throws {BackupError} (usage, config) If an option or the configuration does not fit in a unit. */
export async function systemd(
  host: Pick<Host, "fs" | "run" | "report">,
  job: SystemdJob,
): Promise<UnitFiles> {
  refuseUnusable(job);
  const calendars = new Map(job.calendars.map(parseCalendar));
  const files = await unitsOf(host, job, calendars);
  const timers = [...files.keys()].flatMap((name) => /^hapi-backup-(.*)\.timer$/.exec(name)?.[1] ?? []);
  const unknown = [...calendars.keys()].find((name) => !timers.includes(name));
  if (unknown !== undefined) {
    throw new BackupError(`Cannot use --calendar ${unknown}=...: there is no timer of that name here`, {
      kind: "usage",
      hint: `there are ${timers.join(", ")}`,
    });
  }
  for (const [name, when] of calendars) {
    if (await isCalendar(host, when)) continue;
    throw new BackupError(`Cannot use --calendar ${name}=${when}: systemd knows no such time`, {
      kind: "usage",
      hint: `try it with \`systemd-analyze calendar\`, for example --calendar '${name}=*-*-* 06,18:00:00'`,
    });
  }
  return files;
}

/** What systemd would refuse, or pass over, once the units are installed. @throws {BackupError} (usage) */
function refuseUnusable(job: SystemdJob): void {
  if (job.manager === "user" && !job.config) {
    throw new BackupError(
      "Cannot make the storage host's units for --user: they need another user's rights",
      {
        kind: "usage",
        hint: "hapi-backup systemd --system --storage --to ~/units",
      },
    );
  }
  if (job.drillStore !== undefined && job.drillIdentity === undefined) {
    throw new BackupError("Cannot use --drill-store: there is no drill without --drill-identity", {
      kind: "usage",
      hint: "name the identity file that the drill opens snapshots with",
    });
  }
  for (const [flag, names] of [["--before", job.before], ["--on-failure", job.onFailure]] as const) {
    const wrong = names.find((name) => !UNIT_NAME.test(name));
    if (wrong === undefined) continue;
    throw new BackupError(`Cannot use ${flag} ${JSON.stringify(wrong)}: it is not the name of a unit`, {
      kind: "usage",
      hint: "write it out, such as hapi-hub.service or mail@%n.service",
    });
  }
  if (!/^[^\s:/%]+$/.test(job.user)) {
    throw new BackupError(`Cannot make units for user ${JSON.stringify(job.user)}: that cannot name a user`, {
      kind: "usage",
      hint: "name one with --run-as",
    });
  }
}

async function unitsOf(
  host: Pick<Host, "fs" | "run" | "report">,
  job: SystemdJob,
  calendars: ReadonlyMap<string, string>,
): Promise<UnitFiles> {
  const { program } = job;
  const programPaths = typeof program === "string" ? [program] : [program.deno, parentOf(program.entry)];
  for (const { path, closedBy } of job.closed) {
    host.report.warn(
      `${job.user} may not enter ${closedBy}, and the units call ${path}: they would not start. Have it where all may ` +
        `read it, such as /usr/local, and run this from there, or name it with --program`,
    );
  }
  const common = {
    manager: job.manager,
    // Where there is no systemd, the units are for another machine.
    systemdVersion: await readSystemdVersion(host) ?? Number.POSITIVE_INFINITY,
    user: job.user,
    configFile: job.configFile,
    program: (verb: string) =>
      typeof program === "string" ? [program, verb] : [program.deno, ...denoArguments(verb, program.entry)],
    programPaths,
    onFailure: job.onFailure,
    calendars,
  };
  if (job.config) {
    if (job.before.length > 0) requireMainSet(job.config, "--before");
    if (job.drillIdentity !== undefined) requireMainSet(job.config, "--drill-identity");
    if (job.drillStore !== undefined) requireDrillStore(job.config, job.drillStore);
    return hubUnits({
      ...common,
      config: job.config,
      beforeUnits: job.before,
      environment: job.environment,
      realPaths: job.realPaths,
      drill: job.drillIdentity === undefined
        ? undefined
        : { identityFile: job.drillIdentity, store: job.drillStore },
    });
  }
  const text = readTextIfThere(host.fs, job.configFile);
  if (text === undefined) {
    throw new BackupError(`Cannot make units: there is no configuration at ${job.configFile}`, {
      kind: "config",
      hint: STORAGE_CONFIG_HINT,
    });
  }
  return storageUnits({
    ...common,
    config: parseStorageConfig(text, job.configFile),
    prometheusFile: job.prometheus,
  });
}

/** A unit for a set that is not there would save nothing. @throws {BackupError} (usage) */
function requireMainSet({ sets }: Config, option: string): void {
  if (sets.has(MAIN_SET)) return;
  throw new BackupError(
    `Cannot use ${option}: it is about set ${MAIN_SET}, which is not in the configuration`,
    {
      kind: "usage",
      hint: `sets there: ${[...sets.keys()].join(", ")}; leave ${option} out, or give the main one that name`,
    },
  );
}

/** A unit has the keys of destinations only. @throws {BackupError} (usage) */
function requireDrillStore({ destinations }: Config, store: string): void {
  const destination = destinations.find(({ name }) => name === store);
  if (destination?.kind === "rsync" && destination.readIdentityFile === undefined) {
    throw new BackupError(
      `Cannot use --drill-store ${store}: its key may only add, and the drill must read`,
      {
        kind: "usage",
        hint: `name the key that may only read as readIdentityFile of destination ${store}`,
      },
    );
  }
  if (store.startsWith("/") || destination) return;
  throw new BackupError(
    `Cannot use --drill-store ${store}: it is neither a destination's name nor an absolute folder`,
    {
      kind: "usage",
      hint: `destinations: ${destinations.map(({ name }) => name).join(", ") || "none"}`,
    },
  );
}

function parseCalendar(text: string): [string, string] {
  const [, name, when] = /^([a-z0-9-]+)=(.+)$/.exec(text) ?? [];
  if (name !== undefined && when !== undefined && !/[\r\n]/.test(when)) return [name, when];
  throw new BackupError(`Cannot use --calendar ${JSON.stringify(text)}: it is not of the form SET=WHEN`, {
    kind: "usage",
    hint:
      "for example --calendar 'state=*-*-* 06,18:00:00'; `systemd-analyze calendar` reads the part after the =",
  });
}

/** Where the files go, and how they come to life. */
function installText(files: UnitFiles, { manager, isRoot }: SystemdJob, from: string): string {
  const names = [...files.keys()];
  const units = manager === "system" ? "/etc/systemd/system" : "~/.config/systemd/user";
  const tmpfiles = manager === "system" ? "/etc/tmpfiles.d" : "~/.config/user-tmpfiles.d";
  const sudo = manager === "system" && !isRoot ? "sudo " : "";
  const user = manager === "system" ? "" : " --user";
  const enabled = names.filter((name) => /\.timer$|-before-start\.service$/.test(name));
  const conf = names.find((name) => name.endsWith(".conf"))!;
  const folder = /^[\w./-]+$/.test(from) ? from : shellQuote(from);
  return [
    // They may have been written where they belong: install(1) copies no file onto itself.
    ...from.endsWith(units.replace("~", "")) ? [] : [
      `${sudo}install -D -m 0644 -t ${units} ${folder}/*.service ${folder}/*.timer`,
    ],
    `${sudo}install -D -m 0644 -t ${tmpfiles} ${folder}/${conf}`,
    `${sudo}systemd-tmpfiles${user} --create ${tmpfiles}/${conf}`,
    `${sudo}systemctl${user} daemon-reload`,
    `${sudo}systemctl${user} enable --now ${enabled.filter((name) => name.endsWith(".timer")).join(" ")}`,
    ...enabled.filter((name) => name.endsWith(".service")).map((name) =>
      `${sudo}systemctl${user} enable ${name}`
    ),
    // A user's manager ends with the last session, and the timers with it.
    ...manager === "user" ? ["loginctl enable-linger"] : [],
  ].join("\n");
}

/** What an earlier call may have left in the folder, for sets that are gone by now. */
const OUR_FILE = /^hapi-backup.*\.(service|timer|conf)$/;

serveStep<SystemdJob>(import.meta, async (job, { host, print }) => {
  const files = await systemd(host, job);
  const { to, json } = job;
  if (to === undefined && json) return print(JSON.stringify({ ok: true, files: Object.fromEntries(files) }));
  if (to === undefined) {
    print([...files].map(([name, text]) => `# ---- ${name}\n${text}`).join("\n").trimEnd());
    return;
  }
  host.fs.mkdir(to, { recursive: true });
  for (const [name, text] of files) writeFileDurably(host.fs, `${to}/${name}`, text, 0o644);
  const others = host.fs.readDir(to).map(({ name }) => name)
    .filter((name) => OUR_FILE.test(name) && !files.has(name));
  if (others.length > 0) {
    host.report.warn(
      `${to} holds ${
        others.join(", ")
      }, too, from another time: remove what is no longer wanted, here and where it is installed`,
    );
  }
  if (json) return print(JSON.stringify({ ok: true, to, files: [...files.keys()] }));
  print(`wrote ${files.size} files to ${to}. To install them:\n${installText(files, job, to)}`);
});
