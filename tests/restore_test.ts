/** Getting snapshots back: into a folder, in place, and what must not happen on the way. */

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describeRestore, type RestoredInPlace } from "../scripts/core/command_line/reports.ts";
import { type SnapshotId, snapshotIdAt } from "../scripts/core/names.ts";
import { parentOf } from "../scripts/core/paths.ts";
import type { SavedFile } from "../scripts/core/snapshot/manifest.ts";
import { chooseSnapshot } from "../scripts/core/snapshot/select.ts";
import { realFs, removeRestored } from "../scripts/host/fs.ts";
import type { Fs } from "../scripts/host/host.ts";
import { asideStamp } from "../scripts/host/restore/moves.ts";
import { openManifest, openSeal } from "../scripts/host/restore/open_snapshot.ts";
import { makeScratch } from "../scripts/host/scratch.ts";
import { requireFree, requireRoom } from "../scripts/host/space.ts";
import { findSets, isSealed, readSet } from "../scripts/host/store/store.ts";
import { bySnapshot, restore, restoreInPlace } from "../scripts/restore.ts";
import { verify } from "../scripts/verify.ts";
import { copySync, filesBelow, namesIn } from "./real/files.ts";
import { forge } from "./real/forge.ts";
import {
  countMessages,
  type Home,
  insertMessages,
  makeHome,
  mountTmpfs,
  ONLY_AS_ROOT,
  output,
} from "./real/home.ts";

/** What a restore in place adds to names, in local time, at the first moment of a home's clock. */
const STAMP = asideStamp(new Date("2026-03-01T12:00:00Z"));

const inPlace = async (home: Home, id: SnapshotId, fs: Fs = home.host.fs, only?: string[]) =>
  await restoreInPlace(await home.opening({ host: { ...home.host, fs } }), home.config(), id, only);

/** Everything below the home but what the steps keep for themselves. */
const liveFiles = async (home: Home) =>
  (await filesBelow(home.home)).filter(([path]) => !/^(state|store)\//.test(path));

/** A home with a snapshot, after which the live files went on: what a restore in place is for. */
async function makeChanged(): Promise<{ home: Home; id: SnapshotId; saved: [string, string][] }> {
  const home = await makeHome();
  home.write(".hapi/scratchlist-attachments/é/a.txt", "an attachment");
  home.write(".hapi/scratchlist-attachments/\x1b[2Jcleared", "of one who would drive a terminal");
  home.write("coding/hapi/docs/plans/one.md", "a plan");
  const { id } = await home.backup();
  const saved = await liveFiles(home);
  home.sql(insertMessages(500));
  home.write(".hapi/hub.env", "changed\n");
  Deno.removeSync(`${home.home}/.hapi/scratchlist-attachments`, { recursive: true });
  Deno.removeSync(`${home.home}/coding`, { recursive: true });
  // As a hub leaves them that was killed.
  home.write(".hapi/hapi.db-wal", "a stale wal");
  home.write(".hapi/hapi.db-shm", "a stale shm");
  return { home, id, saved };
}

Deno.test("a copy of a hub's folder is read whatever it is called: its newest readable seal says whose it is", async () => {
  using home = await makeHome();
  await home.backup();
  const { id } = await home.backup();
  const copy = `${home.dir}/My Stick`;
  copySync(`${home.store}/home`, copy);
  const opened = () => findSets(realFs, copy).map(({ hub, set, folder }) => ({ hub, set, folder }));
  const expected = [{ hub: "home", set: "state", folder: `${copy}/state` }];
  assert.deepEqual(opened(), expected);
  Deno.writeTextFileSync(`${copy}/state/${id}/seal.json`, "{");
  assert.deepEqual(opened(), expected);
  Deno.removeSync(copy, { recursive: true });
  copySync(`${home.store}/home`, copy);
  const { code, stderr } = await home.cli(["verify", "--store", copy, "--identity", home.identityFile]);
  assert.equal(code, 0, stderr);
});

Deno.test("restore in place brings back what was saved, sets aside what was there, and its script undoes it", async () => {
  const made = await makeChanged();
  using home = made.home;
  Deno.chmodSync(`${home.home}/.hapi/settings.json`, 0o644);
  const before = await liveFiles(home);
  const done = await inPlace(home, made.id);

  const after = new Map(await liveFiles(home));
  for (const [path, sha256] of made.saved) assert.equal(after.get(path), sha256, path);
  assert.equal(Deno.statSync(`${home.home}/.hapi/settings.json`).mode! & 0o777, 0o640, "its mode came back");
  for (const end of ["-wal", "-shm"]) assert.equal(after.has(`.hapi/hapi.db${end}`), false, end);
  assert.equal(countMessages(home.database), 300);
  const aside = done.setAside.map(({ from, to }) => [from, to.replace(from, "")]);
  const kept = [
    ".hapi/hapi.db",
    ".hapi/hapi.db-wal",
    ".hapi/hapi.db-shm",
    ".hapi/hub.env",
    ".hapi/settings.json",
  ];
  assert.deepEqual(
    aside.sort(),
    kept.map((path) => [`${home.home}/${path}`, `.before-restore-${STAMP}`]).sort(),
  );
  assert.deepEqual(done.kept, [], "nothing was as it should be");
  const told = (report: RestoredInPlace) => describeRestore(report, { dryRun: false, inPlace: true });
  assert.match(told(done), /\nto undo it: sh \S.*$/);
  assert.match(told({ ...done, placed: [], setAside: [] }), /\nnothing was changed$/);

  // The hub ran on the restored database before the operator thought better of it.
  home.write(".hapi/hapi.db-wal", "of the restored database");
  await output("sh", [done.undoScript]);
  const undone = new Map(await liveFiles(home));
  for (const [path, sha256] of before) assert.equal(undone.get(path), sha256, path);
  const left = [...undone.keys()].filter((path) => !before.some(([name]) => name === path));
  assert.ok(
    left.length > 3 && left.every((path) => new RegExp(`\\.restored-${STAMP}(-wal)?$`).test(path)),
    `${left}`,
  );

  await output("sh", [done.undoScript]);
  assert.deepEqual(await liveFiles(home), [...undone], "a second time does nothing");
});

Deno.test("restore in place removes what one that was killed left of another snapshot, and nothing else", async () => {
  const made = await makeChanged();
  using home = made.home;
  const left = ".hapi/.hapi-backup-restore-20260101T060000Z/home/.hapi/hapi.db";
  home.write(left, "plaintext");
  const mine = ".hapi/.hapi-backup-restore-notes";
  home.write(mine, "of the operator");
  {
    // As if that one were under way.
    using other = home.host.fs.open(`${home.home}/.hapi/.hapi-backup-restore-20260101T060000Z`, {
      read: true,
    });
    assert.ok(other.tryLock());
    await assert.rejects(inPlace(home, made.id), { kind: "busy", message: /another restore is filling it/ });
    assert.equal(Deno.readTextFileSync(`${home.home}/${left}`), "plaintext");
    assert.equal(countMessages(home.database), 800);
  }
  await inPlace(home, made.id);
  const after = new Map(await liveFiles(home));
  assert.deepEqual([after.has(left), after.has(mine)], [false, true]);
  assert.equal(Deno.readTextFileSync(`${home.home}/${mine}`), "of the operator");
});

Deno.test("a second restore in place in the same second of the clock keeps the first one's way back", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const names = ["hub.env", "settings.json"];
  for (const name of names) home.write(`.hapi/${name}`, "changed");
  const scripts: string[] = [];
  for (const name of names) {
    scripts.push((await inPlace(home, id, undefined, [`home/.hapi/${name}`])).undoScript);
  }
  for (const script of scripts) await output("sh", [script]);
  const now = names.map((name) => Deno.readTextFileSync(`${home.home}/.hapi/${name}`));
  assert.deepEqual(now, ["changed", "changed"]);
});

