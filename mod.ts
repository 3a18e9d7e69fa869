/**
 * hapi-backup: one command line over the scripts, each run as a step in a worker with only its own permissions.
 *
 * `hapi-backup <verb>`: the verbs are listed in `scripts/core/commands.ts`, what each step may touch in
 * `scripts/core/permissions.ts`. This file says which steps a verb is made of.
 *
 * @module
 */

import {
  type Config,
  configJsonSchema,
  parseConfig,
  setNamed,
  type Surroundings,
} from "./scripts/core/config.ts";
import { BackupError } from "./scripts/core/errors.ts";
import { formatBytes, formatCount, formatTime } from "./scripts/core/format.ts";
import { type SetName, timeOfSnapshotId } from "./scripts/core/names.ts";
import {
  checkPermissions,
  encryptPermissions,
  shipPermissions,
  snapshotPermissions,
} from "./scripts/core/permissions.ts";
import { GATE_HINT } from "./scripts/core/gate.ts";
import type { EncryptReport } from "./scripts/encrypt.ts";
import {
  absolutePath,
  main,
  numberOption,
  readConfig,
  type Verb,
  type VerbContext,
} from "./scripts/host/cli.ts";
import { parentOf } from "./scripts/host/fs.ts";
import { withLock } from "./scripts/host/lock.ts";
import { setFolder } from "./scripts/host/memory.ts";
import type { Staged, StagedChecks } from "./scripts/host/staging.ts";
import { shipFolder } from "./scripts/host/ship_records.ts";
import { runStep, startStep } from "./scripts/host/step.ts";
import type { SetupReport } from "./scripts/setup.ts";
import type { ShipReport } from "./scripts/ship.ts";

const script = (name: string): string => import.meta.resolve(`./scripts/${name}.ts`);

const VERBS: Readonly<Record<string, Verb>> = {
  async backup(context) {
    const config = await configOrSetup(context);
    const reports: EncryptReport[] = [];
    for (const set of chosenSets(config, context)) {
      reports.push(await locked(context, config, set, () => snapshotAndEncrypt(context, config, set)));
      if (!context.json) context.terminal.print(describeSnapshot(reports.at(-1)!));
    }
    const shipped = context.options.ship === false ? undefined : await shipAll(context, config);
    if (context.json) context.terminal.print(JSON.stringify({ ok: true, snapshots: reports, ship: shipped }));
    refuseSuspect(reports);
  },

  async snapshot(context) {
    const config = requireConfig(context);
    for (const set of chosenSets(config, context)) {
      const staged = await locked(context, config, set, async () => {
        const result = await snapshotStep(context, config, set);
        await runStep<StagedChecks>(
          script("check"),
          { config, set },
          checkPermissions(config, set),
          context.terminal,
        );
        return result;
      });
      context.terminal.print(
        context.json ? JSON.stringify({ ok: true, staged }) : `staged ${set} as of ${localTime(staged.id)}`,
      );
    }
  },

  async encrypt(context) {
    const config = requireConfig(context);
    const reports: EncryptReport[] = [];
    for (const set of chosenSets(config, context)) {
      const job = { config, options: encryptOptions(context, set), checksComeLater: false };
      const permissions = encryptPermissions(config, set, realPath(context));
      const run = () => runStep<EncryptReport>(script("encrypt"), job, permissions, context.terminal);
      reports.push(await locked(context, config, set, run));
      if (!context.json) context.terminal.print(describeSnapshot(reports.at(-1)!));
    }
    if (context.json) context.terminal.print(JSON.stringify({ ok: true, snapshots: reports }));
    refuseSuspect(reports);
  },

  async ship(context) {
    const report = await shipAll(context, requireConfig(context));
    if (context.json) context.terminal.print(JSON.stringify({ ok: true, ship: report }));
  },

  config(context) {
    if (context.options.action === "schema") {
      context.terminal.print(JSON.stringify(configJsonSchema(), null, 2));
      return Promise.resolve();
    }
    const config = readConfig(context) ?? parseConfig("{}", "(defaults)", context.around);
    const shown = { ...config, sets: Object.fromEntries(config.sets) };
    context.terminal.print(
      context.json
        ? JSON.stringify({ ok: true, config: shown })
        : `${context.configFile} is in order:\n${JSON.stringify(shown, null, 2)}`,
    );
    return Promise.resolve();
  },
};

/** Snapshot, then encrypt while the images are checked on the other core. */
async function snapshotAndEncrypt(
  context: VerbContext,
  config: Config,
  set: SetName,
): Promise<EncryptReport> {
  const { terminal } = context;
  const staged = await snapshotStep(context, config, set);
  const job = { config, options: encryptOptions(context, set), checksComeLater: true };
  const encrypting = startStep<EncryptReport>(
    script("encrypt"),
    job,
    encryptPermissions(config, set, realPath(context)),
    terminal,
  );
  if (staged.databases.some(({ copy }) => copy)) {
    const checking = runStep<StagedChecks>(
      script("check"),
      { config, set },
      checkPermissions(config, set),
      terminal,
    );
    const [checks] = await Promise.all([checking, Promise.race([checking, encrypting.result])]);
    encrypting.send(checks);
  } else {
    encrypting.send({});
  }
  return await encrypting.result;
}

