/**
 * Who can open the backups: shows it, changes it, and proves that an identity does.
 *
 * `prove` alone sees an identity, and only the headers of a store; `add` and `drop` see the configuration and seals.
 *
 * @module
 */

import { type Config, parseConfig, type Surroundings } from "./core/config/config.ts";
import { appendInText, removeInText } from "./core/config/config_edit.ts";
import { BackupError, type ErrorKind, internalError, outcome } from "./core/errors.ts";
import { formatAgo, formatCount, formatCounted, formatStore, localTime } from "./core/format.ts";
import { type HubName, MANIFEST_PART, type SetName, type SnapshotId } from "./core/names.ts";
import type { Seal } from "./core/snapshot/seal.ts";
import { diskError, knownError } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import { lockConfiguration } from "./host/init/config_file.ts";
import { createEncrypter, parseRecipient } from "./host/keys/age.ts";
import { recipientOf } from "./host/keys/identity.ts";
import { type KeyOptions, type Keys, readKeys } from "./host/keys/keys.ts";
import { appendProof, type Proof, readProofs } from "./host/records/proof_log.ts";
import { openSeal, partOf, requireSealed } from "./host/restore/open_snapshot.ts";
import { openPart } from "./host/restore/part_reader.ts";
import { type OpenedStore, openStoreOf, setsOf, type StoreOptions } from "./host/restore/store_option.ts";
import { serveStep } from "./host/steps/step.ts";
import { readSeals, readSnapshot, type StoredSet } from "./host/store/store.ts";

/** What one recipient can open in one set: a snapshot counts if it opens all that the snapshot needs. */
export interface Reach {
  readonly hub: HubName;
  readonly set: SetName;
  readonly snapshots: number;
  readonly of: number;
  readonly oldest: SnapshotId | undefined;
  readonly newest: SnapshotId | undefined;
}

/** A recipient, and what it is good for. */
export interface KeyReach {
  readonly recipient: string;
  /** Whether new snapshots are encrypted to it. */
  readonly configured: boolean;
  readonly reach: readonly Reach[];
  /** When an identity of it was last proven to open every chain that is made for it, or the one of a drill. */
  readonly provenAt: string | undefined;
}

/** Lists the recipients of the configuration and of all seals, with what each can open. */
export function listKeys(
  host: Pick<Host, "fs">,
  sets: readonly StoredSet[],
  recipients: readonly string[],
  proofs: readonly Proof[],
): KeyReach[] {
  const stored = sets.map((set) => ({ ...set, seals: readSeals(host.fs, set) }));
  const all = new Set([
    ...recipients,
    ...stored.flatMap(({ seals }) => seals.flatMap((seal) => seal.recipients)),
  ]);
  return [...all].map((recipient) => ({
    recipient,
    configured: recipients.includes(recipient),
    reach: stored.map(({ hub, set, seals }): Reach => {
      const opened = seals.filter((seal) => opensWith(seals, seal, recipient)).map(({ id }) => id);
      return {
        hub,
        set,
        snapshots: opened.length,
        of: seals.length,
        oldest: opened[0],
        newest: opened.at(-1),
      };
    }),
    provenAt: proofs.findLast((proof) => proof.ok && proof.recipients.includes(recipient))?.at,
  }));
}

/** Whether a recipient opens a snapshot and everything that it builds on. */
function opensWith(seals: readonly Seal[], seal: Seal, recipient: string): boolean {
  return [...seal.needs, seal.id].every((id) =>
    seals.find((candidate) => candidate.id === id)?.recipients.includes(recipient) ?? false
  );
}

/** A change of the recipients: the new text, and what it means. */
export interface KeyChange {
  readonly text: string;
  readonly recipients: readonly string[];
  readonly said: readonly string[];
}

/** What a change is made to. */
export interface KeyFile {
  readonly text: string;
  readonly where: string;
  readonly around: Surroundings;
}

/**
 * Adds a recipient to a configuration.
 *
 * @throws {BackupError} (config) If it is not one, is there already, or does not go with the others.
 */
