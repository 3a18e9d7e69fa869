/**
 * Which processes have a file open, as `/proc` tells. Deno itself may not look there, so `find` does.
 *
 * Processes of other users show only to root.
 *
 * @module
 */

import type { Host } from "./host.ts";

/** The processes that have the database at `path`, its `-wal` or its `-shm` open: `hapi (1234)`. */
export async function usersOf({ run }: Pick<Host, "run">, path: string): Promise<string[]> {
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
  for (const pid of pids) {
    const exe = await run("find", [`/proc/${pid}/exe`, "-printf", "%l"]);
    users.push(`${exe.stdout.split("/").at(-1) || "process"} (${pid})`);
  }
  return users;
}
