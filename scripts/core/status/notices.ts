/**
 * What is to be told, to whom and when: a comparison of how the hub stands with what a notifier was last told.
 *
 * Invariants: a problem is told once, again when it changes and after `remindHours`, and its end is told once; what
 * could not be delivered counts as not told. A notice holds no secret and no contents of a source.
 *
 * @module
 */

import * as v from "valibot";
import type { HttpNotifier, NoticeEvent, Notifier } from "../config/config.ts";
import { BackupError, ifPossible } from "../errors.ts";
import { recordOf } from "../schema.ts";
import { DAY_MS, HOUR_MS } from "../time.ts";
import { withAge } from "./run_record.ts";

/** Something that is wrong now. */
export interface Problem {
  /** What it is about, such as `backup state`: the same as long as it is the same trouble. */
  readonly topic: string;
  /** That of an error; or `reminder`; or `log`, where it is not known how it is. */
  readonly kind: string;
  readonly text: string;
  /** Of a run that failed: how long ago, in words. */
  readonly age?: string | undefined;
  readonly hint?: string | undefined;
}

/** How a hub stands. */
export interface HubView {
  readonly hub: string;
  readonly problems: readonly Problem[];
  /** The same for a digest, in lines. */
  readonly digest: readonly string[];
}

/** One message. */
export interface Notice {
  readonly event: NoticeEvent | "test";
  readonly hub: string;
  /** ISO 8601, in UTC. */
  readonly at: string;
  /** One line of ASCII. */
  readonly title: string;
  readonly lines: readonly string[];
  readonly problems: readonly Problem[];
}

const toldSchema = v.object({
  /** By topic: what was told, and when. */
  problems: recordOf(v.object({ mark: v.string(), at: v.string() })),
  digestAt: v.string(),
});
/** What a notifier was told. */
export type Told = v.InferOutput<typeof toldSchema>;

/** Reads what was told, by notifier. What cannot be read is as good as nothing: something is told twice. */
export function parseTold(text: string | undefined): Map<string, Told> {
  return new Map(
    ifPossible(() => Object.entries(v.parse(recordOf(toldSchema), JSON.parse(text ?? "{}")))),
  );
}

/** Inverse of {@linkcode parseTold}. */
export function serializeTold(told: ReadonlyMap<string, Told>): string {
  return JSON.stringify(Object.fromEntries(told), null, 1) + "\n";
}

/** A message that is due, and what the notifier was told once it is delivered. */
export interface DueNotice {
  readonly notice: Notice;
  readonly after: Told;
}

/** Which events a notifier gets. */
function eventsOf({ kind, on }: Notifier): ReadonlySet<NoticeEvent> {
  return new Set(
    on ??
      (kind === "ping"
        ? ["start", "success", "failure", "suspect"]
        : ["failure", "suspect", "recovery", "digest"]),
  );
}

/**
 * What a notifier that tells people is to be told now, in order.
 *
 * @param told What it was told so far; undefined for one that is new, whose first digest is a whole interval away.
 * @returns The messages, and what counts as told if there is none.
 */
