/** Notices: what is told, when, to real HTTP servers on loopback, and what never is. */

import assert from "node:assert/strict";
import { type Config, type HttpNotifier, parseConfig } from "../scripts/core/config/config.ts";
import { drillLog, shipFolder } from "../scripts/core/config/state_paths.ts";
import { BackupError } from "../scripts/core/errors.ts";
import { notifyPermissions } from "../scripts/core/sandbox/permissions.ts";
import {
  dueNotices,
  hostOf,
  type HubView,
  type Notice,
  parseAddress,
  parseTold,
  pingNotice,
  type Problem,
  requestOf,
  serializeTold,
  type Told,
  untoldError,
} from "../scripts/core/status/notices.ts";
import {
  factsOf,
  failureIn,
  parseRunLog,
  type RunRecord,
  tellable,
  withoutSecrets,
} from "../scripts/core/status/run_record.ts";
import { HOUR_MS } from "../scripts/core/time.ts";
import { tell } from "../scripts/host/command_line/telling.ts";
import type { Host } from "../scripts/host/host.ts";
import { appendProof } from "../scripts/host/records/proof_log.ts";
import { logged, readRuns, runLogFile } from "../scripts/host/records/run_log.ts";
import { readView } from "../scripts/host/status/hub_view.ts";
import { makeHost, runStep } from "../scripts/host/steps/step.ts";
import { notify, toldFile } from "../scripts/notify.ts";
import { makeSealedFolder } from "./real/signed_store.ts";

const ROOT = new URL("..", import.meta.url).pathname;

interface Received {
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** A notifier's server that answers as it is told to. */
function startServer() {
  const received: Received[] = [];
  const state = { answer: () => new Response("ok") as Response | Promise<Response> };
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    const { pathname, search } = new URL(request.url);
    const headers = Object.fromEntries(request.headers);
    received.push({ path: pathname + search, headers, body: await request.text() });
    return await state.answer();
  });
  return {
    received,
    state,
    base: `http://127.0.0.1:${server.addr.port}`,
    take: () => received.splice(0),
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

/** A hub with a clock that a test moves, and the notifiers given. */
function makeHub(notify: unknown[], more: Record<string, unknown> = {}) {
  const home = Deno.makeTempDirSync({ prefix: "notify-" });
  const config: Config = parseConfig(
    JSON.stringify({
      hub: "home",
      store: `${home}/store`,
      stateFolder: `${home}/state`,
      sets: { state: { sources: [{ kind: "file", path: `${home}/x` }], maxAgeHours: 26 } },
      notify,
      ...more,
    }),
    "test",
    { home, hostname: "home", env: {} },
  );
  const warnings: string[] = [];
  const clock = { now: new Date("2026-11-22T06:00:00Z") };
  const host: Host = {
    ...makeHost({ progress: () => {}, info: () => {}, warn: (text) => void warnings.push(text) }),
    now: () => clock.now,
  };
  const run = (error?: unknown, facts = {}) =>
    logged(host, config, { verb: "backup", set: "state" as never }, () => Promise.resolve(), () => ({
      ...facts,
      ...(error ? { error } : {}),
    }));
  return {
    home,
    config,
    host,
    clock,
    warnings,
    run,
    later: (hours: number) => clock.now = new Date(clock.now.getTime() + hours * HOUR_MS),
    snapshot: (id: string) => makeSealedFolder({ store: `${home}/store`, id }),
    [Symbol.dispose]: () => Deno.removeSync(home, { recursive: true }),
  };
}

/** What a webhook gets at the end of a run. */
async function toldBy(
  hub: Pick<ReturnType<typeof makeHub>, "host" | "config">,
  server: { take(): Received[] },
) {
  await notify(hub.host, hub.config, "end");
  return server.take().map(({ body }) => JSON.parse(body));
}

const LOCKED = new BackupError("Cannot read hapi.db: it is locked", {
  kind: "source",
  hint: "stop the other one",
});

Deno.test("ntfy, Gotify, a webhook and a command each get a failure in their own form", async () => {
  await using server = startServer();
  using tools = makeHub([]);
  const folder = tools.home;
  Deno.writeTextFileSync(`${folder}/token`, "tk_1234\n", { mode: 0o600 });
  Deno.writeTextFileSync(`${folder}/address`, `${server.base}/secret-path\n`);
  Deno.writeTextFileSync(`${folder}/tool`, `#!/bin/sh\ncat > ${folder}/got; echo "$1" >> ${folder}/got\n`, {
    mode: 0o755,
  });
  using hub = makeHub([
    { kind: "ntfy", url: `${server.base}/topic`, tokenFile: `${folder}/token` },
    { kind: "gotify", url: `${server.base}/gotify/`, tokenFile: `${folder}/token` },
    { kind: "webhook", urlFile: `${folder}/address`, tokenFile: `${folder}/token` },
    { kind: "command", command: [`${folder}/tool`, "a b; $(id)"] },
  ]);
  await hub.snapshot("20261122T050000Z");
  await hub.run(LOCKED);
  const report = await notify(hub.host, hub.config, "end");
  assert.deepEqual(report.failed, []);
  assert.equal(report.sent.length, 4);

  const by = (path: string) => server.received.find((request) => request.path === path)!;
  const ntfy = by("/topic");
  assert.equal(ntfy.headers.title, "home: backup state FAILED");
  assert.equal(ntfy.headers.authorization, "Bearer tk_1234");
  assert.equal(ntfy.headers.priority, "4");
  assert.equal(ntfy.body, "Cannot read hapi.db: it is locked\n  stop the other one");
  const gotify = by("/gotify/message");
  assert.equal(gotify.headers["x-gotify-key"], "tk_1234");
  assert.deepEqual(JSON.parse(gotify.body), {
    title: "home: backup state FAILED",
    message: "Cannot read hapi.db: it is locked\n  stop the other one",
    priority: 8,
  });
  assert.equal(by("/secret-path").headers.authorization, "Bearer tk_1234");
  const webhook = JSON.parse(by("/secret-path").body);
  assert.equal(webhook.event, "failure");
  assert.deepEqual(webhook.problems, [
    { topic: "backup state", kind: "source", text: LOCKED.message, hint: "stop the other one" },
  ]);
  const [json, argument] = Deno.readTextFileSync(`${folder}/got`).split("\n");
  assert.deepEqual(JSON.parse(json!), webhook);
  assert.equal(argument, "a b; $(id)");
});

Deno.test("a failure is told once, again when it changes or lasts, and its end once", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base, remindHours: 24 }]);
  const events = async () => (await toldBy(hub, server)).map(({ event }) => event);
  await hub.snapshot("20261122T050000Z");
  await hub.run();
  assert.deepEqual(await events(), []);
  await hub.run(LOCKED);
  assert.deepEqual(await events(), ["failure"]);
  await hub.run(LOCKED);
  hub.later(1);
  assert.deepEqual(await events(), [], "the same again is not told");
  const late = (minutes: number) => new BackupError(`Cannot end: it took ${minutes} min`, { kind: "source" });
  await hub.run(late(15));
  assert.deepEqual(await events(), ["failure"]);
  await hub.run(late(21));
  assert.deepEqual(await events(), [], "nor with other numbers in it");
  await hub.run(new BackupError("Cannot write: the disk is full", { kind: "disk" }));
  assert.deepEqual(await events(), ["failure"], "another failure is");
  hub.later(23.9);
  await hub.snapshot("20261123T060000Z");
  assert.deepEqual(await events(), []);
  hub.later(0.2);
  assert.deepEqual(await events(), ["failure"], "a reminder after a day");
  hub.later(12);
  await hub.run(new BackupError("Cannot write: the disk is full", { kind: "disk" }));
  assert.deepEqual(await events(), [], "that it fails for longer is no news");
  await hub.run();
  assert.deepEqual(await events(), ["recovery"]);
  assert.deepEqual(await events(), []);
});

