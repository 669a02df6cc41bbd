"""The command as a process of its own, and the node's real HTTP application around a counting completer."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from intelnav.api.app import build_app
from intelnav.api.serve import serve
from intelnav.domain.advert import Address
from tests.fakes.completer import CountingCompleter
from tests.fakes.library import ScriptedLibrary
from tests.fakes.network import ScriptedNetwork

COMMAND = [sys.executable, "-m", "intelnav.cli.main"]

STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "peer": "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq",
    "role": "host",
    "uptime_seconds": 3725.0,
    "listen": None,
    "slices": [
        {
            "model": "counting",
            "cid": "b3-counting",
            "layers": "8..15",
            "state": "ready",
            "reason": "",
            "engine_class": "cpu/1",
            "memory_estimate_bytes": 123_000_000,
        }
    ],
    "entry": [
        {
            "name": "counter",
            "model": "counting",
            "cid": "b3-counting",
            "layers": "0..8",
            "head": "tail",
            "state": "failed",
            "reason": "no [memory] left",
        }
    ],
    "peers": [
        {
            "id": "eaqseizeeutcokbjfivsyljof4ydcmrtgq2tmnzyhe5dwpb5hy7q",
            "address": "192.0.2.7:7717",
        }
    ],
    "sessions": 3,
}


@dataclass
class Served:
    """An application that runs in a thread of this process."""

    socket: Path
    completer: CountingCompleter = field(default_factory=CountingCompleter)
    library: ScriptedLibrary = field(default_factory=ScriptedLibrary)
    network: ScriptedNetwork = field(default_factory=ScriptedNetwork)
    address: Address | None = None
    ready: tuple[bool, str] = (True, "")
    _started: threading.Event = field(default_factory=threading.Event)
    _stop: anyio.Event = field(default_factory=anyio.Event)
    _token: Any = None

    def run(self) -> None:
        anyio.run(self._serve)

    async def _serve(self) -> None:
        app = build_app(
            self.completer,
            status=lambda: STATUS,
            ready=lambda: self.ready,
            library=self.library,
            network=self.network,
        )
        self._token = anyio.lowlevel.current_token()
        async with anyio.create_task_group() as tasks:

            async def start(*, task_status: anyio.abc.TaskStatus[Address | None]) -> None:
                await serve(app, socket=self.socket, listen=Address("127.0.0.1", 0), task_status=task_status)

            self.address = await tasks.start(start)
            self._started.set()
            await self._stop.wait()
            tasks.cancel_scope.cancel()

    def wait_started(self) -> None:
        assert self._started.wait(10)

    def set(self, event: anyio.Event) -> None:
        """Set an event of the application's loop."""
        anyio.from_thread.run_sync(event.set, token=self._token)

    def stop(self) -> None:
        self.set(self._stop)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A node that answers by counting."""
    served = Served(tmp_path / "control.sock")
    thread = threading.Thread(target=served.run)
    thread.start()
    served.wait_started()
    yield served
    served.stop()
    thread.join(10)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Cli:
    """Runs `intelnav` in a folder of its own, with nothing of this environment's config."""

    home: Path

    @property
    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("INTELNAV_", "XDG_"))}
        return kept | {
            "HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "COLUMNS": "120",
            "TERM": "dumb",
        }

    def __call__(self, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.environ | environ,
            timeout=50,
            cwd=self.home,
        )

    def start(self, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
        """The running command, with pipes."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ | environ,
            cwd=self.home,
        )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command."""
    return Cli(tmp_path)
