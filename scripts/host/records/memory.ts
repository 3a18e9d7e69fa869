/**
 * What the hub remembers of the last snapshot of a set: `<state>/<set>/last.json` and the images it names.
 *
 * Invariants: `last.json` is replaced only after its snapshot is sealed, in one rename, and names its images by
 * their checksum; so a crash leaves either the old memory or the new one, never a mixture. Losing all of it costs one
 * full. The next manifest is made from it, so it ends with its own SHA-256: what rotted is as good as lost. It holds
 * nothing that is not in plaintext on this machine anyway, and is readable by its owner only.
 *
 * @module
 */

import { createHash } from "node:crypto";
import * as v from "valibot";
import { releaseBytes } from "../../core/bytes.ts";
import { memoryFile } from "../../core/config/state_paths.ts";
import { reasonOf } from "../../core/errors.ts";
import { jsonPieces } from "../../core/json_pieces.ts";
import type { SnapshotId } from "../../core/names.ts";
import { recordOf } from "../../core/schema.ts";
import type { RememberedFiles } from "../../core/snapshot/file_index.ts";
import type { GateReference } from "../../core/snapshot/gate.ts";
import type { Manifest } from "../../core/snapshot/manifest.ts";
import type { Fingerprint } from "../../core/snapshot/sqlite_format.ts";
import { snapshotId } from "../../core/text_schemas.ts";
import { isMissing, removeIfThere, writeFileDurably } from "../fs.ts";
import type { Fs, Host } from "../host.ts";

/** The last snapshot, as its hub remembers it. */
export interface Memory {
  readonly version: 1;
  readonly manifest: Manifest;
  readonly sealChecksum: string;
  /** Bytes of ciphertext of each database's last full, by source. */
  readonly fullBytes: Readonly<Record<string, number>>;
  /** What the live databases looked like, by source; absent where that could not be told. */
  readonly fingerprints: Readonly<Record<string, Fingerprint>>;
  /** What the files looked like. */
  readonly files: RememberedFiles;
  /** What the last good snapshot held of each database, by source: what the gate compares with. */
  readonly good: Readonly<Record<string, GateReference & { readonly snapshot: SnapshotId }>>;
}

const shape = v.looseObject({
  version: v.literal(1),
  manifest: v.looseObject({
    id: snapshotId,
    databases: v.array(v.looseObject({ source: v.string() })),
    files: v.custom(Array.isArray),
  }),
  sealChecksum: v.string(),
  fullBytes: recordOf(v.number()),
  fingerprints: recordOf(v.looseObject({})),
  files: v.looseObject({ version: v.literal(1) }),
  good: recordOf(v.looseObject({ rows: recordOf(v.number()) })),
});

/** Reads the memory of a set. What cannot be read is as good as none: the next snapshot is a full, and says so. */
export function readMemory(host: Pick<Host, "fs" | "report">, folder: string): Memory | undefined {
  const path = memoryFile(folder);
  try {
    const bytes = host.fs.readFile(path);
    const end = bytes.lastIndexOf(LINE_END, -2);
    const [line, checksum] = [bytes.subarray(0, end), bytes.subarray(end + 1, -1)];
    if (createHash("sha256").update(line).digest("hex") !== new TextDecoder().decode(checksum)) {
      throw new Error("it is not as it was written");
    }
    const text = new TextDecoder().decode(line);
    releaseBytes(bytes);
    const json: Memory = JSON.parse(text);
    // Checked, not rebuilt: what is remembered is compared as text, so the order of its keys must stay.
    v.assert(shape, json as unknown);
    return json;
  } catch (error) {
    if (isMissing(error)) return undefined;
    // What a parser says of it may quote it.
    const reason = v.isValiError(error) ? "it is of another version" : reasonOf(error);
    host.report.warn(`${path} cannot be used (${reason}): the next snapshot is a full`);
    return undefined;
  }
}

/** Replaces the memory, then removes the images that no memory names any more. */
export function writeMemory(fs: Fs, folder: string, memory: Memory): void {
  writeFileDurably(fs, memoryFile(folder), withChecksum(jsonPieces(memory)));
  const named = new Set(memory.manifest.databases.map((database) => database.sha256));
  for (const { name } of fs.readDir(`${folder}/base`)) {
    if (!named.has(name.split(".")[0]!)) removeIfThere(fs, `${folder}/base/${name}`);
  }
}

const LINE_END = 0x0a;

/** A line, and its SHA-256 as another. */
function* withChecksum(line: Iterable<Uint8Array>): Generator<Uint8Array> {
  const hash = createHash("sha256");
  for (const piece of line) {
    hash.update(piece);
    yield piece;
  }
  yield new TextEncoder().encode(`\n${hash.digest("hex")}\n`);
}
