"""Everyone contributes ([C1] to [C3]), as whole nodes see it on a network of their own: on loopback the rule is off.

Grace is ten minutes long, and granted to four peers of one subnet a day. These four come first, so that whoever follows
is where they are ten minutes later.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from intelnav.chain.contribution import GRACES_PER_SUBNET, Verdict
from tests.daemons import Daemon, Json, daemons
from tests.models import tiny_model
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

HOST = "10.78.0.1:7717"
PROMPT = "the the"


@dataclass
class Network:
    """A network of its own with one host in it, that serves the tail of a model whose front each entry runs.

    `newcomers` is what peers with fresh keys were told, one more than get grace.
    """

    folder: Path
    namespace: str
    model: Path
    host: Daemon
    stack: ExitStack
    newcomers: Sequence[str] = ()

    def entry(self, name: str, listen: str | None, **settings: Any) -> Daemon:
        """A node that has just started and knows a route, and what else it does for the swarm is in `settings`."""
        (daemon,) = self.stack.enter_context(daemons(self.folder, name))
        daemon.namespace = self.namespace
        daemon.configure(
            entry=[{"model": str(self.model), "layers": "0..2", "name": "tiny"}],
            network={"listen": listen, "bootstrap": [HOST], "mdns": False},
            store={"chunks": "none"},
            **settings,
        )
        daemon.start()
        daemon.until_ready()
        until(lambda: (daemon.get("/route/tiny") or {"problem": "-"})["problem"] == "")
        return daemon

    def send_newcomers(self, count: int) -> list[str]:
        """What as many peers with fresh keys are told that open a session at the host."""
        cid = self.host.status()["slices"][0]["cid"]
        command = ["ip", "netns", "exec", self.namespace, sys.executable, "-m", "tests.newcomers"]
        command += [HOST, self.host.peer, cid, "2..4", "64", str(count)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()


def ask(entry: Daemon) -> tuple[int, Json]:
    with entry.client() as client:
        answer = client.post("/v1/completions", json={"model": "tiny", "prompt": PROMPT, "max_tokens": 4})
    return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("only root with iproute2 can make networks of its own")
    folder = tmp_path_factory.mktemp("contribution")
    model = tiny_model(folder / "tiny.gguf", blocks=4)
    name = f"intelnav-{os.getpid()}-c"
    with ExitStack() as stack:
        subprocess.run(["ip", "netns", "add", name], check=True)
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        for number in range(1, 5):
            address = ["address", "add", f"10.78.0.{number}/24", "dev", "lo"]
            subprocess.run(["ip", "-n", name, *address], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        (host,) = stack.enter_context(daemons(folder, "host"))
        host.namespace = name
        host.configure(
            slices=[{"model": str(model), "layers": "2..4"}],
            network={"listen": HOST, "mdns": False},
            store={"chunks": "none"},
        )
        host.start()
        host.until_ready()
        network = Network(folder, name, model, host, stack)
        network.newcomers = network.send_newcomers(GRACES_PER_SUBNET + 1)
        yield network


def test_newcomers_are_served_as_long_as_their_subnet_has_grace(network: Network) -> None:
    assert network.newcomers == ["open"] * GRACES_PER_SUBNET + ["contribute_first"]


def test_who_neither_hosts_nor_relays_is_refused_and_told_how_to_contribute(network: Network) -> None:
    status, answer = ask(network.entry("idle", None))
    assert (status, answer["error"]["code"]) == (502, "contribute_first")
    assert Verdict.NO_ADVERT in answer["error"]["message"]


def test_who_relays_is_served(network: Network) -> None:
    status, answer = ask(network.entry("relays", "10.78.0.2:7717", role="relay"))
    assert status == 200, answer


def test_who_hosts_is_served(network: Network) -> None:
    other = tiny_model(network.folder / "other.gguf", blocks=4, seed=1)
    slices = [{"model": str(other), "layers": "1..3"}]
    status, answer = ask(network.entry("hosts", "10.78.0.3:7717", slices=slices))
    assert status == 200, answer
