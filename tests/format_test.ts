/** The format: what is read of it is exactly what was written, and nothing else is ever taken for it. */

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { packTar } from "modern-tar";
// deno-lint-ignore no-import-prefix
import fc from "npm:fast-check@4.10.2";
import { COMMANDS } from "../scripts/core/command_line/commands.ts";
import { configSchema, parseConfig } from "../scripts/core/config/config.ts";
import { concatBytes } from "../scripts/core/bytes.ts";
import { BackupError } from "../scripts/core/errors.ts";
import { jsonPieces } from "../scripts/core/json_pieces.ts";
import { DeltaEncoder } from "../scripts/core/snapshot/delta.ts";
import {
  type Manifest,
  ManifestSize,
  neededBy,
  parseManifest,
  partsRead,
  type SavedFile,
  whyUnreadable,
} from "../scripts/core/snapshot/manifest.ts";
import {
  databasePart,
  FILES_PART,
  isHubName,
  isPartName,
  isSetName,
  isSnapshotId,
  isSourceName,
  MANIFEST_PART,
  SEAL_FILE,
  SIGNATURE_FILE,
  type SnapshotId,
  snapshotIdAt,
  type SourceName,
  timeOfSnapshotId,
} from "../scripts/core/names.ts";
import { isPlace, pathOfPlace, type Place, placeOf } from "../scripts/core/place.ts";
import {
  describeSuspicions,
  parseSeal,
  type Seal,
  SEAL_NAMESPACE,
  sealChecksum,
  sealedSuspicions,
  serializeSeal,
} from "../scripts/core/snapshot/seal.ts";
import { signSsh } from "../scripts/core/keys/sshsig.ts";
import { FRAME_BYTES_MAX, FrameCompressor, FrameDecompressor } from "../scripts/core/snapshot/zstd_frames.ts";
import { lstatIfThere } from "../scripts/host/fs.ts";
import type { Fs } from "../scripts/host/host.ts";
import {
  type Opening,
  openManifest,
  openSeal,
  readPartSaying,
} from "../scripts/host/restore/open_snapshot.ts";
import { rebuildDatabase } from "../scripts/host/restore/rebuild.ts";
import { FOR_FULLS, FOR_THE_REST, writePart } from "../scripts/host/snapshot/part_writer.ts";
import { isSealed, readSetIfThere } from "../scripts/host/store/store.ts";
import { restore } from "../scripts/restore.ts";
import { verify } from "../scripts/verify.ts";
import { copySync, filesBelow, inTempDir } from "./real/files.ts";
import { forge } from "./real/forge.ts";
import { type Home, insertMessages, makeHome, output } from "./real/home.ts";

const NOT_MORE = { numRuns: 200 };

/** A chain of a full and an increment, each with files. */
async function makeChain(): Promise<{ home: Home; ids: [SnapshotId, SnapshotId] }> {
  const home = await makeHome();
  const full = await home.backup();
  home.sql(insertMessages(5));
  home.write(".hapi/settings.json", '{"cliApiToken":"another-token-entirely"}\n');
  const increment = await home.backup();
  assert.equal(increment.kind, "increment");
  return { home, ids: [full.id, increment.id] };
}

/** What becomes of a damaged store: whether it verifies, and the kind of error of a restore, of which nothing may stay. */
async function outcomeOf(home: Home, opening: Opening, id: SnapshotId): Promise<[boolean, string]> {
  const scratch = `${home.dir}/scratch`;
  Deno.mkdirSync(scratch);
  const seals = readSetIfThere(home.host.fs, opening.set).filter(isSealed);
  const checks = await verify(opening, seals, id, scratch);
  assert.ok(checks.every(({ detail }) => typeof detail === "string"));
  Deno.removeSync(scratch, { recursive: true });
  const to = `${home.dir}/restored`;
  const kind = await restore(opening, id, to).then(() => "restored", (error) => error.kind ?? String(error));
  if (kind === "restored") Deno.removeSync(to, { recursive: true });
  assert.throws(() => Deno.lstatSync(to), Deno.errors.NotFound, "something is left of a restore that failed");
  return [checks.every(({ ok }) => ok), kind];
}

Deno.test("any part that is cut or has a flipped bit is refused by verify and restore, which leave nothing", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const opening = await home.opening();
  assert.deepEqual(await outcomeOf(home, opening, ids[1]), [true, "restored"]);
  let tried = 0;
  for (const id of ids) {
    for (const { name } of [...Deno.readDirSync(`${home.stored}/${id}`)]) {
      if (!name.endsWith(".age")) continue;
      const path = `${home.stored}/${id}/${name}`;
      const good = Deno.readFileSync(path);
      // Nobody reads another's manifest.
      const isUsed = name !== MANIFEST_PART || id === ids[1];
      const spread = (count: number) =>
        Array.from({ length: count }, (_, i) => Math.floor(good.length * i / count));
      const places = [...new Set([...spread(10), good.length - 1, good.length - 17, good.length >> 1])];
      for (const place of places) {
        const flipped = good.slice();
        flipped[place]! ^= 1 << (place % 8);
        for (const bytes of [flipped, good.subarray(0, place)]) {
          Deno.writeFileSync(path, bytes);
          const [isProven, kind] = await outcomeOf(home, opening, ids[1]);
          assert.equal(isProven, !isUsed, `${name} at ${place}`);
          // A wrong header may look like one for somebody else.
          if (isUsed) {
            assert.ok(kind === "integrity" || (kind === "key" && place < 400), `${name} ${place}: ${kind}`);
          }
          tried++;
        }
      }
      Deno.writeFileSync(path, good);
      Deno.writeFileSync(path, randomBytes(50), { append: true });
      assert.equal((await outcomeOf(home, opening, ids[1]))[0], !isUsed, `${name} with bytes after its end`);
      Deno.writeFileSync(path, good);
    }
  }
  assert.ok(tried > 100, String(tried));
  assert.deepEqual(await outcomeOf(home, opening, ids[1]), [true, "restored"]);
});

Deno.test("a seal cut anywhere or with any bit flipped, and a signature so, are never taken for the hub's", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const opening = await home.opening();
  const good = openSeal(opening, ids[1]).seal;
  for (const name of [SEAL_FILE, SIGNATURE_FILE]) {
    const path = `${home.stored}/${ids[1]}/${name}`;
    const bytes = Deno.readFileSync(path);
    const taken: string[] = [];
    const attempt = (what: string, changed: Uint8Array) => {
      Deno.writeFileSync(path, changed);
      try {
        const { seal } = openSeal(opening, ids[1]);
        // The armor of a signature may be written in more than one way; what it signs may not.
        if (name === SEAL_FILE) taken.push(what);
        assert.deepEqual(seal, good);
      } catch (error) {
        assert.ok(error instanceof BackupError && error.kind === "integrity", `${what}: ${error}`);
      }
    };
    for (let at = 0; at < bytes.length; at++) {
      if (at < bytes.length - 2) attempt(`cut at ${at}`, bytes.subarray(0, at));
      const flipped = bytes.slice();
      flipped[at]! ^= 1 << (at * 5 % 8);
      attempt(`flipped at ${at}`, flipped);
    }
    assert.deepEqual(taken, []);
    // More than any machine could read.
    Deno.truncateSync(path, 2 ** 42);
    const message = name === SEAL_FILE ? /which no seal has$/ : /is no signature$/;
    assert.throws(() => openSeal(opening, ids[1]), { kind: "integrity", message });
    Deno.writeFileSync(path, bytes);
  }
});

