/**
 * How the report looks: light and dark by what the reader's system prefers, one column on a phone, plain on paper.
 *
 * States differ by letter and shape as well as by colour.
 *
 * @module
 */

export const REPORT_STYLE = `
:root {
  color-scheme: light dark;
  --page: #fafaf8; --card: #ffffff; --ink: #1b2025; --soft: #59626c; --line: #e1e4e6; --faint: #eef0f0; --ghost: #cdd4d6;
  --accent: #0b6e69; --tint: #d5e9e6; --tint-ink: #0a4d49; --warn: #8a5300; --warn-tint: #fdecc8;
  --bad: #b3261e; --bad-tint: #fbe3e1;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #121517; --card: #191d20; --ink: #e4e8ea; --soft: #9ba6af; --line: #2d3338; --faint: #22272b; --ghost: #434d54;
    --accent: #5cc0b6; --tint: #1d3d3a; --tint-ink: #b9e4de; --warn: #f0b95b; --warn-tint: #43310f;
    --bad: #ff9a91; --bad-tint: #4a1f1c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
.page { max-width: 1120px; margin: 0 auto; padding: 2.25rem 1rem 3rem; }
h1, h2, h3, p, dl, dd, ul, table, figure { margin: 0; padding: 0; }
h1 { font-size: 1.55rem; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; }
h2 { font-size: 1.12rem; line-height: 1.3; font-weight: 650; letter-spacing: -0.005em; }
h3, figcaption, summary { font-size: 0.87rem; font-weight: 600; }
.soft { color: var(--soft); }
.small { font-size: 0.83rem; line-height: 1.45; }
.hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
header p { margin-top: 0.3rem; }
section { margin-top: 2.5rem; }
section > .soft { margin-top: 0.15rem; }
section > * + * { margin-top: 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem; }
.card > h3 + * { margin-top: 0.6rem; }

.verdict { margin-top: 1.4rem; border-left: 4px solid var(--accent); }
.verdict.bad { border-left-color: var(--bad); }
.verdict h2 { display: flex; gap: 0.55rem; align-items: center; }
.verdict ul { margin-top: 0.6rem; list-style: none; }
.verdict li + li { margin-top: 0.55rem; }
.mark {
  flex: none; display: grid; place-items: center; width: 1.4rem; height: 1.4rem; border-radius: 50%;
  font-size: 0.85rem; font-weight: 700; line-height: 1; background: var(--tint); color: var(--tint-ink);
}
.bad .mark { background: var(--bad-tint); color: var(--bad); border-radius: 4px; }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); gap: 0.75rem; margin-top: 0.75rem; }
.tiles dt { font-size: 0.83rem; color: var(--soft); }
.tiles dd { font-size: 1.2rem; font-weight: 620; line-height: 1.3; margin-top: 0.15rem; letter-spacing: -0.01em; }
.tiles dd + dd { font-size: 0.83rem; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.tiles .bad dd:first-of-type { color: var(--bad); }
.tiles .bad dd:first-of-type::before { content: "! "; }

.beside { display: flex; flex-wrap: wrap; gap: 1.1rem 2.5rem; }
.months { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1.1rem 1.05rem; }
table { border-collapse: collapse; }
.month { font-size: 0.75rem; line-height: 1; }
.month caption { text-align: left; white-space: nowrap; font-weight: 600; padding: 0 0 0.4rem 1px; }
.month th { position: relative; font-weight: 400; color: var(--soft); height: 1.1rem; padding: 0; }
.month td { padding: 1px; }
.day {
  position: relative; display: grid; place-items: center; width: 1.3rem; height: 1.3rem;
  border: 1px solid transparent; border-radius: 4px; color: var(--soft);
}
.day.unknown { background: var(--faint); }
.day.good { background: var(--tint); color: var(--tint-ink); }
.day.suspect, .day.failed, .day.missing { font-size: 0.87rem; font-weight: 700; }
.day.suspect { background: var(--warn-tint); color: var(--warn); border-color: var(--warn); border-radius: 50%; }
.day.failed { background: var(--bad-tint); color: var(--bad); border-color: var(--bad); }
.day.missing { color: var(--bad); border: 1px dashed var(--bad); }
.day.marred::after {
  content: ""; position: absolute; top: -1px; right: -1px; border: 0.24rem solid;
  border-color: var(--bad) var(--bad) transparent transparent; border-top-right-radius: 4px;
}
.day.today { box-shadow: 0 0 0 1.5px var(--card), 0 0 0 3px var(--accent); }
.legend { display: flex; flex-wrap: wrap; gap: 0.4rem 1.1rem; margin-top: 1rem; list-style: none; color: var(--soft); }
.legend li { display: flex; align-items: center; gap: 0.45rem; }
.legend .day { flex: none; font-size: 0.75rem; line-height: 1; width: 1.25rem; height: 1.25rem; }
.look { flex: 1 1 20rem; min-width: 0; }
.look h4 { margin: 0; font-size: 0.83rem; font-weight: 600; }
.look ul { list-style: none; columns: 20rem; column-gap: 2.5rem; }
.look li { padding-top: 0.45rem; break-inside: avoid; }
.look b { font-weight: 600; }
.look p { margin-top: 0.45rem; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)); gap: 0.75rem; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 0.75rem; font-weight: 400; color: var(--soft); }
figcaption b { color: var(--ink); font-weight: 620; }
.plot {
  display: grid; grid-template: 7.5rem 1.3rem / auto 1fr; grid-template-areas: "y d" ". x"; column-gap: 0.5rem;
  margin-top: 0.9rem; font-size: 0.75rem; line-height: 1; color: var(--soft);
}
.wide .plot { grid-template-rows: 10rem 1.3rem; }
.y { grid-area: y; position: relative; min-width: 3.6rem; }
.y span { position: absolute; right: 0; transform: translateY(50%); white-space: nowrap; }
.x { grid-area: x; position: relative; }
.x span { position: absolute; top: 0.45rem; white-space: nowrap; }
.x .middle { transform: translateX(-50%); }
.x .last { transform: translateX(-100%); }
.plot svg { grid-area: d; width: 100%; height: 100%; display: block; overflow: visible; }
.plot path { fill: none; vector-effect: non-scaling-stroke; }
.grid { stroke: var(--line); stroke-width: 1; }
.line { stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.dot { stroke: var(--accent); stroke-width: 7; stroke-linecap: round; }
.whole { fill: var(--ghost); }
.part { fill: var(--accent); }
.hit { fill: transparent; }
.hit:hover { fill: var(--ink); fill-opacity: 0.07; }
.keys { display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin-top: 0.6rem; }
.key { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 2px; margin-right: 0.4em; background: var(--accent); }
.key.rest { background: var(--soft); }
.key.whole { background: var(--ghost); }

details { margin-top: 0.9rem; }
summary { cursor: pointer; color: var(--accent); width: fit-content; }
details .scroll { margin-top: 0.6rem; }
details caption { display: none; }
details td { white-space: nowrap; }
.scroll { overflow-x: auto; position: relative; }
.rows { width: 100%; font-size: 0.87rem; line-height: 1.4; }
.rows caption { text-align: left; font-weight: 600; padding-bottom: 0.35rem; }
.rows th { text-align: left; font-weight: 400; color: var(--soft); font-size: 0.8rem; vertical-align: bottom; }
.rows th, .rows td { padding: 0.35rem 1.1rem 0.35rem 0; border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
.rows td { vertical-align: top; }
.rows td .small { overflow-wrap: anywhere; }
.rows time { white-space: nowrap; }
.rows tr > :last-child { padding-right: 0; }
.rows tbody tr:last-child > * { border-bottom: 0; }
.rows .number { text-align: right; white-space: nowrap; }
.fine::before { content: "\\2713\\00a0"; color: var(--accent); font-weight: 700; }
.wrong { color: var(--bad); font-weight: 600; }
.wrong::before { content: "\\00d7\\00a0"; font-weight: 700; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 0.75rem; align-items: start; }
.share { display: flex; gap: 2px; height: 0.75rem; background: var(--faint); border-radius: 3px; overflow: hidden; margin-top: 0.35rem; }
.share i { display: block; background: var(--accent); }
.share i.rest { background: var(--soft); }
.stores { list-style: none; }
.stores li + li { margin-top: 0.9rem; }
.rule { margin-top: 1rem; border-top: 1px solid var(--line); padding-top: 0.7rem; }
.between { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 0.9rem; }
code { white-space: nowrap; font: 0.92em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }

@media (max-width: 600px) {
  .page { padding-top: 1.4rem; }
  .card { padding: 0.9rem 0.85rem; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .months { gap: 1rem 0; justify-content: space-between; width: 100%; }
  .day { width: 1.28rem; height: 1.28rem; }
  .rows, .rows .small { font-size: 0.8rem; }
  .rows th, .rows td { padding-right: 0.6rem; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10.5pt; }
  .page { max-width: none; padding: 0; }
  .card, figure, .month { break-inside: avoid; }
  h2 { break-after: avoid; }
  details:not([open]) { display: none; }
}
`;
