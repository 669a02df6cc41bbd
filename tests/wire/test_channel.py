import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import Identity
from intelnav.wire.channel import MAX_HANDSHAKE, Established
from intelnav.wire.codec import MAX_MESSAGE, encode
from intelnav.wire.messages import ForwardHidden, Hello, Message, Ping, Token
from intelnav.wire.noise import MAX_PLAINTEXT
from tests.wire.pairs import ACCEPTOR, DIALLER, Pair, accepting, connect, dialling, feed
from tests.wire.strategies import messages

SESSION = bytes(16)


@pytest.fixture
def pair() -> Pair:
    return connect()


def large(rows: int) -> ForwardHidden:
    """Rows of 2 KiB."""
    return ForwardHidden(SESSION, 0, 0, HiddenState(Dtype.F16, rows, 1024, bytes(range(256)) * 8 * rows))


def raw(pair: Pair, plaintext: bytes) -> bytes:
    """A sealed frame of any content, as a dialler without manners would send it."""
    assert pair.left._transport is not None
    sealed = pair.left._transport.seal(plaintext)
    return len(sealed).to_bytes(2, "big") + sealed


@given(st.integers(1, 200))
def test_both_sides_say_hello_at_any_chunking(step: int) -> None:
    pair = connect(step)
    assert pair.left_events == [Established(ACCEPTOR.peer)]
    assert pair.right_events == [Established(DIALLER.peer)]


@given(st.lists(messages, max_size=5), st.integers(1, 5000))
def test_messages_survive_at_any_chunking(sent: list[Message], step: int) -> None:
    pair = connect()
    data = b"".join(pair.left.send(message) for message in sent)
    assert feed(pair.right, data, step) == sent
    assert feed(pair.left, pair.right.send(Ping(1, 2)), step) == [Ping(1, 2)]


def test_a_token_is_one_frame(pair: Pair) -> None:
    data = pair.left.send(large(1))
    assert int.from_bytes(data[:2], "big") == len(data) - 2


@pytest.mark.parametrize("step", [1000, 65_537, 2**24])
def test_a_large_message_is_split_into_full_frames(pair: Pair, step: int) -> None:
    message = large(200)
    data = pair.left.send(message)
    assert int.from_bytes(data[:2], "big") == MAX_PLAINTEXT + 16
    assert feed(pair.right, data, step) == [message]


def test_messages_may_share_a_frame_and_be_cut_by_frames(pair: Pair) -> None:
    bodies = [b"".join(encode(message)) for message in (Ping(1, 1), large(1), Ping(2, 2))]
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    data = b"".join(raw(pair, part) for part in (stream[:3], b"", stream[3:9], stream[9:]))
    assert pair.right.receive(data) == [Ping(1, 1), large(1), Ping(2, 2)]


def test_a_peer_with_another_key_than_the_dialled_one_is_refused() -> None:
    left, right = dialling(Identity(b"\x09" * 32).peer), accepting()
    right.receive(left.outgoing())
    with pytest.raises(PeerError, match="dialled"):
        left.receive(right.outgoing())
    assert left.outgoing() == b""


def test_nothing_is_sent_before_both_said_hello() -> None:
    left, right = dialling(), accepting()
    for channel in (left, right):
        with pytest.raises(PeerError, match="not open"):
            channel.send(Ping(1, 1))
    right.receive(left.outgoing())
    left.receive(right.outgoing())
    with pytest.raises(PeerError, match="not open"):
        left.send(Ping(1, 1))


def test_a_message_before_the_hello_is_refused() -> None:
    left, right = dialling(), accepting()
    right.receive(left.outgoing())
    left.receive(right.outgoing())
    third = left.outgoing()
    third = third[: 2 + int.from_bytes(third[:2], "big")]
    right.receive(third)
    # The dialler's hello is lost on the way; what it sealed next does not decrypt, so it starts over in its place.
    assert left._transport is not None
    left._transport._sealing.used = 0
    body = b"".join(encode(Ping(1, 1)))
    sealed = left._transport.seal(len(body).to_bytes(4, "big") + body)
    with pytest.raises(PeerError, match="hello must be the first"):
        right.receive(len(sealed).to_bytes(2, "big") + sealed)


