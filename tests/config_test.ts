/** The configuration: what it comes to, whatever is around. Bad values are in bad_input_test.ts. */

import assert from "node:assert/strict";
// deno-lint-ignore no-import-prefix
import fc from "npm:fast-check@4.10.2";
import {
  type Config,
  configSchema,
  defaultConfigFile,
  type FolderDestination,
  type HttpNotifier,
  hubNameFor,
  parseConfig,
  type RcloneDestination,
  type RsyncDestination,
  type Surroundings,
} from "../scripts/core/config/config.ts";
import { configText, type NewConfig } from "../scripts/core/config/config_text.ts";
import { tokenFileOf } from "../scripts/core/config/named_paths.ts";
import type { BackupError } from "../scripts/core/errors.ts";
import { jsonSchemaOf } from "../scripts/core/json_schema.ts";
import { MAIN_SET, type SetName } from "../scripts/core/names.ts";
import { isWild, isWithin, literalName, nameOf, normalizePath, parentOf } from "../scripts/core/paths.ts";
import { parseRsyncTarget } from "../scripts/core/shipping/rsync_args.ts";
import { storageConfigSchema } from "../scripts/core/storage_host/storage_config.ts";

const fileName = fc.string({ minLength: 1, maxLength: 12, unit: "grapheme" }).filter((text) =>
  !/[/\0\n]/.test(text)
);
const relative = fc.array(fileName, { maxLength: 4 }).map((names) =>
  names.map((name) => `/${name}`).join("")
);
const slug = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?$/)
  .filter((text) => text !== "all" && text !== "ship");
const path = fc.tuple(fc.constantFrom("~", "$HAPI_HOME", "", "/.", "/a/.."), relative)
  .map(([start, rest]) => start + rest || "/");
const around: fc.Arbitrary<Surroundings> = fc.record({
  home: relative.map((path) => normalizePath(`/h${path}`)),
  hostname: fileName,
  env: fc.record({ HAPI_HOME: relative.map((path) => `/hub${path}`), DB_PATH: fc.constant("~/db") }, {
    requiredKeys: [],
  }),
});

const optional = { requiredKeys: [] as [] };
const source = fc.oneof(
  fc.record({ kind: fc.constant("sqlite"), path, required: fc.boolean() }),
  fc.record({ kind: fc.constantFrom("file", "glob"), path, secret: fc.boolean() }),
  fc.record({ kind: fc.constant("folder"), path, exclude: fc.array(fc.constantFrom("*.tmp", "**/x")) }),
);
const set = fc.record({
  // Named, as two paths may end in one name.
  sources: fc.array(source, { minLength: 1, maxLength: 3 }).map((all) =>
    all.map((source, index) => ({ ...source, name: `s${index}` }))
  ),
  keepBase: fc.boolean(),
  maxAgeHours: fc.integer({ min: 1, max: 1_000 }),
  gate: fc.record({
    rowsLostRatio: fc.double({ min: 0, max: 1, noNaN: true }),
    ignoreTables: fc.array(fileName),
  }),
});
const destination = fc.oneof(
  fc.record({ kind: fc.constant("folder"), path }),
  fc.record({ kind: fc.constant("rclone"), remote: fc.constant("b2:bucket/x"), configFile: path }),
  fc.record({
    kind: fc.constant("rsync"),
    target: fc.constant("hub@storage:"),
    identityFile: path,
    knownHostsFile: path,
    port: fc.integer({ min: 1, max: 65_535 }),
  }),
);
const raw = fc.record({
  hub: slug,
  hapiHome: path,
  database: path,
  // The state must not lie in the store.
  store: path.map((path) => `${path}/store`),
  stateFolder: path.map((path) => `${path}/state`),
  recipients: fc.array(fc.stringMatching(/^age1[a-z0-9]{1,20}$/)),
  signingKeyFile: path,
  identityFile: path,
  sets: fc.dictionary(slug, set, { minKeys: 1, maxKeys: 3, noNullPrototype: true }),
  destinations: fc.array(destination, { maxLength: 3 }),
  limits: fc.record({ freeBytesMin: fc.nat() }, optional),
  localKeepDays: fc.nat({ max: 1_000 }),
}, optional);

/** As `config check --json` prints it, which is what a file may hold. */
function asFile({ home: _, sets, ...config }: Config): string {
  return JSON.stringify({ ...config, sets: Object.fromEntries(sets) });
}