Deno.test("restore in place keeps what is as it was saved, and --only touches nothing else", async () => {
  const made = await makeChanged();
  using home = made.home;
  const done = await inPlace(home, made.id, undefined, ["home/.hapi/*.{env,json}"]);
  assert.deepEqual(done.placed, [`${home.home}/.hapi/hub.env`]);
  assert.deepEqual(done.kept, [`${home.home}/.hapi/settings.json`]);
  assert.equal(countMessages(home.database), 800);

  // As long as it was saved, and with another mode.
  const [secrets, settings] = [`${home.home}/.hapi/hub.env`, `${home.home}/.hapi/settings.json`];
  Deno.writeTextFileSync(secrets, Deno.readTextFileSync(secrets).toUpperCase());
  Deno.chmodSync(settings, 0o644);
  const again = await inPlace(home, made.id, undefined, ["home/.hapi/*.{env,json}"]);
  assert.deepEqual([again.placed, again.kept], [[secrets, settings], []]);
});

Deno.test("a restore in place that fails at any rename, mkdir or sync puts everything back", async () => {
  const made = await makeChanged();
  using home = made.home;
  const before = await liveFiles(home);
  for (const call of ["rename", "mkdir", "syncFolder", "chmod"] as const) {
    let calls = Infinity;
    for (let failAt = 1; failAt <= calls; failAt++) {
      let count = 0;
      const failing = {
        ...home.host.fs,
        [call]: (...args: unknown[]) => {
          // What must be undone is let through.
          if (++count === failAt) throw new Deno.errors.PermissionDenied(`injected at ${call} ${failAt}`);
          return (home.host.fs[call] as (...args: unknown[]) => unknown)(...args);
        },
      } as Fs;
      const outcome = await inPlace(home, made.id, failing).catch((error: Error) => error);
      if (!(outcome instanceof Error)) {
        assert.ok(count < failAt, `${call} ${failAt} failed unseen`);
        calls = count;
        await undo(home, outcome);
        continue;
      }
      assert.match(outcome.message, /^Cannot .*injected/, `${call} ${failAt}`);
      assert.deepEqual(await liveFiles(home), before, `${call} ${failAt}`);
      assert.deepEqual(
        undoScripts(home),
        [],
        `${call} ${failAt}: a script that would undo what was not done`,
      );
    }
    assert.ok(calls >= 3, `${call} is called ${calls} times`);
  }
});

Deno.test("what comes to lie in a place while it is restored is kept, and stops the restore", async () => {
  const made = await makeChanged();
  using home = made.home;
  const before = new Map((await liveFiles(home)).map(([path, content]) => [path, content]));
  const path = `${home.home}/.hapi/hub.env`;
  let comes = true;
  const fs: Fs = {
    ...home.host.fs,
    // The first sync of that folder comes once everything is set aside.
    syncFolder(folder) {
      home.host.fs.syncFolder(folder);
      if (comes && folder === `${home.home}/.hapi`) Deno.writeTextFileSync(path, "NEWER=yes\n");
      comes &&= folder !== `${home.home}/.hapi`;
    },
  };
  await assert.rejects(inPlace(home, made.id, fs), {
    kind: "source",
    message: /hub\.env: something has come to lie there meanwhile/,
    hint: /it is kept as .*\/hub\.env\.before-restore-.*-newer: stop what writes there/,
  });
  assert.equal(comes, false);
  const after = new Map(await liveFiles(home));
  for (const [name, content] of before) assert.deepEqual(after.get(name), content, name);
  const [newer, ...others] = [...Deno.readDirSync(`${home.home}/.hapi`)].filter(({ name }) =>
    name.endsWith("-newer")
  );
  assert.equal(Deno.readTextFileSync(`${home.home}/.hapi/${newer!.name}`), "NEWER=yes\n");
  assert.deepEqual(others, []);
});

const undoScripts = (home: Home): string[] => {
  try {
    return [...Deno.readDirSync(`${home.stateFolder}/restores`)].map(({ name }) => name);
  } catch {
    return [];
  }
};

async function undo(home: Home, { undoScript }: RestoredInPlace): Promise<void> {
  await output("sh", [undoScript]);
  Deno.removeSync(undoScript);
  for (const [path] of await liveFiles(home)) {
    if (path.includes(".restored-")) Deno.removeSync(`${home.home}/${path}`);
  }
}

Deno.test("when putting back fails too, the error names what is left and the script that undoes it", async () => {
  const made = await makeChanged();
  using home = made.home;
  const before = await liveFiles(home);
  let broken = false;
  const failing: Fs = {
    ...home.host.fs,
    rename(from, to) {
      // The disk fails for good when the new database is put in place.
      broken ||= to === home.database;
      if (broken) throw new Error("the disk is gone");
      home.host.fs.rename(from, to);
    },
  };
  const error = await inPlace(home, made.id, failing).then(() => undefined, (error) => error);
  assert.match(error.message, /could not be undone at .*hapi\.db/);
  const script = /sh '(.*)'$/.exec(error.hint)![1]!.replaceAll(`'\\''`, "'");
  await output("sh", [script]);
  assert.deepEqual(await liveFiles(home), before);
});

