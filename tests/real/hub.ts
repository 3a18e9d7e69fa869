/**
 * The real hub from npm, started on loopback, written to and read back the way its own clients do.
 *
 * What is relied on, as found in hub 0.30.7:
 * - A `message` event has no acknowledgement. The hub handles one socket's events in order and commits each message
 *   before it looks at the next event, so the answer to a `ping` sent afterwards proves that all of them are stored.
 * - `GET /api/sessions/:id/messages` pages backwards by position, at most 200 at a time.
 * - A commit reaches the WAL file before the answer is sent, so it survives SIGKILL (not a power cut: the hub runs with
 *   `synchronous = NORMAL`).
 *
 * @module
 */

import assert from "node:assert/strict";
// Pinned here and not in deno.json, which lists what the product itself depends on.
// deno-lint-ignore no-import-prefix
import { io, type Socket } from "npm:socket.io-client@4.8.4";
import { freePort } from "./free_port.ts";

/** The version the fixtures are built on; its database has `user_version` 26. */
const HUB_VERSION = "0.30.7";

const CACHE = new URL("../../node_modules/.cache/hapi-hub/", import.meta.url).pathname;
const START_MS_MAX = 60_000;
const STOP_MS_MAX = 60_000;
const ANSWER_MS_MAX = 60_000;
/** The most the hub gives in one page. */
const PAGE_MESSAGES = 200;
const LOG_CHARS_MAX = 64 * 1024;

/** A session as `GET /api/sessions` lists it. */
export interface HubSession {
  readonly id: string;
  readonly active: boolean;
  readonly updatedAt: number;
  readonly metadata: { readonly path: string } | null;
}

/** A message as `GET /api/sessions/:id/messages` gives it, out of its `{ role, content }` envelope. */
export interface HubMessage {
  readonly id: string;
  /** Counts from 1 within the session. */
  readonly seq: number;
  /** Milliseconds since 1970. */
  readonly createdAt: number;
  readonly role: string;
  readonly content: unknown;
}

/** A message that the hub has proven to have stored. */
export interface Acknowledged {
  readonly sessionId: string;
  readonly content: unknown;
}

/** Writes going on in the background. */
export interface WriteLoad {
  /** What the hub has acknowledged so far, in order. The array grows; copy it to keep a moment. */
  readonly acknowledged: readonly Acknowledged[];
  /** Why the writing ended before `stop()`, when it did: the hub went away. */
  readonly failure: Error | undefined;
  /** Ends the writing after the answer to the last batch. Does not throw when the hub went away before. */
  stop(): Promise<void>;
}

/** A running hub. */
export interface Hub extends AsyncDisposable {
  /** `http://127.0.0.1:<port>` */
  readonly base: string;
  readonly token: string;
  readonly pid: number;
  /** HAPI_HOME. */
  readonly home: string;
  /** The last 64 KiB of what the hub printed. */
  log(): string;
  /** Makes the session tagged `tag`, or finds it again, and gives its id. */
  createSession(tag: string): Promise<string>;
  /** Sends agent messages; resolves once the hub has stored every one. Rejects when it cannot be known. */
  sendMessages(sessionId: string, contents: readonly unknown[]): Promise<void>;
  /** Deletes a session with its messages. */
  deleteSession(sessionId: string): Promise<void>;
  sessions(): Promise<HubSession[]>;
  /** All messages of a session, oldest first. */
  messages(sessionId: string): Promise<HubMessage[]>;
  /** Those of `acknowledged` that the hub does not give back, each compared whole. */
  missing(acknowledged: readonly Acknowledged[]): Promise<Acknowledged[]>;
  /** Starts writing to `sessions` (3) sessions of its own, `perSecond` messages in all, of 30 to 4,000 characters. */
  writeLoad(options: { perSecond: number; sessions?: number }): Promise<WriteLoad>;
  /** SIGTERM, and waits for the end: the hub empties its WAL (the file stays, at 0 bytes). */
  stop(): Promise<void>;
  /** SIGKILL, and waits for the end: the WAL stays as it is. */
  kill(): Promise<void>;
}

/** How {@linkcode startHub} starts the hub. */
export interface HubOptions {
  /** HAPI_HOME: made when missing. */
  readonly home: string;
  /** The access token. Without it: the one in `<home>/settings.json`, as a restored hub would, else a new one. */
  readonly token?: string;
  /** Without it: a free one. */
  readonly port?: number;
  readonly version?: string;
}

