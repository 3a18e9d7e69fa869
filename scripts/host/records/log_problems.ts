/**
 * Whether the logs that this hub keeps of itself can be believed: one that cannot be read is as good as empty to what
 * reads it, and must not pass for one of which nothing was ever noted.
 *
 * @module
 */

import type { Config } from "../../core/config/config.ts";
import { drillLog, proofLog } from "../../core/config/state_paths.ts";
import { reasonOf } from "../../core/errors.ts";
import { parseRunLog } from "../../core/status/run_record.ts";
import { readLogIfThere } from "../fs.ts";
import type { Fs, Host } from "../host.ts";
import { parseDrills } from "./drill_log.ts";
import { parseProofs } from "./proof_log.ts";
import { runLogFile } from "./run_log.ts";

/** What to do about it. */
export const LOG_REMEDY = "look at that file and its disk; moved aside, the next run begins a new one";

/** What the log of proofs tells of. */
export const PROOF_TOPIC = "proof of the keys";

/** What is wrong with a log. */
export interface LogProblem {
  /** Such as `log of drills`. */
  readonly log: string;
  /** What cannot be told from it, as notices name it: that it was wrong before is not to look mended. */
  readonly topics: readonly string[];
  readonly text: string;
}

/**
 * What is wrong with the logs of runs, drills and proofs. Lines that a crash cut are no news once another one follows.
 */
export function problemsWithLogs({ fs }: Pick<Host, "fs">, config: Config): LogProblem[] {
  const sets = [...config.sets.keys()];
  const logs: readonly Log[] = [
    ...sets.map((set) => ({
      of: `runs of set ${set}`,
      topics: [`backup ${set}`],
      path: runLogFile(config, { verb: "backup", set }),
      parse: parseRunLog,
    })),
    { of: "shipping", topics: ["ship"], path: runLogFile(config, { verb: "ship" }), parse: parseRunLog },
    {
      of: "drills",
      topics: sets.map((set) => `drill ${set}`),
      path: drillLog(config.stateFolder),
      parse: parseDrills,
    },
    {
      of: "proofs of the keys",
      topics: [PROOF_TOPIC],
      path: proofLog(config.stateFolder),
      parse: parseProofs,
    },
  ];
  return logs.flatMap((log) => {
    const state = stateOf(fs, log);
    const name = `log of ${log.of}`;
    const text = `Cannot tell from the ${name} how the last went: ${log.path} ${state}`;
    return state === undefined ? [] : [{ log: name, topics: log.topics, text }];
  });
}

/** Whether a topic's log can be believed. */
export const isKnown = (problems: readonly LogProblem[], topic: string): boolean =>
  !problems.some(({ topics }) => topics.includes(topic));

interface Log extends Pick<LogProblem, "topics"> {
  readonly of: string;
  readonly path: string;
  readonly parse: (text: string) => readonly unknown[];
}

/** What keeps the last line of a log from being known; undefined if nothing. */
function stateOf(fs: Fs, { path, parse }: Log): string | undefined {
  try {
    const last = readLogIfThere(fs, path)?.trimEnd().split("\n").at(-1) ?? "";
    return last === "" || parse(last).length === 1 ? undefined : "ends in a line that is damaged";
  } catch (error) {
    return `cannot be read (${reasonOf(error)})`;
  }
}
