"""A signed list of addresses to start from ([B1] to [B3] in docs/protocol.md): bytes to value and back."""

from dataclasses import dataclass
from typing import Any

from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.encoding import cbor
from intelnav.encoding.fields import ADDRESS, PEER, SIGNATURE, U63, sequence

MAX_BYTES = 16 * 1024
MAX_ADDRESSES = 256
MAX_SECONDS = 366 * 86_400

_CONTEXT = b"intelnav-seeds/1:"
_ADDRESSES = sequence(ADDRESS, MAX_ADDRESSES)


@dataclass(frozen=True, slots=True)
class SeedList:
    """Where to meet the network, on the word of `signer`; `issued` and `expires` are seconds of Unix time."""

    signer: PeerId
    issued: int
    expires: int
    addresses: tuple[Address, ...]

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError("a seed list has at least one address")
        if not self.issued < self.expires <= self.issued + MAX_SECONDS:
            raise ValueError("a seed list expires after it was issued, and 366 days after that at the latest")


def sign_seeds(identity: Identity, addresses: tuple[Address, ...], *, issued: int, expires: int) -> bytes:
    """The signed list; PeerError if it is one that `read_seeds` would refuse."""
    body = cbor.dump({"issued": issued, "expires": expires, "addresses": _ADDRESSES.write(addresses)})
    data = cbor.dump({"body": body, "pk": identity.peer.key, "sig": identity.sign(_CONTEXT + body)})
    read_seeds(data, identity.peer)
    return data


def read_seeds(data: bytes, key: PeerId | None) -> SeedList:
    """The list in `data`, signed by `key`, or by whom it says if that is None; it may have expired.

    Raises PeerError for anything else, before any of it is used.
    """
    if len(data) > MAX_BYTES:
        raise PeerError(Code.BAD_REQUEST, f"a seed list has at most {MAX_BYTES} bytes")
    try:
        entries = _entries(data)
        signer = PEER.read(entries.get("pk"))
        body, signature = entries.get("body"), SIGNATURE.read(entries.get("sig"))
        if type(body) is not bytes:
            raise ValueError("body must be a byte string")
        if key is not None and signer != key:
            raise ValueError(f"the seed list is signed by {signer}, and {key} is wanted")
        if not signer.verifies(_CONTEXT + body, signature):
            raise ValueError("the signature of the seed list is not right")
        inner = _entries(body)
        return SeedList(
            signer,
            U63.read(inner.get("issued")),
            U63.read(inner.get("expires")),
            _ADDRESSES.read(inner.get("addresses")),
        )
    except ValueError as error:
        raise PeerError(Code.BAD_REQUEST, str(error)) from error


def accept_seeds(data: bytes, key: PeerId, *, now: float, known: SeedList | None = None) -> SeedList:
    """The list in `data` if it is signed by `key`, has not expired at `now`, and is not older than `known`.

    Raises PeerError with what is wrong.
    """
    seeds = read_seeds(data, key)
    if seeds.expires <= now:
        raise PeerError(Code.BAD_REQUEST, "the seed list has expired")
    if known is not None and seeds.issued < known.issued:
        raise PeerError(Code.BAD_REQUEST, "the seed list is older than the one that is known")
    return seeds


def _entries(data: bytes) -> dict[str, Any]:
    try:
        entries, payload = cbor.load(data)
    except PeerError as error:
        raise ValueError(f"this is no seed list: {error}") from error
    if payload is not None:
        raise ValueError("this is no seed list: it has a payload")
    return entries
