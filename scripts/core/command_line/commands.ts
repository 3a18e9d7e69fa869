/**
 * The command line: every verb, its options, an example. Help, man page and completions are made from this table.
 *
 * @module
 */

/** Shells that completions are made for. */
const SHELLS = ["bash", "zsh", "fish"] as const;
/** A shell that completions are made for. */
export type Shell = typeof SHELLS[number];

/** One option. `flags` is `--name` or `--name <value>`; the name in camel case is the key in the parsed options. */
export interface OptionSpec {
  readonly flags: string;
  readonly text: string;
  readonly default?: string;
  /** Values that shells offer beside any other. */
  readonly suggestions?: readonly string[];
  /** May be given several times; the values become a list. */
  readonly many?: boolean;
}

/** One argument. */
export interface ArgumentSpec {
  /** `<name>` is required, `[name]` is not. */
  readonly name: string;
  readonly text: string;
  readonly choices?: readonly string[];
}

/** A term and what it means. */
export type Entry = readonly [term: string, meaning: string];

/** One verb. */
export interface CommandSpec {
  readonly verb: string;
  readonly group: "On the hub" | "Anywhere" | "On the storage host";
  readonly summary: string;
  /** What each of its actions does. */
  readonly actions?: readonly Entry[];
  /** More about it, in paragraphs. */
  readonly details?: string;
  readonly arguments?: readonly ArgumentSpec[];
  readonly options: readonly OptionSpec[];
  readonly example: string;
}

const SET: OptionSpec = {
  flags: "--set <name>",
  text: 'which set of sources: "state", "voice", or "all"',
  default: "state",
  suggestions: ["state", "voice", "all"],
};
const ONE_SET: OptionSpec = { flags: "--set <name>", text: "which set", default: "state" };
const FULL: OptionSpec = { flags: "--full", text: "start a new chain" };
const ACCEPT: OptionSpec = {
  flags: "--accept",
  text: "take lost rows for intended: the snapshot counts as good",
};
const STORE: OptionSpec = {
  flags: "--store <store>",
  text:
    "a destination's name, a folder, user@host:path (read with --ssh-key), or rclone:remote:path; the local store where left out",
};
const REMOTE: readonly OptionSpec[] = [
  {
    flags: "--ssh-key <file>",
    text: "SSH key that may read a remote store; a destination's readIdentityFile where left out",
  },
  {
    flags: "--known-hosts <file>",
    text: "known_hosts file with the remote store's host key; a destination's knownHostsFile where left out",
  },
  { flags: "--port <number>", text: "SSH port of a remote store, 22 where left out" },
];
const WAIT: OptionSpec = {
  flags: "--wait <seconds>",
  text: "wait this long for another run to end",
  default: "0",
};
const SNAPSHOT: OptionSpec = {
  flags: "--snapshot <which>",
  text: '"latest", an id, or a time such as "2026-11-20 06:00" (the newest at or before it)',
  default: "latest",
  suggestions: ["latest"],
};
const HUB: OptionSpec = { flags: "--hub-name <name>", text: "whose snapshots, in a store of several hubs" };
const OPENING: readonly OptionSpec[] = [
  {
    flags: "--identity <file>",
    text:
      "age identity that opens the snapshots; - reads it from standard input; identityFile of the configuration where left out",
  },
  {
    flags: "--signer <key>",
    text:
      "who else may have signed than the identity file and the configuration say: ssh-ed25519 public key, SHA256:… " +
      "fingerprint, or allowed_signers file",
    many: true,
  },
];
/** A store, and what opens the snapshots in it. */
const OPENED_STORE: readonly OptionSpec[] = [STORE, HUB, ...OPENING, ...REMOTE];
const SCRATCH: OptionSpec = {
  flags: "--scratch <folder>",
  text: "where to restore to in order to look, removed afterwards; below the state folder where left out",
};

const STORED_HUB: OptionSpec = { flags: "--hub <name>", text: "only this hub" };
const STORED_SET: OptionSpec = { flags: "--set <name>", text: "only this set" };

