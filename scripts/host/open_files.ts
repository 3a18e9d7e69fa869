/**
 * Which processes have a file open, as `/proc` tells. Deno itself may not look there, so `find` does.
 *
 * Processes of other users show only to root.
 *
 * @module
 */

import { BackupError } from "../core/errors.ts";
import type { Host } from "./host.ts";

/** Those of these databases that other processes have open, and which. */
export async function openDatabases(
  host: Pick<Host, "run">,
  databases: readonly string[],
): Promise<{ readonly path: string; readonly users: readonly string[] }[]> {
  const found = [];
  for (const path of databases) found.push({ path, users: await usersOf(host, path) });
  return found.filter(({ users }) => users.length > 0);
}

/** @throws {BackupError} (source) If another process has one of these databases open, named. */
export async function refuseWhileOpen(host: Pick<Host, "run">, databases: readonly string[]): Promise<void> {
  const [first] = await openDatabases(host, databases);
  if (!first) return;
  throw new BackupError(`Cannot restore ${first.path}: it is open in ${first.users.join(", ")}`, {
    kind: "source",
    hint: "stop it first (for the hub: systemctl --user stop hapi-hub hapi-runner), then run this again",
  });
}

/** The other processes that have the database at `path`, its `-wal` or its `-shm` open: `hapi (1234)`. */
async function usersOf({ run }: Pick<Host, "run">, path: string): Promise<string[]> {
  const pattern = path.replace(/[\\*?[\]]/g, "\\$&");
  const names = ["", "-wal", "-shm"].flatMap((end) => ["-o", "-lname", pattern + end]).slice(1);
  // find exits with 1 when a process ends while it looks, or belongs to somebody else.
  const { stdout } = await run("find", [
    "/proc",
    "-maxdepth",
    "3",
    "-path",
    "/proc/[0-9]*/fd/*",
    "(",
    ...names,
    ")",
    "-printf",
    "%p\\n",
  ]);
  const pids = new Set(stdout.split("\n").flatMap((line) => /^\/proc\/(\d+)\//.exec(line)?.[1] ?? []));
  const users: string[] = [];
  pids.delete(String(Deno.pid));
  for (const pid of pids) {
    const exe = await run("find", [`/proc/${pid}/exe`, "-printf", "%l"]);
    users.push(`${exe.stdout.split("/").at(-1) || "process"} (${pid})`);
  }
  return users;
}
