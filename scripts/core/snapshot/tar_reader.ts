/**
 * Reads a tar as `packFiles` writes it: ustar headers and, before some, a pax header with what they have no room for.
 *
 * Not with modern-tar, which writes it: that takes half a minute for a forged pax header of 512 KiB. Here no tar takes
 * more memory than a chunk of it and {@linkcode PAX_BYTES_MAX}, nor more time than its length.
 *
 * Source of the format: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html.
 *
 * @module
 */

import { concatBytes } from "../bytes.ts";
import { defined } from "../defined.ts";
import type { BackupError } from "../errors.ts";

const BLOCK_BYTES = 512;
/** Ours hold a path of at most 4096 bytes, a size and a time (bytes). */
const PAX_BYTES_MAX = 8 * 1024;

/** What else than a file there may be, by its type flag. */
const OTHER_TYPES: Readonly<Record<string, string>> = {
  "1": "link",
  "2": "symlink",
  "3": "character device",
  "4": "block device",
  "5": "directory",
  "6": "fifo",
};

/** What is in a tar. */
export interface TarMember {
  readonly name: string;
  /** `file`, or what else it is. */
  readonly type: string;
  /** Size of its content in bytes. */
  readonly bytes: number;
  /** Its content, once, in pieces of any size. What is not read of it is passed over. */
  readonly content: AsyncIterable<Uint8Array>;
}

/** Makes the error for what is not such a tar. */
type Fail = (state: string) => BackupError;

/**
 * Yields the members of a tar, each as long as the next is not asked for, and reads `chunks` to their end.
 *
 * @throws {BackupError} What `fail` makes of why it is no tar of ours; what `chunks` throw.
 */
export async function* readTar(
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  fail: Fail,
): AsyncGenerator<TarMember> {
  const input = new Input(chunks, fail);
  try {
    for (let block = await input.take(BLOCK_BYTES); !isZero(block); block = await input.take(BLOCK_BYTES)) {
      let header = parseHeader(block, fail);
      const pax = header.flag === "x" ? await takePax(input, header.bytes, fail) : undefined;
      if (pax) header = parseHeader(await input.take(BLOCK_BYTES), fail);
      const { name, flag, bytes } = { ...header, ...pax };
      input.left = bytes;
      const type = flag === "0" ? "file" : OTHER_TYPES[flag] ?? `member of type ${JSON.stringify(flag)}`;
      yield { name, type, bytes, content: input.content() };
      for await (const _ of input.content()) { /* What nobody has read. */ }
      await input.take(paddingOf(bytes));
    }
    // Two blocks of zeros end it, and nothing but more of them may follow.
    let rest: Uint8Array | undefined = await input.take(BLOCK_BYTES);
    for (; rest; rest = await input.piece()) if (!isZero(rest)) throw fail("it goes on behind its end");
  } finally {
    await input.close();
  }
}

const paddingOf = (bytes: number): number => (BLOCK_BYTES - bytes % BLOCK_BYTES) % BLOCK_BYTES;
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

/** What a header says of a member. */
interface Header {
  readonly name: string;
  readonly flag: string;
  readonly bytes: number;
}

function parseHeader(block: Uint8Array, fail: Fail): Header {
  const text = (from: number, length: number) => {
    const field = block.subarray(from, from + length);
    const end = field.indexOf(0);
    return decode(end < 0 ? field : field.subarray(0, end));
  };
  const octal = (from: number, length: number) => {
    const digits = /^ *([0-7]+) *$/.exec(text(from, length))?.[1];
    if (digits === undefined) throw fail("a number in a header is none");
    return parseInt(digits, 8);
  };
  const [checksumAt, checksumBytes] = [148, 8];
  const spaces = checksumBytes * " ".charCodeAt(0);
  const sum = block.reduce(
    (sum, byte, at) => at >= checksumAt && at < checksumAt + checksumBytes ? sum : sum + byte,
    spaces,
  );
  if (octal(checksumAt, checksumBytes) !== sum) throw fail("a header has not its checksum");
  // The tar program's own headers, with spaces here, have no prefix.
  const prefix = text(257, 6) === "ustar" ? text(345, 155) : "";
  const name = text(0, 100);
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    flag: text(156, 1),
    bytes: octal(124, 12),
  };
}

/** Takes a pax header: what it says of the member after it counts more than that member's own header. */
async function takePax(input: Input, bytes: number, fail: Fail): Promise<Partial<Header>> {
  if (bytes > PAX_BYTES_MAX) {
    throw fail(`a pax header has ${bytes} bytes, and ours have ${PAX_BYTES_MAX} at most`);
  }
  const records = await input.take(bytes);
  await input.take(paddingOf(bytes));
  const said = new Map<string, string>();
  // Each is "25 mtime=-1234567890.1234\n": its own length in bytes, a key and a value.
  for (let at = 0; at < bytes;) {
    const [start, length] = /^(\d{1,4}) /.exec(decode(records.subarray(at, at + 5))) ?? [""];
    const end = at + Number(length);
    const record = /^([^=]+)=([^]*)\n$/.exec(decode(records.subarray(at + start.length, end)));
    if (!record || end > bytes) throw fail("a pax header is none");
    said.set(record[1]!, record[2]!);
    at = end;
  }
  const [name, size] = [said.get("path"), said.get("size")];
  if (size !== undefined && !/^\d{1,15}$/.test(size)) throw fail("a size in a pax header is none");
  return { ...defined({ name }), ...(size === undefined ? {} : { bytes: Number(size) }) };
}

/** Chunks as if they were one, of which so many bytes are taken as are wanted. */
class Input {
  readonly #chunks: AsyncGenerator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array();
  readonly #fail: Fail;
  /** Bytes of {@linkcode content} that are still to come. */
  left = 0;

  constructor(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, fail: Fail) {
    this.#chunks = async function* () {
      yield* chunks;
    }();
    this.#fail = fail;
  }

  /** The next `bytes`. */
  async take(bytes: number): Promise<Uint8Array> {
    const pieces = [];
    for (let left = bytes; left > 0;) {
      pieces.push(await this.#some(left));
      left -= pieces.at(-1)!.length;
    }
    return pieces.length === 1 ? pieces[0]! : concatBytes(...pieces);
  }

  async *content(): AsyncGenerator<Uint8Array> {
    while (this.left > 0) {
      const piece = await this.#some(this.left);
      this.left -= piece.length;
      yield piece;
    }
  }

  /** The rest of the chunk, or the next one; undefined at the end. */
  async piece(): Promise<Uint8Array | undefined> {
    while (this.#chunk.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done) return undefined;
      this.#chunk = value;
    }
    const piece = this.#chunk;
    this.#chunk = piece.subarray(piece.length);
    return piece;
  }

  async close(): Promise<void> {
    await this.#chunks.return(undefined);
  }

  /** At least one of the next bytes, and at most so many. */
  async #some(bytesMax: number): Promise<Uint8Array> {
    const piece = await this.piece();
    if (!piece) throw this.#fail("it is truncated");
    this.#chunk = piece.subarray(bytesMax);
    return piece.subarray(0, bytesMax);
  }
}
