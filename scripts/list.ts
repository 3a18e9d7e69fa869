/**
 * Shows the snapshots of a store: sizes, chains, how many others each needs, and when each was last proven.
 *
 * Needs no key, and cannot read one.
 *
 * @module
 */

import type { Config } from "./core/config/config.ts";
import { BackupError, isInterruption, outcome, problemOf, reasonOf } from "./core/errors.ts";
import {
  formatBytes,
  formatCounted,
  formatDate,
  formatMinute,
  formatStore,
  formatTable,
} from "./core/format.ts";
import { verifySsh } from "./core/keys/sshsig.ts";
import {
  type HubName,
  MANIFEST_PART,
  type PartName,
  type SetName,
  type SnapshotId,
  timeOfSnapshotId,
} from "./core/names.ts";
import {
  describeSuspicions,
  isGood,
  type Seal,
  SEAL_NAMESPACE,
  sealedBytes,
  type Suspicion,
} from "./core/snapshot/seal.ts";
import { parseTrust, requireTrusted, type Trust } from "./core/snapshot/trust.ts";
import { printJsonList } from "./host/command_line/json_list.ts";
import type { Host } from "./host/host.ts";
import { type Drill, isDrillOf, readDrills } from "./host/records/drill_log.ts";
import {
  noSuchSet,
  type OpenedStore,
  openStoreOf,
  setsOf,
  type StoreOptions,
} from "./host/restore/store_option.ts";
import { serveStep } from "./host/steps/step.ts";
import {
  isSealed,
  readSetIfThere,
  readSignature,
  type SealedSnapshot,
  type StoredSet,
} from "./host/store/store.ts";

/** One snapshot of a store. */
export interface Listed {
  readonly hub: HubName;
  readonly set: SetName;
  readonly id: SnapshotId;
  /** `incomplete` and `unreadable` have no seal that counts. */
  readonly state: "good" | "suspect" | "incomplete" | "unreadable";
  /** Why it is not good, or cannot be restored. */
  readonly problem: string | undefined;
  readonly kind: Seal["kind"] | undefined;
  readonly bytes: number;
  readonly needs: readonly SnapshotId[];
  /** How many snapshots need this one. */
  readonly neededBy: number;
  readonly suspicions: readonly Suspicion[];
  /** The last drill on it. */
  readonly drill: Pick<Drill, "at" | "ok"> | undefined;
}

/**
 * Lists the snapshots of a set, oldest first.
 *
 * @param bytesOf Tells how large parts are, where they lie.
 * @param own This hub and its signers: of other hubs, and where none is named, signatures are not looked at.
 */
export function list(
  host: Host,
  set: StoredSet,
  drills: readonly Drill[],
  bytesOf: OpenedStore["bytesOf"],
  own: Pick<Config, "hub" | "signers">,
): Listed[] {
  const snapshots = readSetIfThere(host.fs, set);
  const sealed = snapshots.filter(isSealed);
  const seals = sealed.map(({ sealed }) => sealed.seal);
  const trust = parseTrust(set.hub === own.hub ? own.signers : []);
  const untrusted = new Map(sealed.map((snapshot) => [snapshot.id, whyUntrusted(host, snapshot, trust)]));
  const missing = new Map(
    snapshots.map(({ id, sealed }) => [id, missingParts(sealed.seal, (part) => bytesOf(set, id, part))]),
  );
  // Nobody reads another's manifest. Which of the other parts one needs is not known without a key: any may be.
  const usable = new Set(
    seals.map(({ id }) => id).filter((id) =>
      untrusted.get(id) === undefined &&
      missing.get(id)!.every(({ name }) => name === MANIFEST_PART)
    ),
  );
  const neededBy = new Map<SnapshotId, number>();
  for (const { needs } of seals) for (const id of needs) neededBy.set(id, (neededBy.get(id) ?? 0) + 1);
  const ofSet = drills.filter((drill) => drill.set === set.set && isDrillOf(set.hub, drill));
  const lastDrills = new Map(ofSet.map((drill) => [drill.snapshot, drill]));
  return snapshots.map(({ hub, set, id, sealed }): Listed => {
    const drill = lastDrills.get(id);
    const seal = sealed.seal;
    const faults = seal?.needs.filter((needed) => !usable.has(needed)) ?? [];
    const problem = sealed.seal
      ? untrusted.get(id) ?? missing.get(id)?.[0]?.problem ??
        (faults.length > 0 ? `needs ${faults.join(", ")}, which is missing or incomplete` : undefined)
      : sealed.problem;
    return {
      hub,
      set,
      id,
      state: sealed.seal ? (isGood(sealed.seal) ? "good" : "suspect") : sealed.state,
      problem,
      kind: seal?.kind,
      bytes: seal ? sealedBytes(seal) : 0,
      needs: seal?.needs ?? [],
      neededBy: neededBy.get(id) ?? 0,
      suspicions: seal?.suspicions ?? [],
      drill: drill && { at: drill.at, ok: drill.ok },
    };
  });
}

