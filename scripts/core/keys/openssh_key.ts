/**
 * Ed25519 keys in OpenSSH's formats: the unencrypted private key file ("openssh-key-v1", PROTOCOL.key in
 * https://github.com/openssh/openssh-portable), the public key line, and the `allowed_signers` file (ssh-keygen(1)).
 *
 * Only what a hub's signing key needs: any other key, and any option with a meaning not known here, is refused.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash, createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { concatBytes, equalBytes } from "../bytes.ts";
import { BackupError } from "../errors.ts";
import { armorText, dearmorText, decodeBase64, type Fail, SshReader, sshString, uint32 } from "./ssh_wire.ts";

/** A key to sign with. */
export interface SshPrivateKey {
  /** 32 secret bytes, from which everything else follows (https://www.rfc-editor.org/rfc/rfc8032, section 5.1.5). */
  readonly seed: Uint8Array;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly comment: string;
}

/** One line of an `allowed_signers` file: who may sign what with which key. */
export interface AllowedSigner {
  readonly principals: readonly string[];
  /** The namespaces the key may sign in; undefined if the line does not limit them. */
  readonly namespaces: readonly string[] | undefined;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
}

/** The name of the one key type, and of its signatures (https://www.rfc-editor.org/rfc/rfc8709). */
export const ED25519 = "ssh-ed25519";
/** Length of a seed and of a public key, in bytes. */
export const ED25519_KEY_BYTES = 32;

const KEY_MAGIC = new TextEncoder().encode("openssh-key-v1\0");
const KEY_START = "-----BEGIN OPENSSH PRIVATE KEY-----";
const KEY_END = "-----END OPENSSH PRIVATE KEY-----";
/** The block size of the cipher "none", to which the private section is padded, in bytes. */
const PADDING_BLOCK_BYTES = 8;
/** The longest text any parser here looks at, in characters. */
const TEXT_LENGTH_MAX = 1024 * 1024;
/** The longest comment, in characters. */
const COMMENT_LENGTH_MAX = 1024;

/**
 * Reads an unencrypted Ed25519 private key file. Inverse of {@linkcode formatPrivateKey}.
 *
 * @throws {BackupError} (key) If it is encrypted, of another type or format, or damaged. The text is never repeated.
 */
export function parsePrivateKey(text: string): SshPrivateKey {
  const reader = new SshReader(dearmorPrivateKey(text), unusableKey);
  reader.expectBytes(KEY_MAGIC, "its contents are not an OpenSSH key");
  const cipher = reader.text();
  reader.text();
  reader.string();
  if (cipher !== "none") {
    throw unusableKey("it is encrypted with a passphrase", "`ssh-keygen -p -f FILE` removes it");
  }
  if (reader.uint32() !== 1) throw unusableKey("it does not hold exactly one key");
  const publicKey = parsePublicKeyBlob(reader.string(), unusableKey);
  const secret = new SshReader(reader.string(), unusableKey);
  reader.end();

  if (secret.uint32() !== secret.uint32()) throw unusableKey("its check numbers differ: it is damaged");
  secret.expectBytes(publicKeyBlob(publicKey), "its secret section holds another key");
  const seedAndPublicKey = secret.string();
  const comment = secret.text();
  const padding = secret.rest();
  if (padding.length >= PADDING_BLOCK_BYTES || padding.some((byte, index) => byte !== index + 1)) {
    throw unusableKey("its padding is damaged");
  }
  const seed = seedAndPublicKey.slice(0, ED25519_KEY_BYTES);
  const same = equalBytes(seedAndPublicKey.subarray(ED25519_KEY_BYTES), publicKey) &&
    equalBytes(publicKeyOf(seed), publicKey);
  if (!same) throw unusableKey("its public and private halves do not belong together");
  return { seed, publicKey, comment };
}

/**
 * Writes a private key file as `ssh-keygen` does, unencrypted: it must be stored with mode 0600.
 * Inverse of {@linkcode parsePrivateKey}.
 *
 * @param checkInt Any number from 0 to 2³²−1; OpenSSH takes a random one. Only an encrypted file needs it.
 * @throws {RangeError} If the seed is not 32 bytes long, or the comment is not one line.
 */
export function formatPrivateKey(seed: Uint8Array, comment: string, checkInt: number): string {
  requireComment(comment);
  const publicKey = publicKeyOf(seed);
  const secret = concatBytes(
    uint32(checkInt),
    uint32(checkInt),
    sshString(ED25519),
    sshString(publicKey),
    sshString(concatBytes(seed, publicKey)),
    sshString(comment),
  );
  const missing = -secret.length & (PADDING_BLOCK_BYTES - 1);
  const padding = Uint8Array.from({ length: missing }, (_, index) => index + 1);
  const file = concatBytes(
    KEY_MAGIC,
    sshString("none"),
    sshString("none"),
    sshString(""),
    uint32(1),
    sshString(publicKeyBlob(publicKey)),
    sshString(concatBytes(secret, padding)),
  );
  return armorText(KEY_START, file, KEY_END);
}

