/**
 * A host whose operations are counted, so that a fault can strike at any one of them.
 *
 * @module
 */

import type { Fs, Host, OpenFile } from "../../scripts/host/host.ts";

/** What an operation does: `name` changes names, modes or times, `make` makes a file or folder. */
export type Kind = "look" | "read" | "make" | "write" | "sync" | "name" | "run";

/**
 * Called before each operation, which counts from 0; what it throws is what the operation throws. A read that it calls
 * short gives less than was asked for, as a file may at any time.
 */
export type OnOperation = (index: number, kind: Kind, what: string) => void | "short";

const FS_KINDS: Readonly<Record<Exclude<keyof Fs, "open">, Kind>> = {
  stat: "look",
  lstat: "look",
  readLink: "look",
  realPath: "look",
  freeBytes: "look",
  roomBytes: "look",
  freeFiles: "look",
  readDir: "read",
  readFile: "read",
  mkdir: "make",
  symlink: "make",
  rename: "name",
  remove: "name",
  chmod: "name",
  utime: "name",
  syncFolder: "sync",
};

const FILE_KINDS = {
  read: "read",
  reading: "read",
  readAt: "read",
  write: "write",
  writeAt: "write",
  truncate: "write",
  sync: "sync",
  syncing: "sync",
  stat: "look",
} as const satisfies Partial<Record<keyof OpenFile, Kind>>;

/** Wraps every operation of a host. */
export function faultyHost(host: Host, onOperation: OnOperation): Host {
  let count = 0;
  const before = (kind: Kind, what: string) => onOperation(count++, kind, what);
  const wrapped = <T extends object>(target: T, kinds: Readonly<Record<string, Kind>>, of?: string): T => {
    const calls = Object.entries(kinds).map(([name, kind]) => {
      const call = target[name as keyof T] as (...given: unknown[]) => unknown;
      return [name, (...given: unknown[]) => {
        const how = before(kind, `${name} ${of ?? given[0]}`);
        if (how !== "short" || (name !== "read" && name !== "reading")) return call(...given);
        const buffer = given[0] as Uint8Array;
        return call(buffer.subarray(0, Math.ceil(buffer.length / 3)));
      }];
    });
    return { ...target, ...Object.fromEntries(calls) };
  };
  const open: Fs["open"] = (path, options) => {
    before(options.create || options.createNew ? "make" : options.write ? "write" : "read", `open ${path}`);
    return wrapped(host.fs.open(path, options), FILE_KINDS, path);
  };
  return {
    ...host,
    fs: { ...wrapped(host.fs, FS_KINDS), open },
    run: (program, args, options) => {
      before("run", program);
      return host.run(program, args, options);
    },
  };
}

/** What a step does from one moment on. */
export interface Fault {
  readonly name: string;
  /** At which operations it can strike. */
  readonly kinds: readonly Kind[];
  /** The error that they end with; without one, {@linkcode Fault.act} is all that happens. */
  readonly error?: () => Error;
  /** Whether all later operations of these kinds fail too. */
  readonly lasting?: boolean;
  /** Whether the operation does less than it was asked to. */
  readonly short?: boolean;
  /** What happens at that moment. */
  readonly act?: (struck: Struck) => void;
  /** Kinds of error that a step may end with; it may also succeed, if it can. */
  readonly ends: readonly string[];
  /** What the message has to say. */
  readonly says?: RegExp;
}

/** What a fault can get at. */
export interface Struck {
  readonly dir: string;
  /** Moves the step's clock on by so many hours. */
  readonly moveClock: (hours: number) => void;
  /** Asks the step to stop, as SIGTERM does. */
  readonly cancel: () => void;
}

/** The error of a process that is no more: nothing it does from here on reaches the disk. */
export class Dead extends Error {}

const ALL: readonly Kind[] = ["look", "read", "make", "write", "sync", "name", "run"];
const onDisk = ["disk"];

/** The faults of files, the clock and the process, as this machine's system reports them. */
export const FAULTS: readonly Fault[] = [
  { name: "killed", kinds: ALL, error: () => new Dead("killed"), lasting: true, ends: ALL.map(String) },
  {
    name: "told to stop",
    kinds: ALL,
    act: ({ cancel }) => cancel(),
    ends: ["cancelled"],
    says: /interrupted/,
  },
  {
    name: "no space left",
    kinds: ["make", "write", "sync"],
    error: () => new Error("No space left on device (os error 28)"),
    lasting: true,
    ends: onDisk,
    says: /the disk is full|No space left on device/,
  },
  {
    name: "no inode left",
    kinds: ["make"],
    error: () => new Error("No space left on device (os error 28)"),
    lasting: true,
    ends: onDisk,
    says: /the disk is full|No space left on device/,
  },
  {
    name: "EIO on read",
    kinds: ["read"],
    error: () => new Error("Input/output error (os error 5)"),
    ends: ["disk", "source", "key", "integrity"],
    says: /os error 5/,
  },
  { name: "short reads", kinds: ["read"], short: true, lasting: true, ends: [] },
  {
    name: "EIO on write",
    kinds: ["write", "sync"],
    error: () => new Error("Input/output error (os error 5)"),
    ends: onDisk,
    says: /os error 5/,
  },
  {
    name: "EIO on names",
    kinds: ["make", "name"],
    error: () => new Error("Input/output error (os error 5)"),
    ends: onDisk,
    says: /os error 5/,
  },
  {
    name: "permission lost",
    kinds: ["look", "read", "make", "name"],
    error: () => new Deno.errors.PermissionDenied("Permission denied (os error 13)"),
    ends: ["disk", "source", "key", "integrity"],
    says: /os error 13/,
  },
  {
    name: "file replaced",
    kinds: ALL,
    act: ({ dir }) => {
      const path = `${dir}/op/.hapi/hub.env`;
      Deno.writeTextFileSync(`${path}.new`, "REPLACED=yes\n");
      Deno.renameSync(`${path}.new`, path);
    },
    ends: ["source"],
  },
  { name: "clock back", kinds: ALL, act: ({ moveClock }) => moveClock(-48), ends: ["clock", "integrity"] },
  { name: "clock forward", kinds: ALL, act: ({ moveClock }) => moveClock(1), ends: ["clock", "integrity"] },
  {
    name: "destination gone",
    kinds: ALL,
    act: ({ dir }) => Deno.renameSync(`${dir}/disk`, `${dir}/gone`),
    ends: onDisk,
  },
];
