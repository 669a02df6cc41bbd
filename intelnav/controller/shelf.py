"""Where a node's slices come from: files on this machine, its own store, peers, and the places where models lie."""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from anyio import to_thread
from httpx import AsyncClient

from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.job import JobProgress
from intelnav.domain.model_ref import ModelRef, origin_url
from intelnav.domain.slice import LayerRange
from intelnav.net.fetch import fetch_manifest, fetch_metadata, fetch_slice
from intelnav.net.importer import UselessModel, import_model
from intelnav.net.pace import Pace
from intelnav.net.progress import Progress
from intelnav.net.ranges import Busy, Missing, SourceError, read_whole
from intelnav.net.sources import OriginSource, PeerSource, Source
from intelnav.store.architectures import rules_of
from intelnav.store.blobs import Store
from intelnav.store.catalog import EMBEDDED, Catalog
from intelnav.store.embedded import embedded_model
from intelnav.store.layout import model_of
from intelnav.store.manifest import MAX_MANIFEST, Manifest
from intelnav.store.model_file import ModelFile, describe
from intelnav.store.names import Names

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """What a reference stands for. `manifest` is None only for a `file` that is a slice already: that of `layers`."""

    cid: str
    name: str
    blocks: int
    manifest: Manifest | None
    file: Path | None = None
    layers: LayerRange | None = None


class Providers(Protocol):
    """Who gives out the bytes of models."""

    async def chunk_servers(self, model: str) -> Sequence[Address]:
        """Where the blobs of the model with this CID may be fetched; best first."""
        ...


Note = Callable[[Literal["importing", "fetching", "stitching"], Progress | JobProgress], None]
"""Told what is being done (`importing`, `fetching`, `stitching`), with its figures."""

USELESS_SECONDS = 3600.0
"""A file that turned out to be of no use, once it was downloaded, is not downloaded again for so long."""

BESIDE = ".manifest.json"
"""What a publisher appends to the URL of a GGUF for that of its manifest."""


