import tracemalloc
from collections.abc import Callable

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import Code, PeerError
from intelnav.encoding import cbor
from intelnav.encoding.cbor import MAX_HEAD, dump, dump_before_payload, load

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
entries = st.dictionaries(st.text().filter(lambda key: key != "payload"), plain, max_size=20)


@given(entries)
def test_a_map_survives(given_entries: dict[str, object]) -> None:
    assert load(dump(given_entries)) == (given_entries, None)


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65_535, 65_536, 1_000_000])
def test_a_payload_is_plain_cbor_and_is_not_copied(size: int) -> None:
    payload = bytes(size)
    data = dump_before_payload({"a": 1}, size) + payload
    assert data == cbor2.dumps({"a": 1, "payload": payload})
    found, view = load(data)
    assert found == {"a": 1}
    assert view is not None
    assert view == payload
    assert view.obj is data


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_a_peer_error(data: bytes) -> None:
    try:
        load(data)
    except PeerError as error:
        assert error.code is Code.BAD_REQUEST


@given(entries, st.integers(0, 2**16), st.binary(min_size=1, max_size=4))
def test_damaged_maps_raise_only_a_peer_error(
    given_entries: dict[str, object], at: int, patch: bytes
) -> None:
    data = dump(given_entries)
    at %= len(data)
    try:
        load(data[:at] + patch + data[at + len(patch) :])
    except PeerError as error:
        assert error.code is Code.BAD_REQUEST


def outcome(read: Callable[..., object], *given: object) -> object:
    try:
        return read(*given)
    except PeerError as error:
        return str(error)


def assert_both_ways_agree(data: bytes) -> None:
    """What is read at once is what is read item by item, and nothing else is taken."""
    if not data or not 0xA0 <= data[0] <= 0xB7:
        return
    count = data[0] - 0xA0
    at_once = outcome(cbor._at_once, data, count)
    if at_once is not None:
        assert at_once == outcome(cbor._item_by_item, data, count)


SPELLED = st.sampled_from([b"payload", b"\x67payload", b"\x78\x07payload", b"\x40", b"\x67payload\x40"])
MESSAGES = st.builds(
    lambda head, payload, rest: dump_before_payload(head, len(payload)) + payload + rest,
    entries,
    st.binary(max_size=40) | SPELLED,
    st.just(b"") | SPELLED,
) | entries.map(dump)


@given(MESSAGES, st.integers(0, 2**16), st.binary(max_size=4) | SPELLED, st.integers(0, 8))
def test_both_ways_of_reading_agree_on_damaged_maps(data: bytes, at: int, patch: bytes, cut: int) -> None:
    assert_both_ways_agree(data)
    at %= len(data)
    assert_both_ways_agree(data[:at] + patch + data[at + cut :])


@given(st.integers(0, 23), st.lists(SPELLED | st.binary(max_size=12), max_size=6))
def test_both_ways_of_reading_agree_on_arbitrary_bytes(count: int, parts: list[bytes]) -> None:
    assert_both_ways_agree(bytes([0xA0 + count]) + b"".join(parts))


def test_each_token_s_messages_are_read_at_once() -> None:
    head: dict[str, object] = {"kind": "token", "tokens": [1], "spent": [2, 3]}
    assert cbor._at_once(dump(head), 3) == (head, None)
    found = cbor._at_once(dump_before_payload(head, 3) + b"abc", 4)
    assert found is not None
    assert found[0] == head
    assert found[1] is not None
    assert bytes(found[1]) == b"abc"


def test_every_tag_is_refused_wherever_it_stands() -> None:
    for tag in range(66_000):
        data = b"\xa1\x61a" + cbor2.dumps(cbor2.CBORTag(tag, []))
        with pytest.raises(PeerError, match="malformed"):
            load(data)


@pytest.mark.parametrize("item", [b"\xa0", b"\x80", b"\x00"])
def test_what_comes_before_the_payload_is_bounded(item: bytes) -> None:
    """Sixteen million empty maps would be a gigabyte of objects."""
    count = 16 * 2**20 - 64
    data = b"\xa1\x61a\x9a" + count.to_bytes(4, "big") + item * count
    tracemalloc.start()
    try:
        with pytest.raises(PeerError, match="32 KiB"):
            load(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * MAX_HEAD
