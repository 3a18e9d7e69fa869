// deno-lint-ignore-file no-import-prefix -- what only tests import is pinned here, not in deno.json
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fc from "npm:fast-check@4.10.2";
import { concatBytes } from "../scripts/core/bytes.ts";
import { BackupError, type ErrorKind } from "../scripts/core/errors.ts";
import {
  chooseHostKey,
  isPinned,
  keyMeant,
  parseKeyScan,
  pinnedKeys,
} from "../scripts/core/keys/host_keys.ts";
import {
  fingerprintOf,
  formatPrivateKey,
  formatPublicKeyLine,
  parseAllowedSigners,
  parsePrivateKey,
  parsePublicKeyLine,
  publicKeyBlob,
  publicKeyOf,
} from "../scripts/core/keys/openssh_key.ts";
import { armorText, dearmorText, sshString, uint32 } from "../scripts/core/keys/ssh_wire.ts";
import { signSsh, verifySsh } from "../scripts/core/keys/sshsig.ts";
import { parseTrust } from "../scripts/core/snapshot/trust.ts";
import { realFs } from "../scripts/host/fs.ts";
import { readSigningKey } from "../scripts/host/keys/signing_key.ts";
import { inTempDir } from "./real/files.ts";

// ── Helpers ────────────────────────────────────────────────────────────────────────────────────────────────────

const encode = (text: string) => new TextEncoder().encode(text);
const SEED = Uint8Array.from({ length: 32 }, (_, index) => index);
const SIGNATURE_MARKS = ["-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"] as const;
const KEY_MARKS = ["-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"] as const;

async function keygen(args: string[], input = ""): Promise<{ ok: boolean; output: string }> {
  const command = new Deno.Command("ssh-keygen", { args, stdin: "piped", stdout: "piped", stderr: "piped" });
  const child = command.spawn();
  const writing = ReadableStream.from([encode(input)]).pipeTo(child.stdin).catch(() => {});
  const { success, stdout, stderr } = await child.output();
  await writing;
  return { ok: success, output: new TextDecoder().decode(success ? stdout : stderr) };
}

async function mustKeygen(args: string[], input = ""): Promise<string> {
  const { ok, output } = await keygen(args, input);
  assert.ok(ok, `ssh-keygen ${args.join(" ")}: ${output}`);
  return output;
}

function kindOf(error: unknown): ErrorKind {
  assert.ok(error instanceof BackupError, `only a BackupError may escape, not: ${error}`);
  return error.kind;
}

/** Asserts that `action` throws a BackupError of `kind` whose message matches. */
function refuses(action: () => unknown, kind: ErrorKind, message: RegExp): void {
  assert.throws(action, (error) => {
    assert.equal(kindOf(error), kind);
    assert.match((error as BackupError).message, message);
    assert.ok((error as BackupError).hint);
    return true;
  });
}

// ── Private keys ───────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("a private key that ssh-keygen made is read", async () => {
  await inTempDir(async (dir) => {
    for (const comment of ["", "hub@home", "a comment with blanks", "ünïcode"]) {
      const file = `${dir}/key-${comment.length}`;
      await mustKeygen(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", file]);
      const text = await Deno.readTextFile(file);
      const key = parsePrivateKey(text);
      assert.equal(key.comment, comment);
      assert.deepEqual(publicKeyOf(key.seed), key.publicKey);
      assert.deepEqual(parsePrivateKey(text.replaceAll("\n", "\r\n")), key);

      const line = await Deno.readTextFile(`${file}.pub`);
      assert.deepEqual(parsePublicKeyLine(line), { publicKey: key.publicKey, comment });
      assert.equal(formatPublicKeyLine(key.publicKey, comment), line.trimEnd());
      assert.equal((await mustKeygen(["-l", "-f", file])).split(" ")[1], fingerprintOf(key.publicKey));
    }
  });
});