Deno.test("a suspect snapshot hides no failure beside it, and a new problem not that another is over", () => {
  const only = { on: ["failure", "recovery"] };
  using hub = makeHub([
    { kind: "webhook", url: "http://127.0.0.1:9", ...only },
    { kind: "ping", url: "http://127.0.0.1:9", ...only },
  ]);
  const [webhook, ping] = hub.config.notify;
  const suspect = { topic: "suspect state", kind: "suspect", text: "it is empty" };
  const failure = { topic: "ship", kind: "network", text: "nobody answers" };
  const view = (...problems: Problem[]): HubView => ({ hub: "home", problems, digest: [] });
  const due = (now: HubView, told?: Told) => {
    const after = dueNotices(now, webhook!, told, hub.clock.now);
    return { events: after.due.map(({ notice }) => notice.event), told: after.told };
  };
  const pinged = (now: HubView) => pingNotice(now, ping!, "end", hub.clock.now)?.event;
  assert.deepEqual([due(view(suspect)).events, pinged(view(suspect))], [[], undefined]);
  const both = due(view(suspect, failure));
  assert.deepEqual([both.events, pinged(view(suspect, failure))], [["failure"], "failure"]);
  const next = { ...failure, topic: "backup state" };
  assert.deepEqual(due(view(suspect, next), both.told).events, ["failure", "recovery"]);
});

Deno.test("a failure is told with its age, and how long it has been so", async () => {
  using hub = makeHub([{ kind: "webhook", url: "http://127.0.0.1:9" }]);
  const age = () =>
    readView(hub.host, hub.config).problems.find(({ topic }) => topic === "backup state")?.age;
  await hub.run();
  hub.later(6);
  await hub.run(LOCKED);
  assert.equal(age(), undefined, "it is news");
  hub.later(12);
  assert.equal(age(), "12 h ago");
  await hub.run(LOCKED);
  hub.later(60);
  await hub.run(LOCKED);
  hub.later(0.5);
  assert.equal(age(), "30 min ago, failing for 3 days");
  const view = readView(hub.host, hub.config);
  const [told] = dueNotices(view, hub.config.notify[0]!, undefined, hub.clock.now).due;
  assert.equal(told!.notice.lines[0], `${LOCKED.message} (30 min ago, failing for 3 days)`);
});

