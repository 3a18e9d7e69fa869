{
  description = "hapi-backup: backs up a HAPI hub: consistent, encrypted, off the machine, proven restorable";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      eachSystem = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      packageFor = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.default;
    in
    {
      packages = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
        # The options of both modules, as Markdown.
        docs = import ./nix/docs.nix { inherit self lib pkgs; };
      });

      # `nix run .#VERB -- ARGUMENTS`; .#default takes the verb as its first argument.
      apps = eachSystem (pkgs:
        let
          package = packageFor pkgs;
          app = program: { type = "app"; inherit program; meta.description = package.meta.description; };
        in
        lib.genAttrs package.verbs (verb: app "${pkgs.writeShellScript "hapi-backup-${verb}" ''
          exec ${package}/bin/hapi-backup ${verb} "$@"
        ''}") // { default = app "${package}/bin/hapi-backup"; });

      nixosModules = {
        hub = import ./nix/hub.nix { inherit self; };
        storage = import ./nix/storage.nix { inherit self; };
        default = { imports = [ self.nixosModules.hub self.nixosModules.storage ]; };
      };

      # All that the tests need.
      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            deno nodejs rsync rrsync openssh rclone zstd age sqlite librsync gnutar findutils procps psmisc iproute2
            nix systemd util-linux time python3 jq gnupg fuse3 restic borgbackup duplicity zsh fish mandoc chromium
          ];
        };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);

      checks = eachSystem (pkgs: {
        package = packageFor pkgs;
        docs = self.packages.${pkgs.stdenv.hostPlatform.system}.docs;
        vm = import ./nix/vm-test.nix { inherit self pkgs; };
      });
    };
}