Deno.test("a signing key that others can read is warned of; one that systemd hands over by an ACL is not", async () => {
  await inTempDir(async (dir) => {
    const path = `${dir}/key`;
    await mustKeygen(["-q", "-t", "ed25519", "-N", "", "-f", path]);
    const warned = (mode: number) => {
      const told: string[] = [];
      Deno.chmodSync(path, mode);
      readSigningKey(
        { fs: realFs, report: { progress() {}, info() {}, warn: (text) => told.push(text) } },
        path,
      );
      return told.join("\n");
    };
    assert.match(warned(0o640), /key can be read by others: chmod 600 /);
    assert.match(warned(0o444), /can be read by others/);
    assert.deepEqual([warned(0o600), warned(0o400)], ["", ""]);
    const { uid } = Deno.statSync(path);
    if (uid === 0) {
      assert.equal(warned(0o440), "");
      Deno.chownSync(path, 65534, 65534);
    }
    assert.match(warned(0o440), /can be read by others/, "only root hands one over");
  });
});

Deno.test("ssh-keygen reads a private key that we wrote, and would have written the same", async () => {
  await inTempDir(async (dir) => {
    for (const comment of ["", "a", "hub@home", "0123456"]) {
      const file = `${dir}/key-${comment.length}`;
      const text = formatPrivateKey(SEED, comment, 0xfedcba98);
      await Deno.writeTextFile(file, text, { mode: 0o600 });
      const line = await mustKeygen(["-y", "-f", file]);
      assert.deepEqual(parsePublicKeyLine(line), { publicKey: publicKeyOf(SEED), comment });

      const theirs = `${file}-theirs`;
      await mustKeygen(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", theirs]);
      const theirText = await Deno.readTextFile(theirs);
      const { seed } = parsePrivateKey(theirText);
      const checkInt = new DataView(dearmorText(KEY_MARKS[0], theirText, KEY_MARKS[1])!.buffer).getUint32(98);
      assert.equal(formatPrivateKey(seed, comment, checkInt), theirText);
    }
  });
});

Deno.test("a private key comes back as it was written", () => {
  const comment = fc.string({ unit: "binary", maxLength: 60 }).filter((text) =>
    !/[\r\n\0]/.test(text) && text.isWellFormed()
  );
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      comment,
      fc.nat(2 ** 31 - 1),
      (seed, comment, check) => {
        const key = parsePrivateKey(formatPrivateKey(seed, comment, check));
        assert.deepEqual(key, { seed, publicKey: publicKeyOf(seed), comment });
      },
    ),
  );
});

Deno.test("a seed, public key or comment that cannot be is refused when writing", () => {
  assert.throws(() => formatPrivateKey(new Uint8Array(31), "", 0), RangeError);
  assert.throws(() => formatPrivateKey(SEED, "x".repeat(2000), 0), RangeError);
  assert.throws(() => formatPublicKeyLine(new Uint8Array(33), ""), RangeError);
  for (const end of ["\n", "\r", "\0"]) {
    assert.throws(() => formatPrivateKey(SEED, `two${end}lines`, 0), RangeError);
    assert.throws(() => formatPublicKeyLine(SEED, `two${end}lines`), RangeError);
  }
});

