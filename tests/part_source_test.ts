// deno-lint-ignore-file no-import-prefix -- what only tests import is pinned here, not in deno.json
/**
 * What `scripts/host/restore/part_source.ts` and `image_writer.ts` promise: on another thread it is as here, also for several
 * parts at a time, and a failure comes back from there.
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import fc from "npm:fast-check@4.10.2";
import { concatBytes } from "../scripts/core/bytes.ts";
import { FILES_PART } from "../scripts/core/names.ts";
import { LINE_BYTES, LineRing } from "../scripts/core/snapshot/line_ring.ts";
import { FRAME_BYTES_MAX, FrameCompressor } from "../scripts/core/snapshot/zstd_frames.ts";
import { realFs } from "../scripts/host/fs.ts";
import type { Fs } from "../scripts/host/host.ts";
import { createEncrypter } from "../scripts/host/keys/age.ts";
import { generateIdentity, type Identity } from "../scripts/host/keys/identity.ts";
import { openIdentityFile, serveIdentities } from "../scripts/host/keys/identity_thread.ts";
import { imageWriterThread } from "../scripts/host/restore/image_writer.ts";
import { openPart } from "../scripts/host/restore/part_reader.ts";
import {
  type PartSource,
  serveSources,
  sourceHere,
  sourceThread,
  type StartSource,
} from "../scripts/host/restore/part_source.ts";
import { makeHost } from "../scripts/host/steps/step.ts";
import { inTempDir } from "./real/files.ts";
import { noise } from "./real/random.ts";

const { identity: IDENTITY, recipient: RECIPIENT } = await generateIdentity();
const here = sourceHere(realFs);

/** Both ends of a port in this thread: what is sent is still cut off from its sender. */
function thread(fs = realFs): { readonly start: StartSource } & Disposable {
  const { port1, port2 } = new MessageChannel();
  serveSources(port2, fs);
  return sourceThread(port1);
}

/** A file as parts are, and what it holds in plaintext. */
async function makePart(folder: string, name: string, content: Uint8Array, frameBytes: number) {
  const compressor = new FrameCompressor(1, frameBytes);
  return await encryptPart(folder, name, concatBytes(...compressor.push(content), ...compressor.finish()));
}

async function encryptPart(folder: string, name: string, packed: Uint8Array) {
  const encrypter = await createEncrypter([RECIPIENT]);
  const { header } = encrypter;
  const bytes = concatBytes(header, ...encrypter.push(packed), ...encrypter.finish());
  const path = `${folder}/${name}`;
  Deno.writeFileSync(path, bytes);
  return { path, packed, bytes, header };
}

/** The same files; how many are open, and how often they were read. */
function countedFs() {
  const seen = { open: 0, reads: 0 };
  const open: Fs["open"] = (path, options) => {
    const file = realFs.open(path, options);
    seen.open++;
    return {
      ...file,
      read(buffer) {
        seen.reads++;
        return file.read(buffer);
      },
      close() {
        seen.open--;
        file.close();
      },
    };
  };
  return { seen, fs: { ...realFs, open } };
}

function startOf(path: string, unpacked: boolean, isHashed = true) {
  const { size } = Deno.statSync(path);
  return {
    path,
    called: `the store's ${path}`,
    bytes: size,
    identities: [IDENTITY],
    unpacked,
    isHashed,
  };
}

async function readAll(source: PartSource, unpacked: boolean) {
  const pieces: Uint8Array[] = [];
  for (;;) {
    const { bytes, sha256, readBytes } = await source.next();
    if (!bytes) return { content: concatBytes(...pieces), sha256, readBytes };
    pieces.push(bytes.slice());
    if (!unpacked) source.reuse(bytes);
  }
}

