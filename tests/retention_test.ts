/**
 * The retention policy: golden files for what it decides, properties for what it must never do.
 *
 * `deno test … tests/retention_test.ts -- --update` writes the golden files anew; read the difference.
 */

import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import { type SnapshotId, snapshotIdAt } from "../scripts/core/names.ts";
import {
  type Candidate,
  findFlood,
  isTimely,
  planRetention,
  type RetentionPolicy,
  type Standing,
} from "../scripts/core/storage_host/retention.ts";
import { DEFAULT_POLICY } from "../scripts/core/storage_host/storage_config.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const GOLDEN = new URL("./golden/retention/", import.meta.url);
/** id, first seen, standing, needs, pin */
type GoldenRow = readonly [
  id: SnapshotId,
  seen: string | null,
  standing: Standing,
  needs?: readonly SnapshotId[],
  pin?: string,
];

/** One snapshot a line. */
interface GoldenCase {
  readonly about: string;
  readonly now: string;
  readonly timeZone: string;
  readonly policy: Partial<RetentionPolicy>;
  readonly snapshots: readonly GoldenRow[];
  readonly keep?: Record<string, readonly string[]>;
  readonly remove?: Record<string, readonly string[]>;
}

for (const { name } of [...Deno.readDirSync(GOLDEN)].sort((a, b) => a.name < b.name ? -1 : 1)) {
  const golden: GoldenCase = JSON.parse(Deno.readTextFileSync(new URL(name, GOLDEN)));
  Deno.test(`planRetention(), ${name}: ${golden.about}`, () => {
    const candidates = golden.snapshots.map(([id, seen, standing, needs = [], pin]): Candidate => ({
      id,
      firstSeenMs: seen === null ? undefined : Date.parse(seen),
      standing,
      needs,
      ...(pin === undefined ? {} : { pin }),
    }));
    const policy = { ...DEFAULT_POLICY, ...golden.policy };
    const plan = planRetention(candidates, policy, new Date(golden.now), golden.timeZone);
    const shown = (decisions: typeof plan.keep) =>
      Object.fromEntries(decisions.map(({ id, reasons }) => [id, reasons]));
    const outcome = { keep: shown(plan.keep), remove: shown(plan.remove) };
    if (Deno.args.includes("--update")) writeGolden(name, { ...golden, ...outcome });
    else assert.deepEqual(outcome, { keep: golden.keep, remove: golden.remove });
  });
}

function writeGolden(name: string, { snapshots, keep, remove, ...head }: GoldenCase): void {
  const lines = (values: readonly string[]) => values.map((value) => `    ${value}`).join(",\n");
  const map = (decisions: Record<string, readonly string[]>) =>
    lines(Object.entries(decisions).map(([id, reasons]) => `"${id}": ${JSON.stringify(reasons)}`));
  Deno.writeTextFileSync(
    new URL(name, GOLDEN),
    JSON.stringify(head, null, 2).slice(0, -2) +
      `,\n  "snapshots": [\n${lines(snapshots.map((row) => JSON.stringify(row)))}\n  ],\n` +
      `  "keep": {\n${map(keep!)}\n  },\n  "remove": {\n${map(remove!)}\n  }\n}\n`,
  );
}

const NOW = new Date("2026-11-24T12:00:00Z");

/** A hub's life: chains of fulls and increments, each of which came soon after it was taken. */
const history = fc.array(
  fc.record({
    gapHours: fc.integer({ min: 1, max: 90 }),
    lateHours: fc.oneof(
      { weight: 4, arbitrary: fc.integer({ min: 0, max: 80 }) },
      fc.integer({ min: 0, max: 1000 }),
    ),
    isFull: fc.boolean(),
    standing: fc.constantFrom<Standing>("good", "good", "good", "good", "unread", "suspect", "damaged"),
    pinned: fc.integer({ min: 0, max: 20 }).map((number) => number === 0),
  }),
  { maxLength: 80 },
).map((steps) => {
  const candidates: Candidate[] = [];
  let timeMs = NOW.getTime();
  for (const step of steps) timeMs -= step.gapHours * HOUR;
  let chain: SnapshotId[] = [];
  let seenMs = 0;
  for (const { gapHours, lateHours, isFull, standing, pinned } of steps) {
    timeMs += gapHours * HOUR;
    const id = snapshotIdAt(new Date(timeMs));
    if (isFull) chain = [];
    // They are shipped oldest first, so none overtakes another.
    seenMs = Math.max(seenMs, Math.min(NOW.getTime(), timeMs + lateHours * HOUR));
    candidates.push({
      id,
      firstSeenMs: seenMs,
      standing,
      needs: [...chain],
      ...(pinned ? { pin: "why" } : {}),
    });
    chain.push(id);
  }
  return candidates;
});

