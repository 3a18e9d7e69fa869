/**
 * A process of its own that runs one step and gets a signal at one of the step's operations: as in the program, the
 * step works in a worker while the process listens for SIGTERM.
 *
 * @module
 */

import { exitCodeOf } from "../../scripts/core/errors.ts";
import { knownError } from "../../scripts/host/fs.ts";
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

const scope = globalThis as unknown as {
  postMessage(message: unknown): void;
  onmessage: ((event: MessageEvent<{ job: ChildJob; stop: SharedArrayBuffer }>) => void) | null;
};

if ("DedicatedWorkerGlobalScope" in globalThis) {
  scope.onmessage = async ({ data: { job, stop } }) => {
    const flag = new Int32Array(stop);
    const real = makeHost({ progress: () => {}, info: () => {}, warn: () => {} }, stop);
    const host = faultyHost({ ...real, now: () => new Date(job.now) }, (index) => {
      if (index !== job.at) return;
      Deno.kill(Deno.pid, job.signal);
      Atomics.wait(flag, 0, 0, HEARD_MS_MAX);
    });
    try {
      await STEPS[job.step](host, job.dir);
      scope.postMessage({ code: 0, message: "" });
    } catch (error) {
      const known = knownError(error);
      scope.postMessage({ code: known ? exitCodeOf(known.kind) : 99, message: String(error) });
    }
  };
} else if (import.meta.main) {
  const stop = new SharedArrayBuffer(4);
  Deno.addSignalListener("SIGTERM", () => {
    Atomics.store(new Int32Array(stop), 0, 1);
    Atomics.notify(new Int32Array(stop), 0);
  });
  const worker = new Worker(import.meta.url, { type: "module" });
  worker.onmessage = ({ data: { code, message } }) => {
    console.error(message);
    Deno.exit(code);
  };
  worker.postMessage({ job: JSON.parse(Deno.args[0]!) as ChildJob, stop });
}
