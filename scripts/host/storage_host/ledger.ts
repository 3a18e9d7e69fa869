/**
 * The ledger: what the storage host itself has seen and done, in a SQLite database that no hub can reach.
 *
 * Invariants: every change is on the disk before the call returns (save what was read when: see `relax`); when a
 * snapshot was first seen and with which seal is written once and never changed; a removed snapshot stays as a
 * tombstone, so that a gap that this host made is told apart from one that somebody else made, and a snapshot sent
 * again is not new.
 *
 * @module
 */

import { type HubName, MANIFEST_PART, type SetName, type SnapshotId } from "../../core/names.ts";
import type { Seal, Suspicion } from "../../core/snapshot/seal.ts";
import type { Arrival } from "../../core/storage_host/retention.ts";
import type { KnownSnapshot, SnapshotState } from "../../core/storage_host/standing.ts";
import type { Fs } from "../host.ts";
import { LedgerDatabase } from "./ledger_database.ts";

/** A set that the ledger knows. */
export interface LedgerSet {
  readonly key: number;
  readonly hub: HubName;
  readonly set: SetName;
}

/** What tells whether a seal's file is still the one that was read. */
export interface Stamped {
  readonly key: number;
  readonly state: SnapshotState;
  readonly stamp: string | undefined;
}

/** A seal as read from the store. */
export interface SealSeen {
  readonly seal: Seal;
  readonly checksum: string;
  readonly stamp: string;
  readonly signer: string | undefined;
  readonly signatureProblem: string | undefined;
  /** What its parts take on the disk, whatever the seal says. */
  readonly bytes: number;
}

/** What the ledger remembers of a part. */
export interface KnownPart {
  readonly name: string;
  readonly bytes: number;
  readonly readMs: number | undefined;
  readonly damage: string | undefined;
}

/** What a set weighs, and how fast it grows. */
export interface SetWeight {
  readonly bytes: number;
  /** Bytes that came since the time asked for, less those removed since. */
  readonly grownBytes: number;
}

/**
 * Opens the ledger in a folder, making both if they are missing.
 *
 * @throws {BackupError} (disk) If it cannot be opened or is damaged; (usage) If a newer program wrote it.
 */
export function openLedger(fs: Fs, stateFolder: string): Ledger {
  return new Ledger(LedgerDatabase.open(fs, stateFolder));
}

/** What the storage host has seen and done. Opened by {@linkcode openLedger}. */
export class Ledger implements Disposable {
  readonly #db: LedgerDatabase;

  constructor(db: LedgerDatabase) {
    this.#db = db;
  }

  [Symbol.dispose](): void {
    this.#db[Symbol.dispose]();
  }

  /** Does all of `work` or, if it throws, none of it. */
  transaction<Result>(work: () => Result): Result {
    return this.#db.transaction(work);
  }

  /**
   * From now on a change may be lost if the power fails, though none is ever half there: for notes that are easily
   * made again, which would else wait for the disk thousands of times.
   */
  relax(): void {
    this.#db.relax();
  }

  /** The highest time that a run with an undoubted clock has seen, in milliseconds. */
  clockMark(): number | undefined {
    return this.#db.get<{ value: number }>("SELECT value FROM marks WHERE name = 'clock'")?.value;
  }

