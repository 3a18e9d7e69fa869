/**
 * One page of checks, each with its remedy: whether the next run will work, and whether the last ones were worth it.
 *
 * Changes nothing but its own scratch. What it asks of a destination is a dry run.
 *
 * @module
 */

import type { Config, Destination, RsyncDestination, SetConfig, Source } from "./core/config.ts";
import { BackupError, type ErrorKind, exitCodeOf, reasonOf } from "./core/errors.ts";
import { formatBytes, formatDuration } from "./core/format.ts";
import { SEAL_FILE, type SetName } from "./core/names.ts";
import { fingerprintOf } from "./core/openssh_key.ts";
import { isPinned } from "./core/host_keys.ts";
import { parentOf } from "./core/paths.ts";
import { readableRoot } from "./core/permissions.ts";
import { compareTimesArgs, isTimeSame, parseRsyncTarget } from "./core/rsync_args.ts";
import { DAY_MS } from "./core/time.ts";
import { parseTrust } from "./core/trust.ts";
import { createEncrypter } from "./host/age.ts";
import { DRILL_DAYS_MAX } from "./host/drill_log.ts";
import { isOnDevices, requireMounted } from "./host/folder_destination.ts";
import { lstatIfThere, readTextIfThere, removeIfThere, writeFileDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { type SetStatus, status } from "./host/hub_status.ts";
import { readIdentities, recipientOf } from "./host/identity.ts";
import { type Probed, probeRsync } from "./host/probe.ts";
import { isProofDue, readProofs } from "./host/proof_log.ts";
import { describeRemote } from "./host/rclone.ts";
import { realRetry } from "./host/retry.ts";
import { runRsync } from "./host/rsync.ts";
import { readRuns } from "./host/run_log.ts";
import { type Confirmed, lastConfirmed, readShipRecords, shipFolder } from "./host/ship_records.ts";
import { readSigningKey } from "./host/signing_key.ts";
import { requireDatabase } from "./host/sqlite.ts";
import { serveStep } from "./host/step.ts";
import { readTimers } from "./host/timers.ts";

/** One line of the page. */
export interface Finding {
  readonly group: "Sources" | "Keys" | "Runs" | "Destinations" | "Proof";
  readonly name: string;
  /** `warn` is told and changes no exit code. */
  readonly state: "ok" | "warn" | "fail";
  readonly detail: string;
  readonly remedy?: string | undefined;
  /** Of a `fail`: what the exit code is made of. */
  readonly kind?: ErrorKind | undefined;
}

/** What else the step is told. */
export interface DoctorOptions {
  /** Files off the configuration's paths that may hold an identity. */
  readonly candidates: readonly string[];
  /** Devices that the sources are on. */
  readonly sourceDevices: readonly number[];
  /** Whether programs may be asked: ssh, rsync and systemctl. */
  readonly offline: boolean;
}

/** Older than this, rsync lets a hostile far side write where it wants (CVE-2024-12084 to 12088). */
const RSYNC_SOUND = [3, 4, 0] as const;
/** From here on rsync tells why it leaves a file alone, which shipping needs. */
const RSYNC_NEEDED = [3, 5, 0] as const;
/** Seconds by which two clocks may differ. */
const CLOCK_SECONDS_MAX = 300;
const IDENTITY_BYTES_MAX = 64 * 1024;

/** Checks everything. What cannot be looked at is a finding too. */
export async function doctor(host: Host, config: Config, options: DoctorOptions): Promise<Finding[]> {
  const findings: Finding[] = [];
  const sets = status(host, config);
  const parts: [Finding["group"], () => Finding[] | Promise<Finding[]>][] = [
    ["Sources", () => [...config.sets].flatMap(([name, set]) => checkSources(host, name, set))],
    ["Sources", () => checkSpace(host, config)],
    ["Keys", () => checkRecipients(config)],
    ["Keys", () => checkIdentities(host, config, options.candidates)],
    ["Keys", () => checkSigning(host, config)],
    ["Keys", () => checkModes(host, config)],
    ["Runs", () => sets.flatMap((set) => checkRuns(host, config, set))],
    ["Runs", () => options.offline ? [] : checkTimers(host)],
    ["Runs", () => checkNotifiers(config)],
    ["Destinations", () => checkShipped(host, config, sets)],
    ["Destinations", () => options.offline ? [] : checkRsync(host, config)],
    ["Destinations", () => checkDestinations(host, config, options)],
    ["Proof", () => checkProof(host, config, sets)],
  ];
  for (const [group, check] of parts) {
    host.checkpoint();
    try {
      findings.push(...await check());
    } catch (error) {
      if (error instanceof BackupError && error.kind === "cancelled") throw error;
      const { hint: remedy, kind = "internal" } = error instanceof BackupError ? error : {} as BackupError;
      findings.push({ group, name: "looked at", state: "fail", detail: reasonOf(error), remedy, kind });
    }
  }
  return findings;
}

/** The error that the page ends with; undefined if nothing failed. The lowest exit code is the most telling. */
export function doctorError(findings: readonly Finding[]): BackupError | undefined {
  const failed = findings.filter(({ state }) => state === "fail");
  if (failed.length === 0) return undefined;
  const rank = ({ kind = "internal" }: Finding) => exitCodeOf(kind) === 1 ? 99 : exitCodeOf(kind);
  const worst = failed.toSorted((a, b) => rank(a) - rank(b))[0]!;
  return new BackupError(
    `Cannot call it healthy: ${failed.length} of ${findings.length} checks failed; first ${worst.name}: ${worst.detail}`,
    { kind: worst.kind ?? "internal", ...(worst.remedy ? { hint: worst.remedy } : {}) },
  );
}

function checkSources(host: Host, setName: SetName, set: SetConfig): Finding[] {
  const absent: string[] = [];
  const findings = set.sources.flatMap((source): Finding[] => {
    const about = { group: "Sources" as const, name: `${setName}: ${source.name}` };
    const fail = (detail: string, remedy: string): Finding => ({
      ...about,
      state: "fail",
      detail,
      remedy,
      kind: "source",
    });
    try {
      const root = readableRoot(source);
      if (!lstatIfThere(host.fs, root)) {
        if (source.required) {
          return [fail(`${root} is not there`, "check the path; HAPI_HOME and DB_PATH move the defaults")];
        }
        absent.push(source.name);
        return [];
      }
      const detail = lookAt(host, source, root);
      return [typeof detail === "string" ? { ...about, state: "ok", detail } : { ...about, ...detail }];
    } catch (error) {
      return [fail(reasonOf(error), hintOf(error))];
    }
  });
  if (absent.length === 0) return findings;
  const about = { group: "Sources" as const, name: `${setName}: not on this hub` };
  return [...findings, { ...about, state: "ok", detail: absent.join(", ") }];
}

const hintOf = (error: unknown): string =>
  (error instanceof BackupError ? error.hint : undefined) ??
    "check its owner and mode, and whom the timer runs as";

/** Opens a source as a run would. @returns What it is, or what to say against it. */
function lookAt(
  host: Host,
  source: Source,
  root: string,
): string | Pick<Finding, "state" | "detail" | "remedy"> {
  const { fs } = host;
  if (source.kind === "sqlite") {
    const { wal } = requireDatabase(fs, root);
    const size = formatBytes(fs.stat(root).bytes);
    if (wal) return `${size}, journal mode WAL`;
    return {
      state: "warn",
      detail: `${size}, journal mode is not WAL: a backup holds up its writers, and they hold it up`,
      remedy: "the hub turns WAL on when it starts; is this its database?",
    };
  }
  const { type, mode, bytes } = fs.stat(root);
  if (type === "folder") {
    return `${fs.readDir(root).length} entries in ${root}`;
  }
  using file = fs.open(root, { read: true });
  file.read(new Uint8Array(1));
  if (source.secret && (mode & 0o077) !== 0) {
    return {
      state: "warn",
      detail: `others can read this secret (mode ${octal(mode)})`,
      remedy: `chmod 600 ${root}`,
    };
  }
  return formatBytes(bytes);
}

const octal = (mode: number): string => (mode & 0o7777).toString(8).padStart(4, "0");

/** The next run stages an image of each database, and may store it whole. */
function checkSpace(host: Host, config: Config): Finding[] {
  const { fs } = host;
  const bytes = [...config.sets.values()].flatMap(({ sources }) => sources)
    .filter(({ kind }) => kind === "sqlite")
    .flatMap(({ path }) => ["", "-wal"].flatMap((end) => lstatIfThere(fs, path + end)?.bytes ?? []))
    .reduce((sum, size) => sum + size, 0);
  const needed = 2 * bytes + config.limits.freeBytesMin;
  const about = { group: "Sources" as const, name: "space for the next run" };
  const places = [config.stateFolder, config.store].filter((path) => lstatIfThere(fs, path));
  const free = Math.min(...places.flatMap((path) => fs.freeBytes(path) ?? []));
  if (!Number.isFinite(free)) {
    return [{ ...about, state: "ok", detail: `it may need ${formatBytes(needed)}` }];
  }
  return [
    free >= needed
      ? { ...about, state: "ok", detail: `${formatBytes(free)} free, ${formatBytes(needed)} may be needed` }
      : {
        ...about,
        state: "fail",
        detail: `${formatBytes(free)} free, and ${formatBytes(needed)} may be needed`,
        remedy: `free some space, or move "stateFolder" and "store"`,
        kind: "disk",
      },
  ];
}

async function checkRecipients({ recipients }: Config): Promise<Finding[]> {
  const about = { group: "Keys" as const, name: "recipients" };
  try {
    await createEncrypter(recipients);
  } catch (error) {
    return [{ ...about, state: "fail", detail: reasonOf(error), remedy: hintOf(error), kind: "config" }];
  }
  return [
    recipients.length >= 2 ? { ...about, state: "ok", detail: `${recipients.length}` } : {
      ...about,
      state: "warn",
      detail: "there is one only: with its identity every backup would be lost",
      remedy:
        "make a second identity, kept in another place: age-keygen, then `hapi-backup keys add age1...`",
    },
  ];
}

/** Looks for the identity of a configured recipient where it should not be. */
async function checkIdentities(
  host: Host,
  config: Config,
  candidates: readonly string[],
): Promise<Finding[]> {
  const paths = [...config.identityFile === undefined ? [] : [config.identityFile], ...candidates];
  const found = new Set<string>();
  for (const path of paths) {
    try {
      const stat = lstatIfThere(host.fs, path);
      if (stat?.type !== "file" || stat.bytes > IDENTITY_BYTES_MAX) continue;
      const text = readTextIfThere(host.fs, path) ?? "";
      // An identity may stand between other lines, as in a mail or a note.
      const lines = text.match(/AGE-SECRET-KEY-(PQ-)?1[A-Z0-9]+/g) ?? [];
      for (const line of lines) {
        const recipient: string = await recipientOf(readIdentities(line)[0]!);
        if (config.recipients.includes(recipient)) found.add(path);
      }
    } catch { /* Not one of ours, or not for us to read. */ }
  }
  const about = { group: "Keys" as const, name: "no identity on the hub" };
  if (found.size === 0) return [{ ...about, state: "ok", detail: `${paths.length} places looked at` }];
  return [{
    ...about,
    state: "fail",
    detail: `${[...found].join(", ")} opens the backups: whoever takes this machine can read them all`,
    remedy:
      "move it to two safe places off this machine (shred -u), and remove identityFile from the configuration",
    kind: "key",
  }];
}

function checkSigning(host: Host, config: Config): Finding[] {
  const about = { group: "Keys" as const, name: "signing key" };
  try {
    const { publicKey } = readSigningKey(host, config.signingKeyFile);
    const fingerprint = fingerprintOf(publicKey);
    if (config.signers.length > 0 && !parseTrust(config.signers).has(fingerprint)) {
      return [{
        ...about,
        state: "fail",
        detail:
          `${config.signingKeyFile} is not among "signers": verify and restore would not trust new snapshots`,
        remedy: `add its public key to "signers", here and on the storage host`,
        kind: "key",
      }];
    }
    return [{ ...about, state: "ok", detail: fingerprint }];
  } catch (error) {
    return [{ ...about, state: "fail", detail: reasonOf(error), remedy: hintOf(error), kind: "key" }];
  }
}

/** Files that only their owner may read. */
function checkModes(host: Host, config: Config): Finding[] {
  const files = [
    config.signingKeyFile,
    ...config.destinations.flatMap((destination) =>
      destination.kind === "rsync"
        ? [destination.identityFile, destination.readIdentityFile]
        : destination.kind === "rclone"
        ? [destination.configFile]
        : []
    ),
    ...config.notify.flatMap((notifier) =>
      notifier.kind === "command"
        ? []
        : [notifier.urlFile, "tokenFile" in notifier ? notifier.tokenFile : undefined]
    ),
    config.stateFolder,
  ].filter((path) => path !== undefined);
  const open = files.filter((path) => ((statIfThere(host, path)?.mode ?? 0) & 0o077) !== 0);
  const about = { group: "Keys" as const, name: "file modes" };
  return open.length === 0
    ? [{ ...about, state: "ok", detail: `${files.length} private files and folders` }]
    : open.map((path) => ({
      ...about,
      state: "fail",
      detail: `${path} is open to others (mode ${octal(host.fs.stat(path).mode)})`,
      remedy: `chmod go= ${path}`,
      kind: "key",
    }));
}

function statIfThere(host: Host, path: string) {
  return lstatIfThere(host.fs, path) && host.fs.stat(path);
}

function checkRuns(host: Host, config: Config, set: SetStatus): Finding[] {
  const last = readRuns(host, config, { verb: "backup", set: set.set }).at(-1);
  const group = "Runs" as const;
  if (set.newest === undefined && last === undefined && !set.stale) return [];
  return [
    set.stale
      ? {
        group,
        name: `${set.set}: newest good snapshot`,
        state: "fail",
        detail: set.ageSeconds === undefined
          ? "there is none"
          : `${formatDuration(set.ageSeconds)} old, limit ${set.maxAgeHours} h`,
        remedy: "run `hapi-backup backup`, and look at the log of its timer",
        kind: "stale",
      }
      : {
        group,
        name: `${set.set}: newest good snapshot`,
        state: "ok",
        detail: `${formatDuration(set.ageSeconds ?? 0)} old`,
      },
    ...set.suspect
      ? [{
        group,
        name: `${set.set}: newest snapshot`,
        state: "fail" as const,
        detail: `${set.suspect} is suspect${last?.suspicions ? `: ${last.suspicions.join("; ")}` : ""}`,
        remedy: "look at the source; if the loss is intended: hapi-backup backup --accept",
        kind: "source" as const,
      }]
      : [],
    ...last && !last.ok
      ? [{
        group,
        name: `${set.set}: last run`,
        state: "fail" as const,
        detail: `${last.message ?? "it failed"} (${
          formatDuration((host.now().getTime() - Date.parse(last.at)) / 1000)
        } ago)`,
        remedy: last.hint,
        kind: (last.kind ?? "internal") as ErrorKind,
      }]
      : [],
  ];
}

/** Asks both managers for timers of ours. */
async function checkTimers(host: Host): Promise<Finding[]> {
  const about = { group: "Runs" as const, name: "timers" };
  const timers = await readTimers(host);
  if (!timers) {
    return [{
      ...about,
      state: "warn",
      detail: "systemd cannot be asked here",
      remedy: "make sure that something runs `hapi-backup backup` twice a day, such as cron",
    }];
  }
  const remedy = "hapi-backup systemd --user --to ~/.config/systemd/user, then systemctl --user enable --now";
  if (timers.length === 0) {
    return [{
      ...about,
      state: "fail",
      detail: "none is there: nothing runs by itself",
      remedy,
      kind: "stale",
    }];
  }
  const dead = timers.filter(({ next }) => next === undefined).map(({ unit }) => unit);
  if (dead.length > 0) {
    return [{
      ...about,
      state: "fail",
      detail: `${dead.join(", ")} will not run again`,
      remedy,
      kind: "stale",
    }];
  }
  const now = host.now().getTime();
  const soonest = timers.toSorted((a, b) => a.next!.getTime() - b.next!.getTime())[0]!;
  return [{
    ...about,
    state: "ok",
    detail: `${timers.length} active; next ${soonest.unit} in ${
      formatDuration(Math.max(0, soonest.next!.getTime() - now) / 1000)
    }`,
  }];
}

function checkNotifiers({ notify }: Config): Finding[] {
  return [
    notify.length > 0
      ? { group: "Runs", name: "notifiers", state: "ok", detail: notify.map(({ name }) => name).join(", ") }
      : {
        group: "Runs",
        name: "notifiers",
        state: "warn",
        detail: "nobody is told when a run fails",
        remedy: `add one under "notify", such as { "kind": "ntfy", "url": "https://ntfy.sh/TOPIC" }`,
      },
  ];
}

function checkShipped(host: Host, config: Config, sets: readonly SetStatus[]): Finding[] {
  const group = "Destinations" as const;
  if (config.destinations.length === 0) {
    return [{
      group,
      name: "off this machine",
      state: "fail",
      detail: "nothing is: no destination is configured",
      remedy: "hapi-backup init --storage user@host:",
      kind: "unshipped",
    }];
  }
  const ship = readRuns(host, config, { verb: "ship" }).at(-1);
  const lastSaid = ship && !ship.ok ? `: ${ship.message}` : "";
  return config.destinations.map(({ name }): Finding => {
    const waiting = sets.flatMap((set) =>
      set.destinations.find((other) => other.name === name)?.waiting ?? []
    );
    return waiting.length === 0
      ? { group, name: `${name}: holds what is here`, state: "ok", detail: "nothing waits" }
      : {
        group,
        name: `${name}: holds what is here`,
        state: "fail",
        detail: `${waiting.length} snapshots wait, the oldest of ${waiting[0]}${lastSaid}`,
        remedy: ship?.hint ?? "run `hapi-backup ship`",
        kind: "unshipped",
      };
  });
}

async function checkRsync(host: Host, { destinations }: Config): Promise<Finding[]> {
  if (!destinations.some(({ kind }) => kind === "rsync")) return [];
  const about = { group: "Destinations" as const, name: "rsync" };
  const { stdout } = await host.run("rsync", ["--version"], { secondsMax: 20 });
  const version = /version v?(\d+)\.(\d+)\.(\d+)/.exec(stdout)?.slice(1).map(Number);
  if (!version) return [{ ...about, state: "warn", detail: "its version cannot be told" }];
  const shown = version.join(".");
  if (isOlder(version, RSYNC_SOUND)) {
    return [{
      ...about,
      state: "fail",
      detail: `${shown} has known holes (CVE-2024-12084 and others)`,
      remedy: "update rsync, here and on the storage host",
      kind: "config",
    }];
  }
  if (isOlder(version, RSYNC_NEEDED)) {
    return [{
      ...about,
      state: "fail",
      detail: `${shown} does not tell why it leaves a file alone, which shipping needs`,
      remedy: `use rsync ${RSYNC_NEEDED.join(".")} or newer, here and on the storage host`,
      kind: "config",
    }];
  }
  return [{ ...about, state: "ok", detail: shown }];
}

function isOlder(version: readonly number[], than: readonly number[]): boolean {
  const at = than.findIndex((part, index) => version[index] !== part);
  return at >= 0 && version[at]! < than[at]!;
}

async function checkDestinations(host: Host, config: Config, options: DoctorOptions): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const destination of config.destinations) {
    try {
      findings.push(...await checkDestination(host, config, destination, options));
    } catch (error) {
      if (error instanceof BackupError && error.kind === "cancelled") throw error;
      findings.push({
        group: "Destinations",
        name: `${destination.name}: reachable`,
        state: "fail",
        detail: reasonOf(error),
        remedy: hintOf(error),
        kind: error instanceof BackupError ? error.kind : "internal",
      });
    }
  }
  return findings;
}

