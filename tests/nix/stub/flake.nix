{
  description = "Stands in for nixpkgs where it cannot be had: its module system in small, and packages that are not built.";
  outputs =
    { self }:
    {
      lib = import ./lib;
      legacyPackages = self.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
        system:
        import ./packages.nix {
          inherit system;
          lib = self.lib;
        }
      );
    };
}
