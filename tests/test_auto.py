"""Nodes with `slices: auto` share out a model among themselves, and a chain forms."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from intelnav.cli.swarm_nodes import free_ports
from intelnav.domain.slice import LayerRange
from tests.daemons import Daemon, daemons
from tests.models import tiny_model
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

BLOCKS = 6
# What two layers of the model take, with their caches and the buffers, and three do not.
MEMORY = "17.6 MB"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Daemon]]:
    """Three nodes that each have room for a part of the model."""
    model = tiny_model(tmp_path / "tiny.gguf", "llama", blocks=BLOCKS)
    with daemons(tmp_path, "a", "b", "c") as made:
        ports = free_ports(3)
        for daemon, port in zip(made, ports, strict=True):
            daemon.configure(
                slices="auto",
                auto={"models": [str(model)], "memory": MEMORY},
                network={"listen": f"127.0.0.1:{port}", "bootstrap": [f"127.0.0.1:{each}" for each in ports]},
                store={"chunks": "none"},
                limits={"sessions": 2, "context": 256, "rows": 32},
            )
        yield made


def hosted(daemon: Daemon) -> list[LayerRange]:
    return [
        LayerRange.parse(part["layers"])
        for part in (daemon.get("/status") or {"slices": []})["slices"]
        if part["state"] == "ready" and part["announced"]
    ]


def hosts(daemon: Daemon) -> bool:
    return bool(hosted(daemon))


def test_nodes_pick_what_the_swarm_lacks_until_nothing_is_lacked(nodes: list[Daemon]) -> None:
    def lacked() -> set[int]:
        held = [layers for daemon in nodes for layers in hosted(daemon)]
        return set(range(BLOCKS)) - {layer for layers in held for layer in range(layers.start, layers.end)}

    for daemon in nodes:
        daemon.start()
        until(partial(hosts, daemon), 60)
    until(lambda: not lacked(), 60)
    assert sorted(layers for daemon in nodes for layers in hosted(daemon)) == [
        LayerRange(start, start + 2) for start in range(0, BLOCKS, 2)
    ]
    # It takes up again what it had, since its bytes are there.
    before = hosted(nodes[0])
    nodes[0].kill()
    nodes[0].start()
    until(lambda: hosted(nodes[0]) == before, 60)
