/**
 * The parts of a report that say what is safe: what is off this machine, what was proven, what is stored here.
 *
 * @module
 */

import { formatBytes, formatCount, formatDuration } from "../format.ts";
import { type Html, markup } from "../html.ts";
import { timeOfSnapshotId } from "../names.ts";
import type { Zone } from "../zone.ts";
import { calendar, SHIPPING_DAYS } from "./report_calendar.ts";
import type { ReportData, ReportReceipt } from "./report_data.ts";
import { MONTH_MS } from "./report_growth.ts";
import { cell, moment, table, verdict } from "./report_table.ts";

const ROWS_MAX = 12;

/** What each destination holds, and the days on which it was sent there. */
export function shippingSection({ destinations, shipping, at, zone }: ReportData): Html {
  const names = destinations.map(({ name }) => name).join(", ");
  const held = destinations.flatMap(({ sets, ...destination }) =>
    sets.map((set) => ({ ...destination, ...set }))
  );
  const rows = held.map(({ name, kind, offBox, set, newest, waiting, receipt }) => [
    cell(name, `${kind}, set ${set}`),
    markup`${newest ? moment(zone, timeOfSnapshotId(newest)) : verdict(false, "nothing")}${
      receipt && receiptLines(zone, receipt)
    }${!offBox && markup`<br>${verdict(false, "on this machine's own disk")}`}`,
    verdict(waiting === 0, waiting === 0 ? "none" : formatCount(waiting)),
  ]);
  return markup`<section aria-labelledby="shipping">
<h2 id="shipping">Off this machine</h2>
${
    destinations.length === 0
      ? markup`<p>${verdict(false, "Nothing is off this machine: no destination is configured.")}</p>`
      : held.length === 0
      ? markup`<p class="soft">${names}: there is nothing to hold yet.</p>`
      : markup`<div class="card">${
        table("What each destination holds", ["Destination", "Newest held", "Waiting"], rows)
      }</div>`
  }
${shipping.length > 0 && calendar("Days of shipping", shipping, zone.dayOf(at), SHIPPING_DAYS)}
</section>`;
}

function receiptLines(zone: Zone, { time, verified, problems }: ReportReceipt): Html {
  const said = verified
    ? `verified there up to ${zone.minute(timeOfSnapshotId(verified))}`
    : "nothing verified there";
  return markup`<br><span class="small">${
    verdict(verified !== undefined, said)
  }<span class="soft">, as it said on ${zone.minute(time)}</span></span>${
    problems.map((problem) => markup`<br>${verdict(false, problem)}`)
  }`;
}

/** Restore drills, and proofs of the keys. */
export function proofSection({ drills, proofs, zone }: ReportData): Html {
  const none = (title: string, command: string) =>
    markup`<h3>${title}</h3><p class="soft small">None is noted. <code>${command}</code> makes one.</p>`;
  const drillRows = drills.slice(-ROWS_MAX).reverse().map(({ time, set, snapshot, from, seconds, ok }) => [
    moment(zone, time),
    cell(`${set}, ${zone.minute(timeOfSnapshotId(snapshot))}`, `from ${from}`),
    cell(verdict(ok, ok ? "proven" : "FAILED"), `in ${formatDuration(seconds)}`),
  ]);
  const proofRows = proofs.slice(-ROWS_MAX).reverse().map(({ time, of, chains, failed, ok, isDrill }) => [
    moment(zone, time),
    markup`<span class="small">${of}</span>`,
    verdict(
      ok,
      isDrill
        ? "opened one chain, in a drill"
        : ok
        ? `opens every chain that is made for it (${formatCount(chains)})`
        : `${formatCount(failed)} of ${formatCount(chains)} NOT opened`,
    ),
  ]);
  return markup`<section aria-labelledby="proofs">
<h2 id="proofs">Proof that it can be restored</h2>
<div class="pair">
<div class="card">${
    drills.length === 0 ? none("Restore drills", "hapi-backup verify") : table(
      `Restore drills, ${formatCount(drills.length)} in all`,
      ["When", "Snapshot", "Outcome"],
      drillRows,
    )
  }</div>
<div class="card">${
    proofs.length === 0 ? none("Proofs of the keys", "hapi-backup keys prove --identity FILE") : table(
      `Proofs of the keys, ${formatCount(proofs.length)} in all`,
      ["When", "Store", "Outcome"],
      proofRows,
    )
  }</div>
</div>
</section>`;
}

/** What the local store takes. */
export function storageSection({ sets, freeBytes, at }: ReportData): Html {
  const taken = sets.filter(({ local }) => local.snapshots > 0);
  const most = Math.max(1, ...taken.map(({ local }) => local.fullBytes + local.otherBytes));
  const share = (name: string, bytes: number) =>
    bytes > 0 && markup`<i class="${name}" style="width:${Math.round(bytes / most * 10_000) / 100}%"></i>`;
  const items = taken.map(({ name, local, moments }) => {
    const { snapshots, fullBytes, otherBytes } = local;
    const recent = moments.filter(({ id }) => at.getTime() - timeOfSnapshotId(id).getTime() <= MONTH_MS)
      .reduce((sum, { bytes }) => sum + bytes, 0);
    return markup`<li>
<div class="between"><span>${name} <b>${formatBytes(fullBytes + otherBytes)}</b> in ${
      snapshots === 1 ? "one snapshot" : `${formatCount(snapshots)} snapshots`
    }</span><span class="soft small">${formatBytes(recent)} stored in the last 30 days</span></div>
<div class="share" aria-hidden="true">${share("", fullBytes)}${share("rest", otherBytes)}</div>
<p class="keys small soft"><span><i class="key"></i>${
      formatBytes(fullBytes)
    } in fulls</span> <span><i class="key rest"></i>${
      formatBytes(otherBytes)
    } in what builds on them</span></p>
</li>`;
  });
  return markup`<section aria-labelledby="storage">
<h2 id="storage">Stored on this machine</h2>
${
    items.length === 0 ? markup`<p class="soft">Nothing yet.</p>` : markup`<div class="card">
<ul class="stores">${items}</ul>
${
      freeBytes !== undefined &&
      markup`<p class="small soft rule">${formatBytes(freeBytes)} are free on that disk.</p>`
    }
</div>`
  }
</section>`;
}
