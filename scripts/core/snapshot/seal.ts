/**
 * The seal: the public, signed description of a snapshot, written last.
 *
 * Invariants: a snapshot exists only once its seal is there and every part it names is whole; a seal names the
 * seal before it by checksum, so a missing, reordered or altered snapshot shows without any key.
 *
 * @module
 */

import { createHash } from "node:crypto";
import * as v from "valibot";
import { BackupError } from "../errors.ts";
import type { HubName, PartName, SetName, SnapshotId } from "../names.ts";
import { strictObject } from "../schema.ts";
import {
  count,
  hubName,
  partName,
  readAs,
  readJson,
  RECIPIENTS_MAX,
  SEALED_ENTRIES_MAX,
  setName,
  sha256,
  snapshotId,
  sourceName,
} from "../text_schemas.ts";

/** The newest version of the store's format that this program reads and writes. */
export const FORMAT_VERSION = 1;
/** Stands at the start of every seal, so that it is known for what it is. */
export const FORMAT_NAME = "hapi-backup";
/** The namespace of the seal's SSH signature (`ssh-keygen -Y verify -n`). */
export const SEAL_NAMESPACE = "hapi-backup-seal";
/** A seal larger than this is not read (bytes). */
export const SEAL_BYTES_MAX = 1 << 20;

/** One encrypted file of a snapshot. */
export interface SealedPart {
  readonly name: PartName;
  /** Size of the ciphertext in bytes. */
  readonly bytes: number;
  /** SHA-256 of the ciphertext, in lower-case hex. */
  readonly sha256: string;
}

/** Why a snapshot does not count as good. The detail, which could name tables, is in the manifest. */
export interface Suspicion {
  /**
   * `integrity`, `foreign-keys`, `empty`, `rows-lost` or `swapped` of a database that is stored; `unreadable` of what is
   * not, though it should be: files, a database that need not be there, a file that must.
   */
  readonly code: SuspicionCode;
  /** The configured source that it is about, by its name. */
  readonly source: string;
}
/** What a suspicion may be. Public, so none names a table or a number. */
export const SUSPICION_CODES = [
  "integrity",
  "foreign-keys",
  "empty",
  "rows-lost",
  "swapped",
  "unreadable",
] as const;
/** One of them. */
export type SuspicionCode = typeof SUSPICION_CODES[number];

/** All that anyone may know of a snapshot. */
export interface Seal {
  readonly format: typeof FORMAT_NAME;
  readonly version: number;
  readonly hub: HubName;
  readonly set: SetName;
  readonly id: SnapshotId;
  /** `full` needs nothing else; `increment` holds what changed since `parent`; `unchanged` found nothing new. */
  readonly kind: "full" | "increment" | "unchanged";
  /** The snapshot that this one was compared with. */
  readonly parent: SnapshotId | null;
  /** Every other snapshot whose parts a restore of this one reads, oldest first. */
  readonly needs: readonly SnapshotId[];
  readonly parts: readonly SealedPart[];
  /** age recipients that open the parts. */
  readonly recipients: readonly string[];
  /** The seal before this one in the same set, whatever became of it; null for the first. */
  readonly previous: { readonly id: SnapshotId; readonly sha256: string } | null;
  readonly suspicions: readonly Suspicion[];
  /** The program that wrote it, `hapi-backup 1.0.0`. */
  readonly writer: string;
}