Deno.test("a part encrypted anew by someone who knows the recipients proves nothing, and restores nothing else", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const opening = await home.opening();
  for (const id of ids) {
    const snapshot = openSeal(opening, id);
    for (const { name, bytes, sha256 } of snapshot.seal.parts) {
      // Nobody reads another's manifest.
      if (name === MANIFEST_PART && id === ids[0]) continue;
      const what = `${id}/${name}`;
      const path = `${home.stored}/${what}`;
      const good = Deno.readFileSync(path);
      const plaintext = concatBytes(...await Array.fromAsync(readPartSaying(opening, snapshot, name)));
      const target = { ...home, incoming: `${home.stored}/${id}`, recipients: [home.recipient] };
      const compression = name.includes(".full.") ? FOR_FULLS : FOR_THE_REST;
      const forge = async (content: Uint8Array<ArrayBuffer>) => {
        Deno.removeSync(path);
        const made = await writePart(target, name, compression, (part) => part.write(content.slice()));
        assert.notEqual(made.sha256, sha256);
        return made.bytes;
      };

      // The same full makes the same database, which is what counts; to verify, it is another part all the same.
      assert.equal(await forge(plaintext), bytes, what);
      const isFull = name.includes(".full.");
      const kind = isFull ? "restored" : "integrity";
      assert.deepEqual(await outcomeOf(home, opening, ids[1]), [false, kind], what);

      // Other content, of the same size: of two bytes that compress as well the other way round.
      const { level, frameBytes } = compression;
      const packedBytes = (content: Uint8Array) => {
        const frames = new FrameCompressor(level, frameBytes);
        return concatBytes(...frames.push(content), ...frames.finish()).length;
      };
      const other = plaintext.slice();
      const swap = (at: number) => [other[at], other[at + 1]] = [other[at + 1]!, other[at]!];
      const isFound = Array.from(other.keys()).some((_, index) => {
        const at = (index + (other.length >> 1)) % (other.length - 1);
        swap(at);
        if (other[at] !== other[at + 1] && packedBytes(other) === packedBytes(plaintext)) return true;
        swap(at);
        return false;
      });
      assert.ok(isFound, what);
      assert.equal(await forge(other), bytes, what);
      assert.deepEqual(await outcomeOf(home, opening, ids[1]), [false, "integrity"], what);
      if (name.startsWith("hapi.db.")) {
        const message = new RegExp(
          `^Cannot read .*/${what}: its SHA-256 is .* where the seal says ${sha256}$`,
        );
        await assert.rejects(restore(opening, ids[1], `${home.dir}/restored`), { message });
      }
      Deno.writeFileSync(path, good);
    }
  }
});

Deno.test("a part that cannot be read is not called damaged, and what ends the search for a damaged one is told", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const to = `${home.dir}/restored`;
  const full = `${home.stored}/${ids[0]}/hapi.db.full.zst.age`;
  const delta = `${home.stored}/${ids[1]}/hapi.db.delta.zst.age`;
  /** Restores while something happens each time that a part is opened, and says how that ended. */
  const failing = async (path: string, onOpen: (count: number) => void, checkpoint = () => {}) => {
    let count = 0;
    const open: Fs["open"] = (name, options) => {
      if (name === path) onOpen(++count);
      return home.host.fs.open(name, options);
    };
    const host = { ...home.host, checkpoint, fs: { ...home.host.fs, open } };
    const error = await restore(await home.opening({ host }), ids[1], to).catch((error) => error);
    assert.throws(() => Deno.lstatSync(to), Deno.errors.NotFound, "something is left");
    assert.ok(error instanceof BackupError, String(error));
    return error;
  };
  for (const path of [`${home.stored}/${ids[1]}/${MANIFEST_PART}`, full, delta]) {
    const { kind, message, hint } = await failing(path, () => {
      throw new Deno.errors.PermissionDenied("Permission denied (os error 13)");
    });
    assert.equal(`${kind}: ${message}`, `disk: Cannot read ${path}: Permission denied (os error 13)`);
    assert.match(hint!, /check the owner and mode/);
  }

  const bytes = Deno.readFileSync(delta);
  bytes[bytes.length - 1]! ^= 1;
  Deno.writeFileSync(delta, bytes);
  // The full is opened to be looked at again.
  const AGAIN = 2;
  const found = await failing(full, () => {});
  assert.match(found.message, /hapi\.db\.delta\.zst\.age: chunk 0 does not authenticate$/);
  let isCancelled = false;
  const interrupted = await failing(full, (count) => isCancelled = count === AGAIN, () => {
    if (isCancelled) throw new BackupError("Cannot go on: interrupted", { kind: "cancelled" });
  });
  assert.equal(interrupted.kind, "cancelled");
  const unread = await failing(full, (count) => {
    if (count === AGAIN) throw new Error("Input/output error (os error 5)");
  });
  assert.equal(unread.kind, "integrity");
  assert.match(unread.message, /hapi\.db\.full\.zst\.age: it cannot be read: Input\/output error/);
});