class Shelf:
    """Finds models and puts slices of them on this disk. One for each node; its parts are safe to use at once."""

    def __init__(
        self, store: Store, catalog: Catalog, providers: Providers, client: AsyncClient, rate: int | None
    ) -> None:
        """`rate` bounds what comes over the network, in bytes a second, for all slices together."""
        self.store = store
        # What the config names is never removed to make room.
        self.wanted: set[tuple[str, LayerRange]] = set()
        self.catalog = catalog
        self._names = Names(store, catalog)
        self._providers = providers
        self._client = client
        self._pace = Pace(rate)
        # What was downloaded whole and was of no use, when, and why.
        self._useless: dict[str, tuple[float, str]] = {}

    @property
    def bytes_fetched(self) -> int:
        """What came over the network for slices since the start, in bytes."""
        return self._pace.taken

    def limit(self, rate: int | None) -> None:
        """Bound what comes over the network from now on; see `rate` above."""
        self._pace.rate = rate

    def cid_of(self, ref: ModelRef) -> str | None:
        """The id that a reference stands for, as far as this node can tell without asking anyone."""
        if ref.kind == "cid":
            return ref.value
        if ref.kind == "path":
            known = self.store.known_file(Path(ref.value))
            return known.cid if known is not None else None
        with suppress(ConfigError):
            found = self._names.find(ref)
            return found.cid if found is not None else None
        return None

    def blocks_of(self, ref: ModelRef) -> int | None:
        """How many layers a model has, if this node knows it; ConfigError for a name that nobody knows. May block."""
        found = self._names.find(ref)
        return found.blocks if found is not None else None

    def names_of(self, ref: ModelRef) -> list[str]:
        """What a model of the store is called, as far as this node can tell without asking anyone. May block."""
        manifest = self.store.manifest(self.cid_of(ref) or "")
        return self._names.of(manifest) if manifest is not None else []

    def title_of(self, ref: ModelRef) -> str:
        """What a model of the store says that it is called; empty if it is not here. May block."""
        manifest = self.store.manifest(self.cid_of(ref) or "")
        return manifest.name if manifest is not None else ""

    async def find(self, ref: ModelRef, note: Note = lambda _doing, _progress: None) -> Model:
        """The model that `ref` names; what is not known yet is hashed, fetched or imported.

        Raises ConfigError for a name that nobody knows, ContentError for what is no sound model, and what a fetch or an
        import raises.
        """
        if ref.kind == "path":
            return await self._at(Path(ref.value), note)
        found = await to_thread.run_sync(self._names.find, ref)
        if isinstance(found, Manifest):
            return _whole(found)
        cid = ref.value if ref.kind == "cid" else found.cid if found is not None else None
        if found is not None and found.origin == EMBEDDED:
            try:
                path = embedded_model()
            except ConfigError:
                # Peers may have what is not installed here.
                if cid is None or not await self._peers(cid):
                    raise
            else:
                return await self._at(path, note)
        if cid is not None:
            return _whole(await self._manifest(cid, note))
        origin = ModelRef.parse(found.origin) if found is not None else ref
        return _whole(await self._published(origin) or await self._imported(origin.value, note))

    async def described(self, model: Model) -> ModelFile:
        """What a model is like, known without its file. Raises as a fetch does, and ContentError if it is unsound."""
        if model.manifest is None:
            assert model.file is not None
            return await to_thread.run_sync(describe, model.file)
        sources = [*await self._peers(model.cid), *self._origins(model.manifest)]
        metadata = await fetch_metadata(self.store, model.manifest, sources, Progress(), self._pace)
        return model_of(model.manifest, metadata, None)

    async def put(self, model: Model, layers: LayerRange, note: Note) -> Path:
        """The file to load for `layers`, put together if it is not here yet: from what this node has, then from others.

        Raises ConfigError for layers that the model does not have, and what a fetch raises.
        """
        if model.layers is not None:
            if model.layers != layers:
                raise ConfigError(
                    f"{model.file} is a slice, with just layers {model.layers}; write {model.layers}"
                )
            assert model.file is not None
            return model.file
        assert model.manifest is not None
        if layers.end > model.blocks:
            raise ConfigError(f"{model.name} has layers 0..{model.blocks}; choose a range within them")
        rules_of(model.manifest.architecture)
        whole = self.store.file_of(model.cid)
        self.wanted.add((model.cid, layers))
        if whole is not None and layers == LayerRange(0, model.blocks):
            return whole
        if (held := self.store.slice(model.cid, layers)) is not None:
            return held
        progress = Progress()
        note("fetching", progress)
        sources = [*await self._peers(model.cid), *self._origins(model.manifest)]
        return await fetch_slice(
            self.store,
            model.manifest,
            layers,
            sources,
            progress,
            pace=self._pace,
            keep=self.wanted,
            stage=lambda doing: note(doing, progress),
        )

    async def _at(self, path: Path, note: Note) -> Model:
        """The model in a file on this machine; a whole one is hashed once and given out from where it lies."""
        known = self.store.known_file(path)
        if known is not None:
            return _whole(known, path)
        file = await to_thread.run_sync(describe, path)
        if file.model is not None:
            return Model(file.model, file.name, file.blocks, None, path, file.layers)
        rules_of(file.architecture)
        return _whole(await self._imported(str(path), note), path)

    async def _manifest(self, cid: str, note: Note) -> Manifest:
        """The manifest with this CID, from a peer."""
        progress = Progress()
        note("fetching", progress)
        manifest = await fetch_manifest(cid, await self._peers(cid), progress)
        await to_thread.run_sync(self.store.add_manifest, manifest)
        return manifest

    async def _imported(self, what: str, note: Note) -> Manifest:
        """The model at `what`, whole; a publisher's manifest beside the file makes that needless."""
        progress = JobProgress()
        note("importing", progress)
        entry = self.catalog.of_origin(what)
        since, reason = self._useless.get(what, (-math.inf, ""))
        if time.monotonic() - since < USELESS_SECONDS:
            raise ContentError(f"{reason}; it is downloaded again in an hour, or by `intelnav models import`")
        try:
            return await import_model(
                self.store, what, progress, entry=entry, keep=self.wanted, rate=self._pace.rate
            )
        except UselessModel as error:
            self._useless[what] = time.monotonic(), str(error)
            raise

    async def _published(self, ref: ModelRef) -> Manifest | None:
        """The manifest that lies beside the file at a URL: who is believed for the file is believed for it."""
        try:
            data = await read_whole(self._client, origin_url(ref, os.environ) + BESIDE, MAX_MANIFEST)
        except (Missing, Busy, SourceError):
            return None
        try:
            manifest = Manifest.from_bytes(data)
        except ContentError as error:
            # Some servers have a page for every path.
            log.info("what lies beside a model's file, as %s, is no manifest: %s", BESIDE, error)
            return None
        await to_thread.run_sync(self.store.add_manifest, manifest)
        await to_thread.run_sync(self.store.add_origin, manifest.cid, origin_url(ref, os.environ))
        return manifest

    async def _peers(self, cid: str) -> list[Source]:
        return [PeerSource(self._client, address) for address in await self._providers.chunk_servers(cid)]

    def _origins(self, manifest: Manifest) -> list[Source]:
        urls = list(self.store.origins(manifest.cid))
        entry = self.catalog.of_cid(manifest.cid)
        if entry is not None and entry.origin != EMBEDDED and entry.origin not in urls:
            urls.append(entry.origin)
        return [
            OriginSource(self._client, origin_url(ModelRef.parse(url), os.environ), manifest) for url in urls
        ]


def _whole(manifest: Manifest, file: Path | None = None) -> Model:
    return Model(manifest.cid, manifest.name, manifest.blocks, manifest, file)
