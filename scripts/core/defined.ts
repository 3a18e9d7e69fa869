/**
 * Optional properties as TypeScript's `exactOptionalPropertyTypes` wants them: left out, not there and undefined.
 *
 * @module
 */

/** A type without the properties that may be undefined being so: those are optional instead. */
export type Defined<Value> =
  & { readonly [Key in keyof Value as undefined extends Value[Key] ? never : Key]: Value[Key] }
  & {
    readonly [Key in keyof Value as undefined extends Value[Key] ? Key : never]?: Exclude<
      Value[Key],
      undefined
    >;
  };

/** Without the keys that are there but undefined. */
export function defined<Value extends object>(value: Value): Defined<Value> {
  return Object.fromEntries(Object.entries(value).filter(([, part]) => part !== undefined)) as never;
}
