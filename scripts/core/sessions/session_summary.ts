/**
 * A session as it is listed.
 *
 * @module
 */

/** What a list says of a session. Times in milliseconds since 1970, where the hub's schema has them. */
export interface SessionSummary {
  readonly id: string;
  /** As the hub shows it: its name, else its summary, else its folder, else its tag, else the start of its id. */
  readonly title: string;
  readonly createdAt: number | null;
  readonly updatedAt: number | null;
  readonly messages: number;
}

/** Longest title that is kept, in characters. */
const TITLE_LENGTH_MAX = 200;

/** The title of a session, from its row. */
export function titleOf(
  row: { readonly id: string; readonly metadata?: unknown; readonly tag?: unknown },
): string {
  const metadata = parseObject(row.metadata);
  const { name, summary, path } = metadata;
  const folder = typeof path === "string" ? path.split("/").filter((part) => part !== "").at(-1) : undefined;
  const candidates = [name, parseObject(summary).text, folder, row.tag];
  const title = candidates.find((text): text is string => typeof text === "string" && text.trim() !== "");
  return (title?.trim() ?? row.id.slice(0, 8)).slice(0, TITLE_LENGTH_MAX);
}

/** An object as it is, or out of its JSON; anything else counts as an empty one. */
function parseObject(value: unknown): Readonly<Record<string, unknown>> {
  try {
    const parsed = typeof value === "string" ? JSON.parse(value) : value;
    return typeof parsed === "object" && parsed !== null ? parsed : {};
  } catch {
    return {};
  }
}
