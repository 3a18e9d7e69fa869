/**
 * Why rclone failed, and what to do about it.
 *
 * @module
 */

import { BackupError } from "../errors.ts";
import { cleanText, formatStore } from "../format.ts";
import type { Cause, FailedRun, TransferFailure } from "./transfer_failure.ts";

/** What rclone says, what it means, and what to do. The first that matches counts. */
const CAUSES: readonly (Cause & { readonly pattern: RegExp })[] = [
  {
    pattern: /didn't find section in config file|Config file .{0,300} not found/,
    kind: "config",
    retry: false,
    state: "rclone's configuration does not know that remote",
    hint: "add it with `rclone config`, or name the right file as configFile",
  },
  {
    pattern: /unable to decrypt configuration|Enter configuration password/,
    kind: "config",
    retry: false,
    state: "rclone's configuration is encrypted",
    hint: "give this job a configuration of its own without a password, mode 0600",
  },
  {
    pattern: /immutable file modified/,
    kind: "integrity",
    retry: false,
    state: "the remote holds another file under that name, and it is not overwritten",
    hint: "find out who wrote it, move that snapshot's folder on the remote aside, then ship again",
  },
  {
    pattern: /max transfer limit reached/,
    kind: "integrity",
    retry: false,
    state: "the remote sends more than it said that it would",
    hint: "look at what serves it; another copy of the store may be well: name it with --store",
  },
  {
    pattern: /NoSuchBucket|ListJSON: directory not found/,
    kind: "config",
    retry: false,
    state: "there is no such bucket or folder",
    hint: "check the name after the colon; `rclone lsd` shows what is there",
  },
  {
    pattern: /InvalidObjectState/,
    kind: "config",
    retry: false,
    state: "the remote keeps it in an archive, out of reach",
    hint: "have the store's provider bring it back, and keep backups in a class that can be read at once",
  },
  {
    pattern: /knownhosts: key/,
    kind: "key",
    retry: false,
    state: "the far side's host key is not the one that is pinned",
    hint: "compare its fingerprint with what the host itself says before you change known_hosts_file",
  },
  {
    pattern:
      /AccessDenied|Forbidden|Unauthorized|InvalidAccessKeyId|SignatureDoesNotMatch|unable to authenticate|\b40[13]\b|permission denied/i,
    kind: "key",
    retry: false,
    state: "the remote refuses our credentials, or they may not do that",
    hint: "check the key and its rights: it must list, read and add files",
  },
  {
    pattern: /no space left|quota|Insufficient ?Storage/i,
    kind: "disk",
    retry: false,
    state: "the remote is full",
    hint: "free some space there, then run it again",
  },
  {
    // Nobody is there yet, as when the line has just come up: that is soon said.
    pattern: /\b(?:dial|lookup) .{0,200}timeout/i,
    kind: "network",
    retry: true,
    state: "the remote cannot be reached",
    hint: "check the network and that the service is up, then run it again",
  },
  {
    // rclone has waited, and tried again, for minutes. What stalls in the middle of an upload it closes itself.
    pattern:
      /awaiting response headers|i\/o timeout|handshake timeout|deadline exceeded|use of closed network connection/i,
    kind: "network",
    retry: false,
    state: "the remote does not answer in time",
    hint: "check that the service is well and the line is not overloaded, then run it again",
  },
  {
    pattern:
      /connection refused|no such host|timeout|network is unreachable|no route to host|connection reset|EOF/i,
    kind: "network",
    retry: true,
    state: "the remote cannot be reached",
    hint: "check the network and that the service is up, then run it again",
  },
];

/** rclone's documented exit codes that no other try can mend: usage, not found, fatal, over a limit. */
const HOPELESS_CODES = [3, 4, 7, 8];

/** Explains why rclone failed. @param remote As it was named. */
export function explainRcloneFailure(action: string, remote: string, run: FailedRun): TransferFailure {
  // A bucket may be called site-403.
  const names = remote.split(/[:/]/).filter((name) => name.length > 3);
  const stderr = names.reduce((text, name) => text.replaceAll(name, "…"), run.stderr);
  const { state, kind, retry, hint } = CAUSES.find(({ pattern }) => pattern.test(stderr)) ?? {
    state: `rclone ended with ${run.signal ?? run.code}`,
    kind: "network",
    retry: !HOPELESS_CODES.includes(run.code),
    hint: `try \`rclone lsf '${remote}'\` by hand, then run it again`,
  };
  // What it says last can go over several lines, as with S3; only the first of them has a time.
  const said = cleanText(run.stderr.split(/^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d /m).at(-1)!, 300);
  return {
    error: new BackupError(`Cannot ${action}: ${state} (${formatStore(remote)}: ${said})`, { kind, hint }),
    retry,
  };
}
