/**
 * A thread that writes images: what the program's own does while a step runs. It gets its port as a message, and after
 * how many writes its disk is full.
 */

import { realFs } from "../../scripts/host/fs.ts";
import type { Fs } from "../../scripts/host/host.ts";
import { serveImageWriter } from "../../scripts/host/restore/image_writer.ts";

interface Start {
  readonly port: MessagePort;
  readonly writesMax: number;
}

const scope = globalThis as unknown as { onmessage: (event: MessageEvent<Start>) => void };
scope.onmessage = ({ data: { port, writesMax } }) => {
  let writes = 0;
  const open: Fs["open"] = (path, options) => {
    const file = realFs.open(path, options);
    const writeAt = (bytes: Uint8Array, position: number) => {
      if (writes++ >= writesMax) throw new Error("No space left on device (os error 28)");
      file.writeAt(bytes, position);
    };
    return { ...file, writeAt };
  };
  serveImageWriter(port, { ...realFs, open });
};
