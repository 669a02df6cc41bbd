"""A web server for one file, on loopback, which does what a test tells it to."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What is served; `asked` counts the requests. While `hold` is clear, answers stop after their head."""

    url: str = ""
    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    hold: threading.Event = field(default_factory=threading.Event)


@contextmanager
def web(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """The running server; with TLS if a context is given."""
    served = Web()
    served.hold.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked += 1
            self.send_response(served.status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.flush()
            served.hold.wait(30)
            # The client may have heard enough.
            with suppress(OSError):
                self.wfile.write(served.content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    served.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}/intelnav.seeds"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.hold.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