/** Every verb, in the order of `--help`. */
export const COMMANDS: readonly CommandSpec[] = [
  {
    verb: "init",
    group: "On the hub",
    summary: "set it all up: keys, storage host, first backup, and the proof that it can be restored",
    details: "Asks what it must know on a terminal; without one, options say it.\n" +
      "A new identity is handed over once, and only where it is asked for: it does not " +
      "stay on the hub. Where the storage host is not ready yet, it prints what to paste " +
      "there; run again, it goes on where it stopped. What is there is kept as it is.",
    options: [
      {
        flags: "--storage <target>",
        text: "the storage host by SSH: its name, user@host, or user@host:folder",
      },
      { flags: "--port <number>", text: "its SSH port", default: "22" },
      {
        flags: "--host-key <key>",
        text: "its host key (SHA256:... or ssh-ed25519 ...), compared instead of asked for",
      },
      {
        flags: "--storage-store <folder>",
        text: "the hubs' folders there, for what is printed; /var/lib/hapi-backup-store where left out",
      },
      { flags: "--folder <folder>", text: "store in a folder instead, such as a mounted disk" },
      { flags: "--local-only", text: "nowhere off this machine, for now" },
      {
        flags: "--identity-out <file>",
        text: "write the new identity here, such as on a stick; - prints it",
      },
      {
        flags: "--sheet <file>",
        text: "write a page to print (HTML) with the new identity and a QR code of it",
      },
      {
        flags: "--identity <file>",
        text:
          "the identity, to prove it: one of your own instead of a new one, or the one of an earlier run; - reads it",
      },
      {
        flags: "--recipient <key>",
        text: "public key (age1...) of a further identity, kept in another place",
        many: true,
      },
      { flags: "--hapi-home <folder>", text: "where the hub lives; found where left out" },
      { flags: "--hub-name <name>", text: "what to call the hub; this machine's name where left out" },
    ],
    example:
      "hapi-backup init --storage storage --identity-out /media/stick/identity.txt --sheet /media/stick/sheet.html",
  },
  {
    verb: "backup",
    group: "On the hub",
    summary: "take a snapshot, encrypt it and ship it",
    details: "Without a configuration this makes one, with new keys and a local store.",
    options: [
      SET,
      FULL,
      ACCEPT,
      { flags: "--no-ship", text: "leave it in the local store" },
      WAIT,
    ],
    example: "hapi-backup backup --set all",
  },
  {
    verb: "snapshot",
    group: "On the hub",
    summary: "copy the databases of a set into staging, as of one moment",
    options: [SET, { flags: "--full", text: "copy even what has not changed" }, WAIT],
    example: "hapi-backup snapshot --set state",
  },
  {
    verb: "encrypt",
    group: "On the hub",
    summary: "make a sealed snapshot in the local store from what is staged",
    options: [
      SET,
      FULL,
      ACCEPT,
      WAIT,
    ],
    example: "hapi-backup encrypt --set state",
  },
  {
    verb: "ship",
    group: "On the hub",
    summary: "send what is not yet on every destination, oldest first",
    options: [
      { flags: "--set <name>", text: 'which set, or "all"', default: "all" },
      WAIT,
    ],
    example: "hapi-backup ship",
  },
  {
    verb: "verify",
    group: "Anywhere",
    summary: "restore a snapshot into scratch and prove that it is whole",
    options: [
      ONE_SET,
      {
        ...SNAPSHOT,
        text: '"latest", "random", an id, or a time such as "2026-11-20 06:00"',
        suggestions: ["latest", "random"],
      },
      ...OPENED_STORE,
      SCRATCH,
      {
        flags: "--hub <program>",
        text: "also start this hub program on the restored copy and ask it for its sessions",
      },
    ],
    example: "hapi-backup verify --identity identity.txt --snapshot random",
  },
  {
    verb: "restore",
    group: "Anywhere",
    summary: "get a snapshot back, into a folder or in place",
    details:
      "--to writes into a new or empty folder: home/... is what lay in the operator's home, root/... the rest.\n" +
      "--in-place puts everything back where it was, after setting aside what is there now.",
    options: [
      { flags: "--to <folder>", text: "restore into this folder" },
      { flags: "--in-place", text: "put everything back where it was" },
      { flags: "--only <glob>", text: "only these places, such as home/.hapi/*.json", many: true },
      { flags: "--dry-run", text: "say what would be done" },
      ONE_SET,
      SNAPSHOT,
      ...OPENED_STORE,
      {
        ...SCRATCH,
        text: "where to keep what a remote store sends meanwhile; below the state folder where left out",
      },
      WAIT,
    ],
    example: 'hapi-backup restore --to ~/restored --identity identity.txt --snapshot "2026-11-20 06:00"',
  },
  {
    verb: "session",
    group: "Anywhere",
    summary: "get one session back, with its messages and all that refers to it",
    actions: [
      ["list", "the sessions in a snapshot, newest first"],
      ["restore", "puts one into the hub's database, or writes it as JSON with --export"],
    ],
    details:
      "Stop the hub before `restore`: it would not notice what changes under it. First a snapshot of its database is " +
      "taken; then the database changes in one transaction, and the command that undoes it is printed. A database of " +
      "another version is refused; --export needs no database, and no hub that is stopped.\n\n" +
      "Nothing is removed: what the session has gained since the snapshot stays. Where a row is there and differs, " +
      "such as that of a session that went on, nothing is done unless told: --keep adds what is missing and leaves " +
      "the rest (to get lost messages back); --replace makes such rows what they were (to undo bad changes).",
    arguments: [
      { name: "<action>", text: "what to do", choices: ["list", "restore"] },
      { name: "[id]", text: "restore: the session's id, or the start of it" },
    ],
    options: [
      SNAPSHOT,
      {
        flags: "--export <file>",
        text: "write the session as JSON into this new file; - writes it to standard output",
      },
      { flags: "--keep", text: "where rows differ, leave those that are there" },
      { flags: "--replace", text: "where rows differ, take the snapshot's" },
      ONE_SET,
      ...OPENED_STORE,
      SCRATCH,
      WAIT,
    ],
    example: 'hapi-backup session restore 4f1c --identity identity.txt --snapshot "2026-11-20 06:00"',
  },
  {
    verb: "compare",
    group: "Anywhere",
    summary: "say what two snapshots have apart: sessions, rows by table, files",
    arguments: [
      { name: "<from>", text: "a snapshot, as --snapshot of restore takes it" },
      { name: "<to>", text: "another" },
    ],
    options: [
      ONE_SET,
      ...OPENED_STORE,
      SCRATCH,
    ],
    example: "hapi-backup compare 2026-11-20 latest --identity identity.txt --json",
  },
  {
    verb: "browse",
    group: "Anywhere",
    summary: "look through snapshots on a terminal: sessions, files, what changed; get one file back",
    details: "Where there is no terminal: list, session list, compare, restore --only.",
    options: [
      ONE_SET,
      ...OPENED_STORE,
      SCRATCH,
    ],
    example: "hapi-backup browse --identity identity.txt",
  },
  {
    verb: "list",
    group: "Anywhere",
    summary: "show the snapshots of a store, how many others each needs, and the last drills",
    details:
      "Times are this machine's. --json also tells which snapshots each needs, and how many need it.\n" +
      "A set that cannot be read is told at the end; the others are listed all the same.",
    options: [
      { flags: "--set <name>", text: 'which set, or "all"', default: "all" },
      STORE,
      HUB,
      ...REMOTE,
    ],
    example: "hapi-backup list --set state",
  },
  {
    verb: "status",
    group: "On the hub",
    summary:
      "show how the backups stand: newest good snapshot, runs, growth, proofs, what is not off this machine",
    options: [],
    example: "hapi-backup status --json",
  },
  {
    verb: "report",
    group: "On the hub",
    summary:
      "write one page to look at: calendar, growth, what runs stored, proofs, what is off this machine",
    details:
      "The page loads nothing and runs nothing, and holds nothing of what is backed up but counts and sizes.\n" +
      "An earlier report is replaced; nothing else is.",
    options: [{ flags: "--html <file>", text: "where to write it; - prints it" }],
    example: "hapi-backup report --html ~/backups.html",
  },
  {
    verb: "doctor",
    group: "On the hub",
    summary: "check everything that backups depend on, and say what to do about what is wrong",
    details:
      "Changes nothing: what it asks of a storage host, such as to delete and to read back, is a dry run.\n" +
      "The exit code is that of the most telling failure; warnings have none.",
    options: [{ flags: "--offline", text: "ask no program: not systemd, and not the destinations" }],
    example: "hapi-backup doctor --json",
  },
  {
    verb: "keys",
    group: "On the hub",
    summary: "show who can open the backups, change it, or prove that an identity does",
    actions: [
      ["list", "the recipients, and which snapshots each can open"],
      ["add", "encrypts to one more recipient (age1...) from the next snapshot on"],
      ["drop", "encrypts to it no longer; what exists stays readable with its identity"],
      [
        "prove",
        "decrypts one header of each chain with --identity, and logs that it could: seconds, not a restore; " +
        "an older chain that is made for other recipients, such as from before an `add`, is no failure",
      ],
    ],
    arguments: [
      { name: "<action>", text: "what to do", choices: ["list", "add", "drop", "prove"] },
      { name: "[recipient]", text: "add, drop: which; drop takes the start of one" },
    ],
    options: [...OPENED_STORE, SCRATCH],
    example: "hapi-backup keys prove --identity /media/usb/identity.txt",
  },
  {
    verb: "notify",
    group: "On the hub",
    summary: "tell the configured notifiers what is due, or send each a test message",
    details: "`backup` and `ship` do this by themselves at their end. Exit code 1 when a notifier fails.",
    arguments: [{ name: "<action>", text: "what to do", choices: ["send", "test"] }],
    options: [],
    example: "hapi-backup notify test",
  },
  {
    verb: "systemd",
    group: "Anywhere",
    summary: "print the systemd units and timers of this machine, hardened as the NixOS modules make them",
    details:
      "Run it as the operator, not as root, so that the paths are the operator's; with --storage, as root. --to writes " +
      "the files into a folder and says how to install them; nothing is started.",
    options: [
      { flags: "--system", text: "for the system's manager: the strictest walls" },
      { flags: "--user", text: "for the operator's own manager, without root" },
      { flags: "--storage", text: "the storage host's units: scrub, retain and watch" },
      {
        flags: "--run-as <user>",
        text: "whom the units run as; the last part of HOME, or hapi-backup-storage, where left out",
      },
      { flags: "--program <file>", text: "what the units call; this program where left out" },
      {
        flags: "--on-failure <unit>",
        text: "unit to start when one of these fails, such as mail@%n.service",
        many: true,
      },
      {
        flags: "--before <unit>",
        text: "take a snapshot of set state before each start of this unit",
        many: true,
      },
      {
        flags: "--calendar <set=when>",
        text:
          "when; 'state=*-*-* 06,18:00:00' and 'voice=Sun *-*-* 05:00:00' where left out; scrub, retain, watch, ship and " +
          "verify, too",
        many: true,
      },
      {
        flags: "--drill-identity <file>",
        text: "also make a weekly drill of set state; better on another machine than the hub",
      },
      {
        flags: "--drill-store <store>",
        text: "what the drill reads: a destination's name, or the folder of a store",
      },
      { flags: "--prometheus <file>", text: "where watch writes its metrics" },
      { flags: "--to <folder>", text: "write the files here instead of printing them" },
    ],
    example: "hapi-backup systemd --system --before hapi-hub.service --to ~/units",
  },
  {
    verb: "config",
    group: "On the hub",
    summary: "check the configuration, or print its JSON Schema",
    arguments: [{ name: "<action>", text: "what to do", choices: ["check", "schema"] }],
    options: [],
    example: "hapi-backup config check",
  },
  {
    verb: "completions",
    group: "Anywhere",
    summary: "print what lets a shell complete verbs and options",
    arguments: [{ name: "<shell>", text: "which shell", choices: SHELLS }],
    options: [],
    example: "source <(hapi-backup completions bash)",
  },
  {
    verb: "man",
    group: "Anywhere",
    summary: "print the man page",
    options: [],
    example: "hapi-backup man | man -l -",
  },
  {
    verb: "scrub",
    group: "On the storage host",
    summary: "re-read the store, without any key to its contents, and say everything that is wrong",
    details:
      "What was never read comes first, then what was not read for longest; the next run goes on where a " +
      "limit ended this one. Where the configuration has a receiptKeyFile, each hub is told in a signed receipt. " +
      "Exit code 5 when anything is damaged.",
    options: [
      STORED_HUB,
      STORED_SET,
      { flags: "--max-time <time>", text: "begin no part after so long, such as 90m or 2h" },
      { flags: "--max-bytes <bytes>", text: "read no more than this, such as 500G" },
      { flags: "--idle", text: "read a quarter of the time only" },
    ],
    example: "hapi-backup scrub --max-time 2h --idle",
  },
  {
    verb: "retain",
    group: "On the storage host",
    summary: "show which snapshots the policy does not keep, and why; with --apply, remove them",
    details: "Refuses on any doubt: an unknown format, a bad signature, a gap, a clock that jumped, a flood.",
    options: [
      STORED_HUB,
      STORED_SET,
      { flags: "--apply", text: "remove them" },
      { flags: "--despite-flood", text: "a hub's sudden sending was looked at, and is right" },
      { flags: "--trust-clock", text: "this host's clock was looked at, and is right" },
    ],
    example: "hapi-backup retain --apply",
  },
  {
    verb: "watch",
    group: "On the storage host",
    summary: "compare the store with its limits; exit code 8 when something is too old",
    options: [
      { flags: "--prometheus <file>", text: "also write metrics for node_exporter's textfile collector" },
    ],
    example: "hapi-backup watch --prometheus /var/lib/prometheus/node-exporter/hapi_backup.prom",
  },
  {
    verb: "pin",
    group: "On the storage host",
    summary: "keep a snapshot whatever the policy says; without an id, list the pins",
    arguments: [{ name: "[id]", text: "the snapshot" }],
    options: [
      { ...STORED_HUB, text: "whose; needed with an id" },
      { ...STORED_SET, text: "of which set; needed with an id" },
      { flags: "--why <text>", text: "why it is kept" },
      { flags: "--remove", text: "take the pin back" },
    ],
    example: 'hapi-backup pin 20261122T060000Z --hub home --set state --why "before the migration"',
  },
  {
    verb: "storage",
    group: "On the storage host",
    summary: "show how the store stands, let a hub in, or forget a snapshot that is lost for good",
    actions: [
      ["status", "the newest good snapshot of each set, its age, what was read, space and its trend"],
      ["list", "every snapshot that is here: its standing, when it came, when it was read"],
      ["authorize", "prints the authorized_keys file of a hub's user, and how to set the host up for it"],
      ["forget", "notes that a snapshot is lost for good (or never came), so that it is no fault any more"],
      ["schema", "prints the JSON Schema of the storage host's configuration"],
    ],
    arguments: [{
      name: "<action>",
      text: "what to do",
      choices: ["status", "list", "authorize", "forget", "schema"],
    }],
    options: [
      { ...STORED_HUB, text: "only this hub; needed for authorize and forget" },
      { ...STORED_SET, text: "only this set; needed for forget" },
      { flags: "--key <file>", text: "authorize: public key that may only add files" },
      { flags: "--read-key <file>", text: "authorize: public key that may only read" },
      {
        flags: "--from <range>",
        text: "authorize: addresses that they may come from, such as 100.64.0.0/10",
      },
      { flags: "--snapshot <id>", text: "forget: which" },
      { flags: "--why <text>", text: "forget: what became of it" },
    ],
    example: "hapi-backup storage authorize --hub home --key ship_ed25519.pub --read-key read_key.pub",
  },
];

/** Options that every verb takes. */
export const GLOBAL_OPTIONS: readonly OptionSpec[] = [
  {
    flags: "--config <file>",
    text: "configuration; $HAPI_BACKUP_CONFIG or ~/.config/hapi-backup/config.json, on the storage host " +
      "/etc/hapi-backup/storage.json",
  },
  {
    flags: "--json",
    text:
      "print the result as one JSON value, a failure as `ok: false` with `error` (message, kind, hint) and `exitCode`, " +
      "and what is told meanwhile as events, one JSON object a line",
  },
  { flags: "--quiet", text: "say nothing but errors, and draw no progress" },
  {
    flags: "--verbose",
    text: "say which programs run, how long each step takes, and where an error happened",
  },
];
