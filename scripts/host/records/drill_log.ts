/**
 * The log of drills: JSON Lines in `<state>/drills.jsonl`, one line for each time a restore was proven or failed.
 *
 * @module
 */

import * as v from "valibot";
import { drillLog } from "../../core/config/state_paths.ts";
import { ifPossible } from "../../core/errors.ts";
import { parseJsonLines } from "../../core/json_lines.ts";
import { finiteNumber } from "../../core/schema.ts";
import { hubName, loggedTime, setName, snapshotId } from "../../core/text_schemas.ts";
import { appendLineDurably, readLogIfThere } from "../fs.ts";
import type { Fs } from "../host.ts";

const drill = v.object({
  /** When it ended, as an ISO 8601 time in UTC. */
  at: loggedTime,
  store: v.string(),
  /** Whose snapshot it was; drills of old say nothing, and are taken for those of this hub. */
  hub: v.optional(hubName),
  set: setName,
  snapshot: snapshotId,
  ok: v.boolean(),
  seconds: finiteNumber,
});
/** How a drill went. */
export type Drill = v.InferOutput<typeof drill>;

/** A drill is due after so many days. */
export const DRILL_DAYS_MAX = 15;

/** @param stateFolder Must be there: who may write the log may write nothing else in it. */
export function appendDrill(fs: Fs, stateFolder: string, entry: Drill): void {
  appendLineDurably(fs, drillLog(stateFolder), JSON.stringify(entry));
}

/** All drills, oldest first. A log that cannot be read is as good as none; see {@linkcode problemsWithLogs}. */
export function readDrills(fs: Fs, stateFolder: string): Drill[] {
  return parseDrills(ifPossible(() => readLogIfThere(fs, drillLog(stateFolder))) ?? "");
}

/** Whether a drill restored a snapshot of this hub. */
export const isDrillOf = (hub: string, drill: { readonly hub?: string | undefined }): boolean =>
  drill.hub === undefined || drill.hub === hub;

/** Reads a log of drills. Lines that a crash cut are passed over. */
export const parseDrills = (text: string): Drill[] => parseJsonLines(text, drill);
