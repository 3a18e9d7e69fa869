/**
 * Proves that a snapshot can be restored: restores it into scratch and compares everything with what was saved.
 *
 * Needs the identity, and a scratch folder of its own: who runs it removes that, however it ends.
 *
 * @module
 */

import type { Check, Restored, VerifyReport } from "./core/command_line/reports.ts";
import type { Config } from "./core/config/config.ts";
import { BackupError, reasonOf } from "./core/errors.ts";
import { formatBytes, formatCount, formatCounted } from "./core/format.ts";
import { MANIFEST_PART, type PartName, SEAL_FILE, SIGNATURE_FILE, type SnapshotId } from "./core/names.ts";
import { pathOfPlace } from "./core/place.ts";
import { type PartsBySnapshot, partsRead, type SavedDatabase } from "./core/snapshot/manifest.ts";
import { knownError } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import type { Identity } from "./host/keys/identity.ts";
import { appendDrill } from "./host/records/drill_log.ts";
import { appendProof } from "./host/records/proof_log.ts";
import { hasSessions, openSetOf } from "./host/restore/chosen_snapshot.ts";
import { askHubForSessions } from "./host/restore/hub.ts";
import { fileShows, needlesOf } from "./host/restore/needles.ts";
import {
  type Opening,
  openManifest,
  openPartSaying,
  openSeal,
  partOf,
  type TrustedSnapshot,
} from "./host/restore/open_snapshot.ts";
import type { VerifyJob } from "./host/restore/restore_jobs.ts";
import { checkImage, readFacts, readLiveRows } from "./host/sqlite.ts";
import { serveStep } from "./host/steps/step.ts";
import { problemWithPart, type SealedSnapshot } from "./host/store/store.ts";
import { restore } from "./restore.ts";

/** What else to look at. */
export interface VerifyExtras {
  /** Where databases live, to say how far they have moved on; not looked at where left out. */
  readonly home?: string | undefined;
  /** A hub program to start on the restored copy. */
  readonly hubProgram?: string | undefined;
}

/**
 * Verifies one snapshot. What fails is in the report; a check that another failure makes impossible is left out.
 *
 * @throws {BackupError} (key), (disk), (cancelled) If it could not be found out whether the snapshot is any good.
 * @param seals All snapshots of the set that have a seal, oldest first.
 * @param scratch An empty folder.
 */
export async function verify(
  opening: Opening,
  seals: readonly SealedSnapshot[],
  id: SnapshotId,
  scratch: string,
  extras: VerifyExtras = {},
): Promise<Check[]> {
  const { host } = opening;
  const list = new Checklist(host);
  const seal = await list.check("seal", () => openSeal(opening, id).seal, () => "signed by a known key");
  if (!seal) return list.checks;
  await list.check(
    "seals of the chain",
    () => [...seal.needs, id].map((needed) => openSeal(opening, needed)),
    (all) => `${all.length} signed by a known key`,
  );
  await list.check(
    "links between seals",
    () => requireLinks(seals.filter(({ id }) => isTrusted(opening, id))),
    (count) => `${count} compared`,
  );
  const manifest = await list.check(
    "manifest",
    () => openManifest(opening, openSeal(opening, id)),
    contentOf,
  );
  if (!manifest) return list.checks;
  const involved: PartsBySnapshot = new Map<SnapshotId, ReadonlySet<PartName>>(partsRead(manifest))
    .set(id, new Set(seal.parts.map(({ name }) => name)));
  // Which can fail for other reasons than the snapshot's.
  await opening.far?.fetch(involved);
  await list.check(
    "parts",
    () => requireParts(host, opening, involved),
    ({ count, bytes }) =>
      `${formatCounted(count, "part")}, ${formatBytes(bytes)}: sizes and SHA-256 as sealed`,
  );

  const restored = await list.check(
    "decrypted and rebuilt",
    () => restore({ ...opening, host: withoutLinks(host) }, id, `${scratch}/restored`),
    (all) => `${contentOf(all)}: every SHA-256 as in the manifest`,
  );
  if (!restored) return list.checks;
  const root = `${scratch}/restored`;
  for (const database of restored.databases) {
    await checkDatabase(host, database, `${root}/${database.place}`, list);
  }
  for (const { source, detail } of restored.manifest.suspicions) {
    list.checks.push({ name: `${source}: not suspect`, ok: false, detail: `as it was saved: ${detail}` });
  }
  await list.check(
    "no secret shows in the store",
    () => requireHidden(opening, restored, involved, root),
    (count) => `${formatCounted(count, "secret value")} looked for`,
  );
  for (const database of restored.databases) {
    if (extras.home !== undefined) reportMovedOn(host, database, extras.home, list.checks);
  }
  if (extras.hubProgram !== undefined) {
    const { hubProgram } = extras;
    for (const database of restored.databases.filter(hasSessions)) {
      const ask = () => askHubForSessions(host, hubProgram, `${root}/${database.place}`, scratch);
      await checkServed(database, ask, list);
    }
  }
  return list.checks;
}

