"""A stranger who tries what a node announces: `python -m tests.chaos.observer LISTEN BOOTSTRAP MODEL PEER`.

One JSON line for each look: what is announced, and each announced slice that could not be opened. A slice that the node
refused is looked up again until the node takes it or no longer announces it; `overdue` is for how many seconds it did
neither, while it could be reached.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import anyio

from intelnav.chain.hop import HopService
from intelnav.chain.ring import HopError, Rings, Terms
from intelnav.chain.route import RouteHop
from intelnav.chain.traffic import Traffic
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code
from intelnav.domain.hidden import Dtype
from intelnav.domain.identity import Identity, PeerId
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceEngine
from intelnav.net.dht_node import DhtNode
from intelnav.net.dht_upkeep import Upkeep
from intelnav.net.discovery import DhtDiscovery
from intelnav.net.peers import Peers

# Of SmolLM2-135M.
WIDTH, VOCABULARY = 576, 49_152
LOOK_SECONDS = 0.25
REFUSALS = (Code.NOT_HOSTING, Code.DRAINING)


class _Hosting:
    def ready(self, model: str) -> Sequence[SliceEngine]:
        return []

    def draining(self, model: str) -> Sequence[SliceEngine]:
        return []


class Observer:
    """Looks at what `peer` announces of `model`."""

    def __init__(self, discovery: DhtDiscovery, rings: Rings, model: str, peer: PeerId) -> None:
        self._discovery = discovery
        self._rings = rings
        self._model = model
        self._peer = peer
        # Since when a slice has been refused and announced all the same.
        self._refused: dict[LayerRange, float] = {}

    async def look(self) -> dict[str, object]:
        """Look once."""
        adverts = [each for each in await self._discovery.providers(self._model) if each.peer == self._peer]
        announced = [layers for advert in adverts for layers in advert.slices]
        for gone in set(self._refused) - set(announced):
            del self._refused[gone]
        for advert in adverts:
            for layers in advert.slices:
                await self._try(advert, layers)
        overdue = {str(layers): time.monotonic() - since for layers, since in self._refused.items()}
        return {"announced": sorted(map(str, announced)), "overdue": overdue}

    async def _try(self, advert: Advert, layers: LayerRange) -> None:
        terms = Terms(self._model, Dtype.F16, WIDTH, VOCABULARY, 16, None)
        try:
            async with self._rings.open([RouteHop(advert.peer, advert.addresses, layers)], terms):
                self._refused.pop(layers, None)
        except HopError as error:
            if error.code in REFUSALS:
                self._refused.setdefault(layers, time.monotonic())
            elif error.code != Code.BUSY:
                # Nobody can tell a node that is not there that it should not be announced.
                self._refused.pop(layers, None)


async def main(listen: str, bootstrap: str, model: str, peer: str) -> None:
    identity = Identity(bytes([9]) * 32)
    node = DhtNode(identity, reachable=True)
    upkeep = Upkeep(node, [Address.parse(bootstrap)])
    traffic = Traffic()
    peers = Peers(identity, traffic, limit=16)
    traffic.rings = Rings(peers)
    async with anyio.create_task_group() as tasks:
        traffic.hops = HopService(peers, _Hosting(), tasks, idle_seconds=300)
        await node.listen(Address.parse(listen))
        await upkeep.join()
        tasks.start_soon(upkeep.run)
        observer = Observer(DhtDiscovery(node, cache_seconds=0.0), traffic.rings, model, PeerId.parse(peer))
        while True:
            print(json.dumps(await observer.look()), flush=True)
            await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(main(*sys.argv[1:]))
