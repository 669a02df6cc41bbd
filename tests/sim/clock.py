"""A clock that jumps to the next event, for the program's own code: asyncio, `time`, `random` and `os.urandom`."""

import asyncio
import os
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

# Unix time at the start. Any will do; it is fixed, so that a seed gives the same records each time.
EPOCH = 1_800_000_000.0

Endpoint = Callable[[asyncio.DatagramProtocol, tuple[str, int]], asyncio.DatagramTransport]


class _Leaping(selectors.SelectSelector):
    """Waits for nothing: there is no I/O, so the next thing to happen is the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits and nothing is due")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual, and whose UDP sockets are made by `endpoint`."""

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)
        self.endpoint: Endpoint | None = None

    def time(self) -> float:
        """Seconds since the start."""
        return self._leaping.now

    async def create_datagram_endpoint(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        """A socket in the virtual network."""
        assert self.endpoint is not None
        local_addr = args[0] if args else kwargs["local_addr"]
        protocol = protocol_factory()
        transport = self.endpoint(protocol, local_addr)
        protocol.connection_made(transport)
        return transport, protocol

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        """All hosts are numbers here."""
        return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (host, port))]


@contextmanager
def virtual_time(seed: int) -> Iterator[VirtualLoop]:
    """A loop in which everything that happens follows from `seed`."""
    state = random.getstate()
    chance = random.Random(seed)
    loop = VirtualLoop()
    random.seed(seed)
    try:
        with (
            patch.object(time, "time", lambda: EPOCH + loop.time()),
            patch.object(time, "monotonic", loop.time),
            patch.object(os, "urandom", chance.randbytes),
        ):
            yield loop
    finally:
        random.setstate(state)
        loop.close()
