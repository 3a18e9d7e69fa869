/** Completions, tried in the shells themselves, and the man page, looked at by those who print man pages. */

import assert from "node:assert/strict";
import { COMMANDS, GLOBAL_OPTIONS } from "../scripts/core/command_line/commands.ts";
import { manPage } from "../scripts/core/command_line/man_page.ts";
import { flagOf } from "../scripts/core/command_line/option_flags.ts";
import { cli } from "./real/cli.ts";
import { output } from "./real/home.ts";
import { startPty } from "./real/pty.ts";

/** A folder with a file and a folder in it, and the completions that the command line prints. */
async function makeFolder(shell: string) {
  const dir = Deno.makeTempDirSync({ prefix: "completions-" });
  const { stdout } = await cli({ home: dir }, "completions", shell);
  Deno.writeTextFileSync(`${dir}/completions`, stdout);
  Deno.mkdirSync(`${dir}/here/folder`, { recursive: true });
  Deno.writeTextFileSync(`${dir}/here/file.txt`, "");
  return { dir, [Symbol.dispose]: () => Deno.removeSync(dir, { recursive: true }) };
}

const VERBS = COMMANDS.map(({ verb }) => verb);
const flagsOf = (verb: string) =>
  [...COMMANDS.find((spec) => spec.verb === verb)!.options, ...GLOBAL_OPTIONS].map((option) =>
    flagOf(option).name
  );

/** What is typed, and what is offered for its last word. `storage list` must not be taken for the verb `list`. */
const CASES: readonly (readonly [line: string, offered: readonly string[]])[] = [
  ["re", VERBS.filter((verb) => verb.startsWith("re"))],
  ["keys pro", ["prove"]],
  ["storage li", ["list"]],
  ["storage list --s", ["--set", "--snapshot"]],
  ["verify --snapshot ra", ["random"]],
  ["backup --set ", ["all", "state", "voice"]],
  ["restore --identity fi", ["file.txt"]],
  ["restore --to fo", ["folder"]],
  ["ship --", [...flagsOf("ship"), "--help"]],
];