Deno.test("a snapshot that is suspect, too old, or fails its drill is told, with why", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base }]);
  const told = () => toldBy(hub, server);
  const folder = await hub.snapshot("20261122T050000Z");
  const sealFile = `${folder}/seal.json`;
  const good = Deno.readTextFileSync(sealFile);
  const seal = JSON.parse(good);
  Deno.writeTextFileSync(
    sealFile,
    JSON.stringify({ ...seal, suspicions: [{ code: "rows-lost", source: "hapi.db" }] }),
  );
  await hub.snapshot("20261122T040000Z");
  await hub.run(undefined, { snapshot: seal.id, suspicions: ["hapi.db: messages lost 90 of 100 rows"] });
  const [suspect] = await told();
  assert.equal(suspect.event, "suspect");
  assert.equal(suspect.title, "home: a snapshot is SUSPECT");
  assert.match(suspect.lines[0], /20261122T050000Z .*messages lost 90 of 100 rows/);

  assert.match(suspect.lines[1], /if you removed these rows yourself/);

  Deno.writeTextFileSync(sealFile, good);
  assert.equal((await told())[0].event, "recovery");
  Deno.writeTextFileSync(
    sealFile,
    JSON.stringify({ ...seal, suspicions: [{ code: "unreadable", source: "notes" }] }),
  );
  assert.match((await told())[0].lines[1], /all that could be read is stored/);
  Deno.writeTextFileSync(sealFile, good);
  assert.equal((await told())[0].event, "recovery");
  hub.later(30);
  const [stale] = await told();
  assert.equal(stale.event, "failure");
  assert.match(stale.lines[0], /newest good snapshot of set state is 31 h old \(limit 26 h\)/);
  Deno.writeTextFileSync(
    `${hub.home}/state/drills.jsonl`,
    JSON.stringify({ at: hub.clock.now, store: "s", set: "state", snapshot: seal.id, ok: false, seconds: 1 }),
  );
  assert.match((await told())[0].lines[0], /The last drill failed: snapshot 20261122T050000Z/);
});

Deno.test("a digest comes once a week and says how things stand", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "ntfy", url: `${server.base}/t`, on: ["digest"] }]);
  await hub.snapshot("20261122T050000Z");
  await hub.run();
  for (const hours of [0, 24, 140]) {
    hub.later(hours);
    await notify(hub.host, hub.config, "send");
  }
  assert.deepEqual(server.take(), []);
  hub.later(4);
  await hub.snapshot("20261129T050000Z");
  await hub.run(LOCKED);
  await hub.run();
  await notify(hub.host, hub.config, "send");
  await notify(hub.host, hub.config, "send");
  const [digest, ...more] = server.take();
  assert.deepEqual(more, []);
  assert.equal(digest!.headers.title, "home: backups are well");
  assert.match(digest!.body, /^state: newest good snapshot 2026-11-29/);
  assert.match(digest!.body, /the last 7 days: 2 runs, 1 FAILED/);
  assert.match(digest!.body, /keys last proven: never/);
});

Deno.test("a clock that was ahead once silences neither reminders nor digests when it is set back", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base, on: ["failure", "digest"] }]);
  await hub.snapshot("20261122T050000Z");
  await hub.run(LOCKED);
  const told = async () => (await toldBy(hub, server)).map(({ event }) => event);
  hub.later(4 * 365 * 24);
  assert.deepEqual(await told(), ["failure"]);
  hub.later(-4 * 365 * 24);
  assert.deepEqual(await told(), ["failure", "digest"]);
  assert.deepEqual(await told(), []);
});

Deno.test("a clock that is set right during a run makes it no longer", async () => {
  using hub = makeHub([]);
  const topic = { verb: "ship" } as const;
  const work = () => Promise.resolve(void hub.later(24 * 365));
  await logged(hub.host, hub.config, topic, work, () => ({}));
  const [run] = readRuns(hub.host, hub.config, topic);
  assert.equal(run!.at, "2027-11-22T06:00:00.000Z");
  assert.ok(run!.seconds < 3600, `${run!.seconds} s`);
});

Deno.test("pings are sent at the start, and at the end to /fail with a summary or to the address itself", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "ping", url: `${server.base}/uuid?create=1` }]);
  await hub.snapshot("20261122T050000Z");
  await hub.run();
  await notify(hub.host, hub.config, "start");
  await notify(hub.host, hub.config, "end");
  await hub.run(LOCKED);
  await notify(hub.host, hub.config, "end");
  await notify(hub.host, hub.config, "send");
  const [start, success, fail, ...more] = server.take();
  assert.deepEqual(more, []);
  assert.equal(start!.path, "/uuid/start?create=1");
  assert.equal(success!.path, "/uuid?create=1");
  assert.match(success!.body, /^home: success\nstate: newest good snapshot/);
  assert.equal(fail!.path, "/uuid/fail?create=1");
  assert.match(fail!.body, /Cannot read hapi.db: it is locked/);
});

Deno.test("what could not be delivered is told the next time, and the others are told all the same", async () => {
  await using broken = startServer();
  await using server = startServer();
  using hub = makeHub([
    { kind: "webhook", url: `${broken.base}/hidden-path`, timeoutSeconds: 1 },
    { kind: "ntfy", url: `${server.base}/t` },
  ]);
  await hub.snapshot("20261122T050000Z");
  await hub.run(LOCKED);
  const never = Promise.withResolvers<Response>();
  const answers: [() => Response | Promise<Response>, RegExp][] = [
    [() => new Response("", { status: 500 }), /answers 500/],
    [() => new Response("", { status: 403 }), /answers 403; check its token$/],
    [
      () => Response.redirect(`${server.base}/elsewhere`),
      /redirects elsewhere; configure the final address$/,
    ],
    [() => never.promise, /does not answer within 1 s/],
  ];
  for (const [answer, reason] of answers) {
    broken.state.answer = answer;
    const { failed } = await notify(hub.host, hub.config, "end");
    assert.equal(failed.length, 1);
    assert.match(failed[0]!.reason, reason);
    assert.doesNotMatch(failed[0]!.reason, /hidden-path/);
  }
  never.resolve(new Response());
  assert.deepEqual(server.take().map(({ path }) => path), ["/t"], "told once, and no redirect was followed");
  broken.state.answer = () => new Response("ok");
  broken.take();
  assert.deepEqual((await notify(hub.host, hub.config, "end")).failed, []);
  assert.equal(broken.take().length, 1);

  using tool = makeHub([{ kind: "command", command: ["/bin/sh", "-c", "exit 3"] }]);
  await tool.run(LOCKED);
  for (const time of ["first", "next"]) {
    const { failed } = await notify(tool.host, tool.config, "end");
    assert.match(failed.map(({ reason }) => reason).join(), /\/bin\/sh ended with 3/, time);
  }
});

