import gc
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import anyio
import httpx
import pytest
from blake3 import blake3

from intelnav.domain.advert import Address
from intelnav.domain.errors import ContentError, StoreFull
from intelnav.domain.slice import LayerRange
from intelnav.net import ranges
from intelnav.net.chunks import ChunkLimits
from intelnav.net.fetch import FetchFailed, fetch_manifest, fetch_slice
from intelnav.net.gather import PATIENCE, REQUESTS
from intelnav.net.pace import Pace
from intelnav.net.progress import Progress
from intelnav.net.sources import OriginSource, PeerSource, Source
from intelnav.store.blobs import Store
from intelnav.store.cut import cut
from intelnav.store.manifest import PIECE, Manifest, kv_blobs, manifest_of, needed
from intelnav.store.pieces import BlobHasher
from tests.fetching import chunk_server, fetcher
from tests.hub import Behaviour, Hub, head, serving
from tests.liars import LIARS
from tests.models import tiny_model
from tests.taps import tapped

pytestmark = pytest.mark.anyio

LAYERS = LayerRange(8, 10)
MIDDLE = LayerRange(8, 15)
OVERHEAD = 1.05
SEED = 20261125


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(ranges, "HEAD_SECONDS", 2.0)
    monkeypatch.setattr(ranges, "PATIENT_SECONDS", 0.5)
    monkeypatch.setattr(ranges, "MAX_WAIT_SECONDS", 0.05)


