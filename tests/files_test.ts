// deno-lint-ignore-file no-import-prefix -- what only tests import is pinned here, not in deno.json
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import fc from "npm:fast-check@4.10.2";
import { concatBytes } from "../scripts/core/bytes.ts";
import type { Source } from "../scripts/core/config/config.ts";
import { BackupError, type ErrorKind } from "../scripts/core/errors.ts";
import { type HubName, MAIN_SET, parseSnapshotId, type SourceName } from "../scripts/core/names.ts";
import type { Place } from "../scripts/core/place.ts";
import {
  type FilePlan,
  type FoundFile,
  planFiles,
  type RememberedFiles,
} from "../scripts/core/snapshot/file_index.ts";
import { parseManifest, type SavedFile } from "../scripts/core/snapshot/manifest.ts";
import { realFs, writeFileDurably } from "../scripts/host/fs.ts";
import type { Fs, Host, OpenFile } from "../scripts/host/host.ts";
import { openPositioned } from "../scripts/host/node_fs.ts";
import { finishTree, unpackFiles } from "../scripts/host/restore/unpack.ts";
import { type Packed, packFiles, TornMember } from "../scripts/host/snapshot/pack.ts";
import { type FileSource, findFiles, type Found } from "../scripts/host/snapshot/sources.ts";
import { inTempDir } from "./real/files.ts";
import { noise } from "./real/random.ts";

// These tests run as root or not: what root may read anyway is refused by a wrapping Fs instead.

// ── Helpers ────────────────────────────────────────────────────────────────────────────────────────────────────

const FIRST = parseSnapshotId("20260301T020000Z");
const SECOND = parseSnapshotId("20260302T020000Z");
const MIB = 1024 * 1024;

const encode = (text: string) => new TextEncoder().encode(text);
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const place = (text: string) => text as Place;

/** A folder that is gone when the test ends, with a home in it. */
class Scratch implements Disposable {
  readonly path = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "files-" }));
  readonly home = `${this.path}/home`;
  readonly root = `${this.path}/root`;

  constructor() {
    Deno.mkdirSync(this.home);
    Deno.mkdirSync(this.root);
  }
  write(name: string, content: string | Uint8Array = name): string {
    const path = `${this.home}/${name}`;
    Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    Deno.writeFileSync(path, typeof content === "string" ? encode(content) : content);
    return path;
  }
  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

/** An hour ahead, so that files that a test just made do not count as just written. */
const LATER = () => new Date(Date.now() + 3_600_000);

function hostWith(fs: Fs = realFs, now = LATER): Host {
  return {
    fs,
    now,
    run: () => Promise.reject(new Error("no programs here")),
    report: { progress() {}, info() {}, warn() {} },
    checkpoint() {},
    blocking: (work) => work(),
  };
}

function source(
  kind: FileSource["kind"],
  path: string,
  more: { required?: boolean; exclude?: string[]; name?: string } = {},
): FileSource {
  const { required = false, exclude = [], name = "things" } = more;
  const common = { path, name: name as SourceName, required, secret: false };
  return (kind === "folder" ? { ...common, kind, exclude } : { ...common, kind }) satisfies Source;
}

/** What a source finds. @param path Below the home. */
const look = ({ home }: Scratch, kind: FileSource["kind"], path: string) =>
  findFiles(realFs, source(kind, `${home}/${path}`), home);

const placesOf = (found: { readonly found: readonly FoundFile[] }) => found.found.map((file) => file.place);

type Previous = { manifest: { id: typeof FIRST; files: SavedFile[] }; remembered: RememberedFiles };

/** Plans and packs, and returns the tar (empty if there was none). */
async function pack(
  found: readonly FoundFile[],
  { previous, host = hostWith() }: { previous?: Previous; host?: Host } = {},
): Promise<{ packed: Packed; tar: Uint8Array<ArrayBuffer>; plan: FilePlan; next: Previous }> {
  const id = previous ? SECOND : FIRST;
  const plan = planFiles({ id, found, ...(previous ? { previous } : {}) });
  const chunks: Uint8Array[] = [];
  const packed = await packFiles(host, plan, (bytes) => void chunks.push(bytes));
  const tar = new Uint8Array(Buffer.concat(chunks));
  return {
    packed,
    tar,
    plan,
    next: { manifest: { id: FIRST, files: [...packed.files] }, remembered: packed.remembered },
  };
}

/** Which files are in which member. */
function wantedOf(files: readonly SavedFile[]): Map<Place, SavedFile[]> {
  const wanted = new Map<Place, SavedFile[]>();
  for (const file of files) {
    if (file.stored) wanted.set(file.stored.member, [...wanted.get(file.stored.member) ?? [], file]);
  }
  return wanted;
}

function* cut(bytes: Uint8Array, sizes: readonly number[] = [65_536]): Generator<Uint8Array> {
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length]!;
    yield bytes.slice(at, at + size);
    at += size;
  }
}

async function restore(files: readonly SavedFile[], tar: Uint8Array, root: string, sizes?: number[]) {
  await unpackFiles(hostWith(), cut(tar, sizes), wantedOf(files), root);
  finishTree(hostWith(), files, root);
}

/** Everything below a folder, as text to compare. Links have no time: restoring does not set it. */
function describe(folder: string): string[] {
  const lines: string[] = [];
  const visit = (path: string, inside: string) => {
    for (const { name } of realFs.readDir(path)) {
      const stat = realFs.lstat(`${path}/${name}`);
      const what = stat.type === "link"
        ? realFs.readLink(`${path}/${name}`)
        : `${stat.mode.toString(8)} ${stat.mtimeMs} ${
          stat.type === "file" ? sha256(realFs.readFile(`${path}/${name}`)) : ""
        }`;
      lines.push(`${JSON.stringify(inside + name)} ${stat.type} ${what}`);
      if (stat.type === "folder") visit(`${path}/${name}`, `${inside}${name}/`);
    }
  };
  visit(folder, "");
  return lines.sort();
}

function run(program: string, args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(program, { args }).outputSync();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

function fails(kind: ErrorKind, ...words: string[]): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof BackupError, `not a BackupError: ${error}`);
    assert.equal(error.kind, kind, error.message);
    for (const word of words) assert.ok(error.message.includes(word), `${error.message} lacks ${word}`);
    assert.ok(error.hint, "no remedy");
    return true;
  };
}

/** The real Fs, where `meddle` runs before each read of the file at `path`, told which read it is. */
function meddling(path: string, meddle: (read: number) => void): Fs {
  let reads = 0;
  return {
    ...realFs,
    open(at, options) {
      const file = realFs.open(at, options);
      if (at !== path) return file;
      return {
        ...file,
        readAt(buffer, position) {
          meddle(++reads);
          return file.readAt(buffer, position);
        },
      } satisfies OpenFile;
    },
  };
}

/** Counts how often each file is opened. */
function counting(): { fs: Fs; opened: string[]; folders: string[] } {
  const opened: string[] = [];
  const folders: string[] = [];
  const fs: Fs = {
    ...realFs,
    open(path, options) {
      opened.push(path);
      return realFs.open(path, options);
    },
    readDir(path) {
      folders.push(path);
      return realFs.readDir(path);
    },
  };
  return { fs, opened, folders };
}

function denying(path: string): Fs {
  const check = (at: string) => {
    if (at === path) throw new Deno.errors.PermissionDenied("Permission denied (os error 13)");
  };
  return {
    ...realFs,
    open: (at, options) => (check(at), realFs.open(at, options)),
    readDir: (at) => (check(at), realFs.readDir(at)),
  };
}

// ── Finding ────────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("findFiles() lists a folder in order: hidden files, empty folders, links as links", () => {
  using scratch = new Scratch();
  scratch.write("f/b");
  scratch.write("f/.hidden");
  scratch.write("f/a/z");
  Deno.mkdirSync(`${scratch.home}/f/empty`);
  Deno.symlinkSync("/etc", `${scratch.home}/f/outside`);
  Deno.symlinkSync("nowhere", `${scratch.home}/f/dangling`);
  const result = look(scratch, "folder", "f");
  assert.deepEqual(placesOf(result), [
    "home/f",
    "home/f/.hidden",
    "home/f/a",
    "home/f/a/z",
    "home/f/b",
    "home/f/dangling",
    "home/f/empty",
    "home/f/outside",
  ]);
  const byPlace = new Map(result.found.map((file) => [file.place as string, file]));
  assert.equal(byPlace.get("home/f/outside")?.type, "link");
  assert.equal(byPlace.get("home/f/outside")?.target, "/etc");
  assert.equal(byPlace.get("home/f/dangling")?.target, "nowhere");
  assert.deepEqual(result.notes, []);
  assert.equal(result.absent, false);
});

