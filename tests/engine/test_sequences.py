from dataclasses import replace
from typing import Any

import pytest

from intelnav.domain.errors import Code, PeerError
from intelnav.domain.hidden import Dtype, HiddenState
from intelnav.domain.sampling import Sampling
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import Forward, SliceInfo
from intelnav.engine.sequences import Sequences

MIDDLE = SliceInfo(LayerRange(8, 15), 30, "llama", 4, 32, 20, 2, 6, frozenset(), "class", 0)
FRONT = replace(MIDDLE, layers=LayerRange(0, 8), vocabulary=100)
TAIL = replace(MIDDLE, layers=LayerRange(15, 30))


def hidden(rows: int = 2, width: int = 4) -> HiddenState:
    return HiddenState(Dtype.F32, rows, width, bytes(4 * rows * width))


def opened(info: SliceInfo, length: int = 10, stop: int | None = None) -> Sequences:
    """Sequence 0 of such a slice, with `length` tokens in its cache."""
    sequences = Sequences(info)
    sequences.open(0, Sampling() if info.is_tail else None)
    state = sequences.check(fitting(info, 0))
    state.length, state.stop = length, stop or info.layers.end
    return sequences


def fitting(info: SliceInfo, position: int = 10) -> Forward:
    forward = Forward(0, position, info.layers.end)
    forward = replace(forward, tokens=(1, 99)) if info.is_front else replace(forward, hidden=hidden())
    return replace(forward, sample_from=1) if info.is_tail else replace(forward, reply=Dtype.F16)


@pytest.mark.parametrize("info", [FRONT, MIDDLE, TAIL])
def test_what_fits_is_let_through(info: SliceInfo) -> None:
    sequences = opened(info)
    assert sequences.check(fitting(info)).length == 10
    sequences.check(replace(fitting(info, 3), truncate_to=3))
    sequences.check(
        replace(fitting(info, 0), truncate_to=0, stop=info.layers.start + 1, sample_from=None, reply=Dtype.I8)
    )


@pytest.mark.parametrize(
    ("info", "change", "reason"),
    [
        (MIDDLE, {"sequence": 1}, "sequence 1 is not open"),
        (MIDDLE, {"sequence": -1}, "not open"),
        (MIDDLE, {"position": 9}, "position 9 does not follow the 10"),
        (MIDDLE, {"position": 11}, "position 11"),
        (MIDDLE, {"position": -1, "truncate_to": -1}, "cannot be cut to -1"),
        (MIDDLE, {"position": 11, "truncate_to": 11}, "cannot be cut to 11"),
        (MIDDLE, {"truncate_to": 5}, "position 10 does not follow the 5"),
        (MIDDLE, {"hidden": hidden(rows=7)}, "7 rows"),
        (MIDDLE, {"hidden": None}, "0 rows"),
        (MIDDLE, {"hidden": None, "tokens": (1,)}, "not tokens"),
        (MIDDLE, {"tokens": (1,)}, "not tokens"),
        (MIDDLE, {"hidden": hidden(width=5)}, "width 5"),
        (MIDDLE, {"stop": 8}, "layer 8"),
        (MIDDLE, {"stop": 16}, "layer 16"),
        (MIDDLE, {"stop": 14}, "filled up to layer 15, not 14"),
        (MIDDLE, {"reply": None}, "encoding"),
        (MIDDLE, {"sample_from": 0}, "nothing can be sampled"),
        (FRONT, {"tokens": (1, 100)}, "not below 100"),
        (FRONT, {"tokens": (-1,)}, "not below 100"),
        (FRONT, {"tokens": ()}, "0 rows"),
        (FRONT, {"hidden": hidden()}, "fed tokens"),
        (TAIL, {"sample_from": 2}, "row 2 of 2"),
        (TAIL, {"sample_from": -1}, "row -1 of 2"),
        (TAIL, {"reply": Dtype.F32}, "not both"),
    ],
)
def test_what_does_not_fit_is_refused(info: SliceInfo, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(PeerError, match=reason) as refusal:
        opened(info).check(replace(fitting(info), **change))
    assert refusal.value.code == Code.BAD_REQUEST


def test_more_tokens_than_the_context_are_too_long() -> None:
    sequences = opened(MIDDLE, length=18)
    sequences.check(fitting(MIDDLE, 18))
    with pytest.raises(PeerError, match="21 tokens do not fit the context of 20") as refusal:
        sequences.check(replace(fitting(MIDDLE, 18), hidden=hidden(rows=3)))
    assert refusal.value.code == Code.TOO_LONG


def test_a_tail_opened_without_sampling_samples_nothing() -> None:
    sequences = Sequences(TAIL)
    sequences.open(0, None)
    with pytest.raises(PeerError, match="without sampling"):
        sequences.check(fitting(TAIL, 0))


@pytest.mark.parametrize(("sequence", "sampling"), [(0, None), (2, None), (-1, None), (1, Sampling())])
def test_a_sequence_that_cannot_be_is_not_opened(sequence: int, sampling: Sampling | None) -> None:
    with pytest.raises(PeerError):
        opened(MIDDLE).open(sequence, sampling)


def test_a_closed_sequence_starts_afresh() -> None:
    sequences = opened(MIDDLE)
    assert sequences.close(0)
    assert not sequences.close(0)
    sequences.open(0, None)
    assert sequences.check(fitting(MIDDLE, 0)).length == 0
