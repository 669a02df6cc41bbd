from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.contacts import Contact
from intelnav.dht.datagrams import (
    MAX_DATAGRAM,
    MIN_REQUEST,
    ROOM,
    Answer,
    Request,
    decode,
    encode_answer,
    encode_request,
    id_of,
    is_answer,
    is_request,
    packed_size,
)
from intelnav.dht.records import MAX_RECORD
from intelnav.domain.errors import PeerError
from tests.dht.records import KEY, peer

ID = b"12345678"
ME = peer(1)

flags = st.booleans()
cursors = st.binary(min_size=16, max_size=16)
requests = st.one_of(
    st.builds(Request, st.just("ping"), client=flags),
    st.builds(Request, st.just("find"), st.just(KEY), client=flags),
    st.builds(Request, st.sampled_from(["get", "page"]), st.just(KEY), cursors, client=flags),
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
    cursor=st.none() | cursors,
    digest=st.binary(min_size=8, max_size=8),
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
    data = encode_answer(ME, ID, answer)
    assert len(data) <= MAX_DATAGRAM
    assert is_answer(data)
    assert not is_request(data)
    assert id_of(data) == ID
    assert decode(data).content == answer
    assert decode(data).is_signed()


def test_a_full_answer_fits() -> None:
    eight = tuple(Contact(bytes([n]) * 32, "192.0.2.7", 65535) for n in range(8))
    records = (bytes(MAX_RECORD), bytes(ROOM - packed_size(eight) - MAX_RECORD - 6))
    answer = Answer(("2001:db8::7", 65535), bytes(8), eight, records, bytes(16), b"digest!!", "x" * 10, True)
    assert MAX_DATAGRAM - 24 <= len(encode_answer(ME, ID, answer)) <= MAX_DATAGRAM


def test_what_does_not_fit_is_not_sent() -> None:
    with pytest.raises(PeerError):
        encode_answer(ME, ID, Answer(("192.0.2.7", 7), records=(bytes(630), bytes(630))))


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
        {"query": "get", "target": KEY, "cursor": bytes(15)},
        {"query": "add", "target": KEY, "record": b""},
        {"query": "add", "target": KEY, "record": bytes(MAX_RECORD + 1), "token": bytes(8)},
        {"query": "ping", "client": 1},
    ],
)
def test_a_query_that_is_not_on_the_list_is_refused(entries: dict[str, Any]) -> None:
    data = encode_request(ME, ID, Request("ping"))[:108] + cbor2.dumps(entries)
    with pytest.raises(PeerError):
        decode(data)
