/**
 * Tries what a destination's keys may do, for real and harmlessly: dry runs about a folder that is not there, and a
 * word that only a shell would say back.
 *
 * A refusal is believed only from the far side's own words; any other failure proves nothing.
 *
 * @module
 */

import type { RsyncDestination } from "../../core/config/config.ts";
import { BackupError, isInterruption, reasonOf } from "../../core/errors.ts";
import { INCOMING_PREFIX, SEAL_FILE } from "../../core/names.ts";
import {
  compareArgs,
  namesInput,
  parseRsyncTarget,
  probeArgs,
  readingAccess,
  RSYNC_ENV,
  sshWords,
} from "../../core/shipping/rsync_args.ts";
import { explainRsyncFailure } from "../../core/shipping/rsync_failure.ts";
import type { SnapshotKey } from "../../core/shipping/shipping.ts";
import { removeIfThere, writeFileDurably } from "../fs.ts";
import type { Host, RunResult } from "../host.ts";

/** What was tried. `ok` is undefined where it could not be told. */
export interface Probed {
  readonly name: string;
  readonly ok: boolean | undefined;
  readonly detail: string;
  readonly remedy?: string | undefined;
  readonly kind?: BackupError["kind"] | undefined;
}

/** Seconds for one try. */
const SECONDS_MAX = 60;
/** What ssh ends with where it could not connect; else with what ended there (ssh(1), EXIT STATUS). */
const SSH_FAILED = 255;
const AUTHORIZE_HINT =
  "on the storage host, let the key in by the line that `hapi-backup storage authorize` prints (rrsync -wo -no-del -no-overwrite)";

/**
 * Probes the key that ships, and the one that reads if there is one.
 *
 * @param scratch A folder that this may fill and remove.
 * @param held A snapshot that the far side has confirmed, to ask whether it could be overwritten.
 */
export async function probeRsync(
  host: Host,
  destination: RsyncDestination,
  scratch: string,
  held: SnapshotKey | undefined,
): Promise<Probed[]> {
  const { name } = destination;
  const empty = `${scratch}/empty`;
  removeIfThere(host.fs, scratch);
  host.fs.mkdir(empty, { recursive: true, mode: 0o700 });
  const below = `${INCOMING_PREFIX}probe-${crypto.randomUUID().slice(0, 8)}`;
  const run = (args: readonly string[], stdin?: string) =>
    host.run("rsync", args, { env: RSYNC_ENV, secondsMax: SECONDS_MAX, stdin });
  const found: Probed[] = [];
  try {
    const reached = await run(probeArgs(destination, "write", empty, below));
    if (reached.code !== 0) {
      const { error } = explainRsyncFailure(`reach ${name}`, destination, reached);
      const { message: detail, hint: remedy, kind } = error;
      return [{ name: `${name}: reachable`, ok: false, detail, remedy, kind }];
    }
    found.push({
      name: `${name}: reachable`,
      ok: true,
      detail: `${destination.target} port ${destination.port}, with its pinned host key`,
    });
    found.push(refused(
      `${name}: its key cannot delete`,
      await run(probeArgs(destination, "delete", empty, below)),
      /option --delete\S* has been disabled/,
      "the far side would let this machine delete its backups",
    ));
    found.push(refused(
      `${name}: its key cannot read back`,
      await run(probeArgs(destination, "read", empty, below)),
      /reading from write-only server is not allowed/,
      "the far side lets this machine read its backups back",
    ));
    found.push(await probeShell(host, destination));
    if (held) found.push(await probeOverwrite(host, destination, scratch, held, run));
    const reader = readingAccess(destination);
    if (reader) {
      found.push(refused(
        `${name}: its reading key cannot write`,
        await run(probeArgs(reader, "write", empty, below)),
        /sending to read-only server is not allowed/,
        "the key that is for reading can write",
      ));
    }
    return found;
  } catch (error) {
    if (isInterruption(error)) throw error;
    const { hint: remedy, kind }: Partial<BackupError> = error instanceof BackupError ? error : {};
    return [...found, { name: `${name}: reachable`, ok: false, detail: reasonOf(error), remedy, kind }];
  } finally {
    removeIfThere(host.fs, scratch);
  }
}

function refused(name: string, run: RunResult, refusal: RegExp, bad: string): Probed {
  if (run.code === 0) return { name, ok: false, detail: bad, remedy: AUTHORIZE_HINT, kind: "key" };
  if (refusal.test(run.stderr)) return { name, ok: true, detail: "tried, and refused" };
  return { name, ok: undefined, detail: `it could not be told (rsync ended with ${run.code})` };
}

async function probeShell(host: Host, destination: RsyncDestination): Promise<Probed> {
  const { user, host: name } = parseRsyncTarget(destination.target);
  const word = `hapi-backup-${crypto.randomUUID()}`;
  const [program, ...args] = [...sshWords(destination), "--", `${user}@${name}`, "echo", word];
  const run = await host.run(program!, args, { secondsMax: SECONDS_MAX });
  const title = `${destination.name}: its key gives no shell`;
  if (run.stdout.includes(word)) {
    return { name: title, ok: false, detail: "a command was run there", remedy: AUTHORIZE_HINT, kind: "key" };
  }
  // Where ssh itself failed, nobody there was asked.
  if (run.code === SSH_FAILED || run.signal !== undefined) {
    return {
      name: title,
      ok: undefined,
      detail: `it could not be told (ssh ended with ${run.signal ?? run.code})`,
    };
  }
  return { name: title, ok: true, detail: "tried, and refused" };
}

async function probeOverwrite(
  host: Host,
  destination: RsyncDestination,
  scratch: string,
  { set, id }: SnapshotKey,
  run: (args: readonly string[], stdin?: string) => Promise<RunResult>,
): Promise<Probed> {
  const title = `${destination.name}: its key cannot overwrite`;
  const seal = `${set}/${id}/${SEAL_FILE}`;
  host.fs.mkdir(`${scratch}/other/${set}/${id}`, { recursive: true });
  writeFileDurably(host.fs, `${scratch}/other/${seal}`, "x");
  const { code, stdout } = await run(
    compareArgs(destination, `${scratch}/other`, "size"),
    namesInput([seal]),
  );
  const lines = stdout.split("\n");
  if (code === 0 && lines.some((line) => line.startsWith(`${seal} exists (`))) {
    return { name: title, ok: true, detail: "asked, and an existing file stays as it is" };
  }
  if (code === 0 && lines.some((line) => /^[<>c]f[^+]/.test(line) && line.endsWith(seal))) {
    return {
      name: title,
      ok: false,
      detail: "the far side would let this machine overwrite its backups",
      remedy: AUTHORIZE_HINT,
      kind: "key",
    };
  }
  return { name: title, ok: undefined, detail: `it could not be told (${seal} is not there)` };
}
