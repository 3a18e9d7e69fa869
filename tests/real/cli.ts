/** The command line as a user runs it: a process of its own, with the permissions that its verb has where it is installed. */

import verbs from "../../nix/verbs.json" with { type: "json" };
import { denoArguments } from "../../scripts/core/sandbox/deno_flags.ts";

const MOD = new URL("../../mod.ts", import.meta.url).pathname;

/** How a command ended. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a command is run with. */
export interface CliOptions {
  /** HOME. */
  readonly home: string;
  /** HOME, if not told otherwise. */
  readonly cwd?: string;
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** A program that runs it, with its arguments. */
  readonly under?: readonly string[];
}

/** Runs `hapi-backup <args>`. */
export async function cli(options: CliOptions, ...args: string[]): Promise<Ran> {
  const child = startCli(options, args);
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(options.stdin ?? "")).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

/** Starts it. */
export function startCli({ home, cwd = home, env, under = [] }: CliOptions, args: readonly string[]) {
  const [program, ...rest] = [...under, ...cliWords(args)];
  return new Deno.Command(program!, {
    args: rest,
    cwd,
    clearEnv: true,
    env: { ...cliEnv(home), ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** The program and its arguments. */
export function cliWords(args: readonly string[]): string[] {
  const verb = args[0]! in verbs.verbs ? args[0]! : "config";
  return [Deno.execPath(), ...denoArguments(verb, MOD).slice(0, -1), ...args];
}

/** The environment of a command: what of this process's Deno needs, and no more. */
export function cliEnv(home: string): Record<string, string> {
  const kept = ["PATH", "TMPDIR", "LANG"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value] as const];
  });
  // Where Deno keeps what it compiled: a changed HOME must not make it start over.
  const compiled = Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`;
  return { ...Object.fromEntries(kept), ...verbs.environment, DENO_DIR: compiled, HOME: home };
}
