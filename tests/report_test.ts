/** The report: seven weeks of real runs, and a first day, in a real browser. `SCREENSHOTS=folder` keeps what it saw. */

import assert from "node:assert/strict";
import axe from "npm:axe-core@4.14.1";
import { shipFolder } from "../scripts/core/config/state_paths.ts";
import { markup } from "../scripts/core/html.ts";
import { snapshotIdAt } from "../scripts/core/names.ts";
import { badDays, type CalendarEvent, calendarOf } from "../scripts/core/report/calendar.ts";
import { historyOf } from "../scripts/core/report/history.ts";
import { reportPage } from "../scripts/core/report/report_page.ts";
import { HOUR_MS } from "../scripts/core/time.ts";
import { addDays, firstOfMonth, makeZone } from "../scripts/core/zone.ts";
import { writeReport } from "../scripts/host/command_line/report_file.ts";
import { makeHost } from "../scripts/host/steps/step.ts";
import { report } from "../scripts/report.ts";
import { type Page, startBrowser, type View } from "./real/browser.ts";
import { makePastHome } from "./real/history.ts";
import { countMessages, makeHome } from "./real/home.ts";

const BERLIN = "Europe/Berlin";
const VIEWS: readonly View[] = [
  { width: 390, scheme: "light" },
  { width: 390, scheme: "dark" },
  { width: 1280, scheme: "light" },
  { width: 1280, scheme: "dark" },
];

const FEW_VIEWS = [VIEWS[0]!, VIEWS[3]!];

