/**
 * hapi-backup: one command line over the scripts, each run as a step in a worker with only its own permissions.
 *
 * `hapi-backup <verb>`: the verbs are listed in `scripts/core/command_line/commands.ts`, what each step may touch in
 * `scripts/core/sandbox/permissions.ts`. This file says which steps a verb is made of.
 *
 * @module
 */

import type { Shell } from "./scripts/core/command_line/commands.ts";
import { completions } from "./scripts/core/command_line/completions.ts";
import { manPage } from "./scripts/core/command_line/man_page.ts";
import { textOf } from "./scripts/core/command_line/option_flags.ts";
import {
  describeShip,
  describeSnapshot,
  describeVerify,
  type EncryptReport,
  suspectError,
  TOLD_LENGTH_MAX,
  type VerifyReport,
} from "./scripts/core/command_line/reports.ts";
import { type Config, configJsonSchema, type Surroundings } from "./scripts/core/config/config.ts";
import { setFolder, shipFolder } from "./scripts/core/config/state_paths.ts";
import { BackupError, ifPossible, isInterruption, outcome, reasonOf } from "./scripts/core/errors.ts";
import { cleanText, localTime } from "./scripts/core/format.ts";
import type { SetName } from "./scripts/core/names.ts";
import { nameOf, parentOf } from "./scripts/core/paths.ts";
import {
  checkPermissions,
  doctorPermissions,
  encryptPermissions,
  keysPermissions,
  listPermissions,
  prunePermissions,
  readableRoot,
  reportPermissions,
  restorePermissions,
  setupPermissions,
  shipPermissions,
  snapshotPermissions,
  statusPermissions,
  systemdPermissions,
  verifyPermissions,
} from "./scripts/core/sandbox/permissions.ts";
import { type ShipReport, unshippedError } from "./scripts/core/shipping/shipping.ts";
import { parseTrust } from "./scripts/core/snapshot/trust.ts";
import { untoldError } from "./scripts/core/status/notices.ts";
import { factsOf } from "./scripts/core/status/run_record.ts";
import { STORAGE_USER } from "./scripts/core/storage_host/authorize.ts";
import { STORAGE_CONFIG_FILE } from "./scripts/core/storage_host/storage_config.ts";
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
import { tell, type Teller } from "./scripts/host/command_line/telling.ts";
import { isOnTerminal, takesColor } from "./scripts/host/command_line/terminal.ts";
import {
  choiceOf,
  chosenSets,
  configOrDefaults,
  hubProgram,
  inScratch,
  keyOptions,
  realPath,
  requireConfig,
  storeOptions,
} from "./scripts/host/command_line/verb_options.ts";
import { lstatIfThere, makeFolderDurably, makingDurably } from "./scripts/host/fs.ts";
import type { SetupJob, SetupReport } from "./scripts/host/init/init_jobs.ts";
import { identityPlaces } from "./scripts/host/keys/identity_places.ts";
import { withLock } from "./scripts/host/lock.ts";
import { logged } from "./scripts/host/records/run_log.ts";
import { clearStaging, type Staged, type StagedChecks } from "./scripts/host/snapshot/staging.ts";
import { cancelSteps, runStep } from "./scripts/host/steps/step.ts";
import { closedParts } from "./scripts/host/systemd/reach.ts";
import type { KeysJob } from "./scripts/keys.ts";
import type { ListJob } from "./scripts/list.ts";
import type { RestoreJob } from "./scripts/restore.ts";
import type { StatusJob } from "./scripts/status.ts";
import type { SystemdJob } from "./scripts/systemd.ts";
import type { VerifyJob } from "./scripts/verify.ts";

const script = (name: string): string => import.meta.resolve(`./scripts/${name}.ts`);

