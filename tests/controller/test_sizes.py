from pathlib import Path

import pytest

from intelnav.controller.sizes import candidate
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.footprint import footprint
from intelnav.engine.interface import SliceSpec
from intelnav.store.embedded import embedded_model
from intelnav.store.model_file import ModelFile, describe
from tests.models import tiny_model

REF = ModelRef("name", "tiny")


def all_slices(model: ModelFile) -> list[LayerRange]:
    return [
        LayerRange(start, end) for start in range(model.blocks) for end in range(start + 1, model.blocks + 1)
    ]


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen3moe"])
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_no_slice_takes_more_than_is_said(tmp_path: Path, architecture: str, blocks: int) -> None:
    model = describe(tiny_model(tmp_path / "tiny.gguf", architecture, blocks=blocks))
    room = SliceSpec(tmp_path, sessions=2, context=64, max_rows=8)
    told = candidate(REF, "b3-a", model, room)
    assert (told.model, told.cid, told.blocks) == (REF, "b3-a", blocks)
    for layers in all_slices(model):
        assert footprint(model, room, layers).total <= told.need(layers)


def test_what_is_said_of_a_real_model_is_close() -> None:
    model = describe(embedded_model())
    room = SliceSpec(Path("unused"), sessions=2, context=1024)
    told = candidate(REF, "b3-a", model, room)
    for layers in (LayerRange(0, 8), LayerRange(8, 15), LayerRange(22, 30), LayerRange(0, 30)):
        need = footprint(model, room, layers).total
        assert need <= told.need(layers) <= 1.15 * need
