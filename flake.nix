{
  description = "Decentralised LLM inference: a model cut into slices, run by a chain of peers";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";

  outputs =
    { self, nixpkgs }:
    let
      each = make: nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: make nixpkgs.legacyPackages.${system});
      program = package: name: {
        type = "app";
        program = "${package}/bin/${name}";
      };
    in
    {
      packages = each (pkgs: { default = pkgs.callPackage ./nix/package.nix { }; });

      apps = each (
        pkgs:
        let
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        in
        {
          default = program package "intelnav";
          node = program package "intelnav-node";
        }
      );

      devShells = each (pkgs: { default = pkgs.callPackage ./nix/shell.nix { }; });

      nixosModules.default = import ./nix/module.nix self;

      checks = each (pkgs: {
        module = pkgs.callPackage ./nix/checks.nix { module = self.nixosModules.default; };
      });
    };
}