Deno.test("snapshots of another hub or set, swapped parts, and an old seal under a new id are refused", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const good = `${home.dir}/good`;
  copySync(home.stored, good);
  const opening = await home.opening();
  const [full, increment] = ids.map((id) => `${home.stored}/${id}`) as [string, string];
  const later = snapshotIdAt(new Date(home.now.getTime() + 1000));
  const swap = (name: string) => {
    const [one, other] = [full, increment].map((folder) => Deno.readFileSync(`${folder}/${name}`));
    Deno.writeFileSync(`${full}/${name}`, other!);
    Deno.writeFileSync(`${increment}/${name}`, one!);
  };
  const attacks: Record<string, [SnapshotId, () => void]> = {
    "manifests swapped": [ids[1], () => swap(MANIFEST_PART)],
    "tars swapped": [ids[1], () => swap("files.tar.zst.age")],
    "seals swapped": [ids[1], () => [SEAL_FILE, SIGNATURE_FILE].forEach(swap)],
    "the old one replayed as a new one": [later, () => copySync(full, `${home.stored}/${later}`)],
    "the full is gone": [ids[1], () => Deno.removeSync(full, { recursive: true })],
    "the full is another, made by the same hub": [ids[1], () => {
      Deno.removeSync(full, { recursive: true });
      copySync(increment, full);
    }],
    "a link in place of a part": [ids[1], () => {
      Deno.renameSync(`${full}/files.tar.zst.age`, `${home.dir}/part`);
      Deno.symlinkSync(`${home.dir}/part`, `${full}/files.tar.zst.age`);
    }],
    "a folder in place of a seal": [ids[1], () => {
      Deno.removeSync(`${increment}/${SEAL_FILE}`);
      Deno.mkdirSync(`${increment}/${SEAL_FILE}`);
    }],
    "a pipe in place of a part": [ids[1], () => {
      Deno.removeSync(`${full}/hapi.db.full.zst.age`);
      new Deno.Command("mkfifo", { args: [`${full}/hapi.db.full.zst.age`] }).outputSync();
    }],
    "a device in place of the signature": [ids[1], () => {
      Deno.removeSync(`${increment}/${SIGNATURE_FILE}`);
      Deno.symlinkSync("/dev/zero", `${increment}/${SIGNATURE_FILE}`);
    }],
  };
  for (const [name, [id, attack]] of Object.entries(attacks)) {
    attack();
    assert.deepEqual(await outcomeOf(home, opening, id), [false, "integrity"], name);
    Deno.removeSync(home.stored, { recursive: true });
    copySync(good, home.stored);
  }
  // A whole store moved to another name: by its folder it would be another hub's, by its seal it is not.
  const moved = { ...opening.set, hub: "other" as never, folder: `${home.store}/other/state` };
  copySync(home.stored, moved.folder);
  assert.equal((await outcomeOf(home, { ...opening, set: moved }, ids[1]))[1], "integrity");
  const otherSet = { ...opening.set, set: "voice" as never };
  assert.equal((await outcomeOf(home, { ...opening, set: otherSet }, ids[1]))[1], "integrity");
});

/** A hub with a chain, what its first snapshot says, and the id of one that it forges once it is taken over. */
async function makeLiar() {
  const { home, ids } = await makeChain();
  const opening = await home.opening();
  const honest = await openManifest(opening, openSeal(opening, ids[0]));
  return { home, ids, opening, honest, lies: ids[0].replace("0301", "0401") as SnapshotId };
}

Deno.test("what a hub signs that was taken over cannot make a restore write outside, or fill the disk or memory", async () => {
  const { home: at, ids, opening, honest, lies } = await makeLiar();
  using home = at;
  const [database] = honest.databases;
  const file = honest.files.find(({ type }) => type === "file")!;
  const content = new TextEncoder().encode("evil");
  const evil = { ...file, bytes: 4, sha256: createHash("sha256").update(content).digest("hex") };
  const manifest = (changes: Partial<Record<keyof Manifest, unknown>>) => ({
    ...honest,
    id: lies,
    databases: [],
    files: [],
    ...changes,
  });
  const link = {
    source: "x",
    place: "home/a",
    type: "link",
    mode: 0o777,
    mtimeMs: 0,
    bytes: 0,
    target: home.dir,
  };
  const stored = { snapshot: lies, member: "home/a" };
  const full = (
    snapshot: SnapshotId,
    part = "hapi.db.full.zst.age",
  ) => [{ snapshot, part, bytes: database!.bytes, sha256: database!.sha256 }];
  const zeros = new Uint8Array(1 << 20);
  const bomb = Array.from({ length: 64 }, () => zeros);

  const tar = [await packTar([{ header: { name: "home/a", size: content.length }, body: content }])];

  const attacks: Record<string, [Record<string, readonly Uint8Array[]>, unknown, Partial<Seal>?]> = {
    "a place that climbs out": [
      {},
      manifest({
        files: [{ ...evil, place: "home/../../x", stored: { ...stored, member: "home/../../x" } }],
      }),
    ],
    "an absolute place": [{}, manifest({ files: [{ ...evil, place: "/etc/x", stored }] })],
    "a place with a NUL": [{}, manifest({ files: [{ ...evil, place: "home/a\0b", stored }] })],
    "a file below a link": [{}, manifest({ files: [link, { ...evil, place: "home/a/b", stored }] })],
    "the same place twice": [
      {},
      manifest({ files: [{ ...evil, place: "home/a", stored }, { ...evil, place: "home/a", stored }] }),
    ],
    "a database below a link": [
      {},
      manifest({ files: [link], databases: [{ ...database, place: "home/a/b.db", chain: full(lies) }] }),
    ],
    "a file below a database": [
      { "files.tar.zst.age": tar },
      manifest({
        files: [{ ...evil, place: `${database!.place}/x`, stored }],
        databases: [{ ...database, chain: full(ids[0]) }],
      }),
      { kind: "increment", parent: ids[0], needs: [ids[0]] },
    ],
    "a database below a database": [
      {},
      manifest({ databases: ["", "/x"].map((end) => ({ ...database, place: database!.place + end })) }),
      { kind: "increment", parent: ids[0], needs: [ids[0]] },
    ],
    "what a database would play into itself": [
      { "files.tar.zst.age": tar },
      manifest({
        files: [{ ...evil, place: `${database!.place}-wal`, stored }],
        databases: [{ ...database, chain: full(ids[0]) }],
      }),
      { kind: "increment", parent: ids[0], needs: [ids[0]] },
    ],
    "a place that no file can be named": [
      { "files.tar.zst.age": tar },
      manifest({ files: [{ ...evil, place: "home/\ud800", stored }] }),
    ],
    "a link that leads nowhere": [{}, manifest({ files: [{ ...link, target: "" }] })],
    "a link that no system makes": [{}, manifest({ files: [{ ...link, target: "a\0b" }] })],
    "a link that is too long": [{}, manifest({ files: [{ ...link, target: "é".repeat(2048) }] })],
    "a manifest that needs what its seal does not name": [
      {},
      manifest({ databases: [{ ...database, chain: full(ids[0]) }] }),
    ],
    "a part that its seal does not name": [
      {},
      manifest({ databases: [{ ...database, chain: full(lies, "other.full.zst.age") }] }),
    ],
    "a manifest of another snapshot": [{}, honest],
    "a manifest of a newer version": [{}, manifest({ version: 2 })],
    "a manifest with a key that nobody knows": [{}, { ...manifest({}), surprise: 1 }],
    "a manifest that is not JSON": [{}, undefined],
    "a database that is a bomb": [
      { "hapi.db.full.zst.age": bomb },
      manifest({ databases: [{ ...database, chain: full(lies) }] }),
    ],
    "a database that is too small": [
      { "hapi.db.full.zst.age": [content] },
      manifest({ databases: [{ ...database, chain: full(lies) }] }),
    ],
    "a tar that is a bomb": [
      { "files.tar.zst.age": bomb },
      manifest({ files: [{ ...evil, place: "home/a", stored }] }),
    ],
    "a delta that is none": [
      { "hapi.db.delta.zst.age": [content] },
      manifest({
        databases: [{ ...database, chain: [...full(ids[0]), ...full(lies, "hapi.db.delta.zst.age")] }],
      }),
      { kind: "increment", parent: ids[0], needs: [ids[0]] },
    ],
  };
  for (const [name, [parts, lie, changes]] of Object.entries(attacks)) {
    await forge(home, lies, parts, lie ?? "", changes);
    if (name.endsWith("not JSON")) await forgeManifestText(home, lies, "{");
    const before = await filesBelow(home.dir);
    const [isProven, kind] = await outcomeOf(home, opening, lies);
    assert.deepEqual([isProven, kind], [false, "integrity"], name);
    assert.deepEqual(await filesBelow(home.dir), before, name);
    Deno.removeSync(`${home.stored}/${lies}`, { recursive: true });
  }
});