/**
 * Installs the hub once per version into this checkout's `node_modules/.cache/` and gives the path of its binary.
 * Safe when several test processes ask at the same time: they wait for the first.
 */
export async function ensureHub(version = HUB_VERSION): Promise<string> {
  assert.match(version, /^\d+\.\d+\.\d+$/);
  const arch = Deno.build.arch === "aarch64" ? "arm64" : "x64";
  const installed = `${CACHE}${version}`;
  const binary = `${installed}/node_modules/@twsxtd/hapi-linux-${arch}/bin/hapi`;
  if (await exists(binary)) return binary;

  await Deno.mkdir(CACHE, { recursive: true });
  // The lock goes with the process that holds it, so a killed run leaves nothing to clean up but its temporary folder.
  using lock = await Deno.open(`${CACHE}${version}.lock`, { create: true, write: true });
  await lock.lock(true);
  if (await exists(binary)) return binary;

  const beside = await Deno.makeTempDir({ dir: CACHE, prefix: `${version}-`, suffix: ".tmp" });
  try {
    const { success, stderr } = await new Deno.Command("npm", {
      args: [
        "install",
        "--prefix",
        beside,
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        `@twsxtd/hapi@${version}`,
      ],
      cwd: beside,
      stdin: "null",
    }).output();
    if (!success) {
      throw new Error(`Cannot install hub ${version}: npm said: ${new TextDecoder().decode(stderr).trim()}`);
    }
    await Deno.rename(beside, installed);
  } finally {
    await Deno.remove(beside, { recursive: true }).catch(() => {});
  }
  if (!await exists(binary)) {
    throw new Error(`Cannot use hub ${version}: npm brought no binary for linux-${arch}`);
  }
  return binary;
}

/** Starts the hub on loopback and waits until it answers. Nothing outside this machine is contacted. */
export async function startHub(options: HubOptions): Promise<Hub> {
  const binary = await ensureHub(options.version);
  await Deno.mkdir(options.home, { recursive: true });
  const stored = await storedToken(options.home);
  const token = options.token ?? stored ?? crypto.randomUUID();
  // A hub with its own settings must find the token there: that they came back is what a restore test is about.
  const tokenEnv: Record<string, string> = options.token === undefined && stored !== undefined
    ? {}
    : { CLI_API_TOKEN: token };

  // Another process can take the free port between our look and the hub's.
  for (let tries = 1;; tries++) {
    const port = options.port ?? freePort();
    const hub = await RunningHub.start(binary, options.home, port, token, tokenEnv);
    try {
      await hub.waitUntilReady();
      return hub;
    } catch (error) {
      await hub.kill();
      if (options.port !== undefined || tries === 3 || !/in use|EADDRINUSE/i.test(hub.log())) throw error;
    }
  }
}

class RunningHub implements Hub {
  readonly base: string;
  #log = "";
  #ended: Deno.CommandStatus | undefined;
  readonly #status: Promise<Deno.CommandStatus>;
  readonly #pumps: Promise<void>;
  readonly #killWithUs: () => void;
  #socket: Promise<Socket> | undefined;
  #jwt: Promise<string> | undefined;

