// deno-lint-ignore-file no-import-prefix -- what only tests import is pinned here, not in deno.json
/** What `scripts/core/snapshot/delta.ts`, `page_diff.ts` and `patch.ts` promise: the same bytes again, small, bounded, or a refusal. */

import assert from "node:assert/strict";
import process from "node:process";
import { backup, DatabaseSync } from "node:sqlite";
import fc from "npm:fast-check@4.10.2";
import { concatBytes, releaseBytes } from "../scripts/core/bytes.ts";
import { BackupError } from "../scripts/core/errors.ts";
import { DeltaDecoder, DeltaEncoder } from "../scripts/core/snapshot/delta.ts";
import { LineIndex, NOWHERE } from "../scripts/core/snapshot/line_index.ts";
import type { LineRing, LineWriter } from "../scripts/core/snapshot/line_ring.ts";
import {
  compareChecksums,
  comparePages,
  type ImageReader,
  isChanged,
  type PageChanges,
  pageChecksums,
} from "../scripts/core/snapshot/page_changes.ts";
import { encodeChanges, type EncodeOptions, encodeWholePages } from "../scripts/core/snapshot/page_diff.ts";
import { type Image, makeRing, Patcher } from "../scripts/core/snapshot/patch.ts";
import { inTempDir } from "./real/files.ts";
import { noise } from "./real/random.ts";

/** Bytes in memory as an image. `writesLeft` makes it fail, as a full disk or a crash would. */
class MemoryImage implements Image {
  data: Uint8Array<ArrayBuffer>;
  writesLeft = Infinity;
  reads = 0;

  constructor(data: Uint8Array) {
    this.data = data.slice();
  }

  get bytes(): number {
    return this.data.length;
  }

  readAt(buffer: Uint8Array, position: number): void {
    this.reads++;
    const part = this.data.subarray(position, position + buffer.length);
    if (part.length < buffer.length) throw new Error(`read past the end: ${position}`);
    buffer.set(part);
  }

  writeAt(data: Uint8Array, position: number): void {
    if (this.writesLeft-- <= 0) throw new Error("crashed");
    if (position + data.length > this.data.length) this.truncate(position + data.length);
    this.data.set(data, position);
  }

  truncate(bytes: number): void {
    const grown = new Uint8Array(bytes);
    grown.set(this.data.subarray(0, bytes));
    this.data = grown;
  }
}

/** How many pages of the next image are marked. */
function changedPages(changes: PageChanges): number {
  return Array.from({ length: changes.nextPages }, (_, page) => isChanged(changes, page)).filter(Boolean)
    .length;
}

function ringOf(image: MemoryImage, slots: number): LineRing {
  return makeRing(image.bytes, ArrayBuffer, slots);
}

/** Writes what is committed as late as it can, as a slow thread would. */
class LazyWriter implements LineWriter {
  #written = 0;
  readonly #committed: { readonly count: number; readonly imageBytes: number }[] = [];

  constructor(readonly ring: LineRing, readonly image: MemoryImage) {}

  commit(count: number, imageBytes: number): void {
    this.#committed.push({ count, imageBytes });
  }

