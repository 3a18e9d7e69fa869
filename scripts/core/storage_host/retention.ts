/**
 * Which snapshots stay, which go, and why. Pure: no clock, no disk.
 *
 * Fault model: whoever holds a hub's keys can add snapshots with any id, by the hundred, validly signed. So:
 * - A snapshot's place in time is when this host first saw it. One whose id tells another time (*misdated*) competes
 *   with no timely one; it may only fill a day, week, month or year that none of those holds, first come first kept.
 * - Only good ones (read whole, signed, unsuspicious) fill places. Unread ones are kept without counting.
 * - What a kept snapshot needs is kept.
 * - The chain that the next increment will build on is kept.
 *
 * From these follows, and tests/retention_test.ts holds: adding misdated, suspect, unread or damaged snapshots never
 * removes a good one that would have stayed.
 *
 * @module
 */

import { formatCounted } from "../format.ts";
import { type SnapshotId, timeOfSnapshotId } from "../names.ts";
import { DAY_MS, HOUR_MS } from "../time.ts";

/** What to keep. A count of 0 turns a rule off. */
export interface RetentionPolicy {
  /** Everything that came within this many days. */
  readonly keepWithinDays: number;
  /** The newest so many good ones. */
  readonly keepLast: number;
  /** The last good one of each of the newest so many days in which one came; the same for weeks (from Monday) and so on. */
  readonly keepDaily: number;
  readonly keepWeekly: number;
  readonly keepMonthly: number;
  readonly keepYearly: number;
  /** Never fewer good ones than this. */
  readonly keepGoodMin: number;
  /** A snapshot that came later than this after the time in its id is misdated, and so is one from the future. */
  readonly lateHoursMax: number;
}

/** `good`: read whole, signed, unsuspicious, and so is all that it needs. `unread`: not all of that was read yet. */
export type Standing = "good" | "unread" | "suspect" | "damaged";

/** A snapshot that the policy decides on. */
export interface Candidate {
  readonly id: SnapshotId;
  /** When this host first saw it; undefined if the clock was in doubt then. Milliseconds since the epoch. */
  readonly firstSeenMs: number | undefined;
  readonly standing: Standing;
  readonly needs: readonly SnapshotId[];
  /** Why someone pinned it. */
  readonly pin?: string | undefined;
}

/** A snapshot and why it stays or goes. */
export interface Decision {
  readonly id: SnapshotId;
  readonly reasons: readonly string[];
}

/** What is to be done, both lists oldest id first. */
export interface RetentionPlan {
  readonly keep: readonly Decision[];
  readonly remove: readonly Decision[];
}

/** How far ahead of this host's clock a hub's clock may be. */
const AHEAD_MS_MAX = 2 * HOUR_MS;

type Seen = Candidate & { readonly firstSeenMs: number };

/** Whether the time in the id is about the time at which this host first saw it. */
export function isTimely(id: SnapshotId, firstSeenMs: number, lateHoursMax: number): boolean {
  const lateMs = firstSeenMs - timeOfSnapshotId(id).getTime();
  return lateMs >= -AHEAD_MS_MAX && lateMs <= lateHoursMax * HOUR_MS;
}

/**
 * Decides about all snapshots of one set.
 *
 * @param timeZone IANA name of the zone whose days count; the machine's where left out.
 */
export function planRetention(
  snapshots: readonly Candidate[],
  policy: RetentionPolicy,
  now: Date,
  timeZone?: string,
): RetentionPlan {
  const kept = new Map<SnapshotId, string[]>();
  const keep = (id: SnapshotId, reason: string) => {
    const reasons = kept.get(id);
    if (reasons) reasons.push(reason);
    else kept.set(id, [reason]);
  };

  const good = snapshots.filter((snapshot): snapshot is Seen =>
    snapshot.standing === "good" && snapshot.firstSeenMs !== undefined
  );
  const timely = good.filter((snapshot) => isTimely(snapshot.id, snapshot.firstSeenMs, policy.lateHoursMax))
    .sort((a, b) => b.firstSeenMs - a.firstSeenMs || compareIds(b.id, a.id));
  const newest = timely[0];
  // First come, first kept: what is added later displaces none of them.
  const misdated = good.filter((snapshot) =>
    !isTimely(snapshot.id, snapshot.firstSeenMs, policy.lateHoursMax)
  )
    .sort((a, b) => a.firstSeenMs - b.firstSeenMs || compareIds(b.id, a.id));

  keepUnconditionally(snapshots, policy, now, newest, keep);
  for (const { id } of timely.slice(0, policy.keepLast)) {
    keep(id, policy.keepLast === 1 ? "the last good one" : `one of the last ${policy.keepLast} good ones`);
  }
  const places = new Places(policy, now, timeZone);
  for (const snapshot of timely) places.offer(snapshot, keep);
  for (const snapshot of misdated) places.offerLeftOver(snapshot, keep);
  for (const { id } of [...timely, ...misdated].slice(0, policy.keepGoodMin)) {
    keep(id, `never fewer than ${formatCounted(policy.keepGoodMin, "good one")}`);
  }
  keepNeeded(snapshots, kept);

  const byId = [...snapshots].sort((a, b) => compareIds(a.id, b.id));
  return {
    keep: byId.filter(({ id }) => kept.has(id)).map(({ id }) => ({ id, reasons: kept.get(id)! })),
    remove: byId.filter(({ id }) => !kept.has(id)).map((snapshot) => ({
      id: snapshot.id,
      reasons: whyNotKept(snapshot, policy, places),
    })),
  };
}