/** A process that has a database open until it is ended. */
async function openIn(database: string): Promise<{ readonly pid: number; end(): Promise<void> }> {
  const process = new Deno.Command("sqlite3", { args: [database], stdin: "piped", stdout: "piped" }).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode("SELECT 'open' FROM sessions;\n"));
  const answers = process.stdout.getReader();
  await answers.read();
  return {
    pid: process.pid,
    async end() {
      await writer.close();
      await answers.cancel();
      await process.status;
    },
  };
}

Deno.test("restore in place refuses while a process has the database open, and names it", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  home.sql(insertMessages(10));
  const reader = await openIn(home.database);
  const before = await liveFiles(home);
  const args = ["restore", "--in-place", "--identity", home.identityFile];
  const refused = await home.cli([...args, "--json"]);
  assert.equal(refused.code, 3);
  assert.match(
    refused.stderr,
    new RegExp(`hapi\\.db: it is open in sqlite3 \\(${reader.pid}\\)\nhint: stop it first`),
  );
  assert.equal(JSON.parse(refused.stdout).error.kind, "source");
  assert.deepEqual(await liveFiles(home), before);
  const dry = await home.cli([...args, "--dry-run"]);
  assert.match(dry.stdout, /would restore[^]*hapi\.db: 2 sessions/);
  assert.match(dry.stderr, new RegExp(`hapi\\.db is open in sqlite3 \\(${reader.pid}\\): .*not be restored`));

  await reader.end();
  // Started while what is to take its place is built.
  let late: Awaited<ReturnType<typeof openIn>> | undefined;
  const run: typeof home.host.run = async (...given) => {
    const answer = await home.host.run(...given);
    late ??= await openIn(home.database);
    return answer;
  };
  const opening = await home.opening({ host: { ...home.host, run } });
  await assert.rejects(restoreInPlace(opening, home.config(), id), {
    kind: "source",
    message: /it is open in/,
  });
  await late!.end();
  assert.equal(countMessages(home.database), 310);

  const done = await home.cli(args);
  assert.equal(done.code, 0, done.stderr);
  assert.equal(countMessages(home.database), 300);
});

Deno.test("the script that undoes a restore refuses while a process has the database open, and names it", async () => {
  const made = await makeChanged();
  using home = made.home;
  const done = await inPlace(home, made.id);
  const reader = await openIn(home.database);
  const before = await liveFiles(home);
  const { code, stderr } = await new Deno.Command("sh", { args: [done.undoScript], stdin: "null" }).output();
  const told = new TextDecoder().decode(stderr);
  const after = await liveFiles(home);
  await reader.end();
  assert.equal(code, 1, told);
  assert.match(told, new RegExp(`process ${reader.pid} has .*hapi\\.db open\\.\nStop it first`));
  assert.deepEqual(after, before);

  await output("sh", [done.undoScript]);
  assert.equal(countMessages(home.database), 800);
});

Deno.test("a database that is a link is restored to where the link points, and so are files that were named", async () => {
  using home = await makeHome();
  for (
    const [name, moved] of [[".hapi/hapi.db", "disk/real.db"], [".hapi/hub.env", "disk/hub.env"]] as const
  ) {
    Deno.mkdirSync(`${home.home}/disk`, { recursive: true });
    Deno.renameSync(`${home.home}/${name}`, `${home.home}/${moved}`);
    Deno.symlinkSync(`${home.home}/${moved}`, `${home.home}/${name}`);
  }
  const { id } = await home.backup();
  home.write("disk/hub.env", "changed");
  home.write("disk/real.db", "overwritten");
  home.write("disk/real.db-wal", "stale");
  const { setAside } = await inPlace(home, id);
  assert.match(Deno.readTextFileSync(`${home.home}/disk/hub.env`), /sk-ant/);
  assert.equal(countMessages(`${home.home}/disk/real.db`), 300);
  assert.equal(Deno.lstatSync(home.database).isSymlink, true);
  assert.equal(Deno.lstatSync(`${home.home}/.hapi/hub.env`).isSymlink, true);
  assert.deepEqual(setAside.map(({ from }) => from.split("/").at(-1)), ["real.db", "real.db-wal", "hub.env"]);
});

Deno.test(
  "what lies on another disk is restored in place there, with its mode and time, and its script undoes that",
  ONLY_AS_ROOT,
  async () => {
    using home = await makeHome();
    const notes = `${home.home}/notes`;
    Deno.mkdirSync(notes);
    await using _disk = await mountTmpfs(notes);
    const [state] = home.config().sets.values();
    home.configure({
      sets: { state: { sources: [...state!.sources, { kind: "folder", path: "~/notes" }] } },
    });
    const write = (content: string, mode: number, time: number, target: string) => {
      home.write("notes/one.md", content, mode);
      Deno.utimeSync(`${notes}/one.md`, time, time);
      Deno.symlinkSync(target, `${notes}/link`);
    };
    const found = () => {
      const { mode, mtime } = Deno.statSync(`${notes}/one.md`);
      const content = Deno.readTextFileSync(`${notes}/one.md`);
      return [content, mode! & 0o777, mtime!.getTime() / 1000, Deno.readLinkSync(`${notes}/link`)];
    };
    write("one", 0o640, 1_000_000_000, "one.md");
    const { id } = await home.backup();
    for (const name of ["one.md", "link"]) Deno.removeSync(`${notes}/${name}`);
    write("changed", 0o604, 1_100_000_000, "elsewhere");
    const done = await inPlace(home, id);
    assert.deepEqual(found(), ["one", 0o640, 1_000_000_000, "one.md"]);
    const names = namesIn(notes).map((name) => name.replace(/-restore-.*/, ""));
    assert.deepEqual(names, ["link", "link.before", "one.md", "one.md.before"]);
    await output("sh", [done.undoScript]);
    assert.deepEqual(found(), ["changed", 0o604, 1_100_000_000, "elsewhere"]);
  },
);

Deno.test("a set without anything in it can be restored in place", async () => {
  using home = await makeHome();
  const { id } = await home.backup({ set: "voice" });
  const opening = await home.opening();
  const set = { ...opening.set, set: "voice" as never, folder: `${home.store}/home/voice` };
  const { placed, kept } = await restoreInPlace({ ...opening, set }, home.config(), id);
  assert.deepEqual([placed, kept], [[], []]);
});

