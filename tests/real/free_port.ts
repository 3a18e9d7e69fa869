/** A TCP port on loopback that nothing listens on just now. Another process can take it first: be ready to ask again. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