  static async start(
    binary: string,
    home: string,
    port: number,
    token: string,
    tokenEnv: Record<string, string>,
  ) {
    const userHome = await Deno.makeTempDir({ prefix: "hub-home-" });
    const child = new Deno.Command(binary, {
      args: ["hub"],
      clearEnv: true,
      env: {
        PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin",
        TZ: "UTC",
        HOME: userHome,
        HAPI_HOME: home,
        HAPI_LISTEN_HOST: "127.0.0.1",
        HAPI_LISTEN_PORT: String(port),
        // Push goes through a public relay unless told otherwise; what cannot be turned off is led to a closed port.
        HAPI_IOS_PUSH: "off",
        HAPI_PUSH_RELAY_URL: "http://127.0.0.1:9",
        HTTP_PROXY: "http://127.0.0.1:9",
        HTTPS_PROXY: "http://127.0.0.1:9",
        NO_PROXY: "127.0.0.1,localhost",
        ...tokenEnv,
      },
      cwd: userHome,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    return new RunningHub(child, home, userHome, port, token);
  }

  private constructor(
    private readonly child: Deno.ChildProcess,
    readonly home: string,
    private readonly userHome: string,
    port: number,
    readonly token: string,
  ) {
    this.base = `http://127.0.0.1:${port}`;
    this.#status = child.status.then((status) => this.#ended = status);
    this.#pumps = Promise.all([this.#keep(child.stdout), this.#keep(child.stderr)]).then(() => {});
    this.#killWithUs = () => this.#signal("SIGKILL");
    globalThis.addEventListener("unload", this.#killWithUs);
  }

  get pid(): number {
    return this.child.pid;
  }

  log(): string {
    return this.#log;
  }

  async waitUntilReady(): Promise<void> {
    const deadline = Date.now() + START_MS_MAX;
    while (Date.now() < deadline) {
      if (this.#ended) {
        throw new Error(`Cannot start the hub: it ended with ${this.#ended.code}\n${this.#log}`);
      }
      try {
        // Another program may answer on this port; only this hub knows the token.
        await this.#login();
        return;
      } catch {
        await delay(50);
      }
    }
    throw new Error(
      `Cannot start the hub: no answer at ${this.base} in ${START_MS_MAX / 1000} s\n${this.#log}`,
    );
  }

  async createSession(tag: string): Promise<string> {
    const body = { tag, metadata: { path: `/project/${tag}`, host: "fixture" }, agentState: null };
    const response = await this.#fetch("/cli/sessions", this.token, body);
    return (response as { session: HubSession }).session.id;
  }

  async sendMessages(sessionId: string, contents: readonly unknown[]): Promise<void> {
    const socket = await this.#connected(sessionId);
    // What is given to one that is closed waits for another connection, which never comes.
    if (!socket.connected) {
      throw new Error(`Cannot send messages to session ${sessionId}: the hub closed the connection`);
    }
    let refused: string | undefined;
    const onError = (error: { message?: string; id?: string }) => refused = `${error.message} (${error.id})`;
    socket.on("error", onError);
    try {
      for (const content of contents) {
        socket.emit("message", { sid: sessionId, message: { role: "agent", content } });
      }
      await socket.timeout(ANSWER_MS_MAX).emitWithAck("ping");
    } finally {
      socket.off("error", onError);
    }
    if (refused !== undefined) {
      throw new Error(`Cannot send messages to session ${sessionId}: the hub said ${refused}`);
    }
  }

  async deleteSession(sessionId: string): Promise<void> {
    await this.#api(`/api/sessions/${encodeURIComponent(sessionId)}`, "DELETE");
  }

  async sessions(): Promise<HubSession[]> {
    return (await this.#api("/api/sessions") as { sessions: HubSession[] }).sessions;
  }

  async messages(sessionId: string): Promise<HubMessage[]> {
    const pages: HubMessage[][] = [];
    let before = "";
    for (;;) {
      const { messages, page } = await this.#api(
        `/api/sessions/${encodeURIComponent(sessionId)}/messages?limit=${PAGE_MESSAGES}${before}`,
      ) as MessagesPage;
      pages.push(messages.map(({ id, seq, createdAt, content }) => ({ id, seq, createdAt, ...content })));
      if (!page.hasMore) break;
      before = `&beforeAt=${page.nextBeforeAt}&beforeSeq=${page.nextBeforeSeq}`;
    }
    return pages.reverse().flat();
  }

  async missing(acknowledged: readonly Acknowledged[]): Promise<Acknowledged[]> {
    const absent: Acknowledged[] = [];
    const bySession = Map.groupBy(acknowledged, (message) => message.sessionId);
    const known = new Set((await this.sessions()).map((session) => session.id));
    for (const [sessionId, expected] of bySession) {
      const found = known.has(sessionId) ? await this.messages(sessionId) : [];
      const counts = new Map<string, number>();
      for (const { content } of found) {
        const key = JSON.stringify(content);
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
      for (const message of expected) {
        const key = JSON.stringify(message.content);
        const left = counts.get(key) ?? 0;
        if (left === 0) absent.push(message);
        else counts.set(key, left - 1);
      }
    }
    return absent;
  }

  async writeLoad({ perSecond, sessions = 3 }: { perSecond: number; sessions?: number }): Promise<WriteLoad> {
    const run = crypto.randomUUID().slice(0, 8);
    const ids: string[] = [];
    for (let i = 0; i < sessions; i++) ids.push(await this.createSession(`load-${run}-${i}`));
    const acknowledged: Acknowledged[] = [];
    const load = { acknowledged, failure: undefined as Error | undefined, stop };
    let stopping = false;
    const started = performance.now();

    const writing = (async () => {
      let sent = 0;
      for (let turn = 0; !stopping; turn++) {
        const due = Math.min(Math.floor((performance.now() - started) / 1000 * perSecond) - sent, 500);
        if (due > 0) {
          const sessionId = ids[turn % ids.length]!;
          const contents = Array.from({ length: due }, () => loadContent(`${run}-${sent++}`, sent));
          await this.sendMessages(sessionId, contents);
          for (const content of contents) acknowledged.push({ sessionId, content });
        }
        await delay(20);
      }
    })().catch((error) => {
      load.failure = error;
    });

    async function stop() {
      stopping = true;
      await writing;
    }
    return load;
  }

  async stop(): Promise<void> {
    this.#signal("SIGTERM");
    const late = new AbortController();
    const inTime = await Promise.race([
      this.#status.then(() => true),
      delay(STOP_MS_MAX, late.signal).then(() => false),
    ]);
    late.abort();
    if (!inTime) this.#signal("SIGKILL");
    await this.#cleanUp();
    if (!inTime) {
      throw new Error(`Cannot stop the hub: still running ${STOP_MS_MAX / 1000} s after SIGTERM; killed it`);
    }
  }

  async kill(): Promise<void> {
    this.#signal("SIGKILL");
    await this.#cleanUp();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #cleanUp(): Promise<void> {
    await this.#status;
    await this.#pumps;
    globalThis.removeEventListener("unload", this.#killWithUs);
    const socket = await this.#socket?.catch(() => undefined);
    socket?.close();
    await Deno.remove(this.userHome, { recursive: true }).catch(() => {});
  }

  #signal(signal: Deno.Signal): void {
    if (this.#ended) return;
    try {
      this.child.kill(signal);
    } catch {
      // It has ended, and its status has not reached us yet.
    }
  }

  async #keep(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.#log = (this.#log + text).slice(-LOG_CHARS_MAX);
    }
  }

  /** One socket serves every session of the token's namespace; the session it names only chooses what it hears. */
  #connected(sessionId: string): Promise<Socket> {
    return this.#socket ??= new Promise<Socket>((resolve, reject) => {
      const socket = io(`${this.base}/cli`, {
        path: "/socket.io/",
        transports: ["websocket"],
        auth: { token: this.token, clientType: "session-scoped", sessionId },
        reconnection: false,
        forceNew: true,
      });
      socket.once("connect", () => resolve(socket));
      socket.once("connect_error", (error: Error) => {
        socket.close();
        this.#socket = undefined;
        reject(new Error(`Cannot connect to the hub's socket at ${this.base}: ${error.message}`));
      });
    });
  }

