"""Which device a slice goes to, how many threads it gets, and whether it fits: decided before anything is loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from intelnav import machine
from intelnav.domain.errors import ConfigError, EngineError
from intelnav.engine.footprint import Footprint, gib
from intelnav.engine.interface import Device

_BUILD_OPTION = {"cuda": "GGML_CUDA", "vulkan": "GGML_VULKAN", "metal": "GGML_METAL", "rocm": "GGML_HIP"}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that the installed llama.cpp can use; `free` is in bytes, `handle` a ggml_backend_dev_t."""

    backend: str
    description: str
    free: int
    handle: int


def choose_gpus(device: Device, gpu_layers: int, offer: Callable[[], Sequence[Gpu]]) -> list[Gpu]:
    """The GPUs for `gpu_layers` layers on `device`, none for the CPU. `auto` takes the backend of the first offered.

    A slice for the CPU does not look at the `offer`: to ask a GPU how much is free takes half a gigabyte of it.
    Raises ConfigError that names what there is, and how to get what is missing.
    """
    if device == "cpu" or gpu_layers == 0:
        return []
    offered = offer()
    if device == "auto" and not offered:
        return []
    wanted = offered[0].backend if device == "auto" else device
    chosen = [gpu for gpu in offered if gpu.backend == wanted]
    if not chosen:
        there = ", ".join(["cpu", *sorted({gpu.backend for gpu in offered})])
        raise ConfigError(
            f"device: {device} is not there, the installed llama.cpp offers {there}. Choose one of these or auto, "
            f"or build it in: CMAKE_ARGS=-D{_BUILD_OPTION[device]}=ON pip install --force-reinstall --no-cache-dir "
            "llama-cpp-python==0.3.36"
        )
    return chosen


def choose_threads(threads: int) -> int:
    """`threads`, or if that is 0, one for each physical core but one, which the node itself needs."""
    return threads or max(1, machine.cores() - 1)


def check_memory(need: Footprint, gpus: Sequence[Gpu], share: float) -> None:
    """EngineError with the figures if `share` of what is needed does not fit the GPUs, or the rest not the RAM."""
    on_gpus = round(need.total * share) if gpus else 0
    for bytes_needed, free, place in (
        (on_gpus, sum(gpu.free for gpu in gpus), "on the GPU"),
        (need.total - on_gpus, machine.memory().available, "in memory"),
    ):
        if bytes_needed > free:
            raise EngineError(
                f"the slice needs {need}, of which {gib(bytes_needed)} GiB {place}, where {gib(free)} GiB are free: "
                "host fewer layers, or lower sessions or context"
            )
