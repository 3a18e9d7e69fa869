/**
 * The hub's configuration: one JSON file, comments allowed, every key optional.
 *
 * Text becomes a {@linkcode Config} here, with absolute paths and every default filled in, and is not checked again.
 *
 * @module
 */

import * as v from "valibot";
import { BackupError } from "../errors.ts";
import { parseBySchema } from "../jsonc.ts";
import { type HubName, isHubName, isSetName, isSourceName, type SetName, type SourceName } from "../names.ts";
import { isWithin, normalizePath } from "../paths.ts";
import {
  byName,
  described,
  numberWithin,
  positive,
  positiveUpTo,
  strictObject,
  wholeNumber,
} from "../schema.ts";
import { RECIPIENTS_MAX, SOURCES_MAX } from "../text_schemas.ts";

/** What of the environment the defaults depend on. */
export interface Surroundings {
  /** Absolute path of the operator's home. */
  readonly home: string;
  readonly hostname: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

const path = described(
  v.pipe(v.string(), v.minLength(1), v.maxLength(4096), v.regex(/^[^\0\n]*$/, "holds a line break or a NUL")),
  "absolute, or starting with ~/ or $HAPI_HOME/",
);
const required = v.optional(described(v.boolean(), "a snapshot without it does not count as good"), false);
const requiredDatabase = v.optional(
  described(
    v.boolean(),
    "nothing is stored when it is missing or cannot be copied; if false, the rest is, and does not count as good",
  ),
  true,
);
const secret = v.optional(
  described(v.boolean(), "never written to disk in plaintext; verify looks for its bytes in the store"),
  false,
);
const name = v.optional(described(
  v.pipe(
    v.string(),
    v.guard(isSourceName, "is not a name: use letters, digits, dot, dash and underscore"),
  ),
  "unique in its set; the last part of the path where left out",
));
const words = v.array(v.pipe(v.string(), v.minLength(1)));
const globs = v.optional(described(words, "patterns of paths inside the folder that are left out"), []);

const source = v.variant("kind", [
  // A database that is gone is what a backup is for: its absence passes only where that is said.
  strictObject({ kind: v.literal("sqlite"), path, name, required: requiredDatabase }),
  strictObject({ kind: v.literal("file"), path, name, required, secret }),
  strictObject({ kind: v.literal("glob"), path, name, required, secret }),
  strictObject({ kind: v.literal("folder"), path, name, required, secret, exclude: globs }),
]);

const ratio = numberWithin(0, 1);

const gate = strictObject({
  rowsLostRatio: v.optional(
    described(
      ratio,
      "a table that lost more than this share of its rows since the last good snapshot makes it suspect",
    ),
    0.5,
  ),
  rowsLostMin: v.optional(described(wholeNumber(0), "... if it lost at least this many rows"), 50),
  ignoreTables: v.optional(described(v.array(v.string()), "tables that may shrink without a word"), []),
});

const set = strictObject({
  sources: described(
    v.pipe(
      v.array(source),
      v.minLength(1),
      v.maxLength(
        SOURCES_MAX,
        `are more than ${SOURCES_MAX}: name a folder, or a pattern of files, or make two sets of them`,
      ),
    ),
    "what is saved: databases, files, patterns of files, folders",
  ),
  keepBase: v.optional(
    described(
      v.boolean(),
      "keep the last image of each database on the hub, for the smallest increments; false keeps page checksums only",
    ),
    true,
  ),
  fullEveryDays: v.optional(
    described(numberWithin(0, 365), "start a new chain when the last full is this old"),
    7,
  ),
  fullOverRatio: v.optional(
    described(ratio, "start a new chain when an increment would exceed this share of the full"),
    0.5,
  ),
  chainLengthMax: v.optional(
    described(wholeNumber(1, 10_000), "start a new chain after this many snapshots"),
    500,
  ),
  maxAgeHours: v.optional(described(positive, "status exits 8 when the newest good snapshot is older"), 26),
  gate: v.optional(described(gate, "what makes a snapshot suspect"), v.parse(gate, {})),
});

/** Beside the sets' folders of the state folder lies that of `ship`, which may reach the network; `all` is all sets. */
const SET_NAMES_TAKEN: readonly string[] = ["ship", "all"];
const setName = v.pipe(
  v.string(),
  v.check(isSetName, "is not a set's name: use lower-case letters, digits and dashes"),
  v.check((text) => !SET_NAMES_TAKEN.includes(text), "is a name that no set can have: use another"),
);

/** The form only: the age library, which knows its checksum, is not for this thread. No text of it is repeated. */
const recipient = v.pipe(
  v.string(),
  v.check(
    (text) => !/^\s*age-(secret-key|plugin)-/i.test(text),
    "is an identity, which is secret and does not belong here: give its public key, which `age-keygen -y` prints",
  ),
  v.check(
    (text) => /^\s*age1[a-z0-9]+\s*$/.test(text),
    "is not a recipient, which looks like age1...",
  ),
);

/** As `parseRsyncTarget` reads it. */
const target = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z0-9_][A-Za-z0-9._-]*@(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*):(?!:)[^\0\n]*$/,
    "is not of the form user@host:path",
  ),
);