Deno.test("an interruption is heard while a few bytes of a delta make a great many of an image", async () => {
  const { home: at, ids, opening, honest, lies } = await makeLiar();
  using home = at;
  const [database] = honest.databases;
  const [full] = database!.chain;
  const chunks: Uint8Array[] = [];
  const delta = new DeltaEncoder((chunk) => chunks.push(chunk));
  const COPIES = 1_000;
  for (let copy = 0; copy < COPIES; copy++) delta.copy(1, full!.bytes - 1);
  delta.end();
  const part = databasePart(database!.source as SourceName, "delta");
  const bytes = COPIES * (full!.bytes - 1);
  const chain = [full, { ...full, snapshot: lies, part, bytes }];
  const manifest = { ...honest, id: lies, files: [], databases: [{ ...database, bytes, chain }] };
  const changes = { kind: "increment", parent: ids[0], needs: [ids[0]] } as const;
  await forge(home, lies, { [part]: chunks }, manifest, changes);
  const image = `${home.dir}/image`;
  let largest = 0;
  const checkpoint = () => {
    largest = Math.max(largest, lstatIfThere(home.host.fs, image)?.bytes ?? 0);
    if (largest > 1 << 20) throw new BackupError("Cannot go on: interrupted", { kind: "cancelled" });
  };
  const [saved] = (await openManifest(opening, openSeal(opening, lies))).databases;
  const host = { ...home.host, checkpoint };
  await assert.rejects(rebuildDatabase({ ...opening, host }, saved!, image), { kind: "cancelled" });
  assert.ok(largest < 2 << 20, `${largest} bytes of ${bytes} were written before it was heard`);
});

Deno.test("databases with any names beside each other are all restored", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const opening = await home.opening();
  const [saved] = (await openManifest(opening, openSeal(opening, ids[1]))).databases;
  const names = ["x.db.journal", "x.db-wal", "x.db", "x.db.journal.journal"];
  const databases = names.map((name) => ({ ...saved, source: name, place: `home/${name}` }));
  const id = ids[1].replace("0302", "0402") as SnapshotId;
  const honest = await openManifest(opening, openSeal(opening, ids[1]));
  await forge(home, id, {}, { ...honest, id, databases, files: [] }, {
    kind: "increment",
    parent: ids[1],
    needs: ids,
  });
  const to = `${home.dir}/out`;
  await restore(opening, id, to);
  assert.deepEqual(
    (await filesBelow(to)).map(([path, sha256]) => [path, sha256]),
    names.sort().map((name) => [`home/${name}`, saved!.sha256]),
  );
});

async function forgeManifestText(home: Home, id: SnapshotId, text: string): Promise<void> {
  Deno.removeSync(`${home.stored}/${id}`, { recursive: true });
  await forge(home, id, { "x.zst.age": [new TextEncoder().encode(text)] }, {});
  const seal = JSON.parse(Deno.readTextFileSync(`${home.stored}/${id}/${SEAL_FILE}`));
  const [x, manifest] = seal.parts;
  Deno.renameSync(`${home.stored}/${id}/${x.name}`, `${home.stored}/${id}/${manifest.name}`);
  seal.parts = [{ ...x, name: manifest.name }];
  const bytes = new TextEncoder().encode(serializeSeal(seal));
  Deno.writeTextFileSync(`${home.stored}/${id}/${SIGNATURE_FILE}`, signSsh(home.seed, SEAL_NAMESPACE, bytes));
  Deno.writeFileSync(`${home.stored}/${id}/${SEAL_FILE}`, bytes);
}

Deno.test("a part with a huge frame is refused before it is in memory", () => {
  const bomb = zstdCompressSync(new Uint8Array(FRAME_BYTES_MAX + 1));
  const read = (bytes: Uint8Array) => {
    // A part of any size: a sparse file may claim to be one.
    const frames = new FrameDecompressor("x", 2 ** 45);
    for (const content of frames.push(bytes)) assert.ok(content.length <= FRAME_BYTES_MAX);
    frames.finish();
  };
  assert.throws(() => read(bomb), { kind: "integrity" });
  read(zstdCompressSync(new Uint8Array(FRAME_BYTES_MAX)));
  assert.throws(() => read(randomBytes(100)), { kind: "integrity", message: /x: it is not zstd$/ });
  // A frame whose blocks never end.
  const endless = new FrameDecompressor("x");
  const header = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 0x88);
  const block = new Uint8Array(3 + 131072);
  block.set([0, 0, 131072 * 8 >> 16]);
  assert.throws(() => {
    for (const _ of endless.push(header));
    for (let i = 0; i < 200; i++) for (const _ of endless.push(block));
  }, { kind: "integrity", message: /larger than any of ours/ });
});

Deno.test("frames give back what was written, in pieces of any size, by the zstd program's reckoning too", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 3_000 }), { maxLength: 8 }),
      fc.integer({ min: 1, max: 2_000 }),
      fc.integer({ min: 1, max: 700 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.nat(5_000),
      (chunks, frameBytes, pieceBytes, cut, foreseenBytes) => {
        const compressor = new FrameCompressor(3, frameBytes);
        const frames = [...chunks.flatMap((chunk) => compressor.push(chunk)), ...compressor.finish()];
        const all = Buffer.concat(frames);
        const plain = Buffer.concat(chunks);
        const contents = frames.map((frame) => zstdDecompressSync(frame));
        assert.ok(Buffer.concat(contents).equals(plain));
        assert.ok(
          contents.slice(0, -1).every(({ length }) => length === frameBytes),
          "they are full but the last",
        );
        assert.ok(contents.at(-1)!.length < frameBytes);
        const read = (bytes: Uint8Array) => {
          const decompressor = new FrameDecompressor("x", foreseenBytes);
          const found: Uint8Array[] = [];
          for (let at = 0; at < bytes.length; at += pieceBytes) {
            for (const content of decompressor.push(bytes.subarray(at, at + pieceBytes))) {
              // Each has a buffer of its own, which may be sent away.
              found.push(structuredClone(content, { transfer: [content.buffer] }));
            }
          }
          decompressor.finish();
          return Buffer.concat(found);
        };
        assert.ok(read(all).equals(plain));
        const length = Math.floor(cut * all.length);
        const ends = new Set([0]);
        for (let at = 0, i = 0; i < frames.length; i++) ends.add(at += frames[i]!.length);
        if (!ends.has(length)) assert.throws(() => read(all.subarray(0, length)), { kind: "integrity" });
      },
    ),
    NOT_MORE,
  );
});

