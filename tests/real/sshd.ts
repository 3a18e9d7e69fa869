/**
 * A real sshd on loopback that serves one folder through rrsync, as the storage host does: one key that may only add
 * files, one key that may only read. Runs as the current user, root or not.
 *
 * @module
 */

import { userInfo } from "node:os";
import { formatPrivateKey, formatPublicKeyLine, publicKeyOf } from "../../scripts/core/keys/openssh_key.ts";
import { shellQuote } from "../../scripts/core/shell.ts";
import { sshCommand } from "../../scripts/core/shipping/rsync_args.ts";
import { freePort } from "./free_port.ts";

const START_MS_MAX = 60_000;
const STOP_MS_MAX = 60_000;
const IDLE_MS_MAX = 60_000;

/** How {@linkcode startSshd} sets the storage host up. */
export interface SshdOptions {
  /** The folder that both keys are confined to: made when missing. */
  readonly dir: string;
  /** rrsync's options for the first key. Default: `-wo -no-del -no-overwrite`. */
  readonly writeOptions?: string;
  /** More lines of `authorized_keys`, whole. */
  readonly authorizedKeys?: readonly string[];
  /** More lines of `sshd_config`. */
  readonly config?: readonly string[];
}

/** A running sshd. */
export interface Sshd extends AsyncDisposable {
  readonly host: "127.0.0.1";
  readonly port: number;
  readonly user: string;
  /** Private key of the write-only account. Its public half stands beside it as `.pub`. */
  readonly writeKeyFile: string;
  /** Private key of the read-only account. */
  readonly readKeyFile: string;
  /** Pins this server's host key; stays as it is when the host key changes. */
  readonly knownHostsFile: string;
  /** What `rsync -e` takes: ssh with the given key and nothing of the user's own configuration. */
  rsh(keyFile: string): string;
  /** Adds lines to `authorized_keys`; they count from the next connection on. */
  authorize(lines: string): void;
  /** What sshd logged (`LogLevel VERBOSE`). */
  log(): string;
  /** Breaks every open connection, as a dead line would; new ones are still taken. */
  cut(): Promise<void>;
  /** Waits until every connection has ended by itself, as one does that was broken on the way here. */
  idle(): Promise<void>;
  /** Stops listening and breaks every open connection. Nothing reserves the port for `restart()`. */
  stop(): Promise<void>;
  /** Listens again on the same port; with `newHostKey` as another machine would, which clients must refuse. */
  restart(options?: { newHostKey?: boolean }): Promise<void>;
}

/** That server as a destination of a configuration. */
export function destinationAt({ user, host, port, writeKeyFile, knownHostsFile }: Sshd) {
  return {
    kind: "rsync",
    name: "storage",
    target: `${user}@${host}:`,
    port,
    identityFile: writeKeyFile,
    knownHostsFile,
  } as const;
}

/** Starts sshd on a free port and waits until it answers. Dispose it to stop it and remove its keys. */
export async function startSshd(options: SshdOptions): Promise<Sshd> {
  await Deno.mkdir(options.dir, { recursive: true });
  const server = await RunningSshd.prepare(options);
  try {
    await server.listen();
  } catch (error) {
    await server[Symbol.asyncDispose]();
    throw error;
  }
  return server;
}

class RunningSshd implements Sshd {
  readonly host = "127.0.0.1";
  readonly writeKeyFile: string;
  readonly readKeyFile: string;
  readonly knownHostsFile: string;
  #child: Deno.ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #log = "";

  static async prepare(options: SshdOptions): Promise<RunningSshd> {
    // With a space, as every path may have that is named to ssh and sshd.
    const scratch = await Deno.makeTempDir({ prefix: "an sshd-" });
    const user = userInfo().username;
    const server = new RunningSshd(scratch, user, freePort());
    for (const name of ["host", "write", "read"]) await newKey(`${scratch}/${name}`);
    await server.#pinHostKey();

    const rrsync = await where("rrsync");
    const dir = await Deno.realPath(options.dir);
    const line = (mode: string, publicKey: string) =>
      `restrict,command="${rrsync} ${mode} ${shellQuote(dir)}" ${publicKey}`;
    await Deno.writeTextFile(
      `${scratch}/authorized_keys`,
      [
        line(options.writeOptions ?? "-wo -no-del -no-overwrite", await publicLineOf(server.writeKeyFile)),
        line("-ro", await publicLineOf(server.readKeyFile)),
        ...options.authorizedKeys ?? [],
      ].join("\n") + "\n",
    );
    await Deno.writeTextFile(
      `${scratch}/sshd_config`,
      [
        `Port ${server.port}`,
        "ListenAddress 127.0.0.1",
        `HostKey "${scratch}/host"`,
        `AuthorizedKeysFile "${scratch}/authorized_keys"`,
        "PidFile none",
        "UsePAM no",
        // The temporary folder's parents are writable by others, which StrictModes refuses.
        "StrictModes no",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "LogLevel VERBOSE",
        "MaxStartups 100",
        // The default is a fifth of what a connection costs, and nothing here depends on it.
        "KexAlgorithms curve25519-sha256",
        // bash takes a forced command for a login and reads its start-up files, unless it is told that it is nested.
        "SetEnv SHLVL=1",
        ...options.config ?? [],
      ].join("\n") + "\n",
    );
    return server;
  }

