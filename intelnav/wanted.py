"""What the config asks for: slices to keep, models to answer for, peers to know."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from anyio import to_thread

from intelnav.chain.entry import EntryModel
from intelnav.config import EntryConfig, NodeConfig, SliceConfig
from intelnav.controller.loop import Controller
from intelnav.controller.shelf import Shelf
from intelnav.controller.state import Room, SliceName, WantedSlice
from intelnav.domain.advert import Address, Advert
from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.store.model_file import ModelFile, describe


class ConfiguredPeers:
    """The peers that the config names, as a discovery: they are believed, and asked for bytes as well."""

    def __init__(self, config: NodeConfig) -> None:
        self.peers = config.network.peers
        self.shelf: Shelf

    async def providers(self, model: str) -> list[Advert]:
        """What each peer serves of the model with this CID, in the order of the config."""
        adverts = []
        for peer in self.peers:
            ranges = tuple(offer.layers for offer in peer.slices if self.shelf.cid_of(offer.model) == model)
            if ranges:
                adverts.append(Advert(peer.id, (peer.address,), model, ranges, chunks=peer.chunks))
        return adverts

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        """Every peer that gives out bytes: it may have more of a model than it serves layers of."""
        return [peer.chunks for peer in self.peers if peer.chunks is not None]


def wanted_slices(config: NodeConfig, hosted: Sequence[SliceConfig]) -> tuple[WantedSlice, ...]:
    """Each slice once: those that are `hosted` for others, then what the entries of the config need beside them."""
    found: dict[SliceName, WantedSlice] = {}
    for settings in hosted:
        name = name_of(settings)
        found.setdefault(name, WantedSlice(name, room_of(config, settings)))
    for name in _entry_slices(config):
        found.setdefault(name, WantedSlice(name, room_of(config), hosted=False))
    return tuple(found.values())


def name_of(settings: SliceConfig) -> SliceName:
    """Which slice these settings mean."""
    return SliceName(settings.model, settings.layers)


def room_of(config: NodeConfig, settings: SliceConfig | None = None) -> Room:
    """How a slice is loaded; what its own `settings` leave out is as in `limits`."""
    limits, backend = config.limits, config.backend
    sessions, context = (None, None) if settings is None else (settings.sessions, settings.context)
    return Room(
        sessions if sessions is not None else limits.sessions,
        context if context is not None else limits.context,
        limits.rows,
        backend.device,
        backend.gpu_layers,
        backend.threads,
    )


def entry_models(config: NodeConfig, controller: Controller) -> list[EntryModel]:
    """The models that the config answers for, out of the slices that are loaded."""
    return [
        EntryModel(
            partial(controller.cid, front := SliceName(settings.model, settings.layers)),
            settings.name,
            config.network.dtype,
            partial(controller.engine, front),
            partial(controller.engine, _last(settings)) if settings.head == "entry" else None,
        )
        for settings in config.entry
    ]


def _last(settings: EntryConfig) -> SliceName:
    # The head rides on the last layer: llama.cpp loads no model without one (docs/adr/0003).
    return SliceName(settings.model, None)


def _entry_slices(config: NodeConfig) -> Iterator[SliceName]:
    for settings in config.entry:
        yield SliceName(settings.model, settings.layers)
        if settings.head == "entry":
            yield _last(settings)


async def check(config: NodeConfig, shelf: Shelf) -> None:
    """Hold the layers of the config against the files that it names; ConfigError by key, ContentError.

    Models that lie elsewhere are looked at when they are here.
    """
    for index, wanted in enumerate(config.slices):
        await check_layers(f"slices[{index}]", wanted.model, wanted.layers)
    for index, settings in enumerate(config.entry):
        await check_layers(f"entry[{index}]", settings.model, settings.layers)
    for peer in config.network.peers:
        for offer in peer.slices:
            if offer.model.kind == "path":
                await shelf.find(offer.model)


async def check_layers(key: str, ref: ModelRef, layers: LayerRange) -> None:
    """Hold layers against the file that `ref` names, if it names one; ConfigError for `key`, ContentError."""
    if ref.kind != "path":
        return
    file: ModelFile = await to_thread.run_sync(describe, Path(ref.value))
    if not file.can_give(layers):
        fix = f"choose a range within {file.layers}" if file.is_whole else f"write {file.layers}"
        held = "has" if file.is_whole else "is a slice, with just"
        raise ConfigError(f"{key}.layers = {layers}: {ref.value} {held} layers {file.layers}; {fix}")
