/**
 * Makes a hub's database of any size, the same for the same seed: the real hub's schema, filled by the statements the
 * hub uses, with contents like an agent's tool output. Then lets half a day, a vacuum, a migration… happen to it.
 *
 * As in hub 0.30.7:
 * - ids are random UUIDs; messages of the sessions at work interleave; `seq` counts per session;
 * - a content of 256 or more characters of JSON is a zstd blob (level 3) if that is smaller, else text;
 * - usage rows are written in batches, one scan of a session at a time, after its messages;
 * - a session's row is updated while it works; a live reasoning snapshot is deleted once its successor is stored.
 *
 * ```sh
 * deno run -A tests/bench/generate.ts --out DIR --messages 200000 --case halfDay --case vacuum
 * ```
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { parseArgs } from "node:util";
import { zstdCompressSync } from "node:zlib";
import { ensureHub, startHub } from "../real/hub.ts";

/** What {@linkcode generateHubDatabase} makes. */
export interface GenerateOptions {
  /** The folder for `hapi.db`: made when missing. */
  readonly out: string;
  /** Default 1. */
  readonly seed?: number;
  /** Default 78. */
  readonly sessions?: number;
  /** Default 200,000, which makes about 270 MB. */
  readonly messages?: number;
}

/** How much a case does. */
export interface CaseOptions {
  /** Default 2. The same seed as another case's repeats its random numbers. */
  readonly seed?: number;
  /** `halfDay`: messages in all, default 4,000. */
  readonly messages?: number;
  /** `halfDay`: sessions at work, default 8. */
  readonly sessions?: number;
}

const COMPRESS_CHARS_MIN = 256;
const TOOL_OUTPUT_CHARS_MAX = 60_000;
const STATEMENTS_PER_COMMIT = 1000;
const MESSAGES_PER_SESSION_UPDATE = 25;
const MESSAGES_PER_USAGE_SCAN = 120;
/** 2026-03-01, the first moment of every generated hub. */
const EPOCH_MS = Date.UTC(2026, 2, 1);

/** Makes `<out>/hapi.db`, checkpointed and closed, and gives its path. Refuses to replace one. */
export async function generateHubDatabase(options: GenerateOptions): Promise<string> {
  const { out, seed = 1, sessions = 78, messages = 200_000 } = options;
  const path = `${out}/hapi.db`;
  await Deno.mkdir(out, { recursive: true });
  using _new = await Deno.open(path, { createNew: true, write: true });
  await Deno.copyFile(await emptyHubDatabase(), path);

  using writer = new HubWriter(path, seed);
  for (let i = 0; i < Math.min(sessions, 6); i++) writer.addSession();
  for (let done = 0; done < messages;) {
    // Sessions come one after the other over the weeks; the newest handful is at work.
    while (writer.sessions.length < Math.min(sessions, 6 + Math.floor(done / messages * sessions))) {
      writer.addSession();
    }
    const newest = writer.sessions.slice(-10);
    const atWork = Array.from(
      { length: 4 },
      () => writer.random.pick(writer.random.chance(0.2) ? writer.sessions : newest),
    );
    const burst = Math.min(400, messages - done);
    writer.work(atWork, burst);
    done += burst;
  }
  while (writer.sessions.length < sessions) writer.addSession();
  return path;
}

/** What can happen to a hub's database between two snapshots. Each leaves it checkpointed and closed. */
export const CASES = { halfDay, fiveMinutes, nothing, oneRow, vacuum, massDelete, migration } as const;
export type CaseName = keyof typeof CASES;

/** Half a day of use: 4,000 messages in 8 sessions, their usage rows and session updates. */
export function halfDay(
  database: string,
  { seed = 2, messages = 4000, sessions = 8 }: CaseOptions = {},
): void {
  using writer = new HubWriter(database, seed);
  const atWork = writer.random.sample(writer.sessions, sessions);
  for (let done = 0; done < messages;) {
    const burst = Math.min(100, messages - done);
    writer.work(writer.random.sample(atWork, Math.min(3, atWork.length)), burst);
    done += burst;
  }
}