  wait(count: number): void {
    while (this.#committed.length > 0 && this.#written < count) {
      const first = this.#committed[0]!;
      const to = Math.min(count, first.count);
      this.ring.write(this.#written, to, first.imageBytes, (data, at) => this.image.writeAt(data, at));
      this.#written = to;
      if (to === first.count) this.#committed.shift();
    }
  }
}

function drain(chunks: Generator<Uint8Array<ArrayBuffer>, boolean>) {
  const parts: Uint8Array[] = [];
  let step = chunks.next();
  for (; !step.done; step = chunks.next()) parts.push(step.value);
  return { delta: concatBytes(...parts), isWhole: step.value };
}

function diff(base: Uint8Array, next: Uint8Array, pageBytes: number, options: EncodeOptions = {}) {
  const from = new MemoryImage(base), to = new MemoryImage(next);
  const { delta, isWhole } = drain(encodeChanges(from, to, comparePages(from, to, { pageBytes }), options));
  assert(isWhole);
  return { delta, ...madeOf(delta, base.length, next.length) };
}

/** What a delta is made of. */
function madeOf(delta: Uint8Array, baseBytes: number, nextBytes: number) {
  let [commands, literalBytes] = [0, 0];
  let isInLiteral = false;
  const decoder = new DeltaDecoder({
    baseBytes,
    nextBytes,
    copy() {
      commands++;
      isInLiteral = false;
    },
    literal(_data, from, to) {
      if (!isInLiteral) commands++;
      isInLiteral = true;
      literalBytes += to - from;
    },
  });
  decoder.push(delta);
  decoder.finish();
  return { commands, literalBytes };
}

interface PatchOptions {
  /** The delta is pushed in pieces of so many bytes. */
  readonly pieceBytes?: number;
  readonly patcher?: Patcher;
}

function apply(image: Image, delta: Uint8Array, nextBytes: number, options: PatchOptions = {}): void {
  const { pieceBytes = 1000, patcher = new Patcher(image, new MemoryImage(new Uint8Array())) } = options;
  const patch = patcher.start(nextBytes);
  for (let at = 0; at < delta.length; at += pieceBytes) patch.push(delta.subarray(at, at + pieceBytes));
  patch.finish();
}

function patch(base: Uint8Array, delta: Uint8Array, nextBytes: number, options?: PatchOptions): Uint8Array {
  const image = new MemoryImage(base);
  apply(image, delta, nextBytes, options);
  return image.data;
}

/** What the decoder alone makes of a delta, pushed in pieces of 7 bytes. */
function rebuild(base: Uint8Array, delta: Uint8Array, nextBytes: number): Uint8Array {
  const next = new Uint8Array(nextBytes);
  let made = 0;
  const append = (data: Uint8Array) => {
    next.set(data, made);
    made += data.length;
  };
  const decoder = new DeltaDecoder({
    baseBytes: base.length,
    nextBytes,
    copy: (position, length) => append(base.subarray(position, position + length)),
    literal: (data, from, to) => append(data.subarray(from, to)),
  });
  for (let at = 0; at < delta.length; at += 7) decoder.push(delta.subarray(at, at + 7));
  decoder.finish();
  return next;
}

/** Compares without printing megabytes when they differ. */
function assertSame(actual: Uint8Array, expected: Uint8Array): void {
  assert.equal(actual.length, expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assert.equal(at, -1, `bytes differ at ${at}`);
}

function rdiff(...args: string[]): void {
  const { code, stderr } = new Deno.Command("rdiff", { args }).outputSync();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
}

function rdiffPatch(folder: string, base: Uint8Array, delta: Uint8Array): Uint8Array {
  Deno.writeFileSync(`${folder}/base`, base);
  Deno.writeFileSync(`${folder}/delta`, delta);
  rdiff("-f", "patch", `${folder}/base`, `${folder}/delta`, `${folder}/out`);
  return Deno.readFileSync(`${folder}/out`);
}

/** An image and what an arbitrary sequence of edits made of it. */
const images = fc.record({
  pageBytes: fc.constantFrom(512, 1024, 4096, 8192, 65536),
  pages: fc.integer({ min: 0, max: 24 }),
  seed: fc.integer({ min: 1, max: 1e9 }),
  sparse: fc.boolean(),
  edits: fc.array(
    fc.record({
      kind: fc.constantFrom("write", "move", "insert", "shift", "grow", "cut", "zero"),
      at: fc.double({ min: 0, max: 1, noNaN: true }),
      to: fc.double({ min: 0, max: 1, noNaN: true }),
      bytes: fc.integer({ min: 1, max: 9000 }),
    }),
    { maxLength: 12 },
  ),
}).map(({ pageBytes, pages, seed, sparse, edits }) => {
  const base = noise(pages * pageBytes, seed);
  // Few different bytes make many equal blocks.
  if (sparse) base.forEach((byte, i) => base[i] = byte < 250 ? 0 : byte & 3);
  let next = base.slice();
  for (const [i, edit] of edits.entries()) {
    const at = Math.floor(edit.at * next.length), to = Math.floor(edit.to * next.length);
    const bytes = Math.min(edit.bytes, next.length - Math.max(at, to));
    const page = Math.floor(at / pageBytes) * pageBytes;
    if (edit.kind === "write") next.set(noise(bytes, seed + i), at);
    if (edit.kind === "move") next.copyWithin(to, at, at + bytes);
    if (edit.kind === "zero") next.fill(0, at, at + bytes);
    if (edit.kind === "grow") {
      next = concatBytes(next, noise(pageBytes, seed + i), next.subarray(page, page + pageBytes));
    }
    if (edit.kind === "cut") next = next.slice(0, page);
    if (edit.kind === "insert") {
      next = concatBytes(next.subarray(0, page), noise(pageBytes, seed + i), next.subarray(page));
    }
    if (edit.kind === "shift") {
      const shift = edit.bytes % pageBytes;
      next.copyWithin(page + shift, page, Math.min(page + pageBytes, next.length) - shift);
    }
  }
  return { pageBytes, base, next: next.slice(0, Math.floor(next.length / pageBytes) * pageBytes) };
});

Deno.test("an index of lines says of each where it is, whatever came into the places and went", () => {
  // Of 64 chains and 200 lines some are long, and go from the first line that there can be to the last.
  const lines = Array.from({ length: 200 }, (_, at) => at < 100 ? at : 0xffff_fffe - at);
  const step = fc.oneof(
    { weight: 50, arbitrary: fc.tuple(fc.nat(lines.length - 1), fc.nat(31)) },
    { weight: 10, arbitrary: fc.nat(31) },
    { weight: 1, arbitrary: fc.constant("all" as const) },
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 200, size: "max" }), (steps) => {
    const index = new LineIndex(32);
    const placeOf = new Map<number, number>();
    const clear = (place: number) => {
      for (const [line, other] of placeOf) if (other === place) placeOf.delete(line);
      index.clear(place);
    };
    for (const step of steps) {
      if (step === "all") {
        placeOf.clear();
        index.clearAll();
      } else if (typeof step === "number") {
        clear(step);
      } else {
        const line = lines[step[0]]!;
        const before = index.find(line);
        if (before !== NOWHERE) clear(before);
        clear(step[1]);
        placeOf.set(line, step[1]);
        index.put(line, step[1]);
      }
      for (const line of lines) assert.equal(index.find(line), placeOf.get(line) ?? NOWHERE);
    }
  }));
});