Deno.test("findFiles() follows the path that the operator named, and keeps its place", async () => {
  using scratch = new Scratch();
  scratch.write("real/inner", "content");
  Deno.symlinkSync("real", `${scratch.home}/linked`);
  Deno.symlinkSync("real/inner", `${scratch.home}/file`);
  const folder = look(scratch, "folder", "linked");
  assert.deepEqual(placesOf(folder), ["home/linked", "home/linked/inner"]);
  assert.equal(folder.found[0]!.type, "folder");
  const file = look(scratch, "file", "file");
  assert.equal(file.found[0]!.type, "file");

  const { packed, tar } = await pack([...folder.found, ...file.found]);
  await restore(packed.files, tar, scratch.root);
  assert.equal(Deno.readTextFileSync(`${scratch.root}/home/linked/inner`), "content");
  assert.equal(Deno.readTextFileSync(`${scratch.root}/home/file`), "content");
  assert.ok(Deno.lstatSync(`${scratch.root}/home/file`).isFile);
});

Deno.test("findFiles() gives places outside home as root, and what is in home as home", () => {
  using scratch = new Scratch();
  scratch.write("x");
  Deno.writeTextFileSync(`${scratch.path}/y`, "y");
  const result = findFiles(realFs, source("folder", scratch.path), scratch.home);
  assert.ok(placesOf(result).includes(place(`root${scratch.path}/y`)));
  assert.ok(placesOf(result).includes(place("home/x")));
  const home = findFiles(realFs, source("folder", scratch.home), scratch.home);
  assert.deepEqual(placesOf(home), ["home/x"]);
});

Deno.test("findFiles() reports an absent source, be it required or not", () => {
  using scratch = new Scratch();
  scratch.write("plain");
  Deno.symlinkSync("gone", `${scratch.home}/dangling`);
  for (
    const absent of [
      source("file", `${scratch.home}/none`),
      source("file", `${scratch.home}/plain/below`),
      source("file", `${scratch.home}/dangling`),
      source("folder", `${scratch.home}/none`),
      source("glob", `${scratch.home}/none/*.md`),
      source("glob", `${scratch.home}/*.md`),
    ]
  ) {
    for (const required of [false, true]) {
      const result = findFiles(realFs, { ...absent, required }, scratch.home);
      assert.deepEqual([result.absent, result.unreadable], [true, []]);
      assert.equal(result.notes.length, absent.path.endsWith("dangling") ? 1 : 0);
    }
  }
});

Deno.test("findFiles() tells a file that is a folder, a folder that is a file, and a pipe as unreadable", () => {
  using scratch = new Scratch();
  scratch.write("plain");
  run("mkfifo", [`${scratch.home}/pipe`]);
  const told = (kind: FileSource["kind"], path: string) => {
    // A required source is no exception: something is there.
    const { found, unreadable, absent } = findFiles(
      realFs,
      source(kind, path, { required: true }),
      scratch.home,
    );
    assert.deepEqual([found, absent], [[], false]);
    assert.deepEqual(unreadable.map((hole) => [hole.source, hole.path]), [["things", path]]);
    return unreadable[0]!.reason;
  };
  assert.match(told("file", scratch.home), /as a file: it is a folder/);
  assert.match(told("folder", `${scratch.home}/plain`), /as a folder: it is a file/);
  assert.match(told("file", `${scratch.home}/pipe`), /it is a socket, pipe or device/);
});

Deno.test("findFiles() skips sockets and pipes inside a folder with a note", () => {
  using scratch = new Scratch();
  scratch.write("f/a");
  run("mkfifo", [`${scratch.home}/f/pipe`]);
  // Deno itself may not listen on a socket in a test that may only use loopback.
  run("perl", [
    "-MSocket",
    "-e",
    "socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un(shift)) or die",
    `${scratch.home}/f/socket`,
  ]);
  const result = look(scratch, "folder", "f");
  assert.deepEqual(placesOf(result), ["home/f", "home/f/a"]);
  assert.equal(result.notes.length, 2);
});

Deno.test("findFiles() tells what exists and cannot be read, and finds all else", () => {
  using scratch = new Scratch();
  for (const name of ["f/a/x", "f/locked/x", "f/z/x"]) scratch.write(name);
  const locked = `${scratch.home}/f/locked`;
  const denied = denying(locked);
  const holes = ({ unreadable, notes }: Found) => [...unreadable.map(({ path }) => path), ...notes];

  const folder = findFiles(denied, source("folder", `${scratch.home}/f`), scratch.home);
  assert.deepEqual(holes(folder), [locked]);
  assert.match(folder.unreadable[0]!.reason, /^Cannot read ".*\/f\/locked": Permission denied/);
  assert.deepEqual(placesOf(folder), [
    "home/f",
    "home/f/a",
    "home/f/a/x",
    "home/f/locked",
    "home/f/z",
    "home/f/z/x",
  ]);

  for (const pattern of ["*/*", "**"]) {
    const glob = findFiles(denied, source("glob", `${scratch.home}/f/${pattern}`), scratch.home);
    assert.deepEqual(holes(glob), [locked]);
    const files = placesOf(glob).filter((place) => place.endsWith("/x"));
    assert.deepEqual(files, ["home/f/a/x", "home/f/z/x"]);
  }

  const whole = findFiles(denying(`${scratch.home}/f`), source("glob", `${scratch.home}/f/*`), scratch.home);
  assert.deepEqual([holes(whole), whole.absent], [[`${scratch.home}/f`], false]);
});

Deno.test("findFiles() notes a file that vanishes between the listing and the look", () => {
  using scratch = new Scratch();
  scratch.write("f/a");
  scratch.write("f/b");
  const fs: Fs = {
    ...realFs,
    readDir(path) {
      const names = realFs.readDir(path);
      Deno.removeSync(`${scratch.home}/f/b`);
      return names;
    },
  };
  const result = findFiles(fs, source("folder", `${scratch.home}/f`), scratch.home);
  assert.deepEqual(placesOf(result), ["home/f", "home/f/a"]);
  assert.equal(result.notes.length, 1);
  assert.match(result.notes[0]!, /f\/b vanished/);
});

