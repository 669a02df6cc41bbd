"""Keeps a node of the DHT in touch: it joins at the start, and networks that were parted grow together again."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio

from intelnav.dht.keys import KEY_BYTES
from intelnav.domain.advert import Address
from intelnav.net.dht_node import DhtNode

JITTER = 0.2
_HIGHEST = 2 ** (8 * KEY_BYTES) - 1


class Upkeep:
    """The upkeep of `node`. `bootstrap` are addresses where other nodes answer over UDP, by name or number."""

    def __init__(self, node: DhtNode, bootstrap: Sequence[Address]) -> None:
        self._node = node
        self._bootstrap = tuple(bootstrap)
        self._settings = node.settings

    async def run(self) -> None:
        """Keep in touch until cancelled. Every node does so at times of its own."""
        settings = self._settings
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(every, settings.rejoin_seconds, self.join)
                tasks.start_soon(every, settings.refresh_seconds, self.refresh)
                tasks.start_soon(every, settings.save_seconds, self._save)
        finally:
            self._node.known.save()

    async def join(self) -> None:
        """Try some who are not in the table, bootstrap addresses and known contacts. If one answers, look around.

        A node that is alone tries all of them. Returns when that is done, or after `join_seconds` if nobody answers.
        """
        node = self._node
        present = self._present()
        strangers: list[tuple[tuple[str, int], bytes | None]] = [
            (contact.address, contact.key) for contact in node.known.all() if contact.address not in present
        ]
        strangers += [(address, None) for address in await self._resolved() if address not in present]
        if len(node.table):
            strangers = random.sample(strangers, min(self._settings.rejoin_contacts, len(strangers)))
        heard = asyncio.Event()
        for address, key in strangers:
            node.ping(address, key, heard.set)
        if strangers:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.join_seconds):
                    await heard.wait()
                    await node.lookup(node.id, records=False)

    async def refresh(self) -> None:
        """Look up the own neighbourhood, and a place in one of the buckets, so that each is visited in time."""
        present = self._present()
        for address in await self._resolved():
            if address not in present:
                self._node.ping(address, None)
        await self._node.lookup(self._node.id, records=False)
        low, high = random.choice(self._node.table.buckets())
        place = random.randint(low, min(high, _HIGHEST))
        await self._node.lookup(place.to_bytes(KEY_BYTES, "big"), records=False)

    def _present(self) -> set[tuple[str, int]]:
        """The addresses that need not be tried: those in the table, and the own one."""
        present = {contact.address for contact in self._node.table.contacts()}
        if self._node.reach.bound is not None:
            present.add((self._node.reach.bound.host, self._node.reach.bound.port))
        return present

    async def _resolved(self) -> list[tuple[str, int]]:
        """The bootstrap addresses as numbers; a name that has none right now is left out."""
        found: list[tuple[str, int]] = []
        loop = asyncio.get_running_loop()
        for address in self._bootstrap:
            with suppress(OSError, ValueError, OverflowError):
                for info in await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM):
                    found.append((str(info[4][0]), int(info[4][1])))
        return found

    async def _save(self) -> None:
        self._node.known.save()


async def every(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again, at times that do not fall together with those of other nodes."""
    while True:
        await anyio.sleep(seconds * random.uniform(1 - JITTER, 1 + JITTER))
        await what()
