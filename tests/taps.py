"""A TCP proxy that keeps what goes through it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Tap:
    """A TCP proxy in front of a node; `seen` holds every byte in either direction."""

    target: tuple[str, int]
    seen: list[bytes] = field(default_factory=list)
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                inner, _ = self.listener.accept()
            except OSError:
                return
            outer = socket.create_connection(self.target)
            for source, sink in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.seen.append(data)
                sink.sendall(data)
        except OSError:
            return
        finally:
            sink.close()


@contextmanager
def tapped(host: str, port: int) -> Iterator[Tap]:
    """A running tap in front of this address."""
    tap = Tap((host, port))
    threading.Thread(target=tap.run, daemon=True).start()
    try:
        yield tap
    finally:
        tap.listener.close()
