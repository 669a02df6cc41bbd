from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.controller.capacity import hostable_by_size, hostable_layers, machine_memory
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import footprint
from intelnav.engine.interface import SliceSpec
from intelnav.store.embedded import embedded_model
from intelnav.store.model_file import ModelFile, describe

ROOM = SliceSpec(Path("unused"), sessions=2, context=1024)


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return describe(embedded_model())


def test_a_model_that_fits_fits_whole(model: ModelFile) -> None:
    whole = footprint(model, ROOM).total
    assert hostable_layers(model, ROOM, whole) == 30
    assert hostable_layers(model, ROOM, whole - 1) < 30


def test_nothing_fits_in_nothing(model: ModelFile) -> None:
    assert hostable_layers(model, ROOM, 0) == 0


@pytest.mark.parametrize("layers", [1, 7, 15, 28])
def test_what_fits_is_as_many_layers_as_there_is_memory_for(model: ModelFile, layers: int) -> None:
    need = footprint(model, ROOM, LayerRange(1, 1 + layers)).total
    assert hostable_layers(model, ROOM, need) == layers
    assert hostable_layers(model, ROOM, need - 1) == layers - 1


def test_more_sessions_leave_room_for_fewer_layers(model: ModelFile) -> None:
    memory = footprint(model, ROOM).total
    assert hostable_layers(model, SliceSpec(Path("unused"), sessions=64, context=1024), memory) < 30


@given(st.integers(1, 2**40), st.integers(1, 512), st.integers(0, 2**42))
def test_by_size_a_model_fits_as_far_as_its_bytes_do(size: int, blocks: int, memory: int) -> None:
    layers = hostable_by_size(size, blocks, memory)
    assert 0 <= layers <= blocks
    assert layers * size <= memory * blocks
    assert layers == blocks or (layers + 1) * size > memory * blocks


def test_this_machine_has_memory() -> None:
    assert machine_memory() > 0
