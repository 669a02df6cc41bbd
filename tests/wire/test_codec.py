import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.wire.codec import MAX_MESSAGE, decode, encode
from intelnav.wire.messages import AbortSession, ForwardHidden, Message, Ping, Token, Unknown
from tests.wire.strategies import hellos, messages

SESSION = bytes(16)


@given(messages | hellos)
def test_a_message_survives(message: Message) -> None:
    data = b"".join(encode(message))
    assert decode(data) == message
    assert decode(memoryview(bytearray(data))) == message


@given(messages, st.integers(0, 2**20), st.binary(min_size=1, max_size=3))
def test_a_damaged_message_raises_only_a_peer_error(message: Message, at: int, patch: bytes) -> None:
    data = b"".join(encode(message))
    at %= len(data)
    try:
        decode(data[:at] + patch + data[at + len(patch) :])
    except PeerError as error:
        assert isinstance(error.code, Code)


@given(messages, st.data())
def test_a_message_that_is_cut_off_is_refused(message: Message, data: st.DataObject) -> None:
    whole = b"".join(encode(message))
    with pytest.raises(PeerError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_payload_is_neither_copied_on_the_way_out_nor_on_the_way_in() -> None:
    payload = bytearray(range(12))
    buffers = encode(ForwardHidden(SESSION, 0, 0, HiddenState(Dtype.F16, 2, 3, payload)))
    assert buffers[1] is payload
    data = b"".join(buffers)
    message = decode(data)
    assert isinstance(message, ForwardHidden)
    assert isinstance(message.state.payload, memoryview)
    assert message.state.payload.obj is data


def test_a_message_over_the_limit_is_neither_written_nor_read() -> None:
    state = HiddenState(Dtype.F32, 1024, 4096, bytes(MAX_MESSAGE))
    with pytest.raises(PeerError, match="over the limit"):
        encode(ForwardHidden(SESSION, 0, 0, state))
    with pytest.raises(PeerError, match="over the limit"):
        decode(bytes(MAX_MESSAGE + 1))
    with pytest.raises(PeerError, match="over the limit"):
        encode(Token(SESSION, 0, 0, (2**31,) * 10_000))


def test_a_reason_is_cut_and_cleaned_by_the_sender_too() -> None:
    sent = AbortSession(SESSION, Code.BUSY, "no\x1b[31m\n" + "x" * 500)
    received = decode(b"".join(encode(sent)))
    assert received == AbortSession(SESSION, Code.BUSY, "no[31m" + "x" * 192)


def test_a_refusal_does_not_repeat_what_a_peer_wrote_at_length() -> None:
    with pytest.raises(PeerError) as caught:
        decode(b"\xa2\x64kind\x64ping\x65nonce\x79\x40\x00" + b"x" * 0x4000)
    assert len(str(caught.value)) < 200


def test_an_unknown_kind_is_never_written() -> None:
    with pytest.raises(KeyError):
        encode(Unknown("dance", None))


def test_a_payload_in_a_kind_without_tensor_is_one_more_unknown_field() -> None:
    assert decode(b"\xa4\x64kind\x64ping\x65nonce\x01\x62at\x02\x67payload\x43abc") == Ping(1, 2)
