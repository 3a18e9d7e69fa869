/**
 * The systemd units of a hub and of a storage host, as text.
 *
 * Invariant: what a unit may touch and how it runs is said once, in `nix/units.json`. This file fills that description
 * in for plain systemd, the Nix modules do so for NixOS, and a test compares the two line by line.
 *
 * @module
 */

import description from "../../../nix/units.json" with { type: "json" };
import type { Config, Destination, Notifier, Source } from "../config/config.ts";
import { folderOf, programOf, readableRoot, tokenFileOf } from "../config/named_paths.ts";
import { BackupError } from "../errors.ts";
import { MAIN_SET } from "../names.ts";
import { isWithin, parentOf } from "../paths.ts";
import type { StorageConfig } from "../storage_host/storage_config.ts";

/** Whose manager runs the units: the machine's, or the operator's own. */
export type Manager = "system" | "user";

/** What both sides need to know. */
interface CommonUnits {
  readonly manager: Manager;
  /** Which systemd reads the units, such as 252: older ones complain of settings that they do not know. */
  readonly systemdVersion: number;
  /** The user that the units run as. */
  readonly user: string;
  readonly configFile: string;
  /** The program and what comes before a verb's own options. */
  readonly program: (verb: string) => readonly string[];
  /** Paths that the program needs to see, where they lie in a home. */
  readonly programPaths: readonly string[];
  /** Units to start when one of ours fails; `%n` in them is the name of the one that failed. */
  readonly onFailure: readonly string[];
  /** Calendar expressions by set, or by verb; the description's own where left out. */
  readonly calendars: ReadonlyMap<string, string>;
}

/** What the hub's units are made of. */
export interface HubUnits extends CommonUnits {
  readonly config: Config;
  /** Units before whose start a snapshot of the main set is taken. */
  readonly beforeUnits: readonly string[];
  /** What the sources name, and where that leads behind all links. */
  readonly realPaths: Readonly<Record<string, string>>;
  /** Environment of the units beyond HOME, such as `HAPI_HOME`. */
  readonly environment: Readonly<Record<string, string>>;
  /**
   * The identity that a weekly drill of the main set opens snapshots with, and what it reads: a destination's name or an
   * absolute folder; the hub's own store where left out. No drill without it.
   */
  readonly drill?: { readonly identityFile: string; readonly store?: string | undefined } | undefined;
}

/** What the storage host's units are made of. */
export interface StorageUnits extends CommonUnits {
  readonly config: StorageConfig;
  readonly prometheusFile?: string | undefined;
}

/** The files to install, by name; `hapi-backup.conf` is for tmpfiles.d. */
export type UnitFiles = ReadonlyMap<string, string>;

/** One value, or one line each. */
type Setting = string | readonly string[];
type Section = Readonly<Record<string, Setting>>;
type Row = Readonly<Record<string, string>>;
/** What replaces `{name}`, and the lists that `{list.field}` goes through. */
interface Fill {
  readonly texts: Readonly<Record<string, string>>;
  readonly lists: Readonly<Record<string, readonly Row[]>>;
}
interface Service {
  readonly name: string;
  readonly groups: readonly string[];
  /** What the program is called with; empty where `service` says what to start. */
  readonly command: readonly string[];
  readonly unit: Section;
  readonly "unit@system"?: Section;
  readonly "unit@user"?: Section;
  readonly service: Section;
  readonly "service@254"?: Section;
  readonly install?: Section;
}

const SERVICES = description.services as unknown as Readonly<Record<string, Service>>;
const GROUPS = description.groups as unknown as Readonly<Record<string, Section>>;
const TIMERS = description.timers as unknown as Readonly<
  Record<string, Section & { OnCalendar: Readonly<Record<string, string>> }>
>;

