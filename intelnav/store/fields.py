"""What may stand in a field of a manifest; whatever else stands there is a ContentError."""

import base64
import binascii
import re
from typing import Any

from intelnav.domain.errors import ContentError
from intelnav.store.cid import is_cid
from intelnav.store.gguf_reader import MAX_KEY
from intelnav.store.model_file import MAX_NAME
from intelnav.store.pieces import PIECE, Blob

_DIGEST = 32
_SHA256 = re.compile(r"[0-9a-f]{64}")


def blob(item: Any, low: int, high: int) -> Blob:
    """A blob of `low` to `high` bytes from its `hash`, `size` and `pieces`."""
    if not isinstance(item["hash"], str) or not is_cid(item["hash"]):
        raise ContentError("a hash is not written as b3-...")
    size = count(item["size"], low, high)
    try:
        joined = base64.b64decode(item["pieces"], validate=True)
    except binascii.Error:
        raise ContentError("the hashes of the pieces are not base64") from None
    due = -(-size // PIECE) if size > PIECE else 0
    if len(joined) != due * _DIGEST:
        raise ContentError(f"{len(joined)} bytes of piece hashes for a blob of {size} bytes")
    pieces = tuple(joined[at : at + _DIGEST] for at in range(0, len(joined), _DIGEST))
    return Blob(item["hash"], size, pieces)


def count(value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise ContentError(f"{str(value)[:40]} is no whole number from {low} to {high}")
    return value


def text(value: Any, longest: int = MAX_KEY) -> str:
    """A text of 1 to `longest` bytes."""
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= longest:
        raise ContentError("a text is missing, empty or too long")
    return value


def label(value: Any) -> str:
    """A name fit for a terminal."""
    if len(text(value)) > MAX_NAME or not value.isprintable():
        raise ContentError(f"a name is no printable text of at most {MAX_NAME} characters")
    return str(value)


def sha256(value: Any) -> str:
    """A SHA-256 in lower-case hex."""
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise ContentError("a SHA-256 is not written as 64 hexadecimal digits")
    return value
