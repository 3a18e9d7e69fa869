/**
 * Makes a frozen vector: small stores with everything that the format knows, their identities, and what each snapshot
 * gives back. Run once for each format version, and committed; `tests/vectors_test.ts` restores it ever after.
 *
 *     deno run -A tests/vectors/make.ts tests/vectors/format-2
 *
 * @module
 */

import { generateIdentity } from "../../scripts/host/keys/identity.ts";
import { copySync } from "../real/files.ts";
import { fillDatabase, type Home, makeHome } from "../real/home.ts";
import { restoreVector } from "./restored.ts";

const SOURCES = [
  { kind: "sqlite", path: "~/.hapi/hapi.db", required: true },
  { kind: "file", path: "~/.hapi/hub.env", secret: true },
  { kind: "glob", path: "~/.hapi/*.json", secret: true },
  { kind: "folder", path: "~/notes", exclude: ["**/*.tmp"] },
];

/** More text than random bytes: a vector is to be small. */
const insert = (count: number): string =>
  `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
   INSERT INTO messages (session, body) SELECT 'b', 'message ' || hex(randomblob(6)) || ' of the build log' FROM n;`;

const [target] = Deno.args;
if (target === undefined) {
  console.error("usage: deno run -A tests/vectors/make.ts tests/vectors/format-2");
  Deno.exit(2);
}
Deno.mkdirSync(target);
using home = await makeHome();
const second = await generateIdentity();
const quantum = await generateIdentity("hybrid");
Deno.writeTextFileSync(
  `${target}/identity.txt`,
  `# Of a test. Nothing real was ever encrypted to these.\n${Deno.readTextFileSync(home.identityFile)}` +
    `${second.identity}\n${quantum.identity}\n`,
);

Deno.removeSync(home.database);
fillDatabase(home.database, 0);
home.sql(insert(200));
fillDatabase(`${home.home}/.hapi/pages.db`, 150);
makeNotes(home);
const sets = {
  state: { fullOverRatio: 1, sources: SOURCES },
  pages: { fullOverRatio: 1, keepBase: false, sources: [{ kind: "sqlite", path: "~/.hapi/pages.db" }] },
};
home.configure({ recipients: [home.recipient, second.recipient], sets });
await liveWithState(home);
await liveWithPages(home);
home.configure({
  ...{ hub: "quantum", recipients: [quantum.recipient], sets: { state: sets.state } },
  stateFolder: `${home.home}/state-of-quantum`,
});
home.write("notes/first", "encrypted to a post-quantum recipient");
await home.backup();
home.sql(insert(3));
await home.backup();

copySync(home.store, `${target}/store`);
const expected = await restoreVector(target);
Deno.writeTextFileSync(`${target}/expected.json`, `${JSON.stringify(expected, null, 1)}\n`);
for (const [name, { kind, suspicions }] of Object.entries(expected)) {
  console.log(name, kind, suspicions.join());
}

/** Files of every kind, with names of every kind. */
function makeNotes(home: Home): void {
  const notes = `${home.home}/notes`;
  home.write("notes/é 漢字 🙂.md", "names that are not ASCII");
  home.write("notes/-rf *?[x]{y}\\ 'quoted' \n and broken", "names that a shell would stumble over");
  home.write(`notes/${"long ".repeat(48)}`, "a long name");
  home.write("notes/a folder/deeper/still.md", "deep", 0o640);
  home.write("notes/script.sh", "#!/bin/sh\n", 0o755);
  home.write("notes/read only", "read only", 0o400);
  home.write("notes/empty file", "");
  home.write("notes/same content", "-rf", 0o644);
  home.write("notes/same content again", "-rf", 0o600);
  home.write("notes/left out.tmp", "excluded");
  home.write("notes/will be renamed", "renamed later: its bytes stay in the first snapshot");
  home.write("notes/will be removed", "removed later");
  Deno.mkdirSync(`${notes}/empty folder`, { mode: 0o700 });
  Deno.symlinkSync("a folder/deeper", `${notes}/link to a folder`);
  Deno.symlinkSync("/nowhere/é", `${notes}/link to nowhere`);
  using sparse = Deno.openSync(`${notes}/sparse`, { write: true, create: true });
  sparse.writeSync(new TextEncoder().encode("start"));
  sparse.truncateSync(1 << 20);
  Deno.utimeSync(`${notes}/same content`, new Date("1969-07-20T20:17:40Z"), new Date("1969-07-20T20:17:40Z"));
  Deno.utimeSync(`${notes}/empty folder`, new Date("2001-09-09T01:46:40Z"), new Date("2001-09-09T01:46:40Z"));
}

/** A full, a chain on it, a suspect snapshot, what was good afterwards, and another chain. */
async function liveWithState(home: Home): Promise<void> {
  const notes = `${home.home}/notes`;
  await home.backup();

  home.sql(insert(5));
  Deno.renameSync(`${notes}/will be renamed`, `${notes}/renamed é`);
  Deno.removeSync(`${notes}/will be removed`);
  home.write("notes/script.sh", "#!/bin/sh\nexit 0\n", 0o755);
  home.write(".hapi/hub.env", "ANTHROPIC_API_KEY=sk-ant-another-key-0123456789\n");
  await home.backup();

  await home.backup();

  home.sql("UPDATE sessions SET data = 'é 漢字'; DELETE FROM messages WHERE id % 20 = 0");
  Deno.removeSync(`${notes}/link to a folder`);
  home.write("notes/link to a folder/now it is one", "x");
  await home.backup();

  home.sql("CREATE TABLE migrated (id INTEGER PRIMARY KEY, note TEXT); PRAGMA user_version = 27; VACUUM");
  await home.backup();

  home.sql("DELETE FROM messages");
  await home.backup();

  home.sql(insert(190));
  Deno.removeSync(`${notes}/a folder`, { recursive: true });
  await home.backup();

  await home.backup({ full: true });
  home.sql(insert(2));
  await home.backup();
}

/** A database of which only page checksums are kept: whole pages are stored. */
async function liveWithPages(home: Home): Promise<void> {
  const change = (sql: string) => {
    home.sql(`ATTACH '${`${home.home}/.hapi/pages.db`.replaceAll("'", "''")}' AS pages; ${sql}`);
  };
  await home.backup({ set: "pages" });
  change("INSERT INTO pages.messages (session, body) VALUES ('a', 'one')");
  await home.backup({ set: "pages" });
  change("DELETE FROM pages.messages WHERE id > 145; UPDATE pages.sessions SET data = 'x'");
  await home.backup({ set: "pages" });
}
