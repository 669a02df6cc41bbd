"""How soon a node is as its file says, what it takes while nothing happens, and what an edit does to answers."""

import signal
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from intelnav.cli.swarm_nodes import free_ports
from intelnav.store.embedded import embedded_model
from tests.bench.results import show
from tests.daemons import Daemon, daemons
from tests.waiting import until

MODEL = str(embedded_model())
REPEATS = 7
IDLE_SECONDS = 20.0
TOKENS = 160
PROMPT = "Once upon a time, in a village by the sea, there lived"
# Used by the answers, and edited meanwhile; the entry has the layers before.
USED, EDITED = ("16..30",), ("4..8", "8..12")
AIM_EDIT = 2.0
AIM_EXIT = 0.5
AIM_IDLE = 0.005
AIM_DELAY = 1.05


def measure() -> dict[str, Any]:
    """Figures of all four; times in seconds, the idle node in cores."""
    with TemporaryDirectory() as folder:
        with daemons(Path(folder) / "one", "host") as (host,):
            edits, idle, exits = _one_node(host)
        with daemons(Path(folder) / "two", "host", "entry") as (host, entry):
            quiet, edited = _answers(host, entry)
    delay = median(a / b for a, b in zip(edited, quiet, strict=True))
    figures = {
        "edit": {"seconds": median(edits), "aim": AIM_EDIT},
        "exit": {"seconds": median(exits), "aim": AIM_EXIT},
        "idle": {"cores": idle, "aim": AIM_IDLE},
        "answer": {
            "seconds": median(edited),
            "without_edit": median(quiet),
            "ratio": delay,
            "aim": AIM_DELAY,
        },
    }
    show(
        "Converging, SmolLM2, medians",
        ("", "measured", "aim"),
        [
            ("edit of the file to a ready slice, bytes at hand, s", median(edits), AIM_EDIT),
            ("SIGTERM to the exit of an idle node, s", median(exits), AIM_EXIT),
            ("processor of a node with a ready slice, % of a core", 100 * idle, 100 * AIM_IDLE),
            (f"answer of {TOKENS} tokens while another slice is edited / without", delay, AIM_DELAY),
        ],
    )
    return figures


def _one_node(host: Daemon) -> tuple[list[float], float, list[float]]:
    """Edits back and forth, what it takes at rest, and exits."""
    _configure(host, EDITED[0])
    host.start()
    host.until_ready()
    edits = []
    for number in range(REPEATS + 2):
        layers = EDITED[(number + 1) % 2]
        began = time.perf_counter()
        _configure(host, layers)
        host.until(lambda status, layers=layers: _ready(status) == {layers})  # type: ignore[misc]
        # At first the slices are cut out of the model.
        if number > 1:
            edits.append(time.perf_counter() - began)
    before = _processor_seconds(host)
    time.sleep(IDLE_SECONDS)
    idle = (_processor_seconds(host) - before) / IDLE_SECONDS
    exits = []
    for _ in range(REPEATS):
        assert host.process is not None
        began = time.perf_counter()
        host.process.send_signal(signal.SIGTERM)
        host.process.wait()
        exits.append(time.perf_counter() - began)
        host.start()
        host.until_ready()
    return edits, idle, exits


def _answers(host: Daemon, entry: Daemon) -> tuple[list[float], list[float]]:
    """Paired times of one answer, without and with edits of a slice of the same host that it does not use."""
    (port,) = free_ports(1)
    _configure(host, *USED, EDITED[0], port=port)
    host.start()
    host.until_ready()
    entry.configure(
        entry=[{"model": MODEL, "layers": "0..16", "name": "smollm2"}],
        network={"listen": "none", "bootstrap": [f"127.0.0.1:{port}"]},
    )
    entry.start()
    entry.until_ready()
    until(lambda: (entry.get("/route/smollm2") or {}).get("routes", []) != [])
    times: tuple[list[float], list[float]] = [], []
    expected = None
    for number in range(2 * (REPEATS + 1)):
        began = time.perf_counter()
        if number % 2:
            _configure(host, *USED, EDITED[number // 2 % 2], port=port)
        tokens = entry.ask(PROMPT, "smollm2", TOKENS)["intelnav"]["tokens"]
        taken = time.perf_counter() - began
        expected = expected or tokens
        assert tokens == expected, "an edit of another slice changed an answer"
        host.until_ready()
        # The first two warm caches up.
        if number > 1:
            times[number % 2].append(taken)
    return times


def _configure(host: Daemon, *layers: str, port: int = 0) -> None:
    host.configure(
        slices=[{"model": MODEL, "layers": each} for each in layers],
        network={"listen": f"127.0.0.1:{port}"},
    )


def _ready(status: dict[str, Any]) -> set[str]:
    parts = status["slices"]
    return {part["layers"] for part in parts} if all(part["state"] == "ready" for part in parts) else set()


def _processor_seconds(host: Daemon) -> float:
    """What the node and its workers took so far."""
    assert host.process is not None
    node = psutil.Process(host.process.pid)
    taken = [process.cpu_times() for process in (node, *node.children())]
    return sum(times.user + times.system for times in taken)
