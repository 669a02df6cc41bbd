"""Real nodes of the DHT in one process: real UDP sockets on loopback, for tests of what goes between them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from intelnav.domain.advert import Address
from intelnav.domain.identity import Identity
from intelnav.net.dht_node import DhtNode, DhtSettings
from intelnav.net.dht_upkeep import Upkeep
from intelnav.net.discovery import DhtDiscovery
from intelnav.net.said import Said

LOOPBACK = Address("127.0.0.1", 0)


@dataclass
class Host:
    """A node, where it listens, and the tasks that keep it going."""

    identity: Identity
    node: DhtNode
    upkeep: Upkeep
    discovery: DhtDiscovery
    address: Address
    task: asyncio.Task[None] | None = None

    def kill(self) -> None:
        """End without a goodbye: the socket is gone, and nothing was said or saved."""
        if self.task is not None:
            self.task.cancel()
        self.node.socket.close()


MakeHost = Callable[..., Awaitable[Host]]


@asynccontextmanager
async def dht_hosts() -> AsyncIterator[MakeHost]:
    """Makes nodes that join over `bootstrap`; they are closed on the way out."""
    made: list[Host] = []

    async def make(
        bootstrap: Sequence[Address] = (),
        *,
        listen: Address = LOOPBACK,
        reachable: bool | None = None,
        contacts: Path | None = None,
        settings: DhtSettings | None = None,
        running: bool = False,
        seed: bytes | None = None,
        cache_seconds: float = 0.0,
        announce_seconds: float = 300.0,
        said: Path | None = None,
    ) -> Host:
        identity = Identity(seed or (len(made) + 1).to_bytes(32, "big"))
        node = DhtNode(identity, reachable=reachable, contacts=contacts, settings=settings)
        upkeep = Upkeep(node, bootstrap)
        discovery = DhtDiscovery(
            node, cache_seconds=cache_seconds, announce_seconds=announce_seconds, said=Said(said)
        )
        address = await node.listen(listen)
        host = Host(identity, node, upkeep, discovery, address)
        made.append(host)
        await upkeep.join()
        if running:
            host.task = asyncio.create_task(upkeep.run())
        return host

    try:
        yield make
    finally:
        for host in made:
            host.kill()
        await asyncio.gather(*(host.task for host in made if host.task), return_exceptions=True)
