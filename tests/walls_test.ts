/** What a step cannot do with the very permissions that it is given. */

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { COMMANDS } from "../scripts/core/command_line/commands.ts";
import { parseConfig, type RsyncDestination } from "../scripts/core/config/config.ts";
import { MAIN_SET } from "../scripts/core/names.ts";
import { permissionFlags } from "../scripts/core/sandbox/deno_flags.ts";
import {
  connectPermissions,
  doctorPermissions,
  encryptPermissions,
  keysPermissions,
  listPermissions,
  lookPermissions,
  notifyPermissions,
  prunePermissions,
  reportPermissions,
  restorePermissions,
  sessionPermissions,
  setupPermissions,
  shipPermissions,
  snapshotPermissions,
  statusPermissions,
  type StepPermissions,
  systemdPermissions,
  verifyPermissions,
} from "../scripts/core/sandbox/permissions.ts";
import { runReadingStep } from "../scripts/host/command_line/reading.ts";
import { runStep } from "../scripts/host/steps/step.ts";
import { insertMessages, makeHome } from "./real/home.ts";
import type { Attempt } from "./real/probe.ts";

const DENIED = "NotCapable";
const SILENT = { progress: () => {}, info: () => {}, warn: () => {}, print: () => {}, result: () => {} };

/** Tries things in a worker with these permissions: `read /path` to what came of it. */
async function tryWith(permissions: StepPermissions, attempts: readonly Attempt[]): Promise<string[]> {
  const probe = import.meta.resolve("./real/probe.ts");
  return await runStep<string[]>(probe, attempts, permissions, SILENT);
}

