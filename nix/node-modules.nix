# The shell lines that lay a node_modules tree out of deno.lock and the flat packages. Packages are copied, not linked:
# modules resolve by their real path.
{ lib, deps }:
let
  lock = import ./lock.nix;
  home = key: "node_modules/.store/${builtins.replaceStrings [ "/" ] [ "+" ] key}/node_modules";
  link = folder: key: let inherit (lock.parse key) name; in ''
    mkdir -p "$(dirname "${folder}/${name}")"
    ln -sr "${home key}/${name}" "${folder}/${name}"
  '';
  place = key: let inherit (lock.parse key) name version; in ''
    mkdir -p "$(dirname "${home key}/${name}")"
    cp -R --no-preserve=mode "${deps}/${name}@${version}" "${home key}/${name}"
  '' + lib.concatMapStrings (link (home key)) (lock.dependenciesOf key);
in
lib.concatMapStrings place lock.keys + lib.concatMapStrings (link "node_modules") lock.roots
