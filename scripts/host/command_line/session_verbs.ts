/**
 * The verbs that look into snapshots, as the command line runs them: `session`, `compare` and `browse`.
 *
 * @module
 */

import { BackupError } from "../../core/errors.ts";
import { cleanText, formatCount, formatCounted, localTime } from "../../core/format.ts";
import { patternOfPlace } from "../../core/globs.ts";
import type { SetName } from "../../core/names.ts";
import { lookPermissions, sessionPermissions } from "../../core/sandbox/permissions.ts";
import { compare } from "../../core/sessions/comparison.ts";
import type { Differing } from "../../core/sessions/session_rows.ts";
import { describeComparison, describeSessions } from "../../core/sessions/session_text.ts";
import { shellQuote } from "../../core/shell.ts";
import { makingDurably } from "../fs.ts";
import type { ChoiceJob } from "../restore/chosen_snapshot.ts";
import type { LookReport, SessionJob, SessionReport } from "../sessions/session_jobs.ts";
import { script } from "../steps/step.ts";
import { loggedSnapshot } from "./backup_verbs.ts";
import { browse } from "./browsing.ts";
import { absolutePath, errorText, type Verb, type VerbContext } from "./cli.ts";
import { runReadingStep } from "./reading.ts";
import { restoreStep } from "./restore_verbs.ts";
import { choiceOf, configOrDefaults, inScratch, realPath, requireConfig } from "./verb_options.ts";

/** Looks into snapshots. */
async function look(context: VerbContext, choice: ChoiceJob, which: readonly string[]): Promise<LookReport> {
  return await inScratch(
    context,
    { ...choice, which },
    (job) => runReadingStep(script("look"), job, lookPermissions(choice.config, job), context.terminal),
  );
}

/** `session`, `compare` and `browse`. */
export const SESSION_VERBS: Readonly<Record<string, Verb>> = {
  async session(context) {
    const { options, terminal, json } = context;
    if (options.action === "restore" && typeof options.id !== "string") {
      throw usage(
        "Cannot restore a session: say which, by its id or the start of it",
        "hapi-backup session restore 4f1c; `hapi-backup session list` shows them",
      );
    }
    if (options.action !== "restore" && typeof options.id === "string") {
      throw usage(
        `Cannot ${options.action} session ${cleanText(options.id)}: an id belongs to restore only`,
      );
    }
    if (options.action === "restore") return await restoreSession(context);
    const choice = await choiceOf(context, configOrDefaults(context));
    const { looks } = await look(context, choice, [String(options.snapshot)]);
    const { manifest, sessions } = looks[0]!;
    terminal.print(
      json
        ? JSON.stringify({ ok: true, snapshot: manifest.id, sessions })
        : `${manifest.id}, ${localTime(manifest.id)}: ${formatCounted(sessions.length, "session")}\n${
          describeSessions(sessions)
        }`,
    );
  },

  async compare(context) {
    const { options, terminal, json } = context;
    const choice = await choiceOf(context, configOrDefaults(context));
    const { looks } = await look(context, choice, [String(options.from), String(options.to)]);
    const comparison = compare(looks[0]!, looks[1]!);
    terminal.print(json ? JSON.stringify({ ok: true, ...comparison }) : describeComparison(comparison));
  },

  async browse(context) {
    const { terminal, json, around } = context;
    if (json || !Deno.stdin.isTerminal() || !Deno.stdout.isTerminal()) {
      throw new BackupError("Cannot browse: that needs a terminal", {
        kind: "usage",
        hint: "for a script: list, session list, compare, and restore --only, each with --json",
      });
    }
    const choice = await choiceOf(context, configOrDefaults(context));
    const { snapshots } = await look(context, choice, []);
    await browse({
      snapshots: snapshots.toReversed(),
      look: async (id) => (await look(context, choice, [id])).looks[0]!,
      async restore(id, place, folder) {
        const to = absolutePath(folder.replace(/^~(?=\/|$)/, around.home)).replace(/(?<=.)\/+$/, "");
        const only = [patternOfPlace(place)];
        const how = { inPlace: false, dryRun: false, json: false };
        await restoreStep(context, { ...choice, which: id, to, only, ...how });
        return `restored to ${cleanText(`${to}/${place}`, 200)}`;
      },
      tell(error) {
        if (!(error instanceof BackupError) || error.kind === "cancelled") throw error;
        terminal.error(errorText(error));
      },
    });
    // Ctrl-C and a signal end each question as Esc does.
    context.host.checkpoint();
  },
};