export function dueNotices(
  view: HubView,
  notifier: Notifier,
  told: Told | undefined,
  now: Date,
): { readonly due: readonly DueNotice[]; readonly told: Told } {
  const at = now.toISOString();
  const wanted = eventsOf(notifier);
  let state: Told = told ?? { problems: {}, digestAt: at };
  const due: DueNotice[] = [];
  const say = (event: NoticeEvent, after: Told, title: string, lines: readonly string[]) => {
    state = after;
    if (wanted.has(event)) {
      due.push({ notice: { event, hub: view.hub, at, title, lines, problems: view.problems }, after });
    }
  };

  // Several problems may share a topic, such as what a storage host says of one set.
  const marks = new Map(
    [...Map.groupBy(view.problems, ({ topic }) => topic)].map(([topic, problems]) =>
      [topic, [...new Set(problems.map(markOf))].sort().join("; ").slice(0, 1000)] as const
    ),
  );
  const news = view.problems.filter(({ topic }) => {
    const before = state.problems[topic];
    return !before || before.mark !== marks.get(topic) ||
      isOver(before.at, notifier.remindHours * HOUR_MS, now);
  });
  if (news.length > 0) {
    const problems = Object.fromEntries(
      [...marks].map(([topic, mark]) => [topic, { mark, at }]),
    );
    const event = news.every(({ kind }) => kind === "suspect") ? "suspect" : "failure";
    const others = view.problems.filter((problem) => !news.includes(problem));
    say(event, { ...state, problems: { ...state.problems, ...problems } }, titleOf(view, event), [
      ...linesOf(news),
      ...others.length > 0 ? ["Still so:"] : [],
      ...linesOf(others),
    ]);
  }

  const current = new Set(view.problems.map(({ topic }) => topic));
  const over = Object.keys(state.problems).filter((topic) => !current.has(topic));
  if (over.length > 0) {
    const left = Object.entries(state.problems).filter(([topic]) => current.has(topic));
    const all = left.length === 0;
    say(
      "recovery",
      { ...state, problems: Object.fromEntries(left) },
      all ? `${view.hub}: backups are well again` : `${view.hub}: better, not all well`,
      [`No longer wrong: ${over.join(", ")}.`, ...linesOf(view.problems)],
    );
  }

  if (isOver(state.digestAt, notifier.digestDays * DAY_MS, now)) {
    say("digest", { ...state, digestAt: at }, digestTitle(view), view.digest);
  }
  return { due, told: state };
}

/** What a ping says at the start or the end of a run; undefined if the notifier does not want it. */
export function pingNotice(
  view: HubView,
  notifier: Notifier,
  phase: "start" | "end",
  now: Date,
): Notice | undefined {
  const bad = view.problems.filter(({ kind }) => kind !== "reminder");
  const event = phase === "start"
    ? "start"
    : bad.length === 0
    ? "success"
    : bad.every(({ kind }) => kind === "suspect")
    ? "suspect"
    : "failure";
  if (!eventsOf(notifier).has(event)) return undefined;
  return {
    event,
    hub: view.hub,
    at: now.toISOString(),
    title: event === "success" || event === "start" ? `${view.hub}: ${event}` : titleOf(view, event),
    lines: phase === "start" ? [] : [...linesOf(bad), ...view.digest],
    problems: phase === "start" ? [] : view.problems,
  };
}

/** A message that only shows that messages arrive. */
export function testNotice({ hub }: Pick<HubView, "hub">, now: Date): Notice {
  return {
    event: "test",
    hub,
    at: now.toISOString(),
    title: `${hub}: a test`,
    lines: ["This is a test: hapi-backup would tell you here when something is wrong."],
    problems: [],
  };
}

/** Whether `at` is so long ago; a time to come, of a clock that was ahead, must not silence anything until then. */
function isOver(at: string, spanMs: number, now: Date): boolean {
  const sinceMs = now.getTime() - Date.parse(at);
  return !(sinceMs >= 0 && sinceMs < spanMs);
}

/** What does not change from run to run: without numbers, which are times, ids and counts. */
const markOf = ({ kind, text }: Problem): string => `${kind}: ${text.replace(/\d+/g, "#").slice(0, 200)}`;

/** One log may leave several things unknown, and is told once. */
const linesOf = (problems: readonly Problem[]): string[] =>
  problems.filter(({ text }, index) => problems.findIndex((other) => other.text === text) === index)
    .flatMap((problem) => [withAge(problem), ...problem.hint ? [`  ${problem.hint}`] : []]);

function titleOf({ hub, problems }: HubView, event: NoticeEvent): string {
  if (event === "suspect") return `${hub}: a snapshot is SUSPECT`;
  // A log that cannot be read says nothing of what it is about.
  const [failed] = problems.filter(({ topic, kind }) => kind !== "log" && /^(backup|ship)\b/.test(topic));
  return failed
    ? `${hub}: ${failed.topic.startsWith("ship") ? "shipping" : failed.topic} FAILED`
    : `${hub}: backups need attention`;
}

function digestTitle({ hub, problems }: HubView): string {
  return problems.length === 0
    ? `${hub}: backups are well`
    : `${hub}: ${problems.length} ${
      problems.length === 1 ? "thing is" : "things are"
    } wrong with the backups`;
}