/** Five minutes of use: a 144th of half a day. */
export function fiveMinutes(database: string, { seed = 2 }: CaseOptions = {}): void {
  halfDay(database, { seed, messages: 28, sessions: 3 });
}

/** Nothing at all: the file is not even opened. */
export function nothing(_database: string, _options: CaseOptions = {}): void {}

/** One row changes: a session was seen active. */
export function oneRow(database: string, { seed = 2 }: CaseOptions = {}): void {
  using writer = new HubWriter(database, seed);
  writer.touchSession(writer.random.pick(writer.sessions));
}

/** `VACUUM`, which moves every page. */
export function vacuum(database: string, _options: CaseOptions = {}): void {
  // By the program: node:sqlite refuses VACUUM unless Deno may read and write everything.
  const { success, stderr } = new Deno.Command("sqlite3", {
    args: ["-bail", database, "VACUUM"],
    stdin: "null",
  })
    .outputSync();
  if (!success) throw new Error(`Cannot vacuum ${database}: ${new TextDecoder().decode(stderr).trim()}`);
}

/** A third of the sessions is deleted; their messages and usage rows go with them and leave free pages. */
export function massDelete(database: string, { seed = 2 }: CaseOptions = {}): void {
  using writer = new HubWriter(database, seed);
  const gone = writer.random.sample(writer.sessions, Math.ceil(writer.sessions.length / 3));
  writer.deleteSessions(gone);
}

/** A schema change as the hub makes them at start: a column, an index over all messages, a table rebuilt. */
export function migration(database: string, _options: CaseOptions = {}): void {
  using db = openAsHub(database);
  const { sql } = db.prepare("SELECT sql FROM sqlite_schema WHERE name = 'usage_events'").get() as {
    sql: string;
  };
  const { user_version: version } = db.prepare("PRAGMA user_version").get() as { user_version: number };
  db.exec(`
    PRAGMA foreign_keys = OFF;
    BEGIN;
    ALTER TABLE messages ADD COLUMN author TEXT;
    CREATE INDEX idx_messages_created ON messages(created_at);
    ${
    sql.replace("usage_events", "usage_events_new").replace("model TEXT,", "model TEXT NOT NULL DEFAULT '',")
  };
    INSERT INTO usage_events_new SELECT * FROM usage_events;
    DROP TABLE usage_events;
    ALTER TABLE usage_events_new RENAME TO usage_events;
    CREATE INDEX idx_usage_events_session_created ON usage_events(session_id, created_at, source_seq);
    CREATE INDEX idx_usage_events_created ON usage_events(created_at);
    PRAGMA user_version = ${version + 1};
    COMMIT;
  `);
}

/** The number of rows of every table. */
export function countRows(database: string): Record<string, number> {
  // Not read-only: such a connection leaves a -wal and a -shm behind.
  using db = new DatabaseSync(database);
  const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").all();
  return Object.fromEntries(tables.map(({ name }) => {
    const { rows } = db.prepare(`SELECT count(*) AS rows FROM "${name}"`).get() as { rows: number };
    return [name as string, rows];
  }));
}

interface Session {
  readonly id: string;
  readonly tag: string;
  seq: number;
  /** Usage rows that the next scan of this session will write. */
  unscanned: Usage[];
}

interface Usage {
  readonly key: string;
  readonly seq: number;
  readonly at: number;
  readonly model: string;
  readonly tokens: readonly [input: number, output: number, cacheRead: number, cacheCreation: number];
}

/** Writes as the hub does, by a seeded random source. Goes on where the database stands. */
class HubWriter implements Disposable {
  readonly random: Random;
  readonly sessions: Session[];
  readonly #db: DatabaseSync;
  readonly #text: ToolOutput;
  readonly #statements = new Map<string, StatementSync>();
  #now: number;
  #uncommitted = 0;

