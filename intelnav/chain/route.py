"""From adverts to hops: which peers, in which order, cover a range of layers once each. Pure."""

from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import Code, PeerError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange

# Far above any honest set of adverts; hostile ones could make the search grow with 2^peers.
_MAX_STATES = 10_000


@dataclass(frozen=True, slots=True)
class RouteHop:
    """One stage: the peer, where it listens, and the layers that it is asked to run."""

    peer: PeerId
    addresses: tuple[Address, ...]
    layers: LayerRange


def plan_route(
    adverts: Iterable[Advert], layers: LayerRange, avoid: Collection[PeerId] = frozenset()
) -> tuple[RouteHop, ...]:
    """The shortest chain over `layers`; among equals the one whose adverts come first.

    A peer runs a slice from its first layer on and may stop before its last one, so a chain also closes where
    ranges overlap. No peer serves two stages. Raises PeerError `not_hosting` that names the layers without a host.
    """
    offers = [
        (advert, offer)
        for advert in adverts
        if advert.peer not in avoid
        for offer in advert.slices
        if offer.end > layers.start and offer.start < layers.end
    ]
    ends = {layers.end} | {offer.start for _, offer in offers}
    counts = Counter(advert.peer for advert, _ in offers)
    paths: deque[tuple[RouteHop, ...]] = deque([()])
    seen: set[tuple[int, frozenset[PeerId]]] = set()
    while paths and len(seen) < _MAX_STATES:
        path = paths.popleft()
        at = path[-1].layers.end if path else layers.start
        if at == layers.end:
            return path
        used = frozenset(hop.peer for hop in path)
        # Only a peer with several slices can be wanted twice, so only those tell two ways of getting here apart.
        state = at, frozenset(peer for peer in used if counts[peer] > 1)
        if state in seen:
            continue
        seen.add(state)
        for advert, offer in offers:
            if offer.start != at or advert.peer in used:
                continue
            stops = sorted((end for end in ends if at < end <= offer.end), reverse=True)
            paths.extend(
                (*path, RouteHop(advert.peer, advert.addresses, LayerRange(at, end))) for end in stops
            )
    raise PeerError(Code.NOT_HOSTING, _missing([offer for _, offer in offers], layers))


def _missing(offers: list[LayerRange], layers: LayerRange) -> str:
    bare = [at for at in range(layers.start, layers.end) if not any(o.start <= at < o.end for o in offers)]
    if not bare:
        starts = ", ".join(str(offer) for offer in sorted(set(offers)))
        return f"the slices on offer ({starts}) do not join up to cover layers {layers}"
    runs: list[LayerRange] = []
    for at in bare:
        if runs and runs[-1].end == at:
            runs[-1] = LayerRange(runs[-1].start, at + 1)
        else:
            runs.append(LayerRange(at, at + 1))
    return f"no peer can be reached that hosts layers {', '.join(map(str, runs))}"