/** What a snapshot holds, as a restore counts it. */
function contentOf({ databases, files }: Pick<Restored, "databases" | "files">): string {
  const count = files.filter(({ type }) => type === "file").length;
  return `${formatCounted(databases.length, "database")} and ${formatCounted(count, "file")}`;
}

/**
 * Empty files stand for links: nothing here reads a link, and none is to lead code that has taken over this step out of
 * its scratch.
 */
function withoutLinks(host: Host): Host {
  const symlink = (_target: string, path: string) =>
    host.fs.open(path, { write: true, createNew: true, mode: 0o600 }).close();
  return { ...host, fs: { ...host.fs, symlink } };
}

/** Checks, each noted with what it found. */
class Checklist {
  readonly checks: Check[] = [];

  constructor(private readonly host: Host) {}

  /** Does something and notes how it went; undefined if it failed. */
  async check<T>(
    name: string,
    work: () => T | Promise<T>,
    say: (value: T) => string,
  ): Promise<T | undefined> {
    this.host.checkpoint();
    try {
      const value = await work();
      this.checks.push({ name, ok: true, detail: say(value) });
      return value;
    } catch (error) {
      if (this.#isNoVerdict(error)) throw error;
      this.checks.push({ name, ok: false, detail: reasonOf(error) });
      return undefined;
    }
  }

  /** An interruption says nothing of the snapshot, nor does a wrong key or a full disk while all else was right. */
  #isNoVerdict(error: unknown): boolean {
    const kind = knownError(error)?.kind;
    return kind === "cancelled" || (kind === "key" || kind === "disk") && this.checks.every(({ ok }) => ok);
  }
}

async function checkDatabase(
  host: Host,
  saved: SavedDatabase,
  image: string,
  list: Checklist,
): Promise<void> {
  const { source } = saved;
  const facts = await list.check(
    `${source}: opens in SQLite`,
    () => host.blocking(() => readFacts(host, image)),
    () => formatBytes(saved.bytes),
  );
  if (!facts) return;
  // Sessions first: they are what the operator asks about.
  const tables = Object.keys({ ...saved.rows, ...facts.rows }).sort((a, b) =>
    Number(b === "sessions") - Number(a === "sessions") ||
    Number(b === "messages") - Number(a === "messages") || (a < b ? -1 : 1)
  );
  for (const table of tables) {
    await list.check(`${source}: rows of ${table}`, () => {
      const [now, then] = [facts.rows[table], saved.rows[table]];
      if (now !== then) throw new Error(`${now ?? "none"} where ${then ?? "none"} were saved`);
      return now!;
    }, (count) => `${formatCount(count)}, as saved`);
  }
  await list.check(`${source}: schema`, () => {
    const differs = facts.schemaSha256 !== saved.schemaSha256 || facts.userVersion !== saved.userVersion ||
      facts.applicationId !== saved.applicationId;
    if (differs) throw new Error(`it is not the schema that was saved (user_version ${facts.userVersion})`);
  }, () => `as saved, user_version ${saved.userVersion}`);
  const result = checkImage(host, image, `check ${source}`);
  await list.check(`${source}: integrity_check`, () => {
    if (result.integrity.join() !== "ok") throw new Error(result.integrity.slice(0, 3).join("; "));
  }, () => "ok");
  await list.check(
    `${source}: foreign_key_check`,
    () => {
      if (result.foreignKeys.length > saved.checks.foreignKeys.length) {
        throw new Error(result.foreignKeys.slice(0, 3).join("; "));
      }
    },
    () =>
      result.foreignKeys.length === 0
        ? "ok"
        : `${formatCounted(result.foreignKeys.length, "row")}, as when it was saved`,
  );
}

async function checkServed(
  { source, rows }: SavedDatabase,
  askHub: () => Promise<number>,
  list: Checklist,
): Promise<void> {
  await list.check(
    `${source}: served by the hub`,
    async () => {
      const served = await askHub();
      const saved = rows.sessions!;
      if (served !== saved) {
        throw new Error(`the hub serves ${formatCounted(served, "session")}, and ${saved} were saved`);
      }
      return served;
    },
    (served) => `${formatCounted(served, "session")}, as saved`,
  );
}

/** Whether a known key signed the seal. One that none did is no link: it says so itself when it is verified. */
function isTrusted(opening: Opening, id: SnapshotId): boolean {
  try {
    openSeal(opening, id);
    return true;
  } catch (error) {
    if (error instanceof BackupError && error.kind === "integrity") return false;
    throw error;
  }
}

/** Each seal names the one before it by checksum, where that one is still here. */
function requireLinks(seals: readonly SealedSnapshot[]): number {
  const checksums = new Map(seals.map(({ id, sealed }) => [id, sealed.checksum]));
  let count = 0;
  for (const { id, sealed: { seal } } of seals) {
    if (!seal.previous) continue;
    const checksum = checksums.get(seal.previous.id);
    if (checksum === undefined) continue;
    if (checksum !== seal.previous.sha256) {
      throw new Error(`the seal of ${seal.previous.id} is not the one that ${id} follows`);
    }
    count++;
  }
  return count;
}

