/**
 * Programs of this machine, behind the seam of host.ts.
 *
 * A program started here is ended with us: on cancellation, on a timeout and by who hears its lines it gets SIGTERM, then
 * SIGKILL.
 *
 * @module
 */

import type { Run } from "./host.ts";
import { BackupError } from "../core/errors.ts";

/** Most bytes of each output that are kept; the rest is read and dropped. */
const OUTPUT_BYTES_MAX = 8 * 1024 * 1024;
/** Milliseconds between SIGTERM and SIGKILL. */
const KILL_AFTER_MS = 5_000;
/** How long output is waited for once the program has ended, in milliseconds. */
const OUTPUT_AFTER_MS = 5_000;
/** How often a cancellation is looked for, in milliseconds. */
const POLL_MS = 100;

/** Makes a {@linkcode Run} whose programs end when `checkpoint` throws. */
export function makeRun(checkpoint: () => void): Run {
  return async (program, args, options = {}) => {
    const child = spawn(program, args, options);
    let stopped: unknown;
    let killTimer: ReturnType<typeof setTimeout> | undefined;
    const stop = (why: unknown) => {
      if (stopped !== undefined) return;
      stopped = why;
      kill(child, "SIGTERM");
      killTimer = setTimeout(() => kill(child, "SIGKILL"), KILL_AFTER_MS);
    };
    const stopIfThrown = (work: () => void) => {
      try {
        work();
      } catch (error) {
        stop(error);
      }
    };
    const started = performance.now();
    const poll = setInterval(() => {
      stopIfThrown(checkpoint);
      if (options.secondsMax !== undefined && performance.now() - started > options.secondsMax * 1000) {
        stop(
          new BackupError(`Cannot finish ${program}: it took longer than ${options.secondsMax} s`, {
            kind: REACHING_OUT.includes(program) ? "network" : "internal",
            hint: "run it again; if it stays so, find out what it waits for",
          }),
        );
      }
    }, POLL_MS);

    const { onLine } = options;
    const stdout = collect(child.stdout, onLine && ((line) => stopIfThrown(() => onLine(line))));
    const stderr = collect(child.stderr);
    let graceTimer: ReturnType<typeof setTimeout> | undefined;
    try {
      const [status] = await Promise.all([child.status, feed(child, options.stdin)]);
      // What it started may outlive it and hold its output open, as ssh does on a dead line.
      const grace = new Promise((resolve) => graceTimer = setTimeout(resolve, OUTPUT_AFTER_MS));
      await Promise.race([Promise.all([stdout.ended, stderr.ended]), grace]);
      if (stopped !== undefined) throw stopped;
      // Ctrl-C reaches the program too: how it ended then says nothing of its work.
      checkpoint();
      return {
        code: status.code,
        ...(status.signal ? { signal: status.signal } : {}),
        stdout: stdout.text(),
        stderr: stderr.text(),
      };
    } finally {
      stdout.stop();
      stderr.stop();
      clearTimeout(graceTimer);
      clearInterval(poll);
      clearTimeout(killTimer);
    }
  };
}

/** Starts a program. @throws {BackupError} (usage) If it is not there. */
function spawn(
  program: string,
  args: readonly string[],
  { stdin, env }: NonNullable<Parameters<Run>[2]>,
): Deno.ChildProcess {
  try {
    return new Deno.Command(program, {
      args: [...args],
      stdin: stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
      ...(env ? { env: { ...env } } : {}),
    }).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new BackupError(`Cannot run ${program}: it is not installed`, {
      kind: "usage",
      hint: `install ${program} (Debian: apt-get install ${PACKAGE_OF[program] ?? program})`,
    });
  }
}

/** Programs that wait for another machine; any other that takes too long is stuck on this one. */
const REACHING_OUT: readonly string[] = ["rsync", "rclone", "ssh", "ssh-keyscan"];

/** Debian's packages of programs whose name differs. */
const PACKAGE_OF: Readonly<Record<string, string>> = {
  find: "findutils",
  ssh: "openssh-client",
  "ssh-keyscan": "openssh-client",
};

function kill(child: Deno.ChildProcess, signal: Deno.Signal): void {
  try {
    child.kill(signal);
  } catch { /* It has ended by itself. */ }
}

async function feed(child: Deno.ChildProcess, text: string | undefined): Promise<void> {
  if (text === undefined) return;
  const writer = child.stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch { /* It ended without reading its input; its exit code says so. */ }
}

/** A program's output as it comes. */
interface Collected {
  /** Resolves at its end. */
  readonly ended: Promise<void>;
  /** What has come so far. */
  readonly text: () => string;
  readonly stop: () => void;
}

function collect(stream: ReadableStream<Uint8Array>, onLine?: (line: string) => void): Collected {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let kept = "";
  let line = "";
  const take = (text: string) => {
    if (kept.length < OUTPUT_BYTES_MAX) kept += text;
    if (!onLine) return;
    const lines = (line + text).split(/[\r\n]/);
    line = lines.pop()!.slice(-OUTPUT_BYTES_MAX);
    for (const whole of lines) onLine(whole);
  };
  const read = async () => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      take(decoder.decode(next.value, { stream: true }));
    }
    take(decoder.decode());
    if (onLine && line !== "") onLine(line);
  };
  const ended = read();
  // Waited for later, if at all.
  ended.catch(() => {});
  return { ended, text: () => kept, stop: () => void reader.cancel().catch(() => {}) };
}
