/**
 * Measures hapi-backup and what a user would run instead, in one go, on the same hub database.
 *
 * ```sh
 * deno task bench [--messages 200000] [--sessions 78] [--seed 1] [--only restic …] [--all] [--json]
 * deno task bench --size 2GB --only none       # peak memory on a large database
 * ```
 *
 * - first: the live database into an empty store; halfDay: what half a day of use costs, the median of several.
 * - restore: the newest snapshot after two weeks, one every half day. Twice for hapi-backup: with a full each week, as
 *   it comes, and with all 28 in one chain. The peers restore the same image from three backups, which spares them a
 *   chain: duplicity's would be as long.
 * - nothing, oneRow, fiveMinutes, massDelete, migration, vacuum: hapi-backup alone, and the peers too with `--all`.
 *
 * hapi-backup is run as it is installed: compiled code in Deno's cache, its own command line, `backup --no-ship`, into a
 * local store. Bytes are all that the store grew by: seals, signatures and manifests too. Every restored image is
 * compared with the database.
 *
 * @module
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { parseArgs } from "node:util";
import { formatTable } from "../../scripts/core/format.ts";
import { MAIN_SET } from "../../scripts/core/names.ts";
import { shellQuote } from "../../scripts/core/shell.ts";
import { encrypt } from "../../scripts/encrypt.ts";
import { snapshot } from "../../scripts/snapshot.ts";
import { cliEnv, cliWords } from "../real/cli.ts";
import { type Home, makeHome } from "../real/home.ts";
import { type CaseName, CASES, generateHubDatabase, halfDay } from "./generate.ts";
import { bytesUnder, type Cost, measure, type Peer, PEERS } from "./peers.ts";

/** What one tool cost in one case. */
interface Row extends Cost {
  readonly case: string;
  readonly tool: string;
}

const OURS = "hapi-backup";
const MOD = new URL("../../mod.ts", import.meta.url).pathname;
const ROOT = new URL("../..", import.meta.url).pathname;
const HALF_DAY_MS = 12 * 3_600_000;
/** Snapshots in two weeks. */
const TWO_WEEKS = 28;
/** A message takes this much of a database. */
const BYTES_PER_MESSAGE = 1387;
const OTHER_CASES: readonly CaseName[] = [
  "nothing",
  "oneRow",
  "fiveMinutes",
  "massDelete",
  "migration",
  "vacuum",
];

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: "1" },
    sessions: { type: "string", default: "78" },
    messages: { type: "string", default: "200000" },
    size: { type: "string" },
    only: { type: "string", multiple: true, default: Object.keys(PEERS) },
    all: { type: "boolean", default: false },
    rounds: { type: "string", default: "3" },
    json: { type: "boolean", default: false },
  },
});

const names = values.only.filter((name) => name !== "none");
const unknown = names.find((name) => !Object.hasOwn(PEERS, name));
const messages = values.size === undefined
  ? Number(values.messages)
  : Math.round(bytesOf(values.size) / BYTES_PER_MESSAGE);
const rounds = Number(values.rounds);
if (unknown !== undefined || !(messages >= 100) || !(rounds >= 1)) {
  console.error(`unknown peer, size or number; peers: ${Object.keys(PEERS).join(", ")}, none`);
  Deno.exit(2);
}

