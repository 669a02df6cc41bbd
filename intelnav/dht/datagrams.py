"""What nodes of the DHT send each other over UDP ([D1] to [D9] in docs/protocol.md).

`IN1`, a kind, the request's id, the sender's public key, a signature over all the rest, then one CBOR map. A request
has at least 600 bytes and an answer at most 1,200, so nobody can be made to send a stranger more than twice what came.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from intelnav.dht import contacts
from intelnav.dht.contacts import PUBLIC_KEY, Contact
from intelnav.dht.keys import KEY_BYTES
from intelnav.dht.records import MARK_BYTES, MAX_RECORD
from intelnav.dht.tokens import TOKEN_BYTES
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import Identity, PeerId
from intelnav.encoding import cbor
from intelnav.encoding import fields as f
from intelnav.encoding.fields import Field, optional

MIN_REQUEST = 600
MAX_DATAGRAM = 1200
ID_BYTES = 8

_MAGIC = b"IN1"
_REQUEST, _ANSWER = b"?", b"!"
_KEY_AT = len(_MAGIC) + 1 + ID_BYTES
_SIGNATURE_AT = _KEY_AT + PUBLIC_KEY
_BODY_AT = _SIGNATURE_AT + 64
_SIGNED = b"intelnav-dht/1:"
SEED_BYTES = 8
# As many as there are records under a key.
MARKS = 64
# What a list of records, and the flag that an answering client adds, take besides the records and their lengths.
_LIST_HEAD = 10
_CLIENT_FLAG = 8
_LENGTH = 3
# For the records of an answer without anything else, to an IPv6 address.
PAGE_ROOM = MAX_DATAGRAM - _BODY_AT - 24 - _LIST_HEAD - _CLIENT_FLAG


@dataclass(frozen=True, slots=True)
class Request:
    """Asks for something about `target`; `query` says what.

    `ping`: a sign of life. `find`: contacts near the target. `get`: the same, and records there, in the order of their
    marks with `seed` from `place` on, without those that are `known`. `page`: the records whose marks are `wanted`.
    `add`: to keep `record`, with the token that the asked node gave last. `client` says that the sender cannot be
    reached unasked, and is to enter no table.
    """

    query: str
    target: bytes | None = None
    seed: bytes | None = None
    place: bytes | None = None
    known: tuple[bytes, ...] = ()
    wanted: tuple[bytes, ...] = ()
    record: bytes | None = None
    token: bytes | None = None
    client: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `you` is the address that the request came from, `stored` what became of an `add`.

    `more` are the marks of the records that are there besides the known ones and those shown.
    """

    you: tuple[str, int]
    token: bytes | None = None
    contacts: tuple[Contact, ...] = ()
    records: tuple[bytes, ...] = ()
    more: tuple[bytes, ...] = ()
    stored: str | None = None
    client: bool = False


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram whose signature is not checked yet: who sent it, by his own word, and what it says."""

    id: bytes
    key: bytes
    content: Request | Answer
    data: bytes

    def is_signed(self, asker: bytes = b"") -> bool:
        """Whether the owner of `key` sent it; an answer, to the node with the public key `asker`."""
        signature = self.data[_SIGNATURE_AT:_BODY_AT]
        return PeerId(self.key).verifies(_signed(self.data) + asker, signature)


def _read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("must be true or false")
    return value


def _octets_up_to(longest: int) -> Field:
    def read(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > longest:
            raise ValueError(f"must be at most {longest} bytes")
        return value

    return Field(read)


def _read_marks(value: Any) -> tuple[bytes, ...]:
    if type(value) is not bytes or len(value) % MARK_BYTES or len(value) > MARKS * MARK_BYTES:
        raise ValueError(f"must be at most {MARKS} marks of {MARK_BYTES} bytes each, joined")
    return tuple(value[at : at + MARK_BYTES] for at in range(0, len(value), MARK_BYTES))


_ADDRESS = Field(contacts.unpack_address, lambda address: contacts.pack_address(*address))
_CONTACT = Field(contacts.unpack, contacts.pack)
_TARGET = f.octets(KEY_BYTES)
_SEED = f.octets(SEED_BYTES)
_MARK = f.octets(MARK_BYTES)
_MARKS = Field(_read_marks, b"".join)
_TOKEN = f.octets(TOKEN_BYTES)
_RECORD = _octets_up_to(MAX_RECORD)
_FLAG = Field(_read_flag)

_ASKED = {"client": optional(_FLAG, False)}
# The whitelist: what is not in it is not answered.
_QUERIES: dict[str, dict[str, Field]] = {
    "ping": _ASKED,
    "find": {"target": _TARGET, **_ASKED},
    "get": {"target": _TARGET, "seed": _SEED, "place": _MARK, "known": optional(_MARKS, ()), **_ASKED},
    "page": {"target": _TARGET, "seed": _SEED, "wanted": _MARKS, **_ASKED},
    "add": {"target": _TARGET, "record": _RECORD, "token": _TOKEN, **_ASKED},
}
_ANSWERED: dict[str, Field] = {
    "you": _ADDRESS,
    "token": optional(_TOKEN),
    "contacts": optional(f.sequence(_CONTACT, 28), ()),
    "records": optional(f.sequence(_RECORD, 28), ()),
    "more": optional(_MARKS, ()),
    "stored": optional(f.NAME),
    "client": optional(_FLAG, False),
}


def encode_request(identity: Identity, request_id: bytes, request: Request) -> bytes:
    """The datagram that asks; `request_id` is 8 random bytes."""
    entries: dict[str, Any] = {"query": request.query, **_written(_QUERIES[request.query], request)}
    missing = MIN_REQUEST - _BODY_AT - len(cbor.dump(entries))
    if missing > 0:
        entries["pad"] = bytes(missing)
    return _sealed(identity, _REQUEST, request_id, entries)


def encode_answer(identity: Identity, request_id: bytes, answer: Answer, asker: bytes) -> bytes:
    """The datagram that answers the request with that id, of the node with the public key `asker`.

    Nobody else can pass it on as an answer to a request of his own.
    """
    return _sealed(identity, _ANSWER, request_id, _written(_ANSWERED, answer), asker)


def is_request(data: bytes) -> bool:
    """Whether a datagram claims to be a request. It is worth a closer look only if `is_answer` or this holds."""
    return MIN_REQUEST <= len(data) <= MAX_DATAGRAM and data[:4] == _MAGIC + _REQUEST


def is_answer(data: bytes) -> bool:
    """Whether a datagram claims to be an answer."""
    return _BODY_AT < len(data) <= MAX_DATAGRAM and data[:4] == _MAGIC + _ANSWER


def id_of(data: bytes) -> bytes:
    """The id that request and answer share."""
    return data[len(_MAGIC) + 1 : _KEY_AT]


def decode(data: bytes) -> Datagram:
    """Read a datagram that `is_request` or `is_answer`; raises PeerError, and nothing else, if it is malformed."""
    entries, payload = cbor.load(data[_BODY_AT:])
    if payload is not None:
        raise PeerError(Code.BAD_REQUEST, "a datagram has no payload")
    try:
        content = (
            _read_request(entries) if data[3:4] == _REQUEST else Answer(**f.read_all(_ANSWERED, entries))
        )
    except ValueError as error:
        raise PeerError(Code.BAD_REQUEST, f"datagram: {error}") from None
    return Datagram(id_of(data), data[_KEY_AT:_SIGNATURE_AT], content, data)


def with_records(answer: Answer, offered: Iterable[bytes]) -> Answer:
    """The answer with as many of the records as fit, in their order; one that is too big leaves its place to others."""
    room = MAX_DATAGRAM - _BODY_AT - len(cbor.dump(_written(_ANSWERED, answer))) - _LIST_HEAD - _CLIENT_FLAG
    records = []
    for data in offered:
        if len(data) + _LENGTH <= room:
            room -= len(data) + _LENGTH
            records.append(data)
    return replace(answer, records=tuple(records))


def _read_request(entries: dict[str, Any]) -> Request:
    query = f.NAME.read(entries.get("query"))
    fields = _QUERIES.get(query)
    if fields is None:
        raise ValueError("an unknown query")
    return Request(query, **f.read_all(fields, entries))


def _written(fields: dict[str, Field], content: Request | Answer) -> dict[str, Any]:
    values = ((name, field, getattr(content, name)) for name, field in fields.items())
    return {name: field.write(value) for name, field, value in values if value != field.default}


def _sealed(
    identity: Identity, kind: bytes, request_id: bytes, entries: dict[str, Any], asker: bytes = b""
) -> bytes:
    head = _MAGIC + kind + request_id + identity.peer.key
    body = cbor.dump(entries)
    data = head + identity.sign(_SIGNED + head + body + asker) + body
    if len(data) > MAX_DATAGRAM:
        raise PeerError(Code.TOO_LONG, f"a datagram of {len(data)} bytes, at most {MAX_DATAGRAM} are sent")
    return data


def _signed(data: bytes) -> bytes:
    return _SIGNED + data[:_SIGNATURE_AT] + data[_BODY_AT:]
