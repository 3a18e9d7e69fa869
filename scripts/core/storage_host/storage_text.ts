/**
 * What an operator pastes on the storage host to let a hub in: for NixOS, and for a plain Debian.
 *
 * @module
 */

import type { HubName } from "../names.ts";
import { authorizeText } from "./authorize.ts";
import { hubNamed, parseStorageConfig } from "./storage_config.ts";
import { STORAGE_CONFIG_FILE } from "./storage_names.ts";

/** Where the hubs' folders are on a storage host where nothing else is said. */
export const STORAGE_STORE = "/var/lib/hapi-backup-store";

/** The hub that is to be let in. */
export interface NewHub {
  readonly hub: HubName;
  /** The user that it logs in as there. */
  readonly user: string;
  /** Public key that may only add files. */
  readonly writeKey: string;
  /** Public keys whose seals count: the hub's own, and an earlier one's. */
  readonly signers: readonly string[];
  /** The folder that holds the hubs' folders there. */
  readonly store: string;
}

/** A piece of a NixOS configuration that uses the module `services.hapi-backup-storage`. */
export function nixosText({ hub, user, writeKey, signers, store }: NewHub): string {
  return `services.hapi-backup-storage = {
  enable = true;${store === STORAGE_STORE ? "" : `\n  settings.store = ${JSON.stringify(store)};`}
  hubs.${hub} = {${user === `hapi-${hub}` ? "" : `\n    user = ${JSON.stringify(user)};`}
    writeKey = ${JSON.stringify(writeKey)};
    # readKey = "ssh-ed25519 AAAA..."; # for restores from here: made off the hub, where its private half stays
    signers = [ ${signers.map((signer) => JSON.stringify(signer)).join(" ")} ];
    quotaBytes = 200000000000; # what this hub may take; set the same in the file system
    # from = [ "100.64.0.0/10" "fd7a:115c:a1e0::/48" ]; # a tailnet's addresses; [ ] lets it come from anywhere
  };
};
`;
}

/** The storage host's configuration, and the authorized_keys file with the commands around it as comments. */
export function debianText({ hub, user, writeKey, signers, store }: NewHub): string {
  const config = JSON.stringify(
    { store, hubs: { [hub]: { ...(user === `hapi-${hub}` ? {} : { user }), signers } } },
    null,
    2,
  );
  const parsed = parseStorageConfig(config, STORAGE_CONFIG_FILE);
  return `# ${STORAGE_CONFIG_FILE} (where there is one, add this hub to it):
${config}

${authorizeText(parsed, hubNamed(parsed, hub), { writeKey })}`;
}