/** What the zstd program reads in the frame's own header, in bytes. */
async function toldBytes(frame: Uint8Array): Promise<number> {
  let told = "";
  await inTempDir(async (dir) => {
    Deno.writeFileSync(`${dir}/x.zst`, frame);
    const { stdout } = await new Deno.Command("zstd", { args: ["-lv", `${dir}/x.zst`] }).output();
    told = new TextDecoder().decode(stdout);
  });
  return Number(/Decompressed Size: .*\((\d+) B\)/.exec(told)?.[1]);
}

Deno.test("a frame says how long its content is; one that lies is damage, and one that says nothing is read too", async () => {
  const read = (bytes: Uint8Array, pieceBytes = bytes.length) => {
    const frames = new FrameDecompressor("x");
    const contents: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      contents.push(...frames.push(bytes.subarray(at, at + pieceBytes)));
    }
    frames.finish();
    return Buffer.concat(contents);
  };
  // The length takes one byte, two or four.
  for (const length of [1, 255, 256, 257, 65_535, 65_791, 65_792, 1 << 20, FRAME_BYTES_MAX]) {
    const content = randomBytes(length);
    const compressor = new FrameCompressor(9);
    const [frame, ...others] = [...compressor.push(content), ...compressor.finish()];
    // Without content there is no length to tell.
    for (const other of others) assert.equal(read(other).length, 0);
    assert.equal(await toldBytes(frame!), length);
    assert.ok(read(frame!).equals(content), `${length} bytes`);
    const isSingle = (frame![4]! & 0x20) !== 0;
    for (const change of [1, 0x80]) {
      const lie = frame!.slice();
      lie[isSingle ? 5 : 6]! ^= change;
      assert.throws(() => read(lie), { kind: "integrity" }, `${length} bytes, said to be others`);
    }
    assert.ok(read(zstdCompressSync(content)).equals(content), `${length} bytes, unsaid`);
  }
  const content = randomBytes(20_000);
  const checked = zstdCompressSync(content, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });
  assert.ok(read(concatBytes(checked, checked), 1).equals(concatBytes(content, content)), "byte by byte");
  checked[checked.length - 1]! ^= 1;
  assert.throws(() => read(checked), { kind: "integrity" });

  // A descriptor and a window's size, then which dictionary it takes, then how long the content is, in 8 bytes.
  const headed = (flags: number, dictionary: number[], length: number) =>
    concatBytes(
      Uint8Array.of(...[0x28, 0xb5, 0x2f, 0xfd, 0xc0 | flags, 0x50], ...dictionary),
      new Uint8Array(new BigUint64Array([BigInt(length)]).buffer),
      Uint8Array.of(content.length * 8 + 1, content.length * 8 >> 8, content.length * 8 >> 16),
      content,
    );
  for (const [flags, bytes] of [[0, 0], [1, 1], [2, 2], [3, 4]] as const) {
    const none = new Array(bytes).fill(0);
    assert.ok(
      read(headed(flags, none, content.length), 7).equals(content),
      `${bytes} bytes for no dictionary`,
    );
    if (bytes === 0) continue;
    assert.throws(() => read(headed(flags, none.with(0, 9), content.length)), { kind: "integrity" });
  }
  // What it says of its length takes no memory.
  const { external } = Deno.memoryUsage();
  assert.throws(() => read(headed(0, [], 1 << 30)), { kind: "integrity" });
  assert.ok(Deno.memoryUsage().external - external < 1 << 29, "it said to be of a gigabyte");
});

const ids = fc.date({ min: new Date("2020-01-01"), max: new Date("2090-01-01"), noInvalidDate: true }).map(
  snapshotIdAt,
);
const hex = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) =>
  Buffer.from(bytes).toString("hex")
);
const seals: fc.Arbitrary<Seal> = fc.record({
  chain: fc.uniqueArray(ids, { minLength: 1, maxLength: 6 }).map((found) => found.sort()),
  parts: fc.uniqueArray(
    fc.constantFrom("a.full.zst.age", "b.delta.zst.age", "files.tar.zst.age", MANIFEST_PART),
    { minLength: 1 },
  ),
  bytes: fc.maxSafeNat(),
  sha256: hex,
  code: fc.constantFrom("integrity", "foreign-keys", "empty", "rows-lost", "swapped"),
  text: fc.string({ maxLength: 80, unit: "grapheme" }),
  isSuspect: fc.boolean(),
}).map(({ chain, parts, bytes, sha256, code, text, isSuspect }) => ({
  format: "hapi-backup",
  version: 1,
  hub: "home",
  set: "state",
  id: chain.at(-1)!,
  kind: chain.length === 1 ? "full" : "increment",
  parent: chain.at(-2) ?? null,
  needs: chain.slice(0, -1),
  parts: parts.map((name) => ({ name, bytes, sha256 })),
  recipients: [text || "age1"],
  previous: chain.length === 1 ? null : { id: chain[0]!, sha256 },
  suspicions: isSuspect ? [{ code, source: "a-source" }] : [],
  writer: text,
} as unknown as Seal));

Deno.test("a seal is read as it was written", () => {
  fc.assert(
    fc.property(seals, (seal) => assert.deepEqual(parseSeal(serializeSeal(seal), "x"), seal)),
    NOT_MORE,
  );
  assert.equal(sealChecksum(new TextEncoder().encode("x")), createHash("sha256").update("x").digest("hex"));
  // A thousand tables are one suspicion, and none is named: a seal is public.
  const lost = (detail: string) => ({ code: "rows-lost", source: "a", detail }) as const;
  const told = [lost("x"), lost("y"), { ...lost("z"), source: "b" }, { ...lost(""), code: "empty" } as const];
  assert.deepEqual(sealedSuspicions(told), [
    { code: "rows-lost", source: "a" },
    { code: "rows-lost", source: "b" },
    { code: "empty", source: "a" },
  ]);
  assert.equal(describeSuspicions(told), "a rows-lost, b rows-lost, a empty");
});