@pytest.fixture(scope="session")
def reference(smollm2: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The slice, cut from the whole model."""
    path = tmp_path_factory.mktemp("reference") / "slice.gguf"
    cut(smollm2, LAYERS, path, manifest.cid)
    return path.read_bytes()


def bundles(manifest: Manifest, layers: LayerRange) -> int:
    return sum(blob.size for blob in needed(manifest, layers))


def files(store: Store) -> list[Path]:
    """What has the name of a whole slice."""
    return [held.path for held in store.slices()]


async def fetch(
    store: Store,
    manifest: Manifest,
    sources: Sequence[Source],
    progress: Progress | None = None,
    layers: LayerRange = LAYERS,
) -> Path:
    with anyio.fail_after(40):
        try:
            return await fetch_slice(store, manifest, layers, sources, progress or Progress())
        finally:
            # Whatever became of it, no room is kept for it any more.
            assert not store._promised


@contextmanager
def peers(blobs: dict[str, bytes], count: int) -> Iterator[list[Hub]]:
    """Servers that have the blobs of a slice, and do what a test tells them."""
    if not count:
        yield []
        return
    with serving() as hub, peers(blobs, count - 1) as others:
        hub.files |= blobs
        yield [hub, *others]


@pytest.fixture
def two(blobs: dict[str, bytes]) -> Iterator[list[Hub]]:
    with peers(blobs, 2) as hubs:
        yield hubs


def peer(client: httpx.AsyncClient, hub: Hub) -> PeerSource:
    return PeerSource(client, Address.parse(hub.address))


def lie(hub: Hub, behave: Callable[[bytes], Behaviour], blobs: dict[str, bytes]) -> None:
    hub.behaviours |= {path: behave(data) for path, data in blobs.items()}


# What crosses the wire


async def test_from_a_peer_comes_no_more_than_a_slice_needs(
    web_client: httpx.AsyncClient, seeder: Store, store: Store, manifest: Manifest
) -> None:
    wanted, progress = bundles(manifest, MIDDLE), Progress()
    async with chunk_server(seeder) as (service, address):
        with tapped(address.host, address.port) as tap:
            source = PeerSource(web_client, Address.parse(tap.address))
            path = await fetch(store, manifest, [source], progress, MIDDLE)
            assert wanted < sum(map(len, tap.seen)) <= OVERHEAD * wanted
        assert service.bytes_sent == wanted + manifest.metadata.size
    assert (progress.total, progress.done, progress.copied) == (wanted, wanted, 0)
    assert progress.sources == {source.name: wanted}
    assert store.verify(manifest.cid) == []
    assert path == store.slice(manifest.cid, MIDDLE)


async def test_from_a_whole_gguf_comes_no_more_than_a_slice_needs(
    web_client: httpx.AsyncClient, web_hub: Hub, store: Store, manifest: Manifest, whole: bytes
) -> None:
    web_hub.files["/m.gguf"] = whole
    wanted, header = bundles(manifest, MIDDLE), manifest.metadata.size + manifest.tokenizer.size + 32 * 1024
    with tapped("127.0.0.1", int(web_hub.address.rpartition(":")[2])) as tap:
        source = OriginSource(web_client, f"http://{tap.address}/m.gguf", manifest)
        await fetch(store, manifest, [source], layers=MIDDLE)
        assert wanted < sum(map(len, tap.seen)) <= OVERHEAD * wanted + header
    assert web_hub.sent <= wanted + header
    assert store.verify(manifest.cid) == []


async def test_a_fetched_slice_is_to_the_byte_the_one_that_is_cut(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest, reference: bytes
) -> None:
    path = await fetch(store, manifest, [peer(web_client, hub) for hub in two])
    assert path.read_bytes() == reference


async def test_a_front_slice_brings_the_tokenizer_once(
    web_client: httpx.AsyncClient, seeder: Store, store: Store, manifest: Manifest, tmp_path: Path
) -> None:
    front = LayerRange(0, 1)
    async with chunk_server(seeder) as (service, address):
        path = await fetch(store, manifest, [PeerSource(web_client, address)], layers=front)
        assert service.bytes_sent == bundles(manifest, front) + sum(
            blob.size for blob in kv_blobs(manifest, front)
        )
    assert store.verify(manifest.cid) == []
    assert path.exists()


async def test_what_this_machine_has_is_copied(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest
) -> None:
    await fetch(store, manifest, [peer(web_client, two[0])], layers=LayerRange(8, 9))
    before, progress = two[0].sent, Progress()
    await fetch(store, manifest, [peer(web_client, two[0])], progress)
    size = needed(manifest, LayerRange(9, 10))[0].size
    assert two[0].sent - before == size
    assert (progress.copied, progress.done) == (bundles(manifest, LAYERS) - size, bundles(manifest, LAYERS))


async def test_a_copy_that_was_damaged_meanwhile_is_fetched_instead(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest, reference: bytes
) -> None:
    held = await fetch(store, manifest, [peer(web_client, two[0])], layers=LayerRange(8, 9))
    os.truncate(held, held.stat().st_size // 2)
    path = await fetch(store, manifest, [peer(web_client, two[0])])
    assert path.read_bytes() == reference


async def test_the_rate_is_kept_to(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest
) -> None:
    start, rate = anyio.current_time(), 6 << 20
    sources = [peer(web_client, hub) for hub in two]
    await fetch_slice(store, manifest, LAYERS, sources, Progress(), pace=Pace(rate))
    assert anyio.current_time() - start >= bundles(manifest, LAYERS) / rate - 0.3


# Several sources


async def test_several_sources_share_the_work(
    web_client: httpx.AsyncClient, seeder: Store, store: Store, manifest: Manifest, whole: bytes, web_hub: Hub
) -> None:
    web_hub.files["/m.gguf"] = whole
    progress = Progress()
    async with (
        chunk_server(seeder, ChunkLimits(bytes_per_second=20 << 20)) as (_, one),
        chunk_server(seeder, ChunkLimits(bytes_per_second=20 << 20)) as (_, other),
    ):
        sources: list[Source] = [
            PeerSource(web_client, one),
            PeerSource(web_client, other),
            OriginSource(web_client, web_hub.url("/m.gguf"), manifest),
        ]
        await fetch(store, manifest, sources, progress, MIDDLE)
    assert {source.name for source in sources} == set(progress.sources)
    assert sum(progress.sources.values()) == bundles(manifest, MIDDLE) == progress.done
    assert store.verify(manifest.cid) == []


async def test_one_that_lacks_a_blob_is_asked_for_the_others(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest
) -> None:
    lacking, having = two
    one, other = needed(manifest, LAYERS)
    del lacking.files[f"/v1/blobs/{one.cid}"]
    del having.files[f"/v1/blobs/{other.cid}"]
    progress = Progress()
    await fetch(store, manifest, [peer(web_client, hub) for hub in two], progress)
    assert progress.dropped == []
    assert sorted(progress.sources.values()) == sorted([one.size, other.size])
    for hub, blob in ((lacking, one), (having, other)):
        # Each of its requests may have been under way when it told.
        assert sum(blob.cid in path for path, _ in hub.asked) <= REQUESTS


async def test_sources_that_have_not_all_of_it_are_named(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest
) -> None:
    missing = needed(manifest, LAYERS)[0]
    for hub in two:
        del hub.files[f"/v1/blobs/{missing.cid}"]
    with pytest.raises(FetchFailed) as caught:
        await fetch(store, manifest, [peer(web_client, hub) for hub in two])
    assert all(f"http://{hub.address}: does not have all of it" in str(caught.value) for hub in two)
    assert files(store) == []
    # What came is kept.
    progress = Progress()
    with pytest.raises(FetchFailed):
        await fetch(store, manifest, [peer(web_client, two[1])], progress)
    assert progress.done == bundles(manifest, LAYERS) - missing.size


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_one_is_asked_again(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest, status: int
) -> None:
    hub = two[0]
    refused: dict[str, int] = {}

    def busy(handler: BaseHTTPRequestHandler) -> None:
        refused[handler.path] = refused.get(handler.path, 0) + 1
        if refused[handler.path] > 3:
            hub.behaviours.pop(handler.path, None)
        head(handler, status, Retry_After=1, Content_Length=0)

    hub.behaviours |= dict.fromkeys(hub.files, busy)
    progress = Progress()
    await fetch(store, manifest, [peer(web_client, hub)], progress)
    assert progress.dropped == []
    assert all(count > 3 for count in refused.values())


async def test_one_that_stays_busy_is_given_up_and_holds_up_nobody(
    web_client: httpx.AsyncClient,
    two: list[Hub],
    store: Store,
    manifest: Manifest,
    blobs: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(_: bytes) -> Behaviour:
        return lambda handler: head(handler, 503, Retry_After=1, Content_Length=0)

    lie(two[0], busy, blobs)
    with pytest.raises(FetchFailed, match="has no time"):
        await fetch(store, manifest, [peer(web_client, two[0])])
    assert len(two[0].asked) == PATIENCE
    # Its runs are left to others while it is let alone.
    monkeypatch.setattr(ranges, "MAX_WAIT_SECONDS", 1.0)
    start = anyio.current_time()
    await fetch(store, manifest, [peer(web_client, two[1]), peer(web_client, two[0])])
    assert anyio.current_time() - start < 5


async def test_one_source_twice_is_one_source(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest
) -> None:
    await fetch(store, manifest, [peer(web_client, two[0])] * 5)
    assert two[0].sent == bundles(manifest, LAYERS) + manifest.metadata.size


# Sources that lie


@pytest.mark.parametrize("what", LIARS)
async def test_one_that_lies_is_dropped_and_the_honest_one_brings_it(
    web_client: httpx.AsyncClient,
    two: list[Hub],
    store: Store,
    manifest: Manifest,
    blobs: dict[str, bytes],
    what: str,
    reference: bytes,
) -> None:
    behave, reason = LIARS[what]
    liar, honest = two
    lie(liar, behave, blobs)
    progress = Progress()
    path = await fetch(store, manifest, [peer(web_client, liar), peer(web_client, honest)], progress)
    assert path.read_bytes() == reference
    ((name, told),) = progress.dropped
    assert name == f"http://{liar.address}"
    assert re.search(reason, told), told


@pytest.mark.parametrize("what", LIARS)
async def test_with_no_honest_one_each_is_named_and_nothing_is_there(
    web_client: httpx.AsyncClient,
    two: list[Hub],
    store: Store,
    manifest: Manifest,
    blobs: dict[str, bytes],
    what: str,
) -> None:
    # The metadata are honest, so that it comes to the pieces, all at once.
    pieces = {path: data for path, data in blobs.items() if manifest.metadata.cid not in path}
    for hub in two:
        lie(hub, LIARS[what][0], pieces)
    progress = Progress()
    with pytest.raises(FetchFailed) as caught:
        await fetch(store, manifest, [peer(web_client, hub) for hub in two], progress)
    for hub in two:
        assert re.search(f"http://{hub.address}: .*({LIARS[what][1]})", str(caught.value))
    assert len(progress.dropped) == 2
    assert files(store) == []
    assert store.slice(manifest.cid, LAYERS) is None


async def test_another_blob_under_the_name_of_one(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest, reference: bytes
) -> None:
    one, other = (f"/v1/blobs/{blob.cid}" for blob in needed(manifest, LAYERS))
    liar, honest = two
    liar.files[one], liar.files[other] = liar.files[other], liar.files[one]
    progress = Progress()
    path = await fetch(store, manifest, [peer(web_client, liar), peer(web_client, honest)], progress)
    assert path.read_bytes() == reference
    assert [name for name, _ in progress.dropped] == [f"http://{liar.address}"]


async def test_one_that_is_dropped_loses_all_of_its_requests(
    web_client: httpx.AsyncClient,
    two: list[Hub],
    store: Store,
    manifest: Manifest,
    blobs: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of them would go on for hours, just fast enough."""
    monkeypatch.setattr(ranges, "SLOWEST", 0)
    liar, honest = two
    path = f"/v1/blobs/{needed(manifest, LAYERS)[0].cid}"
    drips, flips = (LIARS[what][0](blobs[path]) for what in ("drips", "flips a bit"))
    liar.behaviours[path] = lambda handler: (
        drips if (handler.headers["Range"] or "").startswith("bytes=0-") else flips
    )(handler)
    progress = Progress()
    await fetch(store, manifest, [peer(web_client, liar), peer(web_client, honest)], progress)
    assert [name for name, _ in progress.dropped] == [f"http://{liar.address}"]
    assert len([wanted for asked_for, wanted in liar.asked if asked_for == path]) == REQUESTS
    assert store.verify(manifest.cid) == []


async def test_an_origin_with_another_file_is_dropped(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest, whole: bytes
) -> None:
    two[0].files["/m.gguf"] = whole[: 4 << 20] + bytes(len(whole) - (4 << 20))
    origin = OriginSource(web_client, two[0].url("/m.gguf"), manifest)
    progress = Progress()
    await fetch(store, manifest, [origin, peer(web_client, two[1])], progress)
    assert [name for name, _ in progress.dropped] == [origin.name]
    assert store.verify(manifest.cid) == []


# Manifests


async def test_a_manifest_from_the_first_that_has_it(
    web_client: httpx.AsyncClient, seeder: Store, two: list[Hub], manifest: Manifest, tmp_path: Path
) -> None:
    other = manifest_of(tiny_model(tmp_path / "tiny.gguf"))
    path = f"/v1/models/{manifest.cid}/manifest"
    two[0].files[path] = other.to_bytes()
    progress = Progress()
    async with chunk_server(seeder) as (_, address):
        sources = [*(peer(web_client, hub) for hub in two), PeerSource(web_client, address)]
        assert await fetch_manifest(manifest.cid, sources, progress) == manifest
    ((name, told),) = progress.dropped
    assert (name, "another model" in told) == (f"http://{two[0].address}", True)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"format": 1}', bytes(10_000), b"GGUF"],
    ids=["empty", "object", "nested", "no-text", "fields", "zeros", "gguf"],
)
async def test_rubbish_for_a_manifest(
    web_client: httpx.AsyncClient, web_hub: Hub, manifest: Manifest, data: bytes
) -> None:
    web_hub.files[f"/v1/models/{manifest.cid}/manifest"] = data
    progress = Progress()
    with pytest.raises(FetchFailed, match=web_hub.address):
        await fetch_manifest(manifest.cid, [peer(web_client, web_hub)], progress)
    assert len(progress.dropped) == 1