const policies = fc.record({
  keepWithinDays: fc.integer({ min: 0, max: 20 }),
  keepLast: fc.integer({ min: 0, max: 5 }),
  keepDaily: fc.integer({ min: 0, max: 20 }),
  keepWeekly: fc.integer({ min: 0, max: 8 }),
  keepMonthly: fc.integer({ min: 0, max: 5 }),
  keepYearly: fc.integer({ min: 0, max: 3 }),
  keepGoodMin: fc.integer({ min: 1, max: 20 }),
  lateHoursMax: fc.constant(72),
});
const zones = fc.constantFrom(
  "UTC",
  "Europe/Berlin",
  "America/New_York",
  "Australia/Lord_Howe",
  "Pacific/Apia",
);

/** What an attacker adds: dated as they like, or not good. All of it comes after what is there. */
const additions = fc.array(
  fc.record({
    timeMs: fc.integer({ min: Date.UTC(1999, 0), max: Date.UTC(9998, 0) }).map((ms) => ms - ms % 1000),
    nearMs: fc.integer({ min: -2 * 72 * HOUR, max: 2 * 72 * HOUR }),
    isNear: fc.boolean(),
    seenBackMs: fc.integer({ min: 0, max: 30 * DAY }),
    standing: fc.constantFrom<Standing>("good", "unread", "suspect", "damaged"),
    needs: fc.array(fc.nat(), { maxLength: 3 }),
  }),
  { maxLength: 60 },
);

const idsOf = (decisions: readonly { id: SnapshotId }[]) => new Set(decisions.map(({ id }) => id));

Deno.test("planRetention() decides about each snapshot once, and says why", () => {
  fc.assert(fc.property(history, policies, zones, (snapshots, policy, zone) => {
    const { keep, remove } = planRetention(snapshots.toReversed(), policy, NOW, zone);
    assert.deepEqual([...keep, ...remove].map(({ id }) => id).sort(), snapshots.map(({ id }) => id));
    // What needs others is removed before them: oldest id first is what retain() turns round.
    for (const ids of [keep, remove].map((list) => list.map(({ id }) => id))) {
      assert.deepEqual(ids, ids.toSorted());
    }
    for (const { reasons } of [...keep, ...remove]) assert.notEqual(reasons.length, 0);
  }));
});

Deno.test("planRetention() never removes what a kept snapshot needs", () => {
  fc.assert(fc.property(history, policies, zones, (snapshots, policy, zone) => {
    const kept = idsOf(planRetention(snapshots, policy, NOW, zone).keep);
    for (const { id, needs } of snapshots) {
      if (kept.has(id)) { for (const need of needs) assert(kept.has(need), `${id} needs ${need}`); }
    }
  }));
});

Deno.test("planRetention() never leaves fewer good ones than the floor, nor removes a pinned or unread one", () => {
  fc.assert(fc.property(history, policies, zones, (snapshots, policy, zone) => {
    const kept = idsOf(planRetention(snapshots, policy, NOW, zone).keep);
    const good = snapshots.filter(({ standing }) => standing === "good");
    assert(good.filter(({ id }) => kept.has(id)).length >= Math.min(good.length, policy.keepGoodMin));
    for (const { id, pin, standing } of snapshots) {
      if (pin !== undefined || standing === "unread") assert(kept.has(id), id);
    }
  }));
});

Deno.test("planRetention() keeps to its decision once it was carried out", () => {
  fc.assert(fc.property(history, policies, zones, (snapshots, policy, zone) => {
    const kept = idsOf(planRetention(snapshots, policy, NOW, zone).keep);
    const again = planRetention(snapshots.filter(({ id }) => kept.has(id)), policy, NOW, zone);
    assert.deepEqual(again.remove, []);
  }));
});