Deno.test("a configuration comes to one that comes to the same on any machine, with comments or without", () => {
  fc.assert(
    fc.property(raw, around, around, (raw, here, elsewhere) => {
      let config: Config;
      try {
        config = parseConfig(JSON.stringify(raw), "x", here);
      } catch (error) {
        return fc.pre(!/lie one in the other/.test(String(error))), assert.fail(error as Error);
      }
      const again = parseConfig(
        `// a comment\n${asFile(config).replace(/}$/, ", /* and a comma */ }")}`,
        "x",
        elsewhere,
      );
      assert.deepEqual({ ...again, home: here.home }, config);
      const paths = [config.store, config.stateFolder, config.signingKeyFile, config.identityFile ?? "/"]
        .concat([...config.sets.values()].flatMap(({ sources }) => sources.map(({ path }) => path)));
      for (const path of paths) assert.equal(normalizePath(path), path);
    }),
    { numRuns: 300 },
  );
});

Deno.test("a new configuration says what it is given, and in comments what is still to be done", () => {
  const usual: NewConfig = {
    hub: "home",
    recipients: ["age1a"],
    signingKeyFile: "/k/s",
    signers: ["ssh-ed25519 AAAA", "ssh-ed25519 AAAB"],
    destinations: [],
  };
  const full: NewConfig = {
    ...usual,
    recipients: ["age1a", "age1b"],
    identityFile: '/k/"i',
    hapiHome: "/srv/\\h",
    database: "/srv/d",
    destinations: [
      {
        kind: "rsync",
        name: "far",
        target: "op@far:",
        port: 2222,
        identityFile: "/k/ship",
        knownHostsFile: "/k/known",
      },
      { kind: "folder", name: "disk", path: "/mnt/disk" },
    ],
  };
  const around: Surroundings = { home: "/op", hostname: "other", env: {} };
  for (const given of [usual, full, { ...usual, destinations: full.destinations.slice(1) }]) {
    const { hapiHome, database, destinations, ...same } = given;
    const text = configText(given);
    const config = parseConfig(text, "x", around);
    const all = { ...same, destinations };
    assert.partialDeepStrictEqual(config, all as object);
    assert.equal(config.destinations.length, destinations.length);
    assert.equal(config.identityFile, given.identityFile);
    const [source] = config.sets.get(MAIN_SET)!.sources;
    assert.equal(source!.path, database ?? "/op/.hapi/hapi.db");
    assert.equal(
      parseConfig(text.replace('"hub"', '"store": "$HAPI_HOME/s", "hub"'), "x", around).store,
      `${hapiHome ?? "/op/.hapi"}/s`,
    );
    assert.equal(text.includes("Add a second recipient"), given !== full);
    assert.equal(text.includes("none of them here"), given === full);
    assert.equal(/nothing is off this machine:\n.*`hapi-backup init --storage/.test(text), given === usual);
    assert.equal(/Move this file off the hub.*\n *"identityFile"/.test(text), given === full);
    assert.match(text, /^\/\/.*\n\{\n[^]*\n\}\n$/);
  }
});

Deno.test("every path may start with ~ or $HAPI_HOME, which themselves are wherever the configuration says", () => {
  const here: Surroundings = { home: "/home/a$&b", hostname: "x", env: { HAPI_HOME: "~/from-env" } };
  const config = (raw: object) => parseConfig(JSON.stringify(raw), "x", here);
  assert.equal(config({ store: "~/s" }).store, "/home/a$&b/s");
  assert.equal(config({ store: "$HAPI_HOME/../s" }).store, "/home/a$&b/s");
  assert.equal(config({ store: "$HAPI_HOME/s", hapiHome: "~/$1" }).store, "/home/a$&b/$1/s");
  assert.equal(
    config({ store: "$HAPI_HOME/s", hapiHome: "$HAPI_HOME/sub" }).store,
    "/home/a$&b/from-env/sub/s",
  );
});

Deno.test("whatever a configuration names that is a file or a program may be named from home", () => {
  const [path, expanded] = ["~/x/../f", "/op/f"];
  const config = parseConfig(
    JSON.stringify({
      ...{ store: "~/s", stateFolder: path, signingKeyFile: path, identityFile: path },
      sets: {
        state: {
          sources: ["sqlite", "file", "glob", "folder"].map((kind, at) => ({ kind, path, name: `${at}` })),
        },
      },
      destinations: [
        {
          ...{ kind: "rsync", target: "a@b:", identityFile: path },
          ...{ knownHostsFile: path, readIdentityFile: path },
        },
        { kind: "folder", path },
        { kind: "rclone", remote: "b2:x", configFile: path },
      ],
      notify: [
        { kind: "command", command: [path, path] },
        { kind: "ntfy", urlFile: path, tokenFile: path },
      ],
    }),
    "x",
    { home: "/op", hostname: "x", env: {} },
  );
  const [rsync, folder, rclone] = config.destinations;
  assert.deepEqual([folder!.name, rclone!.name], ["folder2", "rclone3"]);
  const { identityFile, knownHostsFile, readIdentityFile } = rsync as RsyncDestination;
  const [call, ntfy] = config.notify;
  const paths = [
    ...[config.stateFolder, config.signingKeyFile, config.identityFile],
    ...config.sets.get(MAIN_SET)!.sources.map(({ path }) => path),
    ...[identityFile, knownHostsFile, readIdentityFile],
    ...[(folder as FolderDestination).path, (rclone as RcloneDestination).configFile],
    ...[(ntfy as HttpNotifier).urlFile, tokenFileOf(ntfy as HttpNotifier)],
  ];
  assert.deepEqual(paths, paths.map(() => expanded));
  assert.deepEqual(
    call!.kind === "command" && call!.command,
    [expanded, path],
    "its arguments are its own affair",
  );
  const without = parseConfig('{ "store": "/a~/$HAPI_HOME" }', "x", { home: "/op", hostname: "x", env: {} });
  assert.equal(without.store, "/a~/$HAPI_HOME");
});

Deno.test("a set's name is one that a folder of its own and --set can have, and an error says so", () => {
  const here: Surroundings = { home: "/home/a", hostname: "x", env: {} };
  const named = (name: string) =>
    parseConfig(JSON.stringify({ sets: { [name]: { sources: [{ kind: "file", path: "/x" }] } } }), "x", here);
  assert.deepEqual([...named("shipping").sets.keys()], ["shipping"]);
  assert.throws(() => named("State"), /sets\.State: is not a set's name: use lower-case/);
  for (const name of ["ship", "all"]) {
    assert.throws(
      () => named(name),
      (error: Error) => error.message.includes(`sets.${name}: is a name that no`),
    );
  }
});

Deno.test("what cannot be a recipient, a target or a path is refused with its key, and no secret is repeated", () => {
  const here: Surroundings = { home: "/home/a", hostname: "x", env: {} };
  const rsync = { kind: "rsync", target: "hub@storage:", identityFile: "/k", knownHostsFile: "/h" };
  const to = (change: object) => ({ destinations: [{ ...rsync, ...change }] });
  const secret = `AGE-SECRET-KEY-1${"Q".repeat(58)}`;
  const cases: [object, RegExp][] = [
    [{ recipients: ["age1a", secret] }, /: recipients\.1: is an identity, which is secret/],
    [{ recipients: [` ${secret.toLowerCase()}`] }, /is an identity/],
    ...["", "age1", "ssh-ed25519 AAAA", "hello", "age1...", "age1a,age1b"].map((text): [object, RegExp] => [
      { recipients: [text] },
      /: recipients\.0: is not a recipient/,
    ]),
    [{ recipients: Array(101).fill("age1a") }, /: recipients: are more than 100$/],
    [
      { sets: { state: { sources: Array(201).fill({ kind: "file", path: "/x" }) } } },
      /: sets\.state\.sources: are more than 200: name a folder/,
    ],
    [to({ readTarget: "-oProxyCommand=x" }), /readTarget: is not of the form user@host:path/],
    [to({ readTarget: "storage" }), /readTarget: is not of the form/],
    [to({ readTarget: "hub@storage::module" }), /readTarget: is not of the form/],
    [to({ target: "hub@storage:a\0b" }), /\.target: is not of the form/],
    [to({ identityFile: "/k\n" }), /identityFile: holds a line break or a NUL/],
    [{ store: "/s\0" }, /: store: holds a line break or a NUL/],
    [{ destinations: [{ kind: "rclone", remote: "b2:a\nb" }] }, /remote: is not of the form/],
    [{ store: "/s", stateFolder: "//s" }, /stateFolder \/s is the store, or lies in it/],
    [{ store: "/s", stateFolder: "/s/x/../state/" }, /stateFolder \/s\/state is the store, or lies in it/],
    [{ store: "/", stateFolder: "/s" }, /lies in it/],
    ...["/dev/shm/s", "/proc", "~/../../sys/x"].map((store): [object, RegExp] => [
      { store },
      /lies in \/(dev|proc|sys), where this program may not look/,
    ]),
    [{ store: "s" }, /path "s" is not absolute/],
    [
      { sets: { state: { sources: ["/a/x", "/b/x"].map((path) => ({ kind: "file", path })) } } },
      /sets\.state\.sources\.1: the name x is taken/,
    ],
    [
      { destinations: [{ kind: "folder", path: "/a" }, { kind: "folder", path: "/b", name: "folder" }] },
      /are named folder/,
    ],
    [to({ attempts: 0 }), /attempts/],
    [to({ timeoutSeconds: 0 }), /timeoutSeconds/],
    [to({ port: 65536 }), /port/],
    // The name is that of a file, and rsync and rclone take what begins with a dash for an option.
    ...["A", "a/../b", "../a", "-a", "a\n", ""].map((name): [object, RegExp] => [
      to({ name }),
      /name: is not a name/,
    ]),
    ...["-oProxyCommand=x@storage:", " hub@storage:", "x hub@storage:"].map((target): [object, RegExp] => [
      to({ target }),
      /\.target: is not of the form/,
    ]),
    ...["-x:b", "/x:b", " b2:b"].map((remote): [object, RegExp] => [
      { destinations: [{ kind: "rclone", remote }] },
      /remote: is not of the form/,
    ]),
    ...[{ rowsLostRatio: 1.1 }, { rowsLostRatio: -0.1 }, { rowsLostMin: -1 }].map((
      gate,
    ): [object, RegExp] => [
      { sets: { state: { sources: [{ kind: "file", path: "/x" }], gate } } },
      /sets\.state\.gate\.rowsLost/,
    ]),
    ...["maxAgeHours", "chainLengthMax"].map((key): [object, RegExp] => [
      { sets: { state: { sources: [{ kind: "file", path: "/x" }], [key]: 0 } } },
      new RegExp(`sets\\.state\\.${key}`),
    ]),
    [{ sets: { state: { sources: [] } } }, /sets\.state\.sources/],
    [{ limits: { freeBytesMin: -1 } }, /limits\.freeBytesMin/],
    [{ limits: { snapshotSeconds: 0 } }, /limits\.snapshotSeconds/],
    [{ limits: { walGrowthBytes: 0 } }, /limits\.walGrowthBytes/],
    [{ localKeepDays: -1 }, /localKeepDays/],
    [{ proofMaxAgeDays: 0 }, /proofMaxAgeDays/],
    [{ notify: [{ kind: "ntfy", url: "http://a", remindHours: 0 }] }, /notify\.0\.remindHours/],
    [{ notify: [{ kind: "ntfy", url: "http://a", digestDays: 0 }] }, /notify\.0\.digestDays/],
    [{ notify: [{ kind: "command", command: [] }] }, /notify\.0\.command/],
  ];
  for (const [raw, expected] of cases) {
    assert.throws(() => parseConfig(JSON.stringify(raw), "x", here), (error: BackupError) => {
      assert.match(error.message, expected);
      assert.doesNotMatch(`${error.message} ${error.hint}`, /QQQ/i);
      return error.kind === "config";
    }, JSON.stringify(raw));
  }
  for (const target of ["hub@storage:", "hub@[fe80::1]:a b", "hub@10.0.0.1:/srv/x:y"]) {
    const [one] = parseConfig(JSON.stringify(to({ target, readTarget: target })), "x", here).destinations;
    assert.equal((one as RsyncDestination).readTarget, target);
    assert.ok(parseRsyncTarget(target).user);
  }
  assert.equal(parseConfig('{ "store": "/s", "stateFolder": "/state" }', "x", here).stateFolder, "/state");
  assert.equal(parseConfig('{ "identityFile": "/dev/null" }', "x", here).identityFile, "/dev/null");
});

Deno.test("where nothing is said, a hub's database and secrets are saved, and whatever is secret is so", () => {
  const config = (raw: object, env: Surroundings["env"] = {}) =>
    parseConfig(JSON.stringify(raw), "x", { home: "/home/a", hostname: "Home.lan", env });
  const { hub, sets } = config({});
  assert.equal(hub, "home");
  const described = [...sets].map(([name, { sources, maxAgeHours, fullEveryDays }]) => [
    name,
    maxAgeHours,
    fullEveryDays,
    sources.map((source) =>
      [
        source.kind,
        source.path,
        ...source.required ? ["required"] : [],
        ..."secret" in source && source.secret ? ["secret"] : [],
      ].join(" ")
    ),
  ]);
  assert.deepEqual(described, [
    ["state", 26, 7, [
      "sqlite /home/a/.hapi/hapi.db required",
      "file /home/a/.hapi/hub.env secret",
      "file /home/a/.hapi/settings.json secret",
      "file /home/a/.hapi/jwt-secret.json secret",
      "file /home/a/.hapi/owner-id.json secret",
      "folder /home/a/.hapi/scratchlist-attachments",
      "file /home/a/.config/hapi/driver-manifest.yaml",
      "file /home/a/.hapi/driver-status.json",
      "glob /home/a/coding/hapi/docs/plans/*.md",
    ]],
    ["voice", 192, 56, ["folder /home/a/voice-test-output"]],
  ]);
  const { sources: _, ...rules } = sets.get("state" as SetName)!;
  assert.deepEqual(rules, {
    keepBase: true,
    fullEveryDays: 7,
    fullOverRatio: 0.5,
    chainLengthMax: 500,
    maxAgeHours: 26,
    gate: { rowsLostRatio: 0.5, rowsLostMin: 50, ignoreTables: [] },
  });
  const { limits, localKeepDays, proofMaxAgeDays } = config({});
  assert.deepEqual([limits, localKeepDays, proofMaxAgeDays], [
    { snapshotSeconds: 900, walGrowthBytes: 2 ** 30, freeBytesMin: 2 ** 28 },
    14,
    180,
  ]);
  const database = (raw: object, env: Surroundings["env"]) =>
    config(raw, env).sets.get("state" as SetName)!.sources[0]!.path;
  assert.equal(database({}, { DB_PATH: "/env.db", HAPI_HOME: "/h" }), "/env.db");
  assert.equal(database({ database: "/raw.db" }, { DB_PATH: "/env.db" }), "/raw.db");
  assert.equal(database({}, { DB_PATH: "", HAPI_HOME: "/h" }), "/h/hapi.db");
  assert.deepEqual(["", "_", "-a_B-.c", "é", "x".repeat(64)].map(hubNameFor), [
    "hub",
    "hub",
    "a-b",
    "hub",
    "x".repeat(63),
  ]);
});

Deno.test("a folder that the environment names emptily or not absolutely counts as not named", () => {
  const given = (folder: string) => ({
    home: "/home/op",
    hostname: "home",
    env: { XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder, XDG_STATE_HOME: folder, HAPI_BACKUP_CONFIG: "" },
  });
  const none = { ...given(""), env: {} };
  for (const folder of ["", "rel/c"]) {
    assert.equal(defaultConfigFile(given(folder)), defaultConfigFile(none));
    assert.deepEqual(parseConfig("{}", "c", given(folder)), parseConfig("{}", "c", none));
  }
  assert.equal(parseConfig("{}", "c", given("/x")).store, "/x/hapi-backup/store");
});

interface Schema {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly additionalProperties?: Schema | boolean;
  readonly oneOf?: readonly Schema[];
}

/** Keys that no description says the meaning of, as `sets.[].gate`. */
function undescribedKeys(
  { properties = {}, items, additionalProperties, oneOf = [] }: Schema,
  path = "",
): string[] {
  const inside = [items, additionalProperties, ...oneOf].filter((each) => typeof each === "object");
  return [
    ...inside.flatMap((each) => undescribedKeys(each, `${path}[].`)),
    ...Object.entries(properties).flatMap(([key, schema]) => [
      ...schema.description || key === "$schema" || key === "kind" ? [] : [path + key],
      ...undescribedKeys(schema, `${path}${key}.`),
    ]),
  ];
}

/** Objects that would take a mistyped key without a word. */
function openObjects({ properties, items, additionalProperties, oneOf = [] }: Schema, path = ""): string[] {
  const inside = [items, additionalProperties, ...oneOf].filter((each) => typeof each === "object");
  return [
    ...properties && additionalProperties !== false ? [path] : [],
    ...inside.flatMap((each) => openObjects(each, `${path}[]`)),
    ...Object.entries(properties ?? {}).flatMap(([key, schema]) => openObjects(schema, `${path}.${key}`)),
  ];
}

Deno.test("the schemas of both configurations say what every key means, and take no other", () => {
  for (const schema of [configSchema, storageConfigSchema].map(jsonSchemaOf) as Schema[]) {
    assert.ok(Object.keys(schema.properties!).length > 5);
    assert.deepEqual(undescribedKeys(schema), []);
    assert.deepEqual(openObjects(schema), []);
  }
});

Deno.test("a configuration is JSON with comments and trailing commas and nothing else, and errors have its line", () => {
  const here: Surroundings = { home: "/h", hostname: "x", env: {} };
  const hubOf = (text: string) => parseConfig(text, "c", here).hub;
  const accepted = [
    '{"hub": "h",}',
    '\r\n// "\r\n{ /* { */ "h\\u0075b"/**/:/***/"h" } // "',
    `${"//\n".repeat(20_000)}{"hub": "h"}${"/**/ ".repeat(20_000)}`,
    `{"hub": "h", "$schema": "${"[{".repeat(200)}" /* ${"[{".repeat(200)} */}`,
  ];
  for (const text of accepted) assert.equal(hubOf(text), "h");
  const refused: [string, number, string][] = [
    ["", 1, "it ends too early"],
    ["\n// nothing\n", 3, "it ends too early"],
    ['{\n"hub": "h"\n', 3, "it ends too early"],
    ['{\n"recipients": ["a"', 2, "it ends too early"],
    ['{\n"hub": "h', 2, "it ends too early"],
    ['{"hub": "h"}\n/* open', 2, 'unexpected "/"'],
    ['{"hub": "h"}\n/*/', 2, 'unexpected "/"'],
    // A quote is missing, or is none.
    ['{\n"hub": "h,\n"store": "/s"}', 2, "unexpected end of the line"],
    ['{\r\n"hub": "h\r\n"}', 2, "unexpected end of the line"],
    ['{\n"hub": "h\\"\n"}', 2, "unexpected end of the line"],
    ['{\n"hub": "a\tb"}', 2, "unexpected U+0009"],
    ['{\n"hub": "a\0b"}', 2, "unexpected U+0000"],
    // What is wrong first is told first.
    ['{\n"hub": "h" 7,\n"store": "/s}', 2, 'unexpected "7"'],
    ['{\n"hub": "h"\n"store": "/s"}', 3, 'unexpected "\\""'],
    ['{\n\u00a0"hub": "h"}', 2, "unexpected U+00A0"],
    ['{"hub": "h"}\n{}', 2, 'unexpected "{"'],
    ['{\n"localKeepDays": 01}', 2, 'unexpected "0"'],
    ["{\n'hub': 'h'}", 2, `unexpected "'"`],
    ['{"a":\r"b",\r,}', 3, 'unexpected ","'],
  ];
  for (const [text, line, state] of refused) {
    const message = `Cannot use configuration c: line ${line} is not JSON (${state})`;
    assert.throws(() => hubOf(text), { kind: "config", message }, text);
  }
  const wrong: [string, RegExp][] = [
    ['/*\n\r\n*/{"hub": 5}', /line 3: hub: expected text/],
    ['{"notify": [{"kind": "a",\n"kind": "b"}]}', /line 2: key "kind" stands there twice$/],
    ['{"notify": [{"kind":\n"a", "k\\u0069nd": "b"}]}', /line 2: key "kind" stands there twice$/],
  ];
  for (const [text, message] of wrong) assert.throws(() => hubOf(text), { kind: "config", message }, text);
  assert.throws(() => hubOf(`{"a":\n${"[".repeat(100)}`), { message: /line 2 is nested deeper than 100$/ });
});

Deno.test("a path as text is cut, cleared and compared by whole names", () => {
  const cut = ["/", "/a", "/a/b.c", "/a/b/c"].map((path) => [parentOf(path), nameOf(path)]);
  assert.deepEqual(cut, [["/", ""], ["/", "a"], ["/a", "b.c"], ["/a/b", "c"]]);
  const cleared = ["", "/", "//a//", "/./a/./.", "/../a", "/a/../../b/..", "/.a/..b", "/a\\/b"].map(
    normalizePath,
  );
  assert.deepEqual(cleared, ["/", "/", "/a", "/a", "/a", "/", "/.a/..b", "/a\\/b"]);
  const within = [["/a", "/a"], ["/a/b", "/a"], ["/ab", "/a"], ["/a", "/a/b"], ["/x", "/"], [
    "/b/a",
    "/a",
  ]] as const;
  assert.deepEqual(within.map(([path, folder]) => isWithin(path, folder)), [
    true,
    true,
    false,
    false,
    true,
    false,
  ]);
  assert.deepEqual(["*", "a?", "[a", "a]", "{a", "a}", "a!b", "a\\b"].filter(isWild), [
    "*",
    "a?",
    "[a",
    "a]",
    "{a",
    "a}",
  ]);
  assert.deepEqual(["a", "a\\ b\\\\c\\*"].map(literalName), ["a", "a b\\c*"]);
});
