"""A message in a fixed layout is the CBOR that the table of fields writes and reads, by another way."""

from dataclasses import fields

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.wire import layouts
from intelnav.wire.codec import decode, encode
from intelnav.wire.messages import ForwardHidden, Hidden, Message, Ping, Token
from tests.wire.strategies import messages, sessions, states, u32

SESSION = bytes(range(16))
STATE = HiddenState(Dtype.F16, 1, 3, bytes(6))
short = st.lists(u32, max_size=layouts.MAX_SPENT).map(tuple)
laid_out = st.one_of(
    st.builds(ForwardHidden, sessions, u32, u32, states(), st.none(), st.none() | u32, short),
    st.builds(Hidden, sessions, u32, u32, states(), short),
    st.builds(Token, sessions, u32, u32, st.tuples(u32), short),
)


def shortest(data: bytes) -> bytes:
    """The same map with every number in as few bytes as it needs; small ones make that no layout."""
    return cbor2.dumps(cbor2.loads(data))


@given(laid_out)
def test_it_is_read_as_by_the_table(message: Message) -> None:
    data = b"".join(encode(message))
    assert layouts.read(data) == message
    assert decode(shortest(data)) == message


@given(laid_out, st.integers(0, 2**20), st.binary(min_size=1, max_size=3))
def test_a_damaged_one_means_what_its_cbor_says_or_is_refused(
    message: Message, at: int, patch: bytes
) -> None:
    data = b"".join(encode(message))
    at %= len(data)
    damaged = data[:at] + patch + data[at + len(patch) :]
    try:
        read = layouts.read(damaged)
    except PeerError:
        with pytest.raises(PeerError):
            decode(shortest(damaged))
        return
    if read is not None:
        assert decode(shortest(damaged)) == read


@given(laid_out, st.data())
def test_one_that_is_cut_off_or_goes_on_has_no_layout(message: Message, data: st.DataObject) -> None:
    whole = b"".join(encode(message))
    assert layouts.read(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    assert layouts.read(whole + b"\x00") is None


@given(st.binary(max_size=200))
def test_any_bytes_can_be_asked_about(data: bytes) -> None:
    begin = layouts.write(ForwardHidden(SESSION, 0, 0, STATE)) or b""
    assert layouts.read(data) is None
    assert layouts.read(begin[:30] + data) is None


@pytest.mark.parametrize(
    "message",
    [
        ForwardHidden(SESSION, 1, 2, STATE, None, 0, (4,)),
        Hidden(SESSION, 1, 2, STATE, (4,)),
        Token(SESSION, 1, 2, (3,), (4,)),
    ],
)
def test_a_layout_has_every_field(message: Message) -> None:
    names = {field.name for field in fields(message)} - {"kv_truncate_to"} | {"kind"}
    if "state" in names:
        names = names - {"state"} | {"dtype", "shape", "payload"}
    assert layouts.write(message) is not None
    assert set(cbor2.loads(b"".join(encode(message)))) == names


def test_a_layout_has_numbers_of_four_bytes_alone() -> None:
    data = b"".join(encode(Token(SESSION, 1, 2, (3,), (4,))))
    assert layouts.read(data) is not None
    assert layouts.read(shortest(data)) is None


@pytest.mark.parametrize(
    "message",
    [
        ForwardHidden(SESSION, 0, 0, STATE, kv_truncate_to=0),
        ForwardHidden(SESSION, 0, 0, STATE, spent=(1,) * (layouts.MAX_SPENT + 1)),
        Token(SESSION, 0, 0, ()),
        Token(SESSION, 0, 0, (1, 2)),
        Ping(1, 2),
    ],
)
def test_what_has_no_layout_is_left_to_the_table(message: Message) -> None:
    assert layouts.write(message) is None
    assert decode(b"".join(encode(message))) == message


@pytest.mark.parametrize(
    "message", [ForwardHidden(SESSION, 2**32, 0, STATE), Token(SESSION, 0, 0, (1,), (2**32,))]
)
def test_a_number_that_is_too_large_is_written_for_the_receiver_to_refuse(message: Message) -> None:
    with pytest.raises(PeerError):
        decode(b"".join(encode(message)))


@given(messages)
def test_every_message_is_written_in_cbor(message: Message) -> None:
    data = b"".join(encode(message))
    assert decode(shortest(data)) == message
