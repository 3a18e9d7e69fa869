/**
 * The storage host's configuration: one JSON file, comments allowed.
 *
 * It names the store, and for each hub the keys that may have signed and the limits. No secret of a hub is in it.
 *
 * @module
 */

import * as v from "valibot";
import { defined } from "../defined.ts";
import { BackupError, ifPossible } from "../errors.ts";
import { parseBySchema } from "../jsonc.ts";
import { fingerprintOf, parsePublicKeyLine } from "../keys/openssh_key.ts";
import type { HubName, SetName } from "../names.ts";
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
import { hubName, setName } from "../text_schemas.ts";
import type { RetentionPolicy } from "./retention.ts";

/** What to do where there is no configuration. */
export const STORAGE_CONFIG_HINT =
  'write one, such as { "store": "/var/lib/hapi-backup-store", "hubs": { "home": { "signers": ["ssh-ed25519 AAAA..."] } } } ' +
  "(`hapi-backup storage schema` lists its keys), or name another with --config";

const path = v.pipe(v.string(), v.regex(/^\/[^\0\n]*$/, "is not an absolute path"), v.maxLength(4096));
const keep = (min: number, text: string) => v.optional(described(wholeNumber(min, 100_000), text));

const retention = strictObject({
  keepWithinDays: v.optional(
    described(numberWithin(0, 36_500), "keep everything that came within so many days"),
  ),
  keepLast: keep(0, "keep the newest so many good ones"),
  keepDaily: keep(0, "keep the last good one of each of so many days"),
  keepWeekly: keep(0, "... weeks, which start on Monday"),
  keepMonthly: keep(0, "... months"),
  keepYearly: keep(0, "... years"),
  keepGoodMin: keep(1, "never fewer good ones than this"),
  lateHoursMax: v.optional(described(
    positiveUpTo(8760),
    "a snapshot that comes later than this after the time in its id takes no other's place",
  )),
});

/** Everything of 14 days, 60 daily, 26 weekly, 24 monthly, never fewer than 14 good ones. */
export const DEFAULT_POLICY: RetentionPolicy = {
  keepWithinDays: 14,
  keepLast: 0,
  keepDaily: 60,
  keepWeekly: 26,
  keepMonthly: 24,
  keepYearly: 0,
  keepGoodMin: 14,
  lateHoursMax: 72,
};

const maxAgeHours = byName(setName, positive);
const hub = strictObject({
  signers: described(
    v.pipe(v.array(v.string()), v.minLength(1)),
    "ssh-ed25519 public keys that may sign this hub's snapshots",
  ),
  user: v.optional(described(
    v.pipe(
      v.string(),
      v.regex(/^[a-z_][a-z0-9_-]{0,31}$/, "cannot name a user (at most 32 characters)"),
    ),
    "the system user that this hub logs in as; hapi-<hub> where left out",
  )),
  maxAgeHours: v.optional(
    described(maxAgeHours, "for each set, when its newest good snapshot is too old"),
    { state: 26, voice: 192 },
  ),
  snapshotsPerDayMax: v.optional(
    described(wholeNumber(1), "more within a day is a flood: reported, and nothing of this hub is removed"),
    24,
  ),
  bytesPerDayMax: v.optional(described(
    wholeNumber(1),
    "the same for bytes; three times the largest of the last 30 days where left out",
  )),
  quotaBytes: v.optional(described(
    wholeNumber(1),
    "space that this hub may take; watch tells from nine tenths of it on",
  )),
  quotaFiles: v.optional(
    described(
      wholeNumber(1),
      "files and folders that it may have; watch tells from nine tenths of it on",
    ),
    200_000,
  ),
  retention: v.optional(described(retention, "what is kept of this hub, where it differs"), {}),
  sets: v.optional(
    described(
      byName(
        setName,
        strictObject({ retention: v.optional(described(retention, "what is kept of it"), {}) }),
      ),
      "sets of which something else is kept",
    ),
    {},
  ),
  drillLogFile: v.optional(
    described(path, "a copy of the log that `hapi-backup verify` writes for this hub"),
  ),
});

/** The configuration file. */
export const storageConfigSchema = strictObject({
  $schema: v.optional(v.string()),
  store: described(path, "the folder that holds the hubs' folders"),
  stateFolder: v.optional(
    described(path, "the ledger; not inside the store"),
    "/var/lib/hapi-backup-storage",
  ),
  timeZone: v.optional(described(
    v.pipe(v.string(), v.check(isTimeZone, "is not a time zone such as Europe/Berlin")),
    "whose days, weeks and months retention counts; the machine's where left out",
  )),
  receiptKeyFile: v.optional(described(
    path,
    "OpenSSH Ed25519 key of this host, with which receipts are signed; none are written without it",
  )),
  rrsync: v.optional(
    described(path, "the program that hubs' keys are confined to"),
    "/usr/bin/rrsync",
  ),
  incomingKeepDays: v.optional(
    described(numberWithin(1, 3650), "an unfinished upload that has not grown for so long is removed"),
    7,
  ),
  clockGapDaysMax: v.optional(
    described(positiveUpTo(3650), "a clock that is further ahead of the last run than this is in doubt"),
    7,
  ),
  scrubMaxAgeDays: v.optional(
    described(positiveUpTo(3650), "watch exits 8 when a part was not read for longer"),
    35,
  ),
  drillMaxAgeDays: v.optional(
    described(positiveUpTo(3650), "... when a hub with a drillLogFile had no good drill for longer"),
    15,
  ),
  diskDaysMin: v.optional(described(numberWithin(0, 3650), "warn when the disk is full sooner"), 14),
  retention: v.optional(
    described(retention, "what is kept of every set, where it differs from the default policy"),
    {},
  ),
  hubs: described(byName(hubName, hub), "the hubs that store here, by name"),
});

