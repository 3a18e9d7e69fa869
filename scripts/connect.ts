/**
 * The first words with a storage host: which host key it shows, pinning it, and what the key that ships may do there.
 *
 * Pins only what it is told to; what it tries is a dry run.
 *
 * @module
 */

import type { Config, RsyncDestination } from "./core/config/config.ts";
import { shipFolder } from "./core/config/state_paths.ts";
import { BackupError } from "./core/errors.ts";
import { type HostKey, parseKeyScan } from "./core/keys/host_keys.ts";
import { parseRsyncTarget } from "./core/shipping/rsync_args.ts";
import { type Probed, probeRsync } from "./host/destinations/probe.ts";
import { appendLineDurably } from "./host/fs.ts";
import type { Host } from "./host/host.ts";
import type { ConnectJob } from "./host/init/init_jobs.ts";
import { lastConfirmed } from "./host/records/ship_records.ts";
import { serveStep } from "./host/steps/step.ts";

const SCAN_SECONDS = 15;

/**
 * Asks a server for its host keys, which proves nothing yet: a person has to compare them.
 *
 * @throws {BackupError} (network) If it shows none.
 */
async function scanHostKeys(host: Host, { target, port }: RsyncDestination): Promise<HostKey[]> {
  const name = parseRsyncTarget(target).host;
  const args = ["-T", `${SCAN_SECONDS}`, "-p", `${port}`, "-t", "ed25519,ecdsa,rsa", "--", name];
  const { stdout, stderr } = await host.run("ssh-keyscan", args, { secondsMax: 4 * SCAN_SECONDS });
  const keys = parseKeyScan(stdout, name, port);
  if (keys.length > 0) return keys;
  const why = stderr.split("\n").findLast((line) => line.trim() !== "" && !line.startsWith("#"));
  throw new BackupError(
    `Cannot reach ${name} port ${port}: it shows no host key${why ? ` (${why.trim()})` : ""}`,
    {
      kind: "network",
      hint: "check the name, the port, the VPN, and that sshd runs there; then run `hapi-backup init` again",
    },
  );
}

/** Tries what the key may do. @returns What was tried; what could not be told counts as not allowed to rely on. */
async function probe(host: Host, config: Config, destination: RsyncDestination): Promise<Probed[]> {
  const scratch = `${shipFolder(config.stateFolder)}/connect`;
  return await probeRsync(host, destination, scratch, lastConfirmed(host, config, destination.name)?.key);
}

serveStep<ConnectJob>(import.meta, async (job, { host }) => {
  switch (job.action) {
    case "scan":
      return await scanHostKeys(host, job.destination);
    case "pin":
      return appendLineDurably(host.fs, job.destination.knownHostsFile, job.key.line);
    case "probe":
      return await probe(host, job.config, job.destination);
  }
});
