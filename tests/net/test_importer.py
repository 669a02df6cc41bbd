import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import anyio
import pytest

from intelnav.domain.errors import ConfigError, ContentError, StoreFull
from intelnav.domain.job import JobProgress
from intelnav.domain.slice import LayerRange
from intelnav.net.download import DownloadFailed
from intelnav.net.importer import import_model
from intelnav.store.blobs import Store
from intelnav.store.catalog import EMBEDDED, CatalogEntry, shipped_catalog
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import Manifest, manifest_of
from intelnav.store.names import imported_file
from tests.hub import Hub, head, serving
from tests.models import tiny_model
from tests.waiting import until

pytestmark = pytest.mark.anyio

HUB = "hf://owner/repo/sub/tiny.gguf"
RESOLVED = "/owner/repo/resolve/main/sub/tiny.gguf"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("importer") / "tiny.gguf")


@pytest.fixture(scope="module")
def manifest(tiny: Path) -> Manifest:
    return manifest_of(tiny)


@pytest.fixture
def hub(tiny: Path) -> Iterator[Hub]:
    with serving() as hub:
        hub.files["/cdn/tiny"] = tiny.read_bytes()
        hub.linked[RESOLVED] = "/cdn/tiny"
        yield hub


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    with Store.open(tmp_path / "store", None) as store:
        yield store


@pytest.fixture
def entry(manifest: Manifest) -> CatalogEntry:
    return CatalogEntry(
        name="tiny",
        title="Tiny",
        architecture="llama",
        blocks=6,
        quantisation="F32",
        origin=HUB,
        license="MIT",
        cuts=(2, 4),
        size=manifest.file.size,
        sha256=manifest.file.sha256,
        cid=manifest.cid,
    )


def environ(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url("/")}


def under(folder: Path) -> set[str]:
    """Every file there, but the lock and what is known of models."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".json" and path.name != "lock"
    }


async def test_a_file_is_hashed_where_it_lies(store: Store, tiny: Path, manifest: Manifest) -> None:
    progress = JobProgress()
    assert await import_model(store, str(tiny), progress) == manifest
    assert (progress.stage, progress.done, progress.total) == (
        "hashing",
        manifest.file.size,
        manifest.file.size,
    )
    assert store.manifests() == [manifest]
    assert store.file_of(manifest.cid) == tiny
    assert under(store.root) == set()


async def test_a_file_is_hashed_once(store: Store, tiny: Path) -> None:
    await import_model(store, str(tiny), JobProgress())
    again = JobProgress()
    await import_model(store, str(tiny), again)
    assert again.stage == "starting"


async def test_the_embedded_model_is_the_catalogs(store: Store) -> None:
    entry = shipped_catalog().of_origin(EMBEDDED)
    assert entry is not None
    manifest = await import_model(store, str(embedded_model()), JobProgress(), entry=entry)
    assert manifest.cid == entry.cid


class Held(JobProgress):
    """Holds the work up once some of it is done, until it may go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        super().__init__()

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "done" and value:
            self.begun.set()
            assert self.go_on.wait(10)


async def test_hashing_a_file_can_be_cancelled(store: Store) -> None:
    progress = Held()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(import_model, store, str(embedded_model()), progress)
        await anyio.to_thread.run_sync(progress.begun.wait, 10)
        tasks.cancel_scope.cancel()
        progress.go_on.set()
    assert 0 < progress.done < progress.total
    assert store.manifests() == []


@pytest.mark.parametrize("what", ["/no/such.gguf", "/", "/dev/null"])
async def test_what_is_no_file_is_told(store: Store, what: str) -> None:
    with pytest.raises((ConfigError, ContentError), match=what):
        await import_model(store, what, JobProgress())


async def test_what_is_no_model_is_told(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    await anyio.Path(path).write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ContentError, match=str(path)):
        await import_model(store, str(path), JobProgress())
    tiny_model(path, "olmo2")
    with pytest.raises(ContentError, match="'olmo2' cannot be cut"):
        await import_model(store, str(path), JobProgress())
    assert store.manifests() == []


async def test_a_model_comes_from_a_hub(
    store: Store, hub: Hub, manifest: Manifest, entry: CatalogEntry
) -> None:
    progress = JobProgress()
    found = await import_model(store, HUB, progress, entry=entry, environ=environ(hub))
    assert found == manifest
    assert hub.asked == [(RESOLVED, None), ("/cdn/tiny", None)]
    own = imported_file(store, manifest.cid)
    assert store.file_of(manifest.cid) == own
    assert hashlib.sha256(await anyio.Path(own).read_bytes()).hexdigest() == manifest.file.sha256
    assert store.origins(manifest.cid) == [hub.url(RESOLVED)]
    assert under(store.root) == {f"files/{manifest.cid}.gguf"}
    # Known from there, it is not fetched again.
    await import_model(store, HUB, JobProgress(), environ=environ(hub))
    assert len(hub.asked) == 2


async def test_a_model_comes_from_a_url(store: Store, hub: Hub, manifest: Manifest) -> None:
    url = hub.url("/cdn/tiny")
    assert await import_model(store, url, JobProgress()) == manifest
    assert store.origins(manifest.cid) == [url]


