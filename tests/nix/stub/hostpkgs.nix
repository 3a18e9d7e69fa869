# Packages made of the programs of this machine, to build and run ours where no nixpkgs is.
{ lib, system ? "x86_64-linux", denoBin, hostCa ? "/" }:
let
  tools = "/usr/local/bin:/usr/bin:/bin";
  mkDerivation = a: let
    args = builtins.removeAttrs a [ "meta" "passthru" "env" "nativeBuildInputs" ];
    drv = derivation ((a.env or { }) // args // {
      inherit system;
      name = a.name or "${a.pname}-${a.version}";
      builder = "/bin/bash";
      PATH = "${denoBin}:${tools}";
      args = [ "-euc" ''
        runHook() { :; }
        makeWrapper() { # TARGET OUT --set-default NAME VALUE --add-flags F --prefix PATH : P
          mkdir -p "''${2%/*}"
          printf '#!/bin/bash\nexport %s=''${%s-%s}\nexport PATH=%s:$PATH\nexec %s %s "$@"\n' \
            "$4" "$4" "$5" "''${11}" "$1" "$7" > "$2"; chmod +x "$2"; }
        installShellCompletion() { # --cmd NAME --bash F --zsh F --fish F
          install -D -m 444 "$4" $out/share/bash-completion/completions/$2.bash
          install -D -m 444 "$6" $out/share/zsh/site-functions/_$2
          install -D -m 444 "$8" $out/share/fish/vendor_completions.d/$2.fish; }
        installManPage() { install -D -m 444 -t $out/share/man/man''${1##*.} "$1"; }
        export HOME=$TMPDIR
        [ -z "''${src-}" ] || { cp -R --no-preserve=mode "$src" source; cd source; }
        for phase in buildPhase checkPhase installPhase; do eval "''${!phase-}"; done
      '' ];
    });
  in drv // { meta = a.meta or { }; } // (a.passthru or { });
  host = name: { inherit name; outPath = "/usr"; meta.mainProgram = name; };
  runCommand = name: env: script: mkDerivation (env // { inherit name; buildPhase = script; });
  json = lib.types.either (lib.types.attrsOf json) lib.types.raw;
  describe = at: options: lib.concatMap (name: let option = options.${name}; here = at ++ [ name ]; in
    if option._type or "" != "option" then describe here option
    else [ "${lib.concatStringsSep "." here}: ${option.description or (throw "${lib.concatStringsSep "." here} has no description")}\n" ]
      ++ lib.optionals (option.type ? options) (describe (here ++ [ "<name>" ]) option.type.options)) (lib.attrNames options);
  # As in nixpkgs' nixos/lib/utils.nix.
  utils.escapeSystemdExecArgs = lib.concatMapStringsSep " " (arg: lib.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON arg));
  evaluated = node:
    let config = (lib.evalModules { modules = [ ./stubs.nix node ]; specialArgs = { inherit pkgs utils; }; }).config;
    in {
      services = lib.attrNames config.systemd.services;
      failed = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
    };
  pkgs = {
    inherit lib system;
    stdenvNoCC = { inherit mkDerivation; };
    stdenv = { inherit mkDerivation; hostPlatform.system = system; };
    deno = { outPath = builtins.dirOf denoBin; name = "deno"; meta = { mainProgram = "deno"; platforms = [ system ]; }; };
    cacert = { outPath = hostCa; };
    makeBinaryWrapper = null; installShellFiles = null;
    inherit runCommand;
    writeShellScript = name: text: runCommand name { inherit text; passAsFile = [ "text" ]; } ''
      { echo '#!/bin/bash'; cat "$textPath"; } > $out; chmod +x $out'';
    writeShellScriptBin = name: text: runCommand name { inherit text; passAsFile = [ "text" ]; } ''
      mkdir -p $out/bin; { echo '#!/bin/bash'; cat "$textPath"; } > $out/bin/${name}; chmod +x $out/bin/${name}'';
    mkShell = a: mkDerivation { name = "shell"; buildPhase = "touch $out"; inputs = a.packages; };
    # Like nixpkgs' own in what it accepts: attributes merge, everything else must agree.
    formats.json = _: {
      type = json;
      generate = name: value: runCommand name { text = builtins.toJSON value; passAsFile = [ "text" ]; } "cp \"$textPath\" $out";
    };
    # Stands for the documents: the names of all options, each with its description, which must not be missing.
    nixosOptionsDoc = { options, ... }: {
      optionsCommonMark = runCommand "options.md" { text = lib.concatStrings (describe [ ] options); passAsFile = [ "text" ]; } "cp \"$textPath\" $out";
    };
    testers.runNixOSTest = test: mkDerivation {
      name = "vm-test-${test.name}";
      # Every node is evaluated as far as its units and assertions.
      nodes = builtins.toJSON (lib.mapAttrs (_: node: evaluated node) test.nodes);
      script = if lib.isFunction test.testScript then test.testScript { nodes = lib.mapAttrs (_: _: { }) test.nodes; } else test.testScript;
      passAsFile = [ "script" ];
      buildPhase = "python3 -m py_compile \"$scriptPath\"; touch $out";
    };
    inherit utils;
    coreutils = host "install"; rsync = host "rsync"; openssh = host "ssh"; zstd = host "zstd"; rrsync = host "rrsync"; rclone = host "rclone"; findutils = host "find";
    nodejs = host "node"; age = host "age"; sqlite = host "sqlite3"; librsync = host "rdiff"; gnutar = host "tar";
    procps = host "ps"; psmisc = host "fuser"; iproute2 = host "ip"; nixfmt-tree = runCommand "nixfmt-tree" { } "touch $out";
    fuse3 = host "fusermount3"; gnupg = host "gpg"; restic = host "restic"; borgbackup = host "borg"; duplicity = host "duplicity"; jq = host "jq";
    time = host "time"; python3 = host "python3"; zsh = host "zsh"; fish = host "fish"; mandoc = host "mandoc"; chromium = host "chromium"; nix = host "nix"; systemd = host "systemd-analyze"; util-linux = host "unshare";
    runtimeShell = "/bin/bash";
    callPackage = f: a: let g = if lib.isFunction f then f else import f; in g (builtins.intersectAttrs (builtins.functionArgs g) pkgs // a);
  };
in pkgs