Deno.test("parts are read on a thread as here, whole and several at a time, decompressed there or not", async () => {
  await inTempDir(async (folder) => {
    using there = thread();
    const part = fc.record({
      bytes: fc.oneof(fc.nat(300_000), fc.integer({ min: 3_000_000, max: 6_000_000 })),
      seed: fc.nat(),
      frameBytes: fc.integer({ min: 50_000, max: FRAME_BYTES_MAX }),
      unpacked: fc.boolean(),
      isHashed: fc.boolean(),
      prepared: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 3 }), async (parts) => {
        const made = await Promise.all(parts.map(async ({ bytes, seed, frameBytes, ...part }, index) => {
          const content = noise(bytes, seed);
          return { ...part, content, ...await makePart(folder, String(index), content, frameBytes) };
        }));
        for (const start of [here, there.start]) {
          await Promise.all(
            made.map(async ({ path, unpacked, isHashed, prepared, content, packed, bytes }) => {
              using source = start(startOf(path, unpacked, isHashed));
              if (prepared) source.prepare();
              const found = await readAll(source, unpacked);
              const sha256 = createHash("sha256").update(bytes).digest("hex");
              assert.equal(found.sha256, isHashed ? sha256 : undefined);
              assert.equal(found.readBytes, bytes.length);
              assert.ok(Buffer.from(found.content).equals(unpacked ? content : packed));
            }),
          );
        }
      }),
      { numRuns: 25 },
    );
  });
});

Deno.test("what is damaged is an error of its own part alone, with its kind", async () => {
  await inTempDir(async (folder) => {
    using there = thread();
    const content = noise(300_000, 1);
    const good = await makePart(folder, "good", content, FRAME_BYTES_MAX);
    const flipped = await makePart(folder, "flipped", content, FRAME_BYTES_MAX);
    flipped.bytes[100_000]! ^= 1;
    Deno.writeFileSync(flipped.path, flipped.bytes);
    const cut = await makePart(folder, "cut", content, FRAME_BYTES_MAX);
    Deno.writeFileSync(cut.path, cut.bytes.subarray(0, 200_000));
    const cutFrame = await encryptPart(folder, "cut frame", good.packed.subarray(0, -1));
    for (const start of [here, there.start]) {
      for (const unpacked of [false, true]) {
        const read = async (path: string) => {
          using source = start(startOf(path, unpacked));
          return await readAll(source, unpacked);
        };
        const whole = read(good.path);
        await Promise.all([
          assert.rejects(read(flipped.path), {
            kind: "integrity",
            message: /the store's .*flipped: chunk 1 does not authenticate/,
          }),
          assert.rejects(read(cut.path), { kind: "integrity" }),
          unpacked
            ? assert.rejects(read(cutFrame.path), {
              kind: "integrity",
              message: /the store's .*cut frame: it ends inside a frame/,
            })
            : read(cutFrame.path),
          assert.rejects(async () => {
            using source = start({ ...startOf(good.path, unpacked), path: `${folder}/missing` });
            await source.next();
          }, { kind: "disk", message: /Cannot read .*\/missing/ }),
        ]);
        assert.ok(Buffer.from((await whole).content).equals(unpacked ? content : good.packed));
      }
    }
  });
});

Deno.test("a part that no identity opens is told from one whose header is damaged, and identities are read, on a thread as here", async () => {
  await inTempDir(async (folder) => {
    const { seen, fs } = countedFs();
    using there = thread(fs);
    const host = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
    const { bytes, header } = await makePart(folder, FILES_PART, noise(1000, 1), FRAME_BYTES_MAX);
    const sealed = (bytes: Uint8Array) => ({
      name: FILES_PART,
      bytes: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    });
    const part = sealed(bytes);
    const cut = bytes.subarray(0, header.length - 1);
    const stranger = await generateIdentity();
    const threads = {
      startThread: () => {
        const { port1, port2 } = new MessageChannel();
        serveIdentities(port2);
        return port1;
      },
    };
    const fileOf = (text: string, passphrase?: string) => ({
      bytes: new TextEncoder().encode(text),
      passphrase,
    });
    for (const start of [sourceHere(fs), there.start]) {
      const reading = { start, unpacked: true, isHashed: true };
      const open = (identity: Identity, as = part) => openPart(host, { folder }, as, [identity], reading);
      Deno.writeFileSync(`${folder}/${FILES_PART}`, bytes);
      await assert.rejects(open(stranger.identity), { kind: "key", message: /none of the identities/ });
      Deno.writeFileSync(`${folder}/${FILES_PART}`, bytes.with(60, bytes[60]! ^ 1));
      await assert.rejects(open(IDENTITY), { kind: "integrity", message: /SHA-256/ });
      Deno.writeFileSync(`${folder}/${FILES_PART}`, cut);
      const atEnd = { kind: "integrity", message: /it ends within its header/ };
      await assert.rejects(open(IDENTITY, sealed(cut)), atEnd);
      Deno.writeFileSync(`${folder}/${FILES_PART}`, bytes);
      using _good = await open(IDENTITY);
      assert.equal(seen.open, 1, "what could not be opened is closed");
    }
    const signer = "ssh-ed25519 AAAA of the hub";
    for (const host of [{}, threads]) {
      const found = await openIdentityFile(
        host,
        fileOf(`# signer: ${signer}\n${IDENTITY}\n${stranger.identity}\n`),
      );
      assert.deepEqual(found, { identities: [IDENTITY, stranger.identity], signers: [signer] });
      const mistyped = fileOf(IDENTITY.slice(0, -1));
      await assert.rejects(openIdentityFile(host, mistyped), { kind: "key", message: /line 1 is mistyped/ });
      const plain = fileOf(IDENTITY, "a passphrase");
      await assert.rejects(openIdentityFile(host, plain), { kind: "key", message: /not an encrypted one/ });
    }
  });
});

