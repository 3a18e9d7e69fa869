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

type FromThread = { readonly identities: readonly Identity[] } | { readonly error: SentError };

/** The identities in a file. @throws {BackupError} (key) If there is none, or they cannot be read. */
export async function identitiesIn(
  { startThread }: Pick<Host, "startThread">,
  file: IdentityFile,
): Promise<readonly Identity[]> {
  if (!startThread) return await read(file);
  const port = startThread("identity reader");
  const answer = Promise.withResolvers<readonly Identity[]>();
  port.onmessage = ({ data }: MessageEvent<FromThread>) => {
    if ("error" in data) answer.reject(receivedError(data.error));
    else answer.resolve(data.identities);
  };
  port.postMessage(file);
  try {
    return await answer.promise;
  } finally {
    port.close();
  }
}

/** Answers {@linkcode identitiesIn} from the far end of its port. */
export function serveIdentities(port: MessagePort): void {
  const say = (answer: FromThread) => port.postMessage(answer);
  port.onmessage = ({ data }: MessageEvent<IdentityFile>) => {
    read(data).then((identities) => say({ identities }), (error) => say({ error: sentError(error) }));
  };
}

async function read({ bytes, passphrase }: IdentityFile): Promise<readonly Identity[]> {
  const { decryptIdentityFile, readIdentities } = await import("./identity.ts");
  if (passphrase !== undefined) return await decryptIdentityFile(bytes, passphrase);
  return readIdentities(new TextDecoder().decode(bytes));
}
