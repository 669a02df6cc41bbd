"""Who a node is: an Ed25519 key ([I1], [I2] in docs/protocol.md)."""

import base64
from dataclasses import dataclass

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """A node's Ed25519 public key; as text, unpadded lower-case base32 (52 characters)."""

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != 32:
            raise ValueError(f"a peer id is 32 bytes, not {len(self.key)}")

    @classmethod
    def parse(cls, text: str) -> "PeerId":
        """Read the text form; raises ValueError that says what is wrong."""
        try:
            key = base64.b32decode(text.upper() + "====")
        except ValueError:
            key = b""
        if len(key) != 32 or str(peer := cls(key)) != text:
            raise ValueError(f"{text[:60]!r} is no peer id: 52 characters of a-z and 2-7 are wanted")
        return peer

    def __str__(self) -> str:
        return base64.b32encode(self.key).decode().rstrip("=").lower()

    @property
    def short(self) -> str:
        """First eight characters, for people."""
        return str(self)[:8]

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether this peer signed `message`."""
        try:
            VerifyKey(self.key).verify(message, signature)
        except (BadSignatureError, ValueError):
            return False
        return True


class Identity:
    """A node's own key pair, made from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.peer = PeerId(bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        """64-byte Ed25519 signature."""
        return self._key.sign(message).signature
