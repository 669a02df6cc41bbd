from typing import NoReturn

import pytest

from intelnav import machine
from intelnav.domain.errors import ConfigError, EngineError
from intelnav.engine.footprint import Footprint
from intelnav.engine.interface import Device
from intelnav.engine.probe import Gpu, check_memory, choose_gpus, choose_threads
from intelnav.machine import Memory

GIB = 2**30
CUDA = Gpu("cuda", "Big", 8 * GIB, 1)
CUDA_2 = Gpu("cuda", "Bigger", 16 * GIB, 2)
VULKAN = Gpu("vulkan", "Big again", 8 * GIB, 3)


@pytest.mark.parametrize(
    ("device", "offered", "expected"),
    [
        ("cpu", [CUDA], []),
        ("auto", [], []),
        ("auto", [CUDA, CUDA_2, VULKAN], [CUDA, CUDA_2]),
        ("vulkan", [CUDA, VULKAN], [VULKAN]),
    ],
)
def test_the_device_is_the_one_asked_for(device: Device, offered: list[Gpu], expected: list[Gpu]) -> None:
    assert choose_gpus(device, -1, lambda: offered) == expected


@pytest.mark.parametrize(("device", "gpu_layers"), [("cpu", -1), ("cpu", 5), ("auto", 0), ("cuda", 0)])
def test_what_needs_no_gpu_asks_for_none(device: Device, gpu_layers: int) -> None:
    def offer() -> NoReturn:
        raise AssertionError("to ask a GPU takes memory there")

    assert choose_gpus(device, gpu_layers, offer) == []


def test_a_device_that_is_not_there_is_refused_with_the_way_to_it() -> None:
    with pytest.raises(ConfigError, match=r"device: rocm .* offers cpu, cuda, vulkan\. .*GGML_HIP=ON"):
        choose_gpus("rocm", 5, lambda: [VULKAN, CUDA])


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (8, 7)])
def test_by_default_one_core_is_left_to_the_node(
    cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: cores)
    assert choose_threads(0) == expected
    assert choose_threads(5) == 5


@pytest.mark.parametrize(
    ("gpus", "share", "place"),
    [
        ([], 1.0, "6.00 GiB in memory, where 4.00"),
        ([VULKAN], 0.25, "4.50 GiB in memory, where 4.00"),
        ([Gpu("cuda", "Small", GIB, 4)], 0.5, "3.00 GiB on the GPU, where 1.00"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_figures(
    gpus: list[Gpu], share: float, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: Memory(16 * GIB, 4 * GIB, 16 * GIB))
    need = Footprint(weights=3 * GIB, cache=2 * GIB, compute=GIB)
    with pytest.raises(
        EngineError, match=rf"needs 6\.00 GiB \(weights 3\.00, caches 2\.00, buffers 1\.00\).*{place}"
    ):
        check_memory(need, gpus, share)
    check_memory(need, [CUDA], 1.0)
