"""The asking side of a tap, on real tensors; what it captures is compared in test_slice.py."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from intelnav.domain.errors import EngineError
from intelnav.engine.llama import native
from intelnav.engine.llama.ggml import InitParams, base, name_offset
from intelnav.engine.llama.native import address
from intelnav.engine.llama.tap import Tap

NAMES = [
    "l_out-1",
    "l_out-12",
    "l_out-1 (view)",
    "l_out-1234",
    "l_out-123",
    "inp_scaled",
    "inp_scale",
    "norm-1",
    "",
]


@pytest.fixture
def tensors() -> Iterator[dict[str, int]]:
    context = base.ggml_init(InitParams(1 << 16, None, True))
    made = {name: base.ggml_new_tensor_1d(context, 0, 8) for name in NAMES}
    for name, tensor in made.items():
        ctypes.memmove(tensor + name_offset(), name.encode() + b"\0", len(name) + 1)
    yield made
    base.ggml_free(context)


def ask(tap: Tap, tensor: int) -> bool:
    """As llama.cpp does before it computes a node."""
    function = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_size_t, ctypes.c_bool, ctypes.c_void_p)
    return bool(function(tap.callback)(tensor, True, tap.user_data))


def computed(tap: Tap, tensor: int) -> None:
    """As llama.cpp does after it has computed a node that was asked for."""
    function = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_size_t, ctypes.c_bool, ctypes.c_void_p)
    function(tap.callback)(tensor, False, tap.user_data)


def asked(tap: Tap, tensors: dict[str, int]) -> list[str]:
    return [name for name, tensor in tensors.items() if ask(tap, tensor)]


@pytest.mark.parametrize("block", [1, 12, 123, 1234])
def test_only_the_wanted_output_is_asked_for(tensors: dict[str, int], block: int) -> None:
    tap = Tap(8, 4)
    tap.watch(block, 1)
    assert asked(tap, tensors) == [f"l_out-{block}"]


def test_nothing_is_asked_for_in_a_full_decode(tensors: dict[str, int]) -> None:
    tap = Tap(8, 4)
    tap.watch(1, 1)
    tap.watch(None, 1)
    assert asked(tap, tensors) == []


def test_a_scaled_input_is_asked_for_where_there_is_one(tensors: dict[str, int]) -> None:
    tap = Tap(8, 4, np.zeros((4, 8), np.float32))
    tap.watch(None, 1)
    assert asked(tap, tensors) == []
    tap.survey()
    assert asked(tap, tensors) == []
    tap.check(0)
    tap.watch(None, 1)
    assert asked(tap, tensors) == ["inp_scaled"]


def test_a_slice_that_is_fed_tokens_leaves_them_as_they_are_scaled(tensors: dict[str, int]) -> None:
    tap = Tap(8, 4)
    tap.survey()
    asked(tap, tensors)
    tap.check(0)
    tap.watch(None, 1)
    assert asked(tap, tensors) == []


def test_every_block_must_have_one_output(tensors: dict[str, int]) -> None:
    tap = Tap(8, 4)
    tap.survey()
    asked(tap, tensors)
    with pytest.raises(EngineError, match="output of block 0 0 times"):
        tap.check(2)
    tap.survey()
    ask(tap, tensors["l_out-1"])
    asked(tap, tensors)
    ctypes.memmove(tensors["norm-1"] + name_offset(), b"l_out-0\0", 8)
    asked(tap, {"l_out-0": tensors["norm-1"]})
    with pytest.raises(EngineError, match="output of block 1 2 times"):
        tap.check(2)


def test_without_the_compiled_part_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("intelnav.engine.llama.native._LIBRARY", tmp_path / "libnative.so")
    with pytest.raises(EngineError, match="install it again"):
        Tap(8, 4)


def test_missing_rows_are_an_error() -> None:
    tap = Tap(8, 4)
    tap.watch(1, 2)
    with pytest.raises(EngineError, match="0 of 2 rows"):
        tap.take(2)


def test_surplus_rows_are_an_error(tensors: dict[str, int]) -> None:
    copied: list[int] = []
    get = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)(
        lambda _tensor, _to, _offset, size: copied.append(size)
    )
    tap = Tap(8, 1)
    tap.struct.get = address(get)
    tap.watch(1, 1)
    computed(tap, tensors["l_out-1"])
    tap.take(1)
    computed(tap, tensors["l_out-1"])
    assert copied == [32]
    with pytest.raises(EngineError, match="2 of 1 rows"):
        tap.take(1)


def test_a_compiled_part_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_SHARED", (*native._SHARED[:3], ctypes.c_int64))
    with pytest.raises(EngineError, match=r"another version.*install it again"):
        Tap(8, 4)
