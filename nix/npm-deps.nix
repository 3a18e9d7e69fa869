# The npm packages, by the hash in npm-deps.hash: the one step that needs the network.
{ lib, stdenvNoCC, deno, cacert }:
let
  lock = import ./lock.nix;
in
assert lib.assertMsg (lock.platformBound == [ ])
  "deno.lock: ${toString lock.platformBound} differs from system to system, and so would the hash";
stdenvNoCC.mkDerivation {
  name = "hapi-backup-npm-deps";
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../deno.json ./flatten-npm.sh ];
  };
  nativeBuildInputs = [ deno ];
  dontConfigure = true;
  dontBuild = true;
  dontFixup = true; # no shebang may be patched: the output must hold no store path
  env = {
    SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
    DENO_TLS_CA_STORE = "system,mozilla";
    lock = lock.text;
    packages = toString (builtins.length lock.keys);
  };
  impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "NPM_CONFIG_REGISTRY" ];
  installPhase = ''
    printf %s "$lock" > "$TMPDIR/deno.lock"
    bash nix/flatten-npm.sh "$TMPDIR/deno.lock" $out
    # An empty result must not get a hash of its own.
    found=$(find $out -mindepth 1 -maxdepth 2 -type d -name '*?@*' | wc -l)
    if [[ $found != "$packages" ]]; then
      echo "npm-deps: deno.lock names $packages packages, and $found were installed" >&2
      exit 1
    fi
  '';
  outputHashMode = "recursive";
  outputHash = lib.fileContents ./npm-deps.hash; # tests/nix/package_test.ts holds it to deno.lock
}
