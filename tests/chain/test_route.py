import pytest
from hypothesis import given
from hypothesis import strategies as st

from intelnav.chain.route import plan_route
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange


def advert(number: int, *slices: str) -> Advert:
    ranges = tuple(LayerRange.parse(text) for text in slices)
    return Advert(PeerId(bytes([number]) * 32), (Address("127.0.0.1", 7000 + number),), "b3-model", ranges)


def shape(*args: object) -> list[str]:
    return [str(hop.layers) for hop in plan_route(*args)]  # type: ignore[arg-type] # the tests' own arguments


def test_ranges_that_meet_make_a_chain() -> None:
    adverts = [advert(3, "22..30"), advert(1, "8..15"), advert(2, "15..22")]
    assert shape(adverts, LayerRange(8, 30)) == ["8..15", "15..22", "22..30"]


def test_fewest_hops_win_and_then_the_first_advert() -> None:
    adverts = [advert(1, "8..15"), advert(2, "15..30"), advert(3, "8..30"), advert(4, "8..30")]
    (hop,) = plan_route(adverts, LayerRange(8, 30))
    assert hop.peer == adverts[2].peer


def test_a_slice_may_stop_early_but_not_start_late() -> None:
    assert shape([advert(1, "8..20"), advert(2, "15..30")], LayerRange(8, 30)) == ["8..15", "15..30"]
    assert shape([advert(1, "8..30")], LayerRange(8, 29)) == ["8..29"]
    with pytest.raises(PeerError, match="do not join up"):
        plan_route([advert(1, "7..30")], LayerRange(8, 30))


def test_a_gap_is_named() -> None:
    with pytest.raises(PeerError, match=r"hosts layers 15\.\.22, 29\.\.30$") as caught:
        plan_route([advert(1, "8..15"), advert(2, "22..29")], LayerRange(8, 30))
    assert caught.value.code == Code.NOT_HOSTING


def test_avoided_peers_are_left_out_and_no_peer_serves_twice() -> None:
    both = [advert(1, "8..30"), advert(2, "8..30")]
    assert plan_route(both, LayerRange(8, 30), {both[0].peer})[0].peer == both[1].peer
    with pytest.raises(PeerError):
        plan_route([advert(1, "8..15", "15..30")], LayerRange(8, 30))
    chain = plan_route([advert(1, "8..15", "15..30"), advert(2, "8..15")], LayerRange(8, 30))
    assert [hop.peer for hop in chain] == [advert(2).peer, advert(1).peer]


def test_hostile_adverts_cannot_make_the_search_explode() -> None:
    steps = [f"{n}..{n + 1}" for n in range(40)]
    with pytest.raises(PeerError):
        plan_route([advert(n, *steps) for n in range(20)], LayerRange(0, 41))


ranges = st.tuples(st.integers(0, 11), st.integers(1, 6)).map(
    lambda t: LayerRange(t[0], min(12, t[0] + t[1]))
)


@given(st.lists(st.lists(ranges, min_size=1, max_size=2), max_size=8))
def test_every_route_covers_each_layer_once(offers: list[list[LayerRange]]) -> None:
    adverts = [Advert(PeerId(bytes([n]) * 32), (), "m", tuple(each)) for n, each in enumerate(offers)]
    try:
        route = plan_route(adverts, LayerRange(2, 12))
    except PeerError as error:
        assert error.code == Code.NOT_HOSTING
        return
    assert [layer for hop in route for layer in range(hop.layers.start, hop.layers.end)] == list(range(2, 12))
    assert len({hop.peer for hop in route}) == len(route)
    for hop in route:
        mine = next(a for a in adverts if a.peer == hop.peer)
        assert any(s.start == hop.layers.start and s.covers(hop.layers) for s in mine.slices)
