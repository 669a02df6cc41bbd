import random

from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.datagrams import Answer
from intelnav.dht.reading import LOSSES, RECORDS_PER_NODE, Reading
from intelnav.dht.records import Offer, Record, mark_of
from tests.dht.records import KEY, NOW, OFFER, record

SEED = b"12345678"
YOU = ("192.0.2.1", 1)
RECORDS = [record(number) for number in range(1, 13)]


def reading() -> Reading:
    return Reading(KEY, SEED, Record.is_signed)


def answer(*shown: Record, more: tuple[bytes, ...] = ()) -> Answer:
    return Answer(YOU, records=tuple(each.data for each in shown), more=more)


def marks(*records: Record) -> tuple[bytes, ...]:
    return tuple(mark_of(each, SEED) for each in records)


def rubbish(number: int) -> bytes:
    return b"bad" + number.to_bytes(3, "big")


def test_a_mark_depends_on_who_when_and_the_seed() -> None:
    some = [record(1), record(2), record(1, seq=2)]
    assert len({mark_of(each, seed) for each in some for seed in (SEED, bytes(8))}) == 6
    assert mark_of(record(1, lives=9), SEED) == mark_of(record(1), SEED)


def test_nothing_is_asked_for_that_was_shown_by_anybody() -> None:
    reads = reading()
    reads.collect(b"a", answer(*RECORDS[:3], more=marks(*RECORDS[3:6])), NOW)
    reads.collect(b"b", answer(*RECORDS[3:6], more=marks(*RECORDS[:3])), NOW)
    assert reads.next_page() is None
    assert set(reads.records) == {each.peer for each in RECORDS[:6]}
    assert set(reads.known()) == set(marks(*RECORDS[:6]))


def test_two_are_asked_for_different_records_at_the_same_time() -> None:
    reads = reading()
    for key in (b"a", b"b"):
        reads.collect(key, answer(RECORDS[0], more=marks(*RECORDS[1:])), NOW)
    wanted: list[bytes] = []
    sizes = []
    while (page := reads.next_page()) is not None:
        reads.asked(page[1])
        sizes.append(len(page[1]))
        wanted += page[1]
    # The records that were read tell how many of their kind a page has room for.
    assert sizes == [5, 5, 1]
    assert sorted(wanted) == sorted(marks(*RECORDS[1:]))
    reads.settled(tuple(wanted))
    assert reads.next_page() is not None


def test_who_loses_pages_is_asked_last_and_then_no_more() -> None:
    reads = reading()
    for key in (b"a", b"b"):
        reads.collect(key, answer(more=marks(RECORDS[0])), NOW)
    asked = []
    while (page := reads.next_page()) is not None:
        reads.lost(page[0])
        asked.append(page[0])
    assert asked == [b"a", b"b", *[b"a", b"b"] * (LOSSES - 1)]


def test_one_who_makes_up_marks_is_asked_for_them_last_and_once() -> None:
    reads = reading()
    reads.collect(b"liar", answer(more=tuple(rubbish(number) for number in range(64))), NOW)
    for key in (b"a", b"b"):
        reads.collect(key, answer(RECORDS[0], more=marks(*RECORDS[1:3])), NOW)
    page = reads.next_page()
    assert page is not None
    assert page[0] != b"liar"
    assert sorted(page[1]) == sorted(marks(*RECORDS[1:3]))
    reads.collect_page(page[0], page[1], answer(*RECORDS[1:3]), NOW)
    page = reads.next_page()
    assert page is not None
    assert page[0] == b"liar"
    reads.collect_page(page[0], page[1], answer(RECORDS[0]), NOW)
    assert reads.next_page() is None


def test_a_mark_said_twice_counts_once() -> None:
    reads = reading()
    reads.collect(b"liar", answer(more=(rubbish(1),) * 64), NOW)
    for key in (b"a", b"b"):
        reads.collect(key, answer(more=marks(RECORDS[1])), NOW)
    page = reads.next_page()
    assert page is not None
    assert page[1] == marks(RECORDS[1])


def test_no_more_is_taken_from_one_node_than_one_may_have() -> None:
    reads = reading()
    made = [record(number) for number in range(1, 100)]
    for number in range(0, 96, 4):
        reads.collect(b"liar", answer(*made[number : number + 4], more=(rubbish(1),)), NOW)
    assert len(reads.records) == RECORDS_PER_NODE
    assert reads.known() == marks(*made[:RECORDS_PER_NODE])


def test_bad_records_are_passed_over_and_the_newest_wins() -> None:
    reads = reading()
    forged = record(4).data.replace(RECORDS[3].peer.key, RECORDS[4].peer.key)
    old, new = record(1), record(1, seq=2, offer=Offer(OFFER.addresses, OFFER.slices, load=0.5))
    bad = Answer(
        YOU, records=(forged, b"", record(2, key=bytes(20)).data, record(3, lives=-1).data, new.data)
    )
    reads.collect(b"a", bad, NOW)
    reads.collect(b"b", answer(old), NOW)
    assert reads.records == {new.peer: new}


@given(st.integers(0, 2**32), st.integers(1, 8), st.floats(0, 0.5))
def test_whatever_holders_have_all_of_it_is_read_once(seed: int, holders: int, loss: float) -> None:
    chance = random.Random(seed)
    has = {bytes([n]): [each for each in RECORDS if chance.random() < 0.7] for n in range(holders)}
    reads = reading()
    shown: list[Record] = []
    for key, records in has.items():
        left = [each for each in records if mark_of(each, SEED) not in reads.known()]
        reads.collect(key, answer(*left[:2], more=marks(*left[2:])), NOW)
        shown += left[:2]
    lost = set()
    while (page := reads.next_page()) is not None:
        key, wanted = page
        if chance.random() < loss:
            lost.add(key)
            reads.lost(key)
            continue
        page_shows = [each for each in has[key] if mark_of(each, SEED) in wanted][:3]
        assert page_shows
        reads.collect_page(key, wanted, answer(*page_shows), NOW)
        shown += page_shows
    assert len(shown) == len(set(marks(*shown)))
    heard = {each.peer for key, records in has.items() for each in records if key not in lost}
    assert heard <= set(reads.records)
