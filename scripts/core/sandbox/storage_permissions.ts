/**
 * What each verb of the storage host may touch. None may start a program or open a socket.
 *
 * | verb    | reads                                        | writes                              |
 * | ------- | -------------------------------------------- | ----------------------------------- |
 * | scrub   | store, ledger, drill logs, the receipts' key | ledger, the hubs' receipts          |
 * | retain  | store, ledger                                | store, ledger                       |
 * | watch   | store, ledger, drill logs                    | ledger, the metrics' file           |
 * | pin     | store, ledger                                | ledger                              |
 * | storage | store, ledger, drill logs, the keys named    | ledger                              |
 *
 * @module
 */

import { parentOf } from "../paths.ts";
import { RECEIPT_FILE, RECEIPT_SIGNATURE_FILE } from "../shipping/receipt.ts";
import type { StorageConfig } from "../storage_host/storage_config.ts";
import { FREE_SPACE, type StepPermissions } from "./permissions.ts";

/** The verbs of the storage host, each a script of its own. */
export const STORAGE_VERBS = ["scrub", "retain", "watch", "pin", "storage"] as const;
/** One of them. */
export type StorageVerb = typeof STORAGE_VERBS[number];

/** @param options The verb's options; those that name files hold absolute paths. */
export function storagePermissions(
  verb: StorageVerb,
  config: StorageConfig,
  options: Readonly<Record<string, unknown>>,
): StepPermissions {
  const { store, stateFolder } = config;
  const files = (...names: string[]) =>
    names.flatMap((name) => typeof options[name] === "string" ? [options[name]] : []);
  const drills = [...config.hubs.values()].flatMap(({ drillLogFile }) => drillLogFile ?? []);
  switch (verb) {
    case "scrub":
      return {
        read: [
          store,
          stateFolder,
          ...drills,
          ...config.receiptKeyFile === undefined ? [] : [config.receiptKeyFile],
        ],
        write: [stateFolder, ...receiptFiles(config)],
        sys: FREE_SPACE,
      };
    case "retain":
      return { read: [store, stateFolder], write: [store, stateFolder] };
    case "watch": {
      const written = files("prometheus");
      return {
        read: [store, stateFolder, ...drills, ...written.map(parentOf), ...written],
        write: [stateFolder, ...written.flatMap(withBeside)],
        sys: FREE_SPACE,
      };
    }
    case "pin":
      return { read: [store, stateFolder], write: [stateFolder] };
    case "storage":
      return {
        read: [store, stateFolder, ...drills, ...files("key", "readKey")],
        write: [stateFolder],
        sys: FREE_SPACE,
      };
  }
}

function receiptFiles({ store, hubs }: StorageConfig): string[] {
  return [...hubs.keys()].flatMap((hub) =>
    [RECEIPT_FILE, RECEIPT_SIGNATURE_FILE].flatMap((name) => withBeside(`${store}/${hub}/${name}`))
  );
}

/** A file that is written beside and renamed. */
const withBeside = (path: string): string[] => [path, `${path}.tmp`];
