/**
 * librsync's delta format, which `rdiff patch` reads: an encoder and an incremental decoder.
 *
 * A delta is a 4-byte magic and a series of commands that tell how to build the new file from front to back:
 * LITERAL (bytes that follow), COPY (a range of the old file) and END. Numbers are big-endian and unsigned.
 *
 * | opcode       | command | operands                                                        |
 * | ------------ | ------- | --------------------------------------------------------------- |
 * | 0x00         | END     |                                                                 |
 * | 0x01 to 0x40 | LITERAL | none: the opcode is the length                                  |
 * | 0x41 to 0x44 | LITERAL | length in 1, 2, 4, 8 bytes                                      |
 * | 0x45 to 0x54 | COPY    | position in 1, 2, 4, 8 bytes (slow index), then length likewise |
 *
 * Source: https://github.com/librsync/librsync/blob/v2.3.2/doc/format.md and `src/prototab.c` beside it.
 *
 * Invariant of the decoder: it holds one command's operands and nothing else, and whatever it passes on fits the
 * sizes it was told. Whether the bytes are the right ones is for the caller's checksum.
 *
 * @module
 */

import { BackupError } from "../errors.ts";

/** The first four bytes of a delta, "rs\x026". */
const MAGIC = Uint8Array.of(0x72, 0x73, 0x02, 0x36);

const OP_END = 0x00;
/** The longest literal whose length is its opcode. */
const LITERAL_SHORT_MAX = 0x40;
const OP_LITERAL_N1 = 0x41;
const OP_COPY_N1_N1 = 0x45;
const OP_COPY_N8_N8 = 0x54;

/** Adjacent literals are merged up to this length, the most that a 2-byte length can say. */
const LITERAL_BYTES_MAX = 0xffff;
/** The most bytes a command takes beside its data: an opcode and two 8-byte operands. */
const COMMAND_BYTES_MAX = 17;

/** Writes commands as a delta, each in its smallest form; adjacent copies and adjacent literals become one. */
export class DeltaEncoder {
  readonly #sink: (chunk: Uint8Array<ArrayBuffer>) => void;
  readonly #chunkBytes: number;
  #chunk: Uint8Array<ArrayBuffer>;
  #used = 0;
  #flushedBytes = 0;
  readonly #literal = new Uint8Array(LITERAL_BYTES_MAX);
  #literalLength = 0;
  #copyPosition = 0;
  #copyLength = 0;

  /**
   * @param sink Takes each chunk of the delta, in order, and may keep it.
   * @param chunkBytes Size of a chunk in bytes; the last one is shorter. Default 64 KiB.
   */
  constructor(sink: (chunk: Uint8Array<ArrayBuffer>) => void, chunkBytes: number = 64 * 1024) {
    this.#sink = sink;
    this.#chunkBytes = Math.max(chunkBytes, COMMAND_BYTES_MAX);
    this.#chunk = new Uint8Array(this.#chunkBytes);
    this.#append(MAGIC);
  }

  /** Size of the delta so far, in bytes, without what a pending command will add. */
  get bytes(): number {
    return this.#flushedBytes + this.#used + this.#literalLength;
  }

  /** Copies `length` bytes at `position` of the old file. Nothing if `length` is 0. */
  copy(position: number, length: number): void {
    if (length === 0) return;
    if (this.#copyLength > 0 && this.#copyPosition + this.#copyLength === position) {
      this.#copyLength += length;
      return;
    }
    this.#settle();
    this.#copyPosition = position;
    this.#copyLength = length;
  }

