/** Choices that a seed decides, so that a run can be asked for again. */

/** A source of choices. */
export interface Random {
  /** A number from 0 up to 1. */
  next(): number;
  /** A whole number from `from` to `to`, both included. */
  int(from: number, to: number): number;
  chance(probability: number): boolean;
  pick<T>(all: readonly T[]): T;
  shuffled<T>(all: readonly T[]): T[];
}

/** @param stream Which of several independent sources of one seed. */
export function makeRandom(seed: number, stream = ""): Random {
  let state = seed >>> 0;
  for (const letter of stream) state = (Math.imul(state, 31) + letter.charCodeAt(0)) >>> 0;
  // mulberry32
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const int = (from: number, to: number) => from + Math.floor(next() * (to - from + 1));
  return {
    next,
    int,
    chance: (probability) => next() < probability,
    pick: (all) => all[int(0, all.length - 1)]!,
    shuffled(all) {
      const left = [...all];
      for (let i = left.length - 1; i > 0; i--) {
        const other = int(0, i);
        [left[i], left[other]] = [left[other]!, left[i]!];
      }
      return left;
    },
  };
}

/** Bytes that hardly compress, the same for the same seed (xorshift32). */
export function noise(bytes: number, seed: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  let state = seed || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, bytes);
}
