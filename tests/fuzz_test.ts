/** Whatever comes in, every parser either reads it or refuses it in the way it documents. */

import { randomBytes } from "node:crypto";
import { zstdCompressSync } from "node:zlib";
// deno-lint-ignore no-import-prefix
import fc from "npm:fast-check@4.10.2";
import assert from "node:assert/strict";
import process from "node:process";
import { appendInText, removeInText } from "../scripts/core/config/config_edit.ts";
import { COMMANDS, GLOBAL_OPTIONS } from "../scripts/core/command_line/commands.ts";
import { parseConfig } from "../scripts/core/config/config.ts";
import { CiphertextReader } from "../scripts/core/keys/ciphertext.ts";
import { DeltaDecoder } from "../scripts/core/snapshot/delta.ts";
import type { ErrorKind } from "../scripts/core/errors.ts";
import { placeMatcher } from "../scripts/core/globs.ts";
import { parseManifest } from "../scripts/core/snapshot/manifest.ts";
import { FILES_PART, type HubName, type PartName, SEAL_FILE, SIGNATURE_FILE } from "../scripts/core/names.ts";
import { parseTold } from "../scripts/core/status/notices.ts";
import {
  parseAllowedSigners,
  parsePrivateKey,
  parsePublicKeyLine,
} from "../scripts/core/keys/openssh_key.ts";
import type { Place } from "../scripts/core/place.ts";
import { parseReceipt, RECEIPT_NAMESPACE, verifyReceipt } from "../scripts/core/shipping/receipt.ts";
import {
  parseLiteralBytes,
  parseProgress,
  parseRsyncTarget,
  parseVerdicts,
  pushArgs,
  type RsyncAccess,
} from "../scripts/core/shipping/rsync_args.ts";
import { explainRcloneFailure } from "../scripts/core/shipping/rclone_failure.ts";
import { explainRsyncFailure } from "../scripts/core/shipping/rsync_failure.ts";
import { parseRunLog } from "../scripts/core/status/run_record.ts";
import { parseSeal, SEAL_NAMESPACE } from "../scripts/core/snapshot/seal.ts";
import { chooseSnapshot } from "../scripts/core/snapshot/select.ts";
import { parseDestinationRecord } from "../scripts/core/shipping/shipping.ts";
import { signSsh, verifySsh } from "../scripts/core/keys/sshsig.ts";
import { parseStorageConfig } from "../scripts/core/storage_host/storage_config.ts";
import { parseTrust, signersIn } from "../scripts/core/snapshot/trust.ts";
import { FrameDecompressor } from "../scripts/core/snapshot/zstd_frames.ts";
import { main, numberOption, type VerbContext } from "../scripts/host/command_line/cli.ts";
import { createEncrypter } from "../scripts/host/keys/age.ts";
import { generateIdentity, openHeader, readIdentities } from "../scripts/host/keys/identity.ts";
import { isEncryptedIdentityFile } from "../scripts/host/keys/identity_bytes.ts";
import { readMemory } from "../scripts/host/records/memory.ts";
import { openManifest, openSeal, readPartSaying } from "../scripts/host/restore/open_snapshot.ts";
import { fuzz, SEED, type Subject } from "./fuzz/fuzz.ts";
import { type Home, insertMessages, makeHome, output } from "./real/home.ts";

const AROUND = { home: "/home/op", hostname: "x", env: {} };
const ACCESS: RsyncAccess = {
  ...{ target: "hub@storage:", identityFile: "/keys/ship", knownHostsFile: "/keys/known_hosts" },
  ...{ port: 22, timeoutSeconds: 60 },
};

