/**
 * Words for a POSIX shell.
 *
 * @module
 */

/** A text as one word, whatever is in it. */
export const shellQuote = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
