"""Where a node's slices come from: files on this machine, its own store, peers, and the places where models lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

from anyio import to_thread
from httpx import AsyncClient

from intelnav.domain.advert import Address
from intelnav.domain.errors import ConfigError
from intelnav.domain.job import JobProgress
from intelnav.domain.model_ref import ModelRef, model_name
from intelnav.domain.slice import LayerRange
from intelnav.net.fetch import fetch_manifest, fetch_slice
from intelnav.net.importer import import_model, origin_url
from intelnav.net.pace import Pace
from intelnav.net.progress import Progress
from intelnav.net.ranges import Busy, Missing, SourceError, read_whole
from intelnav.net.sources import OriginSource, PeerSource, Source
from intelnav.store.architectures import rules_of
from intelnav.store.blobs import Store
from intelnav.store.catalog import EMBEDDED, Catalog
from intelnav.store.embedded import embedded_model
from intelnav.store.manifest import MAX_MANIFEST, Manifest
from intelnav.store.model_file import describe


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


Note = Callable[[str, Progress | JobProgress], None]
"""Told what is being done (`importing`, `fetching`), with its figures."""

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
        self._catalog = catalog
        self._providers = providers
        self._client = client
        self._rate = rate
        self._pace = Pace(rate)

    def cid_of(self, ref: ModelRef) -> str | None:
        """The id that a reference stands for, as far as this node can tell without asking anyone."""
        match ref.kind:
            case "cid":
                return ref.value
            case "path":
                known = self.store.known_file(Path(ref.value))
                return known.cid if known else None
            case "name":
                entry = self._catalog.named(ref.value)
                if entry is not None and entry.cid is not None:
                    return entry.cid
                held = [m.cid for m in self.store.manifests() if ref.value in (m.name, model_name(m.name))]
                return held[0] if len(held) == 1 else None
            case _:
                for manifest in self.store.manifests():
                    if ref.value in self.store.origins(manifest.cid):
                        return manifest.cid
                entry = self._catalog.of_origin(ref.value)
                return entry.cid if entry is not None else None

    async def find(self, ref: ModelRef, note: Note = lambda _doing, _progress: None) -> Model:
        """The model that `ref` names; what is not known yet is hashed, fetched or imported.

        Raises ConfigError for a name that nobody knows, ContentError for what is no sound model, and what a fetch
        raises.
        """
        if ref.kind == "path":
            return await self._at(Path(ref.value), note)
        if ref.kind == "name" and self.cid_of(ref) is None:
            return await self._named(ref.value, note)
        cid = self.cid_of(ref)
        if cid is None:
            published = await self._published(ref)
            if published is None:
                return _whole(await self._imported(ref.value, note))
            self.store.add_manifest(published)
            cid = published.cid
        manifest = self.store.manifest(cid)
        if manifest is None:
            entry = self._catalog.of_cid(cid)
            if entry is not None and entry.origin == EMBEDDED:
                return await self._at(embedded_model(), note)
            progress = Progress()
            note("fetching", progress)
            manifest = await fetch_manifest(cid, await self._peers(cid), progress)
            self.store.add_manifest(manifest)
        if ref.kind in ("url", "hub"):
            self.store.add_origin(cid, ref.value)
        return _whole(manifest)

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
        if whole is not None and layers == LayerRange(0, model.blocks):
            return whole
        if (held := self.store.slice(model.cid, layers)) is not None:
            self.wanted.add((model.cid, layers))
            return held
        self.wanted.add((model.cid, layers))
        progress = Progress()
        note("fetching", progress)
        sources = [*await self._peers(model.cid), *self._origins(model.manifest)]
        return await fetch_slice(
            self.store, model.manifest, layers, sources, progress, pace=self._pace, keep=self.wanted
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

    async def _named(self, name: str, note: Note) -> Model:
        """A model that only its catalog entry tells of: it comes from its origin, whole."""
        entry = self._catalog.named(name)
        if entry is None:
            known = [
                *(e.name for e in self._catalog.entries),
                *(model_name(m.name) for m in self.store.manifests()),
            ]
            close = get_close_matches(name, known, n=3)
            raise ConfigError(
                f"no model {name!r} is known here; "
                + (f"did you mean {' or '.join(close)}?" if close else "`intelnav models` lists what is")
            )
        if entry.origin == EMBEDDED:
            return await self._at(embedded_model(), note)
        return _whole(await self._imported(entry.origin, note))

    async def _imported(self, what: str, note: Note) -> Manifest:
        """The model at `what`, whole; a publisher's manifest beside the file makes that needless."""
        progress = JobProgress()
        note("importing", progress)
        entry = self._catalog.of_origin(what)
        return await import_model(self.store, what, progress, entry=entry, keep=self.wanted, rate=self._rate)

    async def _published(self, ref: ModelRef) -> Manifest | None:
        """The manifest that lies beside the file at a URL: who is believed for the file is believed for it."""
        try:
            data = await read_whole(self._client, origin_url(ref) + BESIDE, MAX_MANIFEST)
            return Manifest.from_bytes(data)
        except (Missing, Busy, SourceError):
            return None

    async def _peers(self, cid: str) -> list[Source]:
        return [PeerSource(self._client, address) for address in await self._providers.chunk_servers(cid)]

    def _origins(self, manifest: Manifest) -> list[Source]:
        urls = list(self.store.origins(manifest.cid))
        entry = self._catalog.of_cid(manifest.cid)
        if entry is not None and entry.origin != EMBEDDED and entry.origin not in urls:
            urls.append(entry.origin)
        return [OriginSource(self._client, origin_url(ModelRef.parse(url)), manifest) for url in urls]


def _whole(manifest: Manifest, file: Path | None = None) -> Model:
    return Model(manifest.cid, manifest.name, manifest.blocks, manifest, file)
