"""How the tail picks a token."""

from dataclasses import dataclass
from math import isfinite

# To divide logits by less than this overflows, and leaves no probabilities to draw from.
_GREEDY_BELOW = 1e-6


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings of one session; the token is a function of these, the position and the logits alone.

    `temperature` 0, or below 10⁻⁶, is greedy. `top_k` 0 keeps all. `repeat_penalty` 1 is off; it looks at the answer's
    own tokens, the only ones that a tail knows. Raises ValueError naming the field that is out of range.
    """

    seed: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("seed", 0, 2**32 - 1),
            ("temperature", 0, 10),
            ("top_k", 0, 2**20),
            ("top_p", 0, 1),
            ("min_p", 0, 1),
            ("repeat_penalty", 0.1, 10),
        ):
            value = getattr(self, name)
            if not isfinite(value) or not low <= value <= high:
                raise ValueError(f"{name} = {value} is out of range: {low} to {high}")

    @property
    def is_greedy(self) -> bool:
        """Whether the token is the likeliest one."""
        return self.temperature < _GREEDY_BELOW
