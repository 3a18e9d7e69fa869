/**
 * What a user would run instead of hapi-backup, each as its manual says, on the same database and measured the same way.
 * Nothing is written outside the given scratch folder; HOME and every cache lie in it.
 *
 * ```sh
 * deno run -A tests/bench/peers.ts --database DIR/hapi.db --scratch DIR [--only restic --only age]
 * ```
 *
 * @module
 */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { parseArgs } from "node:util";
import { countRows, halfDay } from "./generate.ts";

/** What one run cost. */
export interface Cost {
  /** Bytes by which the files of the repository grew (apparent sizes, folders not counted); 0 for a restore. */
  readonly bytesStored: number;
  readonly wallSeconds: number;
  /** User and system time of all processes. */
  readonly cpuSeconds: number;
  /** The most that any one process had resident: what runs beside it in a pipe is not added. */
  readonly peakBytes: number;
}

/** A backup tool set up for one database. Dispose it to end what it left running. */
export interface Peer extends AsyncDisposable {
  readonly name: string;
  /** The first backup, from the live database to an empty repository. */
  first(): Promise<Cost>;
  /** A backup of what the database has become since. */
  again(): Promise<Cost>;
  /** Restores the newest backup beside, and checks it against the database as it is now. The check is not measured. */
  restore(): Promise<Cost>;
}

/** Where a peer works. */
export interface PeerSetup {
  /** The live database. */
  readonly database: string;
  /** A folder for this peer alone: made when missing, never cleaned. */
  readonly scratch: string;
}

/** Sets one peer up: keys, passwords and an empty repository. None of that is measured. */
export type PeerFactory = (setup: PeerSetup) => Promise<Peer>;

/** Every peer by the name it has on the command line. */
export const PEERS: Readonly<Record<string, PeerFactory>> = { restic, borg, borgFixed, duplicity, age };

// Each script finds $DB (the live database), $REPO, $SCRATCH, $OUT (an empty folder, restore only) and $RUN (1, 2, …).
// All of them but the last leave the restored database below $OUT as hapi.db.
const COPY = 'mkdir -p "$SCRATCH/copy"; sqlite3 -bail "$DB" ".backup \'$SCRATCH/copy/hapi.db\'"';
const UNCOPY = 'rm "$SCRATCH/copy/hapi.db"';

/** `sqlite3 .backup` + restic, as it comes. */
export async function restic(setup: PeerSetup): Promise<Peer> {
  const restic =
    'restic --quiet --repo "$REPO" --password-file "$SCRATCH/password" --cache-dir "$SCRATCH/cache"';
  return await ScriptedPeer.create("sqlite3 .backup + restic", setup, {
    setUp: `echo secret > "$SCRATCH/password"; ${restic} init`,
    backup: `${COPY}; ${restic} backup "$SCRATCH/copy"; ${UNCOPY}`,
    restore: `${restic} restore latest --target "$OUT"`,
  });
}

/** `sqlite3 .backup` + borg with its default chunker and `zstd,3`. */
export async function borg(setup: PeerSetup): Promise<Peer> {
  return await ScriptedPeer.create("sqlite3 .backup + borg", setup, borgScripts("--compression zstd,3"));
}

/** `sqlite3 .backup` + borg tuned for page-sized changes. */
async function borgFixed(setup: PeerSetup): Promise<Peer> {
  const options = "--compression zstd,3 --chunker-params fixed,4096";
  return await ScriptedPeer.create("sqlite3 .backup + borg fixed,4096", setup, borgScripts(options));
}

function borgScripts(options: string): Scripts {
  const env = 'export BORG_BASE_DIR="$SCRATCH/borg" BORG_PASSPHRASE=secret';
  return {
    setUp: `${env}; borg init --encryption repokey-blake2 "$REPO"`,
    backup: `${env}; ${COPY}; cd "$SCRATCH/copy"; borg create ${options} "$REPO::$RUN" .; ${UNCOPY}`,
    restore: `${env}; cd "$OUT"; borg extract "$REPO::$RUN"`,
  };
}

