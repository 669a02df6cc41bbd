"""Connections to all peers: dialling, accepting, and keeping one link per pair alive."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from intelnav import __version__
from intelnav.dht.contacts import is_credible, plain
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, ConfigError, PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.net.connection import Connection, Events
from intelnav.wire.channel import Channel
from intelnav.wire.messages import Message

log = logging.getLogger(__name__)

DIAL_SECONDS = 5.0
CONNECT_SECONDS = 10.0
UNUSED_SECONDS = 60.0
PING_SECONDS = 15.0
# A link in use is measured this often, too.
MEASURE_SECONDS = 60.0
SILENCE_SECONDS = 45.0
# Handshakes under way from outside; a flood of them pushes out its own oldest, never an open link.
MAX_HANDSHAKES = 32
# Without a session whose activations are on their way here, no message is larger.
CONTROL_BYTES = 64 * 1024
# A race of two dials may leave two links between a pair; more than that is a peer that came back or a hostile one.
LINKS_PER_PEER = 2


class Traffic(Events, Protocol):
    """What runs over the links."""

    def uses(self, link: Connection) -> bool:
        """Whether anything under way depends on this link."""
        ...


@dataclass(slots=True)
class _Dial:
    """A dial of some addresses, and how many wait for what comes of it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    callers: int = 0


