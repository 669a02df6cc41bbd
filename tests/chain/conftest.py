from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceSpec
from intelnav.engine.process import SliceProcess, load_slice
from intelnav.store.cut import cut
from intelnav.store.manifest import manifest_of
from tests.models import tiny_model

ROOM = SliceSpec(Path(), sessions=4, context=64, max_rows=16, device="cpu", threads=1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama of six blocks."""
    path = tmp_path_factory.mktemp("model") / "llama.gguf"
    tiny_model(path, "llama", blocks=6)
    return path


@pytest.fixture(scope="session")
def cid(model: Path) -> str:
    return manifest_of(model).cid


@pytest.fixture(scope="session")
def tail_file(model: Path, cid: str) -> Path:
    """The slice 3..6 of that model."""
    path = model.with_name("3-6.gguf")
    cut(model, LayerRange(3, 6), path, cid)
    return path


@pytest.fixture
async def tail(tail_file: Path) -> AsyncIterator[SliceProcess]:
    """A worker that runs the tail."""
    async with load_slice(replace(ROOM, path=tail_file)) as engine:
        yield engine
