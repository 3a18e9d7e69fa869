/**
 * How SSH writes keys and signatures: its wire format, and base64 between two marks.
 *
 * @module
 */

import { concatBytes, equalBytes } from "../bytes.ts";
import { ifPossible } from "../errors.ts";

/** Makes the error for a given state. */
export type Fail = (state: string) => Error;

/** Reads SSH's wire format (https://www.rfc-editor.org/rfc/rfc4251, section 5), never past the end. */
export class SshReader {
  #rest: Uint8Array;
  readonly #fail: Fail;

  constructor(bytes: Uint8Array, fail: Fail) {
    this.#rest = bytes;
    this.#fail = fail;
  }

  /** A big-endian number of 4 bytes. */
  uint32(): number {
    const bytes = this.#take(4);
    return new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0);
  }

  /** A length of 4 bytes, then that many bytes: a view of the input, not a copy. */
  string(): Uint8Array {
    return this.#take(this.uint32());
  }

  /** A string that is valid UTF-8. */
  text(): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.string());
    } catch (error) {
      if (error instanceof TypeError) throw this.#fail("a text in it is not UTF-8");
      throw error;
    }
  }

  /** Passes over `expected`, or fails with `state`. */
  expectBytes(expected: Uint8Array, state: string): void {
    if (this.#rest.length < expected.length || !equalBytes(this.#take(expected.length), expected)) {
      throw this.#fail(state);
    }
  }

  /** Everything that is left. */
  rest(): Uint8Array {
    return this.#take(this.#rest.length);
  }

  /** Fails if anything is left. */
  end(): void {
    if (this.#rest.length > 0) throw this.#fail(`${this.#rest.length} bytes follow where it should end`);
  }

  #take(length: number): Uint8Array {
    if (length > this.#rest.length) throw this.#fail("it ends too early");
    const taken = this.#rest.subarray(0, length);
    this.#rest = this.#rest.subarray(length);
    return taken;
  }
}

/** A string in SSH's wire format. Inverse of `SshReader.string` and `SshReader.text`. */
export function sshString(value: Uint8Array | string): Uint8Array<ArrayBuffer> {
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
  return concatBytes(uint32(bytes.length), bytes);
}

/** A number in SSH's wire format. Inverse of `SshReader.uint32`. */
export function uint32(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

/** Bytes as base64 in lines of 70 characters between two marks, as OpenSSH writes them. */
export function armorText(startMark: string, bytes: Uint8Array, endMark: string): string {
  const lines = bytes.toBase64().match(/.{1,70}/g) ?? [];
  return [startMark, ...lines, endMark, ""].join("\n");
}

/**
 * Inverse of {@linkcode armorText}; lines may have any length and end in CRLF.
 * Returns undefined if the marks or the base64 between them are not right, or if text stands around them.
 */
export function dearmorText(
  startMark: string,
  text: string,
  endMark: string,
): Uint8Array<ArrayBuffer> | undefined {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  if (lines.at(-1) === "") lines.pop();
  if (lines.shift() !== startMark || lines.pop() !== endMark) return undefined;
  return decodeBase64(lines.join(""));
}

/** Decodes base64 that is canonical and has no blanks in it; undefined for anything else. */
export function decodeBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return undefined;
  return ifPossible(() => Uint8Array.fromBase64(text, { lastChunkHandling: "strict" }));
}
