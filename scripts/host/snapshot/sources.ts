/**
 * Finds what the sources that are not databases name: files, patterns and folders.
 *
 * Invariants: a path that the operator named is followed if it is a link, any other link is kept as a link;
 * whatever exists is found, noted, or told as unreadable. The order is the same every time.
 *
 * @module
 */

import picomatch from "picomatch";
import type { Source } from "../../core/config/config.ts";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { isWild, literalName, parentOf } from "../../core/paths.ts";
import { type Place, placeOf } from "../../core/place.ts";
import { shellQuote } from "../../core/shell.ts";
import type { FoundFile, Unreadable } from "../../core/snapshot/file_index.ts";
import { isMissing, kindOf, lstatIfThere, systemReason } from "../fs.ts";
import type { Fs, Stat } from "../host.ts";

/** A source of files. */
export type FileSource = Exclude<Source, { readonly kind: "sqlite" }>;

/** What a source named at this moment. */
export interface Found {
  readonly found: readonly FoundFile[];
  /** What a person should know: sockets that were skipped, files that vanished meanwhile. */
  readonly notes: readonly string[];
  /** What exists and cannot be saved: the rest is, and the snapshot does not count as good. */
  readonly unreadable: readonly Unreadable[];
  /** Whether there was nothing at all. */
  readonly absent: boolean;
}

/** What the search of one source needs at every step. */
interface Search {
  readonly fs: Fs;
  readonly source: FileSource;
  readonly home: string;
  readonly found: Map<Place, FoundFile>;
  readonly notes: string[];
  readonly unreadable: Map<string, Unreadable>;
  /** Whether a path inside the folder, relative to it, is left out. */
  readonly isExcluded: (path: string, name: string) => boolean;
  /** Paths that a folder listed twice. */
  readonly doubled: Set<string>;
  /** Folders of our own, which are not saved. */
  readonly own: readonly Stat[];
}

/**
 * Lists what a source names, with what `stat` tells of it.
 *
 * In a pattern `*`, `?`, `[a-z]` and `{a,b}` stand for parts of one name, `**` for any number of folders; none of
 * them matches a leading dot. A folder that a pattern without `**` matches is taken whole.
 *
 * `exclude` of a folder: a pattern without a slash is compared with each name, one with a slash with the path
 * inside the folder. There a leading dot is a character like any other.
 *
 * @param own Folders that are left out with a note: a store that saved itself would double with every full.
 * @throws {BackupError} (config) If a pattern is not one.
 */
export function findFiles(fs: Fs, source: FileSource, home: string, own: readonly Stat[] = []): Found {
  const found = new Map<Place, FoundFile>();
  const notes: string[] = [];
  const isExcluded = source.kind === "folder" ? excluder(source.exclude) : () => false;
  const unreadable: Search["unreadable"] = new Map();
  const search: Search = { fs, source, home, found, notes, unreadable, isExcluded, doubled: new Set(), own };

  if (source.kind === "glob") findMatches(search);
  else attempt(search, source.path, () => findNamed(search));

  const absent = found.size === 0 && unreadable.size === 0;
  return { found: [...found.values()], notes, unreadable: [...unreadable.values()], absent };
}

/** Looks at what is at `path`, and goes on past what cannot be read there. */
function attempt({ source, unreadable }: Search, path: string, lookAt: () => void): void {
  try {
    lookAt();
  } catch (error) {
    if (!(error instanceof BackupError) || error.kind !== "source") throw error;
    unreadable.set(path, { source: source.name, path, reason: error.message });
  }
}

/** Finds the very path of a `file` or `folder` source. */
function findNamed(search: Search): void {
  const { fs, source } = search;
  const link = look(() => lstatIfThere(fs, source.path), source.path);
  if (!link) return;
  let stat: Stat;
  try {
    stat = fs.stat(source.path);
  } catch (error) {
    if (!isMissing(error)) throw unreadable(source.path, error);
    search.notes.push(`${source.path} is a link to something that is not there`);
    return;
  }
  if (stat.type !== source.kind) {
    throw new BackupError(
      `Cannot save ${quote(source.path)} as a ${source.kind}: it is ${kindOf(stat)}`,
      {
        kind: "source",
        hint: stat.type === "other"
          ? "sockets, pipes and devices have no content to save: take it out of the sources"
          : `set the source's "kind" to "${stat.type}"`,
      },
    );
  }
  if (isOwn(search, source.path, stat)) return;
  // The home folder and `/` have no place of their own; what is in them has.
  if (source.path !== search.home && source.path !== "/") add(search, source.path, stat, true);
  if (stat.type === "folder") walk(search, source.path, "");
}