const destinationName = v.optional(described(
  v.pipe(
    v.string(),
    v.regex(/^[a-z0-9][a-z0-9-]{0,40}$/, "is not a name: use lower case, digits and dashes"),
  ),
  "what to call it; its kind where left out",
));
const attempts = v.optional(
  described(wholeNumber(1, 20), "how often it is tried before it counts as failed"),
  4,
);
const destination = v.variant("kind", [
  strictObject({
    kind: v.literal("rsync"),
    name: destinationName,
    target: described(
      target,
      "user@host:path; the path is this hub's own folder there, and empty where the far side forces it",
    ),
    identityFile: described(path, "the SSH key that may only add files"),
    knownHostsFile: described(path, "holds the far side's host key; nothing else is accepted"),
    readIdentityFile: v.optional(
      described(path, "an SSH key that may only read, for list, verify, restore and receipts"),
    ),
    readTarget: v.optional(described(target, "user@host:path for the reading key, where it differs")),
    receiptSigners: v.optional(
      described(
        v.array(v.string()),
        "ssh-ed25519 public keys of the storage host, which signs what it verified",
      ),
      [],
    ),
    port: v.optional(described(wholeNumber(1, 65535), "its SSH port"), 22),
    bandwidthLimitKiBps: v.optional(described(wholeNumber(1), "KiB sent in a second, at most")),
    timeoutSeconds: v.optional(described(wholeNumber(1, 86_400), "without a byte moved"), 120),
    attempts,
  }),
  strictObject({
    kind: v.literal("folder"),
    name: destinationName,
    path: described(path, "a store, such as a mounted disk"),
  }),
  strictObject({
    kind: v.literal("rclone"),
    name: destinationName,
    remote: described(
      v.pipe(
        v.string(),
        v.regex(/^[A-Za-z0-9_][A-Za-z0-9._ -]*:[^\0\n]*$/, "is not of the form remote:path"),
      ),
      "remote:path; a store",
    ),
    configFile: v.optional(described(path, "rclone's configuration")),
    attempts,
  }),
]);

/** What can be told; `start` and `success` are for services that miss a run, the others for people. */
const NOTICE_EVENTS = ["start", "success", "failure", "suspect", "recovery", "digest"] as const;
/** One of them. */
export type NoticeEvent = typeof NOTICE_EVENTS[number];