const rows: Row[] = [];
let databaseBytes = 0;
{
  using here = await makeHome();
  await using stack = new AsyncDisposableStack();
  const scratch = Deno.makeTempDirSync({ prefix: "peers-" });
  stack.defer(() => Deno.removeSync(scratch, { recursive: true }));
  const { database } = here;
  say(`a hub's database of ${messages} messages`);
  Deno.removeSync(database);
  await generateHubDatabase({
    out: `${here.home}/.hapi`,
    seed: Number(values.seed),
    sessions: Number(values.sessions),
    messages,
  });
  databaseBytes = Deno.statSync(database).size;
  await compile();
  const peers: Peer[] = [];
  for (const name of names) {
    peers.push(stack.use(await PEERS[name]!({ database, scratch: `${scratch}/${name}` })));
  }
  const weekly = stack.use(await longHome(database, {}));
  const oneChain = stack.use(await longHome(database, { fullEveryDays: 15 }));

  say("first run");
  await record("first", OURS, () => runBackup(here));
  for (const peer of peers) await record("first", peer.name, () => peer.first());
  for (const home of [weekly, oneChain]) await takeSnapshot(home);

  for (let round = 1; round < TWO_WEEKS; round++) {
    halfDay(database, { seed: round + 1 });
    if (round <= rounds) {
      say(`half a day, ${round} of ${rounds}`);
      const runs = [
        () => record("halfDay", OURS, () => runBackup(here)),
        ...peers.map((peer) => () => record("halfDay", peer.name, () => peer.again())),
      ];
      for (const run of rotated(runs, round)) await run();
    } else {
      say(`two weeks, ${round + 1} of ${TWO_WEEKS}`);
    }
    for (const home of [weekly, oneChain]) await takeSnapshot(home);
  }

  say("restore");
  for (const peer of peers) await peer.again();
  for (let round = 1; round <= rounds; round++) {
    const runs = [
      () => record("restore", OURS, () => runRestore(weekly, database)),
      () => record("restore", `${OURS}, one chain of ${TWO_WEEKS}`, () => runRestore(oneChain, database)),
      ...peers.map((peer) => () => record("restore", peer.name, () => peer.restore())),
    ];
    for (const run of rotated(runs, round)) await run();
  }

  await runBackup(here);
  for (const name of OTHER_CASES) {
    say(name);
    CASES[name](database, { seed: 100 });
    await record(name, OURS, () => runBackup(here));
    // It is short, so that one run says little.
    for (let round = 1; name === "nothing" && round < rounds; round++) {
      // A second snapshot of the same second would wait.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      await record(name, OURS, () => runBackup(here));
    }
    if (values.all) { for (const peer of peers) await record(name, peer.name, () => peer.again()); }
  }
}
report();

/** The runs of a round, each round from another one on. */
function rotated<T>(runs: readonly T[], round: number): T[] {
  const first = (round - 1) % runs.length;
  return [...runs.slice(first), ...runs.slice(0, first)];
}

/**
 * Takes memory for files, and gives it back. A virtual machine hands what was not used for some seconds back to its
 * host, and whoever writes an image next pays for it: up to 0.6 s for 277 MB, and none of it the tool's.
 */
function warmMemory(): void {
  const path = Deno.makeTempFileSync({ prefix: "warm-" });
  try {
    using file = Deno.openSync(path, { write: true });
    const bytes = new Uint8Array(1 << 20);
    for (let written = 0; written < 2 * databaseBytes; written += bytes.length) file.writeSync(bytes);
  } finally {
    Deno.removeSync(path);
  }
}

/** Has written what runs before left unwritten: whoever syncs next, as we do, would wait for that, too. */
async function settleDisk(): Promise<void> {
  const { success } = await new Deno.Command("sync").output();
  assert.ok(success, "sync");
}

/** As after the first days: no run pays for compiling, by Deno or by V8, which keeps what a run compiled. */
async function compile(): Promise<void> {
  const scripts = [...Deno.readDirSync(`${ROOT}scripts`)].filter((entry) => entry.isFile);
  const paths = scripts.map(({ name }) => `${ROOT}scripts/${name}`);
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["cache", "--quiet", "--no-lock", MOD, ...paths],
    cwd: ROOT,
  }).output();
  assert.ok(success, "deno cache");
  using home = await makeHome();
  for (const round of [1, 2]) {
    await run(home, "backup", "--no-ship", "--quiet");
    await run(home, "restore", "--to", `${home.dir}/${round}`, "--identity", home.identityFile, "--quiet");
    home.sql("UPDATE sessions SET data = 'changed'");
  }
}

/** Another hub's home for the same database, whose clock starts two weeks ago. */
async function longHome(database: string, set: Readonly<Record<string, unknown>>): Promise<Home> {
  const home = await makeHome();
  home.configure({
    sets: { state: { ...set, sources: [{ kind: "sqlite", path: database, required: true }] } },
  });
  home.now = new Date(Date.now() - TWO_WEEKS * HALF_DAY_MS);
  return home;
}