Deno.test("restore to a folder refuses one that is not empty, and leaves no trace when it fails", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  home.write("full/x", "mine");
  const opening = await home.opening();
  await assert.rejects(restore(opening, id, `${home.home}/full`), { kind: "usage" });
  await assert.rejects(restore(opening, id, `${home.home}/full/x`), { kind: "usage" });
  assert.deepEqual(await filesBelow(`${home.home}/full`), await filesBelow(`${home.home}/full`));

  Deno.mkdirSync(`${home.home}/empty`);
  for (const folder of ["empty", "new"]) {
    const fs = {
      ...home.host.fs,
      rename: () => {
        throw new Error("injected");
      },
    };
    const failing = { ...opening, host: { ...home.host, fs } };
    await assert.rejects(restore(failing, id, `${home.home}/${folder}`), /injected/);
  }
  assert.deepEqual([...Deno.readDirSync(`${home.home}/empty`)], []);
  assert.throws(() => Deno.statSync(`${home.home}/new`), Deno.errors.NotFound);
  await restore(opening, id, `${home.home}/empty`);
  assert.equal(countMessages(`${home.home}/empty/home/.hapi/hapi.db`), 300);
});

Deno.test("a restore to a folder that fails at its end takes back what it put there, and nothing else", async () => {
  using home = await makeHome();
  home.write(`${home.dir}/elsewhere/a.txt`, "outside the home");
  home.configure({
    sets: {
      state: {
        sources: [{ kind: "file", path: "~/.hapi/hub.env" }, {
          kind: "file",
          path: `${home.dir}/elsewhere/a.txt`,
        }],
      },
    },
  });
  const { id } = await home.backup();
  const opening = await home.opening();
  const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name);
  for (const call of ["rename", "remove", "syncFolder"] as const) {
    for (const folder of [`${home.dir}/empty`, `${home.dir}/new`]) {
      Deno.mkdirSync(`${home.dir}/empty`, { recursive: true });
      let renames = 0;
      const fs: Fs = {
        ...home.host.fs,
        rename(from, to) {
          renames++;
          if (call === "rename" && renames === 2) throw new Error("injected");
          home.host.fs.rename(from, to);
          Deno.writeTextFileSync(`${folder}/mine`, "came meanwhile");
        },
        remove(path, options) {
          if (call === "remove" && renames === 2) throw new Error(`injected ${renames++}`);
          home.host.fs.remove(path, options);
        },
        syncFolder(path) {
          if (call === "syncFolder" && renames === 2) throw new Error("injected");
          home.host.fs.syncFolder(path);
        },
      };
      await assert.rejects(restore({ ...opening, host: { ...home.host, fs } }, id, folder), /injected/);
      assert.deepEqual(names(folder), ["mine"], `${call} ${folder}`);
      Deno.removeSync(folder, { recursive: true });
    }
  }
  await restore(opening, id, `${home.dir}/new`);
  assert.deepEqual(names(`${home.dir}/new`).sort(), ["home", "root"]);

  // What one leaves that is killed between the two: never a home that could be taken for the whole.
  const cut = `${home.dir}/cut`;
  let left: string[] = [];
  const { fs } = home.host;
  const rename: Fs["rename"] = (from, to) => {
    fs.rename(from, to);
    left = names(cut).sort();
    throw new Error("killed");
  };
  const readDir: Fs["readDir"] = (path) => fs.readDir(path).sort((a, b) => a.name < b.name ? -1 : 1);
  const host = { ...home.host, fs: { ...fs, rename, readDir } };
  await assert.rejects(restore({ ...opening, host }, id, cut), /killed/);
  assert.deepEqual(left, [".hapi-backup-restore", "root"]);
  Deno.mkdirSync(`${cut}/.hapi-backup-restore/home`, { recursive: true });
  Deno.mkdirSync(`${cut}/root`, { recursive: true });
  await assert.rejects(restore(opening, id, cut), {
    kind: "usage",
    message: /a restore that was cut short lies there$/,
    hint: /^what it put there may not be whole: remove it/,
  });
  assert.deepEqual(names(cut).sort(), left);
});

/** The same files to one who is not root: what is in a folder that is closed to its owner cannot be changed. */
function asOwner(fs: Fs): Fs {
  const requireOpen = (folder: string) => {
    if ((Deno.statSync(folder).mode! & 0o200) !== 0) return;
    throw new Deno.errors.PermissionDenied(`Permission denied (os error 13): ${folder}`);
  };
  const requireRemovable = (path: string) => {
    requireOpen(parentOf(path));
    if (!Deno.lstatSync(path).isDirectory) return;
    for (const { name } of Deno.readDirSync(path)) requireRemovable(`${path}/${name}`);
  };
  return {
    ...fs,
    open(path, options) {
      if (options.createNew) requireOpen(parentOf(path));
      return fs.open(path, options);
    },
    mkdir(path, options) {
      if (!options?.recursive) requireOpen(parentOf(path));
      fs.mkdir(path, options);
    },
    rename(from, to) {
      [from, to].map(parentOf).forEach(requireOpen);
      fs.rename(from, to);
    },
    remove(path, options) {
      if (fs.lstat(path)) requireRemovable(path);
      fs.remove(path, options);
    },
  };
}

/** A home that saves a folder which is closed to its owner, as is one in it. */
async function makeClosed(): Promise<{ home: Home; id: SnapshotId; notes: string } & Disposable> {
  const home = await makeHome();
  const sources = [{ kind: "sqlite", path: "~/.hapi/hapi.db" }, { kind: "folder", path: "~/notes" }];
  home.configure({ sets: { state: { sources } } });
  home.write("notes/closed/a.md", "a");
  home.write("notes/closed/too/b.md", "b");
  const notes = `${home.home}/notes`;
  for (const name of ["closed/too", "closed"]) Deno.chmodSync(`${notes}/${name}`, 0o555);
  const { id } = await home.backup();
  return {
    home,
    id,
    notes,
    [Symbol.dispose]() {
      removeRestored(home.host.fs, home.dir);
    },
  };
}

