"""Keeps a node of the DHT in touch: it joins at the start, and networks that were parted grow together again."""

import asyncio
import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio

from intelnav.dht.contacts import Contact, plain
from intelnav.dht.keys import KEY_BYTES
from intelnav.domain.advert import Address
from intelnav.net.dht_node import DhtNode

JITTER = 0.2
MAX_HINTS = 64
# The first pause of a node that knows nobody yet; those that follow double.
ALONE_SECONDS = 0.5
# Hints come one by one; a stream of them, from anybody on the local network, must not be a stream of joins.
NEWS_SECONDS = 1.0
_HIGHEST = 2 ** (8 * KEY_BYTES) - 1


class Upkeep:
    """The upkeep of `node`. `bootstrap` are addresses where other nodes answer over UDP, by name or number."""

    def __init__(self, node: DhtNode, bootstrap: Sequence[Address]) -> None:
        self._node = node
        self._bootstrap = tuple(bootstrap)
        self._seeds: tuple[Address, ...] = ()
        self._hints: deque[Address] = deque(maxlen=MAX_HINTS)
        self._news = asyncio.Event()
        self._settings = node.settings

    def add(self, seeds: Sequence[Address]) -> None:
        """Start from these addresses, too, in place of those that were added before; tried at once."""
        self._seeds = tuple(seeds)
        self._news.set()

    def start_from(self, bootstrap: Sequence[Address]) -> None:
        """Start from these addresses in place of the bootstrap addresses; tried at once if they are others."""
        if tuple(bootstrap) != self._bootstrap:
            self._bootstrap = tuple(bootstrap)
            self._news.set()

    def hint(self, address: Address) -> None:
        """Try an address that anybody may have named; only the last few are kept."""
        if address not in self._hints:
            self._hints.append(address)
            self._news.set()

    async def run(self) -> None:
        """Keep in touch until cancelled. Every node does so at times of its own."""
        settings = self._settings
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._rejoin)
                tasks.start_soon(every, settings.refresh_seconds, self.refresh)
                tasks.start_soon(every, settings.save_seconds, self._save)
        finally:
            self._node.known.save()

    async def _rejoin(self) -> None:
        """Join again now and then, sooner while alone, and a moment after new addresses are known."""
        longest = self._settings.rejoin_seconds
        alone = ALONE_SECONDS
        while True:
            with anyio.move_on_after(jittered(longest if len(self._node.table) else min(alone, longest))):
                await self._news.wait()
                await anyio.sleep(NEWS_SECONDS)
            alone = ALONE_SECONDS if len(self._node.table) else min(2 * alone, longest)
            # What is added from now on is not among what this tries.
            self._news.clear()
            await self.join()

    async def join(self) -> None:
        """Try some who are not in the table, bootstrap addresses and known contacts. If one answers, look around.

        A node that is alone tries all of them. It waits for a name only while nobody has answered, and takes little
        more than `join_seconds` if nobody does.
        """
        node, present, heard = self._node, self._present(), asyncio.Event()
        strangers: list[Contact | Address] = [
            *(contact for contact in node.known.all() if contact.address not in present),
            *(address for address in self._starts() if (address.host, address.port) not in present),
        ]
        if len(node.table):
            strangers = random.sample(strangers, min(self._settings.rejoin_contacts, len(strangers)))
        async with anyio.create_task_group() as tasks:
            for each in strangers:
                if isinstance(each, Contact):
                    node.ping(each.address, each.key, heard.set)
                else:
                    tasks.start_soon(self._ping_named, each, heard.set)
            with anyio.move_on_after(self._settings.join_seconds if strangers else 0.0):
                await heard.wait()
            if heard.is_set() and not (await node.lookup(node.id, records=False)).holders():
                # A datagram was lost, of the one node that had answered. By then it has again, or another has.
                await anyio.sleep(ALONE_SECONDS)
                await node.lookup(node.id, records=False)
            # Names that still have no address are tried again with the next join.
            tasks.cancel_scope.cancel()

    async def refresh(self) -> None:
        """Look up the own neighbourhood, and visit one of the buckets and every part of which too little is known.

        A new node has met those near its own id and the way to them, and could not lead anybody elsewhere.
        """
        async with anyio.create_task_group() as tasks:
            for address in self._starts():
                tasks.start_soon(self._ping_named, address, None)
        await self._node.lookup(self._node.id, records=False)
        await self._visit(*random.choice(self._node.table.buckets()))
        for part in self._node.table.thin_parts():
            # On the way to others, those of this one may have been met.
            if part in self._node.table.thin_parts():
                await self._visit(*part)

    async def _visit(self, low: int, high: int) -> None:
        """Meet some who are in this range of ids."""
        place = random.randint(low, min(high, _HIGHEST)).to_bytes(KEY_BYTES, "big")
        await self._node.lookup(place, records=False, limits=self._settings.visit)

    def _present(self) -> set[tuple[str, int]]:
        """The addresses that need not be tried: those in the table, and the own one."""
        present = {contact.address for contact in self._node.table.contacts()}
        if self._node.reach.bound is not None:
            present.add((self._node.reach.bound.host, self._node.reach.bound.port))
        return present

    def _starts(self) -> tuple[Address, ...]:
        return *self._bootstrap, *self._seeds, *self._hints

    async def _ping_named(self, address: Address, on_answer: Callable[[], None] | None) -> None:
        """Ping who is at an address that may be a name, unless the table has him. A name has `join_seconds`."""
        with anyio.move_on_after(self._settings.join_seconds):
            places = await _resolved(address)
            present = self._present()
            for place in places:
                if place not in present:
                    self._node.ping(place, None, on_answer)

    async def _save(self) -> None:
        self._node.known.save()


async def _resolved(address: Address) -> list[tuple[str, int]]:
    """The address as numbers, none for a name that has none right now."""
    with suppress(ValueError):
        # Numbers do not wait for names: those are looked up by a few threads, which may all be waiting.
        return [(plain(address.host), address.port)]
    with suppress(OSError, ValueError, OverflowError):
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
        return [(str(info[4][0]), int(info[4][1])) for info in found]
    return []


async def every(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again, at times that do not fall together with those of other nodes."""
    while True:
        await anyio.sleep(jittered(seconds))
        await what()


def jittered(seconds: float) -> float:
    """A time of about so long."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)
