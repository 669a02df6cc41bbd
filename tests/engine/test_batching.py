from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from intelnav.engine.batching import Call, next_batch, shape_of
from intelnav.engine.interface import Forward

MAX_ROWS = 8


@st.composite
def calls(draw: st.DrawFn) -> Call:
    sequence = draw(st.integers(0, 4))
    if draw(st.integers(0, 5)) == 0:
        return Call(0, {}, sequence)
    rows, stop = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return Call(0, {}, sequence, Forward(sequence, 0, stop, tokens=(0,) * rows))


@given(st.lists(calls()))
def test_batches_keep_the_order_of_each_sequence(arrived: list[Call]) -> None:
    arrived = [Call(index, r.arguments, r.sequence, r.forward) for index, r in enumerate(arrived)]
    queue, served = deque(arrived), []
    while queue:
        batch = next_batch(queue, MAX_ROWS)
        assert batch[0] is queue[0]
        forwards = [call.forward for call in batch if call.forward is not None]
        if forwards:
            assert len(forwards) == len(batch)
            assert len({shape_of(forward) for forward in forwards}) == 1
            assert len({forward.sequence for forward in forwards}) == len(batch)
            assert sum(forward.rows for forward in forwards) <= MAX_ROWS
        else:
            assert len(batch) == 1
        for call in batch:
            queue.remove(call)
        served += batch
    for sequence in range(5):
        assert [r.number for r in served if r.sequence == sequence] == [
            r.number for r in arrived if r.sequence == sequence
        ]


def test_all_that_can_be_one_decode_is() -> None:
    forwards = [Call(n, {}, n, Forward(n, 0, 1, tokens=(0,))) for n in range(6)]
    other = Call(9, {}, 9, Forward(9, 0, 1, tokens=(0, 0)))
    assert next_batch([*forwards[:3], other, *forwards[3:]], MAX_ROWS) == forwards
    assert next_batch([other, *forwards], MAX_ROWS) == [other]
