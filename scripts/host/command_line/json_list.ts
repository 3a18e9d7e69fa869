/**
 * One JSON object that holds a long list, printed as it is made: the list is never there as a whole.
 *
 * @module
 */

import { internalError, outcome } from "../../core/errors.ts";
import { knownError } from "../fs.ts";

/**
 * Prints `{ "<name>": […], … }`. However it ends, what was printed is one value: an error before the first items is left
 * to the command line, one after them is told at the end.
 *
 * @param work Adds items, and returns what else the object holds.
 */
export async function printJsonList<Rest extends object>(
  print: (text: string) => void,
  name: string,
  work: (add: (items: readonly unknown[]) => void) => Rest | Promise<Rest>,
): Promise<void> {
  const start = `{${JSON.stringify(name)}:[`;
  let isBegun = false;
  const add = (items: readonly unknown[]) => {
    if (items.length === 0) return;
    print((isBegun ? "," : start) + items.map((item) => JSON.stringify(item)).join(",\n"));
    isBegun = true;
  };
  const end = (rest: object) => print(`${isBegun ? "" : start}],${JSON.stringify(rest).slice(1)}`);
  try {
    end(await work(add));
  } catch (error) {
    if (isBegun) end(outcome(knownError(error) ?? internalError(error)));
    throw error;
  }
}
