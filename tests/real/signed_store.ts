/**
 * Stores for tests: snapshots with real seals, signatures and hash links, and parts of any bytes, since the storage
 * host never looks into one.
 *
 * @module
 */

import { createHash, randomBytes } from "node:crypto";
import { defined } from "../../scripts/core/defined.ts";
import {
  fingerprintOf,
  formatPrivateKey,
  formatPublicKeyLine,
  publicKeyOf,
} from "../../scripts/core/keys/openssh_key.ts";
import { signSsh } from "../../scripts/core/keys/sshsig.ts";
import {
  FILES_PART,
  type HubName,
  MAIN_SET,
  MANIFEST_PART,
  type PartName,
  type SetName,
  type SnapshotId,
  snapshotIdAt,
  timeOfSnapshotId,
} from "../../scripts/core/names.ts";
import {
  FORMAT_NAME,
  FORMAT_VERSION,
  type Seal,
  SEAL_NAMESPACE,
  sealChecksum,
  serializeSeal,
} from "../../scripts/core/snapshot/seal.ts";
import { parseStorageConfig, type StorageConfig } from "../../scripts/core/storage_host/storage_config.ts";
import { HOUR_MS } from "../../scripts/core/time.ts";
import type { Host } from "../../scripts/host/host.ts";
import { makeHost } from "../../scripts/host/steps/step.ts";
import { retain, type RetainOptions, type RetainReport, type SetRetention } from "../../scripts/retain.ts";
import { scrub } from "../../scripts/scrub.ts";

export const HUB = "home" as HubName;

/** A policy that keeps nothing but the newest. */
export const KEEP_ONE = { keepWithinDays: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 1 };

/** A key that signs seals. */
export interface Signer {
  readonly seed: Uint8Array;
  readonly publicKey: string;
  readonly fingerprint: string;
}

export function makeSigner(): Signer {
  const seed = crypto.getRandomValues(new Uint8Array(32));
  const publicKey = publicKeyOf(seed);
  return { seed, publicKey: formatPublicKeyLine(publicKey, "test"), fingerprint: fingerprintOf(publicKey) };
}

/** What a snapshot is to be like; anything of the seal can be forged. */
export interface SnapshotSpec {
  readonly id: SnapshotId;
  readonly signer: Signer;
  readonly hub?: HubName;
  readonly set?: SetName;
  readonly parts?: Readonly<Record<string, Uint8Array>>;
  readonly seal?: Partial<Seal>;
}

/** A snapshot that was written. */
export interface Written {
  readonly folder: string;
  readonly seal: Seal;
  readonly checksum: string;
}

/** Writes a snapshot into `store`, parts first and the seal last, as a hub ships it. */
export function writeSnapshot(store: string, spec: SnapshotSpec): Written {
  const { id, signer, hub = HUB, set = MAIN_SET } = spec;
  const parts = spec.parts ??
    { [FILES_PART]: new TextEncoder().encode(`files of ${hub}/${set}/${id}`) };
  const folder = `${store}/${hub}/${set}/${id}`;
  Deno.mkdirSync(folder, { recursive: true });
  const sealed = Object.entries(parts).map(([name, bytes]) => {
    Deno.writeFileSync(`${folder}/${name}`, bytes);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    return { name: name as PartName, bytes: bytes.length, sha256 };
  });
  const seal: Seal = {
    format: FORMAT_NAME,
    version: FORMAT_VERSION,
    hub,
    set,
    id,
    kind: "full",
    parent: null,
    needs: [],
    parts: sealed,
    recipients: ["age1test"],
    previous: null,
    suspicions: [],
    writer: "test",
    ...spec.seal,
  };
  const bytes = new TextEncoder().encode(serializeSeal(seal));
  Deno.writeTextFileSync(`${folder}/seal.json.sig`, signSsh(signer.seed, SEAL_NAMESPACE, bytes));
  Deno.writeFileSync(`${folder}/seal.json`, bytes);
  return { folder, seal, checksum: sealChecksum(bytes) };
}

/** Signs what nobody verifies. */
const ANYONE = makeSigner();

/** Writes a sealed snapshot whose parts are of these sizes (bytes), by name, and returns its folder. */
export function makeSealedFolder(
  { store, id, hub, set, needs = [], parts = { [FILES_PART]: 2_000, [MANIFEST_PART]: 500 } }: {
    readonly store: string;
    readonly id: string;
    readonly hub?: string;
    readonly set?: string;
    readonly needs?: readonly string[];
    readonly parts?: Readonly<Record<string, number>>;
  },
): string {
  const contents = Object.entries(parts).map(([name, bytes]) => [name, randomBytes(bytes)] as const);
  return writeSnapshot(store, {
    id: id as SnapshotId,
    signer: ANYONE,
    ...defined({ hub: hub as HubName | undefined, set: set as SetName | undefined }),
    parts: Object.fromEntries(contents),
    seal: {
      kind: needs.length === 0 ? "full" : "increment",
      parent: (needs.at(-1) ?? null) as SnapshotId | null,
      needs: needs as SnapshotId[],
    },
  }).folder;
}

