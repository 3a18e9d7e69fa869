// deno-lint-ignore-file no-import-prefix -- what only tests import is pinned here, not in deno.json
/** What `scripts/host/cipher.ts` promises: on another thread it is as here, also for several parts at a time. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
import fc from "npm:fast-check@4.10.2";
import { PayloadEncrypter } from "../scripts/core/age_payload.ts";
import { concatBytes } from "../scripts/core/bytes.ts";
import { FILES_PART } from "../scripts/core/names.ts";
import { FRAME_BYTES_MAX } from "../scripts/core/zstd_frames.ts";
import { createEncrypter } from "../scripts/host/age.ts";
import {
  type Cipher,
  cipherHere,
  type CipherRun,
  cipherThread,
  serveCipher,
} from "../scripts/host/cipher.ts";
import { generateIdentity } from "../scripts/host/identity.ts";
import { openPart } from "../scripts/host/part_reader.ts";
import { makeHost } from "../scripts/host/step.ts";

const HEADER = new TextEncoder().encode("a header\n");
const FILE_KEY = new Uint8Array(16).fill(7);
const START = { fileKey: FILE_KEY, header: HEADER };

/** Both ends of a port in this thread: what is sent is still cut off from its sender. */
function thread(): Cipher {
  const { port1, port2 } = new MessageChannel();
  serveCipher(port2);
  return cipherThread(port1);
}

function payloadOf(content: Uint8Array): Uint8Array {
  const encrypter = new PayloadEncrypter(FILE_KEY, new Uint8Array(16));
  return concatBytes(...encrypter.push(content), ...encrypter.finish());
}

async function readAll(run: CipherRun, payload: Uint8Array, pieceBytes: number) {
  const answers = [];
  for (let at = 0; at < payload.length; at += pieceBytes) {
    answers.push(run.push(payload.slice(at, at + pieceBytes)));
  }
  const end = run.finish();
  const { plaintext, sha256 } = await end;
  return { content: concatBytes(...await Promise.all(answers), plaintext), sha256 };
}

/** Bytes that hardly compress, the same for the same seed. */
function noise(bytes: number, seed: number): Uint8Array {
  let state = seed | 1;
  return Uint8Array.from({ length: bytes }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  });
}

Deno.test("parts are read on a thread as here, whole and several at a time", async () => {
  using there = thread();
  const part = fc.record({
    bytes: fc.nat(400_000),
    seed: fc.nat(),
    pieceBytes: fc.integer({ min: 5_000, max: 300_000 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 3 }), async (parts) => {
      for (const cipher of [cipherHere, there]) {
        const read = await Promise.all(parts.map(async ({ bytes, seed, pieceBytes }) => {
          const content = noise(bytes, seed);
          const payload = payloadOf(content);
          const sha256 = createHash("sha256").update(HEADER).update(payload).digest("hex");
          return [await readAll(cipher.start(START), payload, pieceBytes), { content, sha256 }] as const;
        }));
        for (const [found, expected] of read) {
          assert.equal(found.sha256, expected.sha256);
          assert.ok(Buffer.from(found.content).equals(expected.content));
        }
      }
    }),
    { numRuns: 30 },
  );
});

Deno.test("what is damaged is an error of its own part alone, with its kind", async () => {
  using there = thread();
  const payload = payloadOf(noise(300_000, 1));
  const flipped = payload.slice();
  flipped[100_000]! ^= 1;
  for (const cipher of [cipherHere, there]) {
    const good = cipher.start(START);
    const read = (payload: Uint8Array) => readAll(cipher.start(START), payload, 50_000);
    const cut = payload.subarray(0, 200_000);
    await Promise.all([
      assert.rejects(read(flipped), { kind: "integrity", message: /chunk 1 does not authenticate/ }),
      assert.rejects(read(cut), { kind: "integrity" }),
    ]);
    assert.deepEqual((await readAll(good, payload, 70_000)).content, noise(300_000, 1));
  }
});

Deno.test("a forged part whose frames hold far more than it has bytes is taken frame by frame", async () => {
  using there = thread();
  const { identity, recipient } = await generateIdentity();
  const frame = zstdCompressSync(new Uint8Array(FRAME_BYTES_MAX));
  const encrypter = await createEncrypter([recipient]);
  const bomb = concatBytes(
    encrypter.header,
    ...encrypter.push(concatBytes(...Array.from({ length: 100 }, () => frame))),
    ...encrypter.finish(),
  );
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeFileSync(`${folder}/files.tar.zst.age`, bomb);
    const sha256 = createHash("sha256").update(bomb).digest("hex");
    const host = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
    const part = { name: FILES_PART, bytes: bomb.length, sha256 };
    for (const cipher of [cipherHere, there]) {
      using opened = await openPart(host, folder, part, [identity], cipher);
      const before = Deno.memoryUsage().external;
      for await (const content of opened.contents()) {
        assert.equal(content.length, FRAME_BYTES_MAX);
        break;
      }
      const taken = Deno.memoryUsage().external - before;
      assert.ok(taken < 10 * FRAME_BYTES_MAX, `${taken} bytes, of ${100 * FRAME_BYTES_MAX} that it holds`);
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
