"""A network of datagrams on a virtual clock: some are lost, and NATs let in only whom their node has asked."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from math import exp
from typing import Any

from intelnav.dht.datagrams import Answer, Request, decode, id_of, is_request
from tests.sim.clock import VirtualLoop

Place = tuple[str, int]

ROUND_TRIP_MEDIAN = 0.08
ROUND_TRIP_SIGMA = 0.5
JITTER = 0.1
LOSS = 0.01
NAT_SECONDS = 60.0
_PAIRS = 1 << 16


@dataclass
class Tally:
    """What one node's doing cost, in both directions: datagrams, those of them for further pages, and UDP payload.

    `rounds` is how far it had to walk: how many answers one after the other named the next to ask.
    """

    datagrams: int = 0
    for_pages: int = 0
    octets: int = 0
    rounds: int = 0
    depths: dict[Place, int] = field(default_factory=dict)


class _Transport(asyncio.DatagramTransport):
    """A socket in the network; `is_behind_nat` says whether only who it sent to lately may send to it."""

    def __init__(
        self, network: "Network", protocol: asyncio.DatagramProtocol, place: Place, nat: bool
    ) -> None:
        super().__init__({"sockname": place})
        self.network, self.protocol, self.place = network, protocol, place
        self.number = len(network.sockets)
        self.opened: dict[Place, float] | None = {} if nat else None
        self.closed = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.network.carry(self, addr, data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Network:
    """All sockets by address. A pair's round trip is lognormal, the same at all times but for some jitter."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.sockets: dict[Place, _Transport] = {}
        self.natted: set[Place] = set()
        self._chance = random.Random(seed)
        half = ROUND_TRIP_MEDIAN / 2
        self._delays = [half * exp(self._chance.gauss(0, ROUND_TRIP_SIGMA)) for _ in range(_PAIRS)]
        self._hosts: set[str] = set()
        self._watched: dict[Place, Tally] = {}
        self._under_way: dict[bytes, tuple[Tally, bool]] = {}
        loop.endpoint = self._open

    def new_place(self, *, nat: bool) -> Place:
        """A fresh address on the open internet. Behind a NAT it is that of the NAT, of which each has its own."""
        while True:
            ip = IPv4Address(self._chance.getrandbits(32))
            if ip.is_global and not ip.is_multicast and str(ip) not in self._hosts:
                break
        self._hosts.add(str(ip))
        place = str(ip), 7717
        if nat:
            self.natted.add(place)
        return place

    def delay(self, one: int, other: int) -> float:
        """The way from one socket to another, in seconds, by their numbers."""
        low, high = sorted((one, other))
        delay = self._delays[(low * 2_654_435_761 + high * 40_503) % _PAIRS]
        return delay * (1 + JITTER * self._chance.random())

    def cut_off(self, place: Place) -> None:
        """Nothing gets there or comes from there any more, as if the node had lost its power."""
        self.sockets[place].closed = True

    @contextmanager
    def watch(self, place: Place) -> Iterator[Tally]:
        """Count what the node there asks, and what is answered."""
        tally = Tally()
        self._watched[place] = tally
        try:
            yield tally
        finally:
            del self._watched[place]
            for request in [request for request, (each, _) in self._under_way.items() if each is tally]:
                del self._under_way[request]

    def carry(self, source: _Transport, target: Place, data: bytes) -> None:
        """Send a datagram on its way."""
        if source.closed:
            return
        tally = self._count(source.place, target, data) if self._watched else None
        if source.opened is not None:
            source.opened[target] = self.loop.time()
        there = self.sockets.get(target)
        if there is None or there.closed or self._chance.random() < LOSS:
            return
        delay = self.delay(source.number, there.number)
        self.loop.call_later(delay, self._arrive, there, source.place, data, tally)

    def _open(self, protocol: asyncio.DatagramProtocol, place: Place) -> asyncio.DatagramTransport:
        transport = _Transport(self, protocol, place, place in self.natted)
        self.sockets[place] = transport
        return transport

    def _arrive(self, there: _Transport, source: Place, data: bytes, tally: Tally | None) -> None:
        if there.closed:
            return
        if there.opened is not None:
            at = there.opened.get(source)
            if at is None or self.loop.time() - at > NAT_SECONDS:
                return
        if tally is not None and not is_request(data):
            self._trace(tally, source, data)
        there.protocol.datagram_received(data, source)

    def _count(self, source: Place, target: Place, data: bytes) -> Tally | None:
        request = id_of(data)
        if is_request(data) and (tally := self._watched.get(source)) is not None:
            content = decode(data).content
            assert isinstance(content, Request)
            self._under_way[request] = tally, content.query == "page"
            tally.rounds = max(tally.rounds, tally.depths.setdefault(target, 1))
        if request not in self._under_way:
            return None
        tally, is_page = self._under_way[request]
        tally.datagrams += 1
        tally.for_pages += is_page
        tally.octets += len(data)
        return tally

    def _trace(self, tally: Tally, source: Place, data: bytes) -> None:
        """Who is named by an answer is a round further off than who gave it, unless he was nearer already."""
        answer = decode(data).content
        assert isinstance(answer, Answer)
        for contact in answer.contacts:
            tally.depths.setdefault(contact.address, tally.depths.get(source, 0) + 1)
