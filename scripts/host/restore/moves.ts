/**
 * Renames in a home that all happen or none, with the way back on the disk before the first.
 *
 * @module
 */

import type { RestoredInPlace } from "../../core/command_line/reports.ts";
import { BackupError, ifPossible, reasonOf } from "../../core/errors.ts";
import { isWithin, nameOf, parentOf } from "../../core/paths.ts";
import { shellQuote as quote } from "../../core/shell.ts";
import { copyContent } from "../file_bytes.ts";
import {
  attempt,
  exists,
  lstatIfThere,
  makeFolderDurably,
  placeWhole,
  removeIfThere,
  writeFileDurably,
} from "../fs.ts";
import type { Fs, Host } from "../host.ts";
import { withEnding } from "./long_names.ts";

/** `20261124-061500`, local time: stands in the names of what was set aside. */
export function asideStamp(time: Date): string {
  const two = (value: number) => String(value).padStart(2, "0");
  return `${time.getFullYear()}${two(time.getMonth() + 1)}${two(time.getDate())}-` +
    `${two(time.getHours())}${two(time.getMinutes())}${two(time.getSeconds())}`;
}

type Move =
  /** What is at `path` goes to `aside`. */
  | { readonly kind: "aside"; readonly path: string; readonly aside: string }
  /** What was built at `from` goes to `path`. */
  | {
    readonly kind: "place";
    readonly path: string;
    readonly from: string;
    /** What was there before. */
    readonly aside: string | undefined;
    /** Where undoing it puts it, and with it what has come to lie beside it under its name and these endings. */
    readonly undone: string;
    readonly ends: readonly string[];
  }
  | {
    readonly kind: "folder";
    readonly path: string;
    readonly mode: number;
    /** As of what is placed. */
    readonly aside: string | undefined;
    readonly undone: string;
  }
  /** A folder that was made gets the mode that closes it to its owner. */
  | { readonly kind: "close"; readonly path: string; readonly mode: number };

/** Moves that are planned one by one, and then carried out together. */
export class Moves {
  readonly #host: Host;
  readonly #folder: string;
  readonly #stamp: string;
  readonly #moves: Move[] = [];
  /** Folders that will be there. */
  readonly #folders = new Set<string>();
  /** Where folders are, by their paths. */
  readonly #real = new Map<string, string>();
  /** Names that were found free. */
  readonly #names = new Set<string>();
  #script: string | undefined;

  /**
   * @param folder Where the script that undoes it all is written.
   * @param stamp Stands in the names of what is set aside: {@linkcode asideStamp}.
   */
  constructor(host: Host, folder: string, stamp: string) {
    this.#host = host;
    this.#folder = folder;
    this.#stamp = stamp;
  }