async function checkDestination(
  host: Host,
  config: Config,
  destination: Destination,
  { sourceDevices, offline }: DoctorOptions,
): Promise<Finding[]> {
  const about = { group: "Destinations" as const, name: `${destination.name}: reachable` };
  switch (destination.kind) {
    case "folder": {
      requireMounted(host.fs, destination);
      const isHere = isOnDevices(host.fs, destination.path, sourceDevices);
      return [{ ...about, state: "ok", detail: destination.path }, {
        ...about,
        name: `${destination.name}: off this disk`,
        ...(isHere
          ? {
            state: "fail",
            detail: "it is on the same disk as a source",
            remedy: "mount another disk there",
            kind: "unshipped",
          }
          : { state: "ok", detail: "another disk" }),
      }];
    }
    case "rclone":
      if (offline) return [];
      await describeRemote(host, destination, `reach ${destination.name}`, realRetry(host, 1));
      return [{ ...about, state: "ok", detail: destination.remote }];
    case "rsync": {
      const pinned = checkPinned(host, destination);
      if (offline || pinned.state === "fail") return [pinned];
      const record = readShipRecords(host, config).find((each) => each.destination === destination.name);
      const held = record && lastConfirmed(record);
      const scratch = `${shipFolder(config.stateFolder)}/doctor`;
      const probed = await probeRsync(host, destination, scratch, held?.key);
      return [
        pinned,
        ...probed.map(findingOf),
        ...probed[0]?.ok && held ? await checkClock(host, config, destination, held) : [],
      ];
    }
  }
}

