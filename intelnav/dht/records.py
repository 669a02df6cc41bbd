"""Signed records: what a node says under a DHT key ([A2] to [A5] in docs/protocol.md).

A record's bytes are kept and passed on as they came, never written anew.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from intelnav.dht.keys import KEY_BYTES, MODELS_KEY, RELAY_KEY, peer_key
from intelnav.domain.advert import Address
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.domain.slice import LayerRange
from intelnav.encoding import cbor
from intelnav.encoding import fields as f
from intelnav.encoding.fields import Field, optional

MAX_BODY = 512
# The map around a body of that size, with key and signature.
MAX_RECORD = MAX_BODY + 32 + 64 + 24
TTL_SECONDS = 30 * 60
SKEW_SECONDS = 2 * 60
MAX_SLICES = 32
MAX_LOAD = 1.0
MARK_BYTES = 6

_SIGNED = b"intelnav-advert/1:"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that the swarm serves, as one of its hosts describes it; `size` is in bytes."""

    cid: str
    name: str
    architecture: str
    blocks: int
    size: int
    quantisation: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What a record says. Under the models key it has `models`, under the relay key and its peer's own key `relay`,
    else `slices`.

    `relay` is the number of peers that a node has room for. Without any content the record withdraws.
    """

    addresses: tuple[Address, ...] = ()
    slices: tuple[LayerRange, ...] = ()
    models: tuple[ListedModel, ...] = ()
    relay: int = 0
    chunks: Address | None = None
    engine_class: str = ""
    load: float = 0.0

    @property
    def withdraws(self) -> bool:
        """Whether the node no longer offers anything under the key."""
        return not (self.slices or self.models or self.relay)


@dataclass(frozen=True, slots=True)
class Record:
    """A record that is well formed; whether its signature holds, `is_signed` tells. `expires` is in Unix seconds."""

    key: bytes
    peer: PeerId
    seq: int
    expires: int
    offer: Offer
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    data: bytes = field(repr=False)

    def is_signed(self) -> bool:
        """Whether the peer that it names signed it."""
        return self.peer.verifies(_SIGNED + self.body, self.signature)


def _read_model(value: Any) -> ListedModel:
    if type(value) is not list or len(value) != len(_MODEL):
        raise ValueError(f"must be an array of {len(_MODEL)} items")
    return ListedModel(*(field.read(item) for field, item in zip(_MODEL, value, strict=True)))


def _write_model(model: ListedModel) -> list[Any]:
    return [model.cid, model.name, model.architecture, model.blocks, model.size, model.quantisation]


def _read_chunks(value: Any) -> Address:
    address: Address = f.ADDRESSES.read([value])[0]
    return address


_MODEL = (f.MODEL, f.NAME, f.NAME, f.POSITIVE, f.U63, f.NAME)
_KEY = f.octets(KEY_BYTES)
_COMMON = {"key": _KEY, "seq": f.U63, "expires": f.U63, "addrs": f.ADDRESSES}
_SLICES = {
    "slices": f.sequence(f.LAYERS, MAX_SLICES),
    "chunks": optional(Field(_read_chunks, str)),
    "engine_class": optional(f.ENGINE_CLASS, ""),
    "load": optional(f.number(MAX_LOAD), 0.0),
}
_MODELS = {"models": f.sequence(Field(_read_model, _write_model), MAX_SLICES)}
_RELAY = {"relay": f.U32, "load": optional(f.number(MAX_LOAD), 0.0)}

_RECORD = {"body", "pk", "sig"}


def _fields(key: bytes, peer: PeerId) -> dict[str, Field]:
    if key == MODELS_KEY:
        return _MODELS
    return _RELAY if key in (RELAY_KEY, peer_key(peer.key)) else _SLICES


def encode_record(identity: Identity, key: bytes, offer: Offer, *, seq: int, expires: int) -> Record:
    """A record signed by `identity`. Raises PeerError if readers would refuse it: `too_long` where it says too much."""
    entries: dict[str, Any] = {"key": key, "seq": seq, "expires": expires}
    for name, wanted in {"addrs": f.ADDRESSES, **_fields(key, identity.peer)}.items():
        value = offer.addresses if name == "addrs" else getattr(offer, name)
        if value != wanted.default:
            entries[name] = wanted.write(value)
    body = cbor.dump(entries)
    said = max(len(offer.slices), len(offer.models))
    if len(body) > MAX_BODY or said > MAX_SLICES:
        raise PeerError(
            Code.TOO_LONG,
            f"an advert of {len(body)} bytes with {said} slices or models, at most {MAX_BODY} bytes "
            f"with {MAX_SLICES} are allowed",
        )
    signature = identity.sign(_SIGNED + body)
    data = cbor.dump({"body": body, "pk": identity.peer.key, "sig": signature})
    return parse_record(data, key, expires - 1)


def parse_record(data: object, key: bytes, now: float) -> Record:
    """The record in `data`, if it belongs under `key` and is neither expired nor too far ahead of `now` (Unix).

    Raises PeerError, and nothing else, for what is no such record. The signature is left to `Record.is_signed`.
    """
    if type(data) is not bytes or len(data) > MAX_RECORD:
        raise PeerError(Code.TOO_LONG, f"a record is a byte string of at most {MAX_RECORD} bytes")
    outer = _load(data)
    if outer.keys() != _RECORD:
        raise PeerError(Code.BAD_REQUEST, "a record has body, pk and sig, and nothing else")
    body = outer["body"]
    if type(body) is not bytes or len(body) > MAX_BODY:
        raise PeerError(Code.TOO_LONG, f"a record's body is a byte string of at most {MAX_BODY} bytes")
    try:
        peer: PeerId = f.PEER.read(outer["pk"])
        signature: bytes = f.SIGNATURE.read(outer["sig"])
        entries = _load(body)
        common = f.read_all(_COMMON, entries)
        if common["key"] != key:
            raise PeerError(Code.BAD_REQUEST, "the record belongs under another key")
        _check_time(common["expires"], now)
        offer = Offer(common["addrs"], **f.read_all(_fields(key, peer), entries))
    except ValueError as error:
        raise PeerError(Code.BAD_REQUEST, f"record: {error}") from None
    if not (offer.withdraws or offer.addresses):
        raise PeerError(Code.BAD_REQUEST, "the record offers something at no address")
    return Record(key, peer, common["seq"], common["expires"], offer, body, signature, data)


def mark_of(record: Record, seed: bytes) -> bytes:
    """6 bytes that stand for the record with whoever chose `seed`, at random: no two records can be made for it."""
    return blake2b(record.peer.key + record.seq.to_bytes(8, "big"), key=seed, digest_size=MARK_BYTES).digest()


def _check_time(expires: int, now: float) -> None:
    if expires <= now:
        raise PeerError(Code.TIMEOUT, "the record has expired")
    if expires > now + TTL_SECONDS + SKEW_SECONDS:
        raise PeerError(Code.BAD_REQUEST, f"the record claims to hold for more than {TTL_SECONDS} s")


def _load(data: bytes) -> dict[str, Any]:
    entries, payload = cbor.load(data)
    if payload is not None:
        raise PeerError(Code.BAD_REQUEST, "a record has no payload")
    return entries
