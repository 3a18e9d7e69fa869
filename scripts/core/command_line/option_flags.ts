/**
 * What an option's flags say, and what it was given: `--to <folder>` is named `--to` and takes a folder.
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

/** What help says of an option. */
export function meaningOf({ text, many }: Pick<OptionSpec, "text" | "many">): string {
  return many ? `${text}; may be given several times` : text;
}

/** `dryRun`: the key that the option `--dry-run` has once it is parsed. */
export function keyOf(option: Pick<OptionSpec, "flags">): string {
  return flagOf(option).name.slice(2).replace(/-[a-z]/g, (dashed) => dashed[1]!.toUpperCase());
}

/** `--dry-run`: how the option with this key is written. */
export function flagNamed(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** An option's text; undefined if it was not given. */
export function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