Deno.test("findFiles() tells names and link targets that are not UTF-8, and takes U+FFFD for what it is", () => {
  using scratch = new Scratch();
  scratch.write("f/\uFFFD");
  const folder = source("folder", `${scratch.home}/f`);
  const told = (searched: FileSource, places: string[]) => {
    const { found, unreadable } = findFiles(realFs, searched, scratch.home);
    assert.deepEqual(found.map(({ place }) => place), places);
    return unreadable.map(({ reason }) => reason).join();
  };
  assert.equal(told(folder, ["home/f", "home/f/\uFFFD"]), "");
  run("bash", ["-c", `touch "$0"/f/$'bad\\xff'`, scratch.home]);
  assert.match(told(folder, ["home/f", "home/f/\uFFFD"]), /bad\uFFFD": its name is not UTF-8 \(`ls -b /);
  const glob = source("glob", `${scratch.home}/f/*`);
  assert.match(told(glob, ["home/f/\uFFFD"]), /bad\uFFFD": its name is not UTF-8/);
  // What no pattern could match is nothing that is missing.
  for (const pattern of ["*.md", "**/*.md"]) {
    assert.equal(told(source("glob", `${scratch.home}/f/${pattern}`), []), "", pattern);
  }
  run("bash", ["-c", `rm "$0"/f/bad*; ln -s $'to\\xff' "$0"/f/link`, scratch.home]);
  assert.match(told(folder, ["home/f", "home/f/\uFFFD"]), /f\/link"/);
});

Deno.test("findFiles() leaves out what a folder excludes, without entering it", () => {
  using scratch = new Scratch();
  for (const name of ["a.tmp", "keep", ".b.tmp", "sub/c.tmp", "cache/x", "sub/cache/x", "node_modules/y"]) {
    scratch.write(`f/${name}`);
  }
  const { fs, folders } = counting();
  const exclude = ["*.tmp", "/sub/cache", "node_modules/"];
  const result = findFiles(fs, source("folder", `${scratch.home}/f`, { exclude }), scratch.home);
  assert.deepEqual(placesOf(result).slice(1), [
    "home/f/cache",
    "home/f/cache/x",
    "home/f/keep",
    "home/f/sub",
  ]);
  assert.ok(!folders.some((path) => path.includes("node_modules")));
});

Deno.test("findFiles() matches patterns", () => {
  using scratch = new Scratch();
  const names = [
    "a.md",
    "b.md",
    "c.txt",
    ".h.md",
    "d/a.md",
    "d/e/b.md",
    ".hid/x.md",
    "p (1).md",
    "\nline.md",
    "ü.md",
    "s/!x",
    "s/+(y)",
    "s/yy",
  ];
  for (const name of names) scratch.write(name);
  const cases: [pattern: string, names: string[]][] = [
    ["*.md", ["a.md", "b.md", "\nline.md", "p (1).md", "ü.md"]],
    ["?.md", ["a.md", "b.md", "ü.md"]],
    [".*.md", [".h.md"]],
    ["[!a].md", ["b.md", "ü.md"]],
    ["[!a]*.md", ["\nline.md", "b.md", "p (1).md", "ü.md"]],
    ["s/!x*", ["s/!x"]],
    ["s/+(y)*", ["s/+(y)"]],
    ["[a-b].{md,txt}", ["a.md", "b.md"]],
    ["{a.md,d/e/*.md}", ["a.md", "d/e/b.md"]],
    ["**/*.md", ["a.md", "b.md", "\nline.md", "p (1).md", "ü.md", "d/a.md", "d/e/b.md"]],
    ["d/**/b.md", ["d/e/b.md"]],
    ["**/**/**/b.md", ["b.md", "d/e/b.md"]],
    ["*/a.md", ["d/a.md"]],
    [".hid/*", [".hid/x.md"]],
    ["p (1)*", ["p (1).md"]],
    ["c.txt", ["c.txt"]],
    ["\\a.md", ["a.md"]],
    ["d*", ["d", "d/a.md", "d/e", "d/e/b.md"]],
    ["d/**", ["d/a.md", "d/e", "d/e/b.md"]],
  ];
  for (const [pattern, expected] of cases) {
    const result = look(scratch, "glob", pattern);
    assert.deepEqual(placesOf(result).sort(), expected.map((name) => `home/${name}`).sort(), pattern);
  }
  for (const pattern of ["[z-a]", "{../x,y}/*"]) {
    const broken = source("glob", `${scratch.home}/${pattern}`);
    assert.throws(() => findFiles(realFs, broken, scratch.home), fails("config"));
  }
});

Deno.test("findFiles() keeps links that a pattern matches, follows none, and says so", () => {
  using scratch = new Scratch();
  scratch.write("real/a.md");
  Deno.symlinkSync("real", `${scratch.home}/link`);
  Deno.symlinkSync("real/a.md", `${scratch.home}/l.md`);
  const matched = look(scratch, "glob", "*.md");
  assert.equal(matched.found[0]!.type, "link");
  const through = look(scratch, "glob", "*/a.md");
  assert.deepEqual(placesOf(through), ["home/real/a.md"]);
  assert.ok(through.notes.some((note) => note.includes("/link is a link")));
  const deep = look(scratch, "glob", "**/a.md");
  assert.deepEqual(placesOf(deep), ["home/real/a.md"]);
  const named = look(scratch, "glob", "link/*.md");
  assert.deepEqual(placesOf(named), ["home/link/a.md"]);
});

Deno.test("findFiles() reads only the folders in which a pattern can match", () => {
  using scratch = new Scratch();
  for (const name of ["docs/plans/a.md", "docs/plans/old/b.md", "other/c.md"]) scratch.write(name);
  const { fs, folders } = counting();
  findFiles(fs, source("glob", `${scratch.home}/docs/plans/*.md`), scratch.home);
  findFiles(fs, source("glob", `${scratch.home}/*/plans/a.md`), scratch.home);
  assert.deepEqual(folders, [`${scratch.home}/docs/plans`, scratch.home]);

  // Each `**` may stand for any of these folders: looked at in every way they would be thousands.
  scratch.write("deep/1/2/3/4/5/6/7/8/9/x");
  folders.length = 0;
  findFiles(fs, source("glob", `${scratch.home}/deep/${"**/".repeat(6)}x`), scratch.home);
  assert.equal(folders.length, 6 * 10);
});

// ── Planning ───────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("planFiles() reads again only what stat shows as changed", async () => {
  using scratch = new Scratch();
  for (const name of ["same", "grown", "touched", "replaced", "chmodded"]) scratch.write(`f/${name}`);
  const find = () => look(scratch, "folder", "f").found;
  const first = await pack(find());
  // Deno's ctime has whole seconds.
  await new Promise((resolve) => setTimeout(resolve, 1_050));
  scratch.write("f/grown", "grown, and how");
  Deno.utimeSync(`${scratch.home}/f/touched`, 1, 1);
  const { mtimeMs } = realFs.stat(`${scratch.home}/f/replaced`);
  scratch.write("new", "REPLACED");
  realFs.utime(`${scratch.home}/new`, mtimeMs);
  Deno.renameSync(`${scratch.home}/new`, `${scratch.home}/f/replaced`);
  Deno.chmodSync(`${scratch.home}/f/chmodded`, 0o400);

  const { fs, opened } = counting();
  const second = await pack(find(), { previous: first.next, host: hostWith(fs) });
  assert.deepEqual(
    opened.map((path) => path.split("/").at(-1)).sort(),
    ["chmodded", "grown", "replaced", "touched"],
  );
  const stored = Object.fromEntries(
    second.packed.files.filter((file) => file.stored).map((file) => [file.place, file.stored!.snapshot]),
  );
  assert.deepEqual(stored, {
    "home/f/chmodded": FIRST,
    "home/f/grown": SECOND,
    "home/f/replaced": SECOND,
    "home/f/same": FIRST,
    "home/f/touched": FIRST,
  });
  assert.equal(second.packed.files.find((file) => file.place === "home/f/chmodded")?.mode, 0o400);
});

Deno.test("planFiles() reads again what had just been written when it was read", async () => {
  using scratch = new Scratch();
  scratch.write("f/racy", "one");
  const find = () => look(scratch, "folder", "f").found;
  const justNow = hostWith(realFs, () => new Date());
  const first = await pack(find(), { host: justNow });
  const known = first.packed.remembered.files[place("home/f/racy")]!;
  // A change that stat does not show: the same size, and the clock has not ticked.
  scratch.write("f/racy", "two");
  const found = find().map((file) =>
    file.type === "file" ? { ...file, stat: { ...file.stat, ...known } } : file
  );
  const second = await pack(found, { previous: first.next });
  assert.equal(second.packed.files.find((file) => file.type === "file")?.sha256, sha256(encode("two")));

  // Read long after the last change, it is not racy. Dated now by hand, it is again.
  const settled = await pack(find());
  assert.equal(planFiles({ id: SECOND, found: find(), previous: settled.next }).bytesToRead, 0);
  const remembered = settled.next.remembered.files[place("home/f/racy")]!;
  const dated = { ...remembered, mtimeMs: remembered.readMs + 1_500 };
  const previous = {
    ...settled.next,
    remembered: { ...settled.next.remembered, files: { [place("home/f/racy")]: dated } },
  };
  // Changed just before it was read, and its mtime set back: only ctime tells.
  const setBack = { ...remembered, mtimeMs: 0, ctimeMs: remembered.readMs - 500 };
  const back = find().map((file) => ({ ...file, stat: { ...file.stat, ...setBack } }));
  const previousBack = {
    ...settled.next,
    remembered: { ...settled.next.remembered, files: { [place("home/f/racy")]: setBack } },
  };
  assert.equal(planFiles({ id: SECOND, found: back, previous: previousBack }).bytesToRead, 3);
  const same = find().map((file) => ({ ...file, stat: { ...file.stat, mtimeMs: dated.mtimeMs } }));
  assert.equal(planFiles({ id: SECOND, found: same, previous }).bytesToRead, 3);
});

Deno.test("a file that need not be read is listed with the source that names it now, and its mode", async () => {
  using scratch = new Scratch();
  scratch.write("f/a", "four");
  const { found } = look(scratch, "folder", "f");
  const first = await pack(found);
  const now = found.map((file) => ({
    ...file,
    source: "renamed" as typeof file.source,
    stat: { ...file.stat, mode: 0o600 },
  }));
  const { fs, opened } = counting();
  const { packed } = await pack(now, { previous: first.next, host: hostWith(fs) });
  assert.deepEqual(opened, []);
  const then = first.packed.files.map((file) => ({ ...file, source: "renamed", mode: 0o600 }));
  assert.equal(JSON.stringify(packed.files), JSON.stringify(then));
});

Deno.test("planFiles() trusts no memory of another snapshot", async () => {
  using scratch = new Scratch();
  scratch.write("f/a", "four");
  const find = () => look(scratch, "folder", "f").found;
  const { next } = await pack(find());
  const planWith = (remembered: RememberedFiles | undefined) =>
    planFiles({ id: SECOND, found: find(), previous: { ...next, remembered } }).bytesToRead;
  assert.equal(planWith(next.remembered), 0);
  assert.equal(planWith({ ...next.remembered, snapshot: SECOND }), 4);
  assert.equal(planWith(undefined), 4);
});

Deno.test("planFiles() reads a file again when any one thing that stat tells of it differs", async () => {
  using scratch = new Scratch();
  const path = scratch.write("a", "four");
  const { found } = findFiles(realFs, source("file", path), scratch.home);
  const { next } = await pack(found);
  const [file] = found;
  for (const key of ["bytes", "mtimeMs", "ctimeMs", "inode", "device"] as const) {
    const changed = { ...file!, stat: { ...file!.stat, [key]: file!.stat[key] - 3_000 } };
    const plan = planFiles({ id: SECOND, found: [changed], previous: next });
    assert.equal(plan.files[0]!.unchanged, undefined, key);
  }
  const [saved] = next.manifest.files;
  const manifest = { ...next.manifest, files: [{ ...saved!, bytes: 5 }] };
  assert.equal(planFiles({ id: SECOND, found, previous: { ...next, manifest } }).bytesToRead, 4);
});

Deno.test("planFiles() keeps one file per place, and what is behind a link rather than the link", () => {
  using scratch = new Scratch();
  scratch.write("f/real/x");
  Deno.symlinkSync("real", `${scratch.home}/f/link`);
  const find = (path: string, name: string, kind: "file" | "folder" = "folder") =>
    findFiles(realFs, source(kind, `${scratch.home}/${path}`, { name }), scratch.home).found;
  const twice = planFiles({ id: FIRST, found: [...find("f", "one"), ...find("f", "two")] });
  assert.deepEqual([...new Set(twice.files.map(({ found }) => found.source))], ["one"]);
  const followed = planFiles({ id: FIRST, found: [...find("f", "one"), ...find("f/link", "two")] });
  const types = new Map(followed.files.map(({ found }) => [found.place as string, found.type]));
  assert.equal(types.get("home/f/link"), "folder");
  assert.equal(types.get("home/f/link/x"), "file");
  const inner = planFiles({ id: FIRST, found: [...find("f", "one"), ...find("f/link/x", "two", "file")] });
  assert.equal(inner.files.some(({ found }) => found.type === "link"), false);
  assert.equal(inner.notes.length, 1);
  const above = planFiles({ id: FIRST, found: find("f", "one"), databases: [place("home/f/link/x.db")] });
  assert.deepEqual(above.files.map(({ found }) => found.place), ["home/f", "home/f/real", "home/f/real/x"]);
  assert.equal(above.notes.length, 1);
  assert.deepEqual(
    planFiles({ id: FIRST, found: find("f", "one").toReversed() }).files,
    twice.files,
    "in order",
  );
  const except = planFiles({ id: FIRST, found: find("f", "one"), except: new Set([place("home/f/real/x")]) });
  assert.equal(except.files.some(({ found }) => found.place === "home/f/real/x"), false);
});

// ── Packing ────────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("packFiles() stores no content twice: not in one snapshot, not under another name, not big files", async () => {
  using scratch = new Scratch();
  const big = new Uint8Array(9 * MIB).fill(7);
  scratch.write("f/big", big);
  scratch.write("f/big copy", big);
  scratch.write("f/small", "s");
  scratch.write("f/small copy", "s");
  const find = () => look(scratch, "folder", "f").found;
  const first = await pack(find());
  assert.ok(first.tar.length < 9.5 * MIB, String(first.tar.length));
  assert.equal(new Set(first.packed.files.map((file) => file.stored?.member)).size, 3);

  Deno.renameSync(`${scratch.home}/f/big`, `${scratch.home}/f/renamed`);
  Deno.copyFileSync(`${scratch.home}/f/small`, `${scratch.home}/f/third`);
  Deno.removeSync(`${scratch.home}/f/small copy`);
  const second = await pack(find(), { previous: first.next });
  assert.equal(second.tar.length, 0);
  for (const file of second.packed.files) if (file.stored) assert.equal(file.stored.snapshot, FIRST);

  await restore(second.packed.files, first.tar, scratch.root);
  assert.deepEqual(describe(`${scratch.root}/home/f`), describe(`${scratch.home}/f`));
});

