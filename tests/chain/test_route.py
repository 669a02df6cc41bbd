import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.chain import search
from intelnav.chain.peerbook import Estimate
from intelnav.chain.route import ALTERNATES, Route, missing_layers, plan_route, plan_routes
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange
from intelnav.wire.fields import MAX_HOPS

ALL = LayerRange(8, 30)
FRESH = Estimate()


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(4, "big") * 8)


def advert(number: int, *slices: str, load: float = 0.0) -> Advert:
    ranges = tuple(LayerRange.parse(text) for text in slices)
    return Advert(peer(number), (Address("127.0.0.1", 7000 + number),), "b3-model", ranges, load=load)


def expecting(**estimates: Estimate) -> Callable[[PeerId], Estimate]:
    """What to expect of the peers with these numbers, written `p1=...`."""
    known = {peer(int(name[1:])): estimate for name, estimate in estimates.items()}
    return lambda each: known.get(each, FRESH)


def numbers(route: Route) -> list[int]:
    return [int.from_bytes(hop.peer.key[:4], "big") for hop in route.hops]


def shape(adverts: list[Advert], layers: LayerRange) -> list[str]:
    return [str(hop.layers) for hop in plan_route(adverts, layers).hops]


def test_ranges_that_meet_make_a_chain() -> None:
    adverts = [advert(3, "22..30"), advert(1, "8..15"), advert(2, "15..22")]
    assert shape(adverts, ALL) == ["8..15", "15..22", "22..30"]


def test_of_unknown_peers_fewest_hops_win_and_then_the_first_advert() -> None:
    adverts = [advert(1, "8..15"), advert(2, "15..30"), advert(3, "8..30"), advert(4, "8..30")]
    assert numbers(plan_route(adverts, ALL)) == [3]


def test_a_slice_may_stop_early_but_not_start_late() -> None:
    assert shape([advert(1, "8..20"), advert(2, "15..30")], ALL) == ["8..15", "15..30"]
    assert shape([advert(1, "8..30")], LayerRange(8, 29)) == ["8..29"]
    with pytest.raises(PeerError, match=r"\(7\.\.30\) do not join up to cover layers 8\.\.30"):
        plan_route([advert(1, "7..30")], ALL)


def test_a_gap_is_named() -> None:
    adverts = [advert(1, "8..15"), advert(2, "22..29"), advert(3, "2..5")]
    with pytest.raises(PeerError, match=r"hosts layers 15\.\.22, 29\.\.30$") as caught:
        plan_route(adverts, ALL)
    assert caught.value.code == Code.NOT_HOSTING
    assert missing_layers(adverts, ALL) == (LayerRange(15, 22), LayerRange(29, 30))
    assert missing_layers([], ALL) == (ALL,)


def test_avoided_peers_are_left_out_and_no_peer_serves_twice() -> None:
    both = [advert(1, "8..30"), advert(2, "8..30")]
    assert numbers(plan_route(both, ALL, {peer(1)})) == [2]
    with pytest.raises(PeerError):
        plan_route([advert(1, "8..15", "15..30")], ALL)
    assert numbers(plan_route([advert(1, "8..15", "15..30"), advert(2, "8..15")], ALL)) == [2, 1]


def test_slices_of_one_peer_in_several_adverts_are_one_peers() -> None:
    with pytest.raises(PeerError):
        plan_route([advert(1, "8..15"), advert(1, "15..30")], ALL)


def test_a_route_takes_its_legs_and_what_its_hops_compute() -> None:
    expect = expecting(
        p1=Estimate(leg=10, layer=2), p2=Estimate(leg=30, layer=3), p3=Estimate(leg=5, layer=1)
    )
    one = plan_route([advert(1, "8..30")], ALL, expect=expect)
    assert one.milliseconds == pytest.approx(10 + 22 * 2 + 10, abs=0.1)
    three = plan_route([advert(1, "8..15"), advert(2, "15..20"), advert(3, "20..30")], ALL, expect=expect)
    legs = 10 + (10 + 30) / 2 + (30 + 5) / 2 + 5
    assert three.milliseconds == pytest.approx(legs + 7 * 2 + 5 * 3 + 10 * 1, abs=0.2)
    assert three.cost == three.milliseconds