/** Serves a page on loopback and counts what is asked for. */
function serve(html: string) {
  const asked: string[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    asked.push(new URL(request.url).pathname);
    return new Response(html, { headers: { "content-type": "text/html" } });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}/report`,
    asked,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

/** Looks at a page in these views: it fits, loads nothing, complains of nothing, and axe finds nothing. */
async function requireSound(page: Page, html: string, name: string, views = VIEWS): Promise<void> {
  await using server = serve(html);
  const backgrounds = new Set<unknown>();
  for (const view of views) {
    const seen = `${name} in ${view.scheme} at ${view.width}`;
    await page.open(server.url, view);
    const folder = Deno.env.get("SCREENSHOTS");
    if (folder) Deno.writeFileSync(`${folder}/${seen.replaceAll(" ", "-")}.png`, await page.screenshot());
    assert.equal(await page.evaluate("document.documentElement.scrollWidth"), view.width, seen);
    backgrounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"));
    await page.evaluate("document.querySelectorAll('details').forEach((details) => details.open = true)");
    await page.evaluate(axe.source);
    const violations = await page.evaluate(
      "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))",
    );
    assert.deepEqual(violations, [], seen);
    assert.deepEqual(page.complaints, [], seen);
    assert.ok(page.requests.every((url) => url === server.url || url.startsWith("data:")), seen);
  }
  assert.equal(backgrounds.size, 2, "light and dark differ");
  assert.deepEqual(server.asked, views.map(() => "/report"));
}

Deno.test("the report of seven weeks shows what was good, suspect, failed and missing, and fits every screen", async () => {
  using past = await makePastHome();
  const { home } = past;
  home.now = new Date(home.now.getTime() + 3 * HOUR_MS);
  const html = report(home.host, home.config(), BERLIN);
  await using page = await startBrowser();
  await requireSound(page, html, "seven weeks");

  const ask = (expression: string) => page.evaluate(expression);
  const days = await ask(
    `Object.fromEntries([...document.querySelectorAll("#set-state ~ .card .month .day:not(.unknown)")]
    .filter((day) => day.className !== "day good")
    .map((day) => [day.title.slice(0, day.title.indexOf(":")), [day.className, day.textContent]]))`,
  );
  assert.deepEqual(days, {
    "Thu 15 Oct": ["day failed", "×15 failed: every run ended with an error"],
    "Thu 22 Oct": ["day missing", "–22 missing: nothing ran, though it was due"],
    "Fri 23 Oct": ["day missing", "–23 missing: nothing ran, though it was due"],
    "Thu 5 Nov": ["day suspect", "?5 suspect: stored, but does not count as good"],
    "Mon 16 Nov": ["day good marred", "16 good, though a run failed"],
    "Tue 24 Nov": ["day good today", "24 good, today"],
  });
  const texts = async (selector: string) =>
    await ask(
      `[...document.querySelectorAll(${JSON.stringify(selector)})].map((it) => it.innerText)`,
    ) as string[];
  const bad = await texts("#set-state ~ .card .look li");
  assert.match(bad[0]!, /^Mon 16 Nov a run failed\nCannot back up database .*: there is no such file$/);
  assert.match(
    bad[1]!,
    /^Thu 5 Nov suspect\nhapi\.db: messages has \d+ rows where the last good snapshot had \d+/,
  );
  assert.equal(bad[2], "22 Oct to 23 Oct missing\nno run");

  assert.equal((await texts("h1"))[0], "Backups of home");
  assert.equal(
    (await texts("header p"))[0],
    "As of 24 Nov 2026, 21:00 CET. All times are those of Europe/Berlin.",
  );
  assert.equal((await texts(".verdict h2"))[0]!.trim().split("\n").at(-1), "One thing needs attention");
  assert.deepEqual(await texts(".tiles dd:nth-of-type(1)"), [
    "3 h ago",
    "all but 1",
    "2 days ago",
    "4 days ago",
  ]);

  const [sessions, messages] = await texts("#set-state ~ .charts figcaption b");
  assert.equal(sessions, "19", "2 at first, and one every third day but for those when it was off");
  assert.equal(messages!.replace(",", ""), String(countMessages(home.database)));
  const stored = await ask(`[...document.querySelectorAll("#set-state ~ figure svg rect.part")].length`);
  assert.equal(stored, 60);
  assert.match(
    (await texts("#set-state ~ figure figcaption"))[0]!,
    /60 runs stored [\d.]+ MB; fulls would have been [\d.]+ MB, [\d.]+ times as much/,
  );

  assert.match(
    (await texts("#set-voice ~ figure figcaption"))[0]!,
    /7 runs stored .* times as much/,
    "a weekly set is not stored whole each week",
  );

  const waiting = await texts("#shipping ~ .card .rows tr");
  assert.match(waiting[1]!, /^nas\s+folder, set state\s+24 Nov 2026, 18:00\s+none$/);
  assert.match(waiting[3]!, /^attic\s+folder, set state\s+24 Nov 2026, 06:00\s+1$/);
  const shipping = await ask(
    `[...document.querySelectorAll("#shipping ~ .card .day.failed")].map((day) => day.title)`,
  ) as string[];
  assert.match(shipping[0]!, /^Fri 30 Oct: 2 failed; Cannot call it off this machine: attic/);
  const drills = await texts("#proofs ~ .pair .card:first-child tbody tr");
  assert.equal(drills.length, 7);
  assert.match(
    drills[0]!,
    /^22 Nov 2026, 19:00\s+state, 22 Nov 2026, 18:00\s+from the local store\s+proven\s+in 7 s$/,
  );
  assert.match(drills[6]!, /FAILED/);
  assert.match((await texts("#storage ~ .card"))[0]!, /state .* in 29 snapshots/);

  await past.ship();
  assert.match(report(home.host, home.config(), BERLIN), /All is well/, "once the disk is back");

  await using server = serve(html);
  await page.open(server.url, { width: 794, scheme: "dark", media: "print" });
  const colourOf = (selector: string) => ask(`getComputedStyle(document.querySelector("${selector}")).color`);
  assert.equal(await colourOf("h1"), "rgb(0, 0, 0)", "black on white on paper");
  assert.equal(await colourOf("header p"), "rgb(89, 98, 108)");
  assert.equal(await ask("document.documentElement.scrollWidth"), 794);
});

Deno.test("where TZ is empty or names no zone, the report's times are UTC", async () => {
  using home = await makeHome();
  for (const [TZ, zone] of [["", "UTC"], ["Nowhere/Land", "UTC"], [BERLIN, BERLIN]] as const) {
    const { code, stdout, stderr } = await home.cli(["report", "--html", "-"], { env: { TZ } });
    assert.equal(code, 0, stderr);
    assert.equal(/All times are those of (.*)\.<\/p>/.exec(stdout)?.[1], zone, TZ);
  }
});

Deno.test("a hub's first day: the report of nothing, by the command line, then of one backup", async () => {
  using home = await makeHome();
  const file = `${home.dir}/report.html`;
  const first = await home.cli(["report", "--html", file], { env: { TZ: BERLIN } });
  assert.equal(first.code, 0, first.stderr);
  assert.equal(first.stdout, `wrote ${file}\n`);
  assert.equal(Deno.statSync(file).mode! & 0o777, 0o600);
  await using page = await startBrowser();
  const html = Deno.readTextFileSync(file);
  await requireSound(page, html, "first day", FEW_VIEWS);
  const words = await page.evaluate("document.body.innerText") as string;
  assert.match(words, /Set state has no good snapshot/);
  assert.match(words, /Nothing was taken yet/);
  assert.match(words, /Nothing is off this machine: no destination is configured/);
  assert.doesNotMatch(words, /undefined|NaN|Infinity|\[object/);

  assert.equal((await home.cli(["backup", "--no-ship"])).code, 0);
  Deno.chmodSync(file, 0o644);
  const second = await home.cli(["report", "--html", "report.html", "--json"], { env: { TZ: BERLIN } });
  assert.deepEqual(JSON.parse(second.stdout), { ok: true, file });
  assert.equal(Deno.statSync(file).mode! & 0o777, 0o644, "the mode of the one that is replaced");
  const after = Deno.readTextFileSync(file);
  await requireSound(page, after, "second day", FEW_VIEWS);
  const now = await page.evaluate("document.body.innerText") as string;
  assert.match(now, /Messages 300/, "counted by the run, and told in its log");
  assert.match(now, /One run stored .* in fulls only/);
  assert.match(
    now,
    /3 things need attention\s+Nothing is off this machine/,
    "no run failed, and yet not all is well",
  );
  assert.doesNotMatch(now, /undefined|NaN|Infinity|\[object/);
  const printed = await home.cli(["report", "--html", "-"]);
  assert.match(printed.stdout, /^<!doctype html>/);
  const none = await home.cli(["report"]);
  assert.equal(none.code, 2);
  assert.match(none.stderr, /--html/);
});

Deno.test("hostile words in logs stay words", async () => {
  using home = await makeHome();
  const attacks = [
    `<script>document.title = "hacked"</script>`,
    `"><img src="http://127.0.0.1:9/x" onerror="document.title = 'hacked'">`,
    `' onmouseover='document.title = "hacked"' style='background:url(http://127.0.0.1:9/y)'`,
    "</style></title></svg><svg onload=document.title=1>&lt;b&gt;\u202egnp\u0007",
  ];
  await home.backup();
  const at = home.now.toISOString();
  const lines = (records: readonly unknown[]) =>
    records.map((record) => JSON.stringify(record) + "\n").join("");
  const id = snapshotIdAt(new Date(home.now.getTime() - HOUR_MS));
  // Of these no calendar can be made: they are passed over.
  const times = ["0000-01-01T00:00:00Z", "+275760-09-13T00:00:00Z", "soon", ""];
  home.write(
    "store/home/.runs/state.jsonl",
    lines(times.map((at) => ({ at, seconds: 1, verb: "backup", set: "state", ok: true }))) +
      lines(attacks.flatMap((attack) => [
        {
          at,
          seconds: 1,
          verb: "backup",
          set: "state",
          ok: false,
          kind: attack,
          message: attack,
          hint: attack,
        },
        { at, seconds: 1, verb: "backup", set: "state", ok: true, snapshot: id, suspicions: [attack] },
        { at, seconds: 1, verb: "backup", set: "state", ok: true, snapshot: attack },
      ])),
  );
  home.write(
    "state/ship/runs.jsonl",
    lines(attacks.map((message) => ({ at, seconds: 1, verb: "ship", ok: false, message }))),
  );
  home.write(
    "state/drills.jsonl",
    lines([
      ...times.map((at) => ({ at, store: "s", set: "state", snapshot: id, ok: true, seconds: 1 })),
      ...attacks.map((store) => ({ at, store, set: "state", snapshot: id, ok: false, seconds: 1 })),
    ]),
  );
  home.write(
    "state/proofs.jsonl",
    lines(
      [...times, at].flatMap((at) =>
        attacks.map((store) => ({ at, store, recipients: [store], ok: false, chains: 1, failed: [store] }))
      ),
    ),
  );
  const html = report(home.host, home.config(), BERLIN);
  await using server = serve(html);
  await using page = await startBrowser();
  await page.open(server.url, { width: 390, scheme: "light" });
  assert.deepEqual(page.complaints, [], "nothing was even tried, so that nothing had to be refused");
  assert.deepEqual(server.asked, ["/report"]);
  assert.match(String(await page.evaluate("document.title")), /^Backups of home/);
  assert.equal(
    await page.evaluate(
      "document.querySelectorAll('script, img, [onload], [onerror], [onmouseover]').length",
    ),
    0,
  );
  const words = await page.evaluate("document.body.innerText") as string;
  for (const attack of attacks.slice(0, 3)) assert.ok(words.includes(attack), attack);
  assert.ok(words.includes("<svg onload=document.title=1>&lt;b&gt;\ufffdgnp\ufffd"));
  assert.equal(await page.evaluate("document.documentElement.scrollWidth"), 390);
  // And were a word not escaped one day, the page's own policy would still stop it.
  const refused = await page.evaluate(`new Promise((resolve) => {
    const refused = new Set();
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective }) => {
      if (refused.add(effectiveDirective).size === 2) resolve([...refused].sort());
    });
    document.body.insertAdjacentHTML("beforeend", '<img src="/z" onerror="document.title = 1">');
  })`);
  assert.deepEqual(refused, ["img-src", "script-src-attr"]);
  assert.deepEqual(server.asked, ["/report"]);
});

