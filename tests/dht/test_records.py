from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.keys import MODELS_KEY, RELAY_KEY
from intelnav.dht.records import (
    MAX_BODY,
    MAX_RECORD,
    ListedModel,
    Offer,
    encode_record,
    parse_record,
)
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.slice import LayerRange
from tests.dht.records import KEY, NOW, OFFER, peer, record
from tests.vectors.files import read_vectors
from tests.wire.strategies import addresses

VECTORS = read_vectors("records")

ranges = st.tuples(st.integers(0, 400), st.integers(1, 400)).map(lambda pair: LayerRange(pair[0], sum(pair)))
listed = st.builds(
    ListedModel,
    cid=st.from_regex(r"b3-[a-z2-7]{52}", fullmatch=True),
    name=st.just("Tiny"),
    architecture=st.just("llama"),
    blocks=st.integers(1, 400),
    size=st.integers(0, 2**50),
    quantisation=st.just("Q4_K"),
)
some_addresses = st.lists(addresses, min_size=1, max_size=2).map(tuple)
offers = st.one_of(
    st.tuples(
        st.just(KEY),
        st.builds(
            Offer,
            addresses=some_addresses,
            slices=st.lists(ranges, max_size=8).map(tuple),
            chunks=st.none() | st.just(Address("192.0.2.7", 7718)),
            engine_class=st.text("abc/. 0", max_size=30),
            load=st.floats(0, 1),
        ),
    ),
    st.tuples(
        st.just(MODELS_KEY),
        st.builds(Offer, addresses=some_addresses, models=st.lists(listed, max_size=3).map(tuple)),
    ),
    st.tuples(
        st.just(RELAY_KEY),
        st.builds(Offer, addresses=some_addresses, relay=st.integers(0, 2**32 - 1), load=st.floats(0, 1)),
    ),
)


@given(offers, st.integers(0, 2**63 - 1))
def test_a_record_survives_or_is_too_long_to_send(given_offer: tuple[bytes, Offer], seq: int) -> None:
    key, offer = given_offer
    try:
        written = encode_record(peer(1), key, offer, seq=seq, expires=int(NOW) + 1800)
    except PeerError as error:
        assert error.code == Code.TOO_LONG
        return
    assert len(written.data) <= MAX_RECORD
    read = parse_record(written.data, key, NOW)
    assert read == written
    assert read.is_signed()


@given(st.binary(max_size=700))
def test_reading_raises_only_peer_errors(data: bytes) -> None:
    with pytest.raises(PeerError):
        parse_record(data, KEY, NOW)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_byte_gets_past_the_checks(place: int, flip: int) -> None:
    data = bytearray(record().data)
    data[place % len(data)] ^= flip
    try:
        read = parse_record(bytes(data), KEY, NOW)
    except PeerError:
        return
    assert not read.is_signed()


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in VECTORS["cases"]])
def test_vector(case: dict[str, Any]) -> None:
    data, key = bytes.fromhex(case["record"]), bytes.fromhex(case["key"])
    if case["code"] in (None, "forged"):
        read = parse_record(data, key, VECTORS["now"])
        assert read.is_signed() == (case["code"] is None)
        assert read.data == data
        assert case["code"] or str(read.peer) == VECTORS["peer"]
        return
    with pytest.raises(PeerError) as caught:
        parse_record(data, key, VECTORS["now"])
    assert caught.value.code == case["code"]


def test_what_is_not_bytes_is_no_record() -> None:
    for data in (None, "text", 7, bytes(MAX_RECORD + 1)):
        with pytest.raises(PeerError):
            parse_record(data, KEY, NOW)


def test_whatever_the_bodys_length_the_map_around_it_fits() -> None:
    outer = cbor2.dumps({"body": bytes(MAX_BODY), "pk": bytes(32), "sig": bytes(64)})
    assert MAX_BODY < len(outer) <= MAX_RECORD


def test_an_advert_that_does_not_fit_is_refused_where_it_is_made() -> None:
    with pytest.raises(PeerError, match="at most 512") as caught:
        record(offer=Offer((Address("h" * 63, 1),) * 8, OFFER.slices))
    assert caught.value.code == Code.TOO_LONG
