import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.advert import Address
from intelnav.domain.slice import LayerRange
from intelnav.net import chunks as module
from intelnav.net.chunks import ChunkLimits, ChunkService
from intelnav.store.blobs import Store
from intelnav.store.manifest import Manifest, manifest_of
from tests.fetching import chunk_server
from tests.models import tiny_model

pytestmark = pytest.mark.anyio


def content(store: Store, cid: str) -> bytes:
    located = store.locate(cid)
    assert located is not None
    return b"".join(located.read(0, located.size))


@pytest.fixture
def block(manifest: Manifest) -> str:
    return next(entry.blob.cid for entry in manifest.bundles if entry.bundle.name == "blk.8")


@pytest.fixture
def large(manifest: Manifest) -> str:
    """A blob that no socket has room for."""
    blob = next(entry.blob for entry in manifest.bundles if entry.bundle.name == "embed")
    assert blob.size > 16 << 20
    return blob.cid


SIZE = 2216448


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=2000000-", 2000000, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-99999999", 0, SIZE),
        (f"bytes={SIZE - 1}-99999999", SIZE - 1, SIZE),
        (f"bytes=0-{10**18 - 1}", 0, SIZE),
    ],
)
async def test_one_range(
    web_client: httpx.AsyncClient, seeder: Store, block: str, asked: str, start: int, end: int
) -> None:
    async with chunk_server(seeder) as (service, address):
        answer = await web_client.get(f"http://{address}/v1/blobs/{block}", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == content(seeder, block)[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start) == str(service.bytes_sent)
    assert answer.headers["etag"] == f'"{block}"'
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "asked",
    [
        f"bytes={SIZE}-",
        f"bytes={SIZE}-{SIZE + 5}",
        "bytes=5-4",
        "bytes=-0",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "bytes=0-1,5-6",
        "bytes=0-1, 5-6",
        "octets=0-1",
        "bytes=a-b",
        "bytes=--5",
        "bytes=-5-6",
        "bytes=0x1-2",
        "bytes=1.5-2",
        "bytes=0-" + "9" * 5000,
        "bytes=0-\xb2",
    ],
)
async def test_no_range_that_can_be_had(
    web_client: httpx.AsyncClient, seeder: Store, block: str, asked: str
) -> None:
    async with chunk_server(seeder) as (service, address):
        answer = await web_client.get(
            f"http://{address}/v1/blobs/{block}", headers=[(b"Range", asked.encode("latin-1"))]
        )
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert "range" in answer.json()["error"]
    assert service.bytes_sent == 0


