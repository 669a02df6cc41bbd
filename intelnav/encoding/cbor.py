"""The strict subset of CBOR that the wire speaks: one small map, whose last value may be a large byte string.

Plain `cbor2.loads` would build objects from tags, recurse deeply, and ignore what follows the first item.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import Any, NoReturn

from cbor2 import CBORDecodeError, CBORDecoder, dumps, loads

from intelnav.domain.errors import Code, PeerError

PAYLOAD = "payload"

# Everything but the payload. It bounds what a hostile message can make the decoder allocate.
MAX_HEAD = 32 * 1024

_MAP = 0xA0
_MAX_ENTRIES = 23
_BYTE_STRING = 0x40
_EMPTY_BYTE_STRING = bytes([_BYTE_STRING])
_PAYLOAD_NAME = PAYLOAD.encode()
_PAYLOAD_KEY = dumps(PAYLOAD)

# The tags that cbor2 knows how to turn into objects; `tag_hook` sees only the others.
_KNOWN_TAGS = (
    0,
    1,
    2,
    3,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)


def _refuse_tag(_content: object, _immutable: bool) -> NoReturn:
    raise ValueError("tags are not allowed")


_STRICT: dict[str, Any] = {
    "max_depth": 8,
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
    "tag_hook": _refuse_tag,
    "semantic_decoders": dict.fromkeys(_KNOWN_TAGS, _refuse_tag),
}


def load(data: bytes) -> tuple[dict[str, Any], memoryview | None]:
    """The entries of the map in `data` and, apart from them and not copied, its `payload` if it has one.

    Raises PeerError for anything but exactly one map of at most 23 text keys, without tags, indefinite
    lengths or duplicates, of at most 32 KiB before the payload, with the payload as its last entry.
    """
    count = data[0] - _MAP if data else -1
    if not 0 <= count <= _MAX_ENTRIES:
        raise PeerError(Code.BAD_REQUEST, f"a message is a CBOR map of at most {_MAX_ENTRIES} entries")
    found = _at_once(data, count)
    return _item_by_item(data, count) if found is None else found


def _at_once(data: bytes, count: int) -> tuple[dict[str, Any], memoryview | None] | None:
    """What `_item_by_item` gives, by one call of the decoder, or None if that cannot be told; for speed.

    `loads` does not say where it stopped. So the map gets an empty payload as its last entry: if that came out, by the
    only place where that key is spelled, all before it was read.
    """
    at = data.find(_PAYLOAD_NAME, 1, MAX_HEAD)
    if at > 0:
        whole = data[: at + len(_PAYLOAD_NAME)] + _EMPTY_BYTE_STRING
    elif count < _MAX_ENTRIES and len(data) <= MAX_HEAD:
        whole = b"".join((bytes([data[0] + 1]), data[1:], _PAYLOAD_KEY, _EMPTY_BYTE_STRING))
    else:
        return None
    try:
        entries: dict[str, Any] = loads(whole, **_STRICT)
    except CBORDecodeError:
        return None
    if entries.pop(PAYLOAD, None) != b"" or not all(type(key) is str for key in entries):
        return None
    return entries, _byte_string(data, at + len(_PAYLOAD_NAME)) if at > 0 else None


def _item_by_item(data: bytes, count: int) -> tuple[dict[str, Any], memoryview | None]:
    stream = BytesIO(data[:MAX_HEAD])
    stream.seek(1)
    # Without read-ahead, so that the stream's position is where the item ended.
    item = CBORDecoder(stream, read_size=1, **_STRICT).decode
    entries: dict[str, Any] = {}
    try:
        for left in range(count, 0, -1):
            key = item()
            if type(key) is not str or key in entries:
                raise PeerError(Code.BAD_REQUEST, "a message's keys are texts, each given once")
            if key == PAYLOAD:
                if left > 1:
                    raise PeerError(Code.BAD_REQUEST, "the payload is not the last entry")
                return entries, _byte_string(data, stream.tell())
            entries[key] = item()
    except CBORDecodeError as error:
        raise PeerError(
            Code.BAD_REQUEST, "malformed CBOR, or more than 32 KiB of it before the payload"
        ) from error
    if stream.tell() != len(data):
        raise PeerError(Code.BAD_REQUEST, "bytes follow the message")
    return entries, None


def dump(entries: Mapping[str, Any]) -> bytes:
    """A map of at most 23 entries."""
    return dumps(entries)


def dump_before_payload(entries: Mapping[str, Any], size: int) -> bytes:
    """A map up to where the `size` bytes of its payload follow, so that they need not be copied into it."""
    return dumps({**entries, PAYLOAD: b""})[: -len(_EMPTY_BYTE_STRING)] + _byte_string_head(size)


def _byte_string_head(size: int) -> bytes:
    if size < 24:
        return bytes([_BYTE_STRING + size])
    power = (size > 0xFF) + (size > 0xFFFF)
    return bytes([_BYTE_STRING + 24 + power]) + size.to_bytes(1 << power, "big")


def _byte_string(data: bytes, at: int) -> memoryview:
    """The byte string whose head stands at `at`, which must end where `data` ends."""
    size = data[at] - _BYTE_STRING if at < len(data) else -1
    start = at + 1
    if 24 <= size <= 27:
        start += 1 << (size - 24)
        size = int.from_bytes(data[at + 1 : start], "big")
    elif not 0 <= size < 24:
        raise PeerError(Code.BAD_REQUEST, "the payload is not a byte string")
    if start + size != len(data):
        raise PeerError(Code.BAD_REQUEST, "the payload does not end where the message ends")
    return memoryview(data)[start:]
