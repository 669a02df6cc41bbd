"""How a node answers what others ask of it. Nothing else can be asked, and every check comes before what it saves."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import Answer, Datagram, Request, with_records
from intelnav.dht.records import mark_of, parse_record
from intelnav.dht.storage import Storage
from intelnav.dht.tokens import Tokens
from intelnav.domain.errors import Code, PeerError

Nearest = Callable[[bytes, int], list[Contact]]
Check = Callable[[Datagram], bool]

CONTACTS = 8


class Stored(StrEnum):
    """What became of an `add`."""

    KEPT = "kept"
    TOKEN = "token"  # noqa: S105
    BUSY = "busy"
    REFUSED = "refused"


class Handlers:
    """Answers from a storage and from what `nearest` knows: the contacts nearest to a target, at most so many."""

    def __init__(
        self,
        storage: Storage,
        tokens: Tokens,
        nearest: Nearest,
        *,
        is_signed: Check = Datagram.is_signed,
        contacts: int = CONTACTS,
    ) -> None:
        self._storage = storage
        self._tokens = tokens
        self._nearest = nearest
        self._is_signed = is_signed
        self._contacts = contacts

    def answer(self, datagram: Datagram, sender: tuple[str, int], now: float) -> Answer | None:
        """The answer to a request that came from `sender` at `now` (Unix seconds), None if it deserves none."""
        request = datagram.content
        if not isinstance(request, Request):
            return None
        match request.query:
            case "add":
                return self._add(datagram, request, sender, now)
            case "ping":
                return Answer(sender) if self._is_signed(datagram) else None
        if not self._is_signed(datagram):
            return None
        return self._near(datagram.key, request, sender, now)

    def _near(self, asking: bytes, request: Request, sender: tuple[str, int], now: float) -> Answer:
        assert request.target is not None
        if request.query == "page":
            return self._page(request, sender, now)
        found = self._nearest(request.target, self._contacts + 1)
        contacts = tuple(contact for contact in found if contact.key != asking)[: self._contacts]
        answer = Answer(sender, self._tokens.give(*sender, now), contacts)
        if request.query == "find":
            return answer
        assert request.place is not None
        marked = self._marked(request, now)
        left = sorted(marked.keys() - set(request.known))
        start = bisect_left(left, request.place)
        left = left[start:] + left[:start]
        answer = with_records(replace(answer, more=tuple(left)), [marked[mark] for mark in left])
        shown = set(answer.records)
        return replace(answer, more=tuple(mark for mark in left if marked[mark] not in shown))

    def _page(self, request: Request, sender: tuple[str, int], now: float) -> Answer:
        marked = self._marked(request, now)
        return with_records(Answer(sender), [marked[mark] for mark in request.wanted if mark in marked])

    def _marked(self, request: Request, now: float) -> dict[bytes, bytes]:
        """What is kept under the target, by marks."""
        assert request.target is not None
        assert request.seed is not None
        records = self._storage.records(request.target, now)
        return {mark_of(record, request.seed): record.data for record in records}

    def _add(
        self, datagram: Datagram, request: Request, sender: tuple[str, int], now: float
    ) -> Answer | None:
        assert request.target is not None
        assert request.token is not None
        if not self._tokens.accepts(request.token, *sender, now):
            return Answer(sender, stored=Stored.TOKEN) if self._is_signed(datagram) else None
        try:
            record = parse_record(request.record, request.target, now)
            self._storage.expects(record, sender[0], now)
            if not self._is_signed(datagram):
                return None
            if not record.is_signed():
                raise PeerError(Code.BAD_REQUEST, "the record is not signed by the peer that it names")
            self._storage.add(record, sender[0], now)
        except PeerError as error:
            refusal = Stored.BUSY if error.code == Code.BUSY else Stored.REFUSED
            return Answer(sender, stored=refusal) if self._is_signed(datagram) else None
        return Answer(sender, stored=Stored.KEPT)
