"""Real links between nodes in one process: real sockets and handshakes, for tests of what goes over them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from intelnav.domain.advert import Address
from intelnav.domain.identity import Identity
from intelnav.net.connection import Connection
from intelnav.net.peers import Peers
from intelnav.wire.messages import Message


@dataclass
class Recorder:
    """Keeps what happened on a node's links; the queues can be awaited. A test says what is `used`."""

    opened: list[Connection] = field(default_factory=list)
    messages: asyncio.Queue[tuple[Connection, Message]] = field(default_factory=asyncio.Queue)
    lost: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)
    round_trips: asyncio.Queue[tuple[Connection, float]] = field(default_factory=asyncio.Queue)
    used: set[Connection] = field(default_factory=set)

    def on_open(self, link: Connection) -> None:
        self.opened.append(link)

    def on_message(self, link: Connection, message: Message) -> None:
        self.messages.put_nowait((link, message))

    def on_round_trip(self, link: Connection) -> None:
        assert link.round_trip is not None
        self.round_trips.put_nowait((link, link.round_trip))

    def on_lost(self, link: Connection) -> None:
        self.lost.put_nowait(link)

    def uses(self, link: Connection) -> bool:
        return link in self.used


@dataclass
class Endpoint:
    identity: Identity
    events: Recorder
    peers: Peers
    address: Address


MakeEndpoint = Callable[..., Awaitable[Endpoint]]


@asynccontextmanager
async def endpoints() -> AsyncIterator[MakeEndpoint]:
    """Makes listening endpoints, each with its own identity; they are closed on the way out."""
    made: list[Endpoint] = []

    async def make(limit: int = 64) -> Endpoint:
        identity = Identity(bytes([len(made) + 1]) * 32)
        events = Recorder()
        peers = Peers(identity, events, limit=limit)
        await peers.listen(Address("127.0.0.1", 0))
        assert peers.server is not None
        port = peers.server.sockets[0].getsockname()[1]
        made.append(Endpoint(identity, events, peers, Address("127.0.0.1", port)))
        return made[-1]

    yield make
    for each in made:
        await each.peers.close()
