// deno-lint-ignore-file no-import-prefix -- what only tests import is pinned here, not in deno.json
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { inflateSync } from "node:zlib";
import { armor, Decrypter, Encrypter } from "age-encryption";
import * as cctv from "npm:cctv-age@0.2.0";
import fc from "npm:fast-check@4.10.2";
import { concatBytes } from "../scripts/core/bytes.ts";
import { BackupError, type ErrorKind } from "../scripts/core/errors.ts";
import {
  CHUNK_BYTES,
  type Codec,
  payloadBytesOf,
  PayloadDecrypter,
  PayloadEncrypter,
} from "../scripts/core/keys/age_payload.ts";
import { identityFileText, identitySheet } from "../scripts/core/keys/identity_file.ts";
import { signersIn } from "../scripts/core/snapshot/trust.ts";
import { createEncrypter, HEADER_BYTES_MAX, parseRecipient } from "../scripts/host/keys/age.ts";
import {
  decryptIdentityFile,
  generateIdentity,
  type Identity,
  openHeader,
  readIdentities,
  recipientOf,
} from "../scripts/host/keys/identity.ts";
import { isEncryptedIdentityFile } from "../scripts/host/keys/identity_bytes.ts";
import { inTempDir } from "./real/files.ts";

// ── Helpers ────────────────────────────────────────────────────────────────────────────────────────────────────

function* inPieces(bytes: Uint8Array, size: number): Generator<Uint8Array<ArrayBuffer>> {
  for (let offset = 0; offset < bytes.length; offset += size) yield bytes.slice(offset, offset + size);
}

/** Passes `bytes` through `codec` and returns what came out, up to the error if there was one. */
function run(codec: Codec, bytes: Uint8Array, size: number): { output: Uint8Array; error: unknown } {
  const pieces: Uint8Array[] = [];
  let error: unknown;
  try {
    for (const piece of inPieces(bytes, size)) {
      pieces.push(...codec.push(piece));
      piece.fill(0xee); // The codec must not have kept it.
    }
    pieces.push(...codec.finish());
  } catch (thrown) {
    error = thrown;
  }
  return { output: concatBytes(...pieces), error };
}

async function decrypt(
  file: Uint8Array,
  identities: readonly Identity[],
  size = CHUNK_BYTES,
): Promise<{ output: Uint8Array; error: unknown }> {
  try {
    const { headerBytes, fileKey } = await openHeader(file.subarray(0, HEADER_BYTES_MAX), identities);
    return run(new PayloadDecrypter(fileKey), file.subarray(headerBytes), size);
  } catch (error) {
    return { output: new Uint8Array(), error };
  }
}