Deno.test("a token that no header can hold is named, and the server is not blamed", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "ntfy", url: server.base, tokenFile: "~/token" }]);
  const tokenFile = `${hub.config.home}/token`;
  for (const text of ["one\ntwo\n", "tök\u2713n"]) {
    Deno.writeTextFileSync(tokenFile, text);
    const { failed } = await notify(hub.host, hub.config, "test");
    assert.match(failed[0]!.reason, /token does not hold one token; write the token alone/);
    assert.doesNotMatch(failed[0]!.reason, /two|tök/);
  }
  Deno.writeTextFileSync(tokenFile, "tk_1\n");
  assert.deepEqual((await notify(hub.host, hub.config, "test")).failed, []);
});

/** A snapshot of two databases, of which one is a hub's. */
const MADE = {
  id: "20261122T050000Z",
  kind: "full",
  bytes: 9,
  rows: { "hapi.db": { sessions: 2, messages: 30, other: 400 }, "other.db": { messages: 5, users: 6000 } },
  databaseBytes: 7,
  suspicions: [],
} as const;

Deno.test("a run's facts are numbers over all its databases, and none where it has no database", () => {
  const { id: snapshot, kind: snapshotKind, bytes } = MADE;
  assert.deepEqual(factsOf(MADE), {
    snapshot,
    snapshotKind,
    bytes,
    content: { databaseBytes: 7, rows: 6437, sessions: 2, messages: 35 },
  });
  const other = { "other.db": { users: 3 } };
  assert.deepEqual(factsOf({ ...MADE, rows: other }).content, { databaseBytes: 7, rows: 3 });
  assert.equal(factsOf({ ...MADE, rows: {} }).content, undefined);
  const runs = (["full", "increment", "unchanged"] as const).flatMap((kind) =>
    (["backup", "ship"] as const).map((verb): RunRecord => ({
      at: "2026-11-22T06:00:00.000Z",
      seconds: 1,
      verb,
      ok: true,
      ...factsOf({ ...MADE, kind, suspicions: [{ source: "x", detail: "y" }] }),
    }))
  );
  assert.deepEqual(parseRunLog(runs.map((run) => JSON.stringify(run) + "\n").join("")), runs);
});

Deno.test("a failure is old after a minute, lasts since the last success, and may be mended by a change", () => {
  const start = Date.parse("2026-11-22T06:00:00Z");
  const at = (seconds: number) => new Date(start + seconds * 1000);
  const run = (seconds: number, ok: boolean, more: Partial<RunRecord> = {}): RunRecord => ({
    at: at(seconds).toISOString(),
    seconds: 1,
    verb: "backup",
    ok,
    ...more,
  });
  const failure = (runs: RunRecord[], now: number, changed?: number) =>
    failureIn(runs, at(now), changed === undefined ? undefined : at(changed));
  assert.equal(failure([], 0), undefined);
  assert.equal(failure([run(0, false), run(1, true)], 2), undefined);
  const news = { kind: "internal", text: "it failed", age: undefined, hint: undefined };
  assert.deepEqual(failure([run(0, false)], 59), news);
  assert.equal(failure([run(0, false)], 60)!.age, "60 s ago");
  const lasting = [run(-500, true), run(0, false), run(100, true), run(200, false), run(259, false)];
  assert.equal(failure(lasting, 261)!.age, "2 s ago");
  assert.equal(failure([...lasting, run(260, false)], 320)!.age, "60 s ago, failing for 2 min");
  const told = { kind: "disk", message: "it is full", hint: "free some" };
  assert.deepEqual(failure([run(0, false, told)], 1, 0), {
    kind: "disk",
    text: "it is full",
    age: undefined,
    hint: "free some",
  });
  const { age, hint } = failure([run(0, false, told)], 1, 1)!;
  assert.deepEqual([age, hint], [
    "before the configuration was changed",
    "run `hapi-backup backup`: it may be mended",
  ]);
  const ofSet = failure([run(0, false, { set: "notes" })], 1, 1)!;
  assert.equal(ofSet.hint, "run `hapi-backup backup --set notes`: it may be mended");
  // Of a clock that was set back, or stands in 1970, every configuration is from the future.
  assert.deepEqual(failure([run(0, false, told)], 1, 3600), failure([run(0, false, told)], 1));
});

