import pytest

from intelnav.domain.sampling import Sampling


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-38, 9e-7])
def test_a_temperature_that_logits_cannot_be_divided_by_is_greedy(temperature: float) -> None:
    assert Sampling(temperature=temperature).is_greedy


@pytest.mark.parametrize("temperature", [1e-6, 0.7, 10.0])
def test_any_other_draws(temperature: float) -> None:
    assert not Sampling(temperature=temperature).is_greedy
