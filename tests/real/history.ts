/**
 * Seven weeks of a hub's backups, made by the real steps with a clock that is moved: good days and bad ones.
 *
 * @module
 */

import { MAIN_SET, type SetName, type SnapshotId } from "../../scripts/core/names.ts";
import { unshippedError } from "../../scripts/core/shipping/shipping.ts";
import { factsOf } from "../../scripts/core/status/run_record.ts";
import { HOUR_MS } from "../../scripts/core/time.ts";
import type { Host } from "../../scripts/host/host.ts";
import { appendDrill } from "../../scripts/host/records/drill_log.ts";
import { appendProof } from "../../scripts/host/records/proof_log.ts";
import { logged } from "../../scripts/host/records/run_log.ts";
import { isSealed, readSet } from "../../scripts/host/store/store.ts";
import { ship } from "../../scripts/ship.ts";
import { verify } from "../../scripts/verify.ts";
import { type Home, insertMessages, makeHome } from "./home.ts";

const VOICE = "voice" as SetName;
/** 06:00 in Berlin, where the clocks go back on 25 October. */
const FIRST = "2026-10-06T04:00:00Z";
const DAYS = 50;

/** A home with a past. */
export interface PastHome extends Disposable {
  readonly home: Home;
  /** Ships once more: all disks are there again. */
  ship(): Promise<void>;
}

/** Makes it. It ends on the evening of 24 November 2026, with a snapshot that could not be shipped to one of two disks. */
export async function makePastHome(): Promise<PastHome> {
  const home = await makeHome();
  const disks = `${home.dir}/disks`;
  for (const name of ["nas", "attic"]) Deno.mkdirSync(`${disks}/${name}`, { recursive: true });
  home.configure({
    destinations: ["nas", "attic"].map((name) => ({ kind: "folder", name, path: `${disks}/${name}` })),
  });
  home.write("voice-test-output/one.wav", new Uint8Array(40_000));
  const past = new Past(home, disks);
  for (let day = 0; day < DAYS; day++) await past.day(day);
  return {
    home,
    ship: () => past.ship(),
    [Symbol.dispose]: () => home[Symbol.dispose](),
  };
}

class Past {
  readonly host: Host;

  constructor(private readonly home: Home, private readonly disks: string) {
    const { fs } = home.host;
    this.host = {
      ...home.host,
      fs: {
        ...fs,
        // As if the disks were mounted there: only what is on another device is off the machine.
        stat(path) {
          const found = fs.stat(path);
          return path.startsWith(disks) ? { ...found, device: found.device + 1 } : found;
        },
      },
    };
  }

  async day(day: number): Promise<void> {
    const { home } = this;
    const isWinter = day >= 19;
    const morning = Date.parse(FIRST) + (day * 24 + (isWinter ? 1 : 0)) * HOUR_MS;
    const weekday = day % 7;
    // The machine was off.
    if (day === 16 || day === 17) return;
    for (const evening of [0, 1]) {
      home.now = new Date(morning + evening * 12 * HOUR_MS);
      const busy = weekday > 3 ? 3 : 14;
      home.sql(insertMessages(busy + (day * 7 + evening * 5) % 11));
      if (day % 3 === 0 && evening === 0) home.sql(`INSERT INTO sessions VALUES ('s${day}', 'more')`);
      // The database was on a disk that was not there, for a day and later for a morning.
      const isGone = day === 9 || (day === 41 && evening === 0);
      if (isGone) Deno.renameSync(home.database, `${home.database}.away`);
      // A clean-up that went too far, taken back the next day.
      if (day === 30 && evening === 1) {
        Deno.copyFileSync(home.database, `${home.dir}/kept.db`);
        home.sql("DELETE FROM messages WHERE id % 10 > 0");
      }
      if (day === 31 && evening === 0) Deno.copyFileSync(`${home.dir}/kept.db`, home.database);
      await this.backup(MAIN_SET);
      if (weekday === 6 && evening === 0) {
        home.write(`voice-test-output/${day}.wav`, crypto.getRandomValues(new Uint8Array(30_000)));
        await this.backup(VOICE);
      }
      if (isGone) Deno.renameSync(`${home.database}.away`, home.database);
      // The attic's disk was unplugged: once for a day, and at the very end.
      const isUnplugged = day === 24 || (day === DAYS - 1 && evening === 1);
      if (isUnplugged) Deno.renameSync(`${this.disks}/attic`, `${this.disks}/gone`);
      await this.ship();
      if (isUnplugged) Deno.renameSync(`${this.disks}/gone`, `${this.disks}/attic`);
    }
    if (weekday === 5) await this.drill(day);
    if (day === 3 || day === 45) {
      appendProof(home.host.fs, home.stateFolder, {
        at: home.now.toISOString(),
        store: day === 3 ? home.store : "nas",
        recipients: [home.recipient],
        ok: true,
        chains: 3,
        failed: [],
      });
    }
  }

  private async backup(set: SetName): Promise<void> {
    const { home, host } = this;
    const { now } = home;
    home.now = new Date(now.getTime() - 12 * HOUR_MS);
    try {
      await logged(host, home.config(), { verb: "backup", set }, () => home.backup({ set, host }), factsOf);
    } catch { /* The log has it. */ }
    home.now = now;
  }

  async ship(): Promise<void> {
    const { host } = this;
    const config = this.home.config();
    await logged(
      host,
      config,
      { verb: "ship" },
      () => ship(host, config),
      (report) => {
        const error = unshippedError(report);
        return error ? { error } : {};
      },
    );
  }

  /** Proves the newest snapshot; the first drill found its scratch full. */
  private async drill(day: number): Promise<void> {
    const { home } = this;
    const opening = await home.opening();
    const sealed = readSet(home.host.fs, opening.set).filter(isSealed);
    const id: SnapshotId = sealed.at(-1)!.id;
    const scratch = Deno.makeTempDirSync();
    try {
      const checks = await verify(opening, sealed, id, scratch);
      const ok = checks.every((check) => check.ok) && day > 7;
      appendDrill(home.host.fs, home.stateFolder, {
        at: new Date(home.now.getTime() + HOUR_MS).toISOString(),
        store: home.store,
        set: MAIN_SET,
        snapshot: id,
        ok,
        seconds: 2.4 + day / 10,
      });
    } finally {
      Deno.removeSync(scratch, { recursive: true });
    }
  }
}