async def test_nobody_to_ask(store: Store, manifest: Manifest) -> None:
    with pytest.raises(FetchFailed, match="no source is known"):
        await fetch_manifest(manifest.cid, [], Progress())
    with pytest.raises(FetchFailed, match="no source is known"):
        await fetch(store, manifest, [])


async def test_a_manifest_that_contradicts_itself_is_found_out(
    web_client: httpx.AsyncClient, two: list[Hub], store: Store, manifest: Manifest
) -> None:
    """Right pieces, but the hash of another bundle: what came is no use to anyone."""
    victim = next(entry for entry in manifest.bundles if entry.bundle.name == "blk.8")
    right = two[0].files[f"/v1/blobs/{victim.blob.cid}"]
    hasher = BlobHasher()
    hasher.update(bytes(victim.blob.size))
    wrong = replace(victim.blob, cid=hasher.blob().cid)
    forged = replace(
        manifest,
        bundles=tuple(replace(e, blob=wrong) if e is victim else e for e in manifest.bundles),
    )
    two[0].files[f"/v1/blobs/{wrong.cid}"] = right
    with pytest.raises(ContentError, match="not its hash"):
        await fetch(store, forged, [peer(web_client, two[0])])
    assert files(store) == []
    assert not list(store.root.rglob("*.part"))


