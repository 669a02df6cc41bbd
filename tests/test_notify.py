"""What a service manager hears: over a real datagram socket, from the functions and from a node."""

import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from intelnav import notify
from tests.daemons import Daemon, daemons
from tests.models import tiny_model


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.socket.settimeout(30)
        self.address = address

    def hear(self) -> dict[str, str]:
        """The next message."""
        message = self.socket.recv(4096).decode()
        return dict(line.split("=", 1) for line in message.split("\n"))

    def hear_until(self, key: str, value: str = "") -> dict[str, str]:
        """The first message that has this in it; a later one is left."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            heard = self.hear()
            if value in heard.get(key, "\0"):
                return heard
        raise AssertionError(f"{key}={value} was not told")

    def heard_nothing(self) -> bool:
        self.socket.setblocking(False)
        try:
            return not self.hear()
        except BlockingIOError:
            return True


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@intelnav-{secrets.token_hex(8)}"
    manager = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with closing(manager.socket):
        yield manager


@pytest.mark.anyio
async def test_ready_comes_first_then_each_new_status_and_stopping_last(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LOOK_SECONDS", 0.01)
    line = "0 of 1\nslices ready"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(notify.attend, lambda: line)
        assert await anyio.to_thread.run_sync(manager.hear) == {"READY": "1", "STATUS": "0 of 1 slices ready"}
        line = "x" * 1000
        assert await anyio.to_thread.run_sync(manager.hear) == {"STATUS": "x" * notify.STATUS_CHARACTERS}
        tasks.cancel_scope.cancel()
    assert manager.hear() == {"STOPPING": "1"}
    assert manager.heard_nothing()


@pytest.mark.anyio
async def test_ready_is_told_again_until_the_manager_has_it(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notify, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "not there yet"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(notify.attend, lambda: "up")
        await anyio.wait_all_tasks_blocked()
        monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
        assert (await anyio.to_thread.run_sync(manager.hear))["READY"] == "1"
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_the_watchdog_gets_two_signs_within_its_time_and_none_while_the_loop_hangs(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(notify.attend, lambda: "up")
        first = await anyio.to_thread.run_sync(manager.hear)
        assert first["WATCHDOG"] == "1"
        before = time.monotonic()
        for _ in range(4):
            assert await anyio.to_thread.run_sync(manager.hear) == {"WATCHDOG": "1"}
        assert time.monotonic() - before >= 0.5
        # The loop stands still for longer than the watchdog waits, and nothing was sent from elsewhere.
        time.sleep(0.5)  # noqa: ASYNC251
        assert manager.heard_nothing()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", str(os.getpid()), 15.0),
        ("30000000", "1", None),
        ("0", str(os.getpid()), None),
        ("-5", str(os.getpid()), None),
        ("1e6", str(os.getpid()), None),
        ("9" * 5000, str(os.getpid()), None),
        ("٣", str(os.getpid()), None),
        ("", str(os.getpid()), None),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert notify.watchdog_seconds() == seconds


def test_a_reload_is_told_with_its_time_and_its_end(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    with notify.reloading():
        heard = manager.hear()
        assert heard["RELOADING"] == "1"
        assert before <= int(heard["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.heard_nothing()
    manager.socket.settimeout(30)
    assert manager.hear() == {"READY": "1"}


@pytest.mark.parametrize(
    "address", ["", "vsock:2:1234", "relative", "/nowhere/at/all", "/" + "x" * 200, "@a\udcff"]
)
def test_a_manager_that_cannot_be_reached_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify.tell("READY=1") is False


def test_a_full_socket_makes_nobody_wait(manager: Manager) -> None:
    sent = 0
    while notify.tell("WATCHDOG=1"):
        sent += 1
        assert sent < 100_000
    assert sent > 0


@pytest.mark.anyio
async def test_without_a_manager_there_is_nothing_to_attend_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with anyio.fail_after(5):
        await notify.attend(lambda: pytest.fail("nobody asked"))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with daemons(tmp_path, "node") as (daemon,):
        model = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=4)
        daemon.configure(
            network={"listen": "127.0.0.1:0"},
            entry=[{"model": str(model), "layers": "0..4", "name": "tiny"}],
        )
        yield daemon


def test_a_node_tells_that_it_answers_how_it_stands_that_it_reloads_and_that_it_leaves(
    daemon: Daemon, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    daemon.start()
    assert daemon.process is not None
    assert manager.hear_until("READY")["READY"] == "1"
    # What it says of itself holds: it answers.
    assert daemon.get("/status") is not None
    manager.hear_until("STATUS", "1 slices ready")
    manager.hear_until("WATCHDOG")
    daemon.process.send_signal(signal.SIGHUP)
    assert int(manager.hear_until("RELOADING")["MONOTONIC_USEC"]) > 0
    manager.hear_until("READY")
    assert daemon.stop() == 0
    manager.hear_until("STOPPING")


def test_a_node_that_is_stopped_by_force_gives_no_sign(
    daemon: Daemon, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    daemon.start()
    assert daemon.process is not None
    manager.hear_until("WATCHDOG")
    daemon.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED)
    while not manager.heard_nothing():
        pass
    manager.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        manager.hear()
    daemon.process.send_signal(signal.SIGCONT)
    manager.socket.settimeout(30)
    manager.hear_until("WATCHDOG")