Deno.test("what was restored goes again where nothing may stay, also folders that are closed to their owner", async () => {
  using made = await makeClosed();
  const { home, id } = made;
  const fs = asOwner(home.host.fs);
  const opening = await home.opening({ host: { ...home.host, fs } });
  const scratches = `${home.dir}/scratch`;
  {
    using scratch = makeScratch({ fs }, scratches);
    const checks = await verify(opening, readSet(fs, opening.set).filter(isSealed), id, scratch.path);
    assert.deepEqual(checks.filter(({ ok }) => !ok), []);
    assert.throws(() => fs.remove(scratch.path, { recursive: true }), Deno.errors.PermissionDenied);
  }
  assert.deepEqual([...Deno.readDirSync(scratches)], []);

  const to = `${home.dir}/to`;
  const failing = { ...opening.host, fs: { ...fs, rename: () => assert.fail("injected") } };
  await assert.rejects(restore({ ...opening, host: failing }, id, to), /injected/);
  assert.throws(() => Deno.statSync(to), Deno.errors.NotFound);

  await restoreInPlace(opening, home.config(), id);
  assert.deepEqual(home.told.filter((text) => text.startsWith("!")), []);
  const left = [...Deno.readDirSync(`${home.home}/.hapi`)].map(({ name }) => name);
  assert.deepEqual(left.filter((name) => name.startsWith(".hapi-backup-restore")), []);
});

Deno.test("folders that are closed to their owner come back in place, and its script undoes that", async () => {
  using made = await makeClosed();
  const { home, id, notes } = made;
  removeRestored(home.host.fs, notes);
  const before = await liveFiles(home);
  const fs = asOwner(home.host.fs);
  let chmods = 0;
  const failing: Fs = {
    ...fs,
    chmod(path, mode) {
      // The last of all.
      if (path === `${notes}/closed` && mode === 0o555 && ++chmods === 1) throw new Error("injected");
      fs.chmod(path, mode);
    },
  };
  await assert.rejects(inPlace(home, id, failing), /injected/);
  assert.deepEqual(await liveFiles(home), before);
  assert.throws(() => Deno.statSync(notes), Deno.errors.NotFound);

  const { undoScript } = await inPlace(home, id, fs);
  for (const [name, text] of [["closed", "a.md: a"], ["closed/too", "b.md: b"]] as const) {
    assert.equal(Deno.statSync(`${notes}/${name}`).mode! & 0o777, 0o555);
    const [file, content] = text.split(": ");
    assert.equal(Deno.readTextFileSync(`${notes}/${name}/${file}`), content);
  }
  await output("sh", [undoScript]);
  assert.equal(Deno.statSync(`${notes}/closed`).mode! & 0o777, 0o700, "what is in it was renamed");
  const undone = (await liveFiles(home)).filter(([path]) => !path.includes(".restored-"));
  assert.deepEqual(undone, before);
});

Deno.test("the script undoes a restore in place of a folder where a file had come to lie", async () => {
  using home = await makeHome();
  home.write(".hapi/scratchlist-attachments/folder/a.txt", "an attachment");
  home.write(".hapi/scratchlist-attachments/folder/deep/b.txt", "another");
  const { id } = await home.backup();
  for (const name of ["scratchlist-attachments", "scratchlist-attachments/folder"]) {
    Deno.removeSync(`${home.home}/.hapi/scratchlist-attachments`, { recursive: true });
    home.sql(insertMessages(10));
    home.write(`.hapi/${name}`, "in the way");
    const before = await liveFiles(home);
    const { undoScript } = await inPlace(home, id);
    assert.equal(countMessages(home.database), 300);
    const text = Deno.readTextFileSync(`${home.home}/.hapi/scratchlist-attachments/folder/deep/b.txt`);
    assert.equal(text, "another");
    for (const _ of ["once", "and again"]) {
      await output("sh", [undoScript]);
      const after = (await liveFiles(home)).filter(([path]) => !path.includes(".restored-"));
      assert.deepEqual(after, before);
    }
    await undo(home, { undoScript } as RestoredInPlace);
    home.now = new Date(home.now.getTime() + 1000);
  }
});

Deno.test("a folder that a link had come to stand for is restored with all that is in it, whatever the link leads to", async () => {
  using home = await makeHome();
  const attachments = `${home.home}/.hapi/scratchlist-attachments`;
  const folder = `${attachments}/folder`;
  home.write(`${folder}/a.txt`, "a");
  home.write(`${folder}/deep/b.txt`, "b");
  const { id } = await home.backup();
  const saved = await filesBelow(folder);
  Deno.renameSync(folder, `${home.home}/elsewhere`);
  Deno.symlinkSync(`${home.home}/elsewhere`, folder);
  for (const content of ["a", "changed"]) {
    home.write("elsewhere/a.txt", content);
    const before = await liveFiles(home);
    const done = await inPlace(home, id);
    assert.equal(Deno.lstatSync(folder).isDirectory, true);
    assert.deepEqual(await filesBelow(folder), saved);
    assert.equal(Deno.readTextFileSync(`${home.home}/elsewhere/a.txt`), content);
    await undo(home, done);
    assert.equal(Deno.readLinkSync(folder), `${home.home}/elsewhere`);
    assert.deepEqual(await liveFiles(home), before);
    Deno.removeSync(`${folder}.restored-${STAMP}`, { recursive: true });
  }
});

Deno.test("what was saved by two paths and is one file in place is restored once, and refused if it differs", async () => {
  using home = await makeHome();
  home.write("real/a.txt", "a");
  Deno.symlinkSync("real", `${home.home}/link`);
  home.write(`${home.dir}/other/real/a.txt`, "of another home");
  const folders = ["~/link", "~/notes", "~/real", `${home.dir}/other/real`];
  const sources = folders.map((path, n) => ({ kind: "folder", name: `${n}`, path }));
  home.configure({ sets: { state: { sources } } });
  const { id } = await home.backup();
  const saved = await filesBelow(`${home.home}/real`);
  for (const now of [undefined, "changed"]) {
    Deno.removeSync(`${home.home}/real/a.txt`);
    if (now) home.write("real/a.txt", now);
    const before = await liveFiles(home);
    const done = await inPlace(home, id);
    assert.equal(done.setAside.length, now ? 1 : 0);
    assert.equal(Deno.readTextFileSync(`${home.home}/real/a.txt`), "a");
    assert.equal(Deno.lstatSync(`${home.home}/link`).isSymlink, true);
    await undo(home, done);
    assert.deepEqual(await liveFiles(home), before);
    home.write("real/a.txt", "a");
  }
  assert.deepEqual(await filesBelow(`${home.home}/real`), saved);

  // For one whose home is there, home/real and root/.../other/real are the same.
  const other = { ...home.config(), home: `${home.dir}/other` };
  const before = await filesBelow(home.dir);
  await assert.rejects(restoreInPlace(await home.opening(), other, id), {
    kind: "usage",
    message:
      /^Cannot restore root.*a\.txt in place: here it is the same file as home\/real\/a\.txt, with other/,
  });
  assert.deepEqual(await filesBelow(home.dir), before);

  // What a link leads to that a folder is to replace is another file.
  const folder = `${home.home}/notes/folder`;
  home.write(`${folder}/a.txt`, "a");
  const apart = await home.backup();
  Deno.removeSync(folder, { recursive: true });
  Deno.symlinkSync("../real", folder);
  await inPlace(home, apart.id);
  assert.equal(Deno.lstatSync(folder).isDirectory, true);
  assert.deepEqual(await filesBelow(folder), saved);
});

