"""Who serves what, found in the DHT, and this node's own adverts there."""

import asyncio
import logging
import math
import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import anyio

from intelnav.dht.contacts import is_loopback
from intelnav.dht.keys import MODELS_KEY, RELAY_KEY, model_key, peer_key
from intelnav.dht.records import TTL_SECONDS, ListedModel, Offer, Record, encode_record
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId
from intelnav.net.dht_node import DhtNode
from intelnav.net.dht_upkeep import JITTER
from intelnav.net.said import Said

log = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 300.0
# An announcement that nobody else kept is made again soon; the pauses double up to the last.
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 15.0
CACHE_SECONDS = 5.0
MAX_CACHED = 256
# That there is nothing is held against a key for a shorter while.
EMPTY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class RelayAdvert:
    """A relay: where it is dialled, for how many peers it has room, and the part of that in use, 0 to 1."""

    peer: PeerId
    addresses: tuple[Address, ...]
    room: int
    load: float


@dataclass(slots=True)
class _Announcement:
    """What shall stand under a key, a withdrawal too; `end` is when a withdrawal has nothing left to take back."""

    offer: Offer
    due: float
    end: float
    retry: float = FIRST_RETRY_SECONDS


class DhtDiscovery:
    """Finds adverts in the DHT and keeps this node's own there. Implements `chain.entry.Discovery`.

    What is announced is announced again every `announce_seconds` or so while `run` runs, and expires half an hour after
    the last time. A read is shared with whoever asks the same within `cache_seconds`.
    """

    def __init__(
        self,
        node: DhtNode,
        *,
        announce_seconds: float = ANNOUNCE_SECONDS,
        cache_seconds: float = CACHE_SECONDS,
        said: Said | None = None,
    ) -> None:
        """What `said` tells of an earlier run is taken back, unless it is announced again."""
        self._node = node
        self._said = said or Said(None)
        self._announce_seconds = announce_seconds
        self._cache_seconds = cache_seconds
        self._announced: dict[bytes, _Announcement] = {}
        self._changed = asyncio.Event()
        self._cache: dict[bytes, tuple[float, list[Record]]] = {}
        self._reading: dict[bytes, asyncio.Lock] = {}
        for key in self._said.standing():
            self._announced[key] = _withdrawal(time.monotonic())

    async def providers(self, model: str) -> list[Advert]:
        """Every live advert for the model with this CID, in no order."""
        return [
            Advert(
                record.peer,
                addresses,
                model,
                record.offer.slices,
                self._chunks(record.offer),
                record.offer.engine_class,
                record.offer.load,
            )
            for record, addresses in await self._offers(model_key(model))
        ]

    async def models(self) -> dict[ListedModel, list[PeerId]]:
        """What the swarm serves, with those who list it."""
        found: dict[ListedModel, list[PeerId]] = {}
        for record, _ in await self._offers(MODELS_KEY):
            for model in dict.fromkeys(record.offer.models):
                found.setdefault(model, []).append(record.peer)
        return found

    async def relays(self) -> list[RelayAdvert]:
        """Every live relay, in no order."""
        return [
            RelayAdvert(record.peer, addresses, record.offer.relay, record.offer.load)
            for record, addresses in await self._offers(RELAY_KEY)
        ]

    def contacts(self) -> list[tuple[PeerId, Address]]:
        """The nodes of the DHT that this one keeps in touch with."""
        return self._node.contacts()

    async def announce(self, advert: Advert) -> int:
        """Say from now on what this node serves of a model; the number of nodes that keep it.

        It replaces what was said of that model. Of more ranges than a record holds, the longest are said. Raises
        PeerError if none fits.
        """
        offer = Offer(
            addresses=advert.addresses,
            slices=tuple(sorted(advert.slices, key=len, reverse=True)),
            chunks=advert.chunks,
            engine_class=advert.engine_class,
            load=advert.load,
        )
        return await self._announce(model_key(advert.model), offer)

    async def announce_models(self, models: Sequence[ListedModel], addresses: Sequence[Address]) -> int:
        """List models from now on, for clients that look what there is; replaces what was listed.

        Of more models than a record holds, the first are listed. Raises PeerError if none fits.
        """
        return await self._announce(MODELS_KEY, Offer(addresses=tuple(addresses), models=tuple(models)))

    async def announce_relay(self, addresses: Sequence[Address], room: int, load: float = 0.0) -> int:
        """Offer this node as a relay with room for so many peers from now on."""
        return await self._announce(RELAY_KEY, Offer(addresses=tuple(addresses), relay=room, load=load))

    async def announce_contribution(self, addresses: Sequence[Address], room: int) -> int:
        """Say from now on that this node hosts or relays, for hosts that it asks ([C1])."""
        return await self._announce(
            peer_key(self._node.identity.peer.key), Offer(addresses=tuple(addresses), relay=room)
        )

    async def adverts_of(self, peer: PeerId) -> Sequence[Address] | None:
        """Where `peer` says that it is dialled, as a host or relay; None if it does not say so."""
        for record, addresses in await self._offers(peer_key(peer.key)):
            if record.peer == peer:
                return addresses
        return None

    async def withdraw(self, model: str) -> None:
        """No longer serve the model with this CID, and say so at once; again later, if nobody else heard it."""
        await self._withdraw([model_key(model)])

    async def withdraw_models(self) -> None:
        """List no models any more, and say so at once."""
        await self._withdraw([MODELS_KEY])

    async def withdraw_relay(self) -> None:
        """No longer be a relay, and say so at once."""
        await self._withdraw([RELAY_KEY])

    async def withdraw_contribution(self) -> None:
        """Neither host nor relay any more, and say so at once."""
        await self._withdraw([peer_key(self._node.identity.peer.key)])

    async def withdraw_all(self) -> None:
        """Take back everything that was announced, at once; for a node that drains or stops.

        What nobody hears of is taken back by the next run.
        """
        await self._withdraw(list(self._announced))

    async def run(self) -> None:
        """Announce again what is due, until cancelled."""
        while True:
            now = time.monotonic()
            for key in [key for key, what in self._announced.items() if what.due <= now]:
                if key in self._announced:
                    await self._publish(key, self._announced[key])
            due = min((what.due for what in self._announced.values()), default=now + self._announce_seconds)
            self._changed.clear()
            with anyio.move_on_after(max(0.0, due - time.monotonic())):
                await self._changed.wait()

    async def _announce(self, key: bytes, offer: Offer) -> int:
        offer = self._fitting(key, offer)
        now = time.monotonic()
        announcement = _Announcement(offer, now + LAST_RETRY_SECONDS, math.inf)
        self._announced[key] = announcement
        kept = await self._publish(key, announcement)
        self._changed.set()
        return kept

    def _fitting(self, key: bytes, whole: Offer) -> Offer:
        """As much of it as one record holds; found before anything is kept, so that who asks is told if it is none."""
        offer = whole
        while True:
            try:
                self._record(key, offer)
            except PeerError as error:
                shorter = replace(offer, slices=offer.slices[:-1], models=offer.models[:-1])
                if error.code is not Code.TOO_LONG or shorter == offer or shorter.withdraws:
                    raise
                offer = shorter
            else:
                break
        said, wanted = len(offer.slices) + len(offer.models), len(whole.slices) + len(whole.models)
        if said < wanted:
            log.warning("an advert has room for %d of the %d that this node serves", said, wanted)
        return offer

    async def _publish(self, key: bytes, announcement: _Announcement) -> int:
        record = self._record(key, announcement.offer)
        self._said.note(key, stands=True)
        kept = await self._node.put(record)
        seconds = self._announce_seconds
        if kept < 2:
            seconds, announcement.retry = announcement.retry, min(2 * announcement.retry, LAST_RETRY_SECONDS)
        now = time.monotonic()
        announcement.due = now + seconds * random.uniform(1 - JITTER, 1 + JITTER)
        self._cache.pop(key, None)
        taken_back = announcement.offer.withdraws and (kept >= 2 or now > announcement.end)
        # Something else may have been announced there meanwhile.
        if taken_back and self._announced.get(key) is announcement:
            del self._announced[key]
            self._said.note(key, stands=False)
        return kept

    async def _withdraw(self, keys: Sequence[bytes]) -> None:
        now = time.monotonic()
        for key in keys:
            if key in self._announced:
                self._announced[key] = _withdrawal(now + LAST_RETRY_SECONDS)
        await asyncio.gather(
            *(self._publish(key, self._announced[key]) for key in keys if key in self._announced)
        )
        self._changed.set()

    def _record(self, key: bytes, offer: Offer) -> Record:
        now = time.time()
        seq = self._said.next_seq(now)
        return encode_record(self._node.identity, key, offer, seq=seq, expires=int(now) + TTL_SECONDS)

    async def _offers(self, key: bytes) -> list[tuple[Record, tuple[Address, ...]]]:
        """The live records under `key` that offer something where this node can dial it."""
        now = time.time()
        live = [each for each in await self._read(key) if each.expires > now and not each.offer.withdraws]
        found = [(record, self._dialable(record.offer.addresses)) for record in live]
        return [(record, addresses) for record, addresses in found if addresses]

    async def _read(self, key: bytes) -> list[Record]:
        async with self._reading.setdefault(key, asyncio.Lock()):
            at, records = self._cache.get(key, (-self._cache_seconds, []))
            if time.monotonic() - at >= (
                self._cache_seconds if records else min(EMPTY_SECONDS, self._cache_seconds)
            ):
                records = await self._node.get(key)
                self._remember(key, records)
        return records

    def _remember(self, key: bytes, records: list[Record]) -> None:
        """Keep what was read, and let go of what is too old to be used, of what strangers had this node look up."""
        now = time.monotonic()
        self._cache[key] = now, records
        for old in [each for each, (at, _) in self._cache.items() if now - at > self._cache_seconds]:
            del self._cache[old]
        for oldest in sorted(self._cache, key=lambda each: self._cache[each][0])[:-MAX_CACHED]:
            del self._cache[oldest]
        for idle in [
            each for each, lock in self._reading.items() if each not in self._cache and not lock.locked()
        ]:
            del self._reading[idle]

    def _chunks(self, offer: Offer) -> Address | None:
        return None if offer.chunks is None else next(iter(self._dialable([offer.chunks])), None)

    def _dialable(self, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """Without the addresses that lead back to this very machine, unless the swarm is on one ([A9])."""
        bound = self._node.reach.bound
        if bound is not None and is_loopback(bound.host):
            return tuple(addresses)
        return tuple(address for address in addresses if not _leads_home(address.host))


def _withdrawal(due: float) -> _Announcement:
    return _Announcement(Offer(), due, due + TTL_SECONDS)


def _leads_home(host: str) -> bool:
    """Whether a dial of `host` ends at this machine; a name is not looked up for that."""
    ip: IPv4Address | IPv6Address
    try:
        ip = ip_address(host)
    except ValueError:
        try:
            # What else a dial takes for an IPv4 address, such as 127.1, 0x7f000001 and 0.
            ip = IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return host.rstrip(".").lower() == "localhost"
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback or (mapped or ip).is_unspecified
