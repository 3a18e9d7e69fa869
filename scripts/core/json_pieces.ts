/**
 * The JSON of what may be large, piece by piece: its whole text is never there.
 *
 * @module
 */

/** Characters from which on a piece is long enough. */
const PIECE_LENGTH_MIN = 64 * 1024;
/** How deep objects and lists are taken apart: what is large in ours are lists in an object of an object. */
const DEPTH = 3;

/** The bytes that `JSON.stringify` would give, in UTF-8. */
export function* jsonPieces(value: unknown): Generator<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  let text = "";
  for (const token of tokens(value, DEPTH)) {
    text += token;
    if (text.length < PIECE_LENGTH_MIN) continue;
    yield encoder.encode(text);
    text = "";
  }
  yield encoder.encode(text);
}

function* tokens(value: unknown, depth: number): Generator<string> {
  if (depth === 0 || typeof value !== "object" || value === null) {
    yield JSON.stringify(value) ?? "null";
  } else if (Array.isArray(value)) {
    let before = "[";
    for (const item of value) {
      yield before;
      yield* tokens(item, depth - 1);
      before = ",";
    }
    yield before === "[" ? "[]" : "]";
  } else {
    let before = "{";
    for (const [key, item] of Object.entries(value)) {
      if (item === undefined) continue;
      yield `${before}${JSON.stringify(key)}:`;
      yield* tokens(item, depth - 1);
      before = ",";
    }
    yield before === "{" ? "{}" : "}";
  }
}
