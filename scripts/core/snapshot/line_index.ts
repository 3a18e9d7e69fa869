/**
 * Which of a fixed number of places holds which line: a hash table whose chains go from place to place.
 *
 * Its memory is laid out once. Of a `Map` that lines come into and go from all the time V8 makes a new one whenever the
 * old is full of what went, and lets those lie for long: 30 MB of them in a chain of 28 on a database of 2 GB.
 *
 * @module
 */

/** No place. */
export const NOWHERE = -1;
/** Instead of a line's number: nothing is in this place. */
const NO_LINE = 0xffff_ffff;

/** An index of lines by their numbers, less than 2^32 - 1. */
export class LineIndex {
  /** The first place of each chain. */
  readonly #heads: Int32Array;
  /** The place after each place in its chain. */
  readonly #nexts: Int32Array;
  /** The line in each place. */
  readonly #lines: Uint32Array;
  /** How far a hash is shifted to number a chain. */
  readonly #shift: number;

  constructor(places: number) {
    const bits = Math.ceil(Math.log2(places)) + 1;
    this.#shift = 32 - bits;
    this.#heads = new Int32Array(2 ** bits).fill(NOWHERE);
    this.#nexts = new Int32Array(places);
    this.#lines = new Uint32Array(places).fill(NO_LINE);
  }

  /** The place that a line is in, or {@linkcode NOWHERE}. */
  find(line: number): number {
    let place = this.#heads[this.#chainOf(line)]!;
    while (place !== NOWHERE && this.#lines[place] !== line) place = this.#nexts[place]!;
    return place;
  }

  /** Says that a line, which is nowhere, is in this place now, where nothing is. */
  put(line: number, place: number): void {
    const chain = this.#chainOf(line);
    this.#lines[place] = line;
    this.#nexts[place] = this.#heads[chain]!;
    this.#heads[chain] = place;
  }

  /** Says that nothing is in this place any more. */
  clear(place: number): void {
    const line = this.#lines[place]!;
    if (line === NO_LINE) return;
    const chain = this.#chainOf(line);
    const next = this.#nexts[place]!;
    let before = this.#heads[chain]!;
    if (before === place) {
      this.#heads[chain] = next;
    } else {
      while (this.#nexts[before] !== place) before = this.#nexts[before]!;
      this.#nexts[before] = next;
    }
    this.#lines[place] = NO_LINE;
  }

  /** Says that all places are empty. */
  clearAll(): void {
    this.#heads.fill(NOWHERE);
    this.#lines.fill(NO_LINE);
  }

  /** Fibonacci hashing: the upper bits of a product with 2^32 over the golden ratio. */
  #chainOf(line: number): number {
    return Math.imul(line, 0x9e37_79b1) >>> this.#shift;
  }
}