class Peers:
    """The node's links. `traffic` is told of messages and losses, and asked which links it still needs.

    `limit` bounds the connections from outside and, apart from them, those that this node dialled; it can be set at any
    time. A peer's message is read up to 64 KiB, or what `Connection.expect` says. The X25519 key is made here, once per
    process, and never stored.
    """

    def __init__(self, identity: Identity, traffic: Traffic, *, limit: int) -> None:
        self.own = identity.peer
        self._identity = identity
        self._traffic = traffic
        self.limit = limit
        self._static_key = os.urandom(32)
        self._handshakes: dict[Connection, None] = {}
        self._inbound: set[Connection] = set()
        # With the time at which each was last known to be of use.
        self._dialled: dict[Connection, float] = {}
        self._links: dict[PeerId, list[Connection]] = {}
        self._dials: dict[tuple[PeerId, tuple[Address, ...]], _Dial] = {}
        self.server: asyncio.Server | None = None
        self._gone_sent = 0
        self._gone_received = 0

    async def listen(self, address: Address) -> None:
        """Accept peers; raises ConfigError if the address cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            self.server = await loop.create_server(self._accept, address.host, address.port)
        except OSError as error:
            raise ConfigError(
                f"network.listen: {address} cannot be used ({error.strerror or error}): "
                "choose a free port, or stop the program that holds it"
            ) from None
        except (ValueError, OverflowError):
            raise ConfigError(f"network.listen: {address}: no host has such a name or port") from None

    @property
    def address(self) -> Address | None:
        """Where peers are accepted, with the port that was bound; None if nowhere."""
        if self.server is None:
            return None
        return Address(*self.server.sockets[0].getsockname()[:2])

    async def connect(
        self, peer: PeerId, addresses: Sequence[Address], *, teller: str | None = None
    ) -> Connection:
        """The link to `peer`, dialled if there is none; raises PeerError if no address leads to that peer.

        If somebody at `teller`, a numeric host, named the addresses, those count that he may name: nobody has this node
        dial into a network that is closer to it than he is himself.

        It takes 10 seconds at most. Dials of other addresses of the same peer do not wait for each other: addresses
        are hearsay, and bad ones must not keep those with good ones waiting.
        """
        if peer == self.own:
            raise PeerError(Code.BAD_REQUEST, "a node does not dial itself")
        wanted = peer, tuple(addresses)
        failures = []
        if (known := _first_alive(self._links.get(peer, ()))) is not None:
            return known
        dial = self._dials.setdefault(wanted, _Dial())
        dial.callers += 1
        try:
            async with asyncio.timeout(CONNECT_SECONDS), dial.lock:
                for address in addresses:
                    if (known := _first_alive(self._links.get(peer, ()))) is not None:
                        return known
                    self._make_room()
                    try:
                        return self._settle(await self._dial(peer, address, teller))
                    except PeerError as error:
                        failures.append(f"{address}: {error}")
        except TimeoutError:
            failures.append(f"given up after {CONNECT_SECONDS:g} s")
        finally:
            dial.callers -= 1
            if not dial.callers:
                del self._dials[wanted]
        raise PeerError(
            Code.CLOSED, f"peer {peer.short} cannot be reached ({'; '.join(failures) or 'no address'})"
        )

    async def answers(self, peer: PeerId, addresses: Sequence[Address], *, teller: str | None = None) -> bool:
        """Whether `peer` can be reached: this node dials it now, or dialled it and the link still stands.

        A link that the peer opened shows nothing. What is dialled here is closed at once and becomes no link: a third
        one with that peer would cost it its oldest. It takes 10 seconds at most. `teller` is as in `connect`.
        """
        if peer == self.own or any(link.alive and link.peer == peer for link in self._dialled):
            return True
        with anyio.move_on_after(CONNECT_SECONDS):
            for address in addresses:
                with suppress(PeerError):
                    (await self._dial(peer, address, teller, _Nobody())).close("it was there")
                    return True
        return False

    def links(self) -> list[Connection]:
        """Every open link."""
        return [link for links in self._links.values() for link in links]

    @property
    def bytes_sent(self) -> int:
        """What all links sent since the start, those that are gone included."""
        return self._gone_sent + sum(link.bytes_sent for link in self._all())

    @property
    def bytes_received(self) -> int:
        """What all links received since the start, those that are gone included."""
        return self._gone_received + sum(link.bytes_received for link in self._all())

    async def keep_alive(self) -> None:
        """Ping links, drop silent ones and dialled ones that nothing uses; runs until cancelled."""
        while True:
            await anyio.sleep(PING_SECONDS)
            now = time.monotonic()
            for link in self.links():
                if now - link.last_heard > SILENCE_SECONDS:
                    link.close("the peer went silent")
                elif now - link.last_heard > PING_SECONDS or now - link.last_pinged > MEASURE_SECONDS:
                    link.ping()
            for link, last_used in list(self._dialled.items()):
                if self._traffic.uses(link):
                    self._dialled[link] = now
                elif now - last_used > UNUSED_SECONDS:
                    link.close("nothing uses it any more")

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
            if len(self._inbound) >= self.limit:
                link.close("this node has as many links as its limits.connections allows")
                return
            self._inbound.add(link)
        else:
            self._dialled[link] = time.monotonic()
        links = self._links.setdefault(link.peer, [])
        links.append(link)
        self._traffic.on_open(link)
        if len(links) > LINKS_PER_PEER:
            links[0].close("the peer opened more links than it needs")
        if link in self._dialled:
            link.ping()

    def on_message(self, link: Connection, message: Message) -> None:
        """Pass a message on."""
        self._traffic.on_message(link, message)

    def on_round_trip(self, link: Connection) -> None:
        """Pass a measurement on."""
        self._traffic.on_round_trip(link)

    def on_lost(self, link: Connection) -> None:
        """Forget a link."""
        self._gone_sent += link.bytes_sent
        self._gone_received += link.bytes_received
        self._handshakes.pop(link, None)
        self._inbound.discard(link)
        self._dialled.pop(link, None)
        for peer, links in list(self._links.items()):
            if link in links:
                links.remove(link)
                if not links:
                    del self._links[peer]
                self._traffic.on_lost(link)

    def _all(self) -> Iterator[Connection]:
        """Every connection, those without a handshake included; one that is being dialled counts once it is open."""
        yield from self._handshakes
        yield from self._inbound
        yield from self._dialled

    def _accept(self) -> Connection:
        if len(self._handshakes) >= MAX_HANDSHAKES:
            next(iter(self._handshakes)).close("too many handshakes at once")
        link = Connection(self._channel(None), self)
        self._handshakes[link] = None
        return link

    def _make_room(self) -> None:
        """Before a dial: with as many dialled links as the limit, one that nothing uses has to go."""
        alive = [link for link in self._dialled if link.alive]
        if len(alive) + len(self._dials) <= self.limit:
            return
        unused = next((link for link in alive if not self._traffic.uses(link)), None)
        if unused is None:
            raise PeerError(Code.BUSY, "this node has dialled as many peers as its limits.connections allows")
        unused.close("another peer is to be dialled")

    def _settle(self, link: Connection) -> Connection:
        """The link to keep after a dial, if others of this node led to the same peer meanwhile.

        Not one that the peer dialled: it may be about to drop that one for this.
        """
        older = [other for other in self._dialled if other.peer == link.peer and other is not link]
        first = _first_alive(older)
        if first is None:
            return link
        link.close("the peer was reached at another address first")
        return first

    async def _dial(
        self, peer: PeerId, address: Address, teller: str | None, events: Events | None = None
    ) -> Connection:
        loop = asyncio.get_running_loop()
        link: Connection | None = None
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                hosts = [address.host] if teller is None else await _places(address, teller)
                for host in hosts:
                    try:
                        _, link = await loop.create_connection(
                            lambda: Connection(self._channel(peer), events or self), host, address.port
                        )
                        break
                    except OSError:
                        if host is hosts[-1]:
                            raise
                assert link is not None
                await asyncio.shield(link.opened)
        except TimeoutError:
            raise PeerError(Code.TIMEOUT, f"no answer within {DIAL_SECONDS:g} s") from None
        except OSError as error:
            raise PeerError(Code.CLOSED, error.strerror or "cannot be reached") from None
        except (ValueError, OverflowError):
            # The address may be a stranger's. IDNA alone refuses many a name, and asyncio has its own rules.
            raise PeerError(Code.BAD_REQUEST, "no host has such a name or port") from None
        finally:
            if link is not None and not link.opened.done():
                link.close("dialling was given up")
        if not link.alive:
            raise PeerError(Code.CLOSED, link.reason)
        return link

    def _channel(self, expected: PeerId | None) -> Channel:
        return Channel(
            self._identity,
            expected,
            static_private=self._static_key,
            ephemeral_private=os.urandom(32),
            agent=f"intelnav/{__version__}",
            max_message=CONTROL_BYTES,
        )


class _Nobody:
    """Hears of a connection that only shows that somebody is there."""

    def on_open(self, link: Connection) -> None:
        """Nothing to do."""

    def on_message(self, link: Connection, message: Message) -> None:
        """Nothing is asked of such a peer, and nothing is done for it."""

    def on_round_trip(self, link: Connection) -> None:
        """Nothing to do."""

    def on_lost(self, link: Connection) -> None:
        """Nothing to do."""


async def _places(address: Address, teller: str) -> list[str]:
    """The numbers to dial for an address that somebody at `teller` named; PeerError if he may name none of them."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    numbers = dict.fromkeys(plain(str(place[0])) for *_, place in found)
    if credible := [number for number in numbers if is_credible(number, plain(teller))]:
        return credible
    raise PeerError(Code.BAD_REQUEST, "it lies in a network that is closer to here than who named it")


def _first_alive(links: Iterable[Connection]) -> Connection | None:
    return next((link for link in links if link.alive), None)