Deno.test("no secret leaves: unexpected errors, keys and addresses are cut out of what is logged and told", async () => {
  const identity = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ";
  assert.deepEqual(tellable(new BackupError("Cannot write", { kind: "disk" })), {
    kind: "disk",
    message: "Cannot write",
    hint: undefined,
  });
  const parse = new SyntaxError(`Unexpected token 'C', "CLI_API_TOKEN=hunter2" is not valid JSON`);
  assert.doesNotMatch(tellable(parse).message, /hunter2/);
  assert.doesNotMatch(
    tellable(new BackupError(`Cannot x: ${parse.message}`, { kind: "internal" })).message,
    /hunter2/,
  );
  for (
    const secret of [
      identity,
      identity.toLowerCase(),
      "sk-ant-api03-abcdefgh",
      "eyJhbGciOiJIUzI1NiJ9.eyJ1IjoxfQ.sig",
    ]
  ) {
    assert.equal(withoutSecrets(`before ${secret} after`), "before [secret] after");
  }
  assert.equal(withoutSecrets("rsync://user:word@host/x\n\u0007y"), "rsync://[secret]@host/x y");
  assert.equal(withoutSecrets("rsync://user:w@rd@host/x"), "rsync://[secret]@host/x");
  for (const secret of [identity, "xoxb-12345678", "eyJhbGciOiJI", "//user:word@host"]) {
    const words = withoutSecrets(`${secret}\t${secret}\n`).split(" ");
    assert.deepEqual([words.length, words[0]], [3, words[1]], "each of several");
    assert.match(words[1]!, /^(\/\/)?\[secret\](@host)?$/);
  }
  assert.equal(withoutSecrets("x".repeat(700)).length, 600);
  const { suspicions } = factsOf({
    ...MADE,
    suspicions: [{ source: "notes", detail: `${identity} is gone` }],
  });
  assert.deepEqual(suspicions, ["notes: [secret] is gone"]);

  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base }]);
  await hub.run(new BackupError(`Cannot use ${identity}`, { kind: "key", hint: identity }));
  await notify(hub.host, hub.config, "end");
  const log = Deno.readTextFileSync(runLogFile(hub.config, { verb: "backup", set: "state" as never }));
  const [{ body }] = server.take() as [Received];
  for (const text of [log, body, Deno.readTextFileSync(toldFile(hub.config.stateFolder))]) {
    assert.doesNotMatch(text, /SECRET-KEY/);
  }
});

Deno.test("what cannot be read of what was told keeps nothing from being told", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base }]);
  await hub.run(LOCKED);
  Deno.mkdirSync(toldFile(hub.config.stateFolder), { recursive: true });
  await assert.rejects(notify(hub.host, hub.config, "end"), { kind: "disk", message: /told\.json/ });
  assert.equal(server.take().length, 1);
});

Deno.test("the notify step reaches its own hosts only, and cannot read a source, an image or a key", async () => {
  await using server = startServer();
  await using other = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base }]);
  await hub.run(LOCKED);
  const script = import.meta.resolve("../scripts/notify.ts");
  const terminal = { progress: () => {}, info: () => {}, warn: () => {}, print: () => {}, result: () => {} };
  const step = (config: Config, granted: Config) =>
    runStep<{ failed: { reason: string }[] }>(
      script,
      { config, phase: "test", names: ["webhook"] },
      notifyPermissions(granted, granted.notify.map((notifier) => ({ notifier, host: hostOf(server.base) }))),
      terminal,
    );
  assert.deepEqual((await step(hub.config, hub.config)).failed, []);
  assert.equal(server.take().length, 1);
  const elsewhere = { ...hub.config, notify: [{ ...hub.config.notify[0]!, url: other.base } as never] };
  assert.match((await step(elsewhere, hub.config)).failed[0]!.reason, /cannot be reached/);
  assert.deepEqual(other.take(), []);

  const { read, write, run, net } = notifyPermissions(hub.config, []);
  assert.deepEqual({ run, net }, { run: [], net: [] });
  assert.deepEqual(write, [`${hub.home}/state/ship`]);
  for (const path of ["state/state", "state/state/base", "state/state/staging", "x", "state"]) {
    const isReadable = read.some((granted) =>
      `${hub.home}/${path}`.startsWith(`${granted}/`) ||
      granted === `${hub.home}/${path}`
    );
    assert.equal(isReadable, false, path);
  }
});

Deno.test("a run's outcome does not change when telling fails, and the failure is warned of", async () => {
  const warnings: string[] = [];
  using hub = makeHub([
    { kind: "ntfy", url: "http://127.0.0.1:9/x" },
    { kind: "webhook", urlFile: "/nonexistent/address", name: "hook" },
  ]);
  const terminal = {
    progress: () => {},
    info: () => {},
    warn: (text: string) => void warnings.push(text),
    print: () => {},
    result: () => {},
  };
  await hub.run(LOCKED);
  const report = await tell({ host: hub.host, terminal }, hub.config, "end");
  assert.deepEqual(report.failed.map(({ name }) => name).sort(), ["hook", "ntfy"]);
  assert.equal(warnings.length, 2);
  assert.ok(
    warnings.some((text) => /hook: its urlFile \/nonexistent\/address is not there/.test(text)),
    warnings.join(),
  );
});

Deno.test("where no lock can be made, as on a disk that is read-only, it is told all the same", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base }]);
  const silent = { progress() {}, info() {}, warn() {}, print() {}, result() {} };
  await hub.run(LOCKED);
  Deno.mkdirSync(`${shipFolder(hub.config.stateFolder)}/notify.lock`, { recursive: true });
  const report = await tell({ host: hub.host, terminal: silent }, hub.config, "end");
  assert.deepEqual(report.failed, []);
  assert.equal(report.sent.length, 1);
  assert.equal(server.take().length, 1);
});

Deno.test("a reminder comes when the keys were not proven for too long", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base }], { proofMaxAgeDays: 100 });
  const told = () => toldBy(hub, server);
  const prove = (ok: boolean) =>
    appendProof(hub.host.fs, hub.config.stateFolder, {
      at: hub.clock.now.toISOString(),
      store: "s",
      recipients: ["age1x"],
      ok,
      chains: 1,
      failed: [],
    });
  await hub.snapshot("20261122T050000Z");
  assert.deepEqual(await told(), []);
  hub.later(101 * 24);
  await hub.snapshot("20270303T050000Z");
  const [reminder] = await told();
  assert.match(reminder.lines.join(), /No identity was proven .* in the last 100 days/);
  const ping = { ...hub.config.notify[0]!, kind: "ping", on: undefined, name: "ping" } as never;
  await notify(hub.host, { ...hub.config, notify: [...hub.config.notify, ping] }, "end", ["ping"]);
  assert.match(server.take()[0]!.body, /^home: success/, "a reminder is no failed run");
  prove(false);
  hub.later(1);
  assert.deepEqual(await told(), [], "a failed proof is none");
  prove(true);
  assert.equal((await told())[0].event, "recovery");
});

