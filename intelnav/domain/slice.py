"""Layer ranges: the unit in which a model is hosted and a chain is planned."""

import re
from dataclasses import dataclass

_TEXT = re.compile(r"(\d{1,6})\.\.(\d{1,6})")


@dataclass(frozen=True, slots=True, order=True)
class LayerRange:
    """Transformer blocks `start` up to, but not including, `end` of one model."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"layers {self.start}..{self.end}: the start must lie below the end")

    @classmethod
    def parse(cls, text: str) -> "LayerRange":
        """Read `"8..15"`; raises ValueError that says what a range looks like."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text[:40]!r} is no layer range: write START..END, for instance 8..15")
        return cls(int(match[1]), int(match[2]))

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start}..{self.end}"

    def covers(self, other: "LayerRange") -> bool:
        """Whether every layer of `other` is one of ours."""
        return self.start <= other.start and other.end <= self.end
