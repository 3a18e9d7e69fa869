import assert from "node:assert/strict";
import fc from "npm:fast-check@4.10.2";
import type { Destination } from "../scripts/core/config/config.ts";
import { ifPossible } from "../scripts/core/errors.ts";
import {
  INCOMING_PREFIX,
  MAIN_SET,
  type SetName,
  type SnapshotId,
  snapshotIdAt,
} from "../scripts/core/names.ts";
import { nameOf } from "../scripts/core/paths.ts";
import {
  isAbout,
  isOffBox,
  keyOf,
  parseDestinationRecord,
  pruneRecord,
  serializeDestinationRecord,
  waitingFor,
  whereOf,
} from "../scripts/core/shipping/shipping.ts";
import { prunable } from "../scripts/core/snapshot/chain.ts";
import { isGood, type Seal, sealChecksum } from "../scripts/core/snapshot/seal.ts";
import { DAY_MS } from "../scripts/core/time.ts";
import { confirmedIds } from "../scripts/host/records/ship_records.ts";
import { status } from "../scripts/host/status/hub_status.ts";
import { namesIn } from "./real/files.ts";
import { type Home, makeHome } from "./real/home.ts";

const NOW = new Date("2026-11-24T12:00:00Z");
const daysAgo = (days: number) => snapshotIdAt(new Date(NOW.getTime() - days * DAY_MS));
const seal = (days: number, ...needs: number[]) => ({
  id: daysAgo(days),
  needs: needs.map(daysAgo),
  suspicions: [] as Seal["suspicions"],
});
const suspect = (days: number, ...needs: number[]) => ({
  ...seal(days, ...needs),
  suspicions: [{ code: "unreadable", source: "notes" }] as const,
});

Deno.test("prunable() lets go of what is old, confirmed and needed by nothing that stays", () => {
  const seals = [seal(40), seal(39, 40), seal(20), seal(13, 20), seal(6), seal(5, 6)];
  assert.deepEqual(prunable(seals, () => true, NOW, 14), [daysAgo(40), daysAgo(39)]);
});

Deno.test("prunable() keeps what some destination has not confirmed, and what that needs", () => {
  const seals = [seal(40), seal(39, 40), seal(38, 40), seal(1)];
  const isConfirmed = (id: SnapshotId) => id !== daysAgo(39);
  assert.deepEqual(prunable(seals, isConfirmed, NOW, 14), [daysAgo(38)]);
});

Deno.test("prunable() keeps the newest chain however old it is", () => {
  assert.deepEqual(prunable([seal(90), seal(80), seal(79, 80)], () => true, NOW, 14), [daysAgo(90)]);
});

Deno.test("prunable() keeps the newest good snapshot and what that needs, however long only suspect ones came", () => {
  const seals = [seal(90), seal(80), seal(79, 80), suspect(78, 80), suspect(40), suspect(39, 40), suspect(1)];
  assert.deepEqual(prunable(seals, () => true, NOW, 14), [90, 78, 40, 39].map(daysAgo));
});

Deno.test("prunable() never breaks what stays", () => {
  const chains = fc.array(fc.record({ full: fc.boolean(), confirmed: fc.boolean(), good: fc.boolean() }), {
    minLength: 1,
    maxLength: 40,
  });
  fc.assert(fc.property(chains, fc.integer({ min: 0, max: 50 }), (flags, keepDays) => {
    let chain: SnapshotId[] = [];
    const seals = flags.map(({ full, good }, index) => {
      const id = daysAgo(flags.length - index);
      const needs = full ? [] : chain;
      chain = [...needs, id];
      return { id, needs, suspicions: good ? seal(0).suspicions : suspect(0).suspicions };
    });
    const confirmed = new Map(seals.map(({ id }, index) => [id, flags[index]!.confirmed]));
    const gone = new Set(prunable(seals, (id) => confirmed.get(id)!, NOW, keepDays));
    for (const { id, needs } of seals) {
      if (!gone.has(id)) assert.ok(needs.every((needed) => !gone.has(needed)));
      else assert.ok(confirmed.get(id) || seals.some((other) => other.needs.includes(id)));
    }
    for (const kept of [seals.at(-1), seals.findLast(isGood)]) assert.ok(!kept || !gone.has(kept.id));
    for (const { id } of seals.filter(({ id }) => !confirmed.get(id))) {
      assert.ok(!gone.has(id), "not confirmed");
    }
  }));
});

