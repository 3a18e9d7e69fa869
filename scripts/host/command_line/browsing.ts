/**
 * Looking through snapshots on a terminal: a dialogue over the steps that do the work. It reads nothing itself.
 *
 * @module
 */

import {
  cleanText,
  formatBytes,
  formatCount,
  formatCounted,
  formatTime,
  localTime,
} from "../../core/format.ts";
import type { SnapshotId } from "../../core/names.ts";
import type { Place } from "../../core/place.ts";
import { compare, type Look } from "../../core/sessions/comparison.ts";
import { describeComparison, describeSession } from "../../core/sessions/session_text.ts";
import type { SavedDatabase, SavedFile } from "../../core/snapshot/manifest.ts";
import { cancelled } from "../steps/step.ts";
import { prompts as loadPrompts } from "./questions.ts";

/** What the dialogue can have done. */
export interface Browsing {
  /** Newest first. */
  readonly snapshots: readonly { readonly id: SnapshotId; readonly isSuspect: boolean }[];
  look(id: SnapshotId): Promise<Look>;
  /** Restores one place into a folder, and says what it did. Refuses a folder that is not empty. */
  restore(id: SnapshotId, place: Place, folder: string): Promise<string>;
  /** Says what went wrong, after which the dialogue goes on. @throws What must end it, such as an interruption. */
  tell(error: unknown): void;
}

type Prompts = typeof import("@clack/prompts");

/** What `pick` gives when the person wants back. */
const BACK = Symbol("back");
/** Lines of a list that are shown at once. */
const LINES = 12;

/** Holds the dialogue, to its end. */
export async function browse(browsing: Browsing): Promise<void> {
  const prompts = await loadPrompts();
  prompts.intro(formatCounted(browsing.snapshots.length, "snapshot"));
  const looks = new Map<SnapshotId, Look>();
  const dialogue = new Dialogue(prompts, {
    ...browsing,
    async look(id) {
      const seen = looks.get(id) ?? await browsing.look(id);
      looks.set(id, seen);
      return seen;
    },
  });
  await dialogue.hold();
  prompts.outro("done");
}

class Dialogue {
  readonly #prompts: Prompts;
  readonly #browsing: Browsing;

  constructor(prompts: Prompts, browsing: Browsing) {
    this.#prompts = prompts;
    this.#browsing = browsing;
  }

  /** The list of snapshots, again and again. */
  async hold(): Promise<void> {
    while (true) {
      const id = await this.#pickSnapshot("Which snapshot? Type to search", this.#browsing.snapshots);
      if (id === BACK) return;
      await this.#attempt(() => this.#inside(id));
    }
  }

  async #inside(id: SnapshotId): Promise<void> {
    const look = await this.#browsing.look(id);
    const { manifest, sessions } = look;
    const files = [...manifest.databases, ...manifest.files.filter(({ type }) => type !== "folder")];
    while (true) {
      const action = await this.#prompts.select({
        message: `${id}, ${localTime(id)}. Esc: back`,
        options: [
          { value: "sessions", label: `Sessions (${formatCount(sessions.length)})` },
          { value: "files", label: `Files (${formatCount(files.length)})` },
          { value: "compare", label: "Compare with another snapshot" },
        ],
        signal: cancelled,
      });
      if (this.#prompts.isCancel(action)) return;
      if (action === "sessions") await this.#showSessions(look);
      if (action === "files") await this.#showFiles(id, files);
      if (action === "compare") await this.#compare(look);
    }
  }

  async #showSessions({ manifest, sessions }: Look): Promise<void> {
    while (true) {
      const session = await this.#pick(
        "Which session? Type to search",
        sessions.map((value) => ({
          value,
          label: cleanText(value.title, 48),
          hint: `${value.updatedAt === null ? "" : `${formatTime(new Date(value.updatedAt))}, `}${
            formatCounted(value.messages, "message")
          }`,
        })),
      );
      if (session === BACK) return;
      this.#say(
        `${describeSession(session)}\n  to get it back: hapi-backup session restore ${
          cleanText(session.id)
        } --snapshot ${manifest.id}`,
      );
    }
  }

  async #showFiles(id: SnapshotId, files: readonly (SavedFile | SavedDatabase)[]): Promise<void> {
    while (true) {
      const file = await this.#pick(
        "Which file? Type to search",
        files.map((value) => ({
          value,
          label: cleanText(value.place, 80),
          hint: `${formatBytes(value.bytes)}, ${formatTime(new Date(value.mtimeMs))}`,
        })),
      );
      if (file === BACK) return;
      const folder = await this.#prompts.text({
        message: `Restore ${cleanText(file.place)} into which new or empty folder? Esc: not at all`,
        validate: (text) => text?.trim() ? undefined : "name a folder, such as ./restored",
        signal: cancelled,
      });
      if (this.#prompts.isCancel(folder)) continue;
      await this.#attempt(async () => this.#say(await this.#browsing.restore(id, file.place, folder.trim())));
    }
  }

  async #compare(look: Look): Promise<void> {
    const { id } = look.manifest;
    const others = this.#browsing.snapshots.filter((other) => other.id !== id);
    const other = await this.#pickSnapshot("Compare with which? Type to search", others);
    if (other === BACK) return;
    const [from, to] = other < id
      ? [await this.#browsing.look(other), look]
      : [look, await this.#browsing.look(other)];
    this.#say(describeComparison(compare(from, to)));
  }

  #pickSnapshot(message: string, snapshots: Browsing["snapshots"]): Promise<SnapshotId | typeof BACK> {
    return this.#pick(
      message,
      snapshots.map(({ id, isSuspect }) => ({
        value: id,
        // A hint would be seen of the chosen one only.
        label: `${localTime(id)}  ${id}${isSuspect ? "  suspect" : ""}`,
      })),
    );
  }

  /** One of a list that can be searched; Esc leads back. */
  async #pick<Value>(
    message: string,
    options: readonly { value: Value; label: string; hint?: string }[],
  ): Promise<Value | typeof BACK> {
    // Indexes, for the library takes only plain values for what they are.
    const chosen = await this.#prompts.autocomplete<number>({
      message: `${message}. Esc: back`,
      options: options.map(({ value: _, ...shown }, value) => ({ ...shown, value })),
      maxItems: LINES,
      signal: cancelled,
    });
    return typeof chosen === "number" ? options[chosen]!.value : BACK;
  }

  #say(text: string): void {
    this.#prompts.log.message(text);
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#browsing.tell(error);
    }
  }
}
