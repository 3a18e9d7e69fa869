/**
 * SSH signatures of files, as `ssh-keygen -Y sign` and `-Y verify` make and check them (PROTOCOL.sshsig in
 * https://github.com/openssh/openssh-portable): Ed25519 over the SHA-512 of the message, within a namespace.
 *
 * A signature names the key that made it. It proves that this key signed this message, not that the key is trusted:
 * that is for the caller to decide.
 *
 * @module
 */

import { createHash, sign, verify } from "node:crypto";
import { concatBytes } from "../bytes.ts";
import { BackupError, ifPossible } from "../errors.ts";
import {
  ED25519,
  parsePublicKeyBlob,
  privateKeyObject,
  publicKeyBlob,
  publicKeyObject,
  publicKeyOf,
} from "./openssh_key.ts";
import { armorText, dearmorText, SshReader, sshString, uint32 } from "./ssh_wire.ts";

const START = "-----BEGIN SSH SIGNATURE-----";
const END = "-----END SSH SIGNATURE-----";
const MAGIC = new TextEncoder().encode("SSHSIG");
const VERSION = 1;
const HASH = "sha512";
const SIGNATURE_BYTES = 64;
/** The longest armored signature that is looked at, in characters. One with a short namespace has about 300. */
const ARMORED_LENGTH_MAX = 4096;

/**
 * Signs `message` within `namespace`. Inverse of {@linkcode verifySsh}.
 *
 * @param seed The 32 secret bytes of an Ed25519 key.
 * @param namespace What the signature is for, so that it cannot be passed off as one for something else. Not empty.
 * @returns The armored signature, as a `.sig` file holds it, with a final line feed.
 */
export function signSsh(seed: Uint8Array, namespace: string, message: Uint8Array): string {
  if (namespace === "") throw new RangeError("the namespace of a signature is empty");
  const signature = sign(null, signedData(namespace, message), privateKeyObject(seed));
  const blob = concatBytes(
    MAGIC,
    uint32(VERSION),
    sshString(publicKeyBlob(publicKeyOf(seed))),
    sshString(namespace),
    sshString(""),
    sshString(HASH),
    sshString(concatBytes(sshString(ED25519), sshString(signature))),
  );
  return armorText(START, blob, END);
}

/**
 * Checks that `armored` is a signature of `message` within `namespace`. Inverse of {@linkcode signSsh}.
 *
 * @returns The key that signed, 32 bytes: whether it is a trusted one is still to be decided.
 * @throws {BackupError} (integrity) If it is not, or is made in any way but the one {@linkcode signSsh} uses.
 */
export function verifySsh(
  armored: string,
  namespace: string,
  message: Uint8Array,
): { publicKey: Uint8Array } {
  if (armored.length > ARMORED_LENGTH_MAX) throw refused("it is far too long for one");
  const blob = dearmorText(START, armored, END);
  if (!blob) throw refused("it is not an armored SSH signature");
  const reader = new SshReader(blob, refused);
  reader.expectBytes(MAGIC, "its contents are not an SSH signature");
  const version = reader.uint32();
  if (version !== VERSION) throw refused(`its version is ${version}, not ${VERSION}`);
  const publicKey = parsePublicKeyBlob(reader.string(), refused);
  const signedNamespace = reader.text();
  if (signedNamespace !== namespace) {
    throw refused(`its namespace is ${JSON.stringify(signedNamespace)}, not ${JSON.stringify(namespace)}`);
  }
  if (reader.string().length > 0) throw refused("its reserved field is not empty");
  const hash = reader.text();
  if (hash !== HASH) throw refused(`its hash is ${JSON.stringify(hash)}, not ${HASH}`);
  const signatureReader = new SshReader(reader.string(), refused);
  reader.end();
  const algorithm = signatureReader.text();
  if (algorithm !== ED25519) throw refused(`its algorithm is ${JSON.stringify(algorithm)}, not ${ED25519}`);
  const signature = signatureReader.string();
  signatureReader.end();
  if (signature.length !== SIGNATURE_BYTES) throw refused(`it has ${signature.length} bytes, not 64`);
  if (!isSignedBy(publicKey, signedData(namespace, message), signature)) {
    throw refused("it does not belong to this content");
  }
  return { publicKey };
}

/** What is really signed: everything but the message as it is, and of the message its SHA-512. */
function signedData(namespace: string, message: Uint8Array): Uint8Array {
  const digest = createHash(HASH).update(message).digest();
  return concatBytes(MAGIC, sshString(namespace), sshString(""), sshString(HASH), sshString(digest));
}

/** Bytes that are no point on the curve make `node:crypto` throw on some versions: no key, no signature. */
function isSignedBy(publicKey: Uint8Array, data: Uint8Array, signature: Uint8Array): boolean {
  return ifPossible(() => verify(null, data, publicKeyObject(publicKey), signature)) ?? false;
}

function refused(state: string): BackupError {
  return new BackupError(`Cannot verify SSH signature: ${state}`, {
    kind: "integrity",
    hint: "the content or its signature was changed, or was signed by another program or for another purpose",
  });
}
