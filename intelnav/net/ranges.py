"""Byte ranges over HTTP from servers that may do anything: what comes is bounded in length and time."""

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx

from intelnav.net.web import next_place

MAX_REDIRECTS = 5
# A server that is silent for so long is given up,
SILENT_SECONDS = 10.0
# one that takes so long for the head of an answer, however busily it sends it,
HEAD_SECONDS = 20.0
# and one that brings fewer bytes a second than this over so many seconds of waiting for it.
PATIENT_SECONDS = 10.0
SLOWEST = 16 * 1024
# What a server may let us wait for when it is busy.
MAX_WAIT_SECONDS = 5.0

_REDIRECTS = (301, 302, 303, 307, 308)
# Of what a server says, in a reason.
_QUOTED = 200
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_SECONDS = re.compile(r"\d{1,4}")


class SourceError(Exception):
    """A source did what none may; the message says what. It ends at this room's door, as the two below do."""


class Missing(Exception):
    """A source does not have what was asked for."""


class Busy(Exception):
    """A source wants to be asked again later; `seconds` says when."""

    def __init__(self, seconds: float) -> None:
        super().__init__("busy")
        self.seconds = seconds


async def read_range(
    client: httpx.AsyncClient, url: str, start: int, end: int, redirects: int = MAX_REDIRECTS
) -> AsyncGenerator[bytes]:
    """Bytes `start` to `end` of what lies at `url`, as they come: exactly so many, or an error.

    Raises SourceError, Missing or Busy.
    """
    left = end - start
    async with _answer(client, url, {"Range": f"bytes={start}-{end - 1}"}, redirects) as response:
        told = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if response.status_code != 206 or told is None:
            raise SourceError(f"answered a range with HTTP {response.status_code}")
        if (int(told[1]), int(told[2])) != (start, end - 1):
            raise SourceError(f"was asked for bytes {start} to {end - 1}, and sent {told[0]}")
        async for data in _paced(response):
            left -= len(data)
            if left < 0:
                raise SourceError(f"sent more than the {end - start} bytes that it was asked for")
            yield data
    if left:
        raise SourceError(f"ended {left} bytes early")


async def read_whole(
    client: httpx.AsyncClient, url: str, longest: int, redirects: int = MAX_REDIRECTS
) -> bytes:
    """All of a small document. Raises SourceError, also if it has more than `longest` bytes, Missing or Busy."""
    found = bytearray()
    async with _answer(client, url, {}, redirects) as response:
        if response.status_code != 200:
            raise SourceError(f"answered with HTTP {response.status_code}")
        async for data in _paced(response):
            found += data
            if len(found) > longest:
                raise SourceError(f"sent more than {longest} bytes, more than any such document has")
    return bytes(found)


@asynccontextmanager
async def _answer(
    client: httpx.AsyncClient, url: str, headers: dict[str, str], redirects: int
) -> AsyncIterator[httpx.Response]:
    """The answer at the end of at most so many redirects, of which nothing but the head is read."""
    # Unpacking could make very many bytes of a few.
    headers = headers | {"Accept-Encoding": "identity"}
    try:
        place = httpx.URL(url)
        for _ in range(redirects + 1):
            async with _asked(client, place, headers) as response:
                if response.status_code not in _REDIRECTS:
                    _check(response)
                    yield response
                    return
                place = next_place(place, response.headers.get("location", ""))
    except (httpx.TimeoutException, TimeoutError):
        raise SourceError("was silent, or too slow with an answer") from None
    # Also a redirect that nobody should follow, and a host name that no resolver takes: ValueError.
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise SourceError(str(error)[:_QUOTED] or type(error).__name__) from None
    raise SourceError(f"redirects more than {redirects} times" if redirects else "redirects")


@asynccontextmanager
async def _asked(
    client: httpx.AsyncClient, place: httpx.URL, headers: dict[str, str]
) -> AsyncIterator[httpx.Response]:
    # Whoever waits for a connection of our own pool does not wait for the server.
    timeout = httpx.Timeout(SILENT_SECONDS, pool=None)
    request = client.build_request("GET", place, headers=headers, timeout=timeout)
    with anyio.fail_after(HEAD_SECONDS):
        response = await client.send(request, stream=True, follow_redirects=False)
    try:
        yield response
    finally:
        await response.aclose()


def _check(response: httpx.Response) -> None:
    if response.status_code in (404, 410):
        raise Missing
    if response.status_code in (429, 503):
        wait = response.headers.get("retry-after", "")
        raise Busy(min(MAX_WAIT_SECONDS, float(wait) if _SECONDS.fullmatch(wait) else 1.0))
    if response.headers.get("content-encoding", "identity") != "identity":
        raise SourceError("answered with an encoding that was not asked for")


async def _paced(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body; only the time that the server takes counts against it, not that of whoever reads."""
    spent, came = 0.0, 0
    parts = response.aiter_raw().__aiter__()
    while True:
        asked = time.monotonic()
        try:
            data = await parts.__anext__()
        except StopAsyncIteration:
            return
        spent += time.monotonic() - asked
        came += len(data)
        if spent > PATIENT_SECONDS:
            if came < SLOWEST * spent:
                raise SourceError(f"brought only {came} bytes in {spent:.1f} s")
            spent, came = 0.0, 0
        yield data
