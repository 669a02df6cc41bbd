"""Content ids: `b3-` and a BLAKE3 hash in unpadded lower-case base32."""

import base64
import re

_CID = re.compile(r"b3-[a-z2-7]{52}")


def cid_of(digest: bytes) -> str:
    """The id of content with this 32-byte BLAKE3 hash."""
    return "b3-" + base64.b32encode(digest).decode().rstrip("=").lower()


def is_cid(text: str) -> bool:
    """Whether `text` looks like an id; what does not must never become part of a path."""
    return _CID.fullmatch(text) is not None