const notifierCommon = {
  name: destinationName,
  on: v.optional(described(
    v.array(v.picklist(NOTICE_EVENTS)),
    "what is told: failure, suspect, recovery and digest; of pings start, success, failure and suspect",
  )),
  digestDays: v.optional(described(positiveUpTo(366), "days between two digests"), 7),
  remindHours: v.optional(
    described(positiveUpTo(8760), "what is still wrong is told again after this long"),
    24,
  ),
};
const url = v.pipe(
  v.string(),
  v.trim(),
  v.check(
    (text) => /^https?:\/\//i.test(text) && URL.canParse(text),
    "is not an http or https address",
  ),
);
const httpNotifier = {
  ...notifierCommon,
  url: v.optional(described(url, "where it is told; either this or urlFile")),
  urlFile: v.optional(described(path, "a file that holds the address, where the address is a secret")),
  timeoutSeconds: v.optional(described(wholeNumber(1, 300), "how long an answer is waited for"), 15),
};
const tokenFile = v.optional(described(path, "a file that holds the token; mode 0600"));
const notifier = v.variant("kind", [
  described(
    strictObject({ kind: v.literal("ntfy"), ...httpNotifier, tokenFile }),
    "the address is that of the topic, such as https://ntfy.sh/my-topic",
  ),
  described(
    strictObject({ kind: v.literal("ping"), ...httpNotifier }),
    "as healthchecks.io takes them: the address, and /start and /fail below it",
  ),
  described(
    strictObject({ kind: v.literal("gotify"), ...httpNotifier, tokenFile: path }),
    "the address is that of the server",
  ),
  described(
    strictObject({ kind: v.literal("webhook"), ...httpNotifier, tokenFile }),
    "gets JSON by POST; the token as `Authorization: Bearer`",
  ),
  strictObject({
    kind: v.literal("command"),
    ...notifierCommon,
    command: described(
      v.pipe(words, v.minLength(1)),
      "an absolute path and arguments; gets JSON on standard input; no shell",
    ),
    timeoutSeconds: v.optional(described(wholeNumber(1, 3600), "how long its end is waited for"), 60),
  }),
]);

const limits = strictObject({
  snapshotSeconds: v.optional(
    described(positive, "longest time that a database's read transaction stays open"),
    900,
  ),
  walGrowthBytes: v.optional(
    described(wholeNumber(1), "most bytes that the WAL may grow by meanwhile"),
    2 ** 30,
  ),
  freeBytesMin: v.optional(described(wholeNumber(0), "free space that a run must leave"), 256 * 2 ** 20),
});

/** The configuration file. */
export const configSchema = strictObject({
  $schema: v.optional(v.string()),
  hub: v.optional(described(
    v.pipe(
      v.string(),
      v.guard(isHubName, "is not a hub's name: use lower-case letters, digits and dashes"),
    ),
    "what this hub is called in every store; the machine's name where left out",
  )),
  hapiHome: v.optional(described(path, "the hub's folder; $HAPI_HOME or ~/.hapi where left out")),
  database: v.optional(
    described(path, "the hub's database; $DB_PATH or hapi.db in the hub's folder where left out"),
  ),
  store: v.optional(described(path, "the local store; ~/.local/share/hapi-backup/store where left out")),
  stateFolder: v.optional(described(
    path,
    "staging, base images, logs and the locks; ~/.local/state/hapi-backup where left out",
  )),
  recipients: v.optional(described(
    v.pipe(v.array(recipient), v.maxLength(RECIPIENTS_MAX, `are more than ${RECIPIENTS_MAX}`)),
    "age recipients (age1...); two or more, kept in different places",
  )),
  signingKeyFile: v.optional(described(
    path,
    "OpenSSH Ed25519 key that signs seals; ~/.config/hapi-backup/signing_ed25519 where left out",
  )),
  identityFile: v.optional(described(path, "age identity for verify and restore; keep it off the hub")),
  signers: v.optional(described(
    v.array(v.string()),
    "ssh-ed25519 public keys whose seals verify and restore accept",
  )),
  sets: v.optional(described(
    byName(setName, set),
    "what is saved, by the name of the set; `state` and `voice` of a hub where left out, as `config check` shows",
  )),
  destinations: v.optional(described(v.array(destination), "where snapshots are sent"), []),
  limits: v.optional(
    described(limits, "past one of these a run stops, and leaves nothing behind"),
    v.parse(limits, {}),
  ),
  localKeepDays: v.optional(
    described(
      numberWithin(0, 36_500),
      "days that shipped snapshots stay in the local store; what is not shipped stays",
    ),
    14,
  ),
  notify: v.optional(described(v.array(notifier), "who is told how it goes"), []),
  proofMaxAgeDays: v.optional(
    described(positiveUpTo(36_500), "be reminded when `keys prove` was not run for longer"),
    180,
  ),
});

