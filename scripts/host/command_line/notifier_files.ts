/**
 * A notifier's address and token, out of the files that the configuration names.
 *
 * @module
 */

import type { HttpNotifier } from "../../core/config/config.ts";
import { tokenFileOf } from "../../core/config/named_paths.ts";
import { BackupError } from "../../core/errors.ts";
import { parseAddress } from "../../core/status/notices.ts";
import { readTextIfThere } from "../fs.ts";
import type { Fs } from "../host.ts";

/** Where a notifier's messages go. @throws {BackupError} (config) If its file holds no address. */
export function addressOf(fs: Fs, { name, url, urlFile }: HttpNotifier): string {
  if (url !== undefined) return url;
  const text = readTextIfThere(fs, urlFile!);
  if (text !== undefined) return parseAddress(text, name, urlFile!);
  throw new BackupError(`Cannot notify ${name}: its urlFile ${urlFile} is not there`, {
    kind: "config",
    hint: "write the address into that file, on one line, mode 0600",
  });
}

/**
 * What lets us send to a notifier; undefined where it asks for nothing.
 *
 * @throws {BackupError} (key) If its file holds no token, or one that no header can: else it would be said that the
 * server is not there.
 */
export function tokenOf(fs: Fs, notifier: HttpNotifier): string | undefined {
  const file = tokenFileOf(notifier);
  if (file === undefined) return undefined;
  const fail = (state: string, hint: string): never => {
    throw new BackupError(`Cannot notify ${notifier.name}: ${file} ${state}`, { kind: "key", hint });
  };
  const token = readTextIfThere(fs, file)?.trim();
  if (!token) {
    return fail(
      `is ${token === undefined ? "not there" : "empty"}`,
      "write the token into that file, mode 0600",
    );
  }
  if (/^[\x20-\x7e]+$/.test(token)) return token;
  return fail("does not hold one token", "write the token alone into that file, on one line");
}
