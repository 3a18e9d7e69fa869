/**
 * Writes the receipts that tell each hub what was verified of it here.
 *
 * @module
 */

import { reasonOf } from "../../core/errors.ts";
import type { SshPrivateKey } from "../../core/keys/openssh_key.ts";
import { signSsh } from "../../core/keys/sshsig.ts";
import type { HubName, SetName } from "../../core/names.ts";
import {
  RECEIPT_FILE,
  RECEIPT_NAMESPACE,
  RECEIPT_SIGNATURE_FILE,
  serializeReceipt,
  type SetReceipt,
} from "../../core/shipping/receipt.ts";
import { isDamage } from "../../core/storage_host/standing.ts";
import type { StorageConfig } from "../../core/storage_host/storage_config.ts";
import { lstatIfThere, writeFileDurably } from "../fs.ts";
import type { Host } from "../host.ts";
import type { SetSurvey, Survey } from "./survey.ts";

/** What became of a hub's receipt. */
export interface ReceiptOutcome {
  readonly hub: HubName;
  /** Why it could not be written. */
  readonly problem?: string;
}

/** Signs and writes a receipt for every hub that has a folder. One that cannot be written does not stop the others. */
export function writeReceipts(
  host: Host,
  config: StorageConfig,
  key: SshPrivateKey,
  survey: Survey,
): ReceiptOutcome[] {
  const outcomes: ReceiptOutcome[] = [];
  for (const { name: hub } of config.hubs.values()) {
    const folder = `${config.store}/${hub}`;
    try {
      // A link would lead the receipt to where the hub likes.
      if (lstatIfThere(host.fs, folder)?.type !== "folder") continue;
      const sets = new Map(
        survey.sets.filter((set) => set.hub === hub).map((set) => [set.set, receiptOf(set)]),
      );
      const text = serializeReceipt({ hub, time: host.now(), sets: withFlood(sets, survey.floods.get(hub)) });
      const signature = signSsh(key.seed, RECEIPT_NAMESPACE, new TextEncoder().encode(text));
      // A reader that comes between the two finds a signature that does not fit, and keeps to its older receipt.
      writeFileDurably(host.fs, `${folder}/${RECEIPT_SIGNATURE_FILE}`, signature, 0o644);
      writeFileDurably(host.fs, `${folder}/${RECEIPT_FILE}`, text, 0o644);
      outcomes.push({ hub });
    } catch (error) {
      outcomes.push({ hub, problem: reasonOf(error) });
    }
  }
  return outcomes;
}

function receiptOf({ newestVerified, faults, fullWanted }: SetSurvey): SetReceipt {
  return {
    newestVerified: newestVerified ? { id: newestVerified.id, sealSha256: newestVerified.checksum } : null,
    problems: faults.filter(isDamage).sort((a, b) => a.id < b.id ? 1 : -1)
      .map(({ id, problem }) => `${id}: ${problem}`),
    fullWanted,
  };
}

function withFlood(
  sets: ReadonlyMap<SetName, SetReceipt>,
  flood: string | undefined,
): ReadonlyMap<SetName, SetReceipt> {
  if (flood === undefined) return sets;
  return new Map(
    [...sets].map(([name, set]) => [name, { ...set, problems: [flood, ...set.problems] }]),
  );
}
