"""Nodes of the DHT as they are, thousands of them, on the virtual network: they join, announce, die and look up."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from intelnav.chain.route import plan_route
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.domain.slice import LayerRange
from intelnav.net.dht_node import DhtNode
from intelnav.net.dht_upkeep import Upkeep
from intelnav.net.discovery import DhtDiscovery
from tests.sim.clock import VirtualLoop
from tests.sim.network import Network, Place, Tally

BOOTSTRAP = 3
JOINS_PER_SECOND = 20.0
# One node in so many hosts a slice of some model.
HOSTED = 10
RANGES = (LayerRange(8, 15), LayerRange(15, 22), LayerRange(22, 30))
LAYERS = LayerRange(8, 30)
HOSTS_PER_RANGE = 5


@dataclass
class Member:
    """A node and what runs on it; `hosts` is what it serves, if anything."""

    node: DhtNode
    upkeep: Upkeep
    discovery: DhtDiscovery
    place: Place
    is_client: bool
    alive: bool = True
    hosts: tuple[str, LayerRange] | None = None

    @property
    def peer(self) -> PeerId:
        return self.node.identity.peer

    def advert(self, load: float) -> Advert:
        """What it announces; `load` tells one announcement from the next."""
        assert self.hosts is not None
        model, layers = self.hosts
        return Advert(self.peer, (Address(*self.place),), model, (layers,), None, "cpu", load)


@dataclass
class Found:
    """One lookup: what it cost and how long it took in seconds, and of what it returned how much was right.

    `routed` is None where no chain of living hosts exists. `old` are records that a newer one of the same living host
    has replaced, or that were withdrawn; `dead` are those of hosts that died without a word.
    """

    tally: Tally
    seconds: float
    routed: bool | None
    complete: bool
    records: int
    old: int
    dead: int


class Swarm:
    """`size` nodes, every other one behind a NAT."""

    def __init__(self, loop: VirtualLoop, size: int, seed: int) -> None:
        self.loop = loop
        self.network = Network(loop, seed)
        self.chance = random.Random(seed)
        self.members: list[Member] = []
        for number in range(size):
            self.members.append(self._member(number, number % 2 == 1 and number >= BOOTSTRAP))
        models = max(1, size // (HOSTED * HOSTS_PER_RANGE * len(RANGES)))
        self.models = [f"{number:064x}" for number in range(models)]
        slices = [(m, r) for m in self.models for r in RANGES for _ in range(HOSTS_PER_RANGE)]
        self.hosts = self.chance.sample(self.members, min(size, len(slices)))
        for member, hosted in zip(self.hosts, slices, strict=False):
            member.hosts = hosted

    async def join(self) -> None:
        """All join over the same bootstrap addresses, one after the other; then each that can be reached looks around.

        Upkeep does that every five minutes, also behind a NAT, where nobody else's table gains by it; once has to do.
        """
        for member in self.members:
            await member.node.listen(Address(*member.place))
        await self.spread(self.members, JOINS_PER_SECOND, lambda member: member.upkeep.join())
        servers = [member for member in self.members if not member.is_client]
        await self.spread(servers, JOINS_PER_SECOND, lambda member: member.upkeep.refresh())

    async def announce(self, load: float) -> list[Tally]:
        """Every living host says what it serves; what each of them paid for that."""
        tallies: list[Tally] = []

        async def announce(member: Member) -> None:
            with self.network.watch(member.place) as tally:
                await member.discovery.announce(member.advert(load))
            tallies.append(tally)

        await self.spread([each for each in self.hosts if each.alive and each.hosts], 20.0, announce)
        return tallies

    async def withdraw(self, share: float) -> None:
        """A share of the living hosts stops serving, and says so."""
        alive = [each for each in self.hosts if each.alive]
        for member in self.chance.sample(alive, int(share * len(alive))):
            assert member.hosts is not None
            await member.discovery.withdraw(member.hosts[0])
            member.hosts = None

    def kill(self, share: float) -> None:
        """A share of all nodes is gone, without a word."""
        for member in self.chance.sample(self.members, int(share * len(self.members))):
            member.alive = False
            self.network.cut_off(member.place)

    async def look_up(self, count: int, load: float) -> list[Found]:
        """As many lookups, each by another living node if there are enough; `load` is that of the last announcement."""
        alive = [member for member in self.members if member.alive]
        askers = self.chance.sample(alive, min(count, len(alive)))
        found: list[Found] = []

        async def look_up(member: Member) -> None:
            model = self.chance.choice(self.models)
            began = self.loop.time()
            with self.network.watch(member.place) as tally:
                adverts = await member.discovery.providers(model)
            found.append(self._judge(model, adverts, load, tally, self.loop.time() - began))

        while len(found) < count:
            await self.spread(askers[: count - len(found)], 20.0, look_up)
        return found

    async def idle(self, count: int, seconds: float) -> list[Tally]:
        """What so many nodes ask in that time only to keep in touch."""
        alive = [member for member in self.members if member.alive]
        tallies: list[Tally] = []

        async def keep(member: Member) -> None:
            with self.network.watch(member.place) as tally:
                task = asyncio.create_task(member.upkeep.run())
                await asyncio.sleep(seconds)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            tallies.append(tally)

        await self.spread(self.chance.sample(alive, min(count, len(alive))), 20.0, keep)
        return tallies

    async def spread(
        self, members: Sequence[Member], rate: float, what: Callable[[Member], Awaitable[object]]
    ) -> None:
        """Do something on each of them, so many a second on average, at random times."""

        async def later(member: Member, delay: float) -> None:
            await asyncio.sleep(delay)
            await what(member)

        delay = 0.0
        tasks = []
        for member in members:
            delay += self.chance.expovariate(rate)
            tasks.append(later(member, delay))
        await asyncio.gather(*tasks)

    def _member(self, number: int, is_client: bool) -> Member:
        identity = Identity(self.chance.randbytes(32))
        place = self.network.new_place(nat=is_client)
        node = DhtNode(identity, reachable=not is_client)
        bootstrap = [Address(*member.place) for member in self.members[:BOOTSTRAP]] if number else []
        discovery = DhtDiscovery(node, cache_seconds=0.0)
        return Member(node, Upkeep(node, bootstrap), discovery, place, is_client)

    def _judge(
        self, model: str, adverts: Sequence[Advert], load: float, tally: Tally, seconds: float
    ) -> Found:
        living = {
            each.peer: each for each in self.hosts if each.alive and each.hosts and each.hosts[0] == model
        }
        dead = {member.peer for member in self.hosts if not member.alive}
        right = [advert for advert in adverts if advert.peer in living and advert.load == load]
        gone = sum(advert.peer in dead for advert in adverts)
        routed = None
        if _has_route([each.advert(load) for each in living.values()], set()):
            routed = _has_route(adverts, {a.peer for a in adverts if a.peer not in living})
        return Found(
            tally,
            seconds,
            routed,
            len(right) == len(living),
            len(adverts),
            len(adverts) - len(right) - gone,
            gone,
        )


def _has_route(adverts: Sequence[Advert], avoid: set[PeerId]) -> bool:
    try:
        plan_route(adverts, LAYERS, avoid)
    except PeerError:
        return False
    return True
