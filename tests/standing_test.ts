/** What the storage host says of a set, from what its ledger holds alone. */

import assert from "node:assert/strict";
import { type SnapshotId, timeOfSnapshotId } from "../scripts/core/names.ts";
import {
  assessSet,
  clockDoubt,
  type FaultKind,
  isDamage,
  isDoubt,
  type KnownSnapshot,
  newestOf,
  wantsFull,
} from "../scripts/core/storage_host/standing.ts";
import { DAY_MS, HOUR_MS } from "../scripts/core/time.ts";

const [A, B, C, D] = [1, 2, 3, 4].map((day) => `2026110${day}T000000Z` as SnapshotId) as [
  SnapshotId,
  SnapshotId,
  SnapshotId,
  SnapshotId,
];
const OWN = new Set(["own"]);

/** A good full that came when it was taken, but for `more`. */
const known = (id: SnapshotId, more: Partial<KnownSnapshot> = {}): KnownSnapshot => ({
  key: 1,
  id,
  state: "present",
  firstSeenMs: timeOfSnapshotId(id).getTime(),
  checksum: `sum of ${id}`,
  kind: "full",
  needs: [],
  previous: null,
  suspicions: [],
  bytes: 1,
  signer: "own",
  sealProblem: undefined,
  readMs: 1,
  damage: undefined,
  isDamagedForOthers: false,
  pin: undefined,
  ...more,
});

const after = (id: SnapshotId, sha256 = `sum of ${id}`) => ({ previous: { id, sha256 } });

/** Standings and faults, by what a test calls them. */
function judge(...snapshots: KnownSnapshot[]) {
  const { standings, faults } = assessSet(snapshots, OWN, 72);
  return {
    standings: [...standings].map(([id, standing]) => `${id.slice(7, 8)} ${standing}`).join(", "),
    faults: faults.map(({ id, kind, problem }) => `${id.slice(7, 8)} ${kind}: ${problem}`),
  };
}

Deno.test("assessSet() names what is wrong with a snapshot itself, and calls none that is there good for it", () => {
  for (
    const [more, standing, fault] of [
      [{}, "good", undefined],
      [{ readMs: undefined }, "unread", undefined],
      [{ readMs: undefined, suspicions: [{ code: "rows-lost", source: "x" }] }, "suspect", undefined],
      [{ suspicions: [{}], damage: "cut" }, "damaged", "part: cut"],
      [{ state: "unreadable", signer: undefined }, "damaged", "seal: its seal cannot be read"],
      [{ state: "unreadable", sealProblem: "not JSON" }, "damaged", "seal: not JSON"],
      [{ signer: undefined }, "damaged", "signature: its seal is not signed"],
      [{ signer: undefined, sealProblem: "bad" }, "damaged", "signature: bad"],
      [{ signer: "x" }, "damaged", "signature: it is signed by x, which may not sign for this hub"],
      [{ sealProblem: "another seal" }, "damaged", "changed: another seal"],
      [{ state: "gone" }, undefined, "gone: it was here, and this host did not remove it"],
      [{ state: "removing", damage: "cut" }, undefined, undefined],
      [{ state: "removed", signer: undefined }, undefined, undefined],
    ] as const
  ) {
    assert.deepEqual(judge(known(A, more as never)), {
      standings: standing === undefined ? "" : `1 ${standing}`,
      faults: fault === undefined ? [] : [`1 ${fault}`],
    }, JSON.stringify(more));
  }
});

Deno.test("assessSet() calls a snapshot good only if all that it needs is, and says what is not", () => {
  const needing = (more: Partial<KnownSnapshot> | undefined) =>
    judge(...more ? [known(A, more)] : [], known(D, { needs: [A] }));
  assert.deepEqual(needing({}), { standings: "1 good, 4 good", faults: [] });
  assert.deepEqual(needing({ readMs: undefined }).standings, "1 unread, 4 unread");
  assert.equal(
    needing({ damage: "cut" }).standings,
    "1 damaged, 4 good",
    "its manifest, which D does not read",
  );
  for (
    const [more, why] of [
      [undefined, "which never came"],
      [{ state: "removing" }, "which was removed"],
      [{ state: "removed" }, "which was removed"],
      [{ state: "gone" }, "which is gone"],
      [{ damage: "cut", isDamagedForOthers: true }, "which is damaged"],
      [{ signer: "x", isDamagedForOthers: false }, "which is damaged"],
    ] as const
  ) {
    const { standings, faults } = needing(more);
    assert.match(standings, /4 damaged$/, why);
    assert.deepEqual(faults.filter((fault) => fault.startsWith("4")), [`4 needs: it needs ${A}, ${why}`]);
  }
  assert.deepEqual(
    judge(known(A, { state: "removed" }), known(D, { needs: [A, B] })).faults,
    [`4 needs: it needs ${A}, which was removed, and 1 more`],
  );
});