def test_near_fast_idle_and_blameless_peers_are_preferred() -> None:
    for worse in (Estimate(leg=60), Estimate(layer=9), Estimate(penalty=500)):
        assert numbers(
            plan_route([advert(1, "8..30"), advert(2, "8..30")], ALL, expect=expecting(p1=worse))
        ) == [2]
    assert numbers(plan_route([advert(1, "8..30", load=0.8), advert(2, "8..30", load=0.2)], ALL)) == [2]
    fast = Estimate(leg=1, layer=0.1)
    adverts = [advert(1, "8..30"), advert(2, "8..20"), advert(3, "15..30")]
    assert numbers(plan_route(adverts, ALL, expect=expecting(p2=fast, p3=fast))) == [2, 3]


def test_penalties_are_no_predicted_time() -> None:
    route = plan_route([advert(1, "8..30")], ALL, expect=expecting(p1=Estimate(10, 1, penalty=5000)))
    assert route.milliseconds == pytest.approx(42, abs=0.1)
    assert route.cost == pytest.approx(5042, abs=0.1)


@pytest.mark.parametrize("load", [nan, inf, -inf, -5.0, 1e300])
def test_a_load_that_cannot_be_makes_nobody_look_better(load: float) -> None:
    route = plan_route([advert(1, "8..30", load=load)], ALL)
    assert plan_route([advert(1, "8..30")], ALL).cost <= route.cost < 1000


def test_every_hop_has_alternates_best_first() -> None:
    adverts = [advert(1, "8..20"), advert(2, "20..30"), *(advert(n, "8..20") for n in range(3, 12))]
    adverts += [advert(20, "20..30"), advert(21, "8..19"), advert(22, "19..30"), advert(23, "20..29")]
    near = Estimate(leg=1)
    expect = expecting(p1=near, p2=near, p11=Estimate(leg=2), p7=Estimate(leg=3), p3=Estimate(penalty=9))
    route = plan_route(adverts, ALL, expect=expect)
    assert numbers(route) == [1, 2]
    first, second = (
        [int.from_bytes(each.hop.peer.key[:4], "big") for each in alternates]
        for alternates in route.alternates
    )
    assert first == [11, 7, 4, 5]
    assert len(first) == ALTERNATES
    assert second == [20]
    assert {str(each.hop.layers) for each in route.alternates[0]} == {"8..20"}


def test_a_hop_is_replaced_by_its_best_alternate_that_is_free_and_blameless() -> None:
    adverts = [advert(1, "8..20"), advert(2, "20..30"), *(advert(n, "8..20", "20..30") for n in (3, 4, 5))]
    near = Estimate(leg=1)
    expect = expecting(
        p1=near, p2=near, p3=Estimate(leg=2, penalty=1), p4=Estimate(leg=6), p5=Estimate(leg=9)
    )
    route = plan_route(adverts, ALL, expect=expect)
    assert numbers(route) == [1, 2]
    other = route.replacing(peer(1), {peer(1)})
    assert other is not None
    assert numbers(other) == [4, 2]
    assert [str(hop.layers) for hop in other.hops] == ["8..20", "20..30"]
    assert other.milliseconds > route.milliseconds
    third = other.replacing(peer(2), {peer(1), peer(2)})
    assert third is not None
    assert numbers(third) == [4, 5]
    assert third.replacing(peer(4), {peer(1), peer(2), peer(4)}) is None
    assert route.replacing(peer(5), {peer(5)}) is None


