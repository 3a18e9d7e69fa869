/**
 * HTML in which every text is escaped: what is put into a template is text, unless a template made it.
 *
 * @module
 */

/** A piece of HTML that is safe to put into a page. Only {@linkcode markup} and {@linkcode raw} make one. */
export class Html {
  constructor(readonly text: string) {}
}

type Piece = string | number | Html | undefined | false | readonly Piece[];

/**
 * A piece of HTML: `` markup`<p title="${title}">${words}</p>` ``. Attributes must be quoted.
 *
 * Lists are joined; `undefined` and `false` are nothing.
 */
export function markup(strings: TemplateStringsArray, ...pieces: readonly Piece[]): Html {
  return new Html(
    strings.reduce((text, string, index) => text + render(pieces[index - 1]) + string),
  );
}

/** HTML of our own making, such as a style sheet. Never what comes from outside. */
export const raw = (text: string): Html => new Html(text);

function render(piece: Piece): string {
  if (piece === undefined || piece === false) return "";
  if (piece instanceof Html) return piece.text;
  if (typeof piece === "object") return piece.map(render).join("");
  return escapeText(String(piece));
}

/** Text as it stands in an element or in a quoted attribute; what could reverse the words around it is left out. */
function escapeText(text: string): string {
  return text
    // deno-lint-ignore no-control-regex
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f\u202a-\u202e\u2066-\u2069]/g, "\ufffd")
    .replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
