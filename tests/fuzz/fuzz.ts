/**
 * Gives a parser whatever may come in, and holds it to what it documents: a `BackupError` of the kinds named and no
 * other error, bounded work and memory, and the built-in objects untouched.
 *
 * `FUZZ_RUNS` says how many inputs of each kind (300), `FUZZ_SEED` which ones.
 *
 * @module
 */

import assert from "node:assert/strict";
import process from "node:process";
// deno-lint-ignore no-import-prefix
import fc from "npm:fast-check@4.10.2";
import { BackupError, type ErrorKind } from "../../scripts/core/errors.ts";
import { edited, endless, spoilt } from "./mutate.ts";

const RUNS = Number(Deno.env.get("FUZZ_RUNS") ?? 300);
/** Which inputs. */
export const SEED = Number(Deno.env.get("FUZZ_SEED") ?? crypto.getRandomValues(new Int32Array(1))[0]);
/** Processor time that one input may take, in seconds: some are 256 KiB. This thread's: others run other tests. */
const SECONDS_MAX = 4;
/** Characters of a message, however long the input. */
const MESSAGE_LENGTH_MAX = 8_000;
/** Memory of this test's own isolate after any input, in MiB: other tests run in the same process. */
const MEMORY_MIB_MAX = 900;

/** A parser, and what is known of it. */
export interface Subject {
  readonly name: string;
  /** Inputs as they are in use. */
  readonly real: readonly (string | Uint8Array)[];
  /** Whether it takes text: it then gets JSON edited as such, too, where the real inputs are JSON. */
  readonly isText: boolean;
  read(input: Uint8Array, text: string): unknown;
  /** The kinds of error that it documents. None: it never throws. */
  readonly kinds: readonly ErrorKind[];
  /** A share of the usual number of runs, for what is slow. */
  readonly share?: number;
}

/** Gives `subject` its inputs. */
export async function fuzz(subject: Subject): Promise<void> {
  const { name, isText, share = 1 } = subject;
  const real = subject.real.map((input) =>
    typeof input === "string" ? new TextEncoder().encode(input) : input
  );
  for (const input of real) await attempt(subject, input);
  const documents = isText ? real.flatMap((input) => parsedIfJson(new TextDecoder().decode(input))) : [];
  const inputs = fc.oneof(
    { weight: 5, arbitrary: spoilt(real) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300 }) },
    ...isText ? [{ weight: 1, arbitrary: fc.string({ maxLength: 200, unit: "binary" }).map(encode) }] : [],
    ...isText ? [{ weight: 1, arbitrary: fc.jsonValue({ maxDepth: 4 }).map(encodeJson) }] : [],
    ...documents.length > 0 ? [{ weight: 8, arbitrary: edited(documents).map(encodeJson) }] : [],
  );
  const numRuns = Math.max(1, Math.round(RUNS * share));
  const started = process.threadCpuUsage();
  await fc.assert(fc.asyncProperty(inputs, (input) => attempt(subject, input)), { numRuns, seed: SEED });
  if (isText && share === 1) {
    for (const text of endless(new TextDecoder().decode(real[0]))) await attempt(subject, encode(text));
  }
  console.log(`${name}: ${numRuns} inputs, ${secondsSince(started).toFixed(1)} s, seed ${SEED}`);
}

async function attempt({ name, read, kinds }: Subject, input: Uint8Array): Promise<void> {
  const started = process.threadCpuUsage();
  try {
    await read(input, new TextDecoder().decode(input));
  } catch (error) {
    if (!(error instanceof BackupError)) throw error;
    assert.ok(kinds.includes(error.kind), `${name} threw ${error.kind}: ${error.message}`);
    const { length } = error.message + (error.hint ?? "");
    assert.ok(length < MESSAGE_LENGTH_MAX, `${name} gave a message of ${length} characters`);
  }
  const seconds = secondsSince(started);
  assert.ok(seconds < SECONDS_MAX, `${name} worked ${seconds} s on ${input.length} bytes`);
  const { heapTotal, external } = Deno.memoryUsage();
  const memoryMib = (heapTotal + external) / 2 ** 20;
  assert.ok(memoryMib < MEMORY_MIB_MAX, `${name} took ${Math.round(memoryMib)} MiB`);
  requireUntouched(name);
}

const secondsSince = (started: NodeJS.CpuUsage): number => {
  const { user, system } = process.threadCpuUsage(started);
  return (user + system) / 1e6;
};

/** What every object has, before anything was read. */
const BUILT_IN = [Object, Array, Function, Map, String, Number].map(({ prototype }) =>
  [
    prototype,
    Object.getOwnPropertyNames(prototype).length,
  ] as const
);

function requireUntouched(name: string): void {
  for (const [prototype, count] of BUILT_IN) {
    assert.equal(Object.getOwnPropertyNames(prototype).length, count, `${name} changed a built-in object`);
  }
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const encodeJson = (value: unknown): Uint8Array => encode(JSON.stringify(value) ?? "");

function parsedIfJson(text: string): unknown[] {
  try {
    return [JSON.parse(text)];
  } catch {
    return [];
  }
}
