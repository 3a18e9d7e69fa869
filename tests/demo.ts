/**
 * Shows the whole of it on a machine that has only Node.js: starts the real hub from npm, fills it, backs it up,
 * proves the backup, loses the hub's home, gets it back, and asks the hub for every session and message.
 *
 * Everything happens in a temporary folder, which is removed at the end.
 *
 * @module
 */

import config from "../deno.json" with { type: "json" };
import { ensureHub, startHub } from "./real/hub.ts";

const SESSIONS = 5;
const MESSAGES = 200;

const home = await Deno.makeTempDir({ prefix: "hapi-backup-demo-" });
try {
  say("the real hub, from npm");
  const program = await ensureHub();
  const hub = await startHub({ home: `${home}/.hapi` });
  const acknowledged: { sessionId: string; content: string }[] = [];
  for (let session = 0; session < SESSIONS; session++) {
    const sessionId = await hub.createSession(`demo-${session}`);
    const contents = Array.from({ length: MESSAGES }, (_, index) => `message ${index} of session ${session}`);
    await hub.sendMessages(sessionId, contents);
    acknowledged.push(...contents.map((content) => ({ sessionId, content })));
  }
  await Deno.writeTextFile(`${home}/.hapi/hub.env`, "ANTHROPIC_API_KEY=not-a-real-key-but-secret\n");
  console.log(`it has acknowledged ${SESSIONS} sessions and ${acknowledged.length} messages, and is running`);

  say(
    "backup: the first run makes a configuration and keys. It exits with 4, for nothing is off this machine yet",
  );
  await hapiBackup([4], "backup");

  say("verify: restored into scratch, opened with SQLite, served by a hub of its own, compared");
  await hapiBackup([0], "verify", "--hub", program);

  say("list");
  await hapiBackup([0], "list");

  say("the disaster: the hub is killed and its home is gone");
  await hub.kill();
  await Deno.remove(`${home}/.hapi`, { recursive: true });

  say("restore");
  await Deno.mkdir(`${home}/.hapi`);
  await hapiBackup([0], "restore", "--in-place");

  say("the hub again, on what was restored");
  await using again = await startHub({ home: `${home}/.hapi` });
  const missing = await again.missing(acknowledged);
  const { length } = await again.sessions();
  if (missing.length > 0 || length !== SESSIONS) {
    throw new Error(
      `${length} of ${SESSIONS} sessions are there, and ${missing.length} messages are missing`,
    );
  }
  console.log(`${length} sessions and ${acknowledged.length} messages: nothing is missing`);
} finally {
  await Deno.remove(home, { recursive: true });
}

function say(step: string): void {
  console.log(`\n== ${step}`);
}

/** Runs the command line as its task does, with the demo's home for a home. */
async function hapiBackup(
  expected: readonly number[],
  verb: keyof typeof config.tasks,
  ...args: string[]
): Promise<void> {
  console.log(`$ deno task ${[verb, ...args].join(" ")}`);
  const root = new URL("..", import.meta.url).pathname;
  const words = config.tasks[verb].split(" ");
  const program = words.indexOf("deno");
  const assigned = words.slice(0, program).map((assignment) => assignment.split(/=(.*)/, 2));
  const compiled = Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`;
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: [...words.slice(program + 1), ...args],
    cwd: root,
    env: { ...Object.fromEntries(assigned), HOME: home, DENO_DIR: compiled },
    stdin: "null",
  }).output().then((output) => {
    Deno.stdout.writeSync(output.stdout);
    Deno.stderr.writeSync(output.stderr);
    return output;
  });
  if (!expected.includes(code)) throw new Error(`it exited with ${code}`);
}
