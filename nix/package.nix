{
  lib,
  python3Packages,
  cmake,
  ninja,
}:
let
  # The very build that a slice relies on (docs/adr/0001), for the CPU.
  llama-cpp-python = python3Packages.buildPythonPackage rec {
    pname = "llama_cpp_python";
    version = "0.3.36";
    pyproject = true;
    src = python3Packages.fetchPypi {
      inherit pname version;
      hash = "sha256-gy2waZAH8b6Vp+Qe8S6IkmsCuoNkYeNqNjctsnYMGi4=";
    };
    # A package runs on other machines than the one that built it.
    env.CMAKE_ARGS = "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF";
    build-system = [ python3Packages.scikit-build-core ];
    nativeBuildInputs = [
      cmake
      ninja
    ];
    dontUseCmakeConfigure = true;
    dependencies = with python3Packages; [
      diskcache
      jinja2
      numpy
      typing-extensions
    ];
  };

  # nixpkgs has neither of these two, as far as could be seen.
  hatched =
    pname: version: hash: dependencies:
    python3Packages.buildPythonPackage {
      inherit pname version dependencies;
      pyproject = true;
      src = python3Packages.fetchPypi { inherit pname version hash; };
      build-system = [ python3Packages.hatchling ];
    };
  kademlia = hatched "kademlia" "2.2.3" "sha256-M/TYnmQpZIzHVUaEQgpadZsrYxsKxyqAx4RHMr5I1I4=" [ rpcudp ];
  rpcudp = hatched "rpcudp" "5.0.1" "sha256-tnk7mz6E6chRD6eOJZzDIEwbA/0rtPvw9FfNORkzu3g=" [
    python3Packages.u-msgpack-python
  ];
in
python3Packages.buildPythonApplication {
  pname = "intelnav";
  version = builtins.head (builtins.match ".*__version__ = \"([^\"]+)\".*" (builtins.readFile ../intelnav/__init__.py));
  pyproject = true;
  src = ../.;
  build-system = [ python3Packages.hatchling ];
  dependencies = with python3Packages; [
    anyio
    blake3
    cbor2
    cryptography
    httpx
    jinja2
    kademlia
    llama-cpp-python
    noiseprotocol
    numpy
    prometheus-client
    prompt-toolkit
    psutil
    pydantic
    pynacl
    pyyaml
    rich
    starlette
    typer
    uvicorn
    uvloop
    zeroconf
  ];
  pythonImportsCheck = [
    "intelnav.cli.main"
    "intelnav.node"
  ];
  meta = {
    description = "Decentralised LLM inference: a model cut into slices, run by a chain of peers";
    license = lib.licenses.asl20;
    mainProgram = "intelnav";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
