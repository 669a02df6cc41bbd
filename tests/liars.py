"""Servers that misbehave when they are asked for a range, for `Hub.behaviours`."""

import gzip
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from tests.hub import Behaviour, head

LISTENS = 30
"""Seconds after which a server that waits for the client to leave gives up."""


def _wanted(handler: BaseHTTPRequestHandler, size: int) -> tuple[int, int]:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers["Range"] or "")
    return (int(match[1]), int(match[2]) + 1) if match else (0, size)


def _head(
    handler: BaseHTTPRequestHandler, start: int, end: int, size: int, length: int | None = None
) -> None:
    head(
        handler,
        206,
        Content_Length=end - start if length is None else length,
        Content_Range=f"bytes {start}-{end - 1}/{size}",
    )


def _with(
    body: Callable[[bytes], bytes], length: Callable[[int], int] = lambda n: n
) -> Callable[[bytes], Behaviour]:
    """The head of an honest answer, but for its length, and another body."""

    def of(data: bytes) -> Behaviour:
        def behave(handler: BaseHTTPRequestHandler) -> None:
            start, end = _wanted(handler, len(data))
            _head(handler, start, end, len(data), length(end - start))
            handler.wfile.write(body(data[start:end]))

        return behave

    return of


def _status(status: int, **headers: object) -> Callable[[bytes], Behaviour]:
    def of(data: bytes) -> Behaviour:
        def behave(handler: BaseHTTPRequestHandler) -> None:
            head(handler, status, Content_Length=len(data), **headers)
            handler.wfile.write(data)

        return behave

    return of


def _endless(handler: BaseHTTPRequestHandler) -> None:
    while True:
        handler.wfile.write(bytes(1 << 16))


def _unending(data: bytes) -> Behaviour:
    """Right at first, and it goes on and on."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        start, end = _wanted(handler, len(data))
        head(handler, 206, Content_Range=f"bytes {start}-{end - 1}/{len(data)}")
        handler.wfile.write(data[start:end])
        _endless(handler)

    return behave


def _moved(data: bytes) -> Behaviour:
    """The right bytes of another place."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        start, end = _wanted(handler, len(data))
        _head(handler, start + 1, end + 1, len(data))
        handler.wfile.write(data[start:end])

    return behave


def _drip(data: bytes) -> Behaviour:
    """A few bytes again and again, too fast to be silent."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        start, end = _wanted(handler, len(data))
        _head(handler, start, end, len(data))
        handler.wfile.flush()
        for at in range(start, end):
            handler.wfile.write(data[at : at + 1])
            # Ended early if the client hangs up: writing fails.
            threading.Event().wait(0.02)

    return behave


def _dripping_head(data: bytes) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX: ")
        for _ in range(LISTENS * 50):
            handler.wfile.write(b"x")
            threading.Event().wait(0.02)

    return behave


def _silent(data: bytes) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.settimeout(LISTENS)
        # Until the client leaves.
        handler.rfile.read(1)
        handler.close_connection = True

    return behave


def _silent_later(data: bytes) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        start, end = _wanted(handler, len(data))
        _head(handler, start, end, len(data))
        handler.wfile.write(data[start : start + (end - start) // 2])
        _silent(data)(handler)

    return behave


def _redirect(location: str) -> Callable[[bytes], Behaviour]:
    def of(data: bytes) -> Behaviour:
        def behave(handler: BaseHTTPRequestHandler) -> None:
            head(handler, 302, Location=location or handler.path, Content_Length=0)

        return behave

    return of


def _redirect_with_a_body(data: bytes) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        head(handler, 302, Location=handler.path)
        _endless(handler)

    return behave


def _rubbish(data: bytes) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\xff" * 1000)
        handler.close_connection = True

    return behave


def _zipped(data: bytes) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        start, end = _wanted(handler, len(data))
        body = gzip.compress(data[start:end], 1)
        head(
            handler,
            206,
            Content_Length=len(body),
            Content_Range=f"bytes {start}-{end - 1}/{len(data)}",
            Content_Encoding="gzip",
        )
        handler.wfile.write(body)

    return behave


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


# What a server does, and what its reason says then, of a server that gives out blobs.
LIARS: dict[str, tuple[Callable[[bytes], Behaviour], str]] = {
    "flips a bit": (_with(_flipped), "hash|other bytes"),
    "sends another blob": (_with(lambda data: bytes(len(data))), "hash|other bytes"),
    "ends early": (_with(lambda data: data[:-9]), "incomplete|early|closed"),
    "tells a shorter length": (_with(lambda data: data[:-9], lambda n: n - 9), "ended 9 bytes early"),
    "tells a longer length": (_with(lambda data: data + bytes(9), lambda n: n + 9), "more than"),
    "never ends": (_unending, "more than"),
    "sends another range": (_moved, "was asked for bytes"),
    "sends all of it": (_status(200), "HTTP 200"),
    "tells no range": (_status(206), "HTTP 206"),
    "tells a broken range": (_status(206, Content_Range="bytes a-b/c"), "HTTP 206"),
    "is broken": (_status(500), "HTTP 500"),
    "asks for a login": (_status(401), "HTTP 401"),
    "drips": (_drip, "brought only"),
    "drips its head": (_dripping_head, "slow|silent"),
    "is silent": (_silent, "silent"),
    "falls silent": (_silent_later, "silent"),
    "redirects in a loop": (_redirect(""), "redirects"),
    "redirects with an endless body": (_redirect_with_a_body, "redirects"),
    "redirects to a file": (_redirect("file:///etc/passwd"), "redirects"),
    "redirects to another scheme": (_redirect("gopher://127.0.0.1/"), "redirects"),
    "redirects nowhere": (_redirect("http://" + "a" * 70 + "/"), "redirects|label|known|resol|name"),
    "talks no HTTP": (_rubbish, "."),
    "packs its answer": (_zipped, "encoding"),
}
