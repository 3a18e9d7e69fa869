/**
 * The log of proofs: JSON Lines in `<state>/proofs.jsonl`, one line for each time `keys prove` tried an identity, and for
 * each drill that one opened.
 *
 * @module
 */

import * as v from "valibot";
import { proofLog } from "../../core/config/state_paths.ts";
import { ifPossible } from "../../core/errors.ts";
import { parseJsonLines } from "../../core/json_lines.ts";
import { finiteNumber } from "../../core/schema.ts";
import { loggedTime, snapshotId } from "../../core/text_schemas.ts";
import { DAY_MS } from "../../core/time.ts";
import { appendLineDurably, readLogIfThere } from "../fs.ts";
import type { Fs } from "../host.ts";

const proof = v.object({
  /** When, as an ISO 8601 time in UTC. */
  at: loggedTime,
  store: v.string(),
  /** The public halves of the identities that opened a chain. */
  recipients: v.array(v.string()),
  ok: v.boolean(),
  /** Chains that are made for one of the identities or must be, and those that none of them opened. */
  chains: finiteNumber,
  failed: v.array(v.string()),
  /** What was restored, where a drill opened the one chain that it needed. */
  snapshot: v.optional(snapshotId),
});
/** How an attempt at a proof went. */
export type Proof = v.InferOutput<typeof proof>;

/** @param stateFolder Must be there: who may write the log may write nothing else in it. */
export function appendProof(fs: Fs, stateFolder: string, entry: Proof): void {
  appendLineDurably(fs, proofLog(stateFolder), JSON.stringify(entry));
}

/** All proofs, oldest first; undefined where the log cannot be read. */
export function readProofs(fs: Fs, stateFolder: string): Proof[] | undefined {
  const text = ifPossible(() => readLogIfThere(fs, proofLog(stateFolder)) ?? "");
  return text === undefined ? undefined : parseProofs(text);
}

/** Reads a log of proofs. Lines that a crash cut are passed over. */
export const parseProofs = (text: string): Proof[] => parseJsonLines(text, proof);

/**
 * Whether no identity was proven within the limit. One that is further ahead of this clock than that is none.
 *
 * @param since When backups began, if nothing was ever proven.
 */
export function isProofDue(
  proofs: readonly Proof[],
  maxAgeDays: number,
  since: Date | undefined,
  now: Date,
): boolean {
  const last = proofs.findLast(({ ok }) => ok)?.at ?? since?.toISOString();
  return last !== undefined && Math.abs(now.getTime() - Date.parse(last)) > maxAgeDays * DAY_MS;
}