/** Nothing is sent to a host whose key was not pinned. */
function checkPinned(host: Host, { name, target, port, knownHostsFile }: RsyncDestination): Finding {
  const about = { group: "Destinations" as const, name: `${name}: host key` };
  const pinned = readTextIfThere(host.fs, knownHostsFile) ?? "";
  // A name may be hashed (ssh-keygen -H): then only ssh can tell.
  if (isPinned(pinned, parseRsyncTarget(target).host, port) || pinned.includes("|1|")) {
    return { ...about, state: "ok", detail: `pinned in ${knownHostsFile}` };
  }
  return {
    ...about,
    state: "fail",
    detail: `none is pinned in ${knownHostsFile}`,
    remedy: "`hapi-backup init` shows its fingerprint and pins it",
    kind: "key",
  };
}

function findingOf({ name, ok, detail, remedy, kind }: Probed): Finding {
  return {
    group: "Destinations",
    name,
    state: ok === undefined ? "warn" : ok ? "ok" : "fail",
    detail,
    remedy,
    ...(ok === false ? { kind: kind ?? "network" } : {}),
  };
}

/**
 * What was sent last has the storage host's time on it there, and ours in the record of its confirmation. Whether they
 * agree can be asked without a key that may read.
 */
async function checkClock(
  host: Host,
  config: Config,
  destination: RsyncDestination,
  { key: { set, id }, confirmedAt }: Confirmed,
): Promise<Finding[]> {
  const about = { group: "Destinations" as const, name: `${destination.name}: clock` };
  const seal = `${set}/${id}/${SEAL_FILE}`;
  const text = readTextIfThere(host.fs, `${config.store}/${config.hub}/${seal}`);
  if (text === undefined) {
    return [{ ...about, state: "ok", detail: "not compared: nothing sent lately is here" }];
  }
  const scratch = `${shipFolder(config.stateFolder)}/doctor`;
  try {
    host.fs.mkdir(parentOf(`${scratch}/${seal}`), { recursive: true, mode: 0o700 });
    writeFileDurably(host.fs, `${scratch}/${seal}`, text);
    host.fs.utime(`${scratch}/${seal}`, confirmedAt.getTime());
    const args = compareTimesArgs(destination, scratch, CLOCK_SECONDS_MAX);
    const what = `compare the clock of ${destination.name}`;
    const { stdout } = await runRsync(host, destination, what, args, { names: [seal], secondsMax: 60 });
    switch (isTimeSame(stdout, seal)) {
      case true:
        return [{ ...about, state: "ok", detail: "the two clocks agree, as of the last shipping" }];
      case false:
        return [{
          ...about,
          state: "fail",
          detail: `the storage host's clock was off by more than ${
            formatDuration(CLOCK_SECONDS_MAX)
          } at the last shipping`,
          remedy: "set both by NTP (timedatectl): snapshots are named and kept by these clocks",
          kind: "clock",
        }];
      case undefined:
        return [{ ...about, state: "warn", detail: `${set}/${id} cannot be asked about there` }];
    }
  } finally {
    removeIfThere(host.fs, scratch);
  }
}

