/**
 * The verbs that back up, as the command line runs them: `backup`, and the steps of it by themselves.
 *
 * @module
 */

import {
  describeShip,
  describeSnapshot,
  type EncryptReport,
  suspectError,
} from "../../core/command_line/reports.ts";
import type { Config } from "../../core/config/config.ts";
import { memoryFile, setFolder, shipFolder } from "../../core/config/state_paths.ts";
import { BackupError, ifPossible, isInterruption, outcome, reasonOf } from "../../core/errors.ts";
import { localTime } from "../../core/format.ts";
import type { SetName } from "../../core/names.ts";
import {
  encryptPermissions,
  prunePermissions,
  shipPermissions,
  snapshotPermissions,
} from "../../core/sandbox/permissions.ts";
import { type ShipReport, unshippedError } from "../../core/shipping/shipping.ts";
import { factsOf } from "../../core/status/run_record.ts";
import { makeFolderDurably } from "../fs.ts";
import { collectGarbage } from "../garbage.ts";
import { withLock } from "../lock.ts";
import { logged } from "../records/run_log.ts";
import { clearingIfFailed, type Staged, type StagedChecks } from "../snapshot/staging.ts";
import { runStep, script } from "../steps/step.ts";
import { numberOption, type Verb, type VerbContext } from "./cli.ts";
import { telling } from "./telling.ts";
import { chosenSets, realPath, requireConfig, sourceDevices } from "./verb_options.ts";