async function restoreSession(context: VerbContext): Promise<void> {
  const { options, host, terminal, json } = context;
  if (options.keep === true && options.replace === true) {
    throw usage("Cannot restore a session: --keep and --replace contradict each other");
  }
  const isExport = typeof options.export === "string";
  const differing: Differing = options.keep ? "keep" : options.replace ? "replace" : "refuse";
  if (isExport && differing !== "refuse") {
    throw usage("Cannot export a session: --keep and --replace belong to a restore into the hub's database");
  }
  // A snapshot is taken before the database is changed: only a configured hub can.
  const config = isExport ? configOrDefaults(context) : requireConfig(context);
  const choice = await choiceOf(context, config);
  const databases = (config.sets.get(choice.set as SetName)?.sources ?? []).flatMap(({ kind, path }) =>
    kind === "sqlite" ? [path] : []
  );
  const job: SessionJob = {
    ...choice,
    which: String(options.snapshot),
    session: String(options.id),
    target: !isExport
      ? { kind: "database", allowed: databases, differing }
      : options.export === "-"
      ? { kind: "stdout" }
      : { kind: "file", path: absolutePath(String(options.export)) },
  };
  const live = [...new Set(databases.flatMap((path) => [path, realPath(context)(path)]))];
  const run = () =>
    inScratch(context, job, (job) =>
      runReadingStep<SessionReport>(
        script("session"),
        job,
        sessionPermissions(config, job, live),
        terminal,
        { later: async () => (await loggedSnapshot(context, config, choice.set as SetName)).id },
      ));
  // The step sees the file and not its folder.
  const report = job.target.kind === "file"
    ? await makingDurably(host.fs, job.target.path, run)
    : await run();
  if (job.target.kind === "stdout") return;
  terminal.result(
    json ? JSON.stringify({ ok: true, ...report }) : describeReport(report, givenAgain(context, choice)),
  );
}

/** What a command must be given to open the same configuration, set and store: printed ones are to be pasted. */
interface GivenAgain {
  readonly here: string;
  readonly store: string;
}

function givenAgain({ options }: VerbContext, { keys }: ChoiceJob): GivenAgain {
  const words = (given: Readonly<Record<string, unknown>>) =>
    Object.entries(given).flatMap(([name, values]) =>
      [values ?? []].flat().map((value) => ` --${name} ${shellQuote(String(value))}`)
    ).join("");
  const set = options.set === "state" ? undefined : options.set;
  const identity = keys.identityText === undefined ? keys.identity : "FILE";
  return {
    here: words({ config: options.config, set, identity, signer: options.signer }),
    store: words({
      store: options.store,
      "hub-name": options.hubName,
      "ssh-key": options.sshKey,
      "known-hosts": options.knownHosts,
      port: options.port,
    }),
  };
}

function describeReport(
  { session, snapshot, rows, target, database, folders }: SessionReport,
  given: GivenAgain,
): string {
  const from = `session ${cleanText(session)} out of ${snapshot}, ${localTime(snapshot)}`;
  if (!database) {
    const counts = Object.entries(rows).map(([table, count]) =>
      `  ${cleanText(table)}: ${formatCount(count)}`
    );
    return [`exported ${from} to ${target}:`, ...counts].join("\n");
  }
  const { changes, before, place } = database;
  const lines = [...changes.parts, ...changes.needed].map(({ table, added, unchanged, replaced, kept }) => {
    const counts = { added, replaced, "there already": unchanged, "left as they are": kept };
    const said = Object.entries(counts).filter(([, count]) => count > 0)
      .map(([what, count]) => `${formatCount(count)} ${what}`);
    return `  ${cleanText(table)}: ${said.join(", ")}`;
  });
  const files = folders.map((folder) =>
    `  its files, if they are gone too: hapi-backup restore --in-place${given.here}${given.store} --snapshot ${snapshot} --only ${
      shellQuote(patternOfPlace(folder))
    }`
  );
  if (before === undefined) {
    return [`${from} is in ${target} already; nothing was changed:`, ...lines, ...files].join("\n");
  }
  return [
    `restored ${from} into ${target}:`,
    ...lines,
    ...files,
    `to undo it, with the hub stopped: hapi-backup restore --in-place${given.here} --snapshot ${before} --only ${
      shellQuote(patternOfPlace(place))
    }`,
  ].join("\n");
}

const usage = (message: string, hint = "hapi-backup session --help says more"): BackupError =>
  new BackupError(message, { kind: "usage", hint });
