/**
 * The doctor's looks at what is saved, and at the room that the next run needs.
 *
 * @module
 */

import type { Config, SetConfig, Source } from "../../core/config/config.ts";
import { reasonOf } from "../../core/errors.ts";
import { formatBytes, formatMode } from "../../core/format.ts";
import type { SetName } from "../../core/names.ts";
import { readableRoot } from "../../core/sandbox/permissions.ts";
import { shellQuote } from "../../core/shell.ts";
import { type Finding, remedyOf } from "../../core/status/finding.ts";
import { lstatIfThere } from "../fs.ts";
import type { Host } from "../host.ts";
import { requireDatabase } from "../sqlite.ts";

/** Every source of a set, opened as a run would. */
export function checkSources(host: Host, setName: SetName, set: SetConfig): Finding[] {
  const absent: string[] = [];
  const findings = set.sources.flatMap((source): Finding[] => {
    const about = { group: "Sources" as const, name: `${setName}: ${source.name}` };
    const fail = (detail: string, remedy: string): Finding => ({
      ...about,
      state: "fail",
      detail,
      remedy,
      kind: "source",
    });
    try {
      const root = readableRoot(source);
      if (!lstatIfThere(host.fs, root)) {
        if (source.required) {
          return [fail(`${root} is not there`, "check the path; HAPI_HOME and DB_PATH move the defaults")];
        }
        absent.push(source.name);
        return [];
      }
      const detail = lookAt(host, source, root);
      return [typeof detail === "string" ? { ...about, state: "ok", detail } : { ...about, ...detail }];
    } catch (error) {
      return [fail(reasonOf(error), remedyOf(error))];
    }
  });
  if (absent.length === 0) return findings;
  const about = { group: "Sources" as const, name: `${setName}: not on this hub` };
  return [...findings, { ...about, state: "ok", detail: absent.join(", ") }];
}

/** Opens a source as a run would. @returns What it is, or what to say against it. */
function lookAt(
  host: Host,
  source: Source,
  root: string,
): string | Pick<Finding, "state" | "detail" | "remedy"> {
  const { fs } = host;
  if (source.kind === "sqlite") {
    const { wal } = requireDatabase(fs, root);
    const size = formatBytes(fs.stat(root).bytes);
    if (wal) return `${size}, journal mode WAL`;
    return {
      state: "warn",
      detail: `${size}, journal mode is not WAL: a backup holds up its writers, and they hold it up`,
      remedy: "the hub turns WAL on when it starts; is this its database?",
    };
  }
  const { type, mode, bytes } = fs.stat(root);
  if (type === "folder") {
    return `${fs.readDir(root).length} entries in ${root}`;
  }
  using file = fs.open(root, { read: true });
  file.read(new Uint8Array(1));
  if (source.secret && (mode & 0o077) !== 0) {
    return {
      state: "warn",
      detail: `others can read this secret (mode ${formatMode(mode)})`,
      remedy: `chmod 600 ${shellQuote(root)}`,
    };
  }
  return formatBytes(bytes);
}

/** The next run stages an image of each database, and may store it whole. */
export function checkSpace(host: Host, config: Config): Finding[] {
  const { fs } = host;
  const bytes = [...config.sets.values()].flatMap(({ sources }) => sources)
    .filter(({ kind }) => kind === "sqlite")
    .flatMap(({ path }) => ["", "-wal"].flatMap((end) => lstatIfThere(fs, path + end)?.bytes ?? []))
    .reduce((sum, size) => sum + size, 0);
  const needed = 2 * bytes + config.limits.freeBytesMin;
  const about = { group: "Sources" as const, name: "space for the next run" };
  const places = [config.stateFolder, config.store].filter((path) => lstatIfThere(fs, path));
  const free = Math.min(...places.flatMap((path) => fs.freeBytes(path) ?? []));
  if (!Number.isFinite(free)) {
    return [{ ...about, state: "ok", detail: `it may need ${formatBytes(needed)}` }];
  }
  return [
    free >= needed
      ? { ...about, state: "ok", detail: `${formatBytes(free)} free, ${formatBytes(needed)} may be needed` }
      : {
        ...about,
        state: "fail",
        detail: `${formatBytes(free)} free, and ${formatBytes(needed)} may be needed`,
        remedy: `free some space, or move "stateFolder" and "store"`,
        kind: "disk",
      },
  ];
}