Deno.test("restore in place refuses to set aside the folder that its own way back lies in", async () => {
  using home = await makeHome();
  home.configure({ sets: { state: { sources: [{ kind: "file", path: "~/data" }] } } });
  home.write("data", "a file at first");
  const { id } = await home.backup();
  Deno.removeSync(`${home.home}/data`);
  home.configure({ stateFolder: `${home.home}/data/state` });
  home.write("data/state/kept", "what came since");
  const before = await filesBelow(home.home);
  await assert.rejects(inPlace(home, id), {
    kind: "usage",
    message: /Cannot restore .*\/data: it would be set aside, and with it .*\/data\/state\/restores, where/,
  });
  assert.deepEqual(await filesBelow(home.home), before);
});

Deno.test("a second restore to the same folder leaves alone what the first is building", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const opening = await home.opening();
  for (const to of [`${home.dir}/new`, `${home.dir}/empty`]) {
    Deno.mkdirSync(`${home.dir}/empty`, { recursive: true });
    const first = restore(opening, id, to);
    first.catch(() => {});
    await assert.rejects(restore(opening, id, to), {
      kind: "busy",
      message: /another restore is filling it/,
    });
    await first;
    assert.equal(countMessages(`${to}/home/.hapi/hapi.db`), 300);
  }
});

Deno.test("what has as long a name as a disk takes is restored in place, and its script undoes it", async () => {
  using home = await makeHome();
  // The start that they have in common is all that is kept where more is to follow.
  const names = ["a", "b"].map((end) => `${"ä".repeat(127)}${end}`);
  const path = (name: string) => `.hapi/scratchlist-attachments/${name}`;
  for (const name of names) home.write(path(name), `as saved: ${name}`);
  const { id } = await home.backup();
  for (const name of names) home.write(path(name), `changed: ${name}`);
  const before = await liveFiles(home);
  const { undoScript, setAside } = await inPlace(home, id);
  for (const name of names) {
    assert.equal(Deno.readTextFileSync(`${home.home}/${path(name)}`), `as saved: ${name}`);
    const { to } = setAside.find(({ from }) => from === `${home.home}/${path(name)}`)!;
    assert.equal(Deno.readTextFileSync(to), `changed: ${name}`);
  }
  await undo(home, { undoScript } as RestoredInPlace);
  assert.deepEqual(await liveFiles(home), before);
});

Deno.test("a name or a path that is longer than a disk takes is told as that, before anything is written", async () => {
  using home = await makeHome();
  const opening = await home.opening();
  const { id } = await home.backup();
  const manifest = await openManifest(opening, openSeal(opening, id));
  const long = { name: `home/${"é".repeat(128)}/x`, path: `home/${"0123456789abcde/".repeat(253)}x` };
  const errors = {
    name: /^Cannot restore home\/é{70,}…: a name in it has 256 bytes, more than the disk of .* takes$/,
    path: /^Cannot restore home\/0[^:]*…: its path below .* has 4\d{3} bytes, and Linux takes 4095$/,
  };
  const before = await filesBelow(home.home);
  for (const what of ["name", "path"] as const) {
    const lie = "20260401T000000Z" as SnapshotId;
    const folder = { ...manifest.files[0]!, type: "folder", place: long[what] };
    for (const key of ["sha256", "stored"] as const) delete folder[key];
    await forge(home, lie, {}, { ...manifest, id: lie, databases: [], files: [folder] });
    const expected = { kind: "disk", message: errors[what], hint: /leave it out with --only/ };
    await assert.rejects(restore(opening, lie, `${home.dir}/to`), expected);
    assert.throws(() => Deno.statSync(`${home.dir}/to`), Deno.errors.NotFound);
    await assert.rejects(restoreInPlace(opening, home.config(), lie), expected);
    const dry = await home.cli([
      "restore",
      "--in-place",
      "--dry-run",
      "--snapshot",
      lie,
      "--identity",
      home.identityFile,
    ]);
    assert.match(dry.stderr, /^error: Cannot restore home\/.* bytes, /m);
    Deno.removeSync(`${home.stored}/${lie}`, { recursive: true });
  }
  assert.deepEqual(await filesBelow(home.home), before);
});

Deno.test("a restore needs room for each image once, however long its chain, and for its files", async () => {
  using home = await makeHome();
  const kinds = [["sqlite", "hapi.db"], ["file", "hub.env"]] as const;
  const sources = kinds.map(([kind, name]) => ({ kind, path: `~/.hapi/${name}` }));
  home.configure({ sets: { state: { sources } } });
  for (let i = 0; i < 3; i++) {
    home.sql(insertMessages(200));
    await home.backup();
  }
  const { id } = await home.backup();
  const sized = (path: string) => Deno.statSync(`${home.home}/.hapi/${path}`).size;
  const needed = sized("hapi.db") + sized("hub.env");
  const live = await liveFiles(home);
  let room: number | undefined = needed - 1;
  const fs: Fs = { ...home.host.fs, roomBytes: () => room };
  const opening = await home.opening({ host: { ...home.host, fs } });
  const to = `${home.dir}/to`;
  const refused = {
    kind: "disk",
    message: /^Cannot restore \d+T\d+Z on the disk of .*: \S+ kB are free and \S+ kB must be$/,
  };
  await assert.rejects(restore(opening, id, to), refused);
  assert.throws(() => Deno.statSync(to), Deno.errors.NotFound);
  await assert.rejects(restoreInPlace(opening, home.config(), id), refused);
  assert.deepEqual(await liveFiles(home), live);
  for (room of [needed, undefined]) {
    await restore(opening, id, to);
    Deno.removeSync(to, { recursive: true });
    await restoreInPlace(opening, home.config(), id);
  }

  // Holes take none, whatever lies beside them.
  Deno.writeFileSync(`${home.home}/.hapi/hub.env`, randomBytes(2 ** 19));
  Deno.truncateSync(`${home.home}/.hapi/hub.env`, 2 ** 26);
  room = needed + 2 ** 20;
  await restore(opening, (await home.backup()).id, to);
});