Deno.test("an encrypted key, another type, another format and a public key are each refused by name", async () => {
  await inTempDir(async (dir) => {
    const make = async (name: string, ...args: string[]) => {
      await mustKeygen(["-q", "-f", `${dir}/${name}`, ...args]);
      return await Deno.readTextFile(`${dir}/${name}`);
    };
    const encrypted = await make("encrypted", "-t", "ed25519", "-N", "secret words");
    const rsa = await make("rsa", "-t", "rsa", "-b", "1024", "-N", "");
    const ecdsa = await make("ecdsa", "-t", "ecdsa", "-N", "");
    const pem = await make("pem", "-t", "rsa", "-b", "1024", "-N", "", "-m", "PEM");
    const publicLine = await Deno.readTextFile(`${dir}/encrypted.pub`);
    refuses(() => parsePrivateKey(encrypted), "key", /encrypted with a passphrase/);
    refuses(() => parsePrivateKey(rsa), "key", /type is "ssh-rsa", not ssh-ed25519/);
    refuses(() => parsePrivateKey(ecdsa), "key", /type is "ecdsa-sha2-nistp256"/);
    refuses(() => parsePrivateKey(pem), "key", /format "RSA PRIVATE KEY"/);
    refuses(() => parsePrivateKey(publicLine), "key", /it is a public key/);
    refuses(() => parsePrivateKey(""), "key", /not an OpenSSH private key/);
    refuses(() => parsePrivateKey("x".repeat(2 ** 20 + 1)), "key", /far too long/);
    refuses(() => parsePublicKeyLine(encrypted), "key", /it is a private key/);
    refuses(
      () => parsePublicKeyLine(publicLine.replace("ssh-ed25519", "ssh-rsa")),
      "key",
      /type is "ssh-rsa", not/,
    );
    const rsaLine = await Deno.readTextFile(`${dir}/rsa.pub`);
    refuses(() => parsePublicKeyLine(rsaLine), "key", /type is "ssh-rsa"/);
    refuses(() => parsePublicKeyLine(rsaLine.replace("ssh-rsa", "ssh-ed25519")), "key", /type is "ssh-rsa"/);
  });
});

/** A private key file built field by field, to break each. */
function rawPrivateKey(changes: {
  magic?: string;
  count?: number;
  publicKey?: Uint8Array;
  checks?: [number, number];
  innerPublicKey?: Uint8Array;
  pair?: Uint8Array;
  padding?: number[];
  trailing?: Uint8Array;
}): string {
  const publicKey = publicKeyOf(SEED);
  const [checkA, checkB] = changes.checks ?? [7, 7];
  const secret = concatBytes(
    uint32(checkA),
    uint32(checkB),
    publicKeyBlob(changes.innerPublicKey ?? publicKey),
    sshString(changes.pair ?? concatBytes(SEED, publicKey)),
    sshString("a"),
    Uint8Array.from(changes.padding ?? [1, 2, 3, 4]),
  );
  const file = concatBytes(
    encode(changes.magic ?? "openssh-key-v1\0"),
    sshString("none"),
    sshString("none"),
    sshString(""),
    uint32(changes.count ?? 1),
    sshString(publicKeyBlob(changes.publicKey ?? publicKey)),
    sshString(secret),
    changes.trailing ?? new Uint8Array(),
  );
  return armorText(KEY_MARKS[0], file, KEY_MARKS[1]);
}

Deno.test("every inconsistency within a private key file is refused", () => {
  const other = publicKeyOf(new Uint8Array(32));
  assert.equal(rawPrivateKey({}), formatPrivateKey(SEED, "a", 7));
  refuses(() => parsePrivateKey(rawPrivateKey({ magic: "openssh-key-v2\0" })), "key", /not an OpenSSH key/);
  for (const count of [0, 2]) {
    refuses(() => parsePrivateKey(rawPrivateKey({ count })), "key", /exactly one key/);
  }
  refuses(() => parsePrivateKey(rawPrivateKey({ checks: [7, 8] })), "key", /check numbers differ/);
  refuses(() => parsePrivateKey(rawPrivateKey({ publicKey: other })), "key", /another key/);
  refuses(() => parsePrivateKey(rawPrivateKey({ innerPublicKey: other })), "key", /another key/);
  refuses(() => parsePrivateKey(rawPrivateKey({ pair: concatBytes(SEED, other) })), "key", /do not belong/);
  const allOther = { publicKey: other, innerPublicKey: other, pair: concatBytes(SEED, other) };
  refuses(() => parsePrivateKey(rawPrivateKey(allOther)), "key", /do not belong/);
  const own = publicKeyOf(SEED);
  for (
    const pair of [
      SEED,
      SEED.subarray(1),
      concatBytes(SEED, own, own),
      concatBytes(SEED, own).subarray(0, 63),
    ]
  ) {
    refuses(() => parsePrivateKey(rawPrivateKey({ pair })), "key", /do not belong/);
  }
  refuses(() => parsePrivateKey(rawPrivateKey({ padding: [1, 2, 3, 3] })), "key", /padding/);
  refuses(
    () => parsePrivateKey(rawPrivateKey({ padding: Array.from({ length: 8 }, (_, i) => i + 1) })),
    "key",
    /padding/,
  );
  refuses(() => parsePrivateKey(rawPrivateKey({ trailing: Uint8Array.of(0) })), "key", /1 bytes follow/);
});

