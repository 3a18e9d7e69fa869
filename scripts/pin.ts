/**
 * Pins a snapshot, so that retention never removes it, or takes a pin back.
 *
 * @module
 */

import { textOf } from "./core/command_line/option_flags.ts";
import { BackupError } from "./core/errors.ts";
import { formatTable } from "./core/format.ts";
import type { StorageConfig } from "./core/storage_host/storage_config.ts";
import type { Host } from "./host/host.ts";
import { serveStep } from "./host/steps/step.ts";
import { snapshotNamed } from "./host/storage_host/inventory.ts";
import { openLedger } from "./host/storage_host/ledger.ts";
import { requiredText, scopeOf, type StorageJob } from "./host/storage_host/storage_job.ts";

/** What to pin. */
export interface PinChange {
  readonly hub: string;
  readonly set: string;
  readonly id: string;
  /** Why it is kept; undefined takes the pin back. */
  readonly why: string | undefined;
}

/** One pinned snapshot. */
export interface Pin {
  readonly hub: string;
  readonly set: string;
  readonly id: string;
  readonly why: string;
}

/**
 * Sets or takes back a pin, where that is asked for.
 *
 * @returns All pins afterwards.
 * @throws {BackupError} (usage) If there is no such snapshot.
 */
export function pin(host: Host, config: StorageConfig, change: PinChange | undefined): Pin[] {
  using ledger = openLedger(host.fs, config.stateFolder);
  if (change) {
    const { hub, set, id, known } = snapshotNamed(host, config, ledger, change);
    if (known?.state !== "present" && known?.state !== "unreadable") {
      throw new BackupError(`Cannot pin ${hub}/${set}/${id}: there is no such snapshot here`, {
        kind: "usage",
        hint: `\`hapi-backup storage list --hub ${hub} --set ${set}\` shows those that are`,
      });
    }
    ledger.setPin(known.key, change.why);
  }
  return ledger.sets().flatMap(({ key, hub, set }) =>
    ledger.snapshots(key).flatMap(({ id, pin }) => pin === undefined ? [] : [{ hub, set, id, why: pin }])
  );
}

serveStep<StorageJob>(import.meta, ({ config, options }, { host, print }) => {
  const id = textOf(options.id);
  if (id === undefined && (options.remove === true || options.why !== undefined)) {
    throw new BackupError(
      `Cannot ${options.remove === true ? "take back a pin" : "pin"}: no snapshot is named`,
      {
        kind: "usage",
        hint:
          "name it by its id: `hapi-backup pin` lists what is pinned, `hapi-backup storage list` what is there",
      },
    );
  }
  const scope = scopeOf(options);
  const change = id === undefined ? undefined : {
    id,
    hub: requiredText("pin", options, "hub"),
    set: requiredText("pin", options, "set"),
    why: options.remove === true ? undefined : requiredText("pin", options, "why"),
  };
  const all = pin(host, config, change);
  const pins = id !== undefined
    ? all
    : all.filter(({ hub, set }) => (scope.hub ?? hub) === hub && (scope.set ?? set) === set);
  const rows = pins.map(({ hub, set, id, why }) => [`${hub}/${set}`, id, why]);
  print(
    options.json === true
      ? JSON.stringify({ ok: true, pins })
      : rows.length === 0
      ? "nothing is pinned"
      : formatTable([["SET", "PINNED", "WHY"], ...rows]),
  );
});
