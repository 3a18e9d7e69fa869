/**
 * The logs of runs: JSON Lines, one for each set and one for `ship`, a line for each run however it ended.
 *
 * A set's log lies in the hub's folder of the local store, under a name that no set has: the unit that takes a
 * snapshot may write there, and the unit that ships, which alone has the network, may read there.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { shipFolder } from "../../core/config/state_paths.ts";
import { ifPossible, reasonOf } from "../../core/errors.ts";
import type { SetName } from "../../core/names.ts";
import { parentOf } from "../../core/paths.ts";
import { parseRunLog, type RunFacts, type RunRecord, tellable } from "../../core/status/run_record.ts";
import { appendLineDurably, makeFolderDurably, readLogIfThere, writeFileDurably } from "../fs.ts";
import type { Host } from "../host.ts";

/** Over this size the older half of a log is dropped (bytes). */
const LOG_BYTES_MAX = 1 << 20;

/** What runs are logged of: the snapshots of a set, or the shipping. */
export type RunTopic = { readonly verb: "backup"; readonly set: SetName } | { readonly verb: "ship" };

type Places = Pick<Config, "store" | "hub" | "stateFolder">;

/** Shipping logs where it may write; a set's runs lie beside its snapshots in the local store. */
export function runLogFile(config: Places, topic: RunTopic): string {
  return topic.verb === "ship"
    ? `${shipFolder(config.stateFolder)}/runs.jsonl`
    : `${config.store}/${config.hub}/.runs/${topic.set}.jsonl`;
}

/** The runs that are logged, oldest first. A log that cannot be read is as good as none; see {@linkcode problemsWithLogs}. */
export function readRuns({ fs }: Pick<Host, "fs">, config: Places, topic: RunTopic): RunRecord[] {
  return parseRunLog(ifPossible(() => readLogIfThere(fs, runLogFile(config, topic))) ?? "");
}

/**
 * Does the work of a run and logs how it ended. That the log cannot be written is a warning, and changes nothing.
 *
 * @param facts What the log says of a run that came to its end; with an `error` it is logged as failed.
 */
export async function logged<T>(
  host: Host,
  config: Places,
  topic: RunTopic,
  work: () => Promise<T>,
  facts: (result: T) => RunFacts,
): Promise<T> {
  // The clock may be set right meanwhile.
  const started = performance.now();
  const note = ({ error, ...rest }: RunFacts) => {
    append(host, runLogFile(config, topic), {
      at: host.now().toISOString(),
      seconds: Math.round((performance.now() - started) / 100) / 10,
      ...topic,
      ok: error === undefined,
      ...rest,
      ...(error === undefined ? {} : tellable(error)),
    });
  };
  let result: T;
  try {
    result = await work();
  } catch (error) {
    note({ error });
    throw error;
  }
  note(facts(result));
  return result;
}

function append({ fs, report }: Host, path: string, record: RunRecord): void {
  try {
    makeFolderDurably(fs, parentOf(path), 0o700);
    const text = readLogIfThere(fs, path) ?? "";
    if (text.length > LOG_BYTES_MAX) {
      const half = text.slice(text.indexOf("\n", text.length / 2) + 1);
      writeFileDurably(fs, path, half);
    }
    appendLineDurably(fs, path, JSON.stringify(record));
  } catch (error) {
    report.warn(`this run is not in the log ${path}: ${reasonOf(error)}`);
  }
}