Deno.test("no step can do what its table does not grant, and each can do what it does", async () => {
  using home = await makeHome();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  home.configure({
    destinations: [
      { kind: "rsync", target: "hub@storage:", identityFile: "~/ship_key", knownHostsFile: "~/known_hosts" },
      { kind: "folder", path: "~/disk" },
    ],
  });
  for (const name of ["ship_key", "known_hosts", "disk/x", "elsewhere/x", ".ssh/id"]) home.write(name, "x");
  await home.backup();
  const config = home.config();
  const { home: at, stateFolder, store, database } = home;
  for (const folder of ["staging", "base"]) home.write(`${stateFolder}/state/${folder}/x`, "x");
  home.write(`${stateFolder}/ship/x`, "x");
  home.write(`${stateFolder}/scratch/x`, "x");
  home.write(`${stateFolder}/drills.jsonl`, "");
  const realPath = (path: string) => path;
  const access = { scratch: `${stateFolder}/scratch` };
  const keys = { identity: home.identityFile };

  const everything: readonly Attempt[] = [
    ["read", database],
    ["read", `${at}/.hapi/hub.env`],
    ["read", `${at}/.hapi`],
    ["read", `${stateFolder}/state/staging/x`],
    ["read", `${stateFolder}/state/base/x`],
    ["read", `${stateFolder}/state/last.json`],
    ["read", `${stateFolder}/ship/x`],
    ["read", `${store}/home/state`],
    ["read", config.signingKeyFile],
    ["read", `${at}/ship_key`],
    ["read", home.identityFile],
    ["read", `${at}/.ssh/id`],
    ["read", `${at}/elsewhere/x`],
    ["read", "/etc/passwd"],
    ["write", `${at}/.hapi`],
    ["write", `${stateFolder}/state/staging`],
    ["write", `${stateFolder}/state`],
    ["write", `${stateFolder}/ship`],
    ["write", `${stateFolder}/scratch`],
    ["write", `${store}/home/state`],
    ["write", `${store}/home`],
    ["write", `${at}/disk`],
    ["write", `${at}/elsewhere`],
    ["run", "rsync"],
    ["run", "sh"],
    ["env", "HOME"],
    ["connect", listener.addr.port],
    ["listen", 0],
  ];
  const say = ([what, subject]: Attempt) =>
    `${what} ${what === "connect" ? "" : subject}`.replaceAll(home.dir, "").trim();

  const own = "/op/state";
  const [storage] = config.destinations;
  const steps: Record<string, { permissions: StepPermissions; can: string[] }> = {
    setup: {
      permissions: setupPermissions(`${at}/.config/hapi-backup`, [`${at}/elsewhere/identity.txt`], undefined),
      can: [
        "read /op/.config/hapi-backup/signing_ed25519",
        "read /op/elsewhere/x",
        "write /op/elsewhere",
      ],
    },
    connect: {
      permissions: connectPermissions(config, storage as RsyncDestination),
      can: [`read ${own}/ship/x`, "read /op/ship_key", `write ${own}/ship`, "run rsync"],
    },
    snapshot: {
      permissions: snapshotPermissions(config, MAIN_SET, realPath),
      can: [
        "read /op/.hapi/hapi.db",
        ...["staging/x", "base/x", "last.json"].map((name) => `read ${own}/state/${name}`),
        "read /op/store/home/state",
        `write ${own}/state/staging`,
        `write ${own}/state`,
      ],
    },
    encrypt: {
      permissions: encryptPermissions(config, MAIN_SET, realPath),
      can: [
        "read /op/.hapi/hub.env",
        ...["staging/x", "base/x", "last.json"].map((name) => `read ${own}/state/${name}`),
        `read ${own}/ship/x`,
        "read /op/store/home/state",
        "read /op/.config/hapi-backup/signing_ed25519",
        `write ${own}/state/staging`,
        `write ${own}/state`,
        "write /op/store/home/state",
      ],
    },
    prune: {
      permissions: prunePermissions(config, MAIN_SET),
      can: [`read ${own}/ship/x`, "read /op/store/home/state", "write /op/store/home/state"],
    },
    ship: {
      permissions: shipPermissions(config),
      can: [
        `read ${own}/ship/x`,
        "read /op/store/home/state",
        "read /op/ship_key",
        `write ${own}/ship`,
        "write /op/disk",
        "run rsync",
      ],
    },
    list: {
      permissions: listPermissions(config, access),
      can: ["read /op/store/home/state", `write ${own}/scratch`],
    },
    status: {
      permissions: statusPermissions(config),
      can: [
        ...["state/last.json", "ship/x"].map((name) => `read ${own}/${name}`),
        "read /op/store/home/state",
      ],
    },
    report: {
      permissions: reportPermissions(config),
      can: [
        ...["state/last.json", "ship/x"].map((name) => `read ${own}/${name}`),
        "read /op/store/home/state",
      ],
    },
    notify: {
      permissions: notifyPermissions(config, []),
      can: [
        `read ${own}/state/last.json`,
        `read ${own}/ship/x`,
        "read /op/store/home/state",
        `write ${own}/ship`,
      ],
    },
    verify: {
      permissions: verifyPermissions(config, { keys, store: access, set: "state" }, realPath),
      can: [
        "read /op/.hapi/hapi.db",
        "read /op/store/home/state",
        "read /identity.txt",
        `write ${own}/scratch`,
      ],
    },
    look: {
      permissions: lookPermissions(config, { keys, store: access }),
      can: ["read /op/store/home/state", "read /identity.txt", `write ${own}/scratch`],
    },
    "session restore": {
      permissions: sessionPermissions(
        config,
        { keys, store: access, target: { kind: "database" } },
        [database],
      ),
      can: [
        "read /op/.hapi/hapi.db",
        "read /op/store/home/state",
        "read /identity.txt",
        `write ${own}/scratch`,
      ],
    },
    "session restore --export": {
      permissions: sessionPermissions(
        config,
        { keys, store: access, target: { kind: "file", path: `${at}/out.json` } },
        [database],
      ),
      can: ["read /op/store/home/state", "read /identity.txt", `write ${own}/scratch`],
    },
    "keys add": {
      permissions: keysPermissions(config, { action: "add", store: access }, `${at}/.config/hapi-backup`),
      can: [
        "read /op/store/home/state",
        "read /op/.config/hapi-backup/signing_ed25519",
        `write ${own}/scratch`,
      ],
    },
    "keys prove": {
      permissions: keysPermissions(
        config,
        { action: "prove", store: access, keys },
        `${at}/.config/hapi-backup`,
      ),
      can: ["read /op/store/home/state", "read /identity.txt", `write ${own}/scratch`],
    },
    doctor: {
      permissions: doctorPermissions(config, [], realPath),
      can: [
        "read /op/.hapi/hapi.db",
        "read /op/.hapi/hub.env",
        ...["state/staging/x", "state/base/x", "state/last.json", "ship/x"].map((name) =>
          `read ${own}/${name}`
        ),
        "read /op/store/home/state",
        "read /op/.config/hapi-backup/signing_ed25519",
        "read /op/ship_key",
        `write ${own}/ship`,
        "run rsync",
      ],
    },
    systemd: {
      permissions: systemdPermissions({ configFile: home.configFile, to: `${at}/elsewhere` }),
      can: ["read /op/elsewhere/x", "write /op/elsewhere"],
    },
    "restore --to": {
      permissions: restorePermissions(config, { keys, store: access, to: `${at}/out`, inPlace: false }),
      can: ["read /op/store/home/state", "read /identity.txt", `write ${own}/scratch`],
    },
  };
  for (const [step, { permissions, can }] of Object.entries(steps)) {
    const answers = await tryWith(permissions, everything);
    const able = everything.map(say).filter((_, index) => answers[index] === "ok");
    assert.deepEqual(able.sort(), can.sort(), `what ${step} can do`);
    const others = answers.filter((answer) => answer !== "ok");
    assert.deepEqual([...new Set(others)], [DENIED], `why ${step} cannot do the rest`);
  }
});