  /** Sets {@linkcode clockMark}. */
  setClockMark(timeMs: number): void {
    this.#db.run(
      "INSERT INTO marks VALUES ('clock', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
      timeMs,
    );
  }

  /** Takes `nowMs` for right: what was seen later than that was seen now. */
  trustClock(nowMs: number): void {
    this.transaction(() => {
      this.setClockMark(nowMs);
      this.#db.run("UPDATE snapshots SET first_seen_ms = ? WHERE first_seen_ms > ?", nowMs, nowMs);
      this.#db.run("UPDATE snapshots SET read_ms = ? WHERE read_ms > ?", nowMs, nowMs);
      this.#db.run("UPDATE parts SET read_ms = ? WHERE read_ms > ?", nowMs, nowMs);
    });
  }

  /** Dates what came while the clock was in doubt. */
  dateUndated(nowMs: number): void {
    this.#db.run("UPDATE snapshots SET first_seen_ms = ? WHERE first_seen_ms IS NULL", nowMs);
  }

  /** All sets, by hub and name. */
  sets(): LedgerSet[] {
    return this.#db.all<{ key: number; hub: HubName; set: SetName }>(
      "SELECT key, hub, name AS 'set' FROM sets ORDER BY hub, name",
    );
  }

  /** The key of a set, which is made if it is new. */
  setKey(hub: HubName, set: SetName): number {
    const find = () =>
      this.#db.get<{ key: number }>("SELECT key FROM sets WHERE hub = ? AND name = ?", hub, set)?.key;
    const known = find();
    if (known !== undefined) return known;
    this.#db.run("INSERT INTO sets (hub, name) VALUES (?, ?) ON CONFLICT DO NOTHING", hub, set);
    return find()!;
  }

  /** Up to when someone looked at a hub's arrivals and found them right; 0 for never. */
  floodAcceptedMs(hub: HubName): number {
    return this.#db.get<{ at: number }>("SELECT flood_accepted_ms AS at FROM hubs WHERE name = ?", hub)?.at ??
      0;
  }

  /** Notes that a hub's arrivals up to now were looked at, and are right. */
  acceptFlood(hub: HubName, nowMs: number): void {
    this.#db.run(
      "INSERT INTO hubs VALUES (?, ?) ON CONFLICT DO UPDATE SET flood_accepted_ms = excluded.flood_accepted_ms",
      hub,
      nowMs,
    );
  }

  /** All arrivals of a hub since a time, removed ones included. */
  arrivals(hub: HubName, sinceMs: number): Arrival[] {
    return this.#db.all<{ firstSeenMs: number; bytes: number }>(
      `SELECT first_seen_ms AS firstSeenMs, bytes FROM snapshots JOIN sets ON sets.key = set_key
       WHERE hub = ? AND first_seen_ms >= ?`,
      hub,
      sinceMs,
    );
  }

  /** Key, state and stamp of every snapshot of a set. */
  stamps(setKey: number): Map<SnapshotId, Stamped> {
    const stamps = new Map<SnapshotId, Stamped>();
    this.#db.each<{ id: SnapshotId; key: number; state: SnapshotState; stamp: string | null }>(
      "SELECT id, key, state, stamp FROM snapshots WHERE set_key = ?",
      ({ id, key, state, stamp }) => stamps.set(id, { key, state, stamp: stamp ?? undefined }),
      setKey,
    );
    return stamps;
  }

  /** All that is known of a set's snapshots, oldest id first. */
  snapshots(setKey: number): KnownSnapshot[] {
    const known: KnownSnapshot[] = [];
    this.#db.each<SnapshotRow>(
      `SELECT ${SNAPSHOT_COLUMNS} FROM snapshots WHERE set_key = ? ORDER BY id`,
      (row) => known.push(toKnown(row)),
      setKey,
    );
    return known;
  }

  /** One snapshot and its set. */
  snapshot(key: number): (KnownSnapshot & Pick<LedgerSet, "hub" | "set">) | undefined {
    const row = this.#db.get<SnapshotRow & { hub: HubName; name: SetName }>(
      `SELECT ${SNAPSHOT_COLUMNS}, hub, sets.name FROM snapshots JOIN sets ON sets.key = set_key WHERE snapshots.key = ?`,
      key,
    );
    return row && { ...toKnown(row), hub: row.hub, set: row.name };
  }

  /**
   * Notes a seal that could be read. The first one seen of an id is the one that counts: another one later, even
   * after its removal, is noted as a problem.
   *
   * @param nowMs Undefined while the clock is in doubt.
   */
  recordSealed(setKey: number, seen: SealSeen, nowMs: number | undefined): void {
    const { seal, checksum, stamp } = seen;
    const old = this.#db.get<
      Pick<SnapshotRow, "key" | "checksum" | "signer" | "first_seen_ms" | "pin"> & { stamp: string | null }
    >(
      "SELECT key, checksum, signer, first_seen_ms, pin, stamp FROM snapshots WHERE set_key = ? AND id = ?",
      setKey,
      seal.id,
    );
    if (old?.checksum != null) {
      const isSame = old.checksum === checksum;
      const changed =
        `its seal was changed: its SHA-256 was ${old.checksum} when it was first seen, and is ${checksum}`;
      this.#db.run(
        `UPDATE snapshots SET state = 'present', stamp = ?, seal_problem = ?, signer = ?, removed_ms = NULL,
         removed_why = NULL WHERE key = ?`,
        stamp,
        isSame ? seen.signatureProblem ?? null : changed,
        isSame ? seen.signer ?? null : old.signer,
        old.key,
      );
      // Another file, as on another disk: what was read of the old one says nothing about the parts beside this one.
      if (old.stamp !== stamp) {
        this.#db.run("UPDATE snapshots SET read_ms = NULL WHERE key = ?", old.key);
        this.#db.run("UPDATE parts SET read_ms = NULL WHERE snapshot_key = ?", old.key);
      }
      if (isSame) this.#addParts(old.key, seal);
      return;
    }
    if (old) {
      this.#db.run("DELETE FROM parts WHERE snapshot_key = ?", old.key);
      this.#db.run("DELETE FROM snapshots WHERE key = ?", old.key);
    }
    this.#db.run(
      `INSERT INTO snapshots (set_key, id, state, first_seen_ms, stamp, checksum, kind, needs, previous_id,
         previous_sha256, suspicions, bytes, signer, seal_problem, pin)
       VALUES (?, ?, 'present', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      setKey,
      seal.id,
      old ? old.first_seen_ms : nowMs ?? null,
      stamp,
      checksum,
      seal.kind,
      seal.needs.join(","),
      seal.previous?.id ?? null,
      seal.previous?.sha256 ?? null,
      JSON.stringify(seal.suspicions),
      seen.bytes,
      seen.signer ?? null,
      seen.signatureProblem ?? null,
      old?.pin ?? null,
    );
    const { key } = this.#db.get<{ key: number }>(
      "SELECT key FROM snapshots WHERE set_key = ? AND id = ?",
      setKey,
      seal.id,
    )!;
    this.#addParts(key, seal);
  }

  #addParts(key: number, { parts }: Seal): void {
    for (const { name, bytes } of parts) {
      this.#db.run(
        "INSERT INTO parts (snapshot_key, name, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        key,
        name,
        bytes,
      );
    }
  }

  /** Notes that a folder has a seal that cannot be read; of one that could be read before, that it has changed. */
  recordUnreadable(
    setKey: number,
    id: SnapshotId,
    problem: string,
    stamp: string,
    nowMs: number | undefined,
  ): void {
    this.#db.run(
      `INSERT INTO snapshots (set_key, id, state, first_seen_ms, stamp, needs, suspicions, bytes, seal_problem)
       VALUES (?, ?, 'unreadable', ?, ?, '', '[]', 0, ?)
       ON CONFLICT DO UPDATE SET stamp = excluded.stamp, seal_problem = excluded.seal_problem,
         state = CASE WHEN checksum IS NULL THEN 'unreadable' ELSE 'present' END`,
      setKey,
      id,
      nowMs ?? null,
      stamp,
      problem,
    );
  }

  /** Notes that a snapshot is no longer there. What was never readable is simply forgotten. */
  recordMissing(key: number): void {
    this.#db.run("DELETE FROM snapshots WHERE key = ? AND checksum IS NULL", key);
    this.#db.run("UPDATE snapshots SET state = 'gone' WHERE key = ? AND state IN ('present', 'gone')", key);
  }

  /** Notes that a snapshot is about to be removed, before anything happens to it. */
  beginRemoval(key: number, why: string, nowMs: number): void {
    this.#db.run(
      "UPDATE snapshots SET state = 'removing', removed_ms = ?, removed_why = ? WHERE key = ?",
      nowMs,
      why,
      key,
    );
  }

  /** Notes that a snapshot's removal is complete: only its tombstone is left. */
  endRemoval(key: number): void {
    this.#db.run("DELETE FROM parts WHERE snapshot_key = ?", key);
    this.#db.run("UPDATE snapshots SET state = 'removed', stamp = NULL, pin = NULL WHERE key = ?", key);
  }

  /** Takes back {@linkcode beginRemoval}: nothing has happened to the snapshot. */
  cancelRemoval(key: number): void {
    this.#db.run(
      "UPDATE snapshots SET state = 'present', removed_ms = NULL, removed_why = NULL WHERE key = ?",
      key,
    );
  }

  /** Makes a tombstone for a snapshot that is lost for good, or never came. */
  forget(setKey: number, id: SnapshotId, why: string, nowMs: number): void {
    this.#db.run(
      `INSERT INTO snapshots (set_key, id, state, first_seen_ms, needs, suspicions, bytes, removed_ms, removed_why)
       VALUES (?, ?, 'removed', ?, '', '[]', 0, ?, ?)
       ON CONFLICT DO UPDATE SET state = 'removed', removed_ms = excluded.removed_ms,
         removed_why = excluded.removed_why, stamp = NULL, pin = NULL`,
      setKey,
      id,
      nowMs,
      nowMs,
      why,
    );
  }

  /** Pins a snapshot, so that it is kept whatever the policy says; without a reason, takes the pin back. */
  setPin(key: number, why: string | undefined): void {
    this.#db.run("UPDATE snapshots SET pin = ? WHERE key = ?", why ?? null, key);
  }

  /** Notes what a seal's signature says now. */
  recordSignature(key: number, signer: string | undefined, problem: string | undefined): void {
    this.#db.run(
      "UPDATE snapshots SET signer = ?, seal_problem = ? WHERE key = ?",
      signer ?? null,
      problem ?? null,
      key,
    );
  }

  /** The parts of a snapshot, those that were never read first. */
  parts(key: number): KnownPart[] {
    return this.#db.all<{ name: string; bytes: number; read_ms: number | null; damage: string | null }>(
      "SELECT name, bytes, read_ms, damage FROM parts WHERE snapshot_key = ? ORDER BY read_ms, name",
      key,
    ).map(({ name, bytes, read_ms, damage }) => ({
      name,
      bytes,
      readMs: read_ms ?? undefined,
      damage: damage ?? undefined,
    }));
  }

  /** Notes that a part was read whole, and what was wrong with it. */
  recordPart(key: number, name: string, nowMs: number, damage: string | undefined): void {
    this.transaction(() => {
      this.#db.run(
        "UPDATE parts SET read_ms = ?, damage = ? WHERE snapshot_key = ? AND name = ?",
        nowMs,
        damage ?? null,
        key,
        name,
      );
      // A snapshot was read when the last of its parts was; min() of the dates is unknown while one is.
      this.#db.run(
        `UPDATE snapshots SET
           read_ms = (SELECT CASE WHEN count(*) = count(read_ms) THEN min(read_ms) END FROM parts WHERE snapshot_key = ?1),
           damage = (SELECT name || ': ' || damage FROM parts WHERE snapshot_key = ?1 AND damage IS NOT NULL LIMIT 1)
         WHERE key = ?1`,
        key,
      );
    });
  }

  /**
   * The order in which scrub reads: what was never read or was damaged first, one of each set in turn so that no
   * hub's flood keeps another's waiting; then the rest, longest unread first.
   */
  scrubOrder(hub: HubName | undefined, set: SetName | undefined): number[] {
    const order: number[] = [];
    this.#db.each<{ key: number }>(
      `SELECT key FROM (
         SELECT snapshots.key AS key, read_ms IS NULL OR damage IS NOT NULL AS due, read_ms,
           row_number() OVER (PARTITION BY set_key ORDER BY read_ms IS NULL DESC, first_seen_ms DESC, id) AS turn
         FROM snapshots JOIN sets ON sets.key = set_key
         WHERE state = 'present' AND hub = coalesce(?, hub) AND name = coalesce(?, name)
       ) ORDER BY due DESC, CASE WHEN due THEN turn END, read_ms, key`,
      ({ key }) => order.push(key),
      hub ?? null,
      set ?? null,
    );
    return order;
  }

  /** What a set weighs, and by how much it has grown since a time. */
  weight(setKey: number, sinceMs: number): SetWeight {
    const row = this.#db.get<{ bytes: number | null; came: number | null; went: number | null }>(
      `SELECT sum(CASE WHEN state = 'present' THEN bytes END) AS bytes,
              sum(CASE WHEN first_seen_ms >= ?2 THEN bytes END) AS came,
              sum(CASE WHEN removed_ms >= ?2 THEN bytes END) AS went
       FROM snapshots WHERE set_key = ?1`,
      setKey,
      sinceMs,
    )!;
    return { bytes: row.bytes ?? 0, grownBytes: (row.came ?? 0) - (row.went ?? 0) };
  }

  /** How many files a hub's snapshots have: their parts, seals and signatures. */
  fileCount(hub: HubName): number {
    return this.#db.get<{ count: number }>(
      `SELECT count(*) + 2 * count(DISTINCT snapshots.key) AS count
       FROM sets JOIN snapshots ON set_key = sets.key JOIN parts ON snapshot_key = snapshots.key
       WHERE hub = ? AND +state = 'present'`, // No index by state: it would lead through the snapshots of all hubs.
      hub,
    )!.count;
  }

  /** When the first snapshot of all was seen, in milliseconds. */
  beginningMs(): number | undefined {
    return this.#db.get<{ first: number | null }>("SELECT min(first_seen_ms) AS first FROM snapshots")
      ?.first ??
      undefined;
  }

  /** Notes how a run ended. Keeps the last 1000. */
  recordRun(verb: string, nowMs: number, outcome: string): void {
    this.#db.run("INSERT INTO runs (verb, ended_ms, outcome) VALUES (?, ?, ?)", verb, nowMs, outcome);
    this.#db.run("DELETE FROM runs WHERE key <= (SELECT max(key) FROM runs) - 1000");
  }

  /** When scrub last ended, in milliseconds. */
  lastScrubMs(): number | undefined {
    return this.#db.get<{ endedMs: number }>(
      "SELECT ended_ms AS endedMs FROM runs WHERE verb = 'scrub' ORDER BY key DESC LIMIT 1",
    )?.endedMs;
  }
}

/** The columns of a {@linkcode SnapshotRow}. */
const SNAPSHOT_COLUMNS =
  "snapshots.key, id, state, first_seen_ms, checksum, kind, needs, previous_id, previous_sha256, " +
  "suspicions, snapshots.bytes, signer, seal_problem, snapshots.read_ms, snapshots.damage, pin, " +
  "snapshots.damage IS NOT NULL AND EXISTS (SELECT 1 FROM parts WHERE snapshot_key = snapshots.key " +
  `AND parts.damage IS NOT NULL AND name <> '${MANIFEST_PART}') AS damaged_for_others`;

interface SnapshotRow {
  key: number;
  id: SnapshotId;
  state: SnapshotState;
  first_seen_ms: number | null;
  checksum: string | null;
  kind: Seal["kind"] | null;
  needs: string;
  previous_id: SnapshotId | null;
  previous_sha256: string | null;
  suspicions: string;
  bytes: number;
  signer: string | null;
  seal_problem: string | null;
  read_ms: number | null;
  damage: string | null;
  damaged_for_others: 0 | 1;
  pin: string | null;
}

function toKnown(row: SnapshotRow): KnownSnapshot {
  return {
    key: row.key,
    id: row.id,
    state: row.state,
    firstSeenMs: row.first_seen_ms ?? undefined,
    checksum: row.checksum ?? undefined,
    kind: row.kind ?? undefined,
    needs: row.needs === "" ? [] : row.needs.split(",") as SnapshotId[],
    previous: row.previous_id === null ? null : { id: row.previous_id, sha256: row.previous_sha256! },
    suspicions: row.suspicions === "[]" ? [] : JSON.parse(row.suspicions) as Suspicion[],
    bytes: row.bytes,
    signer: row.signer ?? undefined,
    sealProblem: row.seal_problem ?? undefined,
    readMs: row.read_ms ?? undefined,
    damage: row.damage ?? undefined,
    isDamagedForOthers: row.damaged_for_others === 1,
    pin: row.pin ?? undefined,
  };
}