Deno.test("packFiles() writes no tar when nothing has content", async () => {
  using scratch = new Scratch();
  Deno.mkdirSync(`${scratch.home}/f/empty`, { recursive: true });
  const { packed, tar } = await pack(look(scratch, "folder", "f").found);
  assert.equal(tar.length, 0);
  assert.equal(packed.files.length, 2);
});

Deno.test("packFiles() reads a small file again that changes meanwhile", async () => {
  using scratch = new Scratch();
  const path = scratch.write("f/a", "before");
  const fs = meddling(path, (read) => read === 1 && Deno.writeTextFileSync(path, "after, and longer"));
  const { found } = findFiles(realFs, source("file", path), scratch.home);
  const { packed, tar } = await pack(found, { host: hostWith(fs) });
  assert.deepEqual(packed.notes, []);
  await restore(packed.files, tar, scratch.root);
  assert.equal(Deno.readTextFileSync(`${scratch.root}/home/f/a`), "after, and longer");
});

Deno.test("packFiles() saves a small file that never rests, says so, and reads it again the next time", async () => {
  using scratch = new Scratch();
  const path = scratch.write("f/a", "0");
  let reads = 0;
  // Larger each time: a clock that is coarse may show the same time twice.
  const fs = meddling(path, (read) => Deno.writeTextFileSync(path, "x".repeat(1 + (reads = read))));
  const { found } = findFiles(realFs, source("file", path), scratch.home);
  const { packed, tar } = await pack(found, { host: hostWith(fs) });
  assert.equal(reads, 3);
  assert.equal(packed.notes.length, 1);
  assert.match(packed.notes[0]!, /home\/f\/a changed while it was read/);
  assert.deepEqual(packed.remembered.files, {});
  await restore(packed.files, tar, scratch.root);
  assert.match(Deno.readTextFileSync(`${scratch.root}/home/f/a`), /^x+$/);
});

Deno.test("packFiles() reads no more into memory of a small file that became a big one", async () => {
  using scratch = new Scratch();
  const path = scratch.write("f/a", "small");
  const fs = meddling(path, (read) => read === 1 && Deno.writeFileSync(path, new Uint8Array(20 * MIB)));
  const { found } = findFiles(realFs, source("file", path), scratch.home);
  const { packed } = await pack(found, { host: hostWith(fs) });
  assert.equal(packed.files[0]!.bytes, 8 * MIB);
  assert.equal(packed.notes.length, 1);
});

Deno.test("packFiles() does not call a file read whole that gives less than stat says", async () => {
  using scratch = new Scratch();
  const path = scratch.write("f/a", "content");
  const fs: Fs = {
    ...realFs,
    open(at, options) {
      const file = realFs.open(at, options);
      return { ...file, readAt: (buffer, position) => file.readAt(buffer.subarray(0, 3), position) };
    },
  };
  const { found } = findFiles(realFs, source("file", path), scratch.home);
  const { packed } = await pack(found, { host: hostWith(fs) });
  assert.equal(packed.files[0]!.bytes, 3);
  assert.equal(packed.notes.length, 1);
});

Deno.test("packFiles() gives its sink chunks of any file size, which the sink may overwrite", async () => {
  using scratch = new Scratch();
  for (let index = 0; index < 12; index++) {
    scratch.write(`f/${index}`, new Uint8Array(index % 3 * 200_000 + index).fill(index));
  }
  const { found } = look(scratch, "folder", "f");
  const chunks: Uint8Array[] = [];
  for (let turn = 0; turn < 2; turn++) {
    chunks.length = 0;
    await packFiles(hostWith(), planFiles({ id: FIRST, found }), (bytes) => {
      chunks.push(bytes.slice());
      new Uint8Array(bytes.buffer).fill(0xff);
    });
  }
  const { packed, tar } = await pack(found);
  assert.deepEqual(Buffer.compare(Buffer.concat(chunks), tar), 0);
  await restore(packed.files, tar, scratch.root);
  assert.deepEqual(describe(`${scratch.root}/home`), describe(scratch.home));
});

Deno.test("packFiles() stores a big file that grows, shrinks or changes at its first size, with its own checksum", async () => {
  const changes: [name: string, meddle: (path: string) => void][] = [
    ["grows", (path) => Deno.writeFileSync(path, new Uint8Array(MIB), { append: true })],
    ["shrinks", (path) => Deno.truncateSync(path, 5 * MIB)],
    ["changes", (path) => {
      using file = Deno.openSync(path, { write: true });
      file.seekSync(8 * MIB, Deno.SeekMode.Start);
      file.writeSync(encode("changed"));
    }],
  ];
  for (const [name, meddle] of changes) {
    using scratch = new Scratch();
    const path = scratch.write(name, new Uint8Array(9 * MIB).fill(1));
    // Written a while ago: two changes within one tick of the kernel's clock have one time.
    Deno.utimeSync(path, 1_000_000_000, 1_000_000_000);
    const fs = meddling(path, (read) => read === 4 && meddle(path));
    const { found } = findFiles(realFs, source("file", path), scratch.home);
    const { packed, tar } = await pack(found, { host: hostWith(fs) });
    assert.equal(packed.notes.length, 1, name);
    const isShort = packed.notes[0]!.endsWith("changed while it was read; zeros stand for what was cut off");
    assert.equal(isShort, name === "shrinks", packed.notes[0]);
    assert.deepEqual(packed.remembered.files, {});
    assert.equal(packed.files[0]!.bytes, 9 * MIB);
    await restore(packed.files, tar, scratch.root);
    const restored = Deno.readFileSync(`${scratch.root}/home/${name}`);
    assert.equal(restored.length, 9 * MIB);
    assert.equal(restored[9 * MIB - 1], name === "shrinks" ? 0 : 1);
    assert.equal(restored[8 * MIB], name === "shrinks" ? 0 : name === "changes" ? encode("c")[0] : 1);
  }
});