  private constructor(private readonly scratch: string, readonly user: string, readonly port: number) {
    this.writeKeyFile = `${scratch}/write`;
    this.readKeyFile = `${scratch}/read`;
    this.knownHostsFile = `${scratch}/known_hosts`;
  }

  async listen(): Promise<void> {
    if (this.#child) throw new Error("Cannot start sshd: it is running");
    // sshd started by root gives up its privileges in this folder, which no package makes before the first boot.
    if (Deno.uid() === 0) await Deno.mkdir("/run/sshd", { recursive: true });
    const child = new Deno.Command(await where("sshd"), {
      args: ["-D", "-e", "-f", `${this.scratch}/sshd_config`],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#child = child;
    let ended = false;
    this.#ended = Promise.all([child.status, this.#keep(child.stderr)]).then(() => {
      ended = true;
    });

    const deadline = Date.now() + START_MS_MAX;
    while (!await this.#answers()) {
      if (ended || Date.now() > deadline) {
        await this.stop();
        throw new Error(
          `Cannot start sshd on port ${this.port}: ${this.#log.trim() || "it does not answer"}`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  rsh(keyFile: string): string {
    const { knownHostsFile, port } = this;
    return sshCommand({ identityFile: keyFile, knownHostsFile, port, timeoutSeconds: 60 });
  }

  authorize(lines: string): void {
    Deno.writeTextFileSync(`${this.scratch}/authorized_keys`, lines, { append: true });
  }

  log(): string {
    return this.#log;
  }

  async cut(): Promise<void> {
    if (this.#child) await killAll(await descendantsOf(this.#child.pid));
  }

  async idle(): Promise<void> {
    const deadline = Date.now() + IDLE_MS_MAX;
    while (this.#child && (await descendantsOf(this.#child.pid)).length > 0) {
      if (Date.now() > deadline) throw new Error("sshd still has a connection");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (!child) return;
    this.#child = undefined;
    // Each connection's process is in a session of its own and outlives the listener, and with the listener gone
    // nothing tells that it was ours: look first.
    const connections = await descendantsOf(child.pid);
    killNow(child.pid);
    await child.status;
    await killAll(connections);
    await this.#ended;
  }

  async restart(options: { newHostKey?: boolean } = {}): Promise<void> {
    await this.stop();
    if (options.newHostKey) await newKey(`${this.scratch}/host`);
    await this.listen();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.scratch, { recursive: true });
  }

  async #pinHostKey(): Promise<void> {
    const [type, key] = (await publicLineOf(`${this.scratch}/host`)).split(" ");
    await Deno.writeTextFile(this.knownHostsFile, `[127.0.0.1]:${this.port} ${type} ${key}\n`);
  }

  async #answers(): Promise<boolean> {
    try {
      using connection = await Deno.connect({ hostname: this.host, port: this.port });
      const greeting = new Uint8Array(4);
      return await connection.read(greeting) === 4 && new TextDecoder().decode(greeting) === "SSH-";
    } catch {
      return false;
    }
  }

  async #keep(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) this.#log += text;
  }
}

/** Makes an Ed25519 key pair without a passphrase at `file` and `file.pub`, replacing what is there. */
export async function newKey(file: string): Promise<void> {
  for (const old of [file, `${file}.pub`]) await Deno.remove(old).catch(() => {});
  const seed = crypto.getRandomValues(new Uint8Array(32));
  await Deno.writeTextFile(file, formatPrivateKey(seed, "fixture", 1), { mode: 0o600 });
  await Deno.writeTextFile(`${file}.pub`, formatPublicKeyLine(publicKeyOf(seed), "fixture") + "\n");
}

async function publicLineOf(file: string): Promise<string> {
  return (await Deno.readTextFile(`${file}.pub`)).trim();
}

/** Every process of this machine that has not ended. By `ps`, because Deno opens /proc only under --allow-all. */
async function processes(): Promise<{ pid: number; parent: number }[]> {
  const lines = (await output("ps", ["-e", "-o", "pid=,ppid=,stat="])).trim().split("\n");
  return lines.map((line) => line.trim().split(/\s+/))
    .filter(([, , state]) => !state!.startsWith("Z"))
    .map(([pid, parent]) => ({ pid: Number(pid), parent: Number(parent) }));
}

/** All processes below `pid`, parents first. */
async function descendantsOf(pid: number): Promise<number[]> {
  const children = Map.groupBy(await processes(), (process) => process.parent);
  const found = [pid];
  for (const next of found) found.push(...(children.get(next) ?? []).map((child) => child.pid));
  return found.slice(1);
}

/** Ends `pids` and waits until they are gone. */
async function killAll(pids: readonly number[]): Promise<void> {
  if (pids.length === 0) return;
  pids.forEach(killNow);
  const deadline = Date.now() + STOP_MS_MAX;
  while ((await processes()).some((process) => pids.includes(process.pid))) {
    if (Date.now() > deadline) throw new Error("Cannot stop sshd: its processes ignore SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The path of a program, an administrator's too. */
async function where(program: string): Promise<string> {
  return (await output("sh", ["-c", `PATH="$PATH:/usr/sbin:/sbin"; command -v ${program}`])).trim();
}

function killNow(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself; whoever waits for it tells if not.
  }
}

async function output(program: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args: [...args], stdin: "null" })
    .output();
  if (!success) {
    throw new Error(`Cannot run ${program}: ${new TextDecoder().decode(stderr).trim() || "not found"}`);
  }
  return new TextDecoder().decode(stdout);
}
