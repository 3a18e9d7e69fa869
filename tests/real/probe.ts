/** A step that tries what it is told and answers what came of each: run with a real step's permissions. */

import type { Host } from "../../scripts/host/host.ts";
import { serveStep } from "../../scripts/host/steps/step.ts";

/** Something to try. */
export type Attempt =
  | readonly ["read" | "write" | "run" | "env" | "link", string]
  | readonly ["connect" | "listen", number];

/** Tries everything; `ok`, or the name of the error. */
function probe(attempts: readonly Attempt[], host: Host): Promise<string[]> {
  return Promise.all(attempts.map(async ([what, subject]) => {
    try {
      await attempt(what, subject as never, host);
      return "ok";
    } catch (error) {
      return (error as Error).name;
    }
  }));
}

async function attempt(what: Attempt[0], subject: never, host: Host): Promise<void> {
  switch (what) {
    case "read":
      return void Deno.lstatSync(subject);
    case "write":
      return Deno.writeTextFileSync(`${subject}/probe`, "x");
    case "run":
      return void await new Deno.Command(subject, { args: ["--version"] }).output();
    case "env":
      return void Deno.env.get(subject);
    case "link":
      return host.fs.symlink("..", subject);
    case "connect":
      return (await Deno.connect({ hostname: "127.0.0.1", port: subject })).close();
    case "listen":
      return Deno.listen({ hostname: "127.0.0.1", port: subject }).close();
  }
}

serveStep<readonly Attempt[]>(import.meta, (attempts, { host }) => probe(attempts, host));
