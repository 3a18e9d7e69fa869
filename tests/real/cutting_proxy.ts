/**
 * A TCP proxy on loopback that breaks a connection, or falls silent, once so many bytes have gone up it, as a dying
 * line does.
 *
 * @module
 */

/** A running proxy. */
export interface CuttingProxy extends AsyncDisposable {
  readonly port: number;
  /** Bytes that may still go up before every connection is broken and new ones are refused; `Infinity` mends it. */
  budget: number;
  /** Whether connections then stay open, without another byte, instead of being broken. */
  hangs: boolean;
  /** Milliseconds that each piece of at most 16 KiB waits on its way up; 0 at first. */
  delayMs: number;
  /** Bytes that went up so far, those of the ssh protocol included. */
  readonly sent: number;
}

/** Starts a proxy to `port`, unbroken at first. */
export function startCuttingProxy(port: number): CuttingProxy {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open = new Set<Deno.Conn>();
  const running = new Set<Promise<void>>();
  let budget = Infinity;
  let sent = 0;
  let hangs = false;
  let delayMs = 0;
  const { promise: mended, resolve: mend } = Promise.withResolvers<void>();

  const closeAll = () => {
    for (const connection of open) {
      try {
        connection.close();
      } catch { /* It is closed. */ }
    }
    open.clear();
  };
  const pass = async (from: Deno.Conn, to: Deno.Conn, up: boolean) => {
    const buffer = new Uint8Array(16 * 1024);
    try {
      for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
        if (up) {
          budget -= count;
          if (budget < 0 && !hangs) return closeAll();
          if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
          sent += count;
        }
        if (budget < 0) await mended;
        for (let done = 0; done < count;) done += await to.write(buffer.subarray(done, count));
      }
      await to.closeWrite();
    } catch { /* Cut. */ }
  };
  const serve = async (client: Deno.Conn) => {
    open.add(client);
    if (budget <= 0 && hangs) await mended;
    if (budget <= 0) return closeAll();
    try {
      const server = await Deno.connect({ hostname: "127.0.0.1", port });
      open.add(server);
      await Promise.all([pass(client, server, true), pass(server, client, false)]);
      for (const connection of [client, server]) {
        if (open.delete(connection)) connection.close();
      }
    } catch {
      closeAll();
    }
  };
  const accepting = (async () => {
    for await (const client of listener) {
      const served = serve(client).finally(() => running.delete(served));
      running.add(served);
    }
  })();

  return {
    port: (listener.addr as Deno.NetAddr).port,
    get budget() {
      return budget;
    },
    set budget(bytes) {
      budget = bytes;
    },
    get hangs() {
      return hangs;
    },
    set hangs(value) {
      hangs = value;
    },
    get delayMs() {
      return delayMs;
    },
    set delayMs(value) {
      delayMs = value;
    },
    get sent() {
      return sent;
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      mend();
      closeAll();
      await accepting.catch(() => {});
      await Promise.all(running);
    },
  };
}
