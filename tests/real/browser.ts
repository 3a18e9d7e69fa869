/**
 * Chromium, headless, driven over the DevTools protocol: what a page looks like, what it asks for, what it answers.
 *
 * @module
 */

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--hide-scrollbars",
  "--remote-debugging-port=0",
];

/** How a page is looked at. */
export interface View {
  /** Width in CSS pixels. */
  readonly width: number;
  readonly scheme: "light" | "dark";
  readonly media?: "screen" | "print";
}

/** One page. */
export interface Page {
  /** Shows an address and waits until it is loaded. */
  open(url: string, view: View): Promise<void>;
  /** Runs a program in the page, whatever the page itself may do, and gives its answer. */
  evaluate(expression: string): Promise<unknown>;
  /** The whole page as PNG. */
  screenshot(): Promise<Uint8Array>;
  /** Every address that was asked for since the page was opened. */
  readonly requests: string[];
  /** What the page complained of on the console. */
  readonly complaints: string[];
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

/** Starts Chromium with one empty page. */
export async function startBrowser(): Promise<Page & AsyncDisposable> {
  const profile = Deno.makeTempDirSync({ prefix: "chromium-" });
  const browser = new Deno.Command("chromium", {
    args: [...FLAGS, `--user-data-dir=${profile}`, "about:blank"],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const port = await devtoolsPort(browser.stderr);
  const targets = await (await fetch(`http://127.0.0.1:${port}/json`)).json() as {
    type: string;
    webSocketDebuggerUrl: string;
  }[];
  const target = targets.find(({ type }) => type === "page")!;
  const socket = new WebSocket(target.webSocketDebuggerUrl);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("Chromium does not answer"));
  });

  const requests: string[] = [];
  const complaints: string[] = [];
  const answers = new Map<number, (message: Message) => void>();
  let loaded = () => {};
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data) as Message;
    if (message.id !== undefined) return answers.get(message.id)?.(message);
    if (message.method === "Page.loadEventFired") loaded();
    if (message.method === "Network.requestWillBeSent") {
      requests.push((message.params!.request as { url: string }).url);
    }
    if (message.method === "Log.entryAdded") {
      complaints.push((message.params!.entry as { text: string }).text);
    }
  };
  let count = 0;
  const call = async (method: string, params: Record<string, unknown> = {}) => {
    const id = ++count;
    const answer = new Promise<Message>((resolve) => answers.set(id, resolve));
    socket.send(JSON.stringify({ id, method, params }));
    const { result, error } = await answer;
    answers.delete(id);
    if (error) throw new Error(`${method}: ${error.message}`);
    return result!;
  };
  for (const domain of ["Page", "Network", "Log"]) await call(`${domain}.enable`);

  return {
    requests,
    complaints,
    async open(url, { width, scheme, media = "screen" }) {
      await call("Emulation.setDeviceMetricsOverride", {
        width,
        height: 844,
        deviceScaleFactor: 1,
        mobile: width < 600,
      });
      const features = [{ name: "prefers-color-scheme", value: scheme }];
      await call("Emulation.setEmulatedMedia", { media, features });
      requests.length = complaints.length = 0;
      const load = new Promise<void>((resolve) => loaded = resolve);
      await call("Page.navigate", { url });
      await load;
    },
    async evaluate(expression) {
      const answer = await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
      const { result, exceptionDetails } = answer as {
        result: { value: unknown };
        exceptionDetails?: { exception?: { description?: string }; text: string };
      };
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    },
    async screenshot() {
      const { data } = await call("Page.captureScreenshot", { captureBeyondViewport: true });
      return Uint8Array.from(atob(data as string), (character) => character.charCodeAt(0));
    },
    async [Symbol.asyncDispose]() {
      const ended = browser.status;
      await call("Browser.close").catch(() => {});
      socket.close();
      await ended;
      Deno.removeSync(profile, { recursive: true });
    },
  };
}

/** Reads what Chromium says until it says where it listens; the rest is read and dropped. */
async function devtoolsPort(stderr: ReadableStream<Uint8Array>): Promise<number> {
  let said = "";
  const reader = stderr.pipeThrough(new TextDecoderStream()).getReader();
  while (true) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`Chromium ended: ${said}`);
    said += value;
    const port = /DevTools listening on ws:\/\/127\.0\.0\.1:(\d+)\//.exec(said)?.[1];
    if (port === undefined) continue;
    (async () => {
      while (!(await reader.read()).done);
    })();
    return Number(port);
  }
}
