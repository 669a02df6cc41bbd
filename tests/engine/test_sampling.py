from hypothesis import given
from hypothesis import strategies as st

from intelnav.engine.sampling import PENALTY_WINDOW, Answers, seed_at

seeds = st.integers(0, 2**32 - 1)
positions = st.integers(0, 2**31)


@given(seeds, positions)
def test_a_seed_is_never_the_one_that_means_random(seed: int, position: int) -> None:
    assert 0 <= seed_at(seed, position) < 2**32 - 1


@given(seeds, positions, positions)
def test_each_position_has_its_own_seed(seed: int, one: int, other: int) -> None:
    assert (seed_at(seed, one) == seed_at(seed, other)) == (one == other)


def test_the_seed_of_a_position_is_fixed_for_all_time() -> None:
    assert seed_at(7, 100) == 2798006899


@given(st.lists(st.integers(0, 99), max_size=90), st.integers(0, 120))
def test_a_truncated_history_is_one_that_went_no_further(tokens: list[int], length: int) -> None:
    cut, short = Answers(), Answers()
    for position, token in enumerate(tokens, start=10):
        cut.add(position, token)
        if position < length:
            short.add(position, token)
    cut.truncate(length)
    assert cut.recent() == short.recent()
    cut.add(max(length, 200), 5)
    assert cut.recent() == [*short.recent(), 5][-PENALTY_WINDOW:]


def test_only_the_last_tokens_count() -> None:
    answers = Answers()
    for position in range(100):
        answers.add(position, position)
    assert answers.recent() == list(range(100 - PENALTY_WINDOW, 100))