function checkProof(host: Host, config: Config, sets: readonly SetStatus[]): Finding[] {
  const group = "Proof" as const;
  const now = host.now().getTime();
  const days = (at: string) => (now - Date.parse(at)) / DAY_MS;
  const findings: Finding[] = [];
  const main = sets.find(({ newest }) => newest !== undefined);
  if (main) {
    const { set, drill } = main;
    const name = `${set}: drill`;
    const remedy = "bring the identity: hapi-backup verify --identity FILE --snapshot random";
    if (!drill) findings.push({ group, name, state: "warn", detail: "no restore was ever proven", remedy });
    else if (!drill.ok) {
      findings.push({
        group,
        name,
        state: "fail",
        detail: `the last one failed, on ${drill.snapshot}`,
        remedy,
        kind: "integrity",
      });
    } else {
      const old = days(drill.at) > DRILL_DAYS_MAX;
      findings.push({
        group,
        name,
        state: old ? "warn" : "ok",
        detail: `${formatDuration((now - Date.parse(drill.at)) / 1000)} ago`,
        ...(old ? { remedy } : {}),
      });
    }
  }
  for (const set of sets) {
    for (const { name, receipt } of set.destinations) {
      if (!receipt) continue;
      const { problems } = receipt.set;
      const age = formatDuration((now - receipt.time.getTime()) / 1000);
      findings.push(
        problems.length > 0
          ? {
            group,
            name: `${set.set}: scrub on ${name}`,
            state: "fail",
            detail: problems.join("; "),
            remedy: "run `hapi-backup scrub` on the storage host; the next backup starts over by itself",
            kind: "integrity",
          }
          : {
            group,
            name: `${set.set}: scrub on ${name}`,
            state: "ok",
            detail: `no damage, as of ${age} ago`,
          },
      );
    }
  }
  const proofs = readProofs(host.fs, config.stateFolder) ?? [];
  const last = proofs.findLast(({ ok }) => ok);
  const remedy = "bring the identity: hapi-backup keys prove --identity FILE";
  if (last && isProofDue(proofs, config.proofMaxAgeDays, undefined, host.now())) {
    findings.push({
      group,
      name: "keys",
      state: "fail",
      detail: `last proven ${Math.floor(days(last.at))} days ago, limit ${config.proofMaxAgeDays}`,
      remedy,
      kind: "stale",
    });
  } else if (!last && main) {
    findings.push({ group, name: "keys", state: "warn", detail: "never proven to open the backups", remedy });
  } else if (last) {
    findings.push({
      group,
      name: "keys",
      state: "ok",
      detail: `proven ${formatDuration((now - Date.parse(last.at)) / 1000)} ago`,
    });
  }
  return findings;
}

