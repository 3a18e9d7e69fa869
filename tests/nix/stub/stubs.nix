# Declarations of the few NixOS options our modules set. Own text; not NixOS'.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  value = with types; nullOr (oneOf [ bool int float str path package ]);
  section = types.attrsOf (types.either value (types.listOf value));
  strs = mkOption { type = types.listOf types.str; default = [ ]; };
  common = {
    description = mkOption { type = types.str; default = ""; };
    wantedBy = strs; requiredBy = strs; wants = strs; requires = strs; after = strs; before = strs;
    unitConfig = mkOption { type = section; default = { }; };
    enable = mkOption { type = types.bool; default = true; };
  };
  service.options = common // {
    serviceConfig = mkOption { type = section; default = { }; };
    environment = mkOption { type = section; default = { }; };
    path = mkOption { type = types.listOf (types.either types.package types.str); default = [ ]; };
    restartIfChanged = mkOption { type = types.bool; default = true; };
    startAt = strs;
  };
  timer.options = common // { timerConfig = mkOption { type = section; default = { }; }; };
  user = { name, ... }: { options = {
    name = mkOption { type = types.str; default = name; };
    isSystemUser = mkOption { type = types.bool; default = false; };
    group = mkOption { type = types.str; default = ""; };
    home = mkOption { type = types.path; default = "/var/empty"; };
    createHome = mkOption { type = types.bool; default = false; };
    useDefaultShell = mkOption { type = types.bool; default = false; };
    uid = mkOption { type = types.nullOr types.int; default = null; };
    linger = mkOption { type = types.bool; default = false; };
    isNormalUser = mkOption { type = types.bool; default = false; };
    shell = mkOption { type = types.either types.str types.package; default = "nologin"; };
    openssh.authorizedKeys.keys = strs;
  }; };
in
{
  options = {
    assertions = mkOption { type = types.listOf types.unspecified; default = [ ]; };
    warnings = strs;
    systemd.services = mkOption { type = types.attrsOf (types.submodule service); default = { }; };
    systemd.timers = mkOption { type = types.attrsOf (types.submodule timer); default = { }; };
    systemd.user.services = mkOption { type = types.attrsOf (types.submodule service); default = { }; };
    systemd.tmpfiles.rules = strs;
    security.polkit.enable = mkOption { type = types.bool; default = false; };
    security.polkit.extraConfig = mkOption { type = types.lines; default = ""; };
    users.users = mkOption { type = types.attrsOf (types.submodule user); default = { }; };
    users.groups = mkOption { type = types.attrsOf (types.submodule { }); default = { }; };
    services.openssh.enable = mkOption { type = types.bool; default = false; };
    services.openssh.openFirewall = mkOption { type = types.bool; default = true; };
    services.openssh.ports = mkOption { type = types.listOf types.port; default = [ 22 ]; };
    services.tailscale.enable = mkOption { type = types.bool; default = false; };
    networking.hostName = mkOption { type = types.str; default = "nixos"; };
    environment.etc = mkOption {
      type = types.attrsOf (types.submodule { options.source = mkOption { type = types.path; }; });
      default = { };
    };
    networking.firewall.interfaces = mkOption {
      type = types.attrsOf (types.submodule { options.allowedTCPPorts = mkOption { type = types.listOf types.port; default = [ ]; }; });
      default = { };
    };
    environment.systemPackages = mkOption { type = types.listOf types.package; default = [ ]; };
  };
}
