"""The application around a counting completer, on real sockets, in the test's own event loop."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest

from intelnav.api.app import build_app
from intelnav.api.serve import serve
from intelnav.domain.advert import Address
from tests.fakes.completer import CountingCompleter
from tests.fakes.control import ScriptedControl
from tests.fakes.library import ScriptedLibrary
from tests.fakes.network import ScriptedNetwork


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The node runs on uvloop; both loops must serve alike."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@dataclass(frozen=True)
class Node:
    """A served application with its parts, and a client on each of its sockets. It says the last of `readiness`."""

    socket: Path
    address: Address
    local: httpx.AsyncClient
    remote: httpx.AsyncClient
    readiness: list[tuple[bool, str]]
    library: ScriptedLibrary
    network: ScriptedNetwork
    control: ScriptedControl


Serving = Callable[[CountingCompleter], AbstractAsyncContextManager[Node]]


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """Serve an application around a completer until the context is left."""

    @asynccontextmanager
    async def run(completer: CountingCompleter) -> AsyncIterator[Node]:
        path = tmp_path / "control.sock"
        readiness = [(True, "")]
        library, network, control = ScriptedLibrary(), ScriptedNetwork(), ScriptedControl()
        app = build_app(
            completer,
            status=lambda: {"peer": "me"},
            ready=lambda: readiness[-1],
            library=library,
            network=network,
            control=control,
        )
        async with anyio.create_task_group() as group:

            async def start(*, task_status: anyio.abc.TaskStatus[Address | None]) -> None:
                await serve(app, socket=path, listen=Address("127.0.0.1", 0), task_status=task_status)

            address = await group.start(start)
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with (
                httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=10) as local,
                httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as remote,
            ):
                yield Node(path, address, local, remote, readiness, library, network, control)
            group.cancel_scope.cancel()

    return run