Deno.test("packFiles() hashes a big file first whose size is known, and streams it when its content is new", async () => {
  using scratch = new Scratch();
  const one = scratch.write("one", new Uint8Array(9 * MIB).fill(1));
  const two = scratch.write("two", new Uint8Array(9 * MIB).fill(2));
  const found = [one, two].flatMap((path) => findFiles(realFs, source("file", path), scratch.home).found);
  const { packed, tar } = await pack(found);
  assert.deepEqual(packed.files.map((file) => file.stored!.member), ["home/one", "home/two"]);
  await restore(packed.files, tar, scratch.root);
  assert.deepEqual(describe(`${scratch.root}/home`), describe(scratch.home));
});

Deno.test("packFiles() leaves out, with a note, what vanished or is no file any more", async () => {
  using scratch = new Scratch();
  for (const name of ["gone", "link", "folder", "stays"]) scratch.write(`f/${name}`);
  const { found } = look(scratch, "folder", "f");
  const first = await pack(found);
  for (const name of ["gone", "link", "folder"]) Deno.removeSync(`${scratch.home}/f/${name}`);
  Deno.symlinkSync("/etc/hostname", `${scratch.home}/f/link`);
  Deno.mkdirSync(`${scratch.home}/f/folder`);
  const previous = { ...first.next, remembered: { ...first.next.remembered, files: {} } };
  const { packed } = await pack(found, { previous });
  assert.deepEqual(packed.files.map((file) => file.place), ["home/f", "home/f/stays"]);
  assert.equal(packed.notes.length, 3);
});

Deno.test("packFiles() tells what cannot be read, and what it stores of all else comes back", async () => {
  using scratch = new Scratch();
  const path = scratch.write("f/locked", "12345");
  scratch.write("f/after", "after");
  scratch.write("f/zz", "12345");
  const failingAt = (reads: number) =>
    meddling(path, (read) => {
      if (read >= reads) throw new Error("Input/output error (os error 5)");
    });
  const tell = async (fs: Fs, reason: RegExp, previous?: Previous) => {
    const { found } = look(scratch, "folder", "f");
    const { packed, tar } = await pack(found, {
      host: hostWith(fs),
      ...(previous ? { previous } : {}),
    });
    assert.deepEqual(packed.unreadable.map(({ source, path }) => [source, path]), [["things", path]]);
    assert.match(packed.unreadable[0]!.reason, reason);
    assert.deepEqual(packed.files.map(({ place }) => place), ["home/f", "home/f/after", "home/f/zz"]);
    assert.equal(Object.hasOwn(packed.remembered.files, "home/f/locked"), false);
    if (previous) return;
    using root = new Scratch();
    await restore(packed.files, tar, root.path);
    assert.equal(Deno.readTextFileSync(`${root.path}/home/f/zz`), "12345");
  };
  await tell(denying(path), /^Cannot read ".*f\/locked": Permission denied/);
  await tell(failingAt(1), /Input\/output error/);
  const claiming: Fs["open"] = (at, options) => {
    const file = realFs.open(at, options);
    return at === path ? { ...file, stat: () => ({ ...file.stat(), bytes: 2 ** 63 }) } : file;
  };
  await tell({ ...realFs, open: claiming }, /^Cannot save ".*locked": it says that it has \d+ bytes$/);
  // Too big to be read whole: its member in the tar has been begun, and is to stand in none.
  Deno.writeFileSync(path, new Uint8Array(9 * MIB).fill(1));
  const { found: all } = look(scratch, "folder", "f");
  await assert.rejects(pack(all, { host: hostWith(failingAt(3)) }), (error) => {
    assert.ok(error instanceof TornMember);
    assert.equal(error.file.path, path);
    return true;
  });
  // Of a known size it is hashed first.
  scratch.write("f/zz", new Uint8Array(9 * MIB).fill(2));
  const { found } = look(scratch, "file", "f/zz");
  const known = (await pack(found)).packed;
  scratch.write("f/zz", "12345");
  const previous = { manifest: { id: FIRST, files: [...known.files] }, remembered: known.remembered };
  await tell(failingAt(3), /Input\/output error/, previous);
});

Deno.test("packFiles() passes on what its sink throws, at the first byte and at the last", async () => {
  using scratch = new Scratch();
  for (const bytes of [10, 30 * MIB]) {
    const path = scratch.write(`f${bytes}`, new Uint8Array(bytes).fill(3));
    const { found } = findFiles(realFs, source("file", path), scratch.home);
    const full = new BackupError("Cannot write: the disk is full", { kind: "disk", hint: "free some" });
    const sink = () => {
      throw full;
    };
    await assert.rejects(packFiles(hostWith(), planFiles({ id: FIRST, found }), sink), full);
  }
});

Deno.test("packFiles() stops between chunks when it is told to", async () => {
  using scratch = new Scratch();
  const path = scratch.write("big", new Uint8Array(20 * MIB).fill(3));
  const { found } = findFiles(realFs, source("file", path), scratch.home);
  let calls = 0;
  const checkpoint = () => {
    if (++calls === 10) throw new BackupError("Stopped", { kind: "cancelled", hint: "run it again" });
  };
  let bytes = 0;
  const packing = packFiles(
    { ...hostWith(), checkpoint },
    planFiles({ id: FIRST, found }),
    (chunk) => void (bytes += chunk.length),
  );
  await assert.rejects(packing, fails("cancelled"));
  assert.ok(bytes < 15 * MIB);
});

Deno.test("packFiles() tells how far it is, up to the total", async () => {
  using scratch = new Scratch();
  scratch.write("f/a", new Uint8Array(10 * MIB));
  scratch.write("f/b", "12345");
  const { found } = look(scratch, "folder", "f");
  const seen: [number, number][] = [];
  await packFiles(
    hostWith(),
    planFiles({ id: FIRST, found }),
    () => {},
    (done, total) => seen.push([done, total]),
  );
  assert.deepEqual(seen.at(-1), [10 * MIB + 5, 10 * MIB + 5]);
  assert.ok(seen.length > 5);
});

// ── There and back ─────────────────────────────────────────────────────────────────────────────────────────────

const WEIRD_NAMES = [
  "-rf",
  " leading and trailing ",
  "line\nend",
  "tab\t\x01\x7f",
  "ünïcödé-日本語-😀",
  "e\u0301 and \u00e9",
  "*?[x]{y}\\",
  "~",
  "x".repeat(255),
  "日".repeat(85),
  "PaxHeader",
  "%2e%2e",
  "...",
  "\uFEFFbom",
  "'\"`$(id)",
];

/** A tree with everything that a file system lets one make without being root. */
function makeRichTree(scratch: Scratch): void {
  for (const name of WEIRD_NAMES) scratch.write(`f/${name}`, `content of ${name}`);
  let deep = "f";
  for (const name of ["a".repeat(200), "日".repeat(80), "b".repeat(200), "c".repeat(150)]) deep += `/${name}`;
  scratch.write(`${deep}/deep`);
  scratch.write("f/zero", "");
  const modes = { setuid: 0o4755, setgid: 0o2755, sticky: 0o1777, none: 0, readonly: 0o444, private: 0o600 };
  for (const [name, mode] of Object.entries(modes)) Deno.chmodSync(scratch.write(`f/modes/${name}`), mode);
  Deno.mkdirSync(`${scratch.home}/f/empty/inner`, { recursive: true });
  Deno.symlinkSync("../../outside", `${scratch.home}/f/relative`);
  Deno.symlinkSync("/etc/passwd", `${scratch.home}/f/absolute`);
  Deno.symlinkSync("nowhere 日本", `${scratch.home}/f/dangling`);
  Deno.symlinkSync("loop", `${scratch.home}/f/loop`);
  realFs.utime(`${scratch.home}/f/zero`, 1_234_567_890_123);
  realFs.utime(`${scratch.home}/f/-rf`, 0);
  realFs.utime(scratch.write("f/old"), -86_400_000);
  realFs.utime(`${scratch.home}/f/~`, 9_999_999_999_000);
  Deno.chmodSync(`${scratch.home}/f/empty/inner`, 0o500);
  Deno.chmodSync(`${scratch.home}/f/empty`, 0o1700);
  realFs.utime(`${scratch.home}/f/empty`, 1_000_000_000_007);
  realFs.utime(`${scratch.home}/f`, 1_100_000_000_000);
}

Deno.test("packFiles() and unpackFiles() bring back names, modes, times, links and empty folders", async () => {
  using scratch = new Scratch();
  // A header has room for 100 bytes of a name and, before a slash, 155 more: just so many, and one more of each.
  const of = (...lengths: number[]) => lengths.map((length) => "x".repeat(length)).join("/");
  for (
    const name of [of(93), of(94), of(147, 100), of(148, 100), of(149, 100), of(148, 101), of(60, 60, 60, 60)]
  ) {
    scratch.write(`f/${name}`, name);
  }
  makeRichTree(scratch);
  const { packed, tar } = await pack(look(scratch, "folder", "f").found);
  assert.deepEqual(packed.notes, []);
  await restore(packed.files, tar, scratch.root);
  assert.deepEqual(describe(scratch.root + "/home/f"), describe(scratch.home + "/f"));
  assert.equal(realFs.stat(`${scratch.root}/home/f`).mtimeMs, 1_100_000_000_000);
  assert.equal(realFs.stat(`${scratch.root}/home`).mode, 0o700);

  const ids = { hub: "hub" as HubName, set: MAIN_SET, id: FIRST };
  const manifest = {
    ...ids,
    version: 1 as const,
    parent: null,
    sources: [],
    databases: [],
    files: [...packed.files],
    removed: [],
    notes: [],
    suspicions: [],
  };
  assert.deepEqual(parseManifest(JSON.stringify(manifest), ids).files, packed.files);
});