/** Makes the units of a hub. @throws {BackupError} (config) If a path cannot stand in a unit. */
export function hubUnits(wanted: HubUnits): UnitFiles {
  const { config, manager, beforeUnits } = wanted;
  const bindable = bindableBy(wanted.systemdVersion);
  const units = new Units(wanted, hubFill(wanted));
  const signing = [{ name: "signing-key", file: plain(config.signingKeyFile, "signingKeyFile") }];
  for (const [set, { sources }] of config.sets) {
    if (SERVICES[set]?.name.includes("{set}") === false) {
      throw new BackupError(
        `Cannot make units: a set cannot have the name of a verb, ${set}: its unit would`,
        {
          kind: "config",
          hint: "choose another name for the set",
        },
      );
    }
    const source = rows("path", sourcePaths(sources, wanted.realPaths).map(bindable));
    const own = { texts: { set }, lists: { credential: signing, source } };
    units.addService("backup", own);
    units.addTimer("backup", set);
    if (set === MAIN_SET && beforeUnits.length > 0) units.addService("before", own);
  }
  const shipping = {
    credential: config.destinations.flatMap(credentialsOf),
    knownHosts: rows("file", config.destinations.flatMap(knownHostsOf).map(bindable)),
    folder: rows("path", config.destinations.flatMap(folderOf).map(bindable)),
    notifier: rows("program", config.notify.flatMap(programOf).map(bindable)),
  };
  if (config.destinations.length > 0) {
    // It tells of every run, for the units that take snapshots have no network.
    const token = config.notify.flatMap(tokensOf);
    units.addService("ship", {
      lists: { ...shipping, credential: [...shipping.credential, ...token], token },
    });
    if (manager === "user") units.addService("ship-done");
    units.addTimer("ship");
  }
  if (wanted.drill) addDrill(units, wanted, wanted.drill, shipping);
  units.addFolders("hub", "hapi-backup.conf");
  return units.files;
}

/** What is filled into all units of a hub. */
function hubFill({ config, ...wanted }: HubUnits): Fill {
  const variables = Object.entries(wanted.environment).map(([name, value]) =>
    `${name}=${plain(value, name)}`
  );
  return {
    texts: {
      home: plain(config.home, "the home"),
      user: wanted.user,
      hub: config.hub,
      config: plain(wanted.configFile, "the configuration"),
      store: plain(config.store, "store"),
      state: plain(config.stateFolder, "stateFolder"),
      ...description.defaults,
    },
    lists: {
      program: rows("path", wanted.programPaths.map(bindableBy(wanted.systemdVersion))),
      variable: rows("assignment", variables),
      alarm: rows("unit", wanted.onFailure),
      shipper: rows("unit", config.destinations.length > 0 ? ["hapi-backup-ship.service"] : []),
      chosen: rows("set", [...config.sets.keys()]),
      ancestor: rows("path", ancestors(config.home, [config.store, config.stateFolder])),
      wanter: rows("unit", wanted.beforeUnits),
    },
  };
}

function addDrill(
  units: Units,
  { config, realPaths, systemdVersion }: HubUnits,
  { identityFile, store }: NonNullable<HubUnits["drill"]>,
  shipping: Fill["lists"] & { readonly credential: readonly Row[] },
): void {
  const sources = config.sets.get(MAIN_SET)?.sources ?? [];
  const databases = sourcePaths(sources.filter(({ kind }) => kind === "sqlite"), realPaths);
  const identity = { name: "identity", file: plain(identityFile, "the identity") };
  const needsNetwork = config.destinations.some(({ name, kind }) => name === store && kind !== "folder");
  const folders = store?.startsWith("/") ? [store] : [];
  const own = {
    texts: { set: MAIN_SET, verifyNetwork: needsNetwork ? "network" : "no-network" },
    lists: {
      ...shipping,
      credential: [identity, ...needsNetwork ? shipping.credential : []],
      source: rows("path", [...databases, ...folders].map(bindableBy(systemdVersion))),
    },
  };
  units.addService("verify", own, [
    "--identity",
    identityFile,
    ...store === undefined ? [] : ["--store", store],
  ]);
  units.addTimer("verify");
}

/** Makes the units of a storage host. @throws {BackupError} (config) If a path cannot stand in a unit. */
export function storageUnits(wanted: StorageUnits): UnitFiles {
  const { config, prometheusFile } = wanted;
  const bindable = bindableBy(wanted.systemdVersion);
  const metrics = prometheusFile === undefined ? [] : [plain(prometheusFile, "the metrics file")];
  const drillLogs = [...config.hubs.values()].flatMap(({ drillLogFile }) => drillLogFile ?? []);
  const units = new Units(wanted, {
    texts: {
      user: wanted.user,
      config: plain(wanted.configFile, "the configuration"),
      store: plain(config.store, "store"),
      state: plain(config.stateFolder, "stateFolder"),
    },
    lists: {
      program: rows("path", wanted.programPaths.map(bindable)),
      alarm: rows("unit", wanted.onFailure),
      credential: config.receiptKeyFile === undefined
        ? []
        : [{ name: "receipt-key", file: plain(config.receiptKeyFile, "receiptKeyFile") }],
      metrics: metrics.map((file) => ({ folder: parentOf(file) })),
      drillLog: rows("file", drillLogs.map(bindable)),
    },
  });
  for (const kind of ["scrub", "retain", "watch"]) {
    const more = kind === "watch" ? metrics.flatMap((file) => ["--prometheus", file]) : [];
    units.addService(kind, {}, more);
    units.addTimer(kind);
  }
  units.addFolders("storage", "hapi-backup-storage.conf");
  return units.files;
}

