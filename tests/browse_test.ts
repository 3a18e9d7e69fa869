/** Looking through snapshots: on a terminal as a person does, and as a script does. */

import assert from "node:assert/strict";
import { cleanText } from "../scripts/core/format.ts";
import { patternOfPlace, placeMatcher } from "../scripts/core/globs.ts";
import type { Place } from "../scripts/core/place.ts";
import { compare, type Look } from "../scripts/core/sessions/comparison.ts";
import { titleOf } from "../scripts/core/sessions/session_summary.ts";
import { cliEnv, cliWords } from "./real/cli.ts";
import { filesBelow } from "./real/files.ts";
import { type Home, insertMessages, makeHome } from "./real/home.ts";
import { startPty } from "./real/pty.ts";

/** Clears the screen and names the window, in both ways to write an escape. */
const EVIL = "evil \u001b[2J\u001b]0;owned\u0007 \u009b2J name";

/** A home with two snapshots: between them session a goes, c comes, b changes, and so do files. */
async function makeTwo(): Promise<Home & { readonly ids: readonly [string, string] }> {
  const home = await makeHome();
  home.sql(`ALTER TABLE sessions ADD COLUMN metadata TEXT; ALTER TABLE sessions ADD COLUMN updated_at INTEGER;
    UPDATE sessions SET metadata = '${
    JSON.stringify({ name: EVIL })
  }', updated_at = 1772000000000 WHERE id = 'a'`);
  home.write(".hapi/owner-id.json", "{}");
  const first = await home.backup();
  home.sql(`DELETE FROM messages WHERE session = 'a'; DELETE FROM sessions WHERE id = 'a';
    INSERT INTO sessions (id, metadata) VALUES ('c', '{"summary":{"text":"new one"}}');
    INSERT INTO messages (session, body) VALUES ('b', 'x')`);
  home.write(".hapi/driver-status.json", "new");
  home.write(".hapi/hub.env", "CHANGED=1\n");
  Deno.removeSync(`${home.home}/.hapi/owner-id.json`);
  const second = await home.backup({ accept: true });
  return Object.assign(home, { ids: [first.id, second.id] as const });
}

/** `browse` on a terminal. */
function startBrowse(home: Home) {
  const env = { ...cliEnv(home.home), TZ: "UTC", NO_COLOR: "1" };
  return startPty(cliWords(["browse", "--identity", home.identityFile]), { cwd: home.dir, env });
}

Deno.test("browse: on a terminal, through sessions and files to one file restored, and what changed", async () => {
  using home = await makeTwo();
  const [first, second] = home.ids;
  await using pty = startBrowse(home);
  const answer = async (question: RegExp, keys: string) => {
    await pty.until(question);
    await pty.type(keys);
  };
  await answer(/Which snapshot\?[^]*to search/, `${first}\r`);
  await answer(/Sessions \(2\)/, "\r");
  await answer(/Which session\?[^]*evil[^]*300 messages[^]*to search/, "evil\r");
  await pty.until(new RegExp(`session restore a --snapshot ${first}`));
  await answer(/Which session\?[^]*to search/, "\x1b");
  await answer(/Files \(4\)[^]*Compare/, "\x1b[B\r");
  await answer(/Which file\?[^]*to search/, "hub.env\r");
  await answer(/into which new or empty folder/, "~/one\r");
  await pty.until(/restored to .*\/one\/home\/\.hapi\/hub\.env/);
  // The same again is refused, and the dialogue goes on.
  await answer(/Which file\?[^]*to search/, "hub.env\r");
  await answer(/into which new or empty folder/, "~/one\r");
  await pty.until(/hint: name a new folder/);
  await answer(/Which file\?[^]*to search/, "\x1b");
  await answer(/Files \(4\)[^]*Compare/, "\x1b[B\x1b[B\r");
  await answer(/Compare with which\?[^]*to search/, `${second}\r`);
  await pty.until(
    /- session evil [^]*rows of messages \(hapi\.db\): 300 → 1[^]*~ file home\/\.hapi\/hub\.env/,
  );
  await answer(/Sessions \(2\)[^]*Compare/, "\x1b");
  await answer(/Which snapshot\?[^]*to search/, "\x1b");
  const { code, text } = await pty.end();
  assert.equal(code, 0, text);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(text, /\x1b\]0;|\x1b\[2J|\x07|\x9b/);
  assert.deepEqual((await filesBelow(`${home.home}/one`)).map(([path]) => path), ["home/.hapi/hub.env"]);
  assert.equal(
    Deno.readTextFileSync(`${home.home}/one/home/.hapi/hub.env`),
    "ANTHROPIC_API_KEY=sk-ant-0123456789abcdefghij\n",
  );
  assert.deepEqual([...Deno.readDirSync(`${home.stateFolder}/scratch`)], [], "no rebuilt database is left");
});