export async function addKey(
  file: KeyFile,
  recipientText: string,
  known: readonly KeyReach[],
): Promise<KeyChange> {
  const recipient: string = parseRecipient(recipientText);
  const { recipients } = parseConfig(file.text, file.where, file.around);
  if (recipients.includes(recipient)) {
    throw new BackupError(`Cannot add recipient ${short(recipient)}: it is there already`, {
      kind: "config",
      hint: "`hapi-backup keys list` shows them",
    });
  }
  await createEncrypter([...recipients, recipient]);
  const text = appendInText(file.text, "recipients", recipient);
  const before = known.find((key) => key.recipient === recipient);
  const existing = Math.max(0, ...known.map(({ reach }) => reach.reduce((sum, { of }) => sum + of, 0)));
  const opened = before?.reach.reduce((sum, { snapshots }) => sum + snapshots, 0) ?? 0;
  return {
    ...checked(file, text, [...recipients, recipient]),
    said: [
      `added ${recipient}`,
      "  its identity will open every snapshot from the next one on, which starts a new chain in each set",
      `  of ${formatCounted(existing, "snapshot")} here it opens ${
        opened === 0 ? "none" : formatCount(opened)
      }; those stay with the recipients that they were made for`,
      ...recipients.length === 0 ? [] : [`  beside it: ${recipients.map(short).join(", ")}`],
    ],
  };
}

/**
 * Drops a recipient, given whole or by a start that no other has.
 *
 * @throws {BackupError} (config) If there is none such, or no other would be left.
 */
export function dropKey(file: KeyFile, recipientText: string, known: readonly KeyReach[]): KeyChange {
  const { recipients } = parseConfig(file.text, file.where, file.around);
  const start = recipientText.trim();
  const matches = recipients.filter((recipient) => recipient === start || recipient.startsWith(start));
  const fail = (state: string, hint: string): never => {
    throw new BackupError(`Cannot drop recipient ${short(start)}: ${state}`, { kind: "config", hint });
  };
  const exact = recipients.includes(start) ? start : undefined;
  const recipient = exact ?? (matches.length === 1 && start.length >= 8 ? matches[0]! : fail(
    matches.length > 1
      ? "more than one begin so"
      : matches.length === 1
      ? "that is too short to be sure"
      : "it is not in the configuration",
    "`hapi-backup keys list` shows them; give one whole, or its first 8 characters or more",
  ));
  if (recipients.length === 1) {
    fail("nobody could open the next snapshot", "add another one first: hapi-backup keys add age1...");
  }
  const left = recipients.filter((other) => other !== recipient);
  const text = removeInText(file.text, "recipients", recipients.indexOf(recipient));
  const reach =
    known.find((key) => key.recipient === recipient)?.reach.filter(({ snapshots }) => snapshots > 0) ??
      [];
  return {
    ...checked(file, text, left),
    said: [
      `dropped ${recipient}`,
      "  its identity opens nothing that is made from now on; the next snapshot starts a new chain in each set",
      ...reach.map(({ set, snapshots, newest }) =>
        `  it still opens ${formatCounted(snapshots, "snapshot")} of ${set}, up to ${day(newest!)}`
      ),
      ...reach.length > 0
        ? [
          "  here and wherever copies are, until retention removes them; whoever has that identity and a copy can read them",
        ]
        : [],
      `  left: ${left.map(short).join(", ")}${
        left.length === 1 ? " - ONE ONLY: add a second, kept in another place" : ""
      }`,
    ],
  };
}

/** A text edit is believed only if it reads back as meant. */
function checked(file: KeyFile, text: string, wanted: readonly string[]): Omit<KeyChange, "said"> {
  const { recipients } = parseConfig(text, file.where, file.around);
  if (recipients.join() !== wanted.join()) {
    throw new BackupError(`Cannot edit ${file.where}: "recipients" would not become what was asked for`, {
      kind: "config",
      hint: `edit it by hand: ${JSON.stringify(wanted)}`,
    });
  }
  return { text, recipients };
}

/** What `prove` found of one chain. */
export interface ProvenChain {
  readonly hub: HubName;
  readonly set: SetName;
  /** The full that it starts with. */
  readonly full: SnapshotId;
  /** The snapshot whose header was decrypted. */
  readonly tried: SnapshotId;
  readonly snapshots: number;
  readonly ok: boolean;
  /**
   * Not opened, and no fault: an older chain, made for none of the identities, such as one from before a recipient was
   * added. The newest of a set must be opened by an identity that is in use.
   */
  readonly isForOthers: boolean;
  /** Those of the identities that open it without the others. */
  readonly recipients: readonly string[];
  readonly problem: string | undefined;
  readonly kind: ErrorKind | undefined;
}

