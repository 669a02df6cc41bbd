# What `make` needs.
{
  mkShell,
  python311,
  gnumake,
  cmake,
  ninja,
  nix,
}:
mkShell {
  packages = [
    python311
    gnumake
    cmake
    ninja
    nix
  ];
}
