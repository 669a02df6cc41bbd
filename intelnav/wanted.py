"""What the config asks for, held against the model files that it names: slices to keep, models to answer for, peers."""

from pathlib import Path

from anyio import from_thread, to_thread

from intelnav.chain.entry import EntryModel
from intelnav.config import EntryConfig, NodeConfig, PeerConfig
from intelnav.controller.keeper import SliceKeeper, WantedSlice
from intelnav.controller.ledger import MemoryLedger
from intelnav.domain.advert import Advert
from intelnav.domain.errors import ConfigError
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceSpec
from intelnav.store.manifest import manifest_of
from intelnav.store.model_file import ModelFile, describe


class Wanted:
    """The slices, entries and adverts of one config, each model file read once.

    `hosted` are the keepers of the slices for others, `fronts` those of the entries' front layers; `keepers` are all.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.keepers: dict[tuple[str, LayerRange], SliceKeeper] = {}
        self.hosted: list[SliceKeeper] = []
        self.fronts: list[SliceKeeper] = []
        self.entries: list[EntryModel] = []
        self.adverts: list[Advert] = []
        self._config = config
        self._ledger = MemoryLedger.of_machine()
        self._models: dict[Path, tuple[str, ModelFile]] = {}

    async def read(self) -> None:
        """Read and name every model file. Raises ConfigError with the key of what a file cannot give, ContentError."""
        for index, wanted in enumerate(self._config.slices):
            self.hosted.append(await self._keeper(f"slices[{index}]", _file(wanted.model), wanted.layers))
        for index, settings in enumerate(self._config.entry):
            self.entries.append(await self._entry(f"entry[{index}]", settings))
        for peer in self._config.network.peers:
            self.adverts += await self._adverts(peer)

    async def _keeper(self, key: str, path: Path, layers: LayerRange) -> SliceKeeper:
        """The keeper of these layers; the same one for a slice that is wanted twice. `key` is the config's."""
        model, file = await self._model(path)
        if not file.can_give(layers):
            fix = f"choose a range within {file.layers}" if file.is_whole else f"write {file.layers}"
            held = "has" if file.is_whole else "is a slice, with just"
            raise ConfigError(f"{key}.layers = {layers}: {path} {held} layers {file.layers}; {fix}")
        if (model, layers) not in self.keepers:
            limits, backend = self._config.limits, self._config.backend
            room = SliceSpec(
                path,
                sessions=limits.sessions,
                context=min(limits.context, file.context),
                max_rows=limits.rows,
                device=backend.device,
                gpu_layers=backend.gpu_layers,
                threads=backend.threads,
            )
            wanted = WantedSlice(model, file.name, path, layers, room)
            slices = self._config.data_dir / "slices"
            self.keepers[model, layers] = SliceKeeper(wanted, slices, self._ledger)
        return self.keepers[model, layers]

    async def _entry(self, key: str, settings: EntryConfig) -> EntryModel:
        path = _file(settings.model)
        model, file = await self._model(path)
        front = await self._keeper(key, path, settings.layers)
        self.fronts.append(front)
        head = None
        if settings.head == "entry" and settings.layers.end < file.blocks:
            # The head rides on the last layer: llama.cpp loads no model without one (docs/adr/0003).
            head = await self._keeper(key, path, LayerRange(file.blocks - 1, file.blocks))
        return EntryModel(
            model,
            settings.name,
            self._config.network.dtype,
            front.engine,
            head.engine if head is not None else None,
        )

    async def _adverts(self, peer: PeerConfig) -> list[Advert]:
        slices: dict[str, list[LayerRange]] = {}
        for offer in peer.slices:
            cid = offer.model.value if offer.model.kind == "cid" else None
            model = cid or (await self._model(_file(offer.model)))[0]
            slices.setdefault(model, []).append(offer.layers)
        return [Advert(peer.id, (peer.address,), model, tuple(ranges)) for model, ranges in slices.items()]

    async def _model(self, path: Path) -> tuple[str, ModelFile]:
        """The CID and the header of a model file; a slice carries the CID of the model that it was cut from."""
        if path not in self._models:
            file = await to_thread.run_sync(describe, path)
            model = file.model if file.model is not None else await to_thread.run_sync(_hashed, path)
            self._models[path] = model, file
        return self._models[path]


def _hashed(path: Path) -> str:
    """The CID of a whole model; a node that is told to stop does not wait for the end of it."""
    return manifest_of(path, from_thread.check_cancelled).cid


def _file(model: ModelRef) -> Path:
    """The file of a model that is named by its path."""
    if model.kind != "path":
        raise ConfigError(
            f"model = {model}: this node reads models from files; write the path of a GGUF file"
        )
    return Path(model.value)