  /** Appends `data`, which is not kept. */
  literal(data: Uint8Array): void {
    if (data.length === 0) return;
    if (this.#copyLength > 0) this.#settle();
    for (let from = 0; from < data.length;) {
      if (this.#literalLength === LITERAL_BYTES_MAX) this.#settle();
      const part = data.subarray(from, from + LITERAL_BYTES_MAX - this.#literalLength);
      this.#literal.set(part, this.#literalLength);
      this.#literalLength += part.length;
      from += part.length;
    }
  }

  /** Writes END and hands the last chunk to the sink. Nothing may follow. */
  end(): void {
    this.#settle();
    this.#reserve(1);
    this.#chunk[this.#used++] = OP_END;
    this.#flush();
  }

  /** Writes the pending command; at most one of the two is pending. */
  #settle(): void {
    if (this.#copyLength > 0) {
      const position = widthOf(this.#copyPosition);
      const length = widthOf(this.#copyLength);
      this.#reserve(COMMAND_BYTES_MAX);
      this.#chunk[this.#used++] = OP_COPY_N1_N1 + position * 4 + length;
      this.#number(this.#copyPosition, position);
      this.#number(this.#copyLength, length);
      this.#copyLength = 0;
    } else if (this.#literalLength > 0) {
      this.#reserve(COMMAND_BYTES_MAX);
      if (this.#literalLength <= LITERAL_SHORT_MAX) {
        this.#chunk[this.#used++] = this.#literalLength;
      } else {
        const length = widthOf(this.#literalLength);
        this.#chunk[this.#used++] = OP_LITERAL_N1 + length;
        this.#number(this.#literalLength, length);
      }
      const data = this.#literal.subarray(0, this.#literalLength);
      this.#literalLength = 0;
      this.#append(data);
    }
  }

  /** Appends `value` in 1 << `width` bytes. The caller has reserved them. */
  #number(value: number, width: number): void {
    const bytes = 1 << width;
    for (let at = this.#used + bytes - 1; at >= this.#used; at--) {
      this.#chunk[at] = value % 256;
      value = Math.floor(value / 256);
    }
    this.#used += bytes;
  }

  #append(data: Uint8Array): void {
    for (let from = 0; from < data.length;) {
      if (this.#used === this.#chunkBytes) this.#flush();
      const part = data.subarray(from, from + this.#chunkBytes - this.#used);
      this.#chunk.set(part, this.#used);
      this.#used += part.length;
      from += part.length;
    }
  }

  #reserve(bytes: number): void {
    if (this.#used + bytes > this.#chunkBytes) this.#flush();
  }

  #flush(): void {
    this.#sink(this.#chunk.subarray(0, this.#used));
    this.#flushedBytes += this.#used;
    this.#chunk = new Uint8Array(this.#chunkBytes);
    this.#used = 0;
  }
}

/** The smallest width that holds `value`: 0, 1, 2, 3 for 1, 2, 4, 8 bytes. */
function widthOf(value: number): number {
  return value <= 0xff ? 0 : value <= 0xffff ? 1 : value <= 0xffffffff ? 2 : 3;
}

/** What a delta's commands are told to, and the sizes that they are held to. */
export interface DeltaTarget {
  /** Size of the old file in bytes. */
  readonly baseBytes: number;
  /** Size of the new file in bytes: the commands must add up to it. */
  readonly nextBytes: number;
  /** Called for each COPY: `length` > 0 bytes at `position` of the old file, within `baseBytes`. */
  copy(position: number, length: number): void;
  /** Called with literal data, in one or more pieces: the bytes `from` to `to` of what was pushed. Use them before returning. */
  literal(data: Uint8Array, from: number, to: number): void;
}

/** The big-endian number in the bytes `from` to `to`. */
function numberAt(bytes: Uint8Array, from: number, to: number): number {
  let number = 0;
  for (let at = from; at < to; at++) number = number * 256 + bytes[at]!;
  return number;
}

/** Reads a delta as it arrives. Not to be used further after it has thrown. */
export class DeltaDecoder {
  readonly #target: DeltaTarget;
  /** Bytes read, for messages. */
  #readBytes = 0;
  /** Bytes of the new file that the commands so far make. */
  #madeBytes = 0;
  #magicLength = 0;
  /** The command whose operands are being read, or -1. */
  #opcode = -1;
  /** Bytes still missing of the first and of the second operand. */
  #firstLeft = 0;
  #secondLeft = 0;
  #first = 0;
  #second = 0;
  #literalLeft = 0;
  #ended = false;

  constructor(target: DeltaTarget) {
    this.#target = target;
  }

  /**
   * Takes the next bytes of the delta.
   *
   * @throws {BackupError} Kind "integrity" if they cannot belong to a delta between files of the given sizes.
   */
  push(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#literalLeft > 0) {
        const length = Math.min(this.#literalLeft, bytes.length - at);
        this.#target.literal(bytes, at, at + length);
        this.#literalLeft -= length;
        this.#readBytes += length;
        at += length;
      } else if (this.#isBetween() && bytes.length - at >= COMMAND_BYTES_MAX) {
        at = this.#command(bytes, at);
      } else {
        this.#byte(bytes[at++]!);
        this.#readBytes++;
      }
    }
  }

  /**
   * Says that nothing more comes.
   *
   * @throws {BackupError} Kind "integrity" if the delta is cut short, or does not make a file of `nextBytes`.
   */
  finish(): void {
    if (!this.#ended) throw this.#damage(`it ends after ${this.#readBytes} bytes, before its END command`);
    if (this.#madeBytes !== this.#target.nextBytes) {
      throw this.#damage(`it makes ${this.#madeBytes} bytes, not ${this.#target.nextBytes}`);
    }
  }

  /** Whether a command starts next. */
  #isBetween(): boolean {
    return this.#opcode < 0 && !this.#ended && this.#magicLength === MAGIC.length;
  }

  /** Takes a whole command, without its literal data: what `#byte` does, at once. Returns where it ends. */
  #command(bytes: Uint8Array, at: number): number {
    const opcode = bytes[at]!;
    let end = at + 1;
    if (opcode <= LITERAL_SHORT_MAX || opcode > OP_COPY_N8_N8) {
      this.#start(opcode);
    } else {
      const copy = opcode - OP_COPY_N1_N1;
      const first = end;
      end += 1 << (copy < 0 ? opcode - OP_LITERAL_N1 : copy >> 2);
      this.#first = numberAt(bytes, first, end);
      if (copy >= 0) {
        const second = end;
        end += 1 << (copy & 3);
        this.#second = numberAt(bytes, second, end);
      }
      this.#opcode = opcode;
      this.#complete();
    }
    this.#readBytes += end - at;
    return end;
  }

  #byte(byte: number): void {
    if (this.#magicLength < MAGIC.length) {
      if (byte !== MAGIC[this.#magicLength++]) throw this.#damage("it does not start with librsync's magic");
    } else if (this.#ended) {
      throw this.#damage(`bytes follow its END command at byte ${this.#readBytes}`);
    } else if (this.#opcode < 0) {
      this.#start(byte);
    } else {
      if (this.#firstLeft > 0) {
        this.#firstLeft--;
        this.#first = this.#first * 256 + byte;
      } else {
        this.#secondLeft--;
        this.#second = this.#second * 256 + byte;
      }
      if (this.#firstLeft + this.#secondLeft === 0) this.#complete();
    }
  }

  #start(opcode: number): void {
    if (opcode > OP_COPY_N8_N8) {
      throw this.#damage(`unknown command 0x${opcode.toString(16)} at byte ${this.#readBytes}`);
    }
    if (opcode === OP_END) {
      this.#ended = true;
    } else if (opcode <= LITERAL_SHORT_MAX) {
      this.#startLiteral(opcode);
    } else {
      const copy = opcode - OP_COPY_N1_N1;
      this.#opcode = opcode;
      this.#first = this.#second = 0;
      this.#firstLeft = 1 << (copy < 0 ? opcode - OP_LITERAL_N1 : copy >> 2);
      this.#secondLeft = copy < 0 ? 0 : 1 << (copy & 3);
    }
  }

  /** Carries out the command whose operands are complete. */
  #complete(): void {
    const opcode = this.#opcode;
    this.#opcode = -1;
    if (opcode < OP_COPY_N1_N1) return this.#startLiteral(this.#first);
    const position = this.#first;
    const length = this.#second;
    // Past 2^53 the operands are not exact, but then they are also past the end of any file.
    if (position + length > this.#target.baseBytes) {
      throw this.#damage(
        `it copies ${length} bytes at ${position} of a base of ${this.#target.baseBytes} bytes`,
      );
    }
    this.#make(length);
    this.#target.copy(position, length);
  }

  #startLiteral(length: number): void {
    this.#make(length);
    this.#literalLeft = length;
  }

  /** Counts bytes of the new file. librsync refuses empty commands, so they are damage here too. */
  #make(length: number): void {
    if (length === 0) throw this.#damage(`an empty command at byte ${this.#readBytes}`);
    this.#madeBytes += length;
    if (this.#madeBytes > this.#target.nextBytes) {
      throw this.#damage(`it makes more than the ${this.#target.nextBytes} bytes it should`);
    }
  }

  #damage(state: string): BackupError {
    return new BackupError(`Cannot apply the delta: ${state}`, {
      kind: "integrity",
      hint: "the increment is damaged: restore it from another copy of the store, or an earlier snapshot",
    });
  }
}
