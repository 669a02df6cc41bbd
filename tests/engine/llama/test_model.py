from pathlib import Path

import pytest

from intelnav.domain.errors import EngineError
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceInfo, SliceSpec
from intelnav.engine.llama.model import Model
from intelnav.store.cut import cut
from tests.models import tiny_model


def describe(path: Path, context: int = 64, max_rows: int = 8) -> SliceInfo:
    spec = SliceSpec(path, sessions=3, context=context, max_rows=max_rows)
    return Model(spec, gpus=()).describe(spec, memory=77)


def test_a_model_that_was_not_cut_is_a_slice_of_all_layers(tmp_path: Path) -> None:
    info = describe(tiny_model(tmp_path / "whole.gguf", "qwen3", blocks=3))
    assert (info.layers, info.blocks, info.architecture, info.width) == (LayerRange(0, 3), 3, "qwen3", 64)
    assert (info.is_front, info.is_tail, info.sessions, info.memory) == (True, True, 3, 77)


def test_a_slice_knows_its_place_in_the_model(tmp_path: Path) -> None:
    whole = tiny_model(tmp_path / "whole.gguf", "llama", blocks=4)
    cut(whole, LayerRange(1, 3), tmp_path / "slice.gguf", "b3-" + "a" * 52)
    info = describe(tmp_path / "slice.gguf")
    assert (info.layers, info.blocks, info.is_front, info.is_tail) == (LayerRange(1, 3), 4, False, False)
    assert info.engine_class == describe(whole).engine_class


def test_the_context_is_no_longer_than_the_model_was_trained_for(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "whole.gguf", "llama", blocks=1)
    assert (describe(path, 10**6).context, describe(path, 100).context) == (512, 100)
    assert describe(path, 10, max_rows=50).max_rows == 10


def test_a_file_that_is_none_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.gguf"):
        describe(tmp_path / "none.gguf")