/** Proves that the identities open every chain of a store: decrypts one header of each. */
export async function prove(host: Host, store: OpenedStore, sets: readonly StoredSet[], keys: Keys): Promise<
  ProvenChain[]
> {
  const proven: ProvenChain[] = [];
  const own: string[] = await Promise.all(keys.identities.map(recipientOf));
  for (const set of sets) {
    const all = readSeals(host.fs, set);
    for (const [full, seals] of chainsOf(all)) {
      host.checkpoint();
      // The last one: of its recipients and the full's, the worst that a change in between could do is here.
      const tried = seals.at(-1)!.id;
      const ids = tried === full ? [full] : [full, tried];
      await store.fetch(set, new Map(ids.map((id) => [id, new Set([MANIFEST_PART])])));
      const error = await problemWithHeaders(host, set, ids, keys);
      const recipients: string[] = [];
      for (const identity of keys.identities) {
        const alone = { ...keys, identities: [identity] };
        if (error || await problemWithHeaders(host, set, ids, alone)) continue;
        recipients.push(await recipientOf(identity));
      }
      proven.push({
        hub: set.hub,
        set: set.set,
        full,
        tried,
        snapshots: seals.length,
        ok: error === undefined,
        isForOthers: error?.kind === "key" && tried !== all.at(-1)!.id &&
          !all.some((seal) => ids.includes(seal.id) && seal.recipients.some((name) => own.includes(name))),
        recipients,
        problem: error?.message,
        kind: error?.kind,
      });
    }
  }
  return proven;
}

/** Seals by the full that they build on. */
function chainsOf(seals: readonly Seal[]): Map<SnapshotId, Seal[]> {
  return Map.groupBy(seals, ({ needs, id }) => needs[0] ?? id);
}

/** What keeps the identities from opening the first of these snapshots that they do not open. */
async function problemWithHeaders(
  host: Host,
  set: StoredSet,
  ids: readonly SnapshotId[],
  { identities, trust }: Keys,
): Promise<BackupError | undefined> {
  try {
    for (const id of ids) {
      const snapshot = requireSealed(readSnapshot(host.fs, set, id));
      if (trust.size > 0) openSeal({ host, set, trust }, id);
      using _opened = await openPart(host, snapshot, partOf(snapshot.sealed.seal, MANIFEST_PART), identities);
    }
    return undefined;
  } catch (error) {
    return knownError(error) ?? internalError(error);
  }
}

/** The keys step's job. */
export type KeysJob =
  | { readonly action: "list"; readonly config: Config; readonly store: StoreOptions; readonly json: boolean }
  | {
    readonly action: "add" | "drop";
    readonly config: Config;
    readonly configFile: string;
    readonly around: Surroundings;
    readonly store: StoreOptions;
    readonly recipient: string;
    readonly json: boolean;
  }
  | {
    readonly action: "prove";
    readonly config: Config;
    readonly store: StoreOptions;
    readonly keys: KeyOptions;
    readonly json: boolean;
  };

serveStep<KeysJob>(import.meta, async (job, { host, print, result }) => {
  const { config } = job;
  if (job.action === "prove") return await proveAndLog(host, job, result);
  await using store = await openStoreOf(host, config, job.store);
  const sets = setsOf(store, job.store.hubName);
  const known = listKeys(host, sets, config.recipients, readProofs(host.fs, config.stateFolder) ?? []);
  if (job.action === "list") {
    print(job.json ? JSON.stringify({ ok: true, keys: known }) : describeKeys(known, host.now()));
    return;
  }
  using locked = await lockConfiguration(host, job.configFile);
  const file = { text: locked.text, where: job.configFile, around: job.around };
  const change = job.action === "add"
    ? await addKey(file, job.recipient, known)
    : dropKey(file, job.recipient, known);
  try {
    locked.replace(change.text);
  } catch (error) {
    const { kind, message } = diskError(`change ${job.configFile}`, error);
    if (kind !== "disk") throw error;
    throw new BackupError(message, {
      kind: "config",
      hint: `on NixOS set services.hapi-backup.settings.recipients = [ ${
        change.recipients.map((recipient) => `"${recipient}"`).join(" ")
      } ];`,
    });
  }
  result(
    job.json ? JSON.stringify({ ok: true, recipients: change.recipients }) : change.said.join("\n"),
  );
});