Deno.test("a delta applied in place, and by rdiff, gives the next image", async () => {
  await inTempDir((folder) => {
    fc.assert(
      fc.property(images, fc.constantFrom(0, 5000, undefined), ({ pageBytes, base, next }, indexBytesMax) => {
        const options = indexBytesMax === undefined ? {} : { indexBytesMax };
        const { delta } = diff(base, next, pageBytes, options);
        assertSame(patch(base, delta, next.length), next);
        assertSame(rdiffPatch(folder, base, delta), next);
      }),
      { numRuns: 100 },
    );
  });
});

Deno.test("whole pages by checksums give the next image, and the same changes as a comparison", async () => {
  await inTempDir((folder) => {
    fc.assert(
      fc.property(images, ({ pageBytes, base, next }) => {
        const to = new MemoryImage(next);
        const baseSums = pageChecksums(new MemoryImage(base), { pageBytes });
        const { changes, sums } = compareChecksums(baseSums, to, { pageBytes });
        assert.deepEqual(sums, pageChecksums(to, { pageBytes }));
        assert.deepEqual(changes, comparePages(new MemoryImage(base), to, { pageBytes }));
        const { delta, isWhole } = drain(encodeWholePages(to, changes));
        assert(isWhole);
        const { literalBytes } = madeOf(delta, base.length, next.length);
        assert.equal(literalBytes, changedPages(changes) * pageBytes);
        assertSame(patch(base, delta, next.length), next);
        assertSame(rdiffPatch(folder, base, delta), next);
      }),
      { numRuns: 60 },
    );
  });
});

Deno.test("deltas of the real rdiff are read and applied", async () => {
  await inTempDir((folder) => {
    fc.assert(
      fc.property(images, fc.integer({ min: 16, max: 2048 }), ({ base, next }, blockBytes) => {
        Deno.writeFileSync(`${folder}/base`, base);
        Deno.writeFileSync(`${folder}/next`, next);
        rdiff("-f", "-b", `${blockBytes}`, "signature", `${folder}/base`, `${folder}/signature`);
        rdiff("-f", "delta", `${folder}/signature`, `${folder}/next`, `${folder}/delta`);
        assertSame(patch(base, Deno.readFileSync(`${folder}/delta`), next.length), next);
      }),
      { numRuns: 40 },
    );
  });
});

/** Decodes into commands, adjacent ones merged as the encoder does. */
function decode(
  delta: Uint8Array,
  pieceBytes: number,
  baseBytes: number,
  nextBytes: number,
): (string | number)[][] {
  const commands: (string | number)[][] = [];
  const decoder = new DeltaDecoder({
    baseBytes,
    nextBytes,
    copy(position, length) {
      commands.push(["copy", position, length]);
    },
    literal(data, from, to) {
      const last = commands.at(-1);
      const piece = data.subarray(from, to);
      if (last?.[0] === "literal") last.push(...piece);
      else commands.push(["literal", ...piece]);
    },
  });
  for (let at = 0; at < delta.length; at += pieceBytes) decoder.push(delta.subarray(at, at + pieceBytes));
  decoder.finish();
  return commands;
}

function encoded(build: (encoder: DeltaEncoder) => void, chunkBytes?: number): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const encoder = new DeltaEncoder((chunk) => parts.push(chunk), chunkBytes);
  build(encoder);
  encoder.end();
  const delta = concatBytes(...parts);
  assert.equal(encoder.bytes, delta.length);
  return delta;
}

Deno.test("the decoder gives what the encoder took, in pieces of any size", () => {
  const command = fc.oneof(
    fc.record({
      position: fc.maxSafeInteger().map((n) => Math.abs(n) / 2),
      length: fc.integer({ min: 0, max: 2 ** 40 }),
    }),
    fc.record({ position: fc.nat(70000), length: fc.nat(70000) }),
    fc.uint8Array({ maxLength: 400 }),
  ).map((command) =>
    command instanceof Uint8Array ? command : { ...command, position: Math.floor(command.position) }
  );
  fc.assert(
    fc.property(
      fc.array(command),
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1, max: 300 }),
      (list, piece, chunk) => {
        const expected: (string | number)[][] = [];
        let nextBytes = 0;
        const delta = encoded((encoder) => {
          for (const item of list) {
            const last = expected.at(-1);
            if (item instanceof Uint8Array) {
              encoder.literal(item);
              nextBytes += item.length;
              if (item.length === 0) continue;
              if (last?.[0] === "literal") last.push(...item);
              else expected.push(["literal", ...item]);
            } else {
              encoder.copy(item.position, item.length);
              nextBytes += item.length;
              if (item.length === 0) continue;
              if (last?.[0] === "copy" && Number(last[1]) + Number(last[2]) === item.position) {
                last[2] = Number(last[2]) + item.length;
              } else expected.push(["copy", item.position, item.length]);
            }
          }
        }, chunk);
        assert.deepEqual(decode(delta, piece, Number.MAX_SAFE_INTEGER, nextBytes), expected);
      },
    ),
  );
});

