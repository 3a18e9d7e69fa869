/**
 * Backups at random moments by the real command line, over a link that breaks, some killed on the way; and each
 * snapshot restored, from any place that has it, and held against what the hub had acknowledged.
 *
 * @module
 */

import type { CuttingProxy } from "../real/cutting_proxy.ts";
import { filesBelow } from "../real/files.ts";
import type { Ran } from "../real/cli.ts";
import type { Home } from "../real/home.ts";
import { ensureHub } from "../real/hub.ts";
import type { Random } from "../real/random.ts";
import { pause } from "./life.ts";
import type { Interval, Oracle } from "./oracle.ts";
import type { Tally } from "./tally.ts";

/** Runs one work at a time, in the order in which they came. */
export type OneAtATime = <T>(work: () => Promise<T>) => Promise<T>;

/** A place that holds snapshots. */
export interface Place {
  readonly name: string;
  /** The folder of the set there. */
  readonly stored: string;
  /** What the command line reads it by. */
  readonly options: readonly string[];
}

/** What `backup --json` tells of a snapshot. */
interface Reported {
  readonly id: string;
  readonly kind: string;
  readonly rows: { readonly "hapi.db": Readonly<Record<string, number>> };
  readonly suspicions: readonly { readonly code: string; readonly detail: string }[];
}

type Rows = Reported["rows"]["hapi.db"];

/** Seconds from the end of a backup to the next, at most. */
const PAUSE_SECONDS_MAX = 5;

export class Backups {
  /** When each snapshot was taken, by id. */
  readonly #taken = new Map<string, Interval>();
  /** What was restored from where, as `<place> <id>`. */
  readonly #restored = new Set<string>();
  /** Rows of the last good snapshot; undefined when they are not known. */
  #lastGood: Rows | undefined;

  constructor(
    private readonly home: Home,
    private readonly places: readonly Place[],
    private readonly link: CuttingProxy,
    private readonly oracle: Oracle,
    private readonly random: Random,
    private readonly tally: Tally,
    /** Keeps retention from removing what is being restored. */
    private readonly undisturbed: OneAtATime,
    /** Keeps a backup and a restore in place apart. */
    private readonly alone: OneAtATime,
  ) {}

