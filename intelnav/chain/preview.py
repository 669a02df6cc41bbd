"""What a plan looks like as plain data: the chains that would be taken, or the layers that nobody has. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

from intelnav.chain.peerbook import Estimate
from intelnav.chain.route import Candidate, Route, missing_layers, plan_routes
from intelnav.domain.advert import Advert
from intelnav.domain.errors import PeerError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange


def preview(
    adverts: Sequence[Advert],
    layers: LayerRange | None,
    count: int,
    expect: Callable[[PeerId], Estimate],
) -> dict[str, Any]:
    """Up to `count` chains over `layers`, which is None if nothing has to run elsewhere; everything is plain JSON.

    `layers`, `missing` (ranges that no peer has), `problem` (why there is no chain, or ""), and `routes`, cheapest
    first, each with `milliseconds` for a token and `hops`. A hop has `peer`, `addresses`, `layers`, `milliseconds`
    (its share), `penalty` (milliseconds, for late failures) and `alternates`, which are like hops, best first.
    """
    if layers is None:
        return {"layers": None, "missing": [], "problem": "", "routes": []}
    problem = ""
    routes: tuple[Route, ...] = ()
    try:
        routes = plan_routes(adverts, layers, count, expect=expect)
    except PeerError as error:
        problem = str(error)
    return {
        "layers": str(layers),
        "missing": [str(each) for each in missing_layers(adverts, layers)],
        "problem": problem,
        "routes": [{"milliseconds": round(route.milliseconds, 3), "hops": _hops(route)} for route in routes],
    }


def _hops(route: Route) -> list[dict[str, Any]]:
    return [
        {**_candidate(chosen), "alternates": [_candidate(other) for other in others]}
        for chosen, others in zip(route.chosen, route.alternates, strict=True)
    ]


def _candidate(candidate: Candidate) -> dict[str, Any]:
    hop = candidate.hop
    return {
        "peer": str(hop.peer),
        "addresses": [str(address) for address in hop.addresses],
        "layers": str(hop.layers),
        "milliseconds": round(candidate.milliseconds, 3),
        "penalty": round(candidate.penalty, 3),
    }