Deno.test("packFiles() writes what the tar program reads: names, sizes, modes, whole seconds", async () => {
  using scratch = new Scratch();
  makeRichTree(scratch);
  const { packed, tar } = await pack(look(scratch, "folder", "f").found);
  Deno.writeFileSync(`${scratch.path}/files.tar`, tar);
  run("tar", ["-x", "-p", "-f", `${scratch.path}/files.tar`, "-C", scratch.root]);
  for (const file of packed.files) {
    if (file.stored?.member !== file.place) continue;
    const path = `${scratch.root}/${file.place}`;
    const stat = realFs.lstat(path);
    assert.equal(sha256(realFs.readFile(path)), file.sha256, file.place);
    assert.equal(stat.mode, file.mode, file.place);
    assert.equal(stat.mtimeMs, Math.floor(file.mtimeMs / 1000) * 1000, file.place);
  }
  assert.ok(Buffer.from(tar).includes("path=home/f/ünïcödé"), "a name of no certain encoding");
  const listing = run("tar", ["-t", "-v", "--numeric-owner", "-f", `${scratch.path}/files.tar`]);
  assert.ok(listing.trim().split("\n").every((line) => line.includes(" 0/0 ")));
});

Deno.test("unpackFiles() leaves holes where there are zeros", async () => {
  using scratch = new Scratch();
  const path = `${scratch.home}/sparse`;
  {
    using file = Deno.openSync(path, { write: true, create: true });
    for (const position of [3 * MIB + 100, 20 * MIB, 30 * MIB - 1]) {
      file.seekSync(position, Deno.SeekMode.Start);
      file.writeSync(encode("x"));
    }
    file.truncateSync(40 * MIB);
  }
  const { packed, tar } = await pack(findFiles(realFs, source("file", path), scratch.home).found);
  await restore(packed.files, tar, scratch.root, [1000, 70_001]);
  const restored = Deno.statSync(`${scratch.root}/home/sparse`);
  assert.equal(restored.size, 40 * MIB);
  assert.ok(restored.blocks! * 512 < MIB, `${restored.blocks} blocks`);
  assert.deepEqual(describe(`${scratch.root}/home`), describe(scratch.home));
});

Deno.test("unpackFiles() writes only what is wanted, to every place that has the content", async () => {
  using scratch = new Scratch();
  scratch.write("f/a", "A");
  scratch.write("f/b", new Uint8Array(3 * MIB).fill(66));
  scratch.write("f/c", "C");
  const { packed, tar } = await pack(look(scratch, "folder", "f").found);
  const b = packed.files.find((file) => file.place === "home/f/b")!;
  const copies = [b, { ...b, place: place("root/srv/copy") }, { ...b, place: place("home/other/copy") }];
  await restore(copies, tar, scratch.root);
  const files = describe(scratch.root).filter((line) => line.includes(" file "));
  assert.equal(files.length, 3);
  assert.ok(files.every((line) => line.endsWith(b.sha256!)));
});

/** A random tree: paths are made of few names, so that they meet; contents repeat and hold runs of zeros. */
const arbitraryName = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom("a", "b", ".c") },
  fc.constantFrom(...WEIRD_NAMES),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 12 })
    .map((text) => text.replace(/[/\0]/g, "_"))
    .filter((text) => text !== "." && text !== ".." && encode(text).length <= 200 && text.isWellFormed()),
);
const arbitraryContent = fc.oneof(
  fc.constantFrom(new Uint8Array(0), encode("same"), new Uint8Array(4096), new Uint8Array(513).fill(1)),
  fc.array(
    fc.tuple(fc.constantFrom(0, 0, 7), fc.integer({ min: 1, max: 9_000 })),
    { minLength: 1, maxLength: 5 },
  ).map((runs) => new Uint8Array(runs.flatMap(([value, length]) => new Array<number>(length).fill(value)))),
);
const arbitraryEntry = fc.record({
  path: fc.array(arbitraryName, { minLength: 1, maxLength: 4 }),
  type: fc.constantFrom("file", "file", "file", "folder", "link"),
  content: arbitraryContent,
  mode: fc.integer({ min: 0, max: 0o7777 }),
  mtimeMs: fc.integer({ min: 0, max: 4_000_000_000 }).map((seconds) => seconds * 1000),
});

Deno.test("unpackFiles() is the inverse of packFiles() on any tree, over two snapshots, cut anywhere", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(arbitraryEntry, { maxLength: 12 }),
      fc.array(arbitraryEntry, { maxLength: 4 }),
      fc.array(fc.integer({ min: 1, max: 5_000 }), { minLength: 1, maxLength: 4 }),
      async (entries, later, sizes) => {
        using scratch = new Scratch();
        Deno.mkdirSync(`${scratch.home}/f`);
        const make = ({ path, type, content, mode, mtimeMs }: typeof entries[number]) => {
          const full = `${scratch.home}/f/${path.join("/")}`;
          try {
            Deno.mkdirSync(full.slice(0, full.lastIndexOf("/")), { recursive: true });
            if (type === "link") Deno.symlinkSync(path.join("/"), full);
            else if (type === "folder") Deno.mkdirSync(full);
            else Deno.writeFileSync(full, content, { createNew: true });
          } catch {
            return; // Something else is there already.
          }
          if (type === "link") return;
          realFs.chmod(full, type === "folder" ? mode | 0o700 : mode);
          realFs.utime(full, mtimeMs);
        };
        const find = () => look(scratch, "folder", "f").found;
        entries.forEach(make);
        const first = await pack(find());
        later.forEach(make);
        const second = await pack(find(), { previous: first.next });
        assert.deepEqual(second.packed.notes, []);

        for (const [id, tar] of [[FIRST, first.tar], [SECOND, second.tar]] as const) {
          const files = second.packed.files.filter((file) => file.stored?.snapshot === id);
          if (files.length > 0) await unpackFiles(hostWith(), cut(tar, sizes), wantedOf(files), scratch.root);
        }
        finishTree(hostWith(), second.packed.files, scratch.root);
        assert.deepEqual(describe(`${scratch.root}/home`), describe(scratch.home));
      },
    ),
    { numRuns: 60 },
  );
});

// ── Hostile tars ───────────────────────────────────────────────────────────────────────────────────────────────

interface Member {
  name: string;
  type?: string;
  content?: Uint8Array;
  /** What the header claims, if not the truth. */
  bytes?: number;
  linkname?: string;
}

