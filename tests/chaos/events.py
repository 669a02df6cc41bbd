"""What happens to the node, drawn from a seed: the same seed gives the same events."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

# They share no layer, so that any of them can be wanted together.
POOL = ("4..8", "8..12", "12..16", "20..22")

Kind = Literal[
    "edit", "bad edit", "hang up", "kill worker", "corrupt", "fill disk", "free disk", "cut", "mend", "clock",
    "kill node", "leave", "settle",
]  # fmt: skip
WEIGHTS: dict[Kind, int] = {
    "edit": 26,
    "bad edit": 6,
    "hang up": 4,
    "kill worker": 14,
    "corrupt": 12,
    "fill disk": 4,
    "free disk": 4,
    "cut": 5,
    "mend": 5,
    "clock": 6,
    "kill node": 8,
    "leave": 6,
    "settle": 16,
}
BAD_TEXTS = (
    "slices: [",
    "slices: 7\n",
    "role: king\n",
    "limits: {sessions: 0}\n",
    "\0",
    "slices:\n  - {layers: 9..8}\n",
)
SHIFTS = (-86_400, -3600, -60, 60, 3600, 86_400)
PAUSES = (0.0, 0.0, 0.05, 0.3)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens. `pick` chooses among what is there when it does; `pause` is how long to wait after it."""

    kind: Kind
    layers: tuple[str, ...] = ()
    sessions: int = 8
    text: str = ""
    shift: int = 0
    pick: float = 0.0
    pause: float = 0.0


def events(seed: int, count: int) -> Iterator[Event]:
    """So many events. "settle" gives the world back to the node, and waits until all is as the file says."""
    random = Random(seed)
    for _ in range(count):
        (kind,) = random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        yield Event(
            kind,
            layers=tuple(layers for layers in POOL if random.random() < 0.5),
            sessions=random.choice((4, 8, 8, 8)),
            text=random.choice(BAD_TEXTS),
            shift=random.choice(SHIFTS),
            pick=random.random(),
            pause=random.choice(PAUSES),
        )