Deno.test("a seal that contradicts itself, or of a newer version, is refused with the reason", () => {
  const [seal] = fc.sample(seals.filter(({ needs }) => needs.length > 1), { numRuns: 1, seed: 7 });
  const read = (changes: object) => parseSeal(JSON.stringify({ ...seal, ...changes }), "x");
  const later = snapshotIdAt(new Date("2099-01-01"));
  read({});
  const wrong: [object, RegExp][] = [
    [
      { version: 2 },
      /format version 2, and this program reads up to 1: it takes hapi-backup 2\.0\.0 or newer/,
    ],
    [{ version: 0 }, /version/],
    [{ format: "other" }, /format/],
    [{ kind: "full" }, /a full that needs others/],
    [{ kind: "full", parent: null }, /a full that needs others/],
    [{ kind: "full", needs: [] }, /a full that needs others/],
    [{ parent: null }, /without a parent/],
    [{ parent: seal!.id }, /parent is not older/],
    ...[later, seal!.id].map((id): [object, RegExp] => [{ needs: [id] }, /not older than itself/]),
    [{ needs: [...seal!.needs].reverse() }, /not in order/],
    [{ needs: [seal!.needs[0], seal!.needs[0]] }, /not in order/],
    [{ parts: [...seal!.parts, seal!.parts[0]] }, /names a part twice/],
    [{ parts: [] }, /parts/],
    [{ parts: [{ ...seal!.parts[0], name: "../x.zst.age" }] }, /is not a part's name/],
    [{ parts: [{ ...seal!.parts[0], bytes: -1 }] }, /parts\.0\.bytes/],
    [{ recipients: [] }, /recipients/],
    [{ surprise: 1 }, /surprise/],
    [{ id: "20260231T000000Z" }, /is not a snapshot id/],
    [{ hub: "../x" }, /is not a hub's name/],
    [
      { suspicions: [{ code: "empty", source: "a\nb  good" }] },
      /suspicions\.0\.source: is not a source's name/,
    ],
  ];
  for (const [changes, reason] of wrong) {
    assert.throws(
      () => read(changes),
      (error: BackupError) => error.kind === "integrity" && reason.test(error.message),
      JSON.stringify(changes),
    );
  }
  assert.throws(() => parseSeal(" ".repeat(2 ** 20 + 1), "x"), {
    kind: "integrity",
    message: /1048577 characters/,
  });
});

Deno.test("no text makes the readers of seals, manifests and configurations throw anything but a BackupError", () => {
  const around = { home: "/home/op", hostname: "x", env: {} };
  const expected = { hub: "home", set: "state", id: "20260301T060000Z" } as never;
  const keys = Object.keys(configSchema.entries);
  const texts = fc.oneof(
    fc.string({ maxLength: 100 }),
    fc.json({ maxDepth: 4 }),
    fc.dictionary(
      fc.constantFrom(...keys, "version", "format", "databases", "files", "__proto__"),
      fc.jsonValue({ maxDepth: 4 }),
    ).map((value) => JSON.stringify(value)),
  );
  fc.assert(
    fc.property(texts, (text) => {
      for (
        const read of [
          () => parseSeal(text, "x"),
          () => parseManifest(text, expected),
          () => parseConfig(text, "x", around),
        ]
      ) {
        try {
          read();
        } catch (error) {
          assert.ok(error instanceof BackupError, `${text}: ${error}`);
          assert.ok(["integrity", "config"].includes(error.kind), error.kind);
        }
      }
    }),
    { numRuns: 1_000 },
  );
});

Deno.test("an absolute path and its place are the same thing, and no place leaves its folder", () => {
  const name = fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" }).filter((text) =>
    !/[/\0]|^\.{1,2}$/.test(text)
  );
  const path = fc.array(name, { minLength: 1, maxLength: 5 }).map((names) => `/${names.join("/")}`);
  fc.assert(
    fc.property(path, fc.oneof(path, fc.constant("/")), (path, home) => {
      if (path === home) return;
      const place = placeOf(path, home);
      assert.ok(isPlace(place));
      assert.equal(pathOfPlace(place, home), path);
      assert.ok(
        new URL(`file:///r/${place.split("/").map(encodeURIComponent).join("/")}`).pathname.startsWith("/r/"),
      );
    }),
    NOT_MORE,
  );
  for (
    const text of [
      "home",
      "home/",
      "/home/x",
      "home//x",
      "home/./x",
      "root/../x",
      "home/x/",
      "else/x",
      "home/a\0",
      `home/${"x".repeat(4096)}`,
      "home/\ud800",
    ]
  ) {
    assert.equal(isPlace(text), false, text);
  }
  const ofBytes = (
    bytes: number,
  ) => [`home/${"x".repeat(bytes - 5)}`, `home/${"é".repeat((bytes - 6) / 2)}x`];
  assert.deepEqual(ofBytes(4096).map(isPlace), [true, true], "Linux takes no longer path");
  assert.deepEqual(ofBytes(4098).map(isPlace), [false, false]);
  for (
    const [path, home, place] of [
      ["/op/x/y", "/op", "home/x/y"],
      ["/op2/x", "/op", "root/op2/x"],
      ["/op", "/op", "root/op"],
      ["/srv/op/x", "/op", "root/srv/op/x"],
      ["/x", "/", "home/x"],
    ] as const
  ) {
    assert.equal(placeOf(path, home), place);
    assert.equal(pathOfPlace(place as Place, home), path);
  }
  assert.throws(() => placeOf("/op/a\0", "/op"), { kind: "source", message: /cannot be written down/ });
});

Deno.test("a name from outside is one file's name, of the form that it says, from its start to its end", () => {
  const slug = (length: number) => "a".repeat(length);
  const names: [isName: (text: string) => boolean, good: string[], tooLong: string][] = [
    [isSnapshotId, ["20260301T000000Z"], "120260301T000000Z"],
    [isHubName, ["home", "a-1", "1", slug(63)], slug(64)],
    [isSetName, ["state", slug(63)], slug(64)],
    [isSourceName, ["hapi.db", "_A-1", slug(80)], slug(81)],
    [isPartName, ["hapi.db.full.zst.age", `${slug(80)}.delta.zst.age`], `${slug(81)}.delta.zst.age`],
  ];
  for (const [isName, good, tooLong] of names) {
    assert.deepEqual(good.filter(isName), good);
    const bad = good.flatMap((
      name,
    ) => [`../${name}`, `${name}/../x`, `.${name}`, `-${name}`, `${name}\n`, ` ${name}`]);
    assert.deepEqual(["", ".", "..", tooLong, ...bad].filter(isName), []);
  }
});

Deno.test("an id is its second", () => {
  fc.assert(fc.property(ids, (id) => assert.equal(snapshotIdAt(timeOfSnapshotId(id)), id)), NOT_MORE);
  const two = fc.integer({ min: 0, max: 99 }).map((number) => String(number).padStart(2, "0"));
  fc.assert(
    fc.property(
      fc.integer({ min: 1900, max: 2100 }),
      fc.array(two, { minLength: 5, maxLength: 5 }),
      (year, twos) => {
        const [month, day, hour, minute, second] = twos.map((text, index) =>
          index < 2 ? String(+text % 33).padStart(2, "0") : text
        );
        const iso = `${year}-${month}-${day}T${hour}:${minute}:${second}.000Z`;
        const time = new Date(iso);
        const exists = !Number.isNaN(time.getTime()) && time.toISOString() === iso;
        assert.equal(isSnapshotId(`${year}${month}${day}T${hour}${minute}${second}Z`), exists, iso);
      },
    ),
    { numRuns: 5_000 },
  );
  for (
    const [text, exists] of [["20240229", true], ["20250229", false], ["19000229", false], [
      "20260431",
      false,
    ]] as const
  ) {
    assert.equal(isSnapshotId(`${text}T235959Z`), exists, text);
  }
});

const checks = fc.record({
  integrity: fc.array(fc.string({ maxLength: 20 }), { maxLength: 3 }),
  foreignKeys: fc.array(fc.string({ maxLength: 20 }), { maxLength: 3 }),
}, { noNullPrototype: true });
const fileName = fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" }).filter((text) =>
  !/[/\0]|^\.{1,2}$/.test(text)
);
const modes = fc.integer({ min: 0, max: 0o7777 });
const times = fc.integer({ min: -1e12, max: 1e13 });
const rows = fc.dictionary(fc.oneof(fileName, fc.constant("__proto__")), fc.nat(), { noNullPrototype: true });
/** A manifest of files, folders, links and databases, each at a place of its own, some in a folder. */
const manifests: fc.Arbitrary<Manifest> = fc.record({
  chain: fc.uniqueArray(ids, { minLength: 1, maxLength: 4 }).map((found) => found.sort()),
  names: fc.uniqueArray(fileName, { minLength: 1, maxLength: 8 }),
  inFolder: fc.boolean(),
  target: fileName,
  mode: modes,
  mtimeMs: times,
  bytes: fc.nat(),
  sha256: hex,
  rows,
  checks,
  note: fc.string({ unit: "grapheme" }),
}).map(({ chain, names, inFolder, target, mode, mtimeMs, bytes, sha256, rows, checks, note }) => {
  const id = chain.at(-1)!;
  const top = `home/${inFolder ? "a folder of them" : names[0]}`;
  const about = (name: string, at: number) => ({
    source: "a-source",
    place: `${at === 0 ? "" : inFolder ? `${top}/` : "root/"}${at === 0 ? top : name}`,
    mode,
    mtimeMs,
  });
  const files = names.map((name, at) => {
    const type = at === 0 ? "folder" : ["file", "link", "folder"][at % 3]!;
    const stored = { snapshot: chain[at % chain.length], member: `home/${name}` };
    const content = type === "file"
      ? { bytes, sha256, stored }
      : { bytes: 0, ...(type === "link" ? { target } : {}) };
    return { ...about(name, at), type, ...content };
  });
  const database = {
    ...about("hapi.db at a place of its own", 1),
    pageBytes: 4096,
    bytes,
    sha256,
    chain: chain.map((snapshot) => ({ snapshot, part: "hapi.db.delta.zst.age", bytes, sha256 })),
    rows,
    schemaSha256: sha256,
    userVersion: mode,
    applicationId: bytes,
    checks,
  };
  return {
    version: 1,
    hub: "home",
    set: "state",
    id,
    parent: chain.at(-2) ?? null,
    sources: [{ name: "a-source", kind: "glob", path: note, secret: inFolder, outcome: "absent" }],
    databases: [database],
    files,
    removed: files.map(({ place }) => place),
    notes: [note],
    suspicions: [{ code: "rows-lost", source: "a-source", detail: note }],
  } as unknown as Manifest;
});