const sealSchema = strictObject({
  format: v.literal(FORMAT_NAME),
  version: v.literal(FORMAT_VERSION),
  hub: hubName,
  set: setName,
  id: snapshotId,
  kind: v.picklist(["full", "increment", "unchanged"]),
  parent: v.nullable(snapshotId),
  needs: v.pipe(v.array(snapshotId), v.maxLength(100_000)),
  parts: v.pipe(
    v.array(strictObject({ name: partName, bytes: count, sha256 })),
    v.minLength(1),
    v.maxLength(SEALED_ENTRIES_MAX),
  ),
  recipients: v.pipe(
    v.array(v.pipe(v.string(), v.maxLength(4_096))),
    v.minLength(1),
    v.maxLength(RECIPIENTS_MAX),
  ),
  previous: v.nullable(strictObject({ id: snapshotId, sha256 })),
  suspicions: v.pipe(
    v.array(strictObject({ code: v.picklist(SUSPICION_CODES), source: sourceName })),
    v.maxLength(SEALED_ENTRIES_MAX),
  ),
  writer: v.pipe(v.string(), v.maxLength(100)),
});

/** Suspicions in a line: `hapi-db rows-lost, plans unreadable`. */
export const describeSuspicions = (suspicions: readonly Suspicion[]): string =>
  [...new Set(suspicions.map(({ source, code }) => `${source} ${code}`))].join(", ");

/** What a seal says of suspicions: each once, though a thousand tables may have lost rows. */
export function sealedSuspicions(suspicions: readonly Suspicion[]): Suspicion[] {
  const known = new Map(suspicions.map(({ code, source }) => [`${code} ${source}`, { code, source }]));
  return [...known.values()];
}

/** The seal as text, one key a line; its bytes are what is signed. Inverse of {@linkcode parseSeal}. */
export function serializeSeal(seal: Seal): string {
  return JSON.stringify(seal, null, 1) + "\n";
}

/**
 * Reads a seal's text. What it names is right in form only: signature and links are checked elsewhere.
 *
 * @param where What to call it in errors, such as its path.
 * @throws {BackupError} (integrity) If it is not a seal, contradicts itself, or has a newer format version.
 */
export function parseSeal(text: string, where: string): Seal {
  const fail = (state: string): never => {
    throw new BackupError(`Cannot read seal ${where}: ${state}`, { kind: "integrity" });
  };
  if (text.length > SEAL_BYTES_MAX) fail(`it has ${text.length} characters, more than ${SEAL_BYTES_MAX}`);
  const json = readJson(text, fail);
  const version = (json as { version?: unknown } | null)?.version;
  const format = (json as { format?: unknown } | null)?.format;
  if (format === FORMAT_NAME && typeof version === "number" && version > FORMAT_VERSION) {
    fail(
      `it has format version ${version}, and this program reads up to ${FORMAT_VERSION}: ` +
        `it takes hapi-backup ${version}.0.0 or newer`,
    );
  }
  const seal = readAs(sealSchema, json, fail);
  const contradiction = contradictionIn(seal);
  if (contradiction) fail(contradiction);
  return seal;
}

function contradictionIn(seal: Seal): string | undefined {
  if (new Set(seal.parts.map((part) => part.name)).size !== seal.parts.length) return "it names a part twice";
  if (seal.kind === "full" && (seal.needs.length > 0 || seal.parent !== null)) {
    return "a full that needs others";
  }
  if (seal.kind !== "full" && seal.parent === null) {
    return `an ${seal.kind === "increment" ? "increment" : "unchanged snapshot"} without a parent`;
  }
  for (const [index, id] of seal.needs.entries()) {
    if (id >= seal.id) return `it needs ${id}, which is not older than itself`;
    if (index > 0 && id <= seal.needs[index - 1]!) return "what it needs is not in order";
  }
  if (seal.parent !== null && seal.parent >= seal.id) return "its parent is not older than itself";
  return undefined;
}

/** SHA-256 in hex of a seal's bytes, as the next seal's `previous` holds it. */
export function sealChecksum(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Whether the snapshot counts as good, as far as its own hub knew. */
export const isGood = (seal: Pick<Seal, "suspicions">): boolean => seal.suspicions.length === 0;

/** Bytes that the snapshot's parts take in a store. */
export const sealedBytes = (seal: Seal): number => seal.parts.reduce((sum, part) => sum + part.bytes, 0);
