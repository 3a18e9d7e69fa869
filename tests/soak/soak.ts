/**
 * A hub lives, is backed up, shipped, scrubbed, thinned out and restored, all at once, for as long as one likes.
 *
 * The seed decides what is done in which order; how the pieces fall together is the machine's.
 *
 * @module
 */

import { startCuttingProxy } from "../real/cutting_proxy.ts";
import { makeHome } from "../real/home.ts";
import { makeRandom } from "../real/random.ts";
import { startSshd } from "../real/sshd.ts";
import { Backups, type OneAtATime, type Place } from "./backups.ts";
import { Life } from "./life.ts";
import { Oracle } from "./oracle.ts";
import { KEEP_GOOD_MIN, Storage } from "./storage.ts";
import { Tally } from "./tally.ts";

export interface SoakOptions {
  /** How long the hub lives; the last restores come on top. */
  readonly minutes: number;
  readonly seed: number;
  readonly say: (line: string) => void;
}

const MINUTE_MS = 60_000;
const MINUTE_IN_DAYS = 1 / 24 / 60;

/** Runs it, in temporary folders. They stay when something was wrong. */
export async function soak({ minutes, seed, say }: SoakOptions): Promise<Tally> {
  const home = await makeHome();
  const far = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "far-" }));
  const tally = new Tally(say);
  const started = performance.now();
  const elapsed = () => ((performance.now() - started) / MINUTE_MS).toFixed(1);
  const ticking = setInterval(() => say(`minute ${elapsed()}: ${tally.describe()}`), MINUTE_MS);
  try {
    await using sshd = await startSshd({ dir: `${far}/store/home` });
    await using link = startCuttingProxy(sshd.port);
    const knownHostsFile = `${far}/known_hosts`;
    Deno.writeTextFileSync(
      knownHostsFile,
      Deno.readTextFileSync(sshd.knownHostsFile).replace(`:${sshd.port}`, `:${link.port}`),
    );
    const target = `${sshd.user}@${sshd.host}:`;
    home.configure({
      localKeepDays: 3 * MINUTE_IN_DAYS,
      destinations: [
        {
          ...{ kind: "rsync", name: "storage", target, port: link.port, attempts: 2, timeoutSeconds: 30 },
          ...{ identityFile: sshd.writeKeyFile, knownHostsFile },
        },
        { kind: "folder", name: "disk", path: `${home.dir}/disk` },
      ],
      sets: {
        state: {
          fullEveryDays: 5 * MINUTE_IN_DAYS,
          chainLengthMax: 12,
          sources: [
            { kind: "sqlite", path: "~/.hapi/hapi.db", required: true },
            { kind: "file", path: "~/.hapi/hub.env", secret: true },
            { kind: "glob", path: "~/.hapi/*.json", secret: true },
            { kind: "folder", path: "~/.hapi/scratchlist-attachments" },
          ],
        },
      },
    });
    const storageConfig = `${far}/storage.json`;
    Deno.writeTextFileSync(
      storageConfig,
      JSON.stringify({
        store: `${far}/store`,
        stateFolder: `${far}/state`,
        retention: {
          ...{ keepWithinDays: 2 * MINUTE_IN_DAYS, keepGoodMin: KEEP_GOOD_MIN },
          ...{ keepDaily: 1, keepWeekly: 0, keepMonthly: 0 },
        },
        hubs: { home: { signers: [home.signer], snapshotsPerDayMax: 100_000, bytesPerDayMax: 2 ** 50 } },
      }),
    );
    const reading = ["--ssh-key", sshd.readKeyFile, "--known-hosts", sshd.knownHostsFile];
    const places: Place[] = [
      { name: "the local store", stored: home.stored, options: [] },
      {
        name: "the storage host",
        stored: `${far}/store/home/state`,
        options: ["--store", target, "--port", String(sshd.port), ...reading],
      },
      {
        name: "the other disk",
        stored: `${home.dir}/disk/home/state`,
        options: ["--store", `${home.dir}/disk`],
      },
    ];
    Deno.mkdirSync(`${home.dir}/disk`);
    // The hub makes its own.
    Deno.removeSync(`${home.home}/.hapi`, { recursive: true });

    const oracle = new Oracle();
    const undisturbed = oneAtATime();
    const backups = new Backups(
      home,
      places,
      link,
      oracle,
      makeRandom(seed, "backups"),
      tally,
      undisturbed,
      oneAtATime(),
    );
    const life = new Life(home, oracle, makeRandom(seed, "life"), tally, () => backups.recover());
    const storage = new Storage(home, storageConfig, makeRandom(seed, "storage"), tally, undisturbed);
    await life.begin();
    const end = performance.now() + minutes * MINUTE_MS;
    const isOver = () => performance.now() >= end;
    await Promise.all([life.live(isOver), backups.run(isOver), storage.run(isOver)]);
    await life.end();
    const now = { began: oracle.moment(), ended: oracle.moment() };
    // What the hub itself lost, no backup can hold.
    for (const wrong of oracle.judgeDatabase(home.database, now)) tally.violation("the hub itself", wrong);
    await backups.finish();
    await storage.look();
    say(`after ${elapsed()} minutes: ${tally.describe()}`);
  } catch (error) {
    tally.violation("the soak itself", error instanceof Error ? error.stack ?? error.message : String(error));
  } finally {
    clearInterval(ticking);
  }
  if (tally.violations.length === 0) {
    home[Symbol.dispose]();
    Deno.removeSync(far, { recursive: true });
  } else {
    say(`to look into: ${home.dir} and ${far}`);
  }
  return tally;
}

function oneAtATime(): OneAtATime {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const next = last.then(work);
    last = next.catch(() => {});
    return next;
  };
}
