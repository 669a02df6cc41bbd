from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht.tokens import SLOT_SECONDS, TOKEN_BYTES, Tokens

times = st.floats(0, 1e9)


@given(times, st.floats(0, SLOT_SECONDS))
def test_a_token_holds_for_five_minutes_at_least(now: float, later: float) -> None:
    tokens = Tokens(b"s" * 32)
    token = tokens.give("192.0.2.7", 7, now)
    assert len(token) == TOKEN_BYTES
    assert tokens.accepts(token, "192.0.2.7", 7, now + later)


@given(times, st.floats(2 * SLOT_SECONDS, 1e6))
def test_and_for_ten_at_most(now: float, later: float) -> None:
    tokens = Tokens(b"s" * 32)
    assert not tokens.accepts(tokens.give("192.0.2.7", 7, now), "192.0.2.7", 7, now + later)


def test_it_is_nobody_elses_and_no_other_nodes() -> None:
    tokens = Tokens(b"s" * 32)
    token = tokens.give("192.0.2.7", 7, 0.0)
    assert not tokens.accepts(token, "192.0.2.8", 7, 0.0)
    assert not tokens.accepts(token, "192.0.2.7", 8, 0.0)
    assert not Tokens(b"t" * 32).accepts(token, "192.0.2.7", 7, 0.0)
