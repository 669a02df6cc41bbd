# The module, rendered for what it is used for; that it refuses what is wrong is in tests/nix.
{
  lib,
  pkgs,
  runCommand,
  module,
}:
let
  render = import ./render.nix { inherit lib pkgs module; };
  rendered = builtins.mapAttrs (_: settings: render { enable = true; inherit settings; }) {
    defaults = { };
    relay = {
      role = "relay";
      network.listen = "0.0.0.0:7717";
    };
    host = {
      slices = [
        {
          model = "smollm2-135m-instruct-q4_1";
          layers = "8..15";
        }
      ];
      network.listen = "0.0.0.0:7717";
    };
    auto = {
      slices = "auto";
      auto.memory = "4 GiB";
    };
    gpu.backend.device = "vulkan";
  };
in
assert rendered.defaults.unit.Service.PrivateDevices;
assert !rendered.gpu.unit.Service.PrivateDevices;
# Without the package that it names: to look at a unit, llama.cpp need not be compiled.
runCommand "intelnav-module" { rendered = builtins.unsafeDiscardStringContext (builtins.toJSON rendered); } ''
  echo "$rendered" > $out
''