Deno.test("the encoder uses the smallest form of each command", () => {
  const sizes: [(encoder: DeltaEncoder) => void, number][] = [
    [(e) => e.literal(new Uint8Array(64)), 1 + 64],
    [(e) => e.literal(new Uint8Array(65)), 2 + 65],
    [(e) => e.literal(new Uint8Array(255)), 2 + 255],
    [(e) => e.literal(new Uint8Array(256)), 3 + 256],
    [(e) => e.literal(new Uint8Array(65536)), 3 + 65535 + 1 + 1],
    [(e) => e.copy(255, 255), 3],
    [(e) => e.copy(256, 255), 4],
    [(e) => e.copy(65535, 65536), 7],
    [(e) => e.copy(65536, 1), 6],
    [(e) => e.copy(2 ** 32 - 1, 2 ** 32), 13],
    [(e) => e.copy(2 ** 32, 2 ** 32), 17],
    [(e) => (e.copy(10, 20), e.copy(30, 5)), 3],
    [(e) => (e.literal(new Uint8Array(3)), e.literal(new Uint8Array(4))), 8],
  ];
  for (const [build, bytes] of sizes) assert.equal(encoded(build).length, 4 + bytes + 1, String(build));
});

Deno.test("the decoder refuses what no honest delta holds", () => {
  const magic = [0x72, 0x73, 0x02, 0x36];
  const huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
  const cases: [number[], RegExp][] = [
    [[], /ends after 0 bytes/],
    [[0x72, 0x73, 0x01, 0x36, 0x05, 1, 2, 3, 4, 5, 0], /magic/],
    [[...magic, 0x55], /unknown command 0x55 at byte 4/],
    [[...magic, 0xff], /unknown command 0xff/],
    [[...magic, 0x05, 1, 2, 3, 4, 5], /before its END/],
    [[...magic, 0x05, 1, 2, 3, 4, 5, 0x00, 0x00], /follow its END/],
    [[...magic, 0x06, 1, 2, 3, 4, 5, 6, 0x00], /more than the 5 bytes/],
    [[...magic, 0x04, 1, 2, 3, 4, 0x00], /makes 4 bytes, not 5/],
    [[...magic, 0x41, 0x00, 0x05, 1, 2, 3, 4, 5, 0x00], /empty command/],
    [[...magic, 0x45, 0x00, 0x00, 0x05, 1, 2, 3, 4, 5, 0x00], /empty command/],
    [[...magic, 0x45, 96, 5, 0x00], /copies 5 bytes at 96 of a base of 100 bytes/],
    [[...magic, 0x44, ...huge], /more than the 5 bytes/],
    [[...magic, 0x54, ...huge, ...huge], /copies/],
    [[...magic, 0x51, ...huge, 0x01], /copies/],
  ];
  for (const [bytes, message] of cases) {
    assert.throws(() => decode(Uint8Array.from(bytes), 1, 100, 5), (error) => {
      assert(error instanceof BackupError);
      assert.equal(error.kind, "integrity");
      assert.match(error.message, message);
      return true;
    });
  }
  // Commands that are there as a whole are taken at once.
  const literal = [0x10, ...new Array(16).fill(1)];
  assert.deepEqual(decode(Uint8Array.from([...magic, ...literal, 0x00]), 100, 100, 16), [[
    "literal",
    ...literal.slice(1),
  ]]);
  const unknown = [0x45, 0, 1, 0x55, ...new Array(16).fill(0), 4, 0x00];
  for (
    const [bytes, message] of [
      [[...magic, 0x00, ...literal], /bytes follow its END command at byte 5/],
      [[...magic, ...unknown], /unknown command 0x55 at byte 7/],
    ] as const
  ) {
    assert.throws(() => decode(Uint8Array.from(bytes), 100, 100, 16), { kind: "integrity", message });
  }
});

Deno.test("every cut and every flipped bit of a delta is refused, or gives other bytes, never worse", () => {
  const base = noise(6 * 512, 7);
  const next = concatBytes(base.subarray(0, 512), noise(300, 8), base.subarray(900, 2800), noise(872, 9));
  const { delta } = diff(base, next.subarray(0, 3584), 512);
  const attempt = (damaged: Uint8Array): Uint8Array | undefined => {
    try {
      return rebuild(base, damaged, 3584);
    } catch (error) {
      assert(error instanceof BackupError, String(error));
      assert.equal(error.kind, "integrity");
      return undefined;
    }
  };
  assertSame(attempt(delta)!, next.subarray(0, 3584));
  for (const cut of [3, 100, delta.length - 1]) {
    assert.throws(() => patch(base, delta.subarray(0, cut), 3584), { kind: "integrity" });
  }
  for (let cut = 0; cut < delta.length; cut++) assert.equal(attempt(delta.subarray(0, cut)), undefined);
  for (let bit = 0; bit < delta.length * 8; bit++) {
    const damaged = delta.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    const result = attempt(damaged);
    if (result === undefined) continue;
    assert.equal(result.length, 3584);
    assert.notDeepEqual(result, next.subarray(0, 3584), `bit ${bit}`);
  }
});

