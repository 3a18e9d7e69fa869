/**
 * The doctor's looks at what is saved, and at the room that the next run needs.
 *
 * @module
 */

import type { Config, SetConfig, Source } from "../../core/config/config.ts";
import { readableRoot } from "../../core/config/named_paths.ts";
import { reasonOf } from "../../core/errors.ts";
import { formatBytes, formatCounted, formatMode } from "../../core/format.ts";
import type { SetName } from "../../core/names.ts";
import { shellQuote } from "../../core/shell.ts";
import { about, type Finding, remedyOf } from "../../core/status/finding.ts";
import { lstatIfThere } from "../fs.ts";
import type { Host } from "../host.ts";
import { requireDatabase } from "../sqlite.ts";

/** Every source of a set, opened as a run would. */
export function checkSources(host: Host, setName: SetName, set: SetConfig): Finding[] {
  const absent: string[] = [];
  const findings = set.sources.flatMap((source): Finding[] => {
    const said = about("Sources", `${setName}: ${source.name}`);
    try {
      const root = readableRoot(source);
      if (!lstatIfThere(host.fs, root)) {
        if (source.required) {
          const remedy = "check the path; HAPI_HOME and DB_PATH move the defaults";
          return [said.fail("source", `${root} is not there`, remedy)];
        }
        absent.push(source.name);
        return [];
      }
      return [lookAt(host, source, root, said)];
    } catch (error) {
      return [said.fail("source", reasonOf(error), remedyOf(error))];
    }
  });
  if (absent.length === 0) return findings;
  return [...findings, about("Sources", `${setName}: not on this hub`).ok(absent.join(", "))];
}

/** Opens a source as a run would, and says what it is. */
function lookAt(host: Host, source: Source, root: string, { ok, warn }: ReturnType<typeof about>): Finding {
  const { fs } = host;
  if (source.kind === "sqlite") {
    const { wal } = requireDatabase(fs, root);
    const size = formatBytes(fs.stat(root).bytes);
    if (wal) return ok(`${size}, journal mode WAL`);
    return warn(
      `${size}, journal mode is not WAL: a backup holds up its writers, and they hold it up`,
      "the hub turns WAL on when it starts; is this its database?",
    );
  }
  const { type, mode, bytes } = fs.stat(root);
  if (type === "folder") return ok(`${formatCounted(fs.readDir(root).length, "name")} in ${root}`);
  using file = fs.open(root, { read: true });
  file.read(new Uint8Array(1));
  if (source.secret && (mode & 0o077) !== 0) {
    return warn(`others can read this secret (mode ${formatMode(mode)})`, `chmod 600 ${shellQuote(root)}`);
  }
  return ok(formatBytes(bytes));
}

/** The next run stages an image of each database, and may store it whole. */
export function checkSpace(host: Host, config: Config): Finding[] {
  const { fs } = host;
  const bytes = [...config.sets.values()].flatMap(({ sources }) => sources)
    .filter(({ kind }) => kind === "sqlite")
    .flatMap(({ path }) => ["", "-wal"].flatMap((end) => lstatIfThere(fs, path + end)?.bytes ?? []))
    .reduce((sum, size) => sum + size, 0);
  const needed = 2 * bytes + config.limits.freeBytesMin;
  const { ok, fail } = about("Sources", "space for the next run");
  const places = [config.stateFolder, config.store].filter((path) => lstatIfThere(fs, path));
  const free = Math.min(...places.flatMap((path) => fs.freeBytes(path) ?? []));
  if (!Number.isFinite(free)) return [ok(`it may need ${formatBytes(needed)}`)];
  return [
    free >= needed ? ok(`${formatBytes(free)} free, ${formatBytes(needed)} may be needed`) : fail(
      "disk",
      `${formatBytes(free)} free, and ${formatBytes(needed)} may be needed`,
      `free some space, or move "stateFolder" and "store"`,
    ),
  ];
}
