import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.errors import PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.encoding import cbor
from intelnav.wire.noise import MAX_PLAINTEXT, TAG, Handshake, Transport

LEFT, RIGHT, OTHER = (Identity(bytes([n]) * 32) for n in (1, 2, 3))


def dialling(peer: PeerId = RIGHT.peer) -> Handshake:
    return Handshake(LEFT, peer, static_private=b"\x11" * 32, ephemeral_private=b"\x12" * 32)


def accepting(identity: Identity = RIGHT) -> Handshake:
    return Handshake(identity, None, static_private=b"\x21" * 32, ephemeral_private=b"\x22" * 32)


def transports() -> tuple[Transport, Transport]:
    left, right = dialling(), accepting()
    third = left.receive(right.receive(left.start()))
    assert right.receive(third) == b""
    assert left.transport is not None
    assert right.transport is not None
    return left.transport, right.transport


def test_both_sides_learn_whom_they_talk_to() -> None:
    left, right = transports()
    assert left.peer == RIGHT.peer
    assert right.peer == LEFT.peer


def test_a_peer_with_another_key_than_the_dialled_one_is_refused() -> None:
    left, right = dialling(OTHER.peer), accepting()
    second = right.receive(left.start())
    with pytest.raises(PeerError, match="dialled"):
        left.receive(second)
    assert left.transport is None


def test_an_identity_cannot_be_claimed_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An impostor shows the dialled peer's id with a signature of its own."""
    left, impostor = dialling(), accepting(OTHER)
    entries, _ = cbor.load(impostor._proof)
    monkeypatch.setattr(impostor, "_proof", cbor.dump(entries | {"pk": RIGHT.peer.key}))
    second = impostor.receive(left.start())
    with pytest.raises(PeerError, match="does not own"):
        left.receive(second)


def test_a_proof_is_bound_to_the_static_key_of_its_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of another of the same peer's connections does not help who has copied it."""
    left, thief = dialling(), accepting(OTHER)
    owner = Handshake(RIGHT, None, static_private=b"\x31" * 32, ephemeral_private=b"\x22" * 32)
    monkeypatch.setattr(thief, "_proof", owner._proof)
    second = thief.receive(left.start())
    with pytest.raises(PeerError, match="does not own"):
        left.receive(second)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_in_a_handshake_raise_only_a_peer_error(data: bytes) -> None:
    left, right = dialling(), accepting()
    left.start()
    with pytest.raises(PeerError):
        left.receive(data)
    try:
        right.receive(data)
    except PeerError:
        return
    assert len(data) == 32


@given(st.integers(0, 2**16), st.integers(1, 255))
def test_a_changed_third_message_is_refused(at: int, flip: int) -> None:
    left, right = dialling(), accepting()
    third = bytearray(left.receive(right.receive(left.start())))
    third[at % len(third)] ^= flip
    with pytest.raises(PeerError):
        right.receive(bytes(third))


def test_a_frame_holds_no_more_than_the_other_side_can_read() -> None:
    left, right = transports()
    largest = bytes(MAX_PLAINTEXT)
    sealed = left.seal(memoryview(largest))
    assert len(sealed) == MAX_PLAINTEXT + TAG == 65_535
    assert right.unseal(memoryview(sealed)) == largest
    with pytest.raises(ValueError, match="one frame"):
        left.seal(bytes(MAX_PLAINTEXT + 1))


def test_frames_are_read_once_and_in_order() -> None:
    left, right = transports()
    first, second = left.seal(b"one"), left.seal(b"two")
    with pytest.raises(PeerError):
        right.unseal(second)
    assert right.unseal(first) == b"one"
    with pytest.raises(PeerError):
        right.unseal(first)


def test_a_connection_ends_when_its_nonces_do(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = transports()
    monkeypatch.setattr(left._sealing, "used", 2**64 - 1)
    monkeypatch.setattr(right._opening, "used", 2**64 - 1)
    with pytest.raises(PeerError, match="nonces"):
        left.seal(b"one more")
    with pytest.raises(PeerError):
        right.unseal(bytes(32))