def test_a_second_hello_is_refused(pair: Pair) -> None:
    body = b"".join(encode(Hello(1, "again")))
    with pytest.raises(PeerError, match="hello must be the first"):
        pair.right.receive(raw(pair, len(body).to_bytes(4, "big") + body))


def test_another_protocol_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = dialling(), accepting()
    monkeypatch.setattr(left, "_hello", Hello(2, "from the future"))
    right.receive(left.outgoing())
    left.receive(right.outgoing())
    with pytest.raises(PeerError, match="protocol 2") as caught:
        right.receive(left.outgoing())
    assert caught.value.code is Code.UNSUPPORTED


@given(st.binary(max_size=400), st.integers(1, 400))
def test_arbitrary_bytes_in_a_handshake_raise_only_a_peer_error(data: bytes, step: int) -> None:
    for channel in (dialling(), accepting()):
        channel.outgoing()
        try:
            assert feed(channel, data, step) == []
        except PeerError:
            with pytest.raises(PeerError, match="not open"):
                channel.receive(b"")


@given(st.binary(min_size=18, max_size=400), st.integers(1, 400))
def test_arbitrary_frames_close_an_open_channel(data: bytes, step: int) -> None:
    pair = connect()
    framed = len(data).to_bytes(2, "big") + data
    with pytest.raises(PeerError):
        feed(pair.right, framed, step)
    with pytest.raises(PeerError, match="not open"):
        pair.right.send(Ping(1, 1))


@given(st.binary(max_size=400))
def test_arbitrary_messages_of_a_proven_peer_raise_only_a_peer_error(plaintext: bytes) -> None:
    pair = connect()
    try:
        pair.right.receive(raw(pair, plaintext))
    except PeerError:
        with pytest.raises(PeerError, match="not open"):
            pair.right.receive(b"")


@given(st.integers(2, 2**16), st.integers(1, 255))
def test_a_changed_byte_closes(at: int, flip: int) -> None:
    pair = connect()
    data = bytearray(pair.left.send(Token(SESSION, 1, 2, (3,))))
    data[2 + at % (len(data) - 2)] ^= flip
    with pytest.raises(PeerError, match="decrypt"):
        pair.right.receive(bytes(data))


def test_a_frame_that_was_cut_out_closes(pair: Pair) -> None:
    pair.left.send(Ping(1, 1))
    with pytest.raises(PeerError, match="decrypt"):
        pair.right.receive(pair.left.send(Ping(2, 2)))


def test_a_frame_without_its_end_waits(pair: Pair) -> None:
    data = pair.left.send(Ping(1, 1))
    assert pair.right.receive(data[:-1]) == []
    assert pair.right.receive(data[-1:]) == [Ping(1, 1)]


def test_a_large_handshake_frame_is_refused_by_its_length_alone() -> None:
    with pytest.raises(PeerError, match="handshake frame"):
        accepting().receive((MAX_HANDSHAKE + 1).to_bytes(2, "big"))


def test_a_message_over_the_limit_is_refused_by_its_length_alone(pair: Pair) -> None:
    with pytest.raises(PeerError, match="over the limit"):
        pair.right.receive(raw(pair, (MAX_MESSAGE + 1).to_bytes(4, "big")))


def test_a_node_may_bound_messages_lower() -> None:
    pair = connect(max_message=4096)
    assert pair.right.receive(pair.left.send(large(1))) == [large(1)]
    with pytest.raises(PeerError, match="over the limit of 4096"):
        pair.right.receive(pair.left.send(large(2)))


def test_a_message_that_was_too_large_to_send_leaves_the_channel_open(pair: Pair) -> None:
    with pytest.raises(PeerError, match="over the limit"):
        pair.left.send(large(MAX_MESSAGE // 2048))
    assert pair.right.receive(pair.left.send(Ping(1, 1))) == [Ping(1, 1)]


def test_memory_grows_with_what_arrived_and_not_with_what_was_announced(pair: Pair) -> None:
    frames = [raw(pair, MAX_MESSAGE.to_bytes(4, "big")), *(raw(pair, bytes(60_000)) for _ in range(10))]
    tracemalloc.start()
    try:
        for frame in frames:
            assert pair.right.receive(frame) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000