/** Everything that stays without taking a place. */
function keepUnconditionally(
  snapshots: readonly Candidate[],
  policy: RetentionPolicy,
  now: Date,
  newest: Seen | undefined,
  keep: (id: SnapshotId, reason: string) => void,
): void {
  const chainStart = newest && (newest.needs[0] ?? newest.id);
  for (const { id, firstSeenMs, standing, pin } of snapshots) {
    if (pin !== undefined) keep(id, `pinned: ${pin}`);
    if (standing === "unread") keep(id, "scrub has not read it yet");
    if (firstSeenMs === undefined) {
      keep(id, "it came while this host's clock was in doubt");
      continue;
    }
    if (now.getTime() - firstSeenMs <= policy.keepWithinDays * DAY_MS) {
      keep(id, `it came within ${formatCounted(policy.keepWithinDays, "day")}`);
    }
    if (standing !== "good" && (newest === undefined || firstSeenMs > newest.firstSeenMs)) {
      keep(id, "no good one came after it");
    }
    if (chainStart !== undefined && id >= chainStart && isTimely(id, firstSeenMs, policy.lateHoursMax)) {
      keep(id, "belongs to the chain under way");
    }
  }
}

/** Adds what kept ones need to `kept`. */
function keepNeeded(snapshots: readonly Candidate[], kept: Map<SnapshotId, string[]>): void {
  const byId = new Map(snapshots.map((snapshot) => [snapshot.id, snapshot]));
  const neededBy = new Map<SnapshotId, SnapshotId[]>();
  const waiting = [...kept.keys()];
  const looked = new Set<SnapshotId>();
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    if (looked.has(id)) continue;
    looked.add(id);
    for (const need of byId.get(id)?.needs ?? []) {
      const others = neededBy.get(need);
      if (others) others.push(id);
      else neededBy.set(need, [id]);
      waiting.push(need);
    }
  }
  for (const [need, others] of neededBy) {
    const newest = others.reduce((a, b) => a > b ? a : b);
    const more = others.length > 1 ? ` and ${others.length - 1} more` : "";
    const reason = `needed by ${newest}${more}`;
    const reasons = kept.get(need);
    if (reasons) reasons.push(reason);
    else kept.set(need, [reason]);
  }
}

function whyNotKept(snapshot: Candidate, policy: RetentionPolicy, places: Places): string[] {
  if (snapshot.standing !== "good") {
    return [`${snapshot.standing}, and it came more than ${formatCounted(policy.keepWithinDays, "day")} ago`];
  }
  const held = places.heldBy(snapshot as Seen);
  if (held.length > 0) return held;
  return ["older than every day, week, month and year that is kept"];
}

type Period = "day" | "week" | "month" | "year";
const PERIOD_DAYS_MAX: Readonly<Record<Period, number>> = { day: 1, week: 7, month: 31, year: 366 };

/** The days, weeks, months and years that a policy keeps one snapshot of. */
class Places {
  readonly #rules: readonly { period: Period; count: number; holders: Map<string, SnapshotId> }[];
  readonly #lateHoursMax: number;
  readonly #now: Date;
  readonly #dateOf: (timeMs: number) => string;

