/**
 * hapi-backup: one command line over the scripts, each run as a step in a worker with only its own permissions.
 *
 * `hapi-backup <verb>`: the verbs are listed in `scripts/core/command_line/commands.ts`, what each step may touch in
 * `scripts/core/sandbox/permissions.ts`. Here are verbs of one step or none, and what a first run does; the others are
 * loaded when one of them is called.
 *
 * @module
 */

import type { Shell } from "./scripts/core/command_line/commands.ts";
import { completions } from "./scripts/core/command_line/completions.ts";
import { manPage } from "./scripts/core/command_line/man_page.ts";
import { textOf } from "./scripts/core/command_line/option_flags.ts";
import { type Config, configSchema, type Surroundings } from "./scripts/core/config/config.ts";
import { BackupError, outcome, reasonOf } from "./scripts/core/errors.ts";
import { nameOf, parentOf } from "./scripts/core/paths.ts";
import {
  doctorPermissions,
  keysPermissions,
  listPermissions,
  reportPermissions,
  setupPermissions,
  statusPermissions,
  systemdPermissions,
} from "./scripts/core/sandbox/permissions.ts";
import { untoldError } from "./scripts/core/status/notices.ts";
import { STORAGE_CONFIG_FILE, STORAGE_USER } from "./scripts/core/storage_host/storage_names.ts";
import type { DoctorJob } from "./scripts/doctor.ts";
import {
  absolutePath,
  fileOf,
  main,
  numberOption,
  readConfig,
  type Verb,
  type VerbContext,
} from "./scripts/host/command_line/cli.ts";
import { tell } from "./scripts/host/command_line/telling.ts";
import { isOnTerminal, takesColor } from "./scripts/host/command_line/terminal.ts";
import {
  chosenSets,
  configOrDefaults,
  keyOptions,
  makeStateFolder,
  realPath,
  realSources,
  requireConfig,
  sourceDevices,
  storeOptions,
} from "./scripts/host/command_line/verb_options.ts";
import { lstatIfThere } from "./scripts/host/fs.ts";
import type { SetupJob, SetupReport } from "./scripts/host/init/init_jobs.ts";
import { identityPlaces } from "./scripts/host/keys/identity_places.ts";
import { cancelSteps, runStep, script } from "./scripts/host/steps/step.ts";
import { closedParts } from "./scripts/host/systemd/reach.ts";
import type { KeysJob } from "./scripts/keys.ts";
import type { ListJob } from "./scripts/list.ts";
import type { StatusJob } from "./scripts/status.ts";
import type { SystemdJob } from "./scripts/systemd.ts";

