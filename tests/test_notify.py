import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import anyio
import psutil
import pytest

from intelnav.notify import LOOK_SECONDS, Notifier
from tests.daemons import Daemon, Json, daemons
from tests.models import tiny_model
from tests.notices import Notices, notices
from tests.waiting import until


def told(heard: Notices) -> list[list[str]]:
    heard.lines()
    return heard.messages


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_arrive_as_one_message(tmp_path: Path, abstract: bool) -> None:
    name = f"@intelnav-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with notices(name) as heard:
        Notifier({"NOTIFY_SOCKET": name}).tell("READY=1", "STATUS=one\ntwo\x1b\x85three \udc80")
        assert told(heard) == [["READY=1", "STATUS=one two\x1b three ?"]]


def test_a_reload_has_a_begin_and_an_end(tmp_path: Path) -> None:
    with notices(str(tmp_path / "notify")) as heard:
        before = time.monotonic_ns() // 1000
        with pytest.raises(ValueError), Notifier({"NOTIFY_SOCKET": heard.variable}).reloading():
            assert told(heard)[0][0] == "RELOADING=1"
            raise ValueError
        first, last = told(heard)
        assert before <= int(first[1].removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert last == ["READY=1"]


@pytest.mark.anyio
async def test_nothing_is_done_without_systemd() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "2000"})
    notifier.tell("READY=1")

    def status() -> str:
        raise AssertionError("it was asked for")

    with anyio.fail_after(5):
        await notifier.attend(status)


@pytest.mark.anyio
async def test_the_status_is_told_when_it_is_another(tmp_path: Path) -> None:
    words = iter(["0 of 1", "0 of 1", "1 of 1"])
    last = "1 of 1"
    with notices(str(tmp_path / "notify")) as heard:
        with anyio.move_on_after(LOOK_SECONDS * 3.5):
            await Notifier({"NOTIFY_SOCKET": heard.variable}).attend(lambda: next(words, last))
        assert told(heard) == [["READY=1", "STATUS=0 of 1"], ["STATUS=1 of 1"]]


@pytest.mark.anyio
async def test_the_watchdog_is_fed_twice_in_its_time(tmp_path: Path) -> None:
    environ = {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}
    with notices(str(tmp_path / "notify")) as heard:
        with anyio.move_on_after(1.05):
            await Notifier({"NOTIFY_SOCKET": heard.variable, **environ}).attend(lambda: "up")
        # A busy machine may be late, but it is never early.
        assert 3 <= heard.lines().count("WATCHDOG=1") <= 11


@pytest.mark.anyio
@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {},
    ],
)
async def test_no_watchdog_is_fed_that_is_not_meant(tmp_path: Path, environ: dict[str, str]) -> None:
    with notices(str(tmp_path / "notify")) as heard:
        with anyio.move_on_after(0.2):
            await Notifier({"NOTIFY_SOCKET": heard.variable, **environ}).attend(lambda: "up")
        assert told(heard) == [["READY=1", "STATUS=up"]]


@pytest.mark.parametrize("name", ["none", "\0", "x" * 200])
def test_a_socket_that_is_not_there_is_told_once_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": f"{tmp_path}/{name}"})
    for _ in range(3):
        notifier.tell("READY=1")
    assert [record.message.endswith("systemd is not told how this node is") for record in caplog.records] == [
        True
    ]


def test_a_receiver_that_does_not_listen_holds_nothing_up(tmp_path: Path) -> None:
    with notices(str(tmp_path / "notify")) as heard:
        notifier = Notifier({"NOTIFY_SOCKET": heard.variable})
        before = time.monotonic()
        for _ in range(2000):
            notifier.tell("WATCHDOG=1")
        assert time.monotonic() - before < 10
        assert 0 < len(heard.lines()) < 2000


def test_a_node_tells_how_it_is_from_its_start_to_its_end(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=4)
    with notices(str(tmp_path / "notify")) as heard, daemons(tmp_path, "node") as (node,):
        node.variables = {"NOTIFY_SOCKET": heard.variable, "WATCHDOG_USEC": "400000"}
        entry = {"model": str(model), "layers": "0..4", "name": "tiny"}
        node.configure(entry=[entry], network={"listen": None})
        node.start()
        heard.until("READY=1")
        # Whoever waits for READY can ask at once.
        assert node.get("/status") is not None
        heard.until("STATUS=1 of 1 slices ready, 0 answers")
        heard.until("WATCHDOG=1", count=4)

        assert node.process is not None
        node.process.send_signal(signal.SIGHUP)
        heard.until("RELOADING=1")
        heard.until("READY=1", count=2)

        node.configure(entry=[entry], network={"listen": None}, nonsense=1)
        until_wrong = "STATUS=1 of 1 slices ready, 0 answers; the config file is not taken over: "
        node.until(lambda status: not status["config"]["valid"])
        node.process.send_signal(signal.SIGHUP)
        heard.until("READY=1", count=3)
        node.configure(entry=[entry], network={"listen": None})
        node.until(lambda status: bool(status["config"]["valid"]))
        assert any(line.startswith(until_wrong) for line in heard.lines()), heard.messages

        assert node.stop() == 0
        assert heard.lines().count("STOPPING=1") == 1


def test_a_node_that_hangs_feeds_no_watchdog(tmp_path: Path) -> None:
    with notices(str(tmp_path / "notify")) as heard, daemons(tmp_path, "node") as (node,):
        node.variables = {"NOTIFY_SOCKET": heard.variable, "WATCHDOG_USEC": "200000"}
        node.configure(network={"listen": None})
        node.start()
        heard.until("WATCHDOG=1", count=2)
        assert node.process is not None
        node.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, node.process.pid, os.WSTOPPED)
        assert heard.silent("WATCHDOG=1", seconds=1)
        node.process.send_signal(signal.SIGCONT)
        heard.until("WATCHDOG=1", count=heard.lines().count("WATCHDOG=1") + 2)


def held(threads: ThreadPoolExecutor, node: Daemon, worker: psutil.Process) -> "Future[Json]":
    """An answer that is under way until its worker is resumed."""
    for _ in range(100):
        answer = threads.submit(node.ask, "a", "tiny", 50)
        until(lambda: answer.done() or node.status()["entry"][0]["in_use"] == 1)  # noqa: B023
        worker.suspend()
        if node.status()["entry"][0]["in_use"] == 1:
            return answer
        # It was through before the worker stood still.
        worker.resume()
        answer.result(30)
    raise AssertionError("no answer could be held up")


def test_a_node_that_drains_says_how_far_it_is(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=4)
    with notices(str(tmp_path / "notify")) as heard, daemons(tmp_path, "node") as (node,):
        node.variables = {"NOTIFY_SOCKET": heard.variable, "WATCHDOG_USEC": "400000"}
        entry = {"model": str(model), "layers": "0..4", "name": "tiny"}
        node.configure(entry=[entry], network={"listen": None})
        node.start()
        node.until_ready()
        assert node.process is not None
        (worker,) = psutil.Process(node.process.pid).children()
        with ThreadPoolExecutor() as threads:
            answer = held(threads, node, worker)
            heard.until("STATUS=1 of 1 slices ready, 1 answer")
            node.process.send_signal(signal.SIGTERM)
            heard.until("STOPPING=1")
            heard.until("STATUS=stopping, 1 answer left")
            heard.until("WATCHDOG=1", count=heard.lines().count("WATCHDOG=1") + 2)
            worker.resume()
            assert answer.result(30)["choices"]
        assert node.process.wait(30) == 0