Deno.test("a log that cannot be read is a failure of its own, and no word that what was wrong is well", async () => {
  await using server = startServer();
  using hub = makeHub([{ kind: "webhook", url: server.base }]);
  const told = () => toldBy(hub, server);
  const log = runLogFile(hub.config, { verb: "backup", set: "state" as never });
  await hub.snapshot("20261122T050000Z");
  await hub.run(LOCKED);
  assert.match((await told())[0].lines.join(), /it is locked/);
  for (
    const [damage, words] of [
      [
        () => Deno.writeTextFileSync(log, '{"at":"20'),
        /how the last went: .* ends in a line that is damaged/,
      ],
      [() => Deno.writeFileSync(log, new Uint8Array(4096)), undefined],
      [
        () => (Deno.removeSync(log), Deno.mkdirSync(log)),
        /how the last went: .* cannot be read \(it is a folder\)/,
      ],
    ] as const
  ) {
    damage();
    hub.later(1);
    const notices = await told();
    assert.deepEqual(notices.map(({ event }) => event), words ? ["failure"] : [], JSON.stringify(notices));
    if (words) {
      assert.match(notices[0].lines.join(), words);
      assert.equal(notices[0].title, `${hub.config.hub}: backups need attention`, "no run failed");
    }
    assert.match(readView(hub.host, hub.config).digest.join(), /the last 7 days: NOT KNOWN/);
  }
  Deno.removeSync(log);
  for (const log of [runLogFile(hub.config, { verb: "ship" }), drillLog(hub.config.stateFolder)]) {
    Deno.mkdirSync(log, { recursive: true });
  }
  await hub.run();
  const texts = readView(hub.host, hub.config).problems.map(({ text }) => text);
  assert.deepEqual(texts.map((text) => /^Cannot tell from the log of (\w+)/.exec(text)?.[1]), [
    "shipping",
    "drills",
  ]);
});

Deno.test("`backup` and `notify test` tell, end to end, and the log of runs lies where `ship` may read it", async () => {
  await using server = startServer();
  const home = Deno.makeTempDirSync({ prefix: "notify-home-" });
  try {
    Deno.mkdirSync(`${home}/.config/hapi-backup`, { recursive: true });
    const cli = async (...args: string[]) => {
      const { code, stderr, stdout } = await new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "--no-prompt",
          "--unstable-worker-options",
          "--allow-read",
          "--allow-write",
          "--allow-env",
          "--allow-sys",
          "--allow-run=rsync",
          `--allow-net=${hostOf(server.base)}`,
          "mod.ts",
          ...args,
        ],
        cwd: ROOT,
        env: { HOME: home, HAPI_BACKUP_CONFIG: `${home}/.config/hapi-backup/config.json` },
      }).output();
      return { code, stderr: new TextDecoder().decode(stderr), stdout: new TextDecoder().decode(stdout) };
    };
    assert.equal((await cli("backup", "--no-ship")).code, 3, "there is no database yet");
    const file = `${home}/.config/hapi-backup/config.json`;
    const text = Deno.readTextFileSync(file).replace(
      '"destinations": []',
      `"notify": [{ "kind": "webhook", "url": "${server.base}/h" }, { "kind": "ping", "url": "${server.base}/p" }]`,
    );
    Deno.writeTextFileSync(file, text);
    assert.deepEqual(server.take(), [], "nothing is told without a network");

    const failed = await cli("backup");
    assert.equal(failed.code, 3, failed.stderr);
    const requests = server.take();
    assert.deepEqual(requests.map(({ path }) => path).sort(), ["/h", "/p/fail", "/p/start"]);
    assert.equal(requests[0]!.path, "/p/start");
    const notice = JSON.parse(requests.find(({ path }) => path === "/h")!.body);
    assert.equal(notice.title, `${notice.hub}: backup state FAILED`);
    assert.match(notice.lines.join(), /hapi\.db/);
    await cli("ship", "--set", "state");
    assert.deepEqual(server.take(), [], "a run of some sets is not one that may be told as good");

    const elsewhere = ["--config", `${home}/none.json`];
    Deno.writeTextFileSync(elsewhere[1]!, "{}");
    assert.equal((await cli("notify", "send", ...elsewhere)).code, 0);
    assert.equal((await cli("notify", "test", ...elsewhere)).code, 2, "a test of nothing is none");
    const test = await cli("notify", "test", "--json");
    assert.equal(test.code, 0, test.stderr);
    assert.deepEqual(server.take().map(({ path }) => path).sort(), ["/h", "/p/log"]);
    assert.equal(JSON.parse(test.stdout).sent.length, 2);

    server.state.answer = () => new Response("", { status: 500 });
    const quiet = await cli("notify", "test", "--quiet");
    assert.deepEqual([quiet.code, quiet.stdout], [1, ""]);
    assert.match(
      quiet.stderr,
      /^error: Cannot notify .*webhook: 127\.0\.0\.1:\d+ answers 500; check the address/m,
    );
    const untold = await cli("notify", "test", "--json");
    assert.match(JSON.parse(untold.stdout).error.message, /ping2: 127\.0\.0\.1:\d+ answers 500/);
    assert.equal(JSON.parse(untold.stdout).exitCode, 1);
    assert.equal(
      (await cli("notify", "test")).stdout,
      "",
      "nothing was sent, which is not that nothing is due",
    );

    const config = parseConfig(text, file, { home, hostname: Deno.hostname(), env: {} });
    assert.ok(runLogFile(config, { verb: "backup", set: "state" as never }).startsWith(`${config.store}/`));
    const runs = readRuns(makeHost({ progress() {}, info() {}, warn() {} }), config, {
      verb: "backup",
      set: "state" as never,
    });
    assert.deepEqual(runs.map(({ ok, kind }) => ({ ok, kind })), [
      { ok: false, kind: "source" },
      { ok: false, kind: "source" },
    ]);
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
});