Deno.test("every cut of a private key file is refused, and no error shows the secret", () => {
  const bytes = dearmorText(KEY_MARKS[0], formatPrivateKey(SEED, "c", 1), KEY_MARKS[1])!;
  for (let length = 0; length < bytes.length; length++) {
    refuses(
      () => parsePrivateKey(armorText(KEY_MARKS[0], bytes.subarray(0, length), KEY_MARKS[1])),
      "key",
      /./,
    );
  }
  const text = formatPrivateKey(SEED, "c", 1);
  for (let length = 0; length < text.length - 1; length++) {
    assert.throws(() => parsePrivateKey(text.slice(0, length)), (error) => {
      assert.equal(kindOf(error), "key");
      assert.ok(!Deno.inspect(error).includes(text.slice(60, 100)));
      return true;
    });
  }
});

// ── Public keys and allowed signers ────────────────────────────────────────────────────────────────────────────

Deno.test("a public key line with damaged base64, a wrong length or something behind is refused", () => {
  const line = formatPublicKeyLine(publicKeyOf(SEED), "");
  assert.deepEqual(parsePublicKeyLine(`  ${line}\r\n`).publicKey, publicKeyOf(SEED));
  const withBlob = (...pieces: Uint8Array[]) => `ssh-ed25519 ${concatBytes(...pieces).toBase64()}`;
  const type = sshString("ssh-ed25519");
  const cases: [string, RegExp][] = [
    ["", /not a line/],
    ["ssh-ed25519", /not a line/],
    [`${line.slice(0, -1)}`, /base64 is damaged/],
    [line.replace("AAAA", "AA AA"), /base64 is damaged|too early/],
    [line.replace("AAAA", "AA-A"), /base64 is damaged/],
    [withBlob(type, sshString(SEED.subarray(1))), /31 bytes, not 32/],
    [withBlob(type, sshString(SEED), Uint8Array.of(1)), /1 bytes follow/],
    [withBlob(type, uint32(0xffffffff)), /too early/],
    [withBlob(type), /too early/],
    [withBlob(sshString(Uint8Array.of(0xff)), sshString(SEED)), /not UTF-8/],
    [withBlob(sshString("\ufeffssh-ed25519"), sshString(SEED)), /type is/],
    [`${line} a\n${line} b`, /not a line/],
    ["x".repeat(2 ** 20 + 1), /far too long/],
  ];
  for (const [text, reason] of cases) refuses(() => parsePublicKeyLine(text), "key", reason);
});

