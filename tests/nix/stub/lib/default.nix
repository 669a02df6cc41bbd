# The part of nixpkgs' lib that the flake uses, by the same names and with the same results.
let
  lib = {
    inherit (builtins) concatStringsSep filter mapAttrs;
    types = import ./types.nix { inherit lib; };
    evalModules = import ./modules.nix { inherit lib; };

    genAttrs = names: make: builtins.listToAttrs (map (name: { inherit name; value = make name; }) names);
    filterAttrs =
      keep: set:
      builtins.listToAttrs (
        builtins.concatMap (name: if keep name set.${name} then [ { inherit name; value = set.${name}; } ] else [ ]) (
          builtins.attrNames set
        )
      );
    optional = condition: item: if condition then [ item ] else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    removePrefix =
      prefix: text:
      if lib.hasPrefix prefix text then builtins.substring (builtins.stringLength prefix) (-1) text else text;
    removeSuffix =
      suffix: text:
      let
        size = builtins.stringLength text - builtins.stringLength suffix;
      in
      if size >= 0 && builtins.substring size (-1) text == suffix then builtins.substring 0 size text else text;

    mkOption = option: { _type = "option"; type = lib.types.anything; } // option;
    mkEnableOption =
      what:
      lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether to enable ${what}.";
      };
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    mkMerge = contents: { _type = "merge"; inherit contents; };
    mkOverride = priority: content: { _type = "override"; inherit priority content; };
    mkDefault = lib.mkOverride 1000;
    mkForce = lib.mkOverride 50;
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    licenses.asl20.spdxId = "Apache-2.0";
  };
in
lib