const VERBS: Readonly<Record<string, Verb>> = {
  ...lazily(
    ["scrub", "retain", "watch", "pin", "storage"],
    async () => (await import("./scripts/host/command_line/storage_verbs.ts")).storageVerbs(script),
  ),
  ...lazily(
    ["session", "compare", "browse"],
    async () =>
      (await import("./scripts/host/command_line/session_verbs.ts")).sessionVerbs({
        script,
        takeSnapshot: async (context, config, set) => (await loggedSnapshot(context, config, set)).id,
        async restoreOnly(context, choice, what) {
          await restoreStep(context, { ...choice, ...what, inPlace: false, dryRun: false, json: false });
        },
      }),
  ),

  ...lazily(["init"], async () => ({
    init: (await import("./scripts/host/init/init_verb.ts")).initVerb({
      script,
      backup: async (context, config) => {
        const [first] = config.sets.keys();
        await backUp({ ...context, options: { ...context.options, wait: "0" } }, config, [first!]);
      },
      prove: async (context, config, keys) => {
        const [set] = config.sets.keys();
        const store = { scratch: `${config.stateFolder}/scratch` };
        await prove(context, { config, keys, store, set: set!, which: "latest" });
      },
      identity: (context) => keyOptions(context, configOrDefaults(context)),
    }),
  })),

  async backup(context) {
    // Before anything is done, which would be told as failed once for each set.
    numberOption(context.options, "wait");
    const config = await configOrSetup(context);
    await backUp(context, config, chosenSets(config, context));
  },

  async snapshot(context) {
    numberOption(context.options, "wait");
    const config = requireConfig(context);
    const { done: staged, failures } = await withEach(chosenSets(config, context), async (set) => {
      const result = await locked(context, config, set, async () => {
        const staged = await snapshotStep(context, config, set);
        try {
          await checkStep(context, config, set);
        } catch (error) {
          clearStaging(context.host.fs, setFolder(config.stateFolder, set));
          throw error;
        }
        return staged;
      });
      if (!context.json) context.terminal.result(`staged ${set} as of ${localTime(result.id)}`);
      return result;
    });
    endWith(context, [...failures, lackingError(staged)], { staged });
  },

  async encrypt(context) {
    numberOption(context.options, "wait");
    const config = requireConfig(context);
    const { done: snapshots, failures } = await withEach(chosenSets(config, context), async (set) => {
      const job = { config, options: encryptOptions(context, set), checksComeLater: false };
      const permissions = encryptPermissions(config, set, realPath(context));
      const run = () => runStep<EncryptReport>(script("encrypt"), job, permissions, context.terminal);
      const report = await locked(context, config, set, run);
      if (!context.json) context.terminal.result(describeSnapshot(report));
      return report;
    });
    endWith(context, [...failures, suspectError(snapshots)], { snapshots });
  },

  async ship(context) {
    const config = requireConfig(context);
    const sets = context.options.set === "all" ? undefined : chosenSets(config, context);
    // Told is what the log says, which has no runs of some sets.
    await using _telling = sets ? undefined : telling(context, config);
    const report = await shipAll(context, config, sets);
    const error = unshippedError(report);
    context.terminal.result(
      context.json ? JSON.stringify({ ...outcome(error), ship: report }) : describeShip(report),
    );
    if (error) throw error;
  },

  async verify(context) {
    const config = configOrDefaults(context);
    const { options } = context;
    const job: VerifyJob = {
      ...await choiceOf(context, config),
      which: String(options.snapshot),
      hubProgram: typeof options.hub === "string" ? hubProgram(context, options.hub) : undefined,
    };
    await prove(context, job);
  },

  async restore(context) {
    const { options } = context;
    const config = configOrDefaults(context);
    const to = fileOf(options.to);
    if ((to !== undefined) === (options.inPlace === true)) {
      throw new BackupError("Cannot restore: say where to, with either --to FOLDER or --in-place", {
        kind: "usage",
        hint: "hapi-backup restore --to ~/restored",
      });
    }
    const job: RestoreJob = {
      ...await choiceOf(context, config),
      which: String(options.snapshot),
      inPlace: options.inPlace === true,
      dryRun: options.dryRun === true,
      to,
      only: options.only as string[] | undefined,
      json: context.json,
    };
    const run = () => restoreStep(context, job);
    // In place, no snapshot may be taken of a half-restored home.
    const text = job.inPlace && !job.dryRun
      ? await withLock(
        context.host,
        `${setFolder(config.stateFolder, job.set)}/lock`,
        numberOption(options, "wait"),
        run,
      )
      : await run();
    context.terminal.result(text);
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
    const report = await tell(teller(context), config, isTest ? "test" : "send");
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
          hint: "hapi-backup systemd --system --to ./units",
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
      context.terminal.print(JSON.stringify(configJsonSchema(), null, 2));
      return;
    }
    const config = configOrDefaults(context);
    const isThere = lstatIfThere(context.host.fs, context.configFile) !== undefined;
    if (config.recipients.length > 0) {
      const { createEncrypter } = await import("./scripts/host/keys/age.ts");
      await createEncrypter(config.recipients);
    }
    requireSigners(config, context.configFile);
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
function requireSigners({ signers }: Config, file: string): void {
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

/**
 * Takes a snapshot of each set and ships them, and what waited: one that fails costs neither the others nor the
 * shipping. @throws {BackupError} If one failed, is suspect, or is not off this machine.
 */
async function backUp(context: VerbContext, config: Config, sets: readonly SetName[]): Promise<void> {
  const ships = context.options.ship !== false;
  // Where there is no network, `ship` tells what is logged here.
  await using _telling = ships ? telling(context, config) : undefined;
  const { done: snapshots, failures } = await withEach(sets, async (set) => {
    const report = await loggedSnapshot(context, config, set);
    if (!context.json) context.terminal.result(describeSnapshot(report));
    return report;
  });
  const isBusy = ({ kind }: BackupError) => kind === "busy";
  // Where another run takes the snapshot it also ships, and is not to find that locked.
  const leavesShipping = snapshots.length === 0 && failures.some(isBusy);
  const shipping = await withEach(
    ships && !leavesShipping ? ["all"] : [],
    () => shipAll(context, config),
  );
  const [ship] = shipping.done;
  if (ship && !context.json) context.terminal.result(describeShip(ship));
  const failed = [...failures, ...shipping.failures];
  // That another run holds a lock mends itself, and must not hide what does not.
  const errors = [
    ...failed.filter((failure) => !isBusy(failure)),
    suspectError(snapshots),
    ...failed.filter(isBusy),
    ship && unshippedError(ship),
  ];
  endWith(context, errors, { snapshots, ship });
}

/** A database that need not be there, and could not be copied, ends the run with an error, after all else was staged. */
function lackingError(staged: readonly Staged[]): BackupError | undefined {
  const lacking = staged.filter(({ unreadable }) => unreadable.length > 0);
  if (lacking.length === 0) return undefined;
  const set = lacking.length === 1 ? lacking[0]!.set : "all";
  return new BackupError(
    lacking.flatMap(({ unreadable }) => unreadable.map(({ reason }) => reason)).join("; "),
    {
      kind: "source",
      hint:
        `all else is staged: \`hapi-backup encrypt --set ${set}\` stores it, as what does not count as good`,
    },
  );
}

/** Does something with each of them: one that fails costs the others nothing. @throws If it is interrupted. */
async function withEach<Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<{ readonly done: Result[]; readonly failures: BackupError[] }> {
  const done: Result[] = [];
  const failures: BackupError[] = [];
  for (const item of items) {
    try {
      done.push(await work(item));
    } catch (error) {
      if (!(error instanceof BackupError) || isInterruption(error)) throw error;
      failures.push(error);
    }
  }
  return { done, failures };
}

/** Tells what came of it, and of every error. @throws {BackupError} The first, which says how it ended. */
function endWith(
  { terminal, json }: VerbContext,
  errors: readonly (BackupError | undefined)[],
  result: Readonly<Record<string, unknown>>,
): void {
  const [error, ...others] = errors.filter((error) => error !== undefined);
  for (const { message, hint } of others) {
    terminal.warn(hint === undefined ? message : `${message}\n         ${hint}`);
  }
  if (json) {
    const furtherErrors = others.map(({ message, kind, hint }) => ({ message, kind, hint }));
    terminal.result(JSON.stringify({ ...outcome(error), furtherErrors, ...result }));
  }
  if (error) throw error;
}

/** Restores in a step, and tells what was. */
function restoreStep({ host, terminal }: VerbContext, job: RestoreJob): Promise<string> {
  const permissions = restorePermissions(job.config, job);
  const run = () => runStep<string>(script("restore"), job, permissions, terminal);
  // The step sees no further up than the folder itself.
  return job.to === undefined ? run() : makingDurably(host.fs, job.to, run);
}

/** Restores into scratch and compares. @throws {BackupError} (integrity) If that does not prove it. */
async function prove(context: VerbContext, job: VerifyJob): Promise<void> {
  const { config } = job;
  makeStateFolder(context, config);
  const report = await inScratch(context, job, (job) => {
    const permissions = verifyPermissions(config, job, realPath(context));
    return runStep<VerifyReport>(script("verify"), job, permissions, context.terminal);
  });
  const failed = report.checks.filter(({ ok }) => !ok).map(({ name }) => name);
  const error = report.ok ? undefined : new BackupError(
    `Cannot vouch for snapshot ${report.snapshot}: ${cleanText(failed.join(", "), TOLD_LENGTH_MAX)}`,
    {
      kind: "integrity",
      hint: "verify another copy with --store, or an older snapshot with --snapshot",
    },
  );
  context.terminal.result(
    context.json ? JSON.stringify({ ...outcome(error), ...report }) : describeVerify(report),
  );
  if (error) throw error;
}

/** For steps that log to a file in it, and may write to that file only. */
function makeStateFolder({ host }: VerbContext, { stateFolder }: Config): void {
  host.fs.mkdir(stateFolder, { recursive: true, mode: 0o700 });
}

/** What the sources name, and where that leads behind all links. */
function realSources(context: VerbContext, config: Config): Record<string, string> {
  const roots = [...config.sets.values()].flatMap(({ sources }) => sources.map(readableRoot));
  return Object.fromEntries(roots.map((root) => [root, realPath(context)(root)]));
}

/** What the units need of the environment, so that the configuration's defaults are there what they are here. */
function unitEnvironment({ env }: Surroundings): Record<string, string> {
  const entries = Object.entries(env).flatMap(([name, value]) =>
    value === undefined || name === "HAPI_BACKUP_CONFIG" ? [] : [[name, value] as const]
  );
  return Object.fromEntries(entries);
}

/** Snapshot, then encrypt while the images are checked on the other core. Nothing stays staged, however it ends. */
async function snapshotAndEncrypt(
  context: VerbContext,
  config: Config,
  set: SetName,
): Promise<EncryptReport> {
  const staged = await snapshotStep(context, config, set);
  const checks = staged.databases.some(({ copy }) => copy)
    ? checkStep(context, config, set)
    : Promise.resolve({});
  const job = { config, options: encryptOptions(context, set), checksComeLater: true };
  const permissions = encryptPermissions(config, set, realPath(context));
  try {
    return await runStep<EncryptReport>(script("encrypt"), job, permissions, context.terminal, checks);
  } catch (error) {
    // The next run copies the databases anew: no second plaintext copy is to wait for it.
    await checks.catch(() => {});
    clearStaging(context.host.fs, setFolder(config.stateFolder, set));
    throw error;
  }
}

/** {@linkcode snapshotAndEncrypt}; where the disk is full once more, if old snapshots could be let go of. */
async function makingRoom(context: VerbContext, config: Config, set: SetName): Promise<EncryptReport> {
  try {
    return await snapshotAndEncrypt(context, config, set);
  } catch (error) {
    if (!(error instanceof BackupError) || error.kind !== "disk") throw error;
    const permissions = prunePermissions(config, set);
    const hasRoom = await runStep<boolean>(script("prune"), { config, set }, permissions, context.terminal)
      .catch((problem) => {
        context.terminal.warn(`old snapshots stay in the local store: ${reasonOf(problem)}`);
        return false;
      });
    if (!hasRoom) throw error;
    return await snapshotAndEncrypt(context, config, set);
  }
}

function checkStep({ terminal }: VerbContext, config: Config, set: SetName): Promise<StagedChecks> {
  return runStep<StagedChecks>(script("check"), { config, set }, checkPermissions(config, set), terminal);
}

/** {@linkcode makingRoom} under the lock of the set, and a line in the log of runs however it ends. */
function loggedSnapshot(context: VerbContext, config: Config, set: SetName): Promise<EncryptReport> {
  return logged(
    context.host,
    config,
    { verb: "backup", set },
    () => locked(context, config, set, () => makingRoom(context, config, set)),
    factsOf,
  );
}

const teller = ({ host, terminal }: VerbContext): Teller => ({ host, terminal, script: script("notify") });

/** Tells the notifiers of a run: that it starts, and at the end of the block how things stand. */
function telling(context: VerbContext, config: Config): AsyncDisposable {
  const started = tell(teller(context), config, "start");
  return {
    async [Symbol.asyncDispose]() {
      await started;
      await tell(teller(context), config, "end");
    },
  };
}

async function snapshotStep(context: VerbContext, config: Config, set: SetName): Promise<Staged> {
  const options = { set, full: context.options.full === true };
  const permissions = snapshotPermissions(config, set, realPath(context));
  return await runStep<Staged>(script("snapshot"), { config, options }, permissions, context.terminal);
}

/** @param sets Which; all that the local store holds where left out. */
async function shipAll(
  context: VerbContext,
  config: Config,
  sets?: readonly SetName[],
): Promise<ShipReport> {
  const lock = `${shipFolder(config.stateFolder)}/lock`;
  const run = () =>
    runStep<ShipReport>(
      script("ship"),
      { config, settings: { sets, sourceDevices: sourceDevices(context, config) } },
      shipPermissions(config),
      context.terminal,
    );
  const work = () => withLock(context.host, lock, numberOption(context.options, "wait"), run);
  // How shipping stands is told from the log: a run of some sets says nothing of the others.
  if (sets) return await work();
  return await logged(
    context.host,
    config,
    { verb: "ship" },
    work,
    (report) => ({
      bytes: report.destinations.reduce((sum, { bytes }) => sum + bytes, 0),
      error: unshippedError(report),
    }),
  );
}

/**
 * The disks that the sources are on: a destination there is not off this machine. A source that cannot be looked at keeps
 * nothing from being shipped: the snapshot says so.
 */
function sourceDevices(context: VerbContext, config: Config): number[] {
  const devices = Object.values(realSources(context, config))
    .flatMap((path) => ifPossible(() => context.host.fs.lstat(path))?.device ?? []);
  return [...new Set(devices)];
}

function encryptOptions({ options }: VerbContext, set: SetName) {
  return { set, full: options.full === true, accept: options.accept === true };
}

async function locked<T>(
  context: VerbContext,
  config: Config,
  set: SetName,
  work: () => Promise<T>,
): Promise<T> {
  // The steps see no further up than the hub's folder.
  makeFolderDurably(context.host.fs, `${config.store}/${config.hub}`, 0o750);
  const lock = `${setFolder(config.stateFolder, set)}/lock`;
  return await withLock(context.host, lock, numberOption(context.options, "wait"), work);
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
      `         MOVE ${made.identityFile} OFF THIS MACHINE, to two safe places, and remove "identityFile" from the\n` +
      "         configuration. Without that file no backup can be opened; with it here, whoever takes this machine can.\n" +
      "         Nothing is off this machine yet: `hapi-backup init --storage user@host:` adds a storage host.",
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