Deno.test("bash completes verbs, actions, options and values", async () => {
  using folder = await makeFolder("bash");
  const script = `source ../completions
    compopt() { :; } # There is no completion under way that it could tell.
    read -ra COMP_WORDS <<<"$1"; [[ $1 == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
    _hapi_backup hapi-backup "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  for (const [line, offered] of CASES) {
    const said = await output("bash", ["-c", script, "bash", `hapi-backup ${line}`], {
      cwd: `${folder.dir}/here`,
    });
    assert.deepEqual(said.trim().split("\n").sort(), [...offered].sort(), line);
  }
  const all = await output("bash", ["-c", script, "bash", "hapi-backup "], { cwd: folder.dir + "/here" });
  assert.deepEqual(all.trim().split("\n"), [...VERBS, "--help", "--version"]);
});

Deno.test("fish completes verbs, actions, options and values", async () => {
  using folder = await makeFolder("fish");
  const env = { HOME: folder.dir, XDG_CONFIG_HOME: folder.dir, XDG_DATA_HOME: folder.dir };
  const lines = CASES.map(([line]) => `echo "= ${line}"; complete -C "hapi-backup ${line}"`).join("; ");
  const said = await output("fish", ["--no-config", "-c", `source ../completions; ${lines}`], {
    cwd: `${folder.dir}/here`,
    env,
  });
  const blocks = said.split(/^= .*\n/m).slice(1).map((block) =>
    block.split("\n").filter((line) => line !== "").map((line) => line.split("\t")[0]!.replace(/\/$/, ""))
  );
  for (const [index, [line, offered]] of CASES.entries()) {
    assert.deepEqual(blocks[index]!.sort(), [...offered].sort(), line);
  }
});

Deno.test("zsh completes verbs, actions, options and values", async () => {
  using folder = await makeFolder("zsh");
  Deno.mkdirSync(`${folder.dir}/functions`);
  Deno.renameSync(`${folder.dir}/completions`, `${folder.dir}/functions/_hapi-backup`);
  await using shell = startPty(["zsh", "-f", "-i"], {
    cwd: `${folder.dir}/here`,
    env: { PATH: Deno.env.get("PATH")!, HOME: folder.dir, TERM: "dumb" },
  });
  await shell.type(
    "PS1=rea'dy> '; fpath=($PWD/../functions $fpath); autoload -Uz compinit; compinit -D -u\n",
  );
  await shell.until(/ready> /);
  for (const [line, offered] of CASES.filter(([, offered]) => offered.length === 1)) {
    await shell.type(`hapi-backup ${line}\t`);
    await shell.until(
      new RegExp(`${line.split(" ").slice(0, -1).join(" ")} ${offered[0]!.replace(".", "\\.")}`),
    );
    await shell.type("\x15");
  }
  await shell.type("\x15hapi-backup pin --\t");
  for (const flag of flagsOf("pin").sort()) assert.ok(await shell.until(new RegExp(flag)), flag);
});

Deno.test("the man page has every verb, option, exit code, file and variable, and is in order", async () => {
  const home = Deno.makeTempDirSync({ prefix: "man-" });
  try {
    const file = `${home}/hapi-backup.1`;
    Deno.writeTextFileSync(file, (await cli({ home }, "man")).stdout);
    assert.equal(Deno.readTextFileSync(file), manPage());
    const lint = await new Deno.Command("mandoc", { args: ["-Tlint", "-Wwarning", file] }).output();
    // It has a version instead of a date.
    const said = new TextDecoder().decode(lint.stdout).split("\n")
      .filter((line) => line !== "" && !line.includes("missing date"));
    assert.deepEqual(said, []);
    // deno-lint-ignore no-control-regex -- Bold is a letter printed twice.
    const shown = (await output("mandoc", ["-Tutf8", "-Owidth=100", file])).replace(/.\x08/g, "");
    const headings = shown.split("\n").filter((line) => /^[A-Z]/.test(line)).slice(1);
    assert.deepEqual(headings, [
      ...["NAME", "SYNOPSIS", "DESCRIPTION", "ON THE HUB", "ANYWHERE", "ON THE STORAGE HOST", "OPTIONS"],
      ...["EXIT STATUS", "FILES", "ENVIRONMENT", "SEE ALSO"],
    ]);
    for (const spec of COMMANDS) {
      const section = shown.split(`\n   ${spec.verb}\n`)[1];
      assert.ok(section, spec.verb);
      for (const option of spec.options) {
        assert.ok(section.includes(flagOf(option).name), `${spec.verb} ${option.flags}`);
      }
      assert.ok(shown.includes(spec.example), spec.example);
    }
    // A paragraph after a list begins at the margin, and what goes on with an entry does not.
    assert.match(shown, /\n\n {7}Stop the hub before/);
    assert.match(shown, /\n\n {7}Nothing is removed:/);
    assert.match(shown, /seconds,\s+not\s+a\s+restore;\s+an\s+older\s+chain/);
    const { env } = JSON.parse(Deno.readTextFileSync(new URL("../nix/verbs.json", import.meta.url)));
    const files = ["~/.config/hapi-backup/config.json", "/var/lib/hapi-backup-storage\n", "undo restores"];
    for (const text of [...env, ...files, "$HAPI_BACKUP_CONFIG", "lock"]) {
      assert.ok(shown.includes(text), text);
    }
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
});

Deno.test("the examples of verbs that open snapshots bring the identity, which is not on the hub", () => {
  const opening = COMMANDS.filter(({ options }) => options.some(({ flags }) => flags.startsWith("--signer")));
  assert.deepEqual(
    opening.filter(({ example }) => !example.includes(" --identity ")).map(({ verb }) => verb),
    [],
  );
});

Deno.test("help is given however it is asked for, and a mistyped verb is told there, too", async () => {
  const home = Deno.makeTempDirSync({ prefix: "help-" });
  try {
    const all = await cli({ home }, "--help");
    assert.match(all.stdout, /^Usage: hapi-backup \[options\][^]*Exit codes:/);
    const nothing = await cli({ home });
    assert.deepEqual([nothing.code, nothing.stdout, nothing.stderr], [2, "", all.stdout]);
    const ofKeys = await cli({ home }, "keys", "--help");
    assert.match(ofKeys.stdout, /^Usage: hapi-backup keys [^]*Example:/);
    for (const args of [["-h"], ["help"], ["help", "help"], ["help", "--json"]]) {
      assert.deepEqual(await cli({ home }, ...args), all, args.join(" "));
    }
    for (const args of [["keys", "-h"], ["help", "keys"], ["help", "keys", "--json"], ["keys", "help"]]) {
      assert.deepEqual(await cli({ home }, ...args), ofKeys, args.join(" "));
    }
    for (const args of [["help", "kyes"], ["kyes", "--help"]]) {
      const { code, stderr } = await cli({ home }, ...args);
      assert.equal(code, 2);
      assert.match(
        stderr,
        /^error: Cannot run hapi-backup: unknown command 'kyes'\nhint: did you mean keys\?/,
      );
    }
    assert.match(
      ofKeys.stdout,
      /\nprove {2}decrypts [^\n]*\n {7}could: seconds, not a restore; [^\n]*\n {7}[^\n]*no failure\n/,
    );
    const ofRestore = (await cli({ home }, "restore", "--help")).stdout;
    assert.match(ofRestore, /--only <glob>[^-]*may\s+be\s+given\s+several\s+times\n/);
    const { stderr } = await cli({ home }, "keys");
    assert.match(stderr, /missing required argument 'action' \(list, add, drop, prove\)/);
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
});