# Broken off


async def test_cancelled_it_keeps_what_came(
    web_client: httpx.AsyncClient, seeder: Store, store: Store, manifest: Manifest
) -> None:
    wanted = bundles(manifest, MIDDLE)
    async with chunk_server(seeder, ChunkLimits(bytes_per_second=10 << 20)) as (_, address):
        sources, progress = [PeerSource(web_client, address)], Progress()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, store, manifest, sources, progress, MIDDLE)
            while progress.done < wanted // 3:  # noqa: ASYNC110 - progress is looked at, it tells nobody
                await anyio.sleep(0.005)
            tasks.cancel_scope.cancel()
        had = progress.done
        assert files(store) == []
        again = Progress()
        await fetch(store, manifest, sources, again, MIDDLE)
        assert again.copied >= had
        assert sum(again.sources.values()) == wanted - again.copied
    assert store.verify(manifest.cid) == []


async def test_what_an_earlier_try_left_takes_its_room_only_once(
    web_client: httpx.AsyncClient, two: list[Hub], manifest: Manifest, tmp_path: Path
) -> None:
    """The quota has room for the slice, but not for one and a half."""
    missing = needed(manifest, LAYERS)[1]
    content = two[0].files.pop(f"/v1/blobs/{missing.cid}")
    with Store.open(tmp_path / "store", bundles(manifest, LAYERS) + 400_000) as store:
        with pytest.raises(FetchFailed):
            await fetch(store, manifest, [peer(web_client, two[0])])
        two[0].files[f"/v1/blobs/{missing.cid}"] = content
        assert (await fetch(store, manifest, [peer(web_client, two[0])])).exists()


