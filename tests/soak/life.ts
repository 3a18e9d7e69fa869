/**
 * The life of a hub: clients that open sessions, write and delete, files that change beside it, and what befalls it:
 * restarts, SIGKILLs in the middle of writing, VACUUMs, clean-ups, migrations, and the loss of it all.
 *
 * Only one version of the hub can be had, so a migration is made as operators go back a version: by hand, with SQL and
 * a VACUUM, on a stopped hub. The hub then migrates forward by itself when it starts.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import type { Home } from "../real/home.ts";
import { output } from "../real/home.ts";
import { type Hub, startHub } from "../real/hub.ts";
import type { Random } from "../real/random.ts";
import type { Oracle, SoakSession } from "./oracle.ts";
import type { Tally } from "./tally.ts";

const SESSIONS_MAX = 60;
const SESSIONS_MIN = 15;
/** Seconds between two mishaps, about. */
const MISHAP_SECONDS = 6;
/** Undoes what the hub's migrations from version 21 to 26 do to the schema. */
const BACK_TO_21 = `
  DROP TABLE event_links;
  DROP TABLE events;
  ALTER TABLE sessions DROP COLUMN global_pinned;
  ALTER TABLE sessions DROP COLUMN pinned;
  PRAGMA user_version = 21;
  VACUUM;`;

const MISHAPS = [
  "restart",
  "restart",
  "kill",
  "kill",
  "vacuum",
  "vacuum",
  "migration",
  "clean-up",
  "disaster",
] as const;
type Mishap = typeof MISHAPS[number];

export class Life {
  #hub: Hub | undefined;
  #opened = 0;
  #written = 0;
  #coming: Mishap[] = [];

  constructor(
    private readonly home: Home,
    private readonly oracle: Oracle,
    private readonly random: Random,
    private readonly tally: Tally,
    /** Loses the hub's home, and gets it back from a snapshot. */
    private readonly recover: () => Promise<void>,
  ) {}

  /** Starts the hub, with some sessions in it. */
  async begin(): Promise<void> {
    await this.#start();
    this.#writeFile("hub.env", `ANTHROPIC_API_KEY=sk-ant-${crypto.randomUUID()}\n`);
    for (let i = 0; i < SESSIONS_MIN; i++) await this.#open();
    for (const session of this.oracle.sessions) await this.#write(session, 40);
  }

  /** Lives until `isOver`; the hub runs on. */
  async live(isOver: () => boolean): Promise<void> {
    let mishapAt = performance.now();
    while (!isOver()) {
      if (performance.now() >= mishapAt) {
        await this.#befall(this.#nextMishap());
        mishapAt = performance.now() + MISHAP_SECONDS * 1000 * (0.3 + 1.4 * this.random.next());
      } else {
        await this.#act();
      }
      await pause(this.random.int(5, 150));
    }
  }

  async end(): Promise<void> {
    await this.#hub?.stop();
  }

  /** Each kind of mishap comes round before any comes again. */
  #nextMishap(): Mishap {
    if (this.#coming.length === 0) this.#coming = this.random.shuffled(MISHAPS);
    return this.#coming.pop()!;
  }

