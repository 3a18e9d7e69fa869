/**
 * The doctor's looks at destinations: whether they hold what is here, and whether the next run will get through.
 *
 * @module
 */

import type {
  Config,
  Destination,
  FolderDestination,
  RcloneDestination,
  RsyncDestination,
} from "../../core/config/config.ts";
import { shipFolder } from "../../core/config/state_paths.ts";
import { BackupError, isInterruption, reasonOf } from "../../core/errors.ts";
import { formatCounted, formatDuration } from "../../core/format.ts";
import { isPinned } from "../../core/keys/host_keys.ts";
import { SEAL_FILE } from "../../core/names.ts";
import { parentOf } from "../../core/paths.ts";
import { compareTimesArgs, isTimeSame, parseRsyncTarget } from "../../core/shipping/rsync_args.ts";
import { about, type Finding, remedyOf } from "../../core/status/finding.ts";
import { failureIn, withAge } from "../../core/status/run_record.ts";
import { isOnDevices, requireMounted, requireOtherThanStore } from "../destinations/folder_destination.ts";
import { type Probed, probeRsync } from "../destinations/probe.ts";
import { describeRemote, isFolderThere, requireRemoteOtherThanStore } from "../destinations/rclone.ts";
import { runRsync } from "../destinations/rsync.ts";
import { exists, readTextIfThere, removeIfThere, writeFileDurably } from "../fs.ts";
import type { Host } from "../host.ts";
import { readRuns } from "../records/run_log.ts";
import { type Confirmed, lastConfirmed } from "../records/ship_records.ts";
import { realRetry } from "../retry.ts";
import type { SetStatus } from "../status/hub_status.ts";

/** Older than this, rsync lets a hostile far side write where it wants (CVE-2024-12084 to 12088). */
const RSYNC_SOUND = [3, 4, 0] as const;
/** From here on rsync tells why it leaves a file alone, which shipping needs. */
const RSYNC_NEEDED = [3, 5, 0] as const;
/** Seconds in which a remote must answer. */
const RCLONE_SECONDS_MAX = 60;
/** Seconds by which two clocks may differ. */
const CLOCK_SECONDS_MAX = 300;

/** How far destinations may be looked at. */
export interface ReachOptions {
  /** Devices that the sources are on. */
  readonly sourceDevices: readonly number[];
  /** Whether programs may be asked: ssh, rsync and rclone. */
  readonly offline: boolean;
}

/** Whether each destination holds what is here, as far as this hub knows. */
export function checkShipped(host: Host, config: Config, sets: readonly SetStatus[]): Finding[] {
  if (config.destinations.length === 0) {
    const { fail } = about("Destinations", "off this machine");
    const remedy = "hapi-backup init --storage user@host:";
    return [fail("unshipped", "nothing is: no destination is configured", remedy)];
  }
  const failure = failureIn(readRuns(host, config, { verb: "ship" }), host.now(), config.changedAt);
  return config.destinations.map(({ name }): Finding => {
    const waiting = sets.flatMap((set) =>
      set.destinations.find((other) => other.name === name)?.waiting ?? []
    );
    const { ok, fail } = about("Destinations", `${name}: holds what is here`);
    return waiting.length === 0 ? ok("nothing waits") : fail(
      "unshipped",
      `${formatCounted(waiting.length, "snapshot")} waiting, the oldest of ${waiting[0]}${
        failure ? `: ${withAge(failure)}` : ""
      }`,
      failure?.hint ?? "run `hapi-backup ship`",
    );
  });
}

/** The version of rsync here. */
export async function checkRsync(host: Host, { destinations }: Config): Promise<Finding[]> {
  if (!destinations.some(({ kind }) => kind === "rsync")) return [];
  const { ok, warn, fail } = about("Destinations", "rsync");
  const { stdout } = await host.run("rsync", ["--version"], { secondsMax: 20 });
  const version = /version v?(\d+)\.(\d+)\.(\d+)/.exec(stdout)?.slice(1).map(Number);
  if (!version) return [warn("its version cannot be told")];
  const shown = version.join(".");
  if (isOlder(version, RSYNC_SOUND)) {
    const holes = `${shown} has known holes (CVE-2024-12084 and others)`;
    return [fail("config", holes, "update rsync, here and on the storage host")];
  }
  if (isOlder(version, RSYNC_NEEDED)) {
    return [fail(
      "config",
      `${shown} does not tell why it leaves a file alone, which shipping needs`,
      `use rsync ${RSYNC_NEEDED.join(".")} or newer, here and on the storage host`,
    )];
  }
  return [ok(shown)];
}

function isOlder(version: readonly number[], than: readonly number[]): boolean {
  const at = than.findIndex((part, index) => version[index] !== part);
  return at >= 0 && version[at]! < than[at]!;
}

