/**
 * Parts that are elsewhere, brought here when it is known which are read.
 *
 * @module
 */

import type { PartsBySnapshot } from "../../core/snapshot/manifest.ts";
import { type Need, requireRoom } from "../space.ts";
import type { Opening } from "./open_snapshot.ts";

/** What is read, and what is made of it. */
export interface Bringing {
  /** What the parts are for, as an error says it. */
  readonly action: string;
  readonly parts: PartsBySnapshot;
  readonly made: Need;
}

/** Fetches parts that are not here, if they fit with what is made of them: a fetch may take hours. */
export async function bring(opening: Opening, bringing: Bringing): Promise<void> {
  requireRoomFor(opening, bringing);
  await opening.far?.fetch(bringing.parts);
}

/** @throws {BackupError} (disk) If the parts that are not here do not fit with what is made of them. */
export function requireRoomFor({ host, far }: Opening, { action, parts, made }: Bringing): void {
  requireRoom(host.fs, action, [made, ...far ? [far.needFor(parts)] : []]);
}
