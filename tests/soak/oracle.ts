/**
 * What a restored snapshot must hold, may hold and must not hold: everything that was asked of the hub, with the
 * moment it was asked and the moment it was acknowledged.
 *
 * Moments are counted, not timed: everything asked and answered is seen by one process, in order. A snapshot was taken
 * at some moment between the start and the end of the command that took it. What stood at that moment is a state that
 * was asked for before the end, and that no later state had replaced, as acknowledged, before the start.
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

/** A state that something was asked to be in. */
interface State<Value> {
  readonly value: Value;
  readonly asked: Moment;
  acknowledged?: Moment;
}

/** The states that something was asked to be in, oldest first. */
class History<Value> {
  readonly #states: State<Value>[];

  constructor(first: Value) {
    this.#states = [{ value: first, asked: 0, acknowledged: 0 }];
  }

  ask(value: Value, asked: Moment): State<Value> {
    const state = { value, asked };
    this.#states.push(state);
    return state;
  }

  get last(): Value {
    return this.#states.at(-1)!.value;
  }

  /** The values that it may have had at the moment of a snapshot. */
  during({ began, ended }: Interval): Value[] {
    const since = this.#states.findLastIndex(({ acknowledged }) => (acknowledged ?? Infinity) < began);
    return this.#states.slice(since).filter(({ asked }) => asked < ended).map(({ value }) => value);
  }
}

/** A session; known by its tag, since its id is the hub's answer. */
export interface SoakSession {
  readonly tag: string;
  /** Whether it is there. */
  readonly isThere: History<boolean>;
  id?: string;
}

interface SoakMessage {
  readonly session: SoakSession;
  readonly isThere: History<boolean>;
}

/** Acknowledges what was asked. */
export type Acknowledge = () => void;

/** The record of everything asked and acknowledged. */
export class Oracle {
  #now: Moment = 0;
  readonly #sessions = new Map<string, SoakSession>();
  readonly #messages = new Map<string, SoakMessage>();
  /** Contents of files, `undefined` for none. */
  readonly #files = new Map<string, History<string | undefined>>();

  /** The next moment. */
  moment(): Moment {
    return ++this.#now;
  }

