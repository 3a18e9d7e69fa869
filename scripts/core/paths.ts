/**
 * Absolute paths as text, without looking at the disk.
 *
 * @module
 */

/** The folder that `path` lies in; `/` of what lies there, and of `/` itself. */
export function parentOf(path: string): string {
  const cut = path.lastIndexOf("/");
  return cut <= 0 ? "/" : path.slice(0, cut);
}

/** The last name of a path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** Whether `path` is `folder` or lies in it; both are normalized. */
export function isWithin(path: string, folder: string): boolean {
  return folder === "/" || `${path}/`.startsWith(`${folder}/`);
}

/** Removes `//`, `/./`, `..` and a trailing slash. */
export function normalizePath(path: string): string {
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name === "..") names.pop();
    else names.push(name);
  }
  return "/" + names.join("/");
}

/** Whether a name in the path of a pattern stands for more than itself. */
export function isWild(name: string): boolean {
  return /[*?[\]{}]/.test(name);
}

/** What a name in the path of a pattern is on the disk, where it is not wild: a backslash takes a character as it is. */
export function literalName(name: string): string {
  return name.replace(/\\(.)/g, "$1");
}