  /** Snapshots that were taken, and are still in the local store. */
  get ids(): string[] {
    return [...this.#taken.keys()];
  }

  async run(isOver: () => boolean): Promise<void> {
    const { random } = this;
    for (let round = 1; !isOver(); round++) {
      const isKilled = random.chance(0.12);
      const fresh = await this.alone(() => this.#backup(isKilled));
      for (const id of fresh) await this.#restoreFromAnywhere(id);
      if (random.chance(0.4) && this.#taken.size > 0) await this.#restoreFromAnywhere(random.pick(this.ids));
      if (round % 12 === 3) await this.#drill();
      await pause(random.next() ** 2 * PAUSE_SECONDS_MAX * 1000);
    }
  }

  /** Takes a last snapshot, mends the link, ships what waits, and restores what was not yet restored from where it is. */
  async finish(): Promise<void> {
    for (const id of await this.#backup(false)) await this.#restoreFromAnywhere(id);
    this.link.budget = Infinity;
    this.#expect(await this.home.cli(["ship", "--json"]), [0], "the last ship");
    for (const place of this.places) {
      for (const id of this.#idsAt(place)) {
        if (!this.#restored.has(`${place.name} ${id}`)) await this.#restore(place, id);
      }
    }
    const residue = [...Deno.readDirSync(this.home.stored)].filter(({ name }) => name.startsWith("."));
    for (const { name } of residue) this.tally.violation("the end", `${name} is left in the store`);
  }

  /** The hub's home is lost, with the hub stopped: the newest good snapshot is put in its place. */
  async recover(): Promise<void> {
    if (this.#taken.size === 0) return;
    await this.alone(async () => {
      const hapi = `${this.home.home}/.hapi`;
      await Deno.remove(hapi, { recursive: true });
      await Deno.mkdir(hapi);
      const ran = await this.home.cli([
        "restore",
        "--in-place",
        "--identity",
        this.home.identityFile,
        "--json",
      ]);
      if (!this.#expect(ran, [0], "restore in place")) return;
      const id: string = JSON.parse(ran.stdout).snapshot;
      const files = await this.#noted(hapi);
      for (const wrong of this.#judge(hapi, files, this.#taken.get(id)!)) {
        this.tally.violation(`${id} in place`, wrong);
      }
      this.oracle.takeForAsked(this.home.database, files);
    });
  }

  /** Takes a snapshot and ships it, and gives the ids that came into the store. */
  async #backup(isKilled: boolean): Promise<string[]> {
    const { random, tally, oracle } = this;
    const options = [
      ...random.chance(0.08) ? ["--full"] : [],
      ...random.chance(0.05) ? ["--no-ship"] : [],
    ];
    const isCut = this.#disturbLink();
    const began = oracle.moment();
    const child = this.home.spawn(["backup", "--json", ...options]);
    const killing = isKilled ? setTimeout(() => child.kill("SIGKILL"), random.int(50, 4000)) : undefined;
    await child.stdin.close();
    const { code, signal, stdout, stderr } = await child.output();
    clearTimeout(killing);
    const interval = { began, ended: oracle.moment() };
    const fresh = this.#note(interval);
    if (signal !== null) {
      tally.count("killed backups");
      // What it sealed before it died is not told, so the gate's next answer cannot be foretold.
      if (fresh.length > 0) this.#lastGood = undefined;
      return fresh;
    }
    const ran = { code, stdout: decode(stdout), stderr: decode(stderr) };
    const isUnshipped = isCut || options.includes("--no-ship");
    tally.count("backups");
    this.#expect(ran, isUnshipped ? [0, 3, 4] : [0, 3], "backup");
    if (code === 4) tally.count("ships cut off");
    const snapshots = readSnapshots(ran.stdout);
    for (const snapshot of snapshots) this.#judgeGate(snapshot);
    if (code === 3 && snapshots.some(({ suspicions }) => suspicions.length > 0)) {
      fresh.push(...await this.#accept());
    } else if (code === 3) {
      tally.violation("backup", `it exited with 3 and told no suspicion: ${ran.stderr}`);
    }
    return fresh;
  }

  /** A person has looked at the lost rows, and they were deleted on purpose. */
  async #accept(): Promise<string[]> {
    const began = this.oracle.moment();
    const ran = await this.home.cli(["backup", "--json", "--accept"]);
    const fresh = this.#note({ began, ended: this.oracle.moment() });
    this.#expect(ran, [0, 4], "backup --accept");
    this.tally.count("backups");
    for (const { rows } of readSnapshots(ran.stdout)) this.#lastGood = rows["hapi.db"];
    return fresh;
  }

  /** The gate speaks when, and only when, a table lost 50 rows and half of all since the last good snapshot. */
  #judgeGate({ id, kind, rows, suspicions }: Reported): void {
    const now = rows["hapi.db"];
    this.tally.count(kind === "full" ? "fulls" : kind === "increment" ? "increments" : kind);
    if (this.#lastGood) {
      const lost = Object.entries(this.#lastGood).filter(([table, count]) => {
        const gone = count - (now[table] ?? 0);
        return gone >= 50 && gone > count / 2;
      });
      if ((lost.length > 0) !== (suspicions.length > 0)) {
        const told = suspicions.map(({ detail }) => detail).join("; ") || "nothing";
        this.tally.violation(
          id,
          `it lost rows of ${lost.map(([table]) => table).join() || "no table"}; told was ${told}`,
        );
      }
    }
    if (suspicions.length > 0) this.tally.count("suspect snapshots");
    else this.#lastGood = now;
  }

  /** Lets the link break after so many bytes, and come back after a while. Says whether it may break. */
  #disturbLink(): boolean {
    const { random, link } = this;
    link.budget = Infinity;
    if (!random.chance(0.4)) return false;
    link.budget = random.pick([
      0,
      random.int(1, 5_000),
      random.int(5_000, 60_000),
      random.int(60_000, 400_000),
    ]);
    setTimeout(() => {
      if (link.budget <= 0) this.tally.count("link failures");
      link.budget = Infinity;
    }, random.int(500, 20_000));
    return true;
  }

  /** Notes the interval of what came into the local store. */
  #note(interval: Interval): string[] {
    const [local] = this.places;
    const fresh = this.#idsAt(local!).filter((id) => !this.#taken.has(id));
    for (const id of fresh) this.#taken.set(id, interval);
    return fresh;
  }

  /** Ids of what is sealed in a place. */
  #idsAt({ stored }: Place): string[] {
    try {
      return [...Deno.readDirSync(stored)].map(({ name }) => name).filter((name) =>
        !name.startsWith(".") && isThere(`${stored}/${name}/seal.json`)
      ).sort();
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  async #restoreFromAnywhere(id: string): Promise<void> {
    const place = this.random.shuffled(this.places).find((place) => this.#idsAt(place).includes(id));
    if (place) await this.#restore(place, id);
  }

  /** Restores a snapshot and compares it. */
  async #restore(place: Place, id: string): Promise<void> {
    const interval = this.#taken.get(id);
    const where = `${id} from ${place.name}`;
    if (!interval) return this.tally.violation(where, "no backup that ran can have made it");
    const to = `${this.home.dir}/restored`;
    const args = ["restore", "--to", to, "--snapshot", id, "--identity", this.home.identityFile, "--json"];
    await this.undisturbed(async () => {
      // Retention came first, perhaps.
      if (!this.#idsAt(place).includes(id)) return;
      if (!this.#expect(await this.home.cli([...args, ...place.options]), [0], `restore of ${where}`)) return;
      this.tally.count(`restored from ${place.name}`);
      this.#restored.add(`${place.name} ${id}`);
      const hapi = `${to}/home/.hapi`;
      for (const wrong of this.#judge(hapi, await this.#noted(hapi), interval)) {
        this.tally.violation(where, wrong);
      }
      await Deno.remove(to, { recursive: true });
    });
  }

  /** The files of a hub's home that the oracle knows of. */
  async #noted(hapi: string): Promise<Map<string, string>> {
    const files = new Map<string, string>();
    for (const [path] of await filesBelow(hapi)) {
      if (path === "hub.env" || path.startsWith("scratchlist-attachments/")) {
        files.set(path, await Deno.readTextFile(`${hapi}/${path}`));
      }
    }
    return files;
  }

  #judge(hapi: string, files: ReadonlyMap<string, string>, interval: Interval): string[] {
    return [
      ...this.oracle.judgeDatabase(`${hapi}/hapi.db`, interval),
      ...this.oracle.judgeFiles(files, interval),
    ];
  }

  /** A drill as an operator runs it, with a hub of its own on the restored copy. */
  async #drill(): Promise<void> {
    const ran = await this.undisturbed(async () =>
      await this.home.cli([
        ...["verify", "--snapshot", "random", "--json", "--identity", this.home.identityFile],
        ...["--hub", await ensureHub()],
      ])
    );
    // There may be nothing yet: a first backup that was killed.
    if (this.#taken.size > 0 && this.#expect(ran, [0], "verify")) this.tally.count("drills");
  }

  #expect(ran: Ran, codes: readonly number[], what: string): boolean {
    if (codes.includes(ran.code)) return true;
    this.tally.violation(what, `it exited with ${ran.code}: ${ran.stderr.trim() || ran.stdout}`);
    return false;
  }
}

const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

function readSnapshots(stdout: string): Reported[] {
  return stdout.trim() === "" ? [] : JSON.parse(stdout).snapshots ?? [];
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