/** A source with an absolute path (a pattern, for `glob`) and a name. */
export type Source =
  & { readonly name: SourceName }
  & (
    | { readonly kind: "sqlite"; readonly path: string; readonly required: boolean }
    | {
      readonly kind: "file" | "glob";
      readonly path: string;
      readonly required: boolean;
      readonly secret: boolean;
    }
    | {
      readonly kind: "folder";
      readonly path: string;
      readonly required: boolean;
      readonly secret: boolean;
      readonly exclude: readonly string[];
    }
  );

/** A set: its sources, and what holds for its snapshots. */
export type SetConfig = Omit<v.InferOutput<typeof set>, "sources"> & { readonly sources: readonly Source[] };
/** Where snapshots are sent. */
export type Destination = v.InferOutput<typeof destination> & { readonly name: string };
/** A storage host, by rsync over SSH. */
export type RsyncDestination = Extract<Destination, { kind: "rsync" }>;
/** A folder, such as a mounted disk. */
export type FolderDestination = Extract<Destination, { kind: "folder" }>;
/** Whatever rclone can write to. */
export type RcloneDestination = Extract<Destination, { kind: "rclone" }>;
/** Whom to tell, and how. */
export type Notifier = v.InferOutput<typeof notifier> & { readonly name: string };
/** One that has an address. */
export type HttpNotifier = Exclude<Notifier, { readonly kind: "command" }>;
/** Budgets of a run: past one, it stops and leaves nothing behind. */
export type Limits = v.InferOutput<typeof limits>;
/** What makes a snapshot suspect. */
export type Gate = v.InferOutput<typeof gate>;

/** The configuration with every default filled in and every path absolute. */
export interface Config {
  readonly hub: HubName;
  readonly home: string;
  readonly store: string;
  readonly stateFolder: string;
  readonly recipients: readonly string[];
  readonly signingKeyFile: string;
  readonly identityFile: string | undefined;
  readonly signers: readonly string[];
  readonly sets: ReadonlyMap<SetName, SetConfig>;
  readonly destinations: readonly Destination[];
  readonly limits: Limits;
  readonly localKeepDays: number;
  readonly notify: readonly Notifier[];
  readonly proofMaxAgeDays: number;
  /** When its file was last changed; undefined where that is not known. */
  readonly changedAt?: Date;
}

/** Where the configuration is looked for when `--config` does not say. */
export function defaultConfigFile(around: Surroundings): string {
  return around.env.HAPI_BACKUP_CONFIG || `${configFolder(around)}/config.json`;
}

/** The folder of the configuration and of the keys that a first run makes. */
export function configFolder({ home, env }: Surroundings): string {
  return `${xdgFolder(env.XDG_CONFIG_HOME, `${home}/.config`)}/hapi-backup`;
}

/** What is empty or not absolute counts as not set, as the XDG base directories have it. */
const xdgFolder = (given: string | undefined, otherwise: string): string =>
  given?.startsWith("/") ? given : otherwise;

/**
 * Reads a configuration.
 *
 * @param where What to call it in errors, such as its path.
 * @throws {BackupError} (config) Naming the file, the line, the key, and what is expected there.
 */
export function parseConfig(text: string, where: string, around: Surroundings): Config {
  const hint = "`hapi-backup config schema` lists every key; `hapi-backup config check` reads the file again";
  return resolveConfig(parseBySchema(configSchema, text, where, hint), where, around);
}

/** What only a program without restricted permissions may open. */
const UNREACHABLE: readonly string[] = ["dev", "proc", "sys"];

type Fail = (state: string, hint: string) => never;
type Absolute = (path: string) => string;