/** `snapshot`, `encrypt` and `ship`. */
export const BACKUP_VERBS: Readonly<Record<string, Verb>> = {
  async snapshot(context) {
    numberOption(context.options, "wait");
    const config = requireConfig(context);
    const { done: staged, failures } = await withEach(context, chosenSets(config, context), async (set) => {
      const folder = setFolder(config.stateFolder, set);
      const run = async () => {
        const { staged, checks } = snapshotStep(context, config, set);
        return (await Promise.all([staged, checks]))[0];
      };
      const work = () => clearingIfFailed(context.host, folder, run);
      const result = await locked(context, config, set, work);
      if (!context.json) context.terminal.result(`staged ${set} as of ${localTime(result.id)}`);
      return result;
    });
    endWith(context, ordered(failures, lackingError(staged)), { staged });
  },

  async encrypt(context) {
    numberOption(context.options, "wait");
    const config = requireConfig(context);
    const { done: snapshots, failures } = await withEach(
      context,
      chosenSets(config, context),
      async (set) => {
        const job = { config, options: encryptOptions(context, set), checksComeLater: false };
        const permissions = encryptPermissions(config, set, realPath(context));
        const run = () => runStep<EncryptReport>(script("encrypt"), job, permissions, context.terminal);
        const report = await locked(context, config, set, run);
        if (!context.json) context.terminal.result(describeSnapshot(report));
        return report;
      },
    );
    endWith(context, ordered(failures, suspectError(snapshots)), { snapshots });
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
};

/**
 * Takes a snapshot of each set and ships them, and what waited: one that fails costs neither the others nor the
 * shipping. @throws {BackupError} If one failed, is suspect, or is not off this machine.
 */
export async function backUp(context: VerbContext, config: Config, sets: readonly SetName[]): Promise<void> {
  const ships = context.options.noShip !== true;
  // Where there is no network, `ship` tells what is logged here.
  await using _telling = ships ? telling(context, config) : undefined;
  const { done: snapshots, failures } = await withEach(context, sets, async (set) => {
    const report = await loggedSnapshot(context, config, set);
    if (!context.json) context.terminal.result(describeSnapshot(report));
    return report;
  });
  // Where another run takes the snapshot it also ships, and is not to find that locked.
  const leavesShipping = snapshots.length === 0 && failures.some(isBusy);
  const shipping = await withEach(
    context,
    ships && !leavesShipping ? ["all"] : [],
    () => shipAll(context, config),
    failures,
  );
  const [ship] = shipping.done;
  if (ship && !context.json) context.terminal.result(describeShip(ship));
  const failed = [...failures, ...shipping.failures];
  const errors = [...ordered(failed, suspectError(snapshots)), ship && unshippedError(ship)];
  endWith(context, errors, { snapshots, ship });
}

const isBusy = ({ kind }: BackupError): boolean => kind === "busy";

/** The first says how a run ended: that another holds a lock mends itself, and must not hide what does not. */
const ordered = (failures: readonly BackupError[], doubt: BackupError | undefined) => [
  ...failures.filter((failure) => !isBusy(failure)),
  doubt,
  ...failures.filter(isBusy),
];

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

/**
 * Does something with each of them: one that fails costs the others nothing.
 *
 * @param earlier What failed before all of them.
 * @throws {BackupError} (cancelled) If it is interrupted; whatever failed before is told then.
 */
async function withEach<Item, Result>(
  context: VerbContext,
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
  earlier: readonly BackupError[] = [],
): Promise<{ readonly done: Result[]; readonly failures: BackupError[] }> {
  const done: Result[] = [];
  const failures: BackupError[] = [];
  for (const item of items) {
    try {
      done.push(await work(item));
    } catch (error) {
      if (!(error instanceof BackupError) || isInterruption(error)) {
        warnOf(context, [...earlier, ...failures]);
        throw error;
      }
      failures.push(error);
    }
  }
  return { done, failures };
}

/** Tells errors that do not end the run. */
function warnOf({ terminal }: VerbContext, errors: readonly BackupError[]): void {
  for (const { message, hint } of errors) {
    terminal.warn(hint === undefined ? message : `${message}\n         ${hint}`);
  }
}

/** Tells what came of it, and of every error. @throws {BackupError} The first, which says how it ended. */
function endWith(
  context: VerbContext,
  errors: readonly (BackupError | undefined)[],
  result: Readonly<Record<string, unknown>>,
): void {
  const [error, ...others] = errors.filter((error) => error !== undefined);
  warnOf(context, others);
  const { terminal, json } = context;
  if (json) {
    const furtherErrors = others.map(({ message, kind, hint }) => ({ message, kind, hint }));
    terminal.result(JSON.stringify({ ...outcome(error), furtherErrors, ...result }));
  }
  if (error) throw error;
}

/** Snapshot, then encrypt while the images are still checked. Nothing stays staged, however it ends. */
function snapshotAndEncrypt(context: VerbContext, config: Config, set: SetName): Promise<EncryptReport> {
  return clearingIfFailed(context.host, setFolder(config.stateFolder, set), async () => {
    const isIdle = seemsIdle(context, config, set);
    const { staged, checks } = snapshotStep(context, config, set);
    try {
      // Loading the next step would slow a copy down, and the check after it.
      if (!isIdle) await staged;
      const job = staged.then(({ databases }) => {
        // This thread only waits from here on, and what loading it left behind would stay to the end.
        if (databases.some(({ copy }) => copy)) collectGarbage();
        return { config, options: encryptOptions(context, set), checksComeLater: true };
      });
      const permissions = encryptPermissions(config, set, realPath(context));
      const talk = { later: checks };
      return await runStep<EncryptReport>(script("encrypt"), job, permissions, context.terminal, talk);
    } finally {
      // Where it failed, these may still be under way, and write there.
      await checks.catch(() => {});
    }
  });
}

/** Whether nobody seems to have written to a database since the last snapshot: a guess, which only saves time. */
function seemsIdle({ host: { fs } }: VerbContext, config: Config, set: SetName): boolean {
  const changedMs = (path: string) => ifPossible(() => fs.stat(path).mtimeMs) ?? 0;
  const last = changedMs(memoryFile(setFolder(config.stateFolder, set)));
  return config.sets.get(set)!.sources.every(({ kind, path }) =>
    kind !== "sqlite" || Math.max(changedMs(path), changedMs(`${path}-wal`)) < last
  );
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

/** {@linkcode makingRoom} under the lock of the set, and a line in the log of runs however it ends. */
export function loggedSnapshot(context: VerbContext, config: Config, set: SetName): Promise<EncryptReport> {
  return logged(
    context.host,
    config,
    { verb: "backup", set },
    () => locked(context, config, set, () => makingRoom(context, config, set)),
    factsOf,
  );
}

/** Starts the step: what it staged is known before what SQLite says of that. */
function snapshotStep(
  context: VerbContext,
  config: Config,
  set: SetName,
): { readonly staged: Promise<Staged>; readonly checks: Promise<StagedChecks> } {
  const options = { set, full: context.options.full === true };
  const permissions = snapshotPermissions(config, set, realPath(context));
  const { promise: staged, resolve, reject } = Promise.withResolvers<Staged>();
  const checks = runStep<StagedChecks, Staged>(
    script("snapshot"),
    { config, options },
    permissions,
    context.terminal,
    { told: resolve },
  );
  checks.catch(reject);
  return { staged, checks };
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
