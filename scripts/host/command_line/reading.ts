/**
 * Runs the steps that get snapshots back, and reads identities and parts and writes images for them on this thread.
 *
 * What saves snapshots must not import this module: it reads keys.
 *
 * @module
 */

import type { StepPermissions } from "../../core/sandbox/permissions.ts";
import { serveIdentities } from "../keys/identity_thread.ts";
import { serveImageWriter } from "../restore/image_writer.ts";
import { runStep, type StepTalk, type StepThreads, type Terminal } from "../steps/step.ts";

const THREADS: StepThreads = {
  "identity reader": (port) => Promise.try(serveIdentities, port),
  "part reader": async (port, files) => (await import("../restore/part_source.ts")).serveSources(port, files),
  "image writer": (port, files) => Promise.try(serveImageWriter, port, files),
};

/** As {@linkcode runStep}. What this thread does for the step is loaded while that is. */
export function runReadingStep<Result>(
  url: string,
  job: unknown,
  permissions: StepPermissions,
  terminal: Terminal,
  talk: StepTalk<never> = {},
): Promise<Result> {
  const result = runStep<Result>(url, job, permissions, terminal, { ...talk, threads: THREADS });
  // What fails here is told once the step asks for it.
  Promise.all([import("../restore/part_source.ts"), import("../keys/identity.ts"), import("node:fs")])
    .catch(() => {});
  return result;
}