Deno.test("room is asked of each disk for all that goes there, and what does not tell lets everything through", () => {
  const room: Record<string, number | undefined> = {
    "/a/x": 10,
    "/b/x": 5,
    "/silent": undefined,
    "/none": 3,
  };
  const fs = {
    freeBytes: (path: string) => room[path],
    roomBytes: (path: string) => room[path],
    stat(path: string) {
      if (path.startsWith("/none")) throw new Error("No such file or directory");
      return { device: path.charCodeAt(1) };
    },
  } as unknown as Fs;
  const require = (...needs: [folder: string, bytes: number][]) =>
    requireRoom(fs, "restore x", needs.map(([folder, bytes]) => ({ folder, bytes })));
  require(["/a/x", 4], ["/a/y", 6], ["/b/x", 5], ["/silent", 2 ** 50], ["/none", 3], ["/none/x", 3]);
  assert.throws(() => require(["/b/x", 5], ["/a/x", 4], ["/a/y", 7]), {
    kind: "disk",
    message: "Cannot restore x on the disk of /a/x and /a/y: 10 B are free and 11 B must be",
    hint: /another disk with --to or --scratch/,
  });
  // Where nothing goes, nothing is named.
  assert.throws(() => require(["/b/none", 0], ["/b/x", 6]), { message: /the disk of \/b\/x: / });
  requireFree(fs, { folder: "/b/x", bytes: 5 });
  requireFree(fs, { folder: "/silent", bytes: 5 });
  assert.throws(() => requireFree(fs, { folder: "/b/x", bytes: 6 }), {
    kind: "disk",
    message: "Cannot go on in /b/x: 5 B are free and 6 B must be",
    hint: /limits\.freeBytesMin/,
  });
});

Deno.test("any number of files with the same content are sorted out", () => {
  const stored = { snapshot: "20260301T120000Z", member: "home/empty" } as SavedFile["stored"];
  // Where the time grows with the square of the number, this does not end: 20,000 took 12 s.
  const files = Array.from({ length: 500_000 }, (_, i) => ({ place: `home/${i}`, stored }) as SavedFile);
  const sorted = bySnapshot(files);
  assert.equal(sorted.get(stored!.snapshot)!.get(stored!.member)!.length, files.length);
});

Deno.test("a sync that fails while the image is hashed, or a read of it, says which file, and leaves nothing", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const opening = await home.opening();
  const eio = () => Promise.reject(new Error("Input/output error (os error 5)"));
  for (const failing of ["syncing", "reading"] as const) {
    const open: Fs["open"] = (path, options) => ({ ...home.host.fs.open(path, options), [failing]: eio });
    const host = { ...home.host, fs: { ...home.host.fs, open } };
    await assert.rejects(restore({ ...opening, host }, id, `${home.home}/new`), {
      kind: "disk",
      message: /^Cannot (write|read) .*\/home\/\.hapi\/hapi\.db: .*os error 5/,
    });
    assert.throws(() => Deno.statSync(`${home.home}/new`), Deno.errors.NotFound);
  }
});

Deno.test("--only chooses by pattern, a pattern without a match is an error, and --dry-run writes nothing", async () => {
  using home = await makeHome();
  Deno.mkdirSync(`${home.home}/linked`);
  Deno.symlinkSync("elsewhere", `${home.home}/linked/link`);
  const [state] = home.config().sets.values();
  home.configure({ sets: { state: { sources: [...state!.sources, { kind: "folder", path: "~/linked" }] } } });
  await home.backup();
  const to = `${home.dir}/out`;
  const args = ["restore", "--to", to, "--identity", home.identityFile];
  const link = await home.cli([...args, "--only", "home/linked/link"]);
  assert.match(link.stdout, /^ {2}1 link$/m, link.stderr);
  Deno.removeSync(to, { recursive: true });
  const nothing = await home.cli([...args, "--only", "home/none*"]);
  assert.equal(nothing.code, 2);
  assert.match(nothing.stderr, /nothing in it matches home\/none\*[^]*hint: places look like/);
  const dry = await home.cli([...args, "--only", "home/.hapi/*.env", "--dry-run"]);
  assert.match(dry.stdout, /home\/\.hapi\/hub\.env: /);
  assert.doesNotMatch(dry.stdout, /hapi\.db/);
  assert.match(dry.stdout, /^ {2}1 file$/m);
  assert.throws(() => Deno.statSync(to), Deno.errors.NotFound);
  const one = await home.cli([...args, "--only", "home/.hapi/*.env", "--json"]);
  assert.equal(one.code, 0, one.stderr);
  assert.deepEqual((await filesBelow(to)).map(([path]) => path), ["home/.hapi/hub.env"]);
  const filled = await home.cli([...args, "--dry-run"]);
  assert.equal(filled.code, 2, "what would be refused in earnest");
  assert.match(filled.stderr, /Cannot restore to .*: it is not an empty folder\nhint: name a new folder/);
});