Deno.test("a store is fetched by its own program with its own keys alone, and one that is a folder by none", () => {
  const config = parseConfig(
    JSON.stringify({
      ...{
        hub: "home",
        store: "/store",
        stateFolder: "/state",
        recipients: ["age1one"],
        signingKeyFile: "/keys/sign",
      },
      destinations: [
        {
          ...{ kind: "rsync", name: "storage", target: "hub@storage:", identityFile: "/keys/ship" },
          ...{ knownHostsFile: "/keys/known", readIdentityFile: "/keys/read" },
        },
        { kind: "folder", name: "disk", path: "/disk" },
        { kind: "rclone", name: "cloud", remote: "b2:x", configFile: "/keys/rclone" },
      ],
    }),
    "config",
    { home: "/op", hostname: "x", env: {} },
  );
  const reading = (store: string | undefined, more: { sshKey?: string; knownHosts?: string } = {}) => {
    const access = { scratch: "/scratch", ...store === undefined ? {} : { store }, ...more };
    const { read, run = [], ...others } = listPermissions(config, access);
    assert.deepEqual(others, { write: ["/scratch"] });
    assert.deepEqual(read.slice(-2), ["/scratch", "/state/drills.jsonl"]);
    // What opens and proves gets the same, and nothing more of the store's.
    const keys = { identity: "/id", signer: ["ssh-ed25519 AAAA", "/signer.pub"] };
    const job = { keys, store: access, set: "state" };
    const logs = ["/state/drills.jsonl", "/state/proofs.jsonl"];
    const { read: opened, ...verifying } = verifyPermissions(config, job, (path) => path);
    assert.deepEqual(verifying, { write: ["/scratch", ...logs], run, sys: ["statfs"] });
    const live = ["", "-wal", "-shm"].map((end) => `/op/.hapi/hapi.db${end}`);
    const fetched = read.slice(0, -1);
    assert.deepEqual(opened, [...fetched, "/id", "/signer.pub", ...live, ...logs]);
    const exporting = { keys, store: access, target: { kind: "file", path: "/out" } };
    assert.deepEqual(sessionPermissions(config, exporting, ["/live"]), {
      ...{ read: [...fetched, "/id", "/signer.pub", "/out", "/out.partial"], run },
      ...{ write: ["/scratch", "/out", "/out.partial"], sys: ["statfs"] },
    });
    const listing = { ...exporting, target: { kind: "list" } };
    assert.deepEqual(sessionPermissions(config, listing, ["/live"]), lookPermissions(config, listing));
    const walls = { sys: ["statfs"], links: true };
    const restoring = [...fetched, "/id", "/signer.pub"];
    assert.deepEqual(restorePermissions(config, { ...job, to: "/out", inPlace: false }), {
      ...{ read: [...restoring, "/out"], write: ["/scratch", "/out"], run, ...walls },
    });
    assert.deepEqual(restorePermissions(config, { ...job, inPlace: true }), {
      ...{ read: [...restoring, "/"], write: ["/scratch", "/"], run: [...run, "find"], ...walls },
    });
    const putting = sessionPermissions(config, { ...exporting, target: { kind: "database" } }, ["/live"]);
    const database = ["/live", "/live-wal", "/live-shm", "/live-journal"];
    assert.deepEqual(putting, {
      ...{ read: [...restoring, ...database], write: ["/scratch", ...database], sys: ["statfs"] },
      ...{ run: [...run, "find"] },
    });
    const proofs = "/state/proofs.jsonl";
    assert.deepEqual(keysPermissions(config, { action: "list", store: access }, "/config"), {
      ...{ read: [...fetched, proofs], write: ["/scratch"], run },
    });
    return [...read.slice(0, -2), ...run];
  };
  assert.deepEqual(reading(undefined), ["/store"]);
  assert.deepEqual(reading("disk"), ["/disk"]);
  assert.deepEqual(reading("/mnt"), ["/mnt"]);
  assert.deepEqual(reading("storage"), ["/keys/ship", "/keys/read", "/keys/known", "rsync"]);
  assert.deepEqual(reading("cloud"), ["/keys/rclone", "rclone"]);
  assert.deepEqual(reading("rclone:b2:y"), ["rclone"]);
  const given = { sshKey: "/key", knownHosts: "/hosts" };
  assert.deepEqual(reading("hub@other:/b", given), ["/key", "/hosts", "rsync"]);
  const { read, write, run } = shipPermissions(config);
  assert.deepEqual([write, run], [["/state/ship", "/disk"], ["rsync", "rclone"]]);
  const keys = ["/keys/ship", "/keys/read", "/keys/known", "/keys/rclone"];
  assert.deepEqual(read, ["/store", "/state/ship", ...keys, "/disk"]);
});