  constructor(path: string, seed: number) {
    this.random = new Random(seed);
    this.#text = new ToolOutput(this.random);
    this.#db = openAsHub(path);
    this.#db.exec("PRAGMA synchronous = OFF");
    this.sessions = this.#db.prepare(
      `SELECT id, tag, COALESCE((SELECT MAX(seq) FROM messages WHERE session_id = sessions.id), 0) AS seq
       FROM sessions ORDER BY created_at, id`,
    ).all().map(({ id, tag, seq }) => ({
      id: String(id),
      tag: String(tag),
      seq: Number(seq),
      unscanned: [],
    }));
    const { at } = this.#db.prepare("SELECT MAX(COALESCE(active_at, updated_at)) AS at FROM sessions").get()!;
    this.#now = at === null ? EPOCH_MS : Number(at);
  }

  addSession(): void {
    const session: Session = { id: this.random.uuid(), tag: this.random.uuid(), seq: 0, unscanned: [] };
    const project = this.#text.word();
    const metadata = {
      path: `/home/operator/coding/${project}`,
      host: "hub",
      version: "0.30.7",
      os: "linux",
      flavor: "claude",
      name: `${this.#text.word()} ${this.#text.word()}`,
      startedBy: "runner",
      lifecycleState: "running",
      tools: Array.from({ length: 18 }, () => this.#text.word()),
    };
    this.#run(
      `INSERT INTO sessions (id, tag, created_at, updated_at, metadata, agent_state, model, active, active_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)`,
      ...[
        session.id,
        session.tag,
        this.#now,
        this.#now,
        JSON.stringify(metadata),
        '{"controlledByUser":false}',
      ],
      ...["claude-opus-4", this.#now],
    );
    this.sessions.push(session);
  }

  /** Adds `count` messages to the sessions `atWork`, interleaved, with what comes along with them. */
  work(atWork: readonly Session[], count: number): void {
    for (let i = 0; i < count; i++) {
      const session = this.random.pick(atWork);
      this.#now += this.random.below(20_000);
      if (i + 1 < count && this.random.chance(0.02)) {
        // A reasoning stream: its live snapshot is deleted once the next one is stored.
        const live = this.#addMessage(session, "reasoning");
        this.#addMessage(session, "reasoning");
        this.#run("DELETE FROM messages WHERE id = ?", live);
        i++;
        // Two of the three messages stay.
        this.#addMessage(session, "event");
      } else {
        this.#addMessage(session, this.random.weighted(KINDS));
      }
      if (session.seq % MESSAGES_PER_SESSION_UPDATE === 0) this.touchSession(session);
      if (session.seq % MESSAGES_PER_USAGE_SCAN === 0) this.#scanUsage(session);
    }
    for (const session of new Set(atWork)) this.#scanUsage(session);
  }

  /** The session's row as the hub rewrites it while the session works. */
  touchSession(session: Session): void {
    this.#now += 1000;
    const todos = Array.from({ length: 1 + this.random.below(6) }, (_, i) => ({
      content: this.#text.prose(60),
      status: i === 0 ? "in_progress" : "pending",
      id: String(i),
    }));
    this.#run(
      `UPDATE sessions SET updated_at = ?, active_at = ?, seq = seq + 1, todos = ?, todos_updated_at = ? WHERE id = ?`,
      ...[this.#now, this.#now, JSON.stringify(todos), this.#now, session.id],
    );
  }

  deleteSessions(gone: readonly Session[]): void {
    for (const session of gone) this.#run("DELETE FROM sessions WHERE id = ?", session.id);
  }

  [Symbol.dispose](): void {
    if (this.#uncommitted > 0) this.#db.exec("COMMIT");
    this.#db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    this.#db.close();
  }

  #addMessage(session: Session, kind: Kind): string {
    const id = this.random.uuid();
    session.seq++;
    const message = this.#text.message(kind, session.tag);
    this.#run(
      `INSERT INTO messages (id, session_id, content, created_at, seq, local_id, invoked_at, scheduled_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, NULL)`,
      ...[id, session.id, encodeContent(message.content), this.#now, session.seq, null, this.#now],
    );
    if (message.usage) {
      session.unscanned.push({ ...message.usage, seq: session.seq, at: this.#now });
    }
    return id;
  }

  #scanUsage(session: Session): void {
    for (const { key, seq, at, model, tokens } of session.unscanned) {
      this.#run(
        `INSERT INTO usage_events (session_id, source_key, source_seq, created_at, agent, model, kind,
           input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens)
         VALUES (?, ?, ?, ?, 'claude', ?, 'delta', ?, ?, ?, ?)
         ON CONFLICT(session_id, source_key) DO UPDATE SET source_seq = excluded.source_seq`,
        ...[session.id, key, seq, at, model, ...tokens],
      );
    }
    session.unscanned = [];
    this.#run(
      `INSERT INTO usage_scan_state (session_id, message_epoch, last_seq) VALUES (?, 0, ?)
       ON CONFLICT(session_id) DO UPDATE SET last_seq = MAX(usage_scan_state.last_seq, excluded.last_seq)`,
      ...[session.id, session.seq],
    );
  }

  /** The hub commits every statement by itself. Fewer commits leave the same pages, only sooner. */
  #run(sql: string, ...values: (string | number | null | Uint8Array)[]): void {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, statement = this.#db.prepare(sql));
    if (this.#uncommitted === 0) this.#db.exec("BEGIN");
    statement.run(...values);
    if (++this.#uncommitted === STATEMENTS_PER_COMMIT) {
      this.#db.exec("COMMIT");
      this.#uncommitted = 0;
    }
  }
}

