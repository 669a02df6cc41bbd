"""A network that is parted and heals: its nodes find each other again by themselves."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemons import Daemon
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)

PORT = 7717


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def islands() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a link between them: 10.77.0.0/17 and 10.77.128.0/17, of addresses of their own."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root with iproute2 can make networks of its own")
    names = tuple(f"intelnav-{os.getpid()}-{side}" for side in "ab")
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ip("link", "add", "wan", "netns", names[0], "type", "veth", "peer", "name", "wan", "netns", names[1])
        for name, half in zip(names, ("0", "128"), strict=True):
            for number in (1, 2, 3):
                ip("-n", name, "address", "add", f"10.77.{half}.{number}/16", "dev", "wan")
            for device in ("wan", "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names[0], names[1]


def relays(daemon: Daemon) -> set[str]:
    """The relays that a node finds, by id."""
    found = daemon.get("/peers")
    return {relay["peer"] for relay in found["relays"]} if found is not None else set()


def test_a_network_that_was_parted_grows_together_again(tmp_path: Path, islands: tuple[str, str]) -> None:
    one, other = islands
    hosts = {
        "a1": "10.77.0.1",
        "a2": "10.77.0.2",
        "b1": "10.77.128.1",
        "b2": "10.77.128.2",
        "b3": "10.77.128.3",
    }
    nodes = {name: Daemon(tmp_path / name, one if name[0] == "a" else other) for name in hosts}
    with ExitStack() as stack:
        for name, daemon in nodes.items():
            stack.callback(daemon.kill)
            start = "b1" if name == "b3" else "a1"
            daemon.configure(
                role="relay",
                network={
                    "listen": f"{hosts[name]}:{PORT}",
                    "bootstrap": [] if name == start else [f"{hosts[start]}:{PORT}"],
                    "mdns": False,
                },
            )
        early = [daemon for name, daemon in nodes.items() if name != "b3"]
        for daemon in early:
            daemon.start()
        everybody = {daemon.peer for daemon in early}
        until(lambda: all(relays(daemon) == everybody for daemon in early), 60)

        ip("-n", one, "link", "set", "wan", "down")
        late = nodes["b3"]
        late.start()
        until(lambda: late.peer in relays(nodes["b2"]), 60)
        assert late.peer not in relays(nodes["a1"]) | relays(nodes["a2"])

        ip("-n", one, "link", "set", "wan", "up")
        everybody.add(late.peer)
        until(lambda: all(relays(daemon) == everybody for daemon in nodes.values()), 120)