/** A member as the ustar format has it, written by hand so that it can lie. */
function member({ name, type = "0", content = new Uint8Array(0), bytes, linkname = "" }: Member): Uint8Array {
  const header = Buffer.alloc(512);
  header.write(name, 0, 100);
  header.write("0000644\0", 100);
  header.write("0000000\0".repeat(2), 108);
  header.write((bytes ?? content.length).toString(8).padStart(11, "0") + "\0", 124);
  header.write("00000000000\0", 136);
  header.write("        ", 148);
  header.write(type, 156);
  header.write(linkname, 157, 100);
  header.write("ustar\x0000", 257);
  header.write(header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ", 148);
  return Buffer.concat([header, content, Buffer.alloc(-content.length & 511)]);
}

const archive = (...members: Uint8Array[]): Uint8Array => Buffer.concat([...members, Buffer.alloc(1024)]);

const CONTENT = encode("good content");
const GOOD: SavedFile = {
  source: "things",
  place: place("home/good"),
  type: "file",
  mode: 0o600,
  mtimeMs: 0,
  bytes: CONTENT.length,
  sha256: sha256(CONTENT),
  stored: { snapshot: FIRST, member: place("home/good") },
};
const good = member({ name: "home/good", content: CONTENT });

async function refuses(scratch: Scratch, tar: Uint8Array, ...words: string[]): Promise<void> {
  const before = describe(scratch.home);
  const root = Deno.makeTempDirSync({ dir: scratch.path });
  for (const sizes of [[tar.length || 1], [100]]) {
    await assert.rejects(
      unpackFiles(hostWith(), cut(tar, sizes), wantedOf([GOOD]), root),
      fails("integrity", ...words),
    );
    assert.deepEqual(describe(scratch.home), before);
    assert.ok(!Deno.readDirSync(scratch.path).some(({ name }) => name.startsWith("evil")));
    // What is left was checked.
    const left = describe(root).filter((line) => !line.includes(" folder "));
    assert.ok(left.every((line) => line.endsWith(GOOD.sha256!)), left.join("\n"));
    Deno.removeSync(root, { recursive: true });
    Deno.mkdirSync(root);
  }
}

/** A record of a pax header: its own length counts, too. */
function record(text: string): Uint8Array {
  const length = encode(text).length + 2;
  const digits = String(length + String(length).length).length;
  return encode(`${length + digits} ${text}\n`);
}

const pax = (...content: Uint8Array[]): Uint8Array =>
  member({ name: "pax", type: "x", content: Buffer.concat(content) });

Deno.test("unpackFiles() takes a tar made by hand, with pax headers as long as any of ours", async () => {
  using scratch = new Scratch();
  const long = `home/${"é".repeat(2045)}.`;
  assert.equal(encode(long).length, 4096);
  const tar = archive(
    pax(record("path=home/good"), record("comment="), record("size=12")),
    member({ name: "home/x", bytes: 0, content: CONTENT }),
    pax(record("path=home/first"), record(`path=${long}`), record("mtime=-62135596800"), record("size=0")),
    member({ name: "home/y", bytes: 99 }),
  );
  for (const sizes of [[tar.length], [511]]) {
    await unpackFiles(hostWith(), cut(tar, sizes), wantedOf([GOOD]), scratch.root);
    assert.equal(Deno.readTextFileSync(`${scratch.root}/home/good`), "good content");
    Deno.removeSync(`${scratch.root}/home`, { recursive: true });
  }
});

Deno.test("unpackFiles() refuses pax headers that are none, at once however long they are", async () => {
  using scratch = new Scratch();
  const path = record("path=home/good");
  const none = [
    // Of such, modern-tar reads every byte again for each record.
    encode("2x".repeat(2_000) + "2 "),
    encode("0 a=b\n"),
    encode("-6 a=b\n"),
    encode("+6 a=b\n"),
    encode(" 6 a=b\n"),
    encode("6  a=b\n"),
    encode("6 a=bc"),
    encode("6 abc\n"),
    encode("6 =bc\n"),
    encode("7 a=b\n"),
    encode("5 a=b\n"),
    encode("00006 a=b\n"),
    encode("6"),
    new Uint8Array(30),
    path.slice(0, -1),
  ];
  for (const content of none) {
    await refuses(scratch, archive(pax(content), good), "pax header is none");
    await refuses(scratch, archive(pax(path, content), good), "pax header is none");
  }
  for (const size of ["", "-1", "1e3", "0x1", "9".repeat(16), "12 ", "NaN"]) {
    await refuses(scratch, archive(pax(record(`size=${size}`)), good), "size in a pax header is none");
  }
  await refuses(
    scratch,
    archive(pax(encode("2x".repeat(1 << 18) + "2 ")), good),
    "a pax header has 524290 bytes, and ours have 8192 at most",
  );
  await refuses(scratch, archive(pax(path), pax(path), good), 'home/good is a member of type "x"');
  await refuses(scratch, archive(good, pax(path)), "a number in a header is none");
  await refuses(scratch, Buffer.concat([good, pax(path)]), "truncated");
});

Deno.test("unpackFiles() refuses names that leave the folder or are no places", async () => {
  using scratch = new Scratch();
  const names = ["../evil", "/evil", "home/../../evil", "home//evil", "home/./evil", "evil", "home", ""];
  for (const name of names) {
    await refuses(scratch, archive(good, member({ name, content: CONTENT })), "place");
  }
  await refuses(scratch, archive(pax(record("path=home/../../evil")), good), "place");
  await refuses(scratch, archive(pax(record(`path=home/x${"/".repeat(5_000)}`)), good), "place");
});

Deno.test("unpackFiles() refuses everything that is no file", async () => {
  using scratch = new Scratch();
  for (
    const [type, word] of [["1", "link"], ["2", "symlink"], ["3", "device"], ["4", "device"], [
      "5",
      "directory",
    ], ["6", "fifo"]]
  ) {
    await refuses(
      scratch,
      archive(member({ name: "home/x", type: type!, linkname: "/etc/passwd" }), good),
      word!,
    );
    await refuses(scratch, archive(member({ name: "home/good", type: type!, linkname: "good" })), word!);
  }
  // What holds for the next member, or all that follow, in the tar program's own way.
  for (const type of ["g", "L", "K", "S", "7"]) {
    const odd = member({ name: "home/x", type, content: encode("17 path=home/evil\n") });
    await refuses(scratch, archive(odd, good), `home/x is a member of type ${JSON.stringify(type)}`);
  }
  await refuses(scratch, archive(member({ name: "home/x/", content: CONTENT })), "place");
});

Deno.test("unpackFiles() refuses members twice, missing, of another size, and of other content", async () => {
  using scratch = new Scratch();
  await refuses(scratch, archive(good, good), "twice");
  const other = member({ name: "home/other", content: CONTENT });
  await refuses(scratch, archive(other), "home/good is missing");
  await refuses(scratch, archive(), "missing");
  await refuses(scratch, archive(member({ name: "home/good", content: encode("good") })), "4 bytes");
  await refuses(scratch, archive(member({ name: "home/good", content: encode("evil content") })), "checksum");
});

Deno.test("unpackFiles() refuses sizes beyond all measure without writing them", async () => {
  using scratch = new Scratch();
  await refuses(scratch, member({ name: "home/good", bytes: 0o77777777777 }), "8589934591 bytes");
  await refuses(scratch, archive(good, member({ name: "home/bomb", bytes: 0o77777777777 })), "truncated");
  const base256 = Buffer.from(member({ name: "home/good" }));
  base256.fill(0xff, 124, 136);
  base256.write("        ", 148);
  base256.write(
    base256.subarray(0, 512).reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0") + "\0 ",
    148,
  );
  await refuses(scratch, archive(base256));
  await refuses(scratch, archive(member({ name: "pax", type: "x", bytes: 0o77777777777 }), good));
});

Deno.test("unpackFiles() refuses a tar cut anywhere, and one with any header bit flipped", async () => {
  using scratch = new Scratch();
  const tar = archive(good);
  for (const length of [0, 1, 100, 511, 512, 513, 523, 600, 1023, 1024, 1025, 1536, 2000, 2047]) {
    await refuses(scratch, tar.slice(0, length));
  }
  await refuses(scratch, Buffer.concat([tar, good]), "goes on behind its end");
  await refuses(scratch, Buffer.concat([tar, Buffer.alloc(1024), encode("x")]), "goes on behind its end");
  for (let bit = 0; bit < 512 * 8; bit += 7) {
    // The checksum's own field ends in filling that nothing reads.
    if (bit >= 154 * 8 && bit < 156 * 8) continue;
    const flipped = new Uint8Array(tar);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    await refuses(scratch, flipped);
  }
  for (let bit = 512 * 8; bit < (512 + CONTENT.length) * 8; bit++) {
    const flipped = new Uint8Array(tar);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    await refuses(scratch, flipped, "checksum");
  }
});

Deno.test("unpackFiles() refuses garbage of any kind", async () => {
  using scratch = new Scratch();
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 3_000 }), (bytes) => refuses(scratch, bytes)),
    { numRuns: 50 },
  );
});

Deno.test("unpackFiles() refuses what the tar program can be told to make", async () => {
  using scratch = new Scratch();
  scratch.write("f/home/good", "good content");
  const tar = (...args: string[]) => {
    run("tar", ["-c", "-P", "-f", `${scratch.path}/x.tar`, "-C", `${scratch.home}/f`, ...args]);
    return Deno.readFileSync(`${scratch.path}/x.tar`);
  };
  const plain = tar("home/good");
  await unpackFiles(hostWith(), cut(plain), wantedOf([GOOD]), scratch.root);
  await refuses(scratch, tar("--transform=s,home,../../evil,", "home/good"), "place");
  await refuses(scratch, tar("--transform=s,^,/,", "home/good"), "place");
  await refuses(scratch, tar("home"), "place");
  Deno.linkSync(`${scratch.home}/f/home/good`, `${scratch.home}/f/home/hard`);
  await refuses(scratch, tar("home/good", "home/hard"), "home/hard is a link");
  Deno.symlinkSync("/etc/passwd", `${scratch.home}/f/home/soft`);
  await refuses(scratch, tar("home/soft"), "symlink");
  run("mkfifo", [`${scratch.home}/f/home/pipe`]);
  await refuses(scratch, tar("home/pipe"), "fifo");
  // Only root may make devices.
  const device = new Deno.Command("mknod", { args: [`${scratch.home}/f/home/device`, "c", "1", "3"] })
    .outputSync();
  if (device.success) await refuses(scratch, tar("home/device"), "device");
});

Deno.test("unpackFiles() passes on why its input failed", async () => {
  using scratch = new Scratch();
  const wrongKey = new BackupError("Cannot decrypt", { kind: "key", hint: "use the right one" });
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield good.slice(0, 520);
    await Promise.resolve();
    throw wrongKey;
  }
  await assert.rejects(unpackFiles(hostWith(), failing(), wantedOf([GOOD]), scratch.root), wrongKey);
  assert.deepEqual(describe(scratch.root).filter((line) => line.includes(" file ")), []);
});