Deno.test("what an image holds stays as it was until its delta is known to be whole", () => {
  const base = noise(8 * 4096, 1);
  const head = concatBytes(base.subarray(4096, 12_288), noise(8192, 2), base.subarray(12_288));
  // What comes after the old image is written meanwhile: here it is more than is written at once.
  const next = concatBytes(head, base.subarray(4096), base.subarray(8192), base.subarray(4096, 8192));
  const { delta } = diff(base, next, 4096);
  assertSame(patch(base, delta, next.length), next);
  for (const slots of [1, 100]) {
    const image = new MemoryImage(base);
    const patcher = new Patcher(image, new MemoryImage(new Uint8Array()), ringOf(image, slots));
    for (let cut = delta.length - 1; cut >= 0; cut -= 77) {
      assert.throws(() => apply(image, delta.subarray(0, cut), next.length, { patcher }), {
        kind: "integrity",
      });
      assertSame(image.data.subarray(0, base.length), base);
    }
    apply(image, delta, next.length, { patcher });
    assertSame(image.data, next);
  }
  // Also one that began as nothing.
  const grown = new MemoryImage(new Uint8Array());
  const patcher = new Patcher(grown, new MemoryImage(new Uint8Array()));
  apply(grown, diff(new Uint8Array(), base, 4096).delta, base.length, { patcher });
  apply(grown, delta, next.length, { patcher });
  assertSame(grown.data, next);
});

Deno.test("a patcher applies one delta after the other, with any ring, and with a writer that lags behind", () => {
  fc.assert(
    fc.property(images, fc.integer({ min: 1, max: 40 }), ({ pageBytes, base, next }, slots) => {
      const image = new MemoryImage(base);
      const scratch = new MemoryImage(new Uint8Array());
      // Its last lines change before they are cut off and made anew.
      const other = base.slice().fill(7, Math.max(0, base.length - 9000));
      const steps = [[base, other], [other, next], [next, base]].map(([from, to]) => ({
        delta: diff(from!, to!, pageBytes).delta,
        to: to!,
      }));
      const ring = ringOf(image, slots);
      const lazy = new LazyWriter(ring, image);
      for (const writer of [undefined, lazy]) {
        const patcher = new Patcher(image, scratch, ring, writer);
        for (let round = 0; round < 3; round++) {
          for (const { delta, to } of steps) {
            apply(image, delta, to.length, { patcher, pieceBytes: round === 0 ? 7 : 1000 });
            if (round === 2) writer?.wait(Infinity);
            if (!writer || round === 2) assertSame(image.data, to);
          }
        }
      }
    }),
    { numRuns: 100 },
  );
});

Deno.test("a patch reads and writes about what changed, in few calls, and beside where it is more than the ring", () => {
  const base = noise(4000 * 4096, 3);
  const next = base.slice();
  for (let page = 0; page < 4000; page += 100) next.set(noise(40, page + 1), page * 4096 + 1000);
  const { delta } = diff(base, next, 4096);
  const image = new MemoryImage(base);
  image.writesLeft = 40;
  const scratch = new MemoryImage(new Uint8Array());
  apply(image, delta, next.length, { patcher: new Patcher(image, scratch) });
  assertSame(image.data, next);
  assert.equal(scratch.bytes, 0);

  const again = new MemoryImage(base);
  apply(again, delta, next.length, { patcher: new Patcher(again, scratch, ringOf(again, 10)) });
  assertSame(again.data, next);
  assert(scratch.bytes > 30 * 4096 && scratch.bytes < 45 * 4096, `${scratch.bytes} bytes beside`);
});