async def test_no_room_by_the_quota(
    web_client: httpx.AsyncClient, two: list[Hub], manifest: Manifest, tmp_path: Path
) -> None:
    with (
        Store.open(tmp_path / "store", bundles(manifest, LAYERS) // 2) as store,
        pytest.raises(StoreFull, match="max_bytes"),
    ):
        await fetch(store, manifest, [peer(web_client, two[0])])
    assert two[0].sent <= manifest.metadata.size


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Callable[[int], int]]:
    """A file system of its own at `path`, which can be made larger."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting takes rights that are not here: {mounted.stderr!r}")
    try:
        yield lambda size: subprocess.check_call(["mount", "-o", f"remount,size={size}m", path])
    finally:
        subprocess.check_call(["umount", path])


async def test_a_disk_that_fills_up_meanwhile(
    web_client: httpx.AsyncClient, seeder: Store, manifest: Manifest, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 20) as enlarge:
        async with chunk_server(seeder, ChunkLimits(bytes_per_second=20 << 20)) as (_, address):
            with Store.open(tmp_path / "disk" / "store", None) as store:
                sources, progress = [PeerSource(web_client, address)], Progress()

                async def fill() -> None:
                    while not progress.done:  # noqa: ASYNC110 - as above
                        await anyio.sleep(0.001)
                    (tmp_path / "disk" / "other").write_bytes(bytes(10 << 20))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(fill)
                    with pytest.raises(StoreFull, match="the disk is full"):
                        await fetch(store, manifest, sources, progress, MIDDLE)
                    had = progress.done
                assert 0 < had < bundles(manifest, MIDDLE)
                assert files(store) == []
                with pytest.raises(StoreFull):
                    await fetch(store, manifest, sources, Progress(), MIDDLE)
                enlarge(60)
                again = Progress()
                await fetch(store, manifest, sources, again, MIDDLE)
                assert again.copied == had
                assert store.verify(manifest.cid) == []
        gc.collect()


# kill -9


class Kills:
    """One store after the other, whose fetching process is killed at random moments."""

    def __init__(self, hub: Hub, manifest: Manifest, folder: Path, reference: bytes) -> None:
        self.hub, self.manifest, self.folder, self.reference = hub, manifest, folder, reference
        self.random = random.Random(SEED)
        self.killed = 0

    @property
    def part(self) -> Path:
        return self.folder / "slices" / self.manifest.cid / f".{LAYERS.start}-{LAYERS.end}.part"

    @property
    def final(self) -> Path:
        return self.part.with_name(f"{LAYERS.start}-{LAYERS.end}.gguf")

    def there(self) -> set[tuple[str, int]]:
        """The pieces that are on disk now, by hashes that this test computes itself."""
        if not self.part.exists():
            return set()
        data, found = self.part.read_bytes(), set()
        for blob in needed(self.manifest, LAYERS):
            place = self.reference.index(self.hub.files[f"/v1/blobs/{blob.cid}"])
            for index in range(blob.piece_count):
                start, end = blob.bounds(index)
                if blake3(data[place + start : place + end]).digest() == blob.digest_of(index):
                    found.add((blob.cid, index))
        return found

    def run(self, kill_after: float | None, rate: int | None) -> bool:
        """Let one process fetch; whether it was done. Nothing that was there may be asked for again."""
        had, before = self.there(), len(self.hub.asked)
        process, told = fetcher(self.folder, self.manifest.to_bytes(), str(LAYERS), self.hub.address, rate)
        assert told.poll(30)
        assert told.recv() is True
        try:
            if kill_after is None:
                assert told.poll(30)
                assert told.recv() == self.final
                process.join(30)
            else:
                process.join(kill_after)
                if process.is_alive():
                    process.kill()
                    self.killed += 1
        finally:
            process.kill()
            process.join()
            told.close()
        assert not had & {piece for path, wanted in self.hub.asked[before:] for piece in asked(path, wanted)}
        if self.final.exists():
            assert self.final.read_bytes() == self.reference
            return True
        return False


def asked(path: str, wanted: str | None) -> Iterator[tuple[str, int]]:
    """The pieces that a request was for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or "")
    assert match, wanted
    for index in range(int(match[1]) // PIECE, int(match[2]) // PIECE + 1):
        yield path.rpartition("/")[2], index


@pytest.mark.timeout(180)
def test_killed_at_fifty_random_moments_it_finishes_and_fetches_nothing_twice(
    two: list[Hub], manifest: Manifest, tmp_path: Path, reference: bytes
) -> None:
    kills = Kills(two[0], manifest, tmp_path / "store", reference)
    wanted, rate = bundles(manifest, LAYERS), 12 << 20
    while kills.killed < 50:
        shutil.rmtree(kills.folder, ignore_errors=True)
        two[0].sent, two[0].asked, before = 0, [], kills.killed
        stitching = kills.killed >= 35
        if stitching:
            # All pieces are there: what is left is to check them and to give the file its name.
            kills.part.parent.mkdir(parents=True)
            kills.part.write_bytes(without_header(reference, kills))
        longest = 0.08 if stitching else wanted / rate
        done = False
        while not done and kills.killed - before < 5:
            done = kills.run(kills.random.uniform(0, longest), rate)
        assert done or kills.run(None, None)
        again = kills.killed - before
        unfinished = again * REQUESTS * max(blob.size for blob in needed(manifest, LAYERS))
        assert two[0].sent <= (again + 1) * manifest.metadata.size + wanted + unfinished


def without_header(reference: bytes, kills: Kills) -> bytes:
    """What a slice looks like before its header is written."""
    start = reference.index(kills.hub.files[f"/v1/blobs/{needed(kills.manifest, LAYERS)[0].cid}"])
    return bytes(start) + reference[start:]
