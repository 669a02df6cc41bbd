"""Bytes on the wire for one token, counted by the nodes on their own connections."""

from typing import Any

from intelnav.domain.hidden import Dtype
from tests.bench.results import show
from tests.bench.speed import STORY, asked, chain
from tests.sandbox import Sandbox

SHORT, LONG = 8, 136
WIDTH = 576
HOPS = 3


def measure() -> dict[str, Any]:
    """The difference between a long and a short answer, so that prompt, opening and closing fall out."""
    figures = {}
    for dtype in (Dtype.F16, Dtype.F32, Dtype.I8):
        with chain(dtype.value) as running:
            per_token = (_sent(running, LONG) - _sent(running, SHORT)) / (LONG - SHORT)
        figures[dtype.value] = {
            "bytes_per_token": per_token,
            "of_it_activations": HOPS * dtype.row_bytes(WIDTH),
        }
    show(
        "Bytes per token, all four links together, encrypted and framed",
        ["wire", "bytes", "of it activations"],
        [[dtype, *values.values()] for dtype, values in figures.items()],
    )
    return figures


def _sent(running: Sandbox, count: int) -> int:
    before = _total(running)
    asked(running)(STORY, count)
    return _total(running) - before


def _total(running: Sandbox) -> int:
    states = [running.status(member) for member in running.swarm.members]
    return sum(peer["bytes_sent"] for state in states for peer in state["peers"])
