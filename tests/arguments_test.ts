/** Command lines, as they are read; and the help, as wide as it may be. */

import assert from "node:assert/strict";
import { readArguments } from "../scripts/core/command_line/arguments.ts";
import { COMMANDS, type CommandSpec } from "../scripts/core/command_line/commands.ts";
import { programHelp, verbHelp } from "../scripts/core/command_line/help.ts";

/** What a line asks for, in short: the verb with its options but for those by default. */
function read(line: string): unknown {
  const asked = readArguments(line === "" ? [] : line.split(" "));
  if (asked.type === "help") return ["help", asked.spec?.verb];
  if (asked.type !== "verb") return asked.type;
  const byDefault = Object.fromEntries(asked.spec.options.map((option) => [option.flags, option.default]));
  const options = Object.entries(asked.options).filter(([, value]) =>
    value !== undefined && !Object.values(byDefault).includes(String(value))
  );
  return [asked.spec.verb, Object.fromEntries(options)];
}

Deno.test("a command line is what its words say", () => {
  const cases: [string, unknown][] = [
    ["", "nothing"],
    ["--version", "version"],
    ["list", ["list", {}]],
    ["backup --no-ship --json", ["backup", { noShip: true, json: true }]],
    ["restore --to a --only b --only=c --only b", ["restore", { to: "a", only: ["b", "c", "b"] }]],
    ["restore --to=--in-place --dry-run --dry-run", ["restore", { to: "--in-place", dryRun: true }]],
    ["restore --to a --to a --identity - --identity=-", ["restore", { to: "a", identity: "-" }]],
    ["restore --to=", ["restore", { to: "" }]],
    ["restore --to -x", ["restore", { to: "-x" }]],
    ["session --keep restore 7f", ["session", { action: "restore", id: "7f", keep: true }]],
    ["session list", ["session", { action: "list" }]],
    ["pin -- --why", ["pin", { id: "--why" }]],
    ["restore --to --unknown", ["restore", { to: "--unknown" }]],
    // Help, however it is asked for, and whatever else is wrong.
    ...["--help", "-h", "help", "help help", "help --json", "--json -h"].map((line): [string, unknown] => [
      line,
      ["help", undefined],
    ]),
    ...[
      "help keys",
      "keys help",
      "keys help --json",
      "keys --help",
      "keys list -h",
      "keys --unknown --help",
      "keys a b c -h",
    ]
      .map((
        line,
      ): [string, unknown] => [line, ["help", "keys"]]),
  ];
  for (const [line, expected] of cases) assert.deepEqual(read(line), expected, line);
  const optionsOf = (...words: string[]) => {
    const asked = readArguments(words);
    return asked.type === "verb" && asked.options;
  };
  assert.deepEqual(optionsOf("init"), { port: "22" });
  assert.deepEqual(optionsOf("init", "--port=0"), { port: "0" });
});

