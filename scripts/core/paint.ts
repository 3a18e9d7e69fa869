/**
 * Colours on a terminal, by what they mean. Each stands beside a word that says the same.
 *
 * @module
 */

/** Wraps a text in a colour, or leaves it as it is. */
export interface Paint {
  readonly good: (text: string) => string;
  readonly doubtful: (text: string) => string;
  readonly bad: (text: string) => string;
  /** What matters less. */
  readonly faint: (text: string) => string;
  readonly strong: (text: string) => string;
}

/** @param isColored Whether to colour at all. */
export function makePaint(isColored: boolean): Paint {
  const style = (on: number, off: number) => (text: string) =>
    isColored ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return {
    good: style(32, 39),
    doubtful: style(33, 39),
    bad: style(31, 39),
    faint: style(2, 22),
    strong: style(1, 22),
  };
}
