/**
 * The log of drills: JSON Lines in `<state>/drills.jsonl`, one line for each time a restore was proven or failed.
 *
 * @module
 */

import { z } from "zod";
import { isSetName, isSnapshotId } from "../core/names.ts";
import { appendLineDurably, readTextIfThere } from "./fs.ts";
import type { Fs } from "./host.ts";

const drill = z.object({
  /** When it ended, as an ISO 8601 time in UTC. */
  at: z.string(),
  store: z.string(),
  set: z.string().refine(isSetName),
  snapshot: z.string().refine(isSnapshotId),
  ok: z.boolean(),
  seconds: z.number(),
});
export type Drill = z.infer<typeof drill>;

/** A drill is due after so many days. */
export const DRILL_DAYS_MAX = 15;

const drillLog = (stateFolder: string): string => `${stateFolder}/drills.jsonl`;

/** @param stateFolder Must be there: who may write the log may write nothing else in it. */
export function appendDrill(fs: Fs, stateFolder: string, entry: Drill): void {
  appendLineDurably(fs, drillLog(stateFolder), JSON.stringify(entry));
}

/** All drills, oldest first. Lines that a crash cut are passed over. */
export function readDrills(fs: Fs, stateFolder: string): Drill[] {
  const drills: Drill[] = [];
  for (const line of (readTextIfThere(fs, drillLog(stateFolder)) ?? "").split("\n")) {
    try {
      drills.push(drill.parse(JSON.parse(line)));
    } catch { /* Cut, or empty. */ }
  }
  return drills;
}