/**
 * The paths that a snapshot of `sources` reads, also where they are links. A database brings its folder, because its
 * `-wal` and `-shm` come and go; what lies inside another of the paths is left out.
 */
export function sourcePaths(
  sources: readonly Source[],
  realPaths: Readonly<Record<string, string>> = {},
): string[] {
  const paths = sources.flatMap((source) => {
    const root = readableRoot(source);
    return [root, realPaths[root] ?? root].map(source.kind === "sqlite" ? parentOf : (path) => path);
  });
  return [...new Set(paths)].filter((path) =>
    !paths.some((other) => other !== path && isWithin(path, other))
  );
}

/** The folders between a home and `paths` in it: tmpfiles would make those for root. */
function ancestors(home: string, paths: readonly string[]): string[] {
  const between = paths.filter((path) => path.startsWith(`${home}/`)).flatMap((path) => {
    const names = path.slice(home.length + 1).split("/").slice(0, -1);
    return names.map((_, index) => [home, ...names.slice(0, index + 1)].join("/"));
  });
  return [...new Set(between)];
}

function credentialsOf(destination: Destination): Row[] {
  const one = (what: string, file: string | undefined) =>
    file === undefined
      ? []
      : [{ name: `${destination.name}-${what}`, file: plain(file, `${what} of ${destination.name}`) }];
  switch (destination.kind) {
    case "rsync":
      return [...one("key", destination.identityFile), ...one("read-key", destination.readIdentityFile)];
    case "rclone":
      return one("rclone-config", destination.configFile);
    case "folder":
      return [];
  }
}

/** The secrets of a notifier. */
function tokensOf(notifier: Notifier): Row[] {
  if (notifier.kind === "command") return [];
  return Object.entries({ url: notifier.urlFile, token: tokenFileOf(notifier) }).flatMap(([what, file]) =>
    file === undefined
      ? []
      : [{ name: `${notifier.name}-${what}`, file: plain(file, `${what}File of ${notifier.name}`) }]
  );
}

const knownHostsOf = (destination: Destination): string[] =>
  destination.kind === "rsync" ? [destination.knownHostsFile] : [];

/** Units that are made one by one of what all of them are filled in with. */
class Units {
  readonly files = new Map<string, string>();

  constructor(private readonly wanted: CommonUnits, private readonly fill: Fill) {}

  /**
   * @param own What is filled into this one alone.
   * @param more Arguments after those that all have.
   */
  addService(kind: string, own: Partial<Fill> = {}, more: readonly string[] = []): void {
    const { manager, systemdVersion, program, configFile } = this.wanted;
    const { name, groups, command, unit, install, ...service } = SERVICES[kind]!;
    const fill = this.#fillWith(own);
    const fills = (text: string) => fillIn(text, fill);
    const [verb, ...args] = command.flatMap(fills);
    const exec = verb === undefined ? [] : [...program(verb), ...args, "--config", configFile, ...more];
    const since254 = systemdVersion >= 254 ? service["service@254"] : undefined;
    const sections = groups.flatMap(fills).flatMap((group) => [GROUPS[group], GROUPS[`${group}@${manager}`]]);
    this.files.set(
      `${fills(name)[0]}.service`,
      text([
        ["Unit", filled([unit, service[`unit@${manager}`]], fill)],
        [
          "Service",
          new Map([
            ["ExecStart", exec.map(execArgument).join(" ")],
            ...filled([...sections, service.service, since254], fill),
          ]),
        ],
        ["Install", filled([install], fill)],
      ]),
    );
  }

  /** @param set Whose runs it starts, where each set has a timer of its own. */
  addTimer(kind: string, set?: string): void {
    const { Description, OnCalendar, ...rest } = TIMERS[kind]!;
    const fill = this.#fillWith(set === undefined ? {} : { texts: { set } });
    const name = set ?? kind;
    const when = this.wanted.calendars.get(name) ?? OnCalendar[name] ?? OnCalendar["*"]!;
    this.files.set(
      `${fillIn(SERVICES[kind]!.name, fill)[0]}.timer`,
      text([
        ["Unit", filled([{ Description: Description! }], fill)],
        ["Timer", filled([{ OnCalendar: when, ...rest }], fill)],
        ["Install", filled([{ WantedBy: "timers.target" }], fill)],
      ]),
    );
  }

