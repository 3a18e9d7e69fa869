import assert from "node:assert/strict";
import type { Config } from "../scripts/core/config/config.ts";
import { FILES_PART, MAIN_SET, MANIFEST_PART, type SnapshotId } from "../scripts/core/names.ts";
import { openStore, type RemoteOptions } from "../scripts/host/destinations/remote.ts";
import { realFs } from "../scripts/host/fs.ts";
import type { Host } from "../scripts/host/host.ts";
import { makeRun } from "../scripts/host/process.ts";
import { openSetOf } from "../scripts/host/restore/chosen_snapshot.ts";
import { type Opening, openPartSaying } from "../scripts/host/restore/open_snapshot.ts";
import { noSuchSet, openStoreOf } from "../scripts/host/restore/store_option.ts";
import { findSets, isSealed, problemWithPart, readSet } from "../scripts/host/store/store.ts";
import { look } from "../scripts/look.ts";
import { restore } from "../scripts/restore.ts";
import { filesBelow } from "./real/files.ts";
import { insertMessages, makeHome } from "./real/home.ts";
import { makeSealedFolder } from "./real/signed_store.ts";
import { newKey, startSshd } from "./real/sshd.ts";

const ID = ["20260301T060000Z", "20260301T180000Z", "20260302T060000Z"] as const;

interface Far {
  /** A store with a folder `home` that the key may read. */
  readonly store: string;
  readonly scratch: string;
  readonly target: string;
  readonly options: RemoteOptions;
  readonly host: Host;
  readonly told: string[];
}

/** A storage host whose reading key sees the whole store, or one hub's folder. */
async function withFar(served: "store" | "hub", test: (far: Far) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "remote store it's-" });
  const farDir = await Deno.makeTempDir({ prefix: "far store-" });
  try {
    const store = `${farDir}/store`;
    await Deno.mkdir(`${store}/home`, { recursive: true });
    await using sshd = await startSshd({ dir: served === "store" ? store : `${store}/home` });
    await Deno.copyFile(sshd.readKeyFile, `${dir}/read key`);
    await Deno.chmod(`${dir}/read key`, 0o600);
    const told: string[] = [];
    const retry = { attempts: 1, random: () => 0, sleep: () => Promise.resolve() };
    await test({
      store,
      scratch: `${dir}/my scratch`,
      target: `${sshd.user}@${sshd.host}:`,
      told,
      options: {
        scratch: `${dir}/my scratch`,
        identityFile: `${dir}/read key`,
        knownHostsFile: sshd.knownHostsFile,
        port: sshd.port,
        timeoutSeconds: 20,
        retry,
      },
      host: makeHost(told),
    });
    assert.deepEqual([...Deno.readDirSync(`${dir}/my scratch`)], [], "scratch is left empty");
  } finally {
    await Deno.remove(dir, { recursive: true });
    await Deno.remove(farDir, { recursive: true });
  }
}

function makeHost(told: string[]): Host {
  return {
    fs: realFs,
    run: makeRun(() => {}),
    now: () => new Date(),
    checkpoint: () => {},
    blocking: (work) => work(),
    report: {
      progress: (what) => assert.doesNotMatch(what, /:$/),
      info: () => {},
      warn: (text) => told.push(text),
    },
  };
}

const wanted = (id: string) => ({
  hub: "home",
  set: MAIN_SET,
  id: id as SnapshotId,
  parts: new Set([FILES_PART, MANIFEST_PART]),
});

/** The sealed snapshots under a store, as its readers see them. */
function sealedIn(root: string): string[] {
  return findSets(realFs, root).flatMap((set) =>
    readSet(realFs, set).filter(isSealed).map(({ hub, set, id }) => `${hub}/${set}/${id}`)
  );
}

