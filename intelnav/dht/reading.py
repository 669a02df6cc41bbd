"""Reading what is under one key from several holders at once, each record once ([D6] in docs/protocol.md).

A holder shows some records and names the others by marks. So it is known who has what nobody has shown yet, and that is
asked for by name; that holders differ costs nothing but the difference.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from intelnav.dht.datagrams import MARKS, PAGE_ROOM, Answer
from intelnav.dht.records import MARK_BYTES, Record, mark_of, parse_record
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import PeerId

# Records that are taken from one node: what one may keep under a key.
RECORDS_PER_NODE = 64
# Pages that a holder may leave unanswered.
LOSSES = 2

# Multiples of the golden ratio lie evenly in a circle, however many there are.
_GOLDEN = 0x9E3779B97F4A
_CIRCLE = 2 ** (8 * MARK_BYTES)


@dataclass(slots=True)
class _Holder:
    """A node that has records: the marks of those that it did not show, and how many it did."""

    left: list[bytes] = field(default_factory=list)
    shown: int = 0
    losses: int = 0


class Reading:
    """The records under `target`, by marks with `seed`. `is_signed` is the check that a record has to pass."""

    def __init__(self, target: bytes, seed: bytes, is_signed: Callable[[Record], bool]) -> None:
        self.records: dict[PeerId, Record] = {}
        self.seed = seed
        self._target = target
        self._is_signed = is_signed
        self._holders: dict[bytes, _Holder] = {}
        self._read: dict[bytes, None] = {}
        self._asked: Counter[bytes] = Counter()
        self._octets = 0
        self._place = 0

    def place(self) -> bytes:
        """Where in the order of marks the next holder is to begin."""
        place = self._place.to_bytes(MARK_BYTES, "big")
        self._place = (self._place + _GOLDEN) % _CIRCLE
        return place

    def known(self) -> tuple[bytes, ...]:
        """Marks of what need not be shown again."""
        return tuple(self._read)[:MARKS]

    def collect(self, key: bytes, answer: Answer, unix: float) -> None:
        """What the node with this key showed in answer to a `get`, at a time in Unix seconds."""
        holder = self._holders.setdefault(key, _Holder())
        self._take(holder, answer, unix)
        holder.left = list(dict.fromkeys(answer.more))

    def collect_page(self, key: bytes, wanted: tuple[bytes, ...], answer: Answer, unix: float) -> None:
        """What it showed of the records that were `wanted`. One that shows none of them has none."""
        holder = self._holders[key]
        self._take(holder, answer, unix)
        shown = [mark for mark in wanted if mark in self._read]
        if not shown or holder.shown >= RECORDS_PER_NODE:
            holder.left.clear()

    def next_page(self) -> tuple[bytes, tuple[bytes, ...]] | None:
        """The key of a holder and the marks of what to ask it for now, or None.

        First comes what most of them have, so that one who makes up marks is asked for them last.
        """
        held = Counter(
            mark
            for holder in self._holders.values()
            for mark in holder.left
            if mark not in self._read and not self._asked[mark]
        )
        if not held:
            return None
        first = max(held, key=lambda mark: held[mark])
        key, holder = max(
            ((key, holder) for key, holder in self._holders.items() if first in holder.left),
            key=lambda each: (-each[1].losses, sum(mark in held for mark in each[1].left)),
        )
        wanted = sorted((mark for mark in holder.left if mark in held), key=lambda mark: -held[mark])
        return key, tuple(wanted[: self._a_page()])

    def asked(self, wanted: tuple[bytes, ...]) -> None:
        """Somebody was asked for these, so nobody else is for now."""
        self._asked.update(wanted)

    def settled(self, wanted: tuple[bytes, ...]) -> None:
        """The answer came, or is no longer waited for."""
        self._asked.subtract(wanted)

    def lost(self, key: bytes) -> None:
        """This holder did not answer for a page."""
        holder = self._holders[key]
        holder.losses += 1
        if holder.losses >= LOSSES:
            holder.left.clear()

    def _a_page(self) -> int:
        """How many records of the size of those that were read a page has room for."""
        mean = self._octets / len(self._read) if self._read else 0
        return min(MARKS, max(1, int(PAGE_ROOM / (mean + 3))))

    def _take(self, holder: _Holder, answer: Answer, unix: float) -> None:
        for data in answer.records[: RECORDS_PER_NODE - holder.shown]:
            holder.shown += 1
            try:
                record = parse_record(data, self._target, unix)
            except PeerError:
                continue
            known = self.records.get(record.peer)
            # One that came before need not be checked again, which spares most signature checks.
            if (known is None or known.data != data) and not self._is_signed(record):
                continue
            mark = mark_of(record, self.seed)
            if mark not in self._read:
                self._read[mark] = None
                self._octets += len(data)
            if known is None or record.seq > known.seq:
                self.records[record.peer] = record