  /** Sessions that are there, as far as was asked and answered. */
  get sessions(): SoakSession[] {
    return [...this.#sessions.values()].filter(({ id, isThere }) => id !== undefined && isThere.last);
  }

  /** Notes that a session is about to be asked for. */
  askSession(tag: string): { session: SoakSession; acknowledge: Acknowledge } {
    const session: SoakSession = { tag, isThere: new History(false) };
    this.#sessions.set(tag, session);
    return { session, acknowledge: this.#ask(session.isThere, true) };
  }

  /** Notes that messages are about to be sent. */
  askMessages(session: SoakSession, contents: readonly unknown[]): Acknowledge {
    const all = contents.map((content) => {
      const message: SoakMessage = { session, isThere: new History(false) };
      this.#messages.set(digestOf(content), message);
      return this.#ask(message.isThere, true);
    });
    return () => all.forEach((acknowledge) => acknowledge());
  }

  /** Notes that a session is about to be deleted, and its messages with it. */
  askRemoval(session: SoakSession): Acknowledge {
    return this.#ask(session.isThere, false);
  }

  /** Notes that a file is about to get this content, or to be removed. */
  askFile(name: string, content: string | undefined): Acknowledge {
    const history = this.#files.get(name) ?? new History<string | undefined>(undefined);
    this.#files.set(name, history);
    return this.#ask(history, content);
  }

  /** Takes what is there after a restore in place for what was asked for: later things are gone, older ones are back. */
  takeForAsked(database: string, files: ReadonlyMap<string, string>): void {
    const { tags, messages } = contentsOf(database);
    const there = new Set(tags.values());
    const found = new Set(messages.map(({ digest }) => digest));
    const note = <Value>(history: History<Value>, value: Value) => this.#ask(history, value)();
    for (const session of this.#sessions.values()) note(session.isThere, there.has(session.tag));
    for (const [digest, message] of this.#messages) note(message.isThere, found.has(digest));
    for (const [name, history] of this.#files) note(history, files.get(name));
    for (const [id, tag] of tags) {
      const session = this.#sessions.get(tag);
      if (session) session.id = id;
    }
  }

  /** Everything that is wrong with a database restored from a snapshot; a sentence each. */
  judgeDatabase(path: string, interval: Interval): string[] {
    const { integrity, tags, messages } = contentsOf(path);
    const wrong = integrity === "ok" ? [] : [`integrity_check says ${integrity}`];

    const there = new Set(tags.values());
    for (const tag of there) {
      if (!this.#sessions.has(tag)) wrong.push(`session ${tag} is there, and was never asked for`);
    }
    for (const { tag, isThere } of this.#sessions.values()) {
      if (isThere.during(interval).includes(there.has(tag))) continue;
      wrong.push(
        `session ${tag} is ${there.has(tag) ? "there, and was not then" : "missing, and was there then"}`,
      );
    }

    const seen = new Set<SoakMessage>();
    const counts = new Map<string, number>();
    for (const { sessionId, seq, digest } of messages) {
      const tag = tags.get(sessionId) ?? "(none)";
      const count = (counts.get(tag) ?? 0) + 1;
      counts.set(tag, count);
      if (seq !== count) wrong.push(`message ${seq} of ${tag} is number ${count} there`);
      const message = this.#messages.get(digest);
      if (!message) wrong.push(`message ${seq} of ${tag} is there, and was never sent`);
      else if (message.session.tag !== tag) wrong.push(`a message of ${message.session.tag} is in ${tag}`);
      else if (seen.has(message)) wrong.push(`message ${seq} of ${tag} is there twice`);
      else if (!message.isThere.during(interval).includes(true)) {
        wrong.push(`message ${seq} of ${tag} is there, and was not then`);
      }
      if (message) seen.add(message);
    }
    // Messages go with their session: of one that is not there, its absence is told.
    const missing = [...this.#messages.values()].filter((message) =>
      there.has(message.session.tag) && !seen.has(message) &&
      !message.isThere.during(interval).includes(false)
    );
    if (missing.length > 0) wrong.push(`${missing.length} messages are missing, and were there then`);
    return wrong;
  }

  /**
   * Everything that is wrong with the files restored from a snapshot.
   *
   * @param found The content of each, by the name it was noted under.
   */
  judgeFiles(found: ReadonlyMap<string, string>, interval: Interval): string[] {
    const wrong: string[] = [];
    for (const name of found.keys()) {
      if (!this.#files.has(name)) wrong.push(`file ${name} is there, and was never written`);
    }
    for (const [name, history] of this.#files) {
      const contents = history.during(interval);
      if (!contents.includes(found.get(name))) {
        wrong.push(`file ${name} holds none of the ${contents.length} contents that it had then`);
      }
    }
    return wrong;
  }

  #ask<Value>(history: History<Value>, value: Value): Acknowledge {
    const state = history.ask(value, this.moment());
    return () => state.acknowledged = this.moment();
  }
}

/** What a hub's database holds: tags by session id, and its messages in order. */
function contentsOf(path: string) {
  using database = new DatabaseSync(path);
  const check = database.prepare("PRAGMA integrity_check").all().map((row) => String(Object.values(row)[0]));
  const sessions = database.prepare("SELECT id, tag FROM sessions").all();
  const messages = database.prepare("SELECT session_id, seq, content FROM messages ORDER BY seq").all();
  return {
    integrity: check.join("; "),
    tags: new Map(sessions.map(({ id, tag }) => [String(id), String(tag)])),
    messages: messages.map((row) => ({
      sessionId: String(row.session_id),
      seq: Number(row.seq),
      digest: digestOf(sentAs(row.content)),
    })),
  };
}

/** What was sent, out of a row of the hub's: long ones are zstd. */
function sentAs(stored: unknown): unknown {
  const text = typeof stored === "string"
    ? stored
    : new TextDecoder().decode(zstdDecompressSync(stored as Uint8Array));
  return JSON.parse(text).content;
}

/** Contents are kept as digests: an hour of them would not fit in memory. */
function digestOf(content: unknown): string {
  return createHash("sha256").update(JSON.stringify(content)).digest("base64").slice(0, 22);
}