  /** Whether what is at `path` is there still when it is its turn: not what a link leads to that a folder replaces. */
  isThere(path: string): boolean {
    for (let at = parentOf(path); at !== "/"; at = parentOf(at)) if (this.#folders.has(at)) return false;
    return exists(this.#host.fs, path);
  }

  /**
   * `path` without the links on the way to it, but for those that a folder replaces: two that have the same are one
   * file.
   */
  whereabouts(path: string): string {
    const parent = parentOf(path);
    return `${parent === "/" ? "" : this.#realFolder(parent)}/${nameOf(path)}`;
  }

  #realFolder(folder: string): string {
    const known = this.#real.get(folder);
    if (known !== undefined) return known;
    const where = this.whereabouts(folder);
    const isLink = !this.#folders.has(folder) && lstatIfThere(this.#host.fs, where)?.type === "link";
    const real = isLink ? ifPossible(() => this.#host.fs.realPath(where)) ?? where : where;
    this.#real.set(folder, real);
    return real;
  }

  /** Plans to set aside what is at `path`, if anything. @throws {BackupError} (usage) If the way back lies in it. */
  setAside(path: string): string | undefined {
    if (!this.isThere(path)) return undefined;
    if (isWithin(this.#folder, path)) {
      throw new BackupError(
        `Cannot restore ${path}: it would be set aside, and with it ${this.#folder}, where the way back is written`,
        { kind: "usage", hint: "restore --to a new folder and move it by hand, or leave it out with --only" },
      );
    }
    const aside = this.#freeName(path, `.before-restore-${this.#stamp}`);
    this.#moves.push({ kind: "aside", path, aside });
    return aside;
  }

  /**
   * Plans to put `from` at `path`, after setting aside what is there.
   *
   * @param ends Endings of the names of files that belong to what is there: they are set aside with it.
   */
  place(from: string, path: string, ends: readonly string[] = []): void {
    this.#makeParents(path);
    const aside = this.setAside(path);
    for (const end of ends) this.setAside(path + end);
    const undone = this.#freeName(path, `.restored-${this.#stamp}`);
    this.#moves.push({ kind: "place", path, from, aside, undone, ends });
  }

  #freeName(path: string, ending: string): string {
    let name = withEnding(path, ending);
    for (let count = 2; this.#names.has(name) || exists(this.#host.fs, name); count++) {
      name = withEnding(path, `${ending}-${count}`);
    }
    this.#names.add(name);
    return name;
  }

  /** Plans to make a folder, after setting aside what is in its way. */
  makeFolder(path: string, mode: number): void {
    this.#makeParents(path);
    const aside = this.setAside(path);
    const undone = this.#freeName(path, `.restored-${this.#stamp}`);
    this.#moves.push({ kind: "folder", path, mode, aside, undone });
    this.#folders.add(path);
  }

  #makeParents(path: string): void {
    const parent = parentOf(path);
    if (!this.#folders.has(parent) && !this.isThere(parent)) this.makeFolder(parent, 0o700);
  }

  /** Undoes it all, once it is carried out. It takes the place of no other's, made in the same second of the clock. */
  get script(): string {
    return this.#script ??= this.#freeName(`${this.#folder}/undo`, `-${this.#stamp}.sh`);
  }

  /** @throws {BackupError} After everything was put back. */
  carryOut(): void {
    const { fs } = this.#host;
    const asides = this.#moves.filter(({ kind }) => kind === "aside");
    const others = this.#moves.filter(({ kind }) => kind !== "aside");
    // Once everything is in them, the deepest first.
    const closed = others.flatMap((move): Move[] =>
      move.kind === "folder" && !isOpen(move.mode)
        ? [{ kind: "close", path: move.path, mode: move.mode }]
        : []
    ).reverse();
    const done: Move[] = [];
    const make = (move: Move) => {
      attempt(`restore ${move.path}`, () => carryOut(fs, move));
      done.push(move);
    };
    try {
      makeFolderDurably(fs, this.#folder, 0o700);
      attempt(
        `write ${this.script}`,
        () => writeFileDurably(fs, this.script, undoScript([...asides, ...others, ...closed]), 0o700),
      );
      // What was there is safe under its new name before anything takes its place, even if the power goes now.
      for (const moves of [asides, others]) {
        moves.forEach(make);
        for (const folder of new Set(moves.map(({ path }) => parentOf(path)))) {
          attempt(`sync ${folder}`, () => fs.syncFolder(folder));
        }
      }
      closed.forEach(make);
    } catch (error) {
      const stuck = done.reverse().filter((move) => !isUndone(fs, move));
      if (stuck.length > 0) throw halfRestored(error, stuck, this.script);
      // With everything back where it was, the script would undo what was never done.
      removeIfThere(fs, this.script);
      throw error;
    }
  }

  /** What is put in place, and what is set aside. */
  planned(): Pick<RestoredInPlace, "placed" | "setAside"> {
    return {
      placed: this.#moves.flatMap((move) => move.kind === "aside" ? [] : [move.path]),
      setAside: this.#moves.flatMap((move) =>
        move.kind === "aside" ? [{ from: move.path, to: move.aside }] : []
      ),
    };
  }
}

/** Whether its owner can do everything in a folder of this mode. */
const isOpen = (mode: number): boolean => (mode & 0o700) === 0o700;

function isUndone(fs: Fs, move: Move): boolean {
  try {
    undo(fs, move);
    return true;
  } catch {
    return false;
  }
}

function halfRestored(error: unknown, stuck: readonly Move[], script: string): BackupError {
  return new BackupError(
    `${reasonOf(error)}; and what was done could not be undone at ${
      stuck.map(({ path }) => path).join(", ")
    }`,
    { kind: "disk", hint: `mend the disk, then put everything back with: sh ${quote(script)}`, cause: error },
  );
}

function carryOut(fs: Fs, move: Move): void {
  if (move.kind === "aside") return fs.rename(move.path, move.aside);
  if (move.kind === "close") return fs.chmod(move.path, move.mode);
  if (move.kind === "folder") {
    fs.mkdir(move.path, { mode: 0o700 });
    try {
      return isOpen(move.mode) ? fs.chmod(move.path, move.mode) : undefined;
    } catch (error) {
      fs.remove(move.path);
      throw error;
    }
  }
  // What was there is aside by now: what is there came since.
  if (exists(fs, move.path)) {
    throw new BackupError(`Cannot restore ${move.path}: something has come to lie there meanwhile`, {
      kind: "source",
      hint: `${
        move.kind === "place" && move.aside ? `it is kept as ${move.aside}-newer: ` : ""
      }stop what writes there, then run this again`,
    });
  }
  try {
    fs.rename(move.from, move.path);
  } catch (error) {
    // Another disk: written whole beside its place, then renamed.
    if (!/os error 18\b|cross-device/i.test(String(error))) throw error;
    copyAcross(fs, move.from, move.path);
  }
}

function copyAcross(fs: Fs, from: string, path: string): void {
  const stat = fs.lstat(from);
  if (stat.type === "link") return fs.symlink(fs.readLink(from), path);
  const beside = withEnding(path, ".restoring");
  placeWhole(fs, beside, path, () => {
    copyContent(fs, from, beside, 0o600);
    fs.chmod(beside, stat.mode);
    fs.utime(beside, stat.mtimeMs);
  });
}

/** Puts one move back. A folder that was made goes only if it is still empty. */
function undo(fs: Fs, move: Move): void {
  if (move.kind === "aside") {
    // What came since is kept, too.
    if (exists(fs, move.path)) fs.rename(move.path, `${move.aside}-newer`);
    return fs.rename(move.aside, move.path);
  }
  if (move.kind === "place") return removeIfThere(fs, move.path);
  if (move.kind === "close") return fs.chmod(move.path, 0o700);
  try {
    fs.remove(move.path);
  } catch { /* Something is in it: then it stays. */ }
}

/** The way back, for a shell, last move first; a line does nothing where its move was not made, or is undone already. */
function undoScript(moves: readonly Move[]): string {
  const lines = moves.toReversed().flatMap((move) => {
    const path = quote(move.path);
    if (move.kind === "close") return [`if [ -d ${path} ]; then chmod 700 ${path}; fi`];
    if (move.kind === "folder") {
      if (move.aside === undefined) return [`rmdir -- ${path} 2>/dev/null || true`];
      // What was put into it is in it still, under another name: it must not be in the way.
      return [
        `if there ${quote(move.aside)} && there ${path} && ! there ${quote(move.undone)}; then`,
        `  rmdir -- ${path} 2>/dev/null || ${moving(move.path, move.undone)}`,
        "fi",
      ];
    }
    if (move.kind === "aside") {
      return [`if there ${quote(move.aside)}; then ${moving(move.aside, move.path)}; fi`];
    }
    // What was put in place is kept too: undoing must not destroy either.
    const isDone = move.aside === undefined ? `! there ${quote(move.from)}` : `there ${quote(move.aside)}`;
    return [
      `if ${isDone} && there ${path} && ! there ${quote(move.undone)}; then`,
      // A -wal that was written since would be replayed into the old database.
      ...move.ends.map((end) =>
        `  if there ${quote(move.path + end)}; then ${moving(move.path + end, move.undone + end)}; fi`
      ),
      `  ${moving(move.path, move.undone)}`,
      "fi",
    ];
  });
  const databases = moves.flatMap((move) =>
    move.kind === "place" && move.ends.length > 0 ? [quote(move.path)] : []
  );
  return `#!/bin/sh
# Undoes a restore in place: what it put there is renamed to *.restored-*, what it set aside comes back.
set -eu
there() { [ -e "$1" ] || [ -L "$1" ]; }
${databases.length === 0 ? "" : refusing(databases)}${lines.join("\n")}
`;
}

/** Who has a database open would go on writing to what was renamed, and nobody would look for it there. */
const refusing = (databases: readonly string[]): string =>
  `for database in ${databases.join(" ")}; do
  for open in /proc/[0-9]*/fd/*; do
    if [ "$open" -ef "$database" ]; then
      process=\${open#/proc/}
      echo "Cannot undo the restore: process \${process%%/*} has $database open." >&2
      echo "Stop it first (for the hub: systemctl --user stop hapi-hub hapi-runner), then run this again." >&2
      exit 1
    fi
  done
done
`;

const moving = (from: string, to: string): string => `mv -T -- ${quote(from)} ${quote(to)}`;
