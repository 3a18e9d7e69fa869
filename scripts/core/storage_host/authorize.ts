/**
 * What lets a hub's keys into the storage host: the `authorized_keys` file, with the commands that prepare a plain
 * Debian host as comments in it.
 *
 * @module
 */

import { BackupError } from "../errors.ts";
import { formatPublicKeyLine, parsePublicKeyLine } from "../keys/openssh_key.ts";
import type { HubConfig, StorageConfig } from "./storage_config.ts";
import { STORAGE_USER } from "./storage_names.ts";

/** What to let in. */
export interface Authorization {
  /** The text of the public key that may only add files. */
  readonly writeKey: string;
  /** The text of the public key that may only read. */
  readonly readKey?: string | undefined;
  /** Addresses that both may come from, as sshd(8) takes them in `from=`, such as `100.64.0.0/10`. */
  readonly from?: string | undefined;
}

/** Where the hubs' users have their homes, which hold nothing but `authorized_keys` and are not theirs to write. */
const HOMES = "/var/lib/hapi-backup-hubs";

/**
 * Writes the `authorized_keys` file of a hub's user.
 *
 * @throws {BackupError} (key) If a key is not one; (usage) If a path or address cannot stand there unquoted.
 */
export function authorizeText(config: StorageConfig, hub: HubConfig, wanted: Authorization): string {
  const folder = `${config.store}/${hub.name}`;
  for (const path of [folder, config.rrsync]) {
    requirePlain(path, /^[A-Za-z0-9/._@+-]+$/, "path", "letters, digits and . _ - / @ + only");
  }
  if (wanted.from !== undefined) {
    requirePlain(
      wanted.from,
      /^[A-Za-z0-9.:/,*?!_-]+$/,
      "address range",
      "addresses such as 100.64.0.0/10, with commas between several",
    );
  }
  const home = `${HOMES}/${hub.name}`;
  const quota = hub.quotaBytes === undefined
    ? `#   setquota -u ${hub.user} 0 <KiB> 0 <files> <mount point>   (no quotaBytes is configured: a hub can fill the disk)`
    : `#   setquota -u ${hub.user} 0 ${
      Math.ceil(hub.quotaBytes / 1024)
    } 0 ${hub.quotaFiles} "$(stat -c %m ${config.store})"`;
  return [
    `# Lets hub ${hub.name} add snapshots to ${folder}: no delete, no overwrite, no reading, no shell.`,
    "#",
    "# On a plain Debian host, as root (packages: rsync, python3 for its rrsync, openssh-server, quota):",
    `#   getent passwd ${STORAGE_USER} || useradd --system --user-group --shell /usr/sbin/nologin ${STORAGE_USER}`,
    `#   install -d -o root -g root -m 0755 ${config.store} ${HOMES} ${home} ${home}/.ssh`,
    // sshd runs a forced command by the user's shell, so it needs a real one; a password it has none.
    `#   useradd --system --user-group --home-dir ${home} --no-create-home --shell /bin/sh --password '*' ${hub.user}`,
    `#   install -d -o ${hub.user} -g ${STORAGE_USER} -m 2770 ${folder}`,
    quota,
    "#     (needs user quotas: mounted with usrquota, XFS with uquota; on Btrfs and ZFS limit a subvolume or dataset instead)",
    `# Then this file goes to ${home}/.ssh/authorized_keys, owner root, mode 0644.`,
    `# scrub, retain and watch run as ${STORAGE_USER}: scrub and watch with CAP_DAC_READ_SEARCH, retain with`,
    "# CAP_DAC_OVERRIDE, because a hub sets the modes of what it sends. Their units and timers:",
    "#   hapi-backup systemd --system --storage --to ~/units",
    ...wanted.readKey === undefined
      ? [
        "# Nobody can restore from here yet: let in a key that is made off the hub, and stays there, with --read-key.",
      ]
      : [],
    keyLine(config, folder, "-wo -no-del -no-overwrite", wanted.writeKey, wanted.from),
    ...wanted.readKey === undefined ? [] : [keyLine(config, folder, "-ro", wanted.readKey, wanted.from)],
  ].join("\n") + "\n";
}

function keyLine(
  { rrsync }: StorageConfig,
  folder: string,
  options: string,
  key: string,
  from: string | undefined,
): string {
  const { publicKey, comment } = parsePublicKeyLine(key);
  const range = from === undefined ? "" : `,from="${from}"`;
  return `restrict,command="${rrsync} ${options} ${folder}"${range} ${
    formatPublicKeyLine(publicKey, comment)
  }`;
}

function requirePlain(text: string, form: RegExp, what: string, remedy: string): void {
  if (form.test(text)) return;
  throw new BackupError(`Cannot authorize with ${what} ${JSON.stringify(text)}: it would need quoting`, {
    kind: "usage",
    hint: `use ${remedy}`,
  });
}