Deno.test("a dry run in place says of each path what then becomes of it, and changes nothing", async () => {
  const made = await makeChanged();
  using home = made.home;
  home.write(".hapi/settings.json", '{"changed":1}');
  home.write(".hapi/jwt-secret.json", "not in the snapshot");
  const before = await filesBelow(home.home);
  const args = ["restore", "--in-place", "--identity", home.identityFile];
  const shown = await home.cli([...args, "--dry-run"]);
  const dry = JSON.parse((await home.cli([...args, "--dry-run", "--json"])).stdout);
  const after = await filesBelow(home.home);
  assert.deepEqual(after.filter(([path]) => !path.startsWith("state/scratch")), before);
  const done = JSON.parse((await home.cli([...args, "--json"])).stdout);
  const from = (report: RestoredInPlace) => report.setAside.map(({ from }) => from);
  assert.deepEqual([dry.placed, dry.kept, from(dry)], [done.placed, done.kept, from(done)]);
  assert.deepEqual(new Set(dry.placed).size, dry.placed.length);
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(shown.stdout, /[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
  const told = (name: string) =>
    shown.stdout.split("\n").filter((line) => line.includes(` ${home.home}/${name}`))
      .map((line) => line.trim().replaceAll(`${home.home}/`, "").replace(/-\d{8}-\d{6}/, "-TIME"));
  const aside = (name: string) => `set aside: ${name} as ${name}.before-restore-TIME, with the time then`;
  const database = ".hapi/hapi.db";
  assert.deepEqual(told(database), [
    `put in place of what is there now: ${database}`,
    ...["", "-wal", "-shm"].map((end) => aside(database + end)),
  ]);
  assert.deepEqual(told(".hapi/hub.env"), [
    "put in place of what is there now: .hapi/hub.env",
    aside(".hapi/hub.env"),
  ]);
  assert.deepEqual(told("coding/hapi/docs/plans/one.md"), [
    "put in place, new: coding/hapi/docs/plans/one.md",
  ]);
  assert.deepEqual(told(".hapi/jwt-secret.json"), []);
  assert.doesNotMatch(shown.stderr, /whose hub it is/);
  // As root, say, who has another home.
  const store = ["--store", parentOf(parentOf(home.stored))];
  const other = await home.cli([...args, ...store, "--dry-run"], { env: { HOME: `${home.dir}/other` } });
  assert.equal(other.code, 0, other.stderr);
  assert.ok(
    other.stderr.includes(`${home.database} is put in place as ${home.dir}/other/.hapi/hapi.db: `),
    other.stderr,
  );
});

Deno.test("restore in place sets a file aside that it cannot read to compare", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const { fs } = home.host;
  const open: typeof fs.open = (path, options) => {
    if (path !== `${home.home}/.hapi/hub.env`) return fs.open(path, options);
    throw new Deno.errors.PermissionDenied("Permission denied (os error 13)");
  };
  const done = await inPlace(home, id, { ...fs, open });
  assert.deepEqual(done.setAside.map(({ from }) => from.split("/").at(-1)), ["hapi.db", "hub.env"]);
});

Deno.test("root is told whose the hub is that gets files of root's in place", ONLY_AS_ROOT, async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  const told = () => home.told.filter((text) => text.startsWith("! "));
  await inPlace(home, id);
  assert.deepEqual(told(), []);
  Deno.chownSync(`${home.home}/.hapi`, 4242, 4242);
  await inPlace(home, id);
  assert.deepEqual(told(), [
    `! what was put in place belongs to root, and ${home.home}/.hapi to user 4242, who may not be able to use it: ` +
    "give it to that user (chown 4242:), or undo it and run this as that user",
  ]);
});

Deno.test("a restore in place without find names the package that has it", async () => {
  using home = await makeHome();
  await home.backup();
  const args = ["restore", "--in-place", "--identity", home.identityFile];
  const { code, stderr } = await home.cli(args, { env: { PATH: `${home.dir}/none` } });
  assert.equal(code, 2, stderr);
  assert.match(stderr, /Cannot run find: it is not installed\nhint: .*apt-get install findutils\)/);
});

Deno.test("--to takes a path with .. in it, also past what is not there", async () => {
  using home = await makeHome();
  await home.backup();
  const args = [
    "restore",
    "--to",
    "new/none/../out",
    "--only",
    "home/.hapi/*.env",
    "--identity",
    home.identityFile,
  ];
  const { code, stderr } = await home.cli(args);
  assert.equal(code, 0, stderr);
  assert.deepEqual((await filesBelow(`${home.dir}/new/out`)).map(([path]) => path), ["home/.hapi/hub.env"]);
});

Deno.test("a time finds the newest good snapshot at or before it", () => {
  const ids = ["20260301T120000Z", "20260302T000000Z", "20260302T120000Z"] as SnapshotId[];
  const seals = ids.map((id) => ({ id, suspicions: [] }));
  const suspect = seals.with(2, { id: ids[2]!, suspicions: [{ code: "empty", source: "x" }] as never[] });
  const choose = (which: string, from = seals) => chooseSnapshot(which, from, 0);
  assert.equal(choose("latest", suspect), ids[1]);
  assert.equal(choose("2026-03-02T00:00:00Z", seals), ids[1]);
  assert.equal(choose("2026-03-01T23:59:59Z", seals), ids[0]);
  // As `list` shows it, wherever that is.
  for (const time of ["2026-03-02 00:00:00 UTC", "2026-03-01 20:30:00 GMT-3:30", "2026-03-02 01:00 GMT+1"]) {
    assert.equal(choose(time), ids[1], time);
  }
  assert.equal(choose("2026-03-02 00:59:59 GMT+1"), ids[0]);
  assert.equal(choose("2026-03-02T05:29:59+0530"), ids[0]);
  for (
    const none of [
      "2026-02-30",
      "2026-03-02 24:00",
      "2026-03-02 12:60",
      "2026-03-02 00:00 EST",
      "0000-00-00",
      "2026-03-02 UTC",
    ]
  ) {
    assert.throws(() => choose(none), /it is no id and no time/);
  }
  assert.equal(choose("2026-03-09", suspect), ids[1]);
  assert.equal(choose(ids[2]!, suspect), ids[2]);
  assert.throws(() => choose("2026-02-28"), /none is as old as .*/);
  assert.equal(choose("latest"), ids[2]);
  const allSuspect = seals.map(({ id }) => ({ ...seals[0]!, ...suspect[2]!, id }));
  for (const which of ["latest", "random"]) {
    assert.throws(() => choose(which, allSuspect), { kind: "usage", message: /: all are suspect$/ });
    assert.throws(() => choose(which, []), { kind: "usage", message: /the store holds no snapshot/ });
  }
  // A minute or a day means all of it, and no more.
  const late = [
    "20260301T235930Z",
    ...[-1, 0].map((seconds) => snapshotIdAt(new Date(2026, 4, 21, 0, 0, seconds))),
  ];
  const inTime = late.map((id) => ({ id: id as SnapshotId, suspicions: [] }));
  const minutes = ["23:59", "23:59:30", "23:59:29"].map((time) => `2026-03-01 ${time} UTC`);
  assert.deepEqual(minutes.slice(0, 2).map((time) => choose(time, inTime)), [late[0], late[0]]);
  assert.throws(() => choose(minutes[2]!, inTime), /none is as old/);
  assert.deepEqual(["2026-05-20", "2026-05-21"].map((day) => choose(day, inTime)), late.slice(1));
});

Deno.test("a time without a zone is one of this machine's zone", async () => {
  using home = await makeHome();
  const ids = [(await home.backup()).id, (await home.backup()).id];
  // Midnight in UTC, on the clock of a wall in Kolkata, and a minute before it.
  for (const [time, id] of [["2026-03-02 05:30", ids[1]], ["2026-03-02 05:29", ids[0]]] as const) {
    const restored = await home.cli(
      ["restore", "--to", `${home.dir}/${id}`, "--snapshot", time, "--identity", home.identityFile, "--json"],
      { env: { TZ: "Asia/Kolkata" } },
    );
    assert.equal(JSON.parse(restored.stdout).snapshot, id, restored.stderr);
  }
});