Deno.test("an allowed_signers file is read with comments, several principals and namespaces", () => {
  const line = formatPublicKeyLine(publicKeyOf(SEED), "the hub's key = mine");
  const text = `# who may sign\r\n\r\nhome-hub,other ${line}\n  hub2\tnamespaces="seal,file"\t${line}\n` +
    `hub3 NameSpaces="seal" ${line}`;
  const publicKey = publicKeyOf(SEED);
  assert.deepEqual(parseAllowedSigners(text), [
    { principals: ["home-hub", "other"], namespaces: undefined, publicKey },
    { principals: ["hub2"], namespaces: ["seal", "file"], publicKey },
    { principals: ["hub3"], namespaces: ["seal"], publicKey },
  ]);
  assert.deepEqual(parseAllowedSigners("# nobody\n"), []);
  assert.equal(parseAllowedSigners(`hub ${line}\n`.repeat(5000)).length, 5000);
  const trusted = (namespaces: string) => parseTrust([`hub namespaces="${namespaces}" ${line}\n`]).size;
  assert.deepEqual(["git", "git,hapi-backup-seal"].map(trusted), [0, 1], "for seals or for none");
  // As a person gives one, and as an error says to.
  const fingerprint = fingerprintOf(publicKey);
  for (
    const given of [fingerprint, `${fingerprint}\n`, line, `${line}\n`, `hub ${line}\n`, `#\nhub ${line}`]
  ) {
    assert.deepEqual([...parseTrust([given])], [fingerprint], given);
  }
  const other = `SHA256:${"+/9".repeat(14)}A`;
  assert.deepEqual([...parseTrust([other, line])], [other, fingerprint]);
  for (const given of [`${fingerprint}A`, fingerprint.slice(0, -1), `x${fingerprint}`]) {
    refuses(() => parseTrust([given]), "key", /line 1 is not made of/);
  }
});

Deno.test("a line of allowed_signers that is not understood in full is refused by its number", () => {
  const line = formatPublicKeyLine(publicKeyOf(SEED), "");
  const cases: [string, RegExp][] = [
    [line, /line 2/],
    ["hub", /line 2 is not made of/],
    [`hub ${line.replace("ssh-ed25519", "ssh-rsa")}`, /line 2: .*type is "ssh-rsa"/],
    [`hub cert-authority ${line}`, /line 2 has options other/],
    [`hub valid-before="20300101" ${line}`, /line 2 has options other/],
    [`hub namespaces="a",valid-after="20200101" ${line}`, /line 2 has options other/],
    [`hub namespaces="a",namespaces="b" ${line}`, /line 2 has options other/],
    [`hub namespaces=a ${line}`, /line 2 has options other/],
    [`hub namespaces="" ${line}`, /line 2 has "" where/],
    [`hub namespaces="a*" ${line}`, /line 2 has "a\*" where/],
    [`hub namespaces="a b" ${line}`, /line 2/],
    [`* ${line}`, /line 2 has "\*" where/],
    [`hu? ${line}`, /line 2 has "hu\?" where/],
    [`hub,!hub2 ${line}`, /line 2 has "!hub2" where/],
    [`hub,,hub2 ${line}`, /line 2 has "" where/],
    [`"hub" ${line}`, /line 2 has/],
  ];
  for (const [text, reason] of cases) refuses(() => parseAllowedSigners(`# first\n${text}\n`), "key", reason);
  refuses(() => parseAllowedSigners("#".repeat(2 ** 20 + 1)), "key", /far too long/);
});

// ── Signatures ─────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("ssh-keygen accepts our signature, and not for another message, namespace or signer", async () => {
  await inTempDir(async (dir) => {
    const signers = `${dir}/allowed_signers`;
    const line = formatPublicKeyLine(publicKeyOf(SEED), "");
    await Deno.writeTextFile(signers, `home-hub namespaces="hapi-backup-seal" ${line}\n`);
    const [allowed] = parseAllowedSigners(await Deno.readTextFile(signers));
    for (const message of ["", "a message\n", "x".repeat(300_000)]) {
      const sig = `${dir}/sig`;
      await Deno.writeTextFile(sig, signSsh(SEED, "hapi-backup-seal", encode(message)));
      const verify = (message: string, namespace = "hapi-backup-seal", signer = "home-hub") =>
        keygen(["-Y", "verify", "-f", signers, "-I", signer, "-n", namespace, "-s", sig], message);
      assert.match((await verify(message)).output, /^Good "hapi-backup-seal" signature for home-hub/);
      assert.equal((await verify(message + "!")).ok, false);
      assert.equal((await verify(message, "file")).ok, false);
      assert.equal((await verify(message, "hapi-backup-seal", "other-hub")).ok, false);
      const { publicKey } = verifySsh(await Deno.readTextFile(sig), "hapi-backup-seal", encode(message));
      assert.deepEqual(publicKey, allowed!.publicKey);
    }
  });
});

