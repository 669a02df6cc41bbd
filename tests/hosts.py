"""Nodes that host slices, reduced to their links and their hop service: real sockets, real workers, one process."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from intelnav.chain.contribution import Contribution
from intelnav.chain.hop import HopService
from intelnav.chain.ring import Rings
from intelnav.chain.traffic import Traffic
from intelnav.domain.advert import Address, Advert
from intelnav.domain.identity import Identity
from intelnav.engine.interface import SliceEngine
from intelnav.net.peers import Peers


@dataclass
class Hosted:
    """A node with one loaded slice."""

    peers: Peers
    hops: HopService
    engine: SliceEngine
    address: Address

    def advert(self, model: str) -> Advert:
        """What it would say that it serves."""
        return Advert(self.peers.own, (self.address,), model, (self.engine.info.layers,))


@asynccontextmanager
async def hosting(
    slices: Mapping[str, SliceEngine],
    *,
    seed: int,
    idle_seconds: float = 300.0,
    contribution: Callable[[Peers], Contribution] | None = None,
    draining: Collection[str] = (),
    beside: Sequence[SliceEngine] = (),
) -> AsyncIterator[Hosted]:
    """A node that hosts `slices`, by model; its key is made from `seed`. `contribution` makes its rule, if any.

    The models in `draining` are being given up. Of each model it has the slices `beside`, too.
    """

    class Hosting:
        def ready(self, model: str) -> Sequence[SliceEngine]:
            return [*beside, slices[model]] if model in slices and model not in draining else []

        def draining(self, model: str) -> Sequence[SliceEngine]:
            return [slices[model]] if model in draining else []

    async with anyio.create_task_group() as tasks:
        traffic = Traffic()
        peers = Peers(Identity(bytes([seed]) * 32), traffic, limit=16)
        traffic.rings = Rings(peers)
        traffic.hops = hops = HopService(
            peers,
            Hosting(),
            tasks,
            idle_seconds=idle_seconds,
            contribution=contribution(peers) if contribution is not None else None,
        )
        tasks.start_soon(hops.watch_idle)
        await peers.listen(Address("127.0.0.1", 0))
        assert peers.server is not None
        port = peers.server.sockets[0].getsockname()[1]
        yield Hosted(peers, hops, next(iter(slices.values())), Address("127.0.0.1", port))
        await peers.close()
        tasks.cancel_scope.cancel()
