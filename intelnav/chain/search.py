"""The cheapest way over layer boundaries, in stages of which no peer runs two. Pure; times are milliseconds.

A leg between two peers is not measured; it is taken to be half the sum of the entry's legs to both. So a chain costs
what its stages cost, each by itself: a full leg for each stage, and half a leg more for the first and for the last one.

That leaves a shortest path over boundaries. What keeps it from being simple is that a peer with several slices may
serve one stage only, and with that rule alone the problem is as hard as any in NP. So a bounded number of labels, the
ways to reach a boundary, goes on from each. The bound cuts nothing in an honest swarm, where few peers have several
slices that matter; beyond it the way may be dearer than the best. Whatever others offer, it is found where
peers that have one slice each can make it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter, itemgetter
from typing import NamedTuple

from intelnav.chain.peerbook import Estimate
from intelnav.domain.advert import Address
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange
from intelnav.wire.fields import MAX_HOPS

# Opening, checking and sealing a message at each hop.
_HOP = 0.05
# Labels that go on from a boundary, and peers with several slices that are tried for one stage.
_LABELS = 16
_SHARED = 4


@dataclass(frozen=True, slots=True)
class Offer:
    """A slice that a peer would run from `start` up to `reach` or less. `expected` has the load of the peer in it."""

    peer: PeerId
    addresses: tuple[Address, ...]
    start: int
    reach: int
    expected: Estimate

    def milliseconds(self, end: int, chain: LayerRange) -> float:
        """What a token takes for `start` up to `end` and the way there, without the penalty."""
        at_the_ends = (self.start == chain.start) + (end == chain.end)
        way = self.expected.leg * (1 + at_the_ends / 2)
        return _HOP + way + self.expected.layer * (end - self.start)

    def cost(self, end: int, chain: LayerRange) -> float:
        """What the search minimises the sum of."""
        return self.milliseconds(end, chain) + self.expected.penalty


class _Label(NamedTuple):
    """A way to a boundary. `used` has a bit for each of its peers that could be wanted again."""

    cost: float
    hops: int
    used: int
    offer: Offer | None
    end: int
    before: "_Label | None"


# Cost, bit (0 for a peer that nothing else wants), offer. Plain, since very many are made.
_Edge = tuple[float, int, Offer]


def cheapest(offers: Iterable[Offer], chain: LayerRange) -> list[tuple[Offer, int]] | None:
    """The offers to take, each with the layer that it stops before; None if there is no way, or none was found.

    Where costs are equal, fewer hops win. Takes time that grows with offers times boundaries, whatever is on offer.
    """
    starts = _by_start(offers, chain)
    stops = _stops(starts, chain)
    if stops[0] != chain.start:
        return None
    bits = _bits([starts[at] for at in stops[:-1]])
    wanted_later = [0] * len(stops)
    for index in range(len(stops) - 2, -1, -1):
        here = sum({bits.get(offer.peer, 0) for offer in starts[stops[index]]})
        wanted_later[index] = wanted_later[index + 1] | here
    labels: dict[int, list[_Label]] = {stop: [] for stop in stops}
    labels[chain.start] = [_Label(0.0, 0, 0, None, chain.start, None)]
    for index, at in enumerate(stops[:-1]):
        settled = _settle(labels.pop(at), wanted_later[index])
        for stop in stops[index + 1 :] if settled else ():
            free, shared = _edges(starts[at], stop, chain, bits)
            for label in settled:
                labels[stop] += _onward(label, stop, free, shared)
    best = min(labels[chain.end], key=attrgetter("cost", "hops"), default=None)
    return None if best is None else _way(best)


def _by_start(offers: Iterable[Offer], chain: LayerRange) -> dict[int, list[Offer]]:
    """For each boundary the offers that start there; of one peer's the one that reaches furthest."""
    starts: dict[int, dict[PeerId, Offer]] = {}
    for offer in offers:
        if chain.start <= offer.start < chain.end:
            here = starts.setdefault(offer.start, {})
            known = here.get(offer.peer)
            if known is None or offer.reach > known.reach:
                here[offer.peer] = offer
    return {start: list(here.values()) for start, here in starts.items()}


def _stops(starts: dict[int, list[Offer]], chain: LayerRange) -> list[int]:
    """The boundaries from which the end can be reached, in order; the end is the last."""
    stops = [chain.end]
    for at in sorted(starts, reverse=True):
        if any(offer.reach >= stops[-1] for offer in starts[at]):
            stops.append(at)
    return stops[::-1]


def _bits(starts: Iterable[list[Offer]]) -> dict[PeerId, int]:
    """A bit for each peer that could serve at two boundaries."""
    seen: set[PeerId] = set()
    bits: dict[PeerId, int] = {}
    for offers in starts:
        for offer in offers:
            if offer.peer in seen and offer.peer not in bits:
                bits[offer.peer] = 1 << len(bits)
            seen.add(offer.peer)
    return bits


def _edges(
    offers: list[Offer], stop: int, chain: LayerRange, bits: dict[PeerId, int]
) -> tuple[list[_Edge], list[_Edge]]:
    """The cheapest way from one boundary to another that takes nothing from later stages, and all that are cheaper."""
    edges = [
        (offer.cost(stop, chain), bits.get(offer.peer, 0), offer) for offer in offers if offer.reach >= stop
    ]
    edges.sort(key=itemgetter(0))
    for index, edge in enumerate(edges):
        if not edge[1]:
            return [edge], edges[:index]
    return [], edges


def _onward(label: _Label, stop: int, free: list[_Edge], shared: list[_Edge]) -> list[_Label]:
    """The ways that lead on from a label to a boundary."""
    if label.hops == MAX_HOPS:
        return []
    unused = islice((edge for edge in shared if not label.used & edge[1]), _SHARED)
    return [
        _Label(label.cost + cost, label.hops + 1, label.used | bit, offer, stop, label)
        for cost, bit, offer in (*unused, *free)
    ]


def _settle(labels: list[_Label], wanted_later: int) -> list[_Label]:
    """The labels that go on from a boundary: none that is dearer, longer and less free than another."""
    trimmed = [label._replace(used=label.used & wanted_later) for label in labels]
    trimmed.sort(key=attrgetter("cost", "hops"))
    settled: list[_Label] = []
    for label in trimmed:
        if any(other.hops <= label.hops and not other.used & ~label.used for other in settled):
            continue
        if len(settled) == _LABELS:
            # The one that can go on wherever any can, so that cheap dead ends cannot push it out.
            freest = min(trimmed, key=lambda label: (label.used.bit_count(), label.hops, label.cost))
            if all(other is not freest for other in settled):
                settled[-1] = freest
            break
        settled.append(label)
    return settled


def _way(label: _Label) -> list[tuple[Offer, int]]:
    way: list[tuple[Offer, int]] = []
    at: _Label | None = label
    while at is not None and at.offer is not None:
        way.append((at.offer, at.end))
        at = at.before
    return way[::-1]
