/**
 * rclone: object stores and whatever else it speaks, as `<remote>:<path>/<hub>/<set>/<snapshot id>`.
 *
 * Invariants: the seal goes last, once everything else was compared with ours; a file of a sealed snapshot is never
 * touched. Not every remote can refuse half a file its final name (WebDAV and SFTP cannot), so what is shorter than
 * ours in a snapshot that has no seal yet is a cut upload of ours, and is removed and sent again.
 *
 * @module
 */

import * as v from "valibot";
import type { RcloneDestination } from "../../core/config/config.ts";
import { BackupError, ifPossible } from "../../core/errors.ts";
import { type HubName, INCOMING_PREFIX, SEAL_FILE } from "../../core/names.ts";
import type { Schema } from "../../core/schema.ts";
import { explainRcloneFailure } from "../../core/shipping/rclone_failure.ts";
import type { Expected, ExpectedFile, Missing } from "../../core/shipping/shipping.ts";
import { diskErrorSaid, exists } from "../fs.ts";
import type { Host, RunResult } from "../host.ts";
import { failureOf, type Retry, withRetries } from "../retry.ts";
import type { SealedSnapshot } from "../store/store.ts";
import { filesOf, isOnDevices, localStoreError } from "./folder_destination.ts";
import type { Pushed } from "./rsync.ts";

/** Where a remote is, and which configuration tells rclone how to reach it. */
export interface RcloneAccess {
  readonly remote: string;
  readonly configFile?: string | undefined;
}

/** What a remote can do, as far as it matters here. */
export interface RcloneRemote {
  /** Whether it can compare by hashes that it holds; else everything is read back. */
  readonly hashes: boolean;
  /** Its path if it is a folder of this machine. */
  readonly localPath: string | undefined;
}

/** Remotes that wrap another one are looked through at most this deep. */
const WRAPPINGS_MAX = 8;

/** `remote:path` with more path. */
export function below(remote: string, path: string): string {
  return remote.endsWith(":") || remote.endsWith("/") ? `${remote}${path}` : `${remote}/${path}`;
}

/** A folder, said so: an object store is then not asked first whether it is a file. */
const asFolder = (remote: string): string => below(remote, "");

/**
 * Copies one snapshot there and proves that it is there.
 *
 * @throws {BackupError} (integrity) If the remote holds something else under one of its names.
 * @throws {BackupError} (network, key, disk, config) With the remedy.
 */
export async function copySnapshotByRclone(
  host: Host,
  destination: RcloneDestination,
  snapshot: SealedSnapshot,
  { hashes }: RcloneRemote,
  retry: Retry,
): Promise<Pushed> {
  const { hub, set, id, folder } = snapshot;
  const what = `ship ${set} ${id} to ${destination.name}`;
  const target = below(destination.remote, `${hub}/${set}/${id}`);
  const files = filesOf(host.fs, snapshot);
  const beforeSeal = files.filter((file) => file.name !== SEAL_FILE).map((file) => file.name);
  const bytesTotal = files.reduce((sum, { bytes }) => sum + bytes, 0);
  return await withRetries(host, retry, async () => {
    const there = await listFiles(host, destination, what, target);
    await clearCutUploads(host, destination, what, target, files, there);
    // rclone tells how far it is in words only.
    host.report.progress(what, 0, bytesTotal);
    for (const names of [beforeSeal, [SEAL_FILE]]) {
      await rclone(host, destination, what, [
        "copy",
        "--immutable",
        "--size-only",
        // The hash that rclone would store beside an upload in pieces is ours: comparing it proves nothing.
        "--s3-disable-checksum",
        ...only(names),
        folder,
        asFolder(target),
      ]);
      await proveThere(host, destination, what, { folder, target, names, hashes });
    }
    host.report.progress(what, bytesTotal, bytesTotal);
    return {
      bytes: files.reduce((sum, file) => sum + (there.get(file.name) === file.bytes ? 0 : file.bytes), 0),
    };
  });
}

/** Names of ours hold nothing that means something in a filter. */
const only = (names: readonly string[]) => names.map((name) => `--include=/${name}`);

async function clearCutUploads(
  host: Host,
  destination: RcloneDestination,
  what: string,
  target: string,
  files: readonly ExpectedFile[],
  there: ReadonlyMap<string, number>,
): Promise<void> {
  for (const { name, bytes } of files) {
    const found = there.get(name);
    if (found === undefined || found === bytes) continue;
    if (there.has(SEAL_FILE) || found > bytes) {
      throw differs(what, target, `${name} has ${found} bytes there and ${bytes} here`);
    }
    host.report.warn(`${what}: ${name} was cut at ${found} of ${bytes} bytes; it is sent again`);
    await rclone(host, destination, what, ["deletefile", below(target, name)]);
  }
}