Deno.test("a line is copied from where it is, after its place in the ring, its content or the image's size changed", () => {
  const LINE = 4096;
  let expected = new Uint8Array();
  let image: MemoryImage;
  let patcher: Patcher;
  let seed = 100;
  /** Each step makes all lines: a number is that line of the old image; bytes from a place of it go to byte 1000. */
  const step = (...lines: (number | { from: number } | "new")[]) => {
    const next: Uint8Array[] = [];
    const delta = encoded((encoder) => {
      const copy = (from: number, to: number) => {
        encoder.copy(from, to - from);
        next.push(expected.subarray(from, to));
      };
      const literal = (bytes: number) => {
        next.push(noise(bytes, seed++));
        encoder.literal(next.at(-1)!);
      };
      for (const line of lines) {
        if (line === "new") {
          literal(LINE);
        } else if (typeof line === "number") {
          copy(line * LINE, (line + 1) * LINE);
        } else {
          literal(1000);
          copy(line.from, line.from + 300);
          literal(LINE - 1300);
        }
      }
    });
    expected = concatBytes(...next);
    apply(image, delta, expected.length, { patcher });
    assertSame(image.data, expected);
  };
  for (const slots of [2, 100]) {
    expected = noise(8 * LINE, 6);
    image = new MemoryImage(expected);
    patcher = new Patcher(image, new MemoryImage(new Uint8Array()), ringOf(image, slots));
    step(0, 1, 2, 3, 4, "new", "new", 7);
    // The second of these takes the place of line 6, which both copy from.
    step({ from: 6 * LINE }, { from: 6 * LINE }, 2, 3, 4, 5, 6, 7);
    // The next step starts with what this one copied from last, and changed.
    step(0, 1, 2, 3, 4, 5, 6, { from: 7 * LINE });
    step({ from: 7 * LINE }, 1, 2, 3, 4, 5, 6, 7);
    step(0, 1, 2, 3, 4, 5, 6, "new");
    step(0, 1, 2, 3, 4, 5, 6);
    step(0, 1, 2, 3, 4, 5, 6, "new");
    step({ from: 7 * LINE + 1000 }, 1, 2, 3, 4, 5, 6, 7);
  }
});

Deno.test("what changes again is read from the ring, and what comes after the image is written as it comes", () => {
  const base = noise(1000 * 4096, 5);
  const image = new MemoryImage(base);
  const patcher = new Patcher(image, new MemoryImage(new Uint8Array()));
  let next = base;
  for (let round = 0; round < 5; round++) {
    const before = next;
    next = concatBytes(before, noise(200 * 4096, 100 + round));
    for (let page = 0; page < 1000; page += 10) next.set(noise(40, page + round + 1), page * 4096 + 1000);
    image.reads = 0;
    apply(image, diff(before, next, 4096).delta, next.length, { patcher });
    assertSame(image.data, next);
    assert.equal(image.reads, round === 0 ? 100 : 0);
  }
});

Deno.test("of a line that changes again before it is written, only the last is, and what was written stays", () => {
  const image = new MemoryImage(noise(1000 * 4096, 6));
  const ring = ringOf(image, 1000);
  const writer = new LazyWriter(ring, image);
  const patcher = new Patcher(image, new MemoryImage(new Uint8Array()), ring, writer);
  let next = image.data.slice();
  const change = (round: number, step: number) => {
    const before = next;
    next = before.slice();
    for (let page = 0; page < 1000; page += step) next[page * 4096 + 1000] = round;
    apply(image, diff(before, next, 4096).delta, next.length, { patcher });
  };
  for (
    const [steps, writes] of [[[10, 10, 20], 100], [[20, 10], 100], [[10, 10, 10, 10, 10, 10], 100]] as const
  ) {
    steps.forEach((step, round) => change(10 * steps.length + round, step));
    image.writesLeft = writes;
    writer.wait(Infinity);
    assert.equal(image.writesLeft, 0);
    assertSame(image.data, next);
  }
});

Deno.test("a patch takes what moved from the right place in an image larger than its cache", () => {
  const base = noise(20 * 1024 * 1024, 17);
  const next = base.slice();
  for (let i = 0; i < 5; i++) {
    const from = (i * 8 * 1024 * 1024) % base.length;
    next.set(base.subarray(from + 50, from + 150), 100_000 + i * 10_000);
    next[from + 2000]! ^= 1; // only changed pages are searched
  }
  const { delta, literalBytes } = diff(base, next, 4096);
  assert(literalBytes < 100, `${literalBytes} literal bytes`);
  assertSame(patch(base, delta, next.length), next);
});

Deno.test("what is copied from often is read once, however much else is read, and what went for that again", () => {
  const LINES = 4000;
  const HOT = 100;
  const base = noise(LINES * 4096, 23);
  const there = Array.from({ length: LINES - HOT }, (_, i) => [i % HOT, HOT + i]).flat();
  const back = there.toReversed();
  for (
    const [lines, isRead] of [
      [there, (reads: number) => reads === LINES],
      [[...there, ...back], (reads: number) => reads > LINES && reads < 2 * LINES],
    ] as const
  ) {
    const position = (line: number) => line * 4096 + 10 + line % 100;
    const delta = encoded((encoder) => lines.forEach((line) => encoder.copy(position(line), 61)));
    const next = concatBytes(...lines.map((line) => base.subarray(position(line), position(line) + 61)));
    const image = new MemoryImage(base);
    apply(image, delta, next.length);
    assertSame(image.data, next);
    assert.ok(isRead(image.reads), `${image.reads} reads`);
  }
});