/** `sqlite3 .backup` + duplicity: GPG public key, librsync increments. */
export async function duplicity(setup: PeerSetup): Promise<Peer> {
  const env = 'export GNUPGHOME="$SCRATCH/gnupg" PASSPHRASE=';
  const duplicity =
    'duplicity --no-print-statistics --archive-dir "$SCRATCH/archive" --tempdir "$SCRATCH/tmp"';
  const back = (verb: string) =>
    `${duplicity} ${verb} --encrypt-key "$(cat "$SCRATCH/fingerprint")" "$SCRATCH/copy" "file://$REPO"`;
  return await ScriptedPeer.create("sqlite3 .backup + duplicity", setup, {
    setUp: `${env}; mkdir -p -m 700 "$GNUPGHOME"; mkdir "$SCRATCH/tmp"
      gpg --batch --quiet --passphrase "" --quick-generate-key bench rsa3072 default never
      gpg --list-keys --with-colons | awk -F: '$1 == "fpr" { print $10; exit }' > "$SCRATCH/fingerprint"
      gpg --batch --quiet --passphrase "" --quick-add-key "$(cat "$SCRATCH/fingerprint")" rsa3072 encr never`,
    backup: `${env}; ${COPY}; if [ "$RUN" = 1 ]; then ${back("full")}; else ${
      back("incremental")
    }; fi; ${UNCOPY}`,
    restore: `${env}; rmdir "$OUT"; ${duplicity} restore "file://$REPO" "$OUT"`,
    tearDown: `${env}; gpgconf --kill all`,
  });
}

/** `sqlite3 .backup` + `zstd -3` + age: the whole database each time. */
export async function age(setup: PeerSetup): Promise<Peer> {
  return await ScriptedPeer.create("sqlite3 .backup + zstd + age", setup, {
    setUp: 'age-keygen -o "$SCRATCH/identity" && age-keygen -y "$SCRATCH/identity" > "$SCRATCH/recipients"',
    backup:
      `${COPY}; zstd -3 -q -c "$SCRATCH/copy/hapi.db" | age -R "$SCRATCH/recipients" -o "$REPO/$RUN.zst.age"; ${UNCOPY}`,
    restore: 'age -d -i "$SCRATCH/identity" "$REPO/$RUN.zst.age" | zstd -d -q -o "$OUT/hapi.db"',
  });
}

interface Scripts {
  readonly setUp: string;
  readonly backup: string;
  readonly restore: string;
  readonly tearDown?: string;
}

class ScriptedPeer implements Peer {
  #runs = 0;