/** Notes that a destination, which is off this machine or not, confirmed these snapshots, or others with their ids. */
function confirm(
  { store, stateFolder }: Home,
  destination: Destination,
  offBox: boolean,
  keys: readonly string[],
  areOthers = false,
): void {
  const sealOf = (key: string) => ifPossible(() => Deno.readFileSync(`${store}/home/${key}/seal.json`));
  const confirmed = new Map(keys.map((key) => {
    const sealSha256 = sealChecksum(areOthers ? new Uint8Array() : sealOf(key) ?? new Uint8Array());
    return [key, { sealSha256, confirmedAt: "", files: [] }];
  }));
  const record = { where: whereOf(destination, offBox), confirmed, uploads: new Map() };
  Deno.mkdirSync(`${stateFolder}/ship`, { recursive: true });
  Deno.writeTextFileSync(`${stateFolder}/ship/${destination.name}.json`, serializeDestinationRecord(record));
}

Deno.test("what only this machine's own disk confirmed, or another snapshot of that id, stays in the local store", async () => {
  using home = await makeHome();
  home.configure({ localKeepDays: 0, destinations: [{ kind: "folder", name: "disk", path: "/mnt/disk" }] });
  const { id } = await home.backup({ full: true });
  const { id: dependent } = await home.backup();
  const [disk] = home.config().destinations as [Destination];
  const { fs } = home.host;
  const gone: string[] = [];
  const rename: typeof fs.rename = (from, to) => {
    if (nameOf(to).startsWith(INCOMING_PREFIX)) gone.push(nameOf(from));
    fs.rename(from, to);
  };
  const isThereAfterRun = async (offBox: boolean, areOthers = false) => {
    confirm(home, disk, offBox, [`state/${id}`, `state/${dependent}`], areOthers);
    await home.backup({ full: true, host: { ...home.host, fs: { ...fs, rename } } });
    return namesIn(home.stored).includes(id);
  };
  assert.ok(await isThereAfterRun(false));
  assert.ok(await isThereAfterRun(true, true), "what was confirmed is not what is here");
  assert.ok(!await isThereAfterRun(true));
  assert.deepEqual(gone, [dependent, id], "at no moment one without what it needs");
});

Deno.test("an old snapshot that cannot be removed, such as another user's, is told, and keeps no other from being stored", async () => {
  using home = await makeHome();
  home.configure({ localKeepDays: 0, destinations: [{ kind: "folder", name: "disk", path: "/mnt/disk" }] });
  const { id } = await home.backup();
  confirm(home, home.config().destinations[0] as Destination, true, [`state/${id}`]);
  const { fs } = home.host;
  const remove: typeof fs.remove = (path, options) => {
    if (path.endsWith(id)) throw new Deno.errors.PermissionDenied(`(os error 13): remove '${path}'`);
    fs.remove(path, options);
  };
  const host = { ...home.host, fs: { ...fs, remove } };
  const ids = [(await home.backup({ full: true, host })).id, (await home.backup({ full: true, host })).id];
  assert.deepEqual(namesIn(home.stored), [`${INCOMING_PREFIX}${id}`, ...ids]);
  const left = `${home.stored}/${INCOMING_PREFIX}${id}`;
  const told = home.told.filter((text) => text.startsWith(`! Cannot remove ${left}: (os error 13); check `));
  assert.equal(told.length, 1, home.told.join("\n"));
});

Deno.test("only what every destination confirmed of a set counts, and nothing where none is off this machine", async () => {
  using home = await makeHome();
  home.configure({
    destinations: ["a", "b"].map((name) => ({ kind: "folder", name, path: `/mnt/${name}` })),
  });
  const config = home.config();
  const [all, one, other] = [3, 2, 1].map((days) => daysAgo(days));
  const [a, b] = config.destinations as [Destination, Destination];
  const counted = (offBox: { readonly a: boolean; readonly b: boolean }) => {
    confirm(home, a, offBox.a, [`state/${all}`, `state/${one}`, `voice/${other}`]);
    confirm(home, b, offBox.b, [`state/${all}`, `voice/${other}`]);
    return [...confirmedIds(home.host, config, MAIN_SET)];
  };
  assert.deepEqual(counted({ a: true, b: true }), [all]);
  assert.deepEqual(counted({ a: false, b: true }), [all]);
  assert.deepEqual(counted({ a: false, b: false }), []);
});