/** The public key that belongs to a seed. @throws {RangeError} If the seed is not 32 bytes long. */
export function publicKeyOf(seed: Uint8Array): Uint8Array<ArrayBuffer> {
  const spki = createPublicKey(privateKeyObject(seed)).export({ format: "der", type: "spki" });
  return Uint8Array.from(spki.subarray(-ED25519_KEY_BYTES));
}

/** The seed as `node:crypto` wants it: the only thing before it in PKCS #8 is constant (RFC 8410, section 7). */
export function privateKeyObject(seed: Uint8Array): KeyObject {
  requireKeyLength("a seed", seed);
  const key = concatBytes(Uint8Array.fromHex("302e020100300506032b657004220420"), seed);
  return createPrivateKey({ key: Buffer.from(key), format: "der", type: "pkcs8" });
}

/** The public key as `node:crypto` wants it: SubjectPublicKeyInfo (RFC 8410, section 4). */
export function publicKeyObject(publicKey: Uint8Array): KeyObject {
  requireKeyLength("a public key", publicKey);
  const key = concatBytes(Uint8Array.fromHex("302a300506032b6570032100"), publicKey);
  return createPublicKey({ key: Buffer.from(key), format: "der", type: "spki" });
}

/**
 * Reads a public key line, `ssh-ed25519 AAAA… comment`, such as a `.pub` file holds.
 * Inverse of {@linkcode formatPublicKeyLine}.
 *
 * @throws {BackupError} (key) If it is anything else.
 */
export function parsePublicKeyLine(line: string): { publicKey: Uint8Array; comment: string } {
  if (line.length > TEXT_LENGTH_MAX) throw unusablePublicKey("it is far too long for one");
  const match = /^(\S+)[ \t]+(\S+)(?:[ \t]+([^\r\n]*))?$/.exec(line.trim());
  if (!match) {
    const isPrivate = line.includes("PRIVATE KEY");
    throw unusablePublicKey(isPrivate ? "it is a private key" : "it is not a line of type, key and comment");
  }
  const [, type, base64, comment] = match;
  if (type !== ED25519) throw unusablePublicKey(`its type is ${quoted(type!)}, not ${ED25519}`);
  const blob = decodeBase64(base64!);
  if (!blob) throw unusablePublicKey("its base64 is damaged");
  return { publicKey: parsePublicKeyBlob(blob, unusablePublicKey), comment: comment ?? "" };
}

/**
 * Writes a public key line, without a line feed. Inverse of {@linkcode parsePublicKeyLine}.
 *
 * @throws {RangeError} If the comment is not one line.
 */
export function formatPublicKeyLine(publicKey: Uint8Array, comment: string): string {
  requireComment(comment);
  return `${ED25519} ${publicKeyBlob(publicKey).toBase64()} ${comment}`.trimEnd();
}

/** A public key's fingerprint as `ssh-keygen -l` prints it: `SHA256:` and 43 characters of base64. */
export function fingerprintOf(publicKey: Uint8Array): string {
  const digest = createHash("sha256").update(publicKeyBlob(publicKey)).digest();
  return "SHA256:" + Uint8Array.from(digest).toBase64({ omitPadding: true });
}

/**
 * Reads an `allowed_signers` file: lines of `principal[,principal…] [namespaces="a,b"] ssh-ed25519 AAAA… [comment]`
 * (ssh-keygen(1), section "ALLOWED SIGNERS"). Blank lines and those that start with `#` are skipped.
 * Patterns, and options with which `ssh-keygen` would refuse a signature, are not ignored: they are errors.
 *
 * @throws {BackupError} (key) With the number of the line that is anything else.
 */
export function parseAllowedSigners(text: string): readonly AllowedSigner[] {
  if (text.length > TEXT_LENGTH_MAX) throw unusableSigners("it is far too long for one");
  const signers: AllowedSigner[] = [];
  for (const [index, rawLine] of text.split(/\r?\n/).entries()) {
    const line = rawLine.trim();
    if (line !== "" && !line.startsWith("#")) signers.push(parseAllowedSigner(line, `line ${index + 1}`));
  }
  return signers;
}

