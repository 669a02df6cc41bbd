"""What a machine could do for others: host a slice that fits its memory and that the swarm lacks most, or relay."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

from intelnav import machine
from intelnav.config import LimitsConfig
from intelnav.domain.errors import IntelNavError
from intelnav.domain.model_ref import model_name
from intelnav.domain.slice import LayerRange
from intelnav.store.architectures import ARCHITECTURES
from intelnav.store.catalog import EMBEDDED, MAX_SIZE, Catalog, CatalogEntry
from intelnav.store.cid import is_cid
from intelnav.store.embedded import embedded_model
from intelnav.store.footprint import cache_bytes, weights_bytes
from intelnav.store.model_file import MAX_BLOCKS, describe

# What a slice takes beside weights and caches: its process and llama.cpp's buffers.
OVERHEAD = 256 * 2**20
# The caches of a layer where the header is not at hand to tell; as much as 8 heads of 64 take at the default limits.
LAYER_CACHE = 64 * 2**20
# More models than are worth looking at.
MAX_OFFERS = 256
# What a further host of a layer is worth, if it has none; with so many hosts, the square of one more divides it.
_WORTH = 1_000_000


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine; `memory` and the `free` part of it in bytes."""

    cores: int
    memory: int
    free: int

    @property
    def room(self) -> int:
        """Bytes that a slice may take: half of what is free, so that the machine stays fit for its owner."""
        return self.free // 2


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that could be hosted. `need` says how many bytes a slice takes; `hosts` is how many each layer has."""

    ref: str
    name: str
    size: int
    hosts: tuple[int, ...]
    borders: frozenset[int]
    need: Callable[[LayerRange], int]


@dataclass(frozen=True, slots=True)
class Choice:
    """A slice to host; `need` is in bytes."""

    offer: Offer
    layers: LayerRange
    need: int

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole model."""
        return len(self.layers) == len(self.offer.hosts)

    @property
    def missing(self) -> int:
        """How many of its layers lack a host, of a model that has hosts."""
        held = self.offer.hosts[self.layers.start : self.layers.end]
        return held.count(0) if any(self.offer.hosts) else 0


def this_machine() -> Machine:
    """What this machine has."""
    memory = machine.memory()
    return Machine(machine.cores(), memory.total, memory.available)


def served_offers(models: Iterable[dict[str, Any]], catalog: Catalog) -> list[Offer]:
    """What can be hosted of the models that the swarm serves, as `GET /swarm/models` lists them.

    Peers wrote that list: what does not make sense, or cannot be run here, is left out, and so is what lies behind the
    first `MAX_OFFERS`.
    """
    offers = []
    for model in islice(models, MAX_OFFERS):
        try:
            offer = _served(model, catalog)
        except (ValueError, LookupError, TypeError, IntelNavError):
            continue
        if any(offer.hosts):
            offers.append(offer)
    return offers


def catalog_offers(catalog: Catalog) -> list[Offer]:
    """What can be hosted of the catalog: the models whose size is known, if they are at hand."""
    offers = []
    for entry in catalog.entries:
        if entry.size is None:
            continue
        try:
            need = _need(entry, entry.size, entry.blocks)
        except IntelNavError:
            continue
        borders = frozenset((0, *entry.cuts, entry.blocks))
        offers.append(Offer(entry.name, entry.name, entry.size, (0,) * entry.blocks, borders, need))
    return offers


def choose(served: Sequence[Offer], known: Sequence[Offer], room: int) -> Choice | None:
    """The slice within `room` bytes that is worth most to the swarm, or None if nothing fits.

    Layers without a host, of a model that others serve, come first, then those with few hosts. Of what nobody serves,
    the model of which the largest part fits is taken, and of several the largest.
    """
    fitting = [choice for offer in served if (choice := _best(offer, room)) is not None]
    if fitting:
        return max(fitting, key=lambda choice: (choice.missing > 0, _worth(choice), choice.offer.name))
    fitting = [choice for offer in known if (choice := _best(offer, room)) is not None]
    return max(
        fitting,
        key=lambda choice: (len(choice.layers) / len(choice.offer.hosts), choice.offer.size),
        default=None,
    )


def _best(offer: Offer, room: int) -> Choice | None:
    """The slice of one model that is worth most. Where several are, one between borders, then the last.

    The last, because the first layers are those that whoever asks runs anyway.
    """
    blocks = len(offer.hosts)
    worth = [0, *accumulate(_WORTH // (1 + hosts) ** 2 for hosts in offer.hosts)]
    best, best_key = None, (-1, 0, 0)
    for start in range(blocks):
        ends = range(start + 1, blocks + 1)
        fitting = bisect_right(ends, room, key=lambda end, at=start: offer.need(LayerRange(at, end)))  # type: ignore[misc]
        if fitting == 0:
            continue
        end = ends[fitting - 1]
        key = (worth[end] - worth[start], (start in offer.borders) + (end in offer.borders), start)
        if key > best_key:
            best, best_key = LayerRange(start, end), key
    return None if best is None else Choice(offer, best, offer.need(best))


def _worth(choice: Choice) -> int:
    held = choice.offer.hosts[choice.layers.start : choice.layers.end]
    return sum(_WORTH // (1 + hosts) ** 2 for hosts in held)


def _served(model: dict[str, Any], catalog: Catalog) -> Offer:
    cid, blocks, size = model["cid"], model["blocks"], model["size_bytes"]
    if not is_cid(cid) or model["architecture"] not in ARCHITECTURES:
        raise ValueError("it cannot be run here")
    if type(blocks) is not int or type(size) is not int or not 1 <= size <= MAX_SIZE:
        raise ValueError("no model is of that size")
    if not 1 <= blocks <= MAX_BLOCKS:
        raise ValueError("no model has so many layers")
    hosts, borders = [0] * blocks, {0, blocks}
    for part in model["cover"]:
        layers, count = LayerRange.parse(str(part["layers"])), part["hosts"]
        if layers.end > blocks or type(count) is not int or count < 0:
            raise ValueError("these layers are not the model's")
        hosts[layers.start : layers.end] = [count] * len(layers)
        borders |= {layers.start, layers.end}
    entry = catalog.of_cid(cid)
    return Offer(
        cid if entry is None else entry.name,
        model_name(str(model["name"])) if entry is None else entry.name,
        size,
        tuple(hosts),
        frozenset(borders),
        _need(entry, size, blocks),
    )


def _need(entry: CatalogEntry | None, size: int, blocks: int) -> Callable[[LayerRange], int]:
    """How much memory a slice takes: by the header of the model that is installed along, else by its size alone.

    Raises IntelNavError if that model is not installed.
    """
    if entry is None or entry.origin != EMBEDDED:
        # Twice the weights, for the ends of a model are heavier than its middle.
        layer = 2 * size // blocks + LAYER_CACHE
        return lambda layers: OVERHEAD + len(layers) * layer
    file, limits = describe(embedded_model()), LimitsConfig()
    return lambda layers: (
        OVERHEAD + weights_bytes(file, layers) + cache_bytes(file, layers, limits.context, limits.sessions)
    )
