/** The storage host: scrubs and retention by the real command line, while hubs send. */

import type { Home } from "../real/home.ts";
import type { Random } from "../real/random.ts";
import type { OneAtATime } from "./backups.ts";
import { pause } from "./life.ts";
import type { Tally } from "./tally.ts";

/** Never fewer good snapshots than this. */
export const KEEP_GOOD_MIN = 4;
/** Seconds from one look at the store to the next, at most. */
const PAUSE_SECONDS_MAX = 25;

interface Retention {
  readonly hub: string;
  readonly removed: readonly string[];
  readonly keep: readonly unknown[];
}

export class Storage {
  constructor(
    private readonly home: Home,
    private readonly configFile: string,
    private readonly random: Random,
    private readonly tally: Tally,
    private readonly undisturbed: OneAtATime,
  ) {}

  async run(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await pause(this.random.int(1, PAUSE_SECONDS_MAX) * 1000 / 3);
      if (isOver()) return;
      await this.look();
    }
  }

  /** Reads everything, then removes what the policy does not keep, then looks whether what is left is whole. */
  async look(): Promise<void> {
    await this.#scrub();
    await this.undisturbed(() => this.#retain());
    await this.#scrub();
  }

  async #scrub(): Promise<void> {
    const report = await this.#run("scrub");
    if (report) this.tally.count("scrubs");
  }

  async #retain(): Promise<void> {
    const report = await this.#run("retain", "--apply") as { sets: Retention[] } | undefined;
    for (const { removed, keep } of report?.sets ?? []) {
      this.tally.count("removed by retention", removed.length);
      if (removed.length > 0 && keep.length < KEEP_GOOD_MIN) {
        this.tally.violation("retain", `it removed ${removed.join()} and kept only ${keep.length}`);
      }
    }
  }

  async #run(verb: string, ...args: string[]): Promise<unknown> {
    const child = this.home.spawn([verb, ...args, "--json", "--config", this.configFile]);
    const isKilled = this.random.chance(0.1);
    const killing = isKilled ? setTimeout(() => child.kill("SIGKILL"), this.random.int(50, 1500)) : undefined;
    await child.stdin.close();
    const { code, signal, stdout, stderr } = await child.output();
    clearTimeout(killing);
    if (signal !== null) {
      this.tally.count(`killed ${verb}s`);
      return undefined;
    }
    const [told, words] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    if (code === 0) return JSON.parse(told!);
    this.tally.violation(verb, `it exited with ${code}: ${words!.trim()} ${told}`);
  }
}
