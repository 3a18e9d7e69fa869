/**
 * A step in a worker of its own, with only the permissions it needs.
 *
 * A verb starts a script with {@linkcode runStep}; the script's last line answers with {@linkcode serveStep}. What
 * the step prints, reports and throws comes back as messages, so that only one place writes to the terminal.
 *
 * @module
 */

import { BackupError, receivedError, type SentError, sentError } from "../../core/errors.ts";
import { nameOf, parentOf } from "../../core/paths.ts";
import type { StepPermissions } from "../../core/sandbox/permissions.ts";
import { knownError, realFs } from "../fs.ts";
import type { Fs, Host, Report, Run, ThreadWork } from "../host.ts";
import { makeRun } from "../process.ts";
import { filesOfStep } from "./step_files.ts";
import { askingForLinks, type LinkRequest, makeLink } from "./step_link.ts";

/** Where a step's words go. */
export interface Terminal extends Report {
  /** What was asked for, for standard output. */
  print(text: string): void;
  /** What was done or found, for standard output: with `--quiet` only where it is JSON. */
  result(text: string): void;
}

/** What a step is given beside its job. */
export interface StepTools {
  readonly host: Host;
  readonly print: Terminal["print"];
  readonly result: Terminal["result"];
  /** Comes later than the job: what another step, running at the same time, found out, or why it could not. */
  readonly later: Promise<unknown>;
  /** Says that this step has come to where it needs `later`, and waits for it. */
  readonly ask: () => Promise<unknown>;
  /** Tells the program something before the step is done. */
  readonly tell: (value: unknown) => void;
}

/** What goes between the program and a step beside its job and its result. */
export interface StepTalk<Told> {
  /** What the step is given as its `later`, once it is known; a function is called when the step asks. */
  readonly later?: Promise<unknown> | (() => Promise<unknown>);
  /** Is given what the step tells before it is done. */
  readonly told?: (value: Told) => void;
  /** What this thread, which only waits while a step runs, does for it. */
  readonly threads?: StepThreads;
}

/** Serves the other end of each port, with the files that the step may open: see {@linkcode Host.startThread}. */
export type StepThreads = Readonly<
  Record<ThreadWork, (port: MessagePort, files: Pick<Fs, "open">) => Promise<void>>
>;

type ToWorker =
  | { readonly type: "job"; readonly job: unknown; readonly flags: StepFlags; readonly hasThreads: boolean }
  | { readonly type: "later"; readonly value: unknown }
  | { readonly type: "later failed"; readonly error: SentError };
type FromWorker =
  | { readonly type: "asked" }
  | { readonly type: "thread"; readonly work: ThreadWork; readonly port: MessagePort }
  | { readonly type: "link"; readonly request: LinkRequest }
  | { readonly type: "progress"; readonly what: string; readonly done: number; readonly total: number }
  | { readonly type: "detail" | "info" | "warn" | "print" | "result"; readonly text: string }
  | { readonly type: "told"; readonly value: unknown }
  | { readonly type: "done"; readonly result: unknown }
  | { readonly type: "failed"; readonly error: SentError };

/** What the program and a step tell each other while the step reads no messages: each is 1 or 0. */
interface StepFlags {
  readonly cancelled: SharedArrayBuffer;
  /** Whether the step is at work that passes no checkpoint. */
  readonly blocked: SharedArrayBuffer;
}

/** Milliseconds between two progress messages. */
const PROGRESS_EVERY_MS = 100;

/** Set once Ctrl-C or SIGTERM has come, or the terminal is gone; shared with every worker. */
const cancelFlag = new SharedArrayBuffer(4);

const cancelling = new AbortController();
/** Aborted at the same time: for questions, which wait for a person and pass no checkpoint. */
export const cancelled: AbortSignal = cancelling.signal;

/** Tells all steps to stop at their next checkpoint, and ends every question. */
export function cancelSteps(): void {
  Atomics.store(new Int32Array(cancelFlag), 0, 1);
  cancelling.abort();
}

