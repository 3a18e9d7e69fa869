/**
 * What the verbs of the storage host share: their options, parsed.
 *
 * @module
 */

import { flagNamed, textOf } from "../../core/command_line/option_flags.ts";
import { BackupError } from "../../core/errors.ts";
import { type HubName, parseHubName, parseSetName, type SetName } from "../../core/names.ts";
import type { StorageConfig } from "../../core/storage_host/storage_config.ts";

/** A step's job on the storage host: options by their long names, as text. */
export interface StorageJob {
  readonly config: StorageConfig;
  readonly options: Readonly<Record<string, unknown>>;
}

/** Which part of the store a verb is about; all of it where undefined. */
export interface Scope {
  readonly hub?: HubName | undefined;
  readonly set?: SetName | undefined;
}

/** Reads `--hub` and `--set`. */
export function scopeOf(options: StorageJob["options"]): Scope {
  const hub = textOf(options.hub);
  const set = textOf(options.set);
  return {
    hub: hub === undefined ? undefined : parseHubName(hub),
    set: set === undefined || set === "all" ? undefined : parseSetName(set),
  };
}

/** An option's text. @throws {BackupError} (usage) If it was not given. */
export function requiredText(verb: "pin" | "storage", options: StorageJob["options"], name: string): string {
  const text = textOf(options[name]);
  if (text !== undefined && text.trim() !== "") return text;
  throw new BackupError(`Cannot run ${verb}: ${flagNamed(name)} is missing`, {
    kind: "usage",
    hint: `\`hapi-backup ${verb} --help\` says what it is, and shows an example`,
  });
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  s: 1,
  m: 60,
  h: 3600,
  d: 86_400,
};

/** Reads `500M` or `2h`: a number with one of the units. Undefined if the option was not given. */
export function amountOf(
  options: StorageJob["options"],
  name: string,
  units: readonly string[],
): number | undefined {
  const text = textOf(options[name]);
  if (text === undefined) return undefined;
  const match = /^(\d+(?:\.\d+)?)([A-Za-z]?)$/.exec(text);
  const unit = match?.[2] ?? "?";
  if (match && (unit === "" || units.includes(unit))) return Number(match[1]) * UNITS[unit]!;
  throw new BackupError(`Cannot use ${flagNamed(name)} ${JSON.stringify(text)}: it is not an amount`, {
    kind: "usage",
    hint: `give a number, or one with ${units.join(", ")} at its end`,
  });
}
