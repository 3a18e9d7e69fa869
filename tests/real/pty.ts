/** A program on a terminal of its own, by script(1): what it draws is read, what a person would type is typed. */

import { shellQuote } from "../../scripts/core/shell.ts";

const SECONDS_MAX = 180;

/** How to start it. */
export interface PtyOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Default 100. */
  readonly columns?: number;
}

/** A program on a terminal. */
export interface Pty extends AsyncDisposable {
  /** Everything that it wrote so far, control sequences and all. */
  text(): string;
  /** Waits until what it wrote since the last match matches; fails with all of it when it ends or hangs before. */
  until(pattern: RegExp): Promise<string>;
  type(text: string): Promise<void>;
  /** Closes the terminal, as a lost connection does. */
  hangUp(): Promise<void>;
  /** Waits for its end. */
  end(): Promise<{ readonly code: number; readonly text: string }>;
}

/** Starts a program. */
export function startPty(words: readonly string[], { cwd, env, columns = 100 }: PtyOptions): Pty {
  const command = `stty cols ${columns} rows 40; exec ${words.map(shellQuote).join(" ")}`;
  const child = new Deno.Command("script", {
    args: ["--quiet", "--return", "--flush", "--command", command, "/dev/null"],
    cwd,
    clearEnv: true,
    env: { TERM: "xterm-256color", SHELL: "/bin/sh", ...env },
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  let all = "";
  let seen = 0;
  let isOver = false;
  let wake = () => {};
  const reading = (async () => {
    const decoder = new TextDecoder();
    for await (const bytes of child.stdout) {
      all += decoder.decode(bytes, { stream: true });
      wake();
    }
    isOver = true;
    wake();
  })();
  return {
    text: () => all,
    async until(pattern) {
      const deadline = Date.now() + SECONDS_MAX * 1000;
      while (true) {
        const match = pattern.exec(all.slice(seen));
        if (match) {
          seen += match.index + match[0].length;
          return match[0];
        }
        if (isOver || Date.now() > deadline) {
          throw new Error(
            `${pattern} did not come${isOver ? " before the end" : ""}; the terminal says:\n${all}`,
          );
        }
        let timer: ReturnType<typeof setTimeout> | undefined;
        await new Promise<void>((resolve) => {
          wake = resolve;
          timer = setTimeout(resolve, 1000);
        });
        clearTimeout(timer);
      }
    },
    async type(text) {
      await writer.write(new TextEncoder().encode(text));
    },
    async hangUp() {
      child.kill("SIGKILL");
      await child.status;
      await reading;
    },
    async end() {
      const { code } = await child.status;
      await reading;
      return { code, text: all };
    },
    async [Symbol.asyncDispose]() {
      if (!isOver) child.kill("SIGTERM");
      await writer.close().catch(() => {});
      await child.status;
      await reading;
    },
  };
}
