"""Running the application on `control.sock` and, where configured, on a TCP address."""

import asyncio
import contextlib
import socket as socketlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from intelnav.api.listeners import tcp_listener, unix_listener
from intelnav.domain.advert import Address

REQUEST_SECONDS = 10
# A client that takes no byte for this long is cut off: its answer holds a place in every hop of the chain.
STALL_SECONDS = 30
# Above this, requests are answered with 503; above twice this, connections are dropped unread.
MAX_CONNECTIONS = 256
STOP_SECONDS = 2


async def serve(
    app: ASGIApp,
    *,
    socket: Path | None = None,
    listen: Address | None = None,
    keep_alive: bool = False,
    task_status: TaskStatus[Address | None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then answers in progress get `STOP_SECONDS` to finish.

    Reports the TCP address that was bound (its port, if 0 was asked for) once both are listening. Raises
    ConfigError if a socket cannot be had, in particular if another node is running on `socket`. `keep_alive` lets a
    client send several requests over one connection.
    """
    with contextlib.ExitStack() as owned:
        listeners = [] if socket is None else [owned.enter_context(unix_listener(socket))]
        if listen is not None:
            listeners.append(owned.enter_context(await tcp_listener(listen)))
        bound = Address(*listeners[-1].getsockname()[:2]) if listen is not None else None
        servers = [_Server(app, keep_alive) for _ in listeners]
        async with anyio.create_task_group() as group:
            try:
                for server, listener in zip(servers, listeners, strict=True):
                    group.start_soon(server.attend, listener)
                    await server.listening.wait()
                task_status.started(bound)
                await anyio.sleep_forever()
            finally:
                for server in servers:
                    server.leave()


class _Connection(H11Protocol):
    """One client, with deadlines for what uvicorn would wait for without end."""

    _deadline: asyncio.TimerHandle | None = None

    def _within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._within(REQUEST_SECONDS)
        if len(self.connections) > 2 * MAX_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._within(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._within(STALL_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._within(None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._within(STALL_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._within(None)


class _Server(uvicorn.Server):
    """A uvicorn in the node's task group; one for each listener, each with its own limit."""

    def __init__(self, app: ASGIApp, keep_alive: bool) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            # Else one request a connection: nobody pipelines, or reuses one that is about to close.
            headers=[] if keep_alive else [("connection", "close")],
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        super().__init__(config)
        self.listening = anyio.Event()
        self._leaving = anyio.Event()

    async def attend(self, listener: socketlib.socket) -> None:
        """Serve until `leave`, then see every request out."""
        with anyio.CancelScope(shield=True):
            await self.serve(sockets=[listener])
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks)

    def leave(self) -> None:
        """Take no more connections."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Wait. The server's own loop looks ten times a second for what cannot happen here."""
        await self.on_tick(0)
        await self._leaving.wait()

    async def startup(self, sockets: list[socketlib.socket] | None = None) -> None:
        """Tell when it listens."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the node."""
        yield
