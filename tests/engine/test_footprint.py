from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.domain.errors import ContentError
from intelnav.engine.footprint import Footprint, footprint
from intelnav.engine.interface import SliceSpec
from intelnav.store.footprint import cache_bytes, weights_bytes
from intelnav.store.model_file import describe
from tests.models import tiny_model

ROOM = SliceSpec(Path(), sessions=3, context=300, max_rows=8, device="cpu")


def test_a_footprint_is_weights_caches_and_buffers(tmp_path: Path) -> None:
    model = describe(tiny_model(tmp_path / "m.gguf"))
    need = footprint(model, ROOM)
    assert need.weights == weights_bytes(model, model.layers)
    assert need.cache == cache_bytes(model, model.layers, 300, 3)
    assert need.total == need.weights + need.cache + need.compute
    assert footprint(model, replace(ROOM, max_rows=80)).compute > need.compute
    assert footprint(model, replace(ROOM, sessions=80)).compute > need.compute


def test_it_is_told_in_gibibytes() -> None:
    assert str(Footprint(2**30, 2**29, 0)) == "1.50 GiB (weights 1.00, caches 0.50, buffers 0.00)"


def test_a_header_that_does_not_tell_is_refused(tmp_path: Path) -> None:
    extra = {"attention.head_count": [float("nan")] * 6}
    with pytest.raises(ContentError, match="head_count"):
        footprint(describe(tiny_model(tmp_path / "m.gguf", extra=extra)), ROOM)