Deno.test("a part of which a last byte is read alone is read whole, and a read that fails once is told", async () => {
  await inTempDir(async (folder) => {
    // As many bytes as are read at once, and one: 16 for the nonce, and 16 with each of eight chunks.
    const packed = noise((512 << 10) + 1 - 16 - 8 * 16, 1);
    const last = await encryptPart(folder, "last", packed);
    assert.equal(last.bytes.length, last.header.length + (512 << 10) + 1);
    const { path } = await makePart(folder, "part", noise(900_000, 1), 300_000);
    // The header is read twice: whole, and up to where the rest begins.
    let [reads, failsAt] = [0, 0];
    const open: Fs["open"] = (path, options) => {
      const file = realFs.open(path, options);
      const fail = () => {
        if (++reads === failsAt) throw new Error("Input/output error (os error 5)");
      };
      return {
        ...file,
        read(buffer) {
          fail();
          return file.read(buffer);
        },
        readAt(buffer, position) {
          fail();
          return file.readAt(buffer, position);
        },
      };
    };
    const failing = { ...realFs, open };
    using there = thread();
    using failingThere = thread(failing);
    for (const start of [here, there.start]) {
      using source = start(startOf(last.path, false));
      assert.ok(Buffer.from((await readAll(source, false)).content).equals(packed));
    }
    for (const start of [sourceHere(failing), failingThere.start]) {
      for (const unpacked of [false, true]) {
        for (failsAt of [1, 2, 4]) {
          reads = 0;
          using source = start(startOf(path, unpacked));
          const failure = { kind: "disk", message: /Cannot read .*\/part: Input\/output error/ };
          await assert.rejects(readAll(source, unpacked), failure);
        }
      }
    }
  });
});

Deno.test("a part that is decompressed elsewhere is read ahead by a few pieces, however many were taken", async () => {
  await inTempDir(async (folder) => {
    const { seen, fs } = countedFs();
    using there = thread(fs);
    const long = await makePart(folder, "long", noise(10_000_000, 1), FRAME_BYTES_MAX);
    const short = await makePart(folder, "short", noise(1000, 1), FRAME_BYTES_MAX);
    using source = there.start(startOf(long.path, false));
    for (let taken = 0; taken < 8; taken++) source.reuse((await source.next()).bytes!);
    // Answered behind all that was asked for before.
    using after = there.start(startOf(short.path, true));
    await after.next();
    assert.ok(seen.reads >= 8 && seen.reads < 8 + 8, `${seen.reads} reads`);
  });
});