Deno.test("who is told is granted alone, a report starts nothing, and an identity that is given is not written", () => {
  const config = parseConfig(
    JSON.stringify({
      ...{ hub: "home", store: "/store", stateFolder: "/state", recipients: ["age1one"] },
      notify: [
        { kind: "command", name: "call", command: ["/bin/call", "me"] },
        { kind: "ntfy", name: "ntfy", url: "https://ntfy.example/x", tokenFile: "/keys/token" },
      ],
    }),
    "config",
    { home: "/op", hostname: "x", env: {} },
  );
  const [call, ntfy] = config.notify;
  const told = (...granted: Parameters<typeof notifyPermissions>[1]) => {
    const { read, write, run, net } = notifyPermissions(config, granted);
    assert.deepEqual(write, ["/state/ship"]);
    return [read.includes("/keys/token"), run, net];
  };
  assert.deepEqual(told(), [false, [], []]);
  assert.deepEqual(told({ notifier: call! }), [false, ["/bin/call"], []]);
  assert.deepEqual(told({ notifier: ntfy!, host: "ntfy.example:443" }), [true, [], ["ntfy.example:443"]]);

  const { run, ...others } = reportPermissions(config);
  const standing = ["/store/home", "/state/ship", "/state/drills.jsonl", "/state/proofs.jsonl"];
  const memories = [...config.sets.keys()].map((set) => `/state/${set}/last.json`);
  assert.deepEqual([run, others], [[], { read: [...standing, ...memories], sys: ["statfs"] }]);
  assert.deepEqual(statusPermissions(config), { read: others.read, run: ["systemctl"] });
  for (const given of [[], ["/given"]]) {
    assert.deepEqual(setupPermissions("/config", ["/stick/id.txt", undefined], given[0]), {
      read: ["/config", "/stick", ...given],
      write: ["/config", "/stick"],
    });
  }
});