const VERBS: Readonly<Record<string, Verb>> = {
  ...lazily(
    ["scrub", "retain", "watch", "pin", "storage"],
    async () => (await import("./scripts/host/command_line/storage_verbs.ts")).STORAGE_HOST_VERBS,
  ),
  ...lazily(
    ["snapshot", "encrypt", "ship"],
    async () => (await import("./scripts/host/command_line/backup_verbs.ts")).BACKUP_VERBS,
  ),
  ...lazily(
    ["verify", "restore"],
    async () => (await import("./scripts/host/command_line/restore_verbs.ts")).RESTORE_VERBS,
  ),
  ...lazily(
    ["session", "compare", "browse"],
    async () => (await import("./scripts/host/command_line/session_verbs.ts")).SESSION_VERBS,
  ),
  ...lazily(["init"], async () => await import("./scripts/host/init/init_verb.ts")),

  async backup(context) {
    // Before anything is done, which would be told as failed once for each set.
    numberOption(context.options, "wait");
    const config = await configOrSetup(context);
    const { backUp } = await import("./scripts/host/command_line/backup_verbs.ts");
    await backUp(context, config, chosenSets(config, context));
  },

  async list(context) {
    const config = configOrDefaults(context);
    const store = storeOptions(context, config);
    const job: ListJob = { config, store, set: String(context.options.set), json: context.json };
    await runStep(script("list"), job, listPermissions(config, store), context.terminal);
  },

  async status(context) {
    const config = requireConfig(context);
    const job: StatusJob = { config, json: context.json, isColored: takesColor() };
    await runStep(script("status"), job, statusPermissions(config), context.terminal);
  },

  async report(context) {
    const config = requireConfig(context);
    const { html } = context.options;
    if (typeof html !== "string") {
      throw new BackupError("Cannot report: say where to, with --html FILE", {
        kind: "usage",
        hint: "hapi-backup report --html ~/backups.html",
      });
    }
    const page = await runStep<string>(
      script("report"),
      { config },
      reportPermissions(config),
      context.terminal,
    );
    if (html === "-") return printText(context, page);
    const file = absolutePath(html);
    const { writeReport } = await import("./scripts/host/command_line/report_file.ts");
    writeReport(context.host.fs, file, page);
    context.terminal.result(context.json ? JSON.stringify({ ok: true, file }) : `wrote ${file}`);
  },

  async doctor(context) {
    const config = requireConfig(context);
    const candidates = identityPlaces(context.host, context.around);
    const options = {
      candidates,
      sourceDevices: sourceDevices(context, config),
      offline: context.options.offline === true,
    };
    const job: DoctorJob = { config, options, json: context.json };
    const permissions = doctorPermissions(config, candidates, realPath(context));
    await runStep(script("doctor"), job, permissions, context.terminal);
  },

  async keys(context) {
    const { options, json, around } = context;
    const action = String(options.action) as KeysJob["action"];
    const recipient = textOf(options.recipient);
    const isEdit = action === "add" || action === "drop";
    if (isEdit !== (recipient !== undefined)) {
      throw new BackupError(
        `Cannot ${action}: ${isEdit ? "say which recipient" : "a recipient belongs to add and drop only"}`,
        { kind: "usage", hint: isEdit ? `hapi-backup keys ${action} age1...` : `hapi-backup keys ${action}` },
      );
    }
    const config = isEdit ? requireConfig(context) : configOrDefaults(context);
    const store = storeOptions(context, config);
    const configFile = realPath(context)(absolutePath(context.configFile));
    const job: KeysJob = isEdit
      ? { action, config, configFile, around, store, recipient: recipient!, json }
      : action === "prove"
      ? { action, config, store, keys: await keyOptions(context, config), json }
      : { action: "list", config, store, json };
    if (action === "prove") makeStateFolder(context, config);
    const permissions = keysPermissions(config, job, parentOf(configFile));
    await runStep(script("keys"), job, permissions, context.terminal);
  },

  async notify(context) {
    const config = requireConfig(context);
    const isTest = context.options.action === "test";
    if (isTest && config.notify.length === 0) {
      throw new BackupError("Cannot send a test: no notifier is configured", {
        kind: "config",
        hint: 'add one under "notify", such as { "kind": "ntfy", "url": "https://ntfy.sh/TOPIC" }',
      });
    }
    const report = await tell(context, config, isTest ? "test" : "send");
    const error = untoldError(report, context.options.quiet !== true && !context.json);
    const sent = report.sent.map(({ name, event }) => `${name}: ${event} sent`);
    const none = config.notify.length === 0 ? "no notifier is configured" : "nothing is due";
    if (context.json) context.terminal.result(JSON.stringify({ ...outcome(error), ...report }));
    else if (!error || sent.length > 0) context.terminal.result(sent.join("\n") || none);
    if (error) throw error;
  },

  async systemd(context) {
    const { options, around } = context;
    // The storage host's units need another user's rights: no other manager can run them.
    const isSystem = options.system === true || options.storage === true && options.user !== true;
    if (isSystem === (options.user === true)) {
      throw new BackupError(
        "Cannot make units: say whose manager runs them, with either --system or --user",
        {
          kind: "usage",
          hint: "hapi-backup systemd --system --to ~/units",
        },
      );
    }
    const many = (name: string) => (options[name] ?? []) as string[];
    const isStorage = options.storage === true;
    const configFile = isStorage && textOf(options.config) === undefined
      ? STORAGE_CONFIG_FILE
      : context.configFile;
    const config = isStorage ? undefined : requireConfig(context);
    const entry = import.meta.filename!;
    const called = {
      manager: options.user === true ? "user" as const : "system" as const,
      user: textOf(options.runAs) ?? (isStorage ? STORAGE_USER : nameOf(around.home)),
      program: fileOf(options.program) ?? { deno: Deno.execPath(), entry },
    };
    const job: SystemdJob = {
      config,
      configFile: absolutePath(configFile),
      ...called,
      isRoot: Deno.uid() === 0,
      closed: closedParts(context.host.fs, called),
      onFailure: many("onFailure"),
      before: many("before"),
      calendars: many("calendar"),
      json: context.json,
      environment: unitEnvironment(around),
      realPaths: config ? realSources(context, config) : {},
      drillIdentity: fileOf(options.drillIdentity),
      drillStore: textOf(options.drillStore),
      prometheus: fileOf(options.prometheus),
      to: fileOf(options.to),
    };
    await runStep(script("systemd"), job, systemdPermissions(job), context.terminal);
  },

  async config(context) {
    if (context.options.action === "schema") {
      const { jsonSchemaOf } = await import("./scripts/core/json_schema.ts");
      context.terminal.print(JSON.stringify(jsonSchemaOf(configSchema), null, 2));
      return;
    }
    const config = configOrDefaults(context);
    const isThere = lstatIfThere(context.host.fs, context.configFile) !== undefined;
    if (config.recipients.length > 0) {
      const { createEncrypter } = await import("./scripts/host/keys/age.ts");
      await createEncrypter(config.recipients);
    }
    await requireSigners(config, context.configFile);
    const shown = { ...config, changedAt: undefined, sets: Object.fromEntries(config.sets) };
    context.terminal.print(
      context.json
        ? JSON.stringify({ ok: true, config: shown })
        : `${context.configFile} ${isThere ? "is in order" : "is not there; these are the defaults"}:\n${
          JSON.stringify(shown, null, 2)
        }`,
    );
  },

  completions(context) {
    printText(context, completions(context.options.shell as Shell));
  },

  man(context) {
    printText(context, manPage());
  },
};