/** Compares by the remote's hashes, or by reading everything back where it has none. */
async function proveThere(
  host: Host,
  destination: RcloneDestination,
  what: string,
  { folder, target, names, hashes }: {
    folder: string;
    target: string;
    names: readonly string[];
    hashes: boolean;
  },
): Promise<void> {
  const check = (download: boolean) =>
    host.run("rclone", [
      ...commonArgs(destination, "check"),
      "check",
      "--one-way",
      "--combined=-",
      ...(download ? ["--download"] : []),
      ...only(names),
      folder,
      asFolder(target),
    ]);
  let run = await check(!hashes);
  // A remote that has hashes can lack the one of a file, such as S3 after an upload in pieces: that exits with 0.
  if (hashes && /could not be checked|No common hash/.test(run.stderr)) run = await check(true);
  const marks = new Map(run.stdout.split("\n").map((line) => [line.slice(2), line[0]]));
  const different = names.find((name) => marks.get(name) === "*");
  if (different !== undefined) throw differs(what, target, `${different} differs from ours`);
  const unproven = names.filter((name) => marks.get(name) !== "=");
  if (run.code === 0 && unproven.length === 0) return;
  if (run.code !== 0) throw failureOf(explainRcloneFailure(what, destination.remote, run));
  throw new BackupError(`Cannot ${what}: rclone does not say whether ${unproven[0]} is there`, {
    kind: "network",
    hint: `run \`rclone check --download '${folder}' '${target}'\` and look at what it says`,
  });
}

function differs(what: string, target: string, state: string): BackupError {
  return new BackupError(`Cannot ${what}: ${target}: ${state}, and what is there is not overwritten`, {
    kind: "integrity",
    hint: "find out who wrote it, move that snapshot's folder on the remote aside, then ship again",
  });
}

/** Tells which of these snapshots the remote lacks, wholly or in part, by names and sizes only. */
export async function missingAtRemote(
  host: Host,
  destination: RcloneDestination,
  hub: HubName,
  expected: readonly Expected[],
  retry: Retry,
): Promise<Missing[]> {
  const what = `ask ${destination.name} what it holds`;
  const missing: Missing[] = [];
  for (const set of new Set(expected.map((snapshot) => snapshot.set))) {
    const wanted = expected.filter((snapshot) => snapshot.set === set);
    const there = await withRetries(
      host,
      retry,
      () =>
        listFiles(
          host,
          destination,
          what,
          below(destination.remote, `${hub}/${set}`),
          wanted.map(({ id }) => `--include=/${id}/*`),
        ),
    );
    missing.push(
      ...wanted.flatMap((snapshot) => {
        const found = snapshot.files.map(({ name }) => there.get(`${snapshot.id}/${name}`));
        if (snapshot.files.every(({ bytes }, n) => found[n] === bytes)) return [];
        return [{ ...snapshot, isPartly: found.some((bytes) => bytes !== undefined) }];
      }),
    );
  }
  return missing;
}

/** What `rclone lsjson` and `rclone backend features` print, as far as it is used. */
const filesListed = v.array(v.object({ Path: v.string(), Size: v.number() }));
const remoteFeatures = v.object({
  Root: v.optional(v.string()),
  Hashes: v.nullish(v.array(v.string())),
  Features: v.optional(v.object({ IsLocal: v.optional(v.boolean()) })),
});

/** What a program printed as JSON; undefined if it is anything else. */
function readJson<Value>(schema: Schema<Value>, text: string): Value | undefined {
  return ifPossible(() => v.parse(schema, JSON.parse(text)));
}

/** Files below a folder of the remote with their sizes (bytes); none if there is no such folder. */
async function listFiles(
  host: Host,
  access: RcloneAccess,
  what: string,
  target: string,
  filters: readonly string[] = [],
): Promise<Map<string, number>> {
  const run = await host.run("rclone", [
    ...commonArgs(access, "lsjson"),
    "lsjson",
    "--recursive",
    "--files-only",
    "--no-modtime",
    "--no-mimetype",
    ...filters,
    asFolder(target),
  ]);
  if (run.code === 3 || /directory not found/.test(run.stderr)) return new Map();
  if (run.code !== 0) throw failureOf(explainRcloneFailure(what, access.remote, run));
  const entries = readJson(filesListed, run.stdout);
  if (!entries) {
    throw new BackupError(`Cannot ${what}: rclone's list of ${target} is cut or none`, {
      kind: "network",
      hint: "is there more than a store in that folder? `rclone lsf` shows it",
    });
  }
  return new Map(entries.map(({ Path, Size }) => [Path, Size]));
}

/** Asks what a remote can do, and whether it is a folder of this machine, through remotes that wrap another. */
export async function describeRemote(
  host: Host,
  access: RcloneAccess,
  what: string,
  retry: Retry,
): Promise<RcloneRemote> {
  const features = async (remote: string) => {
    const run = await withRetries(
      host,
      retry,
      () => rclone(host, access, what, ["backend", "features", asFolder(remote)]),
    );
    const told = readJson(remoteFeatures, run.stdout);
    if (told) return told;
    throw new BackupError(`Cannot ${what}: rclone does not say what ${remote} can do`, {
      kind: "network",
      hint: `look at what \`rclone backend features '${remote}'\` prints`,
    });
  };
  const own = await features(access.remote);
  let at = own;
  let remote = access.remote;
  for (let depth = 0; depth < WRAPPINGS_MAX && !at.Features?.IsLocal; depth++) {
    const inner = await wrappedBy(host, access, remote);
    if (inner === undefined) break;
    remote = inner;
    at = await features(remote);
  }
  return {
    hashes: (own.Hashes ?? []).length > 0,
    localPath: at.Features?.IsLocal ? at.Root ?? "/" : undefined,
  };
}

