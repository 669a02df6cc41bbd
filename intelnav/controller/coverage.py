"""Who else hosts the layers of one model, and since when that is so: what `slices: auto` goes by."""

from collections.abc import Iterable
from dataclasses import dataclass

from intelnav.domain.identity import PeerId
from intelnav.domain.slice import LayerRange

Offer = tuple[PeerId, LayerRange]
"""What a peer's advert says of one model."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The peers that host each layer, and when this node saw them change last.

    `offers` are those of other peers, within the model; `changed` has a time for each of its layers.
    """

    offers: frozenset[Offer]
    changed: tuple[float, ...]

    def hosts(self, layer: int) -> frozenset[PeerId]:
        """Who hosts this layer."""
        return frozenset(peer for peer, layers in self.offers if layers.start <= layer < layers.end)

    def counts(self) -> list[int]:
        """How many peers host each layer."""
        return [len(self.hosts(layer)) for layer in range(len(self.changed))]


def seen(before: Coverage | None, offers: Iterable[Offer], own: PeerId, blocks: int, now: float) -> Coverage:
    """What is known once these offers have come in; layers whose hosts are as `before` keep their time.

    The node's own offers, and layers that the model does not have, are left out.
    """
    known = frozenset(
        (peer, LayerRange(layers.start, min(layers.end, blocks)))
        for peer, layers in offers
        if peer != own and layers.start < blocks
    )
    after = Coverage(known, (now,) * blocks)
    if before is None or len(before.changed) != blocks:
        return after
    changed = tuple(
        before.changed[layer] if before.hosts(layer) == after.hosts(layer) else now for layer in range(blocks)
    )
    return Coverage(known, changed)