const interrupted = () =>
  new BackupError("Cannot go on: interrupted", {
    kind: "cancelled",
    hint: "nothing half-made was kept; run it again whenever you like",
  });

/** A host made of this machine, for use outside a worker. */
export function makeHost(report: Report, cancelled: SharedArrayBuffer = cancelFlag): Host {
  const flag = new Int32Array(cancelled);
  const checkpoint = () => {
    if (Atomics.load(flag, 0) !== 0) throw interrupted();
  };
  const programs = makeRun(checkpoint);
  const run: Run = (program, args, options) => {
    report.detail?.(`runs: ${[program, ...args].map(shown).join(" ")}`);
    return programs(program, args, options);
  };
  return { fs: realFs, run, now: () => new Date(), report, checkpoint, blocking: (work) => work() };
}

/** Does work that blocks: {@linkcode runStep} does not wait for its end once all is cancelled. */
function workBlocking<Result>(checkpoint: () => void, flag: Int32Array, work: () => Result): Result {
  Atomics.store(flag, 0, 1);
  try {
    checkpoint();
    return work();
  } finally {
    Atomics.store(flag, 0, 0);
    // Whoever saw that flag set after all was cancelled counts on this step to go no further.
    checkpoint();
  }
}

/** A word of a command line, as a person may copy it. */
const shown = (word: string): string => /^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word);

/**
 * The same paths, and where they lead: a home may be a link, and Deno asks for what SQLite opens by its real path. Opening
 * files through a link that is granted Deno allows anyhow.
 */
const withReal = (paths: readonly string[]): string[] => [
  ...new Set(paths.flatMap((path) => [path, whereItLeads(path)])),
];

/** What is not there yet will lie where the folder above it leads. */
function whereItLeads(path: string): string {
  if (path === "/") return path;
  try {
    return realFs.realPath(path);
  } catch {
    return `${whereItLeads(parentOf(path)).replace(/\/$/, "")}/${nameOf(path)}`;
  }
}

/** The URL of the script of this name, for {@linkcode runStep}. */
export const script = (name: string): string => import.meta.resolve(`../../${name}.ts`);

/**
 * Runs a script as a step in a worker, to its end.
 *
 * @param url The module's.
 * @param job It may come later than the worker is loaded.
 * @throws {BackupError} What the step threw, or what keeps the job from coming; (internal) if it died.
 */