async function encrypt(
  plaintext: Uint8Array,
  recipients: readonly string[],
): Promise<Uint8Array<ArrayBuffer>> {
  const encrypter = await createEncrypter(recipients);
  return concatBytes(encrypter.header, ...encrypter.push(plaintext), ...encrypter.finish());
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

function kindOf(error: unknown): ErrorKind {
  assert.ok(error instanceof BackupError, `only a BackupError may escape, not: ${error}`);
  return error.kind;
}

async function program(
  command: string,
  args: string[],
  input?: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const child = new Deno.Command(command, { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
  const writing = ReadableStream.from(input ? [input] : []).pipeTo(child.stdin).catch(() => {});
  const { success, stdout, stderr } = await child.output();
  await writing;
  assert.ok(success, `${command} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return stdout;
}

// ── The format's official vectors ──────────────────────────────────────────────────────────────────────────────

interface Vector {
  readonly name: string;
  readonly expect: string;
  readonly payload: string | undefined;
  readonly identities: string[];
  readonly passphrase: string | undefined;
  readonly armored: boolean;
  readonly file: Uint8Array;
}

function parseVector(name: string, bytes: Uint8Array): Vector {
  const text = new TextDecoder("latin1").decode(bytes);
  const headerEnd = text.indexOf("\n\n");
  const fields = text.slice(0, headerEnd).split("\n").map((line) => line.split(": ", 2) as [string, string]);
  const field = (key: string) => fields.find(([name]) => name === key)?.[1];
  const body = bytes.subarray(headerEnd + 2);
  return {
    name,
    expect: field("expect")!,
    payload: field("payload"),
    identities: fields.filter(([key]) => key === "identity").map(([, value]) => value),
    passphrase: field("passphrase"),
    armored: field("armored") === "yes",
    file: field("compressed") === "zlib" ? Uint8Array.from(inflateSync(body)) : body,
  };
}

const VECTORS = Object.entries(cctv).map(([name, bytes]) => parseVector(name, bytes));
/**
 * Left out: armored files and passphrases. Both occur here only around identity files, and there it is the
 * age-encryption package that reads them, which runs these same vectors.
 */
const VECTORS_USED = VECTORS.filter((vector) => !vector.armored && vector.passphrase === undefined);
const STRANGER = (await generateIdentity()).identity;

Deno.test("the official vectors cover X25519, hybrid and payload, and few are left out", () => {
  const used = (prefix: string) => VECTORS_USED.filter(({ name }) => name.startsWith(prefix)).length;
  assert.ok(used("x25519") >= 12);
  assert.ok(used("hybrid") >= 18);
  assert.ok(used("stream") >= 25);
  assert.ok(used("stanza") >= 13);
  assert.ok(used("h") >= 8);
  assert.equal(VECTORS.length - VECTORS_USED.length, 58);
});

for (const vector of VECTORS_USED) {
  const identities = vector.identities.length > 0 ? readIdentities(vector.identities.join("\n")) : [STRANGER];
  const expected = vector.expect === "success"
    ? undefined
    : vector.expect === "no match"
    ? "key"
    : "integrity";

  Deno.test(`official vector ${vector.name}: ${vector.expect}, whole and in pieces of any size`, async () => {
    const sizes = [2 ** 20, 65552, 65553, 9973];
    if (vector.file.length < 2 ** 18) sizes.push(65535, 17, 1);
    for (const size of sizes) {
      const { output, error } = await decrypt(vector.file, identities, size);
      assert.equal(
        error === undefined ? undefined : kindOf(error),
        expected,
        `in pieces of ${size}: ${error}`,
      );
      // Also after a failure: all that was let out must be what the vector says is authentic.
      if (vector.payload !== undefined) assert.equal(sha256(output), vector.payload, `in pieces of ${size}`);
    }
  });
}

// ── Against the age program and the package ────────────────────────────────────────────────────────────────────

const SIZES = [0, 1, 65535, 65536, 65537, 131072, 5_000_001];

Deno.test("the age program opens what we encrypt, with each of two recipients, and we open what it encrypts", async () => {
  await inTempDir(async (dir) => {
    const recipients: string[] = [];
    const identities: (readonly Identity[])[] = [];
    for (const file of [`${dir}/a`, `${dir}/b`]) {
      await program("age-keygen", ["-o", file]);
      identities.push(readIdentities(await Deno.readTextFile(file)));
      recipients.push(await recipientOf(identities.at(-1)![0]!));
      assert.equal(
        new TextDecoder().decode(await program("age-keygen", ["-y", file])).trim(),
        recipients.at(-1),
      );
    }
    for (const size of SIZES) {
      const plaintext = Uint8Array.from(randomBytes(size));
      const ours = await encrypt(plaintext, recipients);
      assert.equal(sha256(await program("age", ["-d", "-i", `${dir}/a`], ours)), sha256(plaintext));
      assert.equal(sha256(await program("age", ["-d", "-i", `${dir}/b`], ours)), sha256(plaintext));
      const theirs = await program("age", recipients.flatMap((recipient) => ["-r", recipient]), plaintext);
      assert.equal(ours.length, theirs.length);
      for (const identity of identities) {
        const { output, error } = await decrypt(theirs, identity);
        assert.equal(error, undefined);
        assert.equal(sha256(output), sha256(plaintext));
      }
    }
  });
});

Deno.test("the package opens what we encrypt to post-quantum recipients, and so do we", async () => {
  const [a, b] = [await generateIdentity("hybrid"), await generateIdentity("hybrid")];
  assert.match(a.identity, /^AGE-SECRET-KEY-PQ-1/);
  assert.match(a.recipient, /^age1pq1/);
  for (const size of [0, 65536, 65537]) {
    const plaintext = Uint8Array.from(randomBytes(size));
    const file = await encrypt(plaintext, [a.recipient, b.recipient]);
    for (const { identity } of [a, b]) {
      const decrypter = new Decrypter();
      decrypter.addIdentity(identity);
      assert.equal(sha256(await decrypter.decrypt(file)), sha256(plaintext));
      assert.equal(sha256((await decrypt(file, [STRANGER, identity], 1000)).output), sha256(plaintext));
    }
  }
});

Deno.test("two encryptions of the same bytes share neither header nor payload", async () => {
  const { recipient } = await generateIdentity();
  const [a, b] = [await createEncrypter([recipient]), await createEncrypter([recipient])];
  assert.notDeepEqual(a.header, b.header);
  const [nonceA, nonceB] = [a.finish()[0]!, b.finish()[0]!];
  assert.equal(nonceA.length, 16);
  assert.notDeepEqual(nonceA, nonceB);
});

// ── The payload ────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("a payload is the same however its plaintext is cut into pieces, and comes back however it is cut", () => {
  const fileKey = randomBytes(16);
  const nonce = randomBytes(16);
  const size = fc.oneof(fc.nat(40), fc.nat(200_000), fc.constantFrom(65535, 65536, 65537, 131072));
  const cut = fc.oneof(fc.integer({ min: 100, max: 90_000 }), fc.constantFrom(65535, 65536, 65552, 65553));
  fc.assert(
    fc.property(size, cut, cut, (plaintextBytes, cutA, cutB) => {
      const plaintext = Uint8Array.from({ length: plaintextBytes }, (_, index) => index * 31 + (index >> 8));
      const whole = run(new PayloadEncrypter(fileKey, nonce), plaintext, 2 ** 20).output;
      const sealed = run(new PayloadEncrypter(fileKey, nonce), plaintext, cutA).output;
      assert.equal(sha256(sealed), sha256(whole));
      assert.equal(sealed.length, payloadBytesOf(plaintextBytes));
      const { output, error } = run(new PayloadDecrypter(fileKey), sealed, cutB);
      assert.equal(error, undefined);
      assert.equal(sha256(output), sha256(plaintext));
    }),
    { numRuns: 60 },
  );
});

Deno.test("a payload cut near the edge of a chunk, or with chunks left out, doubled or swapped, is refused", () => {
  const fileKey = randomBytes(16);
  const plaintext = Uint8Array.from(randomBytes(3 * CHUNK_BYTES));
  const payload = run(new PayloadEncrypter(fileKey, randomBytes(16)), plaintext, 2 ** 20).output;
  const [nonce, a, b, c] = [
    payload.subarray(0, 16),
    ...[0, 1, 2].map((index) => payload.subarray(16 + index * 65552, 16 + (index + 1) * 65552)),
  ] as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  assert.equal(run(new PayloadDecrypter(fileKey), concatBytes(nonce, a, b, c), 4096).error, undefined);
  const first = run(new PayloadEncrypter(fileKey, nonce), plaintext.subarray(0, CHUNK_BYTES), 2 ** 20).output;
  const broken: [string, Uint8Array[]][] = [
    ["with chunks in their places behind one that calls itself the last", [first, b, c]],
    ["without its last chunk", [nonce, a, b]],
    ["without its first chunk", [nonce, b, c]],
    ["without a chunk between", [nonce, a, c]],
    ["doubled", [nonce, a, a, b, c]],
    ["swapped", [nonce, b, a, c]],
    ["with something behind it", [nonce, a, b, c, Uint8Array.of(0)]],
    ["with all of it twice", [nonce, a, b, c, a, b, c]],
    ["with one more nonce", [nonce, nonce, a, b, c]],
    ["nothing but its nonce", [nonce]],
  ];
  for (const chunk of [0, 1, 2, 3]) {
    for (const delta of [-17, -16, -1, 1, 15, 16, 17]) {
      const end = 16 + chunk * 65552 + delta;
      if (end < payload.length) broken.push([`cut at ${end}`, [payload.subarray(0, Math.max(0, end))]]);
    }
  }
  for (const [what, pieces] of broken) {
    for (const size of [2 ** 20, 65552, 1000]) {
      const { output, error } = run(new PayloadDecrypter(fileKey), concatBytes(...pieces), size);
      assert.equal(kindOf(error), "integrity", what);
      assert.deepEqual(
        output,
        plaintext.subarray(0, output.length),
        `${what}: only authentic bytes come out`,
      );
    }
  }
});

Deno.test("file keys and nonces of any length but 16 are refused", () => {
  const [short, right] = [new Uint8Array(15), new Uint8Array(16)];
  assert.throws(() => new PayloadEncrypter(short, right), RangeError);
  assert.throws(() => new PayloadEncrypter(right, short), RangeError);
  assert.throws(() => new PayloadDecrypter(short), RangeError);
});

Deno.test("every cut of a small file is refused, and so is anything added", async () => {
  const { identity, recipient } = await generateIdentity();
  const file = await encrypt(new TextEncoder().encode("forty bytes of a very small file indeed!"), [
    recipient,
  ]);
  for (let length = 0; length < file.length; length++) {
    const { output, error } = await decrypt(file.subarray(0, length), [identity]);
    assert.equal(kindOf(error), "integrity", `cut to ${length}`);
    assert.equal(output.length, 0);
  }
  assert.equal(kindOf((await decrypt(concatBytes(file, Uint8Array.of(0)), [identity])).error), "integrity");
  assert.equal(kindOf((await decrypt(concatBytes(file, file), [identity])).error), "integrity");
});

Deno.test("every flipped bit of a small file is refused", async () => {
  for (const type of ["x25519", "hybrid"] as const) {
    const { identity, recipient } = await generateIdentity(type);
    const file = await encrypt(new TextEncoder().encode("a very small file"), [recipient]);
    // Each bit of a hybrid file would take minutes: there it is one bit of each byte.
    const step = type === "hybrid" ? 8 : 1;
    for (let bit = 0; bit < file.length * 8; bit += step) {
      const flipped = Uint8Array.from(file);
      flipped[bit >> 3]! ^= 1 << (step === 1 ? bit & 7 : (bit >> 3) & 7);
      const { output, error } = await decrypt(flipped, [identity]);
      // A damaged stanza looks like one for somebody else.
      assert.match(kindOf(error), /^(integrity|key)$/, `bit ${bit}`);
      assert.equal(output.length, 0);
    }
  }
});

// ── Recipients ─────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("a recipient is read with blanks around it, and anything else is refused with the reason", async () => {
  const { identity, recipient } = await generateIdentity();
  const hybrid = await generateIdentity("hybrid");
  assert.equal(parseRecipient(` ${recipient}\r\n`), recipient);
  assert.equal(parseRecipient(hybrid.recipient), hybrid.recipient);
  const cases: [string, RegExp][] = [
    ["", /does not start with "age1"/],
    [recipient.toUpperCase(), /does not start with "age1"/],
    [recipient.slice(0, -1), /mistyped or cut/],
    [recipient.replace(/.$/, (last) => last === "q" ? "p" : "q"), /mistyped or cut/],
    [hybrid.recipient.slice(0, 500), /mistyped or cut/],
    ["age1", /mistyped or cut/],
    ["age1yubikey1qwerty", /plugin/],
    ["age1tag1qwerty", /plugin or a hardware key/],
    ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI x", /SSH key/],
    [identity, /is an identity, which is secret/],
    [identity.toLowerCase(), /is an identity, which is secret/],
    [hybrid.identity, /is an identity, which is secret/],
  ];
  for (const [text, reason] of cases) {
    assert.throws(() => parseRecipient(text), (error) => {
      assert.equal(kindOf(error), "config");
      const { message, hint, cause } = error as BackupError;
      assert.match(message, reason);
      assert.ok(hint && message.length < 300 && cause === undefined);
      return true;
    });
  }
});

Deno.test("encryption to nobody, to a malformed recipient, to mixed types or to too many is refused", async () => {
  const { recipient } = await generateIdentity();
  const hybrid = await generateIdentity("hybrid");
  await assert.rejects(createEncrypter([]), { kind: "config", message: /there are none/ });
  await assert.rejects(createEncrypter([recipient, "age1x"]), { kind: "config" });
  await assert.rejects(createEncrypter([recipient, hybrid.recipient]), { kind: "config", message: /mixed/ });
  // Well-formed, but the point of order 1: every shared secret with it would be zero.
  const zero = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z";
  await assert.rejects(createEncrypter([zero]), { kind: "config", message: /not a sound public key/ });
  await assert.rejects(createEncrypter(Array(50).fill(hybrid.recipient)), {
    kind: "config",
    message: /too many/,
  });
});

Deno.test("the encrypting side reaches no code that reads identities", async () => {
  const seen = new Set<string>();
  const follow = async (url: URL) => {
    if (seen.has(url.href)) return;
    seen.add(url.href);
    const source = await Deno.readTextFile(url);
    assert.doesNotMatch(source, /\bDecrypter\b.*from "age-encryption"|identityToRecipient/);
    for (const [, specifier] of source.matchAll(/from "(\.[^"]+)"/g)) await follow(new URL(specifier!, url));
  };
  await follow(new URL("../scripts/host/keys/age.ts", import.meta.url));
  assert.ok(seen.size >= 3);
  assert.ok(![...seen].some((href) => href.endsWith("/identity.ts")));
});

// ── Identities ─────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("an identity file is read with comments, blank lines, CRLF and several identities", async () => {
  const [a, b] = [await generateIdentity(), await generateIdentity("hybrid")];
  const text =
    `# created: today\r\n# public key: ${a.recipient}\r\n${a.identity}\r\n\r\n  # mine\n ${b.identity} \n`;
  assert.deepEqual(readIdentities(text), [a.identity, b.identity]);
  assert.equal(await recipientOf(b.identity), b.recipient);
});

Deno.test("an identity file that we make says which seals count, and its sheet shows all of it as text alone", async () => {
  const { identity, recipient } = await generateIdentity();
  const signer = "ssh-ed25519 AAAA hub";
  const places = ["hub@storage:", "<img src=//x>"];
  const kept = { hub: "home", made: "2026-11-20T06:00:00Z", identity, recipient, signer, places };
  const text = identityFileText(kept);
  assert.deepEqual([readIdentities(text), signersIn(text)], [[identity], [signer]]);
  for (const what of [recipient, ...places]) assert.match(text, new RegExp(`^# .*: ${what}$`, "m"));
  const sheet = identitySheet(kept);
  for (const what of [identity, recipient, signer, "hub@storage:"]) assert.ok(sheet.includes(what), what);
  assert.doesNotMatch(sheet, /<img|<script|<link|\ssrc=["']/);
  assert.match(sheet, /content="default-src 'none'; style-src 'unsafe-inline'"/);
});

Deno.test("an identity file with anything else in it is refused: the line is named, never shown", async () => {
  const { identity, recipient } = await generateIdentity();
  const hybrid = await generateIdentity("hybrid");
  const mistyped = identity.replace(/.$/, (last) => last === "Q" ? "P" : "Q");
  const cases: [string, RegExp][] = [
    ["", /no identity is in it/],
    ["# only a comment\n", /no identity is in it/],
    [`# a\n${recipient}`, /line 2 is a recipient/],
    [`${identity}\n${hybrid.recipient}`, /line 2 is a recipient/],
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n", /line 1 is an SSH key/],
    ["ssh-ed25519 AAAAC3 x", /line 1 is an SSH key/],
    ["AGE-PLUGIN-YUBIKEY-1QWERTY", /line 1 needs a plugin/],
    [identity.toLowerCase(), /line 1 is not an identity/],
    ["hunter2", /line 1 is not an identity/],
    [`${hybrid.identity}\n\n${mistyped}`, /line 3 is mistyped or cut/],
    [identity.slice(0, -3), /line 1 is mistyped or cut/],
    [hybrid.identity.slice(0, 40), /line 1 is mistyped or cut/],
    [`${identity} ${identity}`, /line 1 is mistyped or cut/],
    ["#".repeat(2 ** 20 + 1), /far too long/],
    [PROTECTED, /it is encrypted/],
  ];
  for (const [text, reason] of cases) {
    assert.throws(() => readIdentities(text), (error) => {
      assert.equal(kindOf(error), "key");
      const { message, hint, cause } = error as BackupError;
      assert.match(message, reason);
      const shown = `${message} ${hint}`;
      assert.ok(cause === undefined && message.length < 200);
      for (const line of text.split("\n")) {
        if (line.length > 3) assert.ok(!shown.includes(line) && !shown.includes(line.slice(-20)), shown);
      }
      return true;
    });
  }
});

Deno.test("a wrong identity is a key error that says so, in the header alone too", async () => {
  const right = await generateIdentity();
  const wrong = [STRANGER, (await generateIdentity("hybrid")).identity];
  const file = await encrypt(randomBytes(200_000), [right.recipient]);
  const start = file.subarray(0, 400);
  await openHeader(start, [...wrong, right.identity]);
  await assert.rejects(openHeader(start, wrong), (error) => {
    assert.equal(kindOf(error), "key");
    assert.match((error as BackupError).message, /none of the identities given \(2\) opens it/);
    for (const identity of wrong) assert.ok(!Deno.inspect(error).includes(identity.slice(20)));
    return true;
  });
  await assert.rejects(openHeader(start, []), { kind: "key" });
  const cut = openHeader(file.subarray(0, 60), [right.identity]);
  await assert.rejects(cut, { kind: "integrity", message: /ends within its header/ });
});

Deno.test("what is not a binary age file is refused as that", async () => {
  const refuse = (text: string, message: RegExp) =>
    assert.rejects(openHeader(new TextEncoder().encode(text), [STRANGER]), {
      kind: "integrity",
      message,
    });
  await refuse(PROTECTED, /it is armored/);
  await refuse("SQLite format 3\0", /does not start with "age-encryption.org\/v1"/);
  await refuse("age-encryption.org/v2\n-> X25519 a\n", /does not start with/);
  await refuse("age-encryption.org/v1\n-> X25519 a\n\n--- AAAA\n", /header is damaged/);
});

Deno.test("a header that never ends is refused without reading on", async () => {
  const line = "-> x y\n" + "A".repeat(63) + "\n";
  const endless = new TextEncoder().encode("age-encryption.org/v1\n" + line.repeat(2000));
  await assert.rejects(openHeader(endless, [STRANGER]), {
    kind: "integrity",
    message: /does not end within/,
  });
});

/** Made by `age -p -a` (age 1.1.1) from an `age-keygen` file, with the passphrase below. It protects nothing. */
const PROTECTED = `-----BEGIN AGE ENCRYPTED FILE-----
YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IHNjcnlwdCBuaHNnRHNPRjV1ckpXc3Jk
SDhQZG13IDE4Ckl6SXlzWGxhZUExWHhQTEwxSFdvc0R4cnR5MWpkVkZmV2l2cUJ6
OGVGYzAKLS0tIC9tMnBtZUVlanRKc0d6d0xTMStwOXBBTVRsQTUxTzNQYkFXSVVm
ekNKSU0Kqj3a/s5ebHh+jhNtp9hH6qdt/sXctiQN3iw87RYVHJgsT+lBliJeGd6Y
MEzZEZHA/tzrR/f4IBRs3Z7GSqLxlVETl7uW8aDaqfQDCJe/1TJfe6dJygSEFcxl
v4Hl9bligaVAITU8TBydFKfuhvEgOH3QbckDfjMr/kAvOVDXeVT298ivX7YaU2IT
Ogy5j/v3scdz5K5uf5RNVwqsw2IsP8inZpee12OmCr7TMj5KdzIdfcnFGSy+kGmN
aKV0jZfqgk6k3RxVCvxFwRAPRh7ZAjmwQK9HbgSH
-----END AGE ENCRYPTED FILE-----
`;
const PASSPHRASE = "correct horse";
const PROTECTED_RECIPIENT = "age14vg6vdklrh2mtfnrxm9kv369hf34y99vs8zmcz8sgtef77hq7u0s7whwpq";

Deno.test("an identity file that age -p encrypted opens with its passphrase", async () => {
  const bytes = new TextEncoder().encode("\n" + PROTECTED.replaceAll("\n", "\r\n"));
  assert.ok(isEncryptedIdentityFile(bytes));
  const [identity, ...others] = readIdentities(await decryptIdentityFile(bytes, PASSPHRASE));
  assert.equal(await recipientOf(identity!), PROTECTED_RECIPIENT);
  assert.equal(others.length, 0);
});

Deno.test("an encrypted identity file opens armored or binary, and with no passphrase but its own", async () => {
  const { identity } = await generateIdentity();
  const encrypter = new Encrypter();
  encrypter.setPassphrase(PASSPHRASE);
  encrypter.setScryptWorkFactor(10); // The usual 18 takes two seconds every time.
  const text = `# mine\n${identity}\n`;
  const binary = await encrypter.encrypt(text);
  assert.ok(isEncryptedIdentityFile(binary));
  assert.deepEqual(await decryptIdentityFile(binary, PASSPHRASE), text);
  const armored = armor.encode(binary);
  assert.deepEqual(await decryptIdentityFile(new TextEncoder().encode(armored), PASSPHRASE), text);

  await assert.rejects(decryptIdentityFile(binary, "wrong horse"), {
    kind: "key",
    message: /passphrase is wrong/,
  });
  const damaged = Uint8Array.from(binary);
  damaged[binary.length - 1]! ^= 1;
  await assert.rejects(decryptIdentityFile(damaged, PASSPHRASE), { kind: "integrity", message: /damaged/ });
  const cutArmor = new TextEncoder().encode(armored.replace("YWdl", "YWd"));
  await assert.rejects(decryptIdentityFile(cutArmor, PASSPHRASE), { kind: "integrity" });
});

Deno.test("an identity file that is not encrypted with a passphrase is refused as that", async () => {
  const { identity, recipient } = await generateIdentity();
  const toRecipient = await encrypt(new TextEncoder().encode(identity), [recipient]);
  await assert.rejects(decryptIdentityFile(toRecipient, PASSPHRASE), {
    kind: "key",
    message: /to a recipient/,
  });
  const plain = new TextEncoder().encode(identity);
  assert.ok(!isEncryptedIdentityFile(plain));
  await assert.rejects(decryptIdentityFile(plain, PASSPHRASE), {
    kind: "key",
    message: /not an encrypted one/,
  });
  const long = decryptIdentityFile(new Uint8Array(2 ** 20 + 1), PASSPHRASE);
  await assert.rejects(long, { kind: "key", message: /far too long/ });
});

// ── Fuzzing: whatever comes in, only a BackupError comes out ───────────────────────────────────────────────────

function onlyBackupErrors(action: () => unknown): void {
  try {
    action();
  } catch (error) {
    kindOf(error);
  }
}

Deno.test("no text makes the parsers of recipients and identities throw anything but a BackupError", async () => {
  const { identity, recipient } = await generateIdentity("hybrid");
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.tuple(fc.constantFrom("age1", "age1pq1", "AGE-SECRET-KEY-1", "AGE-SECRET-KEY-PQ-1"), fc.string()).map((
      parts,
    ) => parts.join("")),
    fc.tuple(fc.nat(80), fc.string({ maxLength: 3 })).map(([at, insert]) =>
      identity.slice(0, at) + insert + identity.slice(at + 1)
    ),
    fc.tuple(fc.nat(2000), fc.string({ maxLength: 3 })).map(([at, insert]) =>
      recipient.slice(0, at) + insert + recipient.slice(at + 1)
    ),
  );
  fc.assert(
    fc.property(text, (text) => {
      onlyBackupErrors(() => parseRecipient(text));
      onlyBackupErrors(() => readIdentities(text));
    }),
    { numRuns: 2000 },
  );
});

Deno.test("no bytes make decryption throw anything but a BackupError", async () => {
  const { identity, recipient } = await generateIdentity();
  const file = await encrypt(randomBytes(100), [recipient]);
  const line = fc.oneof(
    fc.string(),
    fc.constantFrom("-> X25519 AAAA", "-> scrypt a 18", "---", "--- AAAA", "", "->", "-> mlkem768x25519 x"),
  );
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.array(line, { maxLength: 6 }).map((lines) =>
      new TextEncoder().encode(["age-encryption.org/v1", ...lines].join("\n"))
    ),
    fc.tuple(fc.nat(file.length), fc.nat(20), fc.uint8Array({ maxLength: 20 })).map((
      [at, removed, inserted],
    ) => concatBytes(file.subarray(0, at), inserted, file.subarray(at + removed))),
  );
  await fc.assert(
    fc.asyncProperty(bytes, async (bytes) => {
      const { error } = await decrypt(bytes, [identity], 64);
      if (error !== undefined) kindOf(error);
      try {
        if (!isEncryptedIdentityFile(bytes)) await decryptIdentityFile(bytes, "x");
      } catch (error) {
        kindOf(error);
      }
      const { error: payloadError } = run(new PayloadDecrypter(new Uint8Array(16)), bytes, 7);
      if (payloadError !== undefined) kindOf(payloadError);
    }),
    { numRuns: 1000 },
  );
});
