/**
 * A TCP port on loopback that nothing listens on just now. Another process can take it first: be ready to ask again. It lies
 * below those that Linux gives to connections by itself: one of the other tests' would soon have it.
 */
export function freePort(): number {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