/**
 * Lists the hub's folder there, for which the remote must answer; what it can do, rclone tells without asking it.
 *
 * @returns Whether there is such a folder. An object store knows of its buckets only: in one of them, always true.
 * @throws {BackupError} (network, key, config) If it cannot be told.
 */
export async function isFolderThere(
  host: Host,
  destination: RcloneDestination,
  hub: HubName,
  what: string,
  secondsMax: number,
): Promise<boolean> {
  const args = [
    ...commonArgs(destination, "lsf"),
    // Before it is ended from here, for want of an answer, it is to say so itself.
    `--timeout=${Math.floor(secondsMax / 5)}s`,
    "--low-level-retries=1",
    "lsf",
    "--dirs-only",
    asFolder(below(destination.remote, hub)),
  ];
  const run = await host.run("rclone", args, { secondsMax });
  if (run.code === 0) return true;
  if (run.code === 3 || /directory not found/.test(run.stderr)) return false;
  throw explainRcloneFailure(what, destination.remote, run).error;
}

/** The remote inside one of type crypt, chunker and the like; undefined if it is none of them. */
async function wrappedBy(host: Host, access: RcloneAccess, remote: string): Promise<string | undefined> {
  // `config show` hides the secrets that `config dump` would print.
  const name = remote.slice(0, remote.indexOf(":") + 1);
  const run = await host.run("rclone", [...commonArgs(access, "config"), "config", "show", name]);
  if (run.code !== 0) return undefined;
  return /^remote = (.+)$/m.exec(run.stdout)?.[1];
}

/** Whether a remote is a folder on one of these devices. A local folder that cannot be looked at counts as one. */
export function isRemoteOnDevices(host: Host, remote: RcloneRemote, devices: readonly number[]): boolean {
  const { localPath } = remote;
  return localPath !== undefined && (ifPossible(() => isOnDevices(host.fs, localPath, devices)) ?? true);
}

/**
 * Makes sure that the remote is not the local store, by whatever path, as `requireOtherThanStore` does for folders.
 * This process may not look at that path: rclone makes an empty file there, and it must not appear in the store.
 *
 * @throws {BackupError} (config) If it is.
 * @throws {BackupError} (network, key, disk) If that cannot be told.
 */
export async function requireRemoteOtherThanStore(
  host: Host,
  destination: RcloneDestination,
  { localPath }: RcloneRemote,
  { store, hub }: { readonly store: string; readonly hub: HubName },
): Promise<void> {
  if (localPath === undefined || !exists(host.fs, `${store}/${hub}`)) return;
  const what = `tell whether ${destination.name} is the local store`;
  const name = `${INCOMING_PREFIX}${crypto.randomUUID()}`;
  const probe = below(destination.remote, `${hub}/${name}`);
  await rclone(host, destination, what, ["touch", probe]);
  const isStore = exists(host.fs, `${store}/${hub}/${name}`);
  await rclone(host, destination, what, ["deletefile", probe]);
  if (isStore) throw localStoreError(destination.name, destination.remote);
}

/** Commands that move contents: a full line may hold them up, and what is in it already has to arrive first. */
const MOVING: readonly string[] = ["copy", "check"];

/** @param command What rclone is to do, which decides how long it may go without a byte from the far side. */
function commonArgs(access: RcloneAccess, command: string): string[] {
  return [
    ...(access.configFile === undefined ? [] : [`--config=${access.configFile}`]),
    "--ask-password=false",
    "--contimeout=15s",
    // For each try: some of its backends multiply them, S3 to six.
    `--timeout=${MOVING.includes(command) ? "2m" : "30s"}`,
    "--low-level-retries=2",
    // We try again ourselves, and say so.
    "--retries=1",
    "--use-json-log=false",
  ];
}

/**
 * Runs rclone once.
 *
 * @param options.into The folder of this machine that it writes to: a disk that is full is this one then.
 * @throws {Retryable} If another try can help.
 * @throws {BackupError} Otherwise.
 */
export async function rclone(
  host: Host,
  access: RcloneAccess,
  what: string,
  args: readonly string[],
  { into, ...options }: {
    readonly onLine?: (line: string) => void;
    readonly secondsMax?: number;
    readonly into?: string;
  } = {},
): Promise<RunResult> {
  const run = await host.run("rclone", [...commonArgs(access, args[0]!), ...args], options);
  if (run.code === 0) return run;
  const here = into && diskErrorSaid(`${what} into ${into}`, run.stderr);
  if (here) throw here;
  throw failureOf(explainRcloneFailure(what, access.remote, run));
}
