"""A DHT on a virtual clock: the real lookup and handlers, and datagrams that take their time or are lost."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from intelnav.dht.contacts import Contact, nearest
from intelnav.dht.datagrams import Answer, Datagram
from intelnav.dht.handlers import Handlers
from intelnav.dht.lookup import Ask, Lookup, LookupLimits
from intelnav.dht.records import Record
from intelnav.dht.storage import Storage
from intelnav.dht.tokens import Tokens
from tests.dht.records import NOW

Hostile = Callable[[Ask], Answer | None]


@dataclass
class Member:
    """A node; it answers as its handlers do, as `hostile` does, or not at all."""

    contact: Contact
    table: list[Contact] = field(default_factory=list)
    alive: bool = True
    hostile: Hostile | None = None

    def __post_init__(self) -> None:
        self.storage = Storage(self.contact.id)
        self.handlers = Handlers(
            self.storage,
            Tokens(b"s" * 32),
            lambda target, count: nearest(self.table, target, count),
            is_signed=lambda _: True,
        )

    def answers(self, ask: Ask, asker: Contact) -> Answer | None:
        if self.hostile is not None:
            return self.hostile(ask)
        return self.handlers.answer(Datagram(b"", asker.key, ask.request, b""), asker.address, NOW)


class Network:
    """`size` nodes, each of which knows some of the others. `delay` is one way, in seconds."""

    def __init__(self, size: int, *, delay: float = 0.02, loss: float = 0.0, known: int = 40) -> None:
        self.chance = random.Random(size)
        self.delay = delay
        self.loss = loss
        self.members = [
            Member(Contact(self.chance.randbytes(32), f"10.0.{n >> 8}.{n & 255}", 7717)) for n in range(size)
        ]
        self._at = {member.contact.address: member for member in self.members}
        contacts = [member.contact for member in self.members]
        for member in self.members:
            others = self.chance.sample(contacts, min(size, known))
            near = nearest(contacts, member.contact.id, 17)
            member.table = [each for each in {*others, *near} if each != member.contact]
        self.datagrams = 0

    def kill(self, part: float) -> None:
        for member in self.chance.sample(self.members, int(part * len(self.members))):
            member.alive = False

    def nearest(self, target: bytes, count: int) -> list[Member]:
        living = [each.contact for each in self.members if each.alive and each.hostile is None]
        return [self._at[each.address] for each in nearest(living, target, count)]

    def store(self, record: Record, holders: int = 8) -> None:
        for member in self.nearest(record.key, holders):
            member.storage.add(record, "192.0.2.7", NOW)

    def lookup(
        self, asker: Member, target: bytes, *, records: bool = True, limits: LookupLimits | None = None
    ) -> tuple[Lookup, float]:
        """The finished lookup and the seconds it took."""
        now, self.datagrams = 0.0, 0
        events: list[tuple[float, int, int, Contact, Answer]] = []
        lookup = Lookup(
            target,
            nearest(asker.table, target, 16),
            now,
            own=asker.contact.key,
            seed=self.chance.randbytes(8) if records else None,
            unix=NOW,
            limits=limits,
            is_signed=lambda _: True,
        )
        serial = 0
        while True:
            for ask in lookup.asks(now):
                self.datagrams += 1
                member = self._at.get(ask.contact.address)
                answer = None
                if member is not None and member.alive and self.chance.random() >= self.loss:
                    answer = member.answers(ask, asker.contact)
                if answer is not None and member is not None and self.chance.random() >= self.loss:
                    self.datagrams += 1
                    serial += 1
                    delay = 2 * self.delay * self.chance.uniform(0.5, 1.5)
                    heapq.heappush(events, (now + delay, serial, ask.number, member.contact, answer))
            if lookup.finished:
                return lookup, now
            wake = lookup.wake_at()
            assert wake is not None
            assert wake > now or events
            if events and events[0][0] <= wake:
                now, _, number, teller, answer = heapq.heappop(events)
                lookup.answered(number, teller, answer, now)
            else:
                now = wake
