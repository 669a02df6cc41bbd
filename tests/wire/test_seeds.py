from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.advert import Address
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.wire.seeds import MAX_ADDRESSES, MAX_BYTES, MAX_SECONDS, accept_seeds, read_seeds, sign_seeds
from tests.vectors.files import read_vectors

SIGNER = Identity(b"\x31" * 32)
ADDRESSES = (Address("192.0.2.9", 7717), Address("2001:db8::9", 7717), Address("seeds.example", 7717))
VECTORS = read_vectors("seeds")


def made(issued: int = 1000, expires: int = 2000) -> bytes:
    return sign_seeds(SIGNER, ADDRESSES, issued=issued, expires=expires)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in VECTORS])
def test_vector(case: dict[str, Any]) -> None:
    data, key = bytes.fromhex(case["data"]), PeerId.parse(case["key"])
    if case["refused"]:
        with pytest.raises(PeerError):
            accept_seeds(data, key, now=case["now"])
        return
    seeds = accept_seeds(data, key, now=case["now"])
    inner = cbor2.loads(cbor2.loads(data)["body"])
    assert (seeds.signer, seeds.issued, seeds.expires) == (key, 1_800_000_000, inner["expires"])
    assert list(map(str, seeds.addresses)) == inner["addresses"]


def test_what_this_implementation_signs_is_the_first_vector() -> None:
    issued = 1_800_000_000
    assert made(issued, issued + 90 * 86_400).hex() == VECTORS[0]["data"]


def test_a_list_is_read_without_a_key_and_after_its_end() -> None:
    seeds = read_seeds(made(), None)
    assert (seeds.signer, seeds.addresses) == (SIGNER.peer, ADDRESSES)
    assert accept_seeds(made(), SIGNER.peer, now=1999) == seeds
    with pytest.raises(PeerError, match="has expired"):
        accept_seeds(made(), SIGNER.peer, now=2000)


def test_a_list_that_is_older_than_the_known_one_is_refused() -> None:
    known = read_seeds(made(issued=1001), SIGNER.peer)
    assert accept_seeds(made(issued=1001), SIGNER.peer, now=1500, known=known) == known
    with pytest.raises(PeerError, match="older than the one that is known"):
        accept_seeds(made(), SIGNER.peer, now=1500, known=known)


def test_both_keys_are_named_where_they_differ() -> None:
    other = Identity(b"\x32" * 32).peer
    with pytest.raises(PeerError, match=f"signed by {SIGNER.peer}, and {other} is wanted"):
        read_seeds(made(), other)


@pytest.mark.parametrize(
    ("addresses", "issued", "expires", "reason"),
    [
        ((), 1, 2, "at least one address"),
        (ADDRESSES[:1] * (MAX_ADDRESSES + 1), 1, 2, "at most 256 items"),
        (tuple(Address(f"{n:03}.{'x' * 60}.example", 1) for n in range(MAX_ADDRESSES)), 1, 2, str(MAX_BYTES)),
        ((Address("a", 0),), 1, 2, "port 0"),
        ((Address("é", 1),), 1, 2, "printable ASCII"),
        (ADDRESSES, 2, 2, "expires after"),
        (ADDRESSES, 1, 2 + MAX_SECONDS, "366 days"),
        (ADDRESSES, -1, 2, "whole number"),
    ],
)
def test_what_would_be_refused_is_not_signed(
    addresses: tuple[Address, ...], issued: int, expires: int, reason: str
) -> None:
    with pytest.raises(PeerError, match=reason):
        sign_seeds(SIGNER, addresses, issued=issued, expires=expires)


@given(st.integers(0, len(made()) - 1), st.integers(1, 255))
def test_a_list_with_a_changed_byte_is_refused(at: int, change: int) -> None:
    data = bytearray(made())
    data[at] ^= change
    with pytest.raises(PeerError):
        read_seeds(bytes(data), SIGNER.peer)


@given(st.binary(max_size=400))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        read_seeds(data, None)