Deno.test("a notifier's configuration is checked: one address, no password in it, names once, http only", () => {
  const refused = (notify: unknown, reason: RegExp) =>
    assert.throws(
      () => parseConfig(JSON.stringify({ notify }), "c", { home: "/h", hostname: "h", env: {} }),
      (error) => error instanceof BackupError && error.kind === "config" && reason.test(error.message),
    );
  refused([{ kind: "ntfy" }], /either url or urlFile/);
  refused([{ kind: "ntfy", url: "http://a/b", urlFile: "/x" }], /either url or urlFile/);
  for (const who of ["user:word", "user", ":word"]) {
    refused([{ kind: "ntfy", url: `https://${who}@a/b` }], /a password stands in it/);
  }
  const { notify: [hook] } = parseConfig(
    JSON.stringify({ notify: [{ kind: "webhook", url: "https://a/x//@me?to=//b@c" }] }),
    "c",
    { home: "/h", hostname: "h", env: {} },
  );
  assert.equal((hook as HttpNotifier).url, "https://a/x//@me?to=//b@c", "that is no password");
  refused([{ kind: "ntfy", url: "file:///etc/passwd" }], /not an http/);
  refused([{ kind: "ntfy", url: "nonsense" }], /not an http/);
  refused([{ kind: "ntfy", url: "https:/my-topic" }], /not an http/);
  refused([{ kind: "ntfy", url: "https://" }], /not an http/);
  const { notify: [padded] } = parseConfig(
    JSON.stringify({ notify: [{ kind: "ping", url: " https://a/b\n" }] }),
    "c",
    { home: "/h", hostname: "h", env: {} },
  );
  assert.equal((padded as HttpNotifier).url, "https://a/b");
  refused([{ kind: "command", command: ["curl", "x"] }], /not absolute/);
  refused(
    [{ kind: "ping", url: "http://a", name: "x" }, { kind: "ping", url: "http://a", name: "x" }],
    /named x/,
  );
  for (
    const text of [
      "secret\nof text",
      "shttps://secret",
      "https://a/b secret",
      "https://secret:x",
      "file:///secret",
    ]
  ) {
    assert.throws(() => parseAddress(text, "n", "/f"), {
      kind: "config",
      message: "Cannot notify n: its urlFile /f does not hold one http or https address",
    });
  }
  assert.equal(parseAddress(" https://a/b\n", "n", "/f"), "https://a/b");
  assert.deepEqual([hostOf("https://a/b"), hostOf("http://a"), hostOf("http://[::1]:8/")], [
    "a:443",
    "a:80",
    "[::1]:8",
  ]);
});

Deno.test("several problems of one topic are told once, and again when one is added", () => {
  using hub = makeHub([{ kind: "webhook", url: "http://localhost:1/" }]);
  const [notifier] = hub.config.notify;
  const now = new Date("2026-11-25T12:00:00Z");
  const view = (...texts: string[]) => ({
    hub: "home",
    problems: texts.map((text) => ({ topic: "storage far state", kind: "integrity" as const, text })),
    digest: [],
  });
  const first = dueNotices(view("a is damaged", "b needs a"), notifier!, undefined, now);
  assert.equal(first.due.length, 1);
  assert.deepEqual(dueNotices(view("a is damaged", "b needs a"), notifier!, first.told, now).due, []);
  assert.deepEqual(dueNotices(view("b needs a", "a is damaged"), notifier!, first.told, now).due, []);
  assert.equal(
    dueNotices(view("a is damaged", "b needs a", "c is gone"), notifier!, first.told, now).due.length,
    1,
  );
});