export function runStep<Result, Told = never>(
  url: string,
  job: unknown,
  permissions: StepPermissions,
  terminal: Terminal,
  { later, told, threads }: StepTalk<Told> = {},
): Promise<Result> {
  const deno = { permissions: workerPermissions(permissions) };
  const worker = new Worker(url, { type: "module", deno } as WorkerOptions);
  const say = (message: ToWorker) => worker.postMessage(message);
  const give = (later: Promise<unknown>) =>
    later.then(
      (value) => say({ type: "later", value }),
      (error) => say({ type: "later failed", error: sentError(knownError(error) ?? error) }),
    );
  if (later instanceof Promise) give(later);
  const began = performance.now();
  const underWay = new Set<string>();
  const flags: StepFlags = { cancelled: cancelFlag, blocked: new SharedArrayBuffer(4) };
  const over = new AbortController();
  return new Promise<Result>((resolve, reject) => {
    // A worker reads no message before its modules have run, as long as none of them awaits anything at its top.
    Promise.resolve(job).then(
      (job) => say({ type: "job", job, flags, hasThreads: threads !== undefined }),
      reject,
    );
    const endIfBlocked = () => {
      if (Atomics.load(new Int32Array(flags.blocked), 0) !== 0) reject(interrupted());
    };
    cancelled.addEventListener("abort", endIfBlocked, { signal: over.signal });
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      switch (data.type) {
        case "asked":
          if (typeof later === "function") give(later());
          return;
        case "thread":
          threads![data.work](data.port, filesOfStep(realFs, permissions)).catch(reject);
          return;
        case "link":
          return makeLink(data.request, permissions);
        case "progress":
          underWay.add(data.what);
          return terminal.progress(data.what, data.done, data.total);
        case "detail":
          return terminal.detail?.(data.text);
        case "info":
        case "warn":
        case "print":
        case "result":
          return terminal[data.type](data.text);
        case "told":
          return told?.(data.value as Told);
        case "done":
          return resolve(data.result as Result);
        case "failed":
          return reject(receivedError(data.error));
      }
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new BackupError(`Cannot run ${url}: ${event.message}`, { kind: "internal" }));
    };
  }).finally(() => {
    over.abort();
    worker.terminate();
    // However it ended, nothing of it is under way any more.
    for (const what of underWay) terminal.progress(what, 0, 0);
    const name = nameOf(url).replace(/\.ts$/, "");
    terminal.detail?.(`step ${name}: ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });
}

function workerPermissions({ read, write = [], run = [], net = [], sys = [] }: StepPermissions) {
  // "/" is what the program itself may touch: Deno keeps it from writing to the programs that it may run.
  const list = (granted: readonly string[]) =>
    granted.includes("/") ? "inherit" : granted.length === 0 ? false : [...granted];
  return {
    read: list(withReal(read)),
    write: list(withReal(write)),
    run: list(run),
    net: list(net),
    env: false,
    sys: list(sys),
    ffi: false,
    import: false,
  };
}

/**
 * Answers {@linkcode runStep}: the last line of a script. Does nothing where the script is merely imported.
 *
 * @param step What the script does with its job; it may answer later.
 */
export function serveStep<Job>(
  meta: ImportMeta,
  step: (job: Job, tools: StepTools) => unknown,
): void {
  if (!meta.main || !("DedicatedWorkerGlobalScope" in globalThis)) return;
  const scope = globalThis as unknown as {
    postMessage(message: FromWorker, transfer?: Transferable[]): void;
    onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  };
  const say = (message: FromWorker) => scope.postMessage(message);
  let lastProgress = 0;
  const report: Report = {
    progress(what, done, total) {
      const now = performance.now();
      if (done > 0 && done < total && now - lastProgress < PROGRESS_EVERY_MS) return;
      lastProgress = now;
      say({ type: "progress", what, done, total });
    },
    detail: (text) => say({ type: "detail", text }),
    info: (text) => say({ type: "info", text }),
    warn: (text) => say({ type: "warn", text }),
  };
  const { promise: later, resolve: resolveLater, reject: rejectLater } = Promise.withResolvers<unknown>();
  // A step that fails before it waits for this has said enough.
  later.catch(() => {});
  scope.onmessage = ({ data }) => {
    if (data.type === "later") return resolveLater(data.value);
    if (data.type === "later failed") return rejectLater(receivedError(data.error));
    const startThread = (work: ThreadWork) => {
      const { port1, port2 } = new MessageChannel();
      scope.postMessage({ type: "thread", work, port: port2 }, [port2]);
      return port1;
    };
    const made = makeHost(report, data.flags.cancelled);
    const flag = new Int32Array(data.flags.blocked);
    const blocking = <Result>(work: () => Result) => workBlocking(made.checkpoint, flag, work);
    const fs = askingForLinks(made.fs, (request) => say({ type: "link", request }));
    const host = { ...made, fs, blocking, ...(data.hasThreads ? { startThread } : {}) };
    const ask = () => {
      say({ type: "asked" });
      return later;
    };
    const tools: StepTools = {
      host,
      print: (text) => say({ type: "print", text }),
      result: (text) => say({ type: "result", text }),
      later,
      ask,
      tell: (value) => say({ type: "told", value }),
    };
    Promise.try(step, data.job as Job, tools).then(
      (result) => say({ type: "done", result }),
      (error) => say({ type: "failed", error: sentError(knownError(error) ?? error) }),
    );
  };
}