for (const served of ["store", "hub"] as const) {
  Deno.test(`openStore() reads a far ${served}: seals at once, parts when asked for`, async () => {
    await withFar(served, async ({ store, target, options, host }) => {
      makeSealedFolder({ store, id: ID[0] });
      makeSealedFolder({ store, id: ID[1], needs: [ID[0]] });
      makeSealedFolder({ store, id: ID[2], set: "voice" });
      await Deno.mkdir(`${store}/home/.incoming-${ID[2]}-1/state/${ID[2]}`, { recursive: true });
      await Deno.writeTextFile(`${store}/home/.incoming-${ID[2]}-1/state/${ID[2]}/seal.json`, "{}");

      await using opened = await openStore(host, target, options);
      assert.deepEqual(sealedIn(opened.root), [
        `home/state/${ID[0]}`,
        `home/state/${ID[1]}`,
        `home/voice/${ID[2]}`,
      ]);
      const names = (await filesBelow(opened.root)).map(([path]) => path.split("/").at(-1));
      assert.deepEqual([...new Set(names)].sort(), ["seal.json", "seal.json.sig"]);

      await opened.fetch([wanted(ID[1])]);
      const fetched = `${opened.root}/home/state/${ID[1]}`;
      assert.deepEqual(await filesBelow(fetched), await filesBelow(`${store}/home/state/${ID[1]}`));
      assert.equal((await Deno.stat(`${fetched}/files.tar.zst.age`)).mode! & 0o777, 0o600);
      assert.equal((await filesBelow(`${opened.root}/home/state/${ID[0]}`)).length, 2);
    });
  });
}

Deno.test("openStore() brings nothing from a hostile store but what a store could hold", async () => {
  await withFar("store", async ({ store, target, options, host, scratch, told }) => {
    const good = makeSealedFolder({ store, id: ID[0] });
    const outside = `${store}/../outside`;
    await Deno.writeTextFile(outside, "secret");

    // A seal that is a link out, one that is a pipe, one that is huge, and a part of each kind.
    for (const [index, id] of [ID[1], ID[2]].entries()) {
      const folder = makeSealedFolder({ store, id });
      await Deno.remove(`${folder}/seal.json`);
      if (index === 0) await Deno.symlink(outside, `${folder}/seal.json`);
      else await Deno.truncate(await touch(`${folder}/seal.json`), 64 << 20);
    }
    await Deno.remove(`${good}/files.tar.zst.age`);
    await Deno.symlink(outside, `${good}/files.tar.zst.age`);
    await Deno.truncate(await touch(`${good}/manifest.json.zst.age`), 64 << 20);
    // A folder that is a link, a foreign name, a name with a line's end, and something deep.
    await Deno.symlink(`${store}/home`, `${store}/linked`);
    await touch(`${store}/home/state/${ID[0]}/extra`);
    await Deno.mkdir(`${store}/home/state/notes`);
    await touch(`${store}/home/state/notes/seal.json`);
    await Deno.mkdir(`${store}/home/state/x\ny`);
    await touch(`${store}/home/state/x\ny/seal.json`);
    await Deno.mkdir(`${store}/UPPER/state/${ID[0]}`, { recursive: true });
    await touch(`${store}/UPPER/state/${ID[0]}/seal.json`);
    await Deno.mkdir(`${store}/a/b/c/d/e`, { recursive: true });
    await touch(`${store}/a/b/c/d/e/seal.json`);

    await using opened = await openStore(host, target, options);
    await opened.fetch([wanted(ID[0]), wanted(ID[1]), wanted(ID[2]), wanted("20260303T060000Z")]);
    const brought = (await filesBelow(scratch)).map(([path]) => path.split("/").slice(2).join("/"));
    assert.deepEqual(brought, [
      `home/state/${ID[0]}/seal.json`,
      `home/state/${ID[0]}/seal.json.sig`,
      `home/state/${ID[2]}/seal.json.sig`,
    ]);
    assert.deepEqual(sealedIn(opened.root), [`home/state/${ID[0]}`]);
    const [snapshot] = readSet(realFs, findSets(realFs, opened.root)[0]!).filter(isSealed);
    for (const part of snapshot!.sealed.seal.parts) {
      assert.equal(problemWithPart(realFs, snapshot!.folder, part), "it is missing");
    }
    // What has no seal that could be had is told of as in a store that is here: `latest` would be older without a word.
    const seen = readSet(realFs, findSets(realFs, opened.root)[0]!);
    assert.deepEqual(seen.map(({ id, sealed }) => [id, sealed.seal ? "sealed" : sealed.state]), [
      [ID[0], "sealed"],
      [ID[1], "incomplete"],
      [ID[2], "incomplete"],
    ]);
    // A link and a part that is far too large are not even asked for.
    assert.deepEqual(told.map((text) => / was not sent: | without the seals of 1 of 2 /.exec(text)?.[0]), [
      " without the seals of 1 of 2 ",
      " was not sent: ",
      " was not sent: ",
    ]);
    await Deno.remove(outside);
  });
});