Deno.test("a forged part whose frames hold far more than it has bytes is taken frame by frame, and a cut one to its end", async () => {
  await inTempDir(async (folder) => {
    using there = thread();
    const frame = zstdCompressSync(new Uint8Array(FRAME_BYTES_MAX));
    const host = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
    const forge = async (packed: Uint8Array) => {
      const { bytes } = await encryptPart(folder, FILES_PART, packed);
      return {
        name: FILES_PART,
        bytes: bytes.length,
        sha256: createHash("sha256").update(bytes).digest("hex"),
      };
    };
    const cut = await forge(frame.subarray(0, -1));
    for (const start of [here, there.start]) {
      for (const unpacked of [false, true]) {
        const reading = { start, unpacked, isHashed: false };
        using opened = await openPart(host, { folder }, cut, [IDENTITY], reading);
        const failure = { kind: "integrity", message: /files\.tar\.zst\.age: it ends inside a frame/ };
        await assert.rejects(Array.fromAsync(opened.contents()), failure);
      }
    }
    const part = await forge(concatBytes(...Array.from({ length: 100 }, () => frame)));
    const checkpoint = () => {
      throw new Error("interrupted");
    };
    using interrupted = await openPart({ ...host, checkpoint }, { folder }, part, [IDENTITY]);
    await assert.rejects(interrupted.contents().next(), /interrupted/);
    for (const start of [here, there.start]) {
      for (const unpacked of [false, true]) {
        const reading = { start, unpacked, isHashed: true };
        using opened = await openPart(host, { folder }, part, [IDENTITY], reading);
        const before = Deno.memoryUsage().external;
        for await (const content of opened.contents()) {
          assert.equal(content.length, FRAME_BYTES_MAX);
          break;
        }
        const taken = Deno.memoryUsage().external - before;
        assert.ok(taken < 10 * FRAME_BYTES_MAX, `${taken} bytes, of ${100 * FRAME_BYTES_MAX} that it holds`);
      }
    }
  });
});

/** A thread that writes images, as the program's own does for a step; after so many writes its disk is full. */
function writerThread(writesMax: number): { readonly port: MessagePort } & Disposable {
  const worker = new Worker(new URL("./real/image_writer_thread.ts", import.meta.url), { type: "module" });
  const { port1, port2 } = new MessageChannel();
  worker.postMessage({ port: port2, writesMax }, [port2]);
  return { port: port1, [Symbol.dispose]: () => worker.terminate() };
}

/** Fills a ring many times over, as a patcher does: waits for a slot, writes a line into it, commits now and then. */
function fill(
  ring: LineRing,
  writer: { commit(count: number, bytes: number): void; wait(count: number): void },
) {
  const LINES = 1000;
  const expected = new Uint8Array(LINES * LINE_BYTES - 100);
  let committed = 0;
  for (let count = 0; count < 5 * LINES; count++) {
    if (count - committed === ring.slots) writer.commit(committed = count, expected.length);
    if (count >= ring.slots) writer.wait(count - ring.slots + 1);
    const slot = count % ring.slots;
    const line = count * 7 % LINES;
    const data = ring.data.subarray(slot * LINE_BYTES, (slot + 1) * LINE_BYTES).fill(count);
    ring.lines[slot] = line;
    expected.set(data.subarray(0, expected.length - line * LINE_BYTES), line * LINE_BYTES);
  }
  writer.commit(5 * LINES, expected.length);
  return expected;
}

const sharedRing = (slots: number) => new LineRing(slots, new SharedArrayBuffer(LineRing.bytesFor(slots, 0)));

Deno.test("another thread writes what is in the ring, before its places are filled again", async () => {
  await inTempDir(async (folder) => {
    for (const slots of [1, 16, 300]) {
      using there = writerThread(Infinity);
      const path = `${folder}/${slots}`;
      Deno.writeFileSync(path, new Uint8Array());
      const ring = sharedRing(slots);
      using writer = imageWriterThread(there.port, path);
      writer.empty(ring);
      const expected = fill(ring, writer);
      await writer.finish();
      assert.ok(Buffer.from(Deno.readFileSync(path)).equals(expected), `${slots} slots`);
    }
  });
});