Deno.test("any manifest is read as it was written, for its own snapshot only", () => {
  fc.assert(
    fc.property(manifests, ids, (manifest, other) => {
      const text = JSON.stringify(manifest);
      assert.deepEqual(parseManifest(text, manifest), manifest);
      for (const changes of [{ id: other }, { set: "voice" as never }, { hub: "other" as never }]) {
        if ("id" in changes && other === manifest.id) continue;
        assert.throws(() => parseManifest(text, { ...manifest, ...changes }), { kind: "integrity" });
      }
      const [database] = manifest.databases;
      const needed = database!.chain.slice(0, -1).map(({ snapshot }) => snapshot);
      for (const chain of [database!.chain, database!.chain.toReversed()]) {
        assert.deepEqual(neededBy({ ...manifest, databases: [{ ...database!, chain }] }), needed);
      }
      // A snapshot can hold bytes of both; those of files alone are needed, too.
      const ofFiles = new Set(manifest.files.flatMap(({ stored }) => stored?.snapshot ?? []));
      const parts = database!.chain.map(({ snapshot, part }) =>
        [snapshot, new Set(ofFiles.has(snapshot) ? [part, FILES_PART] : [part])] as const
      );
      assert.deepEqual(partsRead(manifest), new Map(parts));
      const others = [...ofFiles].filter((id) => id !== manifest.id).sort();
      assert.deepEqual(neededBy({ ...manifest, databases: [] }), others);
    }),
    NOT_MORE,
  );
});

Deno.test("what is wrong with one of a manifest's files is told with its place in the list", () => {
  const [manifest] = fc.sample(manifests, { numRuns: 1, seed: 1 });
  const entry = { source: "x", place: "home/x", type: "folder", mode: 0o700, mtimeMs: 0, bytes: 0 };
  for (
    const [wrong, told] of [
      [{ ...entry, place: "home/../x" }, "files.1.place: is not a place"],
      [{ ...entry, owner: "me" }, 'files.1: Unrecognized key: "owner"'],
      [{ ...entry, source: "a\nb" }, "files.1.source: is not a source's name"],
      [7, "files.1: expected an object, found a number"],
      [{ ...entry, mode: 0o10000 }, "files.1.mode: is more than 4095"],
      [{ ...entry, type: "link" }, "home/x is half a link"],
      [{ ...entry, target: "y" }, "home/x is half a link"],
      [{ ...entry, type: "link", target: "a\0b" }, "files.1.target: is nothing that a link can lead to"],
      [{ ...entry, type: "link", target: "\ud800" }, "files.1.target: is nothing that a link can lead to"],
      [{ ...entry, type: "link", target: "é".repeat(2048) }, "files.1.target: is nothing that a link"],
      [{ ...entry, type: "file" }, "home/x has content where it should have none, or the reverse"],
    ] as const
  ) {
    const text = JSON.stringify({ ...manifest, files: [{ ...entry, place: "home/a" }, wrong] });
    assert.throws(
      () => parseManifest(text, manifest!),
      (error) => error instanceof BackupError && error.kind === "integrity" && error.message.includes(told),
      told,
    );
  }
});

