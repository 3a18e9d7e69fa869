/** Folders and files of tests. */

import { createHash } from "node:crypto";

/** Runs a test in a new temporary folder, which is removed afterwards. */
export async function inTempDir(test: (dir: string) => void | Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "hapi-backup-test-" });
  try {
    await test(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** The names in a folder, sorted. */
export const namesIn = (folder: string): string[] =>
  [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

/** Every file below `folder` with its content as hex of its SHA-256, sorted by path; hidden ones too. */
export async function filesBelow(folder: string, prefix = ""): Promise<[string, string][]> {
  const found: [string, string][] = [];
  for await (const entry of Deno.readDir(folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) found.push(...await filesBelow(path, `${prefix}${entry.name}/`));
    else {
      const content = entry.isSymlink ? "a link" : await Deno.readFile(path);
      found.push([`${prefix}${entry.name}`, createHash("sha256").update(content).digest("hex")]);
    }
  }
  return found.sort(([a], [b]) => a < b ? -1 : 1);
}

/** Copies a folder with all that is in it. */
export function copySync(from: string, to: string): void {
  Deno.mkdirSync(to, { recursive: true });
  for (const { name, isDirectory } of Deno.readDirSync(from)) {
    if (isDirectory) copySync(`${from}/${name}`, `${to}/${name}`);
    else Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
  }
}
