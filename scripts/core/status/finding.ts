/**
 * What the doctor finds: lines with a state and a remedy, the page that they make, and the error that it ends with.
 *
 * @module
 */

import { BackupError, type ErrorKind, exitCodeOf } from "../errors.ts";
import { formatCounted } from "../format.ts";

/** One line of the page. */
export interface Finding {
  readonly group: "Sources" | "Keys" | "Runs" | "Destinations" | "Proof";
  readonly name: string;
  /** `warn` is told and changes no exit code. */
  readonly state: "ok" | "warn" | "fail";
  readonly detail: string;
  readonly remedy?: string | undefined;
  /** Of a `fail`: what the exit code is made of. */
  readonly kind?: ErrorKind | undefined;
}

/** Says how one thing stands: `about("Keys", "recipients").ok("2")`. */
export const about = (group: Finding["group"], name: string) => ({
  ok: (detail: string): Finding => ({ group, name, state: "ok", detail }),
  warn: (detail: string, remedy?: string): Finding => ({ group, name, state: "warn", detail, remedy }),
  fail: (kind: ErrorKind, detail: string, remedy: string | undefined): Finding => (
    { group, name, state: "fail", detail, remedy, kind }
  ),
});

/** The error that the page ends with; undefined if nothing failed. The lowest exit code is the most telling. */
export function doctorError(findings: readonly Finding[]): BackupError | undefined {
  const failed = findings.filter(({ state }) => state === "fail");
  if (failed.length === 0) return undefined;
  const rank = ({ kind = "internal" }: Finding) => exitCodeOf(kind) === 1 ? 99 : exitCodeOf(kind);
  const worst = failed.toSorted((a, b) => rank(a) - rank(b))[0]!;
  return new BackupError(
    `Cannot call it healthy: ${failed.length} of ${findings.length} checks failed, above all ${
      JSON.stringify(worst.name)
    }: ${worst.detail}`,
    { kind: worst.kind ?? "internal", hint: worst.remedy },
  );
}

/** What to do about an error: its hint, or what helps with most files. */
export const remedyOf = (error: unknown): string =>
  (error instanceof BackupError ? error.hint : undefined) ??
    "check its owner and mode, and whom the timer runs as";

/** The page for a person. */
export function describeFindings(findings: readonly Finding[]): string {
  const groups = [...new Set(findings.map(({ group }) => group))];
  const marks = { ok: "ok  ", warn: "WARN", fail: "FAIL" };
  const count = (wanted: Finding["state"]) => findings.filter(({ state }) => state === wanted).length;
  const [failed, warned] = [count("fail"), count("warn")];
  return [
    ...groups.flatMap((group) => [
      group,
      ...findings.filter((finding) => finding.group === group).flatMap(({ state, name, detail, remedy }) => [
        `  ${marks[state]}  ${name}: ${detail}`,
        ...state !== "ok" && remedy ? [`        -> ${remedy}`] : [],
      ]),
    ]),
    failed + warned === 0
      ? `all ${findings.length} checks are fine`
      : `${formatCounted(findings.length, "check")}: ${failed} failed, ${formatCounted(warned, "warning")}`,
  ].join("\n");
}
