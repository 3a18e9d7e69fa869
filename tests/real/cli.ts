/** The command line as a user runs it: a process of its own, with the permissions that its verb gets everywhere. */

import verbs from "../../nix/verbs.json" with { type: "json" };

const ROOT = new URL("../..", import.meta.url).pathname;

/** How a command ended. */
export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a command is run with. */
export interface CliOptions {
  /** HOME. */
  readonly home: string;
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs `hapi-backup <args>`. */
export async function cli(options: CliOptions, ...args: string[]): Promise<CliResult> {
  const { home, stdin, env } = options;
  const child = new Deno.Command(Deno.execPath(), {
    args: cliArgs(args),
    cwd: home,
    clearEnv: true,
    env: cliEnv(home, env),
    stdin: stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  if (stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(stdin));
    await writer.close();
  }
  const { code, stdout, stderr } = await child.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

/** The arguments for Deno. */
export function cliArgs(args: readonly string[]): string[] {
  const table = verbs.verbs as Readonly<Record<string, readonly string[]>>;
  const flags = table[args[0]!] ?? table.config!;
  return [
    "run",
    `--config=${ROOT}deno.json`,
    ...verbs.always,
    `--allow-env=${verbs.env.join(",")}`,
    ...flags,
    `${ROOT}mod.ts`,
    ...args,
  ];
}

/** The environment of a command: what of this process's Deno needs, and no more. */
export function cliEnv(home: string, env: Readonly<Record<string, string>> = {}): Record<string, string> {
  const kept = ["PATH", "DENO_DIR", "TMPDIR", "LANG"].flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value] as const];
  });
  return {
    ...Object.fromEntries(kept),
    // Deno keeps its cache under HOME where nothing else is said.
    ...(Deno.env.has("DENO_DIR") ? {} : { DENO_DIR: `${Deno.env.get("HOME")}/.cache/deno` }),
    HOME: home,
    ...env,
  };
}
