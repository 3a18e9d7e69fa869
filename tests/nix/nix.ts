/**
 * Nix on a machine without nixpkgs: modules are evaluated on stubs, packages are built of this machine's own programs.
 * Everything lies in one folder in /var/tmp, which stays for the next run; nothing goes to /nix.
 *
 * @module
 */

export const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
const CACHE = `${ROOT}/node_modules/.cache`;
/** Not in `node_modules`, where Deno takes no TypeScript from. */
const NIX = `/var/tmp/hapi-backup-nix-${Deno.uid()}`;
const PINNED_DENO = "2.8.3";
const STUB = `${ROOT}/tests/nix/stub`;

/** How a program ended. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, whatever that is. */
export async function ending(
  program: string,
  args: readonly string[],
  options: { readonly env?: Record<string, string>; readonly cwd?: string; readonly clearEnv?: boolean } = {},
): Promise<Ended> {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    ...options,
  })
    .output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Runs a program that must succeed. */
export async function output(...call: Parameters<typeof ending>): Promise<string> {
  const { code, stdout, stderr } = await ending(...call);
  if (code !== 0) throw new Error(`${call[0]} ${call[1].join(" ")} ended with ${code}:\n${stdout}${stderr}`);
  return stdout;
}

/** The environment in which Nix keeps to its folder in the cache. */
export async function nixEnv(): Promise<Record<string, string>> {
  const folder = NIX;
  await Deno.mkdir(`${folder}/etc`, { recursive: true, mode: 0o700 });
  // Where nixpkgs' cacert has its file.
  const certificates = Deno.env.get("SSL_CERT_FILE") ?? "/etc/ssl/certs/ca-certificates.crt";
  await Deno.mkdir(`${folder}/ca/etc/ssl/certs`, { recursive: true });
  await Deno.copyFile(certificates, `${folder}/ca/etc/ssl/certs/ca-bundle.crt`);
  await Deno.writeTextFile(
    `${folder}/etc/nix.conf`,
    "experimental-features = nix-command flakes\nsubstituters =\nbuild-users-group =\nsandbox = false\n",
  );
  return {
    NIX_STORE_DIR: `${folder}/store`,
    NIX_STATE_DIR: `${folder}/var`,
    NIX_LOG_DIR: `${folder}/var/log`,
    NIX_CONF_DIR: `${folder}/etc`,
    NIX_REMOTE: "local",
    HOME: folder,
    DENO_BIN_DIR: denoFolder(),
  };
}

/** A folder `…/bin` with this Deno in it, as packages have it. */
function denoFolder(deno = Deno.execPath()): string {
  const folder = `${NIX}/programs${deno.replace(/[^A-Za-z0-9.-]+/g, "-")}/bin`;
  Deno.mkdirSync(folder, { recursive: true });
  try {
    Deno.symlinkSync(deno, `${folder}/deno`);
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
  return folder;
}

/** What a module sets, as `stub/eval.nix` tells it. */
export interface Told {
  readonly failed: readonly string[];
  readonly warnings: readonly string[];
  readonly units: Readonly<Record<string, string>>;
  /** Units of the operator's own manager. */
  readonly userUnits: Readonly<Record<string, string>>;
  /** Rules of polkit, or nothing where it is off. */
  readonly polkit: string;
  readonly restartIfChanged: Readonly<Record<string, boolean>>;
  readonly tmpfiles: readonly string[];
  readonly users: Readonly<
    Record<
      string,
      {
        isSystemUser: boolean;
        group: string;
        useDefaultShell: boolean;
        home: string;
        keys: readonly string[];
      }
    >
  >;
  readonly groups: readonly string[];
  readonly firewall: Readonly<Record<string, readonly number[]>>;
  readonly openssh: { readonly enable: boolean; readonly openFirewall: boolean };
  readonly tailscale: boolean;
  readonly etc: Readonly<Record<string, string>>;
}

/** The operator in every evaluation. */
const OPERATOR =
  `{ users.users.op = { isNormalUser = true; home = "/home/op"; }; networking.hostName = "home"; }`;

/** Evaluates a module with these settings, written in Nix. Builds nothing; the package is called /pkg. */
export const evaluate = (side: "hub" | "storage", settings: string): Promise<Told> =>
  told(`${side} = { ... }: { imports = [ ${OPERATOR} (${settings}) ]; };`, side);

/** Evaluates the `nixosConfigurations` of a flake that has nixpkgs and this flake as its inputs. */
export const evaluateHosts = (flake: string): Promise<Readonly<Record<string, Told>>> =>
  told(`flake = ${flake};`, "hosts");

async function told<T>(given: string, wanted: string): Promise<T> {
  const expression = `(import ${STUB}/eval.nix { root = ${ROOT}; package = "/pkg"; ${given} }).${wanted}`;
  const args = ["--eval", "--strict", "--json", "--store", "dummy://", "--expr", expression];
  return JSON.parse(await output("nix-instantiate", args));
}

/** Builds what an expression over `stub/eval.nix` gives, and tells its path. */
export async function build(expression: string, deno = Deno.execPath()): Promise<string> {
  const given = `{ root = ${ROOT}; denoBin = "${denoFolder(deno)}"; hostCa = "${NIX}/ca"; }`;
  const full = `let r = args: import ${STUB}/eval.nix (${given} // args); in ${expression}`;
  const out = await output("nix-build", ["--no-out-link", "--expr", full], { env: await nixEnv() });
  return out.trim();
}

/** The Deno of the pinned nixpkgs: `HAPI_BACKUP_DENO_28` names it, or npm installs it once. */
export async function pinnedDeno(): Promise<string> {
  const given = Deno.env.get("HAPI_BACKUP_DENO_28");
  if (given !== undefined) return given;
  const folder = `${CACHE}/deno-${PINNED_DENO}`;
  const deno = `${folder}/node_modules/deno/deno`;
  const works = async () => (await ending(deno, ["--version"]).catch(() => ({ code: 1 }))).code === 0;
  if (await works()) return deno;
  await Deno.mkdir(folder, { recursive: true });
  await output("npm", ["install", "--prefix", folder, "--no-audit", "--no-fund", `deno@${PINNED_DENO}`], {
    cwd: folder,
  });
  if (!await works()) throw new Error(`Cannot use Deno ${PINNED_DENO}: npm brought none`);
  return deno;
}
