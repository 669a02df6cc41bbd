"""An HTTP server on loopback that has model files, and behaves as badly as a test wants."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Hub:
    """Serves `files` by path, in ranges; what is in `behaviours` answers instead. `asked` has every path and Range.

    Redirects of the kind of a model hub: `linked[path]` is a path at which the file lies, whose SHA-256 is told on
    the way there.
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    linked: dict[str, str] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append((handler.path, handler.headers["Range"]))
        if handler.path in self.behaviours:
            self.behaviours[handler.path](handler)
        elif handler.path in self.linked:
            target = self.linked[handler.path]
            data = self.files[target]
            head(
                handler,
                302,
                Location=target,
                X_Linked_Etag=f'"{hashlib.sha256(data).hexdigest()}"',
                X_Linked_Size=len(data),
            )
        elif handler.path in self.files:
            self._file(handler, self.files[handler.path])
        else:
            head(handler, 404, Content_Length=0)

    def _file(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers["Range"] or "")
        start, end = 0, len(data)
        if wanted is not None and handler.headers["If-Range"] in (None, etag):
            start, end = int(wanted[1]), int(wanted[2]) + 1 if wanted[2] else len(data)
            told = f"bytes {start}-{end - 1}/{len(data)}"
            head(handler, 206, ETag=etag, Content_Length=end - start, Content_Range=told)
        else:
            head(handler, 200, ETag=etag, Content_Length=len(data))
        self.sent += end - start
        handler.wfile.write(data[start:end])


def head(handler: BaseHTTPRequestHandler, status: int, **headers: Any) -> None:
    """The status line and the headers of an answer; underscores stand for dashes."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.send_header("Connection", "close")
    handler.end_headers()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the context is left."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # Clients that have seen enough hang up.
            try:
                hub.answer(self)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
