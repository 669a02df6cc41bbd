"""A shelf over an empty store, and a tiny model to put on it."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import psutil
import pytest
from httpx import AsyncClient

from intelnav.controller.shelf import Shelf
from intelnav.controller.state import Room
from intelnav.domain.advert import Address
from intelnav.store.blobs import Store
from intelnav.store.catalog import shipped_catalog
from tests.models import tiny_model

ROOM = Room(sessions=2, context=64, max_rows=8, device="cpu", threads=1)


Workers = Callable[[], list[psutil.Process]]


@pytest.fixture
def workers() -> Workers:
    """The workers that a test started: other tests of this process may keep some of their own."""
    others = {child.pid for child in psutil.Process().children()}
    return lambda: [child for child in psutil.Process().children() if child.pid not in others]


class Nobody:
    """No peer gives out anything."""

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        return []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of four blocks."""
    return tiny_model(tmp_path / "tiny.gguf", "llama", blocks=4)


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    with Store.open(tmp_path / "store", None) as store:
        async with AsyncClient() as client:
            yield Shelf(store, shipped_catalog(), Nobody(), client, None)
