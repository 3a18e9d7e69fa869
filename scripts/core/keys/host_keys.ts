/**
 * Host keys of SSH servers as `ssh-keyscan` prints them and a `known_hosts` file holds them (sshd(8), section
 * "SSH_KNOWN_HOSTS FILE FORMAT").
 *
 * @module
 */

import { createHash } from "node:crypto";
import { BackupError } from "../errors.ts";
import { decodeBase64 } from "./ssh_wire.ts";

/** One host key. */
export interface HostKey {
  /** Such as `ssh-ed25519`. */
  readonly type: string;
  /** The line for a `known_hosts` file. */
  readonly line: string;
  /** As `ssh-keygen -l` prints it: `SHA256:` and 43 characters. */
  readonly fingerprint: string;
}

/** The server's name as a `known_hosts` file has it. */
const nameOf = (host: string, port: number): string => port === 22 ? host : `[${host}]:${port}`;

/** The keys that `ssh-keyscan` printed, the type that we prefer first. */
export function parseKeyScan(stdout: string, host: string, port: number): HostKey[] {
  const keys = stdout.split("\n").flatMap((line): HostKey[] => {
    const [, type, key] = /^[^#\s]\S* (\S+) (\S+)$/.exec(line.trim()) ?? [];
    const blob = key === undefined ? undefined : decodeBase64(key);
    if (!blob) return [];
    const digest = Uint8Array.from(createHash("sha256").update(blob).digest());
    return [{
      type: type!,
      line: `${nameOf(host, port)} ${type} ${key}`,
      fingerprint: `SHA256:${digest.toBase64({ omitPadding: true })}`,
    }];
  });
  return keys.sort((a, b) => Number(b.type === "ssh-ed25519") - Number(a.type === "ssh-ed25519"));
}

/**
 * The key among those scanned that a person vouches for.
 *
 * @param wanted A fingerprint, or a public key line such as `ssh-ed25519 AAAA…`.
 * @throws {BackupError} (key) If the server shows none such: it may not be the server that is meant.
 */
export function chooseHostKey(keys: readonly HostKey[], wanted: string, where: string): HostKey {
  const found = keyMeant(keys, wanted);
  if (found) return found;
  const shown = keys.map(({ fingerprint }) => fingerprint).join(", ");
  throw new BackupError(`Cannot pin the host key of ${where}: it shows ${shown}, not the one given`, {
    kind: "key",
    hint: `somebody may be in between: compare ${OWN_FINGERPRINT}`,
  });
}

/** The key that a fingerprint or a public key line means. */
export function keyMeant(keys: readonly HostKey[], wanted: string): HostKey | undefined {
  const [type, key] = wanted.trim().split(/\s+/);
  return keys.find(({ fingerprint, line }) =>
    fingerprint === type || (key !== undefined && line.endsWith(` ${type} ${key}`))
  );
}

/** How to learn the right fingerprint. */
export const OWN_FINGERPRINT =
  "with what the storage host says of itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub";

/** Whether a `known_hosts` file holds a key of this server, under its plain name. */
export function isPinned(knownHosts: string, host: string, port: number): boolean {
  return pinnedKeys(knownHosts, host, port).length > 0;
}

/** The keys of this server that a `known_hosts` file holds under its plain name. What is no key is passed over, as by ssh. */
export function pinnedKeys(knownHosts: string, host: string, port: number): HostKey[] {
  const name = nameOf(host, port);
  const lines = knownHosts.split("\n").map((line) => line.split(/\s+/))
    .filter(([names]) => names!.split(",").includes(name));
  return parseKeyScan(lines.map((fields) => fields.slice(0, 3).join(" ")).join("\n"), host, port);
}
