"""What sampling depends on besides the logits: a seed for each position, and the answer's earlier tokens."""

import struct
from bisect import bisect_right
from hashlib import blake2b

# How many of the answer's tokens the repeat penalty looks at.
PENALTY_WINDOW = 64
# llama.cpp takes this seed (its LLAMA_DEFAULT_SEED) to mean: choose one at random.
_RANDOM_SEED = 2**32 - 1


def seed_at(seed: int, position: int) -> int:
    """The seed for sampling at one position, so that a token does not depend on how many were drawn before it."""
    digest = blake2b(struct.pack("<IQ", seed, position), digest_size=8).digest()
    return int.from_bytes(digest, "little") % _RANDOM_SEED


class Answers:
    """The tokens that one sequence was answered, by the position of the row that each was sampled from.

    After a truncation and after a replay (rows run again with `sample_from` where the answer began), the history
    is what it would be had nothing happened.
    """

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._tokens: list[int] = []

    def add(self, position: int, token: int) -> None:
        """Note the token sampled from the row at `position`, which is above all positions noted so far."""
        self._positions.append(position)
        self._tokens.append(token)

    def recent(self) -> list[int]:
        """The last `PENALTY_WINDOW` tokens, oldest first."""
        return self._tokens[-PENALTY_WINDOW:]

    def truncate(self, length: int) -> None:
        """Forget what was sampled from rows at `length` and later."""
        keep = bisect_right(self._positions, length - 1)
        del self._positions[keep:], self._tokens[keep:]