  static async create(name: string, { database, scratch }: PeerSetup, scripts: Scripts): Promise<Peer> {
    await Deno.mkdir(`${scratch}/repo`, { recursive: true });
    await Deno.mkdir(`${scratch}/home`, { recursive: true });
    const [db, folder] = [await Deno.realPath(database), await Deno.realPath(scratch)];
    const peer = new ScriptedPeer(name, db, folder, scripts);
    await measure(scripts.setUp, peer.#env(""));
    return peer;
  }

  private constructor(
    readonly name: string,
    private readonly database: string,
    private readonly scratch: string,
    private readonly scripts: Scripts,
  ) {}

  async first(): Promise<Cost> {
    assert.equal(this.#runs, 0, "first() comes first, and once");
    return await this.#backup();
  }

  async again(): Promise<Cost> {
    assert.notEqual(this.#runs, 0, "again() comes after first()");
    return await this.#backup();
  }

  async restore(): Promise<Cost> {
    const out = await Deno.makeTempDir({ dir: this.scratch, prefix: "restored-" });
    const cost = await measure(this.scripts.restore, this.#env(out));
    const restored = await findFile(out, "hapi.db");
    if (restored === undefined) throw new Error(`Cannot restore with ${this.name}: it gave no hapi.db`);
    assert.deepEqual(countRows(restored), countRows(this.database));
    {
      using db = new DatabaseSync(restored);
      assert.deepEqual(db.prepare("PRAGMA quick_check").all().map((row) => row.quick_check), ["ok"]);
    }
    await Deno.remove(out, { recursive: true });
    return { ...cost, bytesStored: 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.scripts.tearDown !== undefined) await measure(this.scripts.tearDown, this.#env(""));
  }

  async #backup(): Promise<Cost> {
    const before = await bytesUnder(`${this.scratch}/repo`);
    this.#runs++;
    const cost = await measure(this.scripts.backup, this.#env(""));
    return { ...cost, bytesStored: await bytesUnder(`${this.scratch}/repo`) - before };
  }

  #env(out: string): Record<string, string> {
    const { database, scratch } = this;
    return {
      PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin",
      LC_ALL: "C.UTF-8",
      HOME: `${scratch}/home`,
      XDG_CACHE_HOME: `${scratch}/home/.cache`,
      XDG_CONFIG_HOME: `${scratch}/home/.config`,
      DB: database,
      SCRATCH: scratch,
      REPO: `${scratch}/repo`,
      OUT: out,
      RUN: String(this.#runs),
    };
  }
}

/**
 * Runs `script` in bash, stopping at the first command that fails, and gives what it and all its children used.
 *
 * @throws {Error} If a command fails, with what it said.
 */
export async function measure(
  script: string,
  env: Record<string, string>,
): Promise<Omit<Cost, "bytesStored">> {
  const figures = await Deno.makeTempFile({ prefix: "time-" });
  try {
    const started = performance.now();
    const { success, stderr } = await new Deno.Command("/usr/bin/time", {
      args: ["--output", figures, "--format", "%U %S %M", "bash", "-euo", "pipefail", "-c", script],
      clearEnv: true,
      env,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    const wallSeconds = (performance.now() - started) / 1000;
    if (!success) throw new Error(`Cannot run ${script}: ${new TextDecoder().decode(stderr).trim()}`);
    const [user, system, kibibytes] = (await Deno.readTextFile(figures)).trim().split(" ").map(Number);
    return { wallSeconds, cpuSeconds: user! + system!, peakBytes: kibibytes! * 1024 };
  } finally {
    await Deno.remove(figures);
  }
}

/** The apparent size of all files below `dir`. */
export async function bytesUnder(dir: string): Promise<number> {
  let bytes = 0;
  for await (const entry of Deno.readDir(dir)) {
    const path = `${dir}/${entry.name}`;
    bytes += entry.isDirectory ? await bytesUnder(path) : (await Deno.lstat(path)).size;
  }
  return bytes;
}

async function findFile(dir: string, name: string): Promise<string | undefined> {
  for await (const entry of Deno.readDir(dir)) {
    const path = `${dir}/${entry.name}`;
    if (entry.isFile && entry.name === name) return path;
    const below = entry.isDirectory ? await findFile(path, name) : undefined;
    if (below !== undefined) return below;
  }
  return undefined;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      database: { type: "string" },
      scratch: { type: "string" },
      only: { type: "string", multiple: true, default: Object.keys(PEERS) },
    },
  });
  if (
    values.database === undefined || values.scratch === undefined || values.only.some((name) => !PEERS[name])
  ) {
    console.error(
      `peers.ts --database FILE --scratch DIR [--only NAME …]; names: ${Object.keys(PEERS).join(", ")}`,
    );
    Deno.exit(2);
  }
  // The database goes on by half a day between first() and again(), so the peers share a copy and go step by step.
  const database = `${values.scratch}/hapi.db`;
  await Deno.mkdir(values.scratch, { recursive: true });
  await Deno.copyFile(values.database, database);
  await using stack = new AsyncDisposableStack();
  const peers: Peer[] = [];
  for (const name of values.only) {
    peers.push(stack.use(await PEERS[name]!({ database, scratch: `${values.scratch}/${name}` })));
  }
  const print = (step: string, name: string, cost: Cost) =>
    console.log(JSON.stringify({ step, name, ...cost }));
  for (const peer of peers) print("first", peer.name, await peer.first());
  halfDay(database);
  for (const peer of peers) print("halfDay", peer.name, await peer.again());
  for (const peer of peers) print("restore", peer.name, await peer.restore());
}