const CONFIG = `{
  // Where it all is.
  "hub": "home", "store": "~/store", "stateFolder": "/state",
  "recipients": ["age1one" /* at home */, "age1two"], "signers": [],
  "sets": {
    "state": { "keepBase": false, "gate": { "ignoreTables": ["usage_events"] }, "sources": [
      { "kind": "sqlite", "path": "$HAPI_HOME/hapi.db", "required": true },
      { "kind": "file", "path": "~/.hapi/hub.env", "secret": true, "name": "env" },
      { "kind": "glob", "path": "~/coding/*/plans/*.md" },
      { "kind": "folder", "path": "~/notes", "exclude": ["**/*.tmp"] },
    ] },
  },
  "destinations": [
    { "kind": "rsync", "target": "hub@storage:", "identityFile": "~/ship", "knownHostsFile": "~/known", "port": 2222 },
    { "kind": "folder", "name": "disk", "path": "/mnt/disk" },
    { "kind": "rclone", "remote": "b2:bucket/store" },
  ],
  "notify": [{ "kind": "ntfy", "url": "https://ntfy.sh/topic" }, { "kind": "command", "command": ["/bin/tell", "x"] }],
}`;

/** What rsync prints that pushes a snapshot's files, of which one is there and one is there with other bytes. */
async function rsyncOutput(home: Home): Promise<string> {
  const [source, far] = [`${home.dir}/source`, `${home.dir}/far`];
  for (const name of ["sent", "é same", "different", "a => b"]) {
    home.write(`${source}/state/${name}`, name.repeat(500));
  }
  for (const name of ["é same", "different"]) home.write(`${far}/state/${name}`, name.repeat(500));
  Deno.writeTextFileSync(`${far}/state/different`, "x".repeat(4_500));
  const files = `${home.dir}/files`;
  Deno.writeTextFileSync(
    files,
    ["sent", "é same", "different", "a => b"].map((name) => `state/${name}\0`).join(""),
  );
  const plan = { source, into: "", basis: [], keepPartial: true };
  // The same arguments as over ssh, but for the target and where the names come from.
  const args = pushArgs(ACCESS, plan).map((arg) => arg === "--files-from=-" ? `--files-from=${files}` : arg);
  return await output("rsync", [...args.slice(0, -1), far]);
}

const STDERR = [
  `@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
The fingerprint for the ED25519 key sent by the remote host is
SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.
Host key for [127.0.0.1]:2222 has changed and you have requested strict checking.
Host key verification failed.
rsync: connection unexpectedly closed (0 bytes received so far) [sender]
rsync error: unexplained error (code 255) at io.c(232) [sender=3.5.0]
`,
  "no such identity: /keys/ship: No such file or directory\nhub@storage: Permission denied (publickey).\n",
  'rsync: [receiver] write failed on "x": No space left on device (28)\nrsync error: error in file IO (code 11)\n',
  "2026/03/01 06:00:00 ERROR : home/x: immutable file modified\n2026/03/01 06:00:00 Failed to copy: AccessDenied\n",
];

/** What a chain of two snapshots of a real database is made of, opened. */
async function openChain(home: Home) {
  await home.backup();
  home.sql(`${insertMessages(40)}; CREATE TABLE "__proto__" (x); CREATE TABLE constructor (x)`);
  home.write("é/.hapi/note", "x");
  home.write(".hapi/settings.json", '{"cliApiToken":"another-token-entirely"}\n');
  const { id } = await home.backup();
  const opening = await home.opening();
  const snapshot = openSeal(opening, id);
  const manifest = await openManifest(opening, snapshot);
  const [database] = manifest.databases;
  const plain = async (name: PartName) => {
    const chunks = [];
    for await (
      const chunk of readPartSaying(opening, snapshot, name)
    ) {
      chunks.push(chunk.slice());
    }
    return Buffer.concat(chunks);
  };
  const read = (name: string) => Deno.readFileSync(`${snapshot.folder}/${name}`);
  return {
    ...{ home, opening, seal: snapshot.seal, manifest },
    sealBytes: read(SEAL_FILE),
    signature: Deno.readTextFileSync(`${snapshot.folder}/${SIGNATURE_FILE}`),
    filesPart: read(FILES_PART),
    delta: await plain("hapi.db.delta.zst.age" as PartName),
    baseBytes: database!.chain[0]!.bytes,
    nextBytes: database!.bytes,
    rsync: await rsyncOutput(home),
    header: (await createEncrypter([home.recipient])).header,
    quantumHeader: (await createEncrypter([(await generateIdentity("hybrid")).recipient])).header,
  };
}

