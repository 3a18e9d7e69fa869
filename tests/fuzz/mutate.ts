/** Real inputs, spoilt: bits flipped, pieces cut, doubled, moved or brought from elsewhere, and hostile JSON. */

// Pinned here and not in deno.json, which lists what the product itself depends on.
// deno-lint-ignore no-import-prefix
import fc from "npm:fast-check@4.10.2";

/** The longest input that is made, in bytes. */
const BYTES_MAX = 256 * 1024;

/** Pieces that parsers trip over. */
const PIECES = [
  ...[
    "__proto__",
    "constructor",
    "prototype",
    "../",
    "/",
    "\0",
    "\r\n",
    "\n",
    "\ufeff",
    "\u202e",
    "=",
    " ",
    "\t",
  ],
  ...[
    "[",
    "{",
    "}",
    '"',
    "'",
    "\\u0000",
    "//",
    "/*",
    "#",
    "-",
    "-----",
    "1e999",
    "-1",
    "99999999999999999999",
  ],
];

const piece = fc.oneof(
  fc.uint8Array({ maxLength: 8 }),
  fc.constantFrom(...PIECES).map((text) => new TextEncoder().encode(text)),
);
/** Where something is: a share of the whole. */
const share = fc.double({ min: 0, max: 1, noNaN: true });
const change = fc.record({
  how: fc.constantFrom("flip", "set", "cut", "drop", "insert", "repeat", "move"),
  from: share,
  to: share,
  piece,
  times: fc.integer({ min: 2, max: 5_000 }),
  bit: fc.nat(7),
});
type Change = typeof change extends fc.Arbitrary<infer Value> ? Value : never;

/** One of the real inputs, with a few changes to its bytes. */
export function spoilt(real: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  return fc.tuple(
    fc.constantFrom(...real),
    fc.array(change, { minLength: 1, maxLength: 5 }),
    fc.constantFrom(...real),
  )
    .map(([input, changes, other]) => changes.reduce((bytes, change) => apply(bytes, change, other), input));
}

function apply(
  bytes: Uint8Array,
  { how, from, to, piece, times, bit }: Change,
  other: Uint8Array,
): Uint8Array {
  const start = Math.floor(Math.min(from, to) * bytes.length);
  const end = Math.floor(Math.max(from, to) * bytes.length);
  const before = bytes.subarray(0, start);
  const between = bytes.subarray(start, end);
  const after = bytes.subarray(end);
  switch (how) {
    case "flip": {
      const flipped = bytes.slice();
      if (start < flipped.length) flipped[start]! ^= 1 << bit;
      return flipped;
    }
    case "set":
      return join(bytes.subarray(0, start), piece, bytes.subarray(start + piece.length));
    case "cut":
      return before;
    case "drop":
      return join(before, after);
    case "insert":
      return join(before, piece, between, after);
    case "repeat": {
      // A short stretch as a rule: long ones are soon too long.
      const stretch = between.subarray(0, 1 + bit * bit * 4);
      const fits = Math.floor((BYTES_MAX - bytes.length) / Math.max(1, stretch.length));
      return join(before, ...Array(Math.max(0, Math.min(times, fits))).fill(stretch), between, after);
    }
    case "move":
      return join(
        before,
        other.subarray(0, Math.floor(to * Math.min(other.length, BYTES_MAX))),
        after,
        between,
      );
  }
}

function join(...pieces: Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(pieces)).subarray(0, BYTES_MAX);
}

