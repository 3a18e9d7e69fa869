/**
 * Encryption to age recipients (https://c2sp.org/age): the half of age that holds no secret.
 *
 * This module must never import `identity.ts`: a program that only encrypts cannot read what it wrote.
 *
 * The `age-encryption` package makes the header; the payload goes through the native cipher of `age_payload.ts`.
 *
 * @module
 */

import { Encrypter } from "age-encryption";
import { BackupError, reasonOf } from "../../core/errors.ts";
import {
  type Codec,
  FILE_KEY_BYTES,
  PAYLOAD_NONCE_BYTES,
  payloadBytesOf,
  PayloadEncrypter,
} from "../../core/keys/age_payload.ts";

declare const brand: unique symbol;
/** A public key to encrypt to: `age1…` (X25519) or `age1pq1…` (hybrid of ML-KEM-768 and X25519). */
export type Recipient = string & { readonly [brand]: "Recipient" };

/**
 * The longest header this program writes or reads, in bytes: room for about 600 recipients, or 40 post-quantum ones.
 * The format has no limit of its own, so without one a damaged file would be read whole in search of its header's end.
 */
export const HEADER_BYTES_MAX = 64 * 1024;

/** An encryption under way: first write `header`, then what `push` and `finish` return. */
export interface AgeEncrypter extends Codec {
  readonly header: Uint8Array<ArrayBuffer>;
}

const RECIPIENT_HINT = "a recipient looks like age1… or age1pq1…; `age-keygen -y` prints that of an identity";

/**
 * Reads a recipient, checksum included. Text that could hold a secret is not repeated in the error.
 *
 * @throws {BackupError} (config) If it is not an X25519 or hybrid recipient.
 */
export function parseRecipient(text: string): Recipient {
  const recipient = text.trim();
  if (/^age-(secret-key|plugin)-/i.test(recipient)) {
    throw unusable("recipient", "it is an identity, which is secret and does not belong here");
  }
  if (/^(ssh-|ecdsa-|sk-)/.test(recipient)) {
    throw unusable("recipient", "it is an SSH key, and only age's own keys are supported");
  }
  if (!recipient.startsWith("age1")) throw unusable("recipient", 'it does not start with "age1"');
  const shown = recipient.length > 80 ? recipient.slice(0, 80) + "…" : recipient;
  // A bech32 string splits at its last "1": any other prefix belongs to a plugin or to a hardware key.
  const type = recipient.slice(0, recipient.lastIndexOf("1"));
  if (type !== "age" && type !== "age1pq") {
    throw unusable(
      `recipient ${JSON.stringify(shown)}`,
      "it is mistyped, or of a type that needs a plugin or a hardware key",
    );
  }
  try {
    new Encrypter().addRecipient(recipient);
  } catch {
    throw unusable(`recipient ${JSON.stringify(shown)}`, "it is mistyped or cut");
  }
  return recipient as Recipient;
}

/**
 * Starts to encrypt one file to all of `recipients`: any one of their identities will open it.
 * Post-quantum and ordinary recipients do not mix, because the file would be no safer than the weaker of them:
 * https://c2sp.org/age says SHOULD NOT, and age's own program refuses as well.
 *
 * @throws {BackupError} (config) If there is no recipient, one is malformed, or the two types are mixed.
 */
export async function createEncrypter(recipients: readonly string[]): Promise<AgeEncrypter> {
  const parsed = recipients.map(parseRecipient);
  if (parsed.length === 0) throw unusable("recipients", "there are none");
  const hybrids = parsed.filter((recipient) => recipient.startsWith("age1pq1")).length;
  if (hybrids !== 0 && hybrids !== parsed.length) {
    throw new BackupError(
      "Cannot encrypt to recipients: post-quantum (age1pq1…) and ordinary ones are mixed",
      {
        kind: "config",
        hint: "use only one of the two types: with both, the file would not resist a quantum computer",
      },
    );
  }
  const { header, fileKey } = await createHeader(parsed);
  const payload = new PayloadEncrypter(fileKey, randomBytes(PAYLOAD_NONCE_BYTES));
  return { header, push: (bytes) => payload.push(bytes), finish: () => payload.finish() };
}

/**
 * Has the package encrypt nothing, and takes from it the header and the file key.
 * The package's own payload is dropped with its nonce: the same nonce again, under other contents, would betray both.
 */
async function createHeader(
  recipients: readonly Recipient[],
): Promise<{ header: Uint8Array<ArrayBuffer>; fileKey: Uint8Array }> {
  const encrypter = new Encrypter();
  let fileKey = new Uint8Array();
  for (const recipient of recipients) encrypter.addRecipient(recipient);
  encrypter.addRecipient({
    wrapFileKey(key) {
      fileKey = Uint8Array.from(key);
      return [];
    },
  });
  let file: Uint8Array<ArrayBuffer>;
  try {
    file = Uint8Array.from(await encrypter.encrypt(new Uint8Array()));
  } catch (error) {
    throw unusable("recipients", `one of them is not a sound public key (${reasonOf(error)})`);
  }
  const header = file.slice(0, file.length - payloadBytesOf(0));
  if (fileKey.length !== FILE_KEY_BYTES) throw new Error("the age package did not hand out its file key");
  if (header.length > HEADER_BYTES_MAX) {
    throw unusable("recipients", `there are too many: their header would take ${header.length} bytes`);
  }
  return { header, fileKey };
}

function randomBytes(length: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(length));
}

function unusable(what: string, state: string): BackupError {
  return new BackupError(`Cannot encrypt to ${what}: ${state}`, { kind: "config", hint: RECIPIENT_HINT });
}
