/**
 * Snapshots as a hub would make them that lies: whatever is in them, sealed and signed in due form.
 *
 * @module
 */

import { signSsh } from "../../scripts/core/keys/sshsig.ts";
import {
  MANIFEST_PART,
  type PartName,
  SEAL_FILE,
  SIGNATURE_FILE,
  type SnapshotId,
} from "../../scripts/core/names.ts";
import { type Seal, SEAL_NAMESPACE, serializeSeal } from "../../scripts/core/snapshot/seal.ts";
import { PartWriter } from "../../scripts/host/snapshot/part_writer.ts";
import type { Home } from "./home.ts";

/**
 * Writes a snapshot into the home's store.
 *
 * @param parts Plaintext by part; the manifest comes to it.
 * @param manifest What its JSON says, or that in pieces.
 * @param changes Of its seal, which otherwise is that of a full.
 * @param seed Of the key that signs it.
 */
export async function forge(
  home: Home,
  id: SnapshotId,
  parts: Readonly<Record<string, readonly Uint8Array[]>>,
  manifest: unknown,
  changes: Partial<Seal> = {},
  seed = home.seed,
): Promise<void> {
  const folder = `${home.stored}/${id}`;
  Deno.mkdirSync(folder, { recursive: true });
  const recipients = changes.recipients ?? [home.recipient];
  const json = isPieces(manifest) ? manifest : [new TextEncoder().encode(JSON.stringify(manifest))];
  const all = { ...parts, [MANIFEST_PART]: json };
  const sealed = [];
  for (const [name, chunks] of Object.entries(all)) {
    const compression = { level: 1, frameBytes: 1 << 20 };
    using part = await PartWriter.create(home.host.fs, folder, name as PartName, recipients, compression);
    for (const chunk of chunks) part.write(chunk);
    sealed.push(part.finish());
  }
  const seal = {
    format: "hapi-backup",
    version: 1,
    hub: "home",
    set: "state",
    id,
    kind: "full",
    parent: null,
    needs: [],
    recipients,
    previous: null,
    suspicions: [],
    writer: "a liar",
    parts: sealed,
    ...changes,
  } as unknown as Seal;
  const bytes = new TextEncoder().encode(serializeSeal(seal));
  Deno.writeTextFileSync(`${folder}/${SIGNATURE_FILE}`, signSsh(seed, SEAL_NAMESPACE, bytes));
  Deno.writeFileSync(`${folder}/${SEAL_FILE}`, bytes);
}

const isPieces = (manifest: unknown): manifest is readonly Uint8Array[] =>
  Array.isArray(manifest) && manifest[0] instanceof Uint8Array;
