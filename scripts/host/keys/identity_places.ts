/**
 * Where on a hub an identity may have been left: files with the look of one in the places where people put them.
 *
 * @module
 */

import { configFolder, type Surroundings } from "../../core/config/config.ts";
import { ifPossible } from "../../core/errors.ts";
import type { Host } from "../host.ts";

const FILES_MAX = 500;

/** Paths of files that may hold an identity. Only names are looked at here. */
export function identityPlaces({ fs }: Pick<Host, "fs">, around: Surroundings): string[] {
  const { home } = around;
  const folders = [
    configFolder(around),
    home,
    `${home}/Desktop`,
    `${home}/Downloads`,
    `${home}/Documents`,
    `${home}/.config/age`,
    `${home}/.config/sops/age`,
    `${home}/.age`,
    "/tmp",
  ];
  const found = folders.flatMap((folder) =>
    (ifPossible(() => fs.readDir(folder)) ?? [])
      .filter(({ name, type }) => type === "file" && looksLikeOne(name)).map(({ name }) =>
        `${folder}/${name}`
      )
  );
  return [...new Set(found)].slice(0, FILES_MAX);
}

const looksLikeOne = (name: string): boolean =>
  /\.(txt|key|keys|age|agekey|html?|md)$/i.test(name) || /identity|secret|age-?key/i.test(name);