  /** Something that clients do on a usual day. */
  async #act(): Promise<void> {
    const { random } = this;
    const open = this.oracle.sessions;
    const dice = random.next();
    if (open.length < SESSIONS_MIN || (dice < 0.08 && open.length < SESSIONS_MAX)) await this.#open();
    else if (dice < 0.12) await this.#remove(random.pick(open));
    else if (dice < 0.20) this.#changeFile();
    else await this.#write(random.pick(open), random.int(1, 25));
  }

  async #befall(mishap: Mishap): Promise<void> {
    const { random, home } = this;
    this.tally.count(mishap);
    switch (mishap) {
      case "restart":
        await this.#hub!.stop();
        await pause(random.int(0, 1500));
        return await this.#start();
      case "kill": {
        const writing = this.#write(random.pick(this.oracle.sessions), 300);
        await pause(random.int(0, 60));
        await this.#hub!.kill();
        await writing;
        await pause(random.int(0, 1500));
        return await this.#start();
      }
      case "vacuum":
        await output("sqlite3", [home.database, ".timeout 20000", "VACUUM"]);
        return;
      case "migration": {
        await this.#hub!.stop();
        const before = columnsOf(home.database);
        await output("sqlite3", ["-bail", home.database, ".timeout 20000", BACK_TO_21]);
        await pause(random.int(0, 2500));
        await this.#start();
        if (columnsOf(home.database) !== before) {
          throw new Error("the hub did not migrate to the schema that it had");
        }
        return;
      }
      case "disaster":
        await this.#hub!.kill();
        await this.recover();
        return await this.#start();
      case "clean-up": {
        const open = random.shuffled(this.oracle.sessions);
        for (const session of open.slice(0, Math.ceil(open.length * 0.7))) await this.#remove(session);
      }
    }
  }

  async #start(): Promise<void> {
    this.#hub = await startHub({ home: `${this.home.home}/.hapi` });
  }

  async #open(): Promise<void> {
    const { session, acknowledge } = this.oracle.askSession(`soak-${++this.#opened}`);
    await this.#asking(async (hub) => {
      session.id = await hub.createSession(session.tag);
      acknowledge();
      this.tally.count("sessions");
    });
  }

  async #remove(session: SoakSession): Promise<void> {
    const acknowledge = this.oracle.askRemoval(session);
    await this.#asking(async (hub) => {
      await hub.deleteSession(session.id!);
      acknowledge();
      this.tally.count("deleted sessions");
    });
  }

  async #write(session: SoakSession, count: number): Promise<void> {
    const contents = Array.from({ length: count }, () => this.#content());
    const acknowledge = this.oracle.askMessages(session, contents);
    await this.#asking(async (hub) => {
      await hub.sendMessages(session.id!, contents);
      acknowledge();
      this.tally.count("messages", count);
    });
  }

  /** Some are short, some so long that the hub compresses them; no two are the same. */
  #content(): unknown {
    const { random } = this;
    const words = Array.from(
      { length: random.chance(0.5) ? 3 : random.int(20, 200) },
      () => random.next().toString(36),
    );
    return { type: "text", text: `${++this.#written} é 漢字 🙂 ${words.join(" ")}` };
  }

  /** A hub that goes away in the middle leaves open whether it did what it was asked. */
  async #asking(ask: (hub: Hub) => Promise<void>): Promise<void> {
    try {
      await ask(this.#hub!);
    } catch {
      this.tally.count("unanswered");
    }
  }

  #changeFile(): void {
    const { random } = this;
    const name = random.chance(0.2) ? "hub.env" : `scratchlist-attachments/note ${random.int(1, 12)} é.txt`;
    const isRemoved = name !== "hub.env" && random.chance(0.3);
    const content = `${name} ${random.next()}\n`.repeat(random.int(1, 400));
    this.#writeFile(name, isRemoved ? undefined : content);
    this.tally.count("file changes");
  }

  /** As a careful program does it: the file is the old one or the new one. */
  #writeFile(name: string, content: string | undefined): void {
    const path = `${this.home.home}/.hapi/${name}`;
    const acknowledge = this.oracle.askFile(name, content);
    if (content === undefined) {
      try {
        Deno.removeSync(path);
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    } else {
      const beside = `${this.home.home}/beside`;
      this.home.write(beside, content);
      Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
      Deno.renameSync(beside, path);
    }
    acknowledge();
  }
}

/** Which tables have which columns, and the schema's version. */
function columnsOf(path: string): string {
  using database = new DatabaseSync(path, { readOnly: true });
  const columns = database.prepare(
    "SELECT tables.name AS in_table, columns.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns " +
      "WHERE tables.type = 'table' ORDER BY 1, 2",
  );
  return JSON.stringify([columns.all(), database.prepare("PRAGMA user_version").get()]);
}

/** Lets time pass, at a pace that the seed decides. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
