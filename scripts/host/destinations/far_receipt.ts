/**
 * The storage host's receipt, as its hub reads it: what was verified there, and what is wrong.
 *
 * Fetched with the key that may only read; it counts only if the storage host's own key signed it for this hub.
 *
 * @module
 */

import type { RsyncDestination } from "../../core/config/config.ts";
import { reasonOf } from "../../core/errors.ts";
import type { HubName } from "../../core/names.ts";
import {
  type Receipt,
  RECEIPT_BYTES_MAX,
  RECEIPT_FILE,
  RECEIPT_SIGNATURE_FILE,
  verifyReceipt,
} from "../../core/shipping/receipt.ts";
import { pullArgs, readingAccess } from "../../core/shipping/rsync_args.ts";
import { parseTrust } from "../../core/snapshot/trust.ts";
import { readTextIfThere, removeIfThere, writeFileDurably } from "../fs.ts";
import type { Host } from "../host.ts";
import { type Retry, withRetries } from "../retry.ts";
import { runRsync } from "./rsync.ts";

/** Seconds for two small files. */
const SECONDS_MAX = 300;

/** The receipt as it was last fetched from a destination, in the folder of `ship`. */
const keptReceipt = (shipFolder: string, destination: string) => `${shipFolder}/${destination}.receipt`;

/**
 * Fetches a destination's receipt and keeps it.
 *
 * @returns undefined If there is none yet, or the destination has no key to read with or to check with.
 * @throws {BackupError} (network, key) If it cannot be fetched; (integrity) if it is forged, or another hub's.
 */
export async function fetchReceipt(
  host: Host,
  destination: RsyncDestination,
  hub: HubName,
  shipFolder: string,
  retry: Retry,
): Promise<Receipt | undefined> {
  const { receiptSigners, name } = destination;
  const access = readingAccess(destination);
  if (!access || receiptSigners.length === 0) return undefined;
  const pulled = `${shipFolder}/${name}.pulled`;
  try {
    removeIfThere(host.fs, pulled);
    host.fs.mkdir(pulled, { mode: 0o700 });
    const names = [RECEIPT_FILE, RECEIPT_SIGNATURE_FILE];
    const args = pullArgs(access, pulled, RECEIPT_BYTES_MAX);
    await withRetries(
      host,
      retry,
      () =>
        runRsync(host, access, `read the receipt of ${name}`, args, {
          names,
          into: pulled,
          secondsMax: SECONDS_MAX,
        }),
    );
    const text = readTextIfThere(host.fs, `${pulled}/${RECEIPT_FILE}`);
    const signature = readTextIfThere(host.fs, `${pulled}/${RECEIPT_SIGNATURE_FILE}`);
    if (text === undefined || signature === undefined) return undefined;
    const receipt = verifyReceipt(text, signature, parseTrust(receiptSigners), hub);
    writeFileDurably(host.fs, keptReceipt(shipFolder, name), JSON.stringify({ text, signature }));
    return receipt;
  } finally {
    removeIfThere(host.fs, pulled);
  }
}

/** The receipt that was kept; undefined if there is none. What is wrong with it is told, not thrown. */
export function readKeptReceipt(
  host: Pick<Host, "fs" | "report">,
  destination: RsyncDestination,
  hub: HubName,
  shipFolder: string,
): Receipt | undefined {
  const kept = readTextIfThere(host.fs, keptReceipt(shipFolder, destination.name));
  if (kept === undefined) return undefined;
  try {
    const { text, signature } = JSON.parse(kept) as { text: string; signature: string };
    return verifyReceipt(text, signature, parseTrust(destination.receiptSigners), hub);
  } catch (error) {
    host.report.warn(`the receipt kept of ${destination.name} cannot be used: ${reasonOf(error)}`);
    return undefined;
  }
}
