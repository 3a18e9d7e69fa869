/**
 * A hub's home in a temporary folder: a database with the hub's main tables, secrets and files, a configuration with
 * fresh keys; the steps in this process, with a clock that tests move, and the command line as it is installed.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import type { EncryptReport } from "../../scripts/core/command_line/reports.ts";
import { type Config, parseConfig } from "../../scripts/core/config/config.ts";
import { formatPrivateKey, formatPublicKeyLine, publicKeyOf } from "../../scripts/core/keys/openssh_key.ts";
import { MAIN_SET, type SetName } from "../../scripts/core/names.ts";
import { HOUR_MS } from "../../scripts/core/time.ts";
import { encrypt } from "../../scripts/encrypt.ts";
import type { Host } from "../../scripts/host/host.ts";
import { generateIdentity } from "../../scripts/host/keys/identity.ts";
import { readKeys } from "../../scripts/host/keys/keys.ts";
import type { Opening } from "../../scripts/host/restore/open_snapshot.ts";
import { makeHost } from "../../scripts/host/steps/step.ts";
import { setIn } from "../../scripts/host/store/store.ts";
import { check, snapshot } from "../../scripts/snapshot.ts";
import { cli, type CliOptions, type Ran, startCli } from "./cli.ts";

/** How to start the command line. */
type HomeCliOptions = Omit<CliOptions, "home" | "cwd">;

/** How to make a snapshot in this process. */
export interface BackupOptions {
  readonly host?: Host;
  readonly full?: boolean;
  readonly accept?: boolean;
  readonly set?: string;
}

/** A hub's home. */
export interface Home extends Disposable {
  /** The temporary folder that holds it all. */
  readonly dir: string;
  readonly home: string;
  /** The live database, closed. */
  readonly database: string;
  readonly store: string;
  /** The folder of the set `state` in the store. */
  readonly stored: string;
  readonly stateFolder: string;
  readonly configFile: string;
  readonly identityFile: string;
  readonly recipient: string;
  /** Seed of the key that signs seals, and its public half. */
  readonly seed: Uint8Array;
  readonly signer: string;
  /** What the steps told. */
  readonly told: string[];
  /** The clock of the steps in this process: each `backup()` moves it on by half a day. */
  now: Date;
  readonly host: Host;
  /** Writes the configuration anew, with `changes` over the keys of the fixture. */
  configure(changes: Readonly<Record<string, unknown>>): void;
  /** Ships to a folder `disk` beside the home, which is made. @returns Its path. */
  addDisk(changes?: Readonly<Record<string, unknown>>): string;
  config(): Config;
  sql(text: string): void;
  write(path: string, content: string | Uint8Array, mode?: number): void;
  backup(options?: BackupOptions): Promise<EncryptReport>;
  opening(changes?: Partial<Opening>): Promise<Opening>;
  /** Runs the command line, in UTC and without colors. */
  cli(args: readonly string[], options?: HomeCliOptions): Promise<Ran>;
  /** The same, under way. */
  spawn(args: readonly string[], options?: HomeCliOptions): Deno.ChildProcess;
}

