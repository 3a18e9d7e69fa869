/**
 * What a storage host calls things that are its own. Apart, so that who names them need not load what uses them.
 *
 * @module
 */

/** Where the configuration is when `--config` does not say. */
export const STORAGE_CONFIG_FILE = "/etc/hapi-backup/storage.json";
/** The user that scrubs, retains and watches, and the group of that name. */
export const STORAGE_USER = "hapi-backup-storage";
