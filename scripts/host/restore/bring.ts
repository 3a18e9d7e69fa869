/**
 * Parts that are elsewhere, brought here when it is known which are read.
 *
 * @module
 */

import type { PartsBySnapshot } from "../../core/snapshot/manifest.ts";
import { type Need, requireRoom } from "../space.ts";
import type { Opening } from "./open_snapshot.ts";

/** Fetches parts that are not here, if they fit with what is made of them: a fetch may take hours. */
export async function bring(
  { host, far }: Opening,
  action: string,
  parts: PartsBySnapshot,
  made: Need,
): Promise<void> {
  const fetched = far?.needFor(parts);
  requireRoom(host.fs, action, [made, ...fetched ? [fetched] : []]);
  await far?.fetch(parts);
}
