# Packages by nixpkgs' names. What they are made of is evaluated; only runCommand builds, with nothing but a shell.
{ system, lib }:
let
  build =
    name: attributes:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
      }
      // attributes
    );
  never = name: inputs: build name { inherit inputs; args = [ "-c" "echo this stands in for nixpkgs >&2; exit 1" ]; };
  python =
    {
      pname,
      version,
      src,
      build-system,
      dependencies,
      nativeBuildInputs ? [ ],
      meta ? { },
      ...
    }:
    never "${pname}-${version}" (build-system ++ dependencies ++ nativeBuildInputs ++ [ src ]) // { inherit meta; };

  python3Packages =
    lib.genAttrs [
      "anyio" "blake3" "cbor2" "cryptography" "diskcache" "hatchling" "httpx" "jinja2" "noiseprotocol" "numpy"
      "prometheus-client" "prompt-toolkit" "psutil" "pydantic" "pynacl" "pyyaml" "rich" "scikit-build-core" "starlette"
      "typer" "typing-extensions" "u-msgpack-python" "uvicorn" "uvloop" "zeroconf"
    ] (name: never "python3-${name}" [ ])
    // {
      buildPythonApplication = python;
      buildPythonPackage = python;
      fetchPypi = { pname, version, hash }: never "${pname}-${version}.tar.gz" [ hash ];
    };

  packages =
    lib.genAttrs [ "cmake" "gnumake" "ninja" "nix" "python311" ] (name: never name [ ])
    // {
      inherit lib python3Packages;
      pkgs = packages;
      stdenv.hostPlatform.system = system;
      callPackage =
        file: given:
        let
          make = import file;
        in
        make (builtins.intersectAttrs (builtins.functionArgs make) packages // given);
      # In a real system these are packages, too.
      coreutils = "/usr";
      writeText = name: text: { outPath = builtins.toFile name text; };
      mkShell = { packages }: never "shell" packages;
      runCommand = name: attributes: script: build name (attributes // { args = [ "-c" script ]; });
    };
in
packages
