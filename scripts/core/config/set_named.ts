/**
 * Finds a set in a configuration. Apart from `config.ts`, so that a step need not load what parses configurations.
 *
 * @module
 */

import { BackupError } from "../errors.ts";
import type { SetName } from "../names.ts";
import type { Config, SetConfig } from "./config.ts";

/** The set with this name. @throws {BackupError} (usage) Naming those that exist. */
export function setNamed(config: Config, name: string): { readonly name: SetName; readonly set: SetConfig } {
  const set = config.sets.get(name as SetName);
  if (set) return { name: name as SetName, set };
  throw new BackupError(`Cannot find set ${JSON.stringify(name)}: it is not in the configuration`, {
    kind: "usage",
    hint: `sets there: ${[...config.sets.keys()].join(", ")}; or "all"`,
  });
}
