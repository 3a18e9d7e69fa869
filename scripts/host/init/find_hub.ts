/**
 * Finds the hub on this machine: where the environment says, in the usual place, or where its systemd unit says.
 *
 * @module
 */

import type { Surroundings } from "../../core/config/config.ts";
import { ifPossible } from "../../core/errors.ts";
import { lstatIfThere, readTextIfThere } from "../fs.ts";
import type { Host } from "../host.ts";

/** A hub's database that is there. */
export interface FoundHub {
  readonly hapiHome: string;
  readonly database: string;
  /** What told of it. */
  readonly by: string;
}

const UNIT = "hapi-hub.service";

/** Every hub that is found, the likeliest first. */
export function findHubs({ fs }: Pick<Host, "fs">, { home, env }: Surroundings): FoundHub[] {
  const usual = `${home}/.hapi`;
  const units = [`${home}/.config/systemd/user`, "/etc/systemd/user", "/etc/systemd/system"].flatMap(
    (folder) => {
      const text = ifPossible(() => readTextIfThere(fs, `${folder}/${UNIT}`));
      if (text === undefined) return [];
      const value = (name: string) => environmentOf(text, name)?.replaceAll("%h", home);
      return [place(value("HAPI_HOME") ?? usual, value("DB_PATH"), `${folder}/${UNIT}`)];
    },
  );
  const found = [
    place(
      env.HAPI_HOME || usual,
      env.DB_PATH,
      env.HAPI_HOME || env.DB_PATH ? "the environment" : "the usual place",
    ),
    place(usual, undefined, "the usual place"),
    ...units,
  ].filter(({ database }) => lstatIfThere(fs, database));
  return found.filter(({ database }, index) =>
    found.findIndex((other) => other.database === database) === index
  );
}

function place(hapiHome: string, database: string | undefined, by: string): FoundHub {
  return { hapiHome, database: database || `${hapiHome}/hapi.db`, by };
}

/** A variable in a unit's `Environment=` lines (systemd.exec(5)); the last one counts. */
function environmentOf(unit: string, name: string): string | undefined {
  const assignments = unit.split("\n").filter((line) => /^\s*Environment\s*=/.test(line))
    .flatMap((line) => line.replace(/^[^=]*=/, "").match(/"[^"]*"|\S+/g) ?? [])
    .map((word) => word.replace(/^"(.*)"$/, "$1"));
  return assignments.findLast((word) => word.startsWith(`${name}=`))?.slice(name.length + 1);
}
