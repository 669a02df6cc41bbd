"""Giving out models: manifests and blobs by their hash, over plain HTTP, to anyone, within limits ([H1])."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from intelnav.domain.errors import ContentError
from intelnav.net.pace import Pace
from intelnav.store.blobs import Store
from intelnav.store.cid import is_cid

_FOREVER = "public, max-age=31536000, immutable"
_BUSY_SECONDS = "1"
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Answers at once, to one address and in all, and bytes a second for all together (None: as many as go)."""

    per_peer: int = 8
    total: int = 64
    bytes_per_second: int | None = None


class ChunkService:
    """What is given out of one store, and how much of it so far."""

    def __init__(self, store: Store, limits: ChunkLimits = ChunkLimits()) -> None:
        self._store = store
        self._limits = limits
        self._pace = Pace(limits.bytes_per_second)
        self._busy: Counter[str] = Counter()
        self.bytes_sent = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/v1/models/{cid}/manifest", self._manifest),
                Route("/v1/blobs/{cid}", self._blob),
            ]
        )

    async def _manifest(self, request: Request) -> Response:
        cid = request.path_params["cid"]
        manifest = self._store.manifest(cid) if is_cid(cid) else None
        if manifest is None:
            return _refusal(404, "no such manifest is here")
        # Large models have large ones, that take a while to write.
        data = await to_thread.run_sync(manifest.to_bytes)
        headers = _headers(cid) | {"Content-Length": str(len(data))}
        parts = (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))
        return self._answer(request, 200, headers, "application/json", parts)

    async def _blob(self, request: Request) -> Response:
        cid = request.path_params["cid"]
        located = await to_thread.run_sync(self._store.locate, cid) if is_cid(cid) else None
        if located is None:
            return _refusal(404, "no such blob is here")
        size = located.size
        span = _range(request.headers.get("range"), size)
        if span is None:
            return _refusal(
                416, "one range of bytes within the blob is given out", {"Content-Range": f"bytes */{size}"}
            )
        start, end = span
        headers = _headers(cid) | {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
        status = 200
        if "range" in request.headers:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return self._answer(request, status, headers, "application/octet-stream", located.read(start, end))

    def _answer(
        self, request: Request, status: int, headers: dict[str, str], kind: str, parts: Iterator[bytes]
    ) -> Response:
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type=kind)
        address = request.client.host if request.client else ""
        if self._busy[address] >= self._limits.per_peer:
            return _refusal(
                429, "as many of your requests run as may at once", {"Retry-After": _BUSY_SECONDS}
            )
        if self._busy.total() >= self._limits.total:
            return _refusal(503, "as many requests run as may at once", {"Retry-After": _BUSY_SECONDS})
        return _Sending(self._place(address), self._sent(parts), status, headers, kind)

    async def _sent(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        while part := await to_thread.run_sync(_next, parts):
            await self._pace.keep(len(part))
            self.bytes_sent += len(part)
            yield part

    @contextmanager
    def _place(self, address: str) -> Iterator[None]:
        self._busy[address] += 1
        try:
            yield
        finally:
            self._busy[address] -= 1
            if not self._busy[address]:
                del self._busy[address]


class _Sending(StreamingResponse):
    """Holds a place from the moment that it is given out: nothing is awaited between the check and this."""

    def __init__(
        self,
        place: AbstractContextManager[None],
        parts: AsyncIterator[bytes],
        status: int,
        headers: dict[str, str],
        kind: str,
    ) -> None:
        super().__init__(parts, status, headers, kind)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


def _next(chunks: Iterator[bytes]) -> bytes:
    """The next chunk, or none at the end; a file that was cut short since ends the answer early."""
    try:
        return next(chunks, b"")
    except (OSError, ContentError):
        return b""


def _headers(cid: str) -> dict[str, str]:
    return {"ETag": f'"{cid}"', "Cache-Control": _FOREVER}


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": reason}, status, headers)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes that a `Range` header asks for, as start and end; None if they are not to be had."""
    if header is None:
        return 0, size
    unit, _, span = header.partition("=")
    first, dash, last = span.strip().partition("-")
    given = [text for text in (first, last) if text]
    if (
        unit != "bytes"
        or not dash
        or not given
        or not all(t.isascii() and t.isdecimal() and len(t) < 19 for t in given)
    ):
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    return (start, end) if start < end else None
