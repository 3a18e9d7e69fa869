/**
 * What a restored snapshot must hold, may hold and must not hold: everything that was asked of the hub, with the
 * moment it was asked and the moment the hub acknowledged it.
 *
 * Moments are counted, not timed: everything asked and answered is seen by one process, in order. A snapshot was taken
 * at some moment between the start and the end of the command that took it, so of it
 * - what was acknowledged before the start, and not asked away before the end, must be there;
 * - what was asked for before the end may be there;
 * - what was asked for after the end, never asked for, or acknowledged as deleted before the start must not be there.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { zstdDecompressSync } from "node:zlib";

/** A count of everything that happened. */
export type Moment = number;

/** From just before a command was started to just after it ended. */
export interface Interval {
  readonly began: Moment;
  readonly ended: Moment;
}

interface Asked {
  readonly asked: Moment;
  acknowledged?: Moment;
}

/** A session; known by its tag, since its id is the hub's answer. */
export interface SoakSession extends Asked {
  readonly tag: string;
  id?: string;
  removal?: Asked;
}

interface SoakMessage extends Asked {
  readonly session: SoakSession;
}

/** A content that a file had, `undefined` for none, from one moment on. */
interface FileVersion extends Asked {
  readonly content: string | undefined;
}

/** The record of everything asked and acknowledged. */
export class Oracle {
  #now: Moment = 0;
  readonly sessions = new Map<string, SoakSession>();
  readonly #messages = new Map<string, SoakMessage>();
  readonly #files = new Map<string, FileVersion[]>();

  /** The next moment. */
  moment(): Moment {
    return ++this.#now;
  }

  get messageCount(): number {
    return this.#messages.size;
  }

  /** Notes that a session is about to be asked for. */
  askSession(tag: string): SoakSession {
    const session: SoakSession = { tag, asked: this.moment() };
    this.sessions.set(tag, session);
    return session;
  }

  acknowledge(asked: Asked): void {
    asked.acknowledged = this.moment();
  }

  /** Notes that messages are about to be sent. */
  askMessages(session: SoakSession, contents: readonly unknown[]): Asked[] {
    const asked = this.moment();
    return contents.map((content) => {
      const message: SoakMessage = { session, asked };
      this.#messages.set(digestOf(content), message);
      return message;
    });
  }

  /** Notes that a session is about to be deleted. */
  askRemoval(session: SoakSession): Asked {
    return session.removal = { asked: this.moment() };
  }

  /** Notes that a file is about to get this content, or to be removed. */
  askFile(name: string, content: string | undefined): Asked {
    const version: FileVersion = { content, asked: this.moment() };
    const versions = this.#files.get(name) ?? [{ content: undefined, asked: 0, acknowledged: 0 }];
    this.#files.set(name, [...versions, version]);
    return version;
  }

  /** Everything that is wrong with a database restored from a snapshot; a sentence each. */
  judgeDatabase(path: string, { began, ended }: Interval): string[] {
    using database = new DatabaseSync(path);
    const wrong: string[] = [];
    const check = database.prepare("PRAGMA integrity_check").all().map((row) =>
      String(Object.values(row)[0])
    );
    if (check.join() !== "ok") wrong.push(`integrity_check says ${check.join("; ")}`);

    const found = new Map<string, string>();
    for (const row of database.prepare("SELECT id, tag FROM sessions").all()) {
      const tag = String(row.tag);
      found.set(String(row.id), tag);
      const session = this.sessions.get(tag);
      if (!session) wrong.push(`session ${tag} is there, and was never asked for`);
      else if (session.asked > ended) wrong.push(`session ${tag} is there, and was asked for later`);
      else if ((session.removal?.acknowledged ?? Infinity) < began) {
        wrong.push(`session ${tag} is there, and was deleted before`);
      }
    }
    const tags = new Set(found.values());
    const mustBeThere = (session: SoakSession) => !(session.removal && session.removal.asked < ended);
    for (const session of this.sessions.values()) {
      if ((session.acknowledged ?? Infinity) < began && mustBeThere(session) && !tags.has(session.tag)) {
        wrong.push(`session ${session.tag} was acknowledged before, and is missing`);
      }
    }

    const seen = new Set<SoakMessage>();
    const counts = new Map<string, number>();
    for (const row of database.prepare("SELECT session_id, seq, content FROM messages ORDER BY seq").all()) {
      const tag = found.get(String(row.session_id)) ?? "(none)";
      const count = (counts.get(tag) ?? 0) + 1;
      counts.set(tag, count);
      if (Number(row.seq) !== count) wrong.push(`message ${row.seq} of ${tag} is the ${count}th there`);
      const message = this.#messages.get(digestOf(contentOf(row.content)));
      if (!message) wrong.push(`message ${row.seq} of ${tag} is there, and was never sent`);
      else if (message.session.tag !== tag) wrong.push(`a message of ${message.session.tag} is in ${tag}`);
      else if (seen.has(message)) wrong.push(`message ${row.seq} of ${tag} is there twice`);
      else if (message.asked > ended) wrong.push(`message ${row.seq} of ${tag} was sent later`);
      if (message) seen.add(message);
    }
    let missing = 0;
    for (const message of this.#messages.values()) {
      if ((message.acknowledged ?? Infinity) < began && mustBeThere(message.session) && !seen.has(message)) {
        missing++;
      }
    }
    if (missing > 0) wrong.push(`${missing} messages were acknowledged before, and are missing`);
    return wrong;
  }

  /**
   * Everything that is wrong with the files restored from a snapshot.
   *
   * @param found The content of each, by the name it was noted under.
   */
  judgeFiles(found: ReadonlyMap<string, string>, { began, ended }: Interval): string[] {
    const wrong: string[] = [];
    for (const name of found.keys()) {
      if (!this.#files.has(name)) wrong.push(`file ${name} is there, and was never written`);
    }
    for (const [name, versions] of this.#files) {
      const admissible = versions.filter(({ asked }, index) => {
        const next = versions[index + 1];
        return asked < ended && !((next?.acknowledged ?? Infinity) < began);
      });
      if (!admissible.some(({ content }) => content === found.get(name))) {
        wrong.push(`file ${name} holds none of the ${admissible.length} contents that it had then`);
      }
    }
    return wrong;
  }
}

/** What was sent, out of a row of the hub's: long ones are zstd. */
function contentOf(stored: unknown): unknown {
  const text = typeof stored === "string"
    ? stored
    : new TextDecoder().decode(zstdDecompressSync(stored as Uint8Array));
  return JSON.parse(text).content;
}

/** Contents are kept as digests: an hour of them would not fit in memory. */
function digestOf(content: unknown): string {
  return createHash("sha256").update(JSON.stringify(content)).digest("base64").slice(0, 22);
}