/** The page for a person. */
export function describeFindings(findings: readonly Finding[]): string {
  const groups = [...new Set(findings.map(({ group }) => group))];
  const marks = { ok: "ok  ", warn: "WARN", fail: "FAIL" };
  const counts = { fail: findings.filter(({ state }) => state === "fail").length };
  const warned = findings.filter(({ state }) => state === "warn").length;
  return [
    ...groups.flatMap((group) => [
      group,
      ...findings.filter((finding) => finding.group === group).flatMap(({ state, name, detail, remedy }) => [
        `  ${marks[state]}  ${name}: ${detail}`,
        ...state !== "ok" && remedy ? [`        -> ${remedy}`] : [],
      ]),
    ]),
    counts.fail + warned === 0
      ? `all ${findings.length} checks are fine`
      : `${findings.length} checks: ${counts.fail} failed, ${warned} warnings`,
  ].join("\n");
}

/** The doctor step's job. */
export interface DoctorJob {
  readonly config: Config;
  readonly options: DoctorOptions;
  readonly json: boolean;
}

serveStep<DoctorJob>(import.meta, async ({ config, options, json }, { host, result }) => {
  const findings = await doctor(host, config, options);
  const error = doctorError(findings);
  result(json ? JSON.stringify({ ok: error === undefined, checks: findings }) : describeFindings(findings));
  if (error) throw error;
});
