"""One node of the DHT: answers what others ask, walks to keys, and has the nodes there keep records."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import MIN_REQUEST, SEED_BYTES, Answer, Datagram, Request
from intelnav.dht.handlers import Handlers, Stored
from intelnav.dht.keys import distance, node_id
from intelnav.dht.limits import Silences
from intelnav.dht.lookup import Ask, Holder, Lookup, LookupLimits
from intelnav.dht.records import Record
from intelnav.dht.storage import Storage, StorageLimits
from intelnav.dht.tokens import Tokens
from intelnav.domain.advert import Address
from intelnav.domain.durations import Durations
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.net.dht_contacts import KnownContacts
from intelnav.net.dht_reach import Reach
from intelnav.net.dht_socket import DhtSocket
from intelnav.net.dht_table import Table

# Contacts that a lookup starts from; more than it wants, since some will be dead.
START = 16
# A request without a target or a record is padded to little more than the least.
_PING_BYTES = MIN_REQUEST + 8
# Own records count as the machine's own in the quotas.
_OWN_HOST = "127.0.0.1"
_DOUBTS = 1 / 16


@dataclass(frozen=True, slots=True)
class DhtSettings:
    """The DHT's times, in seconds, and limits; the defaults are those of docs/protocol.md.

    Every `rejoin_seconds` some `rejoin_contacts` that are in no bucket are tried again, of those who answered once and
    the bootstrap addresses; every `refresh_seconds` all of these addresses, and the neighbourhood and one bucket are
    looked up; `visit` limits what only is to meet the contacts there. A record is sent once more if its holder says
    nothing for `add_seconds`. `join_seconds` is how long the start waits for anybody.
    """

    lookup: LookupLimits = field(default_factory=LookupLimits)
    visit: LookupLimits = field(default_factory=lambda: LookupLimits(requests=8))
    storage: StorageLimits = field(default_factory=StorageLimits)
    reply_seconds: float = 2.0
    add_seconds: float = 0.6
    join_seconds: float = 2.0
    rejoin_seconds: float = 30.0
    rejoin_contacts: int = 3
    refresh_seconds: float = 300.0
    save_seconds: float = 60.0
    requests_per_second: float = 100.0
    request_burst: float = 400.0


class DhtNode:
    """A node with this identity, which keeps the contacts that answer in the file `contacts`, or in none.

    `reachable` says whether others can send to it unasked, None that it is to find out; see `Reach`. A node that is not
    reachable uses the DHT as a client and enters nobody's tables. `Upkeep` keeps a node in touch with others.

    `lookups` are those that ended, `lookups_unanswered` those of them that no node answered.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        reachable: bool | None = None,
        contacts: Path | None = None,
        settings: DhtSettings | None = None,
    ) -> None:
        self.identity = identity
        self.id = node_id(identity.peer.key)
        self.settings = settings or DhtSettings()
        self.table = Table(identity.peer.key)
        self.storage = Storage(self.id, self.settings.storage)
        self.known = KnownContacts(contacts)
        self.reach = Reach(reachable)
        self._handlers = Handlers(self.storage, Tokens(os.urandom(32)), self.table.nearest)
        self._silences = Silences()
        self.lookups = Durations()
        self.lookups_unanswered = 0
        self._pinged: set[tuple[str, int]] = set()
        self.socket = DhtSocket(
            identity,
            self._on_request,
            rate=self.settings.requests_per_second,
            burst=self.settings.request_burst,
            reply_seconds=self.settings.reply_seconds,
        )

    async def listen(self, address: Address) -> Address:
        """Bind the UDP socket; where it is bound. Raises ConfigError if the address cannot be had."""
        self.reach.bound = await self.socket.listen(address)
        return self.reach.bound

    def close(self) -> None:
        """Save the contacts and give the socket up."""
        self.known.save()
        self.socket.close()

    def contacts(self) -> list[tuple[PeerId, Address]]:
        """Every node in the table."""
        return [(PeerId(each.key), Address(*each.address)) for each in self.table.contacts()]

    async def get(self, key: bytes) -> list[Record]:
        """The newest record of every peer under `key`, withdrawals too. Takes 5 s at the very most."""
        found = dict((await self.lookup(key, records=True)).records)
        for record in self.storage.records(key, time.time()):
            known = found.get(record.peer)
            if known is None or record.seq > known.seq:
                found[record.peer] = record
        return list(found.values())

    async def put(self, record: Record) -> int:
        """Have the nodes nearest to an own record's key keep it; how many do, this one included."""
        holders = (await self.lookup(record.key, records=False)).holders()
        kept = await asyncio.gather(*(self._add(holder, record) for holder in holders))
        return sum(kept) + self._keep(record, holders)

    async def lookup(self, target: bytes, *, records: bool, limits: LookupLimits | None = None) -> Lookup:
        """Walk to `target`, within the settings' limits or others; the finished lookup."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        lookup = Lookup(
            target,
            self.table.nearest(target, START),
            started,
            own=self.identity.peer.key,
            seed=os.urandom(SEED_BYTES) if records else None,
            unix=time.time(),
            limits=limits or self.settings.lookup,
            is_left_alone=lambda contact: self._silences.is_left_alone(contact.address, loop.time()),
        )
        heard = asyncio.Event()
        while True:
            for ask in lookup.asks(loop.time()):
                self._send_ask(lookup, ask, heard)
            if lookup.finished:
                self.lookups.add(loop.time() - started)
                self.lookups_unanswered += not lookup.holders()
                return lookup
            with suppress(TimeoutError):
                async with asyncio.timeout_at(lookup.wake_at()):
                    await heard.wait()
            heard.clear()

    def ping(
        self, address: tuple[str, int], key: bytes | None, on_answer: Callable[[], None] | None = None
    ) -> None:
        """Ask whoever is there, the node with this key as far as is known, for a sign of life; once at a time."""
        if address in self._pinged:
            return

        def answered(contact: Contact, answer: Answer) -> None:
            self._pinged.discard(address)
            if key is not None and key != contact.key:
                self._failed(Contact(key, *address))
            self._met(contact, answer)
            if on_answer is not None:
                on_answer()

        def silent() -> None:
            self._pinged.discard(address)
            if key is not None:
                self._unheard(Contact(key, *address))

        request = Request("ping", client=self.reach.stays_out_of_tables)
        if self.socket.ask(address, request, answered, silent):
            self._pinged.add(address)

    def _send_ask(self, lookup: Lookup, ask: Ask, heard: asyncio.Event) -> None:
        request = replace(ask.request, client=self.reach.stays_out_of_tables)

        def answered(contact: Contact, answer: Answer) -> None:
            lookup.answered(ask.number, contact, answer, asyncio.get_running_loop().time())
            heard.set()

        if not self._ask(ask.contact, request, answered):
            lookup.failed(ask.number)
            heard.set()

    async def _add(self, holder: Holder, record: Record) -> bool:
        if holder.token is None:
            return False
        client = self.reach.stays_out_of_tables
        request = Request("add", record.key, record=record.data, token=holder.token, client=client)
        outcome: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def answered(contact: Contact, answer: Answer) -> None:
            if not outcome.done():
                outcome.set_result(answer.stored if contact == holder.contact else None)

        for _ in range(2):
            if not self._ask(holder.contact, request, answered):
                return False
            # Shielded, so that the answer to the first request still counts while the second is under way.
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.add_seconds):
                    return await asyncio.shield(outcome) == Stored.KEPT
        return False

    def _ask(self, contact: Contact, request: Request, answered: Callable[[Contact, Answer], None]) -> bool:
        def heard(there: Contact, answer: Answer) -> None:
            if there.key != contact.key:
                self._failed(contact)
            self._met(there, answer)
            answered(there, answer)

        return self.socket.ask(contact.address, request, heard, lambda: self._unheard(contact))

    def _unheard(self, contact: Contact) -> None:
        self._silences.silent(contact.address, asyncio.get_running_loop().time())
        self._failed(contact)

    def _failed(self, contact: Contact) -> None:
        self.table.failed(contact)
        if contact in self.table:
            # One lost datagram must not cost it its place, and no lookup asks it until it answers.
            self.ping(contact.address, contact.key)

    def _keep(self, record: Record, holders: Sequence[Holder]) -> bool:
        """Keep an own record here as well, if this node is one of the nearest and others can ask it."""
        mine = distance(self.id, record.key)
        farther = [each for each in holders if distance(each.contact.id, record.key) > mine]
        if self.reach.is_client or (len(holders) >= self.settings.lookup.wanted and not farther):
            return False
        try:
            self.storage.add(record, _OWN_HOST, time.time())
        except PeerError:
            return False
        return True

    def _on_request(self, datagram: Datagram, sender: tuple[str, int]) -> Answer | None:
        answer = self._handlers.answer(datagram, sender, time.time())
        if answer is None:
            return None
        assert isinstance(datagram.content, Request)
        contact = Contact(datagram.key, *sender)
        if not datagram.content.client and contact not in self.table and self.table.has_room(contact):
            # It enters the table when it has answered, which also proves that it is where it seems to be. The answer
            # to its own request goes first.
            asyncio.get_running_loop().call_soon(self._ask_back, contact)
        return replace(answer, client=True) if self.reach.is_client else answer

    def _ask_back(self, contact: Contact) -> None:
        if contact.address not in self._pinged and self.socket.may_ask_back(contact.address, _PING_BYTES):
            self.ping(contact.address, contact.key)

    def _met(self, contact: Contact, answer: Answer) -> None:
        """A node answered, so it is alive and where it says."""
        if contact.key == self.identity.peer.key:
            return
        self._silences.heard(contact.address)
        self.reach.seen_as(answer.you, contact)
        if answer.client:
            return
        self.known.answered(contact)
        doubtful = self.table.add(contact)
        if doubtful is not None and (doubtful.key == contact.key or random.random() < _DOUBTS):
            # Who seems to have moved is asked where it was; now and then the oldest of a full bucket has to answer.
            self.ping(doubtful.address, doubtful.key)
