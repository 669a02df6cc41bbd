from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.chain.peerbook import (
    FIGURE_HALF_LIFE,
    LAYER,
    PENALTY_HALF_LIFE,
    ROUND_TRIP,
    Estimate,
    PeerBook,
)
from intelnav.domain.errors import Code
from intelnav.domain.identity import PeerId

M = "b3-model"
NEVER = 1e9


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(4, "big") * 8)


A, B, C = peer(1), peer(2), peer(3)


def test_nothing_is_known_of_a_stranger() -> None:
    book = PeerBook()
    assert book.figures(A, 0.0) is None
    assert book.estimates(M, 0.0)(A) == Estimate(ROUND_TRIP / 2, LAYER, 0.0)


def test_a_leg_is_half_the_measured_round_trip() -> None:
    book = PeerBook()
    book.measured(A, 200.0, 5.0)
    assert book.estimates(M, 5.0)(A).leg == 100.0
    assert book.estimates(M, 5.0)(B).leg == ROUND_TRIP / 2


def test_new_observations_count_more_the_older_the_known_ones_are() -> None:
    soon, late = PeerBook(), PeerBook()
    for book, now in ((soon, 1.0), (late, 10 * FIGURE_HALF_LIFE)):
        book.measured(A, 400.0, 0.0)
        book.measured(A, 100.0, now)
    assert soon.estimates(M, 1.0)(A).leg * 2 == pytest.approx(0.75 * 400 + 0.25 * 100, rel=0.01)
    assert late.estimates(M, 10 * FIGURE_HALF_LIFE)(A).leg * 2 == pytest.approx(100, rel=0.01)


def test_what_was_observed_fades_to_what_is_usual() -> None:
    book = PeerBook()
    book.measured(A, 450.0, 0.0)
    book.computed(A, M, 90.0, 10, 0.0)
    book.computed(B, M, 10.0, 10, 0.0)
    book.computed(C, M, 20.0, 10, 0.0)
    fresh = book.estimates(M, 0.0)(A)
    half = book.estimates(M, FIGURE_HALF_LIFE)(A)
    gone = book.estimates(M, NEVER)(A)
    assert (fresh.leg, fresh.layer) == (225.0, 9.0)
    assert half.leg == pytest.approx((450 + ROUND_TRIP) / 4)
    assert half.layer == pytest.approx((9 + 2) / 2)
    assert (gone.leg, gone.layer) == pytest.approx((ROUND_TRIP / 2, 2.0))


def test_time_is_kept_for_each_layer_row_and_model() -> None:
    book = PeerBook()
    book.computed(A, M, 120.0, 10, 0.0, rows=4)
    book.computed(A, "b3-other", 70.0, 7, 0.0)
    assert book.estimates(M, 0.0)(A).layer == 3.0
    assert book.estimates("b3-other", 0.0)(A).layer == 10.0
    # A stranger's layer is taken to cost what those of known peers do.
    assert book.estimates(M, 0.0)(B).layer == 3.0
    assert book.estimates("b3-third", 0.0)(A).layer == LAYER


def test_penalties_add_up_and_fade() -> None:
    book = PeerBook()
    book.failed(A, Code.BUSY, 0.0)
    book.failed(B, Code.CLOSED, 0.0)
    busy, dead = (book.estimates(M, 0.0)(each).penalty for each in (A, B))
    assert 0 < busy < dead
    assert book.estimates(M, PENALTY_HALF_LIFE)(B).penalty == pytest.approx(dead / 2)
    assert book.estimates(M, 100 * PENALTY_HALF_LIFE)(B).penalty == 0.0
    book.failed(B, Code.TIMEOUT, PENALTY_HALF_LIFE)
    assert book.estimates(M, PENALTY_HALF_LIFE)(B).penalty == pytest.approx(1.5 * dead)
    figures = book.figures(B, PENALTY_HALF_LIFE)
    assert figures is not None
    assert figures.failures == (Code.CLOSED, Code.TIMEOUT)


def test_a_peer_that_served_is_forgiven_and_one_that_was_asked_too_much_is_not_blamed() -> None:
    book = PeerBook()
    book.failed(A, Code.TOO_LONG, 0.0)
    book.failed(B, Code.CLOSED, 0.0)
    book.computed(B, M, 10.0, 5, 1.0)
    assert [book.estimates(M, 1.0)(each).penalty for each in (A, B)] == [0.0, 0.0]
    figures = book.figures(B, 1.0)
    assert figures is not None
    assert figures.failures == ()


@pytest.mark.parametrize("number", [nan, inf, -inf, -1.0, 0.0, 5e-324, 1e9])
def test_numbers_that_cannot_be_are_not_taken(number: float) -> None:
    book = PeerBook()
    book.measured(A, number, 0.0)
    book.computed(A, M, number, 4, 0.0)
    book.computed(A, M, 4.0, 0, 0.0)
    book.computed(A, M, 4.0, 4, 0.0, rows=0)
    assert len(book) == 0


def test_the_peers_heard_of_last_are_kept() -> None:
    book = PeerBook(limit=3)
    for number in range(5):
        book.measured(peer(number), 10.0, 0.0)
        book.failed(peer(0), Code.BUSY, 0.0)
    assert len(book) == 3
    assert [book.figures(peer(n), 0.0) is not None for n in range(5)] == [True, False, False, True, True]


def test_what_is_kept_of_one_peer_is_bounded() -> None:
    book = PeerBook()
    for number in range(100):
        book.computed(A, f"model-{number}", 5.0, 5, 0.0)
    for _ in range(100):
        book.failed(A, Code.CLOSED, 0.0)
    figures = book.figures(A, 0.0)
    assert figures is not None
    assert list(figures.layers) == [f"model-{number}" for number in range(92, 100)]
    assert len(figures.failures) == 4
    assert figures.penalty <= 20_000


numbers = st.floats() | st.sampled_from([0.001, 5.0, 60_000.0])
events = st.one_of(
    st.tuples(st.just("measured"), numbers),
    st.tuples(st.just("computed"), numbers, st.integers(-2, 200)),
    st.tuples(st.just("failed"), st.sampled_from(Code)),
)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 5000), events), max_size=40), st.floats(0, 1e6))
def test_whatever_is_told_estimates_are_usable(
    told: list[tuple[int, float, tuple[object, ...]]], later: float
) -> None:
    book, now = PeerBook(limit=4), 0.0
    for number, seconds, event in told:
        now += seconds
        match event:
            case ("measured", float(trip)):
                book.measured(peer(number), trip, now)
            case ("computed", float(time), int(layers)):
                book.computed(peer(number), M, time, layers, now)
            case ("failed", Code() as code):
                book.failed(peer(number), code, now)
    assert len(book) <= 4
    expect = book.estimates(M, now + later)
    for number in range(6):
        estimate = expect(peer(number))
        assert all(isfinite(each) for each in (estimate.leg, estimate.layer, estimate.penalty))
        assert 0 < estimate.leg <= 30_000
        assert 0 < estimate.layer <= 60_000
        assert 0 <= estimate.penalty <= 20_000