/** Finds everything in the folder at `path`, which is `inside` the source's folder (empty, or ending in a slash). */
function walk(search: Search, path: string, inside: string): void {
  for (const { name } of namesIn(search, path)) {
    if (search.isExcluded(inside + name, name)) continue;
    const below = join(path, name);
    attempt(search, below, () => {
      const stat = statOf(search, below);
      if (!stat || isOwn(search, below, stat)) return;
      add(search, below, stat, false);
      if (stat.type === "folder") walk(search, below, `${inside}${name}/`);
    });
  }
}

function add(search: Search, path: string, stat: Stat, named: boolean): void {
  const { source, found, notes, fs } = search;
  if (stat.type === "other") {
    notes.push(`${path} is a socket, pipe or device and was not saved`);
    return;
  }
  const place = placeOf(path, search.home);
  const target = stat.type === "link" ? look(() => fs.readLink(path), path, search) : undefined;
  if (stat.type === "link" && target === undefined) return;
  const { type, bytes, mode, mtimeMs, ctimeMs, inode, device } = stat;
  found.set(place, {
    source: source.name,
    place,
    path,
    type,
    stat: { bytes, mode, mtimeMs, ctimeMs, inode, device },
    ...(target === undefined ? {} : { target }),
    named,
  });
}

/** Finds what a `glob` source matches, reading only folders in which something could match. */
function findMatches(search: Search): void {
  for (const pattern of alternatives(search.source.path)) {
    const steps = pattern.split("/").slice(1).map((text) => stepOf(search.source, text));
    const named = steps.findIndex((step) => step.kind !== "name");
    const literal = named === -1 ? steps : steps.slice(0, named);
    const start = "/" + literal.map((step) => step.kind === "name" ? step.name : "").join("/");
    attempt(search, start, () => {
      if (named === -1) {
        const stat = look(() => lstatIfThere(search.fs, start), start);
        if (stat) take(search, start, stat, false);
      } else if (isFolder(search.fs, start)) {
        match(search, start, steps.slice(named), steps.some((step) => step.kind === "folders"), new Set());
      }
    });
  }
}

/** One name of a pattern's path. */
type Step =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "pattern"; readonly matches: (name: string) => boolean }
  /** `**` */
  | { readonly kind: "folders" };

function match(
  search: Search,
  folder: string,
  steps: readonly Step[],
  deep: boolean,
  done: Set<string>,
): void {
  // `**` can reach a folder in several ways; without this their number would explode.
  const key = `${steps.length}:${folder}`;
  const [step, ...rest] = steps;
  if (!step || done.has(key)) return;
  done.add(key);

  if (step.kind === "folders" && rest.length > 0) match(search, folder, rest, deep, done);
  const names = step.kind === "name" ? [{ name: step.name, type: undefined }] : namesIn(search, folder);
  for (const { name, type } of names) {
    if (step.kind === "pattern" && !step.matches(name)) continue;
    if (step.kind === "folders" && name.startsWith(".")) continue;
    // Nothing in it can match, so whatever is wrong with it does not matter.
    if (step.kind === "folders" && rest.length > 0 && type !== "folder") continue;
    const path = join(folder, name);
    attempt(search, path, () => {
      const stat = step.kind === "name"
        ? look(() => lstatIfThere(search.fs, path), path)
        : statOf(search, path);
      if (!stat || isOwn(search, path, stat)) return;
      if (step.kind === "folders") {
        if (rest.length === 0) take(search, path, stat, true);
        if (stat.type === "folder") match(search, path, steps, deep, done);
      } else if (rest.length === 0) take(search, path, stat, deep);
      else if (stat.type === "folder") match(search, path, rest, deep, done);
      else if (stat.type === "link") search.notes.push(`${path} is a link and was not followed`);
    });
  }
}

/** Adds what a pattern matched; a folder with all that is in it, unless the pattern says how `deep` to go. */
function take(search: Search, path: string, stat: Stat, deep: boolean): void {
  add(search, path, stat, false);
  if (stat.type === "folder" && !deep) walk(search, path, "");
}

/** Splits `{a/b,c}` into patterns without a slash between braces; what else stands in braces is left to the matcher. */
function alternatives(pattern: string): string[] {
  const braces = /\{([^{}]*\/[^{}]*)\}/.exec(pattern);
  if (!braces) return [pattern];
  const before = pattern.slice(0, braces.index);
  const after = pattern.slice(braces.index + braces[0].length);
  return braces[1]!.split(",").flatMap((text) => alternatives(before + text + after));
}