/** Keys that are something else to JavaScript. */
const KEYS = [
  "__proto__",
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "length",
  "",
  "\0",
  "surprise",
];
const nested = (depth: number): unknown => {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
};
const polluting: unknown = JSON.parse(
  '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}',
);
const VALUES: readonly unknown[] = [
  ...[
    null,
    true,
    false,
    0,
    -0,
    -1,
    1.5,
    2 ** 53,
    1e308,
    -1e308,
    4096,
    "",
    "0",
    "__proto__",
    "constructor",
    "../x",
  ],
  ...[
    "home/../../x",
    "root/x",
    "home/x",
    "/etc/x",
    "home/.hapi/hapi.db",
    "home/a/b/c",
    "home/.",
    "\0",
    "\ud800",
    "é",
  ],
  ...[
    "x".repeat(5_000),
    "20260301T120000Z",
    "20990101T000000Z",
    "f".repeat(64),
    "age1",
    [],
    {},
    [[]],
    polluting,
  ],
  ...[nested(50), nested(3_000), Array(2_000).fill(0), { a: 1, b: [1, { c: null }] }],
];
const value = fc.oneof(
  fc.constantFrom(...VALUES),
  fc.string({ maxLength: 20, unit: "binary" }),
  fc.double(),
  fc.jsonValue(),
);
const edit = fc.record({
  how: fc.constantFrom("replace", "replace", "add", "rename", "remove", "double", "swap"),
  at: share,
  other: share,
  key: fc.constantFrom(...KEYS),
  value,
});
type Edit = typeof edit extends fc.Arbitrary<infer Value> ? Value : never;

/** One of the real documents with a few values, keys or items changed: JSON all the same. */
export function edited(real: readonly unknown[]): fc.Arbitrary<unknown> {
  return fc.tuple(fc.constantFrom(...real), fc.array(edit, { minLength: 1, maxLength: 4 })).map(
    ([document, edits]) => {
      const holder = { document: copy(document) };
      for (const one of edits) editOnce(holder, { ...one, value: copy(one.value) });
      return holder.document;
    },
  );
}

/** Something that holds a value, and under which key. */
interface Spot {
  readonly holder: Record<string, unknown>;
  readonly key: string;
}

function editOnce(holder: Record<string, unknown>, { how, at, other, key, value }: Edit): void {
  const spots = [...spotsIn(holder)];
  const spot = spots[Math.floor(at * (spots.length - 1))]!;
  const second = spots[Math.floor(other * (spots.length - 1))]!;
  const found = spot.holder[spot.key];
  switch (how) {
    case "replace":
      return put(spot.holder, spot.key, value);
    case "add":
      if (Array.isArray(found)) found.push(value);
      else if (found !== null && typeof found === "object") put(found as Record<string, unknown>, key, value);
      return;
    case "rename":
      if (Array.isArray(spot.holder) || spot.key === "document") return;
      delete spot.holder[spot.key];
      return put(spot.holder, key, found);
    case "remove":
      if (Array.isArray(spot.holder)) spot.holder.splice(Number(spot.key), 1);
      else if (spot.key !== "document") delete spot.holder[spot.key];
      return;
    case "double":
      if (Array.isArray(spot.holder)) spot.holder.push(copy(found));
      return;
    case "swap":
      put(spot.holder, spot.key, copy(second.holder[second.key]));
  }
}

/** What is edited is never shared with another input. By JSON: `structuredClone` gives up at some 3,500 levels. */
const copy = (value: unknown): unknown => JSON.parse(JSON.stringify(value) ?? "null");

/** Every place in a document, the whole first. */
function* spotsIn(holder: Record<string, unknown>, depth = 0): Generator<Spot> {
  for (const key of Object.keys(holder)) {
    yield { holder, key };
    const inner = holder[key];
    if (inner !== null && typeof inner === "object" && depth < 8) {
      yield* spotsIn(inner as Record<string, unknown>, depth + 1);
    }
  }
}

/** Also where the key is `__proto__`, as `JSON.parse` does. */
function put(holder: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(holder, key, { value, writable: true, enumerable: true, configurable: true });
}

/** Texts that keep a careless parser busy: one piece over and over, alone, within and after something real. */
export function* endless(real: string): Generator<string> {
  const pieces = [
    ...PIECES,
    '{"a":',
    "a",
    "a,",
    "ssh-ed25519 ",
    "Host key for ",
    " exists (",
    " => ",
    "Load key ",
    "-> x",
  ];
  for (const piece of pieces) {
    const many = piece.repeat(Math.ceil(100_000 / piece.length));
    const half = real.slice(0, real.length / 2);
    yield many;
    yield `${many}!`;
    yield half + many + real.slice(half.length);
    yield `${real}${many}!`;
  }
}
