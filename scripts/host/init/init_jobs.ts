/**
 * What the steps of a set-up are told, and what they answer.
 *
 * @module
 */

import type { Config, RsyncDestination, Surroundings } from "../../core/config/config.ts";
import type { NewConfig, NewDestination } from "../../core/config/config_text.ts";
import type { HostKey } from "../../core/keys/host_keys.ts";
import type { KeyOptions } from "../keys/keys.ts";

/** The setup step's job. */
export type SetupJob =
  | { readonly action: "first-run"; readonly around: Surroundings }
  | ({ readonly action: "keys" } & KeysWanted)
  | {
    readonly action: "configuration";
    readonly configFile: string;
    readonly config: NewConfig;
    readonly around: Surroundings;
  }
  | ({ readonly action: "extend" } & Extension);

/** Which keys are to be made. */
export interface KeysWanted {
  /** The folder of the configuration. */
  readonly folder: string;
  readonly hub: string;
  readonly around: Surroundings;
  /** An identity that is there already, instead of a new one. */
  readonly given?: KeyOptions | undefined;
  /** Where a new identity is written to, and where a sheet to print. */
  readonly identityFile?: string | undefined;
  readonly sheetFile?: string | undefined;
  /** Recipients whose identities are kept elsewhere. */
  readonly others?: readonly string[];
  /** Where the backups will be, for a person. */
  readonly places: readonly string[];
}

/** The keys of a hub. */
export interface KeysMade {
  readonly signingKeyFile: string;
  /** Its public half, as in `authorized_keys`, and those that an identity that was given names. */
  readonly signers: readonly string[];
  /** That public half, where an identity that was given does not name it. */
  readonly unnamed?: string | undefined;
  readonly recipients: readonly string[];
  /** The text of the new identity's file; undefined where one was given. */
  readonly identityText: string | undefined;
}

/** A destination that a configuration lacks. */
export interface Extension {
  readonly configFile: string;
  readonly around: Surroundings;
  readonly destination: NewDestination;
}

/** What a first run made. */
export interface SetupReport {
  readonly configFile: string;
  readonly identityFile: string;
}

/** The connect step's job. */
export type ConnectJob =
  | { readonly action: "scan"; readonly destination: RsyncDestination }
  | { readonly action: "pin"; readonly destination: RsyncDestination; readonly key: HostKey }
  | { readonly action: "probe"; readonly destination: RsyncDestination; readonly config: Config };
