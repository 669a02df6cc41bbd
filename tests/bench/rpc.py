"""llama.cpp's own way to spread a model over machines: its RPC backend, built once beside the installed llama.cpp.

Run as `python -m tests.bench.rpc ENDPOINT THREADS` it is one such server.
"""

import ctypes
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

VARIANT = Path("build/rpc").absolute()


def build() -> None:
    """Compile llama-cpp-python with the RPC backend into `build/rpc`, in the version that is installed."""
    if list(VARIANT.glob("llama_cpp/lib/libggml-rpc.*")):
        return
    print(f"Building llama.cpp with its RPC backend into {VARIANT}, once: about four minutes on two cores.")
    wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
    # Without the cache: the wheel in there was built without the backend, and ours must not take its place.
    options = ["--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(VARIANT), wanted]
    subprocess.run(command, check=True, env=os.environ | {"CMAKE_ARGS": "-DGGML_RPC=ON"})


def library(part: str) -> ctypes.CDLL:
    """The shared library `libggml-PART` of the llama.cpp that this process would import."""
    found = find_spec("llama_cpp")
    assert found is not None
    assert found.origin is not None
    return ctypes.CDLL(str(next((Path(found.origin).parent / "lib").glob(f"libggml-{part}.[sd]*"))))


def main() -> None:
    """Serve the CPU until killed."""
    endpoint, threads = sys.argv[1:]
    base, cpu, rpc = library("base"), library("cpu"), library("rpc")
    cpu.ggml_backend_cpu_reg.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    device = base.ggml_backend_reg_dev_get(cpu.ggml_backend_cpu_reg(), 0)
    serve = rpc.ggml_backend_rpc_start_server
    serve.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    serve(endpoint.encode(), None, int(threads), 1, (ctypes.c_void_p * 1)(device))


if __name__ == "__main__":
    main()
