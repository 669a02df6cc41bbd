import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from intelnav.domain.errors import ContentError, IntelNavError
from intelnav.domain.job import JobProgress
from intelnav.net import download as module
from intelnav.net import part as parts
from intelnav.net.download import DownloadFailed, Published, download
from tests.hub import Behaviour, Hub, head, serving
from tests.waiting import until

pytestmark = pytest.mark.anyio

FILE = b"GGUF" + bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(FILE).hexdigest()
PATH = "/m.gguf"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.files[PATH] = FILE
        yield hub


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "m.part"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.4)
    monkeypatch.setattr(module, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(module, "WINDOW_SECONDS", 0.3)
    monkeypatch.setattr(module, "CHUNK", 1 << 16)
    monkeypatch.setattr(parts, "SYNC_BYTES", 1 << 17)


def content(part: Path) -> bytes:
    return part.read_bytes()


def spoil(part: Path, data: bytes) -> None:
    part.write_bytes(data)


def files(part: Path) -> list[Path]:
    """What lies where the part was to be."""
    return list(part.parent.iterdir())


class Fetch:
    """One try, with what came of it."""

    def __init__(self, client: httpx.AsyncClient, url: str, part: Path) -> None:
        self._client, self._url, self._part = client, url, part
        self.progress = JobProgress()
        self.room: list[int] = []

    async def __call__(self, published: Published = Published(), rate: int | None = None) -> None:  # noqa: B008
        with anyio.fail_after(20):
            await download(
                self._client, self._url, self._part, published, self.progress, self.room.append, rate
            )


def stop_after(size: int, data: bytes = FILE, **headers: object) -> Behaviour:
    """Behaviour of a server that hangs up in the middle of a file."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, Content_Length=len(data), **headers)
        handler.wfile.write(data[:size])

    return behave


async def test_a_file_comes_whole(client: httpx.AsyncClient, hub: Hub, part: Path) -> None:
    fetch = Fetch(client, hub.url(PATH), part)
    await fetch(Published(len(FILE), SHA256))
    assert content(part) == FILE
    assert (fetch.progress.stage, fetch.progress.done, fetch.progress.total) == (
        "downloading",
        len(FILE),
        len(FILE),
    )
    assert fetch.room == [len(FILE)]


@pytest.mark.parametrize("size", [1, 70_000, 200_000, 2_000_000, len(FILE) - 1])
async def test_the_next_try_goes_on_where_it_broke_off(
    client: httpx.AsyncClient, hub: Hub, part: Path, size: int
) -> None:
    hub.behaviours[PATH] = stop_after(size, ETag=f'"{hashlib.md5(FILE).hexdigest()}"')
    with pytest.raises((DownloadFailed, ContentError)):
        await Fetch(client, hub.url(PATH), part)()
    hub.behaviours.clear()
    fetch = Fetch(client, hub.url(PATH), part)
    await fetch()
    assert content(part) == FILE
    start = size if size >= 4 else 0
    assert fetch.room == [len(FILE)]
    assert hub.sent == len(FILE) - start


async def test_after_a_crash_it_goes_on_from_what_is_on_the_disk_for_certain(
    client: httpx.AsyncClient, hub: Hub, part: Path
) -> None:
    await Fetch(client, hub.url(PATH), part)()
    notes = json.loads(part.with_suffix(".json").read_text())
    part.with_suffix(".json").write_text(json.dumps(notes | {"synced": 500_000}))
    # What came after that may be anything.
    spoil(part, FILE[:500_000] + bytes(1_000_000))
    fetch = Fetch(client, hub.url(PATH), part)
    await fetch(Published(sha256=SHA256))
    assert content(part) == FILE
    assert fetch.room == [len(FILE)]


async def test_what_is_whole_already_is_not_asked_for_again(
    client: httpx.AsyncClient, hub: Hub, part: Path
) -> None:
    await Fetch(client, hub.url(PATH), part)()
    await Fetch(client, hub.url(PATH), part)(Published(len(FILE), SHA256))
    assert len(hub.asked) == 1
    assert content(part) == FILE
    with pytest.raises(ContentError):
        await Fetch(client, hub.url(PATH), part)(Published(sha256="0" * 64))
    assert files(part) == []


async def test_a_file_that_changed_in_between_comes_anew(
    client: httpx.AsyncClient, hub: Hub, part: Path
) -> None:
    hub.behaviours[PATH] = stop_after(1_000_000, ETag='"old"')
    with pytest.raises(DownloadFailed):
        await Fetch(client, hub.url(PATH), part)()
    hub.behaviours.clear()
    fetch = Fetch(client, hub.url(PATH), part)
    await fetch()
    assert hub.asked[-1] == (PATH, "bytes=1000000-")
    assert content(part) == FILE
    assert fetch.room == [len(FILE)]


async def test_without_a_mark_of_the_file_nothing_is_gone_on_with(
    client: httpx.AsyncClient, hub: Hub, part: Path
) -> None:
    tags: list[dict[str, Any]] = [{}, {"ETag": 'W/"weak"'}]
    for tag in tags:
        hub.behaviours[PATH] = stop_after(1_000_000, **tag)
        with pytest.raises(DownloadFailed):
            await Fetch(client, hub.url(PATH), part)()
    hub.behaviours.clear()
    await Fetch(client, hub.url(PATH), part)()
    assert [range_ for _, range_ in hub.asked] == [None, None, None]


async def test_a_cancelled_try_is_gone_on_with(client: httpx.AsyncClient, hub: Hub, part: Path) -> None:
    stop = threading.Event()

    def behave(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 200, Content_Length=len(FILE), ETag=f'"{hashlib.md5(FILE).hexdigest()}"')
        handler.wfile.write(FILE[:1_000_000])
        stop.wait(10)

    hub.behaviours[PATH] = behave
    fetch = Fetch(client, hub.url(PATH), part)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch)
        await anyio.to_thread.run_sync(until, lambda: fetch.progress.done == 1_000_000)
        tasks.cancel_scope.cancel()
    stop.set()
    hub.behaviours.clear()
    last = Fetch(client, hub.url(PATH), part)
    await last()
    assert last.room == [len(FILE)]


async def test_a_hub_tells_the_hash_on_the_way(client: httpx.AsyncClient, hub: Hub, part: Path) -> None:
    hub.linked["/resolve/m.gguf"] = PATH
    await Fetch(client, hub.url("/resolve/m.gguf"), part)()
    assert json.loads(part.with_suffix(".json").read_text())["sha256"] == SHA256
    parts.forget(part)
    # The file behind it is exchanged, as long as the link and its hash stay.
    hub.behaviours[PATH] = stop_after(len(FILE), FILE[:-1] + b"!")
    with pytest.raises(ContentError, match=f"where {SHA256} is published"):
        await Fetch(client, hub.url("/resolve/m.gguf"), part)()
    assert files(part) == []


async def test_what_is_published_twice_must_agree(client: httpx.AsyncClient, hub: Hub, part: Path) -> None:
    hub.linked["/resolve/m.gguf"] = PATH
    for published in (Published(sha256="0" * 64), Published(size=7)):
        with pytest.raises(ContentError, match="expected"):
            await Fetch(client, hub.url("/resolve/m.gguf"), part)(published)
    # What the link says is enough to know: the file behind it is not asked for.
    assert hub.asked == [("/resolve/m.gguf", None)] * 2


def redirect(location: str) -> Behaviour:
    return lambda handler: head(handler, 302, Location=location, Content_Length=0)


def say(status: int, body: bytes = b"", **headers: object) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        head(handler, status, **headers)
        handler.wfile.write(body)

    return behave


def endless(handler: BaseHTTPRequestHandler) -> None:
    head(handler, 200, Transfer_Encoding="chunked")
    while True:
        handler.wfile.write(b"10000\r\n" + FILE[:65536] + b"\r\n")


def drip(handler: BaseHTTPRequestHandler) -> None:
    head(handler, 200, Content_Length=len(FILE))
    for byte in FILE:
        handler.wfile.write(bytes([byte]))
        threading.Event().wait(0.05)


def drip_head(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-A: b\r\n")
        threading.Event().wait(0.05)


def silent(handler: BaseHTTPRequestHandler) -> None:
    head(handler, 200, Content_Length=len(FILE))
    threading.Event().wait(2)


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (redirect(PATH), "more than 5 redirects"),
        (redirect("file:///etc/passwd"), "redirects to 'file:///etc/passwd', which is no address"),
        (redirect("http://[::1/m"), "Invalid URL in location header"),
        (redirect("gopher://h/"), "which is no address"),
        (say(302), "more than 5 redirects|which is no address"),
        (say(200, FILE), "does not say how long the file is"),
        (say(200, Content_Length=0), "does not say how long"),
        (say(200, Content_Length=1 << 60), "does not say how long"),
        (say(200, FILE, Content_Length=len(FILE), Content_Encoding="gzip"), "an encoding that was not asked"),
        (say(206, FILE, Content_Length=len(FILE)), "answered with HTTP 206"),
        (say(404, Content_Length=0), "answered with HTTP 404"),
        (say(401, Content_Length=0), r"answered with HTTP 401 \(it may ask for a login\)"),
        (say(503, Content_Length=0), "answered with HTTP 503"),
        (say(200, b"<html>" * 100, Content_Length=600), "has 600 bytes, where 3072004 are expected"),
        (stop_after(len(FILE), b"<html>" + FILE[6:]), "is no GGUF; it begins with b'<html>"),
        (endless, "does not say how long"),
        (stop_after(1_000_000), "import it again"),
        (stop_after(len(FILE), FILE[:-1] + b"!"), "what came has the SHA-256 "),
        (stop_after(100, FILE + b"x"), "has 3072005 bytes, where"),
        (silent, "import it again"),
        (drip, "bytes came in"),
        (drip_head, "import it again"),
        (lambda handler: handler.wfile.write(b"SSH-2.0\r\n"), "import it again"),
        (lambda handler: None, "import it again"),
    ],
)
async def test_a_server_that_does_not_deliver_is_told(
    client: httpx.AsyncClient, hub: Hub, part: Path, behave: Behaviour, reason: str
) -> None:
    hub.behaviours[PATH] = behave
    with pytest.raises((DownloadFailed, ContentError), match=reason) as caught:
        await Fetch(client, hub.url(PATH), part)(Published(len(FILE), SHA256))
    assert hub.url(PATH) in str(caught.value)
    # Nothing that is wrong is kept: the honest file comes whole afterwards.
    hub.behaviours.clear()
    await Fetch(client, hub.url(PATH), part)(Published(len(FILE), SHA256))
    assert content(part) == FILE


async def test_a_range_that_was_not_asked_for_is_not_taken(
    client: httpx.AsyncClient, hub: Hub, part: Path
) -> None:
    hub.behaviours[PATH] = stop_after(1_000_000, ETag='"a"')
    size = len(FILE)
    for answer in (
        say(
            206,
            FILE[500_000:],
            Content_Length=size - 500_000,
            Content_Range=f"bytes 500000-{size - 1}/{size}",
        ),
        say(206, FILE[1_000_000:], Content_Length=size - 1_000_000),
        say(206, b"", Content_Length=0, Content_Range=f"bytes 1000000-{size}/{size + 1}"),
        say(206, b"", Content_Length=9, Content_Range=f"bytes 1000000-{size - 1}/{size}", ETag='"b"'),
        say(416, Content_Length=0),
    ):
        hub.behaviours[PATH] = stop_after(1_000_000, ETag='"a"')
        with pytest.raises(DownloadFailed):
            await Fetch(client, hub.url(PATH), part)()
        hub.behaviours[PATH] = answer
        with pytest.raises(ContentError, match="import it again"):
            await Fetch(client, hub.url(PATH), part)()
        assert files(part) == []


async def test_room_is_made_before_anything_is_written(
    client: httpx.AsyncClient, hub: Hub, part: Path
) -> None:
    class Full(IntelNavError):
        code = "store_full"

    def refuse(need: int) -> None:
        raise Full(f"{need} bytes are wanted")

    with pytest.raises(Full, match=f"{len(FILE)} bytes"):
        await download(client, hub.url(PATH), part, Published(), JobProgress(), refuse)
    assert files(part) == []


async def test_a_rate_is_kept(client: httpx.AsyncClient, hub: Hub, part: Path) -> None:
    began = anyio.current_time()
    await Fetch(client, hub.url(PATH), part)(rate=4 * len(FILE))
    assert 0.2 < anyio.current_time() - began < 5
    assert content(part) == FILE


@pytest.mark.parametrize("notes", ["", "[]", "{}", "null", '{"url": 7}', "\xff"])
async def test_damaged_notes_cost_a_download_and_no_more(
    client: httpx.AsyncClient, hub: Hub, part: Path, notes: str
) -> None:
    spoil(part, bytes(5))
    part.with_suffix(".json").write_text(notes, encoding="latin-1")
    await Fetch(client, hub.url(PATH), part)()
    assert content(part) == FILE


async def test_an_address_that_no_program_can_dial_is_a_failure_like_others(
    client: httpx.AsyncClient, part: Path
) -> None:
    with pytest.raises(DownloadFailed):
        await Fetch(client, "http://xn--a/x.gguf", part)()
