/**
 * The storage host's verbs as the command line runs them: each is one script, in a worker of its own.
 *
 * @module
 */

import { COMMANDS } from "../../core/command_line/commands.ts";
import { flagNamed, flagOf } from "../../core/command_line/option_flags.ts";
import { BackupError } from "../../core/errors.ts";
import { STORAGE_VERBS, storagePermissions } from "../../core/sandbox/storage_permissions.ts";
import {
  parseStorageConfig,
  STORAGE_CONFIG_HINT,
  type StorageConfig,
} from "../../core/storage_host/storage_config.ts";
import { STORAGE_CONFIG_FILE } from "../../core/storage_host/storage_names.ts";
import { runStep, script } from "../steps/step.ts";
import type { StorageJob } from "../storage_host/storage_job.ts";
import { fileOf, readConfigText, type Verb, type VerbContext } from "./cli.ts";

/** All of them. */
export const STORAGE_HOST_VERBS: Readonly<Record<string, Verb>> = Object.fromEntries(
  STORAGE_VERBS.map((verb) => [verb, async (context) => {
    // The schema is asked for where there is no configuration yet.
    const isSchema = verb === "storage" && context.options.action === "schema";
    const config = isSchema
      ? parseStorageConfig('{ "store": "/nowhere", "hubs": {} }', "(none)")
      : readStorageConfig(context);
    const options = withAbsolutePaths(verb, context.options);
    const permissions = storagePermissions(verb, config, options);
    const job: StorageJob = { config, options };
    await runStep(script(verb), job, permissions, context.terminal);
  }]),
);

/** @throws {BackupError} (config) If there is none, or it cannot be used. */
function readStorageConfig({ host, options, configFile }: VerbContext): StorageConfig {
  const path = options.config === undefined ? STORAGE_CONFIG_FILE : configFile;
  const text = readConfigText(host.fs, path);
  if (text !== undefined) return parseStorageConfig(text, path);
  throw new BackupError(`Cannot read configuration ${path}: there is no such file`, {
    kind: "config",
    hint: STORAGE_CONFIG_HINT,
  });
}

/** Options that name a file, by what `--help` calls their value. */
function withAbsolutePaths(
  verb: string,
  options: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const flags = COMMANDS.find((command) => command.verb === verb)!.options.map(flagOf);
  const isFile = (name: string) =>
    flags.some((flag) => flag.value === "file" && flag.name === flagNamed(name));
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [name, isFile(name) ? fileOf(value) : value]),
  );
}
