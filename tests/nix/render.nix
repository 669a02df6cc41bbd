# What services.intelnav, defined by the JSON in a file, renders to with a package that lies in `package`.
{ definition, package }:
let
  lib = import ./stub/lib;
  pkgs = import ./stub/packages.nix {
    system = "x86_64-linux";
    inherit lib;
  };
in
import ../../nix/render.nix {
  inherit lib pkgs;
  module = import ../../nix/module.nix { packages.x86_64-linux.default = package; };
} (builtins.fromJSON (builtins.readFile definition))