Deno.test("we accept ssh-keygen's signature, and write the same one", async () => {
  await inTempDir(async (dir) => {
    await Deno.writeTextFile(`${dir}/key`, formatPrivateKey(SEED, "", 1), { mode: 0o600 });
    await Deno.writeTextFile(`${dir}/message`, "a message");
    await mustKeygen(["-q", "-Y", "sign", "-n", "seal", "-f", `${dir}/key`, `${dir}/message`]);
    const theirs = await Deno.readTextFile(`${dir}/message.sig`);
    assert.deepEqual(verifySsh(theirs, "seal", encode("a message")), { publicKey: publicKeyOf(SEED) });
    assert.equal(signSsh(SEED, "seal", encode("a message")), theirs);
    assert.deepEqual(verifySsh(theirs.replaceAll("\n", "\r\n").trim(), "seal", encode("a message")), {
      publicKey: publicKeyOf(SEED),
    });
    refuses(
      () => verifySsh(theirs, "seal", encode("a massage")),
      "integrity",
      /does not belong to this content/,
    );
    refuses(
      () => verifySsh(theirs, "file", encode("a message")),
      "integrity",
      /namespace is "seal", not "file"/,
    );

    await mustKeygen(["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", `${dir}/rsa`]);
    await Deno.remove(`${dir}/message.sig`);
    await mustKeygen(["-q", "-Y", "sign", "-n", "seal", "-f", `${dir}/rsa`, `${dir}/message`]);
    const rsa = await Deno.readTextFile(`${dir}/message.sig`);
    refuses(() => verifySsh(rsa, "seal", encode("a message")), "integrity", /type is "ssh-rsa"/);
    await Deno.remove(`${dir}/message.sig`);
    await mustKeygen(
      ["-q", "-Y", "sign", "-O", "hashalg=sha256", "-n", "seal", "-f", `${dir}/key`, `${dir}/message`],
    );
    const sha256 = await Deno.readTextFile(`${dir}/message.sig`);
    refuses(
      () => verifySsh(sha256, "seal", encode("a message")),
      "integrity",
      /hash is "sha256", not sha512/,
    );
  });
});

