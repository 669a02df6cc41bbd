"""The command as a process of its own, and the node's real HTTP application around a counting completer."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from intelnav.api.app import build_app
from intelnav.api.serve import serve
from intelnav.domain.advert import Address
from tests.fakes.completer import CountingCompleter
from tests.fakes.control import ScriptedControl
from tests.fakes.library import ScriptedLibrary
from tests.fakes.network import ScriptedNetwork

# The prompt of a chat is drawn as a sign and a move of the cursor.
PROMPT = r"0m>( |\x08)"
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
            "announced": True,
            "in_use": 2,
            "next_try_seconds": None,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "observedGeneration": 3,
                    "reason": "Loaded",
                    "message": "",
                    "lastTransitionTime": "2026-01-02T03:04:05.000Z",
                }
            ],
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
            "next_try_seconds": 3.9,
        }
    ],
    "peers": [
        {
            "id": "eaqseizeeutcokbjfivsyljof4ydcmrtgq2tmnzyhe5dwpb5hy7q",
            "address": "192.0.2.7:7717",
        }
    ],
    "sessions": 3,
    "config": {
        "file": "/etc/intelnav/node.yaml",
        "generation": 3,
        "valid": True,
        "error": None,
        "loaded_at": "2026-01-02T03:04:05.000Z",
    },
    "overrides": [],
    "stopping": False,
}


@dataclass
class Served:
    """An application that runs in a thread of this process."""

    socket: Path
    completer: CountingCompleter = field(default_factory=CountingCompleter)
    library: ScriptedLibrary = field(default_factory=ScriptedLibrary)
    network: ScriptedNetwork = field(default_factory=ScriptedNetwork)
    control: ScriptedControl = field(default_factory=ScriptedControl)
    status: dict[str, Any] = field(default_factory=lambda: STATUS)
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
            status=lambda: self.status,
            ready=lambda: self.ready,
            library=self.library,
            network=self.network,
            control=self.control,
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
        self.call(event.set)

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the application's loop."""
        anyio.from_thread.run_sync(function, token=self._token)

    def wait_followed(self) -> None:
        """Return once somebody waits for the next event, anew since the last call."""
        anyio.from_thread.run(self.control.wait_followed, token=self._token)

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


@dataclass
class Terminal:
    """The command on a terminal of its own: what is typed, and what is seen so far."""

    process: "subprocess.Popen[bytes]"
    master: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def wait_for(self, pattern: str) -> None:
        """Read until `pattern` is seen; what was seen up to it does not count again."""
        deadline = time.monotonic() + 15
        while (match := re.search(pattern, self.seen)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += self._decoder.decode(os.read(self.master, 65536))
        self.seen = self.seen[match.end() :]

    def __post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()


Starting = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture(name="pty")
def on_terminal(cli: Cli) -> Starting:
    """Starts a command on a terminal, and kills what is left of it."""

    @contextmanager
    def start(*arguments: str) -> Iterator[Terminal]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=cli.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            cwd=cli.home,
            # A terminal sends its signals to the session that it controls.
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        try:
            yield Terminal(process, master)
        finally:
            process.kill()
            process.wait()
            os.close(master)

    return start
