"""From adverts to hops: which peers, in which order, cover a range of layers once each, and soonest. Pure.

All times are milliseconds for one token.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from math import isfinite

from intelnav.chain.peerbook import Estimate
from intelnav.chain.search import Offer, cheapest
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange

# Other peers that are named for each hop.
ALTERNATES = 4
# A peer computes as if alone when it is idle, and ten times slower when it has no session left.
_MOST_LOAD = 0.9
# Slices of one peer that are looked at; nobody runs more, and each costs time.
_SLICES = 32
# The slices that an error lists.
_LISTED = 16


@dataclass(frozen=True, slots=True)
class RouteHop:
    """One stage: the peer, where it listens, and the layers that it is asked to run."""

    peer: PeerId
    addresses: tuple[Address, ...]
    layers: LayerRange


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer for a hop: its share of a token's predicted time, and the penalty of its late failures on top."""

    hop: RouteHop
    milliseconds: float
    penalty: float


@dataclass(frozen=True, slots=True)
class Route:
    """A chain: whom to take for each hop, and who could take each one's place, best first."""

    chosen: tuple[Candidate, ...]
    alternates: tuple[tuple[Candidate, ...], ...]

    @property
    def hops(self) -> tuple[RouteHop, ...]:
        """The chain itself, in the order of the layers."""
        return tuple(candidate.hop for candidate in self.chosen)

    @property
    def milliseconds(self) -> float:
        """The predicted time of a token: all legs, and what every hop computes."""
        return sum(candidate.milliseconds for candidate in self.chosen)

    @property
    def cost(self) -> float:
        """What the choice minimised: the predicted time with all penalties."""
        return self.milliseconds + sum(candidate.penalty for candidate in self.chosen)

    def replacing(self, peer: PeerId, avoid: Collection[PeerId]) -> "Route | None":
        """This chain with another peer in that one's place; None if it is not in it, or nobody else is.

        Who failed lately takes no place: a new plan has to weigh that.
        """
        taken = {hop.peer for hop in self.hops} | set(avoid)
        for index, candidate in enumerate(self.chosen):
            if candidate.hop.peer != peer:
                continue
            for other in self.alternates[index]:
                if other.hop.peer not in taken and not other.penalty:
                    return replace(self, chosen=(*self.chosen[:index], other, *self.chosen[index + 1 :]))
        return None


def plan_route(
    adverts: Iterable[Advert],
    layers: LayerRange,
    avoid: Collection[PeerId] = frozenset(),
    expect: Callable[[PeerId], Estimate] = lambda _: Estimate(),
) -> Route:
    """The chain over `layers` that `expect` makes the cheapest; among equals the shortest.

    A peer runs a slice from its first layer on and may stop before its last one, so a chain also closes where
    ranges overlap. No peer serves two stages. Raises PeerError `not_hosting` that names the layers without a host.
    """
    return plan_routes(adverts, layers, 1, avoid, expect)[0]


def plan_routes(
    adverts: Iterable[Advert],
    layers: LayerRange,
    count: int,
    avoid: Collection[PeerId] = frozenset(),
    expect: Callable[[PeerId], Estimate] = lambda _: Estimate(),
) -> tuple[Route, ...]:
    """Up to `count` chains that share no peer, each the cheapest of what those before it left; at least one.

    Raises as `plan_route` does.
    """
    adverts = [advert for advert in adverts if advert.peer not in avoid]
    offers = _offers(adverts, layers, expect)
    routes: list[Route] = []
    while len(routes) < max(1, count):
        way = cheapest(offers, layers)
        if way is None:
            break
        peers = {offer.peer for offer, _ in way}
        offers = [offer for offer in offers if offer.peer not in peers]
        chosen = tuple(_candidate(offer, end, layers) for offer, end in way)
        alternates = tuple(_alternates(offers, candidate.hop.layers, layers) for candidate in chosen)
        routes.append(Route(chosen, alternates))
    if not routes:
        raise PeerError(Code.NOT_HOSTING, _why_none(adverts, layers))
    return tuple(routes)


def missing_layers(adverts: Iterable[Advert], layers: LayerRange) -> tuple[LayerRange, ...]:
    """The parts of `layers` that no advert has, in order."""
    missing: list[LayerRange] = []
    at = layers.start
    for offer in sorted(offer for advert in adverts for offer in advert.slices):
        if offer.start >= layers.end:
            break
        if offer.start > at:
            missing.append(LayerRange(at, offer.start))
        at = max(at, offer.end)
    if at < layers.end:
        missing.append(LayerRange(at, layers.end))
    return tuple(missing)


def _offers(adverts: list[Advert], layers: LayerRange, expect: Callable[[PeerId], Estimate]) -> list[Offer]:
    """Every slice that can be of use. A peer with several adverts is as loaded as the worst of them says."""
    loads: dict[PeerId, float] = {}
    for advert in adverts:
        load = advert.load if isfinite(advert.load) else _MOST_LOAD
        loads[advert.peer] = max(loads.get(advert.peer, 0.0), min(load, _MOST_LOAD))
    expected: dict[PeerId, Estimate] = {}
    for peer, load in loads.items():
        estimate = expect(peer)
        expected[peer] = replace(estimate, layer=estimate.layer / (1 - load))
    left = dict.fromkeys(loads, _SLICES)
    offers: list[Offer] = []
    for advert in adverts:
        peer = advert.peer
        for offer in advert.slices:
            if layers.start <= offer.start < layers.end and left[peer]:
                left[peer] -= 1
                reach = min(offer.end, layers.end)
                offers.append(Offer(peer, advert.addresses, offer.start, reach, expected[peer]))
    return offers


def _candidate(offer: Offer, end: int, chain: LayerRange) -> Candidate:
    hop = RouteHop(offer.peer, offer.addresses, LayerRange(offer.start, end))
    return Candidate(hop, offer.milliseconds(end, chain), offer.expected.penalty)


def _alternates(offers: list[Offer], layers: LayerRange, chain: LayerRange) -> tuple[Candidate, ...]:
    """The best of those peers that can run exactly these layers."""
    able: dict[PeerId, Offer] = {}
    for offer in offers:
        if offer.start == layers.start and offer.reach >= layers.end:
            able.setdefault(offer.peer, offer)
    best = sorted(able.values(), key=lambda offer: offer.cost(layers.end, chain))[:ALTERNATES]
    return tuple(_candidate(offer, layers.end, chain) for offer in best)


def _why_none(adverts: list[Advert], layers: LayerRange) -> str:
    if missing := missing_layers(adverts, layers):
        return f"no peer can be reached that hosts layers {_listed(missing)}"
    useful = {
        offer
        for advert in adverts
        for offer in advert.slices
        if offer.end > layers.start and offer.start < layers.end
    }
    return f"the slices on offer ({_listed(sorted(useful))}) do not join up to cover layers {layers}"


def _listed(ranges: Collection[LayerRange]) -> str:
    shown = [str(each) for each in ranges][:_LISTED]
    more = len(ranges) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