  /** A file for tmpfiles.d: the folders that the units expect to be there. */
  addFolders(side: keyof typeof description.folders, name: string): void {
    const lines = description.folders[side].flatMap((line) => fillIn(line, this.fill));
    // A user's own tmpfiles can only make what is the user's.
    const owned = this.wanted.manager === "system"
      ? lines
      : lines.map((line) => line.replace(/( \d{4}) \S+ \S+ -$/, "$1 - - -"));
    this.files.set(name, owned.join("\n") + "\n");
  }

  #fillWith({ texts, lists }: Partial<Fill>): Fill {
    return { texts: { ...this.fill.texts, ...texts }, lists: { ...this.fill.lists, ...lists } };
  }
}

/** Merges sections: lists grow, later texts win; `{…}` is replaced. What ends up as an empty list is left out. */
function filled(sections: readonly (Section | undefined)[], fill: Fill): ReadonlyMap<string, Setting> {
  const merged = new Map<string, Setting>();
  for (const section of sections) {
    for (const [key, value] of Object.entries(section ?? {})) {
      const before = merged.get(key) ?? [];
      if (typeof value === "string") merged.set(key, fillIn(value, fill)[0] ?? "");
      else merged.set(key, [...before, ...value.flatMap((line) => fillIn(line, fill))]);
    }
  }
  return merged;
}

/** Replaces `{name}`, and repeats the line for each row of the list that a `{list.field}` names. */
function fillIn(line: string, { texts, lists }: Fill): string[] {
  const list = /\{(\w+)\.\w+\}/.exec(line)?.[1];
  const rows = list === undefined ? [{}] : lists[list] ?? missing(list);
  return rows.map((row: Row) =>
    line.replace(
      /\{(\w+)(?:\.(\w+))?\}/g,
      (_, name: string, field: string | undefined) =>
        (field === undefined ? texts[name] : row[field]) ?? missing(name),
    )
  );
}

function missing(name: string): never {
  throw new BackupError(`Cannot make units: units.json names {${name}}, which nothing fills in`, {
    kind: "internal",
  });
}

function text(sections: readonly (readonly [string, ReadonlyMap<string, Setting>])[]): string {
  return sections.flatMap(([title, settings]) => {
    const lines = [...settings].flatMap(([key, value]) =>
      (typeof value === "string" ? [value] : value).map((line) => `${key}=${line}`)
    );
    return lines.length === 0 ? [] : [[`[${title}]`, ...lines].join("\n") + "\n"];
  }).join("\n");
}

const rows = (field: string, values: readonly string[]): Row[] => values.map((value) => ({ [field]: value }));

/** Quotes an argument for ExecStart as NixOS does: always in quotes, nothing is a specifier or a variable. */
function execArgument(argument: string): string {
  return JSON.stringify(argument).replaceAll("%", "%%").replaceAll("$", "$$$$");
}

/**
 * Writes paths for the lists of paths in a unit. Newer systemds take a space only in quotes; and since 255 they lose a path
 * with a quote in it between parsing and mounting (https://github.com/systemd/systemd/pull/40985): such a source would not
 * be saved.
 */
const bindableBy = (systemdVersion: number) => (path: string): string => {
  if (systemdVersion >= 255 ? /["'\n]/.test(path) : /["\n]/.test(path)) {
    throw unusable(
      path,
      "a path",
      "rename it: a line end or a quote in a path does not come through to a unit",
    );
  }
  const escaped = path.replaceAll("%", "%%").replace(/[\\:]/g, "\\$&");
  return /[\\ \t:']/.test(path) ? `"${escaped}"` : escaped;
};

/** A path that needs no escaping anywhere in a unit. */
function plain(path: string, what: string): string {
  if (/^\/[\w.@+,~/-]*$/.test(path)) return path;
  throw unusable(path, what, "use letters, digits and . _ - / only");
}

function unusable(path: string, what: string, hint: string): BackupError {
  return new BackupError(`Cannot make units: ${what}, ${JSON.stringify(path)}, would need quoting`, {
    kind: "config",
    hint,
  });
}
