# hapi-backup: its sources and npm packages beside one wrapper per verb, which grants that verb's permissions and no
# more. `bin/hapi-backup` only picks the wrapper.
{ lib, stdenvNoCC, callPackage, deno, installShellFiles, makeBinaryWrapper, runtimeShell, rsync, openssh, rclone, findutils }:
let
  manifest = lib.importJSON ../deno.json;
  table = lib.importJSON ./verbs.json;
  deps = callPackage ./npm-deps.nix { };
  programs = lib.makeBinPath [ rsync openssh rclone findutils ];
  flagsOf = verb: lib.concatStringsSep " "
    (table.installed ++ table.always ++ [ "--allow-env=${lib.concatStringsSep "," table.env}" ] ++ table.verbs.${verb});
  verbs = lib.attrNames table.verbs;
  environment = lib.concatStringsSep " "
    (lib.mapAttrsToList (name: value: "--set-default ${name} ${value}") table.environment);
  wrap = verb: ''
    makeWrapper ${lib.getExe deno} $out/libexec/hapi-backup/${verb} ${environment} \
      --add-flags "run ${flagsOf verb} $out/lib/hapi-backup/mod.ts" \
      --prefix PATH : ${programs}
  '';
in
stdenvNoCC.mkDerivation {
  pname = "hapi-backup";
  version = manifest.version;
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../deno.json ../mod.ts ../scripts ./units.json ./verbs.json ];
  };
  nativeBuildInputs = [ makeBinaryWrapper installShellFiles deno ];
  dontConfigure = true;
  buildPhase = ''
    runHook preBuild
    ${import ./node-modules.nix { inherit lib deps; }}
    runHook postBuild
  '';
  doCheck = true;
  checkPhase = ''
    runHook preCheck
    # Every module is loaded, so that no package is missing; what they do, and their types, the tests have checked.
    echo 'for (const script of Deno.args) await import("./" + script);' > load.ts
    HOME=$TMPDIR DENO_DIR=$TMPDIR/deno deno run ${lib.concatStringsSep " " (table.installed ++ table.always)} \
      --allow-env=${lib.concatStringsSep "," table.env} --allow-sys=hostname --allow-read load.ts mod.ts scripts/*.ts
    rm load.ts
    runHook postCheck
  '';
  installPhase = ''
    runHook preInstall
    mkdir -p $out/lib/hapi-backup $out/libexec/hapi-backup $out/bin
    cp -R . $out/lib/hapi-backup
    ${lib.concatMapStrings wrap verbs}
    cat > $out/bin/hapi-backup <<END
    #!${runtimeShell}
    case "\''${1-}" in
      ${lib.concatStringsSep "|" verbs}) exec $out/libexec/hapi-backup/"\$1" "\$@" ;;
      *) exec $out/libexec/hapi-backup/config "\$@" ;; # --help, --version and what is no verb
    esac
    END
    chmod +x $out/bin/hapi-backup
    export HOME=$TMPDIR DENO_DIR=$TMPDIR/deno
    for shell in bash zsh fish; do $out/bin/hapi-backup completions $shell > $TMPDIR/$shell; done
    installShellCompletion --cmd hapi-backup --bash $TMPDIR/bash --zsh $TMPDIR/zsh --fish $TMPDIR/fish
    $out/bin/hapi-backup man > hapi-backup.1
    installManPage hapi-backup.1
    runHook postInstall
  '';
  passthru = { inherit deps verbs; };
  meta = {
    description = "Backs up a HAPI hub: consistent, encrypted, off the machine, proven restorable";
    mainProgram = "hapi-backup";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
