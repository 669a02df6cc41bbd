"""One walk through the DHT towards a target: which node to ask next, told by what came back and what did not.

Nothing waits for a round: each answer and each time-out frees its place at once, so a dead node costs its own time-out
and holds nobody up. An answer that comes after its time-out still counts.
"""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from intelnav.dht.contacts import Contact, is_credible, nearest
from intelnav.dht.datagrams import Answer
from intelnav.dht.records import Record, parse_record
from intelnav.dht.storage import CURSOR_BYTES, NO_RECORDS, digest_of
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import PeerId

# Contacts that may claim one address: a liar could give a good one away, or have a victim asked again and again.
KEYS_PER_ADDRESS = 2
# Records that are taken from one node: what one may keep under a key.
RECORDS_PER_NODE = 64

_PLACE = CURSOR_BYTES // 2
# Multiples of the golden ratio lie evenly in a circle, however many there are.
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class LookupLimits:
    """`wanted` nodes nearest to the target are to answer, with `parallel` requests under way.

    A node that says nothing for a while no longer counts: twice as long as the slowest answer so far took, but at least
    `least_patience` and at most `patience`, in seconds. While nobody at all has answered, all have `last_patience`.
    Whatever others answer, a lookup ends after `requests` requests or `seconds`, and takes at most `accepted` contacts
    from one answer.
    """

    wanted: int = 8
    parallel: int = 5
    patience: float = 0.4
    least_patience: float = 0.15
    last_patience: float = 2.0
    requests: int = 60
    seconds: float = 5.0
    accepted: int = 12


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send now, and to whom; `query` is the datagram's. `find` has no cursor."""

    number: int
    contact: Contact
    query: Literal["find", "get", "page"]
    cursor: bytes | None


@dataclass(frozen=True, slots=True)
class Holder:
    """A node near the target that answered, with the token that it gave."""

    contact: Contact
    token: bytes | None


@dataclass(frozen=True, slots=True)
class _Due:
    """A page to ask for: whose, from where on, and which set of records it is part of. One repeat if it is lost."""

    candidate: "_Candidate"
    cursor: bytes | None
    digest: bytes = b""
    repeated: bool = False


@dataclass(slots=True)
class _Candidate:
    contact: Contact
    state: Literal["new", "asked", "late", "answered"] = "new"
    token: bytes | None = None
    records: dict[PeerId, Record] = field(default_factory=dict)
    from_start: bool = False


