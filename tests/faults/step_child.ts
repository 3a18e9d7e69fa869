/**
 * A process of its own that runs one step and gets a signal at one of its operations: as in the program, the step works
 * in a worker while the process listens for SIGTERM, reads parts and writes images.
 *
 * @module
 */

import { exitCodeOf } from "../../scripts/core/errors.ts";
import { knownError } from "../../scripts/host/fs.ts";
import type { ThreadWork } from "../../scripts/host/host.ts";
import { serveIdentities } from "../../scripts/host/keys/identity_thread.ts";
import { serveImageWriter } from "../../scripts/host/restore/image_writer.ts";
import { serveSources } from "../../scripts/host/restore/part_source.ts";
import { makeHost } from "../../scripts/host/steps/step.ts";
import { faultyHost } from "./faulty_host.ts";
import { type StepName, STEPS } from "./steps.ts";

/** What the process is to do; its only argument, as JSON. */
export interface ChildJob {
  readonly step: StepName;
  readonly dir: string;
  /** The clock, in ISO 8601. */
  readonly now: string;
  /** The operation before which the signal comes. */
  readonly at: number;
  readonly signal: "SIGKILL" | "SIGTERM";
}

/** How long a step waits for its signal to be heard, in milliseconds. */
const HEARD_MS_MAX = 10_000;

type FromWorker =
  | { readonly type: "thread"; readonly work: ThreadWork; readonly port: MessagePort }
  | { readonly type: "ended"; readonly code: number; readonly message: string };
type ToWorker = {
  readonly job: ChildJob;
  readonly stop: SharedArrayBuffer;
  readonly done: SharedArrayBuffer;
};

const scope = globalThis as unknown as {
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
};

/** Sends the signal before the operation of its moment, whichever thread does it. @param struck Called after it. */
const striking = ({ at, signal }: ChildJob, done: SharedArrayBuffer, struck = () => {}) => () => {
  if (Atomics.add(new Int32Array(done), 0, 1) !== at) return;
  Deno.kill(Deno.pid, signal);
  struck();
};

if ("DedicatedWorkerGlobalScope" in globalThis) {
  scope.onmessage = async ({ data: { job, stop, done } }) => {
    const flag = new Int32Array(stop);
    const startThread = (work: ThreadWork) => {
      const { port1, port2 } = new MessageChannel();
      scope.postMessage({ type: "thread", work, port: port2 }, [port2]);
      return port1;
    };
    const real = makeHost({ progress: () => {}, info: () => {}, warn: () => {} }, stop);
    const strike = striking(job, done, () => Atomics.wait(flag, 0, 0, HEARD_MS_MAX));
    const host = faultyHost({ ...real, now: () => new Date(job.now), startThread }, strike);
    try {
      await STEPS[job.step](host, job.dir);
      // With threads there may be fewer operations than without: then it comes at the end.
      while (Atomics.load(new Int32Array(done), 0) <= job.at) strike();
      scope.postMessage({ type: "ended", code: 0, message: "" });
    } catch (error) {
      const known = knownError(error);
      scope.postMessage({
        type: "ended",
        code: known ? exitCodeOf(known.kind) : 99,
        message: String(error),
      });
    }
  };
} else if (import.meta.main) {
  const job = JSON.parse(Deno.args[0]!) as ChildJob;
  const stop = new SharedArrayBuffer(4);
  const done = new SharedArrayBuffer(4);
  Deno.addSignalListener("SIGTERM", () => {
    Atomics.store(new Int32Array(stop), 0, 1);
    Atomics.notify(new Int32Array(stop), 0);
  });
  const worker = new Worker(import.meta.url, { type: "module" });
  const serve = {
    "identity reader": serveIdentities,
    "part reader": serveSources,
    "image writer": serveImageWriter,
  };
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
    if (data.type === "thread") {
      const real = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
      return serve[data.work](data.port, faultyHost(real, striking(job, done)).fs);
    }
    console.error(data.message);
    Deno.exit(data.code);
  };
  worker.postMessage({ job, stop, done } satisfies ToWorker);
}