type RawHub = v.InferOutput<typeof hub>;
/** What the storage host knows of a hub. */
export interface HubConfig extends Omit<Readonly<RawHub>, "signers" | "maxAgeHours" | "retention" | "sets"> {
  readonly name: HubName;
  readonly user: string;
  /** Fingerprints of the keys that may sign. */
  readonly signers: ReadonlySet<string>;
  readonly maxAgeHours: ReadonlyMap<SetName, number>;
  /** The policy of its sets, and of those named in `setPolicies`. */
  readonly policy: RetentionPolicy;
  readonly setPolicies: ReadonlyMap<SetName, RetentionPolicy>;
}

type RawConfig = v.InferOutput<typeof storageConfigSchema>;
/** The storage host's configuration with every default filled in. */
export interface StorageConfig extends Omit<Readonly<RawConfig>, "$schema" | "retention" | "hubs"> {
  /** The policy of hubs that are not configured. */
  readonly policy: RetentionPolicy;
  readonly hubs: ReadonlyMap<HubName, HubConfig>;
}

/**
 * Reads the storage host's configuration.
 *
 * @param where What to call it in errors, such as its path.
 * @throws {BackupError} (config) Naming the file, the line, the key, and what is expected there.
 */
export function parseStorageConfig(text: string, where: string): StorageConfig {
  const hint = "`hapi-backup storage schema` lists every key";
  const raw = parseBySchema(storageConfigSchema, text, where, hint);
  const { $schema: _, store, stateFolder, hubs, retention, ...rest } = raw;
  const folder = normalizePath(store);
  const state = normalizePath(stateFolder);
  if (isWithin(state, folder)) {
    throw unusable(
      where,
      `stateFolder ${state} is inside the store`,
      "the ledger must not lie where hubs can write",
    );
  }
  const policy = { ...DEFAULT_POLICY, ...defined(retention) };
  const known = Object.entries(hubs).map(([name, raw]) => hubOf(name as HubName, raw, policy, where));
  return {
    ...rest,
    store: folder,
    stateFolder: state,
    policy,
    hubs: new Map(known.map((hub) => [hub.name, hub])),
  };
}

function hubOf(name: HubName, raw: RawHub, defaults: RetentionPolicy, where: string): HubConfig {
  const { signers, maxAgeHours, retention, sets, ...rest } = raw;
  const fingerprints = signers.map((line, index) => {
    try {
      return fingerprintOf(parsePublicKeyLine(line).publicKey);
    } catch (error) {
      if (!(error instanceof BackupError)) throw error;
      throw unusable(where, `hubs.${name}.signers.${index}: ${error.message}`, error.hint ?? "");
    }
  });
  const user = raw.user ?? `hapi-${name}`;
  if (user.length > 32) {
    throw unusable(
      where,
      `hubs.${name}: user ${user} has more than 32 characters`,
      'give it a shorter "user"',
    );
  }
  const policy = { ...defaults, ...defined(retention) };
  return {
    ...rest,
    name,
    user,
    signers: new Set(fingerprints),
    maxAgeHours: new Map(Object.entries(maxAgeHours) as [SetName, number][]),
    policy,
    setPolicies: new Map(
      Object.entries(sets).map(([set, own]) => [
        set as SetName,
        { ...policy, ...defined(own.retention) },
      ]),
    ),
  };
}

/** The policy of one set. */
export function policyOf(config: StorageConfig, hub: HubName, set: SetName): RetentionPolicy {
  const known = config.hubs.get(hub);
  return known?.setPolicies.get(set) ?? known?.policy ?? config.policy;
}

/** The hub with this name. @throws {BackupError} (usage) Naming those that exist. */
export function hubNamed(config: StorageConfig, name: string): HubConfig {
  const hub = config.hubs.get(name as HubName);
  if (hub) return hub;
  throw new BackupError(`Cannot find hub ${JSON.stringify(name)}: it is not in the configuration`, {
    kind: "usage",
    hint: `hubs there: ${[...config.hubs.keys()].join(", ") || "none"}`,
  });
}

function isTimeZone(name: string): boolean {
  return ifPossible(() => new Intl.DateTimeFormat("en-CA", { timeZone: name })) !== undefined;
}

function unusable(where: string, state: string, hint: string): BackupError {
  return new BackupError(`Cannot use configuration ${where}: ${state}`, { kind: "config", hint });
}
