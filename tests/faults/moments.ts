/**
 * At which of a step's operations faults strike: a seed chooses, `FAULT_SEED=<seed>` chooses the same again, and
 * `FAULT_MOMENTS=all` tries them all.
 *
 * @module
 */

export const SEED = Number(Deno.env.get("FAULT_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
/** At how many moments of each step each fault strikes. */
export const MOMENTS = Deno.env.get("FAULT_MOMENTS") === "all"
  ? Infinity
  : Number(Deno.env.get("FAULT_MOMENTS") ?? 2);

/** Up to `most` of `all`, chosen by the seed and the name. */
export function choose(all: readonly number[], most: number, ...name: string[]): number[] {
  if (all.length <= most) return [...all];
  let state = [...name.join()].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0) | 0, SEED);
  const chosen = new Set<number>();
  while (chosen.size < most) {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0;
    chosen.add(all[(state >>> 0) % all.length]!);
  }
  return [...chosen];
}