/**
 * What the moment calls for: `start` and `end` are those of a run, which pings tell; `send` is what is due beside
 * them; `test` is a message to everybody.
 */
export type NotifyPhase = "start" | "end" | "send" | "test";

/** What was told, and what could not be. */
export interface NotifyReport {
  readonly sent: readonly { readonly name: string; readonly event: Notice["event"] }[];
  readonly failed: readonly { readonly name: string; readonly reason: string }[];
}

/** A request, as it is sent. */
export interface NoticeRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Characters of a message's body. */
const BODY_LENGTH_MAX = 3_500;
const PRIORITIES = {
  ntfy: { failure: "4", suspect: "4", recovery: "3", digest: "2", test: "3", start: "1", success: "1" },
  gotify: { failure: 8, suspect: 8, recovery: 5, digest: 3, test: 5, start: 0, success: 1 },
};
const TAGS = {
  failure: "rotating_light",
  suspect: "warning",
  recovery: "white_check_mark",
  digest: "bar_chart",
  test: "wave",
  start: "arrow_forward",
  success: "white_check_mark",
};
/** What comes below a ping's address. */
const PING_PATHS = {
  start: "/start",
  success: "",
  recovery: "",
  failure: "/fail",
  suspect: "/fail",
  digest: "/log",
  test: "/log",
};

/** The request that takes a notice to a notifier. */
export function requestOf(
  notifier: HttpNotifier,
  address: string,
  token: string | undefined,
  notice: Notice,
): NoticeRequest {
  const body = notice.lines.join("\n").slice(0, BODY_LENGTH_MAX);
  const bearer: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  switch (notifier.kind) {
    case "ntfy":
      return {
        url: address,
        headers: {
          ...bearer,
          title: notice.title,
          priority: PRIORITIES.ntfy[notice.event],
          tags: TAGS[notice.event],
          "content-type": "text/plain; charset=utf-8",
        },
        body,
      };
    case "ping":
      return {
        url: below(address, PING_PATHS[notice.event]),
        headers: { "content-type": "text/plain; charset=utf-8" },
        body: `${notice.title}\n${body}`,
      };
    case "gotify":
      return {
        url: below(address, "/message"),
        headers: { "x-gotify-key": token ?? "", "content-type": "application/json" },
        body: JSON.stringify({
          title: notice.title,
          message: body || notice.title,
          priority: PRIORITIES.gotify[notice.event],
        }),
      };
    case "webhook":
      return {
        url: address,
        headers: { ...bearer, "content-type": "application/json" },
        body: JSON.stringify(notice),
      };
  }
}

function below(address: string, path: string): string {
  const url = new URL(address);
  url.pathname = url.pathname.replace(/\/+$/, "") + path;
  return url.href;
}

/** Host and port of an address, as Deno grants them. */
export function hostOf(address: string): string {
  const { hostname, port, protocol } = new URL(address);
  return `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
}

/**
 * What is wrong where somebody could not be told.
 *
 * @param isTold Whether people have read the reasons, which the error then need not repeat.
 */
export function untoldError({ failed }: NotifyReport, isTold: boolean): BackupError | undefined {
  if (failed.length === 0) return undefined;
  const names = failed.map(({ name }) => name).join(", ");
  const reasons = failed.map(({ name, reason }) =>
    `${name}: ${reason.replace(`Cannot notify ${name}: `, "")}`
  );
  return new BackupError(`Cannot notify ${isTold ? `${names}: see above` : reasons.join("; ")}`, {
    kind: "network",
    hint: 'check its address and token, or its command, under "notify", then run `hapi-backup notify test`',
  });
}

/** The address in the text of an `urlFile`. @throws {BackupError} (config) Without repeating the text. */
export function parseAddress(text: string, name: string, file: string): string {
  const address = text.trim();
  if (/^https?:\/\/\S+$/.test(address) && URL.canParse(address)) return address;
  throw new BackupError(
    `Cannot notify ${name}: its urlFile ${file} does not hold one http or https address`,
    {
      kind: "config",
      hint: "write the address into that file, on one line",
    },
  );
}
