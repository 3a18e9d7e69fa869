/**
 * How Deno is to be called for each verb, from `nix/verbs.json`: the Nix wrappers read the same table.
 *
 * @module
 */

import table from "../../../nix/verbs.json" with { type: "json" };

/** Deno's permission flags for a verb: what its main program and its steps together need. */
export function permissionFlags(verb: string): string[] {
  const flags = (table.verbs as Readonly<Record<string, readonly string[]>>)[verb];
  if (!flags) throw new RangeError(`Cannot tell the permissions of ${verb}: nix/verbs.json does not list it`);
  return [...table.always, `--allow-env=${table.env.join(",")}`, ...flags];
}

/**
 * The arguments of Deno that run a verb where it is installed: without a network, and with nothing to write.
 *
 * @param entry The path of `mod.ts`.
 */
export function denoArguments(verb: string, entry: string): string[] {
  return ["run", ...table.installed, ...permissionFlags(verb), entry, verb];
}
