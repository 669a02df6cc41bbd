"""A GGUF over HTTP into a part file: goes on where it was broken off, and is hashed while it comes.

A server is not trusted with anything: what it sends is bounded by the length that it named before, must come at some
pace, and must have the hash that was published, if one was.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
from anyio import from_thread, to_thread

from intelnav.domain.errors import ContentError, IntelNavError
from intelnav.domain.job import JobProgress
from intelnav.net.part import Notes, PartFile, forget, load
from intelnav.net.web import next_place

MAX_FILE = 1 << 48
MAX_REDIRECTS = 5
CHUNK = 1 << 20
# A server is given up that is silent for so long, or brings less than `SLOWEST` bytes a second over a window.
SILENT_SECONDS = 30.0
HEAD_SECONDS = 60.0
WINDOW_SECONDS = 30.0
SLOWEST = 2048

_REDIRECTS = (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_LENGTH = re.compile(r"\d{1,18}")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


class DownloadFailed(IntelNavError):
    """A server did not deliver. What came is kept, and the next try goes on from there."""

    code = "download"


@dataclass(frozen=True, slots=True)
class Published:
    """What is known of a file before it comes: its size in bytes and its SHA-256 in hexadecimal, or None."""

    size: int | None = None
    sha256: str | None = None

    def joined(self, other: "Published", what: str) -> "Published":
        """What both know; ContentError if they contradict each other."""
        if None not in (self.size, other.size) and self.size != other.size:
            raise ContentError(f"{what}: has {other.size} bytes, where {self.size} are expected")
        if None not in (self.sha256, other.sha256) and self.sha256 != other.sha256:
            raise ContentError(f"{what}: has the SHA-256 {other.sha256}, where {self.sha256} is expected")
        return Published(self.size or other.size, self.sha256 or other.sha256)


async def download(
    client: httpx.AsyncClient,
    url: str,
    part: Path,
    published: Published,
    progress: JobProgress,
    room: Callable[[int], None],
    rate: int | None = None,
) -> None:
    """Fetch the GGUF at `url` into `part`: whole, checked, and safe on the disk.

    `room` is called in a thread with the size of the file in bytes, and may raise. `rate` is in bytes per second.
    Raises DownloadFailed for what a later try may mend; ContentError for what is not the file that it should be, of
    which nothing is kept; OSError if it cannot be written.
    """
    before = load(part, url)
    try:
        if before is not None and before.synced == before.size:
            before.sha256 = Published(before.size, before.sha256).joined(published, url).sha256
            file = await to_thread.run_sync(PartFile, part, before, from_thread.check_cancelled)
            await to_thread.run_sync(file.close)
            _check(file, before)
            return
        async with _answer(client, url, before, published) as (response, known):
            notes = _agreed(response, url, before, known)
            await to_thread.run_sync(room, notes.size)
            await _receive(response, part, notes, progress, rate)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise DownloadFailed(f"{url}: {reason}; import it again to go on from there") from error
    except ContentError:
        forget(part)
        raise


@asynccontextmanager
async def _answer(
    client: httpx.AsyncClient, url: str, before: Notes | None, known: Published
) -> AsyncIterator[tuple[httpx.Response, Published]]:
    """The answer at the end of all redirects, and what is known of the file with what a model hub says on the way."""
    headers = {"Accept-Encoding": "identity"}
    if before is not None:
        headers["Range"] = f"bytes={before.synced}-"
        if before.etag is not None:
            headers["If-Range"] = before.etag
    place = httpx.URL(url)
    for _ in range(MAX_REDIRECTS + 1):
        request = client.build_request("GET", place, headers=headers, timeout=SILENT_SECONDS)
        with anyio.fail_after(HEAD_SECONDS):
            response = await client.send(request, stream=True, follow_redirects=False)
        try:
            known = known.joined(_linked(response.headers), url)
            if response.status_code not in _REDIRECTS:
                yield response, known
                return
            try:
                place = next_place(place, response.headers.get("location", ""))
            except ValueError as error:
                raise DownloadFailed(f"{place}: {error}") from None
        finally:
            await response.aclose()
    raise DownloadFailed(f"{url}: more than {MAX_REDIRECTS} redirects")


def _linked(headers: httpx.Headers) -> Published:
    size = _LENGTH.fullmatch(headers.get("x-linked-size", ""))
    sha256 = _SHA256.fullmatch(headers.get("x-linked-etag", ""))
    return Published(int(size[0]) if size else None, sha256[1] if sha256 else None)


def _agreed(response: httpx.Response, url: str, before: Notes | None, known: Published) -> Notes:
    """What the answer is going to bring: the rest of the file of `before`, or all of one anew."""
    status = response.status_code
    if response.headers.get("content-encoding", "identity") != "identity":
        raise DownloadFailed(f"{url}: answered with an encoding that was not asked for")
    etag = response.headers.get("etag")
    etag = etag if etag is not None and etag.startswith('"') and len(etag) < 256 else None
    if status == 206 and before is not None:
        told = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if told is None or tuple(map(int, told.groups())) != (before.synced, before.size - 1, before.size):
            raise ContentError(f"{url}: answered with another range than was asked for; import it again")
        if before.etag is not None and etag is not None and etag != before.etag:
            raise ContentError(
                f"{url}: the file is another one than before; import it again to fetch it anew"
            )
        before.sha256 = known.joined(Published(before.size, before.sha256), url).sha256
        return before
    if status == 416:
        raise ContentError(f"{url}: the file is another one than before; import it again to fetch it anew")
    if status != 200:
        hint = " (it may ask for a login)" if status in (401, 403) else ""
        raise DownloadFailed(f"{url}: answered with HTTP {status}{hint}")
    length = _LENGTH.fullmatch(response.headers.get("content-length", ""))
    if length is None or not 0 < int(length[0]) <= MAX_FILE:
        raise DownloadFailed(f"{url}: does not say how long the file is")
    known = known.joined(Published(size=int(length[0])), url)
    return Notes(url, etag, int(length[0]), known.sha256)


async def _receive(
    response: httpx.Response, part: Path, notes: Notes, progress: JobProgress, rate: int | None
) -> None:
    file = await to_thread.run_sync(PartFile, part, notes, from_thread.check_cancelled)
    progress.enter("downloading", notes.size, notes.synced)
    pace = _Pace(notes.synced, rate)
    waiting = bytearray()
    try:
        async for data in response.aiter_raw():
            waiting += data
            progress.done += len(data)
            if progress.done > notes.size:
                raise ContentError(f"{notes.url}: sends more than the {notes.size} bytes that it told")
            if len(waiting) >= CHUNK:
                await to_thread.run_sync(file.write, bytes(waiting))
                waiting.clear()
            await pace.keep(progress.done, notes.url)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(file.close, bytes(waiting))
    if notes.synced < notes.size:
        raise DownloadFailed(
            f"{notes.url}: ended after {notes.synced} of {notes.size} bytes; import it again to go on from there"
        )
    _check(file, notes)


def _check(file: PartFile, notes: Notes) -> None:
    if notes.sha256 is not None and file.sha256 != notes.sha256:
        raise ContentError(
            f"{notes.url}: what came has the SHA-256 {file.sha256}, where {notes.sha256} is published"
        )


class _Pace:
    """Neither faster than `rate` nor slower than a server that works."""

    def __init__(self, done: int, rate: int | None) -> None:
        self._rate = rate
        self._first, self._begun = done, anyio.current_time()
        self._marked, self._since = done, self._begun

    async def keep(self, done: int, url: str) -> None:
        """Wait if more came than may; DownloadFailed if too little did."""
        if self._rate is not None:
            ahead = (done - self._first) / self._rate - (anyio.current_time() - self._begun)
            await anyio.sleep(max(0.0, ahead))
        now = anyio.current_time()
        if now - self._since < WINDOW_SECONDS:
            return
        wanted = SLOWEST if self._rate is None else min(SLOWEST, self._rate / 2)
        if done - self._marked < wanted * (now - self._since):
            raise DownloadFailed(
                f"{url}: only {done - self._marked} bytes came in {now - self._since:.0f} s; "
                "import it again to go on from there"
            )
        self._marked, self._since = done, now
