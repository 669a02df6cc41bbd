from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
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
def slice_file(model: Path, cid: str) -> Callable[[str], Path]:
    """The file of a slice of that model; it is cut once."""

    def slice_file(layers: str) -> Path:
        path = model.with_name(f"{layers}.gguf")
        if not path.exists():
            cut(model, LayerRange.parse(layers), path, cid)
        return path

    return slice_file


@pytest.fixture
async def load(slice_file: Callable[[str], Path]) -> AsyncIterator[Callable[[str], Awaitable[SliceProcess]]]:
    """Starts a worker for a slice."""
    async with AsyncExitStack() as stack:

        async def load(layers: str) -> SliceProcess:
            return await stack.enter_async_context(load_slice(replace(ROOM, path=slice_file(layers))))

        yield load


@pytest.fixture
async def tail(load: Callable[[str], Awaitable[SliceProcess]]) -> SliceProcess:
    """A worker that runs the tail."""
    return await load("3..6")


@pytest.fixture
async def shorter(load: Callable[[str], Awaitable[SliceProcess]]) -> SliceProcess:
    """A worker whose slice starts with the tail and ends before it."""
    return await load("3..5")