@given(header=st.text(st.characters(min_codepoint=32, max_codepoint=255)), size=st.integers(0, 1 << 48))
def test_whatever_is_asked_for_the_range_lies_within(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        span = module._range(text, size)
        assert span is None or 0 <= span[0] < span[1] <= size


async def test_a_whole_blob_its_head_and_a_manifest(
    web_client: httpx.AsyncClient, seeder: Store, manifest: Manifest, block: str
) -> None:
    async with chunk_server(seeder) as (service, address):
        url = f"http://{address}/v1/blobs/{block}"
        asked = await web_client.head(url)
        assert (asked.status_code, asked.content, service.bytes_sent) == (200, b"", 0)
        assert asked.headers["content-length"] == str(SIZE)
        assert asked.headers["accept-ranges"] == "bytes"
        ranged = await web_client.head(url, headers={"Range": "bytes=5-9"})
        assert (ranged.status_code, ranged.headers["content-length"]) == (206, "5")
        whole = await web_client.get(url)
        assert (whole.status_code, whole.content) == (200, content(seeder, block))
        before = service.bytes_sent
        found = await web_client.get(f"http://{address}/v1/models/{manifest.cid}/manifest")
        assert (found.status_code, found.content) == (200, manifest.to_bytes())
        assert found.headers["etag"] == f'"{manifest.cid}"'
        assert service.bytes_sent - before == len(found.content)


@pytest.mark.parametrize(
    "name",
    [
        "b3-" + "a" * 52,
        "x",
        "..",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "....//lock",
        "%00",
        "b3-" + "A" * 10_000,
        "lock",
        "%ff%fe",
    ],
)
async def test_what_is_not_here(web_client: httpx.AsyncClient, seeder: Store, name: str) -> None:
    async with chunk_server(seeder) as (_, address):
        for path in (f"/v1/blobs/{name}", f"/v1/models/{name}/manifest"):
            assert await raw_status(address, path) == 404
            assert (await web_client.get(f"http://{address}{path}")).status_code == 404


async def raw_status(address: Address, path: str) -> int:
    """The status of an answer to a path that no client tidied up."""
    async with await anyio.connect_tcp(address.host, address.port) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int((await stream.receive()).split()[1])


async def test_nothing_is_changed(web_client: httpx.AsyncClient, seeder: Store, block: str) -> None:
    async with chunk_server(seeder) as (_, address):
        for method in ("POST", "PUT", "DELETE"):
            answer = await web_client.request(method, f"http://{address}/v1/blobs/{block}")
            assert answer.status_code == 405


async def open_answer(stack: AsyncExitStack, address: Address, large: str, local: str = "127.0.0.1") -> int:
    """The status of an answer that is left open, of which no more than the head is read."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((local, 0))
        sock.connect((address.host, address.port))
        sock.setblocking(False)
        stream = await stack.enter_async_context(await anyio.abc.SocketStream.from_socket(sock.dup()))
    await stream.send(f"GET /v1/blobs/{large} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return int((await stream.receive(200)).split()[1])


async def until_free(service: ChunkService) -> None:
    with anyio.fail_after(10):
        while service._busy:  # noqa: ASYNC110 - a server tells nobody that it is done with a client
            await anyio.sleep(0.01)


async def test_no_more_answers_at_once_than_the_limits_say(
    web_client: httpx.AsyncClient, seeder: Store, large: str
) -> None:
    async with chunk_server(seeder, ChunkLimits(per_peer=3, total=5)) as (service, address):
        async with AsyncExitStack() as stack:
            for local, statuses in (("127.0.0.1", [200, 200, 200, 429]), ("127.0.0.2", [200, 200, 503])):
                assert [await open_answer(stack, address, large, local) for _ in statuses] == statuses
            refused = await web_client.get(f"http://{address}/v1/blobs/{large}")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "at once" in refused.json()["error"]
            # What takes no place is answered all the same.
            assert (await web_client.head(f"http://{address}/v1/blobs/{large}")).status_code == 200
        # Places are free again as soon as those have left, and after an answer that was read to its end.
        await until_free(service)
        assert (await web_client.get(f"http://{address}/v1/blobs/{large}")).status_code == 200
        await until_free(service)


async def test_many_requests_at_one_moment_do_not_get_past_the_limit(
    web_client: httpx.AsyncClient, seeder: Store, large: str
) -> None:
    async with chunk_server(seeder, ChunkLimits(per_peer=3)) as (_, address), AsyncExitStack() as stack:
        statuses = []

        async def ask() -> None:
            statuses.append(await open_answer(stack, address, large))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
        assert sorted(statuses) == [200] * 3 + [429] * 17


async def test_slow_readers_do_not_block_others(
    web_client: httpx.AsyncClient, seeder: Store, large: str
) -> None:
    async with chunk_server(seeder) as (_, address), AsyncExitStack() as stack:
        for number in range(40):
            assert await open_answer(stack, address, large, f"127.0.0.{2 + number}") == 200
        with anyio.fail_after(10):
            answer = await web_client.get(f"http://{address}/v1/blobs/{large}")
        assert answer.content == content(seeder, large)


async def test_all_answers_together_keep_to_the_rate(
    web_client: httpx.AsyncClient, seeder: Store, block: str
) -> None:
    async with chunk_server(seeder, ChunkLimits(bytes_per_second=4 << 20)) as (_, address):
        start = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(web_client.get, f"http://{address}/v1/blobs/{block}")
        assert anyio.current_time() - start >= 2 * SIZE / (4 << 20) - 0.3


async def test_a_file_that_changed_is_not_given_out(web_client: httpx.AsyncClient, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "m.gguf")
    manifest = manifest_of(path)
    blob = manifest.bundles[2].blob
    with Store.open(tmp_path / "store", None) as store:
        store.add_file(manifest, path, None)
        async with chunk_server(store) as (_, address):
            url = f"http://{address}/v1/blobs/{blob.cid}"
            assert (await web_client.get(url)).status_code == 200
            found = path.stat()
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
            assert (await web_client.get(url)).status_code == 404
            path.unlink()
            assert (await web_client.get(url)).status_code == 404


async def test_an_answer_whose_file_ends_breaks_off(
    web_client: httpx.AsyncClient, seeder: Store, manifest: Manifest, block: str, tmp_path: Path
) -> None:
    """Somebody cut a slice short: what is left is sent, and the client sees that it is not all."""
    for blob in (manifest.metadata,):
        seeder.put_blob(blob, content(seeder, blob.cid))
    part = seeder.begin(manifest, LayerRange(8, 9))
    for blob, index in part.missing():
        part.write(blob, index, content(seeder, blob.cid)[slice(*blob.bounds(index))])
    path = part.finish()
    (tmp_path / "seeder" / "files" / f"{manifest.cid}.json").unlink()
    seeder._index.changed()
    async with chunk_server(seeder) as (_, address):
        url = f"http://{address}/v1/blobs/{block}"
        assert (await web_client.get(url)).status_code == 200
        size = path.stat().st_size
        os.truncate(path, size - SIZE // 2 - 100_000)
        with pytest.raises(httpx.RemoteProtocolError):
            await web_client.get(url)
        assert (
            await web_client.get(f"http://{address}/v1/models/{manifest.cid}/manifest")
        ).status_code == 200


async def test_there_is_no_second_copy_on_disk(
    web_client: httpx.AsyncClient, seeder: Store, manifest: Manifest, block: str, tmp_path: Path
) -> None:
    before = seeder.used()
    async with chunk_server(seeder) as (_, address):
        await web_client.get(f"http://{address}/v1/blobs/{block}")
        await web_client.get(f"http://{address}/v1/models/{manifest.cid}/manifest")
    assert seeder.used() == before < SIZE
