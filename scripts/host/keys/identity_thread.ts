/**
 * Reads identities, here or on another thread: age's package takes a thread 40 ms to load, and in a step the program's
 * own has the time.
 *
 * @module
 */

import { receivedError, type SentError, sentError } from "../../core/errors.ts";
import type { Host } from "../host.ts";
import type { Identity } from "./identity.ts";

/** An identity file. */
interface IdentityFile {
  readonly bytes: Uint8Array;
  /** Given where a passphrase protects it. */
  readonly passphrase: string | undefined;
}

/** What is in one. */
interface IdentityContent {
  readonly identities: readonly Identity[];
  /** The signers that its comments name, as public key lines. */
  readonly signers: readonly string[];
}

type FromThread = IdentityContent | { readonly error: SentError };

/** Reads an identity file. @throws {BackupError} (key) If there is no identity in it, or it cannot be read. */
export async function openIdentityFile(
  { startThread }: Pick<Host, "startThread">,
  file: IdentityFile,
): Promise<IdentityContent> {
  if (!startThread) return await read(file);
  const port = startThread("identity reader");
  const answer = Promise.withResolvers<IdentityContent>();
  port.onmessage = ({ data }: MessageEvent<FromThread>) => {
    if ("error" in data) answer.reject(receivedError(data.error));
    else answer.resolve(data);
  };
  port.postMessage(file);
  try {
    return await answer.promise;
  } finally {
    port.close();
  }
}

/** Answers {@linkcode openIdentityFile} from the far end of its port. */
export function serveIdentities(port: MessagePort): void {
  const say = (answer: FromThread) => port.postMessage(answer);
  port.onmessage = ({ data }: MessageEvent<IdentityFile>) => {
    read(data).then(say, (error) => say({ error: sentError(error) }));
  };
}

async function read({ bytes, passphrase }: IdentityFile): Promise<IdentityContent> {
  const [{ decryptIdentityFile, readIdentities }, { signersIn }] = await Promise.all([
    import("./identity.ts"),
    import("../../core/snapshot/trust.ts"),
  ]);
  const text = passphrase === undefined
    ? new TextDecoder().decode(bytes)
    : await decryptIdentityFile(bytes, passphrase);
  return { identities: readIdentities(text), signers: signersIn(text) };
}
