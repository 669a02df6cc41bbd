import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.net.pace import BURST_SECONDS, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.integers(1, 10**9),
    steps=st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 10)), max_size=50),
)
def test_never_more_than_the_rate_allows(rate: int, steps: list[tuple[int, float]]) -> None:
    """One after the other, each waiting as told, with pauses in between."""
    clock = Clock()
    pace = Pace(rate, clock)
    granted = 0
    for size, pause in steps:
        clock.now += pace.owed(size)
        granted += size
        assert granted <= rate * (clock.now - 100 + BURST_SECONDS) * (1 + 1e-9) + 1e-6
        clock.now += pause
    assert pace.taken == granted


@given(rate=st.integers(1, 10**9), sizes=st.lists(st.integers(1, 1 << 20), min_size=1, max_size=50))
def test_those_that_ask_at_once_wait_in_turn(rate: int, sizes: list[int]) -> None:
    pace = Pace(rate, Clock())
    waits = [pace.owed(size) for size in sizes]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(sum(sizes) / rate, abs=BURST_SECONDS)


def test_who_keeps_on_asking_gets_all_of_the_rate() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    for _ in range(100):
        clock.now += pace.owed(100)
    assert clock.now == pytest.approx(110, abs=BURST_SECONDS)


def test_a_pause_saves_up_no_more_than_a_burst() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    clock.now += 3600
    assert pace.owed(int(1000 * BURST_SECONDS)) == pytest.approx(0)
    assert pace.owed(500) == pytest.approx(0.5)


def test_without_a_rate_nobody_waits() -> None:
    assert Pace(None).owed(1 << 40) == 0


@pytest.mark.anyio
async def test_it_waits_for_real() -> None:
    clock = Clock()
    pace = Pace(10**6, clock)
    await pace.keep(1000)
    assert pace.owed(0) == pytest.approx(0.001)