async function proveAndLog(
  host: Host,
  { config, keys: options, store: where, json }: Extract<KeysJob, { action: "prove" }>,
  tell: (text: string) => void,
): Promise<void> {
  const keys = await readKeys(host, config, options);
  const recipients = await Promise.all(keys.identities.map(recipientOf));
  await using store = await openStoreOf(host, config, where);
  const chains = await prove(host, store, setsOf(store, where.hubName), keys);
  if (chains.length === 0) {
    throw new BackupError(`Cannot prove anything: ${store.name} holds no snapshot`, {
      kind: "usage",
      hint: "check --store and --hub-name",
    });
  }
  if (keys.trust.size === 0) host.report.warn("no signer is known: who made these snapshots was not checked");
  const failed = chains.filter(({ ok, isForOthers }) => !ok && !isForOthers);
  const ok = failed.length === 0;
  appendProof(host.fs, config.stateFolder, {
    at: host.now().toISOString(),
    store: store.name,
    // Another identity beside it may have opened everything.
    recipients: recipients.filter((recipient) =>
      chains.some((chain) => chain.recipients.includes(recipient))
    ),
    ok,
    chains: chains.filter(({ isForOthers }) => !isForOthers).length,
    failed: failed.map(({ hub, set, full }) => `${hub}/${set}/${full}`),
  });
  const error = ok ? undefined : new BackupError(
    `Cannot open ${failed.length} of ${chains.length} chains: ${failed[0]!.set}/${failed[0]!.full}: ${
      failed[0]!.problem
    }`,
    {
      kind: failed[0]!.kind!,
      hint: failed[0]!.kind === "key"
        ? "find the identity that they were made for: `hapi-backup keys list` names its recipient"
        : "another copy of the store may hold them whole: prove it there with --store",
    },
  );
  tell(
    json
      ? JSON.stringify({ ...outcome(error), recipients, chains })
      : describeProof(chains, recipients, store.name),
  );
  if (error) throw error;
}

function describeProof(chains: readonly ProvenChain[], recipients: readonly string[], store: string): string {
  const lines = chains.map(({ ok, isForOthers, set, full, snapshots, problem }) =>
    `  ${ok ? "ok  " : isForOthers ? "-   " : "FAIL"}  ${set}: the chain of ${day(full)}, ${
      formatCounted(snapshots, "snapshot")
    }${isForOthers ? ": made for other recipients" : problem ? `: ${problem}` : ""}`
  );
  const good = chains.filter(({ ok }) => ok).length;
  const others = chains.filter(({ isForOthers }) => isForOthers).length;
  return [
    `${recipients.map(short).join(", ")} in ${formatStore(store)}:`,
    ...lines,
    good + others < chains.length
      ? `OPENS ${good} OF ${chains.length} CHAINS`
      : others === 0
      ? `opens every chain (${good})`
      : `opens every chain that is made for it (${good} of ${chains.length}); the older ones need another identity`,
  ].join("\n");
}

function describeKeys(keys: readonly KeyReach[], now: Date): string {
  // Away from the hub there is no configuration, which says nothing of who is in it.
  const isKnown = keys.some(({ configured }) => configured);
  return keys.map(({ recipient, configured, reach, provenAt }) =>
    [
      `${recipient}${configured || !isKnown ? "" : "  (no longer: not in the configuration)"}`,
      ...reach.filter(({ of }) => of > 0).map(({ set, snapshots, of, oldest, newest }) =>
        `  ${set}: opens ${snapshots === of && of > 1 ? "all " : snapshots < of ? `${snapshots} of ` : ""}${
          formatCounted(of, "snapshot")
        }${oldest ? `, ${[...new Set([oldest, newest!])].map(day).join(" to ")}` : ""}`
      ),
      `  last proven: ${provenAt ? formatAgo(new Date(provenAt), now) : "NEVER (keys prove)"}`,
    ].join("\n")
  ).join("\n") || "no recipient is configured";
}

/** To the minute, with the zone. */
const day = (id: SnapshotId): string => localTime(id).replace(/:\d\d (?=\S+$)/, " ");
const short = (recipient: string): string => recipient.length > 16 ? `${recipient.slice(0, 14)}…` : recipient;
