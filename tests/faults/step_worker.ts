/**
 * A step of a restore in a worker, as the program runs it: the program's own thread reads parts and writes images for it,
 * and faults can strike at any operation of either.
 *
 * @module
 */

import { type BackupError, receivedError, type SentError, sentError } from "../../scripts/core/errors.ts";
import { knownError, realFs } from "../../scripts/host/fs.ts";
import type { ThreadWork } from "../../scripts/host/host.ts";
import { serveIdentities } from "../../scripts/host/keys/identity_thread.ts";
import { serveImageWriter } from "../../scripts/host/restore/image_writer.ts";
import { serveSources } from "../../scripts/host/restore/part_source.ts";
import { makeHost } from "../../scripts/host/steps/step.ts";
import { type Fault, FAULTS, faultyHost, type Kind, type OnOperation } from "./faulty_host.ts";
import { type StepName, STEPS } from "./steps.ts";

/** Who does an operation: the step, or the program's own thread for it. (Identities come to that as bytes.) */
export type Doer = "step" | Exclude<ThreadWork, "identity reader">;

/** A step to run. */
export interface WorkerJob {
  readonly step: StepName;
  readonly dir: string;
  /** The clock, in ISO 8601. */
  readonly now: string;
  /** The fault, by its name, that strikes at the operation `at` of somebody. */
  readonly strike?: { readonly fault: string; readonly doer: Doer; readonly at: number };
}

/** How it went. */
export interface WorkerRun {
  readonly error: BackupError | undefined;
  /** Whether the moment of the fault came. */
  readonly struck: boolean;
  /** The kinds of everybody's operations, in order. */
  readonly operations: Readonly<Record<Doer, readonly Kind[]>>;
}

type ToWorker = { readonly job: WorkerJob; readonly cancelled: SharedArrayBuffer };
type FromWorker =
  | { readonly type: "thread"; readonly work: ThreadWork; readonly port: MessagePort }
  | {
    readonly type: "ended";
    readonly error: SentError | undefined;
    readonly struck: boolean;
    readonly kinds: Kind[];
  };

/** Lets a fault strike at its moment, and notes what is done. */
class Striker {
  readonly kinds: Kind[] = [];
  struck = false;
  readonly #fault: Fault | undefined;

  constructor(readonly job: WorkerJob, readonly doer: Doer, readonly cancelled: SharedArrayBuffer) {
    const { strike } = job;
    if (strike?.doer === doer) this.#fault = FAULTS.find(({ name }) => name === strike.fault);
  }

  readonly onOperation: OnOperation = (_, kind, what) => {
    const index = this.kinds.push(kind) - 1;
    const fault = this.#fault;
    if (!fault) return;
    const isNow = index === this.job.strike!.at;
    if (isNow) {
      this.struck = true;
      const cancel = () => Atomics.store(new Int32Array(this.cancelled), 0, 1);
      fault.act?.({ dir: this.job.dir, moveClock: () => {}, cancel });
    }
    if (!this.struck || !fault.kinds.includes(kind) || !(isNow || fault.lasting)) return;
    if (fault.error) throw told(fault.error(), what);
    return fault.short ? "short" : undefined;
  };
}

/** Deno says in its errors at which path it was, but for what is done with an open file. */
function told(error: Error, what: string): Error {
  if (!/^(read|reading|readAt|write|writeAt|truncate|sync|syncing) /.test(what)) error.message += `: ${what}`;
  return error;
}

/** Runs steps in one worker, one after another. */
export class StepWorker implements Disposable {
  readonly #worker = new Worker(import.meta.url, { type: "module" });

  /** @throws {Error} If it is not done in this many seconds. */
  async run(job: WorkerJob, secondsMax = 120): Promise<WorkerRun> {
    const cancelled = new SharedArrayBuffer(4);
    const threads = {
      "part reader": new Striker(job, "part reader", cancelled),
      "image writer": new Striker(job, "image writer", cancelled),
    };
    const serve = { "part reader": serveSources, "image writer": serveImageWriter };
    const host = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
    const ended = Promise.withResolvers<Extract<FromWorker, { type: "ended" }>>();
    const timer = setTimeout(() => ended.reject(new Error("it hangs")), secondsMax * 1000);
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      if (data.type === "ended") return ended.resolve(data);
      if (data.work === "identity reader") return serveIdentities(data.port);
      const { fs } = faultyHost({ ...host, fs: realFs }, threads[data.work].onOperation);
      serve[data.work](data.port, fs);
    };
    this.#worker.postMessage({ job, cancelled } satisfies ToWorker);
    try {
      const { error, struck, kinds } = await ended.promise;
      return {
        error: error && receivedError(error),
        struck: struck || Object.values(threads).some(({ struck }) => struck),
        operations: {
          step: kinds,
          "part reader": threads["part reader"].kinds,
          "image writer": threads["image writer"].kinds,
        },
      };
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }
}

const scope = globalThis as unknown as {
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
};

if ("DedicatedWorkerGlobalScope" in globalThis) {
  scope.onmessage = async ({ data: { job, cancelled } }) => {
    const striker = new Striker(job, "step", cancelled);
    const real = makeHost({ progress: () => {}, info: () => {}, warn: () => {} }, cancelled);
    const startThread = (work: ThreadWork) => {
      const { port1, port2 } = new MessageChannel();
      scope.postMessage({ type: "thread", work, port: port2 }, [port2]);
      return port1;
    };
    const now = () => new Date(job.now);
    const run = () => Promise.resolve({ code: 0, stdout: "", stderr: "" });
    const host = faultyHost({ ...real, startThread, now, run }, striker.onOperation);
    let error: SentError | undefined;
    try {
      await STEPS[job.step](host, job.dir);
    } catch (caught) {
      error = sentError(knownError(caught) ?? caught);
    }
    const { struck, kinds } = striker;
    scope.postMessage({ type: "ended", error, struck, kinds });
  };
}