Deno.test("a signature verifies for any key, namespace and message, and for no other message", () => {
  const seed = fc.uint8Array({ minLength: 32, maxLength: 32 });
  const namespace = fc.string({ minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(seed, namespace, fc.uint8Array(), fc.uint8Array(), (seed, namespace, message, other) => {
      const armored = signSsh(seed, namespace, message);
      assert.deepEqual(verifySsh(armored, namespace, message), { publicKey: publicKeyOf(seed) });
      if (message.length === other.length && message.every((byte, index) => byte === other[index])) return;
      refuses(() => verifySsh(armored, namespace, other), "integrity", /does not belong/);
    }),
    { numRuns: 50 },
  );
  assert.throws(() => signSsh(SEED, "", encode("x")), RangeError);
});

Deno.test("every flipped bit, every cut and anything added to a signature is refused", () => {
  const message = encode("a message");
  const armored = signSsh(SEED, "seal", message);
  const blob = dearmorText(...insert(armored))!;
  for (let bit = 0; bit < blob.length * 8; bit++) {
    const flipped = blob.slice();
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    const text = armorText(SIGNATURE_MARKS[0], flipped, SIGNATURE_MARKS[1]);
    refuses(() => verifySsh(text, "seal", message), "integrity", /./);
  }
  for (let length = 0; length < blob.length; length++) {
    const text = armorText(SIGNATURE_MARKS[0], blob.subarray(0, length), SIGNATURE_MARKS[1]);
    refuses(() => verifySsh(text, "seal", message), "integrity", /./);
  }
  for (let length = 0; length < armored.length - 1; length++) {
    refuses(() => verifySsh(armored.slice(0, length), "seal", message), "integrity", /./);
  }
  const longer = armorText(SIGNATURE_MARKS[0], concatBytes(blob, Uint8Array.of(0)), SIGNATURE_MARKS[1]);
  refuses(() => verifySsh(longer, "seal", message), "integrity", /1 bytes follow/);
  const blank = armored.replace("U1NI", "U1 NI");
  for (
    const text of [blank, `${armored}x`, `${armored}\n`, `x${armored}`, `\n${armored}`, armored + armored]
  ) {
    refuses(() => verifySsh(text, "seal", message), "integrity", /not an armored SSH signature/);
  }
  refuses(() => verifySsh(armored + "\n".repeat(5000), "seal", message), "integrity", /far too long/);
});

function insert(armored: string): [string, string, string] {
  return [SIGNATURE_MARKS[0], armored, SIGNATURE_MARKS[1]];
}

/** A signature built field by field around a true Ed25519 signature, to break each. */
function rawSignature(changes: {
  version?: number;
  namespace?: string;
  reserved?: string;
  hash?: string;
  algorithm?: string;
  signature?: Uint8Array;
  trailing?: Uint8Array;
  publicKey?: Uint8Array;
}): string {
  const blob = dearmorText(...insert(signSsh(SEED, "seal", encode("m"))))!;
  const inner = concatBytes(
    sshString(changes.algorithm ?? "ssh-ed25519"),
    sshString(changes.signature ?? blob.subarray(-64)),
    changes.trailing ?? new Uint8Array(),
  );
  const file = concatBytes(
    encode("SSHSIG"),
    uint32(changes.version ?? 1),
    sshString(publicKeyBlob(changes.publicKey ?? publicKeyOf(SEED))),
    sshString(changes.namespace ?? "seal"),
    sshString(changes.reserved ?? ""),
    sshString(changes.hash ?? "sha512"),
    sshString(inner),
  );
  return armorText(SIGNATURE_MARKS[0], file, SIGNATURE_MARKS[1]);
}

Deno.test("a signature of another version, algorithm, hash or length is refused by name", () => {
  const verify = (changes: Parameters<typeof rawSignature>[0]) => () =>
    verifySsh(rawSignature(changes), "seal", encode("m"));
  assert.deepEqual(verify({})(), { publicKey: publicKeyOf(SEED) });
  refuses(verify({ version: 2 }), "integrity", /version is 2/);
  refuses(verify({ reserved: "x" }), "integrity", /reserved field/);
  refuses(verify({ hash: "sha256" }), "integrity", /hash is "sha256"/);
  refuses(verify({ algorithm: "ssh-rsa" }), "integrity", /algorithm is "ssh-rsa"/);
  refuses(verify({ signature: new Uint8Array(63) }), "integrity", /63 bytes, not 64/);
  refuses(verify({ signature: new Uint8Array(64) }), "integrity", /does not belong/);
  refuses(verify({ trailing: Uint8Array.of(0) }), "integrity", /1 bytes follow/);
  refuses(verify({ publicKey: new Uint8Array(32).fill(255) }), "integrity", /does not belong/);
});

// ── Host keys ──────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("a host key is the one that a person means by its fingerprint or its line, and no other", () => {
  const [publicKey, other] = [publicKeyOf(SEED), publicKeyOf(new Uint8Array(32))];
  const line = formatPublicKeyLine(publicKey, "");
  const scanned = `# host:22 SSH-2.0-x\nhost ssh-rsa AAAA\n# host ${line}\nhost ssh-rsa A\nhost ${line}\r\n`;
  const keys = parseKeyScan(scanned, "host", 22);
  const [key] = keys;
  assert.deepEqual(keys.map(({ type }) => type), ["ssh-ed25519", "ssh-rsa"], "the one that we prefer first");
  assert.deepEqual(key, {
    ...{ type: "ssh-ed25519", line: `host ${line}` },
    fingerprint: fingerprintOf(publicKey),
  });
  for (const wanted of [fingerprintOf(publicKey), ` ${line} root@host\n`]) {
    assert.equal(chooseHostKey(keys, wanted, "host"), key);
  }
  const [type, base64] = line.split(" ");
  const others = [fingerprintOf(other), formatPublicKeyLine(other, ""), "", "SHA256:", type!, base64!];
  for (
    const wanted of [
      ...others,
      `ssh-rsa ${base64}`,
      ...[base64!.slice(-9), base64!.slice(0, -9)].map((part) => `${type} ${part}`),
      `${type} `,
    ]
  ) {
    assert.equal(keyMeant(keys, wanted), undefined, wanted);
    refuses(() => chooseHostKey(keys, wanted, "host"), "key", /not the one given/);
  }
});