Deno.test("without `on`, a ping is told of every end of a run, and people of what is wrong, its end and the digest", () => {
  using hub = makeHub([{ kind: "webhook", url: "http://a" }, { kind: "ping", url: "http://a" }]);
  const [person, ping] = hub.config.notify;
  const { now } = hub.clock;
  const suspect = { topic: "suspect state", kind: "suspect", text: "it is empty" };
  const late = { topic: "age state", kind: "stale", text: "it is old", hint: "run it" };
  const view = (...problems: Problem[]): HubView => ({ hub: "home", problems, digest: ["as it stands"] });

  const pinged = (phase: "start" | "end", ...problems: Problem[]) => {
    const notice = pingNotice(view(...problems), ping!, phase, now)!;
    return [notice.event, notice.title, notice.lines];
  };
  assert.deepEqual(pinged("start", late), ["start", "home: start", []]);
  assert.deepEqual(pinged("end"), ["success", "home: success", ["as it stands"]]);
  assert.deepEqual(pinged("end", suspect), ["suspect", "home: a snapshot is SUSPECT", [
    "it is empty",
    "as it stands",
  ]]);
  assert.deepEqual(pinged("end", suspect, late).slice(0, 2), ["failure", "home: backups need attention"]);

  const due = (told: Told | undefined, at: Date, ...problems: Problem[]) => {
    const { due, told: after } = dueNotices(view(...problems), person!, told, at);
    return { notices: due.map(({ notice: { event, title, lines } }) => [event, title, lines]), after };
  };
  const first = due(undefined, now, suspect);
  assert.deepEqual(first.notices, [["suspect", "home: a snapshot is SUSPECT", ["it is empty"]]]);
  const second = due(first.after, now, suspect, late);
  assert.deepEqual(second.notices, [
    ["failure", "home: backups need attention", ["it is old", "  run it", "Still so:", "it is empty"]],
  ]);
  const better = due(second.after, now, late);
  assert.deepEqual(better.notices, [
    ["recovery", "home: better, not all well", ["No longer wrong: suspect state.", "it is old", "  run it"]],
  ]);
  const well = due(better.after, now);
  assert.deepEqual(well.notices, [["recovery", "home: backups are well again", [
    "No longer wrong: age state.",
  ]]]);
  const week = new Date(now.getTime() + 7 * 24 * HOUR_MS);
  const lines = ["as it stands"];
  assert.deepEqual(due(well.after, new Date(week.getTime() - 1)).notices, []);
  assert.deepEqual(due(well.after, week).notices, [["digest", "home: backups are well", lines]]);
  const digestTitle = (...problems: Problem[]) => due(well.after, week, ...problems).notices[1]![1];
  assert.equal(digestTitle(late), "home: 1 thing is wrong with the backups");
  assert.equal(digestTitle(late, suspect), "home: 2 things are wrong with the backups");
  const unsent = { topic: "ship", kind: "network", text: "3 of 4 wait" };
  const unsaid = due(undefined, now, unsent, { ...late, kind: "log" }, {
    ...late,
    kind: "log",
    topic: "ship",
  });
  assert.deepEqual(unsaid.notices, [
    ["failure", "home: shipping FAILED", ["3 of 4 wait", "it is old", "  run it"]],
  ]);
  const waiting = due(undefined, now, unsent).after;
  assert.deepEqual(
    due(waiting, now, { ...unsent, text: "5 of 6 wait" }).notices,
    [],
    "other numbers are no news",
  );
  assert.equal(due(waiting, now, { ...unsent, kind: "disk" }).notices.length, 1);
  const spoilt = {
    ...first.after,
    problems: { "suspect state": { mark: "suspect: it is empty", at: "soon" } },
  };
  assert.equal(due(first.after, now, suspect).notices.length, 0);
  assert.equal(due(spoilt, now, suspect).notices.length, 1, "a time that cannot be read silences nothing");
});

Deno.test("what was told is read back, and what cannot be read counts as nothing told", () => {
  const told = new Map([["hook", { problems: { ship: { mark: "m", at: "t" } }, digestAt: "t" }]]);
  assert.deepEqual(parseTold(serializeTold(told)), told);
  for (const text of [undefined, "", "{", "[]", '{"hook":{}}']) assert.equal(parseTold(text).size, 0, text);
});

Deno.test("each event has its urgency and its address, and no message is empty or endless", () => {
  using hub = makeHub([
    { kind: "ntfy", url: "http://a/t" },
    { kind: "gotify", url: "http://a", tokenFile: "/t" },
    { kind: "ping", url: "http://a/p//" },
    { kind: "webhook", url: "http://a/w" },
  ]);
  const [ntfy, gotify, ping, webhook] = hub.config.notify as HttpNotifier[];
  const events = ["failure", "suspect", "recovery", "digest", "test", "start", "success"] as const;
  const notice = (event: typeof events[number], ...lines: string[]): Notice => ({
    event,
    hub: "home",
    at: "now",
    title: "home: x",
    lines,
    problems: [],
  });
  const sent = (notifier: HttpNotifier | undefined, ...of: Parameters<typeof notice>) =>
    requestOf(notifier!, (notifier as { url: string }).url, undefined, notice(...of));
  assert.equal(events.map((event) => sent(ntfy, event).headers.priority).join(), "4,4,3,2,3,1,1");
  assert.equal(events.map((event) => JSON.parse(sent(gotify, event).body).priority).join(), "8,8,5,3,5,0,1");
  assert.equal(
    events.map((event) => sent(ping, event).url.slice("http://a/p".length)).join(),
    "/fail,/fail,,/log,/log,/start,",
  );
  assert.equal(
    events.map((event) => sent(ntfy, event).headers.tags).join(),
    "rotating_light,warning,white_check_mark,bar_chart,wave,arrow_forward,white_check_mark",
  );
  for (const notifier of [ntfy, webhook]) {
    assert.equal("authorization" in sent(notifier, "test").headers, false, "without a token");
  }
  assert.deepEqual(JSON.parse(sent(gotify, "test").body).message, "home: x", "Gotify refuses an empty one");
  assert.equal(sent(ntfy, "failure", "x".repeat(4000)).body.length, 3500);
});

Deno.test("who could not be told is named, with the reasons unless people have read them", () => {
  const failed = [{ name: "a", reason: "Cannot notify a: it is away" }, { name: "b", reason: "no token" }];
  const said = (isTold: boolean) => untoldError({ sent: [], failed }, isTold)?.message;
  assert.equal(untoldError({ sent: [], failed: [] }, false), undefined);
  assert.equal(said(true), "Cannot notify a, b: see above");
  assert.equal(said(false), "Cannot notify a: it is away; b: no token");
});
