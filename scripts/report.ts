/**
 * The report: how the backups of this hub went, as one page to look at.
 *
 * Needs no key and writes nothing: the page is the step's answer.
 *
 * @module
 */

import type { Config } from "./core/config/config.ts";
import { ifPossible } from "./core/errors.ts";
import { calendarOf, eventsOfRuns, eventsOfSnapshots } from "./core/report/calendar.ts";
import { historyOf } from "./core/report/history.ts";
import type { ReportData, ReportDestination, ReportSet } from "./core/report/report_data.ts";
import { reportPage } from "./core/report/report_page.ts";
import { type Seal, sealedBytes } from "./core/snapshot/seal.ts";
import { PROGRAM } from "./core/version.ts";
import { type Day, firstOfMonth, makeZone, type Zone } from "./core/zone.ts";
import type { Host } from "./host/host.ts";
import { isDrillOf, readDrills } from "./host/records/drill_log.ts";
import { readProofs } from "./host/records/proof_log.ts";
import { readRuns } from "./host/records/run_log.ts";
import { readSealsBySet, type SetStatus, status } from "./host/status/hub_status.ts";
import { readView } from "./host/status/hub_view.ts";
import { serveStep } from "./host/steps/step.ts";

/** Months before this one that calendars show. */
const MONTHS_BACK = 5;

/** Makes the page. @param timeZone Whose days and times it shows; that of this machine where left out. */
export function report(host: Host, config: Config, timeZone?: string): string {
  return reportPage(readReport(host, config, timeZone === undefined ? ownZone() : makeZone(timeZone)));
}

/** The zone of this machine. `TZ` may be empty or name none that there is: times are then UTC, as with all else. */
function ownZone(): Zone {
  const { timeZone } = new Intl.DateTimeFormat().resolvedOptions() as { timeZone?: string };
  return ifPossible(() => makeZone(timeZone ?? "UTC")) ?? makeZone("UTC");
}

function readReport(host: Host, config: Config, zone: Zone): ReportData {
  const { fs } = host;
  const at = host.now();
  const seals = readSealsBySet(host, config);
  const sets = status(host, config, seals);
  const proofs = readProofs(fs, config.stateFolder) ?? [];
  const nameOfStore = (store: string) => store === config.store ? "the local store" : store;
  const shipping = eventsOfRuns(readRuns(host, config, { verb: "ship" }));
  return {
    hub: config.hub,
    at,
    zone,
    program: PROGRAM,
    problems: readView(host, config, seals, sets).problems,
    sets: sets.map((set) => readSet(host, config, set, seals.get(set.set)!, zone)),
    destinations: config.destinations.map(({ name, kind }) => ({
      name,
      kind,
      offBox: sets[0]?.destinations.find((destination) => destination.name === name)?.offBox ?? true,
      sets: heldBy(name, sets),
    })),
    shipping: calendarOf(shipping, Infinity, at, zone, earliestOf(at, zone)),
    drills: readDrills(fs, config.stateFolder).filter((drill) => isDrillOf(config.hub, drill)).map((
      { at, set, snapshot, store, ok, seconds },
    ) => ({
      time: new Date(at),
      set,
      snapshot,
      from: nameOfStore(store),
      ok,
      seconds,
    })),
    proofs: proofs.map(({ at, store, ok, chains, failed, snapshot }) => ({
      time: new Date(at),
      of: nameOfStore(store),
      ok,
      chains,
      failed: failed.length,
      isDrill: snapshot !== undefined,
    })),
    proofMaxAgeDays: config.proofMaxAgeDays,
    freeBytes: fs.freeBytes(`${config.store}/${config.hub}`),
  };
}

function readSet(
  host: Host,
  config: Config,
  { set, newest, stale, maxAgeHours }: SetStatus,
  seals: readonly Seal[],
  zone: Zone,
): ReportSet {
  const runs = readRuns(host, config, { verb: "backup", set });
  const at = host.now();
  const moments = historyOf(seals, runs, at);
  const bytesOf = (isFull: boolean) =>
    seals.filter(({ kind }) => (kind === "full") === isFull).reduce(
      (sum, seal) => sum + sealedBytes(seal),
      0,
    );
  return {
    name: set,
    newest,
    stale,
    maxAgeHours,
    local: { snapshots: seals.length, fullBytes: bytesOf(true), otherBytes: bytesOf(false) },
    moments,
    days: calendarOf(eventsOfSnapshots(moments, runs), maxAgeHours, at, zone, earliestOf(at, zone)),
  };
}

const earliestOf = (at: Date, zone: Zone): Day => firstOfMonth(zone.dayOf(at), MONTHS_BACK);

/** What a destination holds of the sets of which anything was taken. */
function heldBy(name: string, sets: readonly SetStatus[]): ReportDestination["sets"] {
  return sets.filter(({ snapshots }) => snapshots > 0).flatMap(({ set, destinations }) =>
    destinations.filter((destination) => destination.name === name).map(({ newest, waiting, receipt }) => ({
      set,
      newest,
      waiting: waiting.length,
      receipt: receipt && {
        time: receipt.time,
        verified: receipt.set.newestVerified?.id,
        problems: receipt.set.problems,
      },
    }))
  );
}

serveStep<{ config: Config }>(import.meta, ({ config }, { host }) => report(host, config));
