"""Twenty nodes, each a process, that know one bootstrap address: what a newcomer finds, also after a third has died.

The times that must be kept begin when a newcomer sends its first datagram; a process takes longer than that to start.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from intelnav.chain.route import plan_route
from intelnav.cli.swarm_nodes import free_ports
from intelnav.domain.advert import Address, Advert
from intelnav.domain.slice import LayerRange
from tests.daemons import Daemon, daemons
from tests.dht_nodes import dht_hosts
from tests.models import tiny_model

# Twenty interpreters and fifteen engines start on whatever cores there are.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

RANGES = (LayerRange(2, 4), LayerRange(4, 6), LayerRange(6, 8))
HOSTS_PER_RANGE = 5
RELAYS = 5
# How many start at once.
BATCH = 5
# A third of all, relays and hosts; some hosts of each range are left, and so is the bootstrap.
KILLED = ("relay-1", "relay-2", "host-0-0", "host-0-1", "host-1-0", "host-2-0", "host-2-1")
ROUTE_SECONDS = 1.0
LOOKUP_SECONDS = 2.0
LOOKUPS = 20


@dataclass(frozen=True)
class Swarm:
    """The nodes by name, the address of the first, and the CID of what the hosts serve."""

    nodes: dict[str, Daemon]
    bootstrap: Address
    model: str

    def hosts(self) -> dict[str, str]:
        """The names of those hosts that run, by peer id."""
        return {
            daemon.peer: name
            for name, daemon in self.nodes.items()
            if name.startswith("host") and daemon.process is not None
        }

    async def newcomer_finds(self) -> tuple[list[Advert], float]:
        """The hosts' adverts as a node finds them that starts now, and how many seconds that took it."""
        async with dht_hosts() as host:
            began = time.monotonic()
            newcomer = await host([self.bootstrap])
            adverts = await newcomer.discovery.providers(self.model)
            return adverts, time.monotonic() - began


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    model = tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf", blocks=RANGES[-1].end)
    layers: dict[str, LayerRange | None] = {f"relay-{number}": None for number in range(RELAYS)}
    for part, each in enumerate(RANGES):
        layers |= {f"host-{part}-{number}": each for number in range(HOSTS_PER_RANGE)}
    with ExitStack() as stack:
        made = stack.enter_context(daemons(tmp_path_factory.mktemp("nodes"), *layers))
        listens = [f"127.0.0.1:{port}" for port in free_ports(len(layers))]
        for daemon, slice_, listen in zip(made, layers.values(), listens, strict=True):
            role = {"slices": [{"model": str(model), "layers": str(slice_)}]} if slice_ else {"role": "relay"}
            daemon.configure(
                **role,
                network={"listen": listen, "bootstrap": [] if listen == listens[0] else listens[:1]},
                store={"chunks": "none"},
            )
        for start in (0, *range(1, len(made), BATCH)):
            batch = made[start : start + BATCH] if start else made[:1]
            for daemon in batch:
                daemon.start()
            for daemon in batch:
                daemon.until_ready(120)
        nodes = dict(zip(layers, made, strict=True))
        cid = nodes["host-0-0"].status()["slices"][0]["cid"]
        yield Swarm(nodes, Address.parse(listens[0]), cid)


async def test_a_newcomer_finds_a_route_and_every_host(swarm: Swarm) -> None:
    assert len(swarm.nodes) == 20
    # A node is ready before its first announcement has come to all who keep it.
    async with dht_hosts() as host:
        watcher = await host([swarm.bootstrap])
        deadline = time.monotonic() + 30
        while len(await watcher.discovery.providers(swarm.model)) < len(swarm.hosts()):
            assert time.monotonic() < deadline
    adverts, seconds = await swarm.newcomer_finds()
    hops = plan_route(adverts, LayerRange(RANGES[0].start, RANGES[-1].end)).hops
    assert tuple(hop.layers for hop in hops) == RANGES
    assert seconds < ROUTE_SECONDS
    print(f"a newcomer's route: {1000 * seconds:.0f} ms")
    found = {str(advert.peer): advert.slices for advert in adverts}
    assert found.keys() == swarm.hosts().keys()
    for part, layers in enumerate(RANGES):
        of_range = {swarm.hosts()[peer] for peer, slices in found.items() if slices == (layers,)}
        assert of_range == {f"host-{part}-{number}" for number in range(HOSTS_PER_RANGE)}


async def test_lookups_find_all_that_live_after_a_third_was_killed(swarm: Swarm) -> None:
    for name in KILLED:
        swarm.nodes[name].kill()
    living, times = swarm.hosts().keys(), []
    assert len(living) == 10
    for _ in range(LOOKUPS):
        adverts, seconds = await swarm.newcomer_finds()
        assert living <= {str(advert.peer) for advert in adverts}
        assert seconds < LOOKUP_SECONDS
        times.append(seconds)
    print(f"{LOOKUPS} lookups without a third: {1000 * min(times):.0f} to {1000 * max(times):.0f} ms")
