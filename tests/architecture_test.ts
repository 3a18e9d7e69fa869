/**
 * What may import what: `mod.ts` → `scripts/` → `scripts/host/` (effects) → `scripts/core/` (pure), and within these two
 * the folders as they are listed here.
 *
 * Types count too, so that a folder can be read without the ones above it.
 */

import assert from "node:assert/strict";
import { STORAGE_VERBS } from "../scripts/core/sandbox/storage_permissions.ts";

const ROOT = new URL("../", import.meta.url);

/** A module of ours. Paths are those below the checkout. */
interface Module {
  /** Its text without comments. */
  readonly text: string;
  /** How long it is with them. */
  readonly lines: number;
  /** Our modules that run when this one is imported. */
  readonly code: readonly string[];
  /** Those of which it takes types only, which vanish at run time. */
  readonly types: readonly string[];
  /** What it imports of others, such as `node:zlib`. */
  readonly outside: readonly string[];
}

/** The folders of a layer: each may import from those before it. What lies in none is what all others stand on. */
const FOLDERS = {
  core: [
    "",
    "config",
    "keys",
    "snapshot",
    "sessions",
    "storage_host",
    "shipping",
    "status",
    "report",
    "sandbox",
    "command_line",
  ],
  host: [
    "",
    "systemd",
    "keys",
    "records",
    "store",
    "snapshot",
    "destinations",
    "restore",
    "sessions",
    "status",
    "doctor",
    "storage_host",
    "steps",
    "command_line",
    "init",
  ],
} as const;

/** A file longer than this holds more than one thing. */
const LINES_MAX = 700;

const MODULES = readModules();
const SCRIPTS = [...MODULES.keys()].filter((path) => layerOf(path) === "scripts");

function readModules(): Map<string, Module> {
  const paths = ["mod.ts", ...filesOf("scripts/")];
  return new Map(paths.map((path) => {
    const whole = Deno.readTextFileSync(new URL(path, ROOT));
    const text = whole
      .replace(/\/\*[^]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "");
    const statements = [
      ...text.matchAll(/^(?:import|export)\s+(type\s)?(?:[^"'`;]*?\sfrom\s+)?["']([^"']+)["']/gm),
      ...text.matchAll(/\bimport(\s*)\(\s*["']([^"']+)["']\s*\)/g),
    ].map(([, type, specifier]) => ({ isType: type?.startsWith("type") ?? false, specifier: specifier! }));
    const ours = (isType: boolean) =>
      statements.filter((each) => each.specifier.startsWith(".") && each.isType === isType)
        .map(({ specifier }) => new URL(specifier, new URL(path, ROOT)).href.slice(ROOT.href.length));
    const outside = statements.map(({ specifier }) => specifier).filter((name) => !name.startsWith("."));
    return [path, {
      text,
      lines: whole.split("\n").length - 1,
      code: ours(false),
      types: ours(true),
      outside,
    }];
  }));
}

function filesOf(folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder, ROOT))].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesOf(`${folder}${name}/`) : name.endsWith(".ts") ? [`${folder}${name}`] : []
  ).sort();
}

function layerOf(path: string): "mod" | "scripts" | "host" | "core" {
  if (path.startsWith("scripts/core/")) return "core";
  if (path.startsWith("scripts/host/")) return "host";
  return path.startsWith("scripts/") ? "scripts" : "mod";
}

/** What can come to run `module`, by names: scripts, what the command line loads for its verbs, and it itself but for those. */
function thatReach(module: string): string[] {
  assert.ok(MODULES.has(module), module);
  const { verbs = [], others } = Object.groupBy(
    MODULES.get("mod.ts")!.code,
    (path) => /_verbs?\.ts$/.test(path) ? "verbs" : "others",
  );
  return ["mod.ts", ...SCRIPTS, ...verbs].filter((path) => {
    const found = new Set(path === "mod.ts" ? others : [path]);
    for (const next of found) for (const code of MODULES.get(next)?.code ?? []) found.add(code);
    return found.has(module);
  }).map((path) => path.replace(/^.*\/|\.ts$/g, "")).sort();
}