class Lookup:
    """A lookup for `target` that begins at the contacts `start`. `now` is in seconds of any steady clock.

    `own` is left out of it, and so is whom `is_left_alone`.

    With a `seed`, 8 random bytes, it also collects the records under the target, from the pages of all holders; `unix`
    is then the time in Unix seconds and `is_signed` the check that a record has to pass. All holders order their
    records by the same seed and each is asked from another place on, so that together they show a full set soon.
    """

    def __init__(
        self,
        target: bytes,
        start: Iterable[Contact],
        now: float,
        *,
        own: bytes,
        seed: bytes | None = None,
        unix: float = 0.0,
        limits: LookupLimits | None = None,
        is_left_alone: Callable[[Contact], bool] = lambda _: False,
        is_signed: Callable[[Record], bool] = Record.is_signed,
    ) -> None:
        self.target = target
        self.records: dict[PeerId, Record] = {}
        self.requests = 0
        self._place = int.from_bytes(target, "big")
        self._own = own
        self._seed = seed
        self._unix = unix - now
        self._limits = limits or LookupLimits()
        self._is_left_alone = is_left_alone
        self._is_signed = is_signed
        self._spread = 0
        self._sets: dict[bytes, dict[PeerId, Record]] = {}
        self._ends = now + self._limits.seconds
        self._late_until = now + self._limits.last_patience
        self._candidates: dict[bytes, _Candidate] = {}
        self._order: list[tuple[int, bytes]] = []
        self._addresses: Counter[tuple[str, int]] = Counter()
        self._asked: dict[int, _Due] = {}
        self._waiting: dict[int, float] = {}
        self._pages: list[_Due] = []
        self._sent: dict[int, float] = {}
        self._slowest: float | None = None
        self._patience = self._limits.patience
        self._read: set[bytes] = set()
        for contact in start:
            self._consider(contact)

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to ask or to wait for, as of the last call of `asks`."""
        return not self._waiting and self._next() is None

    def asks(self, now: float) -> list[Ask]:
        """The requests to send at this moment. Call it at the start, after each answer, and at `wake_at`."""
        for number in [number for number, until in self._waiting.items() if until <= now]:
            self._give_up(number, now)
        if now >= self._ends:
            self._waiting.clear()
            self._order.clear()
            self._pages.clear()
        asks = []
        while len(self._waiting) < self._limits.parallel and (due := self._next()) is not None:
            if due.cursor is None:
                due.candidate.state = "asked"
            else:
                self._pages.pop(0)
            self._asked[self.requests] = due
            self._sent[self.requests] = now
            self._waiting[self.requests] = min(now + self._patience, self._ends)
            asks.append(self._ask(due))
            self.requests += 1
        return asks

    def wake_at(self) -> float | None:
        """When `asks` is to be called next if no answer comes before; None if nothing is waited for."""
        return min(self._waiting.values(), default=None)

    def answered(self, number: int, answer: Answer, now: float) -> None:
        """The answer to request `number`; its signature is checked. Whatever is wrong in it is passed over."""
        due = self._asked.pop(number, None) if now < self._ends else None
        if due is None:
            return
        self._waiting.pop(number, None)
        self._learn(now - self._sent[number])
        candidate = due.candidate
        candidate.state = "answered"
        candidate.token = answer.token or candidate.token
        named = [each for each in answer.contacts if is_credible(each.host, candidate.contact.host)]
        for contact in nearest(named, self.target, self._limits.accepted):
            self._consider(contact)
        if self._seed is not None:
            self._collect(candidate, answer, now)

    def failed(self, number: int) -> None:
        """Request `number` could not be sent."""
        self._waiting.pop(number, None)
        due = self._asked.pop(number, None)
        if due is not None and due.cursor is None:
            due.candidate.state = "late"

    def holders(self) -> list[Holder]:
        """The nodes nearest to the target that answered, nearest first, at most as many as were wanted."""
        near = nearest(
            [each.contact for each in self._candidates.values() if each.state == "answered"],
            self.target,
            self._limits.wanted,
        )
        return [Holder(contact, self._candidates[contact.key].token) for contact in near]

    def _ask(self, due: _Due) -> Ask:
        contact = due.candidate.contact
        if due.cursor is not None:
            return Ask(self.requests, contact, "page", due.cursor)
        if self._seed is None:
            return Ask(self.requests, contact, "find", None)
        place = self._spread.to_bytes(_PLACE, "big")
        due.candidate.from_start = not self._spread
        self._spread = (self._spread + _GOLDEN) % 2 ** (8 * _PLACE)
        return Ask(self.requests, contact, "get", self._seed + place)

    def _consider(self, contact: Contact) -> None:
        if contact.key == self._own or contact.key in self._candidates:
            return
        if self._addresses[contact.address] >= KEYS_PER_ADDRESS or self._is_left_alone(contact):
            return
        self._addresses[contact.address] += 1
        self._candidates[contact.key] = _Candidate(contact)
        insort(self._order, (contact.place ^ self._place, contact.key))

    def _learn(self, seconds: float) -> None:
        """An answer took so long: others are given twice the longest time so far."""
        self._slowest = max(self._slowest or 0.0, seconds)
        self._patience = min(self._limits.patience, max(self._limits.least_patience, 2 * self._slowest))

    def _give_up(self, number: int, now: float) -> None:
        due = self._asked[number]
        if due.cursor is not None:
            if not due.repeated:
                self._pages.append(_Due(due.candidate, due.cursor, due.digest, repeated=True))
        elif due.candidate.state == "asked":
            due.candidate.state = "late"
        if self._slowest is None and now < self._late_until and self._next() is None:
            # Nobody else is left to ask: all may be far away rather than dead.
            self._waiting[number] = self._late_until
        else:
            del self._waiting[number]

    def _next(self) -> _Due | None:
        """What to ask next. First the nearest that were not asked, so that pages do not hold up the walk."""
        if self.requests >= self._limits.requests:
            return None
        alive = 0
        for _, key in self._order:
            candidate = self._candidates[key]
            if candidate.state == "new":
                return _Due(candidate, None)
            alive += candidate.state != "late"
            if alive >= self._limits.wanted:
                break
        return self._pages[0] if self._pages else None

    def _collect(self, candidate: _Candidate, answer: Answer, now: float) -> None:
        before = len(candidate.records)
        for data in answer.records:
            if len(candidate.records) < RECORDS_PER_NODE:
                self._take(candidate, data, now)
        if answer.digest == NO_RECORDS:
            return
        shown = self._sets.setdefault(answer.digest, {})
        shown.update(candidate.records)
        if answer.digest in (digest_of(shown.values()), digest_of(candidate.records.values())):
            # The whole of it was read; who has the same need not be asked for it.
            self._read.add(answer.digest)
            self._pages = [page for page in self._pages if page.digest not in self._read]
        elif answer.digest not in self._read:
            self._follow(candidate, answer, before)

    def _follow(self, candidate: _Candidate, answer: Answer, before: int) -> None:
        """Go on reading, at the end from the start. A page without anything new is no page of an honest holder."""
        if answer.cursor is not None:
            if before < len(candidate.records) < RECORDS_PER_NODE:
                self._pages.append(_Due(candidate, answer.cursor, answer.digest))
        elif not candidate.from_start and self._seed is not None:
            candidate.from_start = True
            self._pages.append(_Due(candidate, self._seed + bytes(_PLACE), answer.digest))

    def _take(self, candidate: _Candidate, data: bytes, now: float) -> None:
        try:
            record = parse_record(data, self.target, now + self._unix)
        except PeerError:
            return
        known = self.records.get(record.peer)
        # One that came before need not be checked again, which spares most signature checks.
        if (known is None or known.data != data) and not self._is_signed(record):
            return
        candidate.records[record.peer] = record
        if known is None or record.seq > known.seq:
            self.records[record.peer] = record
