# The module in a system of just the options that it sets: what it renders, for `nix flake check` and for tests.
{
  lib,
  pkgs,
  module,
}:
definition:
let
  inherit (lib) mkOption types;
  inherit
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        module
        {
          options = {
            assertions = mkOption { type = types.listOf types.anything; };
            warnings = mkOption { type = types.listOf types.str; };
            environment.etc = mkOption { type = types.attrsOf types.anything; };
            environment.systemPackages = mkOption { type = types.listOf types.anything; };
            networking.firewall.allowedTCPPorts = mkOption {
              type = types.listOf types.int;
              default = [ ];
            };
            networking.firewall.allowedUDPPorts = mkOption {
              type = types.listOf types.int;
              default = [ ];
            };
            systemd.services = mkOption { type = types.attrsOf types.anything; };
          };
        }
        { services.intelnav = definition; }
      ];
    })
    config
    ;
  failed = builtins.filter (each: !each.assertion) config.assertions;
  service = config.systemd.services.intelnav;
in
# As a system does that is built.
if failed != [ ] then
  throw "Failed assertions:\n${builtins.concatStringsSep "\n" (map (each: "- ${each.message}") failed)}"
else
  {
    inherit (config) warnings;
    inherit (config.networking.firewall) allowedTCPPorts allowedUDPPorts;
    file = "${config.environment.etc."intelnav/node.yaml".source}";
    inherit (service) restartTriggers;
    reloads = map toString service.reloadTriggers;
    unit = {
      Unit = service.unitConfig;
      Service = service.serviceConfig;
      Install.WantedBy = service.wantedBy;
    };
  }