/** A snapshot half a day after the last one, by that home's clock. Not measured, and taken for sound. */
async function takeSnapshot(home: Home): Promise<void> {
  home.now = new Date(home.now.getTime() + HALF_DAY_MS);
  const config = home.config();
  await snapshot(home.host, config, { set: MAIN_SET });
  await encrypt(
    home.host,
    config,
    { set: MAIN_SET },
    Promise.resolve({
      "hapi.db": { integrity: ["ok"], foreignKeys: [] },
    }),
  );
}

async function runBackup(home: Home): Promise<Cost> {
  const stored = () => bytesUnder(home.store).catch(() => 0);
  const before = await stored();
  const cost = await run(home, "backup", "--no-ship", "--accept", "--quiet");
  return { ...cost, bytesStored: await stored() - before };
}

async function runRestore(home: Home, database: string): Promise<Cost> {
  const to = `${home.dir}/restored`;
  const cost = await run(home, "restore", "--to", to, "--identity", home.identityFile, "--quiet");
  const restored = [...filesUnder(to)];
  assert.deepEqual(restored.map(sha256), [sha256(database)]);
  Deno.removeSync(to, { recursive: true });
  return { ...cost, bytesStored: 0 };
}

async function run(home: Home, verb: string, ...args: string[]): Promise<Omit<Cost, "bytesStored">> {
  const command = cliWords([verb, ...args]).map(shellQuote).join(" ");
  return await measure(command, cliEnv(home.home));
}

function* filesUnder(folder: string): Generator<string> {
  for (const { name, isFile } of Deno.readDirSync(folder)) {
    if (isFile) yield `${folder}/${name}`;
    else yield* filesUnder(`${folder}/${name}`);
  }
}

function sha256(path: string): string {
  using file = Deno.openSync(path);
  const hash = createHash("sha256");
  const buffer = new Uint8Array(1 << 20);
  for (let count = file.readSync(buffer); count !== null; count = file.readSync(buffer)) {
    hash.update(buffer.subarray(0, count));
  }
  return hash.digest("hex");
}

async function record(name: string, tool: string, run: () => Promise<Cost>): Promise<void> {
  warmMemory();
  await settleDisk();
  const cost = await run();
  rows.push({ case: name, tool, ...cost });
  const { bytesStored, wallSeconds, cpuSeconds, peakBytes } = cost;
  say(
    `  ${tool}: ${bytesStored} bytes, ${wallSeconds.toFixed(2)} s, CPU ${cpuSeconds.toFixed(2)} s, ` +
      `${megabytes(peakBytes)} MB`,
  );
}

/** The median of what a tool cost in a case; the most memory that it took. Undefined if it did not run. */
function costOf(name: string, tool: string): Cost | undefined {
  const found = rows.filter((row) => row.case === name && row.tool === tool);
  if (found.length === 0) return undefined;
  const median = (pick: (row: Row) => number) =>
    found.map(pick).sort((a, b) => a - b)[Math.floor(found.length / 2)]!;
  return {
    bytesStored: median((row) => row.bytesStored),
    wallSeconds: median((row) => row.wallSeconds),
    cpuSeconds: median((row) => row.cpuSeconds),
    peakBytes: Math.max(...found.map((row) => row.peakBytes)),
  };
}

interface Bar {
  readonly name: string;
  readonly measured: string;
  readonly met: boolean;
}