Deno.test("planRetention() removes no good snapshot because misdated, suspect, unread or damaged ones came", () => {
  fc.assert(
    fc.property(history, additions, policies, zones, (snapshots, added, policy, zone) => {
      const lastSeenMs = Math.max(0, ...snapshots.map(({ firstSeenMs }) => firstSeenMs!));
      const taken = new Set(snapshots.map(({ id }) => id));
      const foreign = added.flatMap(
        ({ timeMs, nearMs, isNear, seenBackMs, standing, needs }): Candidate[] => {
          const firstSeenMs = Math.max(lastSeenMs, NOW.getTime() - seenBackMs) + 1;
          const id = snapshotIdAt(new Date(isNear ? firstSeenMs + nearMs : timeMs));
          if (taken.has(id)) return [];
          taken.add(id);
          const older = snapshots.filter((other) => other.id < id);
          const chosen = older.length === 0 ? [] : needs.map((number) => older[number % older.length]!.id);
          // A good one of about now is not to be told from the hub's own.
          const shown = standing === "good" && isTimely(id, firstSeenMs, policy.lateHoursMax)
            ? "suspect"
            : standing;
          return [{ id, firstSeenMs, standing: shown, needs: [...new Set(chosen)].sort() }];
        },
      );
      const before = idsOf(planRetention(snapshots, policy, NOW, zone).keep);
      const after = idsOf(planRetention([...snapshots, ...foreign], policy, NOW, zone).keep);
      for (const { id, standing } of snapshots) {
        if (standing === "good" && before.has(id)) assert(after.has(id), `${id} was pushed out`);
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("planRetention() keeps the last good snapshot, however old, while only suspect ones come", () => {
  const at = (day: number, standing: Standing): Candidate => {
    const timeMs = NOW.getTime() - day * DAY;
    return { id: snapshotIdAt(new Date(timeMs)), firstSeenMs: timeMs, standing, needs: [] };
  };
  const good = at(900, "good");
  const suspect = Array.from({ length: 800 }, (_, day) => at(day, "suspect"));
  const { keep, remove } = planRetention([good, ...suspect], DEFAULT_POLICY, NOW, "UTC");
  assert(idsOf(keep).has(good.id));
  assert.deepEqual(remove, [], "what came after the last good one is all there is of that time");
});

Deno.test("planRetention() keeps of misdated ones of a day the one that came first", () => {
  const good = (id: string, seen: string): Candidate => ({
    id: id as SnapshotId,
    firstSeenMs: Date.parse(seen),
    standing: "good",
    needs: [],
  });
  const late = good("20261001T090000Z", "2026-10-11T00:00:00Z");
  const backdated = good("20261001T100000Z", "2026-10-12T00:00:00Z");
  const newest = good("20261124T110000Z", "2026-11-24T11:00:00Z");
  const policy = { ...DEFAULT_POLICY, keepWithinDays: 1, keepGoodMin: 1 };
  const { remove } = planRetention([late, backdated, newest], policy, NOW, "UTC");
  assert.deepEqual(remove.map(({ id }) => id), [backdated.id]);
  const ancient = good("00010101T000000Z", "2026-10-13T00:00:00Z");
  assert.deepEqual(planRetention([ancient, newest], policy, NOW, "UTC").remove.map(({ id }) => id), [
    ancient.id,
  ]);
  // NOW is 55 days after its time.
  const none = { ...policy, keepDaily: 0, keepWeekly: 0, keepMonthly: 0 };
  const stays = (rule: Partial<RetentionPolicy>) =>
    idsOf(planRetention([late, newest], { ...none, ...rule }, NOW, "UTC").keep).has(late.id);
  assert.deepEqual([{ keepDaily: 56 }, { keepWeekly: 8 }, { keepMonthly: 2 }].map(stays), [true, true, true]);
  assert.deepEqual([{ keepDaily: 54 }, { keepWeekly: 7 }, { keepMonthly: 1 }].map(stays), [
    false,
    false,
    false,
  ]);
});

Deno.test("isTimely() lets a clock be two hours ahead, and a snapshot come so many hours late", () => {
  const id = "20261124T120000Z" as SnapshotId;
  const seen = (hours: number, ms = 0) =>
    isTimely(id, Date.parse("2026-11-24T12:00:00Z") + hours * HOUR + ms, 72);
  assert.deepEqual([seen(-2, -1), seen(-2), seen(72), seen(72, 1)], [false, true, true, false]);
});

Deno.test("planRetention() keeps the last good ones by their number, and of a day the one that came last", () => {
  const good = (id: string, seen: string): Candidate => ({
    id: id as SnapshotId,
    firstSeenMs: Date.parse(seen),
    standing: "good",
    needs: [],
  });
  const rows = [
    good("20261119T060000Z", "2026-11-19T06:00:00Z"),
    good("20261120T060000Z", "2026-11-20T20:00:00Z"),
    good("20261120T180000Z", "2026-11-20T18:00:00Z"),
    good("20261122T060000Z", "2026-11-22T06:00:00Z"),
  ];
  const kept = (policy: Partial<RetentionPolicy>) => {
    const none = { keepWithinDays: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0, keepGoodMin: 1 };
    return [...idsOf(planRetention(rows, { ...DEFAULT_POLICY, ...none, ...policy }, NOW, "UTC").keep)];
  };
  assert.deepEqual(kept({ keepLast: 2 }), ["20261120T060000Z", "20261122T060000Z"]);
  assert.deepEqual(kept({ keepLast: 3 }), ["20261120T060000Z", "20261120T180000Z", "20261122T060000Z"]);
  assert.deepEqual(kept({ keepDaily: 2 }), ["20261120T060000Z", "20261122T060000Z"]);
});

Deno.test("findFlood() tells of too many snapshots within any day, and not of as many over two", () => {
  const arrivals = (everyHours: number, count: number) =>
    Array.from({ length: count }, (_, index) => ({ firstSeenMs: index * everyHours * HOUR, bytes: 1 }));
  const limits = { snapshotsPerDayMax: 24 };
  assert.equal(findFlood(arrivals(1, 500), limits, -1), undefined);
  assert.match(findFlood(arrivals(0.5, 50), limits, -1)!, /more than 24 snapshots/);
  // In whichever order they are given.
  assert.equal(findFlood(arrivals(1, 500).reverse(), limits, -1), undefined);
  assert.match(findFlood(arrivals(0.5, 50).reverse(), limits, -1)!, /more than 24 snapshots/);
});

Deno.test("findFlood() tells of bytes far beyond the largest usual day", () => {
  const days = Array.from({ length: 30 }, (_, day) => ({
    firstSeenMs: day * DAY,
    bytes: day === 9 ? 1e9 : 1e8,
  }));
  const limits = { snapshotsPerDayMax: 24 };
  assert.equal(findFlood([...days, { firstSeenMs: 30 * DAY, bytes: 2.9e9 }], limits, -1), undefined);
  assert.match(findFlood([...days, { firstSeenMs: 30 * DAY, bytes: 3.1e9 }], limits, -1)!, /bytes came/);
});

Deno.test("findFlood() takes no large day for unusual before it knows what is usual", () => {
  const limits = { snapshotsPerDayMax: 24 };
  const days = (count: number) =>
    Array.from({ length: count }, (_, day) => ({ firstSeenMs: day * DAY, bytes: 1 }));
  assert.equal(findFlood([...days(6), { firstSeenMs: 6 * DAY, bytes: 1e12 }], limits, -1), undefined);
  assert.notEqual(findFlood([...days(7), { firstSeenMs: 7 * DAY, bytes: 1e12 }], limits, -1), undefined);
});

Deno.test("findFlood() is silent about what a person has accepted, and tells of the next one", () => {
  const flood = Array.from({ length: 50 }, (_, index) => ({ firstSeenMs: index, bytes: 1 }));
  const limits = { snapshotsPerDayMax: 24 };
  assert.notEqual(findFlood(flood, limits, 0), undefined);
  assert.equal(findFlood(flood, limits, 50), undefined);
  const next = flood.map(({ firstSeenMs, bytes }) => ({ firstSeenMs: firstSeenMs + HOUR, bytes }));
  assert.notEqual(findFlood([...flood, ...next], limits, 50), undefined);
  // What was accepted does not count against the limits, which are met exactly here.
  assert.equal(findFlood([...flood, ...next.slice(0, 24)], { ...limits, bytesPerDayMax: 24 }, 50), undefined);
  assert.match(findFlood([...flood, ...next.slice(0, 25)], limits, 50)!, /more than 24 snapshots/);
  assert.match(
    findFlood([...flood, ...next.slice(0, 24)], { ...limits, bytesPerDayMax: 23 }, 50)!,
    /more than 23 bytes/,
  );
});
