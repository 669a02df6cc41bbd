"""What the kernel and two event loops take to carry a message from process to process."""

import asyncio
import multiprocessing
import socket
import time
from statistics import median
from typing import Any

import uvloop

REPEATS = 2000


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


def _serve_echo(listener: socket.socket) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Echo, sock=listener)
        await server.serve_forever()

    uvloop.run(serve())


def half_trip(size: int) -> float:
    """Median microseconds of half a round trip of `size` bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(
            target=_serve_echo, args=(listener,), daemon=True
        )
        process.start()
        try:
            return uvloop.run(_measure(listener.getsockname(), size))
        finally:
            process.kill()
            process.join()


async def _measure(address: tuple[str, int], size: int) -> float:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    done = loop.create_future()

    class Client(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport
            self._send()

        def _send(self) -> None:
            self._missing = size
            self._start = time.perf_counter_ns()
            self._transport.write(bytes(size))

        def data_received(self, data: bytes) -> None:
            self._missing -= len(data)
            if self._missing:
                return
            times.append((time.perf_counter_ns() - self._start) / 2000)
            if len(times) < REPEATS:
                self._send()
            else:
                done.set_result(None)

    await loop.create_connection(Client, *address)
    await done
    return median(times)
