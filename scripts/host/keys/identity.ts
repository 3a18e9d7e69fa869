/**
 * age identities: reading them, opening files with them, making new ones. The half of age that holds secrets.
 *
 * Only what restores, proves, sets up or looks for identities that should not be there may import this module; what
 * encrypts must not (see `age.ts`).
 * No error repeats any part of an identity, of a passphrase, or of the text they were read from.
 *
 * @module
 */

import {
  armor,
  Decrypter,
  generateHybridIdentity,
  generateX25519Identity,
  identityToRecipient,
} from "age-encryption";
import { BackupError, reasonOf } from "../../core/errors.ts";
import { HEADER_BYTES_MAX, parseRecipient, type Recipient } from "./age.ts";
import { ARMOR_START, isEncryptedIdentityFile, VERSION_LINE } from "./identity_bytes.ts";

export { HEADER_BYTES_MAX };

declare const brand: unique symbol;
/** A secret key: `AGE-SECRET-KEY-1…` (X25519) or `AGE-SECRET-KEY-PQ-1…` (hybrid). */
export type Identity = string & { readonly [brand]: "Identity" };

/** The longest identity file that is read, in bytes: the same for its text and for its encrypted form. */
const IDENTITY_FILE_BYTES_MAX = 1024 * 1024;
/** As much as a header of a few recipients takes, in bytes. */
const HEADER_BYTES_FEW = 4096;

/**
 * Reads the identities in the text of an identity file, as `age-keygen` writes it: one a line, blank lines and
 * lines that start with `#` are skipped, lines may end in CRLF.
 *
 * @throws {BackupError} (key) If a line is anything else (the line is named, not shown), or there is no identity.
 */
export function readIdentities(text: string): readonly Identity[] {
  if (text.length > IDENTITY_FILE_BYTES_MAX) throw unreadable("it is far too long for one");
  if (isEncryptedIdentityFile(new TextEncoder().encode(text.slice(0, 4096)))) {
    throw unreadable("it is encrypted", "decrypt it with its passphrase first");
  }
  const identities: Identity[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const trimmed = line.trim();
    if (trimmed !== "" && !trimmed.startsWith("#")) identities.push(parseIdentity(trimmed, index + 1));
  }
  if (identities.length === 0) throw unreadable("no identity is in it");
  return identities;
}

function parseIdentity(line: string, lineNumber: number): Identity {
  const at = `line ${lineNumber}`;
  if (/^-----BEGIN .*PRIVATE KEY-----$/.test(line) || /^(ssh-|ecdsa-|sk-)/.test(line)) {
    throw unreadable(`${at} is an SSH key, and only age's own keys are supported`);
  }
  if (line.startsWith("age1")) {
    throw unreadable(
      `${at} is a recipient, the public half`,
      "look for the file that holds AGE-SECRET-KEY-…",
    );
  }
  if (line.startsWith("AGE-PLUGIN-")) throw unreadable(`${at} needs a plugin`);
  if (!/^AGE-SECRET-KEY-(PQ-)?1/.test(line)) throw unreadable(`${at} is not an identity`);
  try {
    new Decrypter().addIdentity(line);
  } catch {
    // The package's own message may quote the line.
    throw unreadable(`${at} is mistyped or cut`, "compare it with another copy, letter by letter");
  }
  return line as Identity;
}

/**
 * The text of an identity file that `age -p` has encrypted, binary or armored. Takes about a second, by design of scrypt.
 *
 * @throws {BackupError} (key) If the passphrase is wrong, or the file is not encrypted with a passphrase;
 * (integrity) if it is damaged.
 */
export async function decryptIdentityFile(bytes: Uint8Array, passphrase: string): Promise<string> {
  if (bytes.length > IDENTITY_FILE_BYTES_MAX) throw unreadable("it is far too long for one");
  if (!isEncryptedIdentityFile(bytes)) {
    throw unreadable("it is not an encrypted one", "give it without a passphrase, or choose another file");
  }
  let isForPassphrase = true;
  let isOpened = true;
  const decrypter = new Decrypter();
  decrypter.addPassphrase(passphrase);
  decrypter.addIdentity({
    // Asked only after the passphrase has failed.
    unwrapFileKey(stanzas) {
      isForPassphrase = stanzas.some((stanza) => stanza.args[0] === "scrypt");
      isOpened = false;
      return null;
    },
  });
  try {
    const start = new TextDecoder().decode(bytes.subarray(0, 4096)).trimStart();
    const file = start.startsWith(ARMOR_START) ? armor.decode(new TextDecoder().decode(bytes)) : bytes;
    return await decrypter.decrypt(file, "text");
  } catch (error) {
    if (!isForPassphrase) throw unreadable("it is encrypted to a recipient, not with a passphrase");
    if (!isOpened) {
      throw unreadable(
        "the passphrase is wrong",
        "run it again; capital letters and the keyboard's layout count",
      );
    }
    throw new BackupError(`Cannot read identity file: it is damaged (${reasonOf(error)})`, {
      kind: "integrity",
      hint: "use another copy of it",
    });
  }
}