type Kind = "assistant" | "toolCall" | "toolResult" | "user" | "event" | "reasoning";

const KINDS: readonly (readonly [Kind, number])[] = [
  ["toolResult", 36],
  ["toolCall", 32],
  ["assistant", 18],
  ["event", 10],
  ["user", 4],
];

interface Message {
  readonly content: unknown;
  readonly usage?: Omit<Usage, "seq" | "at">;
}

type LineKind = "code" | "grep" | "log" | "prose";

/** Text as agents and their tools write it: names of a project, code, paths, logs, numbers, the odd hash. */
class ToolOutput {
  readonly #words: readonly string[];
  readonly #lines: Readonly<Record<LineKind, readonly string[]>>;

  constructor(private readonly random: Random) {
    const syllables =
      "ab ac ap ar ba be ca ch co da de di el en er ex fi fo ge ha in ke la le ma me mo na no ol on or pa " +
      "pe ra re ri ro sa se si st ta te ti to tr un up us va ve wo";
    const parts = syllables.split(" ");
    this.#words = Array.from(
      { length: 3000 },
      () => Array.from({ length: 2 + random.below(3) }, () => random.pick(parts)).join(""),
    );
    const w = () => this.word();
    // A `#` becomes a number of its own each time the line is used.
    const code = [
      () => `  const ${w()} = await ${w()}.${w()}(${w()}, ${w()});`,
      () => `    if (${w()}.${w()} !== ${w()}) return ${w()}(#);`,
      () => `export function ${w()}(${w()}: ${w()}, ${w()}: number): ${w()} {`,
      () => `  // ${w()} ${w()} ${w()} the ${w()} of ${w()}`,
      () => `      ${w()}: "${w()}-#",`,
      () => `  }`,
      () => ``,
    ];
    const grep = [
      () => `src/${w()}/${w()}.ts:#:  ${w()}(${w()}.${w()}, ${w()})`,
      () => `./packages/${w()}/test/${w()}.test.ts:#:    expect(${w()}).toBe(#)`,
    ];
    const log = [
      () => `2026-03-0#Z INFO  [${w()}] ${w()} ${w()} took #ms`,
      () => `2026-03-0#Z WARN  [${w()}] ${w()}=# ${w()}=# retry`,
      () => `ok # - ${w()} ${w()} ${w()} (#ms)`,
      () => `  at ${w()}.${w()} (/home/operator/coding/${w()}/src/${w()}.ts:#:#)`,
    ];
    const prose = [
      () => `The ${w()} ${w()} in \`${w()}\` is ${w()} because ${w()} ${w()} it ${w()}.`,
      () => `I will ${w()} the ${w()} and ${w()} the tests of ${w()} next.`,
      () => `- ${w()}: ${w()} ${w()} ${w()} (#)`,
    ];
    const fill = (makers: readonly (() => string)[]) =>
      Array.from({ length: 4000 }, () => random.pick(makers)());
    this.#lines = { code: fill(code), grep: fill(grep), log: fill(log), prose: fill(prose) };
  }

  /** A name of the project; a few come up far more often than the rest. */
  word(): string {
    return this.#words[Math.floor(this.#words.length * this.random.unit() ** 3)]!;
  }

  prose(chars: number): string {
    return this.#compose("prose", chars);
  }

  message(kind: Kind, tag: string): Message {
    const random = this.random;
    switch (kind) {
      case "event":
        return {
          content: agent({ type: "event", data: { type: random.pick(["ready", "switch", "message"]) } }),
        };
      case "user":
        return {
          content: {
            role: "user",
            content: { type: "text", text: this.prose(random.skewed(150, 1)) },
            meta: { sentFrom: "webapp" },
          },
        };
      case "reasoning":
        return {
          content: agent({
            type: "codex",
            data: { type: "reasoning", message: this.prose(random.skewed(400, 0.8)) },
          }),
        };
      case "toolResult":
        return {
          content: this.#output(tag, "user", {
            role: "user",
            content: [{
              tool_use_id: `toolu_${random.hex(24)}`,
              type: "tool_result",
              content: this.#compose(random.pick(["code", "code", "grep", "log"]), random.skewed(720, 1.35)),
            }],
          }),
        };
      case "toolCall":
      case "assistant": {
        const key = `msg_${random.hex(24)}`;
        const model = "claude-opus-4-20260101";
        const tokens = [
          random.below(9),
          random.below(900),
          random.below(150_000),
          random.below(4000),
        ] as const;
        const block = kind === "assistant" ? { type: "text", text: this.prose(random.skewed(350, 1)) } : {
          type: "tool_use",
          id: `toolu_${random.hex(24)}`,
          name: random.pick(["Bash", "Read", "Edit", "Grep"]),
          input: {
            command: this.#compose("grep", 60),
            new_string: this.#compose("code", random.skewed(150, 1.2)),
          },
        };
        const usage = {
          input_tokens: tokens[0],
          output_tokens: tokens[1],
          cache_read_input_tokens: tokens[2],
          cache_creation_input_tokens: tokens[3],
          service_tier: "standard",
        };
        const message = {
          id: key,
          type: "message",
          role: "assistant",
          model,
          content: [block],
          stop_reason: null,
          usage,
        };
        return {
          content: this.#output(tag, "assistant", message),
          usage: { key: `claude|${key}`, model, tokens },
        };
      }
      default: {
        const never: never = kind;
        return never;
      }
    }
  }

  #output(tag: string, type: string, message: unknown): unknown {
    const data = {
      parentUuid: this.random.uuid(),
      isSidechain: false,
      userType: "external",
      cwd: "/home/operator/coding/project",
      sessionId: tag,
      version: "2.0.1",
      gitBranch: "main",
      type,
      message,
      uuid: this.random.uuid(),
    };
    return agent({ type: "output", data }, { sentFrom: "cli" });
  }

  #compose(kind: LineKind, chars: number): string {
    const lines = this.#lines[kind];
    // A file is read in order, a search jumps about.
    const inOrder = kind === "code";
    let at = this.random.below(lines.length);
    let text = "";
    while (text.length < chars) {
      const line = lines[at]!;
      text += line.includes("#") ? line.replaceAll("#", () => String(this.random.below(100_000))) : line;
      text += "\n";
      at = inOrder ? (at + 1) % lines.length : this.random.below(lines.length);
    }
    return text.slice(0, Math.min(chars, TOOL_OUTPUT_CHARS_MAX));
  }
}

