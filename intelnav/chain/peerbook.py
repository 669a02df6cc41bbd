"""What this node has observed of other peers, and what it therefore expects of them. Pure; times are milliseconds.

`now` is in seconds of any one clock that does not run backwards. Figures fade towards what is expected of a peer that
nobody knows, so that a peer that was slow or failed is tried again in time.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from statistics import median

from intelnav.domain.errors import Code
from intelnav.domain.identity import PeerId

# Expected of a peer before anything is observed. A layer costs what it costs those who were observed, if any were.
ROUND_TRIP = 50.0
LAYER = 1.0
# The seconds in which half of what was known counts no more.
FIGURE_HALF_LIFE = 600.0
PENALTY_HALF_LIFE = 120.0
# What a failure adds to the predicted time of a token. A busy peer loses to any free one nearby; a dead one is the last
# resort. What the request was to blame for costs nothing.
_FAILURE = 5_000.0
_PENALTIES = {Code.BUSY: 250.0, Code.DRAINING: 2_000.0, Code.TOO_LONG: 0.0}
_MAX_PENALTY = 20_000.0
# A penalty below this is forgotten.
_MIN_PENALTY = 1.0
# The weight of what was known, against a new observation.
_KEEP = 0.75
# No honest round trip or forward takes less, or longer.
_MIN_OBSERVED = 0.001
_MAX_OBSERVED = 60_000.0
_MAX_PEERS = 4096
_MODELS_PER_PEER = 8
_CODES_PER_PEER = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """What to expect of a peer: one leg of the way to it, one layer for one token, and the penalty of its failures."""

    leg: float = ROUND_TRIP / 2
    layer: float = LAYER
    penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a peer: times by model CID for one layer and row, the last failures, newest last."""

    round_trip: float | None
    layers: dict[str, float]
    penalty: float
    failures: tuple[Code, ...]


@dataclass(slots=True)
class _Figure:
    value: float
    at: float

    def observe(self, value: float, now: float) -> None:
        keep = _KEEP * _faded(now - self.at, FIGURE_HALF_LIFE)
        self.value = keep * self.value + (1 - keep) * value
        self.at = now

    def read(self, now: float, default: float) -> float:
        weight = _faded(now - self.at, FIGURE_HALF_LIFE)
        return weight * self.value + (1 - weight) * default


class _Notes:
    """The figures of one peer."""

    __slots__ = ("codes", "failed_at", "layers", "penalty", "round_trip")

    def __init__(self) -> None:
        self.round_trip: _Figure | None = None
        self.layers: dict[str, _Figure] = {}
        self.codes: deque[Code] = deque(maxlen=_CODES_PER_PEER)
        self.penalty = 0.0
        self.failed_at = 0.0

    def penalty_at(self, now: float) -> float:
        penalty = self.penalty * _faded(now - self.failed_at, PENALTY_HALF_LIFE)
        return penalty if penalty >= _MIN_PENALTY else 0.0


class PeerBook:
    """Remembers at most `limit` peers, those of which it heard last. Numbers that cannot be are not taken."""

    def __init__(self, limit: int = _MAX_PEERS) -> None:
        self._limit = limit
        self._notes: dict[PeerId, _Notes] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def measured(self, peer: PeerId, round_trip: float, now: float) -> None:
        """A ping to this peer came back after `round_trip` milliseconds."""
        if _can_be(round_trip):
            notes = self._of(peer)
            notes.round_trip = _observed(notes.round_trip, round_trip, now)

    def computed(
        self, peer: PeerId, model: str, milliseconds: float, layers: int, now: float, rows: int = 1
    ) -> None:
        """This peer ran `rows` rows through `layers` layers of a model, as it says itself. It makes up for failures."""
        if not _can_be(milliseconds) or layers < 1 or rows < 1:
            return
        notes = self._of(peer)
        figure = _observed(notes.layers.pop(model, None), milliseconds / layers / rows, now)
        # The model seen last comes last, and the one seen least recently goes.
        notes.layers[model] = figure
        if len(notes.layers) > _MODELS_PER_PEER:
            del notes.layers[next(iter(notes.layers))]
        notes.penalty = 0.0
        notes.codes.clear()

    def failed(self, peer: PeerId, code: Code, now: float) -> None:
        """This peer refused or failed; every time adds to what it has left of earlier penalties."""
        notes = self._of(peer)
        notes.penalty = min(_MAX_PENALTY, notes.penalty_at(now) + _PENALTIES.get(code, _FAILURE))
        notes.failed_at = now
        notes.codes.append(code)

    def estimates(self, model: str, now: float) -> Callable[[PeerId], Estimate]:
        """What to expect of each peer for one token of that model."""
        known = [notes.layers[model].value for notes in self._notes.values() if model in notes.layers]
        usual = median(known) if known else LAYER

        def estimate(peer: PeerId) -> Estimate:
            notes = self._notes.get(peer)
            if notes is None:
                return Estimate(layer=usual)
            trip, layer = notes.round_trip, notes.layers.get(model)
            return Estimate(
                (ROUND_TRIP if trip is None else trip.read(now, ROUND_TRIP)) / 2,
                usual if layer is None else layer.read(now, usual),
                notes.penalty_at(now),
            )

        return estimate

    def figures(self, peer: PeerId, now: float) -> Figures | None:
        """What was observed of a peer, for display; None if nothing was."""
        notes = self._notes.get(peer)
        if notes is None:
            return None
        trip = notes.round_trip
        return Figures(
            None if trip is None else trip.value,
            {model: figure.value for model, figure in notes.layers.items()},
            notes.penalty_at(now),
            tuple(notes.codes),
        )

    def _of(self, peer: PeerId) -> _Notes:
        notes = self._notes.pop(peer, None) or _Notes()
        self._notes[peer] = notes
        if len(self._notes) > self._limit:
            del self._notes[next(iter(self._notes))]
        return notes


def _observed(figure: _Figure | None, value: float, now: float) -> _Figure:
    if figure is None:
        return _Figure(value, now)
    figure.observe(value, now)
    return figure


def _faded(seconds: float, half_life: float) -> float:
    """What is left of 1 after that time."""
    return float(0.5 ** (max(0.0, seconds) / half_life))


def _can_be(milliseconds: float) -> bool:
    return isfinite(milliseconds) and _MIN_OBSERVED <= milliseconds <= _MAX_OBSERVED
