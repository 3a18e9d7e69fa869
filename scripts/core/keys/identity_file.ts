/**
 * An age identity as it leaves the hub: a file, and a sheet of paper. Both hold all that a restore from nothing needs.
 *
 * @module
 */

import { renderSVG } from "uqr";
import { markup, raw } from "../html.ts";

/** What is to be kept off the hub. */
export interface KeptIdentity {
  readonly hub: string;
  /** When it was made, as an ISO 8601 time in UTC. */
  readonly made: string;
  readonly identity: string;
  /** Its public half. */
  readonly recipient: string;
  /** The public key that the hub signs seals with. */
  readonly signer: string;
  /** Where the backups are, for a person: `hapi-home@storage:, port 22`. */
  readonly places: readonly string[];
}

/** The identity file: age reads the last line, and its comments are for people and for `restore`. */
export function identityFileText({ hub, made, identity, recipient, signer, places }: KeptIdentity): string {
  return [
    `# hapi-backup: opens every snapshot of the hub ${hub}. Made ${made}.`,
    "# Keep this file off the hub, in two places. Whoever has it can read the backups; without it nobody can.",
    `# public key: ${recipient}`,
    `# signer: ${signer}`,
    ...places.map((place) => `# backups are at: ${place}`),
    identity,
    "",
  ].join("\n");
}

/** Commands that restore onto a new machine. `STORE` is the folder that holds the hub's folder. */
const STEPS: readonly (readonly [what: string, commands: readonly string[]])[] = [
  [
    "Get hapi-backup onto the new machine, or read its README, section “Without our tool”: age, zstd and rdiff do.",
    [],
  ],
  [
    "Put the identity into a file: scan the code (it holds the whole file), or type the line that starts with " +
    "AGE-SECRET-KEY. A mistyped one is noticed.",
    [],
  ],
  [
    "Copy the hub’s folder from the storage host, by any way you have (its disk, scp, rsync):",
    ["rsync -a root@STORAGE-HOST:/var/lib/hapi-backup-store/HUB ./store/"],
  ],
  ["See what is there, then restore it with the hub stopped. Nothing is written over.", [
    "hapi-backup list --store ./store",
    "hapi-backup restore --in-place --store ./store --identity identity.txt",
  ]],
];

/** The sheet: one page of HTML that is printed and kept like money. Nothing in it is loaded from elsewhere. */
export function identitySheet(kept: KeptIdentity): string {
  const { hub, made, identity, recipient, signer, places } = kept;
  const code = renderSVG(identityFileText(kept), { ecc: "M", border: 4, pixelSize: 4 })
    .replace("<svg ", '<svg role="img" aria-label="QR code of the whole identity file" ');
  const steps = STEPS.map(([what, commands]) => {
    const lines = commands.map((command) => command.replaceAll("HUB", hub)).join("\n");
    return markup`<li>${what}${lines !== "" && markup`<pre>${lines}</pre>`}</li>\n`;
  });
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Backup key of ${hub}</title>
<style>${raw(STYLE)}</style>
</head>
<body>
<h1>Backup key of the hub ${hub}</h1>
<p>Whoever has this sheet can read every backup of ${hub}; without it, or a copy, nobody can. Keep it off the
machine that it is about, like money. Destroy the file that it was printed from.</p>
<p class="key">${identity}</p>
${raw(code)}
<dl>
<dt>Made</dt><dd>${made}</dd>
<dt>Public key</dt><dd><code>${recipient}</code></dd>
<dt>Signed by</dt><dd><code>${signer}</code></dd>
${places.map((place) => markup`<dt>Backups are at</dt><dd><code>${place}</code></dd>\n`)}</dl>
<h2>To restore from nothing</h2>
<ol>
${steps}</ol>
</body>
</html>
`.text;
}

const STYLE = `
  @page { size: A4; margin: 15mm }
  body { font: 11pt/1.45 system-ui, sans-serif; color: #111; background: #fff; max-width: 180mm; margin: 0 auto; padding: 6mm }
  h1 { font-size: 18pt; margin: 0 } h2 { font-size: 12pt; margin: 5mm 0 1mm } p, ol { margin: 1mm 0 }
  .key { font: 700 10pt/1.5 monospace; word-break: break-all; border: 2px solid #111; padding: 3mm; margin: 3mm 0 }
  pre, code { font: 9.5pt/1.4 monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 1mm 0 }
  svg { display: block; width: 80mm; height: 80mm; margin: 0 auto }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 4mm; margin: 1mm 0 } dd { margin: 0 }
`;