  async #login(): Promise<string> {
    const { token } = await this.#fetch("/api/auth", undefined, { accessToken: this.token }) as {
      token: string;
    };
    return token;
  }

  async #api(path: string, method = "GET"): Promise<unknown> {
    return await this.#fetch(path, await (this.#jwt ??= this.#login()), undefined, method);
  }

  async #fetch(
    path: string,
    bearer: string | undefined,
    body?: unknown,
    method = body === undefined ? "GET" : "POST",
  ): Promise<unknown> {
    const response = await fetch(this.base + path, {
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
      headers: {
        ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (response.ok) return await response.json();
    throw new Error(
      `Cannot ask the hub for ${path}: it answered ${response.status} ${await response.text()}`,
    );
  }
}

interface MessagesPage {
  messages: { id: string; seq: number; createdAt: number; content: { role: string; content: unknown } }[];
  page: { hasMore: boolean; nextBeforeAt: number; nextBeforeSeq: number };
}

/** Sizes on both sides of 256 characters, where the hub begins to compress. */
function loadContent(key: string, n: number): unknown {
  const line = `[load ${key}] wrote chunk ${n} of the build log, é 漢字 🙂\n`;
  return { type: "text", text: line.repeat(1 + (n * 7919) % 70).slice(0, 30 + (n * 104_729) % 4000) + key };
}

async function storedToken(home: string): Promise<string | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(`${home}/settings.json`)).cliApiToken;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