function agent(content: unknown, meta?: unknown): unknown {
  return { role: "agent", content, ...(meta === undefined ? {} : { meta }) };
}

function encodeContent(content: unknown): string | Uint8Array {
  const json = JSON.stringify(content);
  if (json.length < COMPRESS_CHARS_MIN) return json;
  const compressed = zstdCompressSync(Buffer.from(json));
  return compressed.length < Buffer.byteLength(json) ? compressed : json;
}

/** A database that the real hub has made and nothing has been written to; made once per checkout. */
async function emptyHubDatabase(): Promise<string> {
  const binary = await ensureHub();
  const template = `${binary.slice(0, binary.indexOf("/node_modules/@twsxtd/"))}/empty.db`;
  if (await Deno.stat(template).then(() => true, () => false)) return template;
  const home = await Deno.makeTempDir({ prefix: "hub-empty-" });
  try {
    await (await startHub({ home })).stop();
    // Beside, then renamed: another process may look for it now.
    const beside = `${template}.${crypto.randomUUID()}.tmp`;
    await Deno.copyFile(`${home}/hapi.db`, beside);
    await Deno.rename(beside, template);
  } finally {
    await Deno.remove(home, { recursive: true });
  }
  return template;
}

function openAsHub(path: string): DatabaseSync {
  const db = new DatabaseSync(path);
  db.exec(
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000",
  );
  return db;
}

