/**
 * The real hub, started on a copy of its database: on loopback, on a free port, stopped afterwards.
 *
 * @module
 */

import { BackupError, reasonOf } from "../../core/errors.ts";
import type { Host } from "../host.ts";

/** How long the hub may take to answer, in seconds. */
const START_SECONDS_MAX = 60;

/**
 * Starts a hub on a copy of `database` and asks it how many sessions it serves.
 *
 * @param program The hub's program.
 * @param database A restored database; the hub writes to it.
 * @param scratch A folder for the hub's home.
 */
export async function askHubForSessions(
  host: Host,
  program: string,
  database: string,
  scratch: string,
): Promise<number> {
  const home = `${scratch}/hub-home`;
  host.fs.mkdir(home, { recursive: true, mode: 0o700 });
  const token = crypto.randomUUID();
  const port = freePort();
  const base = `http://127.0.0.1:${port}`;
  const child = new Deno.Command(program, {
    args: ["hub"],
    clearEnv: true,
    env: {
      PATH: "/usr/bin:/bin",
      HOME: home,
      HAPI_HOME: home,
      DB_PATH: database,
      CLI_API_TOKEN: token,
      HAPI_LISTEN_HOST: "127.0.0.1",
      HAPI_LISTEN_PORT: String(port),
      // Nobody's phone is to ring because of a drill.
      HAPI_IOS_PUSH: "off",
      HTTP_PROXY: "http://127.0.0.1:9",
      HTTPS_PROXY: "http://127.0.0.1:9",
    },
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  let ended = false;
  const status = child.status.then(() => ended = true);
  try {
    let reason: unknown;
    const deadline = performance.now() + START_SECONDS_MAX * 1000;
    for (;;) {
      host.checkpoint();
      if (ended) throw failure(program, "it ended before it answered");
      if (performance.now() > deadline) {
        throw failure(program, `it did not serve them within ${START_SECONDS_MAX} s: ${reasonOf(reason)}`);
      }
      try {
        return await countSessions(base, token);
      } catch (error) {
        reason = error;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  } finally {
    if (!ended) child.kill("SIGTERM");
    const killer = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await status;
    clearTimeout(killer);
  }
}

async function countSessions(base: string, token: string): Promise<number> {
  const auth = await askJson(`${base}/api/auth`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ accessToken: token }),
  }) as { token: string };
  const answer = await askJson(`${base}/api/sessions`, {
    headers: { authorization: `Bearer ${auth.token}` },
  });
  return (answer as { sessions: unknown[] }).sessions.length;
}

async function askJson(url: string, init: RequestInit): Promise<unknown> {
  const response = await fetch(url, { ...init, signal: AbortSignal.timeout(5_000) });
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`${url} answered ${response.status}`);
  }
  return await response.json();
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function failure(program: string, state: string): BackupError {
  return new BackupError(`Cannot ask ${program} for its sessions: ${state}`, {
    kind: "integrity",
    hint: "start it by hand on the restored folder to see its own words",
  });
}
