/** What the snapshots of a frozen store give back, as text that is compared line by line. */

import { createHash } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { parseTrust, signersIn } from "../../scripts/core/snapshot/trust.ts";
import { readIdentities } from "../../scripts/host/keys/identity.ts";
import type { Opening } from "../../scripts/host/restore/open_snapshot.ts";
import { makeHost } from "../../scripts/host/steps/step.ts";
import { findSets, isSealed, readSet } from "../../scripts/host/store/store.ts";
import { restore } from "../../scripts/restore.ts";
import { verify } from "../../scripts/verify.ts";

/** What one snapshot is and gives back. */
export interface Restored {
  readonly kind: string;
  readonly suspicions: readonly string[];
  /** Checks of `verify` that fail: of a suspect snapshot, that it is suspect. */
  readonly failing: readonly string[];
  /** Everything that is restored, a line each. */
  readonly tree: readonly string[];
  /** Rows by table of each database. */
  readonly rows: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** Restores and verifies every snapshot of a vector; by `<hub>/<set>/<id>`. */
export async function restoreVector(vector: string): Promise<Record<string, Restored>> {
  const identityText = Deno.readTextFileSync(`${vector}/identity.txt`);
  const host = makeHost({ progress: () => {}, info: () => {}, warn: () => {} });
  const found: Record<string, Restored> = {};
  const scratch = Deno.makeTempDirSync({ prefix: "vector-" });
  try {
    for (const set of findSets(host.fs, `${vector}/store`)) {
      const opening: Opening = {
        ...{
          host,
          set,
          identities: readIdentities(identityText),
          trust: parseTrust(signersIn(identityText)),
        },
      };
      const snapshots = readSet(host.fs, set).filter(isSealed);
      for (const { id, sealed: { seal } } of snapshots) {
        const to = `${scratch}/${set.hub}-${set.set}-${id}`;
        const { files } = await restore(opening, id, to);
        const checks = await verify(opening, snapshots, id, scratch);
        Deno.removeSync(`${scratch}/restored`, { recursive: true });
        found[`${set.hub}/${set.set}/${id}`] = {
          kind: seal.kind,
          suspicions: seal.suspicions.map(({ source, code }) => `${source}: ${code}`),
          failing: checks.filter(({ ok }) => !ok).map(({ name }) => name),
          tree: describeTree(to, new Set(files.map(({ place }) => place))),
          rows: rowsBelow(to),
        };
      }
    }
    return found;
  } finally {
    Deno.removeSync(scratch, { recursive: true });
  }
}

/**
 * Everything below a folder: path, then its mode, its time, and its SHA-256 or where it points.
 *
 * @param saved Places of the manifest: other folders only lead there, and are as new as the restore.
 */
function describeTree(folder: string, saved: ReadonlySet<string>): string[] {
  const lines: string[] = [];
  const times = timesBelow(folder);
  const visit = (path: string) => {
    for (const { name } of Deno.readDirSync(`${folder}/${path}`)) {
      const inside = `${path}${name}`;
      const full = `${folder}/${inside}`;
      const { isDirectory, isSymlink, mode } = Deno.lstatSync(full);
      const stat = `${(mode! & 0o7777).toString(8)} ${times.get(full)}`;
      lines.push(
        isSymlink
          ? `${inside} -> ${Deno.readLinkSync(full)}`
          : isDirectory
          ? saved.has(inside) ? `${inside}/ ${stat}` : `${inside}/`
          : `${inside} ${stat} ${createHash("sha256").update(Deno.readFileSync(full)).digest("hex")}`,
      );
      if (isDirectory) visit(`${inside}/`);
    }
  };
  for (const { name } of Deno.readDirSync(folder)) visit(`${name}/`);
  return lines.sort();
}

/** When each thing below a folder was changed, by its path. Of `find`: Deno 2.8 tells times before 1970 without their sign. */
function timesBelow(folder: string): ReadonlyMap<string, string> {
  const { stdout } = new Deno.Command("find", { args: [folder, "-printf", "%p\\0%T@\\0"] }).outputSync();
  const told = new TextDecoder().decode(stdout).split("\0");
  const timeOf = (seconds: string) => new Date(Math.round(Number(seconds) * 1000)).toISOString();
  return new Map(told.flatMap((path, at) => at % 2 === 0 && path ? [[path, timeOf(told[at + 1]!)]] : []));
}

function rowsBelow(folder: string): Record<string, Record<string, number>> {
  const rows: Record<string, Record<string, number>> = {};
  for (const name of ["hapi.db", "pages.db"]) {
    const path = `${folder}/home/.hapi/${name}`;
    try {
      Deno.lstatSync(path);
    } catch {
      continue;
    }
    using database = new DatabaseSync(path);
    const tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
      .all();
    rows[name] = Object.fromEntries(
      tables.map((
        { name },
      ) => [name, Number(database.prepare(`SELECT count(*) AS n FROM "${name}"`).get()!.n)]),
    );
  }
  return rows;
}
