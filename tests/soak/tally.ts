/** What happened so far, counted, and everything that was wrong. */

/** Violations told in full; all count. */
const TOLD_MAX = 40;

export class Tally {
  readonly counts = new Map<string, number>();
  readonly violations: string[] = [];

  constructor(private readonly say: (line: string) => void) {}

  count(what: string, times = 1): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + times);
  }

  /** Notes what is wrong, and tells it at once. */
  violation(where: string, what: string): void {
    this.violations.push(`${where}: ${what}`);
    if (this.violations.length <= TOLD_MAX) this.say(`VIOLATION ${where}: ${what}`);
  }

  describe(): string {
    const counted = [...this.counts].sort(([a], [b]) => a < b ? -1 : 1).map(([what, times]) =>
      `${times} ${what}`
    );
    return `${counted.join(", ")}; ${this.violations.length} violations`;
  }
}