Deno.test("what looks after keys, units, a connection and the whole is granted this and no more", () => {
  const config = parseConfig(
    JSON.stringify({
      ...{ hub: "home", store: "/store", stateFolder: "/state", recipients: ["age1one"] },
      ...{ signingKeyFile: "/keys/sign", identityFile: "/keys/identity" },
      sets: {
        state: {
          sources: [
            { kind: "sqlite", path: "/op/hub.db" },
            { kind: "glob", path: "/op/plans/*.md" },
            { kind: "file", path: "/op/hub.env" },
          ],
        },
      },
      destinations: [
        { kind: "rsync", target: "a@b:", identityFile: "/keys/ship", knownHostsFile: "/keys/known" },
        { kind: "folder", path: "/disk" },
      ],
      notify: [{ kind: "ntfy", name: "ntfy", urlFile: "/keys/url", tokenFile: "/keys/token" }],
    }),
    "config",
    { home: "/op", hostname: "x", env: {} },
  );
  const real = (path: string) => path.replace(/^\/op/, "/real");
  const sources = ["/op", "/real"].map((at) =>
    ["", "-wal", "-shm", "-journal"].map((end) => `${at}/hub.db${end}`)
  );
  const rest = ["plans", "hub.env"].flatMap((name) => [`/op/${name}`, `/real/${name}`]);
  const keys = ["sign", "identity", "ship", "known"].map((name) => `/keys/${name}`);
  const told = ["/keys/url", "/keys/token"];
  assert.deepEqual(doctorPermissions(config, ["/left/identity", "/op/hub.env"], real), {
    read: [...sources.flat(), ...rest, ...keys, "/disk", ...told, "/left/identity", "/state", "/store"],
    write: ["/state/ship"],
    run: ["rsync", "ssh", "systemctl", "rclone"],
    sys: ["statfs"],
  });

  const store = { scratch: "/scratch" };
  const proofs = "/state/proofs.jsonl";
  for (const action of ["add", "drop"] as const) {
    assert.deepEqual(keysPermissions(config, { action, store }, "/config"), {
      read: ["/store", "/scratch", proofs, "/config"],
      write: ["/scratch", "/config"],
      run: [],
    });
  }
  assert.deepEqual(keysPermissions(config, { action: "prove", store, keys: {} }, "/config"), {
    read: ["/store", "/scratch", "/keys/identity", proofs],
    write: ["/scratch", proofs],
    run: [],
    sys: ["statfs"],
  });

  const configFile = "/config/config.json";
  for (const to of [[], ["/units"]]) {
    assert.deepEqual(systemdPermissions({ configFile, to: to[0] }), {
      read: [configFile, ...to],
      write: to,
      run: ["systemctl", "systemd-analyze"],
    });
  }
  const [storage] = config.destinations;
  assert.deepEqual(connectPermissions(config, storage as RsyncDestination), {
    read: ["/state/ship", "/keys/ship", "/keys/known"],
    write: ["/state/ship", "/keys/known"],
    run: ["ssh-keyscan", "ssh", "rsync"],
  });
});

Deno.test("what a hub keeps of its databases is for its owner only", async () => {
  using home = await makeHome();
  const source = { kind: "sqlite", path: "~/.hapi/hapi.db" };
  home.configure({ sets: { state: { sources: [source] }, sums: { keepBase: false, sources: [source] } } });
  // A hub is running: its database is copied by SQLite itself.
  using live = new DatabaseSync(home.database);
  for (const set of ["state", "sums"]) {
    live.exec(insertMessages(1));
    await home.backup({ set });
  }
  live.exec(insertMessages(1));
  const { code, stderr } = await home.cli(["snapshot"]);
  assert.equal(code, 0, stderr);
  const files = [...Deno.readDirSync(home.stateFolder)].flatMap(({ name: set }) =>
    ["base", "staging"].flatMap((folder) => {
      const path = `${home.stateFolder}/${set}/${folder}`;
      assert.equal(Deno.statSync(path).mode! & 0o777, 0o700, path);
      return [...Deno.readDirSync(path)].map(({ name }) => `${path}/${name}`);
    })
  );
  assert.equal(files.filter((file) => file.endsWith(".image")).length, 2, files.join());
  assert.equal(files.filter((file) => file.endsWith(".sums")).length, 1, files.join());
  for (const file of files) assert.equal(Deno.statSync(file).mode! & 0o077, 0, file);
});

Deno.test("with --hub, verify may start that program and reach loopback only", async () => {
  using home = await makeHome();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const job = { keys: {}, store: { scratch: `${home.dir}/scratch` }, set: "state", hubProgram: "/bin/true" };
  const answers = await tryWith(verifyPermissions(home.config(), job, (path) => path), [
    ["connect", listener.addr.port],
    ["run", "/bin/true"],
    ["run", "/bin/false"],
  ]);
  assert.deepEqual(answers, ["ok", "ok", DENIED]);
});

