/**
 * The text of a new configuration, with comments for who edits it later.
 *
 * @module
 */

/** What a new configuration says; what is left out has its default. */
export interface NewConfig {
  readonly hub: string;
  readonly recipients: readonly string[];
  readonly signingKeyFile: string;
  /** Public key lines. */
  readonly signers: readonly string[];
  /** Only where an identity has to stay on the hub for the time being. */
  readonly identityFile?: string;
  /** The hub's folder and database, where they are not in the usual place. */
  readonly hapiHome?: string | undefined;
  readonly database?: string | undefined;
  readonly destinations: readonly NewDestination[];
}

/** A destination as a new configuration writes it. */
export type NewDestination =
  | {
    readonly kind: "rsync";
    readonly name: string;
    readonly target: string;
    readonly port: number;
    readonly identityFile: string;
    readonly knownHostsFile: string;
  }
  | { readonly kind: "folder"; readonly name: string; readonly path: string };

/** The text, which `parseConfig` reads. */
export function configText(config: NewConfig): string {
  const { hub, recipients, identityFile, signingKeyFile, signers, hapiHome, database, destinations } = config;
  const json = (value: unknown) => JSON.stringify(value);
  const list = (items: readonly unknown[]) =>
    items.length === 0 ? "[]" : `[\n${items.map((item) => `    ${json(item)}`).join(",\n")}\n  ]`;
  return [
    "// hapi-backup's configuration: `hapi-backup config schema` lists every key, `config check` reads it again.",
    "{",
    `  "hub": ${json(hub)},`,
    ...hapiHome === undefined ? [] : [`  "hapiHome": ${json(hapiHome)},`],
    ...database === undefined ? [] : [`  "database": ${json(database)},`],
    recipients.length > 1
      ? "  // Who can open the snapshots: their identities are kept in different places, none of them here."
      : "  // Who can open the snapshots. Add a second recipient, whose identity is kept in another place.",
    `  "recipients": ${list(recipients)},`,
    ...identityFile === undefined ? [] : [
      "  // Move this file off the hub, then remove this line: the hub must not be able to read its own backups.",
      `  "identityFile": ${json(identityFile)},`,
    ],
    `  "signingKeyFile": ${json(signingKeyFile)},`,
    `  "signers": ${list(signers)},`,
    ...destinations.length > 0 ? ["  // Where snapshots are shipped to."] : [
      "  // Where snapshots are shipped to. Until there is one, nothing is off this machine:",
      "  // `hapi-backup init --storage user@host:` adds one.",
    ],
    `  "destinations": ${list(destinations)}`,
    "}",
    "",
  ].join("\n");
}