  constructor(policy: RetentionPolicy, now: Date, timeZone: string | undefined) {
    this.#rules = ([
      ["day", policy.keepDaily],
      ["week", policy.keepWeekly],
      ["month", policy.keepMonthly],
      ["year", policy.keepYearly],
    ] as const).filter(([, count]) => count > 0)
      .map(([period, count]) => ({ period, count, holders: new Map() }));
    this.#lateHoursMax = policy.lateHoursMax;
    this.#now = now;
    this.#dateOf = localDates(timeZone);
  }

  /** Offers a timely snapshot; they must come newest first. */
  offer({ id, firstSeenMs }: Seen, keep: (id: SnapshotId, reason: string) => void): void {
    for (const { period, count, holders } of this.#rules) {
      const key = periodOf(this.#dateOf(firstSeenMs), period);
      if (holders.has(key) || holders.size >= count) continue;
      holders.set(key, id);
      keep(id, `the ${period} ${key}`);
    }
  }

  /** Offers a misdated snapshot, once all timely ones were offered: for periods of the calendar that none holds. */
  offerLeftOver(snapshot: Seen, keep: (id: SnapshotId, reason: string) => void): void {
    const timeMs = this.#placeInTime(snapshot);
    for (const { period, count, holders } of this.#rules) {
      if (this.#now.getTime() - timeMs > count * PERIOD_DAYS_MAX[period] * DAY_MS) continue;
      const key = periodOf(this.#dateOf(timeMs), period);
      if (holders.has(key)) continue;
      holders.set(key, snapshot.id);
      keep(snapshot.id, `the ${period} ${key}, which no timely one holds`);
    }
  }

  /** Which other snapshots hold the places where this one would be. */
  heldBy(snapshot: Seen): string[] {
    const date = this.#dateOf(this.#placeInTime(snapshot));
    return this.#rules.flatMap(({ period, holders }) => {
      const key = periodOf(date, period);
      const holder = holders.get(key);
      return holder === undefined ? [] : [`${holder} holds the ${period} ${key}`];
    });
  }

  /** The time to which a snapshot belongs: its arrival if it was timely, else the earlier of id and arrival. */
  #placeInTime({ id, firstSeenMs }: Seen): number {
    if (isTimely(id, firstSeenMs, this.#lateHoursMax)) return firstSeenMs;
    return Math.min(timeOfSnapshotId(id).getTime(), firstSeenMs);
  }
}

/** `2026-11-22` → itself, the Monday of its week, `2026-11`, `2026`. */
function periodOf(date: string, period: Period): string {
  switch (period) {
    case "day":
      return date;
    case "week": {
      const day = new Date(`${date}T00:00:00Z`);
      const sinceMonday = (day.getUTCDay() + 6) % 7;
      return new Date(day.getTime() - sinceMonday * DAY_MS).toISOString().slice(0, 10);
    }
    case "month":
      return date.slice(0, 7);
    case "year":
      return date.slice(0, 4);
  }
}

/** Offsets from UTC change at multiples of this (the tz database has none else since 1972). */
const OFFSET_STEP_MS = 15 * 60_000;

/** Makes a function that gives the date, `2026-11-22`, of a time in a zone. Remembers, because Intl is slow. */
function localDates(timeZone: string | undefined): (timeMs: number) => string {
  const format = new Intl.DateTimeFormat("en-CA", {
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    timeZone,
  });
  const dates = new Map<number, string>();
  return (timeMs) => {
    const step = Math.floor(timeMs / OFFSET_STEP_MS);
    let date = dates.get(step);
    if (date === undefined) {
      const parts = format.formatToParts(new Date(timeMs));
      const part = (type: string) => parts.find((candidate) => candidate.type === type)!.value;
      date = `${part("year").padStart(4, "0")}-${part("month")}-${part("day")}`;
      dates.set(step, date);
    }
    return date;
  };
}

const compareIds = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0;

/** One snapshot's coming, whatever became of it since. */
export interface Arrival {
  readonly firstSeenMs: number;
  readonly bytes: number;
}

/** How much may come from one hub within 24 hours. */
export interface FloodLimits {
  readonly snapshotsPerDayMax: number;
  /** Unset: three times the largest day of the 30 before, but at least 1 GiB. */
  readonly bytesPerDayMax?: number | undefined;
}

const USUAL_DAYS = 30;
const USUAL_DAYS_MIN = 7;
const UNUSUAL_FACTOR = 3;
const UNUSUAL_BYTES_MIN = 2 ** 30;

/**
 * Says if a hub has sent far more than it may or usually does, within any 24 hours.
 *
 * @param acceptedMs Arrivals up to then were looked at by a person; they only tell what is usual.
 */
export function findFlood(
  arrivals: readonly Arrival[],
  limits: FloodLimits,
  acceptedMs: number,
): string | undefined {
  const sorted = [...arrivals].sort((a, b) => a.firstSeenMs - b.firstSeenMs);
  const dayOf = (timeMs: number) => Math.floor(timeMs / DAY_MS);
  const bytesByDay = new Map<number, number>();
  let start = 0;
  let bytes = 0;
  for (const [index, { firstSeenMs, bytes: size }] of sorted.entries()) {
    bytes += size;
    while (sorted[start]!.firstSeenMs <= firstSeenMs - DAY_MS) bytes -= sorted[start++]!.bytes;
    const day = dayOf(firstSeenMs);
    bytesByDay.set(day, (bytesByDay.get(day) ?? 0) + size);
    if (firstSeenMs <= acceptedMs) {
      start = index + 1;
      bytes = 0;
      continue;
    }
    const count = index - start + 1;
    const until = new Date(firstSeenMs).toISOString();
    if (count > limits.snapshotsPerDayMax) {
      return `more than ${limits.snapshotsPerDayMax} snapshots came within the day until ${until}`;
    }
    const bytesMax = limits.bytesPerDayMax ?? unusualBytes(bytesByDay, day);
    if (bytes > bytesMax) return `more than ${bytesMax} bytes came within the day until ${until}`;
  }
  return undefined;
}

/** From how many bytes on a day is unusual. Endless while there are too few days to compare with. */
function unusualBytes(bytesByDay: ReadonlyMap<number, number>, day: number): number {
  const before: number[] = [];
  for (let other = day - USUAL_DAYS; other < day; other++) {
    const bytes = bytesByDay.get(other);
    if (bytes !== undefined) before.push(bytes);
  }
  if (before.length < USUAL_DAYS_MIN) return Infinity;
  return Math.max(UNUSUAL_BYTES_MIN, UNUSUAL_FACTOR * Math.max(...before));
}
