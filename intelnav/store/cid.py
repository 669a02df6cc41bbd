"""Content ids: `b3-` and a BLAKE3 hash in unpadded lower-case base32."""

import base64
import re

# 52 characters hold 260 bits: the last four must be zero, or one digest would have sixteen ids.
_CID = re.compile(r"b3-[a-z2-7]{51}[aq]")


def cid_of(digest: bytes) -> str:
    """The id of content with this 32-byte BLAKE3 hash."""
    return "b3-" + base64.b32encode(digest).decode().rstrip("=").lower()


def is_cid(text: str) -> bool:
    """Whether `text` looks like an id; what does not must never become part of a path."""
    return _CID.fullmatch(text) is not None


def digest_of(cid: str) -> bytes:
    """The 32-byte BLAKE3 hash that an id stands for; the inverse of `cid_of`."""
    return base64.b32decode(cid.removeprefix("b3-").upper() + "====")