def test_several_routes_share_no_peer_and_come_cheapest_first() -> None:
    adverts = [advert(n, "8..20") for n in (1, 2, 3)] + [advert(n, "20..30") for n in (4, 5)]
    adverts.append(advert(6, "20..30", "8..20"))
    routes = plan_routes(adverts, ALL, 5, expect=expecting(p2=Estimate(leg=1), p5=Estimate(leg=1)))
    assert len(routes) == 3
    assert numbers(routes[0]) == [2, 5]
    used = [hop.peer for route in routes for hop in route.hops]
    assert len(set(used)) == len(used)
    assert [route.cost for route in routes] == sorted(route.cost for route in routes)
    assert len(plan_routes(adverts, ALL, 2)) == 2
    with pytest.raises(PeerError, match="hosts layers"):
        plan_routes(adverts[:2], ALL, 2)


def _spread(peers: int, slices: int, layers: int) -> list[Advert]:
    random_ = random.Random(7)
    adverts = []
    for number in range(peers):
        starts = [random_.randrange(layers - 1) for _ in range(slices)]
        ranges = [LayerRange(start, start + 1 + random_.randrange(12)) for start in starts]
        adverts.append(Advert(peer(number), (), "m", tuple(ranges)))
    return adverts


def test_thousands_of_hostile_slices_are_searched_in_bounded_time() -> None:
    layers = LayerRange(0, 100)
    random_ = random.Random(5)
    estimates = {peer(n): Estimate(random_.uniform(0, 50), random_.uniform(0, 2)) for n in range(2000)}
    started = time.process_time()
    route = plan_route(_spread(64, 2000, 100), layers, expect=estimates.__getitem__)
    assert _covered(route) == list(range(100))
    steps = tuple(LayerRange(at, at + 1 + at % 3) for at in range(99))
    hostile = [Advert(peer(n), (), "m", steps) for n in range(500)]
    assert _covered(plan_route(hostile, LayerRange(0, 32), expect=estimates.__getitem__)) == list(range(32))
    plan_route(_spread(300, 30, 100), layers, expect=estimates.__getitem__)
    assert time.process_time() - started < 10


def test_a_text_about_hostile_slices_stays_short() -> None:
    with pytest.raises(PeerError, match=r"and \d+ more\) do not join up") as caught:
        plan_route([advert(1, *(f"{n}..{n + 2}" for n in range(5000)))], ALL)
    assert len(str(caught.value)) < 400


def test_cheap_peers_with_many_slices_cannot_hide_the_only_way_on() -> None:
    """Every one of them looks better than the honest peers, and none reaches the end."""
    layers = LayerRange(0, 40)
    bait = [
        Advert(peer(n), (), "m", tuple(LayerRange(at, at + 1) for at in range(n % 9, 39))) for n in range(40)
    ]
    honest = [advert(100 + n, f"{at}..{at + 5}") for n, at in enumerate(range(0, 40, 5))]
    expect = expecting(**{f"p{n}": Estimate(0.001 * n, 0.001) for n in range(1, 40)})
    route = plan_route(bait + honest, layers, expect=expect)
    assert _covered(route) == list(range(40))
    assert numbers(route)[-1] == 107


def test_a_chain_has_no_more_hops_than_a_forward_can_pass() -> None:
    ones = [advert(n, f"{n}..{n + 1}") for n in range(80)]
    near = {f"p{n}": Estimate(0.001, 0.001) for n in range(80)}
    with pytest.raises(PeerError, match="do not join up"):
        plan_route(ones, LayerRange(0, 80), expect=expecting(**near))
    route = plan_route([*ones, advert(90, "0..40")], LayerRange(0, 80), expect=expecting(**near))
    assert len(route.hops) == 41
    assert len(plan_route(ones, LayerRange(0, MAX_HOPS), expect=expecting(**near)).hops) == MAX_HOPS


def _covered(route: Route) -> list[int]:
    return [layer for hop in route.hops for layer in range(hop.layers.start, hop.layers.end)]