Deno.test("pinned are the keys under a server's own name and port, and no damaged, revoked or commented ones", () => {
  const line = formatPublicKeyLine(publicKeyOf(SEED), "comment");
  const pinned = (text: string, port = 22) => {
    const found = pinnedKeys(text, "host", port).map(({ fingerprint }) => fingerprint);
    assert.equal(isPinned(text, "host", port), found.length > 0);
    return found;
  };
  const key = [fingerprintOf(publicKeyOf(SEED))];
  for (const text of [`host ${line}`, `x\nalias,host\t${line}\r\n`]) {
    assert.deepEqual(pinned(text), key, text);
  }
  assert.deepEqual(pinned(`[host]:2222 ${line}`, 2222), key);
  const none = [
    "",
    "host",
    "host ssh-ed25519",
    "host ssh-ed25519 AAAAC",
    `@revoked host ${line}`,
    `#host ${line}`,
  ];
  for (const text of [...none, `hosts ${line}`, `[host]:2222 ${line}`]) {
    assert.deepEqual(pinned(text), [], text);
  }
  assert.deepEqual(pinned(`host ${line}`, 2222), []);
});

// ── Fuzzing: whatever comes in, only a BackupError comes out ───────────────────────────────────────────────────

Deno.test("no text makes the parsers of keys, signers and signatures throw anything but a BackupError", () => {
  const line = formatPublicKeyLine(publicKeyOf(SEED), "comment");
  const valid = [
    formatPrivateKey(SEED, "comment", 1),
    line,
    `hub namespaces="seal" ${line}`,
    signSsh(SEED, "seal", encode("m")),
  ];
  const mutated = fc
    .tuple(fc.constantFrom(...valid), fc.nat(500), fc.nat(5), fc.string({ unit: "binary", maxLength: 5 }))
    .map(([text, at, removed, inserted]) => text.slice(0, at) + inserted + text.slice(at + removed));
  const armored = fc
    .tuple(fc.constantFrom(KEY_MARKS, SIGNATURE_MARKS), fc.uint8Array({ maxLength: 200 }), fc.nat(2))
    .map(([[start, end], bytes, magic]) =>
      armorText(start, concatBytes(encode(["", "openssh-key-v1\0", "SSHSIG"][magic]!), bytes), end)
    );
  fc.assert(
    fc.property(fc.oneof(mutated, armored, fc.string({ unit: "binary" })), (text) => {
      const parsers = [parsePrivateKey, parsePublicKeyLine, parseAllowedSigners];
      for (const parse of [...parsers, (text: string) => verifySsh(text, "seal", encode("m"))]) {
        try {
          parse(text);
        } catch (error) {
          kindOf(error);
        }
      }
    }),
    { numRuns: 3000 },
  );
});

Deno.test("a fingerprint tells two keys apart", () => {
  assert.notEqual(fingerprintOf(publicKeyOf(randomBytes(32))), fingerprintOf(publicKeyOf(randomBytes(32))));
});