Deno.test("a line that cannot be run is told by the word that is wrong, with what was perhaps meant", () => {
  const cases: [string, RegExp, RegExp?][] = [
    [
      "restor",
      /^Cannot run hapi-backup: unknown command 'restor'$/,
      /^did you mean restore\? `hapi-backup --help`/,
    ],
    ["help restor", /unknown command 'restor'$/, /^did you mean restore\?/],
    ["toString", /unknown command 'toString'$/],
    ["hlep", /unknown command 'hlep'$/, /^did you mean help\?/],
    ["-x --version", /unknown option '-x'$/],
    ["--jso list", /^Cannot run hapi-backup: unknown option '--jso'$/, /^`hapi-backup --help`/],
    ["--json list", /^Cannot run hapi-backup: option '--json' stands before the verb, not behind it$/],
    ["--set=x list", /option '--set=x' stands before the verb/],
    ["--versio", /unknown option '--versio'$/, /^did you mean --version\?/],
    ["--", /unknown option '--'$/],
    [
      "list --sets x",
      /^Cannot run list: unknown option '--sets'$/,
      /^did you mean --set\? `hapi-backup list --help`/,
    ],
    ["list --sets=x", /unknown option '--sets=x'$/, /^did you mean --set\?/],
    ["list --no-json", /unknown option '--no-json'$/],
    ["list -v", /unknown option '-v'$/, /^`/],
    ["list -json", /unknown option '-json'$/, /^did you mean --json\?/],
    ["list -hx", /unknown option '-hx'$/],
    ["list --help=x", /unknown option '--help=x'$/, /^did you mean --help\?/],
    // All begin with dashes, which makes no two of them alike.
    ["list --why x", /unknown option '--why'$/, /^`/],
    ["list --__proto__", /unknown option '--__proto__'$/],
    ["list --json=yes", /^Cannot run list: option '--json' takes no value$/],
    ["restore --to", /^Cannot run restore: option '--to <folder>' has no value$/],
    ["restore --to --in-place", /option '--to <folder>' has no value$/],
    ["restore --to --identity=x", /option '--to <folder>' has no value$/],
    ["restore --to --help", /option '--to <folder>' has no value$/],
    ["restore --to a --to b", /^Cannot use --to b: --to a was given before it$/, /^give --to once$/],
    ["restore --identity a --identity b", /^Cannot use --identity b/, /^put all of them into one file/],
    ["list extra more", /^Cannot run list: too many arguments: extra more$/],
    ["keys", /^Cannot run keys: missing required argument 'action' \(list, add, drop, prove\)$/],
    ["compare latest", /missing required argument 'to'$/],
    [
      "keys ad",
      /^Cannot run keys: argument 'action' is one of list, add, drop, prove, not 'ad'$/,
      /^did you mean add\?/,
    ],
  ];
  for (const [line, message, hint] of cases) {
    assert.throws(() => read(line), { kind: "usage", message, hint: hint ?? /./ }, line);
  }
});

Deno.test("help lists arguments with their choices, and options with their defaults, in one column", () => {
  const spec: CommandSpec = {
    verb: "ring",
    group: "Anywhere",
    summary: "ring the bell",
    actions: [["soft", "so that no one hears it at all, however near"], ["loud", "so that all do"]],
    details: "Once.\nOr often.",
    arguments: [{ name: "<how>", text: "how", choices: ["soft", "loud"] }, {
      name: "[who]",
      text: "for whom",
    }],
    options: [
      { flags: "--times <number>", text: "rings of so many times", default: "3" },
      { flags: "--until <time>", text: "when to end", many: true },
    ],
    example: "hapi-backup ring soft",
  };
  assert.equal(
    verbHelp(spec, 49).split("  --config")[0],
    `Usage: hapi-backup ring [options] <how> [who]

ring the bell

soft  so that no one hears it at all, however
      near
loud  so that all do

Once.
Or often.

Arguments:
  how               how (choices: "soft", "loud")
  who               for whom

Options:
  --times <number>  rings of so many times
                    (default: "3")
  --until <time>    when to end; may be given
                    several times
`,
  );
  assert.match(verbHelp(spec, 1), /\n {2}--until <time> {4}when to end; may be\n/);
  assert.doesNotMatch(verbHelp({ ...spec, arguments: [] }, 80), /Arguments/);
});

Deno.test("help keeps to its columns, however few, and says the same in them", () => {
  const words = (text: string) => text.split(/\s+/).join(" ");
  const texts = [programHelp, ...COMMANDS.map((spec) => (width: number) => verbHelp(spec, width))];
  for (const help of texts) {
    const wide = help(1000);
    for (const width of [60, 80, 100]) {
      const text = help(width);
      assert.equal(words(text), words(wide));
      const lists = text.split(/\n(?:Example|Exit codes):/)[0]!;
      for (const line of lists.split("\n")) {
        assert.ok(line.length <= width || !line.trim().includes(" "), `${line.length} of ${width}: ${line}`);
      }
    }
    assert.equal(words(help(1)), words(wide));
  }
});