async function touch(path: string): Promise<string> {
  await Deno.writeTextFile(path, "");
  return path;
}

Deno.test("a part that is shorter than its seal says is not handed on, and is named as it is called there", async () => {
  await withFar("hub", async ({ store, target, options, host, told }) => {
    const folder = makeSealedFolder({ store, id: ID[0] });
    await Deno.truncate(`${folder}/files.tar.zst.age`, 100);
    await using opened = await openStore(host, target, options);
    await opened.fetch([wanted(ID[0])]);
    const path = `${opened.root}/home/state/${ID[0]}`;
    await assert.rejects(Deno.stat(`${path}/files.tar.zst.age`), Deno.errors.NotFound);
    assert.ok(await Deno.stat(`${path}/manifest.json.zst.age`));
    const there = `state/${ID[0]}/files.tar.zst.age of ${target.slice(0, -1)}`;
    assert(told[0]!.startsWith(`${there} is not what the seal says (a file of 100 bytes`), told[0]);
    await Deno.remove(`${folder}/files.tar.zst.age`);
    await using again = await openStore(host, target, options);
    await again.fetch([wanted(ID[0])]);
    assert(told[1]!.startsWith(`${there} was not sent: it is missing`), told[1]);
  });
});

for (const served of ["store", "hub"] as const) {
  Deno.test(`errors name the files of a far ${served} as they are called there, not by a place in scratch`, async () => {
    await withFar(served, async ({ store, scratch, target, options, host }) => {
      const [broken, lacking] = [
        makeSealedFolder({ store, id: ID[0] }),
        makeSealedFolder({ store, id: ID[1] }),
      ];
      await Deno.writeTextFile(`${broken}/seal.json`, "{");
      await Deno.remove(`${lacking}/files.tar.zst.age`);
      const config = { store: "/none", destinations: [] } as unknown as Config;
      await using far = await openStoreOf(host, config, {
        store: target,
        sshKey: options.identityFile!,
        knownHosts: options.knownHostsFile!,
        port: options.port!,
        scratch,
      });
      const [set] = far.sets;
      const [first, second] = readSet(realFs, set!);
      const none = noSuchSet(far, "set x").message;
      assert.equal(none, `Cannot find set x in ${target.slice(0, -1)}: it holds none`);
      const there = `${target}${served === "store" ? "home/" : ""}state`;
      const { problem } = first!.sealed as { problem: string };
      assert(problem.includes(`${there}/${ID[0]}/seal.json`) && !problem.includes(scratch), problem);

      assert(isSealed(second!));
      await far.fetch(set!, new Map([[second.id, new Set([FILES_PART])]]));
      const opening = { host, set: set!, identities: [], trust: new Map() as never };
      const { seal } = second.sealed;
      await assert.rejects(
        openPartSaying(opening, { ...second, seal }, FILES_PART),
        { message: `Cannot read ${there}/${ID[1]}/files.tar.zst.age: it is missing` },
      );
    });
  });
}

