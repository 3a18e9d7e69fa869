/**
 * Why rsync, or the ssh under it, failed, and what to do about it.
 *
 * What they say may be megabytes of what a hostile far side likes: no pattern may look far ahead from every place in it.
 *
 * @module
 */

import { BackupError, type ErrorKind } from "../errors.ts";
import { cleanText } from "../format.ts";
import { parseRsyncTarget, type RsyncAccess } from "./rsync_args.ts";
import type { Cause, FailedRun, TransferFailure } from "./transfer_failure.ts";

/**
 * Explains why rsync or the ssh under it failed. The text on stderr decides before the exit code does: rsync ends
 * with 12 or with 255 for the same ssh error, whichever it notices first.
 *
 * @param action What was being done, as in "Cannot <action>".
 */
export function explainRsyncFailure(action: string, access: RsyncAccess, run: FailedRun): TransferFailure {
  const { host, user } = parseRsyncTarget(access.target);
  const said = causeHere(run.stderr) ?? causeInKeys(access, user, host, run.stderr) ??
    causeOnTheWay(access, host, run.stderr) ?? causeOnFarSide(user, host, run.stderr);
  const { state, kind, retry, hint } = said ?? causeByCode(host, run);
  return {
    error: new BackupError(`Cannot ${action}: ${state}`, { kind, hint }),
    retry,
    isPartial: !said && PARTIAL_CODES.includes(run.code),
  };
}

/** What rsync says where there is no ssh. */
function causeHere(stderr: string): Cause | undefined {
  if (!/Failed to exec ssh: No such file/.test(stderr)) return undefined;
  const hint = "install ssh (Debian: apt-get install openssh-client)";
  return { state: "ssh is not installed", kind: "usage", retry: false, hint };
}

