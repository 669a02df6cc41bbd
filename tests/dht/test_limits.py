from hypothesis import given
from hypothesis import strategies as st

from intelnav.dht import limits
from intelnav.dht.limits import AMPLIFICATION, REST_SECONDS, VERIFIED_SECONDS, Allowance, RateLimit, Silences

HERE, THERE = ("192.0.2.7", 7), ("192.0.2.8", 7)


@given(st.lists(st.floats(0, 5), max_size=200))
def test_a_host_gets_its_burst_and_its_rate_and_no_more(gaps: list[float]) -> None:
    limit, now, allowed = RateLimit(10, 20), 0.0, 0
    for gap in gaps:
        now += gap
        allowed += limit.allows("192.0.2.7", now)
    assert allowed <= 20 + 10 * now + 1e-6
    assert allowed >= min(len(gaps), 20)


def test_one_hosts_flood_is_not_anothers() -> None:
    limit = RateLimit(10, 20)
    assert sum(limit.allows("192.0.2.7", 0.0) for _ in range(1000)) == 20
    assert limit.allows("192.0.2.8", 0.0)
    assert limit.allows("192.0.2.7", 0.1)


def test_who_is_remembered_is_bounded() -> None:
    limit, allowance, silences = RateLimit(1, 1), Allowance(), Silences()
    for number in range(2 * limits.MAX_TRACKED):
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        limit.allows(host, 0.0)
        allowance.received((host, 1), 1)
        allowance.verify((host, 1), 0.0)
        silences.silent((host, 1), 0.0)
    for kept in (limit._buckets, allowance._left, allowance._verified, silences._silent):
        assert len(kept) == limits.MAX_TRACKED


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 1500)), max_size=60))
def test_an_unproven_address_gets_at_most_twice_what_it_sent(traffic: list[tuple[bool, int]]) -> None:
    allowance, received, sent = Allowance(), 0, 0
    for comes_in, size in traffic:
        if comes_in:
            allowance.received(HERE, size)
            received += size
        elif allowance.spend(HERE, size, 0.0):
            sent += size
        assert sent <= AMPLIFICATION * received
    assert not allowance.spend(THERE, 1, 0.0)


def test_a_proof_holds_for_ten_minutes() -> None:
    allowance = Allowance()
    allowance.verify(HERE, 0.0)
    assert allowance.spend(HERE, 10**6, VERIFIED_SECONDS - 1)
    assert not allowance.spend(HERE, 1, VERIFIED_SECONDS)
    assert not allowance.spend(THERE, 1, 0.0)


def test_who_was_silent_twice_is_left_alone_for_a_minute() -> None:
    silences = Silences()
    silences.silent(HERE, 0.0)
    assert not silences.is_left_alone(HERE, 0.0)
    silences.silent(HERE, 1.0)
    assert silences.is_left_alone(HERE, REST_SECONDS)
    assert not silences.is_left_alone(HERE, REST_SECONDS + 1)
    assert not silences.is_left_alone(THERE, 1.0)
    silences.heard(HERE)
    assert not silences.is_left_alone(HERE, 1.0)