Deno.test("links are made for a step that may have them, where it may write, and not through another link", async () => {
  using home = await makeHome();
  const dir = Deno.realPathSync(home.dir);
  Deno.mkdirSync(`${dir}/in`);
  const walls = { read: [`${dir}/in`], write: [`${dir}/in`] };
  const places = ["in/a", "in/b", "in/a", "in/a/c", "in/../d", "e"];
  const attempts = places.map((place) => ["link", `${dir}/${place}`] as const);
  const refused = attempts.map(() => "Error");
  assert.deepEqual(await tryWith(walls, attempts), refused);
  assert.deepEqual(await tryWith({ ...walls, links: true }, attempts), ["ok", "ok", ...refused.slice(2)]);
  assert.equal(Deno.readLinkSync(`${dir}/in/b`), "..");
  for (const name of ["c", "d", "e"]) {
    assert.throws(() => Deno.lstatSync(`${dir}/${name}`), Deno.errors.NotFound);
  }
});

Deno.test("no link is made for verify, through which it could leave its scratch", async () => {
  using home = await makeHome();
  const scratch = `${home.dir}/scratch`;
  Deno.mkdirSync(scratch);
  const job = { keys: {}, store: { scratch }, set: "state" };
  const walls = verifyPermissions(home.config(), job, (path) => path);
  assert.deepEqual(await tryWith(walls, [["link", `${scratch}/out`]]), ["Error"]);
  assert.throws(() => Deno.lstatSync(`${scratch}/out`), Deno.errors.NotFound);
});

Deno.test("what is read and written for a step by the program's own thread is what the step itself may touch", async () => {
  using home = await makeHome();
  const dir = Deno.realPathSync(home.dir);
  for (const name of ["in/a", "out/a", "of/a"]) home.write(`${dir}/${name}`, "x");
  Deno.symlinkSync(`${dir}/out`, `${dir}/in/link`);
  const walls = { read: [`${dir}/in`, `${dir}/of`], write: [`${dir}/in`] };
  const paths = ["in/a", "of/a", "out/a", "in/link/a", "in/../out/a"].map((name) => `${dir}/${name}`);
  const attempts: Attempt[] = paths.flatMap((path) => [["part", path] as const, ["image", path] as const]);
  const probe = import.meta.resolve("./real/probe.ts");
  const [noAge, ...answers] = await runReadingStep<string[]>(probe, attempts, walls, SILENT);
  const mayNot = (does: string, path: string) => `Cannot ${does} ${path}: this step may not`;
  const [, of, ...others] = paths;
  assert.deepEqual(answers, [
    "ok",
    noAge,
    mayNot("write", of!),
    ...others.flatMap((path) => [mayNot("read", path), mayNot("write", path)]),
  ]);
  assert.match(noAge!, /age/);
});

Deno.test("no verb and no task is granted everything, and none that needs no network has it", () => {
  const { tasks } = JSON.parse(Deno.readTextFileSync(new URL("../deno.json", import.meta.url)));
  for (const [name, line] of Object.entries<string>(tasks)) {
    assert.doesNotMatch(line, /(^|\s)(-A|--allow-all|--allow-ffi)(\s|$)/, name);
  }
  for (const { verb } of COMMANDS) {
    const flags = permissionFlags(verb);
    assert.ok(flags.includes("--no-prompt"), verb);
    assert.ok(
      !flags.some((flag) => /^(-A|--allow-all|--allow-ffi|--allow-import|--allow-env)$/.test(flag)),
      verb,
    );
    if (verb === "status") {
      const programs = flags.filter((flag) => /^--allow-(run|net)/.test(flag));
      assert.deepEqual(programs, ["--allow-run=systemctl"]);
    }
    if (["snapshot", "encrypt", "report", "scrub", "retain", "watch", "pin"].includes(verb)) {
      assert.ok(!flags.some((flag) => /^--allow-(run|net)/.test(flag)), `${verb} ${flags}`);
    }
  }
});