function resolveConfig(raw: v.InferOutput<typeof configSchema>, where: string, around: Surroundings): Config {
  const fail: Fail = (state, hint) => {
    throw new BackupError(`Cannot use configuration ${where}: ${state}`, { kind: "config", hint });
  };
  const { home, env } = around;
  // In "hapiHome" itself, $HAPI_HOME is the environment's.
  const hapiHomeAround = absoluteFor(home, "", fail)(env.HAPI_HOME || "~/.hapi");
  const hapiHome = absoluteFor(home, hapiHomeAround, fail)(raw.hapiHome || hapiHomeAround);
  const absolute = absoluteFor(home, hapiHome, fail);

  const database = raw.database || env.DB_PATH;
  const rawSets = Object.entries(raw.sets ?? defaultSets(hapiHome, database && absolute(database)));
  const sets = rawSets.map(([name, set]) =>
    [name as SetName, resolveSet(name, set, absolute, fail)] as const
  );
  const data = xdgFolder(env.XDG_DATA_HOME, `${home}/.local/share`);
  const store = absolute(raw.store ?? `${data}/hapi-backup/store`);
  const state = xdgFolder(env.XDG_STATE_HOME, `${home}/.local/state`);
  const stateFolder = absolute(raw.stateFolder ?? `${state}/hapi-backup`);
  if (isWithin(stateFolder, store)) {
    fail(
      `stateFolder ${stateFolder} is the store, or lies in it`,
      "give it a folder of its own: it holds plaintext, and a store may be copied anywhere",
    );
  }

  const destinations = raw.destinations.map((each, index) => resolveDestination(each, index, absolute));
  const notify = raw.notify.map((each, index) => resolveNotifier(each, index, absolute, fail));
  for (const [what, all] of [["destinations", destinations], ["notifiers", notify]] as const) {
    const names = all.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice) fail(`two ${what} are named ${twice}`, `give one of them another "name"`);
  }

  return {
    hub: raw.hub ?? hubNameFor(around.hostname),
    home,
    store,
    stateFolder,
    recipients: raw.recipients ?? [],
    signingKeyFile: absolute(raw.signingKeyFile ?? `${configFolder(around)}/signing_ed25519`),
    identityFile: raw.identityFile && absolute(raw.identityFile),
    signers: raw.signers ?? [],
    sets: new Map(sets),
    destinations,
    limits: raw.limits,
    localKeepDays: raw.localKeepDays,
    notify,
    proofMaxAgeDays: raw.proofMaxAgeDays,
  };
}

/** Makes paths absolute: `~` and `$HAPI_HOME` stand for these folders. */
const absoluteFor = (home: string, hapiHome: string, fail: Fail): Absolute => (path) => {
  const expanded = path.replace(/^~(?=\/|$)/, () => home).replace(/^\$HAPI_HOME(?=\/|$)/, () => hapiHome);
  if (!expanded.startsWith("/")) {
    fail(`path ${JSON.stringify(path)} is not absolute`, "start it with / or ~/");
  }
  // The environment's are not checked before.
  if (/[\0\n]/.test(expanded)) {
    fail(
      `path ${JSON.stringify(expanded)} holds a line break or a NUL`,
      "check HOME, HAPI_HOME and DB_PATH",
    );
  }
  const absolute = normalizePath(expanded);
  const [, top = ""] = absolute.split("/");
  if (UNREACHABLE.includes(top) && absolute !== "/dev/null") {
    fail(
      `path ${JSON.stringify(path)} lies in /${top}, where this program may not look`,
      "keep it in another folder",
    );
  }
  return absolute;
};

function resolveSet(name: string, raw: v.InferOutput<typeof set>, absolute: Absolute, fail: Fail): SetConfig {
  const seen = new Set<string>();
  const sources = raw.sources.map((source, index): Source => {
    const path = absolute(source.path);
    const own = source.name ?? sourceNameFor(path);
    if (seen.has(own)) {
      fail(`sets.${name}.sources.${index}: the name ${own} is taken`, `give it a "name" of its own`);
    }
    seen.add(own);
    return { ...source, path, name: own };
  });
  return { ...raw, sources };
}