Deno.test("openStore() names what is wrong: nothing there, no key, wrong key, unknown host key", async () => {
  await withFar("store", async ({ store, target, options, host, scratch }) => {
    const name = target.slice(0, -1);
    await assert.rejects(openStore(host, target, options), {
      kind: "usage",
      message: `Cannot open store ${name}: no sealed snapshot is there`,
    });
    makeSealedFolder({ store, id: ID[0] });
    const { identityFile: _, ...noKey } = options;
    await assert.rejects(openStore(host, target, noKey), {
      kind: "usage",
      message: `Cannot open store ${name}: no key is named`,
      hint: /--ssh-key .*--known-hosts/,
    });
    await newKey(`${scratch}/other`);
    await assert.rejects(openStore(host, target, { ...options, identityFile: `${scratch}/other` }), {
      kind: "key",
    });
    await touch(`${scratch}/none`);
    await assert.rejects(
      openStore(host, target, { ...options, knownHostsFile: `${scratch}/none` }),
      { kind: "key", message: /^Cannot read store [^:]+: .* is not pinned/ },
    );
    for (const name of ["other", "other.pub", "none"]) await Deno.remove(`${scratch}/${name}`);
  });
});

Deno.test("openStore() of a hub's folder without one readable seal is an integrity error", async () => {
  await withFar("hub", async ({ store, target, options, host }) => {
    const folder = makeSealedFolder({ store, id: ID[0] });
    await Deno.writeTextFile(`${folder}/seal.json`, "{}");
    await assert.rejects(openStore(host, target, options), {
      kind: "integrity",
      message: `Cannot open store ${target} none of its 1 seals can be read`,
    });
  });
});

