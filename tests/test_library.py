"""The library on a real store, and the commands on a served node with such a library."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from intelnav.api.app import build_app
from intelnav.api.control import Conflict
from intelnav.api.models import Damage
from intelnav.api.serve import serve
from intelnav.cli.client import NodeClient, NodeError
from intelnav.config import NodeConfig
from intelnav.domain.errors import ConfigError
from intelnav.domain.job import JobProgress
from intelnav.domain.slice import LayerRange
from intelnav.library import Library
from intelnav.store.blobs import Store
from intelnav.store.catalog import Catalog, CatalogEntry, shipped_catalog
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import Manifest, manifest_of
from intelnav.store.names import imported_file
from tests.fakes.completer import CountingCompleter
from tests.hub import Hub, serving
from tests.models import tiny_model

pytestmark = pytest.mark.anyio

SMOLLM2 = "smollm2-135m-instruct-q4_1"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("library") / "tiny.gguf")


@pytest.fixture(scope="module")
def manifest(tiny: Path) -> Manifest:
    return manifest_of(tiny)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", None) as store:
        yield store


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    with serving() as hub:
        hub.files["/tiny.gguf"] = tiny.read_bytes()
        yield hub


@pytest.fixture
def catalog(hub: Hub) -> Catalog:
    tiny = CatalogEntry(
        name="tiny",
        title="Tiny",
        architecture="llama",
        blocks=6,
        quantisation="F32",
        origin=hub.url("/tiny.gguf"),
        license="MIT",
        cuts=(2, 4),
    )
    return Catalog((tiny, *shipped_catalog().entries))


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on every machine."""
    monkeypatch.setattr("intelnav.library.machine_memory", lambda: 8 * 2**30)


@pytest.fixture
def in_use() -> set[tuple[str, LayerRange]]:
    return set()


@pytest.fixture
def library(store: Store, catalog: Catalog, tmp_path: Path, in_use: set[tuple[str, LayerRange]]) -> Library:
    return Library(NodeConfig(data_dir=tmp_path), store, catalog, lambda: in_use)


def put_slice(store: Store, source: Path, manifest: Manifest, layers: LayerRange) -> Path:
    """Make a slice in the store, from the whole file."""
    store.add_file(manifest, source, None)
    partial = store.begin(manifest, layers)
    for blob, index in partial.missing():
        located = store.locate(blob.cid)
        assert located is not None
        partial.write(blob, index, b"".join(located.read(*blob.bounds(index))))
    return partial.finish()


async def test_a_fresh_store_lists_the_catalog(library: Library, catalog: Catalog) -> None:
    listing = await library.listing()
    assert [model.name for model in listing.models] == [entry.name for entry in catalog.entries]
    assert {model.where for model in listing.models} == {"catalog"}
    smollm2 = next(model for model in listing.models if model.name == SMOLLM2)
    assert smollm2.hostable_layers == 30
    qwen = next(model for model in listing.models if model.name == "qwen2.5-3b-instruct-q4_k_m")
    assert (qwen.size_bytes, qwen.hostable_layers, qwen.cuts) == (None, None, (9, 18, 27))


async def test_the_embedded_model_is_brought_by_its_name(library: Library, store: Store) -> None:
    model = await library.bring(SMOLLM2, JobProgress())
    assert (model.name, model.where, model.title) == (SMOLLM2, "local", "SmolLM2 135M Instruct")
    assert model.file == str(embedded_model())
    assert (model.blocks, model.hostable_layers, model.held_bytes) == (30, 30, 0)
    listing = await library.listing()
    assert listing.models[0] == model
    assert [one.name for one in listing.models].count(SMOLLM2) == 1
    assert listing.used_bytes == store.used() > 0


async def test_a_file_is_brought_and_forgotten_and_stays(
    library: Library, tiny: Path, manifest: Manifest
) -> None:
    model = await library.bring(str(tiny), JobProgress())
    assert (model.name, model.cid, model.file, model.origin) == ("tiny", manifest.cid, str(tiny), None)
    assert model.cid is not None
    await library.remove(model.cid, None)
    assert all(one.where == "catalog" for one in (await library.listing()).models)
    assert await anyio.Path(tiny).exists()


async def test_what_came_over_http_is_removed_from_the_disk(
    library: Library, store: Store, hub: Hub, manifest: Manifest
) -> None:
    model = await library.bring("tiny", JobProgress())
    assert (model.name, model.origin, model.cid) == ("tiny", hub.url("/tiny.gguf"), manifest.cid)
    assert model.held_bytes >= manifest.file.size
    freed = await library.remove(manifest.cid, None)
    assert freed >= manifest.file.size
    assert not imported_file(store, manifest.cid).exists()
    assert store.used() < 10_000