function requireParts(
  host: Host,
  opening: Opening,
  involved: PartsBySnapshot,
): { count: number; bytes: number } {
  const problems: string[] = [];
  let count = 0;
  let bytes = 0;
  for (const [id, names] of involved) {
    const snapshot = openSeal(opening, id);
    for (const name of names) {
      const part = partOf(snapshot.seal, name);
      const problem = problemWithPart(host.fs, snapshot.folder, part, () => host.checkpoint());
      if (problem) problems.push(`${id}/${name}: ${problem}`);
      count++;
      bytes += part.bytes;
    }
  }
  if (problems.length > 0) throw new Error(problems.join("; "));
  return { count, bytes };
}

function requireHidden(
  opening: Opening,
  restored: Restored,
  involved: PartsBySnapshot,
  root: string,
): number {
  const { host } = opening;
  const secret = new Set(restored.manifest.sources.filter((source) => source.secret).map(({ name }) => name));
  const files = restored.files.filter(({ type, source }) => type === "file" && secret.has(source));
  const needles = needlesOf(host.fs, files.map(({ place }) => `${root}/${place}`));
  if (needles.length === 0) return 0;
  for (const [id, names] of involved) {
    const { folder } = openSeal(opening, id);
    for (const name of [...names, SEAL_FILE, SIGNATURE_FILE]) {
      if (fileShows(host, `${folder}/${name}`, needles)) {
        throw new Error(`${id}/${name} shows a secret in plaintext`);
      }
    }
  }
  return needles.length;
}

/** Not a check that can fail: the live database is expected to be ahead. */
function reportMovedOn(host: Host, saved: SavedDatabase, home: string, checks: Check[]): void {
  const path = pathOfPlace(saved.place, home);
  const rows = readLiveRows(host.fs, path);
  if (!rows) return;
  const moved = Object.keys({ ...rows, ...saved.rows }).map((table) => ({
    table,
    change: (rows[table] ?? 0) - (saved.rows[table] ?? 0),
  })).filter(({ change }) => change !== 0).map(({ table, change }) =>
    `${table} ${change > 0 ? "+" : ""}${formatCount(change)}`
  );
  checks.push({
    name: `${saved.source}: the live database since then`,
    ok: true,
    detail: moved.length === 0 ? "as many rows in every table" : moved.join(", "),
  });
}

/**
 * Logs that the identities which open the snapshot, and open what is made from now on too, were proven: a drill is a
 * proof of the keys. One of an old snapshot, by an identity that is no longer used, proves nothing of them.
 */
async function noteProof(
  opening: Opening,
  { stateFolder, recipients: configured }: Config,
  store: string,
  id: SnapshotId,
): Promise<void> {
  const { host, identities } = opening;
  const snapshot = openSeal(opening, id);
  const { recipientOf } = await import("./host/keys/identity.ts");
  const recipients: string[] = [];
  for (const identity of identities) {
    const recipient = await recipientOf(identity);
    if (!configured.includes(recipient) || !await opensAlone(opening, snapshot, identity)) continue;
    recipients.push(recipient);
  }
  if (recipients.length === 0) return;
  const at = host.now().toISOString();
  appendProof(host.fs, stateFolder, { at, store, recipients, ok: true, chains: 1, failed: [], snapshot: id });
}

/** Whether an identity opens a snapshot without the others. */
async function opensAlone(
  opening: Opening,
  snapshot: TrustedSnapshot,
  identity: Identity,
): Promise<boolean> {
  try {
    using _opened = await openPartSaying({ ...opening, identities: [identity] }, snapshot, MANIFEST_PART);
    return true;
  } catch (error) {
    if (error instanceof BackupError && error.kind === "key") return false;
    throw error;
  }
}

serveStep<VerifyJob>(import.meta, async (job, { host }): Promise<VerifyReport> => {
  const { config } = job;
  const started = performance.now();
  await using chosen = await openSetOf(host, job);
  const { opening, snapshots, store } = chosen;
  const { set } = opening;
  const id = await chosen.choose(job.which);
  const { scratch } = job.store;
  const isOwn = set.hub === config.hub;
  const checks = await verify(opening, snapshots, id, scratch, {
    home: isOwn ? config.home : undefined,
    hubProgram: job.hubProgram,
  });
  const ok = checks.every((check) => check.ok);
  const seconds = Math.round((performance.now() - started) / 100) / 10;
  appendDrill(host.fs, config.stateFolder, {
    at: host.now().toISOString(),
    store,
    hub: set.hub,
    set: set.set,
    snapshot: id,
    ok,
    seconds,
  });
  if (ok && isOwn) await noteProof(opening, config, store, id);
  return { ok, store, set: set.set, snapshot: id, checks, seconds };
});
