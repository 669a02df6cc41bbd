from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from intelnav.domain.durations import BOUNDS, Durations


def test_bounds_rise() -> None:
    assert all(low < high for low, high in pairwise(BOUNDS))


@given(st.lists(st.floats(0, 100) | st.sampled_from(BOUNDS)))
def test_each_time_counts_once_in_the_first_range_that_holds_it(times: list[float]) -> None:
    durations = Durations()
    for seconds in times:
        durations.add(seconds)
    ends = (*BOUNDS, float("inf"))
    starts = (-1.0, *BOUNDS)
    assert durations.counts == [
        sum(start < seconds <= end for seconds in times) for start, end in zip(starts, ends, strict=True)
    ]
    assert abs(durations.total - sum(times)) < 1e-6
