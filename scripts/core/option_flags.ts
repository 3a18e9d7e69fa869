/**
 * What an option's flags say: `--to <folder>` is named `--to` and takes a folder.
 *
 * @module
 */

import type { OptionSpec } from "./commands.ts";

/** An option, taken apart. */
export interface Flag {
  /** With its dashes: `--to`. */
  readonly name: string;
  /** What `--help` calls its value, such as `folder`; undefined where it takes none. */
  readonly value: string | undefined;
}

/** Takes an option's flags apart. */
export function flagOf({ flags }: Pick<OptionSpec, "flags">): Flag {
  const [, name, value] = /^(--[a-z-]+)(?: <([^>]+)>)?$/.exec(flags)!;
  return { name: name!, value };
}
