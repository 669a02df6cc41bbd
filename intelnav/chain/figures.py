"""What the two sides of chains have done since the node started, for whoever watches it: numbers alone."""

from collections import Counter
from dataclasses import dataclass, field

from intelnav.domain.durations import Durations


@dataclass(slots=True)
class EntryFigures:
    """Answers of an entry. `failures` are those that an error ended or kept from beginning, by its code.

    `prefill` is from the open chain to the first token, `decode` from each token to the next: as whoever asked has it,
    so that a client which does not read shows in it.
    """

    answers: int = 0
    tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    prefill: Durations = field(default_factory=Durations)
    decode: Durations = field(default_factory=Durations)


@dataclass(slots=True)
class HopFigures:
    """Sessions served for others. `ended` are those that the entry did not close, and openings refused, by code.

    `rows` are positions, one for each token; `compute` is how long each forward was kept here.
    """

    opened: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    forwards: int = 0
    rows: int = 0
    compute: Durations = field(default_factory=Durations)
