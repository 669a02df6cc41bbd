"""One walk through the DHT towards a target: which node to ask next, told by what came back and what did not.

Nothing waits for a round: each answer and each time-out frees its place at once, so a dead node costs its own time-out
and holds nobody up. An answer that comes after its time-out still counts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from intelnav.dht.candidates import Candidate, Candidates
from intelnav.dht.contacts import Contact, is_credible, nearest
from intelnav.dht.datagrams import Answer, Request
from intelnav.dht.reading import Reading
from intelnav.dht.records import Record
from intelnav.domain.identity import PeerId


@dataclass(frozen=True, slots=True)
class LookupLimits:
    """`wanted` nodes nearest to the target are to answer, with `parallel` requests under way on the way there.

    Once the nearest has answered, those around it are known, and all that are wanted may be asked at once.

    A node that says nothing for a while no longer counts: twice as long as the slowest answer so far took, but at least
    `least_patience` and at most `patience`, in seconds. While nobody at all has answered, all have `last_patience`.
    Whatever others answer, a lookup ends after `requests` requests or `seconds`, and takes at most `accepted` contacts
    from one answer.
    """

    wanted: int = 8
    parallel: int = 3
    patience: float = 0.4
    least_patience: float = 0.15
    last_patience: float = 2.0
    requests: int = 60
    seconds: float = 5.0
    accepted: int = 12


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send now, and to whom."""

    number: int
    contact: Contact
    request: Request


@dataclass(frozen=True, slots=True)
class Holder:
    """A node near the target that answered, with the token that it gave."""

    contact: Contact
    token: bytes | None


@dataclass(frozen=True, slots=True)
class _Due:
    """What to ask next: a contact on the way, or, with marks of what is `wanted`, a holder for records."""

    candidate: Candidate
    wanted: tuple[bytes, ...] = ()


class Lookup:
    """A lookup for `target` that begins at the contacts `start`. `now` is in seconds of any steady clock.

    `own` is left out of it, and so is whom `is_left_alone`.

    With a `seed`, 8 random bytes, it also collects the records under the target, from all holders; `unix` is then the
    time in Unix seconds and `is_signed` the check that a record has to pass.
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
        self.requests = 0
        self._reading = None if seed is None else Reading(target, seed, is_signed)
        self._unix = unix - now
        self._limits = limits or LookupLimits()
        self._is_left_alone = is_left_alone
        self._over = False
        self._ends = now + self._limits.seconds
        self._late_until = now + self._limits.last_patience
        self._candidates = Candidates(target, own)
        self._asked: dict[int, _Due] = {}
        self._waiting: dict[int, float] = {}
        self._sent: dict[int, float] = {}
        self._slowest: float | None = None
        self._patience = self._limits.patience
        for contact in start:
            self._consider(contact, None)

    @property
    def records(self) -> dict[PeerId, Record]:
        """The newest record of each peer that was shown."""
        return {} if self._reading is None else self._reading.records

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
            self._over = True
        asks = []
        while len(self._waiting) < self._parallel() and (due := self._next()) is not None:
            self._asked[self.requests] = due
            self._sent[self.requests] = now
            self._waiting[self.requests] = min(now + self._patience, self._ends)
            asks.append(self._ask(due))
            self.requests += 1
        return asks

    def wake_at(self) -> float | None:
        """When `asks` is to be called next if no answer comes before; None if nothing is waited for."""
        return min(self._waiting.values(), default=None)

    def answered(self, number: int, teller: Contact, answer: Answer, now: float) -> None:
        """What `teller` answered to request `number`; that he signed it is checked, and that he is where it was sent.

        Whatever is wrong in it is passed over. If not he was asked but another, only that he is there counts.
        """
        due = self._asked.pop(number, None) if now < self._ends else None
        if due is None:
            return
        waited = self._waiting.pop(number, None)
        self._learn(now - self._sent[number])
        candidate, reading, unix = due.candidate, self._reading, now + self._unix
        if teller.key != candidate.contact.key:
            self._replaced(due, teller, waited is not None)
            return
        if due.wanted:
            assert reading is not None
            if waited is not None:
                reading.settled(due.wanted)
            reading.collect_page(candidate.contact.key, due.wanted, answer, unix)
            return
        self._candidates.answered(candidate, answer.token)
        named = [each for each in answer.contacts if is_credible(each.host, teller.host)]
        for contact in nearest(named, self.target, self._limits.accepted):
            self._consider(contact, teller)
        if reading is not None:
            reading.collect(candidate.contact.key, answer, unix)

    def failed(self, number: int) -> None:
        """Request `number` could not be sent."""
        waited = self._waiting.pop(number, None)
        due = self._asked.pop(number, None)
        if due is not None and waited is not None:
            self._unheard(due)

    def holders(self) -> list[Holder]:
        """The nodes nearest to the target that answered, nearest first, at most as many as were wanted."""
        near = self._candidates.holders(self._limits.wanted)
        return [Holder(each.contact, each.token) for each in near]

    def _ask(self, due: _Due) -> Ask:
        contact, reading = due.candidate.contact, self._reading
        if due.wanted:
            assert reading is not None
            reading.asked(due.wanted)
            request = Request("page", self.target, seed=reading.seed, wanted=due.wanted)
            return Ask(self.requests, contact, request)
        self._candidates.asked(due.candidate)
        if reading is None:
            return Ask(self.requests, contact, Request("find", self.target))
        request = Request("get", self.target, seed=reading.seed, place=reading.place(), known=reading.known())
        return Ask(self.requests, contact, request)

    def _consider(self, contact: Contact, teller: Contact | None) -> None:
        if not self._is_left_alone(contact):
            self._candidates.add(contact, teller)

    def _replaced(self, due: _Due, there: Contact, is_waited_for: bool) -> None:
        """Not the node that was asked is there, but another."""
        if not due.wanted:
            self._candidates.replaced(due.candidate, there)
        elif is_waited_for:
            self._unheard(due)

    def _learn(self, seconds: float) -> None:
        """An answer took so long: others are given twice the longest time so far."""
        self._slowest = max(self._slowest or 0.0, seconds)
        self._patience = min(self._limits.patience, max(self._limits.least_patience, 2 * self._slowest))

    def _give_up(self, number: int, now: float) -> None:
        del self._waiting[number]
        self._unheard(self._asked[number])
        if self._slowest is None and now < self._late_until and self._next() is None:
            # Nobody else is left to ask: all may be far away rather than dead.
            self._waiting[number] = self._late_until

    def _unheard(self, due: _Due) -> None:
        if not due.wanted:
            self._candidates.late(due.candidate)
        elif self._reading is not None:
            self._reading.settled(due.wanted)
            self._reading.lost(due.candidate.contact.key)

    def _parallel(self) -> int:
        """How many may be asked at once. More on the way would ask those whom the next answer shows to be too far."""
        return self._limits.wanted if self._candidates.nearest_answered() else self._limits.parallel

    def _next(self) -> _Due | None:
        """What to ask next. First the nearest that were not asked, so that pages do not hold up the walk."""
        if self._over or self.requests >= self._limits.requests:
            return None
        candidate = self._candidates.next(self._limits.wanted)
        if candidate is not None:
            return _Due(candidate)
        page = None if self._reading is None else self._reading.next_page()
        return None if page is None else _Due(self._candidates.of(page[0]), page[1])