/** Each destination, asked itself. One that fails is a finding like any other. */
export async function checkDestinations(
  host: Host,
  config: Config,
  options: ReachOptions,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const destination of config.destinations) {
    try {
      findings.push(...await checkDestination(host, config, destination, options));
    } catch (error) {
      if (isInterruption(error)) throw error;
      const kind = error instanceof BackupError ? error.kind : "internal";
      const { fail } = about("Destinations", `${destination.name}: reachable`);
      findings.push(fail(kind, reasonOf(error), remedyOf(error)));
    }
  }
  return findings;
}

function checkDestination(
  host: Host,
  config: Config,
  destination: Destination,
  { sourceDevices, offline }: ReachOptions,
): Finding[] | Promise<Finding[]> {
  switch (destination.kind) {
    case "folder":
      return checkFolder(host, config, destination, sourceDevices);
    case "rclone":
      return offline ? [] : checkRemote(host, config, destination);
    case "rsync":
      return checkStorageHost(host, config, destination, offline);
  }
}

function checkFolder(
  { fs }: Host,
  config: Config,
  destination: FolderDestination,
  sourceDevices: readonly number[],
): Finding[] {
  const { name, path } = destination;
  requireMounted(fs, destination);
  requireOtherThanStore(fs, destination, config);
  // As `ship` counts.
  const own = exists(fs, config.store) ? [fs.stat(config.store).device] : [];
  const { ok, fail } = about("Destinations", `${name}: off this disk`);
  const onSameDisk = "it is on the same disk as a source or the local store";
  return [
    about("Destinations", `${name}: reachable`).ok(path),
    isOnDevices(fs, path, [...own, ...sourceDevices])
      ? fail("unshipped", onSameDisk, "mount another disk there")
      : ok("another disk"),
  ];
}

async function checkRemote(host: Host, config: Config, destination: RcloneDestination): Promise<Finding[]> {
  const { name, remote } = destination;
  const { ok, warn, fail } = about("Destinations", `${name}: reachable`);
  const what = `reach ${name}`;
  // First: it is the only one that asks the remote, and that gives up after a while.
  const isThere = await isFolderThere(host, destination, config.hub, what, RCLONE_SECONDS_MAX);
  const described = await describeRemote(host, destination, what, realRetry(host, 1));
  await requireRemoteOtherThanStore(host, destination, described, config);
  if (isThere) return [ok(remote)];
  return [
    lastConfirmed(host, config, name)
      ? fail(
        "unshipped",
        `what ${remote} once confirmed is gone, with its bucket or folder`,
        "run `hapi-backup ship`, and find out who removed it",
      )
      : warn(
        `${remote} answers, and has no such bucket or folder yet`,
        "check the name: the next `hapi-backup ship` makes it",
      ),
  ];
}

async function checkStorageHost(
  host: Host,
  config: Config,
  destination: RsyncDestination,
  offline: boolean,
): Promise<Finding[]> {
  const pinned = checkPinned(host, destination);
  if (offline || pinned.state === "fail") return [pinned];
  const held = lastConfirmed(host, config, destination.name);
  const probed = await probeRsync(host, destination, `${shipFolder(config.stateFolder)}/doctor`, held?.key);
  return [
    pinned,
    ...probed.map(findingOf),
    ...probed[0]?.ok && held ? await checkClock(host, config, destination, held) : [],
  ];
}

/** Nothing is sent to a host whose key was not pinned. */
function checkPinned(host: Host, { name, target, port, knownHostsFile }: RsyncDestination): Finding {
  const { ok, fail } = about("Destinations", `${name}: host key`);
  const pinned = readTextIfThere(host.fs, knownHostsFile) ?? "";
  // A name may be hashed (ssh-keygen -H): then only ssh can tell.
  if (isPinned(pinned, parseRsyncTarget(target).host, port) || pinned.includes("|1|")) {
    return ok(`pinned in ${knownHostsFile}`);
  }
  const remedy = "`hapi-backup init` shows its fingerprint and pins it";
  return fail("key", `none is pinned in ${knownHostsFile}`, remedy);
}

function findingOf({ name, ok, detail, remedy, kind = "network" }: Probed): Finding {
  const said = about("Destinations", name);
  if (ok === undefined) return said.warn(detail, remedy);
  return ok ? said.ok(detail) : said.fail(kind, detail, remedy);
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
  const { ok, warn, fail } = about("Destinations", `${destination.name}: clock`);
  const seal = `${set}/${id}/${SEAL_FILE}`;
  const text = readTextIfThere(host.fs, `${config.store}/${config.hub}/${seal}`);
  if (text === undefined) return [ok("not compared: nothing sent lately is here")];
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
        return [ok("the two clocks agree, as of the last shipping")];
      case false: {
        const most = formatDuration(CLOCK_SECONDS_MAX);
        return [fail(
          "clock",
          `the storage host's clock was off by more than ${most} at the last shipping`,
          "set both by NTP (timedatectl): snapshots are named and kept by these clocks",
        )];
      }
      case undefined:
        return [warn(`${set}/${id} cannot be asked about there`)];
    }
  } finally {
    removeIfThere(host.fs, scratch);
  }
}