/** @param index Its place in the list, which names it where it has no name. */
function resolveDestination(
  raw: v.InferOutput<typeof destination>,
  index: number,
  absolute: Absolute,
): Destination {
  const name = nameOrKind(raw, index);
  switch (raw.kind) {
    case "rsync":
      return {
        ...raw,
        name,
        identityFile: absolute(raw.identityFile),
        knownHostsFile: absolute(raw.knownHostsFile),
        readIdentityFile: raw.readIdentityFile && absolute(raw.readIdentityFile),
      };
    case "folder":
      return { ...raw, name, path: absolute(raw.path) };
    case "rclone":
      return { ...raw, name, configFile: raw.configFile && absolute(raw.configFile) };
  }
}

/** @param index As for {@linkcode resolveDestination}. */
function resolveNotifier(
  raw: v.InferOutput<typeof notifier>,
  index: number,
  absolute: Absolute,
  fail: Fail,
): Notifier {
  const name = nameOrKind(raw, index);
  if (raw.kind === "command") {
    const [program, ...args] = raw.command;
    return { ...raw, name, command: [absolute(program!), ...args] };
  }
  if ((raw.url === undefined) === (raw.urlFile === undefined)) {
    fail(`notify.${index}: it needs either url or urlFile`, "urlFile names a file that holds the address");
  }
  const address = raw.url && new URL(raw.url);
  if (address && (address.username || address.password)) {
    fail(`notify.${index}.url: a password stands in it`, "use tokenFile, or keep the address in urlFile");
  }
  return {
    ...raw,
    name,
    ...(raw.urlFile ? { urlFile: absolute(raw.urlFile) } : {}),
    ...("tokenFile" in raw && raw.tokenFile ? { tokenFile: absolute(raw.tokenFile) } : {}),
  } as Notifier;
}

/** Its own name, or its kind, with a number unless it is the first of the list. */
const nameOrKind = (
  raw: { readonly kind: string; readonly name?: string | undefined },
  index: number,
): string => raw.name ?? `${raw.kind}${index === 0 ? "" : index + 1}`;

/** What is saved where the configuration names no sets: `state`, taken twice a day, and `voice`, weekly. */
function defaultSets(
  hapiHome: string,
  dbPath: string | undefined,
): Record<string, v.InferOutput<typeof set>> {
  const secretFile = (name: string) => ({ kind: "file", path: `${hapiHome}/${name}`, secret: true });
  return {
    state: v.parse(set, {
      sources: [
        { kind: "sqlite", path: dbPath || `${hapiHome}/hapi.db` },
        ...["hub.env", "settings.json", "jwt-secret.json", "owner-id.json"].map(secretFile),
        { kind: "folder", path: `${hapiHome}/scratchlist-attachments` },
        { kind: "file", path: "~/.config/hapi/driver-manifest.yaml" },
        { kind: "file", path: `${hapiHome}/driver-status.json` },
        { kind: "glob", path: "~/coding/hapi/docs/plans/*.md", name: "plans" },
      ],
    }),
    voice: v.parse(set, {
      sources: [{ kind: "folder", path: "~/voice-test-output" }],
      maxAgeHours: 8 * 24,
      // Taken weekly: with a full every week there would be nothing but fulls.
      fullEveryDays: 56,
    }),
  };
}

/** A source's name from its path: the last part, with what a name cannot hold replaced. */
function sourceNameFor(path: string): SourceName {
  const last = path.split("/").filter((part) => part !== "").at(-1) ?? "root";
  const name = last.replace(/[^A-Za-z0-9._-]+/g, "_").replace(/^[.-]+/, "").slice(0, 80) || "source";
  return name as SourceName;
}

/** A hub's name from the machine's: lower case, what a name cannot hold replaced. */
export function hubNameFor(hostname: string): HubName {
  const name = hostname.toLowerCase().split(".")[0]!.replace(/[^a-z0-9-]+/g, "-").replace(/^-+|-+$/g, "")
    .slice(0, 63);
  return (isHubName(name) ? name : "hub") as HubName;
}