Deno.test("unpackFiles() and finishTree() never write through what is in the way below root", async () => {
  using scratch = new Scratch();
  Deno.mkdirSync(`${scratch.path}/outside`);
  const target = `${scratch.root}/home`;
  const link = { ...GOOD, type: "link" as const, target: "x" };
  const folder = { ...GOOD, type: "folder" as const };
  const cases: [what: string, prepare: () => void][] = [
    ["link", () => Deno.symlinkSync(`${scratch.path}/outside`, target)],
    ["link", () => (Deno.mkdirSync(target), Deno.symlinkSync(`${scratch.path}/outside/f`, `${target}/good`))],
    ["file", () => Deno.writeTextFileSync(target, "kept")],
    ["file", () => (Deno.mkdirSync(target), Deno.writeTextFileSync(`${target}/good`, "kept"))],
  ];
  for (const [what, prepare] of cases) {
    prepare();
    const before = describe(scratch.path);
    await assert.rejects(
      unpackFiles(hostWith(), cut(archive(good)), wantedOf([GOOD]), scratch.root),
      fails("usage", target, what),
    );
    assert.throws(() => finishTree(hostWith(), [link], scratch.root), fails("usage", target, what));
    assert.throws(() => finishTree(hostWith(), [folder], scratch.root), fails("usage", target, what));
    assert.deepEqual(describe(scratch.path), before);
    Deno.removeSync(target, { recursive: true });
  }
  Deno.mkdirSync(target);
  Deno.symlinkSync(scratch.write("precious"), `${target}/good`);
  assert.throws(
    () => finishTree(hostWith(), [{ ...GOOD, mode: 0 }], scratch.root),
    fails("integrity", "missing"),
  );
  assert.notEqual(realFs.stat(`${scratch.home}/precious`).mode, 0);
});

Deno.test("unpackFiles() does not follow a link that appears while it works", async () => {
  using scratch = new Scratch();
  const precious = scratch.write("precious");
  const fs: Fs = {
    ...realFs,
    open(path, options) {
      Deno.symlinkSync(precious, path);
      return realFs.open(path, options);
    },
  };
  const unpacking = unpackFiles(hostWith(fs), cut(archive(good)), wantedOf([GOOD]), scratch.root);
  await assert.rejects(unpacking, fails("usage", "home/good"));
  assert.equal(Deno.readTextFileSync(precious), "precious");
});

Deno.test("finishTree() closes inner folders before outer ones", () => {
  using scratch = new Scratch();
  const closed: string[] = [];
  const fs: Fs = {
    ...realFs,
    chmod(path, mode) {
      closed.push(path.slice(scratch.root.length + 1));
      realFs.chmod(path, mode);
    },
  };
  const folders = ["home/a", "home/a/b", "home/a/b/c", "home/d"].map((path): SavedFile => ({
    source: "things",
    place: place(path),
    type: "folder",
    mode: 0o500,
    mtimeMs: 0,
    bytes: 0,
  }));
  finishTree(hostWith(fs), folders, scratch.root);
  assert.deepEqual(closed, ["home/a/b/c", "home/a/b", "home/a", "home/d"]);
});

Deno.test("realFs.utime() takes times before 1970, as whole seconds, under Deno 2.8 too", () => {
  using scratch = new Scratch();
  const path = scratch.write("old");
  realFs.utime(path, -1_234);
  // Deno 2.8 itself shows such times without their sign.
  assert.equal(run("stat", ["-c", "%.3Y", path]).trim(), "-2.000");
});

Deno.test("unpackFiles() keeps files private until they are finished", async () => {
  using scratch = new Scratch();
  await unpackFiles(hostWith(), cut(archive(good)), wantedOf([{ ...GOOD, mode: 0o4755 }]), scratch.root);
  assert.equal(realFs.stat(`${scratch.root}/home/good`).mode, 0o600);
  finishTree(hostWith(), [{ ...GOOD, mode: 0o4755 }], scratch.root);
  assert.equal(realFs.stat(`${scratch.root}/home/good`).mode, 0o4755);
});

/** Unpacks so many files, each put on the disk by `sync`; none is open after it. */
async function unpackMany(root: string, count: number, sync: (path: string) => Promise<void>): Promise<void> {
  let open = 0;
  const fs: Fs = {
    ...realFs,
    open(path, options) {
      const file = realFs.open(path, options);
      open++;
      const close = () => {
        open--;
        file.close();
      };
      return { ...file, syncing: () => sync(path), close, [Symbol.dispose]: close };
    },
  };
  const files = Array.from({ length: count }, (_, index) => ({ ...GOOD, place: `home/${index}` as Place }));
  await unpackFiles(hostWith(fs), cut(archive(good)), wantedOf(files), root).finally(() =>
    assert.equal(open, 0)
  );
}

Deno.test("unpackFiles() has every file on the disk and closed when it ends, many on their way at once, yet not all", async () => {
  using scratch = new Scratch();
  let underWay = 0;
  let most = 0;
  const synced = new Set<string>();
  await unpackMany(scratch.root, 500, async (path) => {
    most = Math.max(most, ++underWay);
    await new Promise((resolve) => setTimeout(resolve, 1));
    underWay--;
    synced.add(path);
  });
  assert.equal(synced.size, 500);
  assert.ok(most > 1 && most < 100, `${most} at once`);
});

Deno.test("unpackFiles() fails when any file cannot be put on the disk, be it the last", async () => {
  for (const bad of ["home/0", "home/150", "home/199"]) {
    using scratch = new Scratch();
    await assert.rejects(
      unpackMany(scratch.root, 200, async (path) => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        if (path.endsWith(`/${bad}`)) throw new Error("Input/output error (os error 5)");
      }),
      fails("disk", bad),
    );
  }
});

Deno.test("unpackFiles() blames the disk when it is full, and leaves no half file", async () => {
  using scratch = new Scratch();
  const fs: Fs = {
    ...realFs,
    open(path, options) {
      const file = realFs.open(path, options);
      const full = () => {
        throw new Error("No space left on device (os error 28)");
      };
      return { ...file, write: full, writeAt: full };
    },
  };
  await assert.rejects(
    unpackFiles(hostWith(fs), cut(archive(good)), wantedOf([GOOD]), scratch.root),
    fails("disk", "full", "home/good"),
  );
  assert.deepEqual(describe(scratch.root).filter((line) => line.includes(" file ")), []);
});

Deno.test("what others are to read is so under a narrow umask, and on a disk that knows no modes nobody changes one", () => {
  using scratch = new Scratch();
  const path = `${scratch.home}/receipt`;
  const umask = Deno.umask(0o077);
  try {
    writeFileDurably(realFs, path, "x", 0o644);
  } finally {
    Deno.umask(umask);
  }
  assert.equal(realFs.stat(path).mode, 0o644);

  const chmod = () => {
    throw new Deno.errors.PermissionDenied("chmod");
  };
  const open: typeof realFs.open = (path, options) => {
    const file = realFs.open(path, options);
    return { ...file, stat: () => ({ ...file.stat(), mode: 0o777 }), [Symbol.dispose]: file.close };
  };
  writeFileDurably({ ...realFs, chmod, open }, path, "y", 0o640);
  assert.equal(Deno.readTextFileSync(path), "y");
});

Deno.test("a file for scattered pieces is read and written as any other, and fails in the same words", async () => {
  await inTempDir((folder) => {
    const path = `${folder}/file`;
    {
      using plain = realFs.open(path, { read: true, write: true, createNew: true });
      using scattered = realFs.open(path, { read: true, write: true, scattered: true });
      const [first, second, third] = [noise(10_000, 1), noise(5_000, 2), noise(100, 3)];
      plain.write(first);
      scattered.writeAt(second, 7_000);
      plain.writeAt(third, 9_000);
      const expected = concatBytes(
        first.subarray(0, 7_000),
        second.subarray(0, 2_000),
        third,
        second.subarray(2_100),
      );
      for (
        const [at, length] of [[0, 12_000], [6_999, 3], [8_990, 200], [11_990, 100], [12_000, 1], [
          20_000,
          1,
        ]] as const
      ) {
        for (const file of [plain, scattered]) {
          const buffer = new Uint8Array(length);
          const count = file.readAt(buffer, at);
          assert.deepEqual(
            buffer.subarray(0, count),
            expected.subarray(at, at + length),
            `${length} at ${at}`,
          );
        }
      }
    }
    // That is by Node's functions, where they can be had: a file is read and written without them, too.
    const positioned = openPositioned(path, true);
    assert.equal(positioned.writeAt(noise(100, 4), 500), 100);
    const found = new Uint8Array(100);
    assert.equal(positioned.readAt(found, 500), 100);
    assert.deepEqual(found, noise(100, 4));
    positioned.close();
    using scattered = realFs.open(path, { read: true, scattered: true });
    using plain = realFs.open(path, { read: true });
    const failure = (file: OpenFile) => {
      try {
        file.writeAt(new Uint8Array(1), 0);
      } catch (error) {
        return String(error);
      }
    };
    assert.match(failure(plain)!, /\(os error 9\)/);
    assert.equal(failure(scattered), failure(plain));
  });
});
