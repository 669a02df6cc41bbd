"""Every case of tests/vectors, which other implementations can be held against as well."""

from typing import Any

import cbor2
import pytest

from intelnav.domain.errors import PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.identity import Identity, PeerId
from intelnav.wire.channel import Channel, Established
from intelnav.wire.codec import decode, encode
from intelnav.wire.messages import Unknown
from intelnav.wire.noise import Handshake
from tests.vectors.files import read_vectors

NOISE = read_vectors("noise")


def _named(cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases]


def _plain(value: Any) -> Any:
    """What CBOR holds for a JSON value of the vectors."""
    if isinstance(value, dict):
        return (
            bytes.fromhex(value["hex"])
            if value.keys() == {"hex"}
            else {k: _plain(v) for k, v in value.items()}
        )
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _side(name: str) -> tuple[Identity, dict[str, Any]]:
    side = NOISE[name]
    keys: dict[str, Any] = {key: bytes.fromhex(side[key]) for key in ("static_private", "ephemeral_private")}
    return Identity(bytes.fromhex(side["seed"])), keys


def _handshake(name: str) -> Handshake:
    identity, keys = _side(name)
    dialled = PeerId.parse(NOISE["responder"]["peer"]) if name == "initiator" else None
    return Handshake(identity, dialled, **keys)


@pytest.mark.parametrize("case", _named(read_vectors("messages")))
def test_message(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["cbor"])
    assert cbor2.loads(data) == _plain(case["fields"])
    message = decode(data)
    if "unknown" in case:
        session = case["session"] and bytes.fromhex(case["session"])
        assert message == Unknown(case["unknown"], session)
    else:
        assert b"".join(encode(message)).hex() == case["written"]
        assert decode(bytes.fromhex(case["written"])) == message
        for name in type(message).__slots__:
            if name in (
                "seq",
                "position",
                "kv_truncate_to",
                "sample_from",
                "context",
                "window",
                "max_rows",
                "at",
            ):
                assert getattr(message, name) == case["fields"].get(name)


@pytest.mark.parametrize("case", _named(read_vectors("bad_messages")))
def test_bad_message(case: dict[str, Any]) -> None:
    with pytest.raises(PeerError) as caught:
        decode(bytes.fromhex(case["cbor"]))
    assert caught.value.code == case["code"]


@pytest.mark.parametrize("name", ["initiator", "responder"])
def test_peer_id(name: str) -> None:
    assert str(_side(name)[0].peer) == NOISE[name]["peer"]


def test_handshake_messages() -> None:
    first, second, third = map(bytes.fromhex, NOISE["messages"])
    initiator, responder = _handshake("initiator"), _handshake("responder")
    assert initiator.start() == first
    assert responder.receive(first) == second
    assert initiator.receive(second) == third
    assert responder.receive(third) == b""
    assert responder.transport is not None
    assert str(responder.transport.peer) == NOISE["initiator"]["peer"]


def test_what_each_side_writes() -> None:
    dialler, dialler_keys = _side("initiator")
    acceptor, acceptor_keys = _side("responder")
    left = Channel(dialler, acceptor.peer, **dialler_keys, agent="left")
    right = Channel(acceptor, None, **acceptor_keys, agent="right")
    assert left.outgoing().hex() == NOISE["bytes"]["from_initiator"][0]
    right.receive(bytes.fromhex(NOISE["bytes"]["from_initiator"][0]))
    assert right.outgoing().hex() == NOISE["bytes"]["from_responder"][0]
    left.receive(bytes.fromhex(NOISE["bytes"]["from_responder"][0]))
    assert left.outgoing().hex() == NOISE["bytes"]["from_initiator"][1]
    assert right.receive(bytes.fromhex(NOISE["bytes"]["from_initiator"][1])) == [Established(dialler.peer)]
    assert right.outgoing().hex() == NOISE["bytes"]["from_responder"][1]


@pytest.mark.parametrize("case", _named(NOISE["refused_by_initiator"]))
def test_refused_second_message(case: dict[str, Any]) -> None:
    initiator = _handshake("initiator")
    initiator.start()
    with pytest.raises(PeerError):
        initiator.receive(bytes.fromhex(case["message"]))


@pytest.mark.parametrize("case", _named(NOISE["refused_by_responder"]))
def test_refused_first_message(case: dict[str, Any]) -> None:
    with pytest.raises(PeerError):
        _handshake("responder").receive(bytes.fromhex(case["message"]))


def test_another_peer_than_the_dialled_one() -> None:
    identity, keys = _side("initiator")
    initiator = Handshake(identity, identity.peer, **keys)
    initiator.start()
    with pytest.raises(PeerError):
        initiator.receive(bytes.fromhex(NOISE["messages"][1]))


@pytest.mark.parametrize("case", read_vectors("payloads"))
def test_payload_size(case: dict[str, Any]) -> None:
    dtype, rows, width, size = Dtype[case["dtype"].upper()], case["rows"], case["width"], case["bytes"]
    assert HiddenState(dtype, rows, width, bytes(size)).rows == rows
    for wrong in (size - 1, size + 1):
        with pytest.raises(PeerError):
            HiddenState(dtype, rows, width, bytes(wrong))