/** Why a seal is not taken for its hub's. */
function whyUntrusted({ fs }: Host, snapshot: SealedSnapshot, trust: Trust): string | undefined {
  if (trust.size === 0) return undefined;
  const { hub, set, id, sealed } = snapshot;
  return problemOf(() => {
    const { publicKey } = verifySsh(readSignature(fs, snapshot), SEAL_NAMESPACE, sealed.bytes);
    requireTrusted(trust, publicKey, `${hub}/${set}/${id}`);
  });
}

/** Parts that are not there, or not as large as sealed. Their bytes are for `scrub` and `verify` to read. */
function missingParts(
  seal: Seal | undefined,
  bytesOf: (part: PartName) => number | undefined,
): { name: PartName; problem: string }[] {
  return (seal?.parts ?? []).flatMap(({ name, bytes }) => {
    const found = bytesOf(name);
    if (found === undefined) return [{ name, problem: `${name} is missing` }];
    if (found === bytes) return [];
    return [{ name, problem: `${name} has ${found} bytes where the seal says ${bytes}` }];
  });
}

/** A set's list as a table, oldest first, of at most 80 columns where all is well. */
function describeSet(listed: readonly Listed[]): string {
  const { hub, set } = listed[0]!;
  const total = listed.reduce((sum, { bytes }) => sum + bytes, 0);
  const rows = listed.map((snapshot) => [
    snapshot.id,
    formatMinute(timeOfSnapshotId(snapshot.id)),
    formatBytes(snapshot.bytes),
    snapshot.kind ?? "",
    snapshot.needs.length > 0 ? String(snapshot.needs.length) : "",
    snapshot.drill?.ok ? formatDate(new Date(snapshot.drill.at)) : "",
    describeState(snapshot),
  ]);
  const header = ["id", "taken", "stored", "kind", "needs", "proven", "state"];
  return `${hub}/${set}: ${formatCounted(listed.length, "snapshot")}, ${formatBytes(total)}\n${
    formatTable([header, ...rows])
  }`;
}

function describeState({ state, problem, suspicions, drill }: Listed): string {
  if (problem !== undefined) {
    return `${state === "good" ? "CANNOT BE RESTORED" : state.toUpperCase()}: ${problem}`;
  }
  const failed = drill?.ok === false ? `DRILL FAILED ${formatDate(new Date(drill.at))}` : undefined;
  if (state !== "suspect") return failed ?? state;
  return `SUSPECT: ${describeSuspicions(suspicions)}${failed === undefined ? "" : `; ${failed}`}`;
}

/** The list step's job. */
export interface ListJob {
  readonly config: Config;
  readonly store: StoreOptions;
  /** A set's name, or `all`. */
  readonly set: string;
  readonly json: boolean;
}

/** What of a store could not be listed, beside what was. */
function unreadError(store: string, closed: readonly BackupError[]): BackupError | undefined {
  const [first] = closed;
  if (!first || closed.length === 1) return first;
  return new BackupError(
    `Cannot list all of ${formatStore(store)}: ${closed.map(reasonOf).join("; ")}`,
    {
      kind: first.kind,
      hint: first.hint,
    },
  );
}

serveStep<ListJob>(import.meta, async (job, { host, print }) => {
  const closed: BackupError[] = [];
  const onClosed = (error: BackupError) => void closed.push(error);
  await using store = await openStoreOf(host, job.config, job.store, { withSizes: true, onClosed });
  const sets = setsOf(store, job.store.hubName).filter(({ set }) => job.set === "all" || set === job.set);
  // A new store has none yet; a name that others do not have is a slip.
  if (sets.length === 0 && store.sets.length > 0 && closed.length === 0) {
    throw noSuchSet(store, job.set === "all" ? `hub ${job.store.hubName}` : `set ${job.set}`);
  }
  const drills = readDrills(host.fs, job.config.stateFolder);
  const isNamed = job.config.destinations.some(({ name }) => name === job.store.store);
  let isEmpty = true;
  // A set at a time: a large store is never there as a whole.
  const listEach = (tell: (listed: Listed[]) => void): BackupError | undefined => {
    for (const set of sets) {
      host.checkpoint();
      try {
        const listed = list(host, set, drills, store.bytesOf, job.config);
        if (listed.length === 0) continue;
        tell(listed);
        isEmpty = false;
      } catch (error) {
        // One that cannot be read hides no other.
        if (!(error instanceof BackupError) || isInterruption(error)) throw error;
        closed.push(error);
      }
    }
    // What verify and restore refuse as no store is not to look like one that is new.
    if (isEmpty && closed.length === 0 && job.store.store !== undefined && !isNamed) {
      throw noSuchSet(store, "a snapshot");
    }
    return unreadError(store.name, closed);
  };
  let error: BackupError | undefined;
  if (job.json) {
    await printJsonList(print, "snapshots", (add) => {
      error = listEach(add);
      return { ...outcome(error), store: store.name };
    });
  } else {
    error = listEach((listed) => print(`${isEmpty ? "" : "\n"}${describeSet(listed)}`));
    if (isEmpty && !error) print(`no snapshots yet in ${store.name}`);
  }
  if (error) throw error;
});
