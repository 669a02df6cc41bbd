"""The few functions of libggml that llama-cpp-python does not bind."""

import ctypes
from ctypes import c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from importlib.util import find_spec
from pathlib import Path

from intelnav.domain.errors import EngineError
from intelnav.engine.probe import Gpu

_GPU_TYPES = (1, 2)  # GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU
_BACKENDS = {
    "cuda": "cuda",
    "rocm": "rocm",
    "hip": "rocm",
    "vulkan": "vulkan",
    "mtl": "metal",
    "metal": "metal",
}


def _library(name: str) -> ctypes.CDLL:
    spec = find_spec("llama_cpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in (f"lib{name}.so", f"lib{name}.dylib", f"{name}.dll"):
            if (path := Path(folder, "lib", file)).exists():
                return ctypes.CDLL(str(path))
    raise EngineError(f"llama.cpp's library {name} is missing: run `pip install llama-cpp-python==0.3.36`")


class InitParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


base = _library("ggml-base")
for _function, _arguments, _result in (
    ("ggml_init", [InitParams], c_void_p),
    ("ggml_free", [c_void_p], None),
    ("ggml_new_tensor_1d", [c_void_p, c_int, c_int64], c_void_p),
    ("ggml_get_name", [c_void_p], c_void_p),
    ("ggml_nbytes", [c_void_p], c_size_t),
    ("ggml_backend_tensor_get", [c_void_p, c_void_p, c_size_t, c_size_t], None),
    ("ggml_backend_tensor_set", [c_void_p, c_void_p, c_size_t, c_size_t], None),
    ("ggml_backend_dev_type", [c_void_p], c_int),
    ("ggml_backend_dev_description", [c_void_p], c_char_p),
    ("ggml_backend_dev_backend_reg", [c_void_p], c_void_p),
    ("ggml_backend_dev_memory", [c_void_p, ctypes.POINTER(c_size_t), ctypes.POINTER(c_size_t)], None),
    ("ggml_backend_reg_name", [c_void_p], c_char_p),
):
    getattr(base, _function).argtypes, getattr(base, _function).restype = _arguments, _result

_registry = _library("ggml")
_registry.ggml_backend_reg_count.restype = _registry.ggml_backend_dev_count.restype = c_size_t
_registry.ggml_backend_dev_get.argtypes, _registry.ggml_backend_dev_get.restype = [c_size_t], c_void_p
# A build that is to run anywhere keeps each backend in a file, of which the best that this machine can run is loaded.
# llama.cpp by itself looks for them beside the program, which is Python's.
if not _registry.ggml_backend_reg_count():
    _registry.ggml_backend_load_all_from_path(c_char_p(str(Path(_registry._name).parent).encode()))


def name_offset() -> int:
    """Where a tensor's name lies, in bytes from the start of struct ggml_tensor."""
    context = base.ggml_init(InitParams(4096, None, True))
    tensor = base.ggml_new_tensor_1d(context, 0, 1)
    offset: int = base.ggml_get_name(tensor) - tensor
    base.ggml_free(context)
    return offset


def gpus() -> list[Gpu]:
    """Every GPU that the installed llama.cpp offers, in its own order."""
    found = []
    for index in range(_registry.ggml_backend_dev_count()):
        handle = _registry.ggml_backend_dev_get(index)
        backend = base.ggml_backend_reg_name(base.ggml_backend_dev_backend_reg(handle)).decode().lower()
        if backend in _BACKENDS and base.ggml_backend_dev_type(handle) in _GPU_TYPES:
            free, total = c_size_t(), c_size_t()
            base.ggml_backend_dev_memory(handle, free, total)
            description = base.ggml_backend_dev_description(handle).decode(errors="replace")
            found.append(Gpu(_BACKENDS[backend], description, free.value, handle))
    return found
