from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from intelnav.domain.advert import Address
from intelnav.net.ranges import Missing, SourceError
from intelnav.net.sources import OriginSource, PeerSource, Source
from intelnav.store.blobs import Store
from intelnav.store.manifest import PIECE, Blob, Manifest, manifest_of
from tests.fetching import chunk_server
from tests.hub import Hub, head
from tests.models import tiny_model

pytestmark = pytest.mark.anyio


async def read(source: Source, blob: Blob, start: int, end: int) -> bytes:
    found = bytearray()
    async with aclosing(source.read(blob, start, end)) as parts:
        async for part in parts:
            found += part
    return bytes(found)


def content(store: Store, blob: Blob) -> bytes:
    located = store.locate(blob.cid)
    assert located is not None
    return b"".join(located.read(0, located.size))


async def test_a_peer_has_manifests_and_blobs(
    web_client: httpx.AsyncClient, seeder: Store, manifest: Manifest
) -> None:
    async with chunk_server(seeder) as (_, address):
        peer = PeerSource(web_client, address)
        assert peer.name == f"http://{address}"
        assert await peer.manifest(manifest.cid) == manifest.to_bytes()
        blob = manifest.bundles[9].blob
        assert await read(peer, blob, 5, 2 * PIECE + 7) == content(seeder, blob)[5 : 2 * PIECE + 7]


async def test_a_peer_sends_nobody_elsewhere(
    web_client: httpx.AsyncClient, web_hub: Hub, manifest: Manifest
) -> None:
    for path in (f"/v1/models/{manifest.cid}/manifest", f"/v1/blobs/{manifest.metadata.cid}"):
        web_hub.behaviours[path] = lambda handler: head(handler, 302, Location="/x", Content_Length=0)
    peer = PeerSource(web_client, Address.parse(web_hub.address))
    with pytest.raises(SourceError, match="redirects"):
        await peer.manifest(manifest.cid)
    with pytest.raises(SourceError, match="redirects"):
        await read(peer, manifest.metadata, 0, 1)
    assert "/x" not in [path for path, _ in web_hub.asked]


async def test_every_blob_of_a_whole_gguf(
    web_client: httpx.AsyncClient, web_hub: Hub, seeder: Store, manifest: Manifest, whole: bytes
) -> None:
    web_hub.files["/m.gguf"] = whole
    origin = OriginSource(web_client, web_hub.url("/m.gguf"), manifest)
    for blob in (manifest.metadata, manifest.tokenizer, *(entry.blob for entry in manifest.bundles[:4])):
        assert await read(origin, blob, 0, blob.size) == content(seeder, blob)
        middle = blob.size // 3, max(blob.size // 2, blob.size // 3 + 1) if blob.size else 0
        if blob.size:
            assert await read(origin, blob, *middle) == content(seeder, blob)[slice(*middle)]


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "starcoder2", "qwen2moe"])
async def test_small_and_odd_tensors(
    web_client: httpx.AsyncClient, web_hub: Hub, tmp_path: Path, architecture: str
) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", architecture, blocks=2)
    manifest = manifest_of(path)
    web_hub.files["/m.gguf"] = path.read_bytes()
    origin = OriginSource(web_client, web_hub.url("/m.gguf"), manifest)
    with Store.open(tmp_path / "store", None) as store:
        store.add_file(manifest, path, None)
        for blob in manifest.blobs:
            assert await read(origin, blob, 0, blob.size) == content(store, blob)


async def test_the_header_is_read_once_and_no_further(
    web_client: httpx.AsyncClient, web_hub: Hub, manifest: Manifest, whole: bytes
) -> None:
    web_hub.files["/m.gguf"] = whole
    origin = OriginSource(web_client, web_hub.url("/m.gguf"), manifest)
    await read(origin, manifest.metadata, 0, manifest.metadata.size)
    await read(origin, manifest.tokenizer, 0, manifest.tokenizer.size)
    # The tensor data starts at the next multiple of the alignment.
    first = min(whole.index(b"GGUF"), 0) + web_hub.sent
    assert len(web_hub.asked) == 1
    assert manifest.metadata.size + manifest.tokenizer.size < first < manifest.tokenizer.size + 64 * 1024


async def test_another_file_than_that_of_the_manifest(
    web_client: httpx.AsyncClient, web_hub: Hub, manifest: Manifest, whole: bytes, tmp_path: Path
) -> None:
    other = tiny_model(tmp_path / "tiny.gguf").read_bytes()
    for data in (
        other,
        other.ljust(len(whole), b"\0"),
        bytes(len(whole)),
        whole[:4] + b"\xff" * (len(whole) - 4),
    ):
        web_hub.files["/m.gguf"] = data
        origin = OriginSource(web_client, web_hub.url("/m.gguf"), manifest)
        with pytest.raises(SourceError):
            await read(origin, manifest.metadata, 0, manifest.metadata.size)


async def test_an_origin_that_lost_its_file(
    web_client: httpx.AsyncClient, web_hub: Hub, manifest: Manifest
) -> None:
    origin = OriginSource(web_client, web_hub.url("/m.gguf"), manifest)
    with pytest.raises(SourceError, match="is not there"):
        await read(origin, manifest.metadata, 0, 1)
    with pytest.raises(Missing):
        await origin.manifest(manifest.cid)
