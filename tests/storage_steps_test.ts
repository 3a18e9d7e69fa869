/** The storage host's verbs as steps: in workers with just their permissions, through their shells. */

import assert from "node:assert/strict";
import { COMMANDS } from "../scripts/core/command_line/commands.ts";
import { BackupError, type ErrorKind } from "../scripts/core/errors.ts";
import { formatPrivateKey } from "../scripts/core/keys/openssh_key.ts";
import type { StepPermissions } from "../scripts/core/sandbox/permissions.ts";
import {
  STORAGE_VERBS,
  storagePermissions,
  type StorageVerb,
} from "../scripts/core/sandbox/storage_permissions.ts";
import { parseStorageConfig, type StorageConfig } from "../scripts/core/storage_host/storage_config.ts";
import { DAY_MS } from "../scripts/core/time.ts";
import { printJsonList } from "../scripts/host/command_line/json_list.ts";
import { runStep } from "../scripts/host/steps/step.ts";
import {
  HUB,
  KEEP_ONE,
  makeSigner,
  makeStorageHost,
  type StorageHost,
  timesUntil,
  writeHistory,
  writeSnapshot,
} from "./real/signed_store.ts";

interface Outcome {
  readonly printed: string;
  readonly error:
    | { readonly kind: ErrorKind; readonly message: string; readonly hint: string | undefined }
    | undefined;
}

/** Runs a verb as the command line does. */
async function step(
  verb: StorageVerb,
  config: StorageConfig,
  options: Record<string, unknown> = {},
  permissions: StepPermissions = storagePermissions(verb, config, options),
): Promise<Outcome> {
  let printed = "";
  const print = (text: string) => void (printed += text);
  const terminal = {
    progress: () => {},
    info: () => {},
    warn: () => {},
    print,
    result: print,
  };
  const script = import.meta.resolve(`../scripts/${verb}.ts`);
  try {
    await runStep(script, { config, options }, permissions, terminal);
    return { printed, error: undefined };
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    return { printed, error: { kind: error.kind, message: error.message, hint: error.hint } };
  }
}

/** A storage host whose snapshots are of about now, because a step has the machine's clock. */
function recentStore(): StorageHost & { settings: StorageConfig } {
  const storage = makeStorageHost();
  storage.now = new Date();
  Deno.writeTextFileSync(`${storage.root}/key`, formatPrivateKey(new Uint8Array(32), "storage", 1), {
    mode: 0o600,
  });
  Deno.writeTextFileSync(
    `${storage.root}/drills.jsonl`,
    JSON.stringify({ at: storage.now, snapshot: "x", ok: true }),
  );
  const settings = storage.withConfig({ receiptKeyFile: `${storage.root}/key` }, {
    drillLogFile: `${storage.root}/drills.jsonl`,
  });
  return Object.assign(storage, { settings });
}

Deno.test("every verb of the storage host works with its permissions and no more, and prints text and JSON", async () => {
  using storage = recentStore();
  const { settings: config, store, signer, root } = storage;
  const written = writeHistory(store, signer, timesUntil(storage.now, 3));
  Deno.writeTextFileSync(`${root}/hub.pub`, signer.publicKey);
  const id = written[0]!.seal.id;
  const place = { hub: HUB, set: "state" };
  const runs: [StorageVerb, Record<string, unknown>, RegExp][] = [
    ["scrub", { maxTime: "1h", maxBytes: "1G", idle: true }, /home\/state: 3 good; all read since/],
    ["scrub", {}, /read 3 parts of 3 snapshots/],
    ["retain", {}, /home\/state: keeps 3, would remove 0[^]*--apply removes/],
    ["retain", { apply: true, ...place }, /removed 0/],
    ["watch", { prometheus: `${root}/out.prom` }, /all within their limits/],
    ["pin", { id, ...place, why: "a reason" }, new RegExp(`${id}  a reason`)],
    ["pin", { id, ...place, remove: true }, /^nothing is pinned$/],
    ["pin", { id, ...place, why: "a reason" }, /PINNED/],
    ["pin", {}, new RegExp(id)],
    ["pin", { set: "voice" }, /^nothing is pinned$/],
    ["pin", { id, ...place, remove: true }, /^nothing is pinned$/],
    [
      "storage",
      { action: "status" },
      /NEWEST GOOD[^]*home\/state[^]*stored, .* free, full in more than 10 years at this rate$/m,
    ],
    [
      "storage",
      { action: "list", ...place },
      new RegExp(`^home/state: 3 snapshots, .*\n.*\n${id} +good +full`),
    ],
    ["storage", { action: "authorize", hub: HUB, key: `${root}/hub.pub` }, /^restrict,command=/m],
    ["storage", { action: "schema" }, /keepWithinDays/],
  ];
  for (const [verb, options, expected] of runs) {
    const text = await step(verb, config, options);
    assert.deepEqual(text.error, undefined, `${verb} ${JSON.stringify(options)}`);
    assert.match(text.printed, expected);
    if (options.action === "status" || options.action === "list") {
      assert.deepEqual(text.printed.split("\n").filter((line) => line.length > 80), []);
    }
    const json = await step(verb, config, { ...options, json: true });
    assert.equal(json.error, undefined);
    JSON.parse(json.printed);
  }
  assert.match(Deno.readTextFileSync(`${root}/out.prom`), /hapi_backup_newest_good/);
  assert.match(Deno.readTextFileSync(`${store}/home/.receipt.json`), new RegExp(written.at(-1)!.seal.id));
});

