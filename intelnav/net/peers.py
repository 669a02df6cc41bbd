"""Connections to all peers: dialling, accepting, and keeping one link per pair alive."""

import asyncio
import logging
import os
import time
from collections.abc import Sequence

import anyio

from intelnav import __version__
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, ConfigError, PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.net.connection import Connection, Events
from intelnav.wire.channel import Channel
from intelnav.wire.messages import Message

log = logging.getLogger(__name__)

DIAL_SECONDS = 5.0
PING_SECONDS = 15.0
SILENCE_SECONDS = 45.0
# Handshakes under way from outside; a flood of them pushes out its own oldest, never an open link.
MAX_HANDSHAKES = 32
# A race of two dials may leave two links between a pair; more than that is a peer that came back or a hostile one.
LINKS_PER_PEER = 2


class Peers:
    """The node's links. `events` is told of messages and losses; `limit` bounds connections from outside.

    The X25519 key is made here, once per process, and never stored.
    """

    def __init__(self, identity: Identity, events: Events, *, limit: int) -> None:
        self.own = identity.peer
        self._identity = identity
        self._events = events
        self._limit = limit
        self._static_key = os.urandom(32)
        self._handshakes: dict[Connection, None] = {}
        self._inbound: set[Connection] = set()
        self._links: dict[PeerId, list[Connection]] = {}
        self._dials: dict[PeerId, asyncio.Lock] = {}
        self.server: asyncio.Server | None = None

    async def listen(self, address: Address) -> None:
        """Accept peers; raises ConfigError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            self.server = await loop.create_server(self._accept, address.host, address.port)
        except OSError as error:
            raise ConfigError(
                f"network.listen: {address} cannot be used ({os.strerror(error.errno or 0)}): "
                "choose a free port, or stop the program that holds it"
            ) from None

    async def connect(self, peer: PeerId, addresses: Sequence[Address]) -> Connection:
        """The link to `peer`, dialled if there is none; raises PeerError if no address leads to that peer."""
        if peer == self.own:
            raise PeerError(Code.BAD_REQUEST, "a node does not dial itself")
        lock = self._dials.setdefault(peer, asyncio.Lock())
        failures = []
        try:
            async with lock:
                for link in self._links.get(peer, ()):
                    if link.alive:
                        return link
                for address in addresses:
                    try:
                        return await self._dial(peer, address)
                    except PeerError as error:
                        failures.append(f"{address}: {error}")
        finally:
            if not lock.locked():
                self._dials.pop(peer, None)
        raise PeerError(
            Code.CLOSED, f"peer {peer.short} cannot be reached ({'; '.join(failures) or 'no address'})"
        )

    def links(self) -> list[Connection]:
        """Every open link."""
        return [link for links in self._links.values() for link in links]

    async def keep_alive(self) -> None:
        """Ping quiet links and drop silent ones; runs until cancelled."""
        while True:
            await anyio.sleep(PING_SECONDS)
            now = time.monotonic()
            for link in self.links():
                if now - link.last_heard > SILENCE_SECONDS:
                    link.close("the peer went silent")
                elif now - link.last_heard > PING_SECONDS:
                    link.ping()

    async def close(self) -> None:
        """Stop listening and drop every link."""
        if self.server is not None:
            self.server.close()
        for link in [*self.links(), *self._handshakes]:
            link.close("this node is stopping")

    def on_open(self, link: Connection) -> None:
        """A handshake succeeded."""
        if link in self._handshakes:
            del self._handshakes[link]
            if len(self._inbound) >= self._limit:
                link.close("this node has as many links as its limits.connections allows")
                return
            self._inbound.add(link)
        links = self._links.setdefault(link.peer, [])
        links.append(link)
        self._events.on_open(link)
        if len(links) > LINKS_PER_PEER:
            links[0].close("the peer opened more links than it needs")

    def on_message(self, link: Connection, message: Message) -> None:
        """Pass a message on."""
        self._events.on_message(link, message)

    def on_lost(self, link: Connection) -> None:
        """Forget a link."""
        self._handshakes.pop(link, None)
        self._inbound.discard(link)
        for peer, links in list(self._links.items()):
            if link in links:
                links.remove(link)
                if not links:
                    del self._links[peer]
                self._events.on_lost(link)

    def _accept(self) -> Connection:
        if len(self._handshakes) >= MAX_HANDSHAKES:
            next(iter(self._handshakes)).close("too many handshakes at once")
        link = Connection(self._channel(None), self)
        self._handshakes[link] = None
        return link

    async def _dial(self, peer: PeerId, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        link: Connection | None = None
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                _, link = await loop.create_connection(
                    lambda: Connection(self._channel(peer), self), address.host, address.port
                )
                await asyncio.shield(link.opened)
        except TimeoutError:
            raise PeerError(Code.TIMEOUT, f"no answer within {DIAL_SECONDS:g} s") from None
        except OSError as error:
            raise PeerError(Code.CLOSED, error.strerror or "cannot be reached") from None
        finally:
            if link is not None and not link.opened.done():
                link.close("dialling was given up")
        return link

    def _channel(self, expected: PeerId | None) -> Channel:
        return Channel(
            self._identity,
            expected,
            static_private=self._static_key,
            ephemeral_private=os.urandom(32),
            agent=f"intelnav/{__version__}",
        )
