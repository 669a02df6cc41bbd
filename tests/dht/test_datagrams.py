from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import (
    MARKS,
    MAX_DATAGRAM,
    MIN_REQUEST,
    PAGE_ROOM,
    Answer,
    Request,
    decode,
    encode_answer,
    encode_request,
    id_of,
    is_answer,
    is_request,
    with_records,
)
from intelnav.dht.records import MARK_BYTES, MAX_RECORD
from intelnav.domain.errors import PeerError
from tests.dht.records import KEY, peer

ASKER = b"a" * 32
ID = b"12345678"
ME = peer(1)

flags = st.booleans()
seeds = st.binary(min_size=8, max_size=8)
mark = st.binary(min_size=MARK_BYTES, max_size=MARK_BYTES)
marks = st.lists(mark, max_size=MARKS).map(tuple)
requests = st.one_of(
    st.builds(Request, st.just("ping"), client=flags),
    st.builds(Request, st.just("find"), st.just(KEY), client=flags),
    st.builds(Request, st.just("get"), st.just(KEY), seed=seeds, place=mark, known=marks, client=flags),
    st.builds(Request, st.just("page"), st.just(KEY), seed=seeds, wanted=marks, client=flags),
    st.builds(
        Request,
        st.just("add"),
        st.just(KEY),
        record=st.binary(max_size=MAX_RECORD),
        token=st.binary(min_size=8, max_size=8),
        client=flags,
    ),
)
hosts = st.sampled_from(["192.0.2.7", "2001:db8::7"])
contacts = st.builds(Contact, st.binary(min_size=32, max_size=32), hosts, st.integers(1, 65535))
answers = st.builds(
    Answer,
    st.tuples(hosts, st.integers(1, 65535)),
    token=st.none() | st.binary(min_size=8, max_size=8),
    contacts=st.lists(contacts, max_size=8).map(tuple),
    records=st.lists(st.binary(max_size=130), max_size=4).map(tuple),
    more=st.lists(mark, max_size=8).map(tuple),
    stored=st.none() | st.just("kept"),
    client=flags,
)


@given(requests)
def test_a_request_survives_and_is_never_short(request: Request) -> None:
    data = encode_request(ME, ID, request)
    assert MIN_REQUEST <= len(data) <= MAX_DATAGRAM
    assert is_request(data)
    assert not is_answer(data)
    read = decode(data)
    assert (read.content, read.id, read.key) == (request, ID, ME.peer.key)
    assert read.is_signed()


@given(answers)
def test_an_answer_survives(answer: Answer) -> None:
    data = encode_answer(ME, ID, answer, ASKER)
    assert len(data) <= MAX_DATAGRAM
    assert is_answer(data)
    assert not is_request(data)
    assert id_of(data) == ID
    assert decode(data).content == answer
    assert decode(data).is_signed(ASKER)
    # Nobody else was answered.
    assert not decode(data).is_signed(b"b" * 32)
    assert not decode(data).is_signed()


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("count", [0, 1, MARKS])
@pytest.mark.parametrize("size", [0, 100, 300, MAX_RECORD])
def test_an_answer_is_filled_with_records_and_stays_within_its_size(host: str, count: int, size: int) -> None:
    eight = tuple(Contact(bytes([n]) * 32, host, 65535) for n in range(8))
    more = tuple(bytes([n]) * MARK_BYTES for n in range(count))
    answer = with_records(Answer((host, 65535), bytes(8), eight, more=more), [bytes(size)] * 28)
    room = MAX_DATAGRAM - len(encode_answer(ME, ID, replace(answer, client=True), ASKER))
    assert room >= 0
    # Lengths are reckoned at their longest, a byte more for each than what small ones take.
    assert len(answer.records) == 28 or room < size + 3 + 2 * (1 + len(answer.records))


def test_a_record_too_big_for_the_room_leaves_it_to_the_next() -> None:
    answer = with_records(Answer(("192.0.2.7", 7)), [bytes(600), bytes(600), bytes(300)])
    assert [len(data) for data in answer.records] == [600, 300]


def test_the_room_of_a_page_is_as_stated() -> None:
    answer = Answer(("2001:db8::7", 65535))
    assert with_records(answer, [bytes(PAGE_ROOM - 3)]).records
    assert not with_records(answer, [bytes(PAGE_ROOM - 2)]).records


def test_what_does_not_fit_is_not_sent() -> None:
    with pytest.raises(PeerError):
        encode_answer(ME, ID, Answer(("192.0.2.7", 7), records=(bytes(630), bytes(630))), ASKER)


@given(requests, st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_byte_gets_past_the_signature(request: Request, place: int, flip: int) -> None:
    data = bytearray(encode_request(ME, ID, request))
    data[place % len(data)] ^= flip
    if not is_request(bytes(data)) and not is_answer(bytes(data)):
        return
    try:
        read = decode(bytes(data))
    except PeerError:
        return
    assert not read.is_signed()


@given(st.binary(max_size=300))
def test_rubbish_raises_only_peer_errors(rubbish: bytes) -> None:
    head = encode_request(ME, ID, Request("ping"))[:108]
    for kind in (b"?", b"!"):
        data = head[:3] + kind + head[4:] + rubbish
        try:
            decode(data)
        except PeerError:
            continue


@pytest.mark.parametrize("data", [b"", b"IN1?", bytes(700), b"IN2?" + bytes(700), b"IN1?" + bytes(1300)])
def test_what_is_no_datagram_is_not_looked_at(data: bytes) -> None:
    assert not is_request(data)
    assert not is_answer(data)


def test_a_request_below_its_size_is_not_looked_at() -> None:
    data = encode_request(ME, ID, Request("ping"))
    assert is_request(data[:MIN_REQUEST])
    assert not is_request(data[: MIN_REQUEST - 1])


@pytest.mark.parametrize(
    "entries",
    [
        {"query": "store", "target": KEY},
        {"query": "__init__"},
        {"query": 7},
        {},
        {"query": "find"},
        {"query": "find", "target": KEY[:19]},
        {"query": "get", "target": KEY},
        {"query": "get", "target": KEY, "seed": bytes(8)},
        {"query": "get", "target": KEY, "seed": bytes(7), "place": bytes(6)},
        {"query": "get", "target": KEY, "seed": bytes(8), "place": bytes(6), "known": bytes(7)},
        {"query": "get", "target": KEY, "seed": bytes(8), "place": bytes(6), "known": bytes(6 * 65)},
        {"query": "page", "target": KEY, "seed": bytes(8)},
        {"query": "page", "target": KEY, "seed": bytes(8), "wanted": [bytes(6)]},
        {"query": "add", "target": KEY, "record": b""},
        {"query": "add", "target": KEY, "record": bytes(MAX_RECORD + 1), "token": bytes(8)},
        {"query": "ping", "client": 1},
    ],
)
def test_a_query_that_is_not_on_the_list_is_refused(entries: dict[str, Any]) -> None:
    data = encode_request(ME, ID, Request("ping"))[:108] + cbor2.dumps(entries)
    with pytest.raises(PeerError):
        decode(data)