/** @throws {BackupError} (config) If those who verify and restore could not read them. */
async function requireSigners({ signers }: Config, file: string): Promise<void> {
  const { parseTrust } = await import("./scripts/core/snapshot/trust.ts");
  try {
    parseTrust(signers);
  } catch (error) {
    throw new BackupError(`Cannot use "signers" in ${file}: ${reasonOf(error)}`, {
      kind: "config",
      hint: "each is a line as in the .pub file of a signing key: ssh-ed25519 AAAA…",
    });
  }
}

/** Verbs whose modules are loaded when one of them is called: all others start sooner, and in less memory. */
function lazily(names: readonly string[], load: () => Promise<Record<string, Verb>>): Record<string, Verb> {
  const calling = (name: string): Verb => async (context) => await (await load())[name]!(context);
  return Object.fromEntries(names.map((name) => [name, calling(name)]));
}

/** Prints what is a text by itself, such as a page. */
function printText({ terminal, json }: VerbContext, text: string): void {
  terminal.print(json ? JSON.stringify({ ok: true, text }) : text);
}

/** What the units need of the environment, so that the configuration's defaults are there what they are here. */
function unitEnvironment({ env }: Surroundings): Record<string, string> {
  const entries = Object.entries(env).flatMap(([name, value]) =>
    value === undefined || name === "HAPI_BACKUP_CONFIG" ? [] : [[name, value] as const]
  );
  return Object.fromEntries(entries);
}

/** The configuration; where there is none, a new one with new keys, and a loud word about them. */
async function configOrSetup(context: VerbContext): Promise<Config> {
  const config = readConfig(context);
  if (config) return config;
  const { around, terminal, configFile } = context;
  const job: SetupJob = { action: "first-run", around };
  const permissions = setupPermissions(parentOf(absolutePath(configFile)), [], undefined);
  const made = await runStep<SetupReport>(script("setup"), job, permissions, terminal);
  terminal.warn(
    `this is the first run: ${made.configFile} and new keys were made.\n` +
      `         MOVE ${made.identityFile} OFF THIS MACHINE,\n` +
      '         to two safe places, and remove "identityFile" from the configuration.\n' +
      "         Without that file no backup can be opened; with it here, whoever takes\n" +
      "         this machine can. Nothing is off this machine yet:\n" +
      "         `hapi-backup init --storage user@host:` adds a storage host.",
  );
  return readConfig(context)!;
}

if (import.meta.main) {
  // To the very end: what a run has done is not to look as if a signal had kept it from that.
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, cancelSteps);
  // Deno would end at once, and under nohup(1) too, which leaves it no terminal: there it is to go on.
  Deno.addSignalListener("SIGHUP", isOnTerminal() ? cancelSteps : () => {});
  // Heard, it ends nothing: to write more than `ulimit -f` allows is then an error, which is told.
  Deno.addSignalListener("SIGXFSZ", () => {});
  Deno.exit(await main(Deno.args, VERBS));
}