Deno.test("memory grows neither with the image nor with the deltas that make it longer", () => {
  const image = { bytes: 2 ** 32, readAt: () => {}, writeAt: () => {}, truncate: () => {} };
  const patcher = new Patcher(image, new MemoryImage(new Uint8Array()));
  const deltas = Array.from({ length: 20 }, (_, round) => {
    const bytes = image.bytes + round * 4096;
    const delta = encoded((encoder) => {
      encoder.copy(0, bytes);
      encoder.literal(new Uint8Array(4096));
    });
    return { delta, nextBytes: bytes + 4096 };
  });
  const before = Deno.memoryUsage().external;
  for (const { delta, nextBytes } of deltas) {
    const patch = patcher.start(nextBytes);
    patch.push(delta);
    patch.finish();
  }
  const grown = Deno.memoryUsage().external - before;
  assert.ok(grown < 1_000_000, `${grown} bytes`);
});

Deno.test("what moved between changed pages is copied in one piece, across page borders too", () => {
  const base = noise(64 * 4096, 5);
  const next = base.slice();
  // Ten bytes of page 10, two pages, ten bytes of page 13: too few for a block of their own.
  next.set(base.subarray(11 * 4096 - 10, 13 * 4096 + 10), 40 * 4096 + 7);
  next.set(noise(4 * 4096, 6), 10 * 4096);
  const { commands, literalBytes } = diff(base, next, 4096);
  // Copy to page 10, literal, copy to page 40, what moved, copy to the end.
  assert.equal(commands, 5);
  assert.equal(literalBytes, 4 * 4096);
});

Deno.test("a short stretch is copied within its page, and stored again where it came from another", () => {
  const base = noise(8 * 4096, 23);
  for (
    const [from, length, isCopied] of [[1, 42, true], [1, 41, false], [5, 41, true], [5, 16, true]] as const
  ) {
    const next = base.slice();
    next.set(noise(4096, 24), 1 * 4096);
    next.set(noise(4096, 25), 5 * 4096);
    next.set(base.subarray(from * 4096 + 64, from * 4096 + 64 + length), 5 * 4096 + 1000);
    const { delta, literalBytes } = diff(base, next, 4096);
    assert.equal(literalBytes, 2 * 4096 - (isCopied ? length : 0), `${length} bytes from page ${from}`);
    assertSame(patch(base, delta, next.length), next);
  }
});

Deno.test("a match does not run on from one changed page into another that is not the next", () => {
  const base = noise(8 * 512, 13);
  const next = base.slice();
  const joined = concatBytes(base.subarray(1 * 512 + 256, 2 * 512), base.subarray(3 * 512, 3 * 512 + 256));
  next.set(joined, 6 * 512); // the end of page 1 and the start of page 3
  next.fill(1, 1 * 512, 1 * 512 + 40);
  next.fill(2, 3 * 512 + 300, 3 * 512 + 340);
  const { delta, literalBytes } = diff(base, next, 512);
  assertSame(patch(base, delta, next.length), next);
  assert.equal(literalBytes, 80);

  // Nor backwards: too little of page 1 for a match of its own, before the start of page 3.
  const other = base.slice();
  for (const page of [1, 3, 4, 5]) other.fill(page, page * 512 + 300, page * 512 + 340);
  const before = base.subarray(2 * 512 - 12, 2 * 512);
  other.set(concatBytes(before, base.subarray(3 * 512, 3 * 512 + 256)), 7 * 512 + 100);
  const found = diff(base, other, 512);
  assertSame(patch(base, found.delta, other.length), other);
  assert.equal(found.literalBytes, 4 * 40 + before.length);
});

Deno.test("moved pages are found past the index's limit, by reading them again", () => {
  const base = noise(512 * 4096, 11);
  // Every page one further, as after a VACUUM: nothing is equal in place.
  const next = concatBytes(base.subarray(0, 4096), noise(4096, 12), base.subarray(4096));
  const { delta, literalBytes } = diff(base, next, 4096, { indexBytesMax: 64 * 1024 });
  assert(literalBytes < 4 * 4096, `${literalBytes} literal bytes`);
  assertSame(patch(base, delta, next.length), next);
});

Deno.test("memory stays within the index's limit, however much changed", () => {
  const bytes = 96 * 1024 * 1024;
  const half = noise(1024 * 1024, 21);
  /** Differs in every page from the other seed's, and takes no memory. */
  const image = (seed: number): ImageReader => ({
    bytes,
    readAt(buffer, position) {
      for (let at = 0; at < buffer.length; at++) buffer[at] = half[(position + at) % 1048573]! ^ seed;
    },
  });
  const changes = comparePages(image(1), image(2), { pageBytes: 4096 });
  assert.equal(changedPages(changes), bytes / 4096);
  // Of this isolate alone: other tests run in the same process.
  const memory = () => Deno.memoryUsage().heapTotal + Deno.memoryUsage().external;
  const before = memory();
  let most = before;
  for (const chunk of encodeChanges(image(1), image(2), changes, { indexBytesMax: 2 * 1024 * 1024 })) {
    most = Math.max(most, memory());
    releaseBytes(chunk);
  }
  assert(most - before < 48 * 1024 * 1024, `${most - before} bytes more`);
});

Deno.test("repetitive pages do not take forever", () => {
  const base = new Uint8Array(2048 * 4096);
  const next = base.map((_, i) => i % 41 < 20 ? 0 : i % 7);
  const start = process.threadCpuUsage();
  const { delta } = diff(base, next, 4096);
  assert(process.threadCpuUsage(start).user < 20e6);
  assertSame(patch(base, delta, next.length), next);
});

