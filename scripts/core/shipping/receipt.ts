/**
 * The receipt: what the storage host verified of a hub's snapshots, signed by the storage host, for the hub to read.
 *
 * It lies beside the hub's sets, where the hub itself can add files: only the signature says that it is genuine.
 *
 * @module
 */

import * as v from "valibot";
import { BackupError } from "../errors.ts";
import { fingerprintOf } from "../keys/openssh_key.ts";
import { verifySsh } from "../keys/sshsig.ts";
import type { HubName, SetName, SnapshotId } from "../names.ts";
import { byName, strictObject } from "../schema.ts";
import { hubName, readAs, readJson, setName, sha256, snapshotId } from "../text_schemas.ts";

/** Names in the hub's folder of a store. They start with a dot, so that no one takes them for a set. */
export const RECEIPT_FILE = ".receipt.json";
/** Its SSH signature, beside it. */
export const RECEIPT_SIGNATURE_FILE = ".receipt.json.sig";
/** The namespace of its SSH signature. */
export const RECEIPT_NAMESPACE = "hapi-backup-receipt";
/** A receipt larger than this is not read (bytes). */
export const RECEIPT_BYTES_MAX = 1 << 20;
const FORMAT = "hapi-backup-receipt";
const VERSION = 1;
/** The most problems that a set's receipt lists, and their longest text. */
const RECEIPT_PROBLEMS_MAX = 20;
const PROBLEM_LENGTH_MAX = 500;

/** What was verified of one set. */
export interface SetReceipt {
  /** The newest snapshot of which every part, and every part of what it needs, was read whole; null if none. */
  readonly newestVerified: { readonly id: SnapshotId; readonly sealSha256: string } | null;
  /** At most {@linkcode RECEIPT_PROBLEMS_MAX}, for a person. */
  readonly problems: readonly string[];
  /** The chain that the hub would build on is damaged: start a new one. */
  readonly fullWanted: boolean;
}

/** What a storage host says of a hub's sets. */
export interface Receipt {
  readonly hub: HubName;
  /** When it was written, by the storage host's clock. */
  readonly time: Date;
  readonly sets: ReadonlyMap<SetName, SetReceipt>;
}

const receiptSchema = strictObject({
  format: v.literal(FORMAT),
  version: v.literal(VERSION),
  hub: hubName,
  // valibot's own check lets times pass that are none to a Date, such as 2026-03-01T00:00:00+05.
  time: v.pipe(v.string(), v.check((text) => new Date(text).toJSON() === text, "is not a time in ISO 8601")),
  sets: byName(
    setName,
    strictObject({
      newestVerified: v.nullable(strictObject({ id: snapshotId, sealSha256: sha256 })),
      problems: v.pipe(
        v.array(v.pipe(v.string(), v.maxLength(PROBLEM_LENGTH_MAX))),
        v.maxLength(RECEIPT_PROBLEMS_MAX),
      ),
      fullWanted: v.boolean(),
    }),
  ),
});

/** The receipt as text; its bytes are what is signed. Inverse of {@linkcode parseReceipt}. */
export function serializeReceipt({ hub, time, sets }: Receipt): string {
  const cut = (text: string) =>
    text.length > PROBLEM_LENGTH_MAX ? text.slice(0, PROBLEM_LENGTH_MAX - 1) + "…" : text;
  const entries = [...sets].map(([name, { newestVerified, problems, fullWanted }]) => [name, {
    newestVerified,
    problems: problems.slice(0, RECEIPT_PROBLEMS_MAX).map(cut),
    fullWanted,
  }]);
  return JSON.stringify(
    { format: FORMAT, version: VERSION, hub, time: time.toISOString(), sets: Object.fromEntries(entries) },
    null,
    1,
  ) + "\n";
}

/** Reads a receipt's text. @throws {BackupError} (integrity) If it is not one. */
export function parseReceipt(text: string): Receipt {
  const fail = (state: string): never => {
    throw new BackupError(`Cannot read receipt: ${state}`, {
      kind: "integrity",
      hint: "`hapi-backup scrub` on the storage host writes it anew",
    });
  };
  if (text.length > RECEIPT_BYTES_MAX) fail(`it has ${text.length} characters`);
  const { hub, time, sets } = readAs(receiptSchema, readJson(text, fail), fail);
  return {
    hub,
    time: new Date(time),
    sets: new Map(Object.entries(sets).map(([name, set]) => [name as SetName, set])),
  };
}

/**
 * Reads a receipt and proves that the storage host wrote it for this hub.
 *
 * @param signers Fingerprints (`SHA256:…`) of the storage host's keys.
 * @throws {BackupError} (integrity) If it is damaged, forged, or another hub's.
 */
export function verifyReceipt(
  text: string,
  signature: string,
  signers: ReadonlySet<string>,
  hub: HubName,
): Receipt {
  const { publicKey } = verifySsh(signature, RECEIPT_NAMESPACE, new TextEncoder().encode(text));
  const signer = fingerprintOf(publicKey);
  if (!signers.has(signer)) {
    throw new BackupError(
      `Cannot trust receipt: it is signed by ${signer}, which is not the storage host's key`,
      {
        kind: "integrity",
        hint:
          "the hub's folder on the storage host can be written by whoever holds the hub's key: look who did",
      },
    );
  }
  const receipt = parseReceipt(text);
  if (receipt.hub !== hub) {
    throw new BackupError(`Cannot use receipt: it is for hub ${receipt.hub}, not ${hub}`, {
      kind: "integrity",
    });
  }
  return receipt;
}
