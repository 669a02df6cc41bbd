"""What a node tells over its API of others: whom it knows, which chain it would take, what the swarm serves."""

import asyncio
import time
from collections import Counter
from typing import Any

from intelnav.api.network import Contact, Link, Neighbours, Relay, Seeds, SwarmModel
from intelnav.chain.entry import Entry
from intelnav.chain.ring import Rings
from intelnav.dht.records import ListedModel
from intelnav.net.peers import Peers
from intelnav.network import Network

# Anybody can list a model; so many are looked up.
MAX_MODELS = 64
_AT_ONCE = 8


class Outlook:
    """See `api.network.Network`."""

    def __init__(self, network: Network, peers: Peers, rings: Rings, entry: Entry) -> None:
        self._network = network
        self._peers = peers
        self._rings = rings
        self._entry = entry

    async def peers(self) -> Neighbours:
        """Whom this node is connected to, and whom it knows."""
        now = time.monotonic()
        links = []
        for link in self._peers.links():
            figures = self._rings.book.figures(link.peer, now)
            trip = figures.round_trip if figures is not None else None
            links.append(Link(str(link.peer), link.remote, trip, link.bytes_sent, link.bytes_received))
        seen_at = self._network.dht.reach.seen_at
        return Neighbours(
            peer=str(self._peers.own),
            seen_at=str(seen_at) if seen_at is not None else None,
            links=tuple(links),
            contacts=tuple(Contact(str(peer), str(at)) for peer, at in self._network.discovery.contacts()),
            relays=tuple(
                Relay(str(each.peer), tuple(map(str, each.addresses)), each.room, each.load)
                for each in await self._network.discovery.relays()
            ),
            seeds=tuple(
                Seeds(each["url"], each["state"], each["addresses"], each["reason"])
                for each in self._network.seeds.status()
            ),
        )

    async def route(self, model: str, count: int) -> dict[str, Any]:
        """Up to `count` chains that a request would take now."""
        return await self._entry.preview(model, count)

    async def swarm_models(self) -> tuple[SwarmModel, ...]:
        """What the swarm serves; of what is said of one model, what most of its hosts say."""
        said: dict[str, Counter[ListedModel]] = {}
        for listed, hosts in (await self._network.discovery.models()).items():
            said.setdefault(listed.cid, Counter())[listed] += len(hosts)
        often = sorted(said.values(), key=lambda each: each.total(), reverse=True)[:MAX_MODELS]
        slots = asyncio.Semaphore(_AT_ONCE)

        async def served(listed: ListedModel) -> SwarmModel:
            async with slots:
                adverts = await self._network.providers(listed.cid)
            return SwarmModel.served(
                adverts,
                name=listed.name,
                cid=listed.cid,
                architecture=listed.architecture,
                blocks=listed.blocks,
                size_bytes=listed.size,
                quantisation=listed.quantisation,
            )

        models = await asyncio.gather(*(served(each.most_common(1)[0][0]) for each in often))
        return tuple(sorted(models, key=lambda model: model.name))
