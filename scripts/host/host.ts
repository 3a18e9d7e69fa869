/**
 * The seam between the steps and the machine: files, programs, the clock, and the person watching.
 *
 * A step takes a `Host` and reaches for nothing else, so that a test can count its operations, fail any one of
 * them, or move the clock, while files, programs and SQLite stay real.
 *
 * @module
 */

/** What `stat` tells of a path. Times in milliseconds since the epoch. */
export interface Stat {
  readonly type: "file" | "folder" | "link" | "other";
  readonly bytes: number;
  /** What of that is on the disk, and not a hole; or all, where the system does not tell. */
  readonly diskBytes: number;
  /** Permission bits, `0o600`. */
  readonly mode: number;
  /** Of the owner. */
  readonly uid: number;
  readonly mtimeMs: number;
  readonly ctimeMs: number;
  readonly inode: number;
  readonly device: number;
}

/** How to open a file. Writing to an existing file without `truncate` keeps its bytes. */
export interface OpenOptions {
  readonly read?: boolean;
  readonly write?: boolean;
  readonly create?: boolean;
  /** Fail if the file exists. */
  readonly createNew?: boolean;
  readonly truncate?: boolean;
  readonly mode?: number;
  /** Whether many small pieces of it are to be read or written at positions. It must be one that can be read, too. */
  readonly scattered?: boolean;
}

/** An open file. Calls are synchronous, as a step runs in a worker of its own, but for those that leave it work to do. */
export interface OpenFile extends Disposable {
  /** Reads the next bytes; 0 at the end. */
  read(buffer: Uint8Array): number;
  /** As `read`, on another thread: `buffer` must be left alone until it settles. */
  reading(buffer: Uint8Array): Promise<number>;
  /** Fills `buffer` from `position` (bytes); returns how many were there, fewer only at the end of the file. */
  readAt(buffer: Uint8Array, position: number): number;
  /** Writes all of `bytes` at the current position. */
  write(bytes: Uint8Array): void;
  /** Writes all of `bytes` at `position`. */
  writeAt(bytes: Uint8Array, position: number): void;
  truncate(bytes: number): void;
  /** Returns once the bytes are on the disk. */
  sync(): void;
  /** As `sync`, on another thread: settles once they are. The file must stay open until then. */
  syncing(): Promise<void>;
  stat(): Stat;
  /** Takes the lock of the whole file for this process, or returns false if another holds it. It dies with the process. */
  tryLock(): boolean;
  close(): void;
}

/** The file system. Paths are absolute. Errors are Deno's own (`Deno.errors.NotFound` …). */
export interface Fs {
  open(path: string, options: OpenOptions): OpenFile;
  stat(path: string): Stat;
  lstat(path: string): Stat;
  /** Names in a folder with their types, unsorted. */
  readDir(path: string): { name: string; type: Stat["type"] }[];
  readLink(path: string): string;
  realPath(path: string): string;
  readFile(path: string): Uint8Array<ArrayBuffer>;
  mkdir(path: string, options?: { recursive?: boolean; mode?: number }): void;
  rename(from: string, to: string): void;
  remove(path: string, options?: { recursive?: boolean }): void;
  symlink(target: string, path: string): void;
  chmod(path: string, mode: number): void;
  /** Sets access and modification time, in milliseconds since the epoch. */
  utime(path: string, mtimeMs: number): void;
  /** Makes the names in a folder durable. */
  syncFolder(path: string): void;
  /** Bytes that this user may still write at `path`, or undefined where the system does not tell. */
  freeBytes(path: string): number | undefined;
  /**
   * Bytes that can at the very most be written at `path`, the system's reserve with them. Undefined where it does not
   * tell, or where what is written may take less, as on a disk that compresses.
   */
  roomBytes(path: string): number | undefined;
  /** How many files and folders the disk at `path` can hold and how many more, or undefined where that has no limit. */
  freeFiles(path: string): { readonly free: number; readonly total: number } | undefined;
}

/** How a program ended. */
export interface RunResult {
  readonly code: number;
  readonly signal?: string;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. `args` are passed as they are: no shell. */
export type Run = (
  program: string,
  args: readonly string[],
  options?: {
    readonly env?: Readonly<Record<string, string>> | undefined;
    readonly stdin?: string | undefined;
    /** Seconds after which it is ended and the run fails. */
    readonly secondsMax?: number | undefined;
    /** Called with each line of standard output as it comes. What it throws ends the program, and the run throws it. */
    readonly onLine?: ((line: string) => void) | undefined;
  },
) => Promise<RunResult>;

/** What a step tells a person while it works. It goes to standard error; `--quiet` and `--json` change how. */
export interface Report {
  /** Progress of `what` in bytes. What cannot tell how far it is reports 0 at its start, and `total` at its end. */
  progress(what: string, done: number, total: number): void;
  /** What only `--verbose` shows. */
  detail?(text: string): void;
  info(text: string): void;
  warn(text: string): void;
}

/** What is done on another thread: see `identity_thread.ts`, `part_source.ts` and `image_writer.ts`. */
export type ThreadWork = "identity reader" | "part reader" | "image writer";

/** Everything a step may touch. */
export interface Host {
  readonly fs: Fs;
  readonly run: Run;
  readonly now: () => Date;
  readonly report: Report;
  /**
   * Throws {@linkcode BackupError} (cancelled) once Ctrl-C or SIGTERM has come, or its terminal is gone. Called between
   * chunks of work.
   */
  readonly checkpoint: () => void;
  /**
   * Does work that blocks without a checkpoint, such as SQLite's checks of a large database. Interrupted meanwhile, the
   * step is ended where it is: what it leaves then must lie in a folder that the program itself clears.
   */
  readonly blocking: <Result>(work: () => Result) => Result;
  /** Has work done on another thread, where that can be; closing the port ends the use of it. */
  readonly startThread?: (work: ThreadWork) => MessagePort;
}