Deno.test("another thread writes of what comes in once more with the next commit only that", async () => {
  await inTempDir(async (folder) => {
    // 80 lines are written by 8 at a time.
    using there = writerThread(10);
    Deno.writeFileSync(`${folder}/image`, new Uint8Array());
    const [slots, lines] = [300, 80];
    const ring = sharedRing(slots);
    using writer = imageWriterThread(there.port, `${folder}/image`);
    writer.empty(ring);
    let count = 0;
    for (let round = 1; round <= 20; round++) {
      for (let line = 0; line < lines; line++, count++) {
        if (count >= slots) writer.wait(count - slots + 1);
        const slot = count % slots;
        ring.lines[slot] = line;
        ring.data.fill(round, slot * LINE_BYTES, (slot + 1) * LINE_BYTES);
      }
      for (let n = count - 2 * lines; round > 1 && n < count - lines; n++) ring.supersede(n % slots);
      writer.commit(count, lines * LINE_BYTES);
    }
    await writer.finish();
    assert.ok(Deno.readFileSync(`${folder}/image`).every((byte) => byte === 20));
  });
});

Deno.test("another thread writes the pieces that it takes, one at a time, and says when", async () => {
  await inTempDir(async (folder) => {
    using there = writerThread(Infinity);
    const path = `${folder}/image`;
    const expected = noise(5_000_000, 7);
    Deno.writeFileSync(path, new Uint8Array(expected.length));
    using image = Deno.openSync(path, { write: true });
    using writer = imageWriterThread(there.port, path);
    const taken = { yes: 0, no: 0 };
    for (let at = 0; at < expected.length; at += 100_000) {
      const piece = expected.slice(at, at + 100_000);
      if (writer.offer(piece, at)) {
        taken.yes++;
        assert.equal(piece.length, 0, "it is the other thread's now");
      } else {
        taken.no++;
        image.seekSync(at, Deno.SeekMode.Start);
        assert.equal(image.writeSync(piece), piece.length);
      }
      if (at % 1_000_000 === 0) await writer.settle();
    }
    await writer.settle();
    assert.ok(Buffer.from(Deno.readFileSync(path)).equals(expected));
    assert.ok(taken.yes >= 5 && taken.no >= 5, JSON.stringify(taken));
    await writer.finish();
  });
});

Deno.test("another thread takes no more pieces than there is room for its answers while nobody hears them", async () => {
  await inTempDir(async (folder) => {
    using there = writerThread(Infinity);
    Deno.writeFileSync(`${folder}/image`, new Uint8Array());
    using writer = imageWriterThread(there.port, `${folder}/image`);
    let taken = 0;
    for (let offered = 0; offered < 1_500_000 && taken < 1100; offered++) {
      if (writer.offer(new Uint8Array(), 0)) taken++;
    }
    assert.ok(taken < 1100);
    await writer.settle();
    assert.ok(writer.offer(new Uint8Array(1), 0), "all is heard");
    await writer.settle();
    assert.equal(Deno.statSync(`${folder}/image`).size, 1);
    await writer.finish();
  });
});

Deno.test("a piece that cannot be written on the other thread is told once it is waited for, and at the end", async () => {
  await inTempDir(async (folder) => {
    Deno.writeFileSync(`${folder}/image`, new Uint8Array());
    for (
      const [name, reason] of [["image", /image: the disk is full/], [
        "missing",
        /missing: .*No such file/,
      ]] as const
    ) {
      using there = writerThread(0);
      using writer = imageWriterThread(there.port, `${folder}/${name}`);
      assert.ok(writer.offer(noise(100_000, 1), 0));
      await assert.rejects(writer.settle(), { kind: "disk", message: reason });
      await assert.rejects(writer.finish(), { kind: "disk", message: reason });
    }
  });
});

Deno.test("a write that fails on the other thread ends the waiting for it, and is told at the end", async () => {
  await inTempDir(async (folder) => {
    Deno.writeFileSync(`${folder}/image`, new Uint8Array());
    const full = { kind: "disk", message: /Cannot write .*\/image: the disk is full/ };
    const missing = { kind: "disk", message: /Cannot write .*\/missing: .*No such file/ };
    for (const [name, writesMax, failure] of [["image", 30, full], ["missing", 0, missing]] as const) {
      using there = writerThread(writesMax);
      const ring = sharedRing(16);
      using writer = imageWriterThread(there.port, `${folder}/${name}`);
      writer.empty(ring);
      assert.throws(() => fill(ring, writer), { kind: "disk" });
      await assert.rejects(writer.finish(), failure);
    }
  });
});
