"""The network as this node sees it, over HTTP: its peers, the chains it would take, and what the swarm serves."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from intelnav.api.errors import ApiError
from intelnav.domain.advert import Advert
from intelnav.domain.errors import IntelNavError
from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange

MAX_ROUTES = 16


@dataclass(frozen=True, slots=True)
class Link:
    """A connection to a peer; `round_trip` is that of the last ping, in milliseconds, None before the first."""

    peer: str
    address: str
    round_trip: float | None
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class Contact:
    """A node of the DHT that this one keeps in touch with."""

    peer: str
    address: str


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that the DHT knows: for how many peers it has room, and the part of that in use, 0 to 1."""

    peer: str
    addresses: tuple[str, ...]
    room: int
    load: float


@dataclass(frozen=True, slots=True)
class Seeds:
    """A signed list of addresses to start from; `state` is none, fresh, stale or expired, `reason` the last failure."""

    url: str
    state: str
    addresses: int
    reason: str


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Whom this node knows. `seen_at` is its own address as others confirmed it, None before enough of them did."""

    peer: str
    seen_at: str | None
    links: tuple[Link, ...]
    contacts: tuple[Contact, ...]
    relays: tuple[Relay, ...]
    seeds: tuple[Seeds, ...]


@dataclass(frozen=True, slots=True)
class Cover:
    """Neighbouring layers, START..END, and how many hosts have them."""

    layers: str
    hosts: int


@dataclass(frozen=True, slots=True)
class SwarmModel:
    """A model that the swarm serves, as its hosts describe it. `hosts` have any of its layers, `cover` tells which.

    `missing` are the layers that no host has.
    """

    name: str
    cid: str
    architecture: str
    blocks: int
    size_bytes: int
    quantisation: str
    hosts: int
    missing: tuple[str, ...]
    cover: tuple[Cover, ...]

    @classmethod
    def served(
        cls,
        adverts: Iterable[Advert],
        *,
        name: str,
        cid: str,
        architecture: str,
        blocks: int,
        size_bytes: int,
        quantisation: str,
    ) -> "SwarmModel":
        """The model with what these adverts for it say of its layers."""
        adverts = list(adverts)
        covers = tuple(cover(adverts, blocks))
        return cls(
            name,
            cid,
            architecture,
            blocks,
            size_bytes,
            quantisation,
            hosts=len({advert.peer for advert in adverts if advert.slices}),
            missing=tuple(each.layers for each in covers if each.hosts == 0),
            cover=covers,
        )


def cover(adverts: Iterable[Advert], blocks: int) -> list[Cover]:
    """How many peers have each layer of a model with so many, in order; ranges beyond its end are cut off.

    The work grows with the adverts, not with `blocks`, which is a number that somebody said.
    """
    held: dict[PeerId, set[LayerRange]] = {}
    for advert in adverts:
        held.setdefault(advert.peer, set()).update(advert.slices)
    changes: dict[int, int] = {0: 0, blocks: 0}
    for ranges in held.values():
        for start, end in _joined(ranges, blocks):
            changes[start] = changes.get(start, 0) + 1
            changes[end] = changes.get(end, 0) - 1
    borders = sorted(border for border in changes if changes[border] or border in (0, blocks))
    covers, hosts = [], 0
    for start, end in pairwise(borders):
        hosts += changes[start]
        covers.append(Cover(str(LayerRange(start, end)), hosts))
    return covers


def _joined(ranges: Iterable[LayerRange], blocks: int) -> list[tuple[int, int]]:
    """One peer's ranges, each layer once."""
    joined: list[tuple[int, int]] = []
    for each in sorted(ranges):
        start, end = each.start, min(each.end, blocks)
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


class Network(Protocol):
    """What a node knows of others. Methods raise IntelNavError, and take a bounded time."""

    async def peers(self) -> Neighbours:
        """Whom this node is connected to, and whom it knows."""

    async def route(self, model: str, count: int) -> dict[str, Any]:
        """Up to `count` chains that a request would take now, as `chain.preview.preview` describes them.

        ConfigError for a model that this node does not answer for.
        """

    async def swarm_models(self) -> tuple[SwarmModel, ...]:
        """What the swarm serves; the models with the most hosts first, and not without bound."""


def network_routes(network: Network) -> list[Route]:
    """`/peers`, `/route/MODEL` and `/swarm/models`."""

    async def peers(_: Request) -> Any:
        return asdict(await network.peers())

    async def route(request: Request) -> Any:
        return await network.route(request.path_params["model"], _count(request))

    async def swarm_models(_: Request) -> Any:
        return {"models": [asdict(model) for model in await network.swarm_models()]}

    return [
        Route("/peers", _answer(peers)),
        Route("/route/{model:path}", _answer(route)),
        Route("/swarm/models", _answer(swarm_models)),
    ]


def _answer(find: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers with what `find` returns, or with its error."""

    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await find(request))
        except IntelNavError as error:
            return ApiError.of(error).response()

    return endpoint


def _count(request: Request) -> int:
    """How many chains are asked for; ApiError 400 for a wrong number or another parameter."""
    given = request.query_params
    for name in given:
        if name != "count":
            raise ApiError(
                400, "unsupported_parameter", f"{name[:40]!r} is no parameter here", param=name[:40]
            )
    text = given.get("count", "1")
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= MAX_ROUTES):
        raise ApiError(400, "invalid_value", f"count must be a number from 1 to {MAX_ROUTES}", param="count")
    return int(text)