/** Random numbers that a seed repeats on every machine (sfc32). */
class Random {
  #a: number;
  #b = 0x9e3779b9;
  #c = 0x243f6a88;
  #d = 1;

  constructor(seed: number) {
    this.#a = seed | 0;
    for (let i = 0; i < 12; i++) this.#next();
  }

  /** From 0 up to, not including, 1. */
  unit(): number {
    return this.#next() / 0x1_0000_0000;
  }

  below(limit: number): number {
    return Math.floor(this.unit() * limit);
  }

  chance(probability: number): boolean {
    return this.unit() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** `count` different ones, in random order; all of them when there are fewer. */
  sample<T>(from: readonly T[], count: number): T[] {
    const left = [...from];
    return Array.from(
      { length: Math.min(count, left.length) },
      () => left.splice(this.below(left.length), 1)[0]!,
    );
  }

  weighted<T>(from: readonly (readonly [T, number])[]): T {
    let at = this.unit() * from.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [value, weight] of from) if ((at -= weight) < 0) return value;
    return from[0]![0];
  }

  /** Log-normal, as sizes of outputs are: half are below `median`, a few far above it. */
  skewed(median: number, sigma: number): number {
    const normal = Math.sqrt(-2 * Math.log(1 - this.unit())) * Math.cos(2 * Math.PI * this.unit());
    return Math.max(1, Math.round(median * Math.exp(sigma * normal)));
  }

  hex(digits: number): string {
    let text = "";
    while (text.length < digits) text += this.#next().toString(16).padStart(8, "0");
    return text.slice(0, digits);
  }

  /** A version 4 UUID. */
  uuid(): string {
    const h = this.hex(32);
    const variant = "89ab"[this.below(4)];
    return `${h.slice(0, 8)}-${h.slice(8, 12)}-4${h.slice(13, 16)}-${variant}${h.slice(17, 20)}-${
      h.slice(20)
    }`;
  }

  #next(): number {
    const t = (((this.#a + this.#b) | 0) + this.#d) | 0;
    this.#d = (this.#d + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + t) | 0;
    return t >>> 0;
  }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      out: { type: "string" },
      seed: { type: "string", default: "1" },
      sessions: { type: "string", default: "78" },
      messages: { type: "string", default: "200000" },
      case: { type: "string", multiple: true, default: [] },
    },
  });
  const unknown = values.case.find((name) => !Object.hasOwn(CASES, name));
  if (values.out === undefined || unknown !== undefined) {
    console.error(
      unknown !== undefined
        ? `Cannot run case ${unknown}: there is none of that name`
        : "Cannot generate: no --out given",
    );
    console.error(`generate.ts --out DIR [--seed 1] [--sessions 78] [--messages 200000] [--case NAME …]`);
    console.error(
      `cases: ${Object.keys(CASES).join(", ")}; they go on with DIR/hapi.db when it is there already`,
    );
    Deno.exit(2);
  }
  const path = `${values.out}/hapi.db`;
  const there = await Deno.stat(path).then(() => true, () => false);
  if (!there) {
    const [seed, sessions, messages] = [
      Number(values.seed),
      Number(values.sessions),
      Number(values.messages),
    ];
    await generateHubDatabase({ out: values.out, seed, sessions, messages });
  }
  for (const name of values.case) CASES[name as CaseName](path, { seed: Number(values.seed) + 1 });
  console.log(JSON.stringify({ path, bytes: (await Deno.stat(path)).size, rows: countRows(path) }));
}