Deno.test("what a destination confirmed says nothing of another place that has its name now", async () => {
  using home = await makeHome();
  const configure = (path: string) =>
    home.configure({ localKeepDays: 0, destinations: [{ kind: "folder", name: "disk", path }] });
  configure("/mnt/old");
  const { id } = await home.backup({ full: true });
  const [old] = home.config().destinations as [Destination];
  confirm(home, old, true, [`state/${id}`]);
  const waiting = () => status(home.host, home.config())[0]!.destinations[0]!.waiting;
  assert.deepEqual(waiting(), []);
  configure("/mnt/new");
  assert.deepEqual(waiting(), [id]);
  await home.backup({ full: true });
  assert.ok(namesIn(home.stored).includes(id), "it was let go of");
});

Deno.test("what a destination confirmed is forgotten once nothing here needs it, and never of a set that is not shipped now", () => {
  const [full, old, last] = [40, 39, 1].map(daysAgo);
  const [state, voice] = ["state", "voice"] as SetName[];
  const keys = [`state/${full}`, `state/${old}`, `state/${last}`, `voice/${old}`];
  const confirmation = { sealSha256: "a", confirmedAt: "", files: [] };
  const record = {
    where: "there",
    confirmed: new Map(keys.map((key) => [key, confirmation])),
    uploads: new Map([[`state/${last}`, 1], [`state/${daysAgo(2)}`, 1], [`voice/${full}`, 2]]),
  };
  const local = (set: SetName, id: SnapshotId, ...needs: SnapshotId[]) => ({
    set,
    id,
    needs,
    sealSha256: "a",
  });
  const kept = pruneRecord(record, [local(state!, last!, full!)]);
  assert.deepEqual([...kept.confirmed.keys()], [keys[0], keys[2], keys[3]]);
  assert.deepEqual([...kept.uploads.keys()], [`voice/${full}`]);
  assert.deepEqual(pruneRecord(record, []), { ...record, uploads: new Map([...record.uploads].slice(1)) });

  // With another seal it is another snapshot; what is older goes first, whichever set it is of.
  const altered = { ...local(state!, full!), sealSha256: "b" };
  const all = [local(voice!, full!), local(voice!, last!), local(state!, last!), altered];
  assert.deepEqual(waitingFor(record, all).map(keyOf), [`state/${full}`, `voice/${full}`, `voice/${last}`]);
});

Deno.test("a place is told from every other by its kind, its address, its port and whether it is off this machine", () => {
  const rsync = { kind: "rsync", name: "x", target: "a@b:", port: 22 };
  const places = [
    ...[rsync, { ...rsync, port: 23 }, { ...rsync, target: "a@c:" }],
    ...[{ kind: "folder", name: "x", path: "/b" }, { kind: "rclone", name: "x", remote: "/b" }],
  ] as Destination[];
  const wheres = places.flatMap((place) => [whereOf(place, true), whereOf(place, false)]);
  assert.equal(new Set(wheres).size, 10);
  assert.deepEqual(wheres.map(isOffBox), places.flatMap(() => [true, false]));
  for (const [index, place] of places.entries()) {
    assert.deepEqual(wheres.filter((where) => isAbout(where, place)), wheres.slice(2 * index, 2 * index + 2));
    assert.equal(whereOf({ ...place, name: "y" }, true), wheres[2 * index], "its name is no part of it");
  }
  const confirmed = new Map([["state/x", { sealSha256: "a".repeat(64), confirmedAt: "", files: [] }]]);
  const text = serializeDestinationRecord({
    where: wheres[0]!,
    confirmed,
    uploads: new Map([["state/y", 2]]),
  });
  assert.deepEqual(places.map((place) => parseDestinationRecord(text, whereOf(place, true)).confirmed.size), [
    1,
    0,
    0,
    0,
    0,
  ]);
  assert.deepEqual([parseDestinationRecord(text, wheres[0]!).uploads.get("state/y")], [2]);
  for (const damaged of [undefined, "", "{}", text.replace("aaaa", "aaa")]) {
    assert.equal(parseDestinationRecord(damaged, wheres[0]!).confirmed.size, 0);
  }
});
