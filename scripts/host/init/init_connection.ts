/**
 * How `init` comes to trust a storage host: its host key, vouched for by a person, and its refusals, tried for real.
 *
 * @module
 */

import { textOf } from "../../core/command_line/option_flags.ts";
import type { Config, RsyncDestination } from "../../core/config/config.ts";
import { BackupError } from "../../core/errors.ts";
import {
  chooseHostKey,
  type HostKey,
  isPinned,
  keyMeant,
  OWN_FINGERPRINT,
  pinnedKeys,
} from "../../core/keys/host_keys.ts";
import { connectPermissions } from "../../core/sandbox/permissions.ts";
import { parseRsyncTarget } from "../../core/shipping/rsync_args.ts";
import { debianText, nixosText } from "../../core/storage_host/storage_text.ts";
import { askYes } from "../command_line/questions.ts";
import type { Probed } from "../destinations/probe.ts";
import { readTextIfThere } from "../fs.ts";
import { runStep, script } from "../steps/step.ts";
import { type InitContext, storageStore } from "./init_answers.ts";
import type { ConnectJob } from "./init_jobs.ts";

/** Pins the storage host's key and tries ours, until it is let in or the person gives up. */
export async function connect(
  context: InitContext,
  config: Config,
  destination: RsyncDestination,
): Promise<void> {
  for (let isSaid = false;; isSaid = true) {
    try {
      await pin(context, config, destination);
      return await requireAppendOnly(context, config, destination);
    } catch (error) {
      if (!(error instanceof NotLetIn)) throw error;
      if (!isSaid) context.say(whatToPaste(context, config, destination));
      if (context.asks) {
        context.terminal.warn(error.message);
        if (await askYes("Done there? Try again")) continue;
      }
      throw new BackupError(error.message, {
        kind: error.kind,
        hint:
          "prepare the storage host as said above, then run `hapi-backup init` again: it goes on from here",
      });
    }
  }
}

/** The storage host cannot be reached, or knows nothing of this hub's key yet. */
class NotLetIn extends BackupError {}

function connectStep<T>(
  { terminal }: InitContext,
  config: Config,
  job: ConnectJob,
): Promise<T> {
  const permissions = connectPermissions(config, job.destination);
  return runStep<T>(script("connect"), job, permissions, terminal);
}

async function pin(
  context: InitContext,
  config: Config,
  destination: RsyncDestination,
): Promise<void> {
  const { host } = parseRsyncTarget(destination.target);
  const where = `${host} port ${destination.port}`;
  const pinned = readTextIfThere(context.host.fs, destination.knownHostsFile) ?? "";
  const wanted = textOf(context.options.hostKey);
  if (isPinned(pinned, host, destination.port)) {
    const known = pinnedKeys(pinned, host, destination.port);
    if (wanted === undefined || keyMeant(known, wanted)) return;
    throw new BackupError(
      `Cannot trust ${where}: pinned is ${
        known.map(({ fingerprint }) => fingerprint).join(", ")
      }, not the host key given`,
      {
        kind: "key",
        hint:
          `compare both ${OWN_FINGERPRINT}; if the given one is right, remove that host's line from ${destination.knownHostsFile}`,
      },
    );
  }
  let keys: HostKey[];
  try {
    keys = await connectStep(context, config, { action: "scan", destination });
  } catch (error) {
    if (error instanceof BackupError && error.kind === "network") {
      throw new NotLetIn(error.message, { kind: error.kind });
    }
    throw error;
  }
  const key = wanted === undefined ? keys[0]! : chooseHostKey(keys, wanted, where);
  const shown = `${key.fingerprint} (${key.type.replace(/^ssh-/, "")})`;
  if (wanted === undefined) {
    if (!context.asks) {
      throw new BackupError(`Cannot trust ${where} unseen: it shows the host key ${shown}`, {
        kind: "key",
        hint: `compare it ${OWN_FINGERPRINT}; then run this again with --host-key ${key.fingerprint}`,
      });
    }
    context.say(`${where} shows the host key\n  ${shown}\ncompare it ${OWN_FINGERPRINT}`);
    if (!await askYes("Is it the same?")) {
      throw new BackupError(`Cannot go on: the host key of ${where} is in doubt`, {
        kind: "key",
        hint: "somebody may be in between; nothing was sent",
      });
    }
  }
  await connectStep(context, config, { action: "pin", destination, key });
  context.say(`pinned the host key of ${where}: ${shown}`);
}

/** Tries what the key may do there. @throws {NotLetIn} @throws {BackupError} (key) If it may do more than add. */
export async function requireAppendOnly(
  context: InitContext,
  config: Config,
  destination: RsyncDestination,
): Promise<void> {
  const probed = await connectStep<Probed[]>(context, config, { action: "probe", destination, config });
  const [reached] = probed;
  if (reached?.ok === false) {
    const { detail, kind = "network", remedy } = reached;
    const options = { kind, hint: remedy };
    // Another host key than the pinned one is nothing that pasting would mend.
    throw /host key/.test(detail) ? new BackupError(detail, options) : new NotLetIn(detail, options);
  }
  context.say(
    probed.map(({ ok, name, detail }) => `  ${ok ? "ok  " : "FAIL"}  ${name}: ${detail}`).join("\n"),
  );
  const bad = probed.find(({ ok }) => ok !== true);
  if (!bad) return;
  throw new BackupError(`Cannot rely on ${destination.name} to be append-only: ${bad.name}: ${bad.detail}`, {
    kind: "key",
    hint: bad.remedy,
  });
}

function whatToPaste(context: InitContext, config: Config, destination: RsyncDestination): string {
  const publicKey = (path: string) => readTextIfThere(context.host.fs, `${path}.pub`)?.trim();
  // Of a hub that is set up anew: an earlier key, too, whose snapshots are there.
  const signers = config.signers.filter((line) => line.startsWith("ssh-"));
  const hub = {
    hub: config.hub,
    user: parseRsyncTarget(destination.target).user,
    writeKey: publicKey(destination.identityFile) ?? "",
    signers: signers.length > 0 ? signers : [publicKey(config.signingKeyFile) ?? ""],
    store: storageStore(context),
  };
  return [
    "--- On the storage host, if it runs NixOS (module services.hapi-backup-storage):",
    nixosText(hub),
    "--- On the storage host, if it runs Debian or the like (hapi-backup scrubs and retains there):",
    debianText(hub),
    "---",
  ].join("\n");
}