/** What the header of an age file says. */
export interface OpenHeader {
  /** Its length in bytes: the payload follows. */
  readonly headerBytes: number;
  /** The key of this one file, for what reads its payload. */
  readonly fileKey: Uint8Array;
}

/**
 * Opens the header of an age file, which proves that one of `identities` opens the file. Says nothing about the payload.
 *
 * @param start The file's first bytes, which must hold its whole header: {@linkcode HEADER_BYTES_MAX} always do.
 * @throws {BackupError} (key) If none of `identities` opens it; (integrity) if it is not an age file, or its header
 * is damaged.
 */
export async function openHeader(start: Uint8Array, identities: readonly Identity[]): Promise<OpenHeader> {
  const headerBytes = headerBytesOf(start);
  if (headerBytes === undefined) throw unopenable("it ends within its header");
  return { headerBytes, fileKey: await decryptHeader(start.subarray(0, headerBytes), identities) };
}

/** Makes a new identity, with the recipient that belongs to it. */
export async function generateIdentity(
  type: "x25519" | "hybrid" = "x25519",
): Promise<{ identity: Identity; recipient: Recipient }> {
  const identity =
    await (type === "hybrid" ? generateHybridIdentity() : generateX25519Identity()) as Identity;
  return { identity, recipient: await recipientOf(identity) };
}

/** The recipient that belongs to an identity: its public half. */
export async function recipientOf(identity: Identity): Promise<Recipient> {
  return parseRecipient(await identityToRecipient(identity));
}

/**
 * The length of the header at the start of `bytes`, or undefined if its end is not there yet.
 * The last line of a header is the first that starts with `---`.
 *
 * @throws {BackupError} (integrity) If `bytes` cannot be the start of an age file.
 */
function headerBytesOf(bytes: Uint8Array): number | undefined {
  // Most are short, and to decode 64 KiB takes as long as the rest of opening one.
  for (const most of [HEADER_BYTES_FEW, HEADER_BYTES_MAX]) {
    const found = findHeaderEnd(bytes.subarray(0, most));
    if (found !== undefined) return found;
  }
  if (bytes.length >= HEADER_BYTES_MAX) {
    throw unopenable(`its header does not end within ${HEADER_BYTES_MAX} bytes`);
  }
  return undefined;
}

function findHeaderEnd(bytes: Uint8Array): number | undefined {
  const text = new TextDecoder("latin1").decode(bytes);
  if (!text.startsWith(VERSION_LINE.slice(0, text.length))) {
    if (text.trimStart().startsWith(ARMOR_START)) throw unopenable("it is armored, as text");
    throw unopenable(`it does not start with "${VERSION_LINE.trim()}"`);
  }
  const lastLine = text.indexOf("\n---");
  const end = lastLine < 0 ? -1 : text.indexOf("\n", lastLine + 1);
  return end >= 0 ? end + 1 : undefined;
}

/** The file key in a header. */
async function decryptHeader(header: Uint8Array, identities: readonly Identity[]): Promise<Uint8Array> {
  const decrypter = new Decrypter();
  for (const identity of identities) decrypter.addIdentity(identity);
  let isOpened = true;
  decrypter.addIdentity({
    // Asked only after every identity before it has failed.
    unwrapFileKey() {
      isOpened = false;
      return null;
    },
  });
  try {
    return await decrypter.decryptHeader(header);
  } catch (error) {
    if (isOpened) throw unopenable(`its header is damaged (${reasonOf(error)})`);
    throw new BackupError(
      `Cannot decrypt age file: none of the identities given (${identities.length}) opens it`,
      { kind: "key", hint: "give the identity that belongs to one of the recipients it was encrypted to" },
    );
  }
}

function unopenable(state: string): BackupError {
  return new BackupError(`Cannot decrypt age file: ${state}`, {
    kind: "integrity",
    hint: "it may be damaged, or not a backup at all: use another copy of it",
  });
}

function unreadable(
  state: string,
  hint = "an identity file holds lines such as AGE-SECRET-KEY-1…",
): BackupError {
  return new BackupError(`Cannot read identity file: ${state}`, { kind: "key", hint });
}