/**
 * Writes a hub's history: one snapshot at each time, each linked to the one before, in chains of `chainLength`.
 *
 * @param after The snapshot that the first one follows.
 */
export function writeHistory(
  store: string,
  signer: Signer,
  times: readonly Date[],
  options: { hub?: HubName; set?: SetName; chainLength?: number; after?: Written } = {},
): Written[] {
  const { hub = HUB, set = MAIN_SET, chainLength = 7 } = options;
  const written: Written[] = [];
  let chain: SnapshotId[] = [];
  let before = options.after;
  for (const time of times) {
    const id = snapshotIdAt(time);
    if (chain.length >= chainLength) chain = [];
    const parent = chain.at(-1) ?? null;
    const snapshot = writeSnapshot(store, {
      id,
      signer,
      hub,
      set,
      seal: {
        kind: parent === null ? "full" : "increment",
        parent,
        needs: [...chain],
        previous: before ? { id: before.seal.id, sha256: before.checksum } : null,
      },
    });
    written.push(snapshot);
    chain.push(id);
    before = snapshot;
  }
  return written;
}

/**
 * Lets snapshots that were written arrive one by one, each at the time in its id, and calls `look` after each. The
 * storage host's clock ends at the last one.
 */
export function arriveOneByOne(storage: StorageHost, written: readonly Written[], look: () => void): void {
  const away = ({ seal }: Written) => `${storage.root}/away-${seal.id}`;
  for (const snapshot of written) Deno.renameSync(snapshot.folder, away(snapshot));
  for (const snapshot of written) {
    storage.now = timeOfSnapshotId(snapshot.seal.id);
    Deno.renameSync(away(snapshot), snapshot.folder);
    look();
  }
}

/** Times that end at `last`, `everyHours` apart. */
export function timesUntil(last: Date, count: number, everyHours = 12): Date[] {
  return Array.from(
    { length: count },
    (_, index) => new Date(last.getTime() - (count - 1 - index) * everyHours * HOUR_MS),
  );
}

/** A storage host in a temporary folder: a store, a state folder, a clock that the test moves. */
export interface StorageHost extends Disposable {
  readonly root: string;
  readonly store: string;
  readonly signer: Signer;
  readonly config: StorageConfig;
  readonly host: Host;
  /** What the host's clock shows. */
  now: Date;
  /** The same with other settings. */
  withConfig(settings: Record<string, unknown>, hub?: Record<string, unknown>): StorageConfig;
}

/** Makes one. Its clock starts at noon on 24 November 2026. */
export function makeStorageHost(
  settings: Record<string, unknown> = {},
  hub: Record<string, unknown> = {},
): StorageHost {
  const root = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "storage-test-" }));
  const store = `${root}/store`;
  Deno.mkdirSync(`${store}/${HUB}`, { recursive: true });
  const signer = makeSigner();
  const real = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
  const withConfig = (changed: Record<string, unknown>, changedHub: Record<string, unknown> = {}) =>
    parseStorageConfig(
      JSON.stringify({
        store,
        stateFolder: `${root}/ledger`,
        timeZone: "UTC",
        ...changed,
        hubs: {
          [HUB]: {
            signers: [signer.publicKey],
            snapshotsPerDayMax: 1000,
            maxAgeHours: { state: 26 },
            ...changedHub,
          },
        },
      }),
      "test",
    );
  const storage: StorageHost = {
    root,
    store,
    signer,
    config: withConfig(settings, hub),
    now: new Date("2026-11-24T12:00:00Z"),
    host: { ...real, now: () => storage.now },
    withConfig,
    [Symbol.dispose]: () => Deno.removeSync(root, { recursive: true }),
  };
  return storage;
}

/** One that keeps the newest only, with a history of so many snapshots, all of which it has read. */
export async function makeReadStorage(
  count: number,
  chainLength: number,
): Promise<StorageHost & { readonly written: readonly Written[] }> {
  const storage = makeStorageHost({ retention: KEEP_ONE });
  const written = writeHistory(storage.store, storage.signer, timesUntil(storage.now, count), {
    chainLength,
  });
  await scrub(storage.host, storage.config);
  return Object.assign(storage, { written });
}

/** Makes the key that signs receipts. @returns Its file and its seed. */
export function makeReceiptKey({ root }: StorageHost): { receiptKeyFile: string; seed: Uint8Array } {
  const { seed } = makeSigner();
  const receiptKeyFile = `${root}/receipt_key`;
  Deno.writeTextFileSync(receiptKeyFile, formatPrivateKey(seed, "storage", 1), { mode: 0o600 });
  return { receiptKeyFile, seed };
}

/** Retains, and gathers what is told of each set. */
export async function retainAll(
  host: Host,
  config: StorageConfig,
  options: RetainOptions = {},
): Promise<RetainReport & { readonly sets: readonly SetRetention[] }> {
  const sets: SetRetention[] = [];
  return { sets, ...await retain(host, config, options, (set) => sets.push(set)) };
}
