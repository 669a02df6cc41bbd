"""What the config asks for: slices to keep, models to answer for, peers to know."""

from collections.abc import Callable, Sequence
from pathlib import Path

from anyio import to_thread

from intelnav.chain.entry import EntryModel
from intelnav.config import EntryConfig, NodeConfig
from intelnav.controller.keeper import SliceKeeper, WantedSlice
from intelnav.controller.ledger import MemoryLedger
from intelnav.controller.shelf import Shelf
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef, model_name
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceSpec
from intelnav.store.model_file import ModelFile, describe


class ConfiguredPeers:
    """The peers that the config names, as a discovery: they are believed, and asked for bytes as well."""

    def __init__(self, config: NodeConfig) -> None:
        self._peers = config.network.peers
        self.shelf: Shelf

    async def providers(self, model: str) -> list[Advert]:
        """What each peer serves of the model with this CID, in the order of the config."""
        adverts = []
        for peer in self._peers:
            ranges = tuple(offer.layers for offer in peer.slices if self.shelf.cid_of(offer.model) == model)
            if ranges:
                adverts.append(Advert(peer.id, (peer.address,), model, ranges, chunks=peer.chunks))
        return adverts

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        """Every peer that gives out bytes: it may have more of a model than it serves layers of."""
        return [peer.chunks for peer in self._peers if peer.chunks is not None]


class Wanted:
    """The slices and entries of one config.

    `hosted` are the keepers of the slices for others, `fronts` those of the entries' front layers; `keepers` are all.
    """

    def __init__(self, config: NodeConfig, shelf: Shelf, changed: Callable[[], None]) -> None:
        """`changed` is called whenever a slice is, or is no longer, ready."""
        self.keepers: dict[tuple[ModelRef, LayerRange | None], SliceKeeper] = {}
        self.hosted: list[SliceKeeper] = []
        self.fronts: list[SliceKeeper] = []
        self.entries: list[EntryModel] = []
        self._config = config
        self._shelf = shelf
        self._changed = changed
        self._ledger = MemoryLedger.of_machine()
        for wanted in config.slices:
            self.hosted.append(self._keeper(wanted.model, wanted.layers))
        for settings in config.entry:
            self.entries.append(self._entry(settings))

    async def check(self) -> None:
        """Hold the layers of the config against the files that it names; ConfigError by key, ContentError.

        Models that lie elsewhere are looked at when they are here.
        """
        for index, wanted in enumerate(self._config.slices):
            await _check(f"slices[{index}]", wanted.model, wanted.layers)
        for index, settings in enumerate(self._config.entry):
            await _check(f"entry[{index}]", settings.model, settings.layers)
        for peer in self._config.network.peers:
            for offer in peer.slices:
                if offer.model.kind == "path":
                    await self._shelf.find(offer.model)

    def _keeper(self, model: ModelRef, layers: LayerRange | None) -> SliceKeeper:
        """The keeper of these layers, or of the last one; the same for a slice that is wanted twice."""
        if (model, layers) not in self.keepers:
            limits, backend = self._config.limits, self._config.backend
            room = SliceSpec(
                Path(),
                sessions=limits.sessions,
                context=limits.context,
                max_rows=limits.rows,
                device=backend.device,
                gpu_layers=backend.gpu_layers,
                threads=backend.threads,
            )
            wanted = WantedSlice(model, model_name(model.value), layers, room)
            self.keepers[model, layers] = SliceKeeper(wanted, self._shelf, self._ledger, self._changed)
        return self.keepers[model, layers]

    def _entry(self, settings: EntryConfig) -> EntryModel:
        front = self._keeper(settings.model, settings.layers)
        self.fronts.append(front)
        # The head rides on the last layer: llama.cpp loads no model without one (docs/adr/0003).
        head = self._keeper(settings.model, None) if settings.head == "entry" else None
        return EntryModel(
            front.cid,
            settings.name,
            self._config.network.dtype,
            front.engine,
            head.engine if head is not None else None,
        )


async def _check(key: str, ref: ModelRef, layers: LayerRange) -> None:
    if ref.kind != "path":
        return
    file: ModelFile = await to_thread.run_sync(describe, Path(ref.value))
    if not file.can_give(layers):
        fix = f"choose a range within {file.layers}" if file.is_whole else f"write {file.layers}"
        held = "has" if file.is_whole else "is a slice, with just"
        raise ConfigError(f"{key}.layers = {layers}: {ref.value} {held} layers {file.layers}; {fix}")