Deno.test("a manifest is refused, and never sealed, in which two things could not be in their places at once", () => {
  const [manifest] = fc.sample(manifests, { numRuns: 1, seed: 1 });
  const [database] = manifest!.databases;
  const folder = { source: "x", place: "home/x", type: "folder", mode: 0o700, mtimeMs: 0, bytes: 0 };
  const link = { ...folder, type: "link", target: "y" };
  const content = { sha256: "a".repeat(64), stored: { snapshot: manifest!.id, member: "home/m" } };
  const file = { ...folder, type: "file", ...content };
  const at = (place: string) => ({ ...file, place });
  const half = "home/x has content where it should have none, or the reverse";
  const lists: readonly (readonly [readonly unknown[], string | undefined])[] = [
    [[folder, at("home/x/a"), at("home/x!"), { ...link, place: "home/xa" }, at("home/y")], undefined],
    [[file, at("home/y"), link], "it lists home/x twice"],
    [[at(database!.place)], `it lists ${database!.place} twice`],
    ...["-wal", "-shm", "-journal"].map((end) =>
      [
        [file, at(database!.place + end)],
        `it lists ${database!.place}${end} beside the database that it would change`,
      ] as const
    ),
    [[at(`${database!.place}/a`)], `${database!.place}/a lies inside ${database!.place}, which is no folder`],
    // By their names alone another would stand between the two.
    [[at("home/x/a/b"), at("home/x!"), link], "home/x/a/b lies inside home/x, which is no folder"],
    [[file, at("home/x/a")], "home/x/a lies inside home/x, which is no folder"],
    ...["sha256", "stored"].map((key) => [[{ ...file, [key]: undefined }], half] as const),
    ...Object.entries(content).map(([key, value]) => [[{ ...folder, [key]: value }], half] as const),
  ];
  for (const [files, told] of lists) {
    const listed = { ...manifest, files } as Manifest;
    assert.equal(whyUnreadable(listed, new Set()), told);
    const read = () => parseManifest(JSON.stringify(listed), listed);
    if (told === undefined) assert.deepEqual(read(), listed);
    else {
      assert.throws(
        read,
        (error) =>
          error instanceof BackupError && error.kind === "integrity" && error.message.endsWith(`: ${told}`),
        told,
      );
    }
  }
  const aimless = { ...link, target: "" } as unknown as SavedFile;
  const listed = { ...manifest!, files: [aimless] };
  const told = "home/x.target: is nothing that a link can lead to";
  assert.deepEqual([[], [aimless]].map((known) => whyUnreadable(listed, new Set(known))), [told, undefined]);
});

Deno.test("a manifest whose rows are no counts is refused", () => {
  const [manifest] = fc.sample(manifests, { numRuns: 1, seed: 1 });
  const [database] = manifest!.databases;
  for (const rows of [null, [1], "1", { messages: -1 }, { messages: "1" }, { messages: 0.5 }]) {
    const text = JSON.stringify({ ...manifest, databases: [{ ...database, rows }] });
    assert.throws(() => parseManifest(text, manifest!), {
      kind: "integrity",
      message: /databases\.0\.rows: is not a number of rows for each table/,
    }, JSON.stringify(rows));
  }
});

Deno.test("a manifest may list a million files; it, or a seal, of as many wrong things takes little memory", async () => {
  const [manifest] = fc.sample(manifests, { numRuns: 1, seed: 1 });
  const stored = { snapshot: manifest!.id, member: "home/notes/0001" };
  const file = {
    source: "notes",
    place: stored.member,
    type: "file",
    mode: 0o644,
    mtimeMs: 1e12,
    bytes: 600,
  };
  const thousand = new TextEncoder().encode(
    `${JSON.stringify({ ...file, sha256: "0".repeat(64), stored })},`.repeat(1_000),
  );
  const size = new ManifestSize();
  for (let at = 0; at < 1_000; at++) assert.equal(size.add(thousand), false, `${at} thousand`);

  const lists = ["sources", "databases", "files", "removed", "notes", "suspicions"];
  const sealed = ["needs", "parts", "recipients", "suspicions"];
  const module = (name: string) => JSON.stringify(import.meta.resolve(`../scripts/core/snapshot/${name}.ts`));
  const code = `import { parseManifest } from ${module("manifest")};
    import { parseSeal } from ${module("seal")};
    const manifest = ${JSON.stringify(manifest)};
    const seal = ${JSON.stringify(fc.sample(seals, { numRuns: 1, seed: 1 })[0])};
    const tell = (read) => { try { read(); } catch ({ message }) { console.log(message); } };
    for (const list of ${JSON.stringify(lists)}) {
      const forged = JSON.stringify({ ...manifest, [list]: Array(1_000_000).fill(1) });
      tell(() => parseManifest(forged, manifest));
    }
    for (const list of ${JSON.stringify(sealed)}) {
      tell(() => parseSeal(JSON.stringify({ ...seal, [list]: Array(500_000).fill(1) }), "x"));
    }
    const keys = Array.from({ length: 80_000 }, (_, at) => ["key" + at, 1]);
    tell(() => parseSeal(JSON.stringify({ ...seal, ...Object.fromEntries(keys) }), "x"));`;
  const told = await output(Deno.execPath(), [
    "eval",
    `--config=${new URL("../deno.json", import.meta.url).pathname}`,
    "--v8-flags=--max-old-space-size=200",
    code,
  ]);
  assert.deepEqual(told.match(/(?<=: )\w+\.0(?=: )/g), [...lists, ...sealed].map((list) => `${list}.0`));
  assert.match(told, /x: Unrecognized keys: "key0", "key1", "key2"\n$/);
});

Deno.test("JSON in pieces is what JSON.stringify gives, long lists in more than one", () => {
  const decode = (value: unknown) => new TextDecoder().decode(concatBytes(...jsonPieces(value)));
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
    assert.equal(decode(value), JSON.stringify(value));
    assert.equal(decode({ a: undefined, b: [value, undefined] }), JSON.stringify({ b: [value, undefined] }));
  }));
  const long = { manifest: { files: Array.from({ length: 20_000 }, (_, at) => ({ place: `home/ü${at}` })) } };
  assert.equal(decode(long), JSON.stringify(long));
  assert.ok([...jsonPieces(long)].every(({ length }) => length < 100_000));
});

Deno.test("a manifest of a real snapshot is read as it was written, with its rows", async () => {
  const { home: at, ids } = await makeChain();
  using home = at;
  const opening = await home.opening();
  for (const id of ids) {
    const snapshot = openSeal(opening, id);
    const manifest = await openManifest(opening, snapshot);
    assert.deepEqual(parseManifest(JSON.stringify(manifest), snapshot.seal), manifest);
    assert.deepEqual(manifest.databases[0]!.rows, { sessions: 2, messages: id === ids[0] ? 300 : 305 });
  }
});

Deno.test("the command table is whole: an example of each verb parses, and no two verbs are the same", () => {
  assert.equal(new Set(COMMANDS.map(({ verb }) => verb)).size, COMMANDS.length);
  for (const { verb, example } of COMMANDS) {
    assert.match(example, new RegExp(`^(source <\\()?hapi-backup ${verb}\\b`), verb);
  }
  // The terminal's width says where a line ends; a new one of ours begins a sentence.
  for (const { verb, details = "" } of COMMANDS) {
    assert.doesNotMatch(details, /[^.:\n]\n\S/, `${verb}: a sentence is broken by hand`);
  }
  for (const { verb, actions, arguments: [first] = [] } of COMMANDS) {
    if (actions) assert.deepEqual(first?.choices, actions.map(([action]) => action), verb);
  }
});
