/**
 * How the verbs bear a large storage host: by default 100 hubs with two years of snapshots each, 150,000 in all.
 *
 * `deno task bench-storage [--hubs 100] [--snapshots 1500] [--folder FOLDER]` makes a store of tiny parts (2 GB on the
 * disk for 150,000), runs each verb on it by the real command line, and prints a table of what each took. The store is
 * removed afterwards, unless FOLDER is given: then it is kept, and used again if it is there.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { parseArgs } from "node:util";
import { formatCount, formatTable } from "../../scripts/core/format.ts";
import { type HubName, isSnapshotId, MAIN_SET, timeOfSnapshotId } from "../../scripts/core/names.ts";
import { shellQuote } from "../../scripts/core/shell.ts";
import { exists, realFs } from "../../scripts/host/fs.ts";
import { cliEnv, cliWords } from "../real/cli.ts";
import { makeSigner, timesUntil, writeHistory } from "../real/signed_store.ts";
import { measure } from "./peers.ts";

/** Snapshots of one chain: a week of them. */
const CHAIN_LENGTH = 14;

/** What is measured, in this order; `STORE` stands for the store. The first look and scrub fill the ledger. */
const COMMANDS: readonly (readonly string[])[] = [
  ["storage", "status"],
  ["scrub"],
  ["storage", "status"],
  ["watch"],
  ["scrub", "--max-time", "0"],
  ["retain"],
  ["storage", "list"],
  ["storage", "list", "--json"],
  ["list", "--store", "STORE", "--set", "all"],
  ["list", "--store", "STORE", "--set", "all", "--json"],
];

const { values } = parseArgs({
  options: {
    hubs: { type: "string", default: "100" },
    snapshots: { type: "string", default: "1500" },
    folder: { type: "string" },
  },
});
await main(Number(values.hubs), Number(values.snapshots), values.folder);

async function main(hubs: number, snapshots: number, folder: string | undefined): Promise<void> {
  const root = folder ?? Deno.makeTempDirSync({ prefix: "scale-" });
  try {
    if (!exists(realFs, `${root}/config.json`)) generate(root, hubs, snapshots);
    if (exists(realFs, `${root}/ledger`)) Deno.removeSync(`${root}/ledger`, { recursive: true });
    const rows = [["verb", "CPU", "wall", "peak memory", "lines printed"]];
    for (const [index, command] of COMMANDS.entries()) {
      const isFirst = COMMANDS.findIndex((other) => other.join() === command.join()) === index;
      const title = command.join(" ") + (index < 2 && isFirst ? ", first time" : "");
      const row = [title, ...await run(root, command)];
      console.error(row.join("  "));
      rows.push(row);
      if (command.join() === "scrub") dateByIds(`${root}/ledger/ledger.db`);
    }
    console.log(formatTable(rows));
  } finally {
    if (folder === undefined) Deno.removeSync(root, { recursive: true });
  }
}

/** Runs a command line. @returns The cells of its row. */
async function run(root: string, command: readonly string[]): Promise<string[]> {
  const args = command.map((arg) => arg === "STORE" ? `${root}/store` : arg);
  const config = command[0] === "list" ? [] : ["--config", `${root}/config.json`];
  const line = cliWords([...args, ...config]).map(shellQuote).join(" ");
  // A watch that alarms, as it does at a store that was made long ago, ends with 8.
  const cost = await measure(`${line} > ${root}/printed || [[ $? == 8 ]]`, cliEnv(root));
  const lines = Deno.readTextFileSync(`${root}/printed`).split("\n").length - 1;
  return [
    `${cost.cpuSeconds.toFixed(1)} s`,
    `${cost.wallSeconds.toFixed(1)} s`,
    `${(cost.peakBytes / 1e6).toFixed(0)} MB`,
    formatCount(lines),
  ];
}

function generate(root: string, hubCount: number, snapshots: number): void {
  Deno.mkdirSync(root, { recursive: true });
  const times = timesUntil(new Date(), snapshots);
  const hubs: Record<string, unknown> = {};
  for (let index = 0; index < hubCount; index++) {
    const hub = `hub-${index}` as HubName;
    const signer = makeSigner();
    hubs[hub] = { signers: [signer.publicKey], maxAgeHours: { state: 26 } };
    writeHistory(`${root}/store`, signer, times, { hub, set: MAIN_SET, chainLength: CHAIN_LENGTH });
  }
  const config = { store: `${root}/store`, stateFolder: `${root}/ledger`, hubs };
  Deno.writeTextFileSync(`${root}/config.json`, JSON.stringify(config));
  console.error(`made ${formatCount(hubCount * snapshots)} snapshots`);
}

/** Lets every snapshot have come when it was taken, as it would have in two years. */
function dateByIds(path: string): void {
  const db = new DatabaseSync(path);
  db.exec("BEGIN");
  const update = db.prepare("UPDATE snapshots SET first_seen_ms = ? WHERE id = ?");
  for (const { id } of db.prepare("SELECT DISTINCT id FROM snapshots").all() as { id: string }[]) {
    if (isSnapshotId(id)) update.run(timeOfSnapshotId(id).getTime(), id);
  }
  db.exec("COMMIT");
  db.close();
}