Deno.test("a verb that finds something wrong prints it all first, and then ends with its exit code's error", async (t) => {
  await t.step("scrub: a receipt that cannot be written", async () => {
    using storage = recentStore();
    writeHistory(storage.store, storage.signer, timesUntil(storage.now, 1));
    Deno.mkdirSync(`${storage.store}/home/.receipt.json/full`, { recursive: true });
    const untold = await step("scrub", storage.settings);
    assert.equal(untold.error?.kind, "disk");
    assert.match(untold.error!.message, /^Cannot write every receipt: home: /);
    assert.match(untold.printed, /1 good; all read since[^]*the receipt for home was not written/);
  });
  await t.step("scrub and watch: integrity", async () => {
    using storage = recentStore();
    const { settings: config, store, signer } = storage;
    writeHistory(store, signer, [storage.now]);
    writeSnapshot(store, { id: "20260101T000000Z" as never, signer: makeSigner() });
    for (const verb of ["scrub", "watch", "retain"] as const) {
      const { printed, error } = await step(verb, config);
      assert.match(printed, /may not sign for this hub/, verb);
      assert.equal(error?.kind, "integrity", verb);
      if (verb === "scrub") assert.match(error!.hint!, /keep it in the hub's signers beside any newer one/);
      const json = await step(verb, config, { json: true });
      JSON.parse(json.printed);
      assert.equal(json.error?.kind, "integrity");
    }
  });
  await t.step("watch: stale", async () => {
    using storage = recentStore();
    const { settings: config, store, signer } = storage;
    writeHistory(store, signer, [new Date(storage.now.getTime() - 2 * DAY_MS)]);
    const { printed, error } = await step("watch", config);
    assert.match(printed, /STALE home\/state: the newest good snapshot/);
    assert.equal(error?.kind, "stale");
  });
  await t.step("watch: metrics that cannot be written keep no other alarm from being told", async () => {
    using storage = recentStore();
    const { settings: config, store, signer, root } = storage;
    Deno.mkdirSync(`${root}/metrics`);
    writeHistory(store, signer, [new Date(storage.now.getTime() - 2 * DAY_MS)]);
    const options = { prometheus: `${root}/metrics/out.prom` };
    const permissions = storagePermissions("watch", config, options);
    Deno.removeSync(`${root}/metrics`);
    const stale = await step("watch", config, options, permissions);
    assert.match(stale.printed, /^STALE home\/state: .*\nDISK: the metrics are not written: Cannot write /);
    assert.equal(stale.error?.kind, "stale");
    assert.match(stale.error.message, /, and 1 more alarm$/);
    writeHistory(store, signer, [storage.now]);
    assert.equal((await step("watch", config, options, permissions)).error?.kind, "disk");
  });
  await t.step("with --json nothing is printed before an error, and so no half of an object", async () => {
    using storage = recentStore();
    const { printed, error } = await step("retain", storage.settings, { json: true, hub: "hoem" });
    assert.deepEqual([printed, error?.kind], ["", "usage"]);
    const empty = await step("retain", storage.settings, { json: true });
    assert.deepEqual(JSON.parse(empty.printed).sets, []);
  });
  await t.step("storage forget, pin and others: usage", async () => {
    using storage = recentStore();
    const { settings: config } = storage;
    const wrong: [StorageVerb, Record<string, unknown>][] = [
      ["scrub", { maxTime: "soon" }],
      ["scrub", { maxBytes: "5h" }],
      ["scrub", { hub: "../x" }],
      ["pin", { id: "20260101T000000Z", hub: HUB, set: "state" }],
      ["pin", { remove: true, hub: HUB, set: "state" }],
      ["pin", { why: "x" }],
      ["pin", { id: "yesterday", hub: HUB, set: "state", why: "x" }],
      ["storage", { action: "authorize", hub: HUB }],
      ["storage", { action: "forget", hub: HUB, set: "state", snapshot: "20260101T000000Z" }],
    ];
    for (const [verb, options] of wrong) {
      assert.equal((await step(verb, config, options)).error?.kind, "usage", JSON.stringify(options));
    }
    const pinned = await step("pin", config, { id: "20260101T000000Z", hub: HUB, set: "state" });
    assert.match(pinned.error!.hint!, /^`hapi-backup pin --help`/);
  });
});

Deno.test("scrub and watch cannot change the store, and no verb can start a program or open a socket", async () => {
  using storage = recentStore();
  const { settings: config, store, signer, root } = storage;
  const [only] = writeHistory(store, signer, [storage.now]);
  for (const verb of STORAGE_VERBS) {
    const { read, write = [], run = [], net = [] } = storagePermissions(verb, config, {});
    assert.deepEqual([run, net], [[], []], verb);
    const target = `${only!.folder}/seal.json`;
    const reaches = (paths: readonly string[], path: string) =>
      paths.some((granted) => path === granted || path.startsWith(`${granted}/`));
    assert.equal(reaches(write, target), verb === "retain", verb);
    assert.equal(reaches(read, `${root}/key`), verb === "scrub", `${verb} and the receipts' key`);
  }
  // The wall stands: without the permission to write, retention ends with an error and removes nothing.
  const aged = storage.withConfig({ retention: KEEP_ONE });
  writeHistory(store, signer, [new Date(storage.now.getTime() - DAY_MS)]);
  await step("scrub", aged);
  const walled = await step("retain", aged, { apply: true }, storagePermissions("watch", aged, {}));
  assert.equal(walled.error?.kind, "disk");
  assert.equal([...Deno.readDirSync(`${store}/home/state`)].length, 2);
});

Deno.test("each verb of the storage host is granted this and no more", () => {
  const signers = [makeSigner().publicKey];
  const config = parseStorageConfig(
    JSON.stringify({
      ...{ store: "/store", stateFolder: "/state", receiptKeyFile: "/keys/receipts" },
      hubs: { home: { signers, drillLogFile: "/drills/home.jsonl" }, office: { signers } },
    }),
    "storage.json",
  );
  const { receiptKeyFile: _, ...unsigned } = config;
  const options = {
    prometheus: "/metrics/b.prom",
    key: "/new/ship.pub",
    readKey: "/new/read.pub",
    hub: "/x",
  };
  const walls = { read: ["/store", "/state"], write: ["/state"] };
  const drills = "/drills/home.jsonl";
  const withBeside = (path: string) => [path, `${path}.tmp`];
  const receipts = ["home", "office"].flatMap((hub) =>
    [".receipt.json", ".receipt.json.sig"].flatMap((name) => withBeside(`/store/${hub}/${name}`))
  );
  const sys = ["statfs"];
  const expected: Record<StorageVerb, StepPermissions> = {
    scrub: { read: [...walls.read, drills, "/keys/receipts"], write: ["/state", ...receipts], sys },
    retain: { read: walls.read, write: ["/store", "/state"] },
    watch: {
      ...{ read: [...walls.read, drills, "/metrics", "/metrics/b.prom"], sys },
      write: ["/state", ...withBeside("/metrics/b.prom")],
    },
    pin: walls,
    storage: { read: [...walls.read, drills, "/new/ship.pub", "/new/read.pub"], write: ["/state"], sys },
  };
  for (const verb of STORAGE_VERBS) {
    assert.deepEqual(storagePermissions(verb, config, options), expected[verb], verb);
  }
  assert.deepEqual(storagePermissions("scrub", unsigned, {}).read, [...walls.read, drills]);
  assert.deepEqual(storagePermissions("watch", config, {}), { ...walls, read: [...walls.read, drills], sys });
});

Deno.test("a long list is one JSON value however it ends: whole, empty, or with an error before or after its first items", async () => {
  const broken = new BackupError("Cannot go on: interrupted", { kind: "cancelled" });
  const listed = async (count: number, error?: BackupError) => {
    let printed = "";
    const ended = printJsonList((text) => void (printed += `${text}\n`), "items", (add) => {
      add([]);
      for (let index = 0; index < count; index++) add([index, { index }]);
      if (error) throw error;
      return { ok: true };
    });
    if (error) await assert.rejects(ended, error);
    else await ended;
    return printed === "" ? undefined : JSON.parse(printed);
  };
  assert.deepEqual(await listed(2), { items: [0, { index: 0 }, 1, { index: 1 }], ok: true });
  assert.deepEqual(await listed(0), { items: [], ok: true });
  const failed = await listed(1, broken);
  assert.deepEqual([failed.items.length, failed.ok, failed.exitCode], [2, false, 1]);
  assert.equal(await listed(0, broken), undefined, "the command line tells it");
  using storage = recentStore();
  const empty = await step("storage", storage.settings, { action: "list", json: true });
  assert.deepEqual(JSON.parse(empty.printed), { snapshots: [], ok: true });
});

Deno.test("the command table has every verb of the storage host", () => {
  const there = COMMANDS.filter(({ group }) => group === "On the storage host").map(({ verb }) => verb);
  assert.deepEqual(there, [...STORAGE_VERBS]);
});
