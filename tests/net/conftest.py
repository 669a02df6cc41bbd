from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from intelnav.store.blobs import Store
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import Manifest, manifest_of
from tests.hub import Hub, serving


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return embedded_model()


@pytest.fixture(scope="session")
def manifest(smollm2: Path) -> Manifest:
    """That of the real model: its blocks have three pieces each."""
    return manifest_of(smollm2)


@pytest.fixture(scope="session")
def whole(smollm2: Path) -> bytes:
    return smollm2.read_bytes()


@pytest.fixture(scope="session")
def blobs(smollm2: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of the blobs that the slices of these tests are made of, by the path at a chunk server."""
    with Store.open(tmp_path_factory.mktemp("blobs") / "store", None) as store:
        store.add_file(manifest, smollm2, None)
        found = {}
        for blob in (manifest.metadata, *(e.blob for e in manifest.bundles if e.bundle.name in BUNDLES)):
            located = store.locate(blob.cid)
            assert located is not None
            found[f"/v1/blobs/{blob.cid}"] = b"".join(located.read(0, located.size))
    return found


BUNDLES = ("blk.8", "blk.9")


@pytest.fixture
def seeder(smollm2: Path, manifest: Manifest, tmp_path: Path) -> Iterator[Store]:
    """A store that has the whole model in a file of the user's."""
    with Store.open(tmp_path / "seeder", None) as store:
        store.add_file(manifest, smollm2, None)
        yield store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store", None) as store:
        yield store


@pytest.fixture
def web_hub() -> Iterator[Hub]:
    with serving() as hub:
        yield hub


@pytest.fixture
async def web_client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client