/** What ssh says of host keys and of ours. */
function causeInKeys(access: RsyncAccess, user: string, host: string, stderr: string): Cause | undefined {
  const { port, identityFile, knownHostsFile } = access;
  const at = `${host} port ${port}`;
  const scan = `ssh-keyscan -p ${port} ${host} >> '${knownHostsFile}'`;
  const own = "on the storage host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub";
  const cause = (state: string, hint: string): Cause => ({ state, kind: "key", retry: false, hint });

  if (/REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .{0,300} has changed/.test(stderr)) {
    const fingerprint = /SHA256:[A-Za-z0-9+/]+/.exec(stderr)?.[0] ?? "an unknown fingerprint";
    const name = port === 22 ? host : `[${host}]:${port}`;
    return cause(
      `${at} shows another host key (${fingerprint}) than the one pinned in ${knownHostsFile}`,
      `somebody may be in between: compare the fingerprint (${own}); only if the key was changed on purpose, run ` +
        `\`ssh-keygen -R '${name}' -f '${knownHostsFile}'\` and \`${scan}\``,
    );
  }
  if (/Host key verification failed|No \S+ host key is known/.test(stderr)) {
    return cause(
      `the host key of ${at} is not pinned in ${knownHostsFile}`,
      `run \`${scan}\`, then compare the fingerprint: ` +
        `\`ssh-keygen -lf '${knownHostsFile}'\` here must show what it shows ${own}`,
    );
  }
  const unusable =
    /Identity file .{0,300} not accessible|UNPROTECTED PRIVATE KEY FILE|Load key .{0,300}: |no such identity/;
  if (unusable.test(stderr)) {
    const said = lineWith(stderr, /not accessible|UNPROTECTED|Load key|no such identity/) ?? "";
    return cause(
      `key ${identityFile} cannot be used (${cleanText(said, 300)})`,
      "make sure that it is there, is a private key without a passphrase, belongs to this user and has mode 0600",
    );
  }
  if (/Permission denied \((?!\d)|Too many authentication failures/.test(stderr)) {
    return cause(
      `${user} on ${at} does not accept key ${identityFile}`,
      `add ${identityFile}.pub to that user's authorized_keys ` +
        "(`hapi-backup storage authorize` prints the line), and check `from=` in it",
    );
  }
  return undefined;
}

/** What ssh says of the network. */
function causeOnTheWay({ port }: RsyncAccess, host: string, stderr: string): Cause | undefined {
  const at = `${host} port ${port}`;
  const cause = (state: string, hint: string): Cause => ({ state, kind: "network", retry: true, hint });
  if (/Connection refused/.test(stderr)) {
    return cause(`${at} refuses the connection`, "start sshd there, and check the port and the firewall");
  }
  if (/Could not resolve hostname/.test(stderr)) {
    const hint = "check the spelling, the DNS, and that the VPN is up";
    return cause(`the name ${host} cannot be resolved`, hint);
  }
  const silent = /timed out|No route to host|Network is unreachable|Timeout, server .{0,300} not responding/;
  if (silent.test(stderr)) {
    const hint = "check that it is on, that the VPN is up, and that a firewall lets us through";
    return cause(`${at} does not answer`, hint);
  }
  return undefined;
}

/** What rrsync and rsync say of the far side. */
function causeOnFarSide(user: string, host: string, stderr: string): Cause | undefined {
  if (/Another instance of rrsync/.test(stderr)) {
    return {
      state: `another transfer into that folder is still running on ${host}`,
      kind: "network",
      retry: true,
      hint: "after a cut connection it ends by itself within the timeout; run it again",
    };
  }
  // rrsync ends with Python's own error where it cannot take its lock, which is the folder.
  if (/^(?:FileNotFoundError|PermissionError): |Restricted directory does not exist/m.test(stderr)) {
    return {
      state: `the hub's folder on ${host} is not there, or is closed`,
      kind: "disk",
      retry: false,
      hint:
        "see there that its disk is mounted, and that the folder in the forced command is its user's, with mode 2770",
    };
  }
  const refusal = lineWith(stderr, /rrsync error:/);
  if (refusal) {
    const said = JSON.stringify(refusal.replace(/^.*rrsync error:\s*/, "").slice(0, 200));
    const isWrongKey = /read-only server|write-only server/.test(refusal);
    return {
      state: `the far side says ${said}`,
      kind: isWrongKey ? "key" : "config",
      retry: false,
      hint: isWrongKey
        ? "the key for shipping may only write and the one for reading may only read: use the other one"
        : "the far side needs rsync and rrsync 3.5 or newer, and a forced command as " +
          "`hapi-backup storage authorize` prints it",
    };
  }
  // The shell says this of a script whose Python is missing, too; or `env` does, which quotes as its locale has it.
  const unstartable =
    /rrsync: (?:\d+: )?(?:not found|cannot execute|No such file)|env: ['‘]?python3['’]?: No such file/;
  if (unstartable.test(stderr)) {
    return {
      state: `rrsync cannot be started on ${host}`,
      kind: "config",
      retry: false,
      hint: "install rsync and python3 there, and see that the forced command names that rrsync",
    };
  }
  if (/is your shell clean\?/.test(stderr)) {
    return {
      state: `something on ${host} prints before rsync does`,
      kind: "config",
      retry: false,
      hint:
        `see there that neither the forced command nor a start-up file of ${user}, such as ~/.bashrc, prints ` +
        "anything; both sides need rsync 3.5 or newer",
    };
  }
  if (/Disk quota exceeded/.test(stderr)) {
    const hint =
      "raise it there (`setquota`, as `hapi-backup storage authorize` prints it), or free some of it " +
      "(`hapi-backup retain --apply`), then run it again";
    return { state: `the disk quota of ${user} on ${host} is used up`, kind: "disk", retry: false, hint };
  }
  if (/No space left on device/.test(stderr)) {
    const hint = "free some space there (`hapi-backup retain --apply`), then run it again";
    return { state: `the disk of ${host} is full`, kind: "disk", retry: false, hint };
  }
  if (/Read-only file system/.test(stderr)) {
    const hint = "look at that host's system log";
    return { state: `the disk of ${host} is read-only`, kind: "disk", retry: false, hint };
  }
  return undefined;
}

/** rsync's documented exit codes (rsync(1), EXIT VALUES): what they mean, and whether another try can help. */
const EXIT_MEANINGS: Readonly<
  Record<number, { readonly text: string; readonly kind: ErrorKind; readonly retry: boolean }>
> = {
  1: { text: "the far side refused our options", kind: "config", retry: false },
  2: { text: "the two rsyncs speak different protocols", kind: "config", retry: false },
  3: { text: "a file or folder could not be selected", kind: "config", retry: false },
  4: { text: "an option is not supported there", kind: "config", retry: false },
  5: { text: "the protocol could not be started", kind: "network", retry: true },
  6: { text: "the far side's daemon cannot write its log", kind: "config", retry: false },
  10: { text: "the socket failed", kind: "network", retry: true },
  11: { text: "reading or writing a file failed", kind: "disk", retry: false },
  12: { text: "the connection was cut", kind: "network", retry: true },
  13: { text: "its diagnostics failed", kind: "internal", retry: false },
  14: { text: "its processes lost each other", kind: "internal", retry: true },
  15: { text: "one of its processes crashed", kind: "internal", retry: true },
  16: { text: "one of its processes was killed", kind: "internal", retry: true },
  19: { text: "it was told to stop (SIGUSR1)", kind: "network", retry: true },
  20: { text: "it was told to stop", kind: "network", retry: true },
  21: { text: "it lost track of its processes", kind: "internal", retry: true },
  22: { text: "it ran out of memory", kind: "internal", retry: false },
  23: { text: "some files were not transferred", kind: "network", retry: true },
  24: { text: "some files vanished meanwhile", kind: "source", retry: false },
  25: { text: "a limit on deletions stopped it", kind: "config", retry: false },
  30: { text: "no byte moved for too long", kind: "network", retry: true },
  35: { text: "the far side's daemon did not answer in time", kind: "network", retry: true },
  127: { text: "there is no rsync on the far side", kind: "config", retry: false },
  255: { text: "ssh could not connect", kind: "network", retry: true },
};

/** Of those, the ones after which all else was transferred. */
const PARTIAL_CODES: readonly number[] = [23, 24];

/** What the exit code means, with the first line of what was said. */
function causeByCode(host: string, { code, signal, stderr }: FailedRun): Cause {
  const { text, kind, retry } = EXIT_MEANINGS[code] ??
    { text: "it ended in a way that is not documented", kind: "network", retry: true };
  const said = lineWith(stderr, /^(?!rsync error:|Warning:|\s*$)/) ?? "";
  return {
    state: `rsync ended with ${signal ?? code} (${text})${said === "" ? "" : `: ${cleanText(said, 300)}`}`,
    kind,
    retry,
    hint: retry
      ? "run it again: a partial upload resumes where it stopped"
      : `look at ${host}: is there room, and does its rsync work? Both sides need rsync 3.5 or newer`,
  };
}

/** The first line that a pattern finds something in. */
function lineWith(text: string, pattern: RegExp): string | undefined {
  return text.split("\n").find((line) => pattern.test(line))?.trim();
}
