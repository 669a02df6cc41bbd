import re
from collections.abc import Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler

import anyio
import httpx
import pytest

from intelnav.net import ranges as module
from intelnav.net.ranges import (
    MAX_REDIRECTS,
    MAX_WAIT_SECONDS,
    Busy,
    Missing,
    SourceError,
    read_range,
    read_whole,
)
from tests.hub import Hub, head, serving
from tests.liars import LIARS

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 400
PATH = "/data"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.files[PATH] = DATA
        yield hub


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.4)
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.8)
    monkeypatch.setattr(module, "PATIENT_SECONDS", 0.3)


async def ranged(client: httpx.AsyncClient, url: str, start: int, end: int) -> bytes:
    found = bytearray()
    with anyio.fail_after(20):
        async with aclosing(read_range(client, url, start, end)) as parts:
            async for part in parts:
                found += part
    return bytes(found)


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (0, len(DATA)), (len(DATA) - 1, len(DATA)), (999, 70_000)]
)
async def test_just_the_bytes_that_were_asked_for(
    web_client: httpx.AsyncClient, hub: Hub, start: int, end: int
) -> None:
    assert await ranged(web_client, hub.url(PATH), start, end) == DATA[start:end]
    assert hub.asked == [(PATH, f"bytes={start}-{end - 1}")]


@pytest.mark.parametrize("lie", LIARS)
async def test_what_no_server_may_do(web_client: httpx.AsyncClient, hub: Hub, lie: str) -> None:
    behave, reason = LIARS[lie]
    hub.behaviours[PATH] = behave(DATA)
    if "hash" in reason:
        # That nobody can see here.
        assert await ranged(web_client, hub.url(PATH), 10, 90_000) != DATA[10:90_000]
        return
    with pytest.raises(SourceError) as caught:
        await ranged(web_client, hub.url(PATH), 10, 90_000)
    assert re.search(reason, str(caught.value)), caught.value
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("lie", ["drips", "drips its head", "is silent", "falls silent", "packs its answer"])
async def test_a_document_is_bounded_in_time_too(web_client: httpx.AsyncClient, hub: Hub, lie: str) -> None:
    hub.behaviours[PATH] = LIARS[lie][0](DATA)
    with anyio.fail_after(20), pytest.raises(SourceError):
        await read_whole(web_client, hub.url(PATH), len(DATA))


async def test_a_server_may_slow_down_for_a_while_but_not_live_on_its_past(
    web_client: httpx.AsyncClient, hub: Hub
) -> None:
    fast = bytes(1 << 20)

    def behave(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 206, Content_Length=2 * len(fast), Content_Range=f"bytes 0-{2 * len(fast) - 1}/*")
        handler.wfile.write(fast)
        LIARS["drips"][0](fast)(handler)

    hub.behaviours[PATH] = behave
    with pytest.raises(SourceError, match="brought only"):
        await ranged(web_client, hub.url(PATH), 0, 2 * len(fast))


async def test_whoever_reads_slowly_does_not_blame_the_server(
    web_client: httpx.AsyncClient, hub: Hub
) -> None:
    found = bytearray()
    async with aclosing(read_range(web_client, hub.url(PATH), 0, len(DATA))) as parts:
        async for part in parts:
            found += part
            await anyio.sleep(2 * module.PATIENT_SECONDS / max(1, len(DATA) // len(part)))
    assert found == DATA


@pytest.mark.parametrize("status", [404, 410])
async def test_what_a_server_does_not_have(web_client: httpx.AsyncClient, hub: Hub, status: int) -> None:
    hub.behaviours[PATH] = lambda handler: head(handler, status, Content_Length=0)
    with pytest.raises(Missing):
        await ranged(web_client, hub.url(PATH), 0, 1)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("2", 2),
        ("0", 0),
        ("9999", MAX_WAIT_SECONDS),
        ("-1", 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1),
        ("", 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_when_a_busy_server_wants_to_be_asked(
    web_client: httpx.AsyncClient, hub: Hub, status: int, told: str, seconds: float
) -> None:
    hub.behaviours[PATH] = lambda handler: head(handler, status, Content_Length=0, Retry_After=told)
    with pytest.raises(Busy) as caught:
        await ranged(web_client, hub.url(PATH), 0, 1)
    assert caught.value.seconds == seconds


async def test_a_few_redirects_are_followed_with_the_range(web_client: httpx.AsyncClient, hub: Hub) -> None:
    for number in range(MAX_REDIRECTS):
        target = PATH if number == MAX_REDIRECTS - 1 else f"/{number + 1}"
        hub.behaviours[f"/{number}"] = lambda handler, target=target: head(  # type: ignore[misc]
            handler, 307, Location=target, Content_Length=0
        )
    assert await ranged(web_client, hub.url("/0"), 5, 50) == DATA[5:50]
    assert {wanted for _, wanted in hub.asked} == {"bytes=5-49"}
    hub.behaviours["/start"] = lambda handler: head(handler, 307, Location="/0", Content_Length=0)
    with pytest.raises(SourceError, match="more than 5 times"):
        await ranged(web_client, hub.url("/start"), 5, 50)


async def test_a_server_that_is_not_there(web_client: httpx.AsyncClient) -> None:
    with pytest.raises(SourceError):
        await ranged(web_client, "http://127.0.0.1:1/", 0, 1)
    with pytest.raises(SourceError):
        await ranged(web_client, "ftp://127.0.0.1/", 0, 1)
    with pytest.raises(SourceError):
        await ranged(web_client, "http://[broken/", 0, 1)


async def test_a_document_comes_whole_or_not_at_all(web_client: httpx.AsyncClient, hub: Hub) -> None:
    assert await read_whole(web_client, hub.url(PATH), len(DATA)) == DATA
    with pytest.raises(SourceError, match="more than"):
        await read_whole(web_client, hub.url(PATH), len(DATA) - 1)
    hub.behaviours[PATH] = LIARS["never ends"][0](DATA)
    with pytest.raises(SourceError, match="HTTP 206"):
        await read_whole(web_client, hub.url(PATH), len(DATA))