/** Every parser that takes what came from elsewhere, or from a disk that can rot. */
function subjects(chain: Awaited<ReturnType<typeof openChain>>): Subject[] {
  const { home, opening, seal, manifest } = chain;
  const text = (
    name: string,
    real: readonly string[],
    kinds: readonly ErrorKind[],
    read: (text: string) => unknown,
  ) =>
    ({
      name,
      real,
      isText: true,
      kinds,
      read: (_: Uint8Array, text: string) => read(text),
    }) satisfies Subject;
  const seed = Uint8Array.from(randomBytes(32));
  const receipt = JSON.stringify({
    ...{ format: "hapi-backup-receipt", version: 1, hub: "home", time: "2026-03-02T00:00:00.000Z" },
    sets: {
      state: {
        newestVerified: { id: seal.id, sealSha256: "0".repeat(64) },
        problems: ["a part is gone"],
        fullWanted: false,
      },
    },
  });
  const receiptSignature = signSsh(seed, RECEIPT_NAMESPACE, new TextEncoder().encode(receipt));
  const signers = parseTrust([home.signer]);
  const destinationRecord = JSON.stringify({
    ...{ version: 1, where: "x", uploads: { [`state/${seal.id}`]: 2 } },
    confirmed: {
      [`state/${seal.id}`]: {
        ...{ sealSha256: "0".repeat(64), confirmedAt: "2026-03-02T00:00:00.000Z" },
        files: [{ name: "seal.json", bytes: 12 }],
      },
    },
  });
  const runs = JSON.stringify({
    ...{
      at: "2026-03-02T00:00:00.000Z",
      seconds: 1.5,
      verb: "backup",
      set: "state",
      ok: false,
      kind: "source",
    },
    ...{ message: "Cannot", hint: "x", snapshot: seal.id, suspicions: ["a: b"], bytes: 5 },
  });
  const storageConfig = JSON.stringify({
    ...{
      store: "/srv/store",
      stateFolder: "/var/lib/x",
      timeZone: "Europe/Berlin",
      retention: { keepDaily: 7 },
    },
    hubs: {
      home: {
        ...{ signers: [home.signer], user: "hapi-home", maxAgeHours: { state: 26 }, quotaBytes: 5 },
        ...{ retention: { keepWeekly: 1 }, sets: { voice: { retention: { keepGoodMin: 2 } } } },
      },
    },
  });
  const memoryFolder = `${home.stateFolder}/state`;
  const identityText = Deno.readTextFileSync(home.identityFile);
  const isIn = (inside: string, whole: string) => whole.includes(inside) || inside === "";

  return [
    text("the hub's configuration", [CONFIG, Deno.readTextFileSync(home.configFile)], ["config"], (text) => {
      const config = parseConfig(text, "config.json", AROUND);
      for (const path of [config.store, config.stateFolder]) assert.match(path, /^\//);
      // A recipient is added and dropped as `keys` does it: what can be read before can be read after.
      const added = appendInText(text, "recipients", "age1new");
      assert.deepEqual(parseConfig(added, "added", AROUND).recipients, [...config.recipients, "age1new"]);
      const back = removeInText(added, "recipients", config.recipients.length);
      assert.deepEqual(parseConfig(back, "removed", AROUND).recipients, config.recipients);
    }),
    text("the storage host's configuration", [storageConfig], ["config"], (text) => {
      const { store } = parseStorageConfig(text, "storage.json");
      assert.match(store, /^\//);
    }),
    text(
      "a seal",
      [new TextDecoder().decode(chain.sealBytes)],
      ["integrity"],
      (text) => parseSeal(text, "seal.json"),
    ),
    text("a manifest", [JSON.stringify(manifest)], ["integrity"], (text) => parseManifest(text, seal)),
    text(
      "a signature",
      [chain.signature],
      ["integrity"],
      (text) => verifySsh(text, SEAL_NAMESPACE, chain.sealBytes),
    ),
    text(
      "allowed signers",
      [`# mine\nhub,other namespaces="hapi-backup-seal,x" ${home.signer}\n\nhub ${home.signer}`],
      ["key"],
      (
        text,
      ) => {
        parseAllowedSigners(text);
        parseTrust([text]);
      },
    ),
    text("a public key", [home.signer], ["key"], (text) => {
      parsePublicKeyLine(text);
      parseTrust([text]);
    }),
    text("a private key", [Deno.readTextFileSync(`${home.home}/.config/hapi-backup/signing_ed25519`)], [
      "key",
    ], parsePrivateKey),
    text("an identity file", [identityText], ["key"], (text) => {
      for (const signer of signersIn(text)) assert.ok(isIn(signer, text));
      isEncryptedIdentityFile(new TextEncoder().encode(text));
      readIdentities(text);
    }),
    {
      ...{
        name: "an age file",
        real: [chain.filesPart],
        isText: false,
        kinds: ["integrity", "key"],
        share: 0.5,
      },
      async read(bytes) {
        const { headerBytes, fileKey } = await openHeader(bytes, opening.identities);
        const reader = new CiphertextReader({
          ...{ fileKey, header: bytes.subarray(0, headerBytes), what: "x", isHashed: true },
        });
        reader.push(bytes.slice(headerBytes));
        reader.finish();
      },
    },
    {
      ...{
        name: "an age header",
        real: [chain.header, chain.quantumHeader],
        isText: false,
        kinds: ["integrity", "key"],
      },
      read: (bytes) => openHeader(bytes, opening.identities),
    },
    {
      ...{ name: "zstd frames", real: [zstdCompressSync(chain.delta)], isText: false },
      kinds: ["integrity"],
      read(bytes) {
        const frames = new FrameDecompressor("x");
        for (const _ of frames.push(bytes));
        frames.finish();
      },
    },
    {
      ...{ name: "a delta", real: [chain.delta], isText: false, kinds: ["integrity"] },
      read(bytes) {
        let made = 0;
        const decoder = new DeltaDecoder({
          ...{ baseBytes: chain.baseBytes, nextBytes: chain.nextBytes },
          copy(position, length) {
            assert.ok(position >= 0 && position + length <= chain.baseBytes);
            made += length;
          },
          literal: (_data, from, to) => made += to - from,
        });
        decoder.push(bytes);
        decoder.finish();
        assert.equal(made, chain.nextBytes);
      },
    },
    text("what rsync prints", [chain.rsync], [], (text) => {
      if (text === chain.rsync) {
        assert.deepEqual(
          [...parseVerdicts(text).values()].sort(),
          ["different", "same", "sent", "sent"],
          text,
        );
      }
      for (const [name] of parseVerdicts(text)) assert.ok(isIn(name, text));
      for (const line of text.split("\n")) parseProgress(line);
      parseLiteralBytes(text);
    }),
    text("what rsync and rclone say of a failure", STDERR, [], (stderr) => {
      for (const code of [1, 12, 23, 255, 99]) explainRsyncFailure("ship", ACCESS, { code, stderr });
      explainRcloneFailure("ship", "b2:x", { code: 1, stderr });
    }),
    text("an rsync target", ["me@[fd7a::1]:/b/", "hub@storage:"], ["config"], parseRsyncTarget),
    text(
      "the record of what a destination holds",
      [destinationRecord],
      [],
      (text) => parseDestinationRecord(text, "x"),
    ),
    text("a receipt", [receipt], ["integrity"], parseReceipt),
    text(
      "a receipt's signature",
      [receiptSignature],
      ["integrity"],
      (signature) => verifyReceipt(receipt, signature, signers, "home" as HubName),
    ),
    text("the log of runs", [`${runs}\n${runs}\n`], [], parseRunLog),
    text(
      "what notifiers were told",
      ['{"ntfy":{"problems":{"a":{"mark":"x","at":"y"}},"digestAt":"z"}}'],
      [],
      parseTold,
    ),
    text(
      "the memory of the last snapshot",
      [Deno.readTextFileSync(`${memoryFolder}/last.json`)],
      [],
      (text) => {
        Deno.writeTextFileSync(`${memoryFolder}/last.json`, text);
        readMemory({ ...home.host, report: { ...home.host.report, warn: () => {} } }, memoryFolder);
      },
    ),
    text("which snapshot is meant", ["2026-03-01 06:00", seal.id, "2026-03-01T06:00:00+02:00", "random"], [
      "usage",
    ], (text) => chooseSnapshot(text, [seal], 0.5)),
    text("a pattern of places", ["home/.hapi/*.json", "home/**/[a-c]?(x|y).md", "root/{a,b}/!(c)*"], [
      "usage",
      "config",
    ], (
      text,
    ) => placeMatcher([text.slice(0, 200)])("home/.hapi/a/b/c/hub.env" as Place)),
  ];
}

Deno.test("whatever comes in, a parser reads it or refuses it, in bounded time and memory", async (t) => {
  using home = await makeHome();
  for (const subject of subjects(await openChain(home))) await t.step(subject.name, () => fuzz(subject));
});

Deno.test("whatever the command line is, it is run as it says or refused as wrong usage", async () => {
  const words = [
    ...COMMANDS.flatMap((
      { verb, options },
    ) => [verb, ...options.flatMap(({ flags }) => flags.split(/[ ,|]+/))]),
    ...GLOBAL_OPTIONS.flatMap(({ flags }) => flags.split(/[ ,|]+/)),
    ...[
      "--",
      "-",
      "---",
      "--set=__proto__",
      "--__proto__",
      "--constructor=1",
      "__proto__",
      "constructor",
      "toString",
    ],
    ...[
      "--json=1",
      "--no-json",
      "-v",
      "-h",
      "",
      " ",
      "\0",
      "x".repeat(10_000),
      "--wait=1e99",
      "--help",
      "--version",
    ],
  ];
  const seen = new Map<number, number>();
  const noted: Record<string, unknown>[] = [];
  const verbs = Object.fromEntries(COMMANDS.map(({ verb }) => [verb, ({ options }: VerbContext) => {
    noted.push(options);
    for (const name of ["wait", "port"]) if (options[name] !== undefined) numberOption(options, name);
    return Promise.resolve();
  }]));
  const word = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...words) },
    fc.string({ maxLength: 30, unit: "binary" }),
  );
  const odd = fc.tuple(fc.constantFrom(...words), fc.array(word, { maxLength: 7 })).map((
    [first, rest],
  ) => [first, ...rest]);
  // An example of the help, with one word more somewhere.
  const usual = fc.tuple(fc.constantFrom(...COMMANDS), fc.array(word, { maxLength: 1 }), fc.nat(6)).map(
    ([{ example }, added, at]) => example.split(" ").slice(1).toSpliced(at, 0, ...added),
  );
  const line = fc.oneof(odd, usual);
  using _ = silenced();
  await fc.assert(
    fc.asyncProperty(line, async (args) => {
      const code = await main(args, verbs);
      assert.ok([0, 2].includes(code), `exit code ${code}`);
      seen.set(code, (seen.get(code) ?? 0) + 1);
      const options = noted.pop();
      for (const key of Object.keys(options ?? {})) assert.match(key, /^[a-zA-Z]+$/);
      assert.equal(({} as { polluted?: unknown }).polluted, undefined);
    }),
    { numRuns: 1_000, seed: SEED },
  );
  assert.ok(seen.get(0)! > 50 && seen.get(2)! > 50, JSON.stringify([...seen]));
});

/** Nothing is printed until it is disposed of. */
function silenced(): Disposable {
  const streams = [Deno.stdout, Deno.stderr];
  const before = streams.map((stream) => stream.writeSync);
  const [out, err] = [process.stdout.write, process.stderr.write];
  for (const stream of streams) stream.writeSync = (bytes) => bytes.length;
  process.stdout.write = process.stderr.write = () => true;
  return {
    [Symbol.dispose]() {
      streams.forEach((stream, index) => stream.writeSync = before[index]!);
      process.stdout.write = out;
      process.stderr.write = err;
    },
  };
}
