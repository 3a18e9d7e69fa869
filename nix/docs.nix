# The options of both modules, as Markdown.
{ self, lib, pkgs }:
let
  # Only the options are looked at, so the rest of NixOS can stay away.
  evaluated = lib.evalModules {
    modules = [ self.nixosModules.hub self.nixosModules.storage { config._module.check = false; } ];
    specialArgs = { inherit pkgs; utils = { }; };
  };
in
(pkgs.nixosOptionsDoc {
  options = { inherit (evaluated.options) services; };
  transformOptions = option: option // { declarations = [ ]; };
}).optionsCommonMark