Deno.test("a delta over the limit is given up early", () => {
  const base = new MemoryImage(new Uint8Array(16 * 1024 * 1024));
  const next = new MemoryImage(noise(base.bytes, 4));
  const changes = comparePages(base, next, { pageBytes: 4096 });
  const limit = { giveUpOverBytes: 1024 * 1024 };
  for (const chunks of [encodeChanges(base, next, changes, limit), encodeWholePages(next, changes, limit)]) {
    const { delta, isWhole } = drain(chunks);
    assert.equal(isWhole, false);
    assert(delta.length <= 1024 * 1024, `${delta.length} bytes were written`);
  }
  const few = new MemoryImage(base.data);
  few.data.set(noise(100, 5), 5000);
  const small = (giveUpOverBytes: number) =>
    drain(encodeChanges(base, few, comparePages(base, few, { pageBytes: 4096 }), { giveUpOverBytes }));
  const { length } = small(1000).delta;
  assert.equal(small(length).delta.length, length);
  assert.equal(small(length - 1).isWhole, false);
  const same = drain(encodeChanges(base, base, comparePages(base, base, { pageBytes: 4096 }), limit));
  assert(same.isWhole);
  assert.equal(same.delta.length, 4 + 6 + 1); // magic, one COPY_N1_N4, END
});

Deno.test("the hooks see every byte of both images once, in order", () => {
  const base = noise(2500 * 1024, 1), next = noise(1300 * 1024, 2);
  const seen: [Uint8Array[], Uint8Array[]] = [[], []];
  comparePages(new MemoryImage(base), new MemoryImage(next), {
    pageBytes: 1024,
    onBase: (chunk) => seen[0].push(chunk.slice()),
    onNext: (chunk) => seen[1].push(chunk.slice()),
  });
  assertSame(concatBytes(...seen[0]), base);
  assertSame(concatBytes(...seen[1]), next);
});

Deno.test("images that are not whole pages are refused", () => {
  const whole = new MemoryImage(new Uint8Array(4096)), cut = new MemoryImage(new Uint8Array(4000));
  assert.throws(() => comparePages(whole, cut, { pageBytes: 4096 }), { kind: "source" });
  assert.throws(() => comparePages(cut, whole, { pageBytes: 4096 }), { kind: "source" });
  assert.throws(() => pageChecksums(cut, { pageBytes: 4096 }), { kind: "source" });
  for (const pageBytes of [0, 256, 1000, 131072]) {
    assert.throws(() => comparePages(whole, whole, { pageBytes }), RangeError);
  }
  assert.throws(() => compareChecksums(new Uint8Array(15), whole, { pageBytes: 4096 }), RangeError);
});

/** By the program: node:sqlite refuses VACUUM unless Deno may do everything. */
function vacuum(database: string): void {
  const { success } = new Deno.Command("sqlite3", { args: ["-bail", database, "VACUUM"], stdin: "null" })
    .outputSync();
  assert(success);
}

Deno.test("real databases: splits, deletes and a VACUUM cost little more than what is new", async () => {
  await inTempDir(async (folder) => {
    const db = new DatabaseSync(`${folder}/live.db`);
    db.exec(
      "PRAGMA journal_mode = WAL; CREATE TABLE t (id TEXT PRIMARY KEY, body BLOB); CREATE INDEX i ON t (body)",
    );
    const insert = db.prepare("INSERT OR REPLACE INTO t VALUES (?, ?)");
    let seed = 1;
    const add = (rows: number) => {
      db.exec("BEGIN");
      for (let i = 0; i < rows; i++) insert.run(noise(16, seed++ * 7919).toHex(), noise(200, seed * 104729));
      db.exec("COMMIT");
    };
    const image = async (name: string) => {
      await Deno.remove(`${folder}/${name}`).catch(() => {}); // into an existing file the schema cookie would differ
      await backup(db, `${folder}/${name}`);
      return Deno.readFileSync(`${folder}/${name}`);
    };
    add(20_000);
    let base = await image("base");
    const steps: [string, () => void, number][] = [
      ["inserts with splits", () => add(500), 500 * (2 * 200 + 2 * 32 + 200)],
      ["a mass delete", () => db.exec("DELETE FROM t WHERE id < '4'"), base.length / 20],
      ["a vacuum", () => vacuum(`${folder}/live.db`), base.length / 20],
      ["a new column", () => db.exec("ALTER TABLE t ADD COLUMN more TEXT"), 4096],
      ["nothing", () => {}, 20],
    ];
    for (const [name, change, bytesMax] of steps) {
      change();
      const next = await image("next");
      const { delta } = diff(base, next, 4096);
      assertSame(patch(base, delta, next.length), next);
      assertSame(rdiffPatch(folder, base, delta), next);
      assert(delta.length < bytesMax, `${name}: ${delta.length} bytes`);
      base = next;
    }
    db.close();
  });
});