function stepOf(source: FileSource, text: string): Step {
  if (text === "**") return { kind: "folders" };
  if (text === "" || text === "." || text === "..") {
    throw notAPattern(source.path, `a name in it is "${text}"`);
  }
  if (!isWild(text)) return { kind: "name", name: literalName(text) };
  const matches = matcher(text, false);
  // A class such as [!a] would match a dot.
  const showsHidden = /^(\.|\\\.|\{)/.test(text);
  return { kind: "pattern", matches: (name) => (showsHidden || !name.startsWith(".")) && matches(name) };
}

function excluder(patterns: readonly string[]): (path: string, name: string) => boolean {
  const tests = patterns.map((text) => {
    const pattern = text.replace(/^\.?\//, "").replace(/\/+$/, "");
    const matches = matcher(pattern, true);
    return (path: string, name: string) => matches(pattern.includes("/") ? path : name);
  });
  return (path, name) => tests.some((test) => test(path, name));
}

/** The package brings no types. */
const compile: (pattern: string, options: Record<string, unknown>) => (text: string) => boolean = picomatch;

function matcher(pattern: string, dot: boolean): (text: string) => boolean {
  // Parentheses are characters here, and a name may hold a line end.
  const text = pattern.replace(/\\?[()]/g, (found) => `\\${found.at(-1)}`);
  try {
    return compile(text, { dot, nonegate: true, posix: true, flags: "s", debug: true });
  } catch (error) {
    throw notAPattern(pattern, reasonOf(error));
  }
}

function notAPattern(pattern: string, reason: string): BackupError {
  return new BackupError(`Cannot use pattern ${quote(pattern)}: ${reason}`, {
    kind: "config",
    hint: "*, ?, [a-z], {a,b} and ** are understood; a backslash takes a character as it is",
  });
}

/** Names in a folder, sorted; none if it vanished. */
function namesIn(search: Search, path: string): ReturnType<Fs["readDir"]> {
  const names = look(() => search.fs.readDir(path), path, search) ?? [];
  names.sort((one, other) => one.name < other.name ? -1 : 1);
  names.forEach(({ name }, at) => {
    if (name === names[at + 1]?.name) search.doubled.add(join(path, name));
  });
  return names;
}

/** What a name that was just read from its folder stands for. */
function statOf(search: Search, path: string): Stat | undefined {
  const stat = look(() => lstatIfThere(search.fs, path), path);
  // Deno shows a byte that is not UTF-8 as U+FFFD, and under that name nothing is found, or another file.
  if (path.includes("\uFFFD") && (!stat || search.doubled.has(path))) {
    throw new BackupError(
      `Cannot save ${quote(path)}: its name is not UTF-8 (\`ls -b ${
        shellQuote(parentOf(path))
      }\` shows its bytes)`,
      { kind: "source", hint: `rename it, or leave it out: "exclude" takes * in place of those bytes` },
    );
  }
  if (!stat) search.notes.push(`${path} vanished while its folder was read`);
  return stat;
}

/** Whether this is a folder of our own, by whatever path it was come to; a note says that it is left out. */
function isOwn({ own, notes }: Search, path: string, { type, device, inode }: Stat): boolean {
  if (type !== "folder" || !own.some((folder) => folder.device === device && folder.inode === inode)) {
    return false;
  }
  const note = `${path} is where backups are kept and was not saved`;
  if (!notes.includes(note)) notes.push(note);
  return true;
}

/** Whether there is a folder at `path`, or a link to one. */
function isFolder(fs: Fs, path: string): boolean {
  try {
    return fs.stat(path).type === "folder";
  } catch (error) {
    if (isMissing(error)) return false;
    throw unreadable(path, error);
  }
}

/** Reads something of `path`; undefined, with a note, if it vanished and `search` is given. */
function look<Result>(read: () => Result, path: string, search?: Search): Result | undefined {
  try {
    return read();
  } catch (error) {
    if (!isMissing(error)) throw unreadable(path, error);
    search?.notes.push(`${path} vanished while it was looked at`);
    return undefined;
  }
}

/** An error for what exists and cannot be read: skipping it would be a backup with a hole. */
function unreadable(path: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  return new BackupError(`Cannot read ${quote(path)}: ${systemReason(error)}`, {
    kind: "source",
    hint: "let the user that this runs as read it, or leave it out of the sources",
    cause: error,
  });
}

const join = (folder: string, name: string): string => folder === "/" ? `/${name}` : `${folder}/${name}`;
const quote = (path: string): string => JSON.stringify(path);
