import type { Fs } from "../../scripts/host/host.ts";
import { realFs } from "../../scripts/host/fs.ts";

/**
 * The real files, but nobody waits until they are on the disk: no test outlives the machine. What is synced, and in which
 * order, power_loss_test.ts looks at; that syncing works, whatever runs the command line.
 */
export const unsyncedFs: Fs = {
  ...realFs,
  syncFolder: (path) => Deno.openSync(path, { read: true }).close(),
  open: (path, options) => ({
    ...realFs.open(path, options),
    sync: () => {},
    syncing: () => Promise.resolve(),
  }),
};
