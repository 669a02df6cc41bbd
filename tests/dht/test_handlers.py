from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import Answer, Datagram, Request, decode, encode_answer, encode_request
from intelnav.dht.handlers import CONTACTS, Handlers
from intelnav.dht.records import MARK_BYTES, Offer, Record, mark_of
from intelnav.dht.storage import Storage, StorageLimits
from intelnav.dht.tokens import Tokens
from intelnav.domain.slice import LayerRange
from tests.dht.records import KEY, NOW, OFFER, peer, record

SENDER = ("192.0.2.7", 7)
ASKER, ME = peer(50), peer(51)
SEED = b"seed seed"[:8]
GET = Request("get", KEY, seed=SEED, place=bytes(MARK_BYTES))


class Asked:
    """A node's handlers, and what they were asked in real datagrams."""

    def __init__(self, contacts: list[Contact] | None = None, **limits: int) -> None:
        self.storage = Storage(bytes(20), StorageLimits(**limits))
        found = contacts or []
        self.handlers = Handlers(self.storage, Tokens(b"s" * 32), lambda _, count: found[:count])

    def ask(self, request: Request, sender: tuple[str, int] = SENDER, now: float = NOW) -> Answer | None:
        datagram = decode(encode_request(ASKER, b"12345678", request))
        answer = self.handlers.answer(datagram, sender, now)
        if answer is not None:
            assert len(encode_answer(ME, b"12345678", answer, ASKER.peer.key)) <= 2 * len(datagram.data)
        return answer

    def token(self) -> bytes:
        answer = self.ask(Request("find", KEY))
        assert answer is not None
        assert answer.token is not None
        return answer.token

    def add(self, given: Record | bytes, key: bytes = KEY, **also: Any) -> str | None:
        data = given if isinstance(given, bytes) else given.data
        answer = self.ask(Request("add", key, record=data, token=also.pop("token", self.token())), **also)
        return answer.stored if answer else None


def contacts(count: int, host: str = "192.0.2.9") -> list[Contact]:
    return [Contact(bytes([n + 1]) * 32, host, 7) for n in range(count)]


def test_a_ping_is_answered_with_the_senders_address() -> None:
    assert Asked().ask(Request("ping")) == Answer(SENDER)


def test_contacts_are_named_but_not_the_asker_himself() -> None:
    me = Contact(ASKER.peer.key, *SENDER)
    answer = Asked([me, *contacts(12)]).ask(Request("find", KEY))
    assert answer is not None
    assert answer.contacts == tuple(contacts(CONTACTS))


BIG = record(
    1,
    offer=Offer(OFFER.addresses, tuple(LayerRange(300 + n, 400) for n in range(32)), engine_class="x" * 128),
)


@pytest.mark.parametrize("host", ["192.0.2.9", "2001:db8::9"])
def test_a_record_of_any_size_is_shown_or_named_beside_the_contacts_and_fits_a_page(host: str) -> None:
    asked = Asked(contacts(12, host))
    assert len(BIG.body) > 400
    assert asked.add(BIG) == "kept"
    answer = asked.ask(GET)
    assert answer is not None
    assert len(answer.contacts) == CONTACTS
    mark = mark_of(BIG, SEED)
    assert (answer.records, answer.more) in (((BIG.data,), ()), ((), (mark,)))
    page = asked.ask(Request("page", KEY, seed=SEED, wanted=(mark,)))
    assert page is not None
    assert page.records == (BIG.data,)


def full(count: int = 64) -> Asked:
    asked = Asked(contacts(8, "2001:db8::9"))
    for number in range(1, count + 1):
        asked.storage.add(record(number), f"192.0.{number}.7", NOW)
    return asked