async def test_who_imports_the_same_at_once_waits_for_it(store: Store, hub: Hub, manifest: Manifest) -> None:
    found: list[Manifest] = []

    async def bring() -> None:
        found.append(await import_model(store, hub.url("/cdn/tiny"), JobProgress()))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(bring)
    assert found == [manifest] * 4
    assert hub.asked == [("/cdn/tiny", None)]
    assert store.verify(manifest.cid) == []
    assert not store._promised


async def test_a_slice_can_be_had_from_what_was_imported(store: Store, hub: Hub) -> None:
    manifest = await import_model(store, hub.url("/cdn/tiny"), JobProgress())
    partial = store.begin(manifest, LayerRange(2, 4))
    for blob, index in partial.missing():
        located = store.locate(blob.cid)
        assert located is not None
        partial.write(blob, index, b"".join(located.read(*blob.bounds(index))))
    assert partial.finish().stat().st_size > 0


async def test_a_file_of_the_user_stays_the_only_one(
    store: Store, hub: Hub, tiny: Path, manifest: Manifest
) -> None:
    await import_model(store, str(tiny), JobProgress())
    await import_model(store, HUB, JobProgress(), environ=environ(hub))
    assert store.file_of(manifest.cid) == tiny
    assert store.origins(manifest.cid) == [hub.url(RESOLVED)]
    assert under(store.root) == set()


async def test_an_import_that_was_cancelled_goes_on(store: Store, hub: Hub, manifest: Manifest) -> None:
    data, stop = hub.files["/cdn/tiny"], threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, Content_Length=len(data), ETag=f'"{hashlib.md5(data).hexdigest()}"')
        handler.wfile.write(data[:300_000])
        stop.wait(10)

    hub.behaviours["/cdn/tiny"] = stall
    progress = JobProgress()

    async def begin() -> None:
        await import_model(store, HUB, progress, environ=environ(hub))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        await anyio.to_thread.run_sync(until, lambda: progress.done == 300_000)
        tasks.cancel_scope.cancel()
    stop.set()
    hub.behaviours.clear()
    assert await import_model(store, HUB, JobProgress(), environ=environ(hub)) == manifest
    assert hub.asked[-1] == ("/cdn/tiny", "bytes=300000-")
    assert hub.sent == len(data) - 300_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "0" * 64}, f"where {'0' * 64} is expected"),
        ({"size": 7}, "where 7 are expected"),
        ({"blocks": 7, "sha256": None}, "its blocks is 6, where 7 is expected"),
        ({"architecture": "qwen2"}, "its architecture is llama, where qwen2 is expected"),
        ({"cid": "b3-" + "a" * 52, "sha256": None}, "its cid is b3-"),
    ],
)
async def test_what_is_not_the_catalogs_is_refused_and_not_kept(
    store: Store, hub: Hub, entry: CatalogEntry, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ContentError, match=reason) as caught:
        await import_model(
            store,
            HUB,
            JobProgress(),
            entry=replace(entry, **changes),  # type: ignore[arg-type]
            environ=environ(hub),
        )
    assert str(store.root) not in str(caught.value)
    assert store.manifests() == []
    assert under(store.root) == set()


@pytest.mark.parametrize("spoil", ["header", "garbage"])
async def test_a_download_that_is_no_model_is_told_by_its_origin_and_not_kept(
    store: Store, hub: Hub, spoil: str
) -> None:
    data = hub.files["/cdn/tiny"]
    hub.files["/bad"] = b"GGUF" + b"\xff" * 2000 if spoil == "garbage" else data[: len(data) // 2]
    with pytest.raises(ContentError, match=hub.url("/bad")) as caught:
        await import_model(store, hub.url("/bad"), JobProgress())
    assert str(store.root) not in str(caught.value)
    assert under(store.root) == set()


async def test_a_broken_server_is_told(store: Store, hub: Hub) -> None:
    with pytest.raises(DownloadFailed, match="HTTP 404"):
        await import_model(store, "hf://owner/repo/other.gguf", JobProgress(), environ=environ(hub))
    with pytest.raises(DownloadFailed, match=r"http://127\.0\.0\.1:1/m\.gguf"):
        await import_model(store, "http://127.0.0.1:1/m.gguf", JobProgress())


async def test_what_does_not_fit_is_not_fetched(tmp_path: Path, hub: Hub) -> None:
    with (
        Store.open(tmp_path / "small", 100_000) as store,
        pytest.raises(StoreFull, match="more bytes do not fit"),
    ):
        await import_model(store, HUB, JobProgress(), environ=environ(hub))
    assert under(tmp_path / "small") == set()


async def test_downloads_that_nobody_goes_on_with_are_removed(store: Store, hub: Hub) -> None:
    folder = store.root / "downloads"
    await anyio.Path(folder).mkdir()
    for name, age in (("old", 8 * 86_400), ("new", 60)):
        part = folder / f"{name}.part"
        await anyio.Path(part).write_bytes(b"GGUF")
        now = part.stat().st_mtime
        os.utime(part, (now, now - age))
    await import_model(store, HUB, JobProgress(), environ=environ(hub))
    assert "downloads/new.part" in under(store.root)
    assert "downloads/old.part" not in under(store.root)


@pytest.mark.parametrize("what", ["tiny", "relative/path", "b3-" + "a" * 52, "ftp://h/m", ""])
async def test_what_is_no_place_is_told(store: Store, what: str) -> None:
    with pytest.raises(ConfigError, match=r"write|is read from"):
        await import_model(store, what, JobProgress())
