/**
 * Opens a snapshot: its seal, checked against the known signers, and its manifest, decrypted.
 *
 * @module
 */

import { releaseBytes } from "../../core/bytes.ts";
import { defined } from "../../core/defined.ts";
import { BackupError } from "../../core/errors.ts";
import { verifySsh } from "../../core/keys/sshsig.ts";
import { MANIFEST_PART, type PartName, type SnapshotId } from "../../core/names.ts";
import {
  ANOTHER_COPY,
  type Manifest,
  ManifestSize,
  neededBy,
  parseManifest,
  type PartsBySnapshot,
} from "../../core/snapshot/manifest.ts";
import { type Seal, SEAL_NAMESPACE, type SealedPart } from "../../core/snapshot/seal.ts";
import { chooseSnapshot } from "../../core/snapshot/select.ts";
import { requireTrusted, type Trust } from "../../core/snapshot/trust.ts";
import type { Host } from "../host.ts";
import type { Identity } from "../keys/identity.ts";
import type { Need } from "../space.ts";
import {
  isSealed,
  readSignature,
  readSnapshot,
  type SealedSnapshot,
  type StoredSet,
  type StoredSnapshot,
} from "../store/store.ts";
import { type OpenPart, openPart, type Reading } from "./part_reader.ts";
import { sourceHere, type StartSource } from "./part_source.ts";

/** Everything that opens the snapshots of one set. */
export interface Opening {
  readonly host: Host;
  readonly set: StoredSet;
  readonly identities: readonly Identity[];
  readonly trust: Trust;
  /** What reads parts on another thread; left out where none does. */
  readonly sources?: StartSource | undefined;
  /** What is not here yet; left out where all is. */
  readonly far?: {
    /** What fetching these parts would write, and where. */
    needFor(parts: PartsBySnapshot): Need;
    fetch(parts: PartsBySnapshot): Promise<void>;
  };
}

/** A snapshot whose seal is trusted. */
export interface TrustedSnapshot {
  readonly seal: Seal;
  readonly folder: string;
  /** What its folder is called in the store that it was fetched from. */
  readonly called?: string;
}

/**
 * Reads a snapshot's seal and checks its signature.
 *
 * @throws {BackupError} (integrity) If it is missing, unreadable or signed by somebody else; (key) if no signer is known.
 */
export function openSeal(
  { host, set, trust }: Pick<Opening, "host" | "set" | "trust">,
  id: SnapshotId,
): TrustedSnapshot {
  const snapshot = requireSealed(readSnapshot(host.fs, set, id));
  const { folder, called, sealed: { seal, bytes } } = snapshot;
  const name = `${set.hub}/${set.set}/${id}`;
  requireTrusted(trust, signerOf(name, readSignature(host.fs, snapshot), bytes), name);
  return { seal, folder, ...defined({ called }) };
}

/** Who signed a seal. @throws {BackupError} (integrity) If nobody did. */
function signerOf(name: string, signature: string, seal: Uint8Array): Uint8Array {
  try {
    return verifySsh(signature, SEAL_NAMESPACE, seal).publicKey;
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    const { kind, hint, message } = error;
    throw new BackupError(`Cannot trust the seal of ${name}: ${message}`, { kind, hint });
  }
}

/**
 * Chooses a snapshot of a set, as {@linkcode chooseSnapshot} does.
 *
 * @throws {BackupError} (integrity) If the one that is named is there without a seal that can be read; (usage).
 */
export function chooseStored(
  which: string,
  stored: readonly StoredSnapshot[],
  random: number,
): SealedSnapshot {
  const named = stored.find(({ id }) => id === which);
  if (named) return requireSealed(named);
  const sealed = stored.filter(isSealed);
  const id = chooseSnapshot(which, sealed.map(({ sealed }) => sealed.seal), random);
  return sealed.find((snapshot) => snapshot.id === id)!;
}

/** A snapshot that has its seal. @throws {BackupError} (integrity) If there is none that can be read. */
export function requireSealed(snapshot: StoredSnapshot): SealedSnapshot {
  if (isSealed(snapshot)) return snapshot;
  const { hub, set, id, sealed } = snapshot;
  throw new BackupError(`Cannot open snapshot ${hub}/${set}/${id}: ${sealed.problem}`, {
    kind: "integrity",
    hint:
      "another copy of the store may hold it whole: try it with --store; `hapi-backup list` shows which older ones can be restored from this one",
  });
}

/** The part with this name. @throws {BackupError} (integrity) If the seal names none. */
export function partOf(seal: Seal, name: PartName): SealedPart {
  const part = seal.parts.find((candidate) => candidate.name === name);
  if (part) return part;
  throw new BackupError(
    `Cannot open snapshot ${seal.hub}/${seal.set}/${seal.id}: its seal names no ${name}`,
    { kind: "integrity", hint: ANOTHER_COPY },
  );
}

/** Decrypts a snapshot's manifest, and checks that it needs nothing that the seal does not name. */
export async function openManifest(opening: Opening, snapshot: TrustedSnapshot): Promise<Manifest> {
  const { seal } = snapshot;
  const decoder = new TextDecoder();
  let text = "";
  const size = new ManifestSize();
  for await (const chunk of readPartSaying(opening, snapshot, MANIFEST_PART)) {
    if (size.add(chunk)) {
      throw new BackupError(`Cannot read the manifest of ${seal.id}: it is larger than any that is written`, {
        kind: "integrity",
        hint: ANOTHER_COPY,
      });
    }
    text += decoder.decode(chunk, { stream: true });
    releaseBytes(chunk);
  }
  const manifest = parseManifest(text + decoder.decode(), seal);
  const undeclared = neededBy(manifest).find((id) => !seal.needs.includes(id));
  if (undeclared) {
    throw new BackupError(
      `Cannot use the manifest of ${seal.id}: it needs ${undeclared}, which its seal does not name`,
      { kind: "integrity", hint: ANOTHER_COPY },
    );
  }
  return manifest;
}

/**
 * Opens a part, as {@linkcode openPart}; with the wrong identity the error says which recipients it needs.
 *
 * @param reading What is left to who reads it: nothing, unless told otherwise.
 */
export async function openPartSaying(
  { host, identities, sources = sourceHere(host.fs) }: Opening,
  snapshot: TrustedSnapshot,
  name: PartName,
  reading: Omit<Reading, "start"> = { unpacked: true, isHashed: true },
): Promise<OpenPart> {
  try {
    const part = partOf(snapshot.seal, name);
    return await openPart(host, snapshot, part, identities, { start: sources, ...reading });
  } catch (error) {
    if (!(error instanceof BackupError) || error.kind !== "key") throw error;
    throw new BackupError(`Cannot open snapshot ${snapshot.seal.id}: ${error.message}`, {
      kind: "key",
      hint: `it needs the identity of one of these recipients: ${snapshot.seal.recipients.join(", ")}`,
    });
  }
}

/** Reads a part, as {@linkcode openPartSaying} opens it. */
export async function* readPartSaying(
  opening: Opening,
  snapshot: TrustedSnapshot,
  name: PartName,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  using part = await openPartSaying(opening, snapshot, name);
  yield* part.contents();
}