Deno.test("imports point one way: mod, scripts, host, core; of scripts, only verify imports another", () => {
  const below = {
    mod: ["scripts", "host", "core"],
    scripts: ["host", "core"],
    host: ["host", "core"],
    core: ["core"],
  };
  const wrong: string[] = [];
  for (const [path, { code, types }] of MODULES) {
    for (const imported of [...code, ...types].filter((name) => name.endsWith(".ts"))) {
      assert.ok(MODULES.has(imported), `${path} imports ${imported}, which is none of ours`);
      if (!below[layerOf(path)].includes(layerOf(imported))) wrong.push(`${path} imports ${imported}`);
    }
  }
  assert.deepEqual(wrong, ["scripts/verify.ts imports scripts/restore.ts"]);
});

Deno.test("imports point one way between the folders of host and of core, too", () => {
  for (const layer of ["core", "host"] as const) {
    const folderOf = (path: string) =>
      path.slice(`scripts/${layer}/`.length).split("/").slice(0, -1).join("/");
    const orderOf = (path: string) => (FOLDERS[layer] as readonly string[]).indexOf(folderOf(path));
    const modules = [...MODULES].filter(([path]) => layerOf(path) === layer);
    assert.deepEqual(
      [...new Set(modules.map(([path]) => folderOf(path)))].sort(),
      [...FOLDERS[layer]].sort(),
    );
    const wrong = modules.flatMap(([path, { code, types }]) =>
      [...code, ...types].filter((name) => name.endsWith(".ts") && layerOf(name) === layer)
        .filter((imported) => orderOf(imported) > orderOf(path)).map((imported) =>
          `${path} imports ${imported}`
        )
    );
    assert.deepEqual(wrong, []);
  }
});

Deno.test("core is pure: no Deno, no clock, no randomness, no file, no network", () => {
  const allowed = ["node:crypto", "node:zlib", "node:buffer", "node:util"];
  const impure =
    /\bDeno\b|\bDate\.now\b|\bnew Date(?!\()|\bnew Date\(\s*\)|\bMath\.random\b|\bgetRandomValues\b|\brandomUUID\b|\brandomBytes\b|\bperformance\.|\bfetch\(|\bsetTimeout\b|\bsetInterval\b|\bconsole\./;
  for (const [path, { text, outside }] of MODULES) {
    if (layerOf(path) !== "core") continue;
    assert.doesNotMatch(text, impure, path);
    for (const name of outside.filter((name) => name.startsWith("node:"))) {
      assert.ok(allowed.includes(name), `${path} imports ${name}`);
    }
  }
});

Deno.test("what needs no key cannot even import the code that reads one", () => {
  const ofIdentities = [
    "doctor",
    "init_verb",
    "keys",
    "look",
    "restore",
    "restore_verbs",
    "session",
    "session_verbs",
    "setup",
    "verify",
  ];
  assert.deepEqual(thatReach("scripts/host/keys/identity.ts"), ofIdentities);
  // The storage host signs its receipts.
  assert.deepEqual(thatReach("scripts/host/keys/signing_key.ts"), ["doctor", "encrypt", "scrub", "setup"]);
});

Deno.test("every script is a step that some verb starts", () => {
  const callers = [...MODULES].filter(([path]) => layerOf(path) === "mod" || layerOf(path) === "host");
  const started = callers.flatMap(([, { text }]) => [...text.matchAll(/\bscript\("(\w+)"\)/g)])
    .map(([, name]) => name!);
  const steps = new Set([...started, ...STORAGE_VERBS].map((name) => `scripts/${name}.ts`));
  assert.deepEqual([...steps].sort(), SCRIPTS);
  for (const path of SCRIPTS) assert.match(MODULES.get(path)!.text, /^serveStep[<(]/m, path);
});

Deno.test("no file is longer than a reader holds in mind", () => {
  const lengths = [...MODULES].map(([path, { lines }]) => ({ path, lines }));
  assert.deepEqual(lengths.filter(({ lines }) => lines > LINES_MAX), []);
});