Deno.test("browse: suspect snapshots are marked; Ctrl-C ends it from any question, just after Esc too", async () => {
  using home = await makeTwo();
  home.sql(insertMessages(300).replace("'a'", "'b'"));
  await home.backup();
  home.sql("DELETE FROM messages");
  const suspect = await home.backup();
  await home.backup({ accept: true });
  for (const keys of ["\x03", "\x1b\x03"]) {
    await using pty = startBrowse(home);
    await pty.until(new RegExp(`Which snapshot\\?[^]*○.*${suspect.id} {2}suspect[^]*to search`));
    await pty.type(`${home.ids[0]}\r`);
    await pty.until(/Sessions \(2\)[^]*Compare/);
    await pty.type(keys);
    await pty.until(/error: Cannot go on: interrupted/);
    assert.equal((await pty.end()).code, 1);
  }
});

Deno.test("compare and session list: for a person without control characters, for a script whole", async () => {
  using home = await makeTwo();
  const [first, second] = home.ids;
  const identity = ["--identity", home.identityFile];
  const shown = await home.cli(["compare", first, second, ...identity]);
  assert.equal(shown.code, 0, shown.stderr);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(shown.stdout, /[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
  assert.match(
    shown.stdout,
    /\+ session new one {2}c {2}0 messages\n {2}- session evil .* a {2}300 messages\n/,
  );
  const { ok, ...compared } = JSON.parse(
    (await home.cli(["compare", first, "latest", "--json", ...identity])).stdout,
  );
  assert.equal(ok, true);
  assert.deepEqual(compared, {
    from: first,
    to: second,
    sessions: {
      added: [{ id: "c", title: "new one", createdAt: null, updatedAt: null, messages: 0 }],
      removed: [{ id: "a", title: EVIL, createdAt: null, updatedAt: 1772000000000, messages: 300 }],
      changed: [{ id: "b", title: "b", messages: [0, 1] }],
    },
    rows: [{ database: "hapi.db", table: "messages", rows: [300, 1] }],
    files: {
      added: ["home/.hapi/driver-status.json"],
      removed: ["home/.hapi/owner-id.json"],
      changed: ["home/.hapi/hub.env"],
      unread: [],
    },
    unread: [],
  });
  const listed = await home.cli(["session", "list", "--snapshot", first, ...identity]);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(listed.stdout, /[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
  assert.match(listed.stdout, /^a +2026-02-25 06:13 +300 {2}evil /m);
  assert.deepEqual(listed.stdout.split("\n").filter((line) => line.length > 80), []);
  const piped = await home.cli(["browse", ...identity]);
  assert.equal(piped.code, 2);
  assert.match(piped.stderr, /that needs a terminal\nhint: for a script: list, session list, compare/);
});

Deno.test("compare() tells both ways alike, and of a snapshot and itself nothing", () => {
  const file = (place: string, sha256: string, mode = 0o600) => ({ place, type: "file", sha256, mode });
  const session = (id: string, messages: number, updatedAt = 1) => ({
    id,
    title: id,
    createdAt: 0,
    updatedAt,
    messages,
  });
  const look = (id: string, rows: object, files: unknown[], sessions: unknown[]) =>
    ({
      manifest: {
        id,
        databases: [{ source: "hapi.db", rows }],
        files,
        sources: [],
        removed: [],
        suspicions: [],
      },
      sessions,
    }) as unknown as Look;
  const a = look("A", { t: 1, gone: 2 }, [file("f", "1"), file("m", "1"), file("x", "1")], [
    session("s", 1),
    session("same", 5),
    session("old", 1),
  ]);
  const b = look("B", { t: 2, come: 0 }, [file("f", "2"), file("m", "1", 0o640), file("y", "1")], [
    session("s", 1, 2),
    session("same", 5),
    session("new", 1),
  ]);
  const there = compare(a, b);
  const back = compare(b, a);
  assert.deepEqual(there.rows.map(({ table, rows }) => [table, ...rows]), [["t", 1, 2], ["gone", 2, null], [
    "come",
    null,
    0,
  ]]);
  assert.deepEqual([there.files.added, there.files.removed, there.files.changed], [["y"], ["x"], ["f", "m"]]);
  assert.deepEqual(there.sessions.changed.map(({ id }) => id), ["s"]);
  assert.deepEqual([there.sessions.added, there.sessions.removed], [
    back.sessions.removed,
    back.sessions.added,
  ]);
  assert.deepEqual([there.files.added, there.files.removed], [back.files.removed, back.files.added]);
  const { sessions, rows, files, unread } = compare(a, a);
  assert.deepEqual(
    [...Object.values(sessions), rows, ...Object.values(files), unread].flat(),
    [],
  );
});

Deno.test("a session has the title that the hub shows, whatever is in its row", () => {
  const title = (metadata: unknown, tag: unknown = null) =>
    titleOf({
      id: "0123456789",
      metadata: typeof metadata === "string" ? metadata : JSON.stringify(metadata),
      tag,
    });
  assert.equal(title({ name: " mine ", summary: { text: "s" }, path: "/a/b" }), "mine");
  assert.equal(title({ name: " ", summary: { text: "s" }, path: "/a/b" }), "s");
  assert.equal(title({ path: "/a/b/" }), "b");
  assert.equal(title({}, "tag"), "tag");
  for (const odd of ["not JSON", "null", "[]", '"text"', { name: 5, summary: "text", path: {} }]) {
    assert.equal(title(odd), "01234567");
  }
});

Deno.test("text from outside is shown as one line without control characters", () => {
  assert.equal(cleanText("a\u001b[31mb\r\nc\u0085\u2028d\u202ee\u2066f\u0000g"), "a [31mb c def g");
  assert.equal(cleanText("é 漢字 👩‍👩‍👧"), "é 漢字 👩‍👩‍👧");
  assert.equal(cleanText("x".repeat(90)).length, 80);
});

Deno.test("the pattern of a place means this place and no other", () => {
  const pairs = [
    ["home/a*", "home/ab"],
    ["home/[b]", "home/b"],
    ["home/{c,d}", "home/c"],
    ["home/?", "home/x"],
    ["home/!(e)", "home/f"],
    ["home/+(g)", "home/gg"],
    ["home/a\\*", "home/a*"],
    ["home/**", "home/x/y"],
    ["home/$^|' é", "home/"],
  ] as [Place, Place][];
  for (const [place, other] of pairs) {
    const matches = placeMatcher([patternOfPlace(place)]);
    assert.deepEqual([matches(place), matches(other)], [true, false], place);
  }
});

Deno.test("a pattern means what it matches, hidden or not, and all that lies in it; of several, any may", () => {
  const places = ["home/.hapi/hapi.db", "home/.hapi/a/.b/c", "home/x", "home/xy", "root/x"] as Place[];
  const chosen = (...patterns: string[]) =>
    places.flatMap((place, at) => placeMatcher(patterns)(place) ? [at] : []);
  for (
    const [pattern, expected] of [
      ["home/**", [0, 1, 2, 3]],
      ["home/*", [0, 1, 2, 3]],
      ["home", [0, 1, 2, 3]],
      ["home/.hapi//", [0, 1]],
      ["home/.hapi/a/", [1]],
      ["home/*/hapi.db", [0]],
      ["**/c", [1]],
      ["home/x", [2]],
      ["x", []],
      ["*/x", [2, 4]],
    ] as const
  ) assert.deepEqual(chosen(pattern), expected, pattern);
  assert.deepEqual(chosen("home/x", "home/.hapi/a"), [1, 2]);
  assert.deepEqual(chosen(), []);
  assert.throws(() => chosen("/"), { kind: "usage", message: /^Cannot use pattern "\/": / });
});