Deno.test("openStore() takes a folder here as it is, and refuses one that is missing", async () => {
  const dir = await Deno.makeTempDir({ prefix: "local store-" });
  try {
    makeSealedFolder({ store: dir, id: ID[0] });
    const opened = await openStore(makeHost([]), dir, { scratch: `${dir}/scratch` });
    assert.equal(opened.root, dir);
    await opened.fetch([wanted(ID[0])]);
    await opened[Symbol.asyncDispose]();
    assert.deepEqual(sealedIn(dir), [`home/state/${ID[0]}`]);
    await assert.rejects(openStore(makeHost([]), `${dir}/none`, { scratch: dir }), { kind: "usage" });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

for (const served of ["store", "hub"] as const) {
  Deno.test(`openStore() reads a ${served} by rclone, within the same bounds`, async () => {
    const dir = await Deno.makeTempDir({ prefix: "rclone store-" });
    try {
      const store = `${dir}/the store`;
      makeSealedFolder({ store, id: ID[0] });
      const bad = makeSealedFolder({ store, id: ID[1] });
      await Deno.truncate(`${bad}/seal.json`, 64 << 20);
      await Deno.symlink("/etc/passwd", `${store}/home/state/${ID[0]}/link`);
      await Deno.writeTextFile(`${dir}/rclone.conf`, `[far]\ntype = alias\nremote = ${store}\n`);
      const told: string[] = [];
      const remote = served === "store" ? "rclone:far:" : "rclone:far:home";
      const options = { scratch: `${dir}/scratch`, rcloneConfigFile: `${dir}/rclone.conf` };
      {
        await using opened = await openStore(makeHost(told), remote, options);
        assert.deepEqual(sealedIn(opened.root), [`home/state/${ID[0]}`]);
        await opened.fetch([wanted(ID[0]), wanted(ID[1])]);
        const fetched = (await filesBelow(`${opened.root}/home/state/${ID[0]}`)).map(([path]) => path);
        assert.deepEqual(fetched, [
          "files.tar.zst.age",
          "manifest.json.zst.age",
          "seal.json",
          "seal.json.sig",
        ]);
        assert.equal((await filesBelow(`${opened.root}/home/state/${ID[1]}`)).length, 1);
      }
      assert.deepEqual([...Deno.readDirSync(`${dir}/scratch`)], []);
      await assert.rejects(openStore(makeHost(told), "rclone:none:", options), { kind: "config" });
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
}

/** Serves a store, and has a file grow in the midst of the one before it: by then its size is told. */
const growing = (store: string, path: string) =>
  `#!/usr/bin/python3
import os, subprocess
os.chdir("${store}")
words = os.environ["SSH_ORIGINAL_COMMAND"].split()
rsync = subprocess.Popen(["rsync", "--bwlimit=2000", *words[1:]], stdout=subprocess.PIPE)
sent = 0
while data := os.read(rsync.stdout.fileno(), 65536):
    if sent < 300000 <= sent + len(data):
        os.truncate("${path}", 40000000)
    sent += len(data)
    while data:
        data = data[os.write(1, data):]
raise SystemExit(rsync.wait())
`;

Deno.test("what a storage host sends beyond what it said is not waited for to its end", async () => {
  const dir = await Deno.makeTempDir({ prefix: "far-" });
  try {
    const parts = { "files.tar.zst.age": 1_000_000, "manifest.json.zst.age": 500 };
    const folder = makeSealedFolder({ store: dir, id: ID[0], parts });
    const serve = growing(dir, `${folder}/manifest.json.zst.age`);
    Deno.writeTextFileSync(`${dir}/serve`, serve, { mode: 0o700 });
    await newKey(`${dir}/key`);
    const line = `restrict,command="${dir}/serve" ${Deno.readTextFileSync(`${dir}/key.pub`)}`;
    await using sshd = await startSshd({ dir: `${dir}/unused`, authorizedKeys: [line] });
    await using opened = await openStore(makeHost([]), `${sshd.user}@${sshd.host}:`, {
      scratch: `${dir}/scratch`,
      identityFile: `${dir}/key`,
      knownHostsFile: sshd.knownHostsFile,
      port: sshd.port,
    });
    await assert.rejects(opened.fetch([wanted(ID[0])]), {
      kind: "integrity",
      message: `Cannot read store ${sshd.user}@${sshd.host}: it sends more than it said that it would`,
    });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("what an rclone remote sends beyond what it listed is not waited for to its end", async () => {
  const dir = await Deno.makeTempDir({ prefix: "rclone store-" });
  const parts = { "files.tar.zst.age": 200_000, "manifest.json.zst.age": 500 };
  makeSealedFolder({ store: `${dir}/store`, id: ID[0], parts });
  let sent = 0;
  const endless = () =>
    new ReadableStream({
      pull(controller) {
        sent += 65_536;
        // Else it would not end.
        if (sent > 100_000_000) controller.close();
        else controller.enqueue(new Uint8Array(65_536));
      },
    });
  await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const path = new URL(request.url).pathname;
    const headers = { "last-modified": "Sun, 01 Mar 2026 00:00:00 GMT" };
    if (path.endsWith("/")) {
      const links = [...Deno.readDirSync(`${dir}/store${path}`)].map(({ name, isDirectory }) => {
        const href = isDirectory ? `${name}/` : name;
        return `<a href="${href}">${href}</a>`;
      });
      return new Response(links.join("\n"), { headers: { "content-type": "text/html" } });
    }
    const content = Deno.readFileSync(`${dir}/store${path}`);
    const isForged = path.endsWith("/manifest.json.zst.age") && request.method !== "HEAD";
    return new Response(isForged ? endless() : content, { headers });
  });
  try {
    Deno.writeTextFileSync(
      `${dir}/conf`,
      `[far]\ntype = http\nurl = http://127.0.0.1:${server.addr.port}/\n`,
    );
    const options = { scratch: `${dir}/scratch`, rcloneConfigFile: `${dir}/conf` };
    await using opened = await openStore(makeHost([]), "rclone:far:", options);
    await assert.rejects(opened.fetch([wanted(ID[0])]), {
      kind: "integrity",
      message: /^Cannot read store rclone:far: the remote sends more than it said that it would \(far: \w/,
    });
    assert.ok(sent < 20_000_000, `${sent}`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("of a far store only what is read is fetched: for one file no database, for sessions no file", async () => {
  using home = await makeHome();
  const ids: SnapshotId[] = [];
  for (const name of ["a", "b"]) {
    home.write(`.hapi/scratchlist-attachments/${name}`, name);
    home.sql(insertMessages(10));
    ids.push((await home.backup()).id);
  }
  const configFile = `${home.dir}/rclone.conf`;
  Deno.writeTextFileSync(configFile, `[far]\ntype = alias\nremote = ${home.store}\n`);
  home.configure({ destinations: [{ kind: "rclone", name: "far", remote: "far:", configFile }] });
  const scratch = `${home.dir}/scratch`;
  const job = {
    config: home.config(),
    keys: { identity: home.identityFile },
    store: { store: "far", scratch },
    set: "state",
  };
  const [full, delta] = ["full", "delta"].map((form, n) => `${ids[n]}/hapi.db.${form}.zst.age`);
  const [first, second] = ids.map((id) => `${id}/${FILES_PART}`);
  const manifest = `${ids[1]}/${MANIFEST_PART}`;
  const only = (pattern: string) => (opening: Opening, id: SnapshotId) =>
    restore(opening, id, `${home.dir}/${crypto.randomUUID()}`, [pattern]);
  /** Reads one thing after another, and says what has been fetched after each. */
  const fetched = async (...reads: ((opening: Opening, id: SnapshotId) => Promise<unknown>)[]) => {
    await using set = await openSetOf(home.host, job);
    const id = await set.choose("latest");
    const here: (string | undefined)[][] = [];
    for (const read of [() => Promise.resolve(), ...reads]) {
      await read(set.opening, id);
      const files = await filesBelow(set.opening.set.folder);
      here.push(files.flatMap(([path]) => path.endsWith(".age") ? [path] : []));
    }
    return here;
  };
  assert.deepEqual(await fetched(only("home/.hapi/hub.env"), only("home/.hapi/scratchlist-attachments/b")), [
    [manifest],
    [first, manifest],
    [first, second, manifest],
  ]);
  const sessions = (opening: Opening, id: SnapshotId) => look(opening, id, scratch);
  assert.deepEqual(await fetched(sessions, only("home/.hapi/hapi.db"), only("**")), [
    [manifest],
    [full, delta, manifest],
    [full, delta, manifest],
    [first, full, second, delta, manifest],
  ]);
});

Deno.test("list tells of a far store what it tells of one that is here: parts that are missing or cut, too", async () => {
  using home = await makeHome();
  // sshd's forced command splits at spaces.
  const store = await Deno.makeTempDir({ prefix: "far-" });
  try {
    home.configure({ store });
    const ids: string[] = [];
    for (let count = 0; count < 4; count++) {
      home.write(`.hapi/scratchlist-attachments/${count}`, `${count}`);
      ids.push((await home.backup()).id);
    }
    const part = (at: number, name: string) => `${store}/home/state/${ids[at]}/${name}`;
    await Deno.remove(part(1, FILES_PART));
    await Deno.truncate(part(2, "manifest.json.zst.age"), 100);
    await using sshd = await startSshd({ dir: `${store}/home` });
    const access = [
      "--ssh-key",
      sshd.readKeyFile,
      "--known-hosts",
      sshd.knownHostsFile,
      "--port",
      `${sshd.port}`,
    ];
    const listed = async (...args: string[]) => {
      const { code, stdout, stderr } = await home.cli(["list", "--json", ...args]);
      assert.equal(code, 0, stderr);
      return JSON.parse(stdout).snapshots as { problem?: string }[];
    };
    const here = await listed();
    assert.deepEqual(here.map(({ problem }) => problem?.replace(/\d+$/, "N")), [
      undefined,
      "files.tar.zst.age is missing",
      "manifest.json.zst.age has 100 bytes where the seal says N",
      `needs ${ids[1]}, which is missing or incomplete`,
    ]);
    assert.deepEqual(await listed("--store", `${sshd.user}@${sshd.host}:`, ...access), here);
    assert.deepEqual(await listed("--store", `rclone:${store}`), here);
  } finally {
    await Deno.remove(store, { recursive: true });
  }
});

Deno.test("a snapshot whose seal or signature is refused is told, and stays in view without one", async () => {
  const dir = await Deno.makeTempDir({ prefix: "rclone store-" });
  try {
    for (const id of ID) makeSealedFolder({ store: `${dir}/store`, id });
    await Deno.writeTextFile(`${dir}/rclone.conf`, `[far]\ntype = alias\nremote = ${dir}/store\n`);
    const told: string[] = [];
    const host = makeHost(told);
    const refused = [`${ID[1]}/seal.json.sig`, `${ID[2]}/seal.json`, `${ID[2]}/seal.json.sig`];
    const run: Host["run"] = async (program, args, options) => {
      const done = await host.run(program, args, options);
      const target = args.find((arg) => arg.endsWith("/pulled"));
      if (!args.includes("copy") || target === undefined) return done;
      for (const path of refused) await Deno.remove(`${target}/home/state/${path}`);
      await Deno.remove(`${target}/home/state/${ID[2]}`);
      return { ...done, code: 1, stderr: "2026/03/03 06:00:00 ERROR : seal.json: AccessDenied" };
    };
    const options = {
      scratch: `${dir}/scratch`,
      rcloneConfigFile: `${dir}/rclone.conf`,
      retry: { attempts: 1, random: () => 0, sleep: () => Promise.resolve() },
    };
    await using opened = await openStore({ ...host, run }, "rclone:far:", options);
    assert.match(told.join(), new RegExp(`the seals of 2 of 3 snapshots, such as home/state/${ID[1]}`));
    const seen = findSets(realFs, opened.root).flatMap((set) => readSet(realFs, set));
    assert.deepEqual(seen.map(({ id, sealed }) => [id, sealed.seal ? "sealed" : sealed.state]), [
      [ID[0], "sealed"],
      [ID[1], "incomplete"],
      [ID[2], "incomplete"],
    ]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("what a far side cannot read or does not send is told, and keeps nobody from the rest; a full disk here is ours", async () => {
  const dir = await Deno.makeTempDir({ prefix: "far-" });
  try {
    for (const id of ID) makeSealedFolder({ store: `${dir}/store`, id });
    const listed = [
      ...ID.map((id) => `drwxr-x---          4,096 2026/03/03 06:00:00 home/state/${id}`),
      ...[ID[0], ID[1]].map((id) =>
        `-rw-r-----            900 2026/03/03 06:00:00 home/state/${id}/seal.json`
      ),
    ];
    const said = (what: string) =>
      `rsync: [sender] ${what}: Input/output error (5)\nrsync error: some files (code 23)\n`;
    const told: string[] = [];
    const host = makeHost(told);
    /** Opens a store whose far side brings these snapshots' seals, and says this. */
    const open = (spec: string, brings: readonly string[], ends: { code: number; stderr: string }) => {
      const run: Host["run"] = (_, args, { onLine, stdin, secondsMax } = {}) => {
        assert.equal(secondsMax, 3_600, "what sends a byte now and then is not waited for without end");
        if (args.includes("--list-only")) {
          assert.ok(args.includes("--no-inc-recursive"), "60,000 folders would take 14 GB");
          listed.forEach((line) => onLine?.(line));
          return Promise.resolve({
            code: 23,
            stdout: "",
            stderr: said(`opendir "home/state/${ID[2]}" failed`),
          });
        }
        if (args.includes("lsf")) {
          for (const id of ID) {
            for (const end of ["", ".sig"]) onLine?.(`900 home/state/${id}/seal.json${end}`);
          }
          return Promise.resolve({ code: 0, stdout: "", stderr: "" });
        }
        assert.ok(stdin === undefined || stdin.includes(`home/state/${ID[1]}/seal.json`));
        for (const id of brings) {
          Deno.mkdirSync(`${args.at(-1)}/home/state/${id}`, { recursive: true });
          for (const name of ["seal.json", "seal.json.sig"]) {
            Deno.copyFileSync(
              `${dir}/store/home/state/${id}/${name}`,
              `${args.at(-1)}/home/state/${id}/${name}`,
            );
          }
        }
        return Promise.resolve({ ...ends, stdout: "" });
      };
      return openStore({ ...host, run }, spec, {
        scratch: `${dir}/scratch`,
        identityFile: "/key",
        knownHostsFile: "/known_hosts",
        retry: { attempts: 1, random: () => 0, sleep: () => Promise.resolve() },
      });
    };
    const states = (root: string) =>
      findSets(realFs, root).flatMap((set) => readSet(realFs, set))
        .map(({ sealed }) => sealed.seal ? "sealed" : sealed.state);
    {
      const cannotSend = { code: 23, stderr: said(`read errors mapping "home/state/${ID[1]}/seal.json"`) };
      await using opened = await open("me@far:", [ID[0]], cannotSend);
      assert.deepEqual(states(opened.root), ["sealed", "incomplete", "incomplete"]);
      assert.match(told.shift()!, /opendir .*error \(5\); with what else is there it goes on$/);
      assert.match(
        told.shift()!,
        /read errors mapping .* without the seals of 1 of 2 snapshots, such as .*, it goes on$/,
      );
    }
    {
      await using opened = await open("rclone:far:", [ID[0]], { code: 0, stderr: "" });
      assert.deepEqual(states(opened.root), ["sealed", "incomplete", "incomplete"]);
      assert.match(told.shift()!, /far: it does not send all that it lists; without the seals of 2 of 3 /);
    }
    await assert.rejects(open("rclone:far:", [], { code: 0, stderr: "" }), {
      kind: "integrity",
      message: "Cannot read store rclone:far: it does not send all that it lists",
    });
    for (
      const [spec, code, stderr] of [
        ["me@far:", 11, 'rsync: [receiver] write failed on "/x": No space left on device (28)'],
        [
          "rclone:far:",
          1,
          "2026/03/03 06:00:00 ERROR : x: preallocate: file too big for remaining disk space",
        ],
        ["rclone:far:", 1, "2026/03/03 06:00:00 ERROR : x: open /x: disk quota exceeded"],
      ] as const
    ) {
      await assert.rejects(open(spec, [], { code, stderr }), {
        kind: "disk",
        message: new RegExp(
          `^Cannot read store .*far into ${dir}/scratch/.*: the disk (is full|quota is used up)$`,
        ),
        hint: /^(free some space|raise it)/,
      });
    }
    assert.deepEqual([...Deno.readDirSync(`${dir}/scratch`)], []);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a destination that is read waits as long without a byte as its configuration says", async () => {
  using home = await makeHome();
  const keys = { identityFile: "~/key", knownHostsFile: "~/known_hosts", readIdentityFile: "~/read_key" };
  home.configure({
    destinations: [{ kind: "rsync", name: "far", target: "hub@far:", timeoutSeconds: 77, ...keys }],
  });
  const said: string[] = [];
  const run: Host["run"] = (_, args) => {
    said.push(...args);
    return Promise.resolve({ code: 2, stdout: "", stderr: "" });
  };
  const options = { store: "far", scratch: `${home.dir}/scratch` };
  await assert.rejects(openStoreOf({ ...home.host, run }, home.config(), options), { kind: "config" });
  assert.ok(said.includes("--timeout=77"), said.join(" "));
});

Deno.test("what a hub stored under another name is told of, and is had by that name", async () => {
  using home = await makeHome();
  const { id } = await home.backup();
  home.configure({ hub: "renamed" });
  const none = await home.cli(["list"]);
  assert.match(none.stderr, /holds nothing of hub renamed, but of home: name it with --hub-name$/m);
  assert.match((await home.cli(["list", "--hub-name", "home"])).stdout, new RegExp(id));
  const args = ["--identity", home.identityFile, "--hub-name", "home"];
  const restored = await home.cli(["restore", "--to", `${home.dir}/out`, ...args]);
  assert.equal(restored.code, 0, restored.stderr);

  await home.backup();
  const keys = async (...more: string[]) => (await home.cli(["keys", "list", "--json", ...more])).stdout;
  const hubs = async (...more: string[]) =>
    JSON.parse(await keys(...more)).keys[0].reach.map(({ hub }: { hub: string }) => hub);
  assert.deepEqual([await hubs(), await hubs("--hub-name", "home")], [["renamed", "renamed"], ["home"]]);
  const { stderr } = await home.cli(["list"]);
  assert.doesNotMatch(stderr, /holds nothing/);
});