Deno.test("assessSet() follows each link to what was seen of the one before", () => {
  assert.deepEqual(judge(known(A), known(B, after(A)), known(C, after(B))).faults, []);
  assert.deepEqual(judge(known(B, after(A)), known(C, after(B))).faults, [], "none can have seen A");
  assert.deepEqual(judge(known(C, after(B)), known(A)).faults, [`3 link: it follows ${B}, which never came`]);
  assert.deepEqual(judge(known(A, after(A))).faults, [
    `1 link: it says that it follows ${A}, which is not older`,
  ]);
  assert.deepEqual(judge(known(A, { state: "removed" }), known(B, after(A, "other"))).faults, [
    `2 link: it follows ${A} with seal other, and the one seen here is sum of ${A}`,
  ]);
  const unseen = known(A, { state: "removed", checksum: undefined });
  assert.deepEqual(judge(unseen, known(B, after(A, "other"))).faults, []);
  assert.deepEqual(judge(known(A), known(C, { ...after(B), state: "removed" })).faults, []);
  assert.deepEqual(judge(known(A), known(B, after(A)), known(C, after(A)), known(D, after(C))).faults, [
    `3 fork: ${B} follows ${A} too: the hub was set back, or its key is in two hands`,
  ]);
});

Deno.test("assessSet() notes what is dated well after it came, and not what came late", () => {
  const cameAfterHours = (hours: number, more: Partial<KnownSnapshot> = {}) =>
    judge(known(A, { firstSeenMs: timeOfSnapshotId(A).getTime() + hours * HOUR_MS, ...more })).faults;
  assert.deepEqual(cameAfterHours(-3), ["1 future: it is dated 3 hours after it came"]);
  assert.deepEqual([cameAfterHours(-2), cameAfterHours(100)], [[], []]);
  assert.deepEqual(cameAfterHours(-3, { state: "removed" }), []);
  assert.deepEqual(judge(known(A, { firstSeenMs: undefined })).faults, []);
});

Deno.test("isDoubt() stops retention for what contradicts, isDamage() tells of all but what is merely odd", () => {
  const kinds: FaultKind[] = [
    ...["seal", "signature", "changed", "gone", "link"] as const,
    ...["part", "needs", "closed"] as const,
    ...["fork", "future"] as const,
  ];
  const those = (is: typeof isDoubt) => kinds.filter((kind) => is({ kind }));
  assert.deepEqual(those(isDoubt), kinds.slice(0, 5));
  assert.deepEqual(those(isDamage), kinds.slice(0, 8));
});

Deno.test("clockDoubt() doubts a clock that is over 10 minutes back, or further ahead than a gap may be", () => {
  const nowMs = 1000 * DAY_MS;
  const doubt = (minutesSince: number) => clockDoubt(nowMs, nowMs - minutesSince * 60_000, 30);
  assert.equal(clockDoubt(nowMs, undefined, 30), undefined);
  assert.deepEqual([-10, 0, 30 * 24 * 60].map(doubt), [undefined, undefined, undefined]);
  assert.equal(doubt(-11), "this host's clock is 11 min behind an earlier run");
  assert.equal(doubt(31 * 24 * 60), "this host's clock is 31 days ahead of the last run");
  assert.notEqual(doubt(30 * 24 * 60 + 1), undefined);
});

Deno.test("newestOf() counts a snapshot from when it was taken, or came if it claims to be from later", () => {
  const timeOf = (id: SnapshotId) => timeOfSnapshotId(id).getTime();
  const newest = (...snapshots: KnownSnapshot[]) => {
    const standings = new Map(
      snapshots.map(({ id, suspicions }) => [id, suspicions.length ? "suspect" : "good"] as const),
    );
    standings.delete(D);
    const found = newestOf(snapshots, standings, ["good"]);
    return found && [found.snapshot.id, found.timeMs];
  };
  assert.deepEqual(newest(known(A), known(C), known(B)), [C, timeOf(C)]);
  assert.deepEqual(newest(known(A, { firstSeenMs: undefined })), [A, timeOf(A)]);
  assert.deepEqual(newest(known(A, { firstSeenMs: timeOf(D) })), [A, timeOf(A)], "however late it came");
  const ahead = (hours: number) => known(B, { firstSeenMs: timeOf(B) - hours * HOUR_MS });
  assert.deepEqual(newest(known(A), ahead(2)), [B, timeOf(B) - 2 * HOUR_MS]);
  assert.deepEqual(newest(known(A), ahead(3)), [A, timeOf(A)]);
  assert.deepEqual(newest(known(B, { suspicions: [{} as never] }), known(D)), undefined);
});

Deno.test("wantsFull() asks for a new chain only where the newest that the hub signed is damaged", () => {
  const wants = (...snapshots: KnownSnapshot[]) =>
    wantsFull(snapshots, assessSet(snapshots, OWN, 72).standings, OWN);
  const damaged = { damage: "cut" };
  assert.equal(wants(), false);
  assert.equal(wants(known(A), known(B, damaged)), true);
  assert.equal(wants(known(A, damaged), known(B)), false);
  for (const more of [{ readMs: undefined }, { suspicions: [{} as never] }]) {
    assert.equal(wants(known(A, damaged), known(B, more)), false);
  }
  for (const signer of ["x", undefined]) {
    assert.equal(wants(known(A), known(B, { ...damaged, signer })), false);
  }
});