/** Makes a home. */
export async function makeHome(): Promise<Home> {
  // Spaces and quotes in every path; resolved, as a temporary folder may be reached through a link.
  const dir = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "it's home-" }));
  const home = `${dir}/op`;
  const keys = `${home}/.config/hapi-backup`;
  Deno.mkdirSync(keys, { recursive: true });
  Deno.mkdirSync(`${home}/.hapi`);
  const seed = crypto.getRandomValues(new Uint8Array(32));
  const signer = formatPublicKeyLine(publicKeyOf(seed), "test");
  Deno.writeTextFileSync(`${keys}/signing_ed25519`, formatPrivateKey(seed, "test", 1), { mode: 0o600 });
  const { identity, recipient } = await generateIdentity();
  const identityFile = `${dir}/identity.txt`;
  Deno.writeTextFileSync(identityFile, `# signer: ${signer}\n${identity}\n`, { mode: 0o600 });

  const told: string[] = [];
  const real = makeHost({
    progress: () => {},
    info: (text) => told.push(text),
    warn: (text) => told.push(`! ${text}`),
  });
  const around = { home, hostname: "home", env: {} };
  const within = (options: HomeCliOptions = {}): CliOptions => ({
    ...options,
    home,
    cwd: dir,
    env: { TZ: "UTC", NO_COLOR: "1", ...options.env },
  });
  const fixture: Home = {
    dir,
    home,
    database: `${home}/.hapi/hapi.db`,
    store: `${home}/store`,
    stored: `${home}/store/home/state`,
    stateFolder: `${home}/state`,
    configFile: `${keys}/config.json`,
    identityFile,
    recipient,
    seed,
    signer,
    told,
    now: new Date("2026-03-01T00:00:00Z"),
    host: { ...real, now: () => fixture.now },
    configure(changes) {
      const config = {
        hub: "home",
        store: `${home}/store`,
        stateFolder: `${home}/state`,
        recipients: [recipient],
        signers: [signer],
        limits: { freeBytesMin: 0 },
        ...changes,
      };
      Deno.writeTextFileSync(fixture.configFile, JSON.stringify(config, null, 2));
    },
    addDisk(changes = {}) {
      const path = `${dir}/disk`;
      Deno.mkdirSync(path);
      fixture.configure({ destinations: [{ kind: "folder", name: "disk", path }], ...changes });
      return path;
    },
    config: () => parseConfig(Deno.readTextFileSync(fixture.configFile), fixture.configFile, around),
    sql(text) {
      using db = new DatabaseSync(fixture.database);
      db.exec(text);
    },
    write(path, content, mode = 0o600) {
      const full = path.startsWith("/") ? path : `${home}/${path}`;
      Deno.mkdirSync(full.slice(0, full.lastIndexOf("/")), { recursive: true });
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      Deno.writeFileSync(full, bytes);
      Deno.chmodSync(full, mode);
    },
    async backup({ host = fixture.host, full, accept, set = MAIN_SET } = {}) {
      fixture.now = new Date(fixture.now.getTime() + 12 * HOUR_MS);
      const config = fixture.config();
      const options = { set: set as SetName, full: full ?? false, accept: accept ?? false };
      const staged = await snapshot(host, config, options);
      const checks = await check(host, config, staged);
      return await encrypt(host, config, options, Promise.resolve(checks));
    },
    async opening(changes = {}) {
      const config = fixture.config();
      const trusted = await readKeys(fixture.host, config, { identity: identityFile });
      return { host: fixture.host, set: setIn(config.store, config.hub, MAIN_SET), ...trusted, ...changes };
    },
    cli: (args, options) => cli(within(options), ...args),
    spawn: (args, options) => startCli(within(options), args),
    [Symbol.dispose]: () => Deno.removeSync(dir, { recursive: true }),
  };
  fixture.configure({});
  fillDatabase(fixture.database, 300);
  fixture.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-0123456789abcdefghij\n");
  fixture.write(".hapi/settings.json", '{"cliApiToken":"token-abcdefghijklmnop"}\n', 0o640);
  return fixture;
}

/** A database with sessions and messages, in WAL mode, cleanly closed. */
export function fillDatabase(path: string, messages: number): void {
  using db = new DatabaseSync(path);
  db.exec(`PRAGMA journal_mode = WAL;
    CREATE TABLE sessions (id TEXT PRIMARY KEY, data TEXT);
    CREATE TABLE messages (id INTEGER PRIMARY KEY, session TEXT REFERENCES sessions (id), body BLOB);
    PRAGMA user_version = 26;
    INSERT INTO sessions VALUES ('a', 'one'), ('b', 'two');
    ${insertMessages(messages)}`);
}

/** SQL that adds messages. */
export const insertMessages = (count: number): string =>
  `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
   INSERT INTO messages (session, body) SELECT 'a', randomblob(150) FROM n;`;

/** The rows of a database's messages. Reads a copy, so that nothing appears beside it. */
export function countMessages(path: string): number {
  const copy = Deno.makeTempDirSync();
  try {
    for (const end of ["", "-wal"]) {
      try {
        Deno.copyFileSync(path + end, `${copy}/db${end}`);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
    using db = new DatabaseSync(`${copy}/db`);
    return (db.prepare("SELECT count(*) AS n FROM messages").get() as { n: number }).n;
  } finally {
    Deno.removeSync(copy, { recursive: true });
  }
}

/** Runs a program and gives its output; its words are the error's when it fails. */
export async function output(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
): Promise<string> {
  const { success, code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    ...options,
  }).output();
  const [out, words] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (!success) throw new Error(`${program} ended with ${code}: ${words}${out}`);
  return out!;
}

/** Of a test that mounts a disk, or takes on another user. */
export const ONLY_AS_ROOT = { ignore: Deno.uid() !== 0 };

/** Mounts an empty disk in memory, as root, until it is disposed of. @param options Of mount, such as `size=3m`. */
export async function mountTmpfs(folder: string, options = "mode=755"): Promise<AsyncDisposable> {
  await output("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]);
  return { [Symbol.asyncDispose]: () => unmount(folder) };
}

/** Whatever still has a file there open: a child that another test is just starting has all that this process has. */
export async function unmount(folder: string): Promise<void> {
  await output("umount", ["--lazy", folder]);
}
