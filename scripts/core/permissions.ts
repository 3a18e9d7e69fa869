/**
 * What each step may touch: the whole table. What is not granted here is denied.
 *
 * | step      | reads                                        | writes                         | programs      |
 * | --------- | -------------------------------------------- | ------------------------------ | ------------- |
 * | snapshot  | the set's databases, its state, store names   | its staging                    | none          |
 * | check     | staging                                      | staging                        | none          |
 * | encrypt   | the set's files, its state, signing key       | its state, its folder in store | none          |
 * | ship      | store, SSH keys                               | its own records                | rsync, rclone |
 *
 * No step has the network: rsync and rclone have it, and only `ship`, `verify`, `restore` and `list` may start them.
 *
 * @module
 */

import type { Config, Destination, Source } from "./config.ts";
import type { SetName } from "./names.ts";

/** The permissions of a worker, as Deno takes them. */
export interface StepPermissions {
  readonly read: readonly string[];
  readonly write?: readonly string[];
  readonly run?: readonly string[];
  readonly net?: readonly string[];
  readonly env?: readonly string[];
  readonly sys?: readonly string[];
}

/** `node:fs` asks for this to tell the free space of a disk. */
const FREE_SPACE = ["statfs"];

/** @param realPath Resolves the links on the way to a source that is there. */
export function snapshotPermissions(
  config: Config,
  set: SetName,
  realPath: (path: string) => string,
): StepPermissions {
  const state = `${config.stateFolder}/${set}`;
  const databases = (config.sets.get(set)?.sources ?? []).filter((source) => source.kind === "sqlite");
  const files = databases.flatMap(({ path }) => [path, realPath(path)])
    .flatMap((path) => ["", "-wal", "-shm", "-journal"].map((end) => path + end));
  return {
    read: [...new Set(files), state, `${config.store}/${config.hub}/${set}`],
    write: [state],
    sys: FREE_SPACE,
  };
}

export function checkPermissions(config: Config, set: SetName): StepPermissions {
  const staging = `${config.stateFolder}/${set}/staging`;
  return { read: [staging], write: [staging] };
}

/** @param realPath Resolves the links on the way to a source that is there. */
export function encryptPermissions(
  config: Config,
  set: SetName,
  realPath: (path: string) => string,
): StepPermissions {
  const state = `${config.stateFolder}/${set}`;
  const files = (config.sets.get(set)?.sources ?? []).filter((source) => source.kind !== "sqlite")
    .map(readableRoot).flatMap((path) => [path, realPath(path)]);
  return {
    read: [
      ...new Set(files),
      state,
      `${config.stateFolder}/ship`,
      `${config.store}/${config.hub}`,
      config.signingKeyFile,
    ],
    write: [state, `${config.store}/${config.hub}`],
    sys: FREE_SPACE,
  };
}

/** The path that a source's files lie under: of a pattern, the folders before its first wildcard. */
function readableRoot(source: Source): string {
  if (source.kind !== "glob") return source.path;
  const names = source.path.split("/");
  const wild = names.findIndex((name) => /[*?[{]/.test(name));
  return names.slice(0, wild < 0 ? names.length : wild).join("/") || "/";
}

export function shipPermissions(config: Config): StepPermissions {
  const ship = `${config.stateFolder}/ship`;
  const keys = config.destinations.flatMap(keyFiles);
  const folders = config.destinations.flatMap((destination) =>
    destination.kind === "folder" ? [destination.path] : []
  );
  const programs = config.destinations.flatMap(({ kind }) => kind === "folder" ? [] : [kind]);
  return {
    read: [config.store, ship, ...keys, ...folders],
    write: [ship, ...folders],
    run: [...new Set(programs)],
    sys: FREE_SPACE,
  };
}

function keyFiles(destination: Destination): string[] {
  switch (destination.kind) {
    case "rsync":
      return [destination.identityFile, destination.knownHostsFile];
    case "rclone":
      return destination.configFile ? [destination.configFile] : [];
    case "folder":
      return [];
  }
}