Deno.test("what only this machine's own disk holds is not called off this machine", async () => {
  using home = await makeHome();
  const page = async () => {
    const { code, stdout, stderr } = await home.cli(["report", "--html", "-"]);
    assert.equal(code, 0, stderr);
    return stdout.replace(/<style>.*?<\/style>/s, "").replace(/<[^>]*>/g, " ").replace(/\s+/g, " ");
  };
  home.configure({ destinations: [{ kind: "folder", name: "usb", path: `${home.dir}/usb` }] });
  Deno.mkdirSync(`${home.dir}/usb`);
  assert.equal((await home.cli(["backup"])).code, 4);
  const words = await page();
  assert.match(words, /Off this machine nothing only its own disk holds anything \(usb\) /);
  assert.match(words, /usb folder, set state \d[^:]*:\d\d on this machine&#39;s own disk none/);
  // Nor when no run tells of it any more.
  Deno.removeSync(`${shipFolder(home.stateFolder)}/runs.jsonl`);
  assert.match(await page(), /Nothing is off this machine: only its own disk holds anything \(usb\)/);
});

Deno.test("what a storage host says of itself is shown, problems and all", () => {
  const taken = snapshotIdAt(new Date("2026-11-24T05:00:00Z"));
  const state = { set: "state", newest: taken, waiting: 0 };
  const receipt = {
    time: new Date("2026-11-24T06:00:00Z"),
    verified: taken,
    problems: ["hapi.db <is> damaged"],
  };
  const set = { name: "state", newest: taken, stale: false, maxAgeHours: 26, moments: [], days: [] };
  const page = reportPage({
    hub: "home",
    at: new Date("2026-11-24T06:00:00Z"),
    zone: makeZone(BERLIN),
    program: "test",
    problems: [],
    sets: [{ ...set, local: { snapshots: 1, fullBytes: 1, otherBytes: 0 } }],
    destinations: [
      { name: "storage", kind: "rsync", offBox: true, sets: [{ ...state, receipt }] },
      { name: "disk", kind: "folder", offBox: true, sets: [{ ...state, receipt: undefined }] },
    ],
    shipping: [],
    drills: [],
    proofs: [],
    proofMaxAgeDays: 180,
    freeBytes: undefined,
  });
  const words = page.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ");
  assert.match(words, /storage rsync, set state 24 Nov 2026, 06:00 verified there up to 24 Nov 2026, 06:00 /);
  assert.match(words, /, as it said on 24 Nov 2026, 07:00 hapi\.db &#60;is&#62; damaged none/);
  assert.match(words, /disk folder, set state 24 Nov 2026, 06:00 none/);
});

Deno.test("markup escapes every piece but markup", () => {
  const inner = markup`<b title="${`"'<&`}">${"<i>"}</b>`;
  assert.equal(inner.text, `<b title="&#34;&#39;&#60;&#38;">&#60;i&#62;</b>`);
  assert.equal(markup`${[inner, undefined, false, 3]}`.text, `${inner.text}3`);
});

Deno.test("a report replaces a report and nothing else", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const { fs } = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
    const page = markup`x`.text;
    const mine = `${folder}/mine.html`;
    Deno.writeTextFileSync(mine, "<!doctype html><title>mine</title>");
    Deno.symlinkSync(mine, `${folder}/link.html`);
    Deno.symlinkSync(`${folder}/nothing`, `${folder}/dangling.html`);
    Deno.mkdirSync(`${folder}/folder.html`);
    new Deno.Command("mkfifo", { args: [`${folder}/pipe.html`] }).outputSync();
    for (
      const [name, state] of [
        ["mine", /the file there is no report/],
        ["link", /there is a link/],
        ["dangling", /there is a link/],
        ["folder", /there is a folder/],
        ["pipe", /there is a socket, pipe or device/],
      ] as const
    ) {
      assert.throws(() => writeReport(fs, `${folder}/${name}.html`, page), { kind: "usage", message: state });
    }
    assert.equal(Deno.readTextFileSync(mine), "<!doctype html><title>mine</title>");
    assert.throws(() => Deno.statSync(`${folder}/nothing`), Deno.errors.NotFound);
    for (const name of ["no/such.html", "mine.html/such.html"]) {
      const hint = "check that path: a folder of it is not there";
      assert.throws(() => writeReport(fs, `${folder}/${name}`, page), { kind: "disk", hint });
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

/** Runs at these times of UTC that ended so. */
const events = (outcome: CalendarEvent["outcome"], ...times: readonly string[]): CalendarEvent[] =>
  times.map((time) => ({ time: new Date(time), outcome, troubles: outcome === "good" ? [] : [outcome] }));

Deno.test("a day is missing only when something was due by its end, and today only once it is", () => {
  const zone = makeZone(BERLIN);
  const taken = events("good", "2026-11-20T05:00:00Z", "2026-11-20T17:00:00Z", "2026-11-22T22:30:00Z");
  const states = (maxAgeHours: number, now: string) =>
    calendarOf(taken, maxAgeHours, new Date(now), zone, "2026-01-01").map(({ state }) => state);
  assert.deepEqual(states(26, "2026-11-23T12:00:00Z"), ["good", "missing", "good", "quiet"]);
  assert.deepEqual(states(26, "2026-11-24T00:31:00Z"), ["good", "missing", "good", "quiet", "missing"]);
  assert.deepEqual(states(8 * 24, "2026-11-24T00:31:00Z"), ["good", "quiet", "good", "quiet", "quiet"]);
  assert.deepEqual(calendarOf([], 26, new Date(), zone, "2026-01-01"), []);
  const late = calendarOf(taken, 26, new Date("2026-11-23T12:00:00Z"), zone, "2026-11-21");
  assert.deepEqual(
    [late[0]!.day, late[0]!.state],
    ["2026-11-21", "missing"],
    "what came before still counts",
  );
});

Deno.test("a suspect snapshot marks its day though another was good, and does not count as new", () => {
  const zone = makeZone("UTC");
  const runs = [
    ...events("good", "2026-11-20T06:00:00Z", "2026-11-24T06:00:00Z"),
    ...events("suspect", "2026-11-20T18:00:00Z", "2026-11-21T18:00:00Z"),
    ...events("failed", "2026-11-23T06:00:00Z", "2026-11-24T18:00:00Z"),
  ];
  const days = calendarOf(runs, 36, new Date("2026-11-24T20:00:00Z"), zone, "2026-01-01");
  assert.deepEqual(days.map(({ state }) => state), ["suspect", "suspect", "missing", "failed", "good"]);
  assert.deepEqual(
    badDays(days).map(({ first, last, state }) => [first, last, state]),
    [
      ["2026-11-24", "2026-11-24", "good"],
      ["2026-11-23", "2026-11-23", "failed"],
      ["2026-11-22", "2026-11-22", "missing"],
      ["2026-11-20", "2026-11-21", "suspect"],
    ],
  );
});

Deno.test("days begin where the zone's clock says so, across every change of it", () => {
  const berlin = makeZone(BERLIN);
  assert.equal(berlin.dayOf(new Date("0000-01-01T00:00:00Z")), "1970-01-02");
  assert.match(berlin.minute(new Date("9999-12-31T23:59:59Z")), /^30 Dec 9999, /);
  for (const name of [BERLIN, "America/Santiago", "Asia/Beirut", "Africa/Cairo", "UTC", "Pacific/Auckland"]) {
    const zone = makeZone(name);
    for (let day = "2026-01-01"; day < "2027-01-01"; day = addDays(day, 1)) {
      const start = zone.startOf(day);
      assert.equal(zone.dayOf(start), day, name);
      assert.notEqual(zone.dayOf(new Date(start.getTime() - 1)), day, name);
    }
    assert.equal(firstOfMonth("2026-03-31", 5), "2025-10-01");
  }
});

Deno.test("what a full would have stored goes by the last full and the database's growth, in seals or in the log", () => {
  const run = (
    snapshot: string,
    snapshotKind: "full" | "increment",
    bytes: number,
    databaseBytes: number,
  ) => ({
    at: "2026-11-24T06:00:00Z",
    seconds: 1,
    verb: "backup" as const,
    ok: true,
    snapshot,
    snapshotKind,
    bytes,
    content: { databaseBytes, rows: 1 },
  });
  const log = [
    run("20261120T060000Z", "increment", 10, 1000),
    run("20261121T060000Z", "full", 600, 1000),
    run("20261122T060000Z", "increment", 30, 1500),
  ];
  const seal = {
    id: "20261123T060000Z",
    kind: "increment",
    parts: [{ bytes: 5 }, { bytes: 6 }],
    suspicions: [{ code: "empty", source: "hapi.db" }],
  };
  const now = new Date("2026-11-24T06:00:00Z");
  const history = historyOf([seal as never], [...log, { ...log[0]!, snapshot: "not an id" }], now);
  assert.deepEqual(history.map(({ bytes, fullBytes }) => [bytes, fullBytes]), [
    [10, undefined],
    [600, 600],
    [30, 900],
    [11, 600],
  ]);
  assert.deepEqual(history[3]!.suspicions, ["hapi.db: empty"]);
  const ahead = { ...log[1]!, snapshot: "20991121T060000Z" };
  assert.deepEqual(historyOf([seal as never], [...log, ahead], now), history, "a clock that was ahead");
});
