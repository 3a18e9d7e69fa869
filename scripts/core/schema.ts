/**
 * JSON checked by valibot's schemas, in words of ours: its own repeat what is wrong, which may be a secret.
 *
 * @module
 */

import * as v from "valibot";
import { closestWord } from "./closest_word.ts";

/** A schema of JSON that gives this. */
export type Schema<Value> = v.GenericSchema<unknown, Value>;

/** The first thing that is wrong with JSON. */
export interface Problem {
  /** Where: keys and indexes, outermost first. */
  readonly path: readonly v.IssuePathItem[];
  readonly message: string;
  /** The key, if that is what is wrong: one that none knows. It is not in the path. */
  readonly unknownKey?: string;
}

/** What a schema makes of JSON, defaults filled in. */
export type Checked<Value> = { readonly value: Value } | { readonly problem: Problem };

/**
 * Checks JSON, or any part of it.
 *
 * @param isOurs Whether all of it is looked at, for the problem that says most. What others made may be nothing but
 * problems, and a note of each took 340 MB for 1 MiB.
 */
export function check<Value>(schema: Schema<Value>, json: unknown, isOurs = false): Checked<Value> {
  const config = { message: wordsFor, abortEarly: !isOurs };
  const { success, output, issues } = v.safeParse(schema, json, config);
  if (!success) {
    // Where a key is mistyped, the one that was meant is missing, too.
    const issue = issues.find(isUnknownKey) ?? issues[0];
    const { message, path = [] } = issue;
    // To valibot a list is an object, too, whose keys are its indexes.
    const list = path.findIndex(({ type, input }) => type === "object" && Array.isArray(input));
    if (list >= 0) return notObject(path.slice(0, list));
    return {
      problem: isUnknownKey(issue)
        ? { path: path.slice(0, -1), message, unknownKey: String(issue.input) }
        : { path, message },
    };
  }
  const list = listForObject(json, output);
  return list ? notObject(list) : { value: output };
}

const notObject = (path: readonly v.IssuePathItem[]) => ({
  problem: { path, message: found("Object", []) },
});

/** Most keys that are named, of those that none knows. */
const UNKNOWN_MAX = 3;

/** A schema with what its value means. */
export const described = <Described extends v.GenericSchema>(schema: Described, text: string) =>
  v.pipe(schema, v.description(text));

/** An object of these keys and no others. */
export const strictObject = <const Entries extends v.ObjectEntries>(entries: Entries) =>
  v.strictObject(entries, (issue) => {
    const object = issue.path?.at(-1)?.input;
    if (!isUnknownKey(issue) || !isObject(object)) return wordsFor(issue);
    const known = Object.keys(entries);
    const unknown = Object.keys(object).values().filter((key) => !known.includes(key)).take(UNKNOWN_MAX).map(
      (key) => {
        const meant = closestWord(key, known);
        return `${JSON.stringify(key)}${meant === undefined ? "" : ` (did you mean "${meant}"?)`}`;
      },
    ).toArray();
    return `Unrecognized key${unknown.length === 1 ? "" : "s"}: ${unknown.join(", ")}`;
  });

/** An object whose keys are names. Where they may be any, as of a machine's own records, see {@linkcode recordOf}. */
export const byName = <Value extends v.GenericSchema>(name: v.GenericSchema<string>, value: Value) =>
  v.record(name, value);

/** An object of any keys, left as it is: valibot's own record leaves out `constructor`, which may be a name, too. */
export const recordOf = <Value>(schema: Schema<Value>, message = "holds what does not belong there") =>
  v.custom<Record<string, Value>>(
    (input) => isObject(input) && Object.values(input).every((value) => v.is(schema, value)),
    message,
  );

/** A list of any length, whose entries are left as they are: copies of them all would take as much memory again. */
export const listOf = <Entry>(schema: Schema<Entry>) =>
  v.pipe(
    v.custom<Entry[]>(Array.isArray, ({ input }) => found("Array", input)),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const input = dataset.value;
      for (const [key, value] of input.entries()) {
        const checked = check(schema, value);
        if (!("problem" in checked)) continue;
        const { path, message } = checked.problem;
        addIssue({ message, path: [{ type: "array", origin: "value", input, key, value }, ...path] });
        return;
      }
    }),
  );

/** A number that JSON can hold, which is any but the infinite ones that it can spell (1e999). */
export const finiteNumber = v.pipe(v.number(), v.finite());

/** A number above zero. */
export const positive = v.pipe(finiteNumber, v.gtValue(0));

/** A number above zero, and no larger than this. */
export const positiveUpTo = (max: number) => v.pipe(positive, v.maxValue(max));

/** A number from one to another. */
export const numberWithin = (min: number, max: number) =>
  v.pipe(v.number(), v.minValue(min), v.maxValue(max));

/** A whole number. */
export const wholeNumber = (min: number, max: number = Number.MAX_SAFE_INTEGER) =>
  v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max));

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isUnknownKey = ({ type, expected }: v.BaseIssue<unknown>): boolean =>
  type === "strict_object" && expected === "never";

function wordsFor({ type, input, expected, requirement }: v.BaseIssue<unknown>): string {
  if (input === undefined) return "is missing";
  switch (type) {
    case "integer":
      return "is not a whole number";
    case "finite":
      return "is too large a number";
    case "min_value":
      return `is less than ${requirement}`;
    case "gt_value":
      return `is not more than ${requirement}`;
    case "max_value":
      return `is more than ${requirement}`;
    case "min_length":
      return Array.isArray(input) ? `has fewer than ${requirement} entries` : "is empty";
    case "max_length":
      return `is longer than ${requirement}`;
    default:
      return found(expected ?? "", input);
  }
}

const found = (expected: string, input: unknown): string =>
  `expected ${TYPES[expected] ?? expected}, found ${typeName(input)}`;

/** What valibot calls types, as people do. */
const TYPES: Readonly<Record<string, string>> = {
  Array: "a list",
  Object: "an object",
  boolean: "true or false",
  number: "a number",
  string: "text",
};

const typeName = (value: unknown): string =>
  value === null
    ? "null"
    : TYPES[Array.isArray(value) ? "Array" : isObject(value) ? "Object" : typeof value]!;

/** Where JSON has a list, and the schema an object: valibot takes one for the other if no key has to be there. */
function listForObject(json: unknown, output: unknown): v.IssuePathItem[] | undefined {
  if (json === output || typeof json !== "object" || json === null) return undefined;
  if (Array.isArray(json) !== Array.isArray(output)) return [];
  const made = output as Record<string, unknown>;
  for (const [key, value] of Object.entries(json)) {
    const path = Object.hasOwn(made, key) ? listForObject(value, made[key]) : undefined;
    if (path) return [{ type: "unknown", origin: "value", input: json, key, value }, ...path];
  }
  return undefined;
}
