/**
 * How the storage host's verbs bear 100 hubs with two years of snapshots each, 150,000 in all.
 *
 * `deno run -A --config deno.json --lock=tests/deno.lock tests/bench/scale_bench.ts [FOLDER]` makes them (some 3 GB of
 * tiny files, kept if FOLDER is given) and measures each verb in a process of its own: seconds and peak memory.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { type HubName, isSnapshotId, type SetName, timeOfSnapshotId } from "../../scripts/core/names.ts";
import { parseStorageConfig, type StorageConfig } from "../../scripts/core/storage_config.ts";
import { realFs } from "../../scripts/host/fs.ts";
import { makeHost } from "../../scripts/host/step.ts";
import { findSets, isSealed, readSnapshot, snapshotIds } from "../../scripts/host/store.ts";
import { retain } from "../../scripts/retain.ts";
import { scrub } from "../../scripts/scrub.ts";
import { storageList, storageStatus } from "../../scripts/storage.ts";
import { watch } from "../../scripts/watch.ts";
import { makeSigner, timesUntil, writeHistory } from "../real/signed_store.ts";

const HUBS = 100;
const SNAPSHOTS = 1500;
/** The last snapshot's time, and about the present. */
const NOW = new Date("2026-11-24T18:00:00Z");

const host = {
  ...makeHost({ progress: () => {}, info: () => {}, warn: () => {} }),
  now: () => new Date(NOW.getTime() + 3_600_000),
};

const VERBS: Readonly<Record<string, (config: StorageConfig) => unknown>> = {
  "first look (reads every seal)": (config) => storageStatus(host, config).sets.length,
  "first scrub, all of it": async (config) => (await scrub(host, config)).read,
  status: (config) => storageStatus(host, config).sets.length,
  watch: (config) => watch(host, config).alarms.length,
  "scrub, planning only": async (config) => (await scrub(host, config, { maxTimeSeconds: 0 })).leftSnapshots,
  "retain, dry": async (config) => {
    const { sets } = await retain(host, config);
    const count = (key: "keep" | "remove" | "refused") => sets.reduce((sum, set) => sum + set[key].length, 0);
    return { keep: count("keep"), remove: count("remove"), refused: count("refused") };
  },
  "storage list": (config) => {
    let count = 0;
    for (const entries of storageList(host, config)) count += entries.length;
    return count;
  },
  "list (reads every seal)": (config) => {
    let count = 0;
    for (const set of findSets(realFs, config.store)) {
      for (const id of snapshotIds(realFs, set)) if (isSealed(readSnapshot(realFs, set, id))) count++;
    }
    return count;
  },
};

if (Deno.args[0] === "--measure") await measure(Deno.args[1]!, Deno.args[2]!);
else await main(Deno.args[0]);

async function main(given: string | undefined): Promise<void> {
  const root = given ?? Deno.makeTempDirSync({ prefix: "scale-" });
  try {
    if (!realFs.readDir(root).some(({ name }) => name === "config.json")) generate(root);
    Deno.removeSync(`${root}/ledger`, { recursive: true });
    for (const verb of Object.keys(VERBS)) {
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "-A",
          // V8's young generation otherwise grows to three times 16 MiB of garbage.
          "--v8-flags=--max-semi-space-size=4",
          "--config",
          "deno.json",
          "--lock=tests/deno.lock",
          import.meta.url,
          "--measure",
          root,
          verb,
        ],
        stderr: "inherit",
      }).output();
      console.log(new TextDecoder().decode(stdout).trim());
      if (verb.startsWith("first scrub")) dateByIds(`${root}/ledger/ledger.db`);
    }
  } finally {
    if (!given) Deno.removeSync(root, { recursive: true });
  }
}

async function measure(root: string, verb: string): Promise<void> {
  const config = parseStorageConfig(Deno.readTextFileSync(`${root}/config.json`), "config.json");
  const started = performance.now();
  const result = await VERBS[verb]!(config);
  const seconds = (performance.now() - started) / 1000;
  const peakKiB = Number(/VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
  const megabytes = (peakKiB * 1024 / 1e6).toFixed(0);
  console.log(
    `${verb.padEnd(32)} ${seconds.toFixed(1).padStart(7)} s ${megabytes.padStart(5)} MB  ${
      JSON.stringify(result)
    }`,
  );
}

function generate(root: string): void {
  const started = performance.now();
  const times = timesUntil(NOW, SNAPSHOTS);
  const hubs: Record<string, unknown> = {};
  for (let index = 0; index < HUBS; index++) {
    const hub = `hub-${index}` as HubName;
    const signer = makeSigner();
    hubs[hub] = { signers: [signer.publicKey], maxAgeHours: { state: 26 } };
    writeHistory(`${root}/store`, signer, times, { hub, set: "state" as SetName, chainLength: 14 });
  }
  Deno.mkdirSync(`${root}/ledger`);
  Deno.writeTextFileSync(
    `${root}/config.json`,
    JSON.stringify({ store: `${root}/store`, stateFolder: `${root}/ledger`, hubs }),
  );
  console.log(`made ${HUBS * SNAPSHOTS} snapshots in ${((performance.now() - started) / 1000).toFixed(0)} s`);
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