/** What the project holds itself to; a bar whose peer did not run is left out. */
function bars(): Bar[] {
  const found: Bar[] = [];
  const most = (
    name: string,
    value: number | undefined,
    limit: number | undefined,
    unit: (n: number) => string,
  ) => {
    if (value === undefined || limit === undefined) return;
    found.push({ name, measured: `${unit(value)} of ${unit(limit)}`, met: value <= limit });
  };
  const seconds = (value: number) => `${value.toFixed(2)} s`;
  const bytes = (value: number) => `${Math.round(value).toLocaleString("en")} bytes`;
  const half = costOf("halfDay", OURS);
  const peers = [...new Set(rows.map((row) => row.tool))].filter((tool) => !tool.startsWith(OURS));
  const peer = (part: string) => peers.find((tool) => tool.endsWith(part)) ?? "";
  const share = (part: string, ratio: number) => {
    const cost = costOf("halfDay", peer(part));
    return cost && cost.bytesStored * ratio;
  };
  most("half day: 1/50 of restic's bytes", half?.bytesStored, share("restic", 1 / 50), bytes);
  most("half day: 1/3 of tuned borg's bytes", half?.bytesStored, share("borg fixed,4096", 1 / 3), bytes);
  most("half day: 2/5 of duplicity's bytes", half?.bytesStored, share("duplicity", 2 / 5), bytes);
  if (peers.length > 0) {
    const fastest = Math.min(...peers.map((tool) => costOf("halfDay", tool)!.wallSeconds));
    most("half day: the fastest peer's time", half?.wallSeconds, fastest, seconds);
  }
  const restic = peer("restic");
  const first = costOf("first", OURS);
  most("first run: restic's time", first?.wallSeconds, costOf("first", restic)?.wallSeconds, seconds);
  const resticRestore = costOf("restore", restic)?.wallSeconds;
  for (const tool of new Set(rows.map((row) => row.tool))) {
    if (!tool.startsWith(OURS)) continue;
    const cost = costOf("restore", tool);
    most(
      `restore, ${tool}: 1.2 of restic's time`,
      cost?.wallSeconds,
      resticRestore && resticRestore * 1.2,
      seconds,
    );
  }
  const peaks = rows.filter((row) => row.tool.startsWith(OURS)).map((row) => row.peakBytes);
  most("peak memory", Math.max(...peaks), 160e6, (value) => `${megabytes(value)} MB`);
  most("one row", costOf("oneRow", OURS)?.bytesStored, 20_000, bytes);
  most("nothing changed", costOf("nothing", OURS)?.wallSeconds, 0.5, seconds);
  return found;
}

function report(): void {
  const cases = [...new Set(rows.map((row) => row.case))];
  const machine = `${navigator.hardwareConcurrency} cores, ${
    (Deno.systemMemoryInfo().total / 1e9).toFixed(0)
  } GB`;
  const about = { date: new Date().toISOString().slice(0, 10), machine, messages, databaseBytes, rounds };
  const results = cases.flatMap((name) =>
    [...new Set(rows.filter((row) => row.case === name).map((row) => row.tool))].map((tool) => {
      const cost = costOf(name, tool)!;
      const ours = costOf(name, OURS)!;
      const fewer = ours.bytesStored > 0 ? cost.bytesStored / ours.bytesStored : undefined;
      return {
        case: name,
        tool,
        ...cost,
        oursFewerBytes: fewer,
        oursFaster: cost.wallSeconds / ours.wallSeconds,
      };
    })
  );
  const held = bars();
  if (values.json) {
    console.log(JSON.stringify({ ...about, results, bars: held }, null, 2));
    return;
  }
  console.log(`${about.date}, ${machine}, database of ${megabytes(databaseBytes)} MB, seed ${values.seed}\n`);
  const line = (result: typeof results[number]) => [
    result.case,
    result.tool,
    result.case === "restore"
      ? ""
      : `${(result.bytesStored / 1e6).toFixed(result.bytesStored < 1e5 ? 4 : 2)} MB`,
    `${result.wallSeconds.toFixed(2)} s`,
    `${result.cpuSeconds.toFixed(2)} s`,
    `${megabytes(result.peakBytes)} MB`,
    result.tool === OURS || !result.oursFewerBytes ? "" : `${result.oursFewerBytes.toFixed(1)}x`,
    result.tool === OURS ? "" : `${result.oursFaster.toFixed(1)}x`,
  ];
  const head = ["case", "tool", "stored", "wall", "CPU", "peak", "we store fewer", "we are faster"];
  console.log(formatTable([head, ...results.map(line)]));
  console.log();
  console.log(
    formatTable(held.map(({ name, measured, met }) => [met ? "met   " : "NOT MET", name, measured])),
  );
}

function say(text: string): void {
  console.error(text);
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

function bytesOf(text: string): number {
  const [, number, unit] = /^([\d.]+)\s*(MB|GB)$/i.exec(text) ?? [];
  return Number(number) * (unit?.toUpperCase() === "GB" ? 1e9 : 1e6);
}
