"""Short-lived proof that an address can receive what is sent to it; needed to add a record, as in BEP 5."""

from hashlib import blake2b
from hmac import compare_digest

TOKEN_BYTES = 8
SLOT_SECONDS = 300.0


class Tokens:
    """Gives and checks tokens. `secret` is 32 random bytes, fresh for each process."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def give(self, host: str, port: int, now: float) -> bytes:
        """What this address has to show; it holds for 5 to 10 minutes."""
        return self._token(host, port, int(now / SLOT_SECONDS))

    def accepts(self, token: bytes, host: str, port: int, now: float) -> bool:
        """Whether this address was given `token` not long ago."""
        slot = int(now / SLOT_SECONDS)
        return any(compare_digest(token, self._token(host, port, each)) for each in (slot, slot - 1))

    def _token(self, host: str, port: int, slot: int) -> bytes:
        return blake2b(f"{host}|{port}|{slot}".encode(), key=self._secret, digest_size=TOKEN_BYTES).digest()
