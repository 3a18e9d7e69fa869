/** A step that tries what it is told and answers what came of each: run with a real step's permissions. */

import { BackupError } from "../../scripts/core/errors.ts";
import type { Host } from "../../scripts/host/host.ts";
import { imageWriterThread } from "../../scripts/host/restore/image_writer.ts";
import { sourceThread } from "../../scripts/host/restore/part_source.ts";
import { serveStep } from "../../scripts/host/steps/step.ts";

/** Something to try. */
export type Attempt =
  | readonly ["read" | "write" | "run" | "env" | "link" | "part" | "image", string]
  | readonly ["connect" | "listen", number];

/** Tries everything; `ok`, or the name of the error; of ours, what it says. */
function probe(attempts: readonly Attempt[], host: Host): Promise<string[]> {
  return Promise.all(attempts.map(async ([what, subject]) => {
    try {
      await attempt(what, subject as never, host);
      return "ok";
    } catch (error) {
      return error instanceof BackupError ? error.message : (error as Error).name;
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
    case "part": {
      using thread = sourceThread(host.startThread!("part reader"));
      const start = {
        path: subject,
        called: "x",
        bytes: 1,
        identities: [],
        unpacked: false,
        isHashed: false,
      };
      return await thread.start(start).opened;
    }
    case "image": {
      using writer = imageWriterThread(host.startThread!("image writer"), subject);
      return await writer.finish();
    }
    case "connect":
      return (await Deno.connect({ hostname: "127.0.0.1", port: subject })).close();
    case "listen":
      return Deno.listen({ hostname: "127.0.0.1", port: subject }).close();
  }
}

serveStep<readonly Attempt[]>(import.meta, (attempts, { host }) => probe(attempts, host));