function parseAllowedSigner(line: string, at: string): AllowedSigner {
  const match = /^(\S+)[ \t]+(?:(\S*[="]\S*|cert-authority)[ \t]+)?(\S+[ \t]+\S+(?:[ \t].*)?)$/.exec(line);
  if (!match) throw unusableSigners(`${at} is not made of principals, type and key`);
  const [, principals, options, key] = match;
  let publicKey: Uint8Array;
  try {
    ({ publicKey } = parsePublicKeyLine(key!));
  } catch (error) {
    if (error instanceof BackupError) throw unusableSigners(`${at}: ${error.message}`);
    throw error;
  }
  return {
    principals: plainList(principals!, at),
    namespaces: options === undefined ? undefined : parseNamespaces(options, at),
    publicKey,
  };
}

function parseNamespaces(options: string, at: string): readonly string[] {
  const match = /^namespaces="([^"]*)"$/i.exec(options);
  if (!match) throw unusableSigners(`${at} has options other than namespaces="…": ${quoted(options)}`);
  return plainList(match[1]!, at);
}

/** Splits at commas; refuses empty items and ssh's patterns. */
function plainList(list: string, at: string): readonly string[] {
  const items = list.split(",");
  const odd = items.find((item) => !/^[^\s"*?!]+$/.test(item));
  if (odd !== undefined) throw unusableSigners(`${at} has ${quoted(odd)} where a plain name belongs`);
  return items;
}

/** A public key in SSH's wire format (https://www.rfc-editor.org/rfc/rfc8709, section 4). */
export function publicKeyBlob(publicKey: Uint8Array): Uint8Array<ArrayBuffer> {
  requireKeyLength("a public key", publicKey);
  return concatBytes(sshString(ED25519), sshString(publicKey));
}

/** Inverse of {@linkcode publicKeyBlob}. @throws What `fail` makes of it if it is anything but an Ed25519 key. */
export function parsePublicKeyBlob(blob: Uint8Array, fail: Fail): Uint8Array<ArrayBuffer> {
  const reader = new SshReader(blob, fail);
  const type = reader.text();
  if (type !== ED25519) throw fail(`the key's type is ${quoted(type)}, not ${ED25519}`);
  const publicKey = reader.string();
  reader.end();
  if (publicKey.length !== ED25519_KEY_BYTES) {
    throw fail(`the public key has ${publicKey.length} bytes, not 32`);
  }
  return Uint8Array.from(publicKey);
}

function dearmorPrivateKey(text: string): Uint8Array {
  if (text.length > TEXT_LENGTH_MAX) throw unusableKey("it is far too long for one");
  const trimmed = text.trim();
  if (/^(ssh-|ecdsa-|sk-)/.test(trimmed)) {
    throw unusableKey("it is a public key", "give the file without .pub at its end");
  }
  const other = /^-----BEGIN (.{0,40}PRIVATE KEY)-----/.exec(trimmed)?.[1];
  if (other !== undefined && other !== "OPENSSH PRIVATE KEY") {
    throw unusableKey(`it is in the format "${other}", not in OpenSSH's own`);
  }
  const bytes = dearmorText(KEY_START, trimmed, KEY_END);
  if (!bytes) throw unusableKey(other ? "its base64 is damaged" : "it is not an OpenSSH private key");
  return bytes;
}

function requireKeyLength(what: string, { length }: Uint8Array): void {
  if (length !== ED25519_KEY_BYTES) throw new RangeError(`${what} has 32 bytes, not ${length}`);
}

function requireComment(comment: string): void {
  if (comment.length > COMMENT_LENGTH_MAX || /[\r\n\0]/.test(comment)) {
    throw new RangeError(`a comment is one line of at most ${COMMENT_LENGTH_MAX} characters`);
  }
}

/** Text from outside as it may stand in a message: quoted, escaped, not endless. */
function quoted(text: string): string {
  return JSON.stringify(text.length > 40 ? text.slice(0, 40) + "…" : text);
}

function unusableKey(
  state: string,
  hint = "make one with `ssh-keygen -t ed25519 -N '' -f FILE`",
): BackupError {
  return new BackupError(`Cannot use SSH private key: ${state}`, { kind: "key", hint });
}

function unusablePublicKey(state: string): BackupError {
  return new BackupError(`Cannot use SSH public key: ${state}`, {
    kind: "key",
    hint: "give one line such as `ssh-ed25519 AAAA… comment`, as it stands in a .pub file",
  });
}

function unusableSigners(state: string): BackupError {
  return new BackupError(`Cannot read allowed signers: ${state}`, {
    kind: "key",
    hint: 'a line looks like `home-hub namespaces="…" ssh-ed25519 AAAA…`',
  });
}
