/**
 * Snapshot folders that look like real ones to whoever has no key: random parts, a true seal, a dummy signature.
 *
 * @module
 */

import { createHash, randomBytes } from "node:crypto";
import type { HubName, PartName, SetName, SnapshotId } from "../scripts/core/names.ts";
import { type Seal, serializeSeal } from "../scripts/core/snapshot/seal.ts";

/** What to make. */
export interface SealedFolder {
  readonly store: string;
  readonly id: string;
  readonly hub?: string;
  readonly set?: string;
  readonly needs?: readonly string[];
  /** Sizes of the parts in bytes, by name. */
  readonly parts?: Readonly<Record<string, number>>;
}

/** Writes a sealed snapshot and returns its folder. */
export async function makeSealedFolder(wanted: SealedFolder): Promise<string> {
  const { store, id, hub = "home", set = "state", needs = [] } = wanted;
  const { parts = { "files.tar.zst.age": 2_000, "manifest.json.zst.age": 500 } } = wanted;
  const folder = `${store}/${hub}/${set}/${id}`;
  await Deno.mkdir(folder, { recursive: true });
  const sealed = [];
  for (const [name, size] of Object.entries(parts)) {
    const content = randomBytes(size);
    await Deno.writeFile(`${folder}/${name}`, content);
    const sha256 = createHash("sha256").update(content).digest("hex");
    sealed.push({ name: name as PartName, bytes: size, sha256 });
  }
  const seal: Seal = {
    format: "hapi-backup",
    version: 1,
    hub: hub as HubName,
    set: set as SetName,
    id: id as SnapshotId,
    kind: needs.length === 0 ? "full" : "increment",
    parent: (needs.at(-1) ?? null) as SnapshotId | null,
    needs: needs as SnapshotId[],
    parts: sealed,
    recipients: ["age1test"],
    previous: null,
    suspicions: [],
    writer: "hapi-backup test",
  };
  await Deno.writeTextFile(`${folder}/seal.json`, serializeSeal(seal));
  await Deno.writeTextFile(`${folder}/seal.json.sig`, "a signature\n");
  return folder;
}

/** Every file below `folder` with its content as hex of its SHA-256, sorted by path; hidden ones too. */
export async function filesBelow(folder: string, prefix = ""): Promise<[string, string][]> {
  const found: [string, string][] = [];
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) found.push(...await filesBelow(path, `${prefix}${entry.name}/`));
    else {
      const content = entry.isSymlink ? "a link" : await Deno.readFile(path);
      found.push([`${prefix}${entry.name}`, createHash("sha256").update(content).digest("hex")]);
    }
  }
  return found.sort(([a], [b]) => a < b ? -1 : 1);
}
