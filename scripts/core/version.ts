/** The program and its version, as seals name their writer. Equal to the version in deno.json; a test compares them. */
export const VERSION = "1.0.0";
/** `hapi-backup 1.0.0`. */
export const PROGRAM = `hapi-backup ${VERSION}`;