ranges = st.tuples(st.integers(0, 11), st.integers(1, 6)).map(
    lambda t: LayerRange(t[0], min(12, t[0] + t[1]))
)
swarms = st.lists(st.lists(ranges, min_size=1, max_size=4), max_size=8)
milliseconds = st.floats(0, 100)
estimates = st.builds(Estimate, milliseconds, milliseconds, milliseconds)


def _adverts(offers: list[list[LayerRange]]) -> list[Advert]:
    return [Advert(peer(n), (), "m", tuple(each)) for n, each in enumerate(offers)]


@given(swarms, st.lists(estimates, min_size=8, max_size=8), st.integers(1, 3))
def test_every_route_covers_each_layer_once_or_the_gap_is_named(
    offers: list[list[LayerRange]], expected: list[Estimate], count: int
) -> None:
    adverts, wanted = _adverts(offers), LayerRange(2, 12)
    missing = [n for n in range(2, 12) if not any(o.start <= n < o.end for each in offers for o in each)]
    assert [n for gap in missing_layers(adverts, wanted) for n in range(gap.start, gap.end)] == missing
    try:
        routes = plan_routes(adverts, wanted, count, expect=lambda each: expected[each.key[3]])
    except PeerError as error:
        assert error.code == Code.NOT_HOSTING
        for gap in missing_layers(adverts, wanted):
            assert str(gap) in str(error)
        return
    assert not missing
    assert len(routes) <= count
    taken = [hop.peer for route in routes for hop in route.hops]
    assert len(set(taken)) == len(taken)
    for route in routes:
        assert _covered(route) == list(range(2, 12))
        candidates = [*route.chosen, *(each for hop in route.alternates for each in hop)]
        for candidate in candidates:
            mine = next(a for a in adverts if a.peer == candidate.hop.peer).slices
            assert any(s.start == candidate.hop.layers.start and s.covers(candidate.hop.layers) for s in mine)


def _all_chains(
    adverts: list[Advert], wanted: LayerRange, at: int, used: tuple[tuple[PeerId, int, int], ...] = ()
) -> Iterator[tuple[tuple[PeerId, int, int], ...]]:
    if at == wanted.end:
        yield used
        return
    for each in adverts:
        if all(each.peer != other for other, _, _ in used):
            ends = {
                n for o in each.slices if o.start == at for n in range(at + 1, min(o.end, wanted.end) + 1)
            }
            for end in ends:
                yield from _all_chains(adverts, wanted, end, (*used, (each.peer, at, end)))


def _cost(chain: tuple[tuple[PeerId, int, int], ...], expected: list[Estimate]) -> float:
    """The cost as it is told, leg by leg."""
    known = [expected[each.key[3]] for each, _, _ in chain]
    between = sum((a.leg + b.leg) / 2 for a, b in pairwise(known))
    work = sum(known[i].layer * (end - start) + known[i].penalty for i, (_, start, end) in enumerate(chain))
    return known[0].leg + between + known[-1].leg + work + search._HOP * len(chain)


short = st.tuples(st.integers(0, 6), st.integers(1, 4)).map(lambda t: LayerRange(t[0], t[0] + t[1]))


# With four peers there are at most as many sets of used ones as labels, so nothing is cut and the best is found.
@given(
    st.lists(st.lists(short, min_size=1, max_size=4), max_size=4),
    st.lists(estimates, min_size=4, max_size=4),
)
def test_the_cost_is_that_of_the_best_of_all_chains(
    offers: list[list[LayerRange]], expected: list[Estimate]
) -> None:
    adverts, wanted = _adverts(offers), LayerRange(0, 7)
    chains = list(_all_chains(adverts, wanted, 0))
    try:
        route = plan_route(adverts, wanted, expect=lambda each: expected[each.key[3]])
    except PeerError:
        assert not chains
        return
    assert route.cost == pytest.approx(min(_cost(chain, expected) for chain in chains))