@given(st.integers(0, 64), st.binary(min_size=8, max_size=8), st.binary(min_size=6, max_size=6), st.data())
def test_what_is_kept_is_known_shown_or_named(
    count: int, seed: bytes, place: bytes, data: st.DataObject
) -> None:
    asked = full(count)
    marks = {mark_of(record(number), seed): record(number).data for number in range(1, count + 1)}
    assert len(marks) == count
    known = data.draw(st.sets(st.sampled_from(sorted(marks)))) if marks else set()
    answer = asked.ask(Request("get", KEY, seed=seed, place=place, known=tuple(known)))
    assert answer is not None
    shown = {mark for mark, each in marks.items() if each in answer.records}
    assert len(shown) == len(answer.records)
    assert sorted([*known, *shown, *answer.more]) == sorted(marks)
    # Both go on in the same order from the place on, round to the beginning.
    assert list(answer.more) == sorted(answer.more, key=lambda mark: (mark < place, mark))
    assert not shown or max((m < place, m) for m in shown) < min(
        ((m < place, m) for m in answer.more), default=(True, b"\xff" * 7)
    )


@pytest.mark.parametrize("count", [0, 1, 30, 64])
def test_pages_lead_to_everything(count: int) -> None:
    asked = full(count)
    answer = asked.ask(GET)
    assert answer is not None
    shown, left = list(answer.records), answer.more
    while left:
        page = asked.ask(Request("page", KEY, seed=SEED, wanted=left))
        assert page is not None
        assert len(page.records) >= 4 or len(page.records) == len(left)
        assert (page.contacts, page.token, page.more) == ((), None, ())
        shown += page.records
        left = left[len(page.records) :]
    assert sorted(shown) == sorted(record(number).data for number in range(1, count + 1))


def test_a_page_shows_what_is_wanted_in_that_order_and_nothing_else() -> None:
    asked = full(9)
    wanted = tuple(mark_of(record(number), SEED) for number in (7, 99, 2))
    page = asked.ask(Request("page", KEY, seed=SEED, wanted=wanted))
    assert page is not None
    assert page.records == (record(7).data, record(2).data)
    other = asked.ask(Request("page", KEY, seed=bytes(8), wanted=wanted))
    assert other == Answer(SENDER)


def token_at(number: int) -> bytes:
    return Tokens(b"s" * 32).give(f"192.0.{number}.7", 7, NOW)


def test_a_datagram_that_is_not_signed_is_not_answered() -> None:
    asked = Asked()
    token = asked.token()
    for request in (
        Request("ping"),
        Request("find", KEY),
        GET,
        Request("add", KEY, record=record().data, token=token),
        Request("add", KEY, record=record().data, token=bytes(8)),
        Request("add", KEY, record=b"", token=token),
    ):
        data = bytearray(encode_request(ASKER, b"12345678", request))
        data[50] ^= 1
        assert asked.handlers.answer(decode(bytes(data)), SENDER, NOW) is None
    assert len(asked.storage) == 0


def test_an_answer_is_not_answered() -> None:
    data = encode_answer(ASKER, b"12345678", Answer(SENDER), ME.peer.key)
    assert Asked().handlers.answer(decode(data), SENDER, NOW) is None


def test_to_add_one_needs_a_token_of_ones_own() -> None:
    asked = Asked()
    assert asked.add(record(), token=bytes(8)) == "token"
    assert asked.add(record(), sender=("192.0.2.8", 7)) == "token"
    assert asked.add(record(), now=NOW + 601) == "token"
    assert len(asked.storage) == 0
    assert asked.add(record()) == "kept"


def test_what_is_no_sound_record_is_refused() -> None:
    asked = Asked(key_network=3)
    forged = record(1).data.replace(peer(1).peer.key, peer(2).peer.key)
    assert asked.add(record(1, seq=5)) == "kept"
    for bad in (
        forged,
        record(1, seq=4),
        record(3, lives=0),
        record(3, lives=1921),
        record(3, key=bytes(20)),
        b"",
    ):
        assert asked.add(bad) == "refused"
    assert [each.seq for each in asked.storage.records(KEY, NOW)] == [5]
    for number in (2, 3):
        assert asked.add(record(number)) == "kept"
    assert asked.add(record(4)) == "busy"


def test_signatures_are_checked_last() -> None:
    checked: list[Datagram] = []

    def counted(datagram: Datagram) -> bool:
        checked.append(datagram)
        return False

    asked = Asked(address=0)
    asked.handlers = Handlers(asked.storage, Tokens(b"s" * 32), lambda *_: [], is_signed=counted)
    for request in (Request("ping"), Request("find", KEY), GET):
        assert asked.ask(request) is None
    assert len(checked) == 3
