/**
 * Measures what an increment between two database images costs.
 *
 *     deno run --allow-all tests/bench/delta_bench.ts BASE NEXT
 *
 * @module
 */

import { createHash } from "node:crypto";
import { constants, zstdCompressSync } from "node:zlib";
import { comparePages, type ImageReader } from "../../scripts/core/snapshot/page_changes.ts";
import { encodeChanges } from "../../scripts/core/snapshot/page_diff.ts";
import { Patcher } from "../../scripts/core/snapshot/patch.ts";

function openImage(path: string): ImageReader {
  const file = Deno.openSync(path);
  return {
    bytes: file.statSync().size,
    readAt(buffer, position) {
      file.seekSync(position, Deno.SeekMode.Start);
      for (let done = 0; done < buffer.length;) {
        const read = file.readSync(buffer.subarray(done));
        if (read === null) {
          throw new Error(`Cannot read ${path}: it ends before byte ${position + buffer.length}`);
        }
        done += read;
      }
    },
  };
}

/** Page size from the header (https://sqlite.org/fileformat2.html#the_database_header). */
function pageBytesOf(image: ImageReader): number {
  const header = new Uint8Array(2);
  image.readAt(header, 16);
  const stored = header[0]! * 256 + header[1]!;
  return stored === 1 ? 65536 : stored;
}

/** The most memory this process ever held, in MB (Linux). */
function peakMegabytes(): string {
  const line = /VmHWM:\s+(\d+) kB/.exec(Deno.readTextFileSync("/proc/self/status"));
  return line === null ? "?" : (Number(line[1]) / 1000).toFixed(0);
}

function timed<Result>(name: string, work: () => Result): Result {
  const start = performance.now();
  const result = work();
  console.log(`${name}: ${((performance.now() - start) / 1000).toFixed(2)} s, peak ${peakMegabytes()} MB`);
  return result;
}

if (import.meta.main) {
  const [basePath, nextPath] = Deno.args;
  if (basePath === undefined || nextPath === undefined) throw new Error("usage: delta_bench.ts BASE NEXT");
  const base = openImage(basePath);
  const next = openImage(nextPath);
  const pageBytes = pageBytesOf(next);
  console.log(`peak before: ${peakMegabytes()} MB`);

  const changes = timed("compare, with SHA-256 of both", () => {
    const baseHash = createHash("sha256");
    const nextHash = createHash("sha256");
    const found = comparePages(base, next, {
      pageBytes,
      onBase: (chunk) => baseHash.update(chunk),
      onNext: (chunk) => nextHash.update(chunk),
    });
    baseHash.digest();
    nextHash.digest();
    return found;
  });
  const parts: Uint8Array<ArrayBuffer>[] = [];
  timed("encode", () => parts.push(...encodeChanges(base, next, changes)));

  timed("read the delta, and what it copies", () => {
    const image = { ...base, writeAt() {}, truncate() {} };
    const patch = new Patcher(image, { readAt() {}, writeAt() {} }).start(next.bytes);
    for (const part of parts) patch.push(part);
  });
  const delta = new Uint8Array(await new Blob(parts).arrayBuffer());
  console.log(`raw: ${delta.length} bytes`);
  for (const level of [3, 9, 12, 15, 19]) {
    const params = { [constants.ZSTD_c_compressionLevel]: level };
    timed(
      `zstd -${level}`,
      () => console.log(`zstd -${level}: ${zstdCompressSync(delta, { params }).length} bytes`),
    );
  }
}