async function snapshotStep(context: VerbContext, config: Config, set: SetName): Promise<Staged> {
  const options = { set, full: context.options.full === true };
  const permissions = snapshotPermissions(config, set, realPath(context));
  return await runStep<Staged>(script("snapshot"), { config, options }, permissions, context.terminal);
}

async function shipAll(context: VerbContext, config: Config): Promise<ShipReport> {
  const lock = `${shipFolder(config.stateFolder)}/lock`;
  return await withLock(
    context.host,
    lock,
    numberOption(context.options, "wait"),
    () =>
      runStep<ShipReport>(
        script("ship"),
        { config, options: { json: context.json } },
        shipPermissions(config),
        context.terminal,
      ),
  );
}

function encryptOptions({ options }: VerbContext, set: SetName) {
  return { set, full: options.full === true, accept: options.accept === true };
}

/** A snapshot that is stored but suspect ends the run with an error, after all else was done. */
function refuseSuspect(reports: readonly EncryptReport[]): void {
  const suspect = reports.filter(({ suspicions }) => suspicions.length > 0);
  if (suspect.length === 0) return;
  const why = suspect.flatMap(({ id, suspicions }) =>
    suspicions.map(({ source, detail }) => `${id}: ${source}: ${detail}`)
  );
  throw new BackupError(`Cannot count this snapshot as good: ${why.join("; ")}`, {
    kind: "source",
    hint: GATE_HINT,
  });
}

function describeSnapshot(report: EncryptReport): string {
  const rows = Object.entries(report.rows).map(([source, tables]) => {
    const { sessions, messages, ...others } = tables;
    const total = Object.values(tables).reduce((sum, count) => sum + count, 0);
    const named = sessions === undefined ? [] : [`${formatCount(sessions)} sessions`];
    if (sessions !== undefined && messages !== undefined) named.push(`${formatCount(messages)} messages`);
    const left = named.length > 0 ? Object.keys(others).length : Object.keys(tables).length;
    return `${source}: ${
      [...named, `${formatCount(total)} rows in all`, `${left}${named.length > 0 ? " more" : ""} tables`]
        .join(", ")
    }`;
  });
  const why = report.reason ? ` (${report.reason})` : "";
  return [
    `${report.set} ${report.id}  ${localTime(report.id)}  ${report.kind}${why}  ${
      formatBytes(report.bytes)
    } stored`,
    ...rows.map((line) => `  ${line}`),
    `  ${formatCount(report.files)} files`,
    ...report.suspicions.map(({ source, detail }) => `  SUSPECT ${source}: ${detail}`),
  ].join("\n");
}

const localTime = (id: EncryptReport["id"]): string => formatTime(timeOfSnapshotId(id));

/** The sets that `--set` names. */
function chosenSets(config: Config, { options }: VerbContext): SetName[] {
  const name = String(options.set);
  return name === "all" ? [...config.sets.keys()] : [setNamed(config, name).name];
}

async function locked<T>(
  context: VerbContext,
  config: Config,
  set: SetName,
  work: () => Promise<T>,
): Promise<T> {
  const lock = `${setFolder(config.stateFolder, set)}/lock`;
  return await withLock(context.host, lock, numberOption(context.options, "wait"), work);
}

/** Resolves links where there is something; a source that is missing is for its step to report. */
const realPath = ({ host }: VerbContext) => (path: string): string => {
  try {
    return host.fs.realPath(path);
  } catch {
    return path;
  }
};

function requireConfig(context: VerbContext): Config {
  const config = readConfig(context);
  if (config) return config;
  throw new BackupError(`Cannot ${context.verb}: there is no configuration at ${context.configFile}`, {
    kind: "config",
    hint: "`hapi-backup backup` makes one; --config names another",
  });
}

/** The configuration; where there is none, a new one with new keys, and a loud word about them. */
async function configOrSetup(context: VerbContext): Promise<Config> {
  const config = readConfig(context);
  if (config) return config;
  const { around, terminal, configFile } = context;
  const folder = parentOf(absolutePath(configFile));
  const permissions = { read: [folder], write: [folder] };
  const made = await runStep<SetupReport>(
    script("setup"),
    around satisfies Surroundings,
    permissions,
    terminal,
  );
  terminal.warn(
    `this is the first run: ${made.configFile} and new keys were made.\n` +
      `         MOVE ${made.identityFile} OFF THIS MACHINE, to two safe places, and remove "identityFile" from the\n` +
      "         configuration. Without that file no backup can be opened; with it here, whoever takes this machine can.\n" +
      "         Nothing is off this machine yet: add a destination to the configuration.",
  );
  return readConfig(context)!;
}

if (import.meta.main) Deno.exit(await main(Deno.args, VERBS));
