/**
 * Files, folders and programs that a configuration names: what may be touched, and what is looked after.
 *
 * @module
 */

import { isWild, literalName } from "../paths.ts";
import type { Destination, HttpNotifier, Notifier, Source } from "./config.ts";

/** The path that a source's files lie under: of a pattern, the folders before its first wildcard. */
export function readableRoot(source: Source): string {
  if (source.kind !== "glob") return source.path;
  const names = source.path.split("/");
  const wild = names.findIndex(isWild);
  return names.slice(0, wild < 0 ? names.length : wild).map(literalName).join("/") || "/";
}

/** The folder that a destination is, if it is one. */
export const folderOf = (destination: Destination): string[] =>
  destination.kind === "folder" ? [destination.path] : [];

/** Files that a destination is reached with. */
export const accessFiles = (destination: Destination): string[] => [
  ...secretFiles(destination),
  ...destination.kind === "rsync" ? [destination.knownHostsFile] : [],
];

/** Those of them that nobody else may read. */
export function secretFiles(destination: Destination): string[] {
  switch (destination.kind) {
    case "rsync":
      return [
        destination.identityFile,
        ...destination.readIdentityFile ? [destination.readIdentityFile] : [],
      ];
    case "rclone":
      return destination.configFile ? [destination.configFile] : [];
    case "folder":
      return [];
  }
}

/** Files that hold a notifier's address and token. */
export function notifierFiles(notifier: Notifier): string[] {
  if (notifier.kind === "command") return [];
  return [notifier.urlFile, tokenFileOf(notifier)].filter((path) => path !== undefined);
}

/** The file that holds a notifier's token, if it takes one. */
export const tokenFileOf = (notifier: HttpNotifier): string | undefined =>
  "tokenFile" in notifier ? notifier.tokenFile : undefined;

/** The program that a notifier starts, if it does. */
export const programOf = (notifier: Notifier): string[] =>
  notifier.kind === "command" ? [notifier.command[0]!] : [];
