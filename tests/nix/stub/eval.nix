# Evaluates a module of this flake on the stubs and gives what it sets: its units as text, users, firewall, assertions.
# { root = the checkout; package = what stands for the built package; hub, storage = modules, or null;
#   flake = a flake.nix with nixpkgs and this flake as its inputs, or null }
{ root, denoBin ? "/usr/bin", hostCa ? "/", package ? null, hub ? null, storage ? null, flake ? null }:
let
  lib = import ./minilib.nix;
  pkgs = import ./hostpkgs.nix { inherit lib denoBin hostCa; };
  render = import ./render.nix { inherit lib; };
  built = pkgs.callPackage (root + "/nix/package.nix") { };
  self.packages.x86_64-linux.default = if package == null then built else { type = "derivation"; outPath = package; meta.mainProgram = "hapi-backup"; };
  nixosSystem = { modules }: lib.evalModules {
    modules = [ ./stubs.nix ] ++ modules;
    specialArgs = { inherit pkgs; inherit (pkgs) utils; };
  };
  moduleOf = side: import (root + "/nix/${side}.nix") { inherit self; };
  eval = side: settings: (nixosSystem { modules = [ (moduleOf side) settings ]; }).config;
  told = config: {
    failed = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
    inherit (config) warnings;
    units = lib.mapAttrs' (n: u: lib.nameValuePair "${n}.service" (render.service u)) config.systemd.services
      // lib.mapAttrs' (n: u: lib.nameValuePair "${n}.timer" (render.timer u)) config.systemd.timers;
    userUnits = lib.mapAttrs' (n: u: lib.nameValuePair "${n}.service" (render.service u)) config.systemd.user.services;
    polkit = lib.optionalString config.security.polkit.enable config.security.polkit.extraConfig;
    restartIfChanged = lib.mapAttrs (_: u: u.restartIfChanged) config.systemd.services;
    tmpfiles = config.systemd.tmpfiles.rules;
    users = lib.mapAttrs (_: u: { inherit (u) isSystemUser group useDefaultShell home; keys = u.openssh.authorizedKeys.keys; }) config.users.users;
    groups = lib.attrNames config.users.groups;
    firewall = lib.mapAttrs (_: i: i.allowedTCPPorts) config.networking.firewall.interfaces;
    openssh = { inherit (config.services.openssh) enable openFirewall; };
    tailscale = config.services.tailscale.enable;
    etc = lib.mapAttrs (_: e: "${e.source}") config.environment.etc;
  };
in
{
  inherit built;
  hub = if hub == null then null else told (eval "hub" hub);
  storage = if storage == null then null else told (eval "storage" storage);
  hosts = lib.mapAttrs (_: host: told host.config) ((import flake).outputs {
    nixpkgs.lib = lib // { inherit nixosSystem; };
    hapi-backup.nixosModules = lib.genAttrs [ "hub" "storage" ] moduleOf;
  }).nixosConfigurations;
  # The hub's configuration file, which is checked when it is built.
  hubConfigFile = (eval "hub" hub).services.hapi-backup.configFile;
  storageConfigFile = (eval "storage" storage).environment.etc."hapi-backup/storage.json".source;
}
