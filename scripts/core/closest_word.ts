/**
 * What was perhaps meant by a word that is not known.
 *
 * @module
 */

/** Letters that may be wrong. */
const WRONG_MAX = 3;

/** The known word that is most like `word`, whatever the case; undefined if none has most of its letters. */
export function closestWord(word: string, known: readonly string[]): string | undefined {
  const found = known
    .filter((other) => Math.abs(other.length - word.length) <= WRONG_MAX)
    .map((other) => ({ other, wrong: editsBetween(word.toLowerCase(), other.toLowerCase()) }))
    .toSorted((a, b) => a.wrong - b.wrong)[0];
  return found && found.wrong <= Math.min(WRONG_MAX, word.length / 2) ? found.other : undefined;
}

/** How many letters to change, add or remove to make the one word of the other (Levenshtein). */
function editsBetween(a: string, b: string): number {
  let before = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 0; i < a.length; i++) {
    const row = [i + 1];
    for (let j = 0; j < b.length; j++) {
      row.push(Math.min(row[j]! + 1, before[j + 1]! + 1, before[j]! + (a[i] === b[j] ? 0 : 1)));
    }
    before = row;
  }
  return before.at(-1)!;
}