async def test_a_slice_is_listed_and_removed(
    library: Library, store: Store, tiny: Path, manifest: Manifest
) -> None:
    put_slice(store, tiny, manifest, LayerRange(2, 4))
    put_slice(store, tiny, manifest, LayerRange(0, 2))
    (model,) = [model for model in (await library.listing()).models if model.where == "local"]
    assert model.held == ("0..2", "2..4")
    assert model.held_bytes > 0
    assert await library.remove(manifest.cid, LayerRange(2, 4)) > 0
    assert [held.layers for held in store.slices()] == [LayerRange(0, 2)]
    with pytest.raises(ConfigError, match=r"no slice 2\.\.4 of tiny is here; there are: 0\.\.2"):
        await library.remove(manifest.cid, LayerRange(2, 4))
    with pytest.raises(ConfigError, match=r"no model b3-a+ is here"):
        await library.remove("b3-" + "a" * 52, None)


async def test_what_the_node_uses_is_not_removed(
    library: Library,
    store: Store,
    tiny: Path,
    manifest: Manifest,
    in_use: set[tuple[str, LayerRange]],
) -> None:
    put_slice(store, tiny, manifest, LayerRange(2, 4))
    in_use.add((manifest.cid, LayerRange(2, 4)))
    for layers in (None, LayerRange(2, 4)):
        with pytest.raises(Conflict, match=r"layers 2\.\.4 of b3-\w+ are in use"):
            await library.remove(manifest.cid, layers)
    assert len(store.slices()) == 1


async def test_damage_is_found_and_set_aside(
    library: Library, store: Store, tiny: Path, manifest: Manifest
) -> None:
    slice_ = put_slice(store, tiny, manifest, LayerRange(2, 4))
    progress = JobProgress()
    assert await library.verify(None, progress) == ()
    assert progress.done == progress.total > 0
    flip(slice_)
    (damage,) = await library.verify(manifest.cid, JobProgress())
    assert (damage.cid, damage.part) == (manifest.cid, "2..4")
    assert "hash" in damage.reason
    assert store.slices() == []
    with pytest.raises(ConfigError, match=r"no model b3-a+ is here"):
        await library.verify("b3-" + "a" * 52, JobProgress())


async def test_a_damaged_import_is_removed(
    library: Library, store: Store, hub: Hub, manifest: Manifest
) -> None:
    await library.bring("tiny", JobProgress())
    own = imported_file(store, manifest.cid)
    stamp = own.stat()
    flip(own)
    os.utime(own, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert [type(damage) for damage in await library.verify(None, JobProgress())] == [Damage]
    assert not own.exists()
    # It can be had again.
    await library.bring("tiny", JobProgress())
    assert own.exists()


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("tinny", r"no model of the catalog is called tinny; did you mean tiny\?"),
        ("b3-" + "a" * 52, "is not in the catalog: a slice of it comes by naming it in the config"),
        ("a b", "a b: write a path, a URL"),
        ("/no/such.gguf", "/no/such.gguf"),
    ],
)
async def test_what_cannot_be_brought_is_told(library: Library, what: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        await library.bring(what, JobProgress())


async def test_one_import_at_a_time_of_one_model(library: Library, hub: Hub) -> None:
    results: list[str] = []

    async def bring() -> None:
        try:
            results.append((await library.bring("tiny", JobProgress())).name)
        except Conflict as error:
            results.append(str(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bring)
        tasks.start_soon(bring)
    assert sorted(results) == ["tiny", "tiny is being imported already; wait for it"]
    assert len(hub.asked) == 1


@pytest.fixture
async def node(library: Library, tmp_path: Path) -> AsyncIterator[str]:
    """The socket of a served application with this library."""
    socket = tmp_path / "control.sock"
    app = build_app(CountingCompleter(), status=dict, ready=lambda: (True, ""), library=library)
    async with anyio.create_task_group() as tasks:

        async def start(*, task_status: anyio.abc.TaskStatus[object]) -> None:
            await serve(app, socket=socket, task_status=task_status)

        await tasks.start(start)
        yield str(socket)
        tasks.cancel_scope.cancel()


async def test_the_client_imports_verifies_and_removes(node: str, manifest: Manifest) -> None:
    def use() -> None:
        with NodeClient(node) as client:
            with client.job("/models/import", {"what": "tiny"}) as events:
                assert list(events)[-1]["result"]["cid"] == manifest.cid
            assert client.library()["models"][0]["cid"] == manifest.cid
            with client.job(f"/models/{manifest.cid}/verify") as events:
                assert list(events)[-1] == {"result": {"damaged": []}}
            assert client.remove(manifest.cid, None) >= manifest.file.size
            with pytest.raises(NodeError, match="no model b3-") as caught:
                client.remove(manifest.cid, None)
            assert caught.value.code == "model_not_found"

    await anyio.to_thread.run_sync(use)


async def test_a_wrong_hash_reaches_the_client(node: str, hub: Hub) -> None:
    hub.files["/tiny.gguf"] = b"<html>" + hub.files["/tiny.gguf"][6:]

    def use() -> None:
        with (
            NodeClient(node) as client,
            pytest.raises(NodeError, match="is no GGUF") as caught,
            client.job("/models/import", {"what": "tiny"}) as events,
        ):
            list(events)
        assert caught.value.code == "content"

    await anyio.to_thread.run_sync(use)
